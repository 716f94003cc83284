//! Model folders that are damaged: each is refused by name, and the rest is served.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Cases, Response, TestNode, WebSocket, eventually, request};

const BASE: &str = "mlp-vol-quantile";
const WINDOW: usize = 128;
const WEIGHTS: &str = "weights.safetensors";

/// A repository of its own.
struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    /// A whole model at `place`, which is `NAME` or `NAME/VERSION`.
    fn whole(self, place: &str) -> Self {
        let to = self.dir.path().join(place);
        fs::create_dir_all(&to).expect("a folder");
        for file in ["model.json", WEIGHTS] {
            fs::copy(Cases::folder(BASE).join(file), to.join(file)).expect("a copy");
        }
        self
    }

    /// One whose weights end too early.
    fn cut(self, place: &str) -> Self {
        let repository = self.whole(place);
        repository.cut_short(place);
        repository
    }

    fn cut_short(&self, place: &str) {
        let file = self.dir.path().join(place).join(WEIGHTS);
        let weights = fs::read(&file).expect("weights");
        fs::write(file, &weights[..weights.len() / 2]).expect("a file");
    }

    /// One without weights.
    fn bare(self, place: &str) -> Self {
        let repository = self.whole(place);
        fs::remove_file(repository.dir.path().join(place).join(WEIGHTS)).expect("weights");
        repository
    }

    /// An ensemble of a model that is not there.
    fn lonely(self, place: &str) -> Self {
        self.ensemble(place, &json!([{ "model": "absent" }]))
    }

    /// The mean of `members`.
    fn ensemble(self, place: &str, members: &Value) -> Self {
        let to = self.dir.path().join(place);
        fs::create_dir_all(&to).expect("a folder");
        let text = json!({ "format": 1, "name": place, "combine": "mean", "members": members });
        fs::write(to.join("ensemble.json"), text.to_string()).expect("a file");
        self
    }

    /// Other weights of the same shape: those of the last layer, which end the file, are so much larger.
    fn retrain(&self, place: &str, factor: f32) {
        let file = self.dir.path().join(place).join(WEIGHTS);
        let mut weights = fs::read(&file).expect("weights");
        let values = weights.len() / 8 / size_of::<f32>();
        for value in weights.rchunks_exact_mut(4).take(values) {
            let old = f32::from_le_bytes(value.try_into().expect("four bytes"));
            value.copy_from_slice(&(factor * old).to_le_bytes());
        }
        fs::write(file, weights).expect("a file");
    }

    /// Another model at `place`.
    fn put(&self, model: &str, place: &str) {
        for file in ["model.json", WEIGHTS] {
            fs::copy(Cases::folder(model).join(file), self.dir.path().join(place).join(file))
                .expect("a copy");
        }
    }

    fn listed(&self) -> String {
        json!([self.dir.path()]).to_string()
    }

    /// With this repository beside the one that ships.
    fn node(&self) -> TestNode {
        TestNode::on_cpu(&[("MODELS__REPOSITORIES", &self.listed())])
    }

    /// The binary, with this repository alone; it must not start, and ends by itself.
    fn refused(&self, variables: &[(&str, &str)]) -> String {
        let Output { status, stderr, .. } = Command::new("timeout")
            .args(["60", env!("CARGO_BIN_EXE_peregrine")])
            .args(["serve", "--listen", "127.0.0.1:0", "--backend", "cpu"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PEREGRINE_LOG__FILTER", "off")
            .env("PEREGRINE_DEMO__RATE", "0")
            .env("PEREGRINE_MODELS__REPOSITORIES", self.listed())
            .envs(variables.iter().copied())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(1), "124: it serves: {said}");
        said
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn body(model: &str) -> String {
    let values: Vec<f32> = (0..WINDOW).map(|at| (at * 17 % 97) as f32 / 10.0).collect();
    json!({ "model": model, "series": [{ "values": values }] }).to_string()
}

/// State and reason of one version in the index.
#[track_caller]
fn indexed(node: &TestNode, model: &str, version: &str) -> (String, String) {
    let index = node.post("/v2/repository/index", "").json();
    let rows = index.as_array().expect("a list");
    let row = rows.iter().find(|row| row["name"] == model && row["version"] == version);
    let row = row.unwrap_or_else(|| panic!("no {model} {version} in {index}"));
    let text = |key: &str| row[key].as_str().expect("text").to_owned();
    (text("state"), text("reason"))
}

/// What `/health` finds wrong, as one text; the node is ready all the same.
#[track_caller]
fn complaints(node: &TestNode) -> String {
    let ready = node.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &Value::from(true)));
    let health = node.get("/health");
    assert_eq!(health.status, 200);
    health.json()["reasons"].to_string()
}

