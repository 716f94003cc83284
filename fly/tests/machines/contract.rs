//! The contract of pools, over the fake in virtual time.

use std::time::Duration;

use peregrine_scaler::pool::contract;

use super::fake::world::{RELEASE, World};

/// Takes the pool through the contract; the clock goes on by `step` with each reading.
#[track_caller]
fn check(seed: u64, step: Duration, has_limits: bool) {
    let world = World::new(seed);
    world.with(|fake, _| fake.settings.has_limits = has_limits);
    let group = contract::group("iad");
    let mut pool = world.pool(&[(&group.name, group.drain)]);
    contract::check(&mut pool, &group, RELEASE, &mut || world.pass(step));
    let refused = world.with(|fake, _| fake.calls.iter().filter(|((_, status), _)| *status == 429).count());
    assert_eq!(refused, 0, "the pool stays below the platform's limits, seed {seed}");
    assert!(pool.strays().is_empty());
}

#[test]
fn the_pool_keeps_the_contract_whatever_the_delays() {
    for seed in 0..40 {
        check(seed, Duration::from_millis(500), false);
    }
}

#[test]
fn the_pool_keeps_the_contract_below_the_limits_of_the_platform() {
    for seed in 0..40 {
        // The shorter the step, the more often it has to wait.
        check(seed, Duration::from_millis(70 + seed * 20), true);
    }
}
