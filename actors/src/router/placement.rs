//! Which of several healthy devices runs a request: the one that is expected to answer first. Plain arithmetic.
//!
//! A GPU is not always the faster one: a small batch costs it a submission and a wake-up, and after a pause its clock
//! is down. Both are seen in the times that it took of late, and in nothing else that could be asked portably.

use std::cmp::Reverse;
use std::time::Duration;

use peregrine_shaders::DeviceMemory;

use crate::inference::{Expected, Kept};

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
    /// Requests and batches in front of it; counts where times are level or not known.
    pub(crate) queue: usize,
}

/// Place of the device that runs the request; of those that are level the first. `turn` counts requests.
///
/// # Panics
/// Without devices.
pub(crate) fn first(devices: &[Outlook], turn: u64) -> usize {
    // What was not measured yet runs now; one that is at it already is not asked for more.
    let is_untried = |device: &Outlook| device.expected.is_none() && device.queue == 0;
    if let Some(untried) = devices.iter().position(is_untried) {
        return untried;
    }
    let answers = |device: &Outlook| {
        let took = device.expected.map_or(Duration::ZERO, |expected| expected.took);
        (device.expected.is_none(), device.backlog + took, device.queue)
    };
    let quickest = (0..devices.len()).min_by_key(|&at| answers(&devices[at])).unwrap_or_else(|| {
        unreachable!("there is a device to choose");
    });
    if !turn.is_multiple_of(RETRY_EVERY) {
        return quickest;
    }
    let is_stale =
        |at: &usize| *at != quickest && devices[*at].expected.is_some_and(|expected| expected.age > STALE);
    let stale = || (0..devices.len()).filter(is_stale);
    // Of several each has its turn.
    let turn = turn / RETRY_EVERY % stale().count().max(1) as u64;
    stale().nth(turn as usize).unwrap_or(quickest)
}

/// Places of GPUs in the order in which they are asked to have a model stay: those with the fewest that do, then with
/// the most room.
pub(crate) fn homes(gpus: &[Kept]) -> Vec<usize> {
    let room = |kept: &Kept| {
        let DeviceMemory { plan_bytes, batch_bytes, budget_bytes, .. } = kept.memory.unwrap_or_default();
        budget_bytes.unwrap_or(u64::MAX).saturating_sub(plan_bytes + batch_bytes)
    };
    let mut order: Vec<usize> = (0..gpus.len()).collect();
    order.sort_by_key(|&at| (gpus[at].staying, Reverse(room(&gpus[at]))));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn outlook(took: u32, backlog: u32) -> Outlook {
        let expected = Some(Expected { took: took * US, age: Duration::ZERO });
        Outlook { expected, backlog: backlog * US, queue: 0 }
    }

    fn busy(queue: usize, outlook: Outlook) -> Outlook {
        Outlook { queue, ..outlook }
    }

    const UNKNOWN: Outlook = Outlook { expected: None, backlog: Duration::ZERO, queue: 0 };
    const OLD: Outlook = Outlook {
        expected: Some(Expected { took: Duration::from_micros(60), age: Duration::from_secs(6) }),
        ..UNKNOWN
    };

    #[track_caller]
    fn check(devices: &[Outlook], expected: usize) {
        assert_eq!(first(devices, 1), expected, "{devices:?}");
    }

    #[test]
    fn the_device_that_answers_first_runs_it() {
        check(&[outlook(60, 0), outlook(30, 0)], 1);
        check(&[outlook(80, 0), outlook(400, 0)], 0);
        check(&[outlook(60, 0), outlook(60, 0)], 0);
        check(&[outlook(80, 0), outlook(60, 0), outlook(40, 0), outlook(50, 0)], 2);
    }

    #[test]
    fn what_waits_in_front_counts() {
        check(&[outlook(60, 0), outlook(30, 100)], 0);
        check(&[outlook(80, 900), outlook(400, 0)], 1);
        check(&[outlook(80, 900), outlook(80, 50), outlook(400, 0)], 1);
    }

    #[test]
    fn of_two_that_are_level_the_idle_one_runs_it() {
        check(&[busy(1, outlook(60, 0)), outlook(60, 0)], 1);
        check(&[busy(2, outlook(60, 0)), busy(1, outlook(60, 0))], 1);
    }

    #[test]
    fn each_device_is_tried_once_in_their_order() {
        check(&[UNKNOWN, UNKNOWN], 0);
        check(&[outlook(60, 0), UNKNOWN], 1);
        check(&[UNKNOWN, outlook(30, 0)], 0);
        check(&[outlook(60, 0), UNKNOWN, UNKNOWN], 1);
    }

    #[test]
    fn what_is_being_tried_is_not_asked_for_more() {
        check(&[busy(1, UNKNOWN), UNKNOWN], 1);
        check(&[busy(1, UNKNOWN), outlook(60, 0)], 1);
        check(&[busy(2, UNKNOWN), busy(1, UNKNOWN)], 1);
    }

    #[test]
    fn a_stale_time_is_measured_again_by_one_request_in_many() {
        let share = |devices: &[Outlook], at| (0..640).filter(|&turn| first(devices, turn) == at).count();
        assert_eq!(share(&[OLD, outlook(30, 0)], 0), 10);
        assert_eq!(share(&[outlook(30, 0), OLD], 1), 10);
        let several = [OLD, outlook(30, 0), OLD];
        assert_eq!([0, 1, 2].map(|at| share(&several, at)), [5, 630, 5]);
    }

    #[test]
    fn a_model_that_stays_goes_where_the_fewest_do_and_then_where_there_is_room() {
        let kept = |staying, plan_bytes, budget_bytes| Kept {
            staying,
            memory: Some(DeviceMemory { plan_bytes, budget_bytes, ..DeviceMemory::default() }),
        };
        let unread = |staying| Kept { staying, memory: None };
        assert_eq!(homes(&[unread(0), unread(0)]), [0, 1]);
        assert_eq!(homes(&[kept(2, 0, None), kept(1, 900, None), kept(1, 100, None)]), [2, 1, 0]);
        assert_eq!(homes(&[kept(0, 10, Some(100)), kept(0, 50, Some(200))]), [1, 0]);
    }
}
