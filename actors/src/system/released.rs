//! What a system does for releases: chooses who answers, counts what came of it, asks shadows, takes orders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_runtime::{Deadline, reply_slot};
use peregrine_shaders::{Backend, Windows};

use super::System;
use super::load::ask;
use crate::inference::{Job, Line};
use crate::release::{KeptRelease, Leave, Live, ReleaseOrder, ReleaseRefused, ReleaseStatus};
use crate::request::{Forecast, ForecastError, ForecastRequest, Origin, Priority, Subject};
use crate::router::{Route, Routed, RouterMail};
use crate::scorecard::Scorecard;

/// A version that a release chose.
pub(super) struct Lot {
    live: Arc<Live>,
    version: u32,
}

impl Lot {
    /// What became of a request.
    pub(super) fn record(&self, answered: Result<Duration, &ForecastError>) {
        let Some(track) = self.live.track(self.version) else { return };
        match answered {
            Ok(took) => track.answered(took),
            Err(error) if is_fault(error) => track.failed(),
            Err(_) => {}
        }
    }
}

/// What a shadow is asked.
struct Copy {
    leave: Leave,
    route: Arc<Route>,
    windows: Windows,
}

impl System {
    /// Decides who answers requests for `model` that name no version; says where its release stands then, `None`: it
    /// has none.
    ///
    /// # Errors
    /// See [`ReleaseRefused`]; nothing has changed then.
    pub async fn order_release(
        &self,
        model: &str,
        order: ReleaseOrder,
    ) -> Result<Option<ReleaseStatus>, ReleaseRefused> {
        let deadline = self.load_deadline();
        let mail = RouterMail::Release { model: model.to_owned(), order };
        match ask(&self.inner.rooms.router, mail, deadline).await {
            Ok(Routed::Ordered(done)) => done.map(|()| self.release(model)),
            Ok(Routed::Was(_)) | Err(_) => Err(ReleaseRefused::Unavailable),
        }
    }

    /// Where the release of a model stands; `None`: its highest version answers.
    #[must_use]
    pub fn release(&self, model: &str) -> Option<ReleaseStatus> {
        let table = self.inner.rooms.table.load();
        table.release(model).map(|live| live.status(model, self.inner.clock.now()))
    }

    /// Where every release stands, by name.
    #[must_use]
    pub fn releases(&self) -> Vec<ReleaseStatus> {
        let (table, now) = (self.inner.rooms.table.load(), self.inner.clock.now());
        table.releases().into_iter().map(|(model, live)| live.status(model, now)).collect()
    }

    /// What there is to keep of every release, also of models that are away, by name.
    #[must_use]
    pub fn kept_releases(&self) -> BTreeMap<String, KeptRelease> {
        let table = self.inner.rooms.table.load();
        let kept = |(model, live): (&str, &Arc<Live>)| (model.to_owned(), KeptRelease::from(&live.release));
        table.kept_releases().map(kept).collect()
    }

    /// Goes on with what an earlier node kept, before any model is loaded. Each release waits for the versions that it
    /// names, or until [`System::loaded`] says that no more come.
    ///
    /// # Errors
    /// The first model whose release makes no sense, and why; nothing has changed then.
    pub async fn resume_releases(
        &self,
        kept: BTreeMap<String, KeptRelease>,
    ) -> Result<(), (String, ReleaseRefused)> {
        let now = self.inner.clock.now();
        let resumed = |(model, kept): (String, KeptRelease)| match kept.resumed(now) {
            Ok(release) => Ok((model, release)),
            Err(refused) => Err((model, refused)),
        };
        let releases = kept.into_iter().map(resumed).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = releases.first().map(|(model, _)| model.clone()) else { return Ok(()) };
        let mail = RouterMail::Resume { releases };
        match ask(&self.inner.rooms.router, mail, self.load_deadline()).await {
            Ok(_) => Ok(()),
            Err(_) => Err((first, ReleaseRefused::Unavailable)),
        }
    }

    /// How long ago a moment of a [`ReleaseStatus`] was.
    #[must_use]
    pub fn since(&self, at: Instant) -> Duration {
        self.inner.clock.now().saturating_duration_since(at)
    }

    /// Lets canaries be judged by these scores, from now on and for good. False: they already are.
    pub fn attach_scorecard(&self, card: Arc<Scorecard>) -> bool {
        self.inner.rooms.scores.set(card).is_ok()
    }

    /// Which version a request that names none and has this key would be answered by; `None`: the model has no
    /// release.
    pub(crate) fn version_for(&self, model: &str, key: u64) -> Option<u32> {
        let table = self.inner.rooms.table.load();
        let choice = table.choose(model, None, Some(key)).ok()?;
        choice.by.map(|_| choice.served.status.version)
    }

