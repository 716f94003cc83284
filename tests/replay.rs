//! Nodes on Fly behind its proxy: which bodies it moves, and what becomes of them when it cannot.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Edge, Fleet, Hop, Post, drawn_key, request, took};

pub(crate) const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;
/// `routing.replay_from` unless a test says otherwise.
const FROM: usize = 256 << 10;
/// Of what the proxy keeps.
const KEPT_BYTES_MAX: usize = 1_000_000;

/// Two public Machines, of which the far one has the model, and a private one that stands by; the proxy before them.
pub(crate) struct Stage {
    fleet: Fleet<'static>,
    pub(crate) edge: Edge,
}

impl Stage {
    pub(crate) fn new(keys: &[(&str, &str)]) -> Self {
        let posts = [
            Post { name: "a", region: "fra", roles: &["gateway"] },
            Post { name: "b", region: "iad", roles: &["gateway", "inference"] },
            Post { name: "c", region: "nrt", roles: &["inference"] },
        ];
        let own = [
            ("FLY_APP_NAME", "peregrine"),
            ("FLY_MACHINE_ID", "148e{node}"),
            ("FLY_REGION", "xyz"), // of the Machines; the nodes' own is configured
            ("PLACEMENT__NBEATS-VOL-QUANTILE__STANDBY", r#"["nrt"]"#),
        ];
        let fleet = Fleet::start(None, &posts, &[&own, keys].concat());
        let edge = Edge::new("peregrine", "fra");
        for (node, region) in [("a", "fra"), ("b", "iad")] {
            edge.add(&format!("148e{node}"), region, fleet.addr(node));
        }
        took("a knows who has the model, and on which Machine", || {
            let members = fleet.members("a");
            ["b", "c"].iter().all(|node| {
                members[*node]["models"][MODEL]["versions"] == json!(["1"])
                    && members[*node]["machine"].is_object()
            })
        });
        Self { fleet, edge }
    }

    /// What `a` has asked of other nodes so far, and of the proxy.
    fn asked(&self) -> [f64; 2] {
        ["peregrine_remote_asks_total", "peregrine_replays_asked_total"]
            .map(|metric| self.fleet.metric("a", metric))
    }
}

/// A request in either dialect, with blanks up to a size.
fn requests(size: usize) -> [(String, String); 2] {
    let values: Vec<String> = (0..WINDOW).map(|at| format!("{}.5", at % 11)).collect();
    let values = values.join(",");
    let native = format!(r#"{{"model":"{MODEL}","series":[{{"id":"a","values":[{values}]}}]}}"#);
    let tensor = format!(r#"{{"name":"y","shape":[1,{WINDOW}],"datatype":"FP32","data":[{values}]}}"#);
    let protocol = format!(r#"{{"inputs":[{tensor}],"parameters":{{"timeout":10000000}}}}"#);
    let padded = |text: String| format!("{text}{}", " ".repeat(size - text.len()));
    [("/v1/forecast".to_owned(), padded(native)), (format!("/v2/models/{MODEL}/infer"), padded(protocol))]
}

/// Who computed, in either dialect.
fn backend(answer: &Value) -> &Value {
    answer.pointer("/forecasts/0/backend").unwrap_or(&answer["parameters"]["backend"])
}

fn machines(hops: &[Hop]) -> Vec<(&str, u16)> {
    hops.iter().map(|hop| (hop.machine.as_str(), hop.status)).collect()
}

#[test]
fn a_large_body_is_moved_by_the_proxy_and_crosses_no_link() {
    let stage = &Stage::new(&[]);
    let Stage { fleet, edge } = stage;
    let machine = |node: &str| fleet.members("a")[node]["machine"].clone();
    assert_eq!(machine("b"), json!({ "provider": "fly", "app": "peregrine", "id": "148eb", "public": true }));
    assert_eq!(machine("c")["public"], json!(false), "no caller is brought to it");
    let mut asked = 0.0;
    for size in [FROM, KEPT_BYTES_MAX] {
        for (path, body) in requests(size) {
            let (answer, hops) = edge.post(&path, &[], body.as_bytes());
            assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
            assert_eq!(machines(&hops), [("148ea", 307), ("148eb", 200)], "{path}");
            let wish = hops[0].replay.as_deref().expect("it asks for a replay");
            assert!(
                wish.starts_with("instance=148eb;timeout=2000ms;fallback=force_self;state=left-ms:"),
                "{wish}"
            );
            let source = hops[1].source.as_deref().expect("the next one is told");
            assert!(
                source.starts_with("instance=148ea;region=fra;") && source.contains("left-ms:"),
                "{source}"
            );
            let near = fleet.post("b", &path, &body);
            let (moved, near) = (answer.json(), near.json());
            assert_eq!((backend(&moved), backend(&near)), (&json!("cpu"), &json!("cpu")));
            let numbers =
                |answer: &Value| answer.pointer("/forecasts/0/median").or(answer.get("outputs")).cloned();
            assert!(numbers(&moved).is_some() && numbers(&moved) == numbers(&near), "{path}");
            assert_eq!((answer.header("fly-replay"), answer.header("fly-prefer-region")), (None, None));
            asked += 1.0;
        }
    }
    assert_eq!(stage.asked(), [0.0, asked], "nothing of all that went from node to node");
    assert_eq!(fleet.metric("b", "peregrine_replays_taken_total"), asked);
    // What is smaller goes from node to node, and so does what the proxy does not keep.
    for (size, hint) in [(FROM - 1, None), (KEPT_BYTES_MAX + 1, Some("iad"))] {
        for (path, body) in requests(size) {
            let (answer, hops) = edge.post(&path, &[], body.as_bytes());
            assert_eq!((answer.status, machines(&hops)), (200, vec![("148ea", 200)]), "{path}, {size} bytes");
            assert_eq!(backend(&answer.json()), "remote:iad");
            assert_eq!(answer.header("fly-prefer-region"), hint, "{path}, {size} bytes");
            let Some(region) = hint else { continue };
            let (answer, hops) = edge.post(&path, &[("fly-prefer-region", region)], body.as_bytes());
            assert_eq!(
                (answer.status, machines(&hops)),
                (200, vec![("148eb", 200)]),
                "whoever takes the hint"
            );
            assert_eq!((backend(&answer.json()), answer.header("fly-prefer-region")), (&json!("cpu"), None));
        }
    }
    assert_eq!(stage.asked()[1], asked);
    assert_eq!(fleet.post("a", "/v1/config", "routing.replay_from = \"0B\"").status, 200);
    let [(path, body), _] = requests(FROM);
    assert_eq!(
        machines(&edge.post(&path, &[], body.as_bytes()).1),
        [("148ea", 200)],
        "unless it is not wanted"
    );
}

/// Whatever a caller writes, it is answered: it gets no replay that nobody carries out, and makes none go round.
#[test]
fn who_comes_past_the_proxy_or_was_replayed_is_answered_where_it_is() {
    let stage = Stage::new(&[]);
    let (id, source) = (("Fly-Request-Id", "01K-fra"), ("fly-replay-src", "instance=148eb;region=iad;t=1"));
    let mut answered = 0.0;
    for headers in [
        &[][..],
        &[("Fly-Region", "fra"), ("Via", "1.1 fly.io")],
        &[id, source],
        &[source],
        &[id, ("fly-replay-src", "")],
        &[id, ("fly-replay-src", "instance=148eb;state=left-ms:9999999999")],
    ] {
        for (path, body) in requests(FROM) {
            let answer = request(stage.fleet.addr("a"), "POST", &path, headers, body.as_bytes());
            assert_eq!((answer.status, answer.header("fly-replay")), (200, None), "{path} {headers:?}");
            assert_eq!(backend(&answer.json()), "remote:iad", "{path} {headers:?}");
            answered += 1.0;
        }
    }
    let [asks, replays] = stage.asked();
    assert!(asks >= answered && replays == 0.0, "{asks} {replays}");
    // The same through the proxy, which may hand on what a caller claims.
    for (path, body) in requests(FROM) {
        let (answer, hops) = stage.edge.post(&path, &[source], body.as_bytes());
        assert_eq!((answer.status, machines(&hops)), (200, vec![("148ea", 200)]), "{path}");
    }
    // Time that a request has spent is gone wherever it comes.
    let late = [id, ("fly-replay-src", "instance=148eb;state=left-ms:0")];
    for (path, body) in requests(FROM) {
        let answer = request(stage.fleet.addr("b"), "POST", &path, &late, body.as_bytes());
        assert_eq!(answer.status, 504, "{path}");
    }
}

#[test]
fn a_replay_that_fails_comes_back_and_is_answered_through_the_cluster() {
    let mut stage = Stage::new(&[]);
    // The proxy does not know the Machine, the cluster does.
    stage.edge.forget("148eb");
    for (path, body) in requests(FROM) {
        let (answer, hops) = stage.edge.post(&path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(machines(&hops), [("148ea", 307), ("148ea", 200)], "{path}");
        let failed = hops[1].failed.as_deref().expect("it is told why");
        assert!(failed.contains("instance=148eb;") && failed.contains("reason=no_candidate"), "{failed}");
        assert_eq!(backend(&answer.json()), "remote:iad");
    }
    let page = stage.fleet.get("a", "/metrics").body;
    let page = String::from_utf8(page).expect("text");
    let failed = r#"peregrine_replays_failed_total{reason="no_candidate","#;
    assert!(page.lines().any(|line| line.starts_with(failed) && line.ends_with(" 2")), "{page}");
    // Now it is dead, and neither knows yet.
    let addr = stage.fleet.addr("b");
    stage.edge.add("148eb", "iad", addr);
    stage.fleet.signal("b", libc::SIGKILL);
    stage.fleet.ended("b");
    let began = Instant::now();
    for (path, body) in requests(FROM) {
        let (answer, _) = stage.edge.post(&path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(backend(&answer.json()), "remote:nrt", "{path}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn who_may_not_predict_is_not_told_where_a_model_is() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let drawn = drawn_key("desk", &["predict"]);
    std::fs::write(file.path(), drawn["entry"].as_str().expect("an entry")).expect("written");
    let keys = file.path().display().to_string();
    let stage = Stage::new(&[
        ("SECURITY__KEYS", &keys),
        ("SECURITY__REQUIRED", "true"),
        ("SECURITY__ANONYMOUS", r#"["observe"]"#),
    ]);
    for (path, body) in requests(FROM) {
        for headers in [&[][..], &[("Authorization", "Bearer pgk_guessed")]] {
            let (answer, hops) = stage.edge.post(&path, headers, body.as_bytes());
            assert_eq!((answer.status, machines(&hops)), (401, vec![("148ea", 401)]), "{path}");
            assert_eq!(hops[0].replay, None);
        }
    }
    assert_eq!(stage.asked(), [0.0; 2]);
}
