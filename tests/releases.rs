//! Several versions of one model: who answers, who is promoted, who is taken back, and what callers see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Cases, Client, TestNode, eventually};

const BASE: &str = "mlp-vol-quantile";
const WINDOW: usize = 128;

/// What a version is made of.
#[derive(Clone, Copy)]
pub(crate) enum Make {
    /// The weights that ship.
    Plain,
    /// Answers that are higher.
    Higher,
    /// Weights that no finite answer comes of.
    Infinite,
}

/// A repository with one model, `m`, in versions.
pub(crate) struct Shelf {
    dir: tempfile::TempDir,
}

impl Shelf {
    pub(crate) fn with(versions: &[(u32, Make)]) -> Self {
        let shelf = Self { dir: tempfile::tempdir().expect("a folder") };
        for (version, make) in versions {
            shelf.add(*version, *make);
        }
        shelf
    }

    fn add(&self, version: u32, make: Make) {
        let (from, to) = (Cases::folder(BASE), self.dir.path().join(format!("m/{version}")));
        fs::create_dir_all(&to).expect("a folder");
        fs::copy(from.join("model.json"), to.join("model.json")).expect("a copy");
        let mut weights = fs::read(from.join("weights.safetensors")).expect("weights");
        match make {
            Make::Plain => {}
            Make::Higher => change(&mut weights, "out.bias", |bias| bias + 0.5),
            Make::Infinite => change(&mut weights, "out.weight", |_| 3e38),
        }
        fs::write(to.join("weights.safetensors"), weights).expect("a file");
    }

    pub(crate) fn node(&self) -> TestNode {
        self.node_with(&[])
    }

    fn node_with(&self, more: &[(&str, &str)]) -> TestNode {
        let repositories = format!("[\"{}\"]", self.path().display());
        let usual = [("MODELS__REPOSITORIES", repositories.as_str()), ("MODELS__DEFAULT", BASE)];
        TestNode::on_cpu(&[&usual, more].concat())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Changes every value of a tensor where it lies in the file.
fn change(file: &mut [u8], tensor: &str, change: impl Fn(f32) -> f32) {
    let header_len = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + header_len]).expect("a header");
    let offset = |at: usize| header[tensor]["data_offsets"][at].as_u64().expect("an offset") as usize;
    let data = &mut file[8 + header_len..][offset(0)..offset(1)];
    for value in data.chunks_exact_mut(4) {
        let was = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        value.copy_from_slice(&change(was).to_le_bytes());
    }
}

fn body(more: &Value) -> String {
    let values: Vec<f32> = (0..WINDOW).map(|at| (at * 17 % 97) as f32 / 10.0).collect();
    let mut series = json!({ "values": values });
    if let Some(id) = more.get("id") {
        series["id"] = id.clone();
    }
    let mut body = json!({ "model": "m", "series": [series] });
    if let Some(version) = more.get("version") {
        body["version"] = version.clone();
    }
    body.to_string()
}

/// Asks on one connection.
struct Caller(Client);

impl Caller {
    fn of(node: &TestNode) -> Self {
        Self(Client::connect(node.node.addr).expect("connects"))
    }

    /// The version that answered, with the answer; or the status.
    fn try_ask(&mut self, body: &str) -> Result<(u32, Value), u16> {
        let answer = self.0.send("POST", "/v1/forecast", &[], body.as_bytes()).expect("an answer");
        if answer.status != 200 {
            return Err(answer.status);
        }
        let answer = answer.json();
        let version = answer["model_version"].as_str().and_then(|text| text.parse().ok());
        Ok((version.expect("a version"), answer["forecasts"][0]["median"].clone()))
    }

    #[track_caller]
    fn ask(&mut self, body: &str) -> (u32, Value) {
        self.try_ask(body).unwrap_or_else(|status| panic!("{status}"))
    }

    /// How often each version answered.
    #[track_caller]
    fn count(&mut self, asks: usize) -> BTreeMap<u32, usize> {
        let body = body(&json!({}));
        let mut counts = BTreeMap::new();
        for _ in 0..asks {
            *counts.entry(self.ask(&body).0).or_default() += 1;
        }
        counts
    }
}

