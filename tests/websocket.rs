//! RFC 6455 over a socket: what a conformance suite asks, on `/v1/echo`.

use std::time::Duration;

use crate::harness::{CLOSE, Client, PING, PONG, TEXT, TestNode, WebSocket, eventually, masked, request};

const BINARY: u8 = 0x82;

#[test]
fn messages_are_echoed_as_they_came() {
    let node = node();
    let long = vec![b'*'; 70_000];
    for (first, payload) in [
        (TEXT, &b""[..]),
        (TEXT, "Hello-µ@ßöäüàá-UTF-8!!".as_bytes()),
        (BINARY, b"\x00\xFF\xFE"),
        (BINARY, &long[..125]),
        (BINARY, &long[..126]),
        (TEXT, &long[..65_535]),
        (TEXT, &long),
    ] {
        check(&node, &[masked(first, payload)], &[(first, payload)], 1000);
    }
}

#[test]
fn connections_are_counted_until_they_end() {
    let node = node();
    let mut asks = Client::connect(node.node.addr).expect("connects");
    let mut count = || {
        let page = asks.send("GET", "/metrics", &[], b"").expect("an answer").body;
        let page = String::from_utf8(page).expect("text");
        let line = page.lines().find(|line| line.starts_with("peregrine_connections{")).expect("the metric");
        line.rsplit(' ').next().and_then(|value| value.parse::<usize>().ok()).expect("a number")
    };
    assert_eq!(count(), 1, "the one that asks");
    let idle = Client::connect(node.node.addr).expect("connects");
    let socket = WebSocket::open(node.node.addr, "/v1/echo", None);
    eventually("both are served", || count() == 3);
    drop(socket);
    eventually("the websocket has ended", || count() == 2);
    drop(idle);
    eventually("so has the other", || count() == 1);
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    let node = node();
    check(&node, &[masked(PING, b"")], &[(PONG, b"")], 1000);
    check(&node, &[masked(PING, &[0xFE; 125])], &[(PONG, &[0xFE; 125])], 1000);
    check(&node, &[masked(PONG, b"unasked"), masked(PING, b"a")], &[(PONG, b"a")], 1000);
    check(&node, &[masked(PING, &[0; 126])], &[], 1002);
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    let node = node();
    for first in [0xC1, 0xA2, 0x91, 0x83, 0x87, 0x8B, 0x8F, 0x09, 0x08] {
        check(&node, &[masked(TEXT, b"before"), masked(first, b"x")], &[(TEXT, b"before")], 1002);
    }
    check(&node, &[vec![0x81, 0x01, b'x']], &[], 1002); // not masked
}

#[test]
fn fragments_are_joined_and_their_order_is_checked() {
    let node = node();
    let whole = [masked(0x01, b"frag"), masked(PING, b"p"), masked(0x80, b"ments")];
    check(&node, &whole, &[(PONG, b"p"), (TEXT, b"fragments")], 1000);
    check(&node, &[masked(0x80, b"nothing to continue")], &[], 1002);
    check(&node, &[masked(0x01, b"a"), masked(TEXT, b"b")], &[], 1002);
    let endless: Vec<_> =
        [masked(0x02, b"")].into_iter().chain((0..600_000).map(|_| masked(0x00, b""))).collect();
    check(&node, &[endless.concat()], &[], 1008);
}

#[test]
fn text_that_is_not_utf_8_fails_at_once() {
    let node = node();
    check(&node, &[masked(TEXT, b"\xCE\xBA\xED\xA0\x80")], &[], 1007);
    check(&node, &[masked(0x01, b"\xCE"), masked(0x80, b"\xBA")], &[(TEXT, "κ".as_bytes())], 1000);
    check(&node, &[masked(0x01, b"\xCE"), masked(0x80, b"x")], &[], 1007);
    // The rest of the frame is never sent: the verdict does not wait for it.
    let bad = masked(TEXT, b"\xF4\x90\x80\x80 and more");
    check(&node, &[bad[..8].to_vec()], &[], 1007);
}

#[test]
fn close_codes_are_checked_and_said_back() {
    let node = node();
    for code in [1000, 1001, 1003, 1007, 1011, 3000, 4999] {
        check(&node, &[close(code, b"bye")], &[], code);
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 2999, 5000] {
        check(&node, &[close(code, b"")], &[], 1002);
    }
    check(&node, &[masked(CLOSE, b"x")], &[], 1002);
    check(&node, &[close(1000, b"\xFF")], &[], 1007);
    check(&node, &[close(1000, b""), masked(TEXT, b"after")], &[], 1000);
}

