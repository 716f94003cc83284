//! Every door gives the same number: `/v2` as JSON and binary, `/v1/forecast`, and the offline CSV.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use peregrine_shaders::{Forecaster, Scratch, Windows, cpu::CpuExecutor};
use serde_json::{Value, json};

use crate::harness::{Cases, Client, NodeProcess, Response, TestNode, request};

const MODELS: [&str; 3] = ["nhits-168x24-quantile", "nhits-vol-quantile", "nbeats-vol-quantile"];
/// A model that reads and answers several series together.
const SEVERAL: &str = "tsmixer-vol-point";
const SERIES: usize = 23;
/// `models/README.md`: what counts as equal.
const TOLERANCE: f64 = 1e-4;

/// What the library computes without any server: the number that every door must give, bit for bit.
fn direct(model: &str, windows: &Windows) -> Vec<f32> {
    let forecaster = Forecaster::load(&Cases::folder(model)).expect("a model that ships");
    let mut out = Vec::new();
    forecaster
        .forecast(&mut CpuExecutor::new(1), windows, &mut Scratch::default(), &mut out)
        .expect("finite");
    out
}

fn row(windows: &Windows, row: usize) -> Windows {
    let window = windows.y.len() / windows.rows;
    let range = row * window..(row + 1) * window;
    let mask = windows.mask.as_ref().map(|mask| mask[range.clone()].to_vec());
    Windows { rows: 1, y: windows.y[range].to_vec(), mask, ..Windows::default() }
}

fn list(values: &[f32]) -> String {
    let mut text = String::from("[");
    for (i, value) in values.iter().enumerate() {
        write!(text, "{}{value}", if i > 0 { "," } else { "" }).expect("memory");
    }
    text + "]"
}

/// Dimensions of a row of `y`, as its shape says them.
fn dims(model: &str, windows: &Windows) -> String {
    let len = windows.y.len() / windows.rows;
    if model == SEVERAL { format!("{},{SERIES}", len / SERIES) } else { len.to_string() }
}

fn v2_json(addr: SocketAddr, backend: &str, model: &str, windows: &Windows) -> Vec<f32> {
    let dims = dims(model, windows);
    let tensor = |name: &str, data: &[f32]| {
        format!(
            r#"{{"name":"{name}","shape":[{},{dims}],"datatype":"FP32","data":{}}}"#,
            windows.rows,
            list(data)
        )
    };
    let mut inputs = vec![tensor("y", &windows.y)];
    inputs.extend(windows.mask.as_ref().map(|mask| tensor("mask", mask)));
    let body = format!(r#"{{"id":"7","inputs":[{}]}}"#, inputs.join(","));
    let answer = request(addr, "POST", &format!("/v2/models/{model}/infer"), &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let json = answer.json();
    assert_eq!(json["id"], "7");
    assert_eq!(json["model_name"], model);
    assert_eq!(json["parameters"]["backend"], backend);
    let data = json["outputs"][0]["data"].as_array().expect("flat data");
    // Shortest round-trip text of an f32 is read as f64 here; narrowing gives the very f32 back.
    data.iter().map(|n| n.as_f64().expect("a number") as f32).collect()
}

fn v2_binary(client: &mut Client, model: &str, windows: &Windows) -> Vec<f32> {
    let dims = dims(model, windows);
    let bytes = windows.y.len() * 4;
    let tensor = |name: &str| {
        format!(
            r#"{{"name":"{name}","shape":[{},{dims}],"datatype":"FP32","parameters":{{"binary_data_size":{bytes}}}}}"#,
            windows.rows
        )
    };
    let mut inputs = vec![tensor("y")];
    inputs.extend(windows.mask.as_ref().map(|_| tensor("mask")));
    let json = format!(r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{}]}}"#, inputs.join(","));
    let mut body = json.clone().into_bytes();
    body.extend(windows.y.iter().chain(windows.mask.iter().flatten()).flat_map(|value| value.to_le_bytes()));
    let length = json.len().to_string();
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    let answer =
        client.send("POST", &format!("/v2/models/{model}/infer"), &headers, &body).expect("an answer");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let split: usize =
        answer.header("inference-header-content-length").expect("binary").parse().expect("a number");
    let floats = answer.body[split..].chunks_exact(4);
    floats.map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

#[test]
fn a_body_that_is_too_large_is_not_sent_for() {
    let node = TestNode::on_cpu(&[("SERVER__BODY_MAX", "1KiB")]);
    let asked = |path: &str, bytes: usize| {
        let mut client = Client::connect(node.node.addr).expect("connects");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {bytes}\r\n\r\n"
        );
        client.send_raw(head.as_bytes()).expect("sent");
        client.receive().expect("an answer")
    };
    for path in ["/v1/forecast", "/v2/models/m/infer"] {
        let refused = asked(path, 1025);
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert_eq!(refused.status, 413, "{text}");
        assert!(text.contains("the body is larger than 1024 bytes"), "{text}");
        assert_eq!(asked(path, 1024).status, 100, "one that fits is sent for");
    }
}

