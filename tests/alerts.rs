//! Alerts of running nodes: what is really wrong fires and ends, people are told once of each, and what Prometheus is
//! given to watch is there.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peregrine_actors::{DeviceMeter, Meters};
use serde_json::Value;

use crate::harness::{Answer, Fleet, Post, PowerSwitch, Receiver, TestNode, WebSocket, eventually, took};
use crate::tls::{Authority, get};

/// A rule that fires at once on any machine; a higher threshold ends it.
const OWN: [(&str, &str); 6] = [
    ("ALERTS__RULES__OWN__SIGNAL", "memory_share"),
    ("ALERTS__RULES__OWN__THRESHOLD", "-1.0"),
    ("ALERTS__EVALUATE_EVERY", "100ms"),
    ("ALERTS__WEBHOOK_TIMEOUT", "300ms"),
    // What a busy machine may bring about is not what is looked at here.
    ("ALERTS__RULES__EVENT_LOOP_LAG__ENABLED", "false"),
    ("ALERTS__RULES__MEMORY__ENABLED", "false"),
];
const ENDED: &str = "alerts.rules.own.threshold = 2.0\n";

fn with(own: &[(&'static str, &str)], url: &str) -> TestNode {
    TestNode::on_cpu(&[own, &[("ALERTS__WEBHOOK", url)]].concat())
}

/// Alerts of a rule that are pending or firing, or ended.
fn listed(alerts: &Value, list: &str, rule: &str) -> Vec<Value> {
    let all = alerts[list].as_array().unwrap_or_else(|| panic!("no {list} in {alerts}"));
    all.iter().filter(|alert| alert["rule"] == rule).cloned().collect()
}

fn firing(node: &TestNode, rule: &str) -> Vec<Value> {
    let mut alerts = listed(&node.get("/v1/alerts").json(), "alerts", rule);
    alerts.retain(|alert| alert["state"] == "firing");
    alerts
}

fn delivery(node: &TestNode, key: &str) -> u64 {
    node.get("/v1/alerts").json()["delivery"][key].as_u64().expect("a count")
}

#[test]
fn a_receiver_that_fails_hangs_and_hangs_up_is_told_once_of_each_event_within_bounded_time() {
    let script = [Answer::Status(503), Answer::Hang, Answer::HangUp];
    let receiver = Receiver::start(&script);
    let node = with(&OWN, &receiver.url());
    let start = Instant::now();
    eventually("it is taken", || delivery(&node, "delivered") == 1);
    // Delays of at most 1, 2 and 4 s, and an attempt that ends after 0.3 s.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(node.post("/v1/config", ENDED).status, 200);
    eventually("its end is taken", || delivery(&node, "delivered") == 2);
    let posted = receiver.about("own");
    let answers: Vec<Answer> = posted.iter().map(|one| one.answer).collect();
    assert_eq!(answers, [&script[..], &[Answer::Status(200); 2]].concat());
    let ids: BTreeSet<&String> = posted[..4].iter().map(|one| &one.id).collect();
    assert_eq!(ids.len(), 1, "each try at one event has the same id: {ids:?}");
    assert!(posted[..4].iter().all(|one| one.body["status"] == "firing" && one.body["eventId"] == *one.id));
    assert_eq!(posted[4].body["status"], "resolved");
    assert_ne!(posted[4].id, posted[0].id);
    let alerts = node.get("/v1/alerts").json();
    assert_eq!((listed(&alerts, "alerts", "own").len(), listed(&alerts, "resolved", "own").len()), (0, 1));
    assert_eq!(alerts["delivery"]["failed"], 3);
    let shown = String::from_utf8_lossy(&node.get("/v1/config").body).into_owned();
    assert!(!shown.contains("s3cret"), "a URL may hold a secret");
}

#[test]
fn an_event_that_is_redirected_or_refused_is_told_under_one_id_once_it_is_taken() {
    let receiver = Receiver::start(&[307, 401, 404].map(Answer::Status));
    let node = with(&OWN, &receiver.url());
    eventually("it is taken", || delivery(&node, "delivered") == 1);
    assert_eq!(
        (delivery(&node, "failed"), delivery(&node, "refused"), delivery(&node, "waiting")),
        (3, 0, 0)
    );
    let posted = receiver.about("own");
    assert_eq!(posted.len(), 4);
    assert!(posted.iter().all(|one| one.id == posted[0].id && one.body["status"] == "firing"));
}

#[test]
fn a_webhook_that_takes_nothing_is_a_reason_to_be_degraded() {
    let receiver = Receiver::start(&[Answer::Status(403); 64]);
    let node = with(&OWN, &receiver.url());
    let is_said = || node.get("/health").json()["reasons"].to_string().contains("the webhook has taken none");
    eventually("it is said", is_said);
    assert_eq!(node.get("/health").json()["status"], "degraded");
    assert!(delivery(&node, "waiting") >= 1);
    assert_eq!(node.post("/v1/config", "alerts.webhook = \"\"\n").status, 200);
    assert!(!is_said(), "nobody is to be told any more");
}

#[test]
fn another_receiver_is_told_what_the_first_one_did_not_take() {
    // Nobody listens at a port that was free a moment ago.
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let node = with(&OWN, &format!("http://{nobody}/"));
    eventually("nobody takes it", || delivery(&node, "failed") >= 1);
    let receiver = Receiver::start(&[]);
    let text = format!("alerts.webhook = \"{}\"\n", receiver.url());
    assert_eq!(node.post("/v1/config", &text).status, 200);
    eventually("it is taken", || receiver.about("own").len() == 1);
    assert_eq!(node.post("/v1/config", "alerts.webhook = \"\"\n").status, 200);
    assert_eq!(node.post("/v1/config", ENDED).status, 200);
    eventually("it has ended", || listed(&node.get("/v1/alerts").json(), "resolved", "own").len() == 1);
    assert_eq!(receiver.about("own").len(), 1, "nobody is to be told any more");
}

#[test]
fn a_device_that_fails_is_an_alert_until_it_is_back() {
    const MODEL: &str = "nbeats-vol-quantile";
    let receiver = Receiver::start(&[]);
    let switch = PowerSwitch::default();
    let url = receiver.url();
    let keys = [
        ("BREAKER__OPEN_FOR", "200ms"),
        ("ALERTS__EVALUATE_EVERY", "100ms"),
        ("ALERTS__RULES__BREAKER_OPEN__CLEAR_FOR", "0s"),
        ("ALERTS__WEBHOOK", url.as_str()),
    ];
    let node = TestNode::on_gpu(&switch, &keys);
    let values = vec!["1.5"; 64].join(",");
    let body = format!(r#"{{"model":"{MODEL}","series":[{{"id":"a","values":[{values}]}}]}}"#);
    let ask = || assert_eq!(node.post("/v1/forecast", &body).status, 200);
    let of_model = |alerts: Vec<Value>| alerts.into_iter().any(|one| one["labels"]["model"] == MODEL);
    ask();
    assert!(firing(&node, "breaker_open").is_empty());
    switch.off();
    eventually("it fires", || {
        ask();
        of_model(firing(&node, "breaker_open"))
    });
    let metrics = String::from_utf8(node.get("/metrics").body).expect("text");
    let line = metrics.lines().find(|line| {
        line.starts_with("peregrine_alerts{rule=\"breaker_open\"") && line.contains("state=\"firing\"")
    });
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{line:?}");
    switch.on();
    eventually("it ends", || {
        ask();
        firing(&node, "breaker_open").is_empty()
    });
    assert!(of_model(listed(&node.get("/v1/alerts").json(), "resolved", "breaker_open")));
    let told = |status: &str| {
        let posted = receiver.about("breaker_open");
        let of_status = posted.iter().filter(|one| one.body["status"] == status);
        of_status.filter(|one| one.body["commonLabels"]["model"] == MODEL).count()
    };
    eventually("both are told", || told("firing") >= 1 && told("resolved") >= 1);
    let ids: Vec<String> = receiver.about("breaker_open").into_iter().map(|one| one.id).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "each once: {ids:?}");
}

/// A driver that says what it is told to.
#[derive(Default)]
struct Driver(Mutex<Vec<DeviceMeter>>);

impl Driver {
    fn say(&self, temperature_celsius: Option<f64>) {
        let device = DeviceMeter {
            index: 0,
            gpu: None,
            name: "a device".to_owned(),
            utilisation: Some(0.25),
            memory_used_bytes: Some(1 << 30),
            memory_total_bytes: Some(4 << 30),
            temperature_celsius,
            power_watts: Some(70.5),
        };
        *self.0.lock().expect("no holder panics") = vec![device];
    }

    fn fall_silent(&self) {
        self.0.lock().expect("no holder panics").clear();
    }
}

impl Meters for Driver {
    fn read(&self) -> Vec<DeviceMeter> {
        self.0.lock().expect("no holder panics").clone()
    }
}

#[test]
fn a_hot_device_is_an_alert_and_one_that_falls_silent_is_not_cool() {
    let driver = Arc::new(Driver::default());
    driver.say(Some(91.0));
    let keys = [("ALERTS__RULES__DEVICE_TEMPERATURE__FOR", "0s"), ("ALERTS__EVALUATE_EVERY", "100ms")];
    let node = TestNode::metered(Arc::clone(&driver) as Arc<dyn Meters>, &keys);
    eventually("it fires", || !firing(&node, "device_temperature").is_empty());
    let said = &node.get("/metrics/gpu").json()["meters"][0];
    assert_eq!((&said["temperature_celsius"], &said["power_watts"]), (&91.0.into(), &70.5.into()));
    assert_eq!(node.get("/health/gpu").json()["meters"][0]["utilisation_share"], 0.25);
    assert_eq!(node.get("/status").json()["meters"][0]["memory_used_bytes"], 1 << 30);
    let heat = || {
        let metrics = String::from_utf8(node.get("/metrics").body).expect("text");
        metrics.lines().any(|line| line.starts_with("peregrine_device_temperature_celsius"))
    };
    assert!(heat());
    driver.fall_silent();
    eventually("nothing is said of it", || !heat());
    assert!(node.get("/health/gpu").json().get("meters").is_none(), "left out, not zero");
    eventually("its alert knows nothing new", || {
        firing(&node, "device_temperature").first().is_some_and(|alert| alert["value"].is_null())
    });
    driver.say(Some(70.0));
    eventually("it is cool", || firing(&node, "device_temperature").is_empty());
}

const BOTH: &[&str] = &["gateway", "inference"];

#[test]
fn a_node_that_dies_is_lost_and_one_that_leaves_is_not() {
    let posts = ["a", "b", "c"].map(|name| Post { name, region: "fra", roles: BOTH });
    let keys = [("ALERTS__EVALUATE_EVERY", "200ms"), ("ALERTS__RULES__REPLICA_LOST__FOR", "0s")];
    let mut fleet = Fleet::start(None, &posts, &keys);
    let lost = |fleet: &Fleet<'_>| -> Vec<String> {
        let alerts = listed(&fleet.get("a", "/v1/alerts").json(), "alerts", "replica_lost");
        alerts.iter().map(|alert| alert["labels"]["member"].as_str().expect("a name").to_owned()).collect()
    };
    assert!(lost(&fleet).is_empty());
    fleet.signal("c", 15);
    fleet.ended("c");
    took("c has left", || fleet.members("a").get("c").is_none_or(|one| one["here"] != true));
    fleet.signal("b", 9);
    fleet.ended("b");
    took("b is lost", || lost(&fleet) == ["b"]);
    for path in ["/v1/cluster", "/health", "/health/cluster"] {
        let shown = fleet.get("a", path).json();
        let [gone] = &shown["lost"].as_array().expect("a list")[..] else { panic!("{path}: {shown}") };
        assert_eq!((&gone["node"], &gone["region"]), (&"b".into(), &"fra".into()), "{path}: c said goodbye");
        let since = gone["since"].as_str().expect("a time");
        if path != "/v1/cluster" {
            let reasons = shown["reasons"].as_array().expect("reasons");
            let said = serde_json::json!(format!("node `b` in fra is gone without a word since {since}"));
            assert!(reasons.contains(&said), "{path}: {shown}");
        }
    }
    took("the overview has it", || {
        fleet.get("a", "/v1/overview").json()["cluster"]["lost"]
            == fleet.get("a", "/v1/cluster").json()["lost"]
    });
    assert!(fleet.metric("a", "peregrine_cluster_member_lost") == 1.0);
    fleet.launch("b");
    took("b is back", || lost(&fleet).is_empty());
    assert_eq!(fleet.get("a", "/v1/cluster").json()["lost"], serde_json::json!([]));
}

#[test]
fn what_prometheus_is_to_watch_is_exported_by_running_nodes() {
    let journal = tempfile::tempdir().expect("a folder");
    let folder = journal.path().display().to_string();
    let driver = Arc::new(Driver::default());
    driver.say(Some(40.0));
    let keys = [("JOURNAL__DIR", folder.as_str()), ("BREAKER__COVERAGE_VALUES_MIN", "20")];
    let metered = TestNode::metered(driver, &keys);
    surprise(&metered);
    eventually("the driver is asked", || {
        String::from_utf8_lossy(&metered.get("/metrics").body)
            .contains("peregrine_device_temperature_celsius{")
    });
    eventually("intervals are judged", || {
        String::from_utf8_lossy(&metered.get("/metrics").body).contains("peregrine_score_coverage_shortfall{")
    });
    let authority = Authority::new();
    let secure = authority.node(&[]);
    let posts = ["a", "b"].map(|name| Post { name, region: "fra", roles: BOTH });
    let fleet = Fleet::start(None, &posts, &[("ALERTS__EVALUATE_EVERY", "100ms")]);
    took("the other is known", || {
        String::from_utf8_lossy(&fleet.get("a", "/metrics").body).contains("peregrine_cluster_member_lost{")
    });
    let (kept, every) = (folder.clone() + "/scaler", "100ms");
    let scaler =
        [("SCALER__ENABLED", "true"), ("SCALER__DRY_RUN", "true"), ("SCALER__EVALUATE_EVERY", every)];
    let scaling = TestNode::on_cpu(&[&scaler[..], &[("SCALER__DIR", kept.as_str())]].concat());
    eventually("its pool is asked", || {
        String::from_utf8_lossy(&scaling.get("/metrics").body).contains("peregrine_scaler_pool_silent{")
    });
    let mut exported = String::from_utf8(metered.get("/metrics").body).expect("text");
    exported.push_str(&String::from_utf8_lossy(&scaling.get("/metrics").body));
    exported.push_str(&get(&mut authority.connect(secure.node.addr), "/metrics"));
    exported.push_str(&String::from_utf8_lossy(&fleet.get("a", "/metrics").body));
    let names: BTreeSet<&str> =
        exported.lines().filter_map(|line| line.split_once('{')).map(|(name, _)| name).collect();
    let printed = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["alerts", "rules"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the binary starts");
    assert!(printed.status.success());
    let rules = String::from_utf8(printed.stdout).expect("text");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let watched: BTreeSet<&str> = rules
        .lines()
        .filter(|line| line.trim_start().starts_with("expr:"))
        .flat_map(|line| line.split(|c| !is_name(c)))
        .filter(|word| word.starts_with("peregrine_"))
        .collect();
    assert!(watched.len() >= 14, "{watched:?}");
    let missing: Vec<&&str> = watched.iter().filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "no node exports {missing:?}");
    for name in ["gateway-0", "node-0", "actors"] {
        let is_lag =
            |line: &&str| line.starts_with("peregrine_event_loop_lag_seconds") && line.contains(name);
        assert!(exported.lines().any(|line| is_lag(&line)), "the lag of {name}");
    }
}

#[test]
fn a_node_says_that_it_has_started_and_goes_on_to_say_so() {
    let node = TestNode::on_cpu(&[]);
    eventually("it has started", || node.get("/health/startup").status == 200);
    for model in node.get("/v1/models").json()["models"].as_array().expect("models") {
        let name = model["name"].as_str().expect("a name");
        node.post(&format!("/v1/models/{name}/unload"), "");
    }
    let ready = node.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["reasons"][0]), (503, &"no model is ready".into()), "at once");
    let startup = node.get("/health/startup");
    assert_eq!((startup.status, startup.json()["started"] == true), (200, true));
}

