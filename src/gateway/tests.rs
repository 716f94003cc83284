//! A node on a free port, asked over a socket as a stranger would.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::openapi::OPERATIONS;
use crate::config::{Overrides, Sources, resolve};
use crate::node::Node;

const MODEL: &str = "nhits-vol-quantile";

#[test]
fn everything_in_the_document_is_served() {
    let node = node();
    for one in OPERATIONS {
        let path = one
            .path
            .replace("{model}", MODEL)
            .replace("{version}", "1")
            .replace("{id}", "1-1")
            .replace("{file}", "app.js");
        let (status, body) = ask(&node, &one.method.to_uppercase(), &path, "", b"");
        let unknown = matches!(status, 404 | 405 | 500);
        let lacks =
            path.ends_with("unload") || body.contains("unknown series") || body.contains("not recorded");
        assert!(!unknown || lacks, "{} {path}: {status} {body}", one.method);
        if path.ends_with("/unload") {
            let (status, body) = ask(&node, "POST", &path.replace("unload", "load"), "", b"");
            assert_eq!(status, 200, "{path}: {body}");
        }
    }
    node.stop();
}

#[test]
fn refusals_have_the_form_of_their_route() {
    let node = node();
    for (method, path, head, body, status, form) in [
        ("GET", "/nothing", "", "", 404, "application/problem+json"),
        ("DELETE", "/v1/forecast", "", "", 405, "application/problem+json"),
        ("POST", "/v1/forecast", "", "{", 400, "application/problem+json"),
        ("GET", "/v2/nothing", "", "", 404, "application/json"),
        ("POST", "/v2", "", "", 405, "application/json"),
        ("POST", "/v2/models/none/infer", "", "{}", 404, "application/json"),
        ("POST", "/v2/models/nhits-vol-quantile/infer", "", "{}", 400, "application/json"),
        ("GET", "/v2/models/nhits-vol-quantile/versions/x", "", "", 400, "application/json"),
        ("GET", "/v2/models/nhits-vol-quantile/versions/9", "", "", 404, "application/json"),
        ("POST", "/v1/forecast", "content-encoding: br\r\n", "x", 415, "application/problem+json"),
        ("POST", "/v1/forecast", "content-encoding: gzip\r\n", "x", 400, "application/problem+json"),
        ("GET", "/v1/scorecard?steps=perhaps", "", "", 400, "application/problem+json"),
        ("GET", "/v1/series/a?last=x", "", "", 400, "application/problem+json"),
        ("POST", "/v1/ticks?results=x", "", "", 400, "application/problem+json"),
        ("GET", "/v1/models/m?version=x", "", "", 400, "application/problem+json"),
        ("POST", "/neural/predict?symbl=USD", "", "", 400, "application/problem+json"),
        ("POST", "/neural/predict?symbol=NONE", "", "", 404, "application/problem+json"),
    ] {
        let (got, answer) = ask(&node, method, path, head, body.as_bytes());
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert!(answer.contains(&format!("content-type: {form}\r\n")), "{method} {path}: {answer}");
    }
    node.stop();
}

/// Left unread, what is misspelt would mean the opposite: all versions instead of one.
#[test]
fn an_unknown_member_of_a_query_is_named() {
    let node = node();
    for (method, path) in [
        ("POST", "/v1/models/nhits-vol-quantile/unload?ver=1"),
        ("POST", "/v1/models/nhits-vol-quantile/load?ver=1"),
        ("GET", "/v1/models/nhits-vol-quantile?ver=1"),
        ("GET", "/v1/series/a?ver=2"),
        ("POST", "/v1/ticks?ver=true"),
        ("GET", "/v1/scorecard?ver=1"),
        ("GET", "/v1/overview?ver=1"),
        ("POST", "/neural/predict?ver=1"),
        ("POST", "/v1/forecast?ver=1"),
        ("GET", "/v1/audit/1-1?ver=1"),
    ] {
        let (status, answer) = ask(&node, method, path, "", b"");
        assert!(status == 400 && answer.contains("`ver`"), "{method} {path}: {answer}");
    }
    let document = super::openapi::document();
    for one in OPERATIONS.iter().filter(|one| one.path.starts_with("/v1/")) {
        let path = one.path.replace(['{', '}'], "");
        let (status, answer) = ask(&node, &one.method.to_uppercase(), &format!("{path}?unheard=of"), "", b"");
        assert!(status == 400 && answer.contains("`unheard`"), "{} {path}: {answer}", one.method);
        let refusal = &document["paths"][one.path][one.method]["responses"]["400"];
        assert!(refusal.is_object(), "{} {} is said never to answer 400", one.method, one.path);
    }
    let upgrade = "upgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for path in ["/v1/stream", "/v1/echo", "/v1/overview/stream"] {
        let (status, answer) = upgraded(&node, &format!("{path}?unheard=of"), upgrade);
        assert!(status == 400 && answer.contains("`unheard`"), "{path}: {answer}");
    }
    for path in ["/metrics?unheard=of", "/v2?unheard=of", "/health?unheard=of", "/?unheard=of"] {
        assert_eq!(ask(&node, "GET", path, "", b"").0, 200, "{path}");
    }
    let (status, _) = ask(&node, "GET", "/v1/models/nhits-vol-quantile", "", b"");
    assert_eq!(status, 200, "it serves");
    node.stop();
}

