//! Records of predictions, from a request to the command line: by every way that a prediction is asked for.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{TestNode, eventually};

const MODEL: &str = "nhits-vol-quantile";
const WINDOW: usize = 128;

fn node(dir: &Path, keys: &[(&str, &str)]) -> TestNode {
    let dir = dir.display().to_string();
    TestNode::on_cpu(&[&[("AUDIT__DIR", dir.as_str())], keys].concat())
}

fn audit(dir: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .arg("audit")
        .args(arguments)
        .arg("--json")
        .arg("--dir")
        .arg(dir)
        .args(
            (arguments[0] == "replay")
                .then_some(["--models", concat!(env!("CARGO_MANIFEST_DIR"), "/models")])
                .into_iter()
                .flatten(),
        )
        .output();
    output.expect("the binary runs")
}

/// What a verb prints, and that it is content.
#[track_caller]
fn content(dir: &Path, arguments: &[&str]) -> Value {
    let output = audit(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The document knows every member of a record, and none is missing that it promises.
#[track_caller]
fn is_as_documented(node: &TestNode, record: &Value) {
    let document = node.get("/openapi.json").json();
    let answer = &document["paths"]["/v1/audit/{id}"]["get"]["responses"]["200"];
    let name = answer["content"]["application/json"]["schema"]["$ref"].as_str().expect("a reference");
    let schema = &document["components"]["schemas"][name.rsplit('/').next().expect("a name")];
    let check = |value: &Value, schema: &Value| {
        for member in value.as_object().expect("an object").keys() {
            assert!(schema["properties"].get(member).is_some(), "{member} is not in the document");
        }
        for member in schema["required"].as_array().expect("names") {
            assert!(value.get(member.as_str().expect("a name")).is_some(), "{member} is not in {value}");
        }
    };
    check(record, schema);
    check(&record["timing_ms"], &schema["properties"]["timing_ms"]);
    let rows = record["rows"].as_array().expect("rows");
    rows.iter().for_each(|row| check(row, &schema["properties"]["rows"]["items"]));
}

#[test]
fn what_every_dialect_was_answered_is_found_and_made_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), &[]);
    // Native.
    let body = json!({ "model": MODEL, "series": [{ "symbol": "USD" }, { "id": "x/1", "symbol": "GBP" }] });
    let answer = node.post("/v1/forecast", &body.to_string()).json();
    let native: Vec<&str> = answer["forecasts"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["prediction_id"].as_str())
        .collect();
    for (row, (id, series)) in native.iter().zip(["USD", "x/1"]).enumerate() {
        let record = node.get(&format!("/v1/audit/{id}")).json();
        is_as_documented(&node, &record);
        assert_eq!((&record["model"], &record["rows_count"]), (&json!(MODEL), &json!(2)), "{record}");
        assert_eq!((&record["intact"], &record["backend"]), (&json!(true), &json!("cpu")));
        let shown = &record["rows"][0];
        assert_eq!((&shown["prediction_id"], &shown["series"]), (&json!(id), &json!(series)));
        assert_eq!(shown["y"].as_array().map(Vec::len), Some(WINDOW));
        // The columns of the model; the answer's median is one of them.
        let all = shown["forecast"].as_array().expect("numbers");
        let median = answer["forecasts"][row]["median"].as_array().expect("numbers");
        assert!(median.iter().all(|value| all.contains(value)), "{median:?} of {all:?}");
    }
    // V2, by the caller's own id and by ours.
    let values = vec![0.5; WINDOW];
    let tensor = json!({ "name": "y", "datatype": "FP32", "shape": [1, WINDOW], "data": values });
    let body = json!({ "id": "order 7/a", "inputs": [tensor] });
    let answer = node.post(&format!("/v2/models/{MODEL}/infer"), &body.to_string()).json();
    let v2 = answer["parameters"]["prediction_id"].as_str().expect("an id");
    let record = node.get("/v1/audit/order%207%2Fa").json();
    assert_eq!((&record["request"], &record["rows"][0]["prediction_id"]), (&json!("order 7/a"), &json!(v2)));
    assert_eq!(record["rows"][0]["forecast"], answer["outputs"][0]["data"]);
    // The old one.
    let answer = node.post(&format!("/neural/predict?symbol=USD&model={MODEL}"), "").json();
    let old = answer["prediction_id"].as_str().expect("an id").to_owned();
    assert_eq!(node.get(&format!("/v1/audit/{old}")).json()["rows"][0]["series"], json!("USD"));
    assert_eq!(node.get("/v1/audit/1-1").status, 404);
    // Beside the node, then without it.
    for id in [native[0], native[1], "order 7/a", v2, &old] {
        assert_eq!(content(dir.path(), &["show", id])["intact"], json!(true), "{id}");
        let again = content(dir.path(), &["replay", id]);
        assert_eq!((&again["different_bits"], &again["holds"]), (&json!(0), &json!(true)), "{id}");
    }
    let link = node.get("/v1/audit").json()["head"]["link"].as_str().expect("a link").to_owned();
    let metrics = String::from_utf8(node.get("/metrics").body).expect("text");
    for family in
        ["records_total", "bytes_total", "lost_total", "queue_bytes", "failing", "write_seconds_sum"]
    {
        assert!(metrics.contains(&format!("\nperegrine_audit_{family}{{")), "{family}");
    }
    drop(node);
    let report = content(dir.path(), &["verify", "--through", &link]);
    assert_eq!(
        (&report["intact"], &report["records"], &report["killed"]),
        (&json!(true), &json!(3), &json!(0))
    );
}

