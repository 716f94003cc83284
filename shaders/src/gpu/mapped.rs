//! Buffers that host and device both see, mapped for as long as they live.
//!
//! wgpu lets the host at a buffer only while the device may not have it, and asks for a mapping, a poll and an
//! unmapping on each side of every batch. Here the memory is allocated and mapped once and handed to wgpu as a buffer of
//! its own: wgpu orders the device's accesses, the executor keeps the host off a buffer that a submission may use. The
//! memory is coherent, and a finished submission is seen by the host as it is for wgpu's own mappings: by its fence.

use std::ptr::NonNull;

use ash::vk;
use rayon::ThreadPool;
use rayon::prelude::*;
use wgpu::hal::api::Vulkan;

use super::device::Device;
use crate::ExecuteError;

/// Where the memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the device, written by the host through the bus: never read back by the host.
    Device,
    /// In the host's cache, reached by the device through the bus: never read and written again by a kernel.
    Host,
}

#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) buffer: wgpu::Buffer,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `start` points into Vulkan memory, which any thread may use, and which lives until `buffer` is dropped.
unsafe impl Send for Mapped {}
// SAFETY: as above; what a shared reference writes is kept apart by the lane's owner, as `write` says.
unsafe impl Sync for Mapped {}

/// Copies by several threads where that pays.
#[derive(Debug, Default)]
pub(super) struct Copier(Option<ThreadPool>);

/// One thread writes 16 GB/s to the device and wakes another one in several microseconds.
const PARALLEL_BYTES_MIN: usize = 512 << 10;
const PARALLEL_PIECE_BYTES: usize = 128 << 10;

impl Mapped {
    pub(super) fn new(
        device: &Device,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        place: Place,
    ) -> Result<Self, ExecuteError> {
        let mut usage_flags = vk::BufferUsageFlags::empty();
        for (asked, flag) in [
            (wgpu::BufferUsages::STORAGE, vk::BufferUsageFlags::STORAGE_BUFFER),
            (wgpu::BufferUsages::UNIFORM, vk::BufferUsageFlags::UNIFORM_BUFFER),
            (wgpu::BufferUsages::COPY_SRC, vk::BufferUsageFlags::TRANSFER_SRC),
            (wgpu::BufferUsages::COPY_DST, vk::BufferUsageFlags::TRANSFER_DST),
        ] {
            if usage.contains(asked) {
                usage_flags |= flag;
            }
        }
        let (raw, memory, start) = {
            // SAFETY: nothing of the device is destroyed through the guard.
            let hal = unsafe { device.raw.as_hal::<Vulkan>() };
            let hal = hal.ok_or_else(|| ExecuteError::Refused("not a Vulkan device".to_owned()))?;
            allocate(&hal, bytes, usage_flags, place)?
        };
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
        let buffer = device.create(|wgpu_device| {
            // SAFETY: made just now from this device with the usages of the descriptor, bound to memory of its own that
            // nobody else frees; whoever reads a cell has written it before. wgpu never maps it: it has no such usage.
            unsafe {
                let hal = wgpu::hal::vulkan::Buffer::from_raw_managed(raw, memory, 0, bytes);
                wgpu_device.create_buffer_from_hal::<Vulkan>(hal, &descriptor)
            }
        })?;
        let bytes = usize::try_from(bytes).expect("an allocation fits the address space");
        Ok(Self { buffer, start, bytes })
    }

    /// Copies `source` to byte `at`. No submission that uses these cells is in flight, and no other thread is at them:
    /// both is the business of the one executor that owns the lane.
    pub(super) fn write(&self, at: usize, source: &[u8], copier: &Copier) {
        assert!(at + source.len() <= self.bytes, "write past a mapped buffer");
        // SAFETY: asserted to lie inside the mapping, whose cells only the executor's one writer touches while the lane
        // has nothing in flight.
        let cells = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), source.len()) };
        copier.copy(source, cells);
    }

    /// Has `bytes` bytes from `at` on written by `write`, in pieces that are multiples of `unit` bytes, each with its first
    /// byte from `at` on; pieces are only written. Otherwise as [`write`](Self::write).
    pub(super) fn fill(
        &self,
        at: usize,
        bytes: usize,
        unit: usize,
        copier: &Copier,
        write: impl Fn(usize, &mut [u8]) + Sync,
    ) {
        assert!(at + bytes <= self.bytes, "write past a mapped buffer");
        // SAFETY: as in `write`.
        let cells = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), bytes) };
        copier.fill(cells, unit, write);
    }

    /// Copies from byte `at` on. No submission that uses these cells is in flight.
    pub(super) fn read(&self, at: usize, target: &mut [u8], copier: &Copier) {
        assert!(at + target.len() <= self.bytes, "read past a mapped buffer");
        // SAFETY: asserted to lie inside the mapping, which nobody writes: the executor has waited for the device.
        let cells = unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), target.len()) };
        copier.copy(cells, target);
    }
}