#[test]
fn v2_json_and_binary_give_the_verified_number() {
    let node = NodeProcess::start(&["--backend", "cpu"]);
    let mut client = Client::connect(node.addr).expect("connects");
    for model in MODELS {
        let cases = Cases::read(model);
        let expected = direct(model, &cases.windows);
        assert_eq!(v2_json(node.addr, "cpu", model, &cases.windows), expected, "{model} as JSON");
        assert_eq!(v2_binary(&mut client, model, &cases.windows), expected, "{model} as binary");
        let answer_len = expected.len() / cases.windows.rows;
        for r in 0..cases.windows.rows {
            let error = cases.error(r, &expected[r * answer_len..(r + 1) * answer_len]);
            assert!(error <= TOLERANCE, "{model} case {r}: {error:e}");
        }
    }
}

#[test]
fn the_native_route_gives_the_same_number_and_says_who_made_it() {
    let node = NodeProcess::start(&["--backend", "cpu"]);
    let model = MODELS[0];
    let cases = Cases::read(model);
    // Case 0 is a whole real window: the native route has no mask to send.
    let window = row(&cases.windows, 0);
    let expected = direct(model, &window);
    let body = format!(
        r#"{{"model":"{model}","series":[{{"id":"s","values":{}}}],"levels":[80,95]}}"#,
        list(&window.y)
    );
    let answer = request(node.addr, "POST", "/v1/forecast", &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let median: Vec<f32> = expected.chunks_exact(5).map(|step| step[0]).collect();
    let json = answer.json();
    let found = find_array(&json, median.len(), &median);
    assert!(found, "no member of the answer holds the median {median:?}: {text}");
    assert!(text.contains("\"backend\":\"cpu\""), "{text}");
    assert!(text.contains("\"degraded\":false"), "{text}");
}

/// Is `wanted` somewhere in `json` as an array of numbers?
fn find_array(json: &serde_json::Value, len: usize, wanted: &[f32]) -> bool {
    match json {
        serde_json::Value::Array(items) => {
            let numbers: Option<Vec<f32>> = items.iter().map(|n| n.as_f64().map(|n| n as f32)).collect();
            (items.len() == len && numbers.as_deref() == Some(wanted))
                || items.iter().any(|item| find_array(item, len, wanted))
        }
        serde_json::Value::Object(members) => members.values().any(|member| find_array(member, len, wanted)),
        _ => false,
    }
}

#[test]
fn the_demo_answers_by_symbol() {
    let node = NodeProcess::start(&["--backend", "cpu"]);
    for (path, body) in [
        ("/neural/predict", r#"{"symbol":"USD"}"#),
        ("/neural/batch_predict", r#"{"symbols":["USD","JPY"]}"#),
        ("/v1/forecast", r#"{"model":"nbeats-vol-quantile","series":[{"id":"a","symbol":"USD"}]}"#),
    ] {
        let answer =
            request(node.addr, "POST", path, &[("Content-Type", "application/json")], body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    }
}

/// Old and new route print the same digits of the same numbers.
#[test]
fn the_compatible_route_prints_what_the_native_one_does() {
    let node = NodeProcess::start(&["--backend", "cpu"]);
    let text = |path: &str, body: &str| {
        let answer = request(node.addr, "POST", path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{path}");
        String::from_utf8(answer.body).expect("text")
    };
    let native = text("/v1/forecast", r#"{"series":[{"id":"a","symbol":"USD"}]}"#);
    let (_, median) = native.split_once("\"median\":").expect("a median");
    let (median, _) = median.split_once(']').expect("a list");
    for (path, body) in
        [("/neural/predict", r#"{"symbol":"USD"}"#), ("/neural/batch_predict", r#"{"symbols":["USD"]}"#)]
    {
        let compatible = text(path, body);
        assert!(compatible.contains(median), "{path}: {median} is not in {compatible}");
    }
}

#[test]
fn a_row_is_the_same_alone_and_among_a_thousand() {
    let node = NodeProcess::start(&["--backend", "cpu"]);
    let mut client = Client::connect(node.addr).expect("connects");
    let model = MODELS[0];
    let cases = Cases::read(model);
    let mut crowd = Windows { mask: Some(Vec::new()), ..Windows::default() };
    for i in 0..1000 {
        crowd.append(&row(&cases.windows, i % cases.windows.rows), 168);
    }
    let together = v2_binary(&mut client, model, &crowd);
    let answer_len = together.len() / crowd.rows;
    for r in [0, 1, 5, 6, 7, 31, 499, 998, 999] {
        let alone = v2_binary(&mut client, model, &row(&crowd, r));
        assert_eq!(alone, together[r * answer_len..(r + 1) * answer_len], "row {r}");
    }
}

#[test]
fn the_offline_csv_gives_the_same_number() {
    let model = MODELS[0];
    let cases = Cases::read(model);
    let window = row(&cases.windows, 0);
    let expected = direct(model, &window);
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
    let mut csv = String::from("unique_id,ds,y\n");
    for (day, value) in window.y.iter().enumerate() {
        writeln!(csv, "s,{day},{value}").expect("memory");
    }
    std::fs::write(&input, csv).expect("writes");
    let done = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["forecast", "--model", model, "--input"])
        .arg(&input)
        .arg("--output")
        .arg(&output)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut reader = csv::Reader::from_path(&output).expect("a CSV");
    let headers = reader.headers().expect("headers").clone();
    let first = headers.iter().position(|name| name == "median").expect("a median column");
    let got: Vec<f32> = reader
        .records()
        .flat_map(|record| {
            let record = record.expect("a record");
            (first..first + 5).map(|i| record[i].parse().expect("a number")).collect::<Vec<f32>>()
        })
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn a_model_of_several_series_answers_them_together_and_by_v2_alone() {
    let node = NodeProcess::start(&["--backend", "cpu", "--models", "tests/models"]);
    let mut client = Client::connect(node.addr).expect("connects");
    let cases = Cases::read(SEVERAL);
    let expected = direct(SEVERAL, &cases.windows);
    assert_eq!(v2_json(node.addr, "cpu", SEVERAL, &cases.windows), expected, "as JSON");
    assert_eq!(v2_binary(&mut client, SEVERAL, &cases.windows), expected, "as binary");
    let answer_len = expected.len() / cases.windows.rows;
    for r in 0..cases.windows.rows {
        let error = cases.error(r, &expected[r * answer_len..(r + 1) * answer_len]);
        assert!(error <= TOLERANCE, "case {r}: {error:e}");
    }

    let metadata = request(node.addr, "GET", &format!("/v2/models/{SEVERAL}"), &[], b"").json();
    assert_eq!(metadata["inputs"][0]["shape"], serde_json::json!([-1, 64, 23]));
    assert_eq!(metadata["inputs"][1]["shape"], serde_json::json!([-1, 64, 23]));
    assert_eq!(metadata["outputs"][0]["shape"], serde_json::json!([-1, 20, 23]));

    let infer = format!("/v2/models/{SEVERAL}/infer");
    let flat =
        r#"{"inputs":[{"name":"y","shape":[1,1472],"datatype":"FP32","parameters":{"binary_data_size":0}}]}"#;
    for (path, body, status, words) in [
        (infer.as_str(), flat.to_owned(), 400, "[-1, 64, 23]"),
        (
            "/v1/forecast",
            format!(r#"{{"model":"{SEVERAL}","series":[{{"symbol":"USD"}}]}}"#),
            422,
            "23 series",
        ),
        ("/neural/predict", format!(r#"{{"model":"{SEVERAL}","symbol":"USD"}}"#), 422, "23 series"),
    ] {
        let answer = request(node.addr, "POST", path, &[], body.as_bytes());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{path}: {text}");
        assert!(text.contains(words), "{path}: {text}");
    }
}

#[test]
fn models_that_do_not_fit_the_device_together_take_turns_there() {
    let variables = [("PEREGRINE_BACKEND__GPU_MEMORY", "4MiB")];
    let node = NodeProcess::start_with(&["--backend", "software"], &variables);
    let memory = || request(node.addr, "GET", "/health/gpu", &[], b"").json()["devices"][0]["memory"].clone();
    let number =
        |of: &serde_json::Value, key: &str| of[key].as_u64().unwrap_or_else(|| panic!("{key} of {of}"));
    let before = number(&memory(), "evictions");
    for _ in 0..2 {
        for model in MODELS {
            let cases = Cases::read(model);
            let got = v2_json(node.addr, "gpu", model, &cases.windows);
            let answer_len = got.len() / cases.windows.rows;
            for (row, got) in got.chunks_exact(answer_len).enumerate() {
                let error = cases.error(row, got);
                assert!(error <= TOLERANCE, "{model}, case {row}: {error:e}");
            }
            let kept = memory();
            assert!(number(&kept, "plan_bytes") + number(&kept, "batch_bytes") <= 4 << 20, "{kept}");
            assert_eq!(number(&kept, "budget_bytes"), 4 << 20);
        }
    }
    assert!(number(&memory(), "evictions") > before, "some left for others: {}", memory());
    assert_eq!(request(node.addr, "GET", "/health/ready", &[], b"").status, 200);
}

#[test]
fn the_offline_csv_refuses_a_model_of_several_series() {
    let done = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args([
            "forecast",
            "--model",
            "tests/models/tsmixer-vol-point",
            "--input",
            "models/portfolio_small.csv",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("23 series together"), "{said}");
}

/// The same numbers as a node gives, though they are no columns of the network.
#[test]
fn the_offline_csv_gives_the_intervals_of_a_distribution_and_reads_what_is_piped() {
    const DISTRIBUTION: &str = "deepar-ret";
    let node = NodeProcess::start(&["--backend", "cpu", "--models", "tests/models"]);
    let window = row(&Cases::read(DISTRIBUTION).windows, 0);
    let (values, mask) = (&window.y, window.mask.as_ref().expect("a mask"));
    let body = json!({ "model": DISTRIBUTION, "series": [{ "values": values, "mask": mask }], "levels": [80, 90], "horizon": 2 });
    let answer = request(node.addr, "POST", "/v1/forecast", &[], body.to_string().as_bytes()).json();
    let answer = &answer["forecasts"][0];

    let mut csv = String::from("unique_id,ds,y\n");
    for (hour, (value, known)) in values.iter().zip(mask).enumerate() {
        let value = if *known == 0.0 { String::new() } else { value.to_string() };
        let (day, hour) = (1 + hour / 24, hour % 24);
        writeln!(csv, "s,2026-01-{day:02}T{hour:02}:00Z,{value}").expect("memory");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["forecast", "--model", "tests/models/deepar-ret", "--input", "-"])
        .args(["--levels", "90,80", "--horizon", "2"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    child.stdin.take().expect("piped").write_all(csv.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("ends");
    assert!(done.status.success());
    let mut reader = csv::Reader::from_reader(&*done.stdout);
    let headers = reader.headers().expect("headers").clone();
    let headers: Vec<&str> = headers.iter().collect();
    assert_eq!(headers, ["unique_id", "step", "ds", "mean", "lo-90", "lo-80", "hi-80", "hi-90"]);
    let interval = |place: usize, end: &str| &answer["intervals"][place][end];
    let columns =
        [&answer["mean"], interval(1, "lo"), interval(0, "lo"), interval(0, "hi"), interval(1, "hi")];
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("records");
    assert_eq!(records.len(), 2);
    for (step, record) in records.iter().enumerate() {
        let at = values.len() + step;
        assert_eq!(&record[2], format!("2026-01-{:02}T{:02}:00Z", 1 + at / 24, at % 24));
        for (column, text) in columns.iter().zip(record.iter().skip(3)) {
            let (got, want): (f32, f32) =
                (text.parse().expect("a number"), column[step].as_f64().expect("a number") as f32);
            assert_eq!(got, want, "{record:?} {answer}");
        }
    }
}

/// As `values` with a mask, and as `peregrine forecast` of the same file.
#[test]
fn data_with_empty_cells_are_masked_and_other_columns_are_nobodys_matter() {
    const MODEL: &str = "nhits-vol-quantile";
    let window = row(&Cases::read(MODEL).windows, 0);
    let missing = [7, 70];
    let mut csv = String::from("note,logrv5,ds,unique_id,empty\n");
    for (day, value) in window.y.iter().enumerate() {
        let value = if missing.contains(&day) { String::new() } else { value.to_string() };
        writeln!(csv, "quiet,{value},{day},s,").expect("memory");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("data.csv.gz");
    let mut encoder = GzEncoder::new(std::fs::File::create(&file).expect("a file"), Compression::fast());
    encoder.write_all(csv.as_bytes()).expect("writes");
    encoder.finish().expect("writes");

    let node = TestNode::on_cpu(&[("DATA__FILE", &file.display().to_string()), ("DEMO__RATE", "20")]);
    let ask = |series: Value| {
        let body = json!({ "model": MODEL, "series": [series] }).to_string();
        let answer = node.post("/v1/forecast", &body);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["forecasts"][0]["median"].clone()
    };
    let known = |day: usize| if missing.contains(&day) { 0.0 } else { 1.0 };
    let mask: Vec<f32> = (0..window.y.len()).map(known).collect();
    let values: Vec<f32> = window.y.iter().zip(&mask).map(|(value, known)| value * known).collect();
    assert_eq!(ask(json!({ "symbol": "s" })), ask(json!({ "values": values, "mask": mask })));
}

#[test]
fn large_answers_are_packed_where_the_caller_prefers_that() {
    let node = TestNode::on_cpu(&[]);
    let ask = |path: &str, wishes: &str| {
        let answer = request(node.node.addr, "GET", path, &[("Accept-Encoding", wishes)], b"");
        assert_eq!((answer.status, answer.header("vary").is_some()), (200, true), "{path}");
        answer
    };
    for path in ["/metrics", "/openapi.json"] {
        let plain = ask(path, "gzip;q=0.1, identity;q=1");
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        for (wishes, coding) in [("gzip, deflate, br, zstd", "gzip"), ("deflate", "deflate"), ("*", "gzip")] {
            let packed = ask(path, wishes);
            assert_eq!(packed.header("content-encoding"), Some(coding), "{path}");
            assert!(packed.body.len() * 4 < plain.body.len(), "{path}: {}", packed.body.len());
            let mut text = Vec::new();
            match coding {
                "gzip" => GzDecoder::new(&*packed.body).read_to_end(&mut text),
                _ => ZlibDecoder::new(&*packed.body).read_to_end(&mut text),
            }
            .expect("what was packed");
            if path == "/openapi.json" {
                assert_eq!(text, plain.body);
            } else {
                assert!(text.starts_with(b"# "), "{path}");
            }
        }
    }

    let cases = Cases::read(MODELS[0]);
    let infer = |rows: usize, wishes: &str| {
        let (y_len, window) = (cases.windows.y.len() / cases.windows.rows, row(&cases.windows, 0));
        let data = list(&window.y.repeat(rows));
        let input = format!(r#"{{"name":"y","shape":[{rows},{y_len}],"datatype":"FP32","data":{data}}}"#);
        let (path, body) = (format!("/v2/models/{}/infer", MODELS[0]), format!(r#"{{"inputs":[{input}]}}"#));
        request(node.node.addr, "POST", &path, &[("Accept-Encoding", wishes)], body.as_bytes())
    };
    let coding = |answer: &Response| answer.header("content-encoding").map(str::to_owned);
    let packed = infer(32, "gzip");
    assert_eq!((packed.status, coding(&packed).as_deref()), (200, Some("gzip")));
    let plain = infer(32, "gzip;q=0.1, identity;q=1");
    assert_eq!((plain.status, coding(&plain), plain.header("vary")), (200, None, Some("accept-encoding")));
    let small = infer(1, "gzip");
    assert_eq!((small.status, coding(&small), small.header("vary")), (200, None, None));
}