#[track_caller]
pub(crate) fn order(node: &TestNode, what: &str, body: &Value) -> Value {
    let answer = node.post(&format!("/v1/models/m/{what}"), &body.to_string());
    assert_eq!(answer.status, 200, "{what}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()["release"].clone()
}

fn release(node: &TestNode) -> Value {
    node.get("/v1/models/m").json()["release"].clone()
}

/// The newest line of the log.
fn newest(release: &Value) -> &str {
    release["log"][0]["what"].as_str().expect("a line")
}

fn metrics(node: &TestNode) -> String {
    String::from_utf8(node.get("/metrics").body).expect("text")
}

#[test]
fn what_was_decided_stands_after_a_restart() {
    let (shelf, kept) =
        (Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]), tempfile::tempdir().expect("a folder"));
    let folder = kept.path().display().to_string();
    let start = || shelf.node_with(&[("MODELS__RELEASES", &folder)]);
    let answers = |node: &TestNode| Caller::of(node).count(3).into_keys().collect::<Vec<_>>();

    let node = start();
    assert_eq!(answers(&node), [2], "nothing was kept yet");
    let answer = node.post("/v1/models/m/rollback", "").json();
    assert_eq!((&answer["release"]["stable"], &answer["kept"]), (&json!("1"), &json!(true)));
    // What is answered is on the disk: nothing that happens to the node undoes it.
    let file = kept.path().join("releases.json");
    let written = fs::read_to_string(&file).expect("a file");
    assert!(written.contains("\"m\"") && written.contains("\"stable\": 1"), "{written}");
    drop(node);

    shelf.add(3, Make::Plain);
    let node = start();
    assert_eq!(answers(&node), [1], "neither what was taken back nor what came meanwhile");
    assert_eq!(newest(&release(&node)), "as it was kept, or configured, when this node started");
    order(&node, "canary", &json!({ "version": 3, "steps": [50, 100], "hold_ms": 600_000 }));
    drop(node);

    let node = start();
    let resumed = release(&node);
    assert_eq!((&resumed["canary"]["version"], &resumed["canary"]["percent"]), (&json!("3"), &json!(50.0)));
    let answer = node.post("/v1/models/m/split", "{\"weights\":{}}").json();
    assert_eq!((&answer["release"], &answer["kept"]), (&Value::Null, &json!(true)));
    drop(node);

    let node = start();
    assert_eq!(answers(&node), [3], "the highest again");
    // The disk refuses: whoever orders is told, and so is health.
    fs::create_dir(kept.path().join("releases.new")).expect("a folder in the way");
    let answer = node.post("/v1/models/m/promote", "{\"version\":1}").json();
    assert_eq!((&answer["release"]["stable"], &answer["kept"]), (&json!("1"), &json!(false)));
    let reasons = || node.get("/health").json()["reasons"].to_string();
    assert!(reasons().contains("releases cannot be kept"), "{}", reasons());
    fs::remove_dir(kept.path().join("releases.new")).expect("a folder");
    eventually("it is kept all the same", || !reasons().contains("releases cannot be kept"));
    drop(node);
    assert_eq!(answers(&start()), [1]);
}

#[test]
fn a_configuration_says_which_version_answers_from_a_start_on() {
    let (shelf, kept) =
        (Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]), tempfile::tempdir().expect("a folder"));
    let folder = kept.path().display().to_string();
    let pinned = [("MODELS__RELEASES", folder.as_str()), ("MODELS__VERSIONS", "{ m = 1 }")];
    for _ in 0..2 {
        let node = shelf.node_with(&pinned);
        let mut caller = Caller::of(&node);
        assert_eq!(caller.count(3).into_keys().collect::<Vec<_>>(), [1]);
        order(&node, "promote", &json!({ "version": 2 }));
        assert_eq!(caller.count(3).into_keys().collect::<Vec<_>>(), [2], "until it is ordered otherwise");
    }
}

#[test]
fn callers_are_split_by_weight_and_keep_their_version() {
    let node = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]).node();
    let mut caller = Caller::of(&node);
    let named = |version: u32| body(&json!({ "version": version }));
    let (own, other) = (caller.ask(&named(1)).1, caller.ask(&named(2)).1);
    assert_ne!(own, other, "their weights differ");
    assert_eq!(caller.count(5), BTreeMap::from([(2, 5)]), "without a release the highest answers");

    let split = order(&node, "split", &json!({ "weights": { "1": 90, "2": 10 } }));
    assert_eq!((&split["stable"], &split["plan"]), (&json!("1"), &json!("split")));
    let counts = caller.count(1000);
    assert!((98..=102).contains(&counts[&2]), "{counts:?}");
    let mut versions = BTreeSet::new();
    for at in 0..100 {
        let body = body(&json!({ "id": format!("series-{at}") }));
        let (version, answer) = caller.ask(&body);
        assert_eq!(answer, if version == 1 { own.clone() } else { other.clone() });
        assert_eq!(caller.ask(&body).0, version, "series-{at} keeps its version");
        versions.insert(version);
    }
    assert_eq!(versions, BTreeSet::from([1, 2]));
    for version in [1, 2] {
        assert_eq!(caller.ask(&named(version)).0, version, "who names a version gets it");
    }
    let page = metrics(&node);
    assert!(page.contains("peregrine_release_share{model=\"m\",version=\"2\""), "{page}");
    assert!(page.contains("peregrine_release_requests_total{model=\"m\",version=\"1\""), "{page}");

    assert_eq!(order(&node, "split", &json!({ "weights": {} })), Value::Null);
    assert_eq!(caller.count(5), BTreeMap::from([(2, 5)]));
}

