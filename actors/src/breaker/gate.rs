//! What the breaker publishes for one model on one device, or for one other node: a few atomics that every request
//! reads.
//!
//! The breaker actor alone moves the circuit of a device; callers only take permits, and devices only report calls.
//! Fast calls while closed are merely counted here, so that a healthy system sends the breaker nothing. The circuit of
//! another node hears of no device, and is moved where its calls end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use peregrine_runtime::{Address, Clock};

use crate::breaker::state::{BreakerLimits, Call, Cause, Circuit, Event};
use crate::breaker::{BreakerMail, BreakerMode, Permit};
use crate::devices::DeviceId;
use crate::inference::{Judge, Outcome, Ticket};
use crate::status::{BreakerState, BreakerStatus, Guarded, nanos};

/// What a gate is made of.
pub(crate) struct GateSpec {
    pub(crate) guards: Guarded,
    pub(crate) limits: BreakerLimits,
    pub(crate) mode: BreakerMode,
    pub(crate) clock: Arc<dyn Clock>,
    /// Who moves the circuit; `None`: whoever reports.
    pub(crate) breaker: Option<Address<BreakerMail>>,
    /// Told once when an answer was wrong while nothing was known against the device: it is to be built anew.
    pub(crate) mend: Option<Mend>,
}

/// Told why.
pub(crate) type Mend = Box<dyn Fn(&str) + Send + Sync>;

/// One circuit, and its published form.
pub(crate) struct Gate {
    spec: GateSpec,
    circuit: Mutex<Circuit>,
    reason: Mutex<String>,
    state: AtomicU8,
    /// In [`BreakerMode::ALL`].
    mode: AtomicU8,
    born: Instant,
    /// Nanoseconds after `born` from which on probes may try.
    until_ns: AtomicU64,
    probes_left: AtomicU32,
    /// Counts openings, so that a probe of an earlier one cannot be given back to a later one.
    epoch: AtomicU32,
    passed: AtomicU32,
    /// Nanoseconds after `born` since when they are counted.
    passed_since_ns: AtomicU64,
    failures: AtomicU64,
    transitions: AtomicU64,
}

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const HALF_OPEN: u8 = 2;

/// Fast calls counted here before the breaker hears of them; more than any window holds is never needed.
const PASSED_MAX: u32 = 1 << 16;

impl Gate {
    pub(crate) fn new(spec: GateSpec) -> Self {
        Self {
            circuit: Mutex::new(Circuit::new()),
            reason: Mutex::new(String::new()),
            state: AtomicU8::new(CLOSED),
            mode: AtomicU8::new(spec.mode as u8),
            born: spec.clock.now(),
            until_ns: AtomicU64::new(0),
            probes_left: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            passed: AtomicU32::new(0),
            passed_since_ns: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            transitions: AtomicU64::new(0),
            spec,
        }
    }

    pub(crate) fn guards(&self) -> &Guarded {
        &self.spec.guards
    }

    pub(crate) fn mode(&self) -> BreakerMode {
        BreakerMode::ALL[usize::from(self.mode.load(Ordering::Relaxed))]
    }

    /// An operator's decision; calls counted under another are forgotten.
    pub(crate) fn set_mode(&self, mode: BreakerMode) {
        let before = BreakerMode::ALL[usize::from(self.mode.swap(mode as u8, Ordering::AcqRel))];
        if before == mode {
            return;
        }
        tracing::warn!(guards = %self.spec.guards, from = before.name(), to = mode.name(), "breaker mode");
        if mode == BreakerMode::Auto {
            // What is reported at this moment comes before or after both.
            let mut circuit = self.circuit.lock();
            self.passed.store(0, Ordering::Release);
            *circuit = Circuit::new();
            self.state.store(CLOSED, Ordering::Release);
        }
    }

    /// Whether everything passes.
    pub(crate) fn is_closed(&self) -> bool {
        match self.mode() {
            BreakerMode::Auto => self.state.load(Ordering::Acquire) == CLOSED,
            BreakerMode::ForcedOpen => false,
            BreakerMode::Disabled | BreakerMode::MetricsOnly => true,
        }
    }

    /// Whether it is a gate of this device.
    pub(crate) fn is_of(&self, id: DeviceId) -> bool {
        matches!(self.spec.guards, Guarded::Device { device, .. } if device == id)
    }

