//! The handle by which the rest of the program asks for forecasts and looks at what goes on.
//!
//! Holds no policy of its own: it walks the rooms in order. Cheap to clone.

mod admit;
mod doorstep;
mod elsewhere;
mod in_line;
mod load;
mod probed;
mod recorded;
mod released;
mod traced;
mod views;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use peregrine_runtime::{AskError, Clock, Deadline, StartError, reply_slot};
use peregrine_shaders::{Forecaster, Windows};

use crate::audit::Audit;
use crate::breaker::Orders;
use crate::health::{Meters, Steady};
use crate::inference::{ExecutorFactory, Ledger};
use crate::remote::Remote;
use crate::request::{Forecast, ForecastError, ForecastRequest};
use crate::router::Route;
use crate::settings::Settings;
use crate::status::ModelStatus;
use crate::supervisor::{self, Started};
use crate::trace::SpanSink;

pub use load::LoadRefused;

/// A running system of actors that answers forecasts.
#[derive(Clone)]
pub struct System {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    clock: Arc<dyn Clock>,
    rooms: Started,
    /// Of operators, about breakers.
    orders: Arc<Orders>,
    loading: parking_lot::Mutex<Vec<Arc<ModelStatus>>>,
    /// Models that the GPUs will be given; `None`: they have all, and answer.
    later: parking_lot::Mutex<Option<Vec<Weak<Forecaster>>>>,
    /// By name and version, kept over unloading: what counts only ever grows. As many as the repository has names.
    ledgers: parking_lot::Mutex<BTreeMap<(String, u32), Arc<Ledger>>>,
    stopping: AtomicBool,
    steady: parking_lot::Mutex<Steady>,
    /// Where forecasts are had that this node cannot make; empty until it is part of a cluster.
    remote: OnceLock<Remote>,
    /// Where answers are recorded; empty: nowhere.
    audit: OnceLock<Arc<Audit>>,
    /// Where spans of requests from other nodes go; empty: nowhere.
    spans: OnceLock<Arc<dyn SpanSink>>,
    numbers: recorded::Numbers,
}