#[test]
fn what_is_only_promised_is_not_waited_for() {
    let node = node();
    let tebibyte = [&[0x82, 0xFF][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    check(&node, &[tebibyte], &[], 1009);
    let mut stream = WebSocket::open(node.node.addr, "/v1/stream", None);
    stream.send(&masked(TEXT, &vec![b' '; 300 << 10]));
    assert_eq!(closed(&mut stream), 1009);
}

#[test]
fn a_client_that_says_nothing_is_asked_and_let_go() {
    let node = TestNode::on_cpu(&[("STREAM__IDLE_MAX", "400ms"), ("STREAM__HEARTBEAT", "100ms")]);
    let mut socket = WebSocket::open(node.node.addr, "/v1/echo", None);
    assert_eq!(socket.frame(), Some((PING, Vec::new())));
    assert_eq!(closed(&mut socket), 1001);
}

#[test]
fn a_stopping_node_takes_leave() {
    let node = node();
    let mut echo = WebSocket::open(node.node.addr, "/v1/echo", None);
    let mut stream = WebSocket::open(node.node.addr, "/v1/stream", None);
    let stopped = std::thread::spawn(move || drop(node));
    assert_eq!(closed(&mut echo), 1001);
    let goodbye = stream.op("goodbye");
    assert_eq!(goodbye["why"], "drain");
    assert!(goodbye["reconnect_after_ms"].is_u64());
    assert_eq!(closed(&mut stream), 1001);
    drop((echo, stream));
    stopped.join().expect("a node that stops");
}

#[test]
fn what_is_no_websocket_gets_an_http_answer() {
    let node = node();
    let addr = node.node.addr;
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(request(addr, "GET", "/v1/stream", &[], b"").status, 426);
    assert_eq!(request(addr, "GET", "/v1/stream", &upgrade, b"").status, 426);
    assert_eq!(request(addr, "POST", "/v1/stream", &upgrade, b"").status, 405);
    assert_eq!(request(addr, "GET", "/nothing", &upgrade, b"").status, 404);
    let live = request(addr, "GET", "/health/live", &upgrade, b"");
    assert_eq!((live.status, live.header("connection")), (200, Some("close")));
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("Sec-WebSocket-Version", "13");
    let unknown = [upgrade[0], upgrade[1], key, version, ("Sec-WebSocket-Protocol", "other")];
    assert_eq!(request(addr, "GET", "/v1/stream", &unknown, b"").status, 400);
    let keyless = [upgrade[0], upgrade[1], version];
    assert_eq!(request(addr, "GET", "/v1/echo", &keyless, b"").status, 400);
    let chosen = WebSocket::open(addr, "/v1/stream", Some("other, peregrine.v1.msgpack"));
    assert!(chosen.head.contains("sec-websocket-protocol: peregrine.v1.msgpack\r\n"), "{}", chosen.head);
}

#[test]
fn there_are_only_so_many_seats() {
    let node = TestNode::on_cpu(&[("STREAM__CONNECTIONS_MAX", "1")]);
    let addr = node.node.addr;
    let first = WebSocket::open(addr, "/v1/echo", None);
    let mut second = Client::connect(addr).expect("a connection");
    second
        .send_raw(
            b"GET /v1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("a request");
    assert_eq!(second.receive().expect("an answer").status, 503);
    drop(first);
}

fn node() -> TestNode {
    TestNode::on_cpu(&[("SERVER__DRAIN", "5s")])
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// The code that the server closes with, after which it hangs up.
#[track_caller]
fn closed(socket: &mut WebSocket) -> u16 {
    let (first, payload) = socket.frame().expect("a close frame");
    assert_eq!(first, CLOSE, "{payload:?}");
    socket.send(&masked(CLOSE, &payload[..2]));
    assert_eq!(socket.frame(), None);
    u16::from_be_bytes([payload[0], payload[1]])
}

/// Sends, reads as many frames as are wanted, and then the code of the close frame.
#[track_caller]
fn check(node: &TestNode, sent: &[Vec<u8>], want: &[(u8, &[u8])], code: u16) {
    let mut socket = WebSocket::open(node.node.addr, "/v1/echo", None);
    for bytes in sent {
        socket.send(bytes);
    }
    for (first, payload) in want {
        assert_eq!(socket.frame(), Some((*first, payload.to_vec())));
    }
    if code == 1000 && sent.last().is_none_or(|last| last[0] != CLOSE) {
        socket.send(&close(1000, b""));
    }
    assert_eq!(closed(&mut socket), code);
    socket.stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
}
