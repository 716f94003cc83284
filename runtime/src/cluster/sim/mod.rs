//! A cluster in virtual time: shards, a singleton and drains on nodes that crash, freeze and are cut off.
//!
//! Everything comes from one seed, so a run can be repeated: `SIM_SEED=n cargo test ... cluster::sim`. The
//! network keeps the order of each pair and may lose, delay or cut; a detector sees what beats arrive.

mod checks;
mod world;

use std::thread;
use std::time::Duration;

use super::lease::LeaseLimits;
use super::shard::ShardSpec;
use world::{Chaos, Setup, World};

fn spec() -> ShardSpec {
    let ms = Duration::from_millis;
    ShardSpec {
        name: "series".into(),
        home: None,
        role: None,
        shard_count: 6,
        queue_max: 200,
        grace: ms(2_000),
        acquire_max: ms(3_000),
        transfer_retry: ms(200),
        transfer_max: ms(9_000),
        lease: LeaseLimits { electorate: 0, lease: ms(1_000), promise: ms(1_100), renew: ms(250) },
    }
}

#[test]
fn whatever_happens_the_rules_hold() {
    let failures = run_all(200, |seed| run(seed, Chaos::Everything, spec()));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn rolling_drains_lose_and_reorder_nothing() {
    let failures = run_all(100, |seed| run(seed, Chaos::Drains, spec()));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn promises_shorter_than_leases_are_found_out() {
    let mut broken = spec();
    broken.lease.promise = Duration::ZERO;
    broken.lease.lease = Duration::from_secs(3);
    let failures = run_all(40, |seed| run(seed, Chaos::Everything, broken.clone()));
    assert!(failures.iter().any(|failure| failure.contains("two hold")), "{}", failures.join("\n"));
}

#[test]
fn a_minority_that_decides_is_found_out() {
    // An electorate of one: each side of a cut takes a majority of those it sees for a majority of all.
    let mut found = Vec::new();
    for seed in 0..40 {
        found.extend(run_with(seed, Chaos::Everything, spec(), Some(1)).err());
    }
    assert!(found.iter().any(|failure| failure.contains("two")), "{}", found.join("\n"));
}

#[test]
fn a_seed_repeats_its_run() {
    let trace = |seed| World::new(seed, setup(Chaos::Everything, spec(), None)).run();
    let [asked, accepted, processed, _] = trace(7).unwrap();
    assert_eq!(trace(7), trace(7));
    assert!(asked >= accepted && accepted >= processed && processed > 300, "{asked} {accepted} {processed}");
}

fn run(seed: u64, chaos: Chaos, spec: ShardSpec) -> Result<(), String> {
    run_with(seed, chaos, spec, None)
}

fn run_with(seed: u64, chaos: Chaos, spec: ShardSpec, electorate: Option<usize>) -> Result<(), String> {
    let outcome = World::new(seed, setup(chaos, spec, electorate)).run();
    outcome.map(drop).map_err(|broken| format!("{broken}; replay with SIM_SEED={seed}"))
}

fn setup(chaos: Chaos, spec: ShardSpec, electorate: Option<usize>) -> Setup {
    Setup { chaos, spec, electorate }
}

/// Runs seeds on two threads; what failed, by seed. `SIM_SEED` runs only that one.
fn run_all(count: u64, run: impl Fn(u64) -> Result<(), String> + Sync) -> Vec<String> {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        return run(seed.parse().expect("SIM_SEED is a number")).err().into_iter().collect();
    }
    let half =
        |odd: u64| (0..count).filter(|seed| seed % 2 == odd).filter_map(|seed| run(seed).err()).collect();
    thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut failures: Vec<String> = half(0);
        failures.extend(other.join().expect("a simulation panicked"));
        failures
    })
}
