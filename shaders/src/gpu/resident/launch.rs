//! Below wgpu: one kernel on a queue of its own, launched ahead so that the next launch waits behind the one that runs.
//!
//! wgpu has one queue, and a kernel that stays there would keep everybody else out. So this records two command buffers
//! once, through the Vulkan device that wgpu opened, and submits them in turn to a queue that wgpu does not use. Nothing
//! here is known to wgpu: buffers are made and freed here, and its handle of the device is held until all are.

use std::time::Duration;

use ash::vk;
use wgpu::hal::api::Vulkan;

use super::{Program, Taken};
use crate::ExecuteError;
use crate::gpu::device::Device;
use crate::gpu::kept::Kept;
use crate::gpu::mapped::{self, Place};
use crate::gpu::spirv::Rules;

use super::words::START_BYTES;

/// A buffer with memory of its own, mapped for as long as it lives.
pub(super) struct Piece {
    pub(super) raw: vk::Buffer,
    memory: vk::DeviceMemory,
    pub(super) start: std::ptr::NonNull<u8>,
    bytes: u64,
}

/// Launches of one kernel. One thread at a time uses it.
pub(super) struct Launcher {
    raw: ash::Device,
    queue: vk::Queue,
    pieces: Vec<Piece>,
    pool: vk::CommandPool,
    descriptors: vk::DescriptorPool,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    launches: [Launch; 2],
    /// The older of those under way.
    oldest: usize,
    under_way: usize,
    side: Taken,
    /// Behind everything else: the Vulkan device lives until this is dropped.
    _device: wgpu::Device,
}

#[derive(Clone, Copy, Default)]
struct Launch {
    commands: vk::CommandBuffer,
    fence: vk::Fence,
}

// SAFETY: handles of a device that any thread may use, as long as one does at a time: `&mut self` sees to it, and the
// queue is this launcher's own.
unsafe impl Send for Launcher {}

/// Words, weights, sink, then what only the kernel knows: in the order of the kernel's bindings.
pub(super) const WORDS: usize = 0;
const WEIGHTS: usize = 1;
pub(super) const SINK: usize = 2;
/// The start word of a launch, one for each of the two command buffers: each finds its own where its binding begins.
pub(super) const STARTS: usize = 3;
const OWN: usize = 4;

impl Launcher {
    pub(super) fn new(device: &Device, side: Taken, program: &Program) -> Result<Self, ExecuteError> {
        let spirv = device.compiler.spirv(Rules::Resident, &program.wgsl)?;
        // SAFETY: nothing of the device is destroyed through the guard.
        let hal = unsafe { device.raw.as_hal::<Vulkan>() };
        let hal = hal.ok_or_else(|| ExecuteError::Refused("not a Vulkan device".to_owned()))?;
        let raw = hal.raw_device().clone();
        let at = side.side.expect("given back on drop only");
        // SAFETY: the device was made with this queue.
        let queue = unsafe { raw.get_device_queue(at.family, at.index) };
        let mut this = Self {
            raw,
            queue,
            pieces: Vec::new(),
            pool: vk::CommandPool::null(),
            descriptors: vk::DescriptorPool::null(),
            set_layout: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            pipeline: vk::Pipeline::null(),
            launches: [Launch::default(); 2],
            oldest: 0,
            under_way: 0,
            side,
            _device: device.raw.clone(),
        };
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER;
        let weights_bytes = size_of_val(program.weights.as_slice()).max(16) as u64;
        let shared = [
            (program.extent.words_bytes(), Place::Device),
            (weights_bytes, Place::Device),
            (program.extent.sink_bytes(), Place::Host),
            (2 * START_BYTES, Place::Device),
        ];
        let own = program.own_bytes.iter().map(|bytes| (*bytes, Place::Device));
        for (bytes, place) in shared.into_iter().chain(own) {
            let (raw, memory, start) = mapped::allocate(&hal, bytes, usage, place)?;
            this.pieces.push(Piece { raw, memory, start, bytes });
        }
        drop(hal);
        let target = this.pieces[WEIGHTS].start.cast::<f32>();
        // SAFETY: fresh memory of at least this many bytes; no kernel is launched yet.
        unsafe { target.as_ptr().copy_from_nonoverlapping(program.weights.as_ptr(), program.weights.len()) };
        // SAFETY: `this` is fresh, and its drop frees what a failure leaves.
        unsafe { this.build(at.family, &spirv, program.workgroups, device.compiler.stays()) }
            .map_err(refused)?;
        this.forget();
        Ok(this)
    }

