//! Decides which unfinished handshakes may go on when there are many.
//!
//! Knows no socket, task or clock. A caller that has many unfinished makes room for one that has few, so a
//! flood from one host does not keep out the others; among equals, one that has had its time makes room.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The handshakes under way, oldest first.
#[derive(Debug)]
pub(super) struct Admission<K> {
    under_way: Vec<Handshake<K>>,
    limits: Limits,
}

/// How many, and how long one may take before it can be pushed out by another of the same host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) handshakes_max: usize,
    pub(super) undisturbed: Duration,
}

#[derive(Debug)]
struct Handshake<K> {
    key: K,
    from: IpAddr,
    since: Instant,
}

/// What becomes of a new caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict<K> {
    /// There is room.
    Admit,
    /// There is room once this one is ended, which is no longer counted.
    Replace(K),
    /// Its address may be forged, and there are many: it has to show that it receives what is sent to it.
    Prove,
    /// It may come back: what it sent is forgotten.
    Ignore,
}

impl<K: Copy + PartialEq> Admission<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { under_way: Vec::with_capacity(limits.handshakes_max), limits }
    }

    /// Judges a caller. Unless it is sent away, [`Admission::begin`] follows.
    pub(super) fn judge(&mut self, from: IpAddr, proven: bool, now: Instant) -> Verdict<K> {
        if self.under_way.len() * 2 >= self.limits.handshakes_max && !proven {
            return Verdict::Prove;
        }
        if self.under_way.len() < self.limits.handshakes_max {
            return Verdict::Admit;
        }
        match self.expendable(from, now) {
            Some(index) => Verdict::Replace(self.under_way.remove(index).key),
            None => Verdict::Ignore,
        }
    }

    pub(super) fn begin(&mut self, key: K, from: IpAddr, now: Instant) {
        self.under_way.push(Handshake { key, from, since: now });
    }

    /// It has ended, well or badly.
    pub(super) fn end(&mut self, key: K) {
        self.under_way.retain(|handshake| handshake.key != key);
    }

    /// The oldest of the greediest host, if that host would still have as many as the newcomer's; else the
    /// oldest of all, if it is old.
    fn expendable(&self, newcomer: IpAddr, now: Instant) -> Option<usize> {
        let count = |from| self.under_way.iter().filter(|handshake| handshake.from == from).count();
        let (greediest, most) = self
            .under_way
            .iter()
            .map(|handshake| (handshake.from, count(handshake.from)))
            .max_by_key(|&(_, n)| n)?;
        if most > count(newcomer) + 1 {
            return self.under_way.iter().position(|handshake| handshake.from == greediest);
        }
        let oldest = self.under_way.first()?;
        (now.saturating_duration_since(oldest.since) >= self.limits.undisturbed).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { handshakes_max: 4, undisturbed: Duration::from_millis(250) };

    #[test]
    fn there_is_room_for_a_few() {
        check(&[(1, 0)], (2, false, 0), Verdict::Admit);
    }

    #[test]
    fn when_half_is_taken_an_address_has_to_be_proven() {
        check(&[(1, 0), (2, 0)], (3, false, 0), Verdict::Prove);
        check(&[(1, 0), (2, 0)], (3, true, 0), Verdict::Admit);
    }

    #[test]
    fn a_greedy_host_makes_room_for_another() {
        check(&[(9, 0), (1, 1), (1, 2), (1, 3)], (2, true, 4), Verdict::Replace(1));
    }

    #[test]
    fn a_greedy_host_makes_no_room_for_itself() {
        check(&[(1, 0), (1, 1), (1, 2), (1, 3)], (1, true, 4), Verdict::Ignore);
    }

    #[test]
    fn hosts_with_one_each_are_left_alone_while_they_are_young() {
        check(&[(1, 0), (2, 1), (3, 2), (4, 3)], (5, true, 249), Verdict::Ignore);
    }

    #[test]
    fn the_oldest_goes_once_it_has_had_its_time() {
        check(&[(1, 0), (2, 1), (3, 2), (4, 3)], (5, true, 250), Verdict::Replace(0));
        check(&[(1, 0), (1, 1), (1, 2), (1, 3)], (1, true, 250), Verdict::Replace(0));
    }

    #[test]
    fn an_ended_handshake_leaves_its_place() {
        let start = Instant::now();
        let mut admission = Admission::new(LIMITS);
        for key in 0..4 {
            admission.begin(key, host(key), start);
        }
        admission.end(2);
        assert_eq!(admission.judge(host(9), true, start), Verdict::Admit);
    }

    fn host(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// Handshakes under way as (host, begun at ms), and a caller as (host, proven, at ms).
    #[track_caller]
    fn check(under_way: &[(u8, u64)], caller: (u8, bool, u64), verdict: Verdict<usize>) {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut admission = Admission::new(LIMITS);
        for (key, &(from, ms)) in under_way.iter().enumerate() {
            admission.begin(key, host(from), at(ms));
        }
        let (from, proven, ms) = caller;
        assert_eq!(admission.judge(host(from), proven, at(ms)), verdict);
    }
}
