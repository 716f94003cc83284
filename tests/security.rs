//! Who may do what, and how often: keys, scopes, rates, and what browsers are told.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{CLOSE, Client, Response, TestNode, WebSocket, drawn_key, eventually, masked, request};

const FORECAST: &str = r#"{"model":"nhits-vol-quantile","series":[{"symbol":"USD"}]}"#;
const TICK: &str = r#"{"series":"a","ts":1700000000000,"value":1.5}"#;

/// A key that nobody shows: a file without any is refused where one is required.
const NOBODY: &str = "[[keys]]\nname = \"nobody\"\nhash = \
    \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\nscopes = [\"predict\"]\n\n";

/// A file of keys that `peregrine keys new` has drawn.
struct Keys {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

impl Keys {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("keys.toml");
        fs::write(&file, NOBODY).expect("a file");
        Self { _dir: dir, file }
    }

    /// A new key is in the file, with further lines of its table.
    fn draw(&self, name: &str, scopes: &[&str], lines: &str) -> String {
        let drawn = drawn_key(name, scopes);
        let text = fs::read_to_string(&self.file).expect("the file");
        let entry = drawn["entry"].as_str().expect("an entry");
        fs::write(&self.file, format!("{text}{entry}{lines}\n")).expect("the file");
        drawn["key"].as_str().expect("a key").to_owned()
    }

    fn node(&self, keys: &[(&str, &str)]) -> TestNode {
        let file = self.file.display().to_string();
        let own = [("SECURITY__KEYS", file.as_str()), ("STREAM__HEARTBEAT", "200ms")];
        TestNode::on_cpu(&[&own, keys].concat())
    }

    /// Of everybody.
    fn revoke(&self) {
        fs::write(&self.file, NOBODY).expect("the file");
    }

    fn path(&self) -> &Path {
        &self.file
    }
}

fn ask(node: &TestNode, method: &str, path: &str, key: &str, body: &str) -> Response {
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    let headers = if key.is_empty() { &[][..] } else { &headers[..] };
    request(node.node.addr, method, path, headers, body.as_bytes())
}

#[test]
fn a_key_does_what_its_scopes_say_and_no_more() {
    let keys = Keys::new();
    let desk = keys.draw("desk", &["predict"], "");
    let feed = keys.draw("feed", &["ingest"], "");
    let boss = keys.draw("boss", &["admin"], "");
    let node = keys.node(&[("SECURITY__REQUIRED", "true")]);
    for (method, path, body, allowed) in [
        ("POST", "/v1/forecast", FORECAST, &desk),
        ("POST", "/v1/ticks", TICK, &feed),
        ("POST", "/v1/config", "deadline.max = \"30s\"", &boss),
        ("GET", "/v1/config", "", &boss),
        ("POST", "/v1/models/nhits-vol-quantile/load", "", &boss),
        ("POST", "/v2/repository/models/nhits-vol-quantile/load", "{}", &boss),
    ] {
        let anonymous = ask(&node, method, path, "", body);
        assert_eq!(anonymous.status, 401, "{method} {path}");
        assert_eq!(anonymous.header("www-authenticate"), Some("Bearer realm=\"peregrine\""));
        for key in [&desk, &feed, &boss] {
            let answer = ask(&node, method, path, key, body);
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, if key == allowed { 200 } else { 403 }, "{method} {path}: {said}");
        }
        assert_eq!(ask(&node, method, path, "pgk_invented", body).status, 401, "{method} {path}");
    }
    let refused = ask(&node, "POST", "/v1/forecast", &feed, FORECAST);
    let form = "Bearer realm=\"peregrine\", error=\"insufficient_scope\", scope=\"predict\"";
    assert_eq!(refused.header("www-authenticate"), Some(form));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(refused.json()["scopes"], serde_json::json!(["predict"]));
    let refused = ask(&node, "POST", "/v2/models/nhits-vol-quantile/infer", &feed, "{}");
    assert_eq!((refused.status, refused.json()["error"].is_string()), (403, true));
    let by_other_header =
        request(node.node.addr, "POST", "/v1/forecast", &[("X-Api-Key", &desk)], FORECAST.as_bytes());
    assert_eq!(by_other_header.status, 200);
}

