//! Ticks into a cluster of real processes: whatever dies, what was acknowledged is in the windows.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Fleet, PING, PONG, Post, TEXT, masked, took};

const BOTH: &[&str] = &["gateway", "inference"];
const NODES: [&str; 3] = ["fra-1", "iad-1", "nrt-1"];

fn three(keys: &[(&str, &str)]) -> Fleet<'static> {
    let post = |name: &'static str| Post { name, region: &name[..3], roles: BOTH };
    Fleet::start(None, &NODES.map(post), keys)
}

/// Feeds series with rising times and remembers what was acknowledged.
struct Feeder {
    series_count: usize,
    /// Where nodes that are up answer.
    addrs: Mutex<Vec<SocketAddr>>,
    ended: AtomicBool,
    /// By series, what was acknowledged, in order.
    acknowledged: Mutex<Vec<Vec<i64>>>,
    /// Longest time from a tick's first sending to its acknowledgement.
    slowest: Mutex<Duration>,
}

impl Feeder {
    fn new(series_count: usize) -> Self {
        Self {
            series_count,
            addrs: Mutex::default(),
            ended: AtomicBool::new(false),
            acknowledged: Mutex::new(vec![Vec::new(); series_count]),
            slowest: Mutex::default(),
        }
    }

    fn up(&self, fleet: &Fleet<'_>, names: &[&str]) {
        *self.addrs.lock().expect("no holder panics") = names.iter().map(|name| fleet.addr(name)).collect();
    }

    /// One tick of every series in each round; a round is sent until all of it is acknowledged.
    fn run(&self) {
        for round in 0_i64.. {
            let lines: String = (0..self.series_count)
                .map(|series| {
                    format!(
                        "{{\"series\":\"s{series}\",\"ts\":{round},\"value\":{}}}\n",
                        value(series, round)
                    )
                })
                .collect();
            let start = Instant::now();
            while !self.send(round, &lines) {
                if self.ended.load(Ordering::SeqCst) {
                    return; // what is not acknowledged is not promised
                }
                assert!(start.elapsed() < Duration::from_secs(30), "round {round} is never acknowledged");
            }
            let mut slowest = self.slowest.lock().expect("no holder panics");
            *slowest = start.elapsed().max(*slowest);
            for acknowledged in self.acknowledged.lock().expect("no holder panics").iter_mut() {
                acknowledged.push(round);
            }
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn send(&self, round: i64, lines: &str) -> bool {
        let addrs = self.addrs.lock().expect("no holder panics").clone();
        let addr = addrs[usize::try_from(round).expect("few rounds") % addrs.len()];
        let Ok(mut client) = Client::connect(addr) else { return false };
        match client.send("POST", "/v1/ticks", &[], lines.as_bytes()) {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(matches!(answer.status, 200 | 429 | 503), "{}: {text}", answer.status);
                answer.status == 200
            }
            Err(_) => false, // its node has just died
        }
    }

    fn rounds(&self) -> usize {
        self.acknowledged.lock().expect("no holder panics")[0].len()
    }

    /// Every tick that was acknowledged is in the windows, as any node shows them.
    #[track_caller]
    fn check(&self, fleet: &Fleet<'_>, from: &str, kept: usize) {
        for (series, acknowledged) in self.acknowledged.lock().expect("no holder panics").iter().enumerate() {
            let shown = fleet.get(from, &format!("/v1/series/s{series}"));
            assert_eq!(shown.status, 200, "{}", String::from_utf8_lossy(&shown.body));
            let shown = shown.json();
            let held: BTreeMap<i64, f64> = shown["ticks"]
                .as_array()
                .expect("ticks")
                .iter()
                .map(|tick| (tick["ts"].as_i64().expect("whole"), tick["value"].as_f64().expect("a number")))
                .collect();
            for round in acknowledged.iter().rev().take(kept) {
                let want = value(series, *round);
                let got = held.get(round);
                assert!(
                    got.is_some_and(|got| (*got - f64::from(want)).abs() < 1e-6),
                    "s{series}: {round} was acknowledged with {want}, {from} shows {got:?}"
                );
            }
        }
    }
}

/// Follows every series over a websocket, wherever a node is up, and resumes where it was cut off.
struct Follower<'f> {
    feeder: &'f Feeder,
    /// Which of the nodes that are up it goes to first.
    first: usize,
    /// By series, the last number that was a prediction or within a gap.
    last: Mutex<BTreeMap<String, u64>>,
    ended: AtomicBool,
    /// Numbers that came as predictions, that came again, and that were told as gaps, by reason.
    predictions: AtomicUsize,
    again: AtomicUsize,
    gaps: Mutex<BTreeMap<String, u64>>,
    connections: AtomicUsize,
}

