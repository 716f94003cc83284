//! Readings as numbers, events as words.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::*;

/// A sensor that is silent.
const NONE: f64 = f64::NAN;

fn rule(lasting: u64, clear_lasting: u64, missing: Missing) -> Rule {
    Rule {
        name: "heat".to_owned(),
        signal: Signal::DeviceTemperatureCelsius,
        comparison: Comparison::Above,
        threshold: 85.0,
        clear: 80.0,
        lasting: Duration::from_secs(lasting),
        clear_lasting: Duration::from_secs(clear_lasting),
        severity: Severity::Critical,
        missing,
        summary: "too hot".to_owned(),
    }
}

#[test]
fn what_is_bad_fires_at_once_and_what_is_good_again_ends_it() {
    check(
        rule(0, 0, Missing::Hold),
        &[(0, 60.0), (1, 86.0), (2, 90.0), (3, 70.0)],
        &["1 fired", "3 resolved"],
    );
}

#[test]
fn on_the_threshold_is_good() {
    check(rule(0, 0, Missing::Hold), &[(0, 85.0), (1, 85.1)], &["1 fired"]);
}

#[test]
fn it_must_be_bad_for_long_enough_without_a_break() {
    let readings = [(0, 86.0), (9, 86.0), (10, 85.0), (11, 86.0), (20, 86.0), (21, 86.0)];
    check(rule(10, 0, Missing::Hold), &readings, &["21 fired"]);
}

#[test]
fn a_value_that_swings_about_the_threshold_is_one_alert() {
    let readings = [(0, 86.0), (1, 84.0), (2, 86.0), (3, 80.1), (4, 80.0)];
    check(rule(0, 0, Missing::Hold), &readings, &["0 fired", "4 resolved"]);
}

#[test]
fn it_must_be_clear_for_long_enough_without_a_break() {
    let readings = [(0, 86.0), (1, 70.0), (5, 82.0), (6, 70.0), (15, 70.0), (16, 70.0)];
    check(rule(0, 10, Missing::Hold), &readings, &["0 fired", "16 resolved"]);
}

#[test]
fn what_must_not_be_small_is_bad_below() {
    let below =
        Rule { comparison: Comparison::Below, threshold: 10.0, clear: 20.0, ..rule(0, 0, Missing::Hold) };
    check(below, &[(0, 10.0), (1, 9.0), (2, 15.0), (3, 20.0)], &["1 fired", "3 resolved"]);
}

#[test]
fn a_silent_sensor_is_not_a_cool_device() {
    check(
        rule(0, 0, Missing::Hold),
        &[(0, 86.0), (1, NONE), (99, NONE), (100, 70.0)],
        &["0 fired", "100 resolved"],
    );
}

#[test]
fn a_silent_sensor_does_not_heat_either() {
    check(rule(10, 0, Missing::Hold), &[(0, 86.0), (5, NONE), (50, NONE)], &[]);
    check(rule(0, 0, Missing::Hold), &[(0, NONE), (5, NONE)], &[]);
}

#[test]
fn what_is_no_more_ends_where_the_rule_says_so() {
    check(rule(0, 0, Missing::Resolve), &[(0, 86.0), (1, NONE)], &["0 fired", "1 resolved"]);
    check(rule(9, 0, Missing::Resolve), &[(0, 86.0), (8, NONE), (9, 86.0), (17, 86.0)], &[]);
}

#[test]
fn not_to_know_is_bad_where_the_rule_says_so() {
    let readings = [(0, 60.0), (1, NONE), (2, NONE), (11, NONE), (12, 60.0)];
    check(rule(10, 0, Missing::Fire), &readings, &["11 fired", "12 resolved"]);
}

#[test]
fn an_alert_that_goes_on_is_said_again() {
    let readings = [(0, 86.0), (99, 86.0), (100, 86.0), (101, 86.0), (200, 86.0), (201, 60.0)];
    check(rule(0, 0, Missing::Hold), &readings, &["0 fired", "100 repeated", "200 repeated", "201 resolved"]);
}

