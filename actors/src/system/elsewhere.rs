//! What a system does with the other nodes: asks them, and answers them.
//!
//! A request crosses once at most: what came from another node is answered here or not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peregrine_runtime::{Deadline, NodeId};
use peregrine_shaders::{Backend, WindowError, Windows};

use super::{Resort, System};
use crate::remote::{Need, NoAnswer, Peers, Remote, RemoteAnswer, RemoteForecast, RemoteRefusal};
use crate::request::{Forecast, ForecastError, ForecastRequest, Origin, ServedBy, Timing};
use crate::router::{Outlook, Route, first};
use crate::settings::{FallbackPolicy, Placement, RoutingSettings};
use crate::status::{ModelStatus, RemoteStats};
use crate::trace::{Trace, TraceParent};

/// A request that another node is to answer.
#[derive(Clone, Copy, Debug)]
struct Away {
    needs_gpu: bool,
    /// A device here answers if no other node does.
    falls_back: bool,
}

impl Away {
    fn need(self) -> Need {
        Need { gpu: self.needs_gpu, any: !self.falls_back }
    }
}

/// Which way a request goes.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// A device here answers.
    Here,
    /// Another node does, if there is one.
    There(Away),
    /// Whoever is expected to be first: the CPU here, or a GPU of another node.
    Sooner,
}

/// Nobody here answers it.
const LAST: Need = Need { gpu: false, any: true };

impl System {
    /// Lets this system ask other nodes and answer them, from now on and for good. False: it already does.
    pub fn attach_peers(&self, peers: Arc<dyn Peers>) -> bool {
        let inner = &*self.inner;
        let (routing, breaker) = (inner.settings.routing.clone(), inner.settings.breaker.clone());
        inner
            .remote
            .set(Remote::new(peers, routing, (breaker, Arc::clone(&inner.orders)), Arc::clone(&inner.clock)))
            .is_ok()
    }

    /// Asks other nodes in another way from now on. False: this system asks none.
    pub fn set_routing(&self, routing: RoutingSettings) -> bool {
        self.inner.remote.get().map(|remote| remote.set(routing)).is_some()
    }

    /// What was asked of other nodes; `None` before there are any.
    #[must_use]
    pub fn remote_stats(&self) -> Option<RemoteStats> {
        self.inner.remote.get().map(Remote::stats)
    }

    /// One model that is ready here or, failing that, on another node.
    ///
    /// # Errors
    /// Nobody serves it, or nobody said so by the deadline. Needs a tokio timer around it.
    pub async fn locate(
        &self,
        model: &str,
        version: Option<u32>,
        deadline: Deadline,
    ) -> Result<Arc<ModelStatus>, ForecastError> {
        let unknown = match self.find(model, version) {
            Ok(found) => return Ok(found),
            Err(unknown) => unknown,
        };
        let Some(remote) = self.inner.remote.get() else { return Err(unknown) };
        let unknown = self.missing(remote, unknown, version);
        if let Some(known) = remote.shapes.get(model, version, self.inner.clock.now()) {
            return Ok(known);
        }
        let question = RemoteForecast { model: model.to_owned(), version, may_degrade: true, windows: None };
        let question = Arc::new(question);
        match remote.forecast(Arc::clone(&question), LAST, deadline, &Trace::default()).await {
            Ok(answer) => Ok(remote.shapes.put(version, &answer, self.inner.clock.now())),
            Err(NoAnswer::Nobody) => Err(unknown),
            Err(NoAnswer::Refused(refusal)) => Err(refusal.for_caller(&question)),
        }
    }

    /// Answers another node, on a device of this one. `caller` is the piece of work there that it is part of.
    ///
    /// # Errors
    /// See [`RemoteRefusal`]; it ends by the deadline. Needs a tokio timer around it.
    pub async fn serve_remote(
        &self,
        request: RemoteForecast,
        caller: Option<TraceParent>,
        deadline: Deadline,
    ) -> Result<RemoteAnswer, RemoteRefusal> {
        match caller {
            None => self.served(request, Trace::default(), deadline).await,
            Some(caller) => Box::pin(self.serve_traced(request, caller, deadline)).await,
        }
    }