impl<'f> Follower<'f> {
    fn new(feeder: &'f Feeder, first: usize) -> Self {
        Self {
            feeder,
            first,
            last: Mutex::default(),
            ended: AtomicBool::new(false),
            predictions: AtomicUsize::new(0),
            again: AtomicUsize::new(0),
            gaps: Mutex::default(),
            connections: AtomicUsize::new(0),
        }
    }

    fn run(&self) {
        for turn in 0.. {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let addrs = self.feeder.addrs.lock().expect("no holder panics").clone();
            let addr = addrs[(self.first + turn) % addrs.len()];
            if self.follow(addr).is_none() {
                thread::sleep(Duration::from_millis(20)); // as a client would
            }
        }
    }

    /// Until the socket ends.
    fn follow(&self, addr: SocketAddr) -> Option<()> {
        let mut socket = LooseSocket::open(addr)?;
        let last = self.last.lock().expect("no holder panics").clone();
        let from: serde_json::Map<String, serde_json::Value> =
            last.iter().map(|(series, last)| (series.clone(), (last + 1).into())).collect();
        let from = if from.is_empty() {
            String::new()
        } else {
            format!(r#","from":{}"#, serde_json::Value::Object(from))
        };
        socket.text(&format!(
            r#"{{"op":"subscribe","id":1,"model":"{MODEL}","series":["s*"],"levels":[]{from}}}"#
        ))?;
        self.connections.fetch_add(1, Ordering::SeqCst);
        while !self.ended.load(Ordering::SeqCst) {
            let Some(message) = socket.message()? else { continue };
            match message["op"].as_str().expect("an op") {
                "subscribed" if last.is_empty() => {
                    let next = message["next"].as_object().expect("numbers by series");
                    let mut last = self.last.lock().expect("no holder panics");
                    *last = next.iter().map(|(series, next)| (series.clone(), number(next) - 1)).collect();
                }
                "prediction" => self.heard(&message, number(&message["seq"]), number(&message["seq"])),
                "gap" => self.heard(&message, number(&message["from"]), number(&message["to"])),
                "subscribed" | "heartbeat" => {}
                "goodbye" => return None,
                // A node that is about to die, or has just come, may not have all at hand: the client tries elsewhere.
                "error" => {
                    assert_eq!(message["code"], "unavailable", "{message}");
                    return None;
                }
                other => panic!("{other}: {message}"),
            }
        }
        Some(())
    }

    /// Has the newest number of every series, once no more are fed.
    #[track_caller]
    fn reaches_the_end(&self, fleet: &Fleet<'_>, alive: impl Fn() -> bool) {
        let newest: Vec<(String, u64)> = (0..self.feeder.series_count)
            .map(|series| {
                let shown = fleet.get("iad-1", &format!("/v1/series/s{series}?last=1")).json();
                (format!("s{series}"), number(&shown["seq"]))
            })
            .collect();
        took("the last number of every series", || {
            assert!(alive());
            let last = self.last.lock().expect("no holder panics");
            newest.iter().all(|(series, newest)| last.get(series).is_some_and(|last| last >= newest))
        });
    }

    fn heard(&self, message: &serde_json::Value, from: u64, to: u64) {
        let series = message["series"].as_str().expect("a series");
        let mut lasts = self.last.lock().expect("no holder panics");
        let Some(last) = lasts.get_mut(series) else {
            lasts.insert(series.to_owned(), to); // its stream has just begun
            return;
        };
        assert!(from <= *last + 1, "{series}: {} to {} are silently missing: {message}", *last + 1, from - 1);
        if to <= *last {
            self.again.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let new = to - *last;
        *last = to;
        match message["reason"].as_str() {
            Some(reason) => {
                *self.gaps.lock().expect("no holder panics").entry(reason.to_owned()).or_default() += new;
            }
            None => {
                self.predictions.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

#[track_caller]
fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A websocket that may be cut off at any byte.
struct LooseSocket {
    stream: TcpStream,
    read: Vec<u8>,
}

impl LooseSocket {
    fn open(addr: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(100))).ok()?;
        let request = "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut socket = Self { stream, read: Vec::new() };
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(end) = socket.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&socket.read[..end]).into_owned();
                socket.read.drain(..end + 4);
                return head.starts_with("HTTP/1.1 101 ").then_some(socket);
            }
            socket.more()?;
            if Instant::now() > until {
                return None;
            }
        }
    }

    fn text(&mut self, text: &str) -> Option<()> {
        self.stream.write_all(&masked(TEXT, text.as_bytes())).ok()
    }

    /// `None`: it has ended. `Some(None)`: nothing yet.
    fn message(&mut self) -> Option<Option<serde_json::Value>> {
        loop {
            if let Some((first, payload)) = self.frame() {
                match first {
                    TEXT => return Some(Some(serde_json::from_slice(&payload).expect("JSON"))),
                    PING => self.stream.write_all(&masked(PONG, &payload)).ok()?,
                    _ => return None,
                }
            } else if self.more()? == 0 {
                return Some(None);
            }
        }
    }

    /// A frame, if all of it is here.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, short) = (*self.read.first()?, *self.read.get(1)?);
        let (len, head) = match short {
            126 => (usize::from(u16::from_be_bytes(self.read.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(self.read.get(2..10)?.try_into().ok()?)).ok()?, 10),
            len => (usize::from(len), 2),
        };
        let payload = self.read.get(head..head + len)?.to_vec();
        self.read.drain(..head + len);
        Some((first, payload))
    }

    /// How many bytes have come within the read timeout; `None`: the other side is gone.
    fn more(&mut self) -> Option<usize> {
        let mut bytes = vec![0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => None,
            Ok(count) => {
                self.read.extend_from_slice(&bytes[..count]);
                Some(count)
            }
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(0),
            Err(_) => None,
        }
    }
}

/// Whose windows are short, and whose numbers come quickly.
const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;

#[test]
fn no_number_is_silently_missing_whoever_dies() {
    let mut fleet = three(&[]);
    let feeder = Feeder::new(500);
    feeder.up(&fleet, &NODES);
    let followers = [Follower::new(&feeder, 0), Follower::new(&feeder, 1)];
    thread::scope(|scope| {
        let feeding = scope.spawn(|| feeder.run());
        let _end = End(&feeder.ended);
        took("windows are full", || feeder.rounds() > WINDOW || feeding.is_finished());
        let following: Vec<_> = followers.iter().map(|follower| scope.spawn(|| follower.run())).collect();
        let _ends: Vec<End<'_>> = followers.iter().map(|follower| End(&follower.ended)).collect();
        let heard = |of: &Follower<'_>| of.predictions.load(Ordering::SeqCst);
        let alive = || !feeding.is_finished() && following.iter().all(|one| !one.is_finished());
        for round in 0..3 {
            let (victim, witness) = (NODES[round], NODES[(round + 1) % 3]);
            let before: Vec<usize> = followers.iter().map(heard).collect();
            took("predictions go on", || {
                assert!(alive());
                followers.iter().zip(&before).all(|(one, before)| heard(one) > before + 2_000)
            });
            let others: Vec<&str> = NODES.into_iter().filter(|name| *name != victim).collect();
            fleet.signal(victim, libc::SIGKILL);
            fleet.ended(victim);
            feeder.up(&fleet, &others);
            let before: Vec<usize> = followers.iter().map(heard).collect();
            let first = took("predictions come again", || {
                assert!(alive());
                followers.iter().zip(&before).all(|(one, before)| heard(one) > before + 1_000)
            });
            println!("killed {victim}: 1,000 more predictions at each client after {first:?}");
            fleet.launch(victim);
            fleet.awaits(witness, 3);
            feeder.up(&fleet, &NODES);
        }
        feeder.ended.store(true, Ordering::SeqCst);
        feeding.join().expect("it does not panic");
        for follower in &followers {
            follower.reaches_the_end(&fleet, || following.iter().all(|one| !one.is_finished()));
        }
    });
    feeder.check(&fleet, "nrt-1", 900);
    for follower in &followers {
        println!(
            "{} rounds of 500 series: {} predictions over {} connections, {} again, gaps {:?}; slowest round {:?}",
            feeder.rounds(),
            follower.predictions.load(Ordering::SeqCst),
            follower.connections.load(Ordering::SeqCst),
            follower.again.load(Ordering::SeqCst),
            follower.gaps.lock().expect("no holder panics"),
            feeder.slowest.lock().expect("no holder panics"),
        );
    }
}

fn value(series: usize, round: i64) -> f32 {
    (series as f32) + (round % 1000) as f32 / 8.0
}

#[test]
fn what_is_acknowledged_survives_the_owner_again_and_again() {
    let mut fleet = three(&[]);
    let feeder = Feeder::new(100);
    feeder.up(&fleet, &NODES);
    thread::scope(|scope| {
        let running = scope.spawn(|| feeder.run());
        let _end = End(&feeder.ended);
        for round in 0..4 {
            let (victim, witness) = (NODES[round % 3], NODES[(round + 1) % 3]);
            let before = feeder.rounds();
            took("rounds go on", || feeder.rounds() > before + 20 || running.is_finished());
            let others: Vec<&str> = NODES.into_iter().filter(|name| *name != victim).collect();
            fleet.signal(victim, libc::SIGKILL);
            fleet.ended(victim);
            feeder.up(&fleet, &others);
            let before = feeder.rounds();
            let took =
                took("they go on without it", || feeder.rounds() > before + 2 || running.is_finished());
            println!("killed {victim}: going on after {took:?}");
            assert!(took < Duration::from_secs(10), "{took:?}");
            feeder.check(&fleet, witness, 900);
            fleet.launch(victim);
            fleet.awaits(witness, 3);
            feeder.up(&fleet, &NODES);
        }
        feeder.ended.store(true, Ordering::SeqCst);
    });
    println!(
        "{} rounds of 100 series, slowest {:?}",
        feeder.rounds(),
        feeder.slowest.lock().expect("no holder panics")
    );
    for node in NODES {
        feeder.check(&fleet, node, 900);
    }
}

#[test]
fn what_is_acknowledged_survives_all_nodes_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = format!("{}/{{node}}", dir.path().display());
    let mut fleet = three(&[("JOURNAL__DIR", &folder)]);
    let feeder = Feeder::new(100);
    feeder.up(&fleet, &NODES);
    thread::scope(|scope| {
        let running = scope.spawn(|| feeder.run());
        let _end = End(&feeder.ended);
        took("rounds go on", || feeder.rounds() > 50 || running.is_finished());
        NODES.iter().for_each(|name| fleet.signal(name, libc::SIGKILL));
        for name in NODES {
            fleet.ended(name);
        }
        feeder.ended.store(true, Ordering::SeqCst);
    });
    for name in NODES {
        fleet.launch(name);
    }
    for name in NODES {
        fleet.awaits(name, 3);
    }
    for node in NODES {
        feeder.check(&fleet, node, 900);
    }
    println!("{} rounds of 100 series are there again", feeder.rounds());
}

