//! `peregrine bench` against real nodes: every body, both loops, two URLs, and servers that answer wrongly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{NodeProcess, TestNode, drawn_key};
use crate::tls::Authority;

const MODEL: &str = "nhits-vol-quantile";
const SHORT: [&str; 6] = ["--seconds", "0.3", "--warmup", "0.1", "--windows", "3"];

#[test]
fn every_body_is_answered_in_a_closed_and_in_an_open_loop() {
    let node = TestNode::on_cpu(&[]);
    for body in ["json", "binary", "native", "neural", "stream"] {
        for load in [["--concurrency", "2"], ["--rate", "40"]] {
            let body =
                body_of(node.node.addr, &[&["--body", body, "--connections", "4"], &load[..]].concat());
            let level = &body["levels"][0];
            check_level(level);
            assert_eq!(level["mode"], if load[0] == "--rate" { "open" } else { "closed" });
            assert_eq!(level["failures"], json!({}), "{body}");
            let source = match body["body"].as_str() {
                Some("native") => "answers",
                Some("stream") => "predictions",
                _ => "statistics",
            };
            assert_eq!(level["server"]["source"], source, "{body}");
        }
    }
}

#[test]
fn a_ramp_has_a_level_for_each_step_and_a_row_for_each_window() {
    let node = TestNode::on_cpu(&[]);
    let dir = tempfile::tempdir().expect("a folder");
    let csv = dir.path().join("windows.csv");
    let csv_text = csv.display().to_string();
    let body = body_of(node.node.addr, &["--concurrency", "1:4", "--rows", "3", "--csv", &csv_text]);
    let levels = body["levels"].as_array().expect("levels");
    let connections: Vec<_> = levels.iter().map(|level| level["connections"].clone()).collect();
    assert_eq!(connections, [1, 2, 4]);
    for level in levels {
        let rates = ["requests_per_s", "windows_per_s"].map(|name| level[name].as_f64().expect("a rate"));
        assert!((rates[1] / rates[0] - 3.0).abs() < 1e-9, "{rates:?}");
    }
    let windows: u64 = levels.iter().filter_map(|level| level["windows"].as_u64()).sum();
    let text = std::fs::read_to_string(csv).expect("a table");
    assert_eq!(text.lines().count() as u64, windows + 1, "{text}");
    assert!(text.starts_with("load,window,url,model,body,rows,connections,"), "{text}");
}

#[test]
fn rows_of_csv_say_where_the_time_went() {
    let node = TestNode::on_cpu(&[]);
    let dir = tempfile::tempdir().expect("a folder");
    for (body, source, spread, lacking) in [
        ("native", "answers", true, &["made"][..]),
        ("binary", "statistics", false, &["made"]),
        ("stream", "predictions", true, &["transfer"]),
    ] {
        let file = dir.path().join(body);
        body_of(node.node.addr, &["--body", body, "--csv", &file.display().to_string()]);
        let mut table = csv::Reader::from_path(file).expect("a table");
        let head = table.headers().expect("names").clone();
        let mut windows = 0;
        for row in table.records().map(|row| row.expect("a row")) {
            windows += 1;
            let cell = |name: &str| {
                let at =
                    head.iter().position(|known| known == name).unwrap_or_else(|| panic!("{name}: {head:?}"));
                &row[at]
            };
            assert_eq!(cell("split_source"), source, "{row:?}");
            for hop in ["queue", "compute", "transfer", "made", "rest"] {
                let is_known = !lacking.contains(&hop);
                let mean = cell(&format!("{hop}_mean_ms")).parse::<f64>();
                assert_eq!(mean.is_ok_and(|ms| ms >= 0.0), is_known, "{body} {hop}: {row:?}");
                // Of a stream's predictions only when they were made is told of each.
                let told_of_each = is_known && spread && (body != "stream" || matches!(hop, "made" | "rest"));
                for figure in ["p50", "p99"] {
                    let cell = cell(&format!("{hop}_{figure}_ms"));
                    assert_eq!(!cell.is_empty(), told_of_each, "{body} {hop} {figure}: {row:?}");
                }
            }
        }
        assert!(windows > 0, "{body}");
    }
}

#[test]
fn two_servers_take_turns_and_are_compared() {
    let (a, b) = (TestNode::on_cpu(&[]), TestNode::on_cpu(&[]));
    let other = format!("http://{}", b.node.addr);
    let body = body_of(a.node.addr, &["--against", &other, "--concurrency", "2", "--windows", "4"]);
    assert_eq!((&body["pairs"], &body["against"]), (&json!(4), &json!(other)));
    for side in ["a", "b"] {
        assert!(body[side]["answered"].as_u64().is_some_and(|count| count > 0), "{body}");
        assert_eq!(body[side]["failures"], json!({}));
    }
    for name in ["requests_per_s", "p50_ms", "p99_ms"] {
        let ratio = &body["ratios"][name];
        let [middle, low, high] =
            ["b_to_a", "low", "high"].map(|name| ratio[name].as_f64().expect("a ratio"));
        assert!(low > 0.0 && low <= middle && middle <= high, "{ratio}");
    }
}

