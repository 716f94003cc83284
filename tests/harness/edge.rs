//! Fly's proxy before the public Machines of one application, as its documents describe it ("Dynamic Request Routing"):
//! what it adds to a request, and what it makes of an answer with `fly-replay`.
//!
//! It does not do more than ours ask for: targets are Machines, and what it does not know is an error that shows.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Client, Response, request};

/// Larger bodies are not kept, so they cannot be sent twice.
const KEPT_BYTES_MAX: usize = 1_000_000;
/// Replays of one request.
const REPLAYS_MAX: usize = 10;
/// Between two tries to reach a Machine.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// The proxy at one edge. Its threads end with their connections and with the process.
pub(crate) struct Edge {
    pub(crate) addr: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    app: &'static str,
    region: &'static str,
    machines: Mutex<BTreeMap<String, (String, SocketAddr)>>,
    hops: Mutex<Vec<Hop>>,
    requests: AtomicU64,
}

/// One delivery of a request to a Machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hop {
    pub(crate) machine: String,
    pub(crate) status: u16,
    /// What the request said of the way behind it.
    pub(crate) source: Option<String>,
    pub(crate) failed: Option<String>,
    /// What the answer asked for.
    pub(crate) replay: Option<String>,
}

/// A request as a client sent it.
struct Incoming {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What an answer asks for.
struct Wish {
    machine: String,
    /// Any other will do.
    is_preference: bool,
    within: Duration,
    falls_back: bool,
    state: String,
}

impl Edge {
    /// Near callers in `region`, with no Machine behind it.
    pub(crate) fn new(app: &'static str, region: &'static str) -> Self {
        let front = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = front.local_addr().expect("it is bound");
        let (machines, hops, requests) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        let inner = Arc::new(Inner { app, region, machines, hops, requests });
        let serving = Arc::clone(&inner);
        thread::spawn(move || {
            for caller in front.incoming() {
                let (caller, inner) = (caller.expect("a connection"), Arc::clone(&serving));
                thread::spawn(move || inner.serve(caller));
            }
        });
        Self { addr, inner }
    }

    /// A Machine is up.
    pub(crate) fn add(&self, machine: &str, region: &str, addr: SocketAddr) {
        let mut machines = self.inner.machines.lock().expect("no holder panics");
        machines.insert(machine.to_owned(), (region.to_owned(), addr));
    }

    /// The proxy knows a Machine no longer, though it may well be up.
    pub(crate) fn forget(&self, machine: &str) {
        self.inner.machines.lock().expect("no holder panics").remove(machine).expect("it was known");
    }

    /// A request of a caller, and the deliveries that it came to.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (Response, Vec<Hop>) {
        self.inner.hops.lock().expect("no holder panics").clear();
        let answer = request(self.addr, "POST", path, headers, body);
        (answer, self.inner.hops.lock().expect("no holder panics").clone())
    }
}