    /// Whether a permit could be had now; takes none.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        self.is_closed()
            || self.mode() != BreakerMode::ForcedOpen
                && (nanos(now.saturating_duration_since(self.born)) >= self.until_ns.load(Ordering::Acquire)
                    && self.probes_left.load(Ordering::Acquire) > 0)
    }

    /// Whether a request may pass now.
    pub(crate) fn permit(self: &Arc<Self>, now: Instant) -> Permit {
        if self.is_closed() {
            return Permit::Pass;
        }
        if self.mode() == BreakerMode::ForcedOpen {
            return Permit::Refuse;
        }
        if nanos(now.saturating_duration_since(self.born)) < self.until_ns.load(Ordering::Acquire) {
            return Permit::Refuse;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let taken =
            self.probes_left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        match taken {
            Ok(_) => Permit::Probe(Ticket::new(Arc::clone(self) as Arc<dyn Judge>, epoch)),
            Err(_) => Permit::Refuse,
        }
    }

    /// Whether a request that has nowhere else to go may pass: a guess that failed or was late of late is better than
    /// none, unless an operator or the device says no, or its calls break it for others.
    pub(crate) fn is_last_resort(&self) -> bool {
        match (self.mode(), &self.spec.guards) {
            (BreakerMode::ForcedOpen, _) => false,
            // What goes wrong there breaks nothing here.
            (_, Guarded::Peer { .. }) => true,
            (_, Guarded::Device { .. } | Guarded::Coverage { .. }) => self.circuit.lock().is_last_resort(),
        }
    }

    /// Moves the circuit; if there is a breaker actor, only that does this.
    pub(crate) fn apply(&self, event: Event, why: Option<&str>) {
        if self.mode() == BreakerMode::Disabled {
            return;
        }
        let now = self.spec.clock.now();
        let since_ns = nanos(now.saturating_duration_since(self.born));
        let over = since_ns.saturating_sub(self.passed_since_ns.swap(since_ns, Ordering::AcqRel));
        let passed = self.passed.swap(0, Ordering::AcqRel) as usize;
        let mut circuit = self.circuit.lock();
        let before = std::mem::replace(&mut *circuit, Circuit::new());
        let from = kind(&before);
        let counted = before.next(Event::Passed(passed, Duration::from_nanos(over)), now, &self.spec.limits);
        let reopened = matches!(event, Event::Probe(_) | Event::DeviceDown | Event::Call(_) | Event::Wrong);
        let streak_before = streak(&counted);
        *circuit = counted.next(event, now, &self.spec.limits);
        if matches!(event, Event::Call(Call::Failed) | Event::Probe(Call::Failed) | Event::Wrong) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let to = kind(&circuit);
        if let Circuit::Open { until, cause, .. } = &*circuit {
            self.until_ns.store(nanos(until.saturating_duration_since(self.born)), Ordering::Release);
            if reopened && (from != OPEN || streak(&circuit) != streak_before) {
                self.epoch.fetch_add(1, Ordering::AcqRel);
                let probes = u32::try_from(self.spec.limits.probes).unwrap_or(u32::MAX).max(1);
                self.probes_left.store(probes, Ordering::Release);
                *self.reason.lock() = match why {
                    Some(why) => format!("{}: {why}", cause.text()),
                    None => cause.text().to_owned(),
                };
            }
        }
        self.state.store(to, Ordering::Release);
        drop(circuit);
        if from != to {
            self.transitions.fetch_add(1, Ordering::Relaxed);
            let (from, to) = (NAMES[usize::from(from)], NAMES[usize::from(to)]);
            tracing::warn!(guards = %self.spec.guards, from, to, "breaker");
        }
        if event == Event::Wrong
            && from == CLOSED
            && self.mode() == BreakerMode::Auto
            && let Some(mend) = &self.spec.mend
        {
            mend(why.unwrap_or(Cause::Wrong.text()));
        }
    }

    pub(crate) fn status(&self, now: Instant) -> BreakerStatus {
        let mode = self.mode();
        let state = match &*self.circuit.lock() {
            _ if mode == BreakerMode::ForcedOpen => BreakerState::ForcedOpen,
            _ if mode == BreakerMode::Disabled => BreakerState::Closed,
            Circuit::Closed(_) => BreakerState::Closed,
            Circuit::Open { until, .. } if now < *until => {
                BreakerState::Open { remaining: until.saturating_duration_since(now) }
            }
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => BreakerState::HalfOpen,
        };
        BreakerStatus {
            guards: self.spec.guards.clone(),
            mode,
            state,
            failures: self.failures.load(Ordering::Relaxed),
            transitions: self.transitions.load(Ordering::Relaxed),
            reason: self.reason.lock().clone(),
        }
    }

    /// Whether a call counts as a probe, since none is let through as one.
    fn shows_only(&self) -> bool {
        self.mode() == BreakerMode::MetricsOnly
            && self.state.load(Ordering::Acquire) != CLOSED
            && nanos(self.spec.clock.now().saturating_duration_since(self.born))
                >= self.until_ns.load(Ordering::Acquire)
    }

    fn tell(self: Arc<Self>, event: Event, why: Option<String>) {
        let Some(breaker) = self.spec.breaker.clone() else { return self.apply(event, why.as_deref()) };
        // A breaker that is behind by a full mailbox has more to go by than this one call.
        if breaker.tell(BreakerMail::Observed { gate: self, event, why }).is_err() {
            tracing::warn!("breaker is behind, one report lost");
        }
    }
}

const NAMES: [&str; 3] = ["closed", "open", "half-open"];

impl Judge for Gate {
    fn judge(self: Arc<Self>, outcome: Outcome<'_>, probe: bool) {
        let (call, why) = match outcome {
            Outcome::Wrong(why) => return self.tell(Event::Wrong, Some(why.to_owned())),
            Outcome::Finished { took } if took > self.spec.limits.slow_after => (Call::Slow, None),
            Outcome::Finished { .. } => (Call::Fast, None),
            Outcome::Failed(why) => (Call::Failed, Some(why.to_owned())),
        };
        match (probe || self.shows_only(), call) {
            (true, call) => self.tell(Event::Probe(call), why),
            (false, Call::Fast) => {
                if self.passed.load(Ordering::Relaxed) < PASSED_MAX {
                    self.passed.fetch_add(1, Ordering::Relaxed);
                }
            }
            (false, call) => self.tell(Event::Call(call), why),
        }
    }

    fn trusts(&self) -> bool {
        self.is_closed()
    }

    fn forfeit(&self, epoch: u32) {
        if self.epoch.load(Ordering::Acquire) == epoch {
            self.probes_left.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn kind(circuit: &Circuit) -> u8 {
    match circuit {
        Circuit::Closed(_) => CLOSED,
        Circuit::Open { .. } => OPEN,
        Circuit::HalfOpen { .. } => HALF_OPEN,
    }
}

fn streak(circuit: &Circuit) -> u32 {
    match circuit {
        Circuit::Closed(_) => 0,
        Circuit::Open { streak, .. } | Circuit::HalfOpen { streak, .. } => *streak,
    }
}