#[test]
fn devices_are_told_apart_and_the_same_one_is_known_again() {
    let mut engine = engine(rule(0, 0, Missing::Hold));
    let said = |engine: &mut Engine, second, readings: &[(&str, f64)]| -> Vec<String> {
        let sample = sample(readings.iter().map(|(device, value)| reading(device, *value)).collect());
        engine.look(&sample, at(second)).iter().map(|event| word(event, second)).collect()
    };
    let both = [("0", 90.0), ("1", 90.0)];
    assert_eq!(said(&mut engine, 0, &both), ["0 fired device=0", "0 fired device=1"]);
    assert_eq!(said(&mut engine, 1, &both), [""; 0], "once");
    assert_eq!(said(&mut engine, 2, &[("0", 60.0), ("1", 90.0)]), ["2 resolved device=0"]);
    assert_eq!(said(&mut engine, 3, &both), ["3 fired device=0"]);
    let again = engine.active().next().unwrap().fingerprint();
    assert_eq!(engine.ended().next().unwrap().fingerprint(), again);
    let prints: std::collections::BTreeSet<u64> = engine.active().map(Alert::fingerprint).collect();
    assert_eq!(prints.len(), 2);
}

#[test]
fn where_nothing_is_measured_a_silence_fires_only_if_something_should_be() {
    let mut engine = engine(rule(0, 0, Missing::Fire));
    let nobody = Sample::default();
    assert_eq!(engine.look(&nobody, at(0)), []);
    assert_eq!(engine.look(&sample(Vec::new()), at(1)).len(), 1, "a sensor that never spoke");
    // Once one speaks, what stood for all of them is over, and it is judged by its own word.
    let events = engine.look(&sample(vec![reading("0", 60.0)]), at(2));
    assert_eq!(events.iter().map(|event| event.what).collect::<Vec<_>>(), [Happening::Resolved]);
    engine.look(&sample(vec![reading("0", NONE)]), at(3));
    assert_eq!(engine.look(&nobody, at(4)).len(), 1, "not measured any more");
    assert_eq!(engine.active().count(), 0);
}

#[test]
fn a_device_that_falls_silent_beside_another_still_fires() {
    let mut engine = engine(rule(0, 0, Missing::Fire));
    engine.look(&sample(vec![reading("0", 60.0), reading("1", 90.0)]), at(0));
    assert_eq!(engine.look(&sample(vec![reading("0", 60.0)]), at(1)), [], "device 1 is not well, it is gone");
    assert_eq!(engine.active().count(), 1);
}

#[test]
fn alerts_end_with_their_rule() {
    let mut engine = engine(rule(0, 0, Missing::Hold));
    engine.look(&sample(vec![reading("0", 86.0)]), at(0));
    let milder = Rule { threshold: 95.0, clear: 82.0, ..rule(0, 0, Missing::Hold) };
    assert_eq!(engine.replace(vec![milder], Duration::from_secs(100), at(1)), []);
    assert_eq!(engine.look(&sample(vec![reading("0", 83.0)]), at(1)), [], "goes on until the new bound");
    let events = engine.replace(Vec::new(), Duration::from_secs(100), at(2));
    assert_eq!(events.iter().map(|event| event.what).collect::<Vec<_>>(), [Happening::Resolved]);
    assert_eq!((engine.active().count(), engine.ended().count()), (0, 1));
}

#[test]
fn there_are_never_more_alerts_than_there_is_room_for() {
    let mut engine = engine(rule(0, 0, Missing::Resolve));
    let many = (0..ACTIVE_MAX + 3).map(|device| reading(&device.to_string(), 90.0)).collect();
    assert_eq!(engine.look(&sample(many), at(0)).len(), ACTIVE_MAX);
    assert_eq!(engine.overflowed(), 3);
    engine.look(&sample(Vec::new()), at(1));
    assert_eq!((engine.active().count(), engine.ended().count()), (0, HISTORY_MAX));
}

#[test]
fn a_window_compares_with_what_was_a_span_ago() {
    let (start, mut window) = (Instant::now(), Window::new(Duration::from_secs(10)));
    let turned: Vec<Option<u64>> = [0, 4, 9, 10, 14, 15, 90]
        .map(|second| window.turn(start + Duration::from_secs(second), second).copied())
        .to_vec();
    assert_eq!(turned, [None, Some(0), Some(0), Some(0), Some(4), Some(4), Some(15)]);
}