#[test]
fn a_canary_that_does_well_is_promoted_and_can_be_rolled_back() {
    let node = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]).node();
    let mut caller = Caller::of(&node);
    order(&node, "promote", &json!({ "version": 1 }));
    assert_eq!(caller.count(5), BTreeMap::from([(1, 5)]));
    // Two versions of one size are as fast; a machine that is busy with other tests may not show it.
    let limits = json!({ "requests_min": 20, "p95_ratio": 1e5 });
    let canary = json!({ "version": 2, "steps": [10, 50, 100], "hold_ms": 50, "limits": limits });
    let began = order(&node, "canary", &canary);
    assert_eq!((&began["canary"]["percent"], &began["stable"]), (&json!(10.0), &json!("1")));
    let mut counts = BTreeMap::<u32, usize>::new();
    let body = body(&json!({}));
    eventually("it is promoted", || {
        *counts.entry(caller.ask(&body).0).or_default() += 1;
        release(&node)["stable"] == "2"
    });
    assert!(
        counts[&1] >= 180 && counts[&2] >= 60,
        "20 requests at 10 % and at 50 %, and 20 more: {counts:?}"
    );
    let done = release(&node);
    assert_eq!((&done["plan"], &done["previous"]), (&json!("whole"), &json!("1")));
    assert!(newest(&done).contains("did well at every step"), "{done}");
    assert_eq!(caller.count(5), BTreeMap::from([(2, 5)]));
    let page = metrics(&node);
    assert!(page.contains("peregrine_release_changes_total{model=\"m\",kind=\"advanced\""), "{page}");

    let back = node.post("/v1/models/m/rollback", "").json()["release"].clone();
    assert_eq!(back["stable"], "1");
    assert_eq!(caller.count(5), BTreeMap::from([(1, 5)]), "from the next request on");
    assert_eq!(node.post("/v1/models/m/rollback", "").status, 409, "there is nothing before");
}

#[test]
fn a_canary_that_fails_is_taken_back() {
    let node = Shelf::with(&[(1, Make::Plain), (2, Make::Infinite)]).node();
    let mut caller = Caller::of(&node);
    let limits = json!({ "requests_min": 20, "error_share": 0.1 });
    let hour = 3_600_000;
    order(&node, "canary", &json!({ "version": 2, "steps": [25, 100], "hold_ms": hour, "limits": limits }));
    let body = body(&json!({}));
    let (mut answered, mut failed) = (0, 0);
    eventually("it is taken back", || {
        match caller.try_ask(&body) {
            Ok((version, _)) => {
                assert_eq!(version, 1);
                answered += 1;
            }
            Err(status) => {
                assert!(status == 422 || status == 503, "{status}");
                failed += 1;
            }
        }
        release(&node)["plan"] == "whole"
    });
    // More than a tenth of twenty failed; of any run of requests it gets its quarter, but for two at most.
    assert!(failed >= 3 && failed <= (answered + failed) / 4 + 2, "{failed} of {answered} and {failed}");
    let done = release(&node);
    assert_eq!(done["stable"], "1");
    assert!(newest(&done).contains("back from version 2 to 1") && newest(&done).contains("failed"), "{done}");
    assert_eq!(caller.count(50), BTreeMap::from([(1, 50)]));
    assert!(metrics(&node).contains("peregrine_release_failed_total{model=\"m\",version=\"2\""));
}

