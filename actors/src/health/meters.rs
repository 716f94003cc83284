//! The actor that reads the meters of devices: what their driver says of them.
//!
//! On a thread of its own, since a driver that hangs must hold up nobody else; the watchdog sees it. What was read
//! grows old, and an old reading counts as none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Message;
use arc_swap::ArcSwapOption;
use peregrine_runtime::{Clock, Failure, Inbox, Worker};

/// What the driver of one device says of it. What it does not say is not there, never zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceMeter {
    /// Its place among the devices of this machine.
    pub index: u32,
    /// Which GPU of this node it is; `None`: none, or nobody knows.
    pub gpu: Option<usize>,
    /// Its own name.
    pub name: String,
    /// Share of time in which it computed, 0 to 1; not there while a model stays on a device, whose kernel runs all the
    /// time whether anybody asks or not.
    pub utilisation: Option<f64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Memory there is.
    pub memory_total_bytes: Option<u64>,
    /// Of its core.
    pub temperature_celsius: Option<f64>,
    /// What it draws.
    pub power_watts: Option<f64>,
}

/// What can be read of the devices of a machine, in place of the library that does it.
pub trait Meters: Send + Sync {
    /// Every device, one after the other. May block, and may fail for one and not for another.
    fn read(&self) -> Vec<DeviceMeter>;
}

/// What was read last, and when.
pub(crate) struct Metered {
    pub(crate) devices: Vec<DeviceMeter>,
    pub(crate) at: Instant,
}

/// The latest reading; none before the first.
pub(crate) type LatestMeters = Arc<ArcSwapOption<Metered>>;

/// Older readings count as none.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// Read the meters now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReadMeters;

pub(crate) struct MeterReader {
    pub(crate) meters: Arc<dyn Meters>,
    pub(crate) latest: LatestMeters,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Worker<ReadMeters> for MeterReader {
    fn run(&mut self, inbox: &mut Inbox<ReadMeters>) -> Result<(), Failure> {
        while inbox.recv().is_some() {
            let devices = self.meters.read();
            self.latest.store(Some(Arc::new(Metered { devices, at: self.clock.now() })));
        }
        Ok(())
    }
}

/// What is known of the devices at a moment, at which models stay on some of the GPUs.
pub(crate) fn known(latest: &LatestMeters, now: Instant, stay_on: &[usize]) -> Vec<DeviceMeter> {
    let latest = latest.load();
    let fresh = latest.as_ref().filter(|read| now.saturating_duration_since(read.at) < STALE_AFTER);
    let mut devices = fresh.map(|read| read.devices.clone()).unwrap_or_default();
    for device in &mut devices {
        if device.gpu.map_or(!stay_on.is_empty(), |gpu| stay_on.contains(&gpu)) {
            device.utilisation = None;
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_reading_is_none() {
        let (latest, now) = (LatestMeters::default(), Instant::now());
        assert_eq!(known(&latest, now, &[]), []);
        let one = DeviceMeter { temperature_celsius: Some(60.0), ..DeviceMeter::default() };
        latest.store(Some(Arc::new(Metered { devices: vec![one.clone()], at: now })));
        assert_eq!(known(&latest, now + Duration::from_secs(9), &[]), [one]);
        assert_eq!(known(&latest, now + Duration::from_secs(10), &[]), []);
    }

    #[test]
    fn only_the_device_on_which_models_stay_has_no_utilisation() {
        let (latest, now) = (LatestMeters::default(), Instant::now());
        let meter = |gpu| DeviceMeter { gpu, utilisation: Some(0.5), ..DeviceMeter::default() };
        let devices = vec![meter(Some(0)), meter(Some(1)), meter(None)];
        latest.store(Some(Arc::new(Metered { devices, at: now })));
        let read = |stay_on: &[usize]| -> Vec<bool> {
            known(&latest, now, stay_on).iter().map(|device| device.utilisation.is_some()).collect()
        };
        assert_eq!(read(&[]), [true, true, true]);
        assert_eq!(read(&[1]), [true, false, false], "it may be the third");
    }
}
