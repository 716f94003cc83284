//! One thread's loop: who may send, what has come back, and the window that it counts in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::LoadError;
use crate::connection::Connection;
use crate::poll::{Poll, TIMER, thread_cpu};
use crate::recorder::{Failure, Window};
use crate::request::{Ask, Kind};
use crate::schedule::Schedule;
use crate::shape::Shape;
use crate::stream::{self, Feed, Message};
use crate::target::Target;
use crate::websocket::{self, CLOSE, Frame, PING, PONG, TEXT};
use crate::{answer, http};

/// At least one answer in so many is read in full, and the first of each connection…
const CHECK_EVERY: u64 = 61;
/// …and so many in a window where it has them, or as many as are so long together: percentiles of fewer say little, and
/// reading more would be measured.
const CHECKS_WANTED: u64 = 1000;
const CHECKED_BYTES_MAX: u64 = 4 << 20;
/// Requests of an open loop that are kept in mind while no connection is free.
const BACKLOG_MAX: usize = 1 << 20;
/// How often timeouts and lost connections are looked at, and the longest wait for a new connection.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
const RECONNECT_WITHIN: Duration = Duration::from_secs(1);
const SCRATCH_BYTES: usize = 256 << 10;

/// What all threads share.
pub(crate) struct Work {
    pub(crate) target: Target,
    pub(crate) shape: Shape,
    pub(crate) ask: Ask,
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) epoch: Instant,
}

/// A request that waits for its answer. Moments are spans since the load began.
struct UnderWay {
    request: usize,
    due: Duration,
    sent: Duration,
    /// Of a stream: the id of the message and the time of its tick.
    id: u64,
    at: i64,
}

/// One connection and where its request and answer stand.
struct Slot {
    connection: Option<Connection>,
    under_way: Option<UnderWay>,
    inbox: Vec<u8>,
    /// Of a stream: what is to be sent.
    outbox: Vec<u8>,
    written: usize,
    watches_write: bool,
    completions: u64,
    idle_since: Duration,
    feed: Option<Feed>,
}

pub(crate) struct Driver {
    work: Arc<Work>,
    poll: Poll,
    slots: Vec<Slot>,
    /// Without a request, longest idle first.
    idle: VecDeque<usize>,
    down: Vec<usize>,
    /// Open loop: due moments, and those that no connection was free for.
    schedule: Option<Schedule>,
    backlog: VecDeque<Duration>,
    in_flight: usize,
    sends: bool,
    window: Window,
    scratch: Vec<u8>,
    answers: u64,
    /// One answer in so many is read in full.
    check_every: u64,
    next_request: usize,
    swept: Duration,
    armed: Duration,
}

impl Driver {
    /// Opens `count` connections, numbered from `first`. Of an open loop `rate` is this thread's share.
    pub(crate) fn open(
        work: Arc<Work>,
        first: usize,
        count: usize,
        rate: Option<f64>,
    ) -> Result<Self, LoadError> {
        let poll = Poll::new(count)?;
        let seed = work.ask.seed.wrapping_add(first as u64);
        let mut slots = Vec::with_capacity(count);
        for number in first..first + count {
            let feed = (work.ask.kind == Kind::Stream).then(|| Feed::new(number, seed));
            let mut slot = Slot::new(feed);
            slot.connect(&work.target, &work.shape)?;
            poll.add(slot.socket()?, slots.len() as u64)?;
            slots.push(slot);
        }
        let now = work.epoch.elapsed();
        Ok(Self {
            poll,
            idle: (0..slots.len()).collect(),
            slots,
            down: Vec::new(),
            schedule: rate.map(|rate| Schedule::new(rate, now, seed)),
            backlog: VecDeque::new(),
            in_flight: 0,
            sends: false,
            window: Window::default(),
            scratch: vec![0; SCRATCH_BYTES],
            answers: 0,
            check_every: CHECK_EVERY,
            // Threads begin at different bodies.
            next_request: first,
            swept: now,
            armed: Duration::MAX,
            work,
        })
    }

    /// Sends and receives for `len`.
    pub(crate) fn window(&mut self, len: Duration) -> io::Result<Window> {
        let start = self.now();
        if !self.sends {
            self.sends = true;
            self.schedule.iter_mut().for_each(|schedule| schedule.resume(start));
            self.slots.iter_mut().for_each(|slot| slot.idle_since = start);
        }
        self.slots.iter_mut().for_each(|slot| slot.completions = 0);
        let window = self.span(start, |_, now| now >= start + len)?;
        self.check_every = check_every(window.answered(), window.bytes_in);
        Ok(window)
    }

