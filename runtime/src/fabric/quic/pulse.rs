//! Ends a link on which only one direction works: what we send is not acknowledged, while the peer is still heard.
//!
//! QUIC's idle time does not see it. It begins again with every packet of the peer, who goes on sending until it has
//! itself heard nothing for as long; only then does ours begin.

use std::time::{Duration, Instant};

use quinn::{Connection, VarInt};
use tokio::time::{MissedTickBehavior, interval};

/// Looks at the counters of a link as long as it is open. Its handle keeps the link open:
/// whoever lets the link go aborts it.
pub(super) async fn watch(connection: Connection, unanswered_max: Duration) {
    let every = unanswered_max / 8;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pulse = Pulse::new(Instant::now());
    loop {
        ticks.tick().await;
        if connection.close_reason().is_some() {
            return;
        }
        let stats = connection.stats();
        let sent = stats.frame_tx.stream + stats.frame_tx.datagram + stats.frame_tx.ping;
        if pulse.beat(Counts { sent, acks: stats.frame_rx.acks }, every, Instant::now()) > unanswered_max {
            connection.close(VarInt::from_u32(0), b"what is sent does not arrive");
            return;
        }
    }
}

/// Frames of a link so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Those that the peer has to acknowledge, repeated ones included.
    sent: u64,
    /// Acknowledgements that came.
    acks: u64,
}

/// Since when what was sent is unanswered.
#[derive(Debug)]
struct Pulse {
    counts: Counts,
    /// Of the last acknowledgement, or of the last look at which nothing was owed.
    since: Instant,
    looked: Instant,
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Self { counts: Counts::default(), since: now, looked: now }
    }

    /// How long there has been no acknowledgement although one is owed. `every`: how often this is asked.
    fn beat(&mut self, counts: Counts, every: Duration, now: Instant) -> Duration {
        let late = now.saturating_duration_since(self.looked) > every * 3;
        self.looked = now;
        let is_owed = counts.sent > self.counts.sent && counts.acks == self.counts.acks;
        // A process that did not run has not read the acknowledgements either.
        if !is_owed || late {
            (self.counts, self.since) = (counts, now);
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    /// Looks, each 100 ms later and with these counts, and the longest time without an answer.
    #[track_caller]
    fn check(looks: &[(u64, u64)], expected_ms: u64) {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let beats = looks
            .iter()
            .zip(1..)
            .map(|(&(sent, acks), at)| pulse.beat(Counts { sent, acks }, EVERY, start + EVERY * at));
        assert_eq!(beats.max(), Some(Duration::from_millis(expected_ms)));
    }

    #[test]
    fn what_is_acknowledged_is_answered() {
        check(&[(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)], 100);
    }

    #[test]
    fn who_sends_nothing_is_owed_nothing() {
        check(&[(7, 3), (7, 3), (7, 3), (7, 3), (7, 3)], 0);
    }

    #[test]
    fn what_is_sent_again_and_again_is_unanswered() {
        check(&[(7, 3), (8, 3), (9, 3), (10, 3), (11, 3)], 400);
    }

    #[test]
    fn an_acknowledgement_begins_anew() {
        check(&[(7, 3), (8, 3), (9, 3), (10, 4), (11, 4), (12, 4)], 200);
    }

    #[test]
    fn who_did_not_run_has_heard_nothing() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.beat(Counts { sent: 5, acks: 5 }, EVERY, start);
        let counts = Counts { sent: 9, acks: 5 };
        assert_eq!(pulse.beat(counts, EVERY, start + EVERY * 60), Duration::ZERO);
    }
}
