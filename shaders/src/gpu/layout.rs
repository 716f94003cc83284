//! Where a plan's buffers lie in the arena, how many rows fit, and how a batch is cut. Plain arithmetic.

use std::ops::Range;

use super::weights::HALF_TILE_DEPTH;
use crate::{BufferId, Plan};

/// An arena is never larger, whatever the device offers: rows beyond it run in further chunks.
const ARENA_BYTES_MAX: usize = 256 << 20;
/// Rows of one chunk: enough to fill a large device, and few enough that the host carries one chunk while the device
/// computes another.
pub(super) const CHUNK_ROWS_MAX: usize = 4096;
/// The smallest capacity; below it growing would only cost rebinding.
const CAPACITY_ROWS_MIN: usize = 16;

/// A row starts at a multiple of this many floats, so that kernels may read four at once.
const ROW_FLOATS: usize = 4;

/// Behind the last buffer: a kernel that reads four columns at once, in tiles, may read past a row's end.
pub(super) const SLACK_BYTES: usize = HALF_TILE_DEPTH * size_of::<f32>();

/// Each buffer is `[capacity, stride]`, one after the other; a row's last columns are padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    bases: Vec<usize>,
    strides: Vec<usize>,
}

impl Layout {
    pub(super) fn new(plan: &Plan, capacity_rows: usize) -> Self {
        let strides: Vec<usize> = plan.buffer_widths.iter().map(|width| stride(*width)).collect();
        let bases = strides.iter().scan(0, |next, stride| {
            let base = *next;
            *next += capacity_rows * stride;
            Some(base)
        });
        Self { bases: bases.collect(), strides }
    }

    /// First float of a buffer.
    pub(super) fn base(&self, buffer: BufferId) -> usize {
        self.bases[buffer.0]
    }

    /// Floats from one row of a buffer to the next.
    pub(super) fn stride(&self, buffer: BufferId) -> usize {
        self.strides[buffer.0]
    }
}

/// Floats from one row to the next of a buffer that is `width` wide.
pub(super) fn stride(width: usize) -> usize {
    width.next_multiple_of(ROW_FLOATS)
}

/// Floats of one row of all buffers.
pub(super) fn row_floats(plan: &Plan) -> usize {
    plan.buffer_widths.iter().map(|width| stride(*width)).sum()
}

/// Largest chunk whose buffers fit a binding of `binding_bytes_max`; `None` when not even one row does.
pub(super) fn chunk_rows_max(plan: &Plan, binding_bytes_max: usize) -> Option<usize> {
    let row_bytes = row_floats(plan) * size_of::<f32>();
    let fitting = binding_bytes_max.min(ARENA_BYTES_MAX).saturating_sub(SLACK_BYTES) / row_bytes;
    (fitting > 0).then_some(fitting.min(CHUNK_ROWS_MAX))
}

/// Capacity for `rows` rows: the next power of two, so that growing batches rebind a handful of times only.
pub(super) fn capacity_rows(rows: usize, rows_max: usize) -> usize {
    rows.next_power_of_two().clamp(CAPACITY_ROWS_MIN.min(rows_max), rows_max)
}

/// Cuts a batch.
pub(super) fn chunks(rows: usize, rows_max: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(rows_max).map(move |first| first..rows.min(first + rows_max))
}
