//! The scaler itself, in a real node, with the local pool: load rises and a second node comes, load falls and it goes,
//! a release takes over and is taken back, and nobody who asks meanwhile is refused.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{NodeProcess, WebSocket, request, took};

const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;

/// Short times, so that a day of a fleet fits into a test; one machine answers 60 requests a second.
fn configuration(seed: &SocketAddr, dir: &std::path::Path, roles: &str) -> String {
    format!(
        r#"
[node]
name = "gate"
region = "fra"
[cluster]
listen = "{seed}"
roles = ["gateway"]
secret = "of this test's own machines"
[routing]
prefer = "least_loaded"
[backend]
choice = "cpu"
threads = 1
[scaler]
enabled = true
evaluate_every = "250ms"
stale_after = "5s"
stabilisation = "3s"
dir = "{}"
demand_model = ""
[scaler.groups.inference]
machines_min = 1
machines_max = 6
warm = 0
capacity = 60.0
drain = "10s"
ready_after = "5s"
# No rule asks whether the markets are open, or the time of day would decide what happens.
[scaler.rules.trading_hours.up]
when = "request_rate > 30.0"
cooldown = "2s"
machines_max = 2
[scaler.rules.off_hours.down]
when = "false"
[scaler.pools.local]
machines_max = 6
[scaler.pools.local.environment]
PEREGRINE_CLUSTER__ROLES = '{roles}'
PEREGRINE_LOG__FILTER = "error"
"#,
        dir.display()
    )
}

