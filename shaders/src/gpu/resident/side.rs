//! Queues beside the one that wgpu uses: a device is opened with them, or they are not to be had.

use std::sync::Arc;

use ash::vk;
use parking_lot::Mutex;
use wgpu::hal::api::Vulkan;

/// A queue that wgpu does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gpu) struct Side {
    pub(super) family: u32,
    pub(super) index: u32,
}

/// The queues that nobody uses yet, and the workgroups that may still stay, for all who share a device.
#[derive(Clone, Debug, Default)]
pub(in crate::gpu) struct Sides(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    queues: Vec<Side>,
    workgroups: u32,
}

/// One for each kernel that stays.
const SIDES_MAX: usize = 8;
static PRIORITIES: [f32; SIDES_MAX] = [1.0; SIDES_MAX];
/// Workgroups that may stay where the device does not say how many multiprocessors it has.
const WORKGROUPS_UNTOLD: u32 = 64;

impl Sides {
    fn new(queues: Vec<Side>, workgroups: u32) -> Self {
        Self(Arc::new(Mutex::new(Free { queues, workgroups })))
    }

    /// A queue for a kernel of so many workgroups. All that stay must run at once, whatever else runs, so that together
    /// they have one a multiprocessor at most.
    pub(super) fn take(&self, workgroups: u32) -> Option<Side> {
        let mut free = self.0.lock();
        let left = free.workgroups.checked_sub(workgroups)?;
        let side = free.queues.pop()?;
        free.workgroups = left;
        Some(side)
    }

    pub(super) fn give_back(&self, side: Side, workgroups: u32) {
        let mut free = self.0.lock();
        free.queues.push(side);
        free.workgroups += workgroups;
    }

    /// With the queue that wgpu uses: for tests that use nothing else of the device meanwhile.
    #[cfg(test)]
    pub(in crate::gpu) fn of_wgpu() -> Self {
        Self::new(vec![Side { family: 0, index: 0 }], WORKGROUPS_UNTOLD)
    }
}

/// Opens a device as wgpu would, with the queues of a family that only computes beside its own; `None` where there is
/// no such family, or it is not to be had: then wgpu opens the device.
pub(in crate::gpu) fn open_beside(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<(wgpu::Device, wgpu::Queue, Sides)> {
    // SAFETY: nothing of the adapter is destroyed through the guard.
    let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
    let instance = hal.shared_instance().raw_instance();
    // SAFETY: both live as long as the adapter.
    let families = unsafe { instance.get_physical_device_queue_family_properties(hal.raw_physical_device()) };
    let (family, properties) = (0..).zip(&families).find(|(_, family)| {
        let flags = family.queue_flags;
        flags.contains(vk::QueueFlags::COMPUTE) && !flags.contains(vk::QueueFlags::GRAPHICS)
    })?;
    let count = (properties.queue_count as usize).min(SIDES_MAX);
    // SAFETY: both are of the adapter.
    let workgroups = unsafe { multiprocessors(instance, hal.raw_physical_device()) };
    let workgroups = workgroups.unwrap_or(WORKGROUPS_UNTOLD);
    let ask = |wanted: wgpu::hal::vulkan::CreateDeviceCallbackArgs<'_, '_, '_>| {
        let info = vk::DeviceQueueCreateInfo::default()
            .queue_family_index(family)
            .queue_priorities(&PRIORITIES[..count]);
        wanted.queue_create_infos.push(info);
    };
    // SAFETY: the features and limits are those that the caller would have asked wgpu for; the callback adds queues of a
    // family that the device lists, no more than it has, and wgpu's own is of family 0, which draws.
    let opened = unsafe {
        hal.open_with_callback(
            descriptor.required_features,
            &descriptor.required_limits,
            &descriptor.memory_hints,
            Some(Box::new(ask)),
        )
    };
    let opened = opened.inspect_err(|error| tracing::warn!(%error, "no queues beside wgpu's")).ok()?;
    drop(hal);
    // SAFETY: opened just now from this adapter, with what the descriptor asks for.
    let made = unsafe { adapter.create_device_from_hal::<Vulkan>(opened, descriptor) };
    let (device, queue) =
        made.inspect_err(|error| tracing::warn!(%error, "no device with queues beside wgpu's")).ok()?;
    let queues = (0..).take(count).map(|index| Side { family, index }).collect();
    Some((device, queue, Sides::new(queues, workgroups)))
}

/// How many multiprocessors a device has, where it says so.
///
/// # Safety
/// `physical` is of this instance.
unsafe fn multiprocessors(instance: &ash::Instance, physical: vk::PhysicalDevice) -> Option<u32> {
    // SAFETY: by the caller's word; the properties are asked for only where the device knows them.
    unsafe {
        let extensions = instance.enumerate_device_extension_properties(physical).ok()?;
        let told = |extension: &vk::ExtensionProperties| {
            extension.extension_name_as_c_str() == Ok(ash::nv::shader_sm_builtins::NAME)
        };
        if !extensions.iter().any(told) {
            return None;
        }
        let mut of_shaders = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut of_shaders);
        instance.get_physical_device_properties2(physical, &mut all);
        Some(of_shaders.shader_sm_count)
    }
}
