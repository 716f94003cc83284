use super::super::history::STEPS_MAX;
use super::super::types::{Actor, Device};
use super::*;

/// A node with one model, one device and one actor, which began a while ago.
struct World {
    start: Instant,
    sampler: Sampler,
    counters: Counters,
}

impl World {
    fn new() -> Self {
        let mut counters = Counters { answered: vec![0; FINE_BOUNDS_S.len() + 1], ..Counters::default() };
        counters.busy.insert(("cpu".into(), 0), Duration::from_secs(100));
        counters.taken.insert("router".into(), 1000);
        counters.models.insert(("m".into(), "1".into()), counts(0, 0, 0, Duration::ZERO));
        Self { start: Instant::now(), sampler: Sampler::default(), counters }
    }

    fn look(&mut self, at_ms: u64) -> Overview {
        let model = Model { name: "m".into(), version: "1".into(), ..Model::default() };
        let device = Device { name: "c".into(), backend: "cpu".into(), ..Device::default() };
        let actor = Actor { name: "router".into(), ..Actor::default() };
        let overview = Overview {
            at: at_ms,
            models: vec![model],
            devices: vec![device],
            actors: vec![Actor { name: "system".into(), ..Actor::default() }, actor],
            ..Overview::default()
        };
        self.sampler.look(self.start + Duration::from_millis(at_ms), self.counters.clone(), overview)
    }

    /// Answers, each within a time.
    fn answer(&mut self, count: u64, within_s: f64) {
        let bucket = FINE_BOUNDS_S.partition_point(|&bound| bound < within_s);
        self.counters.answered[bucket..].iter_mut().for_each(|answered| *answered += count);
    }
}

fn counts(succeeded: u64, rows: u64, batches: u64, took: Duration) -> ModelCounts {
    let spread = Spread::of([(took.as_nanos() as u64, succeeded)]);
    ModelCounts {
        model: "m".into(),
        version: 1,
        rows,
        batches,
        succeeded,
        failed: succeeded / 10,
        latency: spread.clone(),
        queue_latency: Spread::default(),
        compute_latency: spread,
    }
}

#[test]
fn the_first_look_knows_no_rate() {
    let mut world = World::new();
    world.answer(500, 0.01);
    let seen = world.look(0);
    assert_eq!((seen.requests.rate, seen.requests.p99_ms), (None, None));
    assert_eq!((seen.models[0].rate, seen.models[0].p99_ms), (None, None));
    assert_eq!((seen.devices[0].busy_share, seen.streams.ticks_rate), (None, None));
    assert_eq!(seen.actors[1].messages_rate, None);
    assert_eq!(seen.history, Some(History::default()));
}

#[test]
fn rates_are_of_the_time_between_two_looks() {
    let mut world = World::new();
    world.look(0);
    world.answer(30, 0.01);
    world.counters.failed += 3;
    world.counters.ticks += 1500;
    world.counters.busy.insert(("cpu".into(), 0), Duration::from_millis(100_750));
    world.counters.taken.insert("router".into(), 1600);
    world.counters.models.insert(("m".into(), "1".into()), counts(60, 120, 40, Duration::from_millis(2)));
    let seen = world.look(1500);
    assert_eq!((seen.requests.rate, seen.requests.error_rate), (Some(20.0), Some(2.0)));
    assert_eq!(seen.streams.ticks_rate, Some(1000.0));
    assert_eq!(seen.devices[0].busy_share, Some(0.5));
    assert_eq!((seen.actors[1].messages_rate, seen.actors[0].messages_rate), (Some(400.0), None));
    let model = &seen.models[0];
    assert_eq!((model.rate, model.rows_rate, model.failed_rate), (Some(40.0), Some(80.0), Some(4.0)));
    assert_eq!(model.batch_rows_mean, Some(3.0));
    assert!((model.p99_ms.unwrap() / 2.0 - 1.0).abs() < 0.07, "{model:?}");
    assert_eq!(model.queue_p99_ms, None, "none of these waited");
}

#[test]
fn percentiles_are_of_the_last_ten_seconds() {
    let mut world = World::new();
    world.look(0);
    world.answer(100, 4.0);
    let slow = world.look(1000).requests.p50_ms.unwrap();
    assert!((2500.0..=5000.0).contains(&slow), "{slow}");
    for second in 2..=10 {
        world.answer(100, 0.004);
        let both = world.look(second * 1000).requests;
        assert!(both.p999_ms.unwrap() > 2500.0, "{second}: {both:?}");
    }
    world.answer(100, 0.004);
    let fast = world.look(11_000).requests;
    assert!(fast.p999_ms.unwrap() <= 5.0, "{fast:?}");
    for second in 12..=22 {
        world.look(second * 1000);
    }
    assert_eq!(world.look(23_000).requests.p50_ms, None, "nobody asked");
    assert_eq!(world.look(24_000).requests.rate, Some(0.0), "which is known");
}

#[test]
fn a_counter_that_begins_anew_tells_nothing() {
    let mut world = World::new();
    world.answer(30, 0.01);
    world.look(0);
    world.counters.taken.insert("router".into(), 3);
    world.counters.ticks = 0;
    world.counters.models.clear();
    let seen = world.look(1000);
    assert_eq!((seen.actors[1].messages_rate, seen.models[0].rate), (None, None));
    assert_eq!(seen.streams.ticks_rate, Some(0.0));
    assert_eq!(world.look(1000).requests.rate, None, "no time has passed");
}

#[test]
fn steps_of_five_seconds_are_remembered() {
    let mut world = World::new();
    for second in 0..=12 {
        world.look(second * 1000);
        world.answer(10, 0.01);
    }
    let history = world.look(13_000).history.unwrap();
    assert_eq!(history.at, [5000, 10_000]);
    assert_eq!((history.rate, history.step_seconds), (vec![Some(10.0); 2], 5));
    assert!(history.p99_ms.iter().all(|p99| p99.is_some_and(|p99| (5.0..=10.0).contains(&p99))));
    for second in 14..2000 {
        world.look(second * 1000);
    }
    let history = world.look(2_000_000).history.unwrap();
    assert_eq!((history.at.len(), history.p50_ms.len()), (STEPS_MAX, STEPS_MAX));
    assert_eq!((history.rate[0], history.p50_ms[0]), (Some(0.0), None));
}