#[test]
fn a_rolling_restart_loses_no_tick_and_no_number() {
    let mut fleet = three(&[]);
    let feeder = Feeder::new(50);
    feeder.up(&fleet, &NODES);
    let follower = Follower::new(&feeder, 0);
    thread::scope(|scope| {
        let feeding = scope.spawn(|| feeder.run());
        let _end = End(&feeder.ended);
        took("windows are full", || feeder.rounds() > WINDOW || feeding.is_finished());
        let following = scope.spawn(|| follower.run());
        let _ends = End(&follower.ended);
        for victim in NODES {
            let before = (feeder.rounds(), follower.predictions.load(Ordering::SeqCst));
            took("rounds and predictions go on", || {
                assert!(!feeding.is_finished() && !following.is_finished());
                feeder.rounds() > before.0 + 20
                    && follower.predictions.load(Ordering::SeqCst) > before.1 + 1_000
            });
            let others: Vec<&str> = NODES.into_iter().filter(|name| *name != victim).collect();
            feeder.up(&fleet, &others);
            fleet.signal(victim, libc::SIGTERM);
            assert!(fleet.ended(victim).success(), "{victim} stops in good order");
            feeder.check(&fleet, others[0], 900);
            fleet.launch(victim);
            fleet.awaits(others[0], 3);
            feeder.up(&fleet, &NODES);
        }
        feeder.ended.store(true, Ordering::SeqCst);
        feeding.join().expect("it does not panic");
        follower.reaches_the_end(&fleet, || !following.is_finished());
    });
    println!(
        "{} rounds, slowest {:?}; {} predictions over {} connections, gaps {:?}",
        feeder.rounds(),
        feeder.slowest.lock().expect("no holder panics"),
        follower.predictions.load(Ordering::SeqCst),
        follower.connections.load(Ordering::SeqCst),
        follower.gaps.lock().expect("no holder panics"),
    );
    for node in NODES {
        feeder.check(&fleet, node, 900);
    }
}

