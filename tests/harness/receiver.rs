//! A webhook that answers as it is told to, and remembers what it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

/// What a sender gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// Nothing, until the receiver is dropped.
    Hang,
    /// The connection is closed.
    HangUp,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) id: String,
    pub(crate) body: Value,
    pub(crate) answer: Answer,
}

/// Listens until it is dropped.
pub(crate) struct Receiver {
    addr: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Answers in this order, then 200 for ever.
    pub(crate) fn start(script: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (posted, is_over) = (Arc::<Mutex<Vec<Posted>>>::default(), Arc::<AtomicBool>::default());
        let (heard, over) = (Arc::clone(&posted), Arc::clone(&is_over));
        let script = script.to_vec();
        let thread = thread::spawn(move || {
            let mut script = script.into_iter();
            let mut held = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("a connection");
                let Some((id, body)) = read(&stream) else { continue };
                let answer = script.next().unwrap_or(Answer::Status(200));
                heard.lock().expect("no holder panics").push(Posted { id, body, answer });
                match answer {
                    Answer::Status(status) => {
                        let head = "content-length: 0\r\nconnection: close";
                        // A sender that is gone has its reasons.
                        let _ = write!(stream, "HTTP/1.1 {status} Said\r\n{head}\r\n\r\n");
                    }
                    Answer::Hang => held.push(stream),
                    Answer::HangUp => {}
                }
            }
        });
        Self { addr, posted, is_over, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=s3cret", self.addr)
    }

    /// What was sent about alerts of one rule.
    pub(crate) fn about(&self, rule: &str) -> Vec<Posted> {
        let posted = self.posted.lock().expect("no holder panics");
        posted.iter().filter(|one| one.body["groupLabels"]["alertname"] == rule).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread; if that cannot be reached any more it has ended.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The id and the body of a request, if a whole one comes.
fn read(stream: &TcpStream) -> Option<(String, Value)> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut reader = BufReader::new(stream);
    let (mut length, mut id) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().expect("a length"),
            "idempotency-key" => id = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((id, serde_json::from_slice(&body).expect("JSON")))
}