#[test]
fn whether_a_node_lives_is_no_secret() {
    let keys = Keys::new();
    let node = keys.node(&[("SECURITY__REQUIRED", "true"), ("SECURITY__ANONYMOUS", "[]")]);
    for path in ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    for path in ["/metrics", "/health", "/v1/models", "/nothing", "/v1/stream"] {
        assert_eq!(node.get(path).status, 401, "{path}");
    }
    let observed = keys.node(&[("SECURITY__REQUIRED", "true")]);
    let index = ask(&observed, "POST", "/v2/repository/index", "", "{}");
    assert_eq!(index.status, 200, "it only lists, whatever its method");
    let metrics = observed.get("/metrics");
    assert_eq!((metrics.status, observed.get("/nothing").status), (200, 404));
    assert!(String::from_utf8_lossy(&metrics.body).contains("peregrine_denied_total"));
}

#[test]
fn a_path_written_with_escapes_is_no_way_around() {
    let keys = Keys::new();
    let node = keys.node(&[("SECURITY__REQUIRED", "true")]);
    for path in ["/v1/%63onfig", "/%76%31/config", "/v1/config?x=/health/live", "/v1/config#"] {
        let status = node.get(path).status;
        assert!(matches!(status, 400 | 401), "{path}: {status}");
    }
    assert_eq!(node.post("/v1/%66orecast", FORECAST).status, 401);
}

#[test]
fn a_series_is_closed_whatever_its_name() {
    let keys = Keys::new();
    let (desk, eye) = (keys.draw("desk", &["predict"], ""), keys.draw("eye", &["observe", "admin"], ""));
    let node = keys.node(&[("SECURITY__REQUIRED", "true")]);
    for name in ["X", "fx/X", "fx%2fX", "a/b/c/d/e/f/g/h/i/j", "health/live", "fx/"] {
        let path = format!("/v1/series/{name}");
        let answers = ["", &eye, &desk].map(|key| ask(&node, "GET", &path, key, "").status);
        assert_eq!(answers, [401, 403, 404], "{path}: nothing was fed");
    }
    for path in ["/v1/audit/a/b", "/v2/models/m/a/b", "/a/b/c/d/e/f/g/h/i/j"] {
        assert_eq!(node.get(path).status, 404, "{path}");
    }
}

#[test]
fn no_key_is_said_in_answers_or_configuration() {
    let keys = Keys::new();
    let boss = keys.draw("boss", &["admin", "observe"], "");
    let node = keys.node(&[("SECURITY__REQUIRED", "true")]);
    for path in ["/v1/config", "/metrics", "/status", "/nothing"] {
        let said = String::from_utf8_lossy(&ask(&node, "GET", path, &boss, "").body).into_owned();
        assert!(!said.contains(&boss) && !said.contains("sha256:"), "{path}: {said}");
    }
    assert!(!fs::read_to_string(keys.path()).expect("the file").contains(&boss));
}

#[test]
fn a_page_from_elsewhere_changes_and_feeds_nothing() {
    let node = TestNode::on_cpu(&[]);
    let addr = node.node.addr;
    let tick = r#"{"series":"a","ts":1,"value":1}"#;
    for foreign in ["https://evil.example", "http://localhost.evil.example", "http://localhost:8080", "null"]
    {
        for (path, body) in [("/v1/config", "deadline.max = \"30s\""), ("/v1/ticks", tick)] {
            let headers = [("Origin", foreign), ("Content-Type", "text/plain")];
            let answer = request(addr, "POST", path, &headers, body.as_bytes());
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!((answer.status, allowed), (403, None), "{path} of {foreign}");
        }
        for path in ["/v1/stream", "/v1/overview/stream"] {
            let upgrade = [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Origin", foreign),
            ];
            assert_eq!(request(addr, "GET", path, &upgrade, b"").status, 403, "{path} of {foreign}");
        }
    }
    assert_eq!(node.get("/v1/series/a").status, 404);
    // Pages of the node's own, whether or not something before it ends TLS; these requests are for `Host: localhost`.
    for own in ["http://localhost", "https://localhost"] {
        assert_eq!(
            request(addr, "POST", "/v1/ticks", &[("Origin", own)], tick.as_bytes()).status,
            200,
            "{own}"
        );
    }
    for path in ["/v1/stream", "/v1/overview/stream"] {
        drop(WebSocket::open_with(addr, path, &format!("Origin: http://{addr}\r\n")));
    }
    // Who is no browser says nothing of an origin.
    assert_eq!(node.post("/v1/config", "deadline.max = \"30s\"").status, 200);
}

