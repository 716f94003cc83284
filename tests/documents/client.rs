//! The Python client over a network that breaks: what documents promise of it, and no block can show.

use std::io::{self, BufRead as _, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::stage::{python, root};
use crate::harness::NodeProcess;
use crate::replay::{MODEL, Stage};

/// A stretch of network that a test can cut. Its threads end with their connections.
struct Line {
    addr: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    fn to(node: SocketAddr) -> Self {
        let front = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = front.local_addr().expect("it is bound");
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let kept = Arc::clone(&open);
        thread::spawn(move || {
            for near in front.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(node)) else { continue };
                let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                kept.lock().expect("no holder panics").push(copy(&near));
                carry(copy(&near), copy(&far));
                carry(far, near);
            }
        });
        Self { addr, open }
    }

    /// Ends every connection in the middle of what it says; how many there were so far.
    fn cut(&self) -> usize {
        let open = self.open.lock().expect("no holder panics");
        for stream in open.iter() {
            // One that has ended before is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
        open.len()
    }
}

/// One direction; its end ends the other end.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // However it ends, it has ended.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// A program that ends with the test.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_python_client_misses_nothing_when_connections_are_cut() {
    const FOLLOW: &str = "
import sys
from peregrine_client import Client
for one in Client(sys.argv[1]).stream('nhits-vol-quantile', ['USD']):
    print(one.get('seq', one.get('from')), one.get('seq', one.get('to')), flush=True)
";
    let node = NodeProcess::start_with(&["--backend", "cpu"], &[("PEREGRINE_DEMO__RATE", "200")]);
    let line = Line::to(node.addr);
    let child = Command::new(python())
        .args(["-c", FOLLOW, &format!("http://{}", line.addr)])
        .env("PYTHONPATH", root().join("docs/examples"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut script = Script(child);
    let told = BufReader::new(script.0.stdout.take().expect("it is piped")).lines();
    let mut next = None;
    let mut connections = 0;
    for (count, told) in (1..=40).zip(told) {
        let told = told.expect("a line");
        let (from, to) = told.split_once(' ').expect("two numbers");
        let (from, to): (u64, u64) = (from.parse().expect("a number"), to.parse().expect("a number"));
        assert_eq!(from, next.unwrap_or(from), "message {count}");
        next = Some(to + 1);
        if count % 10 == 0 {
            connections = line.cut();
        }
    }
    // Three cuts lie between the first message and the last.
    assert!(next.is_some() && connections >= 4, "{connections} connections");
}

#[test]
fn a_notice_does_not_end_a_stream_of_the_python_client() {
    // What a node says, without one.
    const FOLLOW: &str = "
import json, sys, types, warnings
fake = sys.modules['websocket'] = types.ModuleType('websocket')
fake.WebSocketException = OSError
sys.modules['numpy'] = types.ModuleType('numpy')
from peregrine_client import Client
class Connection:
    def __init__(self, said):
        self.said = iter(said)
    def send(self, text):
        pass
    def recv(self):
        return json.dumps(next(self.said))
    def close(self):
        pass
def follow(*said):
    fake.create_connection = lambda *_, **__: Connection(said)
    return Client().stream('m', ['s'])
notice = {'op': 'error', 'id': 1, 'code': 'levels', 'detail': 'none of 80 %'}
told = lambda seq: {'op': 'prediction', 'series': 's', 'seq': seq}
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter('always')
    stream = follow({'op': 'subscribed', 'id': 1}, told(1), notice, told(2))
    print(next(stream)['seq'], next(stream)['seq'], *[one.message for one in heard])
try:
    next(follow(notice, {'op': 'subscribed', 'id': 1}, told(1)))
except ValueError as refused:
    print('refused', refused)
";
    let ran = Command::new(python())
        .args(["-c", FOLLOW])
        .env("PYTHONPATH", root().join("docs/examples"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 starts");
    let (told, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let want = ["1 2 levels: none of 80 %", "refused levels: none of 80 %"];
    assert_eq!(told.lines().collect::<Vec<_>>(), want, "{errors}");
}

#[test]
fn the_python_client_goes_where_its_large_requests_are_answered() {
    // Some 1.3 MB, which Fly's proxy does not send on.
    const ASK: &str = "
import sys
import numpy
from peregrine_client import Client
client, chance = Client(sys.argv[1]), numpy.random.default_rng(1)
windows = {str(at): chance.normal(size=64) for at in range(1000)}
for _ in range(3):
    print(client.forecast(windows, model=sys.argv[2])[0]['backend'])
";
    let stage = Stage::new(&[]);
    let asked = Command::new(python())
        .args(["-c", ASK, &format!("http://{}", stage.edge.addr), MODEL])
        .env("PYTHONPATH", root().join("docs/examples"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 starts");
    let (told, errors) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
    assert_eq!(told.lines().collect::<Vec<_>>(), ["remote:iad", "cpu", "cpu"], "{errors}");
}
