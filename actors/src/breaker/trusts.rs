//! The circuits of model versions by what their intervals hold, as all threads see them: the router's actor moves them,
//! streams ask which versions are to forecast besides, operators decide about them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::coverage::{Held, Trust};
use super::{BreakerLimits, BreakerMode, Orders};
use crate::release::Fault;
use crate::status::{BreakerState, BreakerStatus, Guarded};

/// Name of a model, and a version of it.
type Version = (String, u32);

pub(crate) struct Trusts {
    limits: BreakerLimits,
    orders: Arc<Orders>,
    circuits: Mutex<BTreeMap<Version, Circuit>>,
    /// Of them; streams look at nothing else while there is none.
    half_open: AtomicUsize,
}

#[derive(Default)]
struct Circuit {
    trust: Trust,
    mode: BreakerMode,
    fault: Option<Fault>,
    failures: u64,
    transitions: u64,
    /// The version that answers in its stead.
    heir: Option<u32>,
    is_probing: Arc<AtomicBool>,
}

/// What has come of a look at a version.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Looked {
    /// Why it is not to answer where another version can.
    pub(crate) fault: Option<Fault>,
    /// It may answer again where this version does in its stead.
    pub(crate) heir: Option<u32>,
}

/// Leave to have a version forecast besides, for the scorecard alone; one at a time.
pub(crate) struct Probe {
    pub(crate) version: u32,
    is_probing: Arc<AtomicBool>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.is_probing.store(false, Ordering::Release);
    }
}

impl Trusts {
    pub(crate) fn new(limits: BreakerLimits, orders: Arc<Orders>) -> Self {
        Self { limits, orders, circuits: Mutex::default(), half_open: AtomicUsize::new(0) }
    }

    /// Looks at a version that is ready. `fault`: what the newest truths say, `None` while too few have come. `renew` has
    /// nothing count that was scored so far; half-open is what is scored anew.
    pub(crate) fn look(
        &self,
        model: &str,
        version: u32,
        fault: Option<Result<(), Fault>>,
        now: Instant,
        renew: impl FnOnce(),
    ) -> Looked {
        let guards = guarded(model, version);
        let mode = self.orders.mode(&guards);
        let mut circuits = self.circuits.lock();
        let circuit = circuits.entry((model.to_owned(), version)).or_default();
        circuit.obey(mode);
        let before = circuit.trust;
        if mode != BreakerMode::Disabled {
            let held = match fault {
                None => Held::Unknown,
                Some(Ok(())) => Held::Enough,
                Some(Err(_)) => Held::TooLittle,
            };
            circuit.trust = before.next(held, now, &self.limits);
        }
        if let (Trust::Open { .. }, Trust::HalfOpen { .. }) = (before, circuit.trust) {
            renew();
        }
        if circuit.trust != before {
            circuit.transitions += 1;
            let (from, to) = (name(before), name(circuit.trust));
            if let (Trust::Open { .. }, Some(Err(fault))) = (circuit.trust, fault) {
                circuit.failures += 1;
                circuit.fault = Some(fault);
                tracing::warn!(%guards, from, to, reason = %fault, "breaker");
            } else {
                tracing::warn!(%guards, from, to, "breaker");
            }
        }
        let looked =
            Looked { fault: circuit.refusal(), heir: circuit.heir.filter(|_| circuit.refusal().is_none()) };
        self.count(&circuits);
        looked
    }

    /// Another version answers in its stead, or none any more.
    pub(crate) fn set_heir(&self, model: &str, version: u32, heir: Option<u32>) {
        if let Some(circuit) = self.circuits.lock().get_mut(&(model.to_owned(), version)) {
            circuit.heir = heir;
        }
    }

    /// Forgets versions that are not there any more.
    pub(crate) fn retain(&self, is_ready: impl Fn(&str, u32) -> bool) {
        let mut circuits = self.circuits.lock();
        circuits.retain(|(model, version), _| is_ready(model, *version));
        self.count(&circuits);
    }

    /// Takes the orders that are in force now.
    pub(crate) fn obey(&self) {
        let mut circuits = self.circuits.lock();
        for ((model, version), circuit) in circuits.iter_mut() {
            circuit.obey(self.orders.mode(&guarded(model, *version)));
        }
        self.count(&circuits);
    }

    /// Versions of a model that forecast for the scorecard alone, but for the one that answers.
    pub(crate) fn probes(&self, model: &str, answers: u32) -> SmallVec<[Probe; 1]> {
        if self.half_open.load(Ordering::Acquire) == 0 {
            return SmallVec::new();
        }
        let circuits = self.circuits.lock();
        let of_model = circuits.range((model.to_owned(), 0)..=(model.to_owned(), u32::MAX));
        let probes = of_model.filter(|((_, version), circuit)| *version != answers && circuit.is_probed());
        let leave = |((_, version), circuit): (&Version, &Circuit)| {
            let is_probing = Arc::clone(&circuit.is_probing);
            let is_free = !is_probing.swap(true, Ordering::AcqRel);
            is_free.then_some(Probe { version: *version, is_probing })
        };
        probes.filter_map(leave).collect()
    }

    /// Of versions that are ready.
    pub(crate) fn status(&self, model: &str, version: u32, now: Instant) -> BreakerStatus {
        let guards = guarded(model, version);
        let mode = self.orders.mode(&guards);
        let circuits = self.circuits.lock();
        let unknown = Circuit::default();
        let circuit = circuits.get(&(model.to_owned(), version)).unwrap_or(&unknown);
        let state = match (mode, circuit.trust) {
            (BreakerMode::ForcedOpen, _) => BreakerState::ForcedOpen,
            (BreakerMode::Disabled, _) | (_, Trust::Closed) => BreakerState::Closed,
            (_, Trust::HalfOpen { .. }) => BreakerState::HalfOpen,
            (_, Trust::Open { until, .. }) => {
                BreakerState::Open { remaining: until.saturating_duration_since(now) }
            }
        };
        BreakerStatus {
            guards,
            mode,
            state,
            failures: circuit.failures,
            transitions: circuit.transitions,
            reason: circuit.fault.map(|fault| fault.to_string()).unwrap_or_default(),
        }
    }

    fn count(&self, circuits: &BTreeMap<Version, Circuit>) {
        let probed = circuits.values().filter(|circuit| circuit.is_probed()).count();
        self.half_open.store(probed, Ordering::Release);
    }
}

impl Circuit {
    /// What was seen under another mode is forgotten.
    fn obey(&mut self, mode: BreakerMode) {
        let before = std::mem::replace(&mut self.mode, mode);
        if before != mode && mode == BreakerMode::Auto {
            self.trust = Trust::Closed;
        }
    }

    fn refusal(&self) -> Option<Fault> {
        match (self.mode, self.trust) {
            (BreakerMode::ForcedOpen, _) => Some(Fault::Operator),
            (BreakerMode::Auto, Trust::Open { .. } | Trust::HalfOpen { .. }) => self.fault,
            (BreakerMode::Auto, Trust::Closed) => None,
            (BreakerMode::Disabled | BreakerMode::MetricsOnly, _) => None,
        }
    }

    /// It is scored by what it says to nobody else.
    fn is_probed(&self) -> bool {
        self.mode == BreakerMode::Auto && matches!(self.trust, Trust::HalfOpen { .. })
    }
}

fn guarded(model: &str, version: u32) -> Guarded {
    Guarded::Coverage { model: model.to_owned(), version }
}

const fn name(trust: Trust) -> &'static str {
    match trust {
        Trust::Closed => "closed",
        Trust::Open { .. } => "open",
        Trust::HalfOpen { .. } => "half-open",
    }
}
