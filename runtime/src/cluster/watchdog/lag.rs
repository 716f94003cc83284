//! How late the timers of an event loop are: a loop that is held up serves nobody, and says nothing of it by itself.
//!
//! A beat is due; what it is late by is the lag, also while it has not come yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;

/// Between two beats.
pub const BEAT: Duration = Duration::from_millis(100);
/// The worst lag of so long is remembered, and of the time before once more.
const REMEMBERED: Duration = Duration::from_secs(5);

/// The lag of one loop.
#[derive(Debug)]
pub struct LoopLag(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    /// `None`: the loop has ended, nothing is expected of it.
    due: Option<Instant>,
    since: Instant,
    worst: Duration,
    worst_before: Duration,
}

impl LoopLag {
    /// Of a loop that beats now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let due = Some(now + BEAT);
        Self(Mutex::new(Beats { due, since: now, worst: Duration::ZERO, worst_before: Duration::ZERO }))
    }

    /// The loop beats, and will again after [`BEAT`].
    pub fn beat(&self, now: Instant) {
        let mut beats = self.0.lock();
        let late = beats.due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        beats.turn(now);
        beats.worst = beats.worst.max(late);
        beats.due = Some(now + BEAT);
    }

    /// The loop is no more.
    pub fn end(&self) {
        self.0.lock().due = None;
    }

    /// Whether the loop is no more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.lock().due.is_none()
    }

    /// By how much a beat was late at worst, of late or right now.
    #[must_use]
    pub fn worst(&self, now: Instant) -> Duration {
        let mut beats = self.0.lock();
        beats.turn(now);
        let overdue = beats.due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        overdue.max(beats.worst).max(beats.worst_before)
    }
}

impl Beats {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= REMEMBERED {
            self.worst_before = if age < 2 * REMEMBERED { self.worst } else { Duration::ZERO };
            self.worst = Duration::ZERO;
            self.since = now;
        }
    }
}

/// Beats on the loop that runs this, until it is dropped. Must be polled within a tokio runtime.
pub async fn beat(lag: Arc<LoopLag>, clock: Arc<dyn Clock>) {
    struct End(Arc<LoopLag>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    let end = End(lag);
    loop {
        end.0.beat(clock.now());
        tokio::time::sleep(BEAT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    #[test]
    fn a_loop_that_beats_in_time_has_no_lag() {
        check(&[0, 100, 200, 300], 350, 0);
    }

    #[test]
    fn a_late_beat_is_remembered_for_a_while() {
        check(&[0, 100, 900, 1000], 1000, 700);
        check(&[0, 100, 900, 5000, 5100], 5100, 4000);
        let beats: Vec<u64> = [0, 100, 900].into_iter().chain((10..=110).map(|at| at * 100)).collect();
        check(&beats, 11_000, 0);
    }

    #[test]
    fn a_beat_that_has_not_come_counts_already() {
        check(&[0, 100], 3200, 3000);
    }

    #[test]
    fn nothing_is_expected_of_a_loop_that_has_ended() {
        let now = Instant::now();
        let lag = LoopLag::new(now);
        lag.end();
        assert_eq!(lag.worst(now + Duration::from_secs(9)), Duration::ZERO);
        assert!(lag.has_ended());
    }

    #[tokio::test]
    async fn a_loop_that_is_held_up_is_seen_from_outside_and_a_dropped_one_has_ended() {
        let clock = Arc::new(ManualClock::new());
        let lag = Arc::new(LoopLag::new(clock.now()));
        let beating = tokio::spawn(beat(Arc::clone(&lag), clock.clone()));
        tokio::task::yield_now().await;
        // This thread runs the loop, so that nothing beats while it is here.
        clock.advance(Duration::from_secs(2));
        assert_eq!(lag.worst(clock.now()), Duration::from_millis(1900));
        beating.abort();
        assert!(beating.await.is_err_and(|error| error.is_cancelled()));
        assert!(lag.has_ended());
    }

    /// Milliseconds of beats, and the lag in milliseconds at a moment.
    #[track_caller]
    fn check(beats: &[u64], at: u64, expected: u64) {
        let start = Instant::now();
        let moment = |millis: u64| start + Duration::from_millis(millis);
        let lag = LoopLag::new(start);
        beats.iter().for_each(|&beat| lag.beat(moment(beat)));
        assert_eq!(lag.worst(moment(at)), Duration::from_millis(expected));
    }
}
