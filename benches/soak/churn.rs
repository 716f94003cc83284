//! What comes and goes beside the load: a thread for each kind, at a pace of its own, until it is told to stop.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;

use crate::MODEL;
use crate::support::Failure;

/// In two versions that nothing but releases ask for.
pub(crate) const RELEASED: &str = "released";
/// Leaves and comes back.
const UNLOADED: &str = "tcn-vol-point";
const SERIES: u64 = 64;
/// More than is kept of a series, and of ticks in memory before they are written: both are full from the first.
const TICKS: u64 = 4_000;
/// Clients come from so many; the node remembers each.
const ADDRESSES: u64 = 20 * 250;
/// Requests that are begun at once: more than the threads of a node keep the heads of for the next.
const CROWD: u64 = 512;
/// Ticks are written as a table by then.
const WRITTEN_WITHIN: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(20);

type Do = fn(SocketAddr, u64) -> Result<(), Failure>;

/// Each kind, and the pause between two.
const KINDS: [(&str, u64, Do); 9] = [
    ("strangers", 100, stranger),
    ("hang-ups", 100, hang_up),
    ("ticks", 100, ticks),
    ("subscribers", 50, subscriber),
    ("resuming subscribers", 50, resuming),
    ("models", 4_000, model),
    ("releases", 2_000, release),
    ("reloads", 3_000, reload),
    ("looks", 250, look),
];

pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<Counts>)>,
}

/// How often it worked, how often not, and why not the last time.
#[derive(Default)]
struct Counts {
    done: u64,
    failed: u64,
    last: Option<String>,
}

pub(crate) struct Done(BTreeMap<&'static str, Counts>);

impl Done {
    pub(crate) fn is_sound(&self) -> bool {
        self.0.values().all(|counts| counts.done > counts.failed)
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, counts) in &self.0 {
            write!(f, "{} {name}", counts.done)?;
            if let Some(last) = &counts.last {
                write!(f, " ({} failed: {last})", counts.failed)?;
            }
            f.write_str("; ")?;
        }
        Ok(())
    }
}

impl Churn {
    /// Of all kinds, or of those that are named.
    pub(crate) fn start(addr: SocketAddr, kinds: Option<&str>) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let wanted = |name: &str| kinds.is_none_or(|kinds| kinds.split(',').any(|kind| kind == name));
        let mut threads = Vec::new();
        for (name, pause_ms, act) in KINDS.into_iter().filter(|(name, ..)| wanted(name)) {
            let stop = Arc::clone(&stop);
            let run = move || {
                let mut counts = Counts::default();
                for number in 0.. {
                    match act(addr, number) {
                        Ok(()) => counts.done += 1,
                        Err(error) => {
                            counts.failed += 1;
                            counts.last = Some(error.to_string());
                        }
                    }
                    thread::sleep(Duration::from_millis(pause_ms));
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                counts
            };
            threads.push((name, thread::spawn(run)));
        }
        Ok(Self { stop, threads })
    }

    pub(crate) fn stop(self) -> Result<Done, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = BTreeMap::new();
        for (name, thread) in self.threads {
            done.insert(name, thread.join().map_err(|_| "churn panicked")?);
        }
        Ok(Done(done))
    }
}

/// A connection from one of many addresses.
fn connect(addr: SocketAddr, number: u64) -> Result<TcpStream, Failure> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let number = number % ADDRESSES;
    let own = [127, 0, (number / 250) as u8, (number % 250 + 2) as u8];
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    socket.connect(&addr.into())?;
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A request on a connection of its own; some ask for what there is not. The names and paths are all different.
fn stranger(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    let known = json!({"model": RELEASED, "series": [{"symbol": "USD"}], "deadline_ms": 5_000});
    let mut unknown = known.clone();
    unknown["model"] = format!("no-{number}").into();
    let (path, body, expected) = match number % 5 {
        0 => ("/v1/forecast".to_owned(), known, "200"),
        1 => ("/neural/predict".to_owned(), json!({"symbol": "USD", "horizon": 2}), "200"),
        2 => ("/v1/forecast".to_owned(), unknown, "404"),
        3 => (format!("/v2/models/no-{number}/infer"), json!({"inputs": []}), "404"),
        _ => (format!("/no/{number}"), json!({}), "404"),
    };
    let mut socket = connect(addr, number)?;
    let extra = format!("traceparent: 00-{number:032x}-{:016x}-01\r\nconnection: close\r\n", number + 1);
    socket.write_all(&post(&path, &extra, &body.to_string()))?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let status = answer.get(9..12).ok_or("no answer")?;
    // Busy is an answer, and so is unloaded.
    if [expected, "429", "503"].contains(&status) { Ok(()) } else { Err(format!("{path}: {status}").into()) }
}

