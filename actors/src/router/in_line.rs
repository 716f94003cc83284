//! Whether a prediction is made in the thread that took its tick: pure.
//!
//! Two wake-ups of threads are saved where it is, and ticks that come behind wait as long as it takes. So it has to be
//! known to be quick.

use std::time::Duration;

/// What is known of a device that may run a prediction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prospect {
    /// It would answer in the caller's thread: the model stays there, or the device is idle.
    pub(crate) at_once: bool,
    /// What a single window takes there; `None`: not measured yet.
    pub(crate) takes: Option<Duration>,
}

/// The device that is chosen now and then to see how fast it has become may take so many times longer.
const RETRIED: u32 = 10;

/// How long the prediction is expected to take; `None`: it is not made in line. It will run on one of `devices`, most
/// of the time on the quickest. `spent`: on others, for the same ticks; together they may take `longest`.
pub(crate) fn in_line(devices: &[Prospect], longest: Duration, spent: Duration) -> Option<Duration> {
    if !devices.iter().all(|device| device.at_once) {
        return None;
    }
    let slowest = devices.iter().map(|device| device.takes).reduce(|a, b| Some(a?.max(b?)))??;
    let quickest = devices.iter().filter_map(|device| device.takes).min()?;
    (spent + quickest <= longest && slowest <= longest * RETRIED).then_some(quickest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[track_caller]
    fn check(devices: &[(bool, u32)], spent: u32, want: Option<u32>) {
        let prospect =
            |&(at_once, takes): &(bool, u32)| Prospect { at_once, takes: (takes > 0).then_some(takes * US) };
        let devices: Vec<_> = devices.iter().map(prospect).collect();
        assert_eq!(in_line(&devices, 100 * US, spent * US), want.map(|takes| takes * US));
    }

    #[test]
    fn only_what_is_known_to_be_quick_is_made_in_line() {
        check(&[(true, 14)], 0, Some(14));
        check(&[(true, 101)], 0, None);
        check(&[(true, 0)], 0, None);
        check(&[(false, 14)], 0, None);
        check(&[], 0, None);
    }

    #[test]
    fn several_models_share_the_time() {
        check(&[(true, 40)], 60, Some(40));
        check(&[(true, 40)], 61, None);
    }

    #[test]
    fn every_device_that_may_run_it_counts() {
        check(&[(true, 300), (true, 14)], 0, Some(14));
        check(&[(true, 1_001), (true, 14)], 0, None);
        check(&[(true, 0), (true, 14)], 0, None);
        check(&[(false, 30), (true, 14)], 0, None);
    }
}
