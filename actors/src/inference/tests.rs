//! Arrivals as numbers, batches as numbers.

use std::time::{Duration, Instant};

use super::batch::{BatchLimits, Batcher, Waiting};

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
        batcher.push(Waiting { key, rows, rows_max: limits().rows_max, since, deadline, item: key });
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
            batcher.push(Waiting {
                key,
                rows: 1,
                rows_max,
                since: now,
                deadline: now + Duration::from_secs(1),
                item,
            });
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
    let mut batcher = Batcher::new(limits());
    assert!(batcher.has_room(1000, 0), "empty");
    let now = Instant::now();
    batcher.push(Waiting { key: 1, rows: 10, rows_max: 100, since: now, deadline: now, item: () });
    assert!(batcher.has_room(6, 0) && !batcher.has_room(7, 0), "16 rows may wait");
    assert!(batcher.has_room(7, 1), "unless there is a reserve");
    assert_eq!(batcher.take_all().len(), 1);
    assert_eq!((batcher.rows(), batcher.requests()), (0, 0));
}

fn limits() -> BatchLimits {
    BatchLimits { rows_max: 4, wait_max: Duration::from_millis(5), queue_rows_max: 16, request_rows_max: 16 }
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
        batcher.push(Waiting {
            key: arrival.model,
            rows: arrival.rows,
            rows_max: limits().rows_max,
            since,
            deadline: since + patience,
            item,
        });
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
