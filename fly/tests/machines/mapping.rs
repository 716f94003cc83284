//! What the pool makes of each thing that can go wrong, over the fake.

use std::time::Duration;

use peregrine_fly::machines::config::ConfigError;
use peregrine_fly::machines::{FlyPool, Guest};
use peregrine_scaler::Timestamp;
use peregrine_scaler::fleet::{MachineId, MachineState};
use peregrine_scaler::pool::{Change, Hold, MachinePool, Order, PoolError, contract};

use super::fake::faults::Fault;
use super::fake::world::{self, CLUSTER, RELEASE, World};
use super::fake::{ORG, What};

const GROUP: &str = "inference";
const DRAIN: Duration = Duration::from_secs(45);
const TTL: Duration = Duration::from_secs(60);

/// A pool and its world.
struct Bench {
    world: World,
    pool: FlyPool,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let pool = world.pool(&[(GROUP, DRAIN)]);
        Self { world, pool }
    }

    /// After a time that lets no limit matter.
    fn later(&self) -> Timestamp {
        self.world.pass(Duration::from_secs(15))
    }

    fn inject(&self, action: &'static str, fault: Fault) {
        self.world.with(|fake, _| fake.inject(action, fault, 1));
    }

    fn create(&mut self, number: u32, launch: bool) -> Result<MachineId, PoolError> {
        let now = self.later();
        self.pool.create(&order(number, launch), now)
    }

    fn hold(&mut self, id: &MachineId) -> Hold {
        let now = self.later();
        self.pool.hold(id, None, TTL, now).expect("nobody holds it")
    }

    fn change(&mut self, id: &MachineId, change: Change, hold: &Hold) -> Result<(), PoolError> {
        let now = self.world.now();
        self.pool.change(id, change, hold, now)
    }

    fn listed(&mut self) -> Vec<(String, MachineState)> {
        let now = self.later();
        let listed = self.pool.list(now).expect("a list");
        listed.into_iter().map(|machine| (machine.slot.to_string(), machine.state)).collect()
    }

    /// One that runs, and one that does not.
    fn two(&mut self) -> (MachineId, MachineId) {
        let runs = self.create(0, true).expect("made");
        let spare = self.create(1, false).expect("made");
        self.world.pass(Duration::from_secs(60));
        let started = ("inference-0".to_owned(), MachineState::Started);
        let mut listed = self.listed();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(listed, [started, ("inference-1".to_owned(), MachineState::Stopped)]);
        (runs, spare)
    }
}

fn order(number: u32, launch: bool) -> Order {
    let slot = format!("{GROUP}-{number}").parse().expect("a slot");
    Order { slot, region: "iad".to_owned(), release: RELEASE.to_owned(), launch }
}

/// What a creation under this fault is said to be, and whether a machine is there afterwards.
#[track_caller]
fn check_create(fault: Fault, expected: &PoolError, machines: usize) {
    let mut bench = Bench::new(1);
    bench.inject("create", fault.clone());
    let failed = bench.create(0, true).expect_err("it fails");
    let kind = std::mem::discriminant(&failed);
    assert_eq!(kind, std::mem::discriminant(expected), "{fault:?}: {failed:?}");
    assert_eq!(bench.listed().len(), machines, "{fault:?}");
    // The same order again makes the machine, or finds that it is there: never a second one.
    let again = bench.create(0, true);
    assert!(if machines == 0 { again.is_ok() } else { again == Err(PoolError::SlotTaken) }, "{again:?}");
    assert_eq!(bench.listed().len(), 1, "{fault:?}");
}

#[test]
fn a_creation_is_never_repeated_blindly() {
    let ambiguous = PoolError::Ambiguous(String::new());
    for happens in [false, true] {
        for fault in [
            Fault::Status { status: 408, happens },
            Fault::Status { status: 500, happens },
            Fault::Status { status: 502, happens },
            Fault::Status { status: 503, happens },
            Fault::Lost { happens },
        ] {
            check_create(fault, &ambiguous, usize::from(happens));
        }
    }
    check_create(Fault::Garbled, &ambiguous, 1);
    check_create(Fault::Unreached, &PoolError::Unavailable(String::new()), 0);
}