    /// Bytes of all pieces.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }

    /// What only the kernel knows is zeros again. No launch is under way.
    pub(super) fn forget(&mut self) {
        assert_eq!(self.under_way, 0, "no launch knows anything");
        self.oldest = 0;
        for piece in &self.pieces[OWN..] {
            let bytes = usize::try_from(piece.bytes).expect("mapped");
            // SAFETY: the whole piece, which nobody else touches while no launch is under way.
            unsafe { piece.start.as_ptr().write_bytes(0, bytes) };
        }
    }

    pub(super) fn piece(&self, index: usize) -> std::ptr::NonNull<u32> {
        self.pieces[index].start.cast()
    }

    /// Puts a launch behind those under way, of which there is one at most.
    pub(super) fn launch(&mut self) -> Result<(), ExecuteError> {
        assert!(self.under_way < 2, "two launches at a time");
        let next = self.launches[self.next()];
        let commands = [next.commands];
        let submit = vk::SubmitInfo::default().command_buffers(&commands);
        // SAFETY: the fence and the commands are not in use: a launch is taken again only after its fence was seen.
        unsafe {
            self.raw.reset_fences(&[next.fence]).map_err(refused)?;
            self.raw.queue_submit(self.queue, &[submit], next.fence).map_err(refused)?;
        }
        self.under_way += 1;
        Ok(())
    }

    /// Which of the two launches is put behind those under way next.
    pub(super) fn next(&self) -> usize {
        (self.oldest + self.under_way) % 2
    }

    /// How many launches are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Waits until the oldest launch has ended; `false`: it has not within this time.
    pub(super) fn wait(&mut self, within: Duration) -> Result<bool, ExecuteError> {
        if self.under_way == 0 {
            return Ok(true);
        }
        let nanos = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the fence belongs to a submission.
        match unsafe { self.raw.wait_for_fences(&[self.launches[self.oldest].fence], true, nanos) } {
            Ok(()) => {
                self.oldest = (self.oldest + 1) % 2;
                self.under_way -= 1;
                Ok(true)
            }
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(error) => {
                if error == vk::Result::ERROR_DEVICE_LOST {
                    // Nothing runs on a device that is lost.
                    self.under_way = 0;
                }
                Err(refused(error))
            }
        }
    }

    /// # Safety
    /// Called once, on a launcher that has its pieces.
    unsafe fn build(
        &mut self,
        family: u32,
        spirv: &[u32],
        [x, y]: [u32; 2],
        kept: Option<&Kept>,
    ) -> Result<(), vk::Result> {
        let raw = &self.raw;
        let storage = vk::DescriptorType::STORAGE_BUFFER;
        let count = u32::try_from(self.pieces.len()).expect("a handful");
        let binding = |binding| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(storage)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings: Vec<_> = (0..count).map(binding).collect();
        // SAFETY: plain objects of an open device, each freed by `drop`; handles passed on were made just before.
        unsafe {
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            self.set_layout = raw.create_descriptor_set_layout(&info, None)?;
            let set_layouts = [self.set_layout];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&set_layouts);
            self.layout = raw.create_pipeline_layout(&info, None)?;
            let sizes = [vk::DescriptorPoolSize::default().ty(storage).descriptor_count(2 * count)];
            let info = vk::DescriptorPoolCreateInfo::default().max_sets(2).pool_sizes(&sizes);
            self.descriptors = raw.create_descriptor_pool(&info, None)?;
            let both = [self.set_layout; 2];
            let info =
                vk::DescriptorSetAllocateInfo::default().descriptor_pool(self.descriptors).set_layouts(&both);
            let sets = raw.allocate_descriptor_sets(&info)?;
            for (set, offset) in sets.iter().zip([0, START_BYTES]) {
                for (binding, piece) in (0..).zip(&self.pieces) {
                    let offset = if binding as usize == STARTS { offset } else { 0 };
                    let info = vk::DescriptorBufferInfo::default().buffer(piece.raw);
                    let rest = [info.offset(offset).range(vk::WHOLE_SIZE)];
                    let write = vk::WriteDescriptorSet::default()
                        .dst_set(*set)
                        .dst_binding(binding)
                        .descriptor_type(storage)
                        .buffer_info(&rest);
                    raw.update_descriptor_sets(&[write], &[]);
                }
            }
            let module =
                raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(spirv), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"flow");
            let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout);
            let made = compile(raw, info, kept);
            raw.destroy_shader_module(module, None);
            self.pipeline = made?;
            let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
            self.pool = raw.create_command_pool(&info, None)?;
            let info =
                vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(2);
            let commands = raw.allocate_command_buffers(&info)?;
            for ((launch, commands), set) in self.launches.iter_mut().zip(commands).zip(sets) {
                launch.commands = commands;
                launch.fence = raw.create_fence(&vk::FenceCreateInfo::default(), None)?;
                raw.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())?;
                // Behind the launch before it: they use the same words.
                let everything = vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE;
                let barrier =
                    [vk::MemoryBarrier::default().src_access_mask(everything).dst_access_mask(everything)];
                let compute = vk::PipelineStageFlags::COMPUTE_SHADER;
                let none = vk::DependencyFlags::empty();
                raw.cmd_pipeline_barrier(commands, compute, compute, none, &barrier, &[], &[]);
                raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.pipeline);
                let point = vk::PipelineBindPoint::COMPUTE;
                raw.cmd_bind_descriptor_sets(commands, point, self.layout, 0, &[set], &[]);
                raw.cmd_dispatch(commands, x, y, 1);
                raw.end_command_buffer(commands)?;
            }
        }
        Ok(())
    }
}

