//! Decides when another verdict counts: a device or a circuit that flaps must not make a node flap, which would throw
//! its share of the load to and fro between its neighbours.
//!
//! Pure: verdicts and a clock reading in, the steady one out.

use std::time::{Duration, Instant};

/// Bad for so long, and the node is not ready.
pub(crate) const NOT_READY_AFTER: Duration = Duration::from_secs(2);
/// Good for so long, and it is ready again.
pub(crate) const READY_AFTER: Duration = Duration::from_secs(2);

/// What a verdict says of this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Now {
    /// Forecasts can be answered.
    Ready,
    /// They cannot; it may pass.
    NotReady,
    /// They cannot, and somebody wanted it so: nothing is waited for.
    Closed,
}

/// What is made of verdicts over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steady {
    /// What is said to others.
    is_ready: bool,
    /// Whether it ever was.
    has_started: bool,
    /// A flap is a change of mind after this; what was closed on purpose opens at once.
    was_closed: bool,
    /// Since when verdicts are other than what is said.
    differs_since: Option<Instant>,
}

impl Steady {
    /// Not ready yet, and not started.
    pub(crate) const fn new() -> Self {
        Self { is_ready: false, has_started: false, was_closed: true, differs_since: None }
    }

    /// Takes a verdict; whether the node counts as ready.
    pub(crate) fn look(&mut self, verdict: Now, now: Instant) -> bool {
        let is_good = verdict == Now::Ready;
        if is_good == self.is_ready {
            self.differs_since = None;
            self.was_closed |= verdict == Now::Closed;
            return self.is_ready;
        }
        let since = *self.differs_since.get_or_insert(now);
        let patience = match verdict {
            Now::Closed => Duration::ZERO,
            Now::Ready if self.was_closed => Duration::ZERO,
            Now::Ready => READY_AFTER,
            Now::NotReady => NOT_READY_AFTER,
        };
        if now.saturating_duration_since(since) >= patience {
            self.is_ready = is_good;
            self.has_started |= is_good;
            self.was_closed = verdict == Now::Closed;
            self.differs_since = None;
        }
        self.is_ready
    }

    /// Whether the node ever was ready.
    pub(crate) const fn has_started(&self) -> bool {
        self.has_started
    }
}

#[cfg(test)]
mod tests {
    use super::Now::{Closed, NotReady, Ready};
    use super::*;

    #[test]
    fn a_node_is_ready_as_soon_as_it_can_answer_for_the_first_time() {
        check(&[(0, NotReady), (5000, NotReady), (5001, Ready)], "..R");
    }

    #[test]
    fn a_device_that_flaps_does_not_make_the_node_flap() {
        let flaps: Vec<(u64, Now)> =
            (0..40).map(|at| (at * 1000, if at % 2 == 0 { Ready } else { NotReady })).collect();
        check(&flaps, &"R".repeat(40));
    }

    #[test]
    fn a_device_that_stays_away_does_after_a_while() {
        check(&[(0, Ready), (100, NotReady), (2099, NotReady), (2100, NotReady)], "RRR.");
    }

    #[test]
    fn a_device_that_is_back_must_stay_for_a_while() {
        let verdicts =
            [(0, Ready), (1, NotReady), (2001, NotReady), (2002, Ready), (3000, NotReady), (3001, Ready)];
        check(&[&verdicts[..], &[(5000, Ready), (5001, Ready)]].concat(), "RR.....R");
    }

    #[test]
    fn what_is_closed_on_purpose_closes_and_opens_at_once() {
        check(&[(0, Ready), (1, Closed), (2, Ready)], "R.R");
        check(&[(0, Ready), (1, NotReady), (2001, NotReady), (2002, Closed), (2003, Ready)], "RR..R");
    }

    #[test]
    fn a_node_has_started_once_it_was_ready() {
        let (start, mut steady) = (Instant::now(), Steady::new());
        for (verdict, started) in [(NotReady, false), (Ready, true), (Closed, true)] {
            steady.look(verdict, start);
            assert_eq!(steady.has_started(), started, "{verdict:?}");
        }
    }

    /// Verdicts by millisecond, and what is said after each: `R` for ready.
    #[track_caller]
    fn check(verdicts: &[(u64, Now)], expected: &str) {
        let (start, mut steady) = (Instant::now(), Steady::new());
        let said: String = verdicts
            .iter()
            .map(|&(millis, verdict)| {
                let ready = steady.look(verdict, start + Duration::from_millis(millis));
                if ready { 'R' } else { '.' }
            })
            .collect();
        assert_eq!(said, expected);
    }
}