#[test]
fn a_request_is_taken_apart_hop_by_hop() {
    let node = TestNode::on_cpu(&[]);
    for kind in ["native", "binary"] {
        let body = body_of(node.node.addr, &["--breakdown", "--body", kind]);
        assert!(body["answered"].as_u64().is_some_and(|count| count > 0), "{body}");
        let mean =
            |hop: &str| body["hops_ms"][hop]["mean"].as_f64().unwrap_or_else(|| panic!("{hop}: {body}"));
        let parts = ["write", "between", "queue", "compute", "transfer", "read", "parse"].map(mean);
        // Means are of buckets; what the two clocks saw is what there was.
        let (sum, total) = (parts.iter().sum::<f64>(), mean("total"));
        assert!((sum / total - 1.0).abs() < 0.05, "{kind}: {parts:?} of {total}");
    }
}

#[test]
fn a_person_gets_a_table_and_a_verdict() {
    let node = TestNode::on_cpu(&[]);
    let output = bench(node.node.addr, &["--concurrency", "1:2"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("load") && lines[3].starts_with("most with"), "{text}");
    assert!(lines[1].starts_with("1 connection ") && lines[2].starts_with("2 connections "), "{text}");
}

#[test]
fn what_fails_is_counted_by_kind_and_ends_with_1() {
    let node = TestNode::on_cpu(&[]);
    let output = bench(node.node.addr, &["--body", "neural", "--symbols", "NOBODY", "--json"]);
    let body: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failures = &body["levels"][0]["failures"];
    assert!(failures["http_404"].as_u64().is_some_and(|count| count > 0), "{body}");
    assert_eq!((output.status.code(), &body["levels"][0]["answered"]), (Some(1), &json!(0)));
    assert_eq!(body["verdict"], "nothing was answered");
}

#[test]
fn of_nothing_there_is_no_percentile() {
    let node = TestNode::on_cpu(&[]);
    let dir = tempfile::tempdir().expect("a folder");
    let csv = dir.path().join("windows.csv");
    let output = bench(
        node.node.addr,
        &["--body", "neural", "--symbols", "NOBODY", "--csv", &csv.display().to_string()],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("http_404") && !text.contains("0.000"), "{text}");
    let mut table = csv::Reader::from_path(csv).expect("a table");
    let head = table.headers().expect("names").clone();
    for row in table.records().map(|row| row.expect("a row")) {
        for name in ["mean_ms", "p50_ms", "p99_9_ms", "max_ms"] {
            assert_eq!(head.iter().zip(&row).find(|(known, _)| *known == name), Some((name, "")), "{row:?}");
        }
    }
}

#[test]
fn a_server_that_stands_still_shows_in_the_percentiles_and_in_where_the_time_went() {
    const STILL: Duration = Duration::from_millis(600);
    let node = NodeProcess::start(&[]);
    let body = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            // None is stable with the other two, so that there are three windows.
            let load = [
                "--rate",
                "300",
                "--body",
                "native",
                "--seconds",
                "1.2",
                "--windows",
                "3",
                "--stable",
                "0.1",
            ];
            body_of(node.addr, &load)
        });
        std::thread::sleep(Duration::from_millis(1_800));
        node.signal(libc::SIGSTOP);
        std::thread::sleep(STILL);
        node.signal(libc::SIGCONT);
        load.join().expect("the load ends")
    });
    let level = &body["levels"][0];
    // Those that fell due meanwhile count from when they did, whether a connection was free for them or not.
    let (latency, rest) = (&level["latency_ms"], &level["server"]["rest_ms"]);
    for of in [latency, rest] {
        let [p50, p99, p99_9] = ["p50", "p99", "p99_9"].map(|name| of[name].as_f64().expect("a time"));
        assert!(p50 < 100.0 && p99 > 300.0 && p99_9 > 450.0, "{level}");
    }
    assert!(level["checked"].as_f64() > level["answered"].as_f64().map(|count| count * 0.9), "{level}");
}

#[test]
fn what_cannot_come_to_anything_is_said_before_the_load() {
    let node = TestNode::on_cpu(&[]);
    for (body, path) in [("binary", "/v2/models/"), ("native", "/v1/forecast")] {
        let output = bench(node.node.addr, &["--rows", "5000", "--body", body]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(path)), (Some(1), true), "{said}");
        assert!(said.contains("413: 5000 ") && said.contains("2048"), "{said}");
    }
    let output = bench(node.node.addr, &["--csv", "/no/such/folder/x.csv"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("--csv /no/such/folder/x.csv: "), "{said}");
}