#[test]
fn a_shadow_is_compared_and_seen_by_nobody() {
    let node =
        Shelf::with(&[(1, Make::Plain), (2, Make::Higher), (3, Make::Plain), (4, Make::Infinite)]).node();
    let mut caller = Caller::of(&node);
    order(&node, "promote", &json!({ "version": 1 }));
    for (version, counter) in [(2, "differing"), (3, "compared"), (4, "failed")] {
        order(&node, "shadow", &json!({ "version": version, "share": 1.0 }));
        let count = |name: &str| release(&node)["shadow"][name].as_u64().expect("a count");
        eventually("the shadow is asked", || {
            assert_eq!(caller.count(10), BTreeMap::from([(1, 10)]), "callers see the stable version alone");
            count(counter) >= 30
        });
        let shadow = release(&node)["shadow"].clone();
        match version {
            2 => assert!(shadow["difference_mean"].as_f64().is_some_and(|mean| mean > 0.01), "{shadow}"),
            3 => assert_eq!((&shadow["differing"], &shadow["difference_max"]), (&json!(0), &json!(0.0))),
            _ => assert_eq!(shadow["compared"], 0, "nothing finite, nothing to compare"),
        }
    }
    assert!(
        metrics(&node)
            .contains("peregrine_release_shadow_total{model=\"m\",version=\"4\",outcome=\"failed\"")
    );
    assert_eq!(order(&node, "shadow", &json!({}))["shadow"], Value::Null);
}

#[test]
fn a_body_that_would_be_passed_over_is_refused() {
    let shelf = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]);
    let node = shelf.node();
    for order in ["load", "unload", "rollback"] {
        for body in [r#"{"version":1}"#, "1", "{", "null"] {
            let answer = node.post(&format!("/v1/models/m/{order}"), body);
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(answer.status == 400 && said.contains("takes no body"), "{order} {body}: {said}");
        }
    }
    let served = || {
        let models = node.get("/v1/models").json()["models"].as_array().expect("a list").clone();
        models.iter().filter(|one| one["name"] == "m" && one["state"] == "ready").count()
    };
    assert_eq!(served(), 2);
    let left = node.post("/v1/models/m/unload?version=1", "{}");
    assert_eq!(left.status, 200);
    assert_eq!(left.json(), json!({ "name": "m", "state": "ready", "versions": ["2"] }));
    assert_eq!(served(), 1);
    assert_eq!(node.post("/v1/models/m/load", " ").status, 200);
    assert_eq!(served(), 2);
    let left = node.post("/v1/models/m/unload", "").json();
    assert_eq!(left, json!({ "name": "m", "state": "unavailable", "versions": [] }));
}

#[test]
fn a_promoted_version_answers_again_once_its_model_was_away() {
    let shelf = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]);
    let node = shelf.node();
    order(&node, "promote", &json!({ "version": 1 }));
    for (unload, load) in [
        ("/v1/models/m/unload", "/v1/models/m/load"),
        ("/v2/repository/models/m/unload", "/v2/repository/models/m/load"),
    ] {
        assert_eq!(node.post(unload, "").status, 200);
        assert_eq!(node.post(load, "").status, 200);
        assert_eq!(release(&node)["stable"], "1", "{load}");
        assert_eq!(Caller::of(&node).count(5), BTreeMap::from([(1, 5)]), "{load}");
    }
}

#[test]
fn a_version_is_a_number_or_a_text_in_every_order() {
    let node = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]).node();
    for (version, stable) in [(json!("1"), "1"), (json!(2), "2"), (json!("01"), "1")] {
        assert_eq!(order(&node, "promote", &json!({ "version": version }))["stable"], stable);
    }
    let canary = order(&node, "canary", &json!({ "version": "2", "steps": [50], "hold_ms": 600_000 }));
    assert_eq!(canary["canary"]["version"], "2");
    order(&node, "rollback", &json!({}));
    assert_eq!(order(&node, "shadow", &json!({ "version": "2" }))["shadow"]["version"], "2");
    for version in [json!("two"), json!(""), json!(0), json!(1.5), json!([2]), json!(true)] {
        let answer = node.post("/v1/models/m/promote", &json!({ "version": version }).to_string());
        assert_eq!(answer.status, 400, "{version}");
    }
}

#[test]
fn a_canary_is_compared_by_score_unless_that_is_put_off() {
    let node = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]).node();
    order(&node, "promote", &json!({ "version": 1 }));
    for (limits, ratio) in [
        (json!({}), json!(1.2)),
        (json!({ "score_ratio": 1.5 }), json!(1.5)),
        (json!({ "score_ratio": null }), Value::Null),
    ] {
        let canary = json!({ "version": 2, "steps": [50], "hold_ms": 600_000, "limits": limits });
        let began = order(&node, "canary", &canary);
        assert_eq!(began["canary"]["limits"]["score_ratio"], ratio, "{limits}");
    }
}