impl Inner {
    fn serve(&self, caller: TcpStream) {
        let Some(incoming) = Incoming::read(&caller) else { return };
        let response = self.answer(&incoming);
        let mut head = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", response.status);
        for (name, value) in &response.headers {
            let hop_by_hop = ["connection", "content-length", "transfer-encoding"];
            if !hop_by_hop.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", response.body.len()));
        let mut caller = caller;
        // A caller that is gone has its reasons.
        let _ = caller.write_all(head.as_bytes()).and_then(|()| caller.write_all(&response.body));
    }

    fn answer(&self, incoming: &Incoming) -> Response {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut added = vec![
            ("fly-request-id".to_owned(), format!("01K{number:020}-{}", self.region)),
            ("fly-region".to_owned(), self.region.to_owned()),
            ("via".to_owned(), "1.1 fly.io".to_owned()),
        ];
        let plain = added.clone();
        let Some(mut at) = self.front(incoming) else { return gone("no machine") };
        // The replay that is under way, and who asked for it.
        let mut underway: Option<(Wish, String)> = None;
        let (mut replays, mut has_fallen_back) = (0, false);
        loop {
            let began = Instant::now();
            let within = underway.as_ref().map_or(Duration::ZERO, |(wish, _)| wish.within);
            match (self.send(&at, within, incoming, &added), underway.take()) {
                (Ok(response), _) => {
                    let Some(text) = response.header("fly-replay") else { return response };
                    let Some(wish) = Wish::read(text) else { return gone(&format!("fly-replay: {text}")) };
                    replays += 1;
                    if incoming.body.len() > KEPT_BYTES_MAX || has_fallen_back || replays > REPLAYS_MAX {
                        return gone("this cannot be replayed");
                    }
                    let source = std::mem::replace(&mut at, wish.machine.clone());
                    let (region, state) = (self.region, &wish.state);
                    let src = format!("instance={source};region={region};t=1795842381341000;state={state}");
                    added.clone_from(&plain);
                    added.push(("fly-replay-src".to_owned(), src));
                    underway = Some((wish, source));
                }
                (Err(_), Some((wish, source))) if wish.is_preference => {
                    added.push(("fly-preferred-instance-unavailable".to_owned(), wish.machine));
                    at = source;
                }
                (Err(reason), Some((wish, source))) if wish.falls_back => {
                    has_fallen_back = true;
                    let (app, machine, ms) = (self.app, wish.machine, began.elapsed().as_millis());
                    let place = format!("instance={machine};app={app};replay_source={source}");
                    let failed = format!("{place};reason={reason};elapsed_ms={ms}");
                    added.clone_from(&plain);
                    added.push(("fly-replay-failed".to_owned(), failed));
                    at = source;
                }
                (Err(reason), _) => return gone(reason),
            }
        }
    }

    /// Where a request goes first: as its caller prefers, or to the nearest.
    fn front(&self, incoming: &Incoming) -> Option<String> {
        let machines = self.machines.lock().expect("no holder panics");
        let of = |region: &str| machines.iter().find(|(_, (own, _))| own == region).map(|(id, _)| id.clone());
        let preferred = incoming.header("fly-prefer-region").and_then(of);
        preferred.or_else(|| of(self.region)).or_else(|| machines.keys().next().cloned())
    }

    /// Delivers a request; a Machine that takes no connection is tried until the time is over, once at least.
    fn send(
        &self,
        machine: &str,
        within: Duration,
        incoming: &Incoming,
        added: &[(String, String)],
    ) -> Result<Response, &'static str> {
        let addr = self.machines.lock().expect("no holder panics").get(machine).map(|(_, addr)| *addr);
        let addr = addr.ok_or("no_candidate")?;
        let until = Instant::now() + within;
        let mut way = loop {
            match Client::connect(addr) {
                Ok(way) => break way,
                Err(_) if Instant::now() >= until => return Err("timeout"),
                Err(_) => thread::sleep(TRY_EVERY),
            }
        };
        let mut head = format!("{}\r\n", incoming.line);
        for (name, value) in incoming.headers.iter().chain(added) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let sent = way.send_raw(&[head.as_bytes(), &incoming.body].concat());
        let response = sent.and_then(|()| way.receive()).map_err(|_| "retries_exhausted")?;
        let said = |name: &str| {
            let last = |headers: &[(String, String)]| {
                headers
                    .iter()
                    .rev()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            last(added).or_else(|| last(&incoming.headers))
        };
        self.hops.lock().expect("no holder panics").push(Hop {
            machine: machine.to_owned(),
            status: response.status,
            source: said("fly-replay-src"),
            failed: said("fly-replay-failed"),
            replay: response.header("fly-replay").map(str::to_owned),
        });
        Ok(response)
    }
}

impl Incoming {
    fn read(caller: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(caller);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let line = lines.first()?.clone();
        let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let mut incoming = Self { line, headers, body: Vec::new() };
        let length = incoming.header("content-length").map_or(0, |text| text.parse().expect("a length"));
        incoming.body.resize(length, 0);
        reader.read_exact(&mut incoming.body).ok()?;
        Some(incoming)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Wish {
    /// `None`: something in it is not known here, or a time has no unit, which Fly would read as something else.
    fn read(text: &str) -> Option<Self> {
        let (machine, state) = (String::new(), String::new());
        let within = Duration::from_secs(8);
        let mut wish = Self { machine, is_preference: false, within, falls_back: false, state };
        for field in text.split(';') {
            match field.split_once('=')? {
                ("instance", id) => wish.machine = id.to_owned(),
                ("prefer_instance", id) => (wish.machine, wish.is_preference) = (id.to_owned(), true),
                ("timeout", time) => {
                    let (digits, unit) = time.split_at(time.find(|at: char| !at.is_ascii_digit())?);
                    let time = digits.parse().ok()?;
                    wish.within = match unit {
                        "ms" => Duration::from_millis(time),
                        "s" => Duration::from_secs(time),
                        _ => return None,
                    };
                }
                ("fallback", "force_self") => wish.falls_back = true,
                ("state", state) => wish.state = state.to_owned(),
                _ => return None,
            }
        }
        (!wish.machine.is_empty()).then_some(wish)
    }
}

/// The proxy's own answer when it has none of a Machine.
fn gone(why: &str) -> Response {
    Response { status: 502, headers: Vec::new(), body: why.as_bytes().to_vec() }
}
