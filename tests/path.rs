//! The way from a socket to a prediction: in which thread it is made, and how long a thread stays awake for the next.

use std::time::Duration;

use crate::harness::{Client, NodeProcess, TestNode, WebSocket, request};

const MODEL: &str = "mlp-vol-quantile";

/// One figure of `/metrics`.
fn metric(addr: std::net::SocketAddr, name: &str) -> f64 {
    let page = String::from_utf8(request(addr, "GET", "/metrics", &[], b"").body).expect("text");
    let line = page.lines().find(|line| line.split(['{', ' ']).next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[test]
fn ticks_of_a_quick_model_are_answered_and_predicted_in_one_thread_and_in_order() {
    const TICKS: u64 = 2_000;
    let keys =
        [("MODELS__PROFILE", "ultra_low_latency"), ("SERVER__WORKERS", "1"), ("SERVER__BUSY_POLL", "1ms")];
    let node = TestNode::on_cpu(&keys);
    let addr = node.node.addr;
    let mut socket = WebSocket::open(addr, "/v1/stream", None);
    socket.text(&format!(r#"{{"op":"subscribe","id":1,"model":"{MODEL}","series":["s"]}}"#));
    socket.op("subscribed");
    let (mut predicted, mut acknowledged) = (0, 0);
    for seq in 1..=TICKS {
        let value = (seq * 31 % 97) as f32 / 10.0;
        socket.text(&format!(r#"{{"op":"tick","id":{seq},"series":"s","ts":{seq},"value":{value}}}"#));
        // A window is full at some time; from then on both come, in either order.
        let mut both = predicted == 0;
        while acknowledged < seq || !both {
            let message = socket.json();
            match message["op"].as_str() {
                Some("ticked") => {
                    acknowledged += 1;
                    assert_eq!(message["results"][0]["seq"], acknowledged, "{message}");
                }
                Some("prediction") => {
                    let now = message["seq"].as_u64().expect("a number");
                    assert!(predicted == 0 || now == predicted + 1, "{message} after {predicted}");
                    (predicted, both) = (now, now == seq);
                }
                _ => assert_eq!(message["op"], "heartbeat"),
            }
        }
    }
    assert_eq!(acknowledged, TICKS);
    assert!(predicted + 1 >= TICKS, "{predicted}");
    let in_line = metric(addr, "peregrine_predictions_in_line_total");
    assert!(in_line > 0.0, "of {}", metric(addr, "peregrine_predictions_total"));
    assert!(metric(addr, "peregrine_busy_poll_turns_total") > 0.0);
}

#[test]
fn what_one_thread_has_at_hand_shares_batches() {
    const CLIENTS: usize = 16;
    const ROUNDS: usize = 50;
    let node = TestNode::on_cpu(&[("SERVER__WORKERS", "1")]);
    let addr = node.node.addr;
    let window = [1.0, 2.0, 4.0, 3.0].repeat(42);
    let body = format!(r#"{{"model":"nhits-168x24-quantile","series":[{{"id":"s","values":{window:?}}}]}}"#);
    let head =
        format!("POST /v1/forecast HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    let message = head + &body;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(addr).expect("a node")).collect();
    for _ in 0..ROUNDS {
        for client in &mut clients {
            client.send_raw(message.as_bytes()).expect("a node");
        }
        for client in &mut clients {
            let answer = client.receive().expect("an answer");
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        }
    }
    // The first of a round may still be alone; one after the other they would all be.
    let batches = metric(addr, "peregrine_device_batches_total");
    assert!(batches < (CLIENTS * ROUNDS) as f64 * 0.75, "{batches} batches");
}

#[test]
fn a_thread_stays_awake_no_longer_than_it_may() {
    let start = |busy_poll| {
        let variables = [("PEREGRINE_SERVER__WORKERS", "1"), ("PEREGRINE_SERVER__BUSY_POLL", busy_poll)];
        NodeProcess::start_with(&["--backend", "cpu"], &variables)
    };
    // What a node spends in a second after the last request, once a short spell is over.
    let spent = |busy_poll| {
        let node = start(busy_poll);
        assert_eq!(request(node.addr, "GET", "/health", &[], b"").status, 200);
        std::thread::sleep(Duration::from_millis(500));
        let before = node.processor_time();
        std::thread::sleep(Duration::from_secs(1));
        node.processor_time() - before
    };
    let (never, shortly, all_along) = (spent("0s"), spent("50ms"), spent("60s"));
    assert!(
        shortly < never + Duration::from_millis(150),
        "{shortly:?} where it costs {never:?} to look for none"
    );
    assert!(all_along > never + Duration::from_millis(200), "{all_along:?} and {never:?}");
}
