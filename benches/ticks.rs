//! From a tick to its prediction at a websocket client, on one node: `ticks [MODEL] [SERIES…]`.
//!
//! Each series ticks once a second, evenly spread; ticks and predictions go over two websockets of one node, whose
//! server is in this process. The time of a tick is when it was sent, so that a prediction carries it back. Prints the
//! percentiles of the whole way and of its hops, for each number of series.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use peregrine::config::{Overrides, Sources, resolve};
use peregrine::node::Node;

#[expect(dead_code, reason = "the tests break rules that this obeys")]
#[path = "../tests/harness/websocket.rs"]
mod websocket;

use websocket::WebSocket;

const MODEL: &str = "nhits-168x24-quantile";
const SERIES: [usize; 3] = [1, 100, 1_000];
const FOR: Duration = Duration::from_secs(5);
/// Not counted, at the start of each.
const WARM_UP: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| MODEL.to_owned());
    let mut series: Vec<usize> = arguments.map(|count| count.parse()).collect::<Result<_, _>>()?;
    if series.is_empty() {
        series = SERIES.to_vec();
    }
    let keys = [
        ("STREAM__STREAMS_MAX", "200000"),
        ("SERIES__PER_SHARD_MAX", "8192"),
        ("LOG__FILTER", "error"),
        ("DEMO__RATE", "0"),
        ("BACKEND__CHOICE", "cpu"),
    ];
    let environment = keys.map(|(key, value)| (format!("PEREGRINE_{key}"), value.to_owned())).to_vec();
    let overrides = Overrides { listen: Some("127.0.0.1:0".to_owned()), ..Overrides::default() };
    let node = Node::start(resolve(&Sources { files: Vec::new(), environment, overrides })?)?;
    let window = node.system.find(&model, None)?.spec.window;
    println!(
        "{model}, window {window}; microseconds: p50 / p99 of the whole, of tick → accepted → made → received"
    );
    for (round, count) in series.into_iter().enumerate() {
        let prefix = format!("r{round}");
        fill(node.addr, &prefix, count, window)?;
        let seen = measure(node.addr, &model, &prefix, count)?;
        println!("{count:>6} series: {seen}");
    }
    Ok(())
}