#[test]
fn a_refused_creation_says_what_comes_next() {
    let full = PoolError::NoCapacity { region: "iad".to_owned() };
    check_create(Fault::host_full(), &full, 0);
    check_create(Fault::region_full(), &full, 0);
    check_create(Fault::no_candidate(), &full, 0);
    check_create(Fault::rate_limited(), &PoolError::RateLimited, 0);
    let refused = PoolError::Refused(String::new());
    check_create(Fault::refused(400, "EOF"), &refused, 0);
    check_create(Fault::refused(401, "unauthenticated"), &refused, 0);
    check_create(Fault::refused(403, "unauthorized"), &refused, 0);
    check_create(Fault::refused(404, "app not found"), &refused, 0);
    check_create(
        Fault::refused(412, "min_secrets_version not met"),
        &PoolError::WrongState(String::new()),
        0,
    );
}

#[test]
fn one_that_is_shown_late_is_not_made_twice() {
    let mut bench = Bench::new(2);
    bench.inject("create", Fault::Late(Duration::from_secs(40)));
    assert!(matches!(bench.create(0, true), Err(PoolError::Ambiguous(_))));
    assert_eq!(bench.listed(), [], "it is not shown yet");
    assert_eq!(bench.create(0, true), Err(PoolError::SlotTaken), "but has its name");
    assert_eq!(bench.listed().len(), 1);
}

#[test]
fn a_full_host_is_another_machine_and_a_full_region_another_region() {
    let mut bench = Bench::new(3);
    let (_, spare) = bench.two();
    let hold = bench.hold(&spare);
    bench.inject("start", Fault::host_full());
    assert_eq!(bench.change(&spare, Change::Start, &hold), Err(PoolError::HostFull));
    bench.inject("start", Fault::region_full());
    assert_eq!(bench.change(&spare, Change::Start, &hold), Err(PoolError::HostFull));
    bench.world.with(|fake, _| fake.capacity.insert("iad".to_owned(), 1));
    assert_eq!(bench.create(2, true), Err(PoolError::NoCapacity { region: "iad".to_owned() }));
}

#[test]
fn what_may_have_happened_to_a_machine_is_said_so() {
    let mut bench = Bench::new(4);
    let (runs, _) = bench.two();
    let hold = bench.hold(&runs);
    for fault in [
        Fault::Status { status: 500, happens: true },
        Fault::Status { status: 408, happens: false },
        Fault::Lost { happens: true },
    ] {
        bench.inject("cordon", fault.clone());
        let failed = bench.change(&runs, Change::Cordon, &hold);
        assert!(matches!(failed, Err(PoolError::Ambiguous(_))), "{fault:?}: {failed:?}");
        bench.world.pass(Duration::from_secs(5));
    }
    bench.inject("list", Fault::Status { status: 500, happens: true });
    let now = bench.later();
    assert!(matches!(bench.pool.list(now), Err(PoolError::Unavailable(_))), "a list changes nothing");
    bench.inject("list", Fault::Garbled);
    let now = bench.later();
    assert!(matches!(bench.pool.list(now), Err(PoolError::Unavailable(_))), "half a list is none");
    bench.inject("stop", Fault::concurrent());
    let hold = bench.hold_again(&runs, &hold);
    assert!(matches!(bench.change(&runs, Change::Stop, &hold), Err(PoolError::WrongState(_))));
}

impl Bench {
    fn hold_again(&mut self, id: &MachineId, hold: &Hold) -> Hold {
        let now = self.later();
        self.pool.hold(id, Some(hold), TTL, now).expect("it is renewed or taken anew")
    }
}

