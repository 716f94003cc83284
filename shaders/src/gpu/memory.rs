//! The memory of one lane, which all plans share: the arena, the batch parameters, and what crosses the bus.
//!
//! One batch at a time is in flight in a lane, so one set serves every plan; it grows to the largest plan and batch
//! seen.

use super::device::Device;
use super::mapped::{Copier, Mapped, Place};
use super::params::BatchParams;
use crate::ExecuteError;

/// Bytes of [`BatchParams`].
pub(super) const BATCH_BYTES: u64 = size_of::<BatchParams>() as u64;

/// How much of everything one chunk needs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) arena: u64,
    pub(super) upload: u64,
    pub(super) readback: u64,
    /// Of plans whose inputs cross as halves.
    pub(super) halves: u64,
}

#[derive(Debug)]
pub(super) struct Memory {
    /// Changes whenever the arena moves: bind groups of an older generation are stale.
    pub(super) generation: u64,
    pub(super) arena: Arena,
    pub(super) batch: Mapped,
    pub(super) readback: Mapped,
    /// Inputs that are widened in the arena.
    pub(super) halves: Option<Mapped>,
    /// Bound where nothing sinks, so that only the last layer touches the host's memory.
    pub(super) nowhere: wgpu::Buffer,
    /// Its first word is set by a flow whose workgroups did not all run at once.
    pub(super) failed: Mapped,
    size: Need,
}

/// How inputs reach the arena.
#[derive(Debug)]
pub(super) enum Arena {
    /// The host writes them where the kernels read them.
    Written(Mapped),
    /// They are copied from `upload`.
    Copied { arena: wgpu::Buffer, upload: Mapped },
}

impl Arena {
    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        match self {
            Self::Written(mapped) => &mapped.buffer,
            Self::Copied { arena, .. } => arena,
        }
    }
}

impl Memory {
    pub(super) fn new(device: &Device, need: Need, generation: u64) -> Result<Self, ExecuteError> {
        use wgpu::BufferUsages as Usage;
        let size = need.rounded(device);
        let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
        let arena = if device.host_reaches_device {
            Arena::Written(Mapped::new(device, "arena", size.arena, usage, Place::Device)?)
        } else {
            let upload = Mapped::new(device, "upload", size.upload, Usage::COPY_SRC, Place::Host)?;
            let descriptor = wgpu::BufferDescriptor {
                label: Some("arena"),
                size: size.arena,
                usage,
                mapped_at_creation: false,
            };
            Arena::Copied { arena: device.create(|raw| raw.create_buffer(&descriptor))?, upload }
        };
        let descriptor = wgpu::BufferDescriptor {
            label: Some("nowhere"),
            size: 16,
            usage: Usage::STORAGE,
            mapped_at_creation: false,
        };
        let failed = Mapped::new(device, "failed", 16, Usage::STORAGE, Place::Host)?;
        failed.write(0, &[0; 16], &Copier::default());
        let halves = (size.halves > 0)
            .then(|| Mapped::new(device, "halves", size.halves, Usage::STORAGE, Place::Device))
            .transpose()?;
        Ok(Self {
            generation,
            arena,
            halves,
            batch: Mapped::new(device, "batch", BATCH_BYTES, Usage::UNIFORM, Place::Device)?,
            readback: Mapped::new(
                device,
                "readback",
                size.readback,
                Usage::STORAGE | Usage::COPY_DST,
                Place::Host,
            )?,
            failed,
            nowhere: device.create(|raw| raw.create_buffer(&descriptor))?,
            size,
        })
    }

    /// Bytes of everything.
    pub(super) fn bytes(&self) -> u64 {
        let upload = match &self.arena {
            Arena::Written(_) => 0,
            Arena::Copied { upload, .. } => upload.buffer.size(),
        };
        let halves = self.halves.as_ref().map_or(0, |halves| halves.buffer.size());
        let small = [&self.batch.buffer, &self.nowhere, &self.failed.buffer].map(wgpu::Buffer::size);
        self.arena.buffer().size() + upload + self.readback.buffer.size() + halves + small.iter().sum::<u64>()
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
            halves: self.halves.max(other.halves),
        }
    }

    /// Powers of two, so that growth is rare; the arena stays within one binding.
    fn rounded(self, device: &Device) -> Self {
        let arena_max = device.limits.max_storage_buffer_binding_size & !15;
        let power = |bytes: u64| bytes.next_power_of_two().max(256);
        Self {
            arena: power(self.arena).min(arena_max).max(self.arena),
            upload: power(self.upload),
            readback: power(self.readback),
            halves: if self.halves == 0 { 0 } else { power(self.halves) },
        }
    }
}
