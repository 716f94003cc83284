//! The fake behind a real socket, in real time: HTTP/1.1, one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use peregrine_fly::machines::{HttpRequest, HttpResponse, Method};

/// Longest wait for a byte of a request.
const PATIENCE: Duration = Duration::from_secs(10);
const HEADERS: [&str; 2] = ["authorization", "fly-machine-lease-nonce"];

/// What is done to one connection; it answers by itself.
pub(crate) type Handler = dyn FnMut(HttpRequest, &mut TcpStream) + Send;

/// A server on a port of its own; it ends with this.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(mut handler: Box<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let has_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&has_ended);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("a connection");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                if let Some(request) = read(&stream) {
                    handler(request, &mut stream);
                }
            }
        });
        Self { address, has_ended, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // It looks again when somebody comes.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server's thread died");
        }
    }
}

fn read(stream: &TcpStream) -> Option<HttpRequest> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let method = match words.next()? {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        _ => return None,
    };
    let target = words.next()?.to_owned();
    let (mut headers, mut body_len) = (Vec::new(), None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name = name.to_ascii_lowercase();
        if name == "content-length" {
            body_len = value.parse().ok();
        }
        headers.extend(HEADERS.iter().find(|known| **known == name).map(|known| (*known, value.to_owned())));
    }
    let body = match body_len {
        Some(len) if len > 0 => {
            let mut body = vec![0; len];
            reader.read_exact(&mut body).ok()?;
            Some(body)
        }
        _ => None,
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (decoded(name), decoded(value))).collect();
    Some(HttpRequest { method, path: decoded(path), query, headers, body })
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits: Vec<u8> = rest.by_ref().take(2).collect();
            let digits = String::from_utf8(digits).expect("hex digits");
            bytes.push(u8::from_str_radix(&digits, 16).expect("hex digits"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Answers and says that it was the last.
pub(crate) fn write(stream: &mut TcpStream, answer: &HttpResponse) {
    let head = format!(
        "HTTP/1.1 {} X\r\ncontent-type: application/json; charset=utf-8\r\nfly-request-id: 01ARZ-iad\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    // Whoever asked may have gone, which is what some tests are about.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer.body));
}
