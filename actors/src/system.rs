//! The handle by which the rest of the program asks for forecasts and looks at what goes on.
//!
//! Holds no policy of its own: it walks the rooms in order. Cheap to clone.

mod elsewhere;
mod recorded;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use peregrine_runtime::{Address, AskError, Clock, Deadline, StartError, Tree, reply_slot};
use peregrine_shaders::{Backend, ExecuteError, Forecaster, Windows};

use crate::audit::Audit;
use crate::breaker::{
    BreakerMail, BreakerMode, BreakerSelector, Gate, GateSpec, Mend, Orders, Permit, TooManyOrders,
};
use crate::health::{Findings, Meters, Now, Steady, judge, known_meters};
use crate::inference::{
    ExecutorFactory, Job, Judge, Judges, Ledger, Line, Order, Pace, Paces, Refused, Sampler, Served, Ticket,
};
use crate::profile::Terms;
use crate::remote::Remote;
use crate::request::{Forecast, ForecastError, ForecastRequest};
use crate::router::{Outlook, Route, RouterMail, prefers_cpu};
use crate::settings::{FallbackPolicy, Placement, Settings};
use crate::status::{
    BreakerState, BreakerStatus, DeviceState, Guarded, Health, ModelState, ModelStats, ModelStatus,
    PaceStatus,
};
use crate::supervisor::{self, Started};

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
    /// By name and version, kept over unloading: what counts only ever grows. As many as the repository has names.
    ledgers: parking_lot::Mutex<BTreeMap<(String, u32), Arc<Ledger>>>,
    stopping: AtomicBool,
    steady: parking_lot::Mutex<Steady>,
    /// Where forecasts are had that this node cannot make; empty until it is part of a cluster.
    remote: OnceLock<Remote>,
    /// Where answers are recorded; empty: nowhere.
    audit: OnceLock<Arc<Audit>>,
    numbers: recorded::Numbers,
}

/// Why a model was not loaded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoadRefused {
    /// A device that must serve it cannot. The operator acts.
    #[error("{backend} refused the model: {error}", backend = .backend.name())]
    Device {
        /// Which one.
        backend: Backend,
        /// What it said.
        error: ExecuteError,
    },
    /// A device that must serve it is down. Come back later.
    #[error("{backend} is down", backend = .backend.name())]
    DeviceDown {
        /// Which one.
        backend: Backend,
    },
    /// It took too long. Come back later.
    #[error("the devices did not take the model in time")]
    Deadline,
    /// The system is stopping.
    #[error("the system is stopping")]
    Stopping,
}

