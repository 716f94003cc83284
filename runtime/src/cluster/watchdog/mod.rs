//! Which actors are stuck: they have messages and handle none.
//!
//! Pure: counts and a clock reading in, edges out, each once. A message that is handled for long and an actor
//! that hangs look the same from outside; the limit tells them apart. `watch` looks at the actors of a tree, `lag` at
//! event loops.

pub mod lag;
mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use watch::{Pulses, Watch};

/// One actor as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Rises whenever it comes back for more.
    pub handled: u64,
    /// Messages that wait, and those that it has in hand.
    pub depth: usize,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchdogEvent<K> {
    /// It has handled nothing for longer than the limit while messages waited.
    Stuck {
        /// Which.
        actor: K,
        /// For how long.
        silent: Duration,
        /// Messages that wait.
        depth: usize,
    },
    /// It handles messages again, or none wait any more.
    Recovered {
        /// Which.
        actor: K,
        /// For how long it was stuck.
        silent: Duration,
    },
}

/// Watches the actors of one node.
#[derive(Debug)]
pub struct Watchdog<K> {
    limit: Duration,
    actors: BTreeMap<K, Watched>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    handled: u64,
    progress_at: Instant,
    /// Nothing waited: the wait begins when that is first seen to be over.
    idle: bool,
    stuck: bool,
}

impl<K: Ord + Clone> Watchdog<K> {
    /// An actor is stuck after this long.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, actors: BTreeMap::new() }
    }

    /// Looks at all actors. One that is not among them any more is forgotten without a word.
    pub fn look(
        &mut self,
        actors: impl IntoIterator<Item = (K, Pulse)>,
        now: Instant,
    ) -> Vec<WatchdogEvent<K>> {
        let before = std::mem::take(&mut self.actors);
        let mut events = Vec::new();
        for (actor, pulse) in actors {
            let idle = pulse.depth == 0;
            let fresh = Watched { handled: pulse.handled, progress_at: now, idle, stuck: false };
            let known = before.get(&actor).copied().unwrap_or(fresh);
            let silent = now.saturating_duration_since(known.progress_at);
            // Another count, even a lower one of a new life, is progress; so is having nothing to do.
            let moves = pulse.handled != known.handled || idle || known.idle;
            let watched = match known.stuck {
                true if moves => {
                    events.push(WatchdogEvent::Recovered { actor: actor.clone(), silent });
                    fresh
                }
                false if moves => fresh,
                false if silent > self.limit => {
                    events.push(WatchdogEvent::Stuck { actor: actor.clone(), silent, depth: pulse.depth });
                    Watched { stuck: true, ..known }
                }
                _ => known,
            };
            self.actors.insert(actor, watched);
        }
        events
    }

    /// Those that are stuck now.
    pub fn stuck(&self) -> impl Iterator<Item = &K> {
        self.actors.iter().filter(|(_, watched)| watched.stuck).map(|(actor, _)| actor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_actor_is_not_stuck() {
        check(&[(0, 5, 0), (100, 5, 0), (200, 5, 0)], &[]);
    }

    #[test]
    fn a_slow_actor_is_not_stuck() {
        check(&[(0, 1, 9), (10, 2, 9), (20, 3, 9), (30, 4, 9)], &[]);
    }

    #[test]
    fn the_wait_begins_with_the_first_message_that_waits() {
        check(&[(0, 5, 0), (100, 5, 1), (110, 5, 1), (111, 5, 1)], &["111 stuck"]);
    }

    #[test]
    fn a_stuck_actor_is_told_once() {
        check(&[(0, 5, 1), (11, 5, 1), (12, 5, 2), (50, 5, 3)], &["11 stuck"]);
    }

    #[test]
    fn a_recovery_is_told_once_and_the_next_time_again() {
        check(
            &[(0, 5, 1), (11, 5, 1), (20, 6, 1), (21, 6, 1), (32, 6, 1), (33, 6, 0)],
            &["11 stuck", "20 recovered", "32 stuck", "33 recovered"],
        );
    }

    #[test]
    fn a_new_life_is_a_recovery() {
        check(&[(0, 5, 1), (11, 5, 1), (12, 0, 1)], &["11 stuck", "12 recovered"]);
    }

    #[test]
    fn an_actor_that_is_gone_is_forgotten() {
        let (start, mut watchdog) = (Instant::now(), Watchdog::new(Duration::from_secs(1)));
        let pulse = Pulse { handled: 1, depth: 1 };
        watchdog.look([("a", pulse)], start);
        assert_eq!(watchdog.look([("a", pulse)], start + Duration::from_secs(2)).len(), 1);
        assert!(watchdog.look([], start + Duration::from_secs(3)).is_empty());
        assert_eq!((watchdog.stuck().count(), watchdog.actors.len()), (0, 0));
    }

    /// One actor with a limit of 10 seconds: (second, handled, depth), and the events.
    #[track_caller]
    fn check(looks: &[(u64, u64, usize)], expected: &[&str]) {
        let (start, mut watchdog) = (Instant::now(), Watchdog::new(Duration::from_secs(10)));
        let mut said = Vec::new();
        for &(at_s, handled, depth) in looks {
            let now = start + Duration::from_secs(at_s);
            for event in watchdog.look([("a", Pulse { handled, depth })], now) {
                let edge = if matches!(event, WatchdogEvent::Stuck { .. }) { "stuck" } else { "recovered" };
                said.push(format!("{at_s} {edge}"));
            }
        }
        assert_eq!(said, expected);
    }
}