    pub(super) async fn served(
        &self,
        request: RemoteForecast,
        trace: Trace,
        deadline: Deadline,
    ) -> Result<RemoteAnswer, RemoteRefusal> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let outside = || RemoteRefusal::Unavailable("this node is part of no cluster".to_owned());
        let (node, region) = inner.remote.get().ok_or_else(outside)?.peers.here();
        if inner.stopping.load(Ordering::Relaxed) {
            return Err(RemoteRefusal::Stopping);
        }
        // Who asks only for the shapes is told of the stable version.
        let (route, lot) = match &request.windows {
            None => (inner.rooms.table.load().find(&request.model, request.version).map(Arc::clone)?, None),
            Some(_) => {
                let (found, lot) = self.chosen_by(&request.model, request.version, None);
                (found?, lot)
            }
        };
        let status = &route.status;
        let blank = RemoteAnswer {
            spec: Arc::clone(&status.spec),
            version: status.version,
            digest: status.digest.clone(),
            weight_bytes: status.weight_bytes,
            rows: 0,
            values: Vec::new(),
            backend: Backend::Cpu,
            degraded: false,
            timing: Timing::default(),
            node,
            region,
        };
        let Some(windows) = request.windows else { return Ok(blank) };
        if !request.may_degrade && !inner.rooms.lines.gpus.is_empty() && !self.gpu_serves(&route, now) {
            return Err(RemoteRefusal::Degraded);
        }
        let rows = windows.rows;
        let version = request.version;
        let origin = Origin { trace, ..Origin::default() };
        let local =
            ForecastRequest { version, origin, ..ForecastRequest::new(request.model, windows, deadline) };
        let forecast = self.local(&route, local, now, Resort::Last).await;
        let forecast = forecast.map_err(|refused| self.counted(&route, *refused, now));
        if let Some(lot) = lot {
            let took = inner.clock.now().saturating_duration_since(now);
            lot.record(forecast.as_ref().map(|_| took));
        }
        let forecast = forecast?;
        Ok(RemoteAnswer {
            rows,
            values: forecast.values,
            backend: forecast.backend,
            degraded: forecast.degraded,
            timing: forecast.timing,
            ..blank
        })
    }

    /// Answers a request of a model that is ready here: here, or on another node if that does better.
    pub(super) async fn near_or_far(
        &self,
        remote: &Remote,
        route: &Route,
        mut request: ForecastRequest,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        let Some(away) = self.away(remote, route, &request, now) else {
            return self.here_then_far(remote, route, request, now).await;
        };
        if let Err(error) = self.check(&request, &route.status, now) {
            return Err(self.counted(route, *super::NotHere::with(None)(error), now));
        }
        let deadline = match away.falls_back {
            true => self.deadline_away(route, &request, now),
            false => request.deadline,
        };
        let asked = Arc::new(RemoteForecast {
            model: request.model.clone(),
            version: Some(route.status.version),
            may_degrade: !away.needs_gpu && route.served.terms.fallback.falls_back(),
            windows: Some(std::mem::take(&mut request.windows)),
        });
        match remote.forecast(Arc::clone(&asked), away.need(), deadline, &request.origin.trace).await {
            Ok(answer) => return Ok(forecast_of(answer)),
            Err(NoAnswer::Refused(RemoteRefusal::NotFinite { row })) => {
                return Err(ForecastError::NotFinite { row });
            }
            Err(NoAnswer::Nobody) => {}
            Err(NoAnswer::Refused(refusal)) => {
                let trace_id = request.origin.trace.id();
                tracing::debug!(model = %request.model, error = %refusal, trace_id, "no other node answered");
            }
        }
        request.windows = recovered(asked);
        let now = self.inner.clock.now();
        self.local(route, request, now, Resort::Last)
            .await
            .map_err(|refused| self.counted(route, *refused, now))
    }

    /// Answers here; what no device here takes is had from another node, if that takes it.
    async fn here_then_far(
        &self,
        remote: &Remote,
        route: &Route,
        request: ForecastRequest,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        let asks = request.clone_without_windows();
        let mut refused = match self.local(route, request, now, Resort::First).await {
            Ok(forecast) => return Ok(forecast),
            Err(refused) => refused,
        };
        let is_stopping = self.inner.stopping.load(Ordering::Relaxed);
        if let Some(windows) = refused.windows.take()
            && !is_stopping
        {
            let asked = Arc::new(RemoteForecast {
                model: asks.model.clone(),
                version: Some(route.status.version),
                may_degrade: route.served.terms.fallback.falls_back(),
                windows: Some(windows),
            });
            if let Ok(answer) =
                remote.forecast(Arc::clone(&asked), LAST, asks.deadline, &asks.origin.trace).await
            {
                return Ok(forecast_of(answer));
            }
            let again = ForecastRequest { windows: recovered(asked), ..asks };
            match self.local(route, again, self.inner.clock.now(), Resort::Last).await {
                Ok(forecast) => return Ok(forecast),
                // What was wrong here at first says more than that it still is.
                Err(again) if again.windows.is_some() => {}
                Err(again) => refused = again,
            }
        }
        Err(self.counted(route, *refused, now))
    }

    /// Answers a request of a model that is not ready here; `unknown` if it is nowhere.
    pub(super) async fn far(
        &self,
        remote: &Remote,
        request: ForecastRequest,
        unknown: ForecastError,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        let (version, deadline) = (request.version, request.deadline);
        let unknown = self.missing(remote, unknown, version);
        if remote.peers.providers(&request.model, version).is_empty() {
            return Err(unknown);
        }
        self.check_size(&request)?;
        match remote.shapes.get(&request.model, version, now) {
            Some(known) => request.windows.check(&known.spec)?,
            None if request.windows.rows == 0 => return Err(WindowError::Empty.into()),
            None => {}
        }
        self.check_time(deadline, now)?;
        let may_degrade = self.inner.settings.fallback_of(&request.model).falls_back();
        let asked = Arc::new(RemoteForecast {
            model: request.model,
            version,
            may_degrade,
            windows: Some(request.windows),
        });
        match remote.forecast(Arc::clone(&asked), LAST, deadline, &request.origin.trace).await {
            Ok(answer) => Ok(forecast_of(answer)),
            Err(NoAnswer::Nobody) => Err(unknown),
            Err(NoAnswer::Refused(refusal)) => {
                if matches!(refusal, RemoteRefusal::Window(_)) {
                    // They have changed since.
                    remote.shapes.forget(&asked.model, version);
                }
                Err(refusal.for_caller(&asked))
            }
        }
    }

    /// What is unknown here: others that serve the model say which versions they have, and where others are to serve it
    /// and none says so they are away.
    fn missing(&self, remote: &Remote, unknown: ForecastError, version: Option<u32>) -> ForecastError {
        let serves = |model: &str, version| !remote.peers.providers(model, version).is_empty();
        match (unknown, version) {
            (ForecastError::UnknownModel(model), Some(version))
                if serves(&model, None) && !serves(&model, Some(version)) =>
            {
                ForecastError::UnknownVersion { model, version }
            }
            (ForecastError::UnknownModel(model), _)
                if self.inner.settings.models_of_others.contains(&model) =>
            {
                ForecastError::unavailable(format!("none of the nodes that can be asked serves `{model}`"))
            }
            (unknown, _) => unknown,
        }
    }

    /// Whether a GPU is there and its breaker lets a request through.
    fn gpu_serves(&self, route: &Route, now: Instant) -> bool {
        self.inner.rooms.lines.gpus().any(|(id, gpu)| gpu.accepts() && route.gates[id].admits(now))
    }

    /// The node that would be asked for a forecast that came now; `None`: this one would answer it, or nobody. What is
    /// merely expected sooner from elsewhere counts as answered here, and so does what a release decides request by
    /// request.
    #[must_use]
    pub fn bound_for(&self, model: &str, version: Option<u32>, deadline: Deadline) -> Option<NodeId> {
        let remote = self.inner.remote.get()?;
        let now = self.inner.clock.now();
        let found = {
            let table = self.inner.rooms.table.load();
            if version.is_none() && table.release(model).is_some() {
                return None;
            }
            table.find(model, version).map(Arc::clone)
        };
        let (version, needs_gpu) = match found {
            Err(_unknown) => (version, false),
            Ok(route) => match self.course(remote, &route, now) {
                Course::There(away) => (Some(route.status.version), away.needs_gpu),
                Course::Here | Course::Sooner => return None,
            },
        };
        remote.prospect((model, version), 0, needs_gpu, deadline, now).map(|prospect| prospect.node)
    }

    /// Whether another node is asked first: the model is to be answered there, or no GPU serves here and a node that
    /// has one is expected to answer before the CPU of this one.
    fn away(&self, remote: &Remote, route: &Route, request: &ForecastRequest, now: Instant) -> Option<Away> {
        let key = (request.model.as_str(), Some(route.status.version));
        let (rows, deadline) = (request.windows.rows, request.deadline);
        match self.course(remote, route, now) {
            Course::Here => return None,
            Course::There(away) => {
                remote.prospect(key, rows, away.needs_gpu, deadline, now)?;
                return Some(away);
            }
            Course::Sooner => {}
        }
        let prospect = remote.prospect(key, rows, true, deadline, now)?;
        // What the CPU takes is found out here before anybody is asked.
        let on_cpu = route.served.paces.cpu.expect(rows, now)?;
        let backlog = self.inner.rooms.lines.cpu.backlog();
        if prospect.rtt >= on_cpu.took + backlog {
            return None;
        }
        let cpu = Outlook { expected: Some(on_cpu), backlog, queue: 0 };
        let there = Outlook { expected: prospect.expected, backlog: Duration::ZERO, queue: 0 };
        let turn = route.turns.fetch_add(1, Ordering::Relaxed);
        (first(&[there, cpu], turn) == 0).then_some(Away { needs_gpu: true, falls_back: true })
    }

    /// Where a request of a model that is ready here goes, before anybody's time is looked at.
    fn course(&self, remote: &Remote, route: &Route, now: Instant) -> Course {
        let (lines, terms) = (&self.inner.rooms.lines, &route.served.terms);
        let falls_back = lines.gpus.is_empty() || terms.fallback.falls_back();
        if remote.is_preferred(&route.status.spec.name) {
            let falls_back = falls_back || self.gpu_serves(route, now);
            return Course::There(Away { needs_gpu: false, falls_back });
        }
        if self.gpu_serves(route, now) || terms.placement == Placement::Cpu {
            return Course::Here;
        }
        let cpu_serves = falls_back && lines.cpu.is_up() && route.gates.cpu.is_closed();
        match terms.fallback {
            _ if !cpu_serves => Course::There(Away { needs_gpu: true, falls_back }),
            FallbackPolicy::Prefer => Course::Here,
            FallbackPolicy::Never | FallbackPolicy::Allow => Course::Sooner,
        }
    }

    /// The deadline of other nodes when a device here is the last resort: what that needs is kept back for it.
    fn deadline_away(&self, route: &Route, request: &ForecastRequest, now: Instant) -> Deadline {
        let remaining = request.deadline.remaining(now);
        let on_cpu = route.served.paces.cpu.expect(request.windows.rows, now);
        let needed = on_cpu.map_or(remaining / 4, |expected| {
            expected.took.saturating_mul(2).saturating_add(self.inner.rooms.lines.cpu.backlog())
        });
        Deadline::after(now, remaining - needed.min(remaining / 2))
    }
}

/// The windows of a request that nobody took.
fn recovered(asked: Arc<RemoteForecast>) -> Windows {
    // The asks that were dropped may hold it for a moment yet.
    Arc::try_unwrap(asked).map_or_else(|shared| shared.windows.clone(), |own| own.windows).unwrap_or_default()
}

fn forecast_of(answer: RemoteAnswer) -> Forecast {
    Forecast {
        spec: answer.spec,
        version: answer.version,
        values: answer.values,
        backend: answer.backend,
        served_by: ServedBy::Peer { node: answer.node, region: answer.region, digest: answer.digest },
        degraded: answer.degraded,
        timing: answer.timing,
    }
}