/// The version that answers for a model.
#[track_caller]
fn answers(node: &TestNode, model: &str) -> String {
    let answer = node.post("/v1/forecast", &body(model));
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["model_version"].as_str().expect("a version").to_owned()
}

/// What it prints and what `/health/ready` says are the same.
#[test]
fn a_node_without_models_listens_and_is_ready_when_it_has_one() {
    let repository = Repository::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["serve", "--listen", "127.0.0.1:0", "--backend", "cpu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PEREGRINE_LOG__FILTER", "off")
        .env("PEREGRINE_DEMO__RATE", "0")
        .env("PEREGRINE_MODELS__REPOSITORIES", repository.listed())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let _killed = Killed(child);
    let mut line = || lines.next().expect("a line").expect("text");
    let first = line();
    let said = first.strip_prefix("listening http://").and_then(|rest| rest.split_once(", not ready: "));
    let (addr, reason) = said.unwrap_or_else(|| panic!("{first}"));
    let addr: SocketAddr = addr.parse().expect("an address");
    let ask = |method, path| request(addr, method, path, &[], b"");
    let health = ask("GET", "/health/ready");
    assert_eq!((health.status, &health.json()["reasons"][0]), (503, &json!(reason)));
    assert_eq!(reason, "no model is ready");
    let repository = repository.whole("first");
    assert_eq!(ask("POST", "/v1/models/first/load").status, 200);
    assert_eq!(line(), format!("ready http://{addr}"));
    assert_eq!(ask("GET", "/health/ready").status, 200);
    drop(repository);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn damaged_folders_are_refused_by_name_and_the_others_are_served() {
    let repository = Repository::new()
        .whole("good")
        .cut("cut")
        .bare("bare")
        .lonely("lonely")
        .whole("pair/1")
        .cut("pair/2")
        .cut("turned/1")
        .whole("turned/2");
    let node = repository.node();
    for (model, version) in [("good", "1"), (BASE, "1"), ("pair", "1"), ("turned", "2")] {
        assert_eq!(answers(&node, model), version, "{model}");
        assert_eq!(indexed(&node, model, version), ("READY".to_owned(), String::new()));
    }
    let said = complaints(&node);
    let listed = node.get("/v1/models").json();
    let place = |model: &str| repository.path().join(model).display().to_string();
    for (model, version, why) in [
        ("cut", "1", WEIGHTS),
        ("bare", "1", WEIGHTS),
        ("lonely", "1", "absent"),
        ("pair", "2", WEIGHTS),
        ("turned", "1", WEIGHTS),
    ] {
        let (state, reason) = indexed(&node, model, version);
        assert_eq!(state, "UNAVAILABLE", "{model}");
        assert!(reason.contains(&place(model)) && reason.contains(why), "{model}: {reason}");
        assert!(said.contains(&format!("version {version} of model `{model}`")), "{model}: {said}");
        let rows = listed["models"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["name"] == model && row["version"] == version);
        assert_eq!(row.map(|row| &row["reason"]), Some(&Value::from(reason)), "{model}");
    }
    assert!(!said.contains("`good`"), "{said}");
    for (model, why) in [("cut", WEIGHTS), ("bare", WEIGHTS), ("lonely", "absent")] {
        let reason = |answer: &Response, key: &str| {
            let said = answer.json()[key].as_str().map(str::to_owned);
            let said = said.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&answer.body)));
            assert!(said.contains(why), "{model}: {said}");
            said
        };
        let unserved = |answer: &Response, key: &str| {
            assert_eq!(answer.status, 503, "{model}");
            let said = reason(answer, key);
            // Whoever may forecast need not know where repositories lie.
            assert!(
                said.contains(model) && !said.contains(&repository.path().display().to_string()),
                "{model}: {said}"
            );
        };
        unserved(&node.post("/v1/forecast", &body(model)), "detail");
        for path in ["", "/ready", "/config", "/stats", "/versions/1/ready"] {
            unserved(&node.get(&format!("/v2/models/{model}{path}")), "error");
        }
        let one = node.get(&format!("/v1/models/{model}"));
        assert_eq!((one.status, &one.json()["state"]), (200, &json!("unavailable")), "{model}");
        assert!(reason(&one, "reason").contains(&place(model)), "as it is listed");
    }
    let one = |path: &str| node.get(&format!("/v1/models/{path}"));
    assert_eq!(one("pair").json()["version"], "1");
    assert_eq!(one("pair?version=2").json()["state"], "unavailable");
    for path in ["/v1/models/pair?version=3", "/v1/models/absent", "/v2/models/pair/versions/3/ready"] {
        assert_eq!(node.get(path).status, 404, "{path}");
    }
    assert_eq!(node.post("/v1/forecast", &body("absent")).status, 404);

    // An order about one that was refused is carried out, and nobody complains of it any more.
    for (order, model) in [("/v1/models/cut/unload", "cut"), ("/v2/repository/models/bare/unload", "bare")] {
        let answer = node.post(order, "");
        assert_eq!(answer.status, 200, "{order}: {}", String::from_utf8_lossy(&answer.body));
        assert!(!complaints(&node).contains(&format!("`{model}`")), "{order}");
        assert_eq!(indexed(&node, model, "1"), ("UNAVAILABLE".to_owned(), "not loaded".to_owned()));
        assert_eq!(node.post(order, "").status, 404, "it is not served, and was not refused since");
    }
    assert_eq!(node.post("/v1/models/turned/unload?version=1", "").status, 200);
    assert_eq!(answers(&node, "turned"), "2");

    let repository = repository.whole("pair/2");
    let loaded = node.post("/v1/models/pair/load", "");
    assert_eq!(loaded.status, 200, "{}", String::from_utf8_lossy(&loaded.body));
    assert_eq!(answers(&node, "pair"), "2");
    assert_eq!(indexed(&node, "pair", "2"), ("READY".to_owned(), String::new()));
    assert!(!complaints(&node).contains("`pair`"));
    drop(repository);
}