impl Drop for Launcher {
    /// Whoever drops it has seen all launches end; if not, everything is leaked, for a kernel may still be at it.
    fn drop(&mut self) {
        if self.under_way > 0 {
            tracing::error!("a resident kernel does not end, leaking what it uses");
            std::mem::forget(self._device.clone());
            self.side.side = None;
            return;
        }
        // SAFETY: no launch is under way, so nothing here is in use; null handles are allowed.
        unsafe {
            for launch in self.launches {
                self.raw.destroy_fence(launch.fence, None);
            }
            self.raw.destroy_command_pool(self.pool, None);
            self.raw.destroy_pipeline(self.pipeline, None);
            self.raw.destroy_pipeline_layout(self.layout, None);
            self.raw.destroy_descriptor_pool(self.descriptors, None);
            self.raw.destroy_descriptor_set_layout(self.set_layout, None);
            for piece in &self.pieces {
                self.raw.destroy_buffer(piece.raw, None);
                self.raw.free_memory(piece.memory, None);
            }
        }
    }
}

/// A kernel as the driver made it before, or makes it now and is kept.
///
/// # Safety
/// What `info` names is of this device and lives.
unsafe fn compile(
    raw: &ash::Device,
    info: vk::ComputePipelineCreateInfo<'_>,
    kept: Option<&Kept>,
) -> Result<vk::Pipeline, vk::Result> {
    let data = kept.and_then(Kept::read).unwrap_or_default();
    // SAFETY: by the caller's word. What was kept came from the same driver, whole and written by nobody else, and the
    // driver looks at the head that it wrote itself.
    unsafe {
        let cache = vk::PipelineCacheCreateInfo::default().initial_data(&data);
        let cache = raw.create_pipeline_cache(&cache, None)?;
        let made = raw.create_compute_pipelines(cache, &[info], None);
        if let (Ok(_), Some(kept)) = (&made, kept)
            && let Ok(data) = raw.get_pipeline_cache_data(cache)
        {
            kept.write(&data);
        }
        raw.destroy_pipeline_cache(cache, None);
        made.map(|made| made[0]).map_err(|(_, error)| error)
    }
}

fn refused(error: vk::Result) -> ExecuteError {
    match error {
        vk::Result::ERROR_DEVICE_LOST => ExecuteError::DeviceLost("under a resident kernel".to_owned()),
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY | vk::Result::ERROR_OUT_OF_HOST_MEMORY => {
            ExecuteError::OutOfMemory("for a resident kernel".to_owned())
        }
        error => ExecuteError::Refused(format!("a resident kernel: {error}")),
    }
}