/// A node with the scaler. What it has started is killed when it is dropped.
struct Scaled {
    /// There until it is dropped.
    gate: Option<NodeProcess>,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Scaled {
    fn start() -> Self {
        Self::with(r#"["inference"]"#)
    }

    /// With machines of these roles.
    fn with(roles: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let seed = socket.local_addr().expect("it is bound");
        drop(socket);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("scaled.toml");
        let mut written = std::fs::File::create(&file).expect("a file");
        written.write_all(configuration(&seed, dir.path(), roles).as_bytes()).expect("written");
        let gate = NodeProcess::start(&["--config", file.to_str().expect("text")]);
        Self { addr: gate.addr, gate: Some(gate), dir }
    }

    fn report(&self) -> Value {
        let answer = request(self.addr, "GET", "/v1/scaler/report", &[], b"");
        if answer.status == 200 { answer.json() } else { Value::Null }
    }

    /// Machines by slot: state and release, a `!` where one is cordoned.
    fn machines(&self) -> BTreeMap<String, String> {
        let report = self.report();
        let machines = report["pools"][0]["machines"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        machines
            .iter()
            .map(|machine| {
                let mark = if machine["cordoned"] == true { "!" } else { "" };
                let shown = format!("{} {}{mark}", text(&machine["state"]), text(&machine["release"]));
                (text(&machine["slot"]), shown)
            })
            .collect()
    }

    /// Machines that run what is wanted and are not on their way out, and whose nodes take requests.
    fn ready(&self, release: &str) -> usize {
        let machines = self.machines();
        let report = self.report();
        let nodes = report["nodes"].as_array().cloned().unwrap_or_default();
        let is_ready = |slot: &str| {
            nodes
                .iter()
                .any(|node| node["node"] == slot && node["ready"] == true && node["draining"] == false)
        };
        let wanted = format!("started {release}");
        machines.iter().filter(|(slot, shown)| **shown == wanted && is_ready(slot)).count()
    }

    /// Requests per second that a machine's node says it was asked.
    fn rate(&self, slot: &str) -> f64 {
        let report = self.report();
        let nodes = report["nodes"].as_array().cloned().unwrap_or_default();
        let node = nodes.iter().find(|node| node["node"] == slot);
        node.and_then(|node| node["measured"]["request_rate"].as_f64()).unwrap_or(0.0)
    }

    /// Where a machine's own gateway answers: it says so when it is ready.
    fn addr(&self, slot: &str) -> SocketAddr {
        let log = self.dir.path().join("pools").join("local").join(format!("{slot}.log"));
        let said = std::fs::read_to_string(log).expect("what it said");
        let ready = said.lines().rev().find_map(|line| line.strip_prefix("ready http://"));
        ready.and_then(|addr| addr.parse().ok()).expect("its address")
    }

    fn release(&self, release: &str) {
        let body = format!(r#"{{"group":"inference","release":"{release}"}}"#);
        let answer = request(self.addr, "POST", "/v1/scaler/release", &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
}

impl Drop for Scaled {
    fn drop(&mut self) {
        // The scaler first, or it would start others in their place.
        drop(self.gate.take());
        let pool = self.dir.path().join("pools").join("local");
        for entry in std::fs::read_dir(pool).into_iter().flatten().flatten() {
            if entry.path().extension().is_none_or(|extension| extension != "process") {
                continue;
            }
            let line = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if let Some(pid) = line.split(' ').next().and_then(|pid| pid.parse::<i32>().ok()) {
                // SAFETY: no memory is involved; the folder is this test's own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }
}

/// Asks at a rate that can be changed; every answer is counted by its status.
struct Paced {
    addr: SocketAddr,
    body: String,
    per_second: AtomicU64,
    ended: AtomicBool,
    seen: Mutex<BTreeMap<u16, usize>>,
}

impl Paced {
    fn of(addr: SocketAddr) -> Self {
        let values: Vec<String> = (0..WINDOW).map(|at| format!("{}", 1.0 + (at % 7) as f32 / 10.0)).collect();
        let values = values.join(",");
        let body = format!(
            r#"{{"model":"{MODEL}","deadline_ms":10000,"series":[{{"id":"a","values":[{values}]}}]}}"#
        );
        let per_second = AtomicU64::new(1);
        Self { addr, body, per_second, ended: AtomicBool::new(false), seen: Mutex::default() }
    }

    fn during<R>(&self, story: impl FnOnce() -> R) -> R {
        const CLIENTS: u64 = 8;
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut due = Instant::now();
                    while !self.ended.load(Ordering::Relaxed) {
                        let answer = request(self.addr, "POST", "/v1/forecast", &[], self.body.as_bytes());
                        *self.seen.lock().expect("no holder panics").entry(answer.status).or_default() += 1;
                        let every = 1_000 * CLIENTS / self.per_second.load(Ordering::Relaxed);
                        due = (due + Duration::from_millis(every)).max(Instant::now());
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                });
            }
            let _end = End(&self.ended);
            story()
        })
    }

    fn at(&self, per_second: u64) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }
}

/// Ends the load whatever happens in the story, or its scope would wait for ever.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn load_brings_a_second_node_and_its_end_takes_it_away() {
    let scaled = Scaled::start();
    println!("cold start: ready after {:?}", took("the least is there", || scaled.ready(VERSION) == 1));
    let load = Paced::of(scaled.addr);
    load.during(|| {
        took("the first machine is asked", || scaled.rate("inference-0") > 0.5);
        let began = Instant::now();
        load.at(90);
        took("a second node", || scaled.ready(VERSION) == 2);
        took("it takes traffic", || scaled.rate("inference-1") > 5.0);
        println!("from the rise of the load to traffic on the second node: {:?}", began.elapsed());
        load.at(5);
        took("it is gone", || scaled.machines().len() == 1);
        println!("gone {:?} after the rise began", began.elapsed());
        took("the first one goes on", || scaled.rate("inference-0") > 0.5);
    });
    let seen = load.seen.lock().expect("no holder panics").clone();
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [200], "{seen:?}");
    let report = scaled.report();
    let decisions = report["decisions"].to_string();
    assert!(decisions.contains("1 -> 2") && decisions.contains("2 -> 1"), "{decisions}");
    let metrics = request(scaled.addr, "GET", "/metrics", &[], b"");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let has = |name: &str| metrics.lines().any(|line| line.starts_with(name) && line.ends_with(" 2"));
    assert!(has("peregrine_scaler_decisions_total"), "up and down again");
    let spent = report["spent_this_month"].as_f64().expect("a number");
    assert!(spent > 0.0, "machines have run");
}

#[test]
fn a_release_takes_over_and_is_taken_back_while_nobody_is_refused() {
    let scaled = Scaled::start();
    took("the least is there", || scaled.ready(VERSION) == 1);
    let load = Paced::of(scaled.addr);
    load.at(20);
    load.during(|| {
        took("it is asked", || scaled.rate("inference-0") > 1.0);
        let began = Instant::now();
        scaled.release("next");
        took("the new one is ready", || scaled.ready("next") == 1);
        took("the old one is stopped", || {
            scaled.machines().get("inference-0").is_some_and(|shown| shown == &format!("stopped {VERSION}!"))
        });
        println!("a release took over in {:?}", began.elapsed());
        took("the new one is asked", || scaled.rate("inference-1") > 1.0);
        let began = Instant::now();
        scaled.release(VERSION);
        took("the old one is back", || scaled.ready(VERSION) == 1);
        println!("the former one was back in {:?}", began.elapsed());
        took("the newer one is stopped", || {
            scaled.machines().get("inference-1").is_some_and(|shown| shown == "stopped next!")
        });
    });
    let seen = load.seen.lock().expect("no holder panics").clone();
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [200], "{seen:?}");
    let unknown = request(scaled.addr, "POST", "/v1/scaler/release", &[], br#"{"group":"x","release":"y"}"#);
    assert_eq!(unknown.status, 400);
}

#[test]
fn a_machine_that_goes_takes_leave_of_its_streams() {
    let scaled = Scaled::with(r#"["gateway", "inference"]"#);
    took("the least is there", || scaled.ready(VERSION) == 1);
    let open = |slot: &str| WebSocket::open(scaled.addr(slot), "/v1/stream", Some("peregrine.v1.json"));
    let mut stream = open("inference-0");
    scaled.release("next");
    let goodbye = stream.op("goodbye");
    assert_eq!(goodbye["why"], "drain", "{goodbye}");
    took("the new one is ready", || scaled.ready("next") == 1);
    let mut next = open("inference-1");
    next.text(&format!(r#"{{"op":"subscribe","id":1,"model":"{MODEL}","series":["A"]}}"#));
    assert_eq!(next.op("subscribed")["id"], 1);
}

/// What machines run unless somebody says otherwise.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn without_a_scaler_there_is_no_report() {
    let node = NodeProcess::start(&["--backend", "cpu"]);
    assert_eq!(request(node.addr, "GET", "/v1/scaler/report", &[], b"").status, 503);
}