#[test]
fn a_load_that_fails_says_why_and_what_serves_goes_on() {
    let repository = Repository::new().whole("kept/1");
    let node = repository.node();
    assert!(!complaints(&node).contains("`kept`"));
    // What comes is damaged; what is there loads once more.
    let repository = repository.cut("kept/2").cut("new");
    for (model, version) in [("kept", "2"), ("new", "1")] {
        assert_eq!(indexed(&node, model, version), ("UNAVAILABLE".to_owned(), "not loaded".to_owned()));
        let refused = node.post(&format!("/v2/repository/models/{model}/load"), "");
        let said = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(refused.status == 409 && said.contains(WEIGHTS), "{}: {said}", refused.status);
        let (state, reason) = indexed(&node, model, version);
        assert!(state == "UNAVAILABLE" && reason.contains(WEIGHTS), "{model}: {state} {reason}");
        assert!(complaints(&node).contains(&format!("version {version} of model `{model}`")));
    }
    assert_eq!(answers(&node, "kept"), "1");
    // The file that serves is damaged where it lies.
    repository.cut_short("kept/1");
    assert_eq!(node.post("/v1/models/kept/load", "").status, 409);
    assert_eq!(answers(&node, "kept"), "1");
    let (state, reason) = indexed(&node, "kept", "1");
    assert!(state == "READY" && reason.contains(WEIGHTS), "{state} {reason}");
    // A folder that is gone is nothing to complain of once somebody has asked for it.
    fs::remove_dir_all(repository.path().join("new")).expect("a folder");
    assert_eq!(node.post("/v1/models/new/load", "").status, 404);
    assert!(!complaints(&node).contains("`new`"));
}

#[test]
fn a_version_whose_folder_is_gone_is_not_served_after_a_load() {
    let repository = Repository::new().whole("pair/1").whole("pair/2");
    let node = repository.node();
    assert_eq!(answers(&node, "pair"), "2");
    fs::remove_dir_all(repository.path().join("pair/2")).expect("a folder");
    let loaded = node.post("/v1/models/pair/load", "");
    assert_eq!((loaded.status, &loaded.json()["version"]), (200, &Value::from("1")));
    assert_eq!(answers(&node, "pair"), "1");
    // Nothing would be left: what serves goes on, and the order says what is so.
    fs::remove_dir_all(repository.path().join("pair")).expect("a folder");
    assert_eq!(node.post("/v1/models/pair/load", "").status, 404);
    assert_eq!(answers(&node, "pair"), "1");
}