impl System {
    /// Starts the supervised tree on threads of its own and returns before its devices are up.
    ///
    /// # Errors
    /// When the process has no thread left.
    pub fn start(
        settings: Settings,
        cpu: ExecutorFactory,
        gpu: Option<ExecutorFactory>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self, StartError> {
        Self::start_metered(settings, cpu, gpu, None, clock, seed)
    }

    /// As [`System::start`], with devices whose driver can be asked how they fare.
    ///
    /// # Errors
    /// When the process has no thread left.
    pub fn start_metered(
        settings: Settings,
        cpu: ExecutorFactory,
        gpu: Option<ExecutorFactory>,
        meters: Option<Arc<dyn Meters>>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self, StartError> {
        let rooms = supervisor::start(&settings, cpu, gpu, meters, &clock, seed)?;
        let loading = parking_lot::Mutex::new(Vec::new());
        let ledgers = parking_lot::Mutex::new(BTreeMap::new());
        let stopping = AtomicBool::new(false);
        let steady = parking_lot::Mutex::new(Steady::new());
        let (remote, audit) = (OnceLock::new(), OnceLock::new());
        let orders = Arc::new(Orders::new(settings.breaker_mode));
        let numbers = recorded::Numbers::starting(clock.wall());
        let inner = Inner {
            settings,
            clock,
            rooms,
            orders,
            loading,
            ledgers,
            stopping,
            steady,
            remote,
            audit,
            numbers,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Brings a model to the devices, then serves it. What served this name and version before goes on until then,
    /// and finishes what it has accepted.
    ///
    /// # Errors
    /// When a device that must serve it refuses or is down; see [`LoadRefused`].
    pub async fn load(&self, forecaster: Arc<Forecaster>, version: u32) -> Result<(), LoadRefused> {
        let status = |state| {
            Arc::new(ModelStatus {
                spec: Arc::clone(forecaster.spec()),
                version,
                digest: forecaster.digest().to_owned(),
                state,
                weight_bytes: forecaster.weight_bytes(),
            })
        };
        let deadline =
            Deadline::after(Instant::from(tokio::time::Instant::now()), self.inner.settings.load_within);
        let name = forecaster.spec().name.clone();
        let announcement = Announcement { inner: &self.inner, status: status(ModelState::Loading) };
        self.inner.loading.lock().push(Arc::clone(&announcement.status));
        self.ask_router(RouterMail::Announce { model: name.clone(), version }, deadline).await?;
        self.prepare(&forecaster, deadline).await?;
        let route = Arc::new(self.route(&forecaster, status(ModelState::Ready)));
        self.ask_router(RouterMail::Publish { route }, deadline).await?;
        Ok(())
    }

    /// Stops serving a version, or all of them; requests already accepted are answered. False: there was none.
    pub async fn unload(&self, model: &str, version: Option<u32>) -> bool {
        let deadline =
            Deadline::after(Instant::from(tokio::time::Instant::now()), self.inner.settings.load_within);
        let mail = RouterMail::Remove { model: model.to_owned(), version };
        self.ask_router(mail, deadline).await.unwrap_or(false)
    }

    /// Answers a request, on this node or another. Dropping the future drops its work if that has not begun.
    ///
    /// # Errors
    /// See [`ForecastError`]; it ends by the request's deadline whatever happens. Needs a tokio timer around it.
    pub async fn forecast(&self, request: ForecastRequest) -> Result<Forecast, ForecastError> {
        let now = self.inner.clock.now();
        let found = self.inner.rooms.table.load().find(&request.model, request.version).map(Arc::clone);
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
            // The devices count what they answer.
            Ok(answer) => {
                return answer.map_err(|error| Box::new(NotHere { error, windows: None, is_counted: true }));
            }
            Err(AskError::Deadline) => ForecastError::DeadlineExceeded,
            Err(_failed) => ForecastError::unavailable("the device failed while it had the request"),
        };
        Err(NotHere::with(None)(error))
    }

    fn admit(
        &self,
        route: &Route,
        request: ForecastRequest,
        slot: peregrine_runtime::ReplySlot<crate::inference::Answer>,
        (now, resort): (Instant, Resort),
    ) -> Result<(), Box<NotHere>> {
        let inner = &*self.inner;
        self.check(&request, &route.status, now).map_err(NotHere::with(None))?;
        let job = Job {
            served: Arc::clone(&route.served),
            windows: request.windows,
            accepted_at: now,
            deadline: request.deadline,
            origin: request.origin,
            slot: Some(slot),
            degraded: false,
            ticket: None,
            suspect: false,
            check: None,
        };
        let Some(gpu) = &inner.rooms.gpu else {
            return submit(&inner.rooms.cpu, &route.cpu, job, (now, resort));
        };
        if self.prefers_cpu(route, gpu, job.windows.rows, now) {
            return submit(&inner.rooms.cpu, &route.cpu, job, (now, resort));
        }
        let job = match enter(gpu, &route.gpu, now) {
            Some(ticket) => match gpu.submit(Job { ticket, ..job }) {
                Ok(()) => return Ok(()),
                Err(Refused::Full { retry_after_ms, job }) => return Err(full(retry_after_ms, *job)),
                Err(Refused::Down(job)) => *job,
            },
            None => job,
        };
        match inner.settings.policy {
            FallbackPolicy::Allow => submit(
                &inner.rooms.cpu,
                &route.cpu,
                Job { degraded: true, ticket: None, ..job },
                (now, resort),
            ),
            FallbackPolicy::Never => Err(NotHere::with(Some(job.windows))(refusal(gpu, &route.gpu, now))),
        }
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

    /// Whether the CPU is to answer, or both devices are well and it is expected to answer first.
    fn prefers_cpu(&self, route: &Route, gpu: &Line, rows: usize, now: Instant) -> bool {
        let inner = &*self.inner;
        let cpu = &inner.rooms.cpu;
        let well = |line: &Line, gate: &Gate| line.is_up() && gate.is_closed();
        match route.served.terms.placement {
            Placement::Gpu => return false,
            Placement::Cpu => return well(cpu, &route.cpu),
            Placement::Fastest if !well(cpu, &route.cpu) || !well(gpu, &route.gpu) => return false,
            Placement::Fastest => {}
        }
        let outlook = |line: &Line| Outlook {
            expected: route.served.pace(line.backend()).expect(rows, now),
            backlog: line.backlog(),
        };
        let turn = route.turns.fetch_add(1, Ordering::Relaxed);
        prefers_cpu(outlook(cpu), outlook(gpu), turn)
    }

    /// Every model, loading or ready, by name and version.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<ModelStatus>> {
        let ready = self.inner.rooms.table.load().ready();
        let mut models: Vec<_> = ready.iter().map(|route| Arc::clone(&route.status)).collect();
        for loading in self.inner.loading.lock().iter() {
            let same = |known: &Arc<ModelStatus>| {
                known.spec.name == loading.spec.name && known.version == loading.version
            };
            if !models.iter().any(same) {
                models.push(Arc::clone(loading));
            }
        }
        models.sort_by(|a, b| (&a.spec.name, a.version).cmp(&(&b.spec.name, b.version)));
        models
    }

    /// One model that is ready; the highest version if none is named. Takes no lock.
    ///
    /// # Errors
    /// Unknown, or not ready.
    pub fn find(&self, model: &str, version: Option<u32>) -> Result<Arc<ModelStatus>, ForecastError> {
        let table = self.inner.rooms.table.load();
        table.find(model, version).map(|route| Arc::clone(&route.status))
    }

    /// What each model that is ready has done.
    #[must_use]
    pub fn stats(&self) -> Vec<ModelStats> {
        let ready = self.inner.rooms.table.load().ready();
        let stats = ready.iter().map(|route| {
            let checks = route.served.sampler.stats();
            route.served.ledger.stats(&route.status.spec.name, route.status.version, checks)
        });
        stats.collect()
    }

    /// Which of two healthy devices runs a request.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.inner.settings.placement
    }

    /// How fast each model runs where, by which requests are placed.
    #[must_use]
    pub fn paces(&self) -> Vec<PaceStatus> {
        let mut paces = Vec::new();
        for route in self.inner.rooms.table.load().ready() {
            for backend in [Backend::Cpu, Backend::Gpu] {
                let known = route.served.pace(backend).list().into_iter();
                paces.extend(known.map(|(rows, took)| PaceStatus {
                    model: route.status.spec.name.clone(),
                    version: route.status.version,
                    backend,
                    rows,
                    took,
                }));
            }
        }
        paces
    }

    /// Every circuit of the models that are served, for the devices that are configured, and those of other nodes.
    #[must_use]
    pub fn breakers(&self) -> Vec<BreakerStatus> {
        let mut breakers = self.device_breakers();
        if let Some(remote) = self.inner.remote.get() {
            breakers.extend(remote.breakers(self.inner.clock.now()));
        }
        breakers
    }

    /// Decides for the circuits that are meant, now and in time to come; `None` inside [`BreakerSelector`] means all.
    ///
    /// # Errors
    /// Too many orders are in force.
    pub fn set_breaker_mode(
        &self,
        selector: BreakerSelector,
        mode: BreakerMode,
    ) -> Result<Vec<BreakerStatus>, TooManyOrders> {
        let inner = &*self.inner;
        inner.orders.give(selector.clone(), mode)?;
        let mut gates = inner.rooms.gates.all();
        gates.extend(inner.remote.get().into_iter().flat_map(Remote::gates));
        gates.retain(|gate| selector.fits(gate.guards()));
        for gate in &gates {
            let mail = BreakerMail::Mode { gate: Arc::clone(gate), mode };
            if matches!(gate.guards(), Guarded::Peer { .. }) || inner.rooms.breaker.tell(mail).is_err() {
                // Nobody else moves it, or its actor is behind: an order does not wait.
                gate.set_mode(mode);
            }
        }
        let now = inner.clock.now();
        Ok(gates.iter().map(|gate| BreakerStatus { mode, ..gate.status(now) }).collect())
    }

    fn device_breakers(&self) -> Vec<BreakerStatus> {
        let now = self.inner.clock.now();
        let ready = self.inner.rooms.table.load().ready();
        let gates = ready.iter().flat_map(|route| {
            let gpu = self.inner.rooms.gpu.is_some().then_some(&route.gpu);
            [Some(&route.cpu), gpu].into_iter().flatten()
        });
        gates.map(|gate| gate.status(now)).collect()
    }

    /// The state of everything. Readiness is steady only if somebody looks now and then.
    #[must_use]
    pub fn health(&self) -> Health {
        let inner = &*self.inner;
        let devices: Vec<_> = self.lines().map(|line| line.status()).collect();
        let open =
            self.device_breakers().iter().filter(|breaker| breaker.state != BreakerState::Closed).count();
        let verdict = judge(Findings {
            tree_ended: inner.rooms.tree.outcome().is_some(),
            stopping: inner.stopping.load(Ordering::Relaxed),
            models_here: inner.rooms.table.load().ready().len(),
            models_elsewhere: inner.remote.get().is_some_and(|remote| remote.peers.serve_anything()),
            devices: &devices,
            open_breakers: open,
            policy: inner.settings.policy,
        });
        let now = inner.clock.now();
        let (ready, started) = {
            let mut steady = inner.steady.lock();
            (steady.look(verdict.now, now), steady.has_started())
        };
        let mut reasons = verdict.reasons;
        if !ready && verdict.now == Now::Ready {
            reasons.push("well again, but not for long".to_owned());
        }
        Health {
            live: verdict.live,
            ready,
            started,
            reasons,
            devices,
            actors: inner.rooms.tree.snapshot(),
            system: inner.rooms.vitals.load().as_deref().copied(),
            meters: known_meters(&inner.rooms.meters, now),
            actor_lag: inner.rooms.lag.worst(now),
        }
    }

    /// The actors, to look at and to break on purpose.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.inner.rooms.tree
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
            self.lines().for_each(|line| line.shut("the node stopped"));
        } else {
            tracing::warn!(stuck = ?report.stuck, "actors did not stop in time");
        }
    }