#[test]
fn a_stop_gives_the_machine_the_drain_of_its_group() {
    let mut bench = Bench::new(5);
    let (runs, _) = bench.two();
    let hold = bench.hold(&runs);
    bench.change(&runs, Change::Cordon, &hold).expect("cordon");
    bench.change(&runs, Change::Stop, &hold).expect("stop");
    let asked = bench.world.with(|fake, _| {
        let config = &fake.machines[&runs.0].config;
        assert_eq!(config["stop_config"]["signal"], "SIGTERM", "also when others stop it");
        assert_eq!(config["stop_config"]["timeout"], "45s");
        assert_eq!(config["metadata"]["peregrine_cluster"], CLUSTER);
        assert_eq!(config["metadata"]["peregrine_slot"], "inference-0");
        assert_eq!(config["metadata"]["peregrine_release"], RELEASE);
        fake.log.iter().find_map(|entry| match entry.what {
            What::StopAsked { up_since, cordoned_at, timeout } => {
                Some((up_since.is_some(), cordoned_at.is_some(), timeout))
            }
            _ => None,
        })
    });
    assert_eq!(asked, Some((true, true, Some(DRAIN))));
}

#[test]
fn one_that_runs_is_not_destroyed_whatever_the_platform_would_do() {
    let mut bench = Bench::new(6);
    bench.world.with(|fake, _| fake.settings.destroy_needs_stop = false);
    let (runs, spare) = bench.two();
    let hold = bench.hold(&runs);
    assert!(matches!(bench.change(&runs, Change::Destroy, &hold), Err(PoolError::WrongState(_))));
    bench.world.with(|fake, now| fake.lose_host(now, &spare.0, Duration::from_secs(600)));
    let hold = bench.hold(&spare);
    assert!(matches!(bench.change(&spare, Change::Destroy, &hold), Err(PoolError::WrongState(_))));
    let asked = bench.world.with(|fake, _| {
        fake.log.iter().filter(|entry| matches!(entry.what, What::DestroyAsked { .. })).count()
    });
    assert_eq!(asked, 0, "it was not even asked to");
}

#[test]
fn a_machine_out_of_reach_is_listed_and_unknown() {
    let mut bench = Bench::new(7);
    let (runs, _) = bench.two();
    bench.world.with(|fake, now| fake.lose_host(now, &runs.0, Duration::from_secs(60)));
    let mut listed = bench.listed();
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    let unknown = ("inference-0".to_owned(), MachineState::Unknown);
    assert_eq!(listed, [unknown, ("inference-1".to_owned(), MachineState::Stopped)]);
    assert_eq!(bench.create(0, true), Err(PoolError::SlotTaken));
    bench.world.pass(Duration::from_secs(60));
    assert!(bench.listed().contains(&("inference-0".to_owned(), MachineState::Started)), "it came back");
}

#[test]
fn a_change_that_hangs_is_no_capacity() {
    let mut bench = Bench::new(8);
    bench.inject("create", Fault::Stuck);
    bench.create(0, true).expect("made");
    assert_eq!(bench.listed(), [("inference-0".to_owned(), MachineState::Starting)]);
    bench.world.pass(Duration::from_secs(5 * 60));
    assert_eq!(bench.listed(), [("inference-0".to_owned(), MachineState::Unknown)]);
    bench.world.pass(Duration::from_secs(5 * 60));
    assert_eq!(bench.listed(), [("inference-0".to_owned(), MachineState::Started)]);
}

#[test]
fn one_that_did_not_come_up_is_failed_and_can_go() {
    let mut bench = Bench::new(9);
    bench.inject("create", Fault::LaunchFails);
    let id = bench.create(0, true).expect("made");
    assert_eq!(bench.listed(), [("inference-0".to_owned(), MachineState::Failed)]);
    let hold = bench.hold(&id);
    bench.change(&id, Change::Destroy, &hold).expect("it does not run");
    assert_eq!(bench.listed(), []);
}

#[test]
fn one_that_falls_over_is_starting_and_then_stopped() {
    let mut bench = Bench::new(10);
    let (runs, _) = bench.two();
    let state = |bench: &mut Bench| {
        let now = bench.world.pass(Duration::from_millis(10));
        let listed = bench.pool.list(now).expect("a list");
        listed.iter().find(|machine| machine.id == runs).expect("it is there").state
    };
    for expected in [MachineState::Starting, MachineState::Starting, MachineState::Stopping] {
        bench.later();
        bench.world.with(|fake, now| fake.crash(now, &runs.0, 1));
        assert_eq!(state(&mut bench), expected);
    }
    bench.later();
    assert_eq!(state(&mut bench), MachineState::Stopped);
}

