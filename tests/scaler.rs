//! Machines of the local pool are real nodes: they join, answer, drain, leave and start again, and nobody who asks
//! meanwhile is refused.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use peregrine::scaler::pools::{LocalPool, LocalSpec, Program, Setting};
use peregrine_scaler::fleet::{Machine, MachineId, MachineState, Slot};
use peregrine_scaler::pool::{Change, MachinePool, Order, PoolError};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::harness::{Load, NodeProcess, request, took};

const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;
const DEADLINE: Duration = Duration::from_secs(10);
const SECRET: &str = "of the test's own machines alone";
const TTL: Duration = Duration::from_secs(60);

/// A gateway that holds no model, and a pool of machines that do. What is left of them is killed when dropped.
struct Cluster {
    gateway: NodeProcess,
    pool: LocalPool,
    dir: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let seed = socket.local_addr().expect("it is bound").to_string();
        drop(socket);
        let gateway = NodeProcess::start_with(
            &[],
            &[
                ("PEREGRINE_NODE__NAME", "gate"),
                ("PEREGRINE_NODE__REGION", "fra"),
                ("PEREGRINE_CLUSTER__LISTEN", &seed),
                ("PEREGRINE_CLUSTER__ROLES", r#"["gateway"]"#),
                ("PEREGRINE_CLUSTER__SECRET", SECRET),
                ("PEREGRINE_BACKEND__CHOICE", "cpu"),
            ],
        );
        let dir = tempfile::tempdir().expect("a folder");
        let pool = open(dir.path(), &seed);
        Self { gateway, pool, dir }
    }

    fn create(&mut self, number: u32) -> MachineId {
        let slot = Slot { group: "inference".to_owned(), number };
        let (region, release) = ("iad".to_owned(), "v1".to_owned());
        let order = Order { slot, region, release, launch: true };
        self.pool.create(&order, Timestamp::now()).expect("a machine is made")
    }

    fn change(&mut self, machine: &MachineId, change: Change) -> Result<(), PoolError> {
        let hold = self.pool.hold(machine, None, TTL, Timestamp::now())?;
        let changed = self.pool.change(machine, change, &hold, Timestamp::now());
        self.pool.release(machine, &hold, Timestamp::now())?;
        changed
    }

    fn listed(&mut self) -> Vec<Machine> {
        self.pool.list(Timestamp::now()).expect("a list")
    }

    #[track_caller]
    fn until(&mut self, machine: &MachineId, state: MachineState) -> Duration {
        took(state.name(), || {
            let found = self.listed().into_iter().find(|listed| listed.id == *machine);
            found.is_some_and(|found| found.state == state)
        })
    }

    fn members(&self) -> Vec<String> {
        let answer = request(self.gateway.addr, "GET", "/v1/cluster", &[], b"").json();
        let members = answer["members"].as_array().expect("members");
        members.iter().filter(|member| member["connected"] == true).filter_map(name).collect()
    }

    /// Until the gateway answers by a machine, which is its own only way to.
    #[track_caller]
    fn until_answered(&self, by: &str) -> Duration {
        took("an answer", || self.members().iter().any(|member| member == by) && self.answers())
    }

