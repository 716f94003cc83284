//! One websocket: reads into a buffer of its thread, writes from logs that all share, and keeps next to nothing itself.
//!
//! Knows no protocol above RFC 6455 (that is the session's) and no kind of socket. An idle connection holds no
//! buffer. Time is counted in ticks of one timer.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::busy;

use super::port::{End, Message, Outbox, Session, WRITE_BYTES, Written};
use super::timer::Timer;
use super::ws::{CloseReason, Event, GOING_AWAY, Opcode, POLICY, Reader, frame};

/// Of the buffer that all connections of a thread read into.
const READ_BYTES: usize = 64 << 10;
/// Reads or writes before other connections have their turn.
const TURNS: usize = 8;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    static WRITE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(WRITE_BYTES));
}

/// What a websocket speaks over.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + 'static {
    /// The descriptor, if what is written there reaches the client as it is.
    fn plain(&self) -> Option<RawFd>;
}

impl Socket for TcpStream {
    fn plain(&self) -> Option<RawFd> {
        Some(self.as_raw_fd())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Socket for tokio_rustls::server::TlsStream<T> {
    fn plain(&self) -> Option<RawFd> {
        None
    }
}

/// How patient a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Of the timer.
    pub(super) tick: Duration,
    /// Ticks without a byte before the client is asked whether it lives; twice as many end the connection.
    pub(super) ping_after: u16,
    /// Ticks in which the client takes nothing that is sent; also most that it has, once its connection is to be closed,
    /// to take what was for it.
    pub(super) stuck_max: u16,
    /// For the closing handshake, once the client's socket has taken the rest.
    pub(super) close: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// A close frame is the last of the outbox.
    Closing {
        end: End,
        /// Nothing more of the client is of interest.
        deaf: bool,
    },
    /// Everything is sent; what the client still sends is thrown away until it hangs up, so that nothing is reset.
    Lingering {
        end: End,
    },
}

pub(super) struct Connection<T, S> {
    /// Goes before its socket does, which others may write to.
    session: S,
    io: T,
    reader: Reader,
    /// What came while no message could be taken.
    unread: Vec<u8>,
    out: Outbox,
    /// Of what the socket did not take.
    rest: Bytes,
    phase: Phase,
    patience: Patience,
    timer: Timer,
    silent_ticks: u16,
    stuck_ticks: u16,
    /// In which a closing connection waited for its client.
    closing_ticks: u16,
    sent: bool,
    blocked: bool,
}

impl<T: Socket, S: Session> Connection<T, S> {
    /// `first` goes out before anything else; `unread` came together with the handshake.
    pub(super) fn new(
        io: T,
        session: S,
        reader: Reader,
        first: Bytes,
        unread: Vec<u8>,
        patience: Patience,
    ) -> Self {
        let timer = Timer::new(patience.tick);
        Self {
            session,
            io,
            reader,
            unread,
            out: Outbox::default(),
            rest: first,
            phase: Phase::Open,
            patience,
            timer,
            silent_ticks: 0,
            stuck_ticks: 0,
            closing_ticks: 0,
            sent: true,
            blocked: false,
        }
    }

    /// Lives until the connection has ended. `stopping`: the node takes leave of its clients.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stopping: bool) -> Poll<End> {
        if let Some(Written { any, rest }) = self.session.take_back() {
            self.rest = rest;
            if any {
                self.wrote(0);
            }
        }
        if stopping && self.phase == Phase::Open {
            self.session.goodbye(End::Drained, &mut self.out);
            self.close(&CloseReason::new(GOING_AWAY, "the node stops"), End::Drained, false, cx);
        }
        match self.turn(cx) {
            Ok(Some(end)) => return Poll::Ready(end),
            Ok(None) => {}
            Err(_) => return Poll::Ready(self.end_of(End::Gone)),
        }
        while self.timer.rings(cx) {
            if let Some(end) = self.tick(cx) {
                return Poll::Ready(end);
            }
            // What the tick had to say goes out, and the sockets are listened to again.
            match self.turn(cx) {
                Ok(Some(end)) => return Poll::Ready(end),
                Ok(None) => {}
                Err(_) => return Poll::Ready(self.end_of(End::Gone)),
            }
        }
        let is_idle = self.phase == Phase::Open && !self.blocked && self.rest.is_empty();
        if let Some(socket) = self.io.plain()
            && is_idle
            && self.out.frames.is_empty()
        {
            self.session.entrust(socket, cx.waker());
        }
        Poll::Pending
    }

    fn end_of(&self, otherwise: End) -> End {
        match self.phase {
            Phase::Open => otherwise,
            Phase::Closing { end, .. } | Phase::Lingering { end } => end,
        }
    }