    /// Sends no more and waits for what is under way, as long as an answer may take. What was due and not sent is
    /// forgotten, and counted as that.
    pub(crate) fn drain(&mut self) -> io::Result<Window> {
        let start = self.now();
        self.sends = false;
        let until = start + self.work.target.timeout + SWEEP_EVERY;
        let mut window = self.span(start, |driver, now| driver.in_flight == 0 || now >= until)?;
        for _ in self.backlog.drain(..) {
            window.failed(Failure::Unsent);
        }
        Ok(window)
    }

    fn span(&mut self, start: Duration, done: impl Fn(&Self, Duration) -> bool) -> io::Result<Window> {
        self.window = Window::default();
        let cpu = thread_cpu();
        let mut ready = Vec::with_capacity(self.slots.len() + 1);
        let end = loop {
            let now = self.now();
            if self.sends {
                self.dispatch(now);
            }
            if now.saturating_sub(self.swept) >= SWEEP_EVERY {
                self.sweep(now);
            }
            if done(self, now) {
                break now;
            }
            self.arm()?;
            let longest = if self.work.target.busy_poll { Duration::ZERO } else { SWEEP_EVERY / 5 };
            self.poll.wait(longest, &mut ready)?;
            for &(token, writable) in ready.iter().filter(|(token, _)| *token != TIMER) {
                self.advance(token as usize, writable);
            }
        };
        self.settle(start, end, thread_cpu().saturating_sub(cpu));
        Ok(std::mem::take(&mut self.window))
    }

    fn now(&self) -> Duration {
        self.work.epoch.elapsed()
    }

    /// The timer rings when the next request falls due.
    fn arm(&mut self) -> io::Result<()> {
        let Some(next) = self.schedule.as_ref().map(Schedule::next).filter(|_| self.sends) else {
            return Ok(());
        };
        if next != self.armed {
            self.armed = next;
            self.poll.arm(next.saturating_sub(self.now()))?;
        }
        Ok(())
    }

    /// Gives requests to connections that have none.
    fn dispatch(&mut self, now: Duration) {
        let Some(schedule) = &mut self.schedule else {
            while let Some(token) = self.idle.pop_front() {
                self.send(token, self.now());
            }
            return;
        };
        while let Some(due) = schedule.pop(now) {
            if self.backlog.len() < BACKLOG_MAX {
                self.backlog.push_back(due);
            } else {
                self.window.failed(Failure::Unsent);
            }
        }
        while let (Some(&token), Some(&due)) = (self.idle.front(), self.backlog.front()) {
            self.idle.pop_front();
            self.backlog.pop_front();
            let late = self.now().saturating_sub(due.max(self.slots[token].idle_since));
            self.window.lateness.add(late);
            self.send(token, due);
        }
    }

    fn send(&mut self, token: usize, due: Duration) {
        let sent = self.now();
        let slot = &mut self.slots[token];
        let mut under_way = UnderWay { request: 0, due, sent, id: 0, at: 0 };
        if let Some(feed) = &mut slot.feed {
            // Half an answer to a ping may still be there.
            slot.outbox.drain(..std::mem::take(&mut slot.written));
            (under_way.id, under_way.at) = feed.ticks(&mut slot.outbox, 1);
        } else {
            self.next_request = (self.next_request + 1) % self.work.requests.len();
            (under_way.request, slot.written) = (self.next_request, 0);
        }
        slot.under_way = Some(under_way);
        self.in_flight += 1;
        if self.push(token).is_err() {
            self.lose(token, Failure::Lost);
        }
    }

    /// Sends as much as the socket takes, and asks to be told when it takes more.
    fn push(&mut self, token: usize) -> io::Result<()> {
        let slot = &mut self.slots[token];
        let (Some(connection), work) = (&mut slot.connection, &self.work) else { return Ok(()) };
        let request = match (&slot.feed, &slot.under_way) {
            (Some(_), _) => &slot.outbox,
            (None, Some(under_way)) => &work.requests[under_way.request],
            (None, None) => return Ok(()),
        };
        while slot.written < request.len() {
            match connection.write(&request[slot.written..])? {
                0 => break,
                count => slot.written += count,
            }
        }
        let done = slot.written == request.len() && connection.flush()?;
        if slot.watches_write == done {
            slot.watches_write = !done;
            self.poll.want_write(connection, token as u64, !done)?;
        }
        Ok(())
    }

    fn advance(&mut self, token: usize, writable: bool) {
        if writable && self.push(token).is_err() {
            return self.lose(token, Failure::Lost);
        }
        loop {
            let slot = &mut self.slots[token];
            let Some(connection) = &mut slot.connection else { return };
            let count = match connection.read(&mut self.scratch) {
                Ok(None) => return,
                Ok(Some(0)) | Err(_) => return self.lose(token, Failure::Lost),
                Ok(Some(count)) => count,
            };
            self.window.bytes_in += count as u64;
            let outcome =
                if slot.feed.is_some() { self.frames(token, count) } else { self.answer(token, count) };
            if let Err(failure) = outcome {
                return self.lose(token, failure);
            }
        }
    }