impl System {
    /// Starts the supervised tree on threads of its own and returns before its devices are up.
    ///
    /// # Errors
    /// When the process has no thread left.
    pub fn start(
        settings: Settings,
        cpu: ExecutorFactory,
        gpus: impl IntoIterator<Item = ExecutorFactory>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self, StartError> {
        Self::start_metered(settings, cpu, gpus, None, clock, seed)
    }

    /// As [`System::start`], with devices whose driver can be asked how they fare.
    ///
    /// # Errors
    /// When the process has no thread left.
    pub fn start_metered(
        settings: Settings,
        cpu: ExecutorFactory,
        gpus: impl IntoIterator<Item = ExecutorFactory>,
        meters: Option<Arc<dyn Meters>>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self, StartError> {
        let orders = Arc::new(Orders::new(settings.breaker_mode));
        let rooms = supervisor::start(&settings, &orders, cpu, gpus, meters, &clock, seed)?;
        let loading = parking_lot::Mutex::new(Vec::new());
        let holds_gpus = settings.holds_gpus() && !rooms.lines.gpus.is_empty();
        let later = parking_lot::Mutex::new(holds_gpus.then(Vec::new));
        let ledgers = parking_lot::Mutex::new(BTreeMap::new());
        let stopping = AtomicBool::new(false);
        let steady = parking_lot::Mutex::new(Steady::new());
        let (remote, audit, spans) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let numbers = recorded::Numbers::starting(clock.wall());
        let inner = Inner {
            settings,
            clock,
            rooms,
            orders,
            loading,
            later,
            ledgers,
            stopping,
            steady,
            remote,
            audit,
            spans,
            numbers,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Answers a request, on this node or another. Dropping the future drops its work if that has not begun.
    ///
    /// # Errors
    /// See [`ForecastError`]; it ends by the request's deadline whatever happens. Needs a tokio timer around it.
    pub async fn forecast(&self, request: ForecastRequest) -> Result<Forecast, ForecastError> {
        let now = self.inner.clock.now();
        if request.origin.trace.is_recorded() {
            return Box::pin(self.traced(request, now)).await;
        }
        self.asked(request, now).await
    }

    async fn asked(&self, request: ForecastRequest, now: Instant) -> Result<Forecast, ForecastError> {
        let (found, lot) = self.chosen(&request);
        match lot {
            None => self.kept(found, request, now).await,
            Some(lot) => Box::pin(self.released(lot, found, request, now)).await,
        }
    }

    /// Answers a request and records the answer, where answers are recorded.
    async fn kept(
        &self,
        found: Result<Arc<Route>, ForecastError>,
        request: ForecastRequest,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        match self.inner.audit.get() {
            None => self.answer(found.as_ref().map_err(Clone::clone), request, now).await,
            Some(audit) => self.recorded(audit, found, request, now).await,
        }
    }

    async fn answer(
        &self,
        found: Result<&Arc<Route>, ForecastError>,
        request: ForecastRequest,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        match (found, self.inner.remote.get()) {
            (Ok(route), None) => self
                .local(route, request, now, Resort::Last)
                .await
                .map_err(|refused| self.counted(route, *refused, now)),
            (Ok(route), Some(remote)) => self.near_or_far(remote, route, request, now).await,
            (Err(unknown), Some(remote)) => self.far(remote, request, unknown, now).await,
            (Err(unknown), None) => Err(unknown),
        }
    }

    /// Answers on a device of this node.
    async fn local(
        &self,
        route: &Route,
        request: ForecastRequest,
        now: Instant,
        resort: Resort,
    ) -> Result<Forecast, Box<NotHere>> {
        let deadline = request.deadline;
        let (slot, reply) = reply_slot();
        self.admit(route, request, slot, (now, resort))?;
        let error = match reply.before(deadline).await {
            // What was computed in this thread held up the timer too.
            Ok(Ok(_)) if deadline.expired(self.inner.clock.now()) => {
                let error = ForecastError::DeadlineExceeded;
                return Err(Box::new(NotHere { error, windows: None, is_counted: true }));
            }
            // The devices count what they answer.
            Ok(answer) => {
                return answer.map_err(|error| Box::new(NotHere { error, windows: None, is_counted: true }));
            }
            Err(AskError::Deadline) => ForecastError::DeadlineExceeded,
            Err(_failed) => ForecastError::unavailable("the device failed while it had the request"),
        };
        Err(NotHere::with(None)(error))
    }

    /// Notes in the model's ledger that a request has failed, if that was not done where it did.
    fn counted(&self, route: &Route, refused: NotHere, since: Instant) -> ForecastError {
        if !refused.is_counted {
            route.served.ledger.failed(self.inner.clock.now().saturating_duration_since(since));
        }
        refused.error
    }

    /// Whether a request could be answered by anybody.
    fn check(
        &self,
        request: &ForecastRequest,
        model: &ModelStatus,
        now: Instant,
    ) -> Result<(), ForecastError> {
        self.check_size(request)?;
        request.windows.check(&model.spec)?;
        self.check_time(request.deadline, now)
    }

    fn check_size(&self, request: &ForecastRequest) -> Result<(), ForecastError> {
        let (rows, max) = (request.windows.rows, self.inner.settings.batching.request_rows_max);
        if rows > max { Err(ForecastError::TooManyRows { rows, max }) } else { Ok(()) }
    }

    fn check_time(&self, deadline: Deadline, now: Instant) -> Result<(), ForecastError> {
        if deadline.expired(now) {
            return Err(ForecastError::DeadlineExceeded);
        }
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err(ForecastError::unavailable("the node is stopping"));
        }
        Ok(())
    }

    /// The deadline of a request that states none.
    #[must_use]
    pub fn default_deadline(&self) -> Deadline {
        Deadline::after(self.inner.clock.now(), self.inner.settings.default_deadline)
    }

    /// Refuses new requests, answers those accepted, and ends the actors; at the deadline the rest is told that the
    /// node stopped.
    pub async fn stop(&self, deadline: Deadline) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let report = self.inner.rooms.tree.stop(deadline).await;
        if report.stuck.is_empty() {
            self.inner.rooms.lines.iter().for_each(|(_, line)| line.shut("the node stopped"));
        } else {
            tracing::warn!(stuck = ?report.stuck, "actors did not stop in time");
        }
    }
}

/// Whether anybody else may answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resort {
    /// Another node may.
    First,
    /// Nobody: a device that is merely slow is better than none.
    Last,
}

/// A request that no device here answered.
struct NotHere {
    error: ForecastError,
    /// What it asked, if no device has begun with it.
    windows: Option<Windows>,
    /// The model's ledger knows already.
    is_counted: bool,
}

impl NotHere {
    fn with(windows: Option<Windows>) -> impl FnOnce(ForecastError) -> Box<Self> {
        move |error| Box::new(Self { error, windows, is_counted: false })
    }
}