#[test]
fn a_lease_that_has_run_out_allows_nothing_and_is_taken_anew() {
    let mut bench = Bench::new(11);
    let (runs, _) = bench.two();
    let hold = bench.hold(&runs);
    bench.world.pass(TTL);
    let late = bench.change(&runs, Change::Stop, &hold);
    assert!(matches!(late, Err(PoolError::Held { .. })), "{late:?}");
    let anew = bench.hold_again(&runs, &hold);
    assert_ne!(anew.nonce, hold.nonce);
    bench.change(&runs, Change::Cordon, &anew).expect("it is held again");
    // Another pool is told until when, and neither renews nor gives back what it does not have.
    let mut other = bench.world.pool(&[(GROUP, DRAIN)]);
    let now = bench.world.now();
    let refused = other.hold(&runs, Some(&hold), TTL, now);
    assert!(matches!(refused, Err(PoolError::Held { until }) if until > now), "{refused:?}");
    assert_eq!(other.release(&runs, &hold, now), Ok(()));
    bench.change(&runs, Change::Uncordon, &anew).expect("it is still held");
    // An answer that got lost leaves a lease that nobody knows; it ends by itself.
    bench.pool.release(&runs, &anew, now).expect("given back");
    bench.inject("lease", Fault::Lost { happens: true });
    let now = bench.later();
    assert!(matches!(bench.pool.hold(&runs, None, TTL, now), Err(PoolError::Ambiguous(_))));
    let now = bench.later();
    assert!(matches!(bench.pool.hold(&runs, None, TTL, now), Err(PoolError::Held { .. })));
    let now = bench.world.pass(TTL);
    assert!(bench.pool.hold(&runs, None, TTL, now).is_ok());
}

#[test]
fn a_start_of_what_starts_is_no_error_and_one_that_is_gone_is_gone() {
    let mut bench = Bench::new(12);
    let (runs, spare) = bench.two();
    let hold = bench.hold(&runs);
    for state in ["creating", "starting", "started"] {
        let text = format!("unable to start machine from current state: '{state}'");
        bench.inject("start", Fault::refused(412, &text));
        assert_eq!(bench.change(&runs, Change::Start, &hold), Ok(()), "{state}");
    }
    bench.later();
    let text = "unable to start machine from current state: 'created'";
    bench.inject("start", Fault::refused(412, text));
    let refused = bench.change(&runs, Change::Start, &hold);
    assert_eq!(refused, Err(PoolError::WrongState("created".to_owned())));
    let hold = bench.hold(&spare);
    bench.change(&spare, Change::Destroy, &hold).expect("it does not run");
    bench.world.pass(Duration::from_secs(10));
    for change in [Change::Start, Change::Stop, Change::Cordon, Change::Destroy] {
        assert_eq!(bench.change(&spare, change, &hold), Err(PoolError::Gone), "{}", change.name());
    }
    bench.world.pass(Duration::from_secs(3600));
    let now = bench.world.now();
    assert_eq!(bench.pool.hold(&spare, None, TTL, now), Err(PoolError::Gone));
}

#[test]
fn machines_of_others_are_not_ours() {
    let mut bench = Bench::new(13);
    let mut client = bench.world.client();
    let mut make = |name: &str, cluster: &str| {
        let metadata = serde_json::json!({ "metadata": { "peregrine_cluster": cluster } });
        let config = world::config(metadata);
        let order = peregrine_fly::machines::wire::CreateMachine {
            name,
            region: "iad",
            config: &config,
            skip_launch: true,
            skip_service_registration: false,
        };
        bench.world.pass(Duration::from_secs(5));
        client.create(&order).expect("made").id
    };
    make("inference-7", "another");
    let stray = make("by-hand", CLUSTER);
    assert_eq!(bench.listed(), []);
    assert_eq!(bench.pool.strays(), [stray]);
    assert_eq!(bench.create(7, true), Err(PoolError::SlotTaken), "an app has one cluster");
}

