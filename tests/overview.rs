//! A node at one glance, asked for and watched; the same of another node through the first.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Fleet, Load, Post, TestNode, WebSocket, eventually, took};

const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;
const STREAM: &str = "/v1/overview/stream";
const EVERYTHING: &[&str] = &["gateway", "inference"];
const MEMBERS: [&str; 12] = [
    "at", "node", "cluster", "requests", "models", "devices", "breakers", "actors", "streams", "system",
    "alerts", "scaler",
];

fn forecast() -> String {
    let values: Vec<String> = (0..WINDOW).map(|at| format!("{}", 1.0 + (at % 7) as f32 / 10.0)).collect();
    format!(r#"{{"model":"{MODEL}","series":[{{"id":"a","values":[{}]}}]}}"#, values.join(","))
}

#[track_caller]
fn overview(node: &TestNode) -> Value {
    let answer = node.get("/v1/overview");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[track_caller]
fn names(of: &Value) -> BTreeSet<&str> {
    of.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn a_node_shows_what_it_is_and_what_it_does() {
    let node = TestNode::on_cpu(&[]);
    eventually("it is ready", || overview(&node)["node"]["ready"] == true);
    let seen = overview(&node);
    assert!(names(&seen).is_superset(&MEMBERS.into()), "{seen}");
    assert_eq!(seen["scaler"], Value::Null);
    assert_eq!(seen["cluster"]["members"], node.get("/v1/cluster").json()["members"]);
    // One that is alone says of itself what members say.
    let alone = &seen["cluster"]["members"][0];
    assert_eq!(alone["version"], seen["node"]["version"]);
    assert_eq!(alone["models"][MODEL]["versions"], json!(["1"]));
    assert_eq!(seen["breakers"], node.get("/v1/breakers").json()["breakers"]);
    assert_eq!(seen["alerts"], node.get("/v1/alerts").json()["alerts"]);
    assert_eq!(seen["history"]["step_seconds"], 5);
    assert!(seen["history"]["predictions_rate"].is_array());
    let actors = seen["actors"].as_array().expect("actors");
    let mut known = BTreeSet::new();
    for actor in actors {
        if let Some(parent) = actor["parent"].as_str() {
            assert!(known.contains(parent), "{actor} before its parent");
        }
        assert!(known.insert(actor["name"].as_str().expect("a name")), "{actor} twice");
    }
    let statuses = node.get("/status").json()["system"]["actors"].as_array().expect("actors").len();
    assert_eq!(actors.iter().filter(|actor| actor["mailbox_depth"].is_u64()).count(), statuses);
    assert!(
        actors.iter().any(|actor| actor["name"] == "router" && actor["parent"] == "system"),
        "{actors:?}"
    );
    // Under load the figures come, and they are those of the load.
    eventually("requests are seen", || {
        for _ in 0..20 {
            assert_eq!(node.post("/v1/forecast", &forecast()).status, 200);
        }
        let seen = overview(&node);
        let model = seen["models"].as_array().expect("models").iter().find(|model| model["name"] == MODEL);
        let model = model.expect("it is served");
        let device = &seen["devices"][0];
        [&seen["requests"]["rate"], &model["rate"], &model["rows_rate"], &device["busy_share"]]
            .into_iter()
            .all(|rate| rate.as_f64().is_some_and(|rate| rate > 0.0))
            && ["p50_ms", "p95_ms", "p99_ms", "p999_ms"].iter().all(|name| seen["requests"][name].is_f64())
            && ["p50_ms", "p99_ms", "queue_p99_ms", "compute_p99_ms", "batch_rows_mean"]
                .iter()
                .all(|name| model[name].is_f64())
            && seen["requests"]["p50_ms"].as_f64() <= seen["requests"]["p999_ms"].as_f64()
    });
    assert_eq!(node.get("/v1/overview?node=elsewhere").status, 404);
    assert_eq!(node.get("/v1/overview?node=..%2F").status, 404);
    assert_eq!(node.get("/v1/overview?nodes=elsewhere").status, 400);
    let own = seen["node"]["name"].as_str().expect("a name");
    assert_eq!(node.get(&format!("/v1/overview?node={own}")).status, 200);
}

#[test]
fn viewers_get_the_whole_once_and_then_the_newest() {
    let node = TestNode::on_cpu(&[]);
    let mut viewers: Vec<WebSocket> = (0..3).map(|_| WebSocket::open(node.node.addr, STREAM, None)).collect();
    for viewer in &mut viewers {
        let first = viewer.json();
        assert!(first["history"].is_object(), "{first}");
        let mut last = first["at"].as_u64().expect("a time");
        for _ in 0..2 {
            let next = viewer.json();
            assert!(next.get("history").is_none() && names(&next).is_superset(&MEMBERS.into()), "{next}");
            let at = next["at"].as_u64().expect("a time");
            assert!(at > last, "{at} after {last}");
            last = at;
        }
    }
    assert_eq!(overview(&node)["streams"]["subscribers"], 0, "they watch the node, not its streams");
    // Without a handshake there is a word about it.
    assert_eq!(node.get(STREAM).status, 426);
    // Whoever says something is not listened to, and whoever says too much is sent away.
    viewers[0].text("hello");
    viewers[0].json();
    viewers[1].text(&"x".repeat(100_000));
    let close = std::iter::from_fn(|| viewers[1].frame()).find(|(first, _)| *first == crate::harness::CLOSE);
    let (_, reason) = close.expect("a close frame");
    assert_eq!(reason[..2], 1009_u16.to_be_bytes());
}

#[test]
fn viewers_have_a_largest_number() {
    let node = TestNode::on_cpu(&[]);
    let viewers: Vec<WebSocket> = (0..64).map(|_| WebSocket::open(node.node.addr, STREAM, None)).collect();
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = crate::harness::request(node.node.addr, "GET", STREAM, &upgrade, b"");
    assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    drop(viewers);
    eventually("their places are free again", || {
        let page = String::from_utf8(node.get("/metrics").body).expect("text");
        let open = page.lines().find(|line| line.starts_with("peregrine_stream_subscribers{"));
        open.expect("it is counted").ends_with(" 0")
    });
    WebSocket::open(node.node.addr, STREAM, None).json();
}

#[test]
fn another_node_is_seen_through_the_first_and_again_when_it_comes_back() {
    let posts = [
        Post { name: "fra-1", region: "fra", roles: EVERYTHING },
        Post { name: "iad-1", region: "iad", roles: EVERYTHING },
    ];
    let mut fleet = Fleet::start(None, &posts, &[]);
    let load = Load::of(fleet.addr("iad-1"), MODEL, WINDOW, Duration::from_secs(20));
    load.during(1, |load| {
        load.next(20);
        took("the load of the other is seen", || {
            let answer = fleet.get("fra-1", "/v1/overview?node=iad-1");
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            let seen = answer.json();
            assert_eq!((&seen["node"]["name"], &seen["node"]["region"]), (&"iad-1".into(), &"iad".into()));
            assert!(seen["history"].is_object());
            seen["requests"]["rate"].as_f64().is_some_and(|rate| rate > 0.0)
        });
    });
    let here = fleet.get("fra-1", "/v1/overview").json();
    assert_eq!((&here["node"]["name"], &here["cluster"]["size"]), (&"fra-1".into(), &2.into()));
    let actors = here["actors"].as_array().expect("actors").iter();
    let of = |parent: &str| actors.clone().filter(|actor| actor["parent"] == parent).count();
    assert_eq!((of("remote"), of("series"), of("overview")), (2, 2, 1));
    assert_eq!(fleet.get("fra-1", "/v1/overview?node=nrt-1").status, 404);

    let path = format!("{STREAM}?node=iad-1");
    let mut viewer = WebSocket::open(fleet.addr("fra-1"), &path, None);
    let first = viewer.json();
    assert!(first["history"].is_object() && first["node"]["name"] == "iad-1", "{first}");
    let next = viewer.json();
    assert!(next.get("history").is_none() && next["node"]["name"] == "iad-1", "{next}");
    fleet.signal("iad-1", libc::SIGKILL);
    fleet.ended("iad-1");
    let gone = fleet.get("fra-1", "/v1/overview?node=iad-1").status;
    // Until it is missed it does not answer; then it is no part of the cluster.
    assert!([503, 504, 404].contains(&gone), "{gone}");
    took("the viewer is told", || viewer.json()["error"].as_str().is_some_and(|why| why.contains("iad-1")));
    fleet.launch("iad-1");
    took("the viewer sees it again", || viewer.json()["node"]["name"] == "iad-1");
}
