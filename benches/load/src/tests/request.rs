//! Requests read back, by kind.

use serde_json::{Value, json};

use super::*;
use crate::http;
use crate::shape::Tensor;
use crate::target::Trust;

#[test]
fn json_holds_its_tensors() {
    let (head, body) = one(Kind::Json, 2);
    assert!(head.starts_with("POST /v2/models/m/infer HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{head}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["parameters"], json!({"timeout": 250_000}));
    for (at, (name, shape, len)) in
        [("y", json!([2, 4]), 8), ("hist_exog", json!([2, 4, 3]), 24)].into_iter().enumerate()
    {
        let input = &body["inputs"][at];
        assert_eq!(
            (&input["name"], &input["shape"], &input["datatype"]),
            (&json!(name), &shape, &json!("FP32"))
        );
        assert_eq!(input["data"].as_array().unwrap().len(), len);
    }
}

#[test]
fn raw_tensors_stand_behind_their_header() {
    let (head, body) = one(Kind::Binary, 2);
    let len = head.split("Inference-Header-Content-Length: ").nth(1).unwrap().split('\r').next().unwrap();
    let (json, tail) = body.split_at(len.parse().unwrap());
    let read: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(read["parameters"], json!({"timeout": 250_000, "binary_data_output": true}));
    assert_eq!(read["inputs"][0]["parameters"]["binary_data_size"], 32);
    assert_eq!(tail.len(), 4 * (8 + 24));
}

#[test]
fn a_native_request_has_a_series_for_each_row() {
    let (_, body) = one(Kind::Native, 3);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let series = body["series"].as_array().unwrap();
    assert_eq!((series.len(), &body["deadline_ms"], &body["model"]), (3, &json!(250), &json!("m")));
    for one in series {
        assert_eq!(
            (one["values"].as_array().unwrap().len(), one["hist_exog"].as_array().unwrap().len()),
            (4, 12)
        );
    }
    assert_ne!(series[0]["values"], series[1]["values"]);
}

#[test]
fn symbols_take_turns() {
    assert_eq!(
        serde_json::from_slice::<Value>(&one(Kind::Neural, 1).1).unwrap(),
        json!({"model": "m", "symbol": "A"})
    );
    let (head, body) = one(Kind::Neural, 3);
    assert!(head.starts_with("POST /neural/batch_predict "), "{head}");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["symbols"], json!(["A", "B", "A"]));
}

#[test]
fn a_seed_is_a_set_of_requests() {
    let of = |seed| requests(&target(), &shape(&[4]), &Ask { seed, ..ask(Kind::Json, 1) }).unwrap();
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    assert_eq!(of(1).len(), REQUESTS_MAX);
    assert_ne!(of(1)[0], of(1)[1]);
}

#[test]
fn what_does_not_suit_a_model_is_refused() {
    let refused = |dims: &[usize], ask: &Ask| requests(&target(), &shape(dims), ask).is_err();
    assert!(refused(&[4, 2], &ask(Kind::Native, 1)), "several series");
    assert!(!refused(&[4, 2], &ask(Kind::Json, 1)));
    assert!(refused(&[4], &ask(Kind::Stream, 1)), "exogenous columns");
    assert!(refused(&[4], &Ask { symbols: Vec::new(), ..ask(Kind::Neural, 1) }), "no symbols");
}

fn one(kind: Kind, rows: usize) -> (String, Vec<u8>) {
    let all = requests(&target(), &shape(&[4]), &ask(kind, rows)).unwrap();
    let end = all[0].windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (head, body) = all[0].split_at(end);
    // A request's fields are those of an answer.
    let answer =
        [b"HTTP/1.1 200 OK\r\n".as_slice(), head.splitn(2, |byte| *byte == b'\n').nth(1).unwrap(), body]
            .concat();
    let read = http::head(&answer).unwrap().unwrap();
    assert_eq!(http::body(&read, &answer).unwrap().unwrap(), body);
    (String::from_utf8(head.to_vec()).unwrap(), body.to_vec())
}

fn ask(kind: Kind, rows: usize) -> Ask {
    let symbols = ["A", "B"].map(str::to_owned).to_vec();
    Ask { kind, rows, deadline: Some(Duration::from_millis(250)), seed: 1, symbols }
}

fn shape(dims: &[usize]) -> Shape {
    let tensor = |name: &str, dims: &[usize]| Tensor { name: name.to_owned(), dims: dims.to_vec() };
    let inputs = vec![tensor("y", dims), tensor("hist_exog", &[4, 3])];
    Shape { model: "m".to_owned(), inputs, output: tensor("forecast", &[2, 1]) }
}

fn target() -> Target {
    Target::new("http://127.0.0.1:1", &Trust::Usual, None, Duration::from_secs(1)).unwrap()
}