    /// Who answers a request.
    pub(super) fn chosen(
        &self,
        request: &ForecastRequest,
    ) -> (Result<Arc<Route>, ForecastError>, Option<Lot>) {
        if matches!(request.subject, Subject::Again) {
            // Made again for its own sake: no canary is to learn of it.
            let table = self.inner.rooms.table.load();
            return (table.find(&request.model, request.version).map(Arc::clone), None);
        }
        self.chosen_by(&request.model, request.version, request.origin.release_key())
    }

    /// Who answers a request of which no more is known.
    pub(super) fn chosen_by(
        &self,
        model: &str,
        version: Option<u32>,
        key: Option<u64>,
    ) -> (Result<Arc<Route>, ForecastError>, Option<Lot>) {
        match self.inner.rooms.table.load().choose(model, version, key) {
            Ok(choice) => {
                let version = choice.served.status.version;
                let lot = choice.by.map(|live| Lot { live: Arc::clone(live), version });
                (Ok(Arc::clone(choice.served)), lot)
            }
            Err(unknown) => (Err(unknown), None),
        }
    }

    /// Answers a request whose version a release chose.
    pub(super) async fn released(
        &self,
        lot: Lot,
        found: Result<Arc<Route>, ForecastError>,
        request: ForecastRequest,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        let copy = self.copied(&lot, &request);
        let came_late = request.deadline.expired(now);
        let answer = self.kept(found, request, now).await;
        if !came_late {
            let took = self.inner.clock.now().saturating_duration_since(now);
            lot.record(answer.as_ref().map(|_| took));
        }
        if let (Some(copy), Ok(forecast)) = (copy, &answer) {
            self.ask_shadow(copy, forecast);
        }
        answer
    }

    /// What a shadow is to be asked, if it is its turn and its device has time.
    fn copied(&self, lot: &Lot, request: &ForecastRequest) -> Option<Copy> {
        let leave = lot.live.shadow()?;
        let version = Some(leave.mirror().spec().version);
        let found = self.inner.rooms.table.load().find(&request.model, version).map(Arc::clone);
        match found {
            Ok(route) if self.shadow_line(&route).is_some() && self.check_size(request).is_ok() => {
                Some(Copy { leave, route, windows: request.windows.clone() })
            }
            _ => {
                leave.mirror().dropped();
                None
            }
        }
    }

    /// The device that a shadow may use now: one that nobody else does.
    fn shadow_line(&self, route: &Route) -> Option<&Arc<Line>> {
        let rooms = &self.inner.rooms;
        let on_gpu = self.well_gpus(route).map(|(_, gpu)| gpu);
        let on_cpu = Some(&rooms.lines.cpu).filter(|cpu| cpu.is_up() && route.gates.cpu.is_closed());
        let mut well = on_gpu.peekable();
        match well.peek() {
            Some(_) => well.find(|gpu| gpu.is_idle()),
            None => on_cpu.filter(|cpu| cpu.is_idle()),
        }
    }

    /// Asks a shadow what a caller was answered. The caller does not wait for it.
    fn ask_shadow(&self, copy: Copy, forecast: &Forecast) {
        let Copy { leave, route, windows } = copy;
        let (Some(line), Ok(runtime)) = (self.shadow_line(&route), tokio::runtime::Handle::try_current())
        else {
            return leave.mirror().dropped();
        };
        let clock = Arc::clone(&self.inner.clock);
        let now = clock.now();
        let deadline = Deadline::after(now, self.inner.settings.default_deadline);
        let (slot, reply) = reply_slot();
        let job = Job {
            served: Arc::clone(&route.served),
            windows,
            accepted_at: now,
            deadline,
            origin: Origin { priority: Priority::Low, ..Origin::default() },
            is_alone: false,
            slot: Some(slot),
            relieved: false,
            degraded: line.backend() == Backend::Cpu && !self.inner.rooms.lines.gpus.is_empty(),
            ticket: None,
            suspect: None,
            check: None,
        };
        if line.submit_idle(job).is_err() {
            return leave.mirror().dropped();
        }
        let given = forecast.values.clone();
        drop(runtime.spawn(async move {
            match reply.before(deadline).await {
                Ok(Ok(answer)) => {
                    let took = clock.now().saturating_duration_since(now);
                    leave.mirror().answered(&answer.values, &given, took);
                }
                Ok(Err(ForecastError::Overloaded { .. })) => leave.mirror().dropped(),
                Ok(Err(_)) | Err(_) => leave.mirror().failed(),
            }
        }));
    }
}

/// Whether it is the version that may be at fault, not the caller, and not the load of the node.
fn is_fault(error: &ForecastError) -> bool {
    match error {
        ForecastError::DeadlineExceeded
        | ForecastError::Unavailable { .. }
        | ForecastError::NotFinite { .. }
        | ForecastError::NotReady(_) => true,
        ForecastError::UnknownModel(_)
        | ForecastError::UnknownVersion { .. }
        | ForecastError::Window(_)
        | ForecastError::TooManyRows { .. }
        | ForecastError::Overloaded { .. } => false,
    }
}
