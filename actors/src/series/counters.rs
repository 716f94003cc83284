//! What the series of a node have done.

use std::sync::atomic::{AtomicU64, Ordering};

use super::tick::{Effect, TickError};

/// Counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    advanced: AtomicU64,
    inserted: AtomicU64,
    duplicate: AtomicU64,
    conflict: AtomicU64,
    too_late: AtomicU64,
    refused: AtomicU64,
    acknowledged: AtomicU64,
    predictions: AtomicU64,
    predict_nanos: AtomicU64,
    in_line: AtomicU64,
    conflated: AtomicU64,
    failed: AtomicU64,
    recoveries: AtomicU64,
    incomplete: AtomicU64,
}

/// What a node's series have done and hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesStats {
    /// Series held, owned or as copies.
    pub series: usize,
    /// Shards that are owned and ready.
    pub shards_owned: usize,
    /// Bytes of observations.
    pub bytes: usize,
    /// Ticks that were the newest of their series.
    pub advanced: u64,
    /// Ticks that came late and have a place.
    pub inserted: u64,
    /// Ticks that were there already.
    pub duplicate: u64,
    /// Ticks that contradict what was there.
    pub conflict: u64,
    /// Ticks older than all that is kept.
    pub too_late: u64,
    /// Ticks that cannot be part of their series.
    pub refused: u64,
    /// Ticks that were answered.
    pub acknowledged: u64,
    /// Predictions made.
    pub predictions: u64,
    /// From acceptance of the tick to the prediction, of all predictions together.
    pub predict_nanos: u64,
    /// Of the predictions, those that were made in the thread that took their tick.
    pub in_line: u64,
    /// Windows that were skipped because newer ones came before there was time.
    pub conflated: u64,
    /// Windows that could not be forecast.
    pub failed: u64,
    /// Shards taken over.
    pub recoveries: u64,
    /// …of which a node that is there did not answer in time.
    pub incomplete: u64,
}

impl Counters {
    pub(super) fn fed(&self, effect: &Result<Effect, TickError>) {
        let counter = match effect {
            Ok(Effect::Advanced { .. }) => &self.advanced,
            Ok(Effect::Inserted { .. }) => &self.inserted,
            Ok(Effect::Duplicate { .. }) => &self.duplicate,
            Ok(Effect::Conflict { .. }) => &self.conflict,
            Ok(Effect::TooLate { .. }) => &self.too_late,
            Err(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn acknowledge(&self, effects: &[Result<Effect, TickError>]) {
        let answered = effects.iter().filter(|effect| effect.is_ok()).count() as u64;
        self.acknowledged.fetch_add(answered, Ordering::Relaxed);
    }

    /// A prediction was made so many nanoseconds after its tick was accepted.
    pub(super) fn predicted(&self, nanos: i64) {
        self.predictions.fetch_add(1, Ordering::Relaxed);
        self.predict_nanos.fetch_add(u64::try_from(nanos).unwrap_or(0), Ordering::Relaxed);
    }

    /// The last was made in the thread that took its tick.
    pub(super) fn in_line(&self) {
        self.in_line.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn conflated(&self, windows: u64) {
        self.conflated.fetch_add(windows, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn recovered(&self, completely: bool) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        self.incomplete.fetch_add(u64::from(!completely), Ordering::Relaxed);
    }

    /// Without what is held.
    pub(super) fn stats(&self) -> SeriesStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SeriesStats {
            advanced: read(&self.advanced),
            inserted: read(&self.inserted),
            duplicate: read(&self.duplicate),
            conflict: read(&self.conflict),
            too_late: read(&self.too_late),
            refused: read(&self.refused),
            acknowledged: read(&self.acknowledged),
            predictions: read(&self.predictions),
            predict_nanos: read(&self.predict_nanos),
            in_line: read(&self.in_line),
            conflated: read(&self.conflated),
            failed: read(&self.failed),
            recoveries: read(&self.recoveries),
            incomplete: read(&self.incomplete),
            ..SeriesStats::default()
        }
    }
}