    fn lines(&self) -> impl Iterator<Item = &Arc<Line>> {
        [Some(&self.inner.rooms.cpu), self.inner.rooms.gpu.as_ref()].into_iter().flatten()
    }

    /// Every device that is up must take the model, and those that must serve have to be up.
    async fn prepare(&self, forecaster: &Forecaster, deadline: Deadline) -> Result<(), LoadRefused> {
        let keep = !self.terms(&forecaster.spec().name).streams;
        let falls_back = self.inner.settings.policy == FallbackPolicy::Allow;
        for line in self.lines() {
            let backend = line.backend();
            let is_gpu = backend == Backend::Gpu;
            let result = prepare_on(line, forecaster, keep, deadline).await;
            match result {
                Ok(()) => {}
                Err(LoadRefused::Stopping | LoadRefused::Deadline) => return result,
                Err(refused) if is_gpu && falls_back => {
                    tracing::warn!(model = %forecaster.spec().name, error = %refused, "gpu does not serve the model");
                }
                // Without a fallback the CPU only stands by.
                Err(_) if !is_gpu && !falls_back && self.inner.rooms.gpu.is_some() => {}
                Err(refused) => return Err(refused),
            }
        }
        Ok(())
    }

    fn route(&self, forecaster: &Arc<Forecaster>, status: Arc<ModelStatus>) -> Route {
        let rooms = &self.inner.rooms;
        let gate = |backend| {
            let guards =
                Guarded::Device { model: status.spec.name.clone(), version: status.version, backend };
            let line = self.lines().find(|line| line.backend() == backend && backend == Backend::Gpu);
            let gate = Arc::new(Gate::new(GateSpec {
                mode: self.inner.orders.mode(&guards),
                guards,
                limits: self.inner.settings.breaker.clone(),
                clock: Arc::clone(&self.inner.clock),
                breaker: Some(rooms.breaker.clone()),
                mend: line.map(|line| mend(line.address().clone())),
            }));
            rooms.gates.add(&gate);
            gate
        };
        let (cpu, gpu) = (gate(Backend::Cpu), gate(Backend::Gpu));
        let key = (status.spec.name.clone(), status.version);
        let ledger =
            Arc::clone(self.inner.ledgers.lock().entry(key).or_insert_with(|| Arc::new(Ledger::new())));
        let served = Arc::new(Served {
            forecaster: Arc::clone(forecaster),
            version: status.version,
            ledger,
            judges: Judges {
                cpu: Arc::clone(&cpu) as Arc<dyn Judge>,
                gpu: Arc::clone(&gpu) as Arc<dyn Judge>,
            },
            paces: Paces { cpu: Pace::new(self.inner.clock.now()), gpu: Pace::new(self.inner.clock.now()) },
            sampler: Sampler::new(self.inner.clock.now()),
            terms: self.terms(&status.spec.name),
            lines: self.lines().cloned().collect(),
        });
        Route { served, cpu, gpu, status, turns: AtomicU64::new(0) }
    }