/// As a browser asks for a page whose name leads to this machine.
fn under(node: &TestNode, name: &str, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let mut client = Client::connect(node.node.addr).expect("it listens");
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {name}\r\nContent-Length: {length}\r\n{headers}\r\n");
    client.send_raw(format!("{head}{body}").as_bytes()).expect("sent");
    client.receive().expect("an answer")
}

#[test]
fn a_page_whose_name_leads_here_is_a_stranger() {
    let keys = Keys::new();
    let boss = keys.draw("boss", &["admin", "observe"], "");
    let node = keys.node(&[("SECURITY__CORS_ORIGINS", "[\"https://desk.example\"]")]);
    let port = node.node.addr.port();
    let evil = format!("evil.example:{port}");
    let own = format!("Origin: http://{evil}\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, path, headers, body) in [
        ("GET", "/v1/config", "", ""),
        ("GET", "/v1/models", "", ""),
        ("POST", "/v1/ticks", own.as_str(), TICK),
        ("POST", "/v1/forecast", own.as_str(), FORECAST),
        ("GET", "/v1/stream", upgrade, ""),
        ("GET", "/v1/overview/stream", upgrade, ""),
    ] {
        let answer = under(&node, &evil, method, path, headers, body);
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status, said.contains("`localhost`")), (403, true), "{method} {path}: {said}");
    }
    assert_eq!(node.get("/v1/series/a").status, 404, "nothing was fed");
    for name in ["localhost", "127.0.0.1", "[::1]:1", "desk.example"] {
        assert_eq!(under(&node, name, "GET", "/v1/config", "", "").status, 200, "{name}");
    }
    assert_eq!(under(&node, &evil, "GET", "/health/ready", "", "").status, 200);
    let key = format!("Authorization: Bearer {boss}\r\n");
    assert_eq!(under(&node, &evil, "GET", "/v1/config", &key, "").status, 200, "no page has a key");
    let open = keys.node(&[("SECURITY__REQUIRED", "true")]);
    assert_eq!(under(&open, "node.fly.dev", "GET", "/metrics", "", "").status, 200, "anybody may");
    assert_eq!(under(&open, "node.fly.dev", "GET", "/v1/config", "", "").status, 401);
}

#[test]
fn keys_are_read_again_and_a_bad_file_keeps_the_old_ones() {
    let keys = Keys::new();
    let desk = keys.draw("desk", &["predict"], "");
    let node = keys.node(&[("SECURITY__REQUIRED", "true")]);
    let asked = |key: &str| ask(&node, "POST", "/v1/forecast", key, FORECAST).status;
    let good = fs::read_to_string(keys.path()).expect("the file");
    fs::write(keys.path(), format!("{good}\n[[keys]]\nname = 3\n")).expect("the file");
    let refused = node.node.reload.reread().expect_err("a bad file").to_string();
    assert!(refused.starts_with("security: ") && refused.contains("line"), "{refused}");
    assert_eq!(asked(&desk), 200);
    fs::write(keys.path(), good).expect("the file");
    let other = keys.draw("other", &["predict"], "");
    assert_eq!(asked(&other), 401);
    node.node.reload.reread().expect("a good file");
    assert_eq!((asked(&desk), asked(&other)), (200, 200));
    fs::write(keys.path(), "").expect("the file");
    let refused = node.node.reload.reread().expect_err("nobody could come in").to_string();
    assert!(refused.starts_with("security: ") && refused.contains("there is no key in it"), "{refused}");
    assert_eq!((asked(&desk), asked(&other)), (200, 200));
    keys.revoke();
    node.node.reload.reread().expect("a file with a key");
    assert_eq!((asked(&desk), asked(&other)), (401, 401));
}

