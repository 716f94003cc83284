//! What one tick and one binary request cost a node above its kernels: `path [MODEL] [auto|gpu|cpu]`.
//!
//! The node is in this process; its only client is the main thread, which never sleeps while it waits. Prints, with
//! `server.busy_poll` off and on, in turns: microseconds from the tick sent to the prediction received, and from a binary
//! request to its answer; allocations of the node's threads for each, none of the client's among them; and how many of
//! the predictions were made in the thread that took their tick. Set `server.workers` below the cores where there are few:
//! it is 1 here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use peregrine::config::{Overrides, Sources, resolve};
use peregrine::node::Node;

#[path = "support/request.rs"]
mod request;
#[expect(dead_code, reason = "the tests break rules that this obeys")]
#[path = "../tests/harness/websocket.rs"]
mod websocket;

use websocket::{TEXT, WebSocket, masked};

const MODEL: &str = "nhits-168x24-quantile";
/// Of each kind, in each round.
const ASKED: usize = 5_000;
/// Not counted, before each.
const WARM_UP: usize = 500;
/// Off and on, so often.
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Counts what every thread but the client's allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that ends has no such variable any more.
    if !IS_CLIENT.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() -> Result<(), Failure> {
    IS_CLIENT.set(true);
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| MODEL.to_owned());
    let backend = arguments.next().unwrap_or_else(|| "auto".to_owned());
    println!(
        "{model}, backend {backend}, one connection: us p50 / p99, allocations each, and of the ticks the share whose \
         prediction was made in line"
    );
    for round in 0..2 * ROUNDS {
        let busy_poll = ["0s", "10s"][round % 2];
        let node = start(&model, &backend, busy_poll)?;
        let ticks = ticks(&node, &model)?;
        let binary = binary(&node, &model)?;
        println!("busy_poll {busy_poll:>3}: tick {ticks} | binary {binary}");
    }
    Ok(())
}

fn start(model: &str, backend: &str, busy_poll: &str) -> Result<Node, Failure> {
    let keys = [
        ("SERVER__BUSY_POLL", busy_poll),
        ("SERVER__WORKERS", "1"),
        ("MODELS__PROFILE", "ultra_low_latency"),
        ("MODELS__DEFAULT", model),
        ("LOG__FILTER", "error"),
        ("DEMO__RATE", "0"),
        ("BACKEND__CHOICE", backend),
    ];
    let environment = keys.map(|(key, value)| (format!("PEREGRINE_{key}"), value.to_owned())).to_vec();
    let overrides = Overrides { listen: Some("127.0.0.1:0".to_owned()), ..Overrides::default() };
    Ok(Node::start(resolve(&Sources { files: Vec::new(), environment, overrides })?)?)
}

/// What was seen of one kind of request.
struct Seen {
    took: Histogram<u64>,
    allocations: f64,
    in_line: Option<f64>,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |share| self.took.value_at_quantile(share) as f64 / 1e3;
        write!(f, "{:.0} / {:.0}, {:.1}", at(0.5), at(0.99), self.allocations)?;
        self.in_line.map_or(Ok(()), |share| write!(f, ", {:.0} %", share * 100.0))
    }
}

/// Asks again and again; `ask` returns once it was answered.
fn measure(mut ask: impl FnMut(usize) -> Result<(), Failure>) -> Result<Seen, Failure> {
    (0..WARM_UP).try_for_each(&mut ask)?;
    let mut took = Histogram::new(3)?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for at in WARM_UP..WARM_UP + ASKED {
        let start = Instant::now();
        ask(at)?;
        took.record(u64::try_from(start.elapsed().as_nanos())?)?;
    }
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / ASKED as f64;
    Ok(Seen { took, allocations, in_line: None })
}

fn ticks(node: &Node, model: &str) -> Result<Seen, Failure> {
    let window = node.system.find(model, None)?.spec.window;
    let mut socket = WebSocket::open(node.addr, "/v1/stream", None);
    socket.text(&format!(r#"{{"op":"subscribe","id":1,"model":"{model}","series":["s"]}}"#));
    socket.op("subscribed");
    for ts in 0..window - 1 {
        socket.text(&tick(ts));
        socket.op("ticked");
    }
    let series = || counter(node.addr, "peregrine_predictions_in_line_total");
    let before = series()?;
    socket.stream.set_nonblocking(true)?;
    let mut inbox = Vec::new();
    let mut seen = measure(|at| {
        let ts = window - 1 + at;
        socket.stream.write_all(&masked(TEXT, tick(ts).as_bytes()))?;
        // The prediction, and the tick's answer; whichever comes first.
        inbox.clear();
        receive(&mut socket.stream, &mut inbox, |bytes| {
            has(bytes, br#""op":"prediction""#) && has(bytes, br#""op":"ticked""#)
        })
    })?;
    seen.in_line = Some((series()? - before) / (WARM_UP + ASKED) as f64);
    Ok(seen)
}

fn tick(ts: usize) -> String {
    format!(r#"{{"op":"tick","id":2,"series":"s","ts":{ts},"value":{}}}"#, (ts * 31 % 97) as f32 / 10.0)
}

fn binary(node: &Node, model: &str) -> Result<Seen, Failure> {
    let window = node.system.find(model, None)?.spec.window;
    let window: Vec<f32> = (0..window).map(|at| (at * 31 % 97) as f32 / 10.0).collect();
    let request = request::binary(model, &window);
    let mut socket = TcpStream::connect(node.addr)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let mut inbox = Vec::new();
    measure(|_| {
        socket.write_all(&request)?;
        inbox.clear();
        receive(&mut socket, &mut inbox, is_whole)
    })
}

/// Whether an answer is all there, and a good one.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    head.starts_with("HTTP/1.1 200 ") && len.is_some_and(|len| bytes.len() >= end + 4 + len)
}

/// Reads without sleeping until `done`.
fn receive(socket: &mut TcpStream, inbox: &mut Vec<u8>, done: impl Fn(&[u8]) -> bool) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; 16 << 10];
    while !done(inbox) {
        match socket.read(&mut buffer) {
            Ok(0) => return Err("the node hung up".into()),
            Ok(count) => inbox.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => {
                std::hint::spin_loop();
            }
            Err(error) => return Err(format!("{error}; so far: {}", String::from_utf8_lossy(inbox)).into()),
        }
    }
    Ok(())
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|part| part == what)
}

/// One figure of `/metrics`.
fn counter(addr: SocketAddr, name: &str) -> Result<f64, Failure> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    socket.read_to_string(&mut page)?;
    let line = page.lines().find(|line| line.split(['{', ' ']).next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next()).ok_or("no such metric")?;
    Ok(value.parse()?)
}
