//! How far away members are: round trips, kept as classes that do not flap.
//!
//! A round trip is a floor plus queueing, so the smallest of the last few says more than their mean; that
//! smallest is smoothed, and a class is left only by a margin. Knows no clock: samples come in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{NodeId, View};

/// How far, roughly; nearer ones compare less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RttClass {
    /// Under 0.5 ms.
    SameHost,
    /// Under 3 ms.
    SameRegion,
    /// Under 40 ms.
    Near,
    /// Under 120 ms.
    Far,
    /// Anything else.
    VeryFar,
}

impl RttClass {
    /// Every class, nearest first.
    pub const ALL: [Self; 5] = [Self::SameHost, Self::SameRegion, Self::Near, Self::Far, Self::VeryFar];

    /// The class of one round trip.
    #[must_use]
    pub fn of(rtt: Duration) -> Self {
        Self::ALL.into_iter().find(|class| rtt < class.ceiling()).unwrap_or(Self::VeryFar)
    }

    /// Round trips of the class are under this.
    #[must_use]
    pub const fn ceiling(self) -> Duration {
        match self {
            Self::SameHost => Duration::from_micros(500),
            Self::SameRegion => Duration::from_millis(3),
            Self::Near => Duration::from_millis(40),
            Self::Far => Duration::from_millis(120),
            Self::VeryFar => Duration::MAX,
        }
    }

    fn floor(self) -> Duration {
        Self::ALL.into_iter().rev().find(|&class| class < self).map_or(Duration::ZERO, Self::ceiling)
    }
}

/// Samples of which the smallest counts.
const SAMPLES_MAX: usize = 8;
/// A class is left when the round trip is this share beyond its bound.
const MARGIN: f64 = 0.2;
/// What the newest smallest sample adds to the smoothed round trip.
const GAIN: f64 = 0.25;

/// Nothing answers later than this; keeps the arithmetic away from its limits.
const RTT_MAX: Duration = Duration::from_secs(60);

/// What is known of the round trips to the members.
#[derive(Debug, Default)]
pub struct RttTable {
    tracks: BTreeMap<NodeId, Track>,
}

#[derive(Debug)]
struct Track {
    samples: VecDeque<Duration>,
    smoothed: Duration,
    class: RttClass,
}

impl RttTable {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One measured round trip; the new class, if it has changed.
    pub fn record(&mut self, node: &NodeId, rtt: Duration) -> Option<RttClass> {
        let rtt = rtt.min(RTT_MAX);
        let Some(track) = self.tracks.get_mut(node) else {
            let track = Track { samples: VecDeque::from([rtt]), smoothed: rtt, class: RttClass::of(rtt) };
            let class = track.class;
            self.tracks.insert(node.clone(), track);
            return Some(class);
        };
        let before = track.class;
        track.record(rtt);
        (track.class != before).then_some(track.class)
    }

    /// Forgets whoever is no member any more: a table is as large as a view.
    pub fn retain(&mut self, view: &View) {
        self.tracks.retain(|node, _| view.get(node).is_some());
    }

    /// The smoothed round trip.
    #[must_use]
    pub fn rtt(&self, node: &NodeId) -> Option<Duration> {
        self.tracks.get(node).map(|track| track.smoothed)
    }

    /// How far a member is: as measured, or else as its region suggests.
    #[must_use]
    pub fn class(&self, view: &View, me: &NodeId, node: &NodeId) -> RttClass {
        if let Some(track) = self.tracks.get(node) {
            return track.class;
        }
        let region = |id| view.get(id).map(|member| &member.region);
        match (region(me), region(node)) {
            _ if me == node => RttClass::SameHost,
            (Some(mine), Some(its)) if mine == its => RttClass::SameRegion,
            _ => RttClass::Far,
        }
    }
}

impl Track {
    fn record(&mut self, rtt: Duration) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(rtt);
        let least = self.samples.iter().copied().min().unwrap_or(rtt);
        self.smoothed = self.smoothed.mul_f64(1.0 - GAIN) + least.mul_f64(GAIN);
        let too_low = self.smoothed < self.class.floor().mul_f64(1.0 - MARGIN);
        let too_high =
            self.class != RttClass::VeryFar && self.smoothed > self.class.ceiling().mul_f64(1.0 + MARGIN);
        if too_low || too_high {
            self.class = RttClass::of(self.smoothed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{id, view};

    #[test]
    fn the_first_sample_decides() {
        check(&[400], &[RttClass::SameHost]);
        check(&[500], &[RttClass::SameRegion]);
        check(&[39_999], &[RttClass::Near]);
        check(&[40_000], &[RttClass::Far]);
        check(&[900_000], &[RttClass::VeryFar]);
    }

    #[test]
    fn a_round_trip_around_a_bound_does_not_flap() {
        let samples: Vec<u64> = (0..100).map(|n| if n % 2 == 0 { 2_700 } else { 3_300 }).collect();
        check(&samples, &[RttClass::SameRegion]);
        let samples: Vec<u64> = (0..100).map(|n| 40_000 - 6_000 + (n * 7_919) % 12_000).collect();
        check(&samples, &[RttClass::Near]);
    }

    #[test]
    fn a_burst_of_queueing_is_no_distance() {
        let mut samples = vec![1_000; 10];
        samples.extend([80_000; 7]);
        samples.extend([1_000; 10]);
        check(&samples, &[RttClass::SameRegion]);
    }

    #[test]
    fn a_longer_path_is_seen_once_it_lasts() {
        let mut samples = vec![1_000; 10];
        samples.extend([80_000; 60]);
        check(&samples, &[RttClass::SameRegion, RttClass::Near, RttClass::Far]);
    }

    #[test]
    fn a_shorter_path_is_seen() {
        let mut samples = vec![80_000; 10];
        samples.extend([1_000; 60]);
        check(&samples, &[RttClass::Far, RttClass::Near, RttClass::SameRegion]);
    }

    #[test]
    fn an_absurd_sample_breaks_nothing() {
        let mut table = RttTable::new();
        for rtt in [Duration::MAX, Duration::ZERO, Duration::MAX] {
            table.record(&id("a"), rtt);
        }
        assert!(table.rtt(&id("a")).is_some());
    }

    #[test]
    fn the_region_stands_in_for_what_is_not_measured() {
        let (mut table, view) = (RttTable::new(), view("me@x b@x c@y"));
        let classes = |table: &RttTable| ["me", "b", "c"].map(|to| table.class(&view, &id("me"), &id(to)));
        assert_eq!(classes(&table), [RttClass::SameHost, RttClass::SameRegion, RttClass::Far]);
        table.record(&id("c"), Duration::from_millis(200));
        assert_eq!(classes(&table)[2], RttClass::VeryFar);
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let mut table = RttTable::new();
        table.record(&id("a"), Duration::from_millis(1));
        table.record(&id("b"), Duration::from_millis(1));
        table.retain(&view("b c"));
        assert_eq!((table.rtt(&id("a")), table.tracks.len()), (None, 1));
    }

    /// Samples in microseconds; the classes it went through.
    #[track_caller]
    fn check(samples_us: &[u64], classes: &[RttClass]) {
        let mut table = RttTable::new();
        let record = |&us: &u64| table.record(&id("a"), Duration::from_micros(us));
        assert_eq!(samples_us.iter().filter_map(record).collect::<Vec<_>>(), classes);
    }
}