#[test]
fn where_too_few_nodes_are_there_ticks_are_refused_soon_and_nothing_acknowledged_is_lost() {
    const TICKS: [&str; 2] =
        [r#"{"series":"s0","ts":1,"value":1.5}"#, r#"{"series":"s0","ts":2,"value":2.5}"#];
    // Of the two that hold a tick, one is there again in the end.
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = three(&[("JOURNAL__DIR", &format!("{}/{{node}}", dir.path().display()))]);
    assert_eq!(fleet.post("fra-1", "/v1/ticks", TICKS[0]).status, 200);
    for victim in ["iad-1", "nrt-1"] {
        fleet.signal(victim, libc::SIGKILL);
        fleet.ended(victim);
    }
    took("their loss is noticed", || fleet.members("fra-1").len() == 1);
    // The first is tried for a moment yet: nodes may come. It may be one that an owner took before all was lost.
    fleet.post("fra-1", "/v1/ticks", TICKS[1]);
    let start = Instant::now();
    let refused = fleet.post("fra-1", "/v1/ticks", TICKS[1]);
    let (waited, told) = (start.elapsed(), String::from_utf8_lossy(&refused.body).into_owned());
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{told}");
    assert_eq!(refused.json()["failures"][0]["error"], "no_quorum", "{told}");
    assert!(
        told.contains("1 of the 3 nodes that hold series are there, and none owns any before 2"),
        "{told}"
    );
    assert!(told.contains("the operator"), "{told}");
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    let log = fleet.get("fra-1", "/v1/series/s0");
    assert_eq!((log.status, start.elapsed() < Duration::from_secs(2)), (503, true), "nor is there a log");
    fleet.launch("iad-1");
    fleet.awaits("fra-1", 2);
    took("it is taken again", || fleet.post("fra-1", "/v1/ticks", TICKS[1]).status == 200);
    let held = fleet.get("iad-1", "/v1/series/s0").json();
    let values: Vec<_> = held["ticks"].as_array().expect("ticks").iter().map(|tick| &tick["value"]).collect();
    assert_eq!(values, [1.5, 2.5], "{held}");
}

#[test]
fn a_series_that_was_fed_is_known_by_its_name_on_every_node() {
    const WINDOW: i64 = 64;
    let fleet = three(&[]);
    let value = |series: &str, ts: i64| ((ts * 7 + series.len() as i64) % 13) as f32 * 0.25;
    let line = |series: &str, ts: i64| {
        format!("{{\"series\":\"{series}\",\"ts\":{ts},\"value\":{}}}\n", value(series, ts))
    };
    let fed: [(&str, i64); 4] = [("fx/A", WINDOW), ("fx/BB", WINDOW + 9), ("fx/CCC", WINDOW), ("no", 3)];
    let lines: String =
        fed.iter().flat_map(|&(series, count)| (1..=count).map(move |ts| line(series, ts))).collect();
    assert_eq!(fleet.post("fra-1", "/v1/ticks", &lines).status, 200);
    for node in NODES {
        let ask = |series: &str| {
            fleet.post(node, "/v1/forecast", &format!(r#"{{"model":"{MODEL}","series":[{series}]}}"#))
        };
        for (series, count) in &fed[..3] {
            let newest: Vec<f32> = (count - WINDOW + 1..=*count).map(|ts| value(series, ts)).collect();
            let both = format!(r#"{{"symbol":"{series}"}},{{"values":{newest:?}}},{{"symbol":"{series}"}}"#);
            let answer = ask(&both);
            assert_eq!(answer.status, 200, "{node}: {}", String::from_utf8_lossy(&answer.body));
            let answer = answer.json();
            let median = |at: usize| &answer["forecasts"][at]["median"];
            assert!(median(0).is_array() && median(0) == median(1) && median(0) == median(2), "{answer}");
            assert_eq!(answer["forecasts"][0]["id"], *series);
            let path = format!("/neural/batch_predict?model={MODEL}&symbols={series}");
            let old = fleet.post(node, &path, "").json();
            assert_eq!(&old["predictions"][0]["prediction"], median(0), "{node}: {old}");
        }
        let short = ask(r#"{"symbol":"fx/A"},{"symbol":"no"}"#);
        let said = short.json();
        let why = "symbol `no`: 3 observations where the model's window is 64";
        assert_eq!((short.status, &said["detail"], &said["series"]), (422, &why.into(), &"no".into()));
        let nobody = ask(r#"{"id":"mine","symbol":"nobody"}"#);
        let said = nobody.json();
        let why = "unknown symbol `nobody`";
        assert_eq!((nobody.status, &said["detail"], &said["series"]), (404, &why.into(), &"nobody".into()));

        let list = |query: &str| fleet.get(node, &format!("/v1/series{query}")).json();
        let names = |listed: &serde_json::Value| -> Vec<String> {
            let all = listed["series"].as_array().unwrap_or_else(|| panic!("{listed}"));
            all.iter().map(|one| one["series"].as_str().expect("a name").to_owned()).collect()
        };
        took("every shard has an owner", || list("")["complete"] == true);
        let all = list("");
        assert_eq!(names(&all), ["fx/A", "fx/BB", "fx/CCC", "no"], "{node}");
        let last = &all["series"][3];
        let told = ["seq", "kept", "first_ts", "last_ts"].map(|name| last[name].as_i64());
        assert_eq!(
            (told, &all["next"], &all["silent"]),
            ([3, 3, 1, 3].map(Some), &().into(), &[(); 0].as_slice().into())
        );
        let page = list("?pattern=fx/*&limit=2");
        assert_eq!(
            (names(&page), &page["next"]),
            (vec!["fx/A".to_owned(), "fx/BB".to_owned()], &"fx/BB".into())
        );
        assert_eq!(names(&list("?pattern=fx/*&limit=2&after=fx/BB")), ["fx/CCC"]);
        for query in ["?limit=0", "?limit=1001", "?pattern=", "?after=*", "?limit=x", "?lines=1"] {
            assert_eq!(fleet.get(node, &format!("/v1/series{query}")).status, 400, "{query}");
        }
    }
    fleet.signal("iad-1", libc::SIGSTOP);
    let partly = fleet.get("fra-1", "/v1/series").json();
    assert_eq!(partly["complete"], false, "{partly}");
    fleet.signal("iad-1", libc::SIGCONT);
    assert_eq!(partly["silent"], serde_json::json!(["iad-1"]), "what it owns is missing, and it is said");
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