#[test]
fn a_prediction_of_a_stream_is_found_by_its_number() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("always.toml");
    std::fs::write(&file, format!("[series.always]\n{MODEL} = [\"fx/*\"]\n")).expect("a file");
    let records = dir.path().join("records");
    let node = TestNode::with_file(&file, &[("AUDIT__DIR", &records.display().to_string())]);
    let lines: String = (0..WINDOW + 1)
        .map(|ts| format!("{{\"series\":\"fx/EUR\",\"ts\":{ts},\"value\":{}}}\n", (ts % 13) as f32 * 0.1))
        .collect();
    assert_eq!(node.post("/v1/ticks", &lines).status, 200);
    let name = format!("{MODEL}/fx/EUR#{}", WINDOW + 1);
    let escaped = name.replace('/', "%2F").replace('#', "%23");
    eventually("the prediction is recorded", || node.get(&format!("/v1/audit/{escaped}")).status == 200);
    let row = &node.get(&format!("/v1/audit/{escaped}")).json()["rows"][0];
    assert_eq!((&row["series"], &row["seq"]), (&json!("fx/EUR"), &json!(WINDOW + 1)));
    drop(node);
    assert_eq!(content(&records, &["replay", &name])["holds"], json!(true));

    // Without a journal the numbers begin anew.
    let former = row.clone();
    let node = TestNode::with_file(&file, &[("AUDIT__DIR", &records.display().to_string())]);
    assert_eq!(node.post("/v1/ticks", &lines.replace("0.1", "0.2")).status, 200);
    let show = |name: &str| {
        let escaped = name.replace('/', "%2F").replace('#', "%23").replace('@', "%40");
        node.get(&format!("/v1/audit/{escaped}")).json()
    };
    eventually("the other is recorded", || show(&name)["rows"][0]["epoch"] != former["epoch"]);
    let newest = show(&name);
    assert_eq!(newest["others"], json!([former["prediction_id"]]), "{newest}");
    is_as_documented(&node, &newest);
    let of_epoch = |row: &serde_json::Value| show(&format!("{name}@{}", row["epoch"]));
    assert_eq!(of_epoch(&former)["rows"][0], former);
    assert_eq!(of_epoch(&newest["rows"][0])["rows"], newest["rows"]);
    assert!(of_epoch(&former).get("others").is_none(), "nothing else is called so");
    let shown = content(&records, &["show", &format!("{name}@{}", former["epoch"])]);
    assert_eq!(shown["rows"][0]["prediction_id"], former["prediction_id"]);
    assert_eq!(content(&records, &["show", &name])["others"], newest["others"]);
}

#[test]
fn what_was_edited_behind_the_nodes_back_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(node(dir.path(), &[]));
    let segment = dir.path().join("0000000000000001.segment");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).expect("a segment");
    let output = audit(dir.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        report["faults"][0].as_str().is_some_and(|fault| fault.starts_with("segment 1, byte 88")),
        "{report}"
    );
    // It still starts, and says so for good.
    let again = node(dir.path(), &[]);
    let body = json!({ "model": MODEL, "series": [{ "symbol": "USD" }] });
    assert_eq!(again.post("/v1/forecast", &body.to_string()).status, 200);
    drop(again);
    assert_eq!(audit(dir.path(), &["verify"]).status.code(), Some(1));
}

#[test]
fn a_folder_without_records_is_not_one_whose_records_were_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("notes.txt"), "nothing of a node's").expect("a file");
    let output = audit(dir.path(), &["verify"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("there are no records here") && !said.contains("changed"), "{said}");
    // Of a node that has answered nothing there are.
    let records = tempfile::tempdir().expect("a folder");
    drop(node(records.path(), &[]));
    assert_eq!(content(records.path(), &["verify"])["records"], json!(0));
}
