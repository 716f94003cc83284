//! How a node leaves in good order: cordon, finish, hand off, leave, with one deadline for the whole.
//!
//! Pure: what is still here and a clock reading in, what to do out. What is not done by the deadline is left
//! undone and said. `shell` carries it out.

mod shell;

use std::time::{Duration, Instant};

/// How far a node is with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Takes part.
    Serving,
    /// Takes nothing new, and ends what it has begun.
    Finishing {
        /// When it began to leave.
        since: Instant,
        /// When it stops waiting for that, so that time is left to hand off.
        until: Instant,
        /// When it leaves whatever is left.
        deadline: Instant,
    },
    /// Gives what it owns to those who stay.
    HandingOff {
        /// When it began to leave.
        since: Instant,
        /// When it leaves whatever is left.
        deadline: Instant,
    },
    /// Has said goodbye.
    Left,
}

/// What is still here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Requests that are not answered.
    pub in_flight: usize,
    /// Shards that are owned or on their way.
    pub shards: usize,
    /// Messages in those shards.
    pub messages: usize,
    /// Singletons that act or stop here.
    pub singletons: usize,
}

impl Rest {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            in_flight: self.in_flight + other.in_flight,
            shards: self.shards + other.shards,
            messages: self.messages + other.messages,
            singletons: self.singletons + other.singletons,
        }
    }
}

/// What the shell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainAction {
    /// Say `Draining` to the others and refuse what is new.
    Cordon,
    /// End what still runs: the time for it is over.
    HandOff,
    /// Say goodbye, give every lease back, stop. What the report names is not done.
    Leave(DrainReport),
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// From the cordon to the goodbye.
    pub took: Duration,
    /// Left undone.
    pub undone: Rest,
}

impl DrainReport {
    /// Whether nothing was left undone.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.undone == Rest::default()
    }
}

/// Of the whole time, what is kept back for handing off.
const HAND_OFF_SHARE: u32 = 3;

impl Drain {
    /// Begins to leave; does nothing if that has begun already, so that the first deadline holds.
    pub fn start(&mut self, within: Duration, now: Instant) -> Option<DrainAction> {
        if *self != Self::Serving {
            return None;
        }
        let deadline = now + within;
        let until = deadline - within / HAND_OFF_SHARE;
        *self = Self::Finishing { since: now, until, deadline };
        Some(DrainAction::Cordon)
    }

    /// What follows from what is still here. Shards move away from the cordon on; only the last step waits.
    pub fn poll(&mut self, rest: Rest, now: Instant) -> Option<DrainAction> {
        let (next, action) = match *self {
            Self::Serving | Self::Left => return None,
            Self::Finishing { since, until, deadline } if rest.in_flight == 0 || until <= now => {
                (Self::HandingOff { since, deadline }, DrainAction::HandOff)
            }
            Self::Finishing { .. } => return None,
            Self::HandingOff { since, deadline } => {
                if rest != Rest::default() && now < deadline {
                    return None;
                }
                let took = now.saturating_duration_since(since);
                (Self::Left, DrainAction::Leave(DrainReport { took, undone: rest }))
            }
        };
        *self = next;
        Some(action)
    }

    /// When [`Self::poll`] is due though nothing has changed.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        match *self {
            Self::Serving | Self::Left => None,
            Self::Finishing { until, .. } => Some(until),
            Self::HandingOff { deadline, .. } => Some(deadline),
        }
    }

    /// Whether something new is taken.
    #[must_use]
    pub fn accepts(&self) -> bool {
        *self == Self::Serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Rest = Rest { in_flight: 0, shards: 0, messages: 0, singletons: 0 };
    const BUSY: Rest = Rest { in_flight: 2, shards: 3, messages: 4, singletons: 1 };
    const OWNER: Rest = Rest { in_flight: 0, ..BUSY };

    #[test]
    fn a_node_that_serves_stays() {
        let mut drain = Drain::Serving;
        assert_eq!((drain.poll(NONE, Instant::now()), drain.accepts(), drain.wake_at()), (None, true, None));
    }

    #[test]
    fn an_idle_node_leaves_at_once() {
        check(&[(0, NONE), (0, NONE), (1, NONE)], &["hand off", "left after 0, clean", "-"]);
    }

    #[test]
    fn what_is_begun_ends_before_the_hand_off() {
        check(
            &[(1, BUSY), (5, OWNER), (6, OWNER), (7, NONE)],
            &["-", "hand off", "-", "left after 7, clean"],
        );
    }

    #[test]
    fn time_is_kept_back_for_the_hand_off() {
        check(&[(19, BUSY), (20, BUSY), (21, NONE)], &["-", "hand off", "left after 21, clean"]);
    }

    #[test]
    fn the_deadline_ends_it_and_says_what_is_not_done() {
        let undone = format!("left after 30, undone {BUSY:?}");
        check(&[(20, BUSY), (29, BUSY), (30, BUSY), (31, BUSY)], &["hand off", "-", &undone, "-"]);
    }

    #[test]
    fn a_second_start_changes_nothing() {
        let start = Instant::now();
        let mut drain = Drain::Serving;
        drain.start(Duration::from_secs(3), start);
        let before = drain;
        assert_eq!((drain.start(Duration::from_secs(60), start), drain), (None, before));
    }

    /// A drain within 30 seconds: what is here at which second, and what is done.
    #[track_caller]
    fn check(polls: &[(u64, Rest)], expected: &[&str]) {
        let start = Instant::now();
        let mut drain = Drain::Serving;
        assert_eq!(drain.start(Duration::from_secs(30), start), Some(DrainAction::Cordon));
        assert!(!drain.accepts());
        let poll = |&(at_s, rest): &(u64, Rest)| match drain.poll(rest, start + Duration::from_secs(at_s)) {
            None => "-".to_owned(),
            Some(DrainAction::Cordon) => "cordon".to_owned(),
            Some(DrainAction::HandOff) => "hand off".to_owned(),
            Some(DrainAction::Leave(report)) if report.is_clean() => {
                format!("left after {}, clean", report.took.as_secs())
            }
            Some(DrainAction::Leave(report)) => {
                format!("left after {}, undone {:?}", report.took.as_secs(), report.undone)
            }
        };
        assert_eq!(polls.iter().map(poll).collect::<Vec<_>>(), expected);
    }
}