fn post(path: &str, extra: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{extra}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// A client that is gone in the middle.
fn hang_up(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    let request =
        post("/v1/forecast", "", &json!({"model": MODEL, "series": [{"symbol": "USD"}]}).to_string());
    let mut socket = connect(addr, number)?;
    match number % 4 {
        0 => socket.write_all(&request[..30])?,
        1 => socket.write_all(&request[..request.len() - 10])?,
        2 => socket.write_all(&request)?,
        _ => {
            let (mut stream, _) = tungstenite::client(format!("ws://{addr}/v1/stream"), socket)?;
            stream.send(wish(number, &Value::Null))?;
            // Half a frame.
            stream.get_mut().write_all(&[0x81, 0xFE, 0x10])?;
        }
    }
    Ok(())
}

/// Fills what is bounded and would take the churn long: the windows of all series, the table of who has asked, and the
/// heads of requests that threads keep.
pub(crate) fn fill(addr: SocketAddr) -> Result<(), Failure> {
    for series in 0..SERIES {
        let lines: String = (0..TICKS).map(|at| tick(series, 1_000 + at as i64, at)).collect();
        feed(addr, &lines)?;
    }
    let request = post("/v1/forecast", "connection: close\r\n", &json!({"model": "no"}).to_string());
    for number in 0..ADDRESSES {
        let mut socket = connect(addr, number)?;
        socket.write_all(&request)?;
        socket.read_to_end(&mut Vec::new())?;
    }
    let begun = |number| -> Result<TcpStream, Failure> {
        let mut socket = connect(addr, number)?;
        socket.write_all(&request[..request.len() - 1])?;
        Ok(socket)
    };
    let crowd: Vec<TcpStream> = (0..CROWD).map(begun).collect::<Result<_, _>>()?;
    thread::sleep(Duration::from_secs(1));
    drop(crowd);
    Ok(())
}

/// Ticks until the journal of this folder writes a table: what it gathers in memory until then is as much each time.
pub(crate) fn settle(addr: SocketAddr, journal: &Path) -> Result<(), Failure> {
    // Tables are numbered.
    let newest = || -> Result<Option<u64>, Failure> {
        let mut newest = None;
        for keyspace in fs::read_dir(journal.join("ticks/keyspaces"))? {
            for table in fs::read_dir(keyspace?.path().join("tables"))? {
                newest = newest.max(table?.file_name().to_string_lossy().parse().ok());
            }
        }
        Ok(newest)
    };
    let (before, start) = (newest()?, Instant::now());
    let mut number = 0;
    while newest()? == before {
        if start.elapsed() > WRITTEN_WITHIN {
            return Err("the journal writes no table".into());
        }
        ticks(addr, number)?;
        number += 1;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn tick(series: u64, ts: i64, number: u64) -> String {
    format!(
        "{{\"series\":\"soak/{series}\",\"ts\":{ts},\"value\":{}}}\n",
        ((series * 31 + number) % 97) as f32 / 10.0
    )
}

/// One of each series.
fn ticks(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let lines: String = (0..SERIES).map(|series| tick(series, now, number)).collect();
    feed(addr, &lines)
}

fn feed(addr: SocketAddr, lines: &str) -> Result<(), Failure> {
    ureq::post(format!("http://{addr}/v1/ticks")).send(lines)?.body_mut().read_to_string()?;
    Ok(())
}

fn wish(number: u64, from: &Value) -> Message {
    // Some wish what many do, and some what nobody else ever did.
    let series = match number % 4 {
        0 => "soak/*".to_owned(),
        1 => format!("soak/{}", number % SERIES),
        2 => format!("soak/{}*", number % 7),
        _ => format!("nobody/{number}"),
    };
    let mut wish =
        json!({"op": "subscribe", "id": 1, "model": MODEL, "series": [series, "soak/0"], "levels": [80]});
    if from.is_null() {
        wish["snapshot"] = true.into();
        wish["conflate"] = (number.is_multiple_of(3)).into();
    } else {
        wish["from"] = from.clone();
    }
    Message::text(wish.to_string())
}

/// Reads for a while, and leaves with or without a word.
fn subscriber(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    let last = follow(addr, number, &Value::Null)?;
    if last.is_null() { Err("heard nothing".into()) } else { Ok(()) }
}

/// Comes back to where it was a moment ago.
fn resuming(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    let last = follow(addr, number, &Value::Null)?;
    follow(addr, number, &last).map(drop)
}

/// What was heard last, as the next one wishes it.
fn follow(addr: SocketAddr, number: u64, from: &Value) -> Result<Value, Failure> {
    let mut request = format!("ws://{addr}/v1/stream").into_client_request()?;
    let packed = number % 5 == 4;
    if packed {
        let name = HeaderValue::from_static("peregrine.v1.msgpack");
        request.headers_mut().insert("sec-websocket-protocol", name);
    }
    let (mut socket, _) = tungstenite::client(request, connect(addr, number)?)?;
    // The messages of the other dialect are maps of the same members; this one reads only that they come.
    if packed {
        socket.close(None)?;
        return Ok(json!({}));
    }
    socket.send(wish(number, from))?;
    let (until, mut next) = (Instant::now() + Duration::from_millis(500 + number % 7 * 300), json!({}));
    while Instant::now() < until {
        let Message::Text(text) = socket.read()? else { continue };
        let message: Value = serde_json::from_str(&text)?;
        match message["op"].as_str() {
            Some("error" | "goodbye") => return Err(text.to_string().into()),
            Some("prediction") => {
                let series = message["series"].as_str().ok_or("no series")?;
                next[series] = (message["seq"].as_u64().ok_or("no number")? + 1).into();
            }
            _ => {}
        }
    }
    if number.is_multiple_of(2) {
        socket.close(None)?;
    }
    Ok(next)
}

fn order(addr: SocketAddr, path: &str, body: &str) -> Result<(), Failure> {
    // A refusal says why.
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut answer = agent.post(format!("http://{addr}{path}")).send(body)?;
    let (status, text) = (answer.status(), answer.body_mut().read_to_string()?);
    if status.is_success() { Ok(()) } else { Err(format!("{path}: {status} {text}").into()) }
}

/// Unloads and loads one that is asked for meanwhile, and loads one over itself.
fn model(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    order(addr, &format!("/v1/models/{UNLOADED}/unload"), "")?;
    let asked = json!({"model": UNLOADED, "series": [{"symbol": "USD"}]}).to_string();
    connect(addr, number)?.write_all(&post("/v1/forecast", "", &asked))?;
    order(addr, &format!("/v1/models/{UNLOADED}/load"), "")?;
    order(addr, "/v1/forecast", &asked)?;
    order(addr, &format!("/v1/models/{RELEASED}/load"), "")
}

/// A shadow, a split, and a canary that is taken back or promoted by hand.
fn release(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    let to =
        |what: &str, body: Value| order(addr, &format!("/v1/models/{RELEASED}/{what}"), &body.to_string());
    let asked = json!({"model": RELEASED, "series": [{"symbol": "USD"}]}).to_string();
    let ask = || (0..8).try_for_each(|_| order(addr, "/v1/forecast", &asked));
    to("promote", json!({"version": 1}))?;
    to("shadow", json!({"version": 2, "share": 1.0}))?;
    ask()?;
    to("shadow", json!({}))?;
    to("split", json!({"weights": {"1": 50, "2": 50}}))?;
    ask()?;
    to("rollback", json!({}))?;
    to("canary", json!({"version": 2, "steps": [25.0, 50.0], "hold_ms": 100}))?;
    ask()?;
    to(if number.is_multiple_of(2) { "rollback" } else { "promote" }, json!({}))
}

/// Another deadline, never the same twice; and one that is refused.
fn reload(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    order(addr, "/v1/config", &format!("deadline.default = \"{}ms\"", 4_000 + number % 1_000))?;
    match order(addr, "/v1/config", "server.listen = \"127.0.0.1:9000\"") {
        Ok(()) => Err("an address was changed".into()),
        Err(_refused) => Ok(()),
    }
}

/// What operators and machines look at.
fn look(addr: SocketAddr, number: u64) -> Result<(), Failure> {
    const PATHS: [&str; 14] = [
        "/metrics",
        "/health",
        "/metrics",
        "/status",
        "/metrics",
        "/v1/scorecard",
        "/v1/models",
        "/v1/series/soak/1",
        "/v1/alerts",
        "/v1/breakers",
        "/openapi.json",
        "/v1/config",
        "/",
        "/v2/models/stats",
    ];
    let path = PATHS[(number % PATHS.len() as u64) as usize];
    let accept = if number.is_multiple_of(2) { "application/openmetrics-text" } else { "*/*" };
    let mut answer = ureq::get(format!("http://{addr}{path}")).header("accept", accept).call()?;
    answer.body_mut().read_to_vec()?;
    Ok(())
}