#[test]
fn room_is_what_the_platform_says_where_it_may_be_asked() {
    let mut bench = Bench::new(14);
    bench.world.with(|fake, _| fake.capacity.insert("iad".to_owned(), 2));
    let mut group = contract::group("iad");
    group.name = GROUP.to_owned();
    let now = bench.later();
    assert_eq!(bench.pool.room(&group, now), Ok(vec![("iad".to_owned(), 2)]));
    bench.inject("placements", Fault::refused(403, "unauthorized"));
    let now = bench.later();
    assert_eq!(bench.pool.room(&group, now), Ok(Vec::new()), "nobody can say");
    bench.inject("placements", Fault::Status { status: 500, happens: false });
    let now = bench.later();
    assert!(matches!(bench.pool.room(&group, now), Err(PoolError::Unavailable(_))));
    let mut spec = world::spec(&[(GROUP, DRAIN)]);
    assert_eq!(spec.org.take().as_deref(), Some(ORG));
    let mut silent = FlyPool::new(bench.world.client(), spec).expect("the templates are good");
    assert_eq!(silent.room(&group, now), Ok(Vec::new()));
}

#[test]
fn a_template_is_checked_before_anything_is_asked() {
    let bench = Bench::new(15);
    let refuse = |change: &dyn Fn(&mut peregrine_fly::machines::Template)| {
        let mut spec = world::spec(&[(GROUP, DRAIN)]);
        change(&mut spec.templates[0]);
        let refused = FlyPool::new(bench.world.client(), spec).err().expect("it is refused");
        assert_eq!(refused.0, GROUP);
        refused.1
    };
    let gpu = refuse(&|template| {
        template.config.guest =
            Some(Guest { gpu_kind: Some("a100-sxm4-80gb".to_owned()), ..Guest::default() });
    });
    assert!(gpu.to_string().contains("2026-08-01") && gpu.to_string().contains("external"), "{gpu}");
    let drain = Duration::from_secs(301);
    assert_eq!(refuse(&|template| template.drain = drain), ConfigError::DrainTooLong(drain));
    let key = "peregrine_slot".to_owned();
    let reserved = refuse(&|template| drop(template.config.metadata.insert(key.clone(), String::new())));
    assert_eq!(reserved, ConfigError::ReservedMetadata(key.clone()));
    bench.world.with(|fake, _| assert_eq!(fake.calls.len(), 0));
}

#[test]
fn the_pool_waits_by_itself_rather_than_be_refused() {
    let mut bench = Bench::new(16);
    bench.later();
    let now = bench.world.now();
    let lists: Vec<bool> = (0..5).map(|_| bench.pool.list(now) == Err(PoolError::RateLimited)).collect();
    assert_eq!(lists, [false, false, false, true, true]);
    // Others call there too: what they used up is noticed, and then left alone.
    let mut other = bench.world.pool(&[(GROUP, DRAIN)]);
    assert_eq!(other.list(now), Err(PoolError::RateLimited));
    assert_eq!(other.list(now), Err(PoolError::RateLimited));
    let calls = bench.world.with(|fake, _| fake.calls.clone());
    assert_eq!((calls[&("list", 200)], calls[&("list", 429)]), (3, 1));
}

#[test]
fn a_release_that_is_an_image_runs_it_and_another_word_is_refused() {
    let mut bench = Bench::new(1);
    let mut order = order(0, false);
    order.release = "registry.fly.io/peregrine-test:v2".to_owned();
    let now = bench.later();
    bench.pool.create(&order, now).expect("its template with another image");
    let now = bench.later();
    let listed = bench.pool.list(now).expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].release, order.release, "so that a former release can be told from it");
    order.slot = format!("{GROUP}-1").parse().expect("a slot");
    order.release = "v2".to_owned();
    let now = bench.later();
    assert!(matches!(bench.pool.create(&order, now), Err(PoolError::Refused(_))));
}