#[test]
fn a_window_does_not_grow_with_how_often_it_is_looked_at() {
    let (start, mut window) = (Instant::now(), Window::new(Duration::from_secs(1)));
    let mut firsts = std::collections::BTreeSet::new();
    for micros in 0..3_000_000_u64 / 100 {
        let first = window.turn(start + Duration::from_micros(micros * 100), micros * 100).copied();
        let age = first.map_or(0, |first| micros * 100 - first);
        assert!(age <= 1_000_000 + 2 * 1_000_000 / 512, "{age}");
        firsts.extend(first);
    }
    // Over the last two of three seconds each reading that was kept came first in its turn.
    assert!((900..=1100).contains(&firsts.len()), "{}", firsts.len());
}

#[test]
fn a_quantile_lies_within_its_bucket() {
    let bounds = [0.1, 0.2, 0.4];
    let check =
        |counts, share, want| assert_eq!(quantile(&bounds, counts, share), want, "{counts:?} {share}");
    check(&[0, 0, 0, 0], 0.95, None);
    check(&[10, 10, 10, 10], 0.5, Some(0.05));
    check(&[0, 10, 10, 10], 1.0, Some(0.2));
    check(&[0, 0, 4, 8], 0.25, Some(0.30000000000000004));
    check(&[0, 0, 0, 8], 0.95, Some(0.4));
}

#[test]
fn few_answers_have_no_share() {
    assert_eq!((error_share(19, 19), error_share(1, 20)), (None, Some(0.05)));
}

#[test]
fn a_member_is_lost_when_it_goes_without_a_word() {
    let (start, mut roll) = (Instant::now(), Roll::default());
    let mut call = |second, there: &[&str]| -> Vec<String> {
        let now = start + Duration::from_secs(second);
        let called = roll.call(there.iter().copied(), |name| name == "b", now, Duration::from_secs(60));
        called.into_iter().map(|(name, lost)| if lost { format!("{name} lost") } else { name }).collect()
    };
    assert_eq!(call(0, &["a", "b", "c"]), ["a", "b", "c"]);
    assert_eq!(call(1, &["a", "b"]), ["a", "b", "c lost"]);
    assert_eq!(call(2, &["a"]), ["a", "c lost"], "b said goodbye");
    assert_eq!(call(3, &["a", "c"]), ["a", "c"], "it came back");
    assert_eq!(call(62, &["a"]), ["a", "c lost"]);
    assert_eq!(call(63, &["a"]), ["a"], "forgotten");
}

#[test]
fn what_is_not_taken_is_tried_again_ever_later_and_in_order() {
    let (start, mut outbox) = (Instant::now(), outbox(8));
    let second = |second: u64| start + Duration::from_secs(second);
    assert_eq!(outbox.next(start), Step::Idle);
    outbox.push(event("a", Happening::Fired));
    outbox.push(event("a", Happening::Resolved));
    for (at, until) in [(0, 1), (1, 3), (3, 7), (7, 15), (15, 25), (25, 35)] {
        assert!(matches!(outbox.next(second(at)), Step::Send(event) if event.what == Happening::Fired));
        outbox.failed(Failure::Passing, second(at), 0.0);
        assert_eq!(outbox.next(second(at)), Step::Wait(second(until)));
    }
    assert!(matches!(outbox.next(second(35)), Step::Send(event) if event.what == Happening::Fired));
    outbox.delivered();
    assert!(matches!(outbox.next(second(35)), Step::Send(event) if event.what == Happening::Resolved));
    outbox.failed(Failure::Refused, second(35), 0.0);
    assert_eq!(outbox.next(second(35)), Step::Wait(second(36)), "whatever it answers");
    assert!(matches!(outbox.next(second(36)), Step::Send(event) if event.what == Happening::Resolved));
    assert_eq!((outbox.failing_since(), outbox.waiting()), (Some(second(35)), 1));
    outbox.failed(Failure::Refused, second(35 + 3599), 0.0);
    assert!(matches!(outbox.next(second(35 + 3660)), Step::Send(_)));
    outbox.failed(Failure::Refused, second(35 + 3660), 0.0);
    assert_eq!(outbox.next(second(35 + 3660)), Step::Idle, "it has held up the others for long enough");
    assert_eq!(outbox.failing_since(), Some(second(35)), "nothing was taken since");
    let counts = DeliveryCounts { delivered: 1, failed: 8, refused: 1, dropped: 0 };
    assert_eq!(outbox.counts(), counts);
}

