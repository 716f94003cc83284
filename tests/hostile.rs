//! Untrusted bytes: whatever comes, the answer is 4xx, memory stays bounded and the node goes on serving.

use std::io::Write;
use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{Client, NodeProcess, Response, request};

const INFER: &str = "/v2/models/nhits-168x24-quantile/infer";
const FORECAST: &str = "/v1/forecast";
const REQUESTS: usize = 10_000;
/// What a node may grow by under attack: its body limit and the allocator's slack.
const GROWTH_MIB_MAX: usize = 256;

/// Bytes of one request, made from a seed so that a failure replays.
struct Attack {
    name: &'static str,
    bytes: Vec<u8>,
}

fn http(path: &str, headers: &str, announced: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {announced}\r\n{headers}\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn infer_json(shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"y","shape":{shape},"datatype":"FP32","data":{data}}}]}}"#)
}

fn numbers(count: usize, odd: &str, at: usize) -> String {
    let list: Vec<String> =
        (0..count).map(|i| if i == at { odd.to_owned() } else { "1.5".to_owned() }).collect();
    format!("[{}]", list.join(","))
}

fn whole(path: &str, name: &'static str, body: &[u8]) -> Attack {
    Attack { name, bytes: http(path, "", body.len(), body) }
}

fn attack(kind: usize, rng: &mut StdRng) -> Attack {
    let at = rng.random_range(0..168);
    match kind {
        0 => whole(INFER, "too few numbers", infer_json("[1,168]", &numbers(at, "1", 0)).as_bytes()),
        1 => whole(INFER, "bare NaN", infer_json("[1,168]", &numbers(168, "NaN", at)).as_bytes()),
        2 => whole(INFER, "overflowing number", infer_json("[1,168]", &numbers(168, "1e400", at)).as_bytes()),
        3 => {
            whole(INFER, "string among numbers", infer_json("[1,168]", &numbers(168, "\"x\"", at)).as_bytes())
        }
        4 => whole(INFER, "huge shape", infer_json("[100000000,256]", &numbers(256, "1", 0)).as_bytes()),
        5 => whole(INFER, "overflowing shape", infer_json("[4294967296,4294967296]", "[1]").as_bytes()),
        6 => whole(INFER, "negative dimension", infer_json("[-1,168]", &numbers(168, "1", 0)).as_bytes()),
        7 => whole(INFER, "empty batch", infer_json("[0,168]", "[]").as_bytes()),
        8 => whole(INFER, "wrong rank", infer_json("[168]", &numbers(168, "1", 0)).as_bytes()),
        9 => {
            let depth = rng.random_range(100..200_000);
            whole(INFER, "deep nesting", infer_json("[1,168]", &"[".repeat(depth)).as_bytes())
        }
        10 => whole(INFER, "no inputs", br#"{"id":"1"}"#),
        11 => {
            let json = infer_json("[1,168]", &numbers(168, "1", 0));
            whole(INFER, "truncated JSON", &json.as_bytes()[..rng.random_range(0..json.len() - 1)])
        }
        12 => {
            let json = br#"{"inputs":[{"name":"y","shape":[1,168],"datatype":"FP32","parameters":{"binary_data_size":672}}]}"#;
            let mut body = json.to_vec();
            body.extend(std::iter::repeat_n(0_u8, rng.random_range(0..671)));
            let header = format!("Inference-Header-Content-Length: {}\r\n", json.len());
            Attack { name: "short binary", bytes: http(INFER, &header, body.len(), &body) }
        }
        13 => {
            let body = infer_json("[1,168]", &numbers(168, "1", 0));
            let value = ["-1", "junk", "99999999999999999999", "1e9", "", "7x"][rng.random_range(0..6)];
            let header = format!("Inference-Header-Content-Length: {value}\r\n");
            Attack { name: "bad JSON length", bytes: http(INFER, &header, body.len(), body.as_bytes()) }
        }
        14 => {
            let json = br#"{"inputs":[{"name":"y","shape":[1,168],"datatype":"FP32","parameters":{"binary_data_size":672}}]}"#;
            let mut body = json.to_vec();
            let nan = if rng.random() { f32::NAN } else { f32::INFINITY };
            body.extend((0..168).flat_map(|i| if i == at { nan } else { 1.0_f32 }.to_le_bytes()));
            let header = format!("Inference-Header-Content-Length: {}\r\n", json.len());
            Attack { name: "binary NaN", bytes: http(INFER, &header, body.len(), &body) }
        }
        15 => Attack { name: "1 GiB announced", bytes: http(INFER, "", 1 << 30, b"{") },
        16 => whole("/v2/models/none/infer", "unknown model", b"{}"),
        17 => {
            let (name, datatype) = [("y", "FP64"), ("x", "FP32"), ("y", "BYTES")][rng.random_range(0..3)];
            let data = numbers(168, "1", 0);
            let body = format!(
                r#"{{"inputs":[{{"name":"{name}","shape":[1,168],"datatype":"{datatype}","data":{data}}}]}}"#
            );
            whole(INFER, "wrong name or type", body.as_bytes())
        }
        18 => {
            let mut body = vec![0_u8; rng.random_range(1..512)];
            rng.fill(&mut body[..]);
            let path = [INFER, FORECAST, "/neural/predict", "/v2/repository/index"][rng.random_range(0..3)];
            whole(path, "random bytes", &body)
        }
        19 => whole(
            FORECAST,
            "short window",
            br#"{"model":"nhits-168x24-quantile","series":[{"id":"a","values":[1,2,3]}]}"#,
        ),
        20 => {
            let body = format!(
                r#"{{"model":"nhits-168x24-quantile","series":[{{"id":"a","values":{}}}]}}"#,
                numbers(168, "NaN", at)
            );
            whole(FORECAST, "NaN in a series", body.as_bytes())
        }
        21 => whole(
            FORECAST,
            "unknown symbol",
            br#"{"model":"nhits-168x24-quantile","series":[{"id":"a","symbol":"NOPE"}]}"#,
        ),
        22 => whole(FORECAST, "empty batch", br#"{"model":"nhits-168x24-quantile","series":[]}"#),
        23 => whole("/neural/predict", "no symbol", br#"{"horizon":5}"#),
        24 => Attack {
            name: "bad encoding",
            bytes: http(INFER, "Content-Encoding: deflate\r\n", 9, b"not-zlib!"),
        },
        25 => Attack {
            name: "not HTTP",
            bytes: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        },
        26 => {
            let value = ["-5", "x", "18446744073709551617", "1, 2"][rng.random_range(0..4)];
            let bytes = format!(
                "POST {INFER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {value}\r\n\r\n{{}}"
            );
            Attack { name: "bad Content-Length", bytes: bytes.into_bytes() }
        }
        _ => {
            let twice = infer_json("[1,168]", &numbers(168, "1", 0)).replace("}]}", "}],\"inputs\":[]}");
            whole(INFER, "key twice", twice.as_bytes())
        }
    }
}

fn fire(addr: SocketAddr, attack: &Attack) -> std::io::Result<Response> {
    let mut client = Client::connect(addr)?;
    client.send_raw(&attack.bytes)?;
    client.receive()
}

#[track_caller]
fn assert_serves(addr: SocketAddr) {
    let body = infer_json("[1,168]", &numbers(168, "2.5", 3));
    let answer = request(addr, "POST", INFER, &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

#[test]
fn ten_thousand_malformed_requests_are_refused_and_survived() {
    let mut node = NodeProcess::start(&["--backend", "cpu"]);
    assert_serves(node.addr);
    let before_mib = node.resident_mib();
    let mut rng = StdRng::seed_from_u64(7);
    for i in 0..REQUESTS {
        let attack = attack(i % 28, &mut rng);
        let answer =
            fire(node.addr, &attack).unwrap_or_else(|err| panic!("request {i} `{}`: {err}", attack.name));
        let text = String::from_utf8_lossy(&answer.body);
        assert!(
            (400..500).contains(&answer.status),
            "request {i} `{}`: {} {text}",
            attack.name,
            answer.status
        );
        if i % 1000 == 0 {
            assert_serves(node.addr);
            assert!(node.resident_mib() < before_mib + GROWTH_MIB_MAX, "memory grew after request {i}");
        }
    }
    assert!(node.is_alive());
    assert_serves(node.addr);
    assert!(
        node.resident_mib() < before_mib + GROWTH_MIB_MAX,
        "{} → {} MiB",
        before_mib,
        node.resident_mib()
    );
}

/// A body that is small on the wire and enormous once inflated.
#[test]
fn a_deflate_bomb_is_refused_before_it_inflates() {
    let node = NodeProcess::start(&["--backend", "cpu"]);
    assert_serves(node.addr);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&blanks).expect("memory");
    }
    let bomb = encoder.finish().expect("memory");
    let before_mib = node.resident_mib();
    let answer = request(node.addr, "POST", INFER, &[("Content-Encoding", "deflate")], &bomb);
    assert!(matches!(answer.status, 400 | 413), "{}", answer.status);
    assert!(node.resident_mib() < before_mib + GROWTH_MIB_MAX, "{before_mib} → {} MiB", node.resident_mib());
    assert_serves(node.addr);
}
