//! The time of day is set forward and back by hours while a node serves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use peregrine_runtime::Clock;
use serde_json::{Value, json};

use crate::harness::{TestNode, eventually};

const HOUR: i64 = 3600;

/// The machine's clock, with another time of day.
#[derive(Default)]
struct Set {
    ahead_seconds: AtomicI64,
}

impl Clock for Set {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        let ahead = self.ahead_seconds.load(Ordering::SeqCst);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }
}

/// Asks a node for everything that might go by the time of day, again and again.
struct Asker {
    ids: BTreeSet<String>,
    ticks: u64,
}

impl Asker {
    /// A forecast in time, a tick that advances its series by one, and nothing that calls itself ill.
    #[track_caller]
    fn asks(&mut self, node: &TestNode) {
        for _ in 0..5 {
            let forecast = r#"{"model":"tcn-vol-point","series":[{"symbol":"USD"}],"deadline_ms":20000}"#;
            let answer = node.post("/v1/forecast", forecast).json();
            let id = answer["forecasts"][0]["prediction_id"].as_str().map(str::to_owned);
            let id = id.unwrap_or_else(|| panic!("{answer}"));
            assert!(self.ids.insert(id.clone()), "{id} was given before");
            assert_eq!(answer["forecasts"][0]["degraded"], json!(false));
            self.ticks += 1;
            let tick = json!({ "series": "a", "ts": self.ticks, "value": 1.0 }).to_string();
            let taken = node.post("/v1/ticks?results=true", &tick).json();
            assert_eq!(taken["results"][0], json!({ "effect": "advanced", "seq": self.ticks }), "{taken}");
        }
        assert_eq!(node.get("/health/ready").status, 200);
        let breakers = node.get("/v1/breakers").json();
        let breakers = breakers["breakers"].as_array().expect("a list");
        assert!(!breakers.is_empty() && breakers.iter().all(|one| one["state"] == "closed"), "{breakers:?}");
        // Rules are looked at with the new time before it is said that none fires.
        let evaluations = || node.get("/v1/alerts").json()["evaluations"].as_u64().expect("a count");
        let before = evaluations();
        eventually("rules are looked at", || evaluations() > before + 1);
        let alerts = node.get("/v1/alerts").json();
        let firing =
            alerts["alerts"].as_array().expect("a list").iter().filter(|one| one["state"] == "firing");
        // What the machine is short of, whatever its clock says.
        let of_the_machine = ["memory", "response_p95", "event_loop_lag"];
        let rules: Vec<&Value> = firing.map(|one| &one["rule"]).collect();
        let known = |rule: &&&Value| rule.as_str().is_some_and(|rule| of_the_machine.contains(&rule));
        assert!(rules.iter().all(|rule| known(&rule)), "{rules:?}");
        let uptime = node.get("/health").json()["uptime_seconds"].as_f64().expect("seconds");
        assert!((0.0..1800.0).contains(&uptime), "{uptime} s");
    }
}

fn node(clock: &Arc<Set>, dir: &Path) -> TestNode {
    let folder = |name: &str| dir.join(name).display().to_string();
    let keys = [
        ("AUDIT__DIR", folder("audit")),
        ("JOURNAL__DIR", folder("journal")),
        ("ALERTS__EVALUATE_EVERY", "100ms".to_owned()),
    ];
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    TestNode::clocked(clock, &keys).unwrap_or_else(|err| panic!("{err}"))
}

#[test]
fn a_clock_that_is_set_by_hours_costs_no_answer_and_no_tick() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::<Set>::default();
    let mut asker = Asker { ids: BTreeSet::new(), ticks: 0 };
    let node = node(&clock, dir.path());
    for hours in [0, 5, -5] {
        clock.ahead_seconds.store(hours * HOUR, Ordering::SeqCst);
        asker.asks(&node);
    }
    let seq = node.get("/v1/series/a").json()["seq"].as_u64();
    assert_eq!(seq, Some(asker.ticks), "every tick is there");
}

#[test]
fn a_clock_that_is_set_between_two_lives_costs_no_answer_and_no_tick() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Arc::<Set>::default();
    let mut asker = Asker { ids: BTreeSet::new(), ticks: 0 };
    for hours in [0, -5, 5, 0] {
        clock.ahead_seconds.store(hours * HOUR, Ordering::SeqCst);
        // What the last life had open is closed once it has stopped.
        let node = node(&clock, dir.path());
        asker.asks(&node);
        let seq = node.get("/v1/series/a").json()["seq"].as_u64();
        assert_eq!(seq, Some(asker.ticks), "every tick is there");
        node.node.stop();
    }
}

/// Two machines whatever the market does, at 0.05 an hour each.
const FLEET: &str = r#"
evaluate_every = "100ms"
[scaler.groups.inference]
pool = "trial"
machines_min = 2
machines_max = 2
warm = 0
[scaler.groups.inference.regions.local]
machines_max = 2
[scaler.pools.trial]
kind = "simulated"
"#;

#[test]
fn a_scaler_whose_clock_is_set_goes_on_in_the_new_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("scaler.toml");
    let folder = dir.path().join("scaler");
    std::fs::write(&file, format!("[scaler]\nenabled = true\ndir = {folder:?}\n{FLEET}")).expect("a file");
    let clock = Arc::<Set>::default();
    let node = TestNode::clocked_with(Arc::clone(&clock) as Arc<dyn Clock>, vec![file], &[])
        .unwrap_or_else(|err| panic!("{err}"));
    for hours in [0, 5, -5] {
        clock.ahead_seconds.store(hours * HOUR, Ordering::SeqCst);
        let mut report = Value::Null;
        // A simulated fleet ends with the life of its scaler, and is made again by the next.
        eventually("both machines are there, at the new time", || {
            report = node.get("/v1/scaler/report").json();
            let at: Option<jiff::Timestamp> = report["at"].as_str().and_then(|at| at.parse().ok());
            let now = jiff::Timestamp::try_from(clock.wall()).expect("a time of day");
            let is_now =
                at.is_some_and(|at| at.duration_since(now).abs() < jiff::SignedDuration::from_secs(60));
            let pools = report["pools"].as_array().into_iter().flatten();
            is_now && pools.filter_map(|pool| pool["machines"].as_array()).flatten().count() == 2
        });
        assert_eq!((&report["state"], &report["groups"][0]["wanted"]), (&json!("acting"), &json!(2)));
        // Hours that were not are paid for at most once each way.
        let spent = report["spent_this_month"].as_f64().expect("money");
        assert!((0.0..2.0 * 0.05 * 16.0).contains(&spent), "{spent} after {hours} h");
    }
    assert_eq!(node.get("/health/ready").status, 200);
}