#[test]
fn what_was_taken_back_does_not_answer_while_another_version_is_there() {
    let node = Shelf::with(&[(1, Make::Plain), (2, Make::Higher), (3, Make::Higher)]).node();
    order(&node, "promote", &json!({ "version": 1 }));
    order(&node, "canary", &json!({ "version": 3, "steps": [50], "hold_ms": 600_000 }));
    order(&node, "rollback", &json!({}));
    assert_eq!(node.post("/v1/models/m/unload?version=1", "").status, 200);
    assert_eq!(release(&node)["stable"], "2");
    assert_eq!(Caller::of(&node).count(5), BTreeMap::from([(2, 5)]));
    assert_eq!(node.post("/v1/models/m/unload?version=2", "").status, 200);
    assert_eq!(Caller::of(&node).count(5), BTreeMap::from([(3, 5)]), "nothing else is left");
}

#[test]
fn versions_that_come_and_go_under_traffic_lose_nothing() {
    let shelf = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]);
    let node = shelf.node();
    let ended = AtomicBool::new(false);
    let ask_until_ended = |client: usize| {
        let mut caller = Caller::of(&node);
        let mut counts = BTreeMap::<Result<u32, u16>, usize>::new();
        let mut asked = 0;
        while !ended.load(Ordering::SeqCst) {
            let id = format!("{client}-{asked}");
            let body = if asked % 2 == 0 { body(&json!({})) } else { body(&json!({ "id": id })) };
            *counts.entry(caller.try_ask(&body).map(|(version, _)| version)).or_default() += 1;
            asked += 1;
        }
        counts
    };
    let unload = |version: u32| {
        let answer = node.post(&format!("/v1/models/m/unload?version={version}"), "");
        assert_eq!(answer.status, 200, "{version}");
    };
    let load = || assert_eq!(node.post("/v1/models/m/load", "").status, 200);
    let story = || {
        for _ in 0..3 {
            order(&node, "promote", &json!({ "version": 1 }));
            order(&node, "canary", &json!({ "version": 2, "steps": [50], "hold_ms": 600_000 }));
            unload(2);
            assert!(newest(&release(&node)).contains("not served any more"));
            load();
            order(&node, "split", &json!({ "weights": { "1": 1, "2": 1 } }));
            order(&node, "shadow", &json!({}));
            unload(1);
            assert_eq!(release(&node)["stable"], "2", "what is left answers");
            load();
            order(&node, "promote", &json!({ "version": 1 }));
            assert_eq!(node.post("/v1/models/m/rollback", "").status, 200);
            order(&node, "split", &json!({ "weights": {} }));
        }
    };
    let mut counts = BTreeMap::<Result<u32, u16>, usize>::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|client| scope.spawn(move || ask_until_ended(client))).collect();
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        ended.store(true, Ordering::SeqCst); // whatever happened, or the clients would go on for ever
        for client in clients {
            for (label, count) in client.join().expect("a client") {
                *counts.entry(label).or_default() += count;
            }
        }
        told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(counts.keys().all(|label| matches!(label, Ok(1 | 2))), "{counts:?}");
    assert_eq!(counts.len(), 2, "both answered: {counts:?}");
}

#[test]
fn orders_that_make_no_sense_change_nothing() {
    let shelf = Shelf::with(&[(1, Make::Plain), (2, Make::Higher)]);
    let node = shelf.node();
    for (path, body, status) in [
        ("none/split", r#"{"weights":{"1":1}}"#, 404),
        ("m/split", r#"{"weights":{"1":1,"9":1}}"#, 404),
        ("m/split", r#"{"weights":{"1":0}}"#, 400),
        ("m/split", r#"{"weights":{"1":-1}}"#, 400),
        ("m/split", r#"{"weights":{"one":1}}"#, 400),
        ("m/split", r#"{"weights":{"1":1},"more":1}"#, 400),
        ("m/split", "", 400),
        ("m/canary", r#"{"version":2,"steps":[]}"#, 400),
        ("m/canary", r#"{"version":2,"steps":[50,10]}"#, 400),
        ("m/canary", r#"{"version":2,"steps":[1e400]}"#, 400),
        ("m/canary", r#"{"version":2,"steps":[50],"hold_ms":18446744073709551615}"#, 400),
        ("m/canary", r#"{"version":7,"steps":[50]}"#, 404),
        ("m/shadow", r#"{"version":1,"share":2}"#, 400),
        ("m/promote", "", 409),
        ("m/promote", r#"{"version":9}"#, 404),
        ("none/rollback", "", 404),
    ] {
        let answer = node.post(&format!("/v1/models/{path}"), body);
        assert_eq!(answer.status, status, "{path} {body}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(release(&node), Value::Null);
    let mut caller = Caller::of(&node);
    assert_eq!(caller.count(3), BTreeMap::from([(2, 3)]));
}