    /// Bytes of an HTTP answer. An error ends the connection.
    fn answer(&mut self, token: usize, count: usize) -> Result<(), Failure> {
        let slot = &mut self.slots[token];
        let Some(under_way) = &slot.under_way else {
            return Err(Failure::Malformed); // nothing was asked
        };
        // Most answers come whole, and are read where they are.
        let whole = slot.inbox.is_empty();
        if !whole {
            slot.inbox.extend_from_slice(&self.scratch[..count]);
        }
        let bytes = if whole { &self.scratch[..count] } else { &slot.inbox[..] };
        let head = http::head(bytes).map_err(|_| Failure::Malformed)?;
        let body = match &head {
            Some(head) => http::body(head, bytes).map_err(|_| Failure::Malformed)?,
            None => None,
        };
        let (Some(head), Some(body)) = (head, body) else {
            if whole {
                slot.inbox.extend_from_slice(&self.scratch[..count]);
            }
            return Ok(());
        };
        let now = self.work.epoch.elapsed();
        self.answers += 1;
        let sampled = slot.completions == 0 || self.answers.is_multiple_of(self.check_every);
        let mut verdict = if head.status == 200 { Ok(None) } else { Err(Failure::Status(head.status)) };
        if verdict.is_ok() && sampled {
            let ask = &self.work.ask;
            verdict = answer::check(ask.kind, &self.work.shape, ask.rows, &head, &body);
            self.window.checked += 1;
        }
        let due = under_way.due;
        match verdict {
            Ok(hops) => {
                self.window.completed(due, now);
                slot.completions += 1;
                if let Some(hops) = hops {
                    self.window.samples.add(hops, now.saturating_sub(due));
                }
            }
            Err(failure) => self.window.failed(failure),
        }
        slot.inbox.clear();
        if head.closes {
            slot.under_way = None;
            self.in_flight -= 1;
            self.lose(token, Failure::Lost);
            return Ok(());
        }
        self.free(token, now);
        Ok(())
    }

    /// Bytes of a stream. An error ends the connection.
    fn frames(&mut self, token: usize, count: usize) -> Result<(), Failure> {
        let mut inbox = std::mem::take(&mut self.slots[token].inbox);
        inbox.extend_from_slice(&self.scratch[..count]);
        let mut taken = 0;
        while let Some(Frame { first, payload, len }) =
            websocket::frame(&inbox[taken..]).map_err(|_| Failure::Malformed)?
        {
            match first {
                TEXT => self.message(token, payload)?,
                PING => {
                    // Behind whatever is being sent, which is sent from the same buffer.
                    websocket::masked(&mut self.slots[token].outbox, PONG, payload, [1, 2, 3, 4]);
                    self.push(token).map_err(|_| Failure::Lost)?;
                }
                CLOSE => return Err(Failure::Lost),
                _ => {}
            }
            taken += len;
        }
        inbox.drain(..taken);
        self.slots[token].inbox = inbox;
        Ok(())
    }

    fn message(&mut self, token: usize, payload: &[u8]) -> Result<(), Failure> {
        let message = stream::message(payload)?;
        if message == Message::Ended {
            return Err(Failure::Lost);
        }
        let slot = &mut self.slots[token];
        let Some(under_way) = &slot.under_way else { return Ok(()) };
        let now = self.work.epoch.elapsed();
        let failure = match message {
            Message::Prediction(at) if at == under_way.at => {
                self.answers += 1;
                if slot.completions == 0 || self.answers.is_multiple_of(self.check_every) {
                    self.window.checked += 1;
                    match stream::check(payload, &self.work.shape) {
                        Ok(Some(hops)) => self.window.samples.add(hops, now.saturating_sub(under_way.due)),
                        Ok(None) => {}
                        Err(failure) => {
                            self.window.failed(failure);
                            self.free(token, now);
                            return Ok(());
                        }
                    }
                }
                None
            }
            Message::Ticked { id, refused: true } if id == under_way.id => Some(Failure::Refused),
            Message::Gap => Some(Failure::Gap),
            _ => return Ok(()),
        };
        match failure {
            Some(failure) => self.window.failed(failure),
            None => {
                self.window.completed(under_way.due, now);
                slot.completions += 1;
            }
        }
        self.free(token, now);
        Ok(())
    }

