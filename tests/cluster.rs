//! Clusters of real processes on the loopback interface: who answers for whom, and what happens when one goes away.

use std::io::Read as _;
use std::net::UdpSocket;
use std::time::Duration;

use peregrine::config::{Sources, resolve};
use peregrine::node::Node;

use crate::harness::{Fleet, Load, Post, Response, eventually, took};

const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;
const DEADLINE: Duration = Duration::from_secs(5);
const CLIENTS: usize = 4;

const GATEWAY: &[&str] = &["gateway"];
const INFERENCE: &[&str] = &["inference"];

/// fra holds nothing; iad and nrt hold everything.
fn three(keys: &[(&str, &str)]) -> Fleet<'static> {
    let posts = [
        Post { name: "fra-1", region: "fra", roles: GATEWAY },
        Post { name: "iad-1", region: "iad", roles: INFERENCE },
        Post { name: "nrt-1", region: "nrt", roles: INFERENCE },
    ];
    Fleet::start(None, &posts, keys)
}

fn load(fleet: &Fleet<'_>) -> Load {
    Load::of(fleet.addr("fra-1"), MODEL, WINDOW, DEADLINE)
}

#[test]
fn a_node_without_models_answers_through_the_others_with_their_numbers() {
    let fleet = three(&[("PLACEMENT__NBEATS-VOL-QUANTILE__STANDBY", r#"["nrt"]"#)]);
    took("the gateway is ready", || fleet.get("fra-1", "/health/ready").status == 200);
    let data: Vec<f32> = (0..WINDOW).map(|at| 1.0 + (at % 5) as f32).collect();
    let body =
        format!(r#"{{"inputs":[{{"name":"y","shape":[1,{WINDOW}],"datatype":"FP32","data":{data:?}}}]}}"#);
    let path = format!("/v2/models/{MODEL}/infer");
    let far = fleet.post("fra-1", &path, &body);
    let near = fleet.post("iad-1", &path, &body);
    assert_eq!((far.status, near.status), (200, 200), "{}", String::from_utf8_lossy(&far.body));
    let (far, near) = (far.json(), near.json());
    assert_eq!(far["outputs"], near["outputs"], "bit for bit");
    assert_eq!(
        (&far["parameters"]["backend"], &near["parameters"]["backend"]),
        (&"remote:iad".into(), &"cpu".into())
    );
    for path in
        [format!("/v2/models/{MODEL}"), format!("/v2/models/{MODEL}/ready"), format!("/v1/models/{MODEL}")]
    {
        let (far, near) = (fleet.get("fra-1", &path), fleet.get("iad-1", &path));
        assert_eq!((far.status, far.json()), (200, near.json()), "{path}");
    }
    for path in [format!("/v2/models/{MODEL}/stats"), format!("/v2/models/{MODEL}/versions/1/stats")] {
        let [far, near] = ["fra-1", "iad-1"].map(|node| fleet.get(node, &path));
        let counted = |answer: &Response| {
            let stats = answer.json()["model_stats"][0].clone();
            serde_json::json!([stats["name"], stats["version"], stats["inference_count"]])
        };
        assert_eq!((far.status, near.status), (200, 200), "{path}");
        let [none, both] = [0, 2].map(|rows| serde_json::json!([MODEL, "1", rows]));
        assert_eq!((counted(&far), counted(&near)), (none, both), "each node says what it has computed");
    }
    let all = fleet.get("fra-1", "/v2/models/stats").json();
    let all = all["model_stats"].as_array().expect("a list");
    let it = all.iter().find(|stats| stats["name"] == MODEL).expect("it is one of them");
    assert_eq!(it["inference_stats"]["success"], serde_json::json!({"count": 0, "ns": 0}));
    assert_eq!(it["memory_usage"], serde_json::json!([]));
    for path in ["/v2/models/nothing/stats".to_owned(), format!("/v2/models/{MODEL}/versions/9/stats")] {
        assert_eq!(fleet.get("fra-1", &path).status, 404, "{path}");
    }
    let listed = fleet.get("fra-1", "/v1/models").json();
    let listed =
        listed["models"].as_array().expect("models").iter().find(|model| model["name"] == MODEL).cloned();
    assert_eq!(listed.expect("it is listed")["regions"], serde_json::json!(["iad", "nrt"]));
    assert_eq!(fleet.post("fra-1", "/v2/models/nothing/infer", &body).status, 404);
    let members = fleet.members("fra-1");
    assert_eq!(
        members["nrt-1"]["models"][MODEL],
        serde_json::json!({"versions": ["1"], "gpu": false, "gpu_open": false, "standby": true})
    );
    let index = fleet.post("fra-1", "/v2/repository/index", r#"{"ready":true}"#).json();
    let state = |index: &serde_json::Value| {
        let of_model =
            index.as_array().and_then(|list| list.iter().find(|one| one["name"] == MODEL).cloned());
        of_model.map(|one| (one["state"].clone(), one["reason"].clone()))
    };
    assert_eq!(state(&index), Some(("READY".into(), "served by other nodes, in iad, nrt".into())));
}

#[test]
fn a_version_that_no_node_has_is_unknown_and_orders_belong_to_the_nodes_that_serve() {
    let fleet = three(&[]);
    took("the gateway is ready", || fleet.get("fra-1", "/health/ready").status == 200);
    took("both are known to serve it", || {
        let members = fleet.members("fra-1");
        ["iad-1", "nrt-1"].iter().all(|node| members[*node]["models"].get(MODEL).is_some())
    });
    let body = |version: u32| {
        let values = vec![1.5_f32; WINDOW];
        format!(r#"{{"model":"{MODEL}","version":{version},"series":[{{"values":{values:?}}}]}}"#)
    };
    assert_eq!(fleet.post("fra-1", "/v1/forecast", &body(1)).status, 200);
    let mut answers = vec![fleet.post("fra-1", "/v1/forecast", &body(2))];
    for path in ["", "/ready", "/config"] {
        answers.push(fleet.get("fra-1", &format!("/v2/models/{MODEL}/versions/2{path}")));
    }
    let tensor = format!(
        r#"{{"inputs":[{{"name":"y","shape":[1,{WINDOW}],"datatype":"FP32","data":{:?}}}]}}"#,
        vec![1.5_f32; WINDOW]
    );
    answers.push(fleet.post("fra-1", &format!("/v2/models/{MODEL}/versions/2/infer"), &tensor));
    for answer in answers {
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 404, "{told}");
        assert!(told.contains(&format!("model `{MODEL}` has no version 2")), "{told}");
    }
    for path in ["load", "unload", "unload?version=1", "promote", "rollback"] {
        let answer = fleet.post("fra-1", &format!("/v1/models/{MODEL}/{path}"), "");
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 409, "{path} {told}");
        assert!(told.contains("is not served here but by iad-1, nrt-1: send the order to each"), "{told}");
    }
    let unload = |model: &str| fleet.post("fra-1", &format!("/v2/repository/models/{model}/unload"), "");
    assert_eq!(unload(MODEL).status, 409);
    assert_eq!(unload("nothing").status, 404);
    let load = |model: &str| fleet.post("fra-1", &format!("/v2/repository/models/{model}/load"), "");
    assert_eq!(load(MODEL).status, 409);
    let unserved = load("nothing");
    assert!(unserved.status == 409 && String::from_utf8_lossy(&unserved.body).contains("computes nothing"));
    let here = fleet.get("fra-1", "/v1/models").json()["models"].as_array().expect("a list").clone();
    assert!(here.iter().all(|model| model["state"] != "ready"), "a gateway holds no model: {here:?}");
}

#[test]
fn a_model_whose_nodes_are_gone_is_missing_and_not_unknown() {
    let fleet = three(&[]);
    took("the gateway is ready", || fleet.get("fra-1", "/health/ready").status == 200);
    fleet.signal("iad-1", libc::SIGKILL);
    fleet.signal("nrt-1", libc::SIGKILL);
    let body = format!(r#"{{"model":"{MODEL}","series":[{{"values":{:?}}}]}}"#, vec![1.5_f32; WINDOW]);
    let ask = |body: &str| fleet.post("fra-1", "/v1/forecast", body);
    took("their loss is noticed", || ask(&body).status == 503);
    let answer = ask(&body);
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 503, "{told}");
    assert!(told.contains(&format!("none of the nodes that can be asked serves `{MODEL}`")), "{told}");
    for path in ["ready", "stats"] {
        assert_eq!(fleet.get("fra-1", &format!("/v2/models/{MODEL}/{path}")).status, 503, "{path}");
    }
    assert_eq!(ask(&body.replace(MODEL, "nothing")).status, 404);
}

#[test]
fn large_requests_cross_whole() {
    let fleet = three(&[]);
    let rows = 500;
    let data: Vec<String> = (0..rows * WINDOW).map(|at| format!("{}.5", at % 11)).collect();
    let body = format!(
        r#"{{"inputs":[{{"name":"y","shape":[{rows},{WINDOW}],"datatype":"FP32","data":[{}]}}]}}"#,
        data.join(",")
    );
    let path = format!("/v2/models/{MODEL}/infer");
    let (far, near) = (fleet.post("fra-1", &path, &body), fleet.post("iad-1", &path, &body));
    assert_eq!((far.status, near.status), (200, 200), "{}", String::from_utf8_lossy(&far.body));
    assert_eq!(far.json()["outputs"], near.json()["outputs"]);
}

#[test]
fn a_killed_node_costs_no_answer() {
    let mut fleet = three(&[("PLACEMENT__NBEATS-VOL-QUANTILE__STANDBY", r#"["nrt"]"#)]);
    let load = load(&fleet);
    load.during(CLIENTS, |load| {
        let before = load.next(200);
        // One that is late is asked of the standby too: of at most one in twenty (`routing.hedge_budget`).
        let all: usize = before.by_label.values().sum();
        assert!(before.count("remote:iad") * 20 >= all * 19, "{before:?}");
        fleet.signal("iad-1", libc::SIGKILL);
        let after = load.next(400);
        assert!(after.refusals().is_empty(), "{after:?}");
        assert!(after.count("remote:nrt") > 0 && after.slowest < DEADLINE, "{after:?}");
        fleet.ended("iad-1");
        took("the others have noticed", || {
            fleet.members("fra-1").len() == 2 && fleet.members("nrt-1").len() == 2
        });
        fleet.launch("iad-1");
        took("it answers again", || load.next(20).count("remote:iad") > 0);
        assert!(load.seen().refusals().is_empty());
    });
}

#[test]
fn a_frozen_node_costs_no_answer() {
    let fleet = three(&[("PLACEMENT__NBEATS-VOL-QUANTILE__STANDBY", r#"["nrt"]"#)]);
    let load = load(&fleet);
    load.during(CLIENTS, |load| {
        load.next(200);
        fleet.signal("iad-1", libc::SIGSTOP);
        let frozen = load.next(400);
        assert!(frozen.refusals().is_empty() && frozen.slowest < DEADLINE, "{frozen:?}");
        assert!(frozen.count("remote:nrt") > 0, "{frozen:?}");
        took("the others have noticed", || fleet.members("fra-1").len() == 2);
        fleet.signal("iad-1", libc::SIGCONT);
        took("it answers again", || load.next(20).count("remote:iad") > 0);
        assert!(load.seen().refusals().is_empty());
    });
}

#[test]
fn a_rolling_restart_costs_no_answer() {
    let mut fleet = three(&[]);
    let load = load(&fleet);
    load.during(CLIENTS, |load| {
        load.next(100);
        for name in ["iad-1", "nrt-1"] {
            fleet.signal(name, libc::SIGTERM);
            assert!(fleet.ended(name).success(), "{name} stops in good order");
            load.next(100);
            fleet.launch(name);
            fleet.awaits("fra-1", 3);
            load.next(100);
            let seen = load.seen();
            assert!(seen.refusals().is_empty(), "{name}: {seen:?}");
        }
    });
    assert_eq!(fleet.metric("fra-1", "peregrine_links_refused_total"), 0.0);
}

/// A node that knows another secret is nobody: it sees nobody and nobody sees it.
#[test]
fn a_stranger_is_not_met() {
    let fleet = three(&[]);
    let mut stranger = fleet.spawn(
        "nrt-1",
        &[
            ("NODE__NAME", "stranger"),
            ("CLUSTER__LISTEN", "127.0.0.1:0"),
            ("CLUSTER__ADVERTISE", ""),
            ("CLUSTER__SECRET", "guessed by somebody else"),
        ],
    );
    // Longer than a node of the cluster takes to be met.
    std::thread::sleep(Duration::from_secs(3));
    for name in ["fra-1", "iad-1", "nrt-1"] {
        assert_eq!(fleet.members(name).keys().collect::<Vec<_>>(), ["fra-1", "iad-1", "nrt-1"]);
    }
    stranger.kill().expect("it lives");
    let mut said = String::new();
    stranger.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.contains("ready http://"), "it served by itself: {said}");
    stranger.wait().expect("it has ended");
}

/// `routing.remote` holds from the next request on, without a restart.
#[test]
fn others_are_asked_only_while_that_is_wanted() {
    let fleet = three(&[]);
    let ask = || {
        let values = vec!["1.5"; WINDOW].join(",");
        fleet.post(
            "fra-1",
            "/v1/forecast",
            &format!(r#"{{"model":"{MODEL}","series":[{{"id":"a","values":[{values}]}}]}}"#),
        )
    };
    assert_eq!(ask().status, 200);
    assert_eq!(fleet.post("fra-1", "/v1/config", "routing.remote = false").status, 200);
    assert_eq!(ask().status, 503);
    assert_eq!(fleet.get("fra-1", "/health/ready").status, 503);
    assert_eq!(fleet.post("fra-1", "/v1/config", "routing.remote = true").status, 200);
    assert_eq!(ask().status, 200);
}

/// The nearer of two answers, as measured; packets that are lost cost time and no answer.
#[test]
fn the_nearest_answers_and_lost_packets_cost_nothing() {
    let posts = [
        Post { name: "fra-1", region: "fra", roles: GATEWAY },
        Post { name: "iad-1", region: "iad", roles: INFERENCE },
        Post { name: "nrt-1", region: "nrt", roles: INFERENCE },
    ];
    let fleet = Fleet::apart(&posts, &[]);
    fleet.proxy("nrt-1").set(Duration::from_millis(20), 0);
    let rtt = |name: &str| fleet.members("fra-1")[name]["rtt_ms"].as_f64().expect("measured");
    took("the distance is measured", || rtt("nrt-1") > 35.0);
    let load = load(&fleet);
    load.during(CLIENTS, |load| {
        let near = load.next(200);
        assert!(near.refusals().is_empty() && near.count("remote:iad") >= 200, "{near:?}");
        fleet.proxy("iad-1").set(Duration::from_millis(60), 0);
        took("the other is nearer now", || rtt("iad-1") > 100.0);
        let near = load.next(50);
        assert!(near.refusals().is_empty() && near.count("remote:nrt") >= 50, "{near:?}");
        fleet.proxy("nrt-1").set(Duration::from_millis(20), 30);
        let lossy = load.next(200);
        assert!(lossy.refusals().is_empty() && lossy.slowest < DEADLINE, "{lossy:?}");
        assert_eq!(fleet.members("fra-1").len(), 3, "nobody is taken for dead");
    });
}

/// What keeps a node from its cluster is said in words, and the node ends in good order.
#[test]
fn an_address_that_is_taken_keeps_a_node_from_starting() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it is bound");
    let keys = [
        ("CLUSTER__LISTEN", addr.to_string()),
        ("CLUSTER__SECRET", "of the test's own nodes alone".to_owned()),
        ("SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("BACKEND__CHOICE", "cpu".to_owned()),
    ];
    let environment = keys.map(|(key, value)| (format!("PEREGRINE_{key}"), value)).to_vec();
    let sources = Sources { environment, ..Sources::default() };
    let resolved = resolve(&sources).unwrap_or_else(|err| panic!("{err}"));
    let refused = Node::start(resolved).err().expect("the port is taken").to_string();
    assert!(refused.starts_with("cluster: ") && refused.contains(&addr.to_string()), "{refused}");
}

#[test]
fn what_a_breaker_has_found_out_is_known_to_the_others_and_ejects_nobody() {
    // A thousand rows take longer than a millisecond, so whoever asks for them opens its breaker for the node.
    let posts = [
        Post { name: "asks", region: "iad", roles: GATEWAY },
        Post { name: "hears", region: "iad", roles: GATEWAY },
        Post { name: "slow", region: "iad", roles: INFERENCE },
    ];
    let keys = [("BREAKER__SLOW_AFTER", "1ms"), ("BREAKER__OPEN_FOR", "60s"), ("BREAKER__WINDOW_CALLS", "4")];
    let fleet = Fleet::start(None, &posts, &keys);
    let many = vec![r#"{"symbol":"USD"}"#; 1_000].join(",");
    let body = format!(r#"{{"model":"{MODEL}","series":[{many}]}}"#);
    let doubters = || fleet.members("hears")["slow"]["doubted_by"].clone();
    assert_eq!(doubters(), serde_json::json!([]));
    eventually("the other has heard", || {
        // Nobody else serves the model, so that it is asked however open its breaker is.
        assert_eq!(fleet.post("asks", "/v1/forecast", &body).status, 200);
        doubters() == serde_json::json!(["asks"])
    });
    let own = fleet.get("hears", "/v1/breakers").json();
    let of_peer = |one: &serde_json::Value| one["backend"] == "remote" && one["state"] != "closed";
    assert!(!own["breakers"].as_array().expect("a list").iter().any(of_peer), "hearsay opens nothing: {own}");
    assert_eq!(fleet.post("hears", "/v1/forecast", &body).status, 200);
}

#[test]
fn a_gpu_that_is_not_trusted_is_known_to_the_others() {
    let posts = [
        Post { name: "gateway", region: "iad", roles: GATEWAY },
        Post { name: "gpu", region: "iad", roles: INFERENCE },
    ];
    let fleet = Fleet::start(None, &posts, &[("BACKEND__CHOICE", "software")]);
    let open = || fleet.members("gateway")["gpu"]["models"][MODEL]["gpu_open"].clone();
    eventually("it says that its GPU serves", || open() == serde_json::json!(false));
    for (mode, expected) in [("forced-open", true), ("auto", false)] {
        let order = format!(r#"{{"model":"{MODEL}","backend":"gpu","mode":"{mode}"}}"#);
        assert_eq!(fleet.post("gpu", "/v1/breakers", &order).status, 200);
        eventually("the other has heard", || open() == serde_json::json!(expected));
    }
}