#[test]
fn a_token_of_the_identity_provider_is_taken_like_a_key_until_its_key_is_gone() {
    let fixture: Value =
        serde_json::from_str(include_str!("../src/security/token/fixture.json")).expect("JSON");
    let token = fixture["tokens"][8].as_str().expect("one that Ed25519 signed");
    let rsa = fixture["tokens"][0].as_str().expect("one that RSA signed");
    let dir = tempfile::tempdir().expect("a folder");
    let jwks = dir.path().join("jwks.json");
    fs::write(&jwks, fixture["jwks"].to_string()).expect("a file");
    let node = TestNode::on_cpu(&[
        ("SECURITY__JWKS", &jwks.display().to_string()),
        ("SECURITY__TOKEN_ISSUER", "https://id.example"),
        ("SECURITY__TOKEN_AUDIENCE", "peregrine"),
        ("SECURITY__REQUIRED", "true"),
        ("STREAM__HEARTBEAT", "200ms"),
    ]);
    let asked = |token: &str| ask(&node, "POST", "/v1/forecast", token, FORECAST);
    assert_eq!((asked(token).status, asked(rsa).status, asked("").status), (200, 200, 401));
    assert_eq!(ask(&node, "POST", "/v1/ticks", token, TICK).status, 200);
    assert_eq!(ask(&node, "GET", "/v1/config", token, "").status, 403);
    let forged = asked(&format!("{}A{}", &token[..60], &token[61..]));
    assert_eq!(forged.status, 401);
    let challenge = forged.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("invalid_token"), "{challenge}");
    let said = String::from_utf8_lossy(&forged.body).into_owned();
    assert!(said.contains("this token is not taken") && !said.contains(&token[61..80]), "{said}");
    let mut socket =
        WebSocket::open_with(node.node.addr, "/v1/stream", &format!("authorization: Bearer {token}\r\n"));
    socket.text(r#"{"op":"subscribe","id":1,"model":"nhits-vol-quantile","series":["a"]}"#);
    socket.op("subscribed");
    // The provider has another key now.
    let kept: Vec<&Value> =
        fixture["jwks"]["keys"].as_array().expect("keys").iter().filter(|key| key["kty"] == "RSA").collect();
    fs::write(&jwks, serde_json::json!({ "keys": kept }).to_string()).expect("a file");
    node.node.reload.reread().expect("a good file");
    assert_eq!((asked(token).status, asked(rsa).status), (401, 200));
    assert_eq!(socket.op("goodbye")["why"], "revoked");
    let shared = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
    fs::write(&jwks, shared).expect("a file");
    let refused = node.node.reload.reread().expect_err("a secret").to_string();
    assert!(refused.contains("key 1 is a secret") && !refused.contains("c2VjcmV0"), "{refused}");
    assert_eq!(asked(rsa).status, 200);
}

#[test]
fn a_websocket_does_what_its_key_says_until_that_is_revoked() {
    let keys = Keys::new();
    let (desk, feed) = (keys.draw("desk", &["predict"], ""), keys.draw("feed", &["ingest"], ""));
    let node = keys.node(&[("SECURITY__REQUIRED", "true")]);
    let open =
        |key: &str| WebSocket::open_with(node.node.addr, "/v1/stream", &format!("x-api-key: {key}\r\n"));
    let (mut reader, mut feeder) = (open(&desk), open(&feed));
    let tick = r#"{"op":"tick","id":1,"ticks":[{"series":"a","ts":1700000000000,"value":1.5}]}"#;
    let subscribe = r#"{"op":"subscribe","id":1,"model":"nhits-vol-quantile","series":["a"]}"#;
    reader.text(tick);
    assert_eq!(reader.op("error")["code"], "denied");
    reader.text(subscribe);
    reader.op("subscribed");
    feeder.text(subscribe);
    assert_eq!(feeder.op("error")["code"], "denied");
    feeder.text(tick);
    feeder.op("ticked");
    keys.revoke();
    node.node.reload.reread().expect("a good file");
    for socket in [&mut reader, &mut feeder] {
        assert_eq!(socket.op("goodbye")["why"], "revoked");
        let (first, payload) = socket.frame().expect("a close frame");
        assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (CLOSE, 1008));
        socket.send(&masked(CLOSE, &payload[..2]));
        assert_eq!(socket.frame(), None);
    }
    let ended =
        |metrics: &str| metrics.lines().any(|line| line.contains("\"denied\"") && line.ends_with(" 2"));
    eventually("both are counted", || ended(&String::from_utf8_lossy(&node.get("/metrics").body)));
}

