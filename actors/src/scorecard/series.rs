//! One series: what has come of late, how far it moves from place to place, and the streams that predict it.

use super::stream::Stream;
use super::weights::Origin;

/// Truths that are remembered: a prediction may come so many places after them and still be scored.
const RECENT: usize = 64;
/// Model versions that predict one series; the one that was longest without a prediction makes room.
pub const STREAMS_MAX: usize = 16;
const EMPTY: u64 = u64::MAX;

pub(super) struct Series {
    places: [u64; RECENT],
    truths: [f32; RECENT],
    newest: u64,
    /// Sums of weights, and by them of absolute differences from place to place.
    moves: [f64; 2],
    origin: Origin,
    pub(super) streams: Vec<Stream>,
}

impl Series {
    pub(super) fn new(position: u64) -> Self {
        Self {
            places: [EMPTY; RECENT],
            truths: [0.0; RECENT],
            newest: position,
            moves: [0.0; 2],
            origin: Origin::at(position),
            streams: Vec::new(),
        }
    }

    /// What was seen at a place.
    pub(super) fn truth(&self, place: u64) -> Option<f32> {
        let slot = slot(place);
        (self.places[slot] == place && place != EMPTY).then(|| self.truths[slot])
    }

    /// A truth for each stream; false where it comes too late for some, or for the series.
    pub(super) fn observed(&mut self, place: u64, truth: f32) -> bool {
        let before = self.truth(place);
        if place == EMPTY || place.saturating_add(RECENT as u64) <= self.newest {
            return false;
        }
        if before.is_some_and(|before| before.to_bits() == truth.to_bits()) {
            return true;
        }
        self.newest = self.newest.max(place);
        self.origin.rebase(self.newest, &mut self.moves);
        self.moved(place, before, truth);
        self.places[slot(place)] = place;
        self.truths[slot(place)] = truth;
        let late = self.streams.iter_mut().map(|stream| !stream.observed(place, before, truth));
        late.filter(|&is_late| is_late).count() == 0
    }

    /// How far the series moves from one place to the next, on average; what a naive forecast of one step is off by.
    /// `None` where it does not move, or too little was seen.
    pub(super) fn scale(&self) -> Option<f64> {
        let [weight, moved] = self.moves;
        (weight > 0.0 && moved > 0.0).then(|| moved / weight)
    }

    fn moved(&mut self, place: u64, before: Option<f32>, truth: f32) {
        let neighbours = [place.checked_sub(1).map(|left| (left, place)), Some((place + 1, place + 1))];
        for (neighbour, later) in neighbours.into_iter().flatten() {
            let Some(other) = self.truth(neighbour) else { continue };
            let distance = |from: f32| (f64::from(from) - f64::from(other)).abs();
            let weight = self.origin.weight(later);
            let [weights, moved] = &mut self.moves;
            if let Some(before) = before {
                *moved -= weight * distance(before);
            } else {
                *weights += weight;
            }
            *moved += weight * distance(truth);
        }
    }
}

fn slot(place: u64) -> usize {
    (place % RECENT as u64) as usize
}
