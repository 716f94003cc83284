//! Model folders that are damaged: each is refused by name, and the rest is served.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Cases, TestNode};

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
        let to = self.dir.path().join(place);
        fs::create_dir_all(&to).expect("a folder");
        let text =
            json!({ "format": 1, "name": place, "combine": "mean", "members": [{ "model": "absent" }] });
        fs::write(to.join("ensemble.json"), text.to_string()).expect("a file");
        self
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
    for (model, version, why) in [
        ("cut", "1", WEIGHTS),
        ("bare", "1", WEIGHTS),
        ("lonely", "1", "absent"),
        ("pair", "2", WEIGHTS),
        ("turned", "1", WEIGHTS),
    ] {
        let (state, reason) = indexed(&node, model, version);
        assert_eq!(state, "UNAVAILABLE", "{model}");
        let place = repository.path().join(model).display().to_string();
        assert!(reason.contains(&place) && reason.contains(why), "{model}: {reason}");
        assert!(said.contains(&format!("version {version} of model `{model}`")), "{model}: {said}");
        let rows = listed["models"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["name"] == model && row["version"] == version);
        assert_eq!(row.map(|row| &row["reason"]), Some(&Value::from(reason)), "{model}");
    }
    assert!(!said.contains("`good`"), "{said}");
    for model in ["cut", "bare", "lonely"] {
        assert_eq!(node.post("/v1/forecast", &body(model)).status, 404, "{model}");
    }

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
fn where_nothing_can_be_served_or_the_default_cannot_a_node_does_not_start() {
    let said = Repository::new().cut("cut").bare("bare").refused(&[]);
    assert!(said.contains("bare") && said.contains(WEIGHTS), "{said}");
    let said = Repository::new().whole("good").cut("cut").refused(&[("PEREGRINE_MODELS__DEFAULT", "cut")]);
    assert!(said.contains("models.default is `cut`") && said.contains(WEIGHTS), "{said}");
}