#[test]
fn chance_takes_off_up_to_half_of_a_delay() {
    let (start, mut outbox) = (Instant::now(), outbox(8));
    outbox.push(event("a", Happening::Fired));
    outbox.failed(Failure::Passing, start, 1.0);
    assert_eq!(outbox.next(start), Step::Wait(start + Duration::from_millis(500)));
    outbox.redirect();
    assert!(matches!(outbox.next(start), Step::Send(_)), "somebody else is asked at once");
}

#[test]
fn without_room_reminders_go_first_then_the_oldest() {
    let mut outbox = outbox(3);
    for (name, what) in [
        ("a", Happening::Fired),
        ("b", Happening::Repeated),
        ("c", Happening::Fired),
        ("d", Happening::Fired),
        ("e", Happening::Fired),
    ] {
        outbox.push(event(name, what));
    }
    let mut told = Vec::new();
    while let Step::Send(event) = outbox.next(Instant::now()) {
        told.push(event.alert.rule.name.clone());
        outbox.delivered();
    }
    assert_eq!(told, ["c", "d", "e"]);
    assert_eq!(outbox.counts().dropped, 2);
}

#[test]
fn what_is_being_told_is_not_what_goes() {
    let mut outbox = outbox(2);
    outbox.push(event("a", Happening::Repeated));
    assert!(matches!(outbox.next(Instant::now()), Step::Send(_)));
    outbox.push(event("b", Happening::Fired));
    outbox.push(event("c", Happening::Fired));
    outbox.delivered();
    assert!(matches!(outbox.next(Instant::now()), Step::Send(event) if event.alert.rule.name == "c"));
    outbox.clear();
    outbox.push(event("d", Happening::Fired));
    outbox.delivered();
    assert_eq!(outbox.waiting(), 1, "what was taken away meanwhile is not the one that waits");
    let mut narrow = self::outbox(1);
    narrow.push(event("a", Happening::Fired));
    assert!(matches!(narrow.next(Instant::now()), Step::Send(_)));
    narrow.push(event("b", Happening::Fired));
    narrow.delivered();
    assert_eq!((narrow.waiting(), narrow.counts().dropped), (0, 1));
}

#[test]
fn signals_have_names_of_their_own() {
    let names: std::collections::BTreeSet<&str> = Signal::ALL.iter().map(|signal| signal.name()).collect();
    assert_eq!(names.len(), Signal::ALL.len());
}

fn outbox(queue_max: usize) -> Outbox {
    let (backoff_base, backoff_max) = (Duration::from_secs(1), Duration::from_secs(10));
    Outbox::new(DeliveryLimits { queue_max, backoff_base, backoff_max, ..DeliveryLimits::default() })
}

fn event(name: &str, what: Happening) -> Event {
    let rule = Rule { name: name.to_owned(), ..rule(0, 0, Missing::Hold) };
    let alert = Alert {
        rule: rule.into(),
        labels: Labels::new(),
        state: AlertState::Firing,
        value: None,
        bad_since: UNIX_EPOCH,
        fired_at: None,
        resolved_at: None,
    };
    Event { what, alert, at: UNIX_EPOCH }
}

fn engine(rule: Rule) -> Engine {
    Engine::new(vec![rule], Duration::from_secs(100))
}

fn reading(device: &str, value: f64) -> Reading {
    let labels = Labels::from([("device", device.to_owned())]);
    Reading { signal: Signal::DeviceTemperatureCelsius, labels, value }
}

fn sample(readings: Vec<Reading>) -> Sample {
    Sample { readings, expected: vec![Signal::DeviceTemperatureCelsius] }
}

/// Seconds after one and the same start.
fn at(second: u64) -> Moment {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let now = *START.get_or_init(Instant::now) + Duration::from_secs(second);
    Moment { now, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(second) }
}

fn word(event: &Event, second: u64) -> String {
    let what = match event.what {
        Happening::Fired => "fired",
        Happening::Repeated => "repeated",
        Happening::Resolved => "resolved",
    };
    let labels: String = event.alert.labels.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{second} {what}{labels}")
}

/// One device: (second, degrees), and the events.
#[track_caller]
fn check(rule: Rule, readings: &[(u64, f64)], expected: &[&str]) {
    let mut engine = engine(rule);
    let mut said = Vec::new();
    for &(second, value) in readings {
        let sample = sample(vec![reading("", value)]);
        for event in engine.look(&sample, at(second)) {
            said.push(word(&event, second).replace(" device=", ""));
        }
    }
    assert_eq!(said, expected);
}
