//! How NVIDIA's devices fare, from the library that comes with their driver. It is looked for when the node starts:
//! without it nothing is read, and nothing is said.

use std::sync::Arc;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use peregrine_actors::{DeviceMeter, Meters};

/// Devices beyond this many are not read.
const DEVICES_MAX: u32 = 64;

/// `None`: there is no such library, driver or device.
pub(crate) fn open() -> Option<Arc<dyn Meters>> {
    match Nvml::init().and_then(|nvml| Ok((nvml.device_count()?, nvml))) {
        Ok((0, _)) => None,
        Ok((devices, nvml)) => {
            tracing::info!(devices, "reading meters of devices");
            Some(Arc::new(Library(nvml)))
        }
        Err(error) => {
            tracing::debug!(%error, "no meters of devices");
            None
        }
    }
}

struct Library(Nvml);

impl Meters for Library {
    fn read(&self) -> Vec<DeviceMeter> {
        let count = self.0.device_count().unwrap_or(0).min(DEVICES_MAX);
        (0..count).filter_map(|index| self.one(index)).collect()
    }
}

impl Library {
    /// `None`: the device is lost. What it cannot say is left out.
    fn one(&self, index: u32) -> Option<DeviceMeter> {
        let device = self.0.device_by_index(index).ok()?;
        let memory = device.memory_info().ok();
        Some(DeviceMeter {
            index,
            name: device.name().unwrap_or_default(),
            utilisation: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        })
    }
}