    fn answers(&self) -> bool {
        let values = vec!["1.0"; WINDOW].join(",");
        let body = format!(r#"{{"model":"{MODEL}","series":[{{"id":"a","values":[{values}]}}]}}"#);
        request(self.gateway.addr, "POST", "/v1/forecast", &[], body.as_bytes()).status == 200
    }

    fn pid(&self, slot: &str) -> i32 {
        let line =
            std::fs::read_to_string(self.dir.path().join(format!("{slot}.process"))).expect("its process");
        line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Ok(machines) = self.pool.list(Timestamp::now()) else { return };
        for machine in machines
            .iter()
            .filter(|machine| matches!(machine.state, MachineState::Started | MachineState::Stopping))
        {
            // SAFETY: no memory is involved; the machine runs, and is this process's child.
            unsafe { libc::kill(self.pid(&machine.slot.to_string()), libc::SIGKILL) };
        }
    }
}

fn name(member: &Value) -> Option<String> {
    Some(member["node"].as_str()?.to_owned())
}

fn open(dir: &Path, seed: &str) -> LocalPool {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_peregrine"));
    let mut program =
        Program::node(program, &[], &[], &[seed.to_owned()], Some(SECRET), Duration::from_secs(20));
    for (key, value) in [
        ("PEREGRINE_LOG__FILTER", "error"),
        ("PEREGRINE_BACKEND__CHOICE", "cpu"),
        ("PEREGRINE_CLUSTER__ROLES", r#"["inference"]"#),
    ] {
        program.environment.push((key.to_owned(), Setting::Text(value.into())));
    }
    let programs = BTreeMap::from([("inference".to_owned(), program)]);
    let spec = LocalSpec { dir: dir.to_owned(), programs, running_max: 2 };
    LocalPool::open(spec, StdRng::seed_from_u64(1)).expect("a pool")
}

#[test]
fn machines_of_the_local_pool_join_take_traffic_and_leave_while_nobody_is_refused() {
    let mut cluster = Cluster::start();
    assert!(!cluster.answers(), "the gateway holds no model");
    let first = cluster.create(0);
    println!("cold: an answer after {:?}", cluster.until_answered("inference-0"));
    let load = Load::of(cluster.gateway.addr, MODEL, WINDOW, DEADLINE);
    load.during(2, |load| {
        load.next(20);
        cluster.create(1);
        cluster.until_answered("inference-1");
        // The first one goes, and what it had is finished.
        cluster.change(&first, Change::Stop).expect("it is asked to end");
        println!("drained and stopped after {:?}", cluster.until(&first, MachineState::Stopped));
        let seen = load.next(50);
        assert_eq!(seen.count("remote:iad"), seen.by_label.values().sum::<usize>(), "{:?}", seen.by_label);
    });
    assert_eq!(load.seen().refusals(), BTreeMap::new());
    took("it has left", || !cluster.members().iter().any(|member| member == "inference-0"));
    // From the warm pool it comes back under its name.
    cluster.change(&first, Change::Start).expect("it starts again");
    println!("warm: an answer after {:?}", cluster.until_answered("inference-0"));
}

#[test]
fn a_machine_that_is_killed_has_failed_and_the_cluster_goes_on() {
    let mut cluster = Cluster::start();
    let ids = [cluster.create(0), cluster.create(1)];
    for name in ["inference-0", "inference-1"] {
        cluster.until_answered(name);
    }
    // SAFETY: no memory is involved; the machine runs, and is this process's child.
    assert_eq!(unsafe { libc::kill(cluster.pid("inference-0"), libc::SIGKILL) }, 0);
    cluster.until(&ids[0], MachineState::Failed);
    took("the other answers", || cluster.answers());
    cluster.change(&ids[0], Change::Destroy).expect("what has failed can be taken away");
    let left: Vec<MachineId> = cluster.listed().into_iter().map(|machine| machine.id).collect();
    assert_eq!(left, ids[1..]);
}

/// A pool whose program fails until there is a file that says which machines there are.
#[test]
fn a_pool_that_falls_silent_is_a_reason_and_an_alert_until_it_lists_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, machines) = (dir.path().join("node.toml"), dir.path().join("machines.json"));
    let config = format!(
        r#"
        [alerts]
        evaluate_every = "100ms"
        [alerts.rules.scaler_pool_silent]
        for = "0s"
        [scaler]
        enabled = true
        evaluate_every = "100ms"
        dir = "{dir}"
        [scaler.groups.inference]
        enabled = false
        [scaler.groups.own]
        pool = "own"
        provider = "own"
        kind = "any"
        machines_min = 0
        machines_max = 1
        capacity = 1.0
        [scaler.groups.own.regions.eu]
        [scaler.pools.own]
        kind = "command"
        list = ["cat", "{machines}"]
        create = ["false"]
        start = ["false"]
        stop = ["false"]
        destroy = ["false"]
        [scaler.prices.own.eu.any]
        running_per_hour = 1.0
        stopped_per_hour = 0.1
        read_on = "2026-11-01"
        "#,
        dir = dir.path().join("kept").display(),
        machines = machines.display(),
    );
    std::fs::write(&file, config).expect("it is written");
    let node = NodeProcess::start(&["--config", file.to_str().expect("text")]);
    let get = |path: &str| request(node.addr, "GET", path, &[], b"").json();
    let silent = || {
        let health = get("/health");
        let reasons = health["reasons"].as_array().expect("reasons").iter().filter_map(Value::as_str);
        reasons.filter(|reason| reason.starts_with("pool `own` does not list its machines: ")).count() == 1
    };
    let alerts = |list: &str| {
        let alerts = get("/v1/alerts");
        let of_rule = |alert: &&Value| alert["rule"] == "scaler_pool_silent";
        let alerts: Vec<Value> =
            alerts[list].as_array().expect("a list").iter().filter(of_rule).cloned().collect();
        alerts
    };
    took("it is a reason", silent);
    took("it is an alert", || alerts("alerts").iter().any(|alert| alert["state"] == "firing"));
    assert_eq!(alerts("alerts")[0]["labels"]["pool"], "own");
    assert_eq!(get("/health/ready")["ready"], true, "it answers all the same");
    std::fs::write(&machines, r#"{"machines":[]}"#).expect("it is written");
    took("it is none any more", || !silent() && alerts("alerts").is_empty());
    assert_eq!(alerts("resolved").len(), 1);
}
