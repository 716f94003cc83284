//! Decides which traces are recorded. Pure but for its counters: ids and times come in.
//!
//! A caller's word counts where the configuration says so; else a share of all traces, by their ids, so that every
//! program of the same share decides the same. Whatever they decide, no more begin here in a second than allowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use peregrine_runtime::TraceContext;

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SamplerLimits {
    /// Of the traces that begin here, 0 to 1.
    pub(crate) ratio: f64,
    /// Whether a caller that has decided is followed.
    pub(crate) follows_callers: bool,
    /// In each second, those of callers included.
    pub(crate) per_second_max: u32,
}

/// Why a trace is recorded, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Recorded,
    /// Not one of the share, or its caller does not record it.
    Passed,
    /// It would have been, but there were too many.
    Capped,
}

#[derive(Debug)]
pub(crate) struct Sampler {
    limits: SamplerLimits,
    /// Of 63 bits of a trace id.
    below: u64,
    since: Instant,
    /// The second, then how many were recorded in it: 32 bits each.
    window: AtomicU64,
}

impl Sampler {
    pub(crate) fn new(limits: SamplerLimits, now: Instant) -> Self {
        // As OpenTelemetry's `TraceIdRatioBased`; a ratio of 1 is above every id.
        let below = (limits.ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        Self { limits, below, since: now, window: AtomicU64::new(0) }
    }

    /// Whether a trace of this id, by its last eight bytes, is one of the share. No more than a comparison.
    pub(crate) fn takes(&self, id_low: u64) -> bool {
        id_low >> 1 < self.below
    }

    /// What becomes of a trace that comes in or begins; `id_low` are the last eight bytes of its id.
    pub(crate) fn decide(&self, caller: Option<&TraceContext>, id_low: u64, now: Instant) -> Verdict {
        let wanted = match caller {
            Some(caller) if self.limits.follows_callers => caller.sampled,
            _ => self.takes(id_low),
        };
        match wanted {
            false => Verdict::Passed,
            true if self.has_room(now) => Verdict::Recorded,
            true => Verdict::Capped,
        }
    }

    fn has_room(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.since).as_secs() & u64::from(u32::MAX);
        let took = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
            let (of, count) = (window >> 32, window & u64::from(u32::MAX));
            let count = if of == second { count } else { 0 };
            (count < u64::from(self.limits.per_second_max)).then_some(second << 32 | (count + 1))
        });
        took.is_ok()
    }
}

/// The last eight bytes of a trace's id.
pub(crate) fn low(context: &TraceContext) -> u64 {
    let bytes = context.trace.bytes();
    u64::from_be_bytes(std::array::from_fn(|at| bytes[at + 8]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peregrine_runtime::{SpanId, TraceId};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_share_of_all_ids_is_taken() {
        for (ratio, low, taken) in [
            (0.0, 0, false),
            (1.0, u64::MAX, true),
            (0.5, 0, true),
            (0.5, u64::MAX / 2 - 2, true),
            (0.5, u64::MAX / 2 + 2, false),
            (0.01, u64::MAX / 100 - 1000, true),
            (0.01, u64::MAX / 100 + 1000, false),
            (7.0, u64::MAX, true),
        ] {
            assert_eq!(sampler(ratio, true, 1).takes(low), taken, "{ratio} of {low:#x}");
        }
    }

    #[test]
    fn a_share_is_met_over_many_ids() {
        let sampler = sampler(0.1, true, 1);
        // Steps of the golden ratio fill the range evenly.
        let ids = (0..100_000_u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let taken = ids.filter(|id| sampler.takes(*id)).count();
        assert!((9_990..=10_010).contains(&taken), "{taken}");
    }

    #[test]
    fn a_caller_that_has_decided_is_followed_if_it_is_to_be() {
        let now = Instant::now();
        for (follows, sampled, low, want) in [
            (true, true, u64::MAX, Verdict::Recorded),
            (true, false, 0, Verdict::Passed),
            (false, true, u64::MAX, Verdict::Passed),
            (false, false, 0, Verdict::Recorded),
        ] {
            let caller = caller(sampled);
            assert_eq!(sampler(0.5, follows, 9).decide(Some(&caller), low, now), want);
        }
    }

    #[test]
    fn nobody_begins_more_in_a_second_than_allowed() {
        let start = Instant::now();
        let sampler =
            Sampler::new(SamplerLimits { ratio: 1.0, follows_callers: true, per_second_max: 2 }, start);
        let at = |after: Duration| sampler.decide(Some(&caller(true)), 0, start + after);
        assert_eq!([at(Duration::ZERO), at(Duration::ZERO)], [Verdict::Recorded; 2]);
        assert_eq!(at(SECOND - Duration::from_nanos(1)), Verdict::Capped);
        assert_eq!(
            [at(SECOND), at(SECOND), at(SECOND)],
            [Verdict::Recorded, Verdict::Recorded, Verdict::Capped]
        );
        let none =
            Sampler::new(SamplerLimits { ratio: 1.0, follows_callers: true, per_second_max: 0 }, start);
        assert_eq!(none.decide(None, 0, start), Verdict::Capped);
    }

    #[test]
    fn what_is_passed_costs_no_room() {
        let (now, sampler) = (Instant::now(), sampler(0.0, true, 1));
        assert_eq!(sampler.decide(None, 0, now), Verdict::Passed);
        assert_eq!(sampler.decide(Some(&caller(true)), 0, now), Verdict::Recorded);
    }

    fn sampler(ratio: f64, follows_callers: bool, per_second_max: u32) -> Sampler {
        Sampler::new(SamplerLimits { ratio, follows_callers, per_second_max }, Instant::now())
    }

    fn caller(sampled: bool) -> TraceContext {
        let (trace, span) = (TraceId::new([1; 16]).unwrap(), SpanId::new([1; 8]).unwrap());
        TraceContext { trace, span, sampled }
    }
}
