//! Arrivals as numbers, batches as numbers.

use std::time::{Duration, Instant};

use super::admission::AdmissionLimits;
use super::batch::{BatchLimits, Batcher, Waiting};
use crate::request::Priority;

/// `(model, rows, arrival in ms)`; deadline 100 ms later unless it says otherwise.
#[derive(Clone, Copy)]
struct Arrival {
    model: u64,
    rows: usize,
    at_ms: u64,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Waits,
    Leaves,
    Expires,
}

const fn arrival(model: u64, rows: usize, at_ms: u64) -> Arrival {
    Arrival { model, rows, at_ms, fate: Fate::Waits }
}

const fn doomed(model: u64, rows: usize, at_ms: u64, fate: Fate) -> Arrival {
    Arrival { model, rows, at_ms, fate }
}

const NONE: &[&[usize]] = &[];

#[test]
fn nothing_waits_nothing_leaves() {
    check(&[], 0, NONE);
}

#[test]
fn a_lone_request_leaves_at_once() {
    check(&[arrival(1, 1, 0)], 0, &[&[0]]);
}

#[test]
fn what_gathered_while_the_device_was_busy_leaves_together() {
    check(&[arrival(1, 1, 0), arrival(1, 2, 1), arrival(1, 1, 2)], 2, &[&[0, 1, 2]]);
}

#[test]
fn a_batch_ends_before_the_request_that_would_overfill_it() {
    check(&[arrival(1, 3, 0), arrival(1, 2, 0), arrival(1, 1, 0)], 0, &[&[0], &[1, 2]]);
}

#[test]
fn a_request_larger_than_a_batch_leaves_alone_and_whole() {
    check(&[arrival(1, 1, 0), arrival(1, 9, 0), arrival(1, 1, 0)], 0, &[&[0], &[1], &[2]]);
}

#[test]
fn models_are_never_mixed() {
    check(&[arrival(1, 1, 0), arrival(2, 1, 1), arrival(1, 1, 2)], 2, &[&[0, 2], &[1]]);
}

#[test]
fn a_full_batch_overtakes_a_young_request() {
    check(&[arrival(1, 1, 0), arrival(2, 4, 1)], 2, &[&[1], &[0]]);
}

#[test]
fn a_full_batch_does_not_overtake_an_old_request() {
    check(&[arrival(1, 1, 0), arrival(2, 4, 1)], 5, &[&[0], &[1]]);
}

#[test]
fn work_of_callers_that_left_is_dropped() {
    check(&[doomed(1, 4, 0, Fate::Leaves), arrival(1, 4, 0)], 0, &[&[1]]);
}

#[test]
fn expired_requests_do_not_run() {
    check(&[doomed(1, 4, 0, Fate::Expires), arrival(2, 1, 0)], 0, &[&[1]]);
}

#[test]
fn a_queue_of_the_dead_empties_itself() {
    check(&[doomed(1, 1, 0, Fate::Expires), doomed(2, 1, 0, Fate::Leaves)], 0, NONE);
}

#[test]
fn no_model_starves_behind_full_batches_of_another() {
    let mut batcher = Batcher::new(limits());
    let start = Instant::now();
    let push = |batcher: &mut Batcher<u64>, key, rows, ms| {
        let since = start + Duration::from_millis(ms);
        let deadline = start + Duration::from_secs(9);
        let waits = Waiting { rows, since, deadline, ..waiting(key, start, key) };
        batcher.push(waits);
    };
    push(&mut batcher, 7, 1, 0);
    let mut served_at = None;
    for ms in 1..20 {
        push(&mut batcher, 8, 4, ms);
        let cut = batcher.cut(start + Duration::from_millis(ms), |_| false);
        if cut.batch == [7] {
            served_at = Some(ms);
            break;
        }
    }
    assert_eq!(served_at, Some(5), "served once it had waited wait_max");
}

#[test]
fn each_model_has_batches_of_its_own_length() {
    let mut batcher = Batcher::new(limits());
    let now = Instant::now();
    for (key, rows_max) in [(1, 2), (2, 3)] {
        for item in 0..6 {
            batcher.push(Waiting { rows_max, ..waiting(key, now, item) });
        }
    }
    let mut lengths = Vec::new();
    while batcher.requests() > 0 {
        lengths.push(batcher.cut(now, |_| false).batch.len());
    }
    assert_eq!(lengths, [2, 2, 2, 3, 3]);
}