#[test]
fn a_configuration_that_is_no_text_is_told_from_one_that_is_packed_wrongly() {
    let node = node();
    let (status, answer) = ask(&node, "POST", "/v1/config", "", b"deadline.default = \"\xff\"");
    assert!(status == 400 && answer.contains("the body is not UTF-8"), "{answer}");
    let (status, answer) = ask(&node, "POST", "/v1/config", "content-encoding: gzip\r\n", b"x");
    assert!(status == 400 && answer.contains("content encoding"), "{answer}");
    node.stop();
}

#[test]
fn a_gibibyte_announced_is_refused_unread() {
    let node = node();
    let mut stream = connect(&node);
    stream
        .write_all(b"POST /v1/forecast HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1073741824\r\n\r\n")
        .unwrap();
    let answer = read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    node.stop();
}

#[test]
fn an_offer_to_speak_http_2_is_passed_over_and_the_end_of_the_connection_is_said() {
    let node = node();
    let offer = "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    for path in ["/health/live", "/nothing"] {
        let (status, answer) = upgraded(&node, path, offer);
        assert!(matches!(status, 200 | 404) && answer.contains("connection: close\r\n"), "{path}: {answer}");
        assert!(!answer.contains("connection: upgrade"), "{path}: {answer}");
    }
    node.stop();
}

/// Two lines of a header are one list; read apart, what is packed would be taken for text.
#[test]
fn every_line_about_the_encoding_counts() {
    let node = node();
    let lines = |first: &str, second: &str| {
        let head = format!("content-encoding: {first}\r\ncontent-encoding: {second}\r\n");
        ask(&node, "POST", "/v1/forecast", &head, b"x")
    };
    for (first, second) in [("identity", "gzip"), ("gzip", "identity")] {
        let (status, answer) = lines(first, second);
        assert!(status == 400 && answer.contains("content encoding says"), "{answer}");
    }
    for (first, second) in [("gzip", "gzip"), ("identity", "br")] {
        let (status, answer) = lines(first, second);
        assert!(status == 415 && answer.contains(second), "{answer}");
    }
    node.stop();
}

/// The path is one that there is.
#[test]
fn what_no_series_can_be_called_is_an_unknown_series() {
    let node = node();
    for name in ["a*", "%0A", &"x".repeat(129)] {
        let (status, answer) = ask(&node, "GET", &format!("/v1/series/{name}"), "", b"");
        assert!(status == 404 && answer.contains("unknown series `"), "{answer}");
    }
    node.stop();
}

#[test]
fn a_series_that_cannot_be_forecast_is_named() {
    let node = node();
    let body = r#"{"series":[{"id":"A","values":[1,2]}]}"#;
    let (status, answer) = ask(&node, "POST", "/v1/forecast", "", body.as_bytes());
    assert_eq!(status, 422, "{answer}");
    assert!(answer.contains(r#""series":"A""#) && answer.contains(r#""index":2"#), "{answer}");
    node.stop();
}

#[test]
fn a_symbol_is_forecast_by_every_dialect() {
    let node = node();
    let body = br#"{"model":"nhits-vol-quantile","series":[{"symbol":"USD"}],"levels":[80]}"#;
    let (status, answer) = ask(&node, "POST", "/v1/forecast", "", body);
    assert!(status == 200 && answer.contains(r#""intervals":[{"level":80,"#), "{answer}");
    let (status, answer) = ask(&node, "POST", "/neural/batch_predict?symbols=USD,GBP&horizon=3", "", b"");
    assert!(status == 200 && answer.contains(r#""symbols_count":2"#), "{answer}");
    let values = ["0.5"; 128].join(",");
    let body =
        format!(r#"{{"inputs":[{{"name":"y","datatype":"FP32","shape":[1,128],"data":[{values}]}}]}}"#);
    let path = format!("/v2/models/{MODEL}/infer");
    let (status, answer) = ask(&node, "POST", &path, "", body.as_bytes());
    assert!(status == 200 && answer.contains(r#""shape":[1,20,5]"#), "{answer}");
    node.stop();
}

fn node() -> Node {
    let overrides = Overrides {
        listen: Some("127.0.0.1:0".to_owned()),
        backend: Some("cpu".to_owned()),
        ..Overrides::default()
    };
    let sources = Sources { files: Vec::new(), environment: Vec::new(), overrides };
    Node::start(resolve(&sources).unwrap()).unwrap()
}

fn ask(node: &Node, method: &str, path: &str, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = connect(node);
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let answer = read(&mut stream);
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
    (status.unwrap_or_else(|| panic!("{method} {path}: {answer}")), answer)
}

/// What a request to open a websocket is answered.
fn upgraded(node: &Node, path: &str, head: &str) -> (u16, String) {
    let mut stream = connect(node);
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n{head}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let answer = read(&mut stream);
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
    (status.unwrap_or_else(|| panic!("{path}: {answer}")), answer)
}

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A refusal may reset a connection whose body was not read; what came before counts.
fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&answer).into_owned(),
            Ok(len) => answer.extend_from_slice(&chunk[..len]),
        }
    }
}
