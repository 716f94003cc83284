//! What can be seen of a system, and what an operator decides about its breakers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peregrine_runtime::{Deadline, Tree};

use super::System;
use crate::breaker::{BreakerMail, BreakerMode, BreakerSelector, TooManyOrders};
use crate::devices::DeviceId;
use crate::health::{Findings, Now, judge, known_meters};
use crate::remote::Remote;
use crate::request::ForecastError;
use crate::router::Route;
use crate::settings::Placement;
use crate::status::{
    BreakerState, BreakerStatus, CheckStats, DeviceStatus, Guarded, Health, ModelCounts, ModelStats,
    ModelStatus, PaceStatus,
};

/// Longest that an order about circuits waits for what was reported of them before it.
const ORDER_WITHIN: Duration = Duration::from_secs(1);

impl System {
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

    /// Whether a model is ready here, but an operator has every device refuse it. Takes no lock.
    #[must_use]
    pub fn refuses(&self, model: &str, version: Option<u32>) -> bool {
        self.inner.rooms.table.load().find(model, version).is_ok_and(|route| self.is_shut(route))
    }

    fn is_shut(&self, route: &Route) -> bool {
        let has_cpu = self.inner.rooms.lines.gpus.is_empty() || route.served.terms.fallback.falls_back();
        let mut gates = route.gates.iter().filter(|(id, _)| has_cpu || *id != DeviceId::CPU);
        gates.all(|(_, gate)| gate.mode() == BreakerMode::ForcedOpen)
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

    /// What a version that is not served here has done while it was; nothing if it never was.
    #[must_use]
    pub fn past_stats(&self, model: &str, version: u32) -> ModelStats {
        let of = (model.to_owned(), version);
        let ledger = self.inner.ledgers.lock().get(&of).map(Arc::clone);
        let none = ModelStats { model: of.0, version, ..ModelStats::default() };
        ledger.map_or(none, |ledger| ledger.stats(model, version, CheckStats::default()))
    }

    /// The same in brief, for somebody who looks every second.
    #[must_use]
    pub fn counts(&self) -> Vec<ModelCounts> {
        let ready = self.inner.rooms.table.load().ready();
        let counts = ready
            .iter()
            .map(|route| route.served.ledger.counts(&route.status.spec.name, route.status.version));
        counts.collect()
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
            for (id, pace) in route.served.paces.iter() {
                let known = pace.list().into_iter();
                paces.extend(known.map(|(rows, took)| PaceStatus {
                    model: route.status.spec.name.clone(),
                    version: route.status.version,
                    backend: id.backend,
                    index: id.index,
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
        breakers.extend(self.coverage_breakers());
        if let Some(remote) = self.inner.remote.get() {
            breakers.extend(remote.breakers(self.inner.clock.now()));
        }
        breakers
    }

    /// Whether orders about these circuits, or some of them, are in force.
    #[must_use]
    pub fn has_breaker_orders(&self, selector: &BreakerSelector) -> bool {
        self.inner.orders.has(selector)
    }

    /// Decides for the circuits that are meant, now and in time to come; `None` inside [`BreakerSelector`] means all.
    /// Returns them as they are then. Needs a tokio timer around it.
    ///
    /// # Errors
    /// Too many orders are in force.
    pub async fn set_breaker_mode(
        &self,
        selector: BreakerSelector,
        mode: BreakerMode,
    ) -> Result<Vec<BreakerStatus>, TooManyOrders> {
        let inner = &*self.inner;
        inner.orders.give(selector.clone(), mode)?;
        let mut gates = inner.rooms.gates.all();
        gates.extend(inner.remote.get().into_iter().flat_map(Remote::gates));
        gates.retain(|gate| selector.fits(gate.guards()));
        let (peers, devices): (Vec<_>, Vec<_>) =
            gates.iter().map(Arc::clone).partition(|gate| matches!(gate.guards(), Guarded::Peer { .. }));
        // Nobody else moves those of other nodes.
        peers.iter().for_each(|gate| gate.set_mode(mode));
        let mail = BreakerMail::Mode { gates: devices.clone(), mode };
        let deadline = Deadline::after(inner.clock.now(), ORDER_WITHIN);
        if inner.rooms.breaker.ask(mail, deadline).await.is_err() {
            // The actor is behind: an order does not wait.
            devices.iter().for_each(|gate| gate.set_mode(mode));
        }
        if let Some(trusts) = &inner.rooms.trusts {
            trusts.obey();
        }
        let now = inner.clock.now();
        let mut ordered: Vec<_> = gates.iter().map(|gate| gate.status(now)).collect();
        ordered.extend(self.coverage_breakers().into_iter().filter(|one| selector.fits(&one.guards)));
        Ok(ordered)
    }

    fn coverage_breakers(&self) -> Vec<BreakerStatus> {
        let Some(trusts) = &self.inner.rooms.trusts else { return Vec::new() };
        let (now, ready) = (self.inner.clock.now(), self.inner.rooms.table.load().ready());
        let status = |route: &Arc<Route>| trusts.status(&route.status.spec.name, route.status.version, now);
        ready.iter().map(status).collect()
    }

    fn device_breakers(&self) -> Vec<BreakerStatus> {
        let now = self.inner.clock.now();
        let ready = self.inner.rooms.table.load().ready();
        let gates = ready.iter().flat_map(|route| route.gates.iter());
        gates.map(|(_, gate)| gate.status(now)).collect()
    }

    /// The state of everything. Readiness is steady only if somebody looks now and then.
    #[must_use]
    pub fn health(&self) -> Health {
        let inner = &*self.inner;
        let devices: Vec<_> = inner.rooms.lines.iter().map(|(_, line)| line.status()).collect();
        let breakers = self.device_breakers().into_iter().chain(self.coverage_breakers());
        let open = breakers.filter(|breaker| breaker.state != BreakerState::Closed).count();
        let now = inner.clock.now();
        let ready = inner.rooms.table.load().ready();
        let unrecorded = inner.audit.get().and_then(|audit| audit.refusal());
        let verdict = judge(Findings {
            tree_ended: inner.rooms.tree.outcome().is_some(),
            stopping: inner.stopping.load(Ordering::Relaxed),
            models_here: ready.len(),
            models_elsewhere: inner.remote.get().is_some_and(|remote| remote.peers.serve_anything()),
            devices: &devices,
            open_breakers: open,
            shut_models: ready.iter().filter(|route| self.is_shut(route)).count(),
            unrecorded: unrecorded.as_deref(),
            falls_back: inner.settings.falls_back(),
        });
        let (ready, started) = {
            let mut steady = inner.steady.lock();
            (steady.look(verdict.now, now), steady.has_started())
        };
        let mut reasons = verdict.reasons;
        if !ready && verdict.now == Now::Ready {
            reasons.push("well again, but not for long".to_owned());
        }
        let some_stay = |device: &&DeviceStatus| device.residents.iter().any(|one| one.counts.serves);
        let stay_on: Vec<usize> = devices.iter().filter(some_stay).map(|device| device.index).collect();
        Health {
            live: verdict.live,
            ready,
            started,
            reasons,
            devices,
            actors: inner.rooms.tree.snapshot(),
            system: inner.rooms.vitals.load().as_deref().copied(),
            meters: known_meters(&inner.rooms.meters, now, &stay_on),
            actor_lag: inner.rooms.lag.worst(now),
        }
    }

    /// The actors, to look at and to break on purpose.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.inner.rooms.tree
    }
}
