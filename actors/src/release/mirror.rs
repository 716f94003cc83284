//! What a shadow answered beside what callers got: how often it was asked, how far it was off.
//!
//! Knows no device; it is handed answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::canary::Seen;
use super::order::ShadowSpec;
use super::split::Split;
use super::track::Track;

/// Requests that one shadow may hold; what comes meanwhile is not asked.
pub const HELD_MAX: usize = 4;

/// One shadow, since it was ordered.
pub(crate) struct Mirror {
    spec: ShadowSpec,
    /// Of turns: 1 for those that are asked too.
    split: Split,
    turns: AtomicU64,
    held: AtomicUsize,
    dropped: AtomicU64,
    track: Track,
    page: Mutex<Page>,
}

#[derive(Clone, Copy, Default)]
struct Page {
    compared: u64,
    differing: u64,
    difference_sum: f64,
    difference_max: f64,
}

/// What one shadow has done since it was ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShadowStats {
    /// What was ordered.
    pub spec: ShadowSpec,
    /// Requests that it was asked too, failures, and how long its answers took.
    pub seen: Seen,
    /// Requests that it was not asked because its device was busy or it held as many as it may.
    pub dropped: u64,
    /// Answers compared with those that callers got.
    pub compared: u64,
    /// Of those, the ones that differ by more than the tolerance.
    pub differing: u64,
    /// The mean over answers of the largest difference in one, as a part of its largest value.
    pub difference_mean: f64,
    /// The largest of those.
    pub difference_max: f64,
}

/// Leave to ask a shadow; given back when dropped.
pub(crate) struct Leave(Arc<Mirror>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

impl Leave {
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.0
    }
}

impl Mirror {
    pub(crate) fn new(spec: ShadowSpec) -> Self {
        const ALL: u32 = super::split::WEIGHT_MAX;
        let asked = (spec.share * f64::from(ALL)).round().max(1.0) as u32;
        Self {
            spec,
            split: Split::new([(1, asked), (0, ALL - asked.min(ALL))]),
            turns: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            track: Track::default(),
            page: Mutex::default(),
        }
    }

    pub(crate) fn spec(&self) -> &ShadowSpec {
        &self.spec
    }

    /// Whether it is the turn of a request that is asked too, and there is room for it.
    pub(crate) fn turn(self: &Arc<Self>) -> Option<Leave> {
        if self.split.by_turn(self.turns.fetch_add(1, Relaxed)) == 0 {
            return None;
        }
        let room = |held: usize| (held < HELD_MAX).then_some(held + 1);
        if self.held.fetch_update(Relaxed, Relaxed, room).is_err() {
            self.dropped();
            return None;
        }
        Some(Leave(Arc::clone(self)))
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.track.failed();
    }

    /// An answer came.
    pub(crate) fn answered(&self, got: &[f32], given: &[f32], took: Duration) {
        let Some(difference) = difference(got, given) else { return self.failed() };
        self.track.answered(took);
        let mut page = self.page.lock();
        page.compared += 1;
        page.differing += u64::from(difference > self.spec.tolerance);
        page.difference_sum += difference;
        page.difference_max = page.difference_max.max(difference);
    }

    pub(crate) fn stats(&self) -> ShadowStats {
        let page = *self.page.lock();
        ShadowStats {
            spec: self.spec,
            seen: self.track.read().since(None),
            dropped: self.dropped.load(Relaxed),
            compared: page.compared,
            differing: page.differing,
            difference_mean: if page.compared == 0 {
                0.0
            } else {
                page.difference_sum / page.compared as f64
            },
            difference_max: page.difference_max,
        }
    }
}

/// The largest difference, as a part of the largest value that was given; `None`: they cannot be compared.
pub(crate) fn difference(got: &[f32], given: &[f32]) -> Option<f64> {
    if got.len() != given.len() || got.iter().chain(given).any(|value| !value.is_finite()) {
        return None;
    }
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0_f64, f64::max);
    let off = most(&mut got.iter().zip(given).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()));
    let scale = most(&mut given.iter().map(|value| f64::from(value.abs())));
    Some(if off == 0.0 { 0.0 } else { off / scale.max(f64::from(f32::MIN_POSITIVE)) })
}