#[test]
fn the_queue_is_bounded_in_rows_and_an_empty_one_takes_anything() {
    let now = Instant::now();
    let mut batcher = Batcher::new(limits());
    let of = |rows| Waiting { rows, ..waiting(1, now, ()) };
    let admits = |batcher: &Batcher<()>, rows| batcher.admit(&of(rows), now, 0.0, Duration::ZERO).is_ok();
    assert!(admits(&batcher, 1000) && batcher.has_reserve(1000), "empty");
    batcher.push(of(10));
    assert!(admits(&batcher, 6) && !admits(&batcher, 7), "16 rows may wait");
    assert!(
        batcher.has_reserve(38) && !batcher.has_reserve(39),
        "and as many of another device, and a request"
    );
    assert_eq!(batcher.take_all().len(), 1);
    assert_eq!((batcher.rows(), batcher.work(), batcher.requests()), (0, 0, 0));
}

#[test]
fn what_is_more_important_leaves_first_until_the_rest_has_waited_too_long() {
    for (ms, want) in [(1, ["high", "normal", "low"]), (200, ["low", "normal", "high"])] {
        let (start, mut batcher) = (Instant::now(), Batcher::new(limits()));
        for (model, priority) in [(1, Priority::Low), (2, Priority::Normal), (2, Priority::High)] {
            batcher.push(Waiting { rows: 4, priority, ..waiting(model, start, priority.name()) });
        }
        let now = start + Duration::from_millis(ms);
        let order: Vec<_> = (0..3).flat_map(|_| batcher.cut(now, |_| false).batch).collect();
        assert_eq!(order, want, "after {ms} ms");
    }
}

#[test]
fn what_waits_is_known_by_caller_and_by_work() {
    let (now, mut batcher) = (Instant::now(), Batcher::new(limits()));
    for caller in ["a", "b", "a"] {
        batcher.push(Waiting { caller: caller.into(), work: 5, ..waiting(1, now, ()) });
    }
    assert_eq!((batcher.work(), batcher.callers()), (15, 2));
    assert_eq!(batcher.cut(now, |()| false).batch.len(), 3);
    assert_eq!((batcher.work(), batcher.callers()), (0, 0), "nobody is remembered");
}

/// One row of nobody in particular.
fn waiting<T>(key: u64, since: Instant, item: T) -> Waiting<T> {
    Waiting {
        key,
        rows: 1,
        work: 1,
        priority: Priority::Normal,
        caller: "".into(),
        rows_max: limits().rows_max,
        since,
        deadline: since + Duration::from_secs(1),
        item,
    }
}

fn limits() -> BatchLimits {
    BatchLimits {
        rows_max: 4,
        wait_max: Duration::from_millis(5),
        queue_rows_max: 16,
        request_rows_max: 16,
        admission: AdmissionLimits { delay_target: Duration::from_millis(50), ..AdmissionLimits::default() },
    }
}

/// Pushes all arrivals, then cuts batches at `cut_ms` until nothing is left.
#[track_caller]
fn check(arrivals: &[Arrival], cut_ms: u64, expected: &[&[usize]]) {
    let start = Instant::now();
    let mut batcher = Batcher::new(limits());
    for (item, arrival) in arrivals.iter().enumerate() {
        let since = start + Duration::from_millis(arrival.at_ms);
        let patience =
            if arrival.fate == Fate::Expires { Duration::ZERO } else { Duration::from_millis(100) };
        let deadline = since + patience;
        batcher.push(Waiting { rows: arrival.rows, deadline, ..waiting(arrival.model, since, item) });
    }
    let mut batches = Vec::new();
    loop {
        let now = start + Duration::from_millis(cut_ms);
        let cut = batcher.cut(now, |&item| arrivals[item].fate == Fate::Leaves);
        assert_eq!(cut.rows, cut.batch.iter().map(|&item| arrivals[item].rows).sum::<usize>());
        if cut.batch.is_empty() {
            break;
        }
        batches.push(cut.batch);
    }
    assert_eq!(batches, expected);
    assert_eq!((batcher.rows(), batcher.requests()), (0, 0), "nothing is left behind");
}
