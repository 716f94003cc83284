//! How much a place of a series counts: less by e for every [`WINDOW`] places that it is older.
//!
//! Sums are kept with weights that grow with the place, so that nothing has to be touched to make it older, and a truth
//! that comes late is added as if it had come in time: what is summed does not depend on the order in which it came.

/// Places until a score counts 1/e: the memory of the scorecard. A window of equal weights would have to keep every
/// error in order to take it off again.
pub const WINDOW: u64 = 256;
/// Windows after which sums are scaled down: far from where an f64 ends.
const REBASE_WINDOWS: u64 = 256;

/// Where the weight is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin(u64);

impl Origin {
    pub(super) fn at(place: u64) -> Self {
        Self(place)
    }

    /// Moves the origin where `place` is too far from it, and scales what was summed.
    pub(super) fn rebase(&mut self, place: u64, sums: &mut [f64]) {
        if place.saturating_sub(self.0) > REBASE_WINDOWS * WINDOW {
            let factor = 1.0 / self.weight(place);
            sums.iter_mut().for_each(|sum| *sum *= factor);
            self.0 = place;
        }
    }

    /// Of a place that [`Self::rebase`] has seen, or an older one.
    pub(super) fn weight(self, place: u64) -> f64 {
        let ahead = place as f64 - self.0 as f64;
        (ahead / WINDOW as f64).exp()
    }
}
