//! What the device's own clock says of passes: one mark before the first kernel of each, one behind the last.
//!
//! Made when a run is observed for the first time or kernels are measured, and only where the device has such a clock.

use super::device::Device;
use super::mapped::{Copier, Mapped, Place};
use crate::ExecuteError;

/// Both marks of a pass.
const MARKS_BYTES: usize = 2 * size_of::<u64>();

/// The marks of one lane, or of a measurement.
#[derive(Debug)]
pub(super) struct Timer {
    marks: wgpu::QuerySet,
    /// Where wgpu lets the device write them,
    resolved: wgpu::Buffer,
    /// and where the host sees them.
    seen: Mapped,
}

/// A stretch of the device's clock, in its own ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Timer {
    /// Of so many passes. `None`: the device has no clock that can be asked.
    pub(super) fn new(device: &Device, passes: u32) -> Result<Option<Self>, ExecuteError> {
        if !device.raw.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let (ty, count) = (wgpu::QueryType::Timestamp, 2 * passes);
        let set = wgpu::QuerySetDescriptor { label: Some("marks"), ty, count };
        let bytes = u64::from(passes) * MARKS_BYTES as u64;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("marks"),
            size: bytes,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        Ok(Some(Self {
            marks: device.create(|raw| raw.create_query_set(&set))?,
            resolved: device.create(|raw| raw.create_buffer(&descriptor))?,
            seen: Mapped::new(device, "marks", bytes, wgpu::BufferUsages::COPY_DST, Place::Host)?,
        }))
    }

    /// For the pass to be measured.
    pub(super) fn writes(&self, pass: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.marks,
            beginning_of_pass_write_index: Some(2 * pass),
            end_of_pass_write_index: Some(2 * pass + 1),
        }
    }

    /// Behind the first so many passes.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, passes: u32) {
        encoder.resolve_query_set(&self.marks, 0..2 * passes, &self.resolved, 0);
        let bytes = u64::from(passes) * MARKS_BYTES as u64;
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.seen.buffer, 0, bytes);
    }

    /// Once the submission is done. `None`: the marks make no sense, as where a device's clock has been reset.
    pub(super) fn read(&self, pass: u32, copier: &Copier) -> Option<Stretch> {
        let mut bytes = [0_u8; MARKS_BYTES];
        self.seen.read(pass as usize * MARKS_BYTES, &mut bytes, copier);
        let (start, end) = bytes.split_at(size_of::<u64>());
        let ticks = |part: &[u8]| part.first_chunk().map_or(0, |part| u64::from_ne_bytes(*part));
        let (start, end) = (ticks(start), ticks(end));
        (start != 0 && start <= end).then_some(Stretch { start, end })
    }
}

impl Stretch {
    /// From the first of both to the last.
    pub(super) fn joined(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// With so many nanoseconds to a tick.
    pub(super) fn took(self, period_ns: f32) -> std::time::Duration {
        let nanos = (self.end - self.start) as f64 * f64::from(period_ns);
        std::time::Duration::from_nanos(nanos as u64)
    }
}
