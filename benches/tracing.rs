//! What tracing costs: `tracing [ROUNDS] [SECONDS] [CONNECTIONS]`, run beside a built `peregrine`.
//!
//! Four nodes in processes of their own: tracing off, on with nothing recorded, one request in a hundred, and every one.
//! They are loaded in turns, the order changed each round, by a closed loop of binary requests of one window: the cheapest
//! request there is, so that the share is the largest. Spans go to a collector in this process that answers and forgets.
//! Prints for each round the requests a second and the processor time of the node for a request, and the medians of the
//! ratios to the node without tracing.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::{Failure, Node, load};

/// Share of the requests that each node records; the first has no tracing at all.
const NODES: [(&str, Option<&str>); 4] =
    [("off", None), ("0 %", Some("0.0")), ("1 %", Some("0.01")), ("100 %", Some("1.0"))];

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1);
    let mut next = |default: f64| numbers.next().map_or(Ok(default), |text| text.parse::<f64>());
    let (rounds, each, connections) = (next(9.0)? as usize, next(3.0)?, next(32.0)? as usize);
    let collector = collector()?;
    let nodes: Vec<Node> =
        NODES.iter().map(|(_, ratio)| start(collector, *ratio)).collect::<Result<_, _>>()?;
    for node in &nodes {
        load(node.addr, connections, Duration::from_secs(2))?;
    }
    let mut seen: [Vec<(f64, f64)>; NODES.len()] = Default::default();
    println!("round  requests/s and µs of processor time: {:?}", NODES.map(|(name, _)| name));
    for round in 0..rounds {
        for turn in 0..NODES.len() {
            let at = (turn + round) % NODES.len();
            let before = nodes[at].processor_s()?;
            let (count, took) = load(nodes[at].addr, connections, Duration::from_secs_f64(each))?;
            // What it exports a moment later counts.
            thread::sleep(Duration::from_millis(1200));
            let busy = nodes[at].processor_s()? - before;
            seen[at].push((count as f64 / took.as_secs_f64(), busy * 1e6 / count as f64));
        }
        let line: Vec<String> =
            seen.iter().map(|seen| format!("{:>8.0} {:>7.2}", seen[round].0, seen[round].1)).collect();
        println!("{round:>5} {}", line.join("  "));
    }
    for (at, (name, _)) in NODES.iter().enumerate().skip(1) {
        for (what, pick) in
            [("throughput", (|seen| seen.0) as fn(&(f64, f64)) -> f64), ("processor time", |seen| seen.1)]
        {
            let pairs = seen[0].iter().zip(&seen[at]);
            let mut ratios: Vec<f64> = pairs.map(|(off, on)| pick(on) / pick(off)).collect();
            ratios.sort_by(f64::total_cmp);
            let (median, low, high) = (ratios[rounds / 2], ratios[0], ratios[rounds - 1]);
            println!("{what}, {name} / off: median {median:.4}, {low:.4} to {high:.4}");
        }
    }
    let counts: Vec<String> = nodes.iter().map(spans).collect::<Result<_, _>>()?;
    println!("{}", counts.concat());
    Ok(())
}

/// Takes whatever is posted.
fn collector() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // An exporter that is gone has its reasons.
            thread::spawn(move || drop(take(socket)));
        }
    });
    Ok(addr)
}

fn take(socket: TcpStream) -> Result<(), Failure> {
    let mut reader = BufReader::new(socket);
    loop {
        let mut length = 0_u64;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// A node that exports to the collector this share of its requests, or traces nothing.
fn start(collector: SocketAddr, ratio: Option<&str>) -> Result<Node, Failure> {
    let Some(ratio) = ratio else { return Node::start::<&str>(&[]) };
    Node::start(&[
        ("PEREGRINE_TRACING__ENDPOINT", format!("http://{collector}").as_str()),
        ("PEREGRINE_TRACING__SAMPLE_RATIO", ratio),
        ("PEREGRINE_TRACING__TRACES_PER_SECOND_MAX", "1000000"),
        ("PEREGRINE_TRACING__QUEUE_MAX", "1048576"),
    ])
}

/// What became of a node's spans, as it says itself.
fn spans(node: &Node) -> Result<String, Failure> {
    let mut socket = TcpStream::connect(node.addr)?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    socket.read_to_string(&mut page)?;
    let lines = page.lines().filter(|line| line.starts_with("peregrine_trace_spans_total"));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}