#[test]
fn versions_that_are_loaded_together_serve_from_one_moment_on() {
    const NEWEST: u32 = 24;
    let repository = Repository::new().whole("many/1");
    let node = repository.node();
    let grow = |repository: Repository, version| repository.whole(&format!("many/{version}"));
    let repository = (2..=NEWEST).fold(repository, grow);
    let (addr, body, loaded) = (node.node.addr, body("many"), AtomicBool::new(false));
    let ask = || {
        let mut seen = BTreeSet::new();
        while !loaded.load(Ordering::Acquire) {
            let answer = request(addr, "POST", "/v1/forecast", &[], body.as_bytes());
            seen.insert(answer.json()["model_version"].to_string());
        }
        seen
    };
    let seen = std::thread::scope(|scope| {
        let asks = [scope.spawn(ask), scope.spawn(ask)];
        assert_eq!(node.post("/v1/models/many/load", "").status, 200);
        loaded.store(true, Ordering::Release);
        asks.map(|asks| asks.join().expect("answers")).into_iter().flatten().collect::<BTreeSet<_>>()
    });
    let ends = ["\"1\"".to_owned(), format!("\"{NEWEST}\"")];
    assert!(seen.iter().all(|version| ends.contains(version)), "{seen:?}");
    assert_eq!(answers(&node, "many"), NEWEST.to_string());
    drop(repository);
}

