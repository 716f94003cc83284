//! The device memory that all plans share: the arena, the batch parameters and the two staging buffers.
//!
//! One batch is in flight at a time, so one set serves every plan; it grows to the largest plan and batch seen.

use std::sync::Arc;

use super::device::{Device, MapSlot};
use super::params::BatchParams;
use crate::ExecuteError;

/// Bytes of [`BatchParams`] at the head of the upload.
pub(super) const BATCH_BYTES: u64 = size_of::<BatchParams>() as u64;

/// How much of everything one chunk needs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) arena: u64,
    pub(super) upload: u64,
    pub(super) readback: u64,
}

pub(super) struct Memory {
    /// Changes whenever the arena moves: bind groups of an older generation are stale.
    pub(super) generation: u64,
    pub(super) arena: wgpu::Buffer,
    pub(super) batch: wgpu::Buffer,
    /// Mapped between runs.
    pub(super) upload: wgpu::Buffer,
    /// Mapped only while its numbers are copied out.
    pub(super) readback: wgpu::Buffer,
    pub(super) uploadable: Arc<MapSlot>,
    pub(super) readable: Arc<MapSlot>,
    size: Need,
}

impl Memory {
    pub(super) fn new(device: &Device, need: Need, generation: u64) -> Result<Self, ExecuteError> {
        let size = need.rounded(device);
        device.create(|raw| {
            let buffer = |label, size, usage, mapped_at_creation| {
                raw.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size,
                    usage,
                    mapped_at_creation,
                })
            };
            use wgpu::BufferUsages as Usage;
            Self {
                generation,
                arena: buffer("arena", size.arena, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC, false),
                batch: buffer("batch", BATCH_BYTES, Usage::UNIFORM | Usage::COPY_DST, false),
                upload: buffer("upload", size.upload, Usage::MAP_WRITE | Usage::COPY_SRC, true),
                readback: buffer("readback", size.readback, Usage::MAP_READ | Usage::COPY_DST, false),
                uploadable: Arc::new(MapSlot::default()),
                readable: Arc::new(MapSlot::default()),
                size,
            }
        })
    }

    pub(super) fn holds(&self, need: Need) -> bool {
        self.size.at_least(need) == self.size
    }

    /// What serves both `need` and everything that fits now.
    pub(super) fn grown(&self, need: Need) -> Need {
        self.size.at_least(need)
    }
}

impl Need {
    fn at_least(self, other: Self) -> Self {
        Self {
            arena: self.arena.max(other.arena),
            upload: self.upload.max(other.upload),
            readback: self.readback.max(other.readback),
        }
    }

    /// Powers of two, so that growth is rare; the arena stays within one binding.
    fn rounded(self, device: &Device) -> Self {
        let arena_max = device.limits.max_storage_buffer_binding_size & !3;
        Self {
            arena: self.arena.next_power_of_two().min(arena_max).max(self.arena),
            upload: self.upload.next_power_of_two(),
            readback: self.readback.next_power_of_two(),
        }
    }
}