    /// Reads, writes and goes on until nothing more can be done now.
    fn turn(&mut self, cx: &mut Context<'_>) -> io::Result<Option<End>> {
        for _ in 0..TURNS {
            if self.phase == Phase::Open
                && let Err(reason) = self.session.poll(cx, &mut self.out)
            {
                self.fail(&reason, cx);
            }
            let heard = match self.read(cx)? {
                Heard::Nothing => false,
                Heard::Something => true,
                Heard::End => return Ok(Some(self.end_of(End::Gone))),
            };
            let more = self.write(cx)?;
            if !heard && !more {
                return Ok(None);
            }
        }
        cx.waker().wake_by_ref(); // others have their turn first
        Ok(None)
    }

    /// May be read from: there is room for what its messages bring about.
    fn listens(&self) -> bool {
        match self.phase {
            Phase::Open => self.session.ready() && !self.out.is_full(),
            Phase::Closing { .. } | Phase::Lingering { .. } => true,
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Heard> {
        if !self.listens() {
            return Ok(Heard::Nothing);
        }
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            self.hear(&mut unread, cx);
            return Ok(Heard::Something);
        }
        READ.with_borrow_mut(|buffer| {
            let mut buf = ReadBuf::new(buffer);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Pending => Ok(Heard::Nothing),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => Ok(Heard::End),
                Poll::Ready(Ok(())) => {
                    busy::worked();
                    self.silent_ticks = 0;
                    self.hear(buf.filled_mut(), cx);
                    Ok(Heard::Something)
                }
            }
        })
    }

    fn hear(&mut self, bytes: &mut [u8], cx: &mut Context<'_>) {
        let mut bytes = bytes;
        loop {
            match self.phase {
                Phase::Lingering { .. } | Phase::Closing { deaf: true, .. } => return,
                Phase::Open | Phase::Closing { .. } => {}
            }
            if !self.listens() {
                self.unread = bytes.to_vec();
                return;
            }
            match self.reader.next(&mut bytes) {
                Ok(Some(event)) => self.event(event, cx),
                Ok(None) => return,
                Err(reason) => return self.fail(&reason, cx),
            }
        }
    }

    fn event(&mut self, event: Event, cx: &mut Context<'_>) {
        if let Event::Close(code) = event {
            match &mut self.phase {
                Phase::Open => {
                    let answer = CloseReason::new(code, "");
                    self.close(&answer, End::Closed, true, cx);
                }
                Phase::Closing { deaf, .. } => *deaf = true,
                Phase::Lingering { .. } => {}
            }
            return;
        }
        if self.phase != Phase::Open {
            return;
        }
        let heard = match event {
            Event::Text(text) => self.session.message(Message::Text(text), &mut self.out),
            Event::Binary(bytes) => self.session.message(Message::Binary(bytes), &mut self.out),
            Event::Ping(payload) => {
                self.out.push(frame(Opcode::Pong, &payload));
                Ok(())
            }
            Event::Pong | Event::Close(_) => Ok(()),
        };
        if let Err(reason) = heard {
            self.fail(&reason, cx);
        }
    }

    /// Ends the connection because of what the client did.
    fn fail(&mut self, reason: &CloseReason, cx: &mut Context<'_>) {
        let end = if reason.code == POLICY { End::Slow } else { End::Violation };
        match &mut self.phase {
            Phase::Open => self.close(reason, end, true, cx),
            Phase::Closing { deaf, .. } => *deaf = true,
            Phase::Lingering { .. } => {}
        }
    }

    fn close(&mut self, reason: &CloseReason, end: End, deaf: bool, cx: &mut Context<'_>) {
        self.out.push(reason.frame());
        self.phase = Phase::Closing { end, deaf };
        self.unread = Vec::new();
        self.timer.reset(self.patience.close);
        cx.waker().wake_by_ref(); // the timer and the socket are asked anew
    }

