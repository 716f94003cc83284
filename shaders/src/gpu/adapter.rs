//! Which Vulkan device is taken. The choice is a pure function of what Vulkan shows.

use parking_lot::Mutex;
use wgpu::{Backends, DeviceType, Instance, InstanceDescriptor, InstanceFlags, RequestAdapterError};

use super::GpuError;

/// Which adapters are acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterChoice {
    /// A real device; a software adapter is never taken for one.
    Hardware,
    /// A software adapter only, e.g. llvmpipe: for tests and machines without a device.
    Software,
    /// A real device if there is one, else a software adapter.
    Any,
}

/// What an adapter is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A card with its own memory.
    Discrete,
    /// A device that shares the host's memory.
    Integrated,
    /// A device handed through by a hypervisor.
    Virtual,
    /// The driver does not say.
    Other,
    /// A CPU that plays the device.
    Software,
}

/// One adapter as Vulkan shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFacts {
    /// The device's name.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// What it is.
    pub kind: AdapterKind,
    /// Whether a CPU plays the device.
    pub software: bool,
    /// Where it sits on the bus, e.g. `0000:01:00.0`; empty: its driver does not say.
    pub pci: String,
}

/// Every Vulkan adapter of this machine; empty when there is no Vulkan.
#[must_use]
pub fn adapters() -> Vec<AdapterFacts> {
    let instance = instance();
    let shown: Vec<AdapterFacts> = list(&instance).iter().map(facts).collect();
    // What only shows software is not worth the memory of its driver.
    *SHOWN.lock() = shown.iter().any(|facts| !facts.software).then_some(instance);
    shown
}

/// The instance that showed the adapters last: who opens one of them goes on with it, since making one takes a tenth of a
/// second. The next one is made anew, so that a device that is built again has nothing of the one before.
static SHOWN: Mutex<Option<Instance>> = Mutex::new(None);

impl AdapterChoice {
    /// Places in `shown` of the devices that are meant: all acceptable adapters of the best kind there is, in the order in
    /// which Vulkan shows them. A device that two drivers show is one, of the first of them.
    #[must_use]
    pub fn among(self, shown: &[AdapterFacts]) -> Vec<usize> {
        let acceptable = |facts: &AdapterFacts| match self {
            Self::Hardware => !facts.software,
            Self::Software => facts.software,
            Self::Any => true,
        };
        let best = shown.iter().filter(|facts| acceptable(facts)).map(|facts| facts.kind).min();
        let shown_before = |at: usize| {
            !shown[at].pci.is_empty() && shown[..at].iter().any(|other| other.pci == shown[at].pci)
        };
        let meant =
            |at: &usize| acceptable(&shown[*at]) && Some(shown[*at].kind) == best && !shown_before(*at);
        (0..shown.len()).filter(meant).collect()
    }
}

/// Opens one of the adapters that `choice` asks for.
pub(super) fn find(choice: AdapterChoice, index: usize) -> Result<(wgpu::Adapter, AdapterFacts), GpuError> {
    let instance = SHOWN.lock().take().unwrap_or_else(instance);
    let mut shown = list(&instance);
    if shown.is_empty() {
        return Err(if has_vulkan(&instance) { GpuError::NoAdapter } else { GpuError::NoVulkan });
    }
    let all: Vec<AdapterFacts> = shown.iter().map(facts).collect();
    let at = choose(&all, choice, index)?;
    Ok((shown.swap_remove(at), all[at].clone()))
}

/// Place in `shown` of the device that is the `index`th of those that are meant.
pub(super) fn choose(shown: &[AdapterFacts], choice: AdapterChoice, index: usize) -> Result<usize, GpuError> {
    let meant = choice.among(shown);
    let names = || shown.iter().map(|facts| facts.name.clone()).collect();
    meant.get(index).copied().ok_or_else(|| match choice {
        _ if !meant.is_empty() => GpuError::TooFew { index, count: meant.len() },
        AdapterChoice::Hardware if !shown.is_empty() => GpuError::OnlySoftware { names: names() },
        AdapterChoice::Software if !shown.is_empty() => GpuError::OnlyHardware { names: names() },
        AdapterChoice::Hardware | AdapterChoice::Software | AdapterChoice::Any => GpuError::NoAdapter,
    })
}

fn instance() -> Instance {
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::VULKAN;
    descriptor.flags = InstanceFlags::empty();
    Instance::new(descriptor)
}

fn list(instance: &Instance) -> Vec<wgpu::Adapter> {
    pollster::block_on(instance.enumerate_adapters(Backends::VULKAN))
}

/// Without a loader or any driver wgpu makes an instance in which no backend is active.
fn has_vulkan(instance: &Instance) -> bool {
    match pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())) {
        Err(RequestAdapterError::NotFound { active_backends, .. }) => !active_backends.is_empty(),
        Ok(_) | Err(_) => true,
    }
}

fn facts(adapter: &wgpu::Adapter) -> AdapterFacts {
    let info = adapter.get_info();
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => AdapterKind::Discrete,
        DeviceType::IntegratedGpu => AdapterKind::Integrated,
        DeviceType::VirtualGpu => AdapterKind::Virtual,
        DeviceType::Cpu => AdapterKind::Software,
        DeviceType::Other => AdapterKind::Other,
    };
    AdapterFacts {
        name: info.name,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind,
        software: kind == AdapterKind::Software,
        pci: info.device_pci_bus_id,
    }
}
