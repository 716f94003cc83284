//! Virtual time: a server that stalls, seen by an open loop and by a closed one.

use super::*;
use crate::schedule::Schedule;

const SERVICE: Duration = Duration::from_millis(1);
const STALL: std::ops::Range<Duration> = Duration::from_secs(5)..Duration::from_secs(6);
const END: Duration = Duration::from_secs(10);

/// When a server of one request at a time is done with one that it could begin at `from`; it stands still for a second.
fn served(from: Duration) -> Duration {
    let start = if STALL.contains(&from) { STALL.end } else { from };
    start + SERVICE
}

#[test]
fn an_open_loop_sees_the_requests_that_a_stall_held_up() {
    // Every 10 ms, exactly: a hundred of a thousand requests fall due while the server stands still.
    let (mut window, mut free) = (Window::default(), Duration::ZERO);
    for due in (0..1000).map(|place| Duration::from_millis(10 * place)) {
        free = served(due.max(free));
        window.completed(due, free);
    }
    // The first of the hundred waits 1001 ms and each after it 9 ms less, so that after 112 none waits.
    let waits = |place: i64| 1001 - 9 * place;
    let mut want: Vec<i64> = (0..112).map(waits).chain(std::iter::repeat_n(1, 888)).collect();
    want.sort_unstable();
    for (share, rank) in [(0.5, 500), (0.9, 900), (0.95, 950), (0.99, 990), (0.999, 999), (1.0, 1000)] {
        let (got, want) = (window.latency.at(share).as_secs_f64() * 1e3, want[rank - 1] as f64);
        assert!((got / want - 1.0).abs() < 1e-3, "p{share}: {got} for {want}");
    }
    assert_eq!(window.latency.longest(), Duration::from_millis(1001));
}

#[test]
fn a_closed_loop_sees_one_slow_request_in_nine_thousand() {
    let (mut window, mut now) = (Window::default(), Duration::ZERO);
    while now < END {
        let done = served(now);
        window.completed(now, done);
        now = done;
    }
    assert_eq!((window.answered(), window.latency.longest()), (9000, Duration::from_millis(1001)));
    let usual = window.latency.at(0.9998).as_secs_f64();
    assert!((usual / SERVICE.as_secs_f64() - 1.0).abs() < 1e-3, "{usual}");
}

#[test]
fn the_random_schedule_sees_the_stall_as_well() {
    let (mut window, mut free) = (Window::default(), Duration::ZERO);
    let mut schedule = Schedule::new(100.0, Duration::ZERO, 1);
    while let Some(due) = schedule.pop(END) {
        free = served(due.max(free));
        window.completed(due, free);
    }
    assert!(window.latency.at(0.99) > Duration::from_millis(800), "{:?}", window.latency.at(0.99));
    assert!(window.latency.at(0.5) < Duration::from_millis(2));
}

#[test]
fn windows_of_threads_stand_beside_each_other_and_windows_of_time_behind() {
    let ms = Duration::from_millis;
    let one = |latency, failures, starved, busiest| {
        let mut window =
            Window { span: ms(1000), connections: 2, starved, backlog: 1, busiest, ..Window::default() };
        window.completed(ms(0), ms(latency));
        (0..failures).for_each(|_| window.failed(Failure::Status(429)));
        window.oldest_waiting = ms(latency);
        window
    };
    let mut both = one(10, 1, 1, 0.5);
    both.beside(&one(30, 2, 0, 0.9));
    assert_eq!((both.span, both.connections, both.starved, both.backlog), (ms(1000), 4, 1, 2));
    assert_eq!((both.answered(), both.failed_count(), both.wrong_count()), (2, 3, 0));
    assert_eq!((both.rate(), both.busiest, both.oldest_waiting), (2.0, 0.9, ms(30)));
    let mut after = one(10, 0, 1, 0.5);
    after.then(&one(30, 0, 0, 0.9));
    assert_eq!((after.span, after.connections, after.starved, after.backlog), (ms(2000), 2, 0, 1));
    assert_eq!((after.rate(), after.oldest_waiting), (1.0, ms(30)));
    assert!((after.busiest - 0.7).abs() < 1e-9);
}

#[test]
fn a_failure_has_no_latency() {
    let mut window = Window { span: Duration::from_secs(1), ..Window::default() };
    for failure in [Failure::Shape, Failure::NotFinite, Failure::Timeout, Failure::Status(503)] {
        window.failed(failure);
    }
    assert_eq!((window.answered(), window.failed_count(), window.wrong_count()), (0, 4, 2));
    assert_eq!((window.rate(), window.latency.at(0.5)), (0.0, Duration::ZERO));
    let names: Vec<String> = window.failures.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["http_503", "wrong_shape", "not_finite", "timeout"]);
}