    /// How a model is served.
    fn terms(&self, model: &str) -> Terms {
        let settings = &self.inner.settings;
        let mut terms = settings.profiles.of(model).terms(settings);
        if let Some(placement) = settings.placement_by_model.get(model) {
            terms.placement = *placement;
        }
        terms
    }

    async fn ask_router(&self, mail: RouterMail, deadline: Deadline) -> Result<bool, LoadRefused> {
        ask(&self.inner.rooms.router, mail, deadline).await
    }
}

/// Builds a device anew whose answers are wrong: its memory may hold wrong weights.
fn mend(door: Address<Order>) -> Mend {
    Box::new(move |why| {
        // Full: then the actor has mail and is alive; the circuit stays open until its answers are right.
        let _ = door.tell(Order::Rebuild(why.to_owned()));
    })
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

/// A model that is on its way; dropped, it no longer is.
struct Announcement<'a> {
    inner: &'a Inner,
    status: Arc<ModelStatus>,
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.inner.loading.lock().retain(|loading| !Arc::ptr_eq(loading, &self.status));
        let (model, version) = (self.status.spec.name.clone(), self.status.version);
        // No effect on a version that has become ready.
        let _ = self.inner.rooms.router.tell(RouterMail::Withdraw { model, version });
    }
}

/// The ticket with which a request may go to a device, `None` inside if it is not a probe.
fn enter(line: &Line, gate: &Arc<Gate>, now: Instant) -> Option<Option<Ticket>> {
    if !line.accepts() {
        return None;
    }
    match gate.permit(now) {
        Permit::Pass => Some(None),
        Permit::Probe(ticket) => Some(Some(ticket)),
        Permit::Refuse => None,
    }
}

