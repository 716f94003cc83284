//! How NVIDIA's devices fare, from the library that comes with their driver. It is looked for when the node starts:
//! without it nothing is read, and nothing is said.

use std::sync::Arc;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use peregrine_actors::{DeviceMeter, Meters};

/// Devices beyond this many are not read.
const DEVICES_MAX: u32 = 64;

/// `places`: where the GPUs of this node sit on the bus, in their order. `None`: there is no such library, driver or device.
pub(crate) fn open(places: Vec<String>) -> Option<Arc<dyn Meters>> {
    match Nvml::init().and_then(|nvml| Ok((nvml.device_count()?, nvml))) {
        Ok((0, _)) => None,
        Ok((devices, nvml)) => {
            tracing::info!(devices, "reading meters of devices");
            Some(Arc::new(Library { nvml, places }))
        }
        Err(error) => {
            tracing::debug!(%error, "no meters of devices");
            None
        }
    }
}

struct Library {
    nvml: Nvml,
    places: Vec<String>,
}

impl Meters for Library {
    fn read(&self) -> Vec<DeviceMeter> {
        let count = self.nvml.device_count().unwrap_or(0).min(DEVICES_MAX);
        (0..count).filter_map(|index| self.one(index)).collect()
    }
}

impl Library {
    /// `None`: the device is lost. What it cannot say is left out.
    fn one(&self, index: u32) -> Option<DeviceMeter> {
        let device = self.nvml.device_by_index(index).ok()?;
        let memory = device.memory_info().ok();
        Some(DeviceMeter {
            index,
            gpu: device.pci_info().ok().and_then(|pci| gpu_at(&self.places, &pci.bus_id)),
            name: device.name().unwrap_or_default(),
            utilisation: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        })
    }
}

/// Which GPU sits at a place as the driver writes it, whose domain has eight digits where Vulkan's has four.
fn gpu_at(places: &[String], bus_id: &str) -> Option<usize> {
    let parts = |place: &str| {
        let (domain, rest) = place.split_once(':')?;
        Some((u32::from_str_radix(domain, 16).ok()?, rest.to_ascii_lowercase()))
    };
    let wanted = parts(bus_id)?;
    places.iter().position(|place| parts(place).as_ref() == Some(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_found_by_its_place_on_the_bus() {
        let places = ["", "0000:9b:00.0", "0001:3a:00.0"].map(str::to_owned);
        assert_eq!(gpu_at(&places, "00000000:9B:00.0"), Some(1));
        assert_eq!(gpu_at(&places, "00000001:3A:00.0"), Some(2));
        assert_eq!(gpu_at(&places, "00000000:3A:00.0"), None);
        assert_eq!(gpu_at(&places, ""), None);
    }
}