#[test]
fn nobody_gets_a_websocket_without_a_key_where_one_is_required() {
    let keys = Keys::new();
    let node = keys.node(&[("SECURITY__REQUIRED", "true")]);
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = request(node.node.addr, "GET", "/v1/stream", &upgrade, b"");
    assert_eq!((answer.status, answer.header("x-frame-options")), (401, Some("DENY")));
    let key = [&upgrade[..], &[("x-api-key", "pgk_invented")]].concat();
    assert_eq!(request(node.node.addr, "GET", "/v1/stream", &key, b"").status, 401);
    let query = request(node.node.addr, "GET", "/v1/stream?key=pgk_x", &upgrade, b"");
    assert_eq!(query.status, 401);
}

#[test]
fn too_many_requests_are_told_when_to_come_back() {
    let keys = Keys::new();
    let own = "requests_per_second = 0.01\nburst = 3";
    let (few, many) = (keys.draw("few", &["predict"], own), keys.draw("many", &["predict"], ""));
    let node = keys.node(&[("SECURITY__REQUESTS_PER_SECOND", "0.02"), ("SECURITY__BURST", "5")]);
    let check = |key: &str, burst: usize, wait: std::ops::RangeInclusive<u64>| {
        for at in 0..burst {
            assert_eq!(ask(&node, "GET", "/v1/models", key, "").status, 200, "{at}");
        }
        let refused = ask(&node, "GET", "/v1/models", key, "");
        let after: u64 = refused.header("retry-after").expect("when").parse().expect("seconds");
        assert!(refused.status == 429 && wait.contains(&after), "{}: {after}", refused.status);
    };
    check(&few, 3, 90..=100);
    check(&many, 5, 40..=50);
    check("", 5, 40..=50);
    // Whether a node lives may always be asked.
    assert_eq!(node.get("/health/ready").status, 200);
}

#[test]
fn browsers_are_told_what_they_must_not_do() {
    let node = TestNode::on_cpu(&[]);
    for path in ["/v1/models", "/nothing", "/v2", "/health/live", "/v1/stream"] {
        let answer = node.get(path);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert!(
        node.get("/docs").header("content-security-policy").is_some_and(|policy| policy.contains("'self'"))
    );
}

#[test]
fn only_pages_of_named_origins_read_answers_and_subscribe() {
    let keys = Keys::new();
    let origins = "[\"https://desk.example\"]";
    let node = keys.node(&[("SECURITY__CORS_ORIGINS", origins), ("SECURITY__REQUIRED", "true")]);
    let addr = node.node.addr;
    let allowed = |answer: &Response| answer.header("access-control-allow-origin").map(str::to_owned);
    let asks = ("Access-Control-Request-Method", "POST");
    let preflight =
        request(addr, "OPTIONS", "/v1/forecast", &[("Origin", "https://desk.example"), asks], b"");
    assert_eq!((preflight.status, allowed(&preflight).as_deref()), (204, Some("https://desk.example")));
    assert!(
        preflight.header("access-control-allow-headers").is_some_and(|names| names.contains("x-api-key"))
    );
    let got = request(addr, "GET", "/v1/models", &[("Origin", "https://desk.example")], b"");
    assert_eq!((got.status, allowed(&got).as_deref()), (200, Some("https://desk.example")));
    // A refusal must be readable too.
    let got = request(addr, "POST", "/v1/forecast", &[("Origin", "https://desk.example")], b"");
    assert_eq!((got.status, allowed(&got).as_deref()), (401, Some("https://desk.example")));
    for foreign in ["https://desk.example.evil", "http://desk.example", "null"] {
        let preflight = request(addr, "OPTIONS", "/v1/forecast", &[("Origin", foreign), asks], b"");
        assert_eq!((preflight.status, allowed(&preflight)), (401, None), "{foreign}");
    }
    let open = drawn_key("desk", &["predict"]);
    fs::write(keys.path(), open["entry"].as_str().expect("an entry")).expect("the file");
    node.node.reload.reread().expect("a good file");
    let key = open["key"].as_str().expect("a key");
    let lines = format!("x-api-key: {key}\r\nOrigin: https://desk.example\r\n");
    drop(WebSocket::open_with(addr, "/v1/stream", &lines));
    let foreign = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("x-api-key", key),
        ("Origin", "https://evil.example"),
    ];
    assert_eq!(request(addr, "GET", "/v1/stream", &foreign, b"").status, 403);
}