impl Copier {
    /// A device's own cores need no help, and get none.
    pub(super) fn new(software: bool) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2).min(8);
        if software || threads < 2 {
            return Self(None);
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("copier-{index}"))
            .build();
        Self(pool.ok())
    }

    /// `work`, and beside it on another thread `carry`, if it moves enough bytes.
    pub(super) fn beside<T>(&self, bytes: usize, carry: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(pool) if bytes >= PARALLEL_BYTES_MIN => pool.in_place_scope(|scope| {
                scope.spawn(|_| carry());
                work()
            }),
            _ => {
                carry();
                work()
            }
        }
    }

    fn copy(&self, source: &[u8], target: &mut [u8]) {
        self.fill(target, 1, |first, target| target.copy_from_slice(&source[first..first + target.len()]));
    }

    /// Pieces are multiples of `unit` bytes; `write` is told the first byte of each.
    fn fill(&self, target: &mut [u8], unit: usize, write: impl Fn(usize, &mut [u8]) + Sync) {
        match &self.0 {
            Some(pool) if target.len() >= PARALLEL_BYTES_MIN => {
                let piece = PARALLEL_PIECE_BYTES.next_multiple_of(unit);
                let (write, pieces) = (&write, target.par_chunks_mut(piece).enumerate());
                pool.install(|| pieces.for_each(|(index, target)| write(index * piece, target)));
            }
            _ => write(0, target),
        }
    }
}

/// Whether the host can write all of the device's memory; a small window would be used up by a few models.
pub(super) fn host_reaches_device(device: &wgpu::Device) -> bool {
    // SAFETY: nothing of the device is destroyed through the guard.
    let Some(hal) = (unsafe { device.as_hal::<Vulkan>() }) else { return false };
    let properties = memory_properties(&hal);
    let types = properties.memory_types_as_slice();
    let heap_bytes = |flags: vk::MemoryPropertyFlags| {
        let matching = types.iter().filter(move |ty| ty.property_flags.contains(flags));
        matching.map(|ty| properties.memory_heaps[ty.heap_index as usize].size).max().unwrap_or(0)
    };
    let reached = heap_bytes(wanted(Place::Device)[0]);
    reached > 0 && reached >= heap_bytes(vk::MemoryPropertyFlags::DEVICE_LOCAL) / 2
}

/// What to look for, best first.
fn wanted(place: Place) -> [vk::MemoryPropertyFlags; 2] {
    use vk::MemoryPropertyFlags as Flags;
    let mapped = Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
    match place {
        Place::Device => [mapped | Flags::DEVICE_LOCAL, mapped],
        Place::Host => [mapped | Flags::HOST_CACHED, mapped],
    }
}

fn memory_properties(hal: &wgpu::hal::vulkan::Device) -> vk::PhysicalDeviceMemoryProperties {
    let instance = hal.shared_instance().raw_instance();
    // SAFETY: both live as long as the device.
    unsafe { instance.get_physical_device_memory_properties(hal.raw_physical_device()) }
}

pub(super) fn allocate(
    hal: &wgpu::hal::vulkan::Device,
    bytes: u64,
    usage: vk::BufferUsageFlags,
    place: Place,
) -> Result<(vk::Buffer, vk::DeviceMemory, NonNull<u8>), ExecuteError> {
    let device = hal.raw_device();
    let none_left = |what: &str| ExecuteError::OutOfMemory(format!("{bytes} bytes that are {what}"));
    let info = vk::BufferCreateInfo::default().size(bytes).usage(usage);
    // SAFETY: a plain buffer of an open device, owned by this function until it returns.
    let raw = unsafe { device.create_buffer(&info, None) }.map_err(|_| none_left("described"))?;
    // SAFETY: made above.
    let needed = unsafe { device.get_buffer_memory_requirements(raw) };
    let properties = memory_properties(hal);
    let mut candidates = wanted(place).into_iter().flat_map(|flags| {
        let types = (0..).zip(properties.memory_types_as_slice());
        types.filter(move |(index, ty)| {
            needed.memory_type_bits & (1 << index) != 0 && ty.property_flags.contains(flags)
        })
    });
    let made = candidates
        .next()
        .ok_or_else(|| none_left("seen by both sides"))
        .and_then(|(index, _)| {
            let info =
                vk::MemoryAllocateInfo::default().allocation_size(needed.size).memory_type_index(index);
            // SAFETY: the type is one that the buffer allows.
            unsafe { device.allocate_memory(&info, None) }.map_err(|_| none_left("allocated"))
        })
        .and_then(|memory| {
            // SAFETY: fresh memory of a type that the host sees, bound once and mapped once, whole.
            let mapped = unsafe {
                device
                    .bind_buffer_memory(raw, memory, 0)
                    .and_then(|()| device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()))
            };
            let start = mapped.ok().and_then(|start| NonNull::new(start.cast::<u8>()));
            start.map(|start| (memory, start)).ok_or_else(|| {
                // SAFETY: nothing uses it.
                unsafe { device.free_memory(memory, None) };
                none_left("mapped")
            })
        });
    match made {
        Ok((memory, start)) => Ok((raw, memory, start)),
        Err(error) => {
            // SAFETY: nothing uses it.
            unsafe { device.destroy_buffer(raw, None) };
            Err(error)
        }
    }
}
