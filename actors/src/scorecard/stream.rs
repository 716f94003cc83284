//! The predictions of one model version for one series that wait for the truth, and the sums of those that have it.

use std::sync::Arc;

use super::measures::{ERROR, Layout, WEIGHT};
use super::tally::Tally;
use super::weights::Origin;

/// A truth may come so many places after the newest prediction and still be scored in full.
pub const LATE_PLACES: u64 = 8;
const EMPTY: u64 = u64::MAX;

pub(super) struct Stream {
    pub(super) model: Arc<str>,
    pub(super) version: u32,
    pub(super) layout: Layout,
    /// Shared by all streams of the version.
    tally: Arc<Tally>,
    /// Place from which the prediction in a slot was made, or [`EMPTY`].
    made_at: Vec<u64>,
    /// By slot, then step.
    rows: Vec<f32>,
    /// By step.
    sums: Vec<f64>,
    origin: Origin,
    newest: u64,
}

impl Stream {
    pub(super) fn new(
        model: Arc<str>,
        version: u32,
        layout: Layout,
        tally: Arc<Tally>,
        position: u64,
    ) -> Self {
        let slots = Self::slots(&layout);
        Self {
            model,
            version,
            tally,
            made_at: vec![EMPTY; slots],
            rows: vec![0.0; slots * layout.horizon * layout.width()],
            sums: vec![0.0; layout.horizon * layout.sums()],
            origin: Origin::at(position),
            newest: position,
            layout,
        }
    }

    /// Bytes that a stream of this layout takes.
    pub(super) fn bytes(layout: &Layout) -> usize {
        let per_slot = size_of::<u64>() + layout.horizon * layout.width() * size_of::<f32>();
        size_of::<Self>() + Self::slots(layout) * per_slot + layout.horizon * layout.sums() * size_of::<f64>()
    }

    fn slots(layout: &Layout) -> usize {
        layout.horizon + LATE_PLACES as usize + 1
    }

    /// Keeps a prediction and scores it against what has come already. Of several from one place the first counts:
    /// that one was told to subscribers.
    pub(super) fn predicted(&mut self, position: u64, row: &[f32], truth: impl Fn(u64) -> Option<f32>) {
        let slot = self.slot(position);
        let is_older = self.made_at[slot] != EMPTY && self.made_at[slot] >= position;
        if is_older || position > EMPTY - 1 - self.layout.horizon as u64 || self.is_late(position) {
            return;
        }
        self.made_at[slot] = position;
        let row_len = row.len();
        self.rows[slot * row_len..][..row_len].copy_from_slice(row);
        self.newest = self.newest.max(position);
        self.origin.rebase(self.newest, &mut self.sums);
        let mut scored = 0;
        for step in 0..self.layout.horizon {
            let place = position + 1 + step as u64;
            if let Some(truth) = truth(place) {
                self.score(slot, step, truth, self.origin.weight(place));
                scored += 1;
            }
        }
        self.tally.scored(scored);
    }

    /// A truth has come, or another one instead of `before`. False: too late.
    pub(super) fn observed(&mut self, place: u64, before: Option<f32>, truth: f32) -> bool {
        if self.is_late(place) {
            return false;
        }
        self.origin.rebase(place, &mut self.sums);
        let weight = self.origin.weight(place);
        self.touch(place);
        let (mut slot, mut scored) = (self.slot(place), 0);
        // A prediction made from `place` or later says nothing of it.
        for step in 0..(self.layout.horizon as u64).min(place) {
            let position = place - 1 - step;
            slot = self.before(slot);
            if self.made_at[slot] != position {
                continue;
            }
            if let Some(before) = before {
                self.score(slot, step as usize, before, -weight);
            } else {
                scored += 1;
            }
            self.score(slot, step as usize, truth, weight);
        }
        self.tally.scored(scored);
        true
    }

    /// Sums of a step, weighted so that the newest place counts one. `None` where nothing was scored.
    pub(super) fn step(&self, step: usize) -> Option<Vec<f64>> {
        let width = self.layout.sums();
        let sums = &self.sums[step * width..][..width];
        let scale = 1.0 / self.origin.weight(self.newest);
        // What a revision takes off may leave a remainder of rounding.
        let has_any = sums[WEIGHT] * scale > 1e-9 && sums[ERROR] >= 0.0;
        has_any.then(|| sums.iter().map(|sum| sum.max(0.0) * scale).collect())
    }

    /// Place of the newest prediction.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Are predictions that would be scored against this place gone?
    fn is_late(&self, place: u64) -> bool {
        place.saturating_add(LATE_PLACES) < self.newest
    }

    /// Asks for all rows that are about a place in one go: they lie far apart, and waiting for one after the other takes
    /// several times as long.
    fn touch(&self, place: u64) {
        let steps = self.layout.horizon;
        let mut slot = self.slot(place);
        let first = |step: usize| {
            slot = self.before(slot);
            self.rows[(slot * steps + step) * self.layout.width()].to_bits()
        };
        std::hint::black_box((0..steps).map(first).fold(0, u32::wrapping_add));
    }

    fn slot(&self, position: u64) -> usize {
        (position % self.made_at.len() as u64) as usize
    }

    fn before(&self, slot: usize) -> usize {
        slot.checked_sub(1).unwrap_or(self.made_at.len() - 1)
    }

    fn score(&mut self, slot: usize, step: usize, truth: f32, weight: f64) {
        let (width, sums_len) = (self.layout.width(), self.layout.sums());
        let numbers = &self.rows[(slot * self.layout.horizon + step) * width..][..width];
        let sums = &mut self.sums[step * sums_len..][..sums_len];
        self.layout.add(sums, numbers, f64::from(truth), weight);
    }
}
