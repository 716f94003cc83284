//! One keep-alive connection with at most one request under way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::body::Body;
use crate::response::{Head, head};

/// A socket and where its request and answer stand.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    /// Index of the body under way and the moment its latency counts from.
    pub(crate) under_way: Option<(usize, Instant)>,
    /// Answers within the measured span.
    pub(crate) completions: u64,
    /// Whether the poll also watches for room to write.
    pub(crate) watches_write: bool,
    written: usize,
    pending: Vec<u8>,
}

/// What a read led to.
pub(crate) enum Progress<R> {
    Waiting,
    /// The answer is complete and was shown to the caller's function.
    Done(R),
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            under_way: None,
            completions: 0,
            watches_write: false,
            written: 0,
            pending: Vec::new(),
        })
    }

    /// Begins a request; [`Self::write`] sends it.
    pub(crate) fn begin(&mut self, body: usize, from: Instant) {
        self.under_way = Some((body, from));
        self.written = 0;
    }

    /// Sends as much as the socket takes; true when all of it is out.
    pub(crate) fn write(&mut self, bodies: &[Body]) -> io::Result<bool> {
        let Some((body, _)) = self.under_way else {
            return Ok(true);
        };
        let request = &bodies[body].request;
        while self.written < request.len() {
            match self.socket.write(&request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads what has come; a complete answer is shown to `done` as its head and body.
    pub(crate) fn read<R>(
        &mut self,
        scratch: &mut [u8],
        done: impl FnOnce(&Head, &[u8]) -> R,
    ) -> io::Result<Progress<R>> {
        let count = match self.socket.read(scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(Progress::Waiting);
            }
            Err(error) => return Err(error),
        };
        let fresh = &scratch[..count];
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(fresh);
        }
        let bytes = if self.pending.is_empty() { fresh } else { &self.pending };
        let parsed = head(bytes).map_err(io::Error::other)?;
        match parsed.filter(|head| head.answer_len() <= bytes.len()) {
            Some(head) => {
                let result = done(&head, &bytes[head.head_len..head.answer_len()]);
                self.pending.clear();
                Ok(Progress::Done(result))
            }
            None => {
                if self.pending.is_empty() {
                    self.pending.extend_from_slice(fresh);
                }
                Ok(Progress::Waiting)
            }
        }
    }
}