/// Sends a request to the device that has no substitute.
fn submit(
    line: &Line,
    gate: &Arc<Gate>,
    job: Job,
    (now, resort): (Instant, Resort),
) -> Result<(), Box<NotHere>> {
    let passes = || resort == Resort::Last && line.accepts() && gate.is_last_resort();
    let Some(ticket) = enter(line, gate, now).or_else(|| passes().then_some(None)) else {
        return Err(NotHere::with(Some(job.windows))(refusal(line, gate, now)));
    };
    line.submit(Job { ticket, ..job }).map_err(|refused| match refused {
        Refused::Full { retry_after_ms, job } => full(retry_after_ms, *job),
        Refused::Down(job) => NotHere::with(Some(job.windows))(refusal(line, gate, now)),
    })
}

fn full(retry_after_ms: u32, job: Job) -> Box<NotHere> {
    NotHere::with(Some(job.windows))(ForecastError::Overloaded { retry_after_ms })
}

fn refusal(line: &Line, gate: &Gate, now: Instant) -> ForecastError {
    let backend = line.backend().name();
    match (&line.status().state, gate.status(now)) {
        (DeviceState::Starting, _) => ForecastError::unavailable(format!("{backend} is starting")),
        (DeviceState::Down { reason }, _) => {
            ForecastError::unavailable(format!("{backend} is down: {reason}"))
        }
        (DeviceState::Up, gate) => {
            let state = gate.state.name();
            ForecastError::unavailable(format!("breaker of {backend} is {state}: {}", gate.reason))
        }
    }
}

async fn prepare_on(
    line: &Line,
    forecaster: &Forecaster,
    keep: bool,
    deadline: Deadline,
) -> Result<(), LoadRefused> {
    let backend = line.backend();
    let mut state = line.watch();
    let built = state.wait_for(|state| *state != DeviceState::Starting);
    match tokio::time::timeout_at(deadline.instant().into(), built).await {
        Ok(Ok(now)) if *now == DeviceState::Up => {}
        Ok(_) => return Err(LoadRefused::DeviceDown { backend }),
        Err(_elapsed) => return Err(LoadRefused::Deadline),
    }
    for plan in forecaster.plans() {
        match line.address().ask(Order::Prepare { plan: Arc::clone(plan), keep }, deadline).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(LoadRefused::Device { backend, error }),
            Err(AskError::Deadline) => return Err(LoadRefused::Deadline),
            Err(AskError::Closed) => return Err(LoadRefused::Stopping),
            Err(_failed) => return Err(LoadRefused::DeviceDown { backend }),
        }
    }
    Ok(())
}

async fn ask(
    router: &peregrine_runtime::Address<RouterMail>,
    mail: RouterMail,
    deadline: Deadline,
) -> Result<bool, LoadRefused> {
    router.ask(mail, deadline).await.map_err(|error| match error {
        AskError::Deadline | AskError::Full => LoadRefused::Deadline,
        _stopped => LoadRefused::Stopping,
    })
}
