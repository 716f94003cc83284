//! Which of two healthy devices runs a request: the one that is expected to answer first. Plain arithmetic.
//!
//! A GPU is not always the faster one: a small batch costs it a submission and a wake-up, and after a pause its clock
//! is down. Both are seen in the times that it took of late, and in nothing else that could be asked portably.

use std::time::Duration;

use crate::inference::Expected;

/// After this long without a batch of that size, a device's time is worth measuring again.
const STALE: Duration = Duration::from_secs(2);
/// One request in so many goes to a device whose time is stale, so that at most that share is slower for it.
const RETRY_EVERY: u64 = 64;

/// What is known of one device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// `None`: not measured yet.
    pub(crate) expected: Option<Expected>,
    /// Time that the work in front of the request will take.
    pub(crate) backlog: Duration,
}

/// Whether the CPU runs the request. `turn` counts requests.
pub(crate) fn prefers_cpu(cpu: Outlook, gpu: Outlook, turn: u64) -> bool {
    let (Some(on_cpu), Some(on_gpu)) = (cpu.expected, gpu.expected) else {
        // What was not measured yet runs now, the GPU first: it was asked for.
        return gpu.expected.is_some();
    };
    let cpu_is_faster = cpu.backlog + on_cpu.took < gpu.backlog + on_gpu.took;
    let other = if cpu_is_faster { on_gpu } else { on_cpu };
    let retries = other.age > STALE && turn.is_multiple_of(RETRY_EVERY);
    cpu_is_faster != retries
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn outlook(took: u32, backlog: u32) -> Outlook {
        Outlook { expected: Some(Expected { took: took * US, age: Duration::ZERO }), backlog: backlog * US }
    }

    const UNKNOWN: Outlook = Outlook { expected: None, backlog: Duration::ZERO };

    #[test]
    fn the_device_that_answers_first_runs_it() {
        assert!(prefers_cpu(outlook(30, 0), outlook(60, 0), 1));
        assert!(!prefers_cpu(outlook(400, 0), outlook(80, 0), 1));
        assert!(!prefers_cpu(outlook(60, 0), outlook(60, 0), 1), "the GPU when level");
    }

    #[test]
    fn what_waits_in_front_counts() {
        assert!(!prefers_cpu(outlook(30, 100), outlook(60, 0), 1));
        assert!(prefers_cpu(outlook(400, 0), outlook(80, 900), 1));
    }

    #[test]
    fn each_device_is_tried_once_the_gpu_first() {
        assert!(!prefers_cpu(UNKNOWN, UNKNOWN, 1));
        assert!(prefers_cpu(UNKNOWN, outlook(60, 0), 1));
        assert!(!prefers_cpu(outlook(30, 0), UNKNOWN, 1));
    }

    #[test]
    fn a_stale_time_is_measured_again_by_one_request_in_many() {
        let old = Outlook { expected: Some(Expected { took: 60 * US, age: 3 * STALE }), ..UNKNOWN };
        let to_gpu = (0..640).filter(|&turn| !prefers_cpu(outlook(30, 0), old, turn)).count();
        assert_eq!(to_gpu, 10);
        let to_cpu = (0..640).filter(|&turn| prefers_cpu(old, outlook(30, 0), turn)).count();
        assert_eq!(to_cpu, 10);
    }
}
