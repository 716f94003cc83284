//! What tracing costs: `tracing [ROUNDS] [SECONDS] [CONNECTIONS]`, run beside a built `peregrine`.
//!
//! Four nodes in processes of their own: tracing off, on with nothing recorded, one request in a hundred, and every one.
//! They are loaded in turns, the order changed each round, by a closed loop of binary requests of one window: the cheapest
//! request there is, so that the share is the largest. Spans go to a collector in this process that answers and forgets.
//! Prints for each round the requests a second and the processor time of the node for a request, and the medians of the
//! ratios to the node without tracing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MODEL: &str = "nhits-168x24-quantile";
const WINDOW: usize = 168;
/// Clock ticks of `/proc/PID/stat` a second, on every Linux there is.
const TICKS_PER_S: f64 = 100.0;
/// Share of the requests that each node records; the first has no tracing at all.
const NODES: [(&str, Option<&str>); 4] =
    [("off", None), ("0 %", Some("0.0")), ("1 %", Some("0.01")), ("100 %", Some("1.0"))];

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1);
    let mut next = |default: f64| numbers.next().map_or(Ok(default), |text| text.parse::<f64>());
    let (rounds, each, connections) = (next(9.0)? as usize, next(3.0)?, next(32.0)? as usize);
    let collector = collector()?;
    let nodes: Vec<Node> =
        NODES.iter().map(|(_, ratio)| Node::start(collector, *ratio)).collect::<Result<_, _>>()?;
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
    let counts: Vec<String> = nodes.iter().map(Node::spans).collect::<Result<_, _>>()?;
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

/// A node in a process of its own; killed when dropped.
struct Node {
    child: Child,
    addr: SocketAddr,
}

impl Node {
    fn start(collector: SocketAddr, ratio: Option<&str>) -> Result<Self, Failure> {
        let binary = std::env::current_exe()?.with_file_name("../peregrine");
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--backend", "cpu"]);
        command.env("PEREGRINE_LOG__FILTER", "warn").env("PEREGRINE_DEMO__RATE", "0");
        if let Some(ratio) = ratio {
            command.env("PEREGRINE_TRACING__ENDPOINT", format!("http://{collector}"));
            command.env("PEREGRINE_TRACING__SAMPLE_RATIO", ratio);
            command.env("PEREGRINE_TRACING__TRACES_PER_SECOND_MAX", "1000000");
            command.env("PEREGRINE_TRACING__QUEUE_MAX", "1048576");
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("ready http://").ok_or("not ready")?.parse()?;
        Ok(Self { child, addr })
    }

    /// What became of its spans, as it says itself.
    fn spans(&self) -> Result<String, Failure> {
        let mut socket = TcpStream::connect(self.addr)?;
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        socket.read_to_string(&mut page)?;
        let lines = page.lines().filter(|line| line.starts_with("peregrine_trace_spans_total"));
        Ok(lines.map(|line| format!("{line}\n")).collect())
    }

    /// Processor time so far, in seconds.
    fn processor_s(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let behind_name = stat.rsplit_once(") ").ok_or("no stat")?.1;
        let fields: Vec<&str> = behind_name.split(' ').collect();
        let ticks =
            fields.get(11).ok_or("short")?.parse::<f64>()? + fields.get(12).ok_or("short")?.parse::<f64>()?;
        Ok(ticks / TICKS_PER_S)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every connection asks, waits for the answer, and asks again. Answers, and how long it took.
fn load(addr: SocketAddr, connections: usize, span: Duration) -> Result<(u64, Duration), Failure> {
    let (ends, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|at| {
            let (ends, count) = (Arc::clone(&ends), Arc::clone(&count));
            thread::spawn(move || -> Result<(), Failure> {
                let request = request(at);
                let mut socket = TcpStream::connect(addr)?;
                socket.set_nodelay(true)?;
                let mut buffer = vec![0; 64 << 10];
                while !ends.load(Ordering::Relaxed) {
                    socket.write_all(&request)?;
                    answered(&mut socket, &mut buffer)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    thread::sleep(span);
    ends.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| "a client panicked")??;
    }
    Ok((count.load(Ordering::Relaxed), start.elapsed()))
}

fn request(seed: usize) -> Vec<u8> {
    let header = format!(
        r#"{{"inputs":[{{"name":"y","datatype":"FP32","shape":[1,{WINDOW}],"parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        WINDOW * 4
    );
    let values = (0..WINDOW).map(|at| ((at * (seed % 7 + 3)) % 29) as f32 * 0.1 - 2.0);
    let body: Vec<u8> = header.bytes().chain(values.flat_map(f32::to_le_bytes)).collect();
    let mut request = format!(
        "POST /v2/models/{MODEL}/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n\
         inference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
        header.len(),
        body.len()
    )
    .into_bytes();
    request.extend(body);
    request
}

/// Reads one whole answer, which must be 200.
fn answered(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<(), Failure> {
    let mut len = 0;
    loop {
        let read = socket.read(&mut buffer[len..])?;
        if read == 0 {
            return Err("the node went away".into());
        }
        len += read;
        let Some(end) = buffer[..len].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end])?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(head.to_owned().into());
        }
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
        if len == end + 4 + length.parse::<usize>()? {
            return Ok(());
        }
    }
}
