//! A blocking websocket client that can also do what no library would: break every rule.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

/// A frame of a client, whatever its first byte says.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0xFE);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0xFF);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(crate) struct WebSocket {
    pub(crate) stream: TcpStream,
    pub(crate) head: String,
}

impl WebSocket {
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr, path: &str, protocol: Option<&str>) -> Self {
        let protocol = protocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        Self::open_with(addr, path, &protocol)
    }

    /// With further header lines, each ended.
    #[track_caller]
    pub(crate) fn open_with(addr: SocketAddr, path: &str, lines: &str) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap_or_else(|err| panic!("connect {addr}: {err}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("a handshake");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("an answer to the handshake");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { stream, head }
    }

    /// Any bytes; a server that has hung up is no error here.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(err) if matches!(err.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            other => other.expect("a server that reads"),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(&masked(TEXT, text.as_bytes()));
    }

    /// First byte and payload of the next frame; `None` when the server has hung up.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Err(err)
                if matches!(err.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                return None;
            }
            other => other.expect("a frame in time"),
        }
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let len = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.array())),
            127 => u64::from_be_bytes(self.array()),
            len => u64::from(len),
        };
        let mut payload = vec![0; usize::try_from(len).expect("a length")];
        self.stream.read_exact(&mut payload).expect("a payload");
        Some((head[0], payload))
    }

    /// The next message that is text, as JSON.
    #[track_caller]
    pub(crate) fn json(&mut self) -> serde_json::Value {
        let (first, payload) = self.frame().expect("a message");
        assert_eq!(first, TEXT, "{payload:?}");
        serde_json::from_slice(&payload).unwrap_or_else(|err| panic!("{err}: {payload:?}"))
    }

    /// The next message of an operation; heartbeats before it are passed over.
    #[track_caller]
    pub(crate) fn op(&mut self, op: &str) -> serde_json::Value {
        loop {
            let message = self.json();
            if message["op"] == op {
                return message;
            }
            assert_eq!(message["op"], "heartbeat", "{message} instead of {op}");
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("a length");
        bytes
    }
}