const SURPRISED: &str = "mlp-vol-quantile";

/// A market that is calm for as long as a model looks back, and then jumps again and again: no interval that was learned
/// holds that.
fn surprise(node: &TestNode) {
    let mut reader = WebSocket::open(node.node.addr, "/v1/stream", None);
    reader.text(&format!(r#"{{"op":"subscribe","id":1,"series":["a"],"model":"{SURPRISED}"}}"#));
    reader.op("subscribed");
    let calm = (1..=300).map(|at: i32| (at, f64::from(at % 2) * 1e-3));
    let jumps = (301..=500).map(|at: i32| (at, f64::from(at) * if at % 2 == 0 { 1e3 } else { -1e3 }));
    let lines = calm.chain(jumps).map(|(at, value)| format!(r#"{{"series":"a","ts":{at},"value":{value}}}"#));
    let lines: Vec<String> = lines.collect();
    // In turns: of what comes at once the newest window alone is forecast.
    for few in lines.chunks(4) {
        assert_eq!(node.post("/v1/ticks", &few.join("\n")).status, 200);
    }
}

#[test]
fn a_model_whose_intervals_hold_nothing_is_an_alert() {
    let node = TestNode::on_cpu(&[
        ("BREAKER__COVERAGE_VALUES_MIN", "20"),
        ("ALERTS__RULES__COVERAGE_COLLAPSE__FOR", "0s"),
        ("ALERTS__EVALUATE_EVERY", "100ms"),
    ]);
    surprise(&node);
    eventually("it fires", || !firing(&node, "coverage_collapse").is_empty());
    let alert = &firing(&node, "coverage_collapse")[0];
    assert_eq!((&alert["labels"]["model"], &alert["labels"]["version"]), (&SURPRISED.into(), &"1".into()));
    assert!(alert["value"].as_f64().is_some_and(|value| value > 0.2), "{alert}");
    let metrics = String::from_utf8_lossy(&node.get("/metrics").body).into_owned();
    let line = metrics.lines().find(|line| line.starts_with("peregrine_score_coverage_shortfall{"));
    assert!(line.is_some_and(|line| line.contains(&format!("model=\"{SURPRISED}\""))), "{line:?}");
}
