//! The prediction stream over a socket, on a node whose series are the test's.

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};

use peregrine_actors::series::{Effect, Listing, Pattern, SeriesLog, SeriesName, Tick, TickError, Timestamp};
use peregrine_actors::stream::{Hub, Prediction, Source, SourceError, StreamEvent, StreamId};
use peregrine_runtime::Deadline;
use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};
use serde_json::json;

use crate::harness::{CLOSE, Cases, TestNode, WebSocket, masked, took};

const MODEL: &str = "nhits-vol-quantile";

#[test]
fn a_subscriber_gets_a_snapshot_and_then_every_number() {
    let room = Room::new(&[]);
    for seq in 1..=3 {
        room.publish("a", seq);
    }
    let mut socket = WebSocket::open(room.node.node.addr, "/v1/stream", Some("peregrine.v1.json"));
    socket.text(&subscribe(1, r#""series":["a","b"],"snapshot":true"#));
    let subscribed = socket.op("subscribed");
    assert_eq!((&subscribed["id"], &subscribed["next"]), (&json!(1), &json!({"a": 4})));
    assert_eq!(subscribed["missing"], json!({"b": 128}), "nobody has fed it");
    let snapshot = socket.op("snapshot");
    assert_eq!((&snapshot["series"], &snapshot["seq"]), (&json!("a"), &json!(3)));
    room.publish("a", 4);
    room.publish("c", 1);
    room.publish("b", 1);
    let got: Vec<_> = (0..2).map(|_| socket.op("prediction")).collect();
    assert_eq!((&got[0]["seq"], &got[1]["series"]), (&json!(4), &json!("b")));
    assert_eq!(got[0]["model"], MODEL);
    assert!(got[0]["mean"].is_array() && got[0]["made_at"].is_number(), "{}", got[0]);
}

#[test]
fn a_reader_that_comes_back_misses_nothing() {
    let room = Room::new(&[]);
    for seq in 1..=5 {
        room.publish("a", seq);
    }
    let mut socket = WebSocket::open(room.node.node.addr, "/v1/stream", None);
    socket.text(&subscribe(1, r#""series":"a","from":3"#));
    socket.op("subscribed");
    room.publish("a", 6);
    let seqs: Vec<_> = (0..4).map(|_| socket.op("prediction")["seq"].clone()).collect();
    assert_eq!(json!(seqs), json!([3, 4, 5, 6]));
    // A hole that nobody can fill is told.
    room.forget();
    room.publish("a", 9);
    let gap = socket.op("gap");
    assert_eq!((&gap["from"], &gap["to"], &gap["reason"]), (&json!(7), &json!(8), &json!("lost")));
    assert_eq!(socket.op("prediction")["seq"], 9);
}

#[test]
fn ticks_are_fed_and_answered_on_the_same_socket() {
    let room = Room::new(&[]);
    let mut socket = WebSocket::open(room.node.node.addr, "/v1/stream", None);
    socket.text(r#"{"op":"tick","id":9,"ticks":[{"series":"a","ts":1.5,"value":2},{"series":"bad","ts":1,"value":2}]}"#);
    let ticked = socket.op("ticked");
    let want = json!([{"effect": "advanced", "seq": 1}, {"error": "overloaded", "retry_after_ms": 7, "detail": "overloaded, retry in 7 ms"}]);
    assert_eq!((&ticked["id"], &ticked["results"]), (&json!(9), &want));
    let (series, at) = room.ticks.recv().expect("a tick");
    assert_eq!((series.as_str(), at), ("a", Timestamp(1_500_000)));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let room = Room::new(&[("STREAM__SUBSCRIPTIONS_MAX", "2")]);
    let mut socket = WebSocket::open(room.node.node.addr, "/v1/stream", None);
    for (text, code) in [
        ("{".to_owned(), "malformed"),
        (r#"{"op":"subscribe","id":1,"model":"none","series":["a"]}"#.to_owned(), "unknown_model"),
        (subscribe(1, r#""series":["a"],"levels":[33]"#), "levels"),
        (r#"{"op":"unsubscribe","id":5}"#.to_owned(), "unknown_subscription"),
    ] {
        socket.text(&text);
        assert_eq!(socket.op("error")["code"], code, "{text}");
    }
    for id in [1, 2] {
        socket.text(&subscribe(id, r#""series":["a"]"#));
        socket.op("subscribed");
    }
    socket.text(&subscribe(2, r#""series":["b"]"#));
    assert_eq!(socket.op("error")["code"], "duplicate");
    socket.text(&subscribe(3, r#""series":["b"]"#));
    assert_eq!(socket.op("error")["code"], "too_many");
    socket.text(r#"{"op":"unsubscribe","id":1}"#);
    assert_eq!(socket.op("unsubscribed")["id"], 1);
    socket.text(r#"{"op":"ping","id":3}"#);
    assert_eq!(socket.op("pong")["id"], 3);
    socket.text(r#"{"op":"ping","id":"desk 1"}"#);
    assert_eq!(socket.op("pong")["id"], "desk 1");
}

#[test]
fn a_caller_has_its_share_of_the_channels() {
    let room = Room::new(&[("STREAM__CHANNELS_MAX", "8"), ("STREAM__CHANNELS_PER_CALLER_MAX", "2")]);
    let open = || WebSocket::open(room.node.node.addr, "/v1/stream", None);
    let (mut one, mut two) = (open(), open());
    one.text(&subscribe(1, r#""series":["a"]"#));
    one.op("subscribed");
    two.text(&subscribe(2, r#""series":["b"]"#));
    two.op("subscribed");
    two.text(&subscribe(3, r#""series":["c"]"#));
    let refused = two.op("error");
    let detail = "2 different subscriptions of this caller are served already";
    assert_eq!((&refused["code"], &refused["detail"]), (&json!("too_many"), &json!(detail)));
    two.text(&subscribe(4, r#""series":["a"]"#));
    two.op("subscribed");
    two.text(r#"{"op":"unsubscribe","id":2}"#);
    two.op("unsubscribed");
    two.text(&subscribe(5, r#""series":["c"]"#));
    assert_eq!(two.op("subscribed")["id"], 5, "nobody reads the other any more");
}

#[test]
fn a_reader_that_stops_is_told_and_closed_and_the_others_get_everything() {
    // Many are written to by one walk, few each by its own task.
    for others in [1, 9] {
        a_reader_stops(others);
    }
}

fn a_reader_stops(others: usize) {
    // The last words wait for a client that is slow, not for the time of a handshake.
    let room = Room::new(&[
        ("STREAM__LOG_MESSAGES_MAX", "64"),
        ("STREAM__CLOSE_TIMEOUT", "100ms"),
        ("STREAM__STUCK_MAX", "60s"),
    ]);
    let addr = room.node.node.addr;
    let mut slow = WebSocket::open(addr, "/v1/stream", None);
    let mut fast: Vec<_> = (0..others).map(|_| WebSocket::open(addr, "/v1/stream", None)).collect();
    for socket in fast.iter_mut().chain([&mut slow]) {
        socket.text(&subscribe(1, r#""series":["a"]"#));
        socket.op("subscribed");
    }
    // More than the kernel keeps for a socket that nobody reads.
    let count = 60_000;
    for seq in 1..=count {
        room.publish("a", seq);
        if seq % 32 == 0 {
            for socket in &mut fast {
                (0..32).for_each(|at| assert_eq!(socket.op("prediction")["seq"], seq - 31 + at));
            }
        }
    }
    let (mut last, mut words) = (0, Vec::new());
    loop {
        let (first, payload) = slow.frame().expect("a close frame at last");
        if first == CLOSE {
            assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 1008);
            break;
        }
        let message: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        match message["op"].as_str() {
            Some("prediction") => {
                assert_eq!(message["seq"], last + 1);
                last += 1;
            }
            Some("error") => {
                assert_eq!(message["code"], "slow");
                words.push("error");
            }
            Some("goodbye") => words.push("goodbye"),
            other => panic!("{other:?}"),
        }
    }
    assert!(last < count);
    assert_eq!(words, ["error", "goodbye"]);
}

#[test]
fn a_reader_that_takes_nothing_is_not_waited_for_for_ever() {
    let room = Room::new(&[
        ("STREAM__LOG_MESSAGES_MAX", "64"),
        ("STREAM__CLOSE_TIMEOUT", "50ms"),
        ("STREAM__STUCK_MAX", "2s"),
        ("STREAM__HEARTBEAT", "400ms"),
    ]);
    let mut stopped = WebSocket::open(room.node.node.addr, "/v1/stream", None);
    stopped.text(&subscribe(1, r#""series":["a"]"#));
    stopped.op("subscribed");
    (1..=60_000).for_each(|seq| room.publish("a", seq));
    took("the end of its connection", || {
        let metrics = String::from_utf8(room.node.get("/metrics").body).expect("text");
        let slow =
            metrics.lines().find(|line| line.starts_with("peregrine_stream_closed_total{why=\"slow\""));
        slow.is_some_and(|line| line.ends_with(" 1"))
    });
}

/// Readers of one log that do something else meanwhile, each in its way.
#[test]
fn many_readers_of_one_log_get_every_number_whatever_each_does() {
    const READERS: usize = 24;
    let log = [("STREAM__LOG_MESSAGES_MAX", "1000000"), ("STREAM__LOG_MAX", "256MiB")];
    let room = Room::new(&[log[0], log[1], ("STREAM__CLOSE_TIMEOUT", "30s")]);
    let addr = room.node.node.addr;
    let join = || {
        let mut socket = WebSocket::open(addr, "/v1/stream", None);
        socket.text(&subscribe(1, r#""series":["a"]"#));
        socket.op("subscribed");
        socket
    };
    let mut late = join();
    let mut sockets: Vec<_> = (0..READERS).map(|_| join()).collect();
    let mut gone = join();
    // More than the kernel keeps for the one that does not read yet.
    let (step, count) = (40, 30_000);
    for seq in 1..=count {
        room.publish("a", seq);
        if seq % step != 0 {
            continue;
        }
        for (at, socket) in sockets.iter_mut().enumerate() {
            let mut awaited = usize::from(at % 3 == 0);
            if awaited > 0 {
                socket.text(r#"{"op":"ping","id":7}"#);
            }
            let mut next = seq + 1 - step;
            while next <= seq || awaited > 0 {
                let message = socket.json();
                match message["op"].as_str() {
                    Some("prediction") => {
                        assert_eq!(message["seq"], next, "reader {at}");
                        next += 1;
                    }
                    Some("pong") => awaited -= 1,
                    other => panic!("reader {at}: {other:?}"),
                }
            }
        }
        match seq {
            800 => {
                for socket in &mut sockets[..4] {
                    socket.text(&subscribe(2, r#""series":["b"]"#));
                    socket.op("subscribed");
                }
                room.publish("b", 1);
                sockets[..4].iter_mut().for_each(|socket| assert_eq!(socket.op("prediction")["series"], "b"));
            }
            1600 => {
                for socket in &mut sockets[..2] {
                    socket.text(r#"{"op":"unsubscribe","id":2}"#);
                    socket.op("unsubscribed");
                }
                gone = join();
            }
            _ => {}
        }
    }
    drop(gone);
    for seq in 1..=count {
        assert_eq!(late.op("prediction")["seq"], seq);
    }
    room.publish("a", count + 1);
    assert_eq!(late.op("prediction")["seq"], count + 1);
    sockets.iter_mut().for_each(|socket| assert_eq!(socket.op("prediction")["seq"], count + 1));
    let metrics = String::from_utf8(room.node.get("/metrics").body).expect("text");
    let sent = metrics.lines().find(|line| line.starts_with("peregrine_stream_messages_total"));
    let sent = sent.and_then(|line| line.rsplit(' ').next()).expect("it is counted");
    let sent: f64 = sent.parse().expect("a number");
    assert!(sent >= (count * (READERS as u64 + 1)) as f64, "{sent}");
}

#[test]
fn the_shipped_data_are_a_market_that_can_be_followed() {
    let node = TestNode::on_cpu(&[("DEMO__RATE", "200")]);
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
    socket.text(&subscribe(1, r#""series":["USD"],"levels":[80],"snapshot":true"#));
    socket.op("subscribed");
    let mut last = None;
    for _ in 0..5 {
        let message = socket.json();
        if message["op"] == "heartbeat" {
            continue;
        }
        assert!(message["op"] == "snapshot" || message["op"] == "prediction", "{message}");
        let seq = message["seq"].as_u64().expect("a number");
        assert!(last.is_none_or(|last| seq == last + 1), "{seq} after {last:?}");
        last = Some(seq);
    }
    let card = node.get("/v1/scorecard").json();
    assert!(card["models"][0]["scored"].as_u64().is_some_and(|scored| scored > 0), "{card}");
}

#[test]
fn a_model_with_exogenous_columns_follows_ticks_that_bring_them() {
    const COLUMNS: &str = "nhits-gk-exog";
    let shelf = tempfile::tempdir().expect("a folder");
    let folder = shelf.path().join(COLUMNS);
    fs::create_dir(&folder).expect("a folder");
    for file in ["model.json", "weights.safetensors"] {
        fs::copy(Cases::folder(COLUMNS).join(file), folder.join(file)).expect("a copy");
    }
    let repositories = format!("[\"{}\"]", shelf.path().display());
    let node = TestNode::on_cpu(&[("MODELS__REPOSITORIES", &repositories)]);
    let (window, horizon) = (100, 20);
    let whole = |at: i32| {
        let ahead: Vec<i32> = (at..=at + horizon).map(|day| day % 5).collect();
        let past = json!({ "ret": f64::from(at % 7) / 100.0, "logvol": -4.0 + f64::from(at % 3) / 10.0 });
        let value = f64::from(at % 11) / 10.0;
        let tick = json!({ "series": "x", "ts": at, "value": value, "hist_exog": past, "futr_exog": { "dow": ahead } });
        format!("{tick}\n")
    };
    let fed = node.post("/v1/ticks", &(1..=window).map(whole).collect::<String>());
    assert_eq!(fed.json()["advanced"], window);
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
    socket
        .text(&format!(r#"{{"op":"subscribe","id":1,"model":"{COLUMNS}","series":["x"],"snapshot":true}}"#));
    assert_eq!(socket.op("subscribed")["next"], json!({ "x": window + 1 }));
    assert_eq!(socket.op("snapshot")["seq"], window);
    assert_eq!(node.post("/v1/ticks", &whole(window + 1)).status, 200);
    assert_eq!(socket.op("prediction")["seq"], window + 1);
    // Without them its window is not whole, and that is told.
    let bare = format!(r#"{{"series":"x","ts":{},"value":0.5}}"#, window + 2);
    assert_eq!(node.post("/v1/ticks", &bare).status, 200);
    let gap = socket.op("gap");
    let number = json!(window + 2);
    assert_eq!((&gap["from"], &gap["to"], &gap["reason"]), (&number, &number, &json!("failed")));
}

#[test]
fn a_series_that_is_shorter_than_the_window_says_by_how_much() {
    let node = TestNode::on_cpu(&[]);
    let tick = |at: i32| format!("{{\"series\":\"mine\",\"ts\":{at},\"value\":0.{}}}\n", at % 7);
    assert_eq!(node.post("/v1/ticks", &(1..=100).map(tick).collect::<String>()).status, 200);
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
    socket.text(&subscribe(1, r#""series":["mine","m*"],"snapshot":true"#));
    let subscribed = socket.op("subscribed");
    assert_eq!((&subscribed["matched"], &subscribed["missing"]), (&json!(0), &json!({"mine": 28})));
    // And it is right: so many later its first prediction comes.
    assert_eq!(node.post("/v1/ticks", &(101..=128).map(tick).collect::<String>()).status, 200);
    let first = socket.op("prediction");
    assert_eq!(first["seq"], 128);
    // Of the millisecond in which this life began: one that ended in the same second had another.
    assert!(first["epoch"].as_u64().is_some_and(|epoch| epoch > 1_000_000_000_000), "{first}");
    socket.text(&subscribe(2, r#""series":["mine"]"#));
    assert_eq!(socket.op("subscribed").get("missing"), None);
}

#[test]
fn a_model_whose_window_is_longer_than_what_is_kept_is_refused() {
    let node = TestNode::on_cpu(&[("SERIES__HISTORY", "127")]);
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
    socket.text(&subscribe(1, r#""series":["mine"]"#));
    let error = socket.op("error");
    assert_eq!((&error["id"], &error["code"]), (&json!(1), &json!("unsuitable")));
    let detail = error["detail"].as_str().expect("a reason");
    assert!(detail.contains("series.history") && detail.contains(MODEL), "{detail}");
}

#[test]
fn a_configuration_that_keeps_less_than_a_window_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("short.toml");
    let always = format!("[series.always]\n{MODEL} = [\"*\"]\n");
    for (short, key) in [
        ("[series]\nhistory = 127\n".to_owned(), "series.history"),
        (format!("[journal]\ndir = {:?}\ncapacity = 127\n", dir.path().join("journal")), "journal.capacity"),
    ] {
        fs::write(&file, short + &always).expect("written");
        for verb in ["check", "serve"] {
            let run = Command::new("timeout")
                .args(["60", env!("CARGO_BIN_EXE_peregrine"), verb, "--config"])
                .arg(&file)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .envs([("PEREGRINE_SERVER__LISTEN", "127.0.0.1:0"), ("PEREGRINE_DEMO__RATE", "0")])
                .env("PEREGRINE_BACKEND__CHOICE", "cpu")
                .output()
                .expect("it runs");
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            assert_eq!(run.status.code(), Some(2), "{verb}, 124: it serves: {said}");
            let told = format!("{key}: 127 is less than the window of model `");
            assert!(said.contains("short.toml:2") || said.contains("short.toml:3"), "{verb}: {said}");
            assert!(said.contains(&told), "{verb}: {said}");
        }
    }
}

#[test]
fn a_number_that_was_given_again_is_told_by_its_epoch() {
    let room = Room::new(&[]);
    for seq in 1..=5 {
        room.publish("a", seq);
    }
    let resumed = |members: &str| {
        let mut socket = WebSocket::open(room.node.node.addr, "/v1/stream", None);
        socket.text(&subscribe(1, &format!(r#""series":"a",{members}"#)));
        let next = socket.op("subscribed")["next"]["a"].clone();
        (socket, next)
    };
    // Numbers of the room are of epoch 1.
    for epoch in ["1", r#"{"a":1}"#, r#"{"b":7}"#] {
        let (mut socket, next) = resumed(&format!(r#""from":4,"epoch":{epoch}"#));
        assert_eq!(next, 6, "{epoch}");
        let seqs = [(); 2].map(|()| socket.op("prediction")["seq"].clone());
        assert_eq!(json!(seqs), json!([4, 5]), "{epoch}");
    }
    let (mut socket, next) = resumed(r#""from":{"a":4},"epoch":{"a":7}"#);
    let gap = socket.op("gap");
    assert_eq!((&gap["from"], &gap["to"], &gap["reason"]), (&json!(3), &json!(3), &json!("lost")));
    let seqs = [(); 2].map(|()| socket.op("prediction")["seq"].clone());
    assert_eq!((json!(seqs), next), (json!([4, 5]), json!(6)));
    // One that the reader knows and nobody has given.
    let (mut socket, next) = resumed(r#""from":7,"epoch":1"#);
    let gap = socket.op("gap");
    assert_eq!((&gap["from"], &gap["to"], &gap["reason"]), (&json!(7), &json!(5), &json!("lost")));
    assert_eq!(next, 6);
}

#[test]
fn who_comes_back_to_a_node_that_began_its_numbers_again_is_told_and_goes_on() {
    let node = TestNode::on_cpu(&[]);
    let tick = |at: i32| format!("{{\"series\":\"mine\",\"ts\":{at},\"value\":0.{}}}\n", at % 7);
    let fed = node.post("/v1/ticks", &(1..=200).map(tick).collect::<String>());
    assert_eq!(fed.json()["advanced"], 200);
    for from in ["379", r#"{"mine":379}"#] {
        let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
        socket.text(&subscribe(1, &format!(r#""series":["mine"],"from":{from}"#)));
        assert_eq!(socket.op("subscribed")["next"], json!({"mine": 201}));
        let gap = socket.op("gap");
        assert_eq!((&gap["from"], &gap["to"], &gap["reason"]), (&json!(379), &json!(199), &json!("lost")));
        assert_eq!(socket.op("prediction")["seq"], 200);
    }
    // The number that comes next is no such thing.
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
    socket.text(&subscribe(1, r#""series":["mine"],"from":201"#));
    assert_eq!(socket.op("subscribed")["next"], json!({"mine": 201}));
    assert_eq!(node.post("/v1/ticks", &tick(201)).status, 200);
    assert_eq!(socket.op("prediction")["seq"], 201);
    // A series that has not come back yet begins at 1.
    for (id, from) in [(2, r#"{"other":7}"#), (3, "7")] {
        socket.text(&subscribe(id, &format!(r#""series":["other"],"from":{from}"#)));
        let subscribed = socket.op("subscribed");
        assert_eq!(subscribed["next"], json!({"other": 1}));
        assert!(subscribed["missing"]["other"].as_u64().is_some_and(|missing| missing > 1), "{subscribed}");
        let gap = socket.op("gap");
        assert_eq!((&gap["from"], &gap["to"], &gap["reason"]), (&json!(7), &json!(0), &json!("lost")));
    }
    // One that only a pattern means is told of when it begins.
    let mut socket = WebSocket::open(node.node.addr, "/v1/stream", None);
    socket.text(&subscribe(1, r#""series":["late/*"],"from":379"#));
    assert_eq!(socket.op("subscribed")["next"], json!({}));
    let late = |at: i32| tick(at).replace("mine", "late/a");
    assert_eq!(node.post("/v1/ticks", &(1..=200).map(late).collect::<String>()).json()["advanced"], 200);
    let gap = socket.op("gap");
    let first = socket.op("prediction")["seq"].as_u64().expect("a number");
    assert_eq!((&gap["from"], &gap["to"], &gap["reason"]), (&json!(379), &json!(first - 1), &json!("lost")));
}

#[test]
fn a_reader_that_conflates_gets_every_number_as_a_prediction_or_in_a_gap() {
    let room = Room::new(&[("STREAM__LOG_MESSAGES_MAX", "256")]);
    let addr = room.node.node.addr;
    let mut slow = WebSocket::open(addr, "/v1/stream", None);
    let mut fast = WebSocket::open(addr, "/v1/stream", None);
    for (socket, members) in
        [(&mut slow, r#""series":["a"],"conflate":true"#), (&mut fast, r#""series":["a"]"#)]
    {
        socket.text(&subscribe(1, members));
        socket.op("subscribed");
    }
    let count = 60_000;
    for seq in 1..=count {
        room.publish("a", seq);
        if seq % 32 == 0 {
            (0..32).for_each(|at| assert_eq!(fast.op("prediction")["seq"], seq - 31 + at));
        }
    }
    let (mut next, mut gaps) = (1, 0);
    while next <= count {
        let message = slow.json();
        match message["op"].as_str() {
            Some("prediction") => {
                assert_eq!(message["seq"], next);
                next += 1;
            }
            Some("gap") => {
                assert_eq!((&message["from"], &message["reason"]), (&json!(next), &json!("conflated")));
                next = message["to"].as_u64().expect("a number") + 1;
                gaps += 1;
            }
            other => assert_eq!(other, Some("heartbeat"), "{message}"),
        }
    }
    assert!(gaps > 0);
}

#[test]
fn message_pack_says_the_same() {
    let room = Room::new(&[]);
    let mut socket = WebSocket::open(room.node.node.addr, "/v1/stream", Some("peregrine.v1.msgpack"));
    // {"op": "ping", "id": 300}
    socket.send(&masked(0x82, b"\x82\xA2op\xA4ping\xA2id\xCD\x01\x2C"));
    assert_eq!(socket.frame(), Some((0x82, b"\x82\xA2op\xA4pong\xA2id\xCD\x01\x2C".to_vec())));
    socket.text("{}");
    let (first, payload) = socket.frame().expect("a close frame");
    assert_eq!((first, &payload[..2]), (CLOSE, &1003_u16.to_be_bytes()[..]));
}

fn subscribe(id: u64, members: &str) -> String {
    format!(r#"{{"op":"subscribe","id":{id},"model":"{MODEL}",{members}}}"#)
}

/// A node and its series.
struct Room {
    node: TestNode,
    hub: Hub,
    known: Known,
    ticks: mpsc::Receiver<(SeriesName, Timestamp)>,
}

type Known = Arc<Mutex<Vec<Arc<Prediction>>>>;

struct Fake {
    known: Known,
    ticks: mpsc::Sender<(SeriesName, Timestamp)>,
}

impl Room {
    fn new(keys: &[(&str, &str)]) -> Self {
        let known = Known::default();
        let (hub_to, hub) = mpsc::channel();
        let (ticks_to, ticks) = mpsc::channel();
        let source = Arc::new(Fake { known: Arc::clone(&known), ticks: ticks_to });
        let feed = Box::new(move |hub: &Hub| {
            hub_to.send(hub.clone()).expect("the room waits");
            source as Arc<dyn Source>
        });
        let node = TestNode::fed(feed, keys);
        Self { node, hub: hub.recv().expect("a hub"), known, ticks }
    }

    fn publish(&self, series: &str, seq: u64) {
        let one = Arc::new(prediction(series, seq));
        self.known.lock().expect("no holder panics").push(Arc::clone(&one));
        self.hub.publish(StreamEvent::Prediction(one));
    }

    fn forget(&self) {
        self.known.lock().expect("no holder panics").clear();
    }
}

#[async_trait::async_trait]
impl Source for Fake {
    async fn ticks(&self, ticks: Vec<Tick>, _: Deadline) -> Vec<Result<Effect, TickError>> {
        let fed = ticks.into_iter().map(|tick| {
            if tick.series.as_str() == "bad" {
                return Err(TickError::Overloaded { retry_after_ms: 7 });
            }
            self.ticks.send((tick.series, tick.at)).expect("the test waits");
            Ok(Effect::Advanced { seq: 1 })
        });
        fed.collect()
    }

    fn wanted(&self, _: Vec<(Arc<str>, Pattern)>) {}

    async fn replay(
        &self,
        stream: &StreamId,
        from: u64,
        _: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        let known = self.known.lock().expect("no holder panics");
        let wanted = known.iter().filter(|one| one.stream == *stream && one.seq >= from);
        Ok(wanted.cloned().map(StreamEvent::Prediction).collect())
    }

    async fn newest(
        &self,
        _: &str,
        pattern: &Pattern,
        _: Deadline,
    ) -> Result<Vec<Arc<Prediction>>, SourceError> {
        let known = self.known.lock().expect("no holder panics");
        let newest = known.iter().rev().find(|one| pattern.matches(one.stream.series.as_str()));
        Ok(newest.cloned().into_iter().collect())
    }

    async fn log(&self, series: &SeriesName, _: Deadline) -> Result<SeriesLog, SourceError> {
        Err(SourceError::UnknownSeries(series.to_string()))
    }

    async fn list(&self, _: &Pattern, _: Option<&SeriesName>, _: usize, _: Deadline) -> Listing {
        Listing::default()
    }
}

fn prediction(series: &str, seq: u64) -> Prediction {
    let spec = ModelSpec {
        name: MODEL.to_owned(),
        family: Family::Mlp,
        horizon: 2,
        window: 2,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["mean".to_owned()],
    };
    Prediction {
        stream: StreamId { model: MODEL.into(), series: SeriesName::new(series).expect("a name") },
        seq,
        epoch: 1,
        position: seq,
        last: Timestamp(0),
        accepted_at: None,
        made_at: Timestamp(0),
        spec: Arc::new(spec),
        version: 1,
        values: Box::new([0.5, 1.5]),
        backend: "cpu".into(),
        degraded: false,
    }
}