    /// Writes what there is; whether there may be more to write.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        loop {
            while !self.rest.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, &self.rest) {
                    Poll::Pending => return Ok(self.stuck(cx)),
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(len)) => self.wrote(len),
                    Poll::Ready(Err(error)) => return Err(error),
                }
            }
            self.rest = Bytes::new();
            match WRITE.with_borrow_mut(|batch| self.write_batch(batch, cx))? {
                Wrote::All => return self.idle(cx),
                Wrote::Some => return Ok(true),
                Wrote::Nothing => {}
            }
        }
    }

    fn wrote(&mut self, len: usize) {
        self.rest.advance(len);
        (self.sent, self.stuck_ticks, self.blocked) = (true, 0, false);
    }

    /// Gathers frames and writes them at once; what the socket does not take is kept in `rest`.
    fn write_batch(&mut self, batch: &mut Vec<u8>, cx: &mut Context<'_>) -> io::Result<Wrote> {
        batch.clear();
        let mut rest = Bytes::new();
        let mut more = true;
        while let Some(next) = self.out.frames.front() {
            if !add(batch, &mut rest, next) {
                break;
            }
            self.out.pop();
        }
        if self.phase == Phase::Open && self.out.frames.is_empty() {
            let mut take = |frame: &Bytes| add(batch, &mut rest, frame);
            match self.session.frames(cx.waker(), &mut take, &mut self.out) {
                Ok(has_more) => more = has_more,
                Err(reason) => self.fail(&reason, cx),
            }
        }
        more |= !self.out.frames.is_empty();
        if batch.is_empty() {
            self.rest = rest;
            return Ok(if self.rest.is_empty() && self.out.frames.is_empty() {
                Wrote::All
            } else {
                Wrote::Nothing
            });
        }
        let len = match Pin::new(&mut self.io).poll_write(cx, batch) {
            Poll::Pending => 0,
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(len)) => len,
            Poll::Ready(Err(error)) => return Err(error),
        };
        if len > 0 {
            self.wrote(0);
        }
        if len < batch.len() {
            self.rest = Bytes::copy_from_slice(&batch[len..]);
            more = true;
        }
        Ok(if more { Wrote::Some } else { Wrote::All })
    }

    /// Nothing is left to write.
    fn idle(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        // A socket has taken what was written; TLS may still hold some of it.
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => return Ok(self.stuck(cx)),
            Poll::Ready(Ok(())) => (self.stuck_ticks, self.blocked) = (0, false),
            Poll::Ready(Err(error)) => return Err(error),
        }
        if let Phase::Closing { end, deaf: true } = self.phase {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.phase = Phase::Lingering { end };
                    return Ok(true);
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The socket takes nothing now; whether something is to be done nevertheless.
    fn stuck(&mut self, cx: &mut Context<'_>) -> bool {
        self.blocked = true;
        if self.phase == Phase::Open
            && let Err(reason) = self.session.blocked(cx.waker(), &mut self.out)
        {
            self.fail(&reason, cx);
        }
        false
    }

    /// Whether a connection that is to be closed is given more time. What a slow client has not taken from its socket's
    /// buffer keeps the last words out of it for longer than a handshake takes; a node that stops does not wait for that.
    fn waits_on(&mut self) -> bool {
        let ticks_max = self.patience.stuck_max;
        if self.closing_ticks >= ticks_max || self.end_of(End::Gone) == End::Drained {
            return false;
        }
        if self.blocked {
            self.closing_ticks += 1;
            self.stuck_ticks = self.stuck_ticks.saturating_add(1);
            self.timer.reset(self.patience.tick);
            return self.stuck_ticks < ticks_max;
        }
        // It has all of it now, and the time of the handshake begins, once.
        let waited = self.closing_ticks > 0;
        self.closing_ticks = ticks_max;
        self.timer.reset(self.patience.close);
        waited
    }

    /// The timer rang.
    fn tick(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if self.phase != Phase::Open {
            return if self.waits_on() { None } else { Some(self.end_of(End::Gone)) };
        }
        self.timer.reset(self.patience.tick);
        if let Err(reason) = self.session.tick(&mut self.out) {
            self.close(&reason, End::Denied, true, cx);
            return None;
        }
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        if self.blocked {
            self.stuck_ticks += 1;
            if self.stuck_ticks >= self.patience.stuck_max {
                return Some(End::Slow);
            }
        }
        // A client that is not listened to cannot be heard either.
        if !self.listens() {
            self.silent_ticks = 0;
        }
        if self.silent_ticks == self.patience.ping_after {
            self.out.push(frame(Opcode::Ping, b""));
        } else if self.silent_ticks >= self.patience.ping_after.saturating_mul(2) {
            self.session.goodbye(End::Idle, &mut self.out);
            self.close(&CloseReason::new(GOING_AWAY, "nothing was heard"), End::Idle, false, cx);
            return None;
        }
        if !std::mem::take(&mut self.sent) {
            self.session.quiet(&mut self.out);
        }
        None
    }
}

enum Wrote {
    /// There is nothing more.
    All,
    /// There may be more.
    Some,
    /// A frame that is written from where it lies.
    Nothing,
}

enum Heard {
    Nothing,
    Something,
    End,
}

/// Adds a frame to a batch; one that is larger than a batch is written from where it lies.
fn add(batch: &mut Vec<u8>, rest: &mut Bytes, frame: &Bytes) -> bool {
    if !rest.is_empty() {
        return false;
    }
    if batch.len() + frame.len() <= WRITE_BYTES {
        batch.extend_from_slice(frame);
        return true;
    }
    if batch.is_empty() {
        *rest = frame.clone();
        return true;
    }
    false
}

/// A connection as a future; whether the node stops is asked at each turn.
pub(super) async fn run<T, S>(
    mut connection: Connection<T, S>,
    mut stopping: impl FnMut(&Waker) -> bool,
) -> End
where
    T: Socket,
    S: Session,
{
    std::future::poll_fn(|cx| {
        let stopping = stopping(cx.waker());
        Poll::Ready(ready!(connection.poll(cx, stopping)))
    })
    .await
}