/// All but the last tick of every window.
fn fill(addr: SocketAddr, prefix: &str, count: usize, window: usize) -> Result<(), Failure> {
    let mut socket = WebSocket::open(addr, "/v1/stream", None);
    for first in (0..count).step_by(16) {
        for at in (0..window - 1).step_by(64) {
            let ticks: Vec<String> = (first..count.min(first + 16))
                .flat_map(|series| {
                    (at..(window - 1).min(at + 64)).map(move |ts| {
                        let value = ((series * 31 + ts) % 97) as f32 / 10.0;
                        format!(r#"{{"series":"{prefix}/{series}","ts":{ts},"value":{value}}}"#)
                    })
                })
                .collect();
            socket.text(&format!(r#"{{"op":"tick","id":1,"ticks":[{}]}}"#, ticks.join(",")));
            let answer = socket.op("ticked");
            if answer["results"].as_array().is_none_or(|all| all.iter().any(|one| one["seq"].is_null())) {
                return Err(format!("not taken: {answer}").into());
            }
        }
    }
    Ok(())
}

struct Seen {
    whole: Histogram<u64>,
    hops: [Histogram<u64>; 3],
    sent: usize,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pair = |of: &Histogram<u64>| {
            format!(
                "{:.0} / {:.0}",
                of.value_at_quantile(0.5) as f64 / 1e3,
                of.value_at_quantile(0.99) as f64 / 1e3
            )
        };
        write!(f, "{}", pair(&self.whole))?;
        for hop in &self.hops {
            write!(f, " | {}", pair(hop))?;
        }
        write!(f, " ({} of {} ticks)", self.whole.len(), self.sent)
    }
}

fn measure(addr: SocketAddr, model: &str, prefix: &str, count: usize) -> Result<Seen, Failure> {
    let mut reader = WebSocket::open(addr, "/v1/stream", None);
    reader.text(&format!(
        r#"{{"op":"subscribe","id":1,"model":"{model}","series":["{prefix}/*"],"levels":[80]}}"#
    ));
    reader.op("subscribed");
    let mut writer = WebSocket::open(addr, "/v1/stream", None);
    let answers = writer.stream.try_clone()?;
    let ended = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let received = scope.spawn(|| receive(reader.stream.try_clone()?, &ended));
        let drained = scope.spawn(|| drain(answers));
        let (start, mut sent, mut counted) = (Instant::now(), 0_usize, 0_usize);
        while start.elapsed() < WARM_UP + FOR {
            let due = (start.elapsed().as_secs_f64() * count as f64) as usize + 1;
            if due == sent {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            let now = unix_nanos();
            let ticks: Vec<String> = (sent..due.min(sent + 256))
                .map(|at| {
                    let series = at % count;
                    let value = (at % 89) as f32 / 10.0;
                    let millis = format!("{}.{:06}", now / 1_000_000, now % 1_000_000);
                    format!(r#"{{"series":"{prefix}/{series}","ts":{millis},"value":{value}}}"#)
                })
                .collect();
            sent += ticks.len();
            if start.elapsed() >= WARM_UP {
                counted += ticks.len();
            }
            writer.text(&format!(r#"{{"op":"tick","ticks":[{}]}}"#, ticks.join(",")));
        }
        thread::sleep(Duration::from_millis(500)); // what is under way arrives
        ended.store(true, Ordering::SeqCst);
        reader.stream.shutdown(std::net::Shutdown::Both)?;
        writer.stream.shutdown(std::net::Shutdown::Both)?;
        drained.join().map_err(|_| "a reader panicked")?;
        let (whole, hops) = received.join().map_err(|_| "a reader panicked")??;
        Ok(Seen { whole, hops, sent: counted })
    })
}

type Times = (Histogram<u64>, [Histogram<u64>; 3]);

fn receive(stream: TcpStream, ended: &AtomicBool) -> Result<Times, Failure> {
    let new = || Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3);
    let (mut whole, mut hops) = (new()?, [new()?, new()?, new()?]);
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let start = Instant::now();
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(text) = frame(&mut stream) {
        let now = unix_nanos();
        let op = word(&text, "\"op\":\"").unwrap_or_default();
        if op != "prediction" {
            *others.entry(op.to_owned()).or_default() += 1;
            continue;
        }
        if start.elapsed() < WARM_UP {
            continue;
        }
        let at = |name: &str| word(&text, name).and_then(nanos).unwrap_or(0);
        let (sent, accepted, made) = (at("\"ts\":"), at("\"accepted_at\":"), at("\"made_at\":"));
        whole.record(now.saturating_sub(sent).max(1))?;
        for (hop, took) in hops.iter_mut().zip([
            accepted.saturating_sub(sent),
            made.saturating_sub(accepted),
            now.saturating_sub(made),
        ]) {
            hop.record(took.max(1))?;
        }
    }
    others.remove("heartbeat");
    if !others.is_empty() {
        println!("        also: {others:?}");
    }
    if ended.load(Ordering::SeqCst) { Ok((whole, hops)) } else { Err("the node hung up".into()) }
}

fn drain(stream: TcpStream) {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    while frame(&mut stream).is_some() {}
}

fn frame(stream: &mut impl Read) -> Option<String> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let len = match head[1] {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len).ok()?;
            usize::from(u16::from_be_bytes(len))
        }
        127 => {
            let mut len = [0; 8];
            stream.read_exact(&mut len).ok()?;
            usize::try_from(u64::from_be_bytes(len)).ok()?
        }
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).ok()?;
    String::from_utf8(payload).ok()
}

/// What stands behind a mark, up to the next quote, comma or brace.
fn word<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    let rest = &text[text.find(mark)? + mark.len()..];
    rest.split(['"', ',', '}']).next()
}

/// Milliseconds with a fraction as nanoseconds.
fn nanos(millis: &str) -> Option<u64> {
    let (whole, fraction) = millis.split_once('.').unwrap_or((millis, ""));
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    Some(whole.parse::<u64>().ok()? * 1_000_000 + fraction)
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