    /// The request of this connection is over; in a closed loop the next one goes out at once.
    fn free(&mut self, token: usize, now: Duration) {
        let slot = &mut self.slots[token];
        slot.under_way = None;
        slot.idle_since = now;
        self.in_flight -= 1;
        if self.sends && self.schedule.is_none() {
            self.send(token, now);
        } else {
            self.idle.push_back(token);
        }
    }

    /// The connection is over, and its request with it; a new one is made in its place. That an idle one ends is the
    /// server's right.
    fn lose(&mut self, token: usize, failure: Failure) {
        let slot = &mut self.slots[token];
        if slot.connection.take().is_none() {
            return;
        }
        if slot.under_way.take().is_some() {
            self.in_flight -= 1;
            self.window.failed(failure);
        } else {
            self.window.reconnects += 1;
            self.idle.retain(|&idle| idle != token);
        }
        self.reopen(token);
    }

    fn reopen(&mut self, token: usize) {
        let mut target = self.work.target.clone();
        target.timeout = target.timeout.min(RECONNECT_WITHIN);
        let slot = &mut self.slots[token];
        let opened = slot.connect(&target, &self.work.shape).is_ok();
        if opened && slot.socket().and_then(|socket| self.poll.add(socket, token as u64)).is_ok() {
            slot.idle_since = self.work.epoch.elapsed();
            self.idle.push_back(token);
        } else {
            slot.connection = None;
            self.window.failed(Failure::Connect);
            self.down.push(token);
        }
    }

    /// Ends requests that had their time, and tries one lost connection after the other until one fails.
    fn sweep(&mut self, now: Duration) {
        self.swept = now;
        let timeout = self.work.target.timeout;
        let late = |slot: &Slot| {
            slot.under_way.as_ref().is_some_and(|under| now.saturating_sub(under.sent) > timeout)
        };
        let late: Vec<usize> = (0..self.slots.len()).filter(|&token| late(&self.slots[token])).collect();
        for token in late {
            self.lose(token, Failure::Timeout);
        }
        for token in std::mem::take(&mut self.down) {
            if self.down.is_empty() { self.reopen(token) } else { self.down.push(token) }
        }
    }

    fn settle(&mut self, start: Duration, end: Duration, cpu: Duration) {
        let window = &mut self.window;
        window.span = end - start;
        window.own_cpu = cpu;
        // Of a thread that never sleeps, processor time tells nothing.
        let busy = if self.work.target.busy_poll { 0.0 } else { cpu.as_secs_f64() };
        window.busiest = busy / window.span.as_secs_f64().max(f64::MIN_POSITIVE);
        window.connections = self.slots.len();
        window.starved = self.slots.iter().filter(|slot| slot.completions == 0).count();
        window.backlog = self.backlog.len();
        let waiting = self.slots.iter().filter_map(|slot| Some(slot.under_way.as_ref()?.due));
        let oldest = waiting.chain(self.backlog.front().copied()).min();
        window.oldest_waiting = oldest.map_or(Duration::ZERO, |due| end.saturating_sub(due));
    }
}

/// By a window's answers and their bytes: which share of those of the next is read in full.
fn check_every(answers: u64, bytes: u64) -> u64 {
    let bytes_each = (bytes / answers.max(1)).max(1);
    let wanted = CHECKS_WANTED.min(CHECKED_BYTES_MAX / bytes_each).max(1);
    (answers / wanted).clamp(1, CHECK_EVERY)
}

impl Slot {
    fn new(feed: Option<Feed>) -> Self {
        Self {
            connection: None,
            under_way: None,
            inbox: Vec::new(),
            outbox: Vec::new(),
            written: 0,
            watches_write: false,
            completions: 0,
            idle_since: Duration::ZERO,
            feed,
        }
    }

    fn connect(&mut self, target: &Target, shape: &Shape) -> Result<(), LoadError> {
        self.inbox.clear();
        self.outbox.clear();
        (self.written, self.watches_write) = (0, false);
        let connection = match &mut self.feed {
            Some(feed) => {
                let (connection, behind) = feed.open(target, shape)?;
                self.inbox = behind;
                connection
            }
            None => Connection::open(target)?,
        };
        connection.unblock()?;
        self.connection = Some(connection);
        Ok(())
    }

    fn socket(&self) -> io::Result<&Connection> {
        let open = self.connection.as_ref().filter(|connection| connection.as_raw_fd() >= 0);
        open.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_answers_are_all_read_and_of_many_or_long_ones_a_share() {
        for (answers, bytes_each, every) in [
            (0, 0, 1),
            (600, 800, 1),
            (5_000, 800, 5),
            (40_000, 800, 40),
            (1 << 20, 800, 61),
            (600, 1 << 20, 61),
            (100, 1 << 20, 25),
        ] {
            assert_eq!(check_every(answers, answers * bytes_each), every, "{answers} of {bytes_each} bytes");
        }
    }
}