#[test]
fn a_load_that_the_key_may_not_make_is_not_begun() {
    let dir = tempfile::tempdir().expect("a folder");
    let drawn = drawn_key("eye", &["observe"]);
    let text = |name: &str| drawn[name].as_str().unwrap_or_else(|| panic!("{drawn}"));
    let (file, key) = (dir.path().join("keys.toml"), dir.path().join("eye.key"));
    std::fs::write(&file, text("entry")).expect("written");
    std::fs::write(&key, text("key")).expect("written");
    let keys = [("SECURITY__KEYS", file.to_str().expect("text")), ("SECURITY__REQUIRED", "true")];
    let node = TestNode::on_cpu(&keys);
    let key = format!("@{}", key.display());
    for (body, more, status) in [
        ("binary", &[][..], "401"),
        ("native", &["--key", "pgk_unknown"], "401"),
        ("json", &["--key", &key], "403"),
        ("native", &["--key", &key], "403"),
        ("stream", &["--key", &key], "403"),
    ] {
        let output = bench(node.node.addr, &[&["--body", body][..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), output.stdout.is_empty()),
            (Some(1), true),
            "{body} {more:?}: {said}"
        );
        assert!(
            said.contains(&format!("answers {status}: ")) && said.contains("--key"),
            "{body} {more:?}: {said}"
        );
    }
    let metrics = String::from_utf8_lossy(&node.get("/metrics").body).into_owned();
    let denied = metrics.lines().filter(|line| line.starts_with("peregrine_denied_total"));
    let denied: f64 = denied.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(denied, 5.0, "one request each: {metrics}");
}

#[test]
fn answers_of_the_wrong_shape_end_with_1() {
    let metadata = r#"{"inputs":[{"name":"y","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"forecast","datatype":"FP32","shape":[-1,2,1]}]}"#;
    let answer = r#"{"outputs":[{"name":"forecast","datatype":"FP32","shape":[1,3,1],"data":[1,2,3]}]}"#;
    let addr = fake(move |head| if head.starts_with("GET ") { metadata } else { answer });
    let output = bench(addr, &["--body", "json", "--json"]);
    let body: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(body["levels"][0]["failures"]["wrong_shape"].as_u64().is_some_and(|count| count > 0), "{body}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_server_behind_tls_is_asked_as_told() {
    let authority = Authority::new();
    let node = authority.node(&[]);
    let url = format!("https://localhost:{}", node.node.addr.port());
    let run = |more: &[&str]| {
        let own = ["bench", "--url", &url, "--model", MODEL, "--json"];
        Command::new(env!("CARGO_BIN_EXE_peregrine"))
            .args(own)
            .args(SHORT)
            .args(more)
            .output()
            .expect("it starts")
    };
    let trusted = run(&["--insecure"]);
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    let refused = run(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stdout));
}

#[test]
fn wrong_usage_ends_with_2_and_nobody_there_with_1() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    for (more, code) in [
        (&["--concurrency", "0"][..], 2),
        (&["--concurrency", "1", "--rate", "1"], 2),
        (&["--rate", "5:1"], 2),
        (&["--rate", "1e9"], 2),
        (&["--rows", "0"], 2),
        (&["--stable", "0"], 2),
        (&["--seconds", "0"], 2),
        (&["--key", "a b"], 2),
        (&["--url", "ftp://x"], 2),
        (&["--config", "x.toml"], 2),
        (&[], 1),
    ] {
        let output = bench(free, more);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What every level of `--json` has.
fn check_level(level: &Value) {
    for name in ["requests_per_s", "windows_per_s", "seconds", "oldest_waiting_ms"] {
        assert!(level[name].is_number(), "{name}: {level}");
    }
    for name in ["answered", "checked", "connections", "windows", "bytes_in"] {
        assert!(level[name].as_u64().is_some_and(|count| count > 0), "{name}: {level}");
    }
    for name in ["starved", "reconnects", "backlog"] {
        assert!(level[name].is_u64(), "{name}: {level}");
    }
    let latency = ["mean", "p50", "p90", "p95", "p99", "p99_9", "max"]
        .map(|name| level["latency_ms"][name].as_f64().unwrap_or_else(|| panic!("{name}: {level}")));
    assert!(latency[1..].is_sorted() && latency[1] > 0.0, "{latency:?}");
    assert!(level["settled"].is_boolean() && level["generator"]["at_limit"].is_boolean(), "{level}");
    assert!(level["generator"]["cores"].as_f64().is_some_and(|cores| cores > 0.0), "{level}");
}

#[track_caller]
fn body_of(addr: SocketAddr, more: &[&str]) -> Value {
    let output = bench(addr, &[more, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{more:?}: {stderr} {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {more:?} {stderr}"))
}

/// Later options of the same name would be refused, so those of `more` stand for the usual ones.
fn bench(addr: SocketAddr, more: &[&str]) -> Output {
    let url = format!("http://{addr}");
    let usual = [&["--url", &url, "--model", MODEL][..], &SHORT].concat();
    let usual = usual.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten();
    Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .arg("bench")
        .args(usual)
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the binary starts")
}

/// A server that answers everything 200, a thread for each connection. Ends with the process.
fn fake(answer: impl Fn(&str) -> &'static str + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(count @ 1..) = socket.read(&mut buffer) {
                    bytes.extend_from_slice(&buffer[..count]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length =
                        head.split("\r\nContent-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                    if body.len() < length.map_or(0, |length| length.parse().expect("a length")) {
                        continue;
                    }
                    let answer = answer(head);
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                    if socket.write_all([head.as_bytes(), answer.as_bytes()].concat().as_slice()).is_err() {
                        return;
                    }
                    bytes.clear();
                }
            });
        }
    });
    addr
}
