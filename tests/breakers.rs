//! Devices that lie, and operators that decide.

use serde_json::Value;

use crate::harness::{PowerSwitch, TestNode, eventually};

const BREAKERS: &str = "/v1/breakers";

fn infer(model: &str, window: usize) -> (String, String) {
    let data: Vec<String> = (0..window).map(|at| format!("{}", (at * 17 % 97) as f32 / 10.0)).collect();
    let data = data.join(",");
    let body =
        format!(r#"{{"inputs":[{{"name":"y","shape":[1,{window}],"datatype":"FP32","data":[{data}]}}]}}"#);
    (format!("/v2/models/{model}/infer"), body)
}

/// Values and backend of an answer.
fn ask(node: &TestNode, (path, body): &(String, String)) -> (Vec<f64>, String) {
    let answer = node.post(path, body);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let json = answer.json();
    let values = json["outputs"][0]["data"].as_array().expect("numbers").iter();
    let values = values.map(|value| value.as_f64().expect("a number")).collect();
    (values, json["parameters"]["backend"].as_str().expect("a backend").to_owned())
}

fn breaker(node: &TestNode, model: &str, backend: &str) -> Value {
    let all = node.get(BREAKERS).json();
    let mut all = all["breakers"].as_array().expect("a list").iter();
    let found = all.find(|one| one["model"] == model && one["backend"] == backend);
    found.unwrap_or_else(|| panic!("no breaker of {model} on {backend}")).clone()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_device_with_damaged_weights_is_found_out_and_built_anew() {
    const MODEL: &str = "nhits-vol-quantile";
    let switch = PowerSwitch::default();
    let keys = [("BREAKER__CHECK_EVERY", "20ms"), ("BREAKER__OPEN_FOR", "50ms")];
    let node = TestNode::on_gpu(&switch, &keys);
    let question = infer(MODEL, node.node.system.find(MODEL, None).expect("served").spec.window);
    let (right, backend) = ask(&node, &question);
    assert_eq!(backend, "gpu");
    let near = |values: &[f64]| distance(values, &right) < 1e-4;
    switch.damage();
    // Until a sample is taken, what the device says goes out.
    eventually("it lies", || !near(&ask(&node, &question).0));
    eventually("it is found out", || {
        ask(&node, &question);
        breaker(&node, MODEL, "gpu")["reason"].as_str().is_some_and(|why| why.contains("differs"))
            || node
                .get("/metrics")
                .body
                .windows(38)
                .any(|line| line == b"peregrine_checks_wrong_total{model=\"nh")
    });
    let mut wrong = 0;
    eventually("it is well again", || {
        let (values, backend) = ask(&node, &question);
        wrong += usize::from(!near(&values));
        backend == "gpu" && breaker(&node, MODEL, "gpu")["state"] == "closed"
    });
    assert_eq!(wrong, 0, "nothing wrong goes out once it is known");
    assert!(near(&ask(&node, &question).0));
}

#[test]
fn a_model_that_nobody_has_is_unknown_to_breakers_and_scorecard() {
    const MODEL: &str = "nbeats-vol-quantile";
    let node = TestNode::on_cpu(&[]);
    let asked = |model: &str| {
        let order = node.post(BREAKERS, &format!(r#"{{"model":"{model}","mode":"auto"}}"#));
        let card = node.get(&format!("/v1/scorecard?model={model}"));
        (order.status, card.status)
    };
    assert_eq!(asked("nope"), (404, 404));
    assert_eq!(asked(MODEL), (200, 200));
    let of = |version: u32| node.get(&format!("/v1/scorecard?model={MODEL}&version={version}"));
    assert_eq!((of(1).status, of(99).status), (200, 404));
    assert_eq!(of(99).json()["detail"], format!("model `{MODEL}` has no version 99"));
    // Out of service, it is still known.
    assert_eq!(node.post(&format!("/v1/models/{MODEL}/unload"), "").status, 200);
    assert_eq!(asked(MODEL), (200, 200));
    assert_eq!(node.get("/v1/scorecard").status, 200);
}

#[test]
fn an_order_that_no_breaker_fits_is_refused_and_one_that_takes_back_is_not() {
    const MODEL: &str = "nbeats-vol-quantile";
    let node = TestNode::on_cpu(&[]);
    let order = |order: &str, mode: &str| node.post(BREAKERS, &format!(r#"{{{order},"mode":"{mode}"}}"#));
    for odd in [
        r#""backend":"gpu""#.to_owned(),
        r#""device":7"#.to_owned(),
        r#""node":"nobody""#.to_owned(),
        format!(r#""model":"{MODEL}","device":7"#),
        format!(r#""model":"{MODEL}","backend":"gpu""#),
        format!(r#""model":"{MODEL}","node":"nobody""#),
        format!(r#""model":"{MODEL}","version":99"#),
    ] {
        for mode in ["forced-open", "auto"] {
            let answer = order(&odd, mode);
            assert_eq!(answer.status, 404, "{odd} {mode}: {}", answer.json());
        }
    }
    let told = order(r#""backend":"gpu""#, "disabled").json();
    assert_eq!(
        told["detail"],
        "no breaker of this node is what the order means: GET /v1/breakers shows them"
    );
    // Orders outlive circuits, and are taken back without any.
    let of_model = format!(r#""model":"{MODEL}","backend":"cpu""#);
    assert_eq!(order(&of_model, "forced-open").status, 200);
    assert_eq!(node.post(&format!("/v1/models/{MODEL}/unload"), "").status, 200);
    assert_eq!(order(&of_model, "auto").status, 200);
}

#[test]
fn an_operator_decides_about_breakers() {
    const MODEL: &str = "nbeats-vol-quantile";
    let node = TestNode::on_cpu(&[]);
    let question = infer(MODEL, 64);
    ask(&node, &question);
    let forced =
        node.post(BREAKERS, &format!(r#"{{"model":"{MODEL}","backend":"cpu","mode":"forced-open"}}"#));
    assert_eq!(forced.status, 200);
    let ordered = forced.json();
    assert_eq!(ordered["breakers"].as_array().map(Vec::len), Some(1));
    let told = &ordered["breakers"][0];
    assert_eq!((&told["mode"], &told["state"]), (&"forced-open".into(), &"forced-open".into()));
    assert_eq!(breaker(&node, MODEL, "cpu")["state"], "forced-open");
    let refused = node.post(&question.0, &question.1);
    assert_eq!(refused.status, 503);
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(
        said.contains("forced-open") && !said.contains("forced-open:"),
        "an order needs no reason: {said}"
    );
    let other = infer("nhits-vol-quantile", 64);
    assert_ne!(node.post(&other.0, &other.1).status, 503, "of one model only");
    let metrics = String::from_utf8(node.get("/metrics").body).expect("text");
    assert!(metrics.contains(r#"mode="forced-open""#));
    let given_back = node.post(BREAKERS, r#"{"mode":"auto"}"#).json();
    let mut given_back = given_back["breakers"].as_array().expect("a list").iter();
    assert!(given_back.all(|one| one["mode"] == "auto" && one["state"] == "closed"));
    ask(&node, &question);
}

#[test]
fn an_order_that_is_not_understood_changes_nothing() {
    let node = TestNode::on_cpu(&[]);
    for body in [
        "",
        "{}",
        r#"{"mode":"open"}"#,
        r#"{"mode":"disabled","modell":"x"}"#,
        r#"{"mode":"disabled","backend":"tpu"}"#,
        r#"{"mode":"disabled","node":""}"#,
        r#"{"mode":"disabled","version":-1}"#,
        "[1]",
    ] {
        let answer = node.post(BREAKERS, body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("forced-open")),
            "{body}"
        );
    }
    let all = node.get(BREAKERS).json();
    let mut all = all["breakers"].as_array().expect("a list").iter();
    assert!(all.all(|one| one["mode"] == "auto" && one["state"] == "closed"));
}
