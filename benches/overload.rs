//! Twice what a node can do, for a while: `overload [SECONDS] [MODEL] [SERIES] [QUEUE_ROWS]`.
//!
//! Finds the peak with a closed loop, then sends twice as much whether it is answered or not, then half of the peak.
//! Each request asks for SERIES symbols, so that forecasting is what there is too much of. The server is in this
//! process, the load comes from one thread of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use peregrine::config::{Overrides, Sources, resolve};
use peregrine::node::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const DEADLINE: Duration = Duration::from_secs(1);
const CLOSED: usize = 16;
/// Connections kept; a request that finds none opens one more.
const IDLE_MAX: usize = 4096;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(60.0), |text| text.parse())?;
    let model = arguments.next().unwrap_or_else(|| "nhits-168x24-quantile".to_owned());
    let series: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    // So long that the limit on waiting work is felt, not the bound on rows.
    let queue_rows = arguments.next().unwrap_or_else(|| "4096".to_owned());
    let keys = [
        ("LOG__FILTER", "error"),
        ("DEMO__RATE", "0"),
        ("BACKEND__CHOICE", "cpu"),
        ("BATCHING__QUEUE_ROWS_MAX", queue_rows.as_str()),
    ];
    let environment = keys.map(|(key, value)| (format!("PEREGRINE_{key}"), value.to_owned())).to_vec();
    let overrides = Overrides { listen: Some("127.0.0.1:0".to_owned()), ..Overrides::default() };
    let node = Node::start(resolve(&Sources { files: Vec::new(), environment, overrides })?)?;
    let names = symbols()?;
    let asked: Vec<String> =
        (0..series).map(|at| format!(r#"{{"symbol":"{}"}}"#, names[at % names.len()])).collect();
    let body = format!(
        r#"{{"model":"{model}","deadline_ms":{},"horizon":1,"levels":[],"series":[{}]}}"#,
        DEADLINE.as_millis(),
        asked.join(",")
    );
    let request = format!(
        "POST /v1/forecast HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load =
        Rc::new(Load { addr: node.addr, request: request.into_bytes().into(), idle: Mutex::default() });
    runtime.block_on(LocalSet::new().run_until(measure(load, seconds)))
}

/// Of the data that ships.
fn symbols() -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string("models/portfolio_small.csv")?;
    let mut names: Vec<String> =
        text.lines().skip(1).filter_map(|line| Some(line.split_once(',')?.0.to_owned())).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

async fn measure(load: Rc<Load>, seconds: f64) -> Result<(), Failure> {
    closed(&load, Duration::from_secs(2)).await?;
    let peak = closed(&load, Duration::from_secs(8)).await?;
    println!("peak, {CLOSED} at a time: {peak}");
    let rate = 2.0 * peak.good as f64 / peak.over.as_secs_f64();
    let flood = open(&load, rate, Duration::from_secs_f64(seconds)).await;
    println!("{rate:.0}/s for {seconds} s: {flood}");
    println!("goodput {:.3} of the peak", flood.goodput() / peak.goodput());
    let after = open(&load, rate / 4.0, Duration::from_secs(5)).await;
    println!("{:.0}/s at once after: {after}", rate / 4.0);
    let last = after.refused_last.max(after.slow_last);
    println!("last refusal or answer above {SLOW:?} afterwards: {last:?}");
    Ok(())
}

/// An answer that shows that the queue is not gone yet.
const SLOW: Duration = Duration::from_millis(100);

struct Load {
    addr: SocketAddr,
    request: Arc<[u8]>,
    idle: Mutex<Vec<TcpStream>>,
}

struct Tally {
    good: u64,
    late: u64,
    other: u64,
    over: Duration,
    accepted: Histogram<u64>,
    refused: Histogram<u64>,
    refused_last: Duration,
    slow_last: Duration,
}

impl Tally {
    fn new() -> Self {
        let blank = || Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds");
        let zero = Duration::ZERO;
        Self {
            good: 0,
            late: 0,
            other: 0,
            over: zero,
            accepted: blank(),
            refused: blank(),
            refused_last: zero,
            slow_last: zero,
        }
    }

    fn goodput(&self) -> f64 {
        self.good as f64 / self.over.as_secs_f64()
    }

    fn note(&mut self, status: u16, took: Duration, since_start: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match status {
            200 => {
                self.accepted.saturating_record(us);
                *(if took <= DEADLINE { &mut self.good } else { &mut self.late }) += 1;
                if took > SLOW {
                    self.slow_last = self.slow_last.max(since_start);
                }
            }
            429 => {
                self.refused.saturating_record(us);
                self.refused_last = self.refused_last.max(since_start);
            }
            _ => self.other += 1,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |histogram: &Histogram<u64>, share| histogram.value_at_quantile(share) as f64 / 1e3;
        write!(
            f,
            "{:.0}/s good, {} late, {} otherwise; accepted p50 {:.1} p99 {:.1} ms; {} refused, p50 {:.2} p99 {:.2} max {:.1} ms",
            self.goodput(),
            self.late,
            self.other,
            ms(&self.accepted, 0.5),
            ms(&self.accepted, 0.99),
            self.refused.len(),
            ms(&self.refused, 0.5),
            ms(&self.refused, 0.99),
            self.refused.max() as f64 / 1e3,
        )
    }
}

async fn closed(load: &Rc<Load>, over: Duration) -> Result<Tally, Failure> {
    let tally = Rc::new(Mutex::new(Tally::new()));
    let start = Instant::now();
    let mut users = JoinSet::new();
    for _ in 0..CLOSED {
        let (load, tally) = (Rc::clone(load), Rc::clone(&tally));
        users.spawn_local(async move {
            while start.elapsed() < over {
                let since = Instant::now();
                let status = load.ask().await.unwrap_or(0);
                tally.lock().note(status, since.elapsed(), start.elapsed());
                if status != 200 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    users.join_all().await;
    Ok(finished(tally, start))
}

/// By the clock, whatever becomes of it; a request's time begins when it was due.
async fn open(load: &Rc<Load>, rate: f64, over: Duration) -> Tally {
    let tally = Rc::new(Mutex::new(Tally::new()));
    let start = Instant::now();
    let mut asks = JoinSet::new();
    let mut sent = 0_u64;
    while start.elapsed() < over {
        let due = start + Duration::from_secs_f64(sent as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        sent += 1;
        let (load, tally) = (Rc::clone(load), Rc::clone(&tally));
        asks.spawn_local(async move {
            let since = Instant::now();
            let status = load.ask().await.unwrap_or(0);
            tally.lock().note(status, since.elapsed(), start.elapsed());
        });
        while asks.try_join_next().is_some() {}
    }
    let over = start.elapsed();
    asks.join_all().await;
    let mut tally = finished(tally, start);
    tally.over = over;
    tally
}

fn finished(tally: Rc<Mutex<Tally>>, start: Instant) -> Tally {
    let mut tally = std::mem::replace(&mut *tally.lock(), Tally::new());
    tally.over = start.elapsed();
    tally
}

impl Load {
    async fn ask(&self) -> Result<u16, Failure> {
        let kept = self.idle.lock().pop();
        let mut socket = match kept {
            Some(socket) => socket,
            None => {
                let socket = TcpStream::connect(self.addr).await?;
                socket.set_nodelay(true)?;
                socket
            }
        };
        socket.write_all(&self.request).await?;
        let mut answer = Vec::with_capacity(4096);
        let (status, whole) = loop {
            if socket.read_buf(&mut answer).await? == 0 {
                return Err("closed".into());
            }
            if let Some(found) = header(&answer)? {
                break found;
            }
        };
        while answer.len() < whole {
            if socket.read_buf(&mut answer).await? == 0 {
                return Err("closed".into());
            }
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(socket);
        }
        Ok(status)
    }
}

/// Status and length of the whole answer, once its header is there.
fn header(bytes: &[u8]) -> Result<Option<(u16, usize)>, Failure> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end])?;
    let status = text.get(9..12).ok_or("no status")?.parse()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    Ok(Some((status, end + 4 + length.ok_or("no length")??)))
}
