//! A node in a process of its own under a closed loop, for figures of what it costs to have something on.

#![allow(unreachable_pub, reason = "an example has no outside")]

mod request;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MODEL: &str = "nhits-168x24-quantile";
const WINDOW: usize = 168;
/// Clock ticks of `/proc/PID/stat` a second, on every Linux there is.
const TICKS_PER_S: f64 = 100.0;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A node in a process of its own; killed when dropped.
pub struct Node {
    child: Child,
    pub addr: SocketAddr,
}

impl Node {
    /// The `peregrine` beside this example, on the CPU, with these variables.
    pub fn start<V: AsRef<OsStr>>(variables: &[(&str, V)]) -> Result<Self, Failure> {
        Self::start_on("cpu", variables)
    }

    /// The same on another backend.
    pub fn start_on<V: AsRef<OsStr>>(backend: &str, variables: &[(&str, V)]) -> Result<Self, Failure> {
        let binary = std::env::current_exe()?.with_file_name("../peregrine");
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--backend", backend]);
        command.env("PEREGRINE_LOG__FILTER", "warn").env("PEREGRINE_DEMO__RATE", "0");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("ready http://").ok_or("not ready")?.parse()?;
        Ok(Self { child, addr })
    }

    /// Where `/proc` speaks of it.
    pub fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.id()))
    }

    /// Processor time so far, in seconds.
    pub fn processor_s(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(self.proc().join("stat"))?;
        let behind_name = stat.rsplit_once(") ").ok_or("no stat")?.1;
        let fields: Vec<&str> = behind_name.split(' ').collect();
        let ticks =
            fields.get(11).ok_or("short")?.parse::<f64>()? + fields.get(12).ok_or("short")?.parse::<f64>()?;
        Ok(ticks / TICKS_PER_S)
    }

    /// Processor time so far of its thread of this name, in seconds.
    #[allow(dead_code, reason = "not every example asks")]
    pub fn thread_s(&self, name: &str) -> Result<f64, Failure> {
        for thread in std::fs::read_dir(self.proc().join("task"))? {
            let thread = thread?.path();
            // Others end while they are looked at.
            let is_it =
                std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
            if is_it {
                let spent = std::fs::read_to_string(thread.join("schedstat"))?;
                return Ok(spent.split(' ').next().ok_or("no schedstat")?.parse::<f64>()? / 1e9);
            }
        }
        Err(format!("no thread is called {name}").into())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every connection asks, waits for the answer, and asks again. Answers, and how long it took.
pub fn load(addr: SocketAddr, connections: usize, span: Duration) -> Result<(u64, Duration), Failure> {
    let (ends, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|at| {
            let (ends, count) = (Arc::clone(&ends), Arc::clone(&count));
            thread::spawn(move || -> Result<(), Failure> {
                let request = request::binary(MODEL, &window(at));
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

fn window(seed: usize) -> [f32; WINDOW] {
    std::array::from_fn(|at| ((at * (seed % 7 + 3)) % 29) as f32 * 0.1 - 2.0)
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
