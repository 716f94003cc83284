//! What recording predictions costs: `audit [ROUNDS] [SECONDS] [CONNECTIONS]`, run beside a built `peregrine`.
//!
//! Two nodes in processes of their own, one of which records. They are loaded in turns, the order changed each round,
//! by a closed loop of binary requests of one window: the cheapest request there is, so that the share is the largest.
//! Prints for each round the requests a second and the processor time of the node for a request, and the medians.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MODEL: &str = "nhits-168x24-quantile";
const WINDOW: usize = 168;
/// Clock ticks of `/proc/PID/stat` a second, on every Linux there is.
const TICKS_PER_S: f64 = 100.0;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1);
    let mut next = |default: f64| numbers.next().map_or(Ok(default), |text| text.parse::<f64>());
    let (rounds, each, connections) = (next(9.0)? as usize, next(3.0)?, next(32.0)? as usize);
    let dir = tempfile::tempdir()?;
    let nodes = [Node::start(None)?, Node::start(Some(dir.path()))?];
    for node in &nodes {
        load(node.addr, connections, Duration::from_secs(2))?;
    }
    let mut seen: [Vec<(f64, f64)>; 2] = Default::default();
    println!("round  plain req/s  µs cpu   recording req/s  µs cpu");
    for round in 0..rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let before = nodes[at].processor_s()?;
            let (count, took) = load(nodes[at].addr, connections, Duration::from_secs_f64(each))?;
            // What it writes a moment later counts.
            thread::sleep(Duration::from_millis(100));
            let busy = nodes[at].processor_s()? - before;
            seen[at].push((count as f64 / took.as_secs_f64(), busy * 1e6 / count as f64));
        }
        let [(plain, plain_us), (with, with_us)] = [seen[0][round], seen[1][round]];
        println!("{round:>5} {plain:>12.0} {plain_us:>7.2} {with:>17.0} {with_us:>7.2}");
    }
    let ratios = |pick: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> =
            seen[0].iter().zip(&seen[1]).map(|(plain, with)| pick(with) / pick(plain)).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[0], all[all.len() - 1])
    };
    for (what, (median, low, high)) in
        [("throughput", ratios(|seen| seen.0)), ("processor time", ratios(|seen| seen.1))]
    {
        println!("{what}, recording / plain: median {median:.4}, {low:.4} to {high:.4}");
    }
    Ok(())
}

/// A node in a process of its own; killed when dropped.
struct Node {
    child: Child,
    addr: SocketAddr,
}

impl Node {
    fn start(records: Option<&Path>) -> Result<Self, Failure> {
        let binary = std::env::current_exe()?.with_file_name("../peregrine");
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--backend", "cpu"]);
        command.env("PEREGRINE_LOG__FILTER", "warn").env("PEREGRINE_DEMO__RATE", "0");
        command.envs(records.map(|dir| ("PEREGRINE_AUDIT__DIR", dir)));
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("ready http://").ok_or("not ready")?.parse()?;
        Ok(Self { child, addr })
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