#[test]
fn a_subscriber_is_told_once_when_a_version_without_its_intervals_comes() {
    let repository = Repository::new().whole("pair/1");
    let keys = [("MODELS__REPOSITORIES", repository.listed()), ("STREAM__HEARTBEAT", "100ms".to_owned())];
    let node = TestNode::on_cpu(&keys.each_ref().map(|(key, value)| (*key, value.as_str())));
    let tick = |ts: usize| format!("{}\n", json!({ "series": "x", "ts": ts, "value": (ts % 7) as f64 }));
    let feed = |ticks: std::ops::Range<usize>| node.post("/v1/ticks", &ticks.map(tick).collect::<String>());
    assert_eq!(feed(0..WINDOW).json()["advanced"], WINDOW);
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
    for (id, levels) in [(1, "[80]"), (2, "[]")] {
        let wish = r#""model":"pair","series":["x"]"#;
        socket.text(&format!(r#"{{"op":"subscribe","id":{id},{wish},"levels":{levels}}}"#));
        socket.op("subscribed");
    }
    let heard = |socket: &mut WebSocket, version: &str, place: usize| -> Vec<(Value, Value)> {
        let mut errors = Vec::new();
        // Whatever is to be said is said before a node is quiet for as long as that.
        for _ in 0..4 {
            let message = socket.json();
            if message["op"] != "heartbeat" {
                assert!(message["detail"].to_string().contains("no 80 % interval"), "{message}");
                errors.push((message["id"].clone(), message["code"].clone()));
            }
        }
        assert_eq!(feed(place..place + 1).json()["advanced"], 1);
        for _ in 0..2 {
            assert_eq!(socket.op("prediction")["model_version"], version);
        }
        errors
    };
    assert_eq!(heard(&mut socket, "1", WINDOW), []);
    fs::create_dir_all(repository.path().join("pair/2")).expect("a folder");
    repository.put("patchtst-vol-point", "pair/2");
    assert_eq!(node.post("/v1/models/pair/load", "").status, 200);
    assert_eq!(heard(&mut socket, "2", WINDOW + 1), [(json!(1), json!("levels"))]);
    assert_eq!(heard(&mut socket, "2", WINDOW + 2), []);
    // What it lacked is there again, and then once more not.
    for (version, place, told) in
        [(1, WINDOW + 3, vec![]), (2, WINDOW + 4, vec![(json!(1), json!("levels"))])]
    {
        let order = json!({ "version": version }).to_string();
        assert_eq!(node.post("/v1/models/pair/promote", &order).status, 200);
        assert_eq!(heard(&mut socket, &version.to_string(), place), told, "version {version}");
    }
}

/// The median that a model answers.
#[track_caller]
fn median(node: &TestNode, model: &str) -> Vec<f64> {
    let answer = node.post("/v1/forecast", &body(model));
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let values = answer.json()["forecasts"][0]["median"].clone();
    serde_json::from_value(values).expect("numbers")
}

/// `e` answers the mean of `a` and `b`.
#[track_caller]
fn is_mean(node: &TestNode, when: &str) {
    let [e, a, b] = ["e", "a", "b"].map(|model| median(node, model));
    for ((e, a), b) in e.iter().zip(&a).zip(&b) {
        let mean = f64::midpoint(*a, *b);
        assert!((e - mean).abs() <= 1e-5 * mean.abs().max(1.0), "{when}: {e} where {mean} is the mean");
    }
}

#[test]
fn an_ensemble_changes_with_its_member_or_neither_does() {
    let members = json!([{ "model": "a" }, { "model": "b" }]);
    let repository = Repository::new().whole("a").whole("b/1").whole("b/2").ensemble("e", &members);
    let node = repository.node();
    let digest = |model: &str| node.get(&format!("/v1/models/{model}")).json()["sha256"].clone();
    is_mean(&node, "at the start");

    for (place, model, factor) in [("a", "a", 1.25), ("b/2", "b", 0.75)] {
        let (before, digests) = (median(&node, "e"), [digest("e"), digest(model)]);
        repository.retrain(place, factor);
        assert_eq!(node.post(&format!("/v1/models/{model}/load"), "").status, 200);
        assert_ne!(median(&node, "e"), before, "{model} has other weights");
        assert!(digests[0] != digest("e") && digests[1] != digest(model));
        is_mean(&node, model);
    }

    // Of another horizon the member can be no part of it.
    let (before, digests) = ([median(&node, "a"), median(&node, "e")], [digest("a"), digest("e")]);
    repository.put("nhits-168x24-quantile", "a");
    for path in ["/v1/models/a/load", "/v2/repository/models/a/load"] {
        let refused = node.post(path, "");
        let said = String::from_utf8_lossy(&refused.body).into_owned();
        assert_eq!(refused.status, 409, "{said}");
        assert!(said.contains("ensemble `e`") && said.contains("horizon"), "{said}");
    }
    assert_eq!([median(&node, "a"), median(&node, "e")], before);
    assert_eq!([digest("a"), digest("e")], digests);
    let (state, reason) = indexed(&node, "a", "1");
    assert!(state == "READY" && reason.contains("ensemble `e`"), "{state} {reason}");
    assert!(complaints(&node).contains("version 1 of model `a`"));

    // An ensemble that was taken out of service is in nobody's way, and stays out of it.
    assert_eq!(node.post("/v1/models/e/unload", "").status, 200);
    assert_eq!(node.post("/v1/models/a/load", "").status, 200);
    assert_eq!(node.post("/v1/forecast", &body("e")).status, 404);
}

#[test]
fn an_ensemble_follows_the_stable_version_of_a_member() {
    let members = json!([{ "model": "a" }, { "model": "b" }]);
    let repository = Repository::new().whole("a").whole("b/1").ensemble("e", &members);
    let node = repository.node();
    let order = |order: &str, body: &str| {
        let answer = node.post(&format!("/v1/models/b/{order}"), body);
        assert_eq!(answer.status, 200, "{order}: {}", String::from_utf8_lossy(&answer.body));
    };
    let before = median(&node, "e");
    order("promote", r#"{"version":1}"#);
    fs::create_dir(repository.dir.path().join("b/2")).expect("a folder");
    repository.put(BASE, "b/2");
    repository.retrain("b/2", 0.75);
    order("load", "");
    assert_eq!(median(&node, "e"), before, "version 1 is the stable one");
    order("canary", r#"{"version":2,"steps":[50],"hold_ms":604800000}"#);
    assert_eq!(node.post("/v1/models/a/load", "").status, 200);
    assert_eq!(median(&node, "e"), before, "a canary is none");

    order("promote", "");
    eventually("the ensemble changes", || median(&node, "e") != before);
    is_mean(&node, "promoted");
    order("rollback", "");
    eventually("the ensemble changes back", || median(&node, "e") == before);
    is_mean(&node, "rolled back");
    // Without a release the highest version answers.
    order("split", r#"{"weights":{}}"#);
    eventually("the ensemble follows", || median(&node, "e") != before);
    is_mean(&node, "without a release");
}

#[test]
fn an_ensemble_has_its_members_though_they_are_unloaded_and_comes_when_they_are_mended() {
    let members = json!([{ "model": "a" }, { "model": "b" }]);
    let repository = Repository::new().cut("a").whole("b").ensemble("e", &members);
    let node = repository.node();
    assert_eq!(node.post("/v1/forecast", &body("e")).status, 503);
    assert!(complaints(&node).contains("`e`"));
    repository.put(BASE, "a");
    assert_eq!(node.post("/v1/models/a/load", "").status, 200);
    is_mean(&node, "once its member is mended");
    assert!(!complaints(&node).contains("`e`"), "{}", complaints(&node));

    let before = median(&node, "e");
    assert_eq!(node.post("/v1/models/a/unload", "").status, 200);
    assert_eq!(node.post("/v1/forecast", &body("a")).status, 404);
    assert_eq!(median(&node, "e"), before);
}

#[test]
fn where_nothing_can_be_served_or_the_default_cannot_a_node_does_not_start() {
    let said = Repository::new().cut("cut").bare("bare").refused(&[]);
    assert!(said.contains("bare") && said.contains(WEIGHTS), "{said}");
    let said = Repository::new().whole("good").cut("cut").refused(&[("PEREGRINE_MODELS__DEFAULT", "cut")]);
    assert!(said.contains("models.default is `cut`") && said.contains(WEIGHTS), "{said}");
}
