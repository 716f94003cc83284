//! What is where in a simulated network at a given moment: nodes, paths, and the bytes on their way.
//!
//! Time comes in with every call. Knows no task; whoever has to wait is told what for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::ReadBuf;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{SimOptions, SimPath};
use crate::cluster::NodeId;
use crate::fabric::Link;

/// Everything, behind one lock.
pub(super) struct Net {
    pub(super) options: SimOptions,
    rng: StdRng,
    paths: BTreeMap<Direction, Path>,
    nodes: BTreeMap<SocketAddr, Node>,
    links: BTreeMap<u64, [End; 2]>,
    lives: u64,
    links_made: u64,
}

/// From where, to where.
type Direction = (SocketAddr, SocketAddr);

/// Which end of which link.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndId {
    pub(super) link: u64,
    pub(super) side: usize,
}

#[derive(Clone, Copy, Default)]
struct Path {
    /// As the network's, unless set.
    like: Option<SimPath>,
    cut: bool,
}

struct Node {
    life: u64,
    id: NodeId,
    backlog: mpsc::Sender<Link>,
    frozen: bool,
}

/// One end of a link, and what is on its way to it.
struct End {
    addr: SocketAddr,
    life: u64,
    lanes: [Pipe; 4],
    /// In the order of arrival, then of sending.
    datagrams: BTreeMap<(Instant, u64), Bytes>,
    datagram_bytes: usize,
    datagrams_sent: u64,
    datagram_came: Arc<Notify>,
    /// Since when nothing of the peer arrives.
    silent_since: Option<Instant>,
    /// The peer's goodbye.
    goodbye: Option<(Instant, String)>,
    closed: Option<String>,
    /// Tells its keeper that there may be something to do.
    changed: Arc<Notify>,
    /// Tells everybody that it is closed.
    ended: Arc<Notify>,
    /// Nobody holds it any more.
    released: bool,
}

#[derive(Default)]
struct Pipe {
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last_at: Option<Instant>,
    /// The writer is done; its end arrives then.
    finished: Option<Instant>,
    /// The reader is gone.
    stopped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a call has come to, or what it has to wait for.
pub(super) enum Progress<T> {
    Done(T),
    /// Until something happens that wakes it.
    Wait,
    /// That too, but no longer than this.
    Until(Instant),
}

/// What the keeper of an end does next.
pub(super) enum Due {
    Gone,
    Nothing,
    At(Instant),
}

impl Net {
    pub(super) fn new(seed: u64, options: SimOptions) -> Self {
        Self {
            options,
            rng: StdRng::seed_from_u64(seed),
            paths: BTreeMap::new(),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            lives: 0,
            links_made: 0,
        }
    }

    pub(super) fn start(&mut self, id: NodeId, addr: SocketAddr, backlog: mpsc::Sender<Link>) -> u64 {
        assert!(!self.nodes.contains_key(&addr), "{addr} is taken: the node there has not ended");
        self.lives += 1;
        self.nodes.insert(addr, Node { life: self.lives, id, backlog, frozen: false });
        self.lives
    }

    pub(super) fn lives(&self, addr: SocketAddr, life: u64) -> bool {
        self.nodes.get(&addr).is_some_and(|node| node.life == life)
    }

    /// Ends a life with all its links; with a word to the peers, or in silence.
    pub(super) fn end_life(
        &mut self,
        addr: SocketAddr,
        life: Option<u64>,
        reason: &str,
        word: bool,
        now: Instant,
    ) {
        let Some(node) = self.nodes.get(&addr) else { return };
        if life.is_some_and(|life| life != node.life) {
            return;
        }
        for end in self.ends_at(addr) {
            self.close(end, reason, word, now);
        }
        self.nodes.remove(&addr);
        self.weather_changed(now);
    }

    pub(super) fn set_frozen(&mut self, addr: SocketAddr, frozen: bool, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&addr) {
            node.frozen = frozen;
        }
        self.weather_changed(now);
        for end in self.ends_at(addr).into_iter().filter_map(|end| self.end(end)) {
            end.changed.notify_one(); // a thawed one has time to look at what it missed
        }
    }

    #[cfg(test)]
    pub(super) fn links_held(&self) -> usize {
        self.links.len()
    }

    pub(super) fn set_path(&mut self, direction: Direction, like: SimPath) {
        self.paths.entry(direction).or_default().like = Some(like);
    }

    pub(super) fn set_cut(&mut self, direction: Direction, cut: bool, now: Instant) {
        self.paths.entry(direction).or_default().cut = cut;
        self.weather_changed(now);
    }

    fn path(&self, direction: Direction) -> SimPath {
        self.paths.get(&direction).and_then(|path| path.like).unwrap_or(self.options.path)
    }

    fn frozen(&self, addr: SocketAddr) -> bool {
        self.nodes.get(&addr).is_some_and(|node| node.frozen)
    }

    /// Whether what is sent arrives.
    fn passable(&self, (from, to): Direction) -> bool {
        let cut = self.paths.get(&(from, to)).is_some_and(|path| path.cut);
        !cut && !self.frozen(from) && !self.frozen(to)
    }

    /// Whether a packet would arrive and find somebody.
    pub(super) fn reachable(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.passable((from, to)) && self.nodes.contains_key(&from) && self.nodes.contains_key(&to)
    }

    /// How long the next packet takes.
    pub(super) fn travel(&mut self, from: SocketAddr, to: SocketAddr) -> Duration {
        let path = self.path((from, to));
        path.latency + path.jitter.mul_f64(self.rng.random())
    }

    /// A round trip without chance.
    pub(super) fn rtt(&self, end: EndId) -> Duration {
        self.link_addrs(end)
            .map_or(Duration::ZERO, |(a, b)| self.path((a, b)).latency + self.path((b, a)).latency)
    }

    /// A link between two nodes, the caller first.
    pub(super) fn join(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) -> Option<Joined> {
        let (caller, called) = (self.nodes.get(&from)?, self.nodes.get(&to)?);
        let joined = Joined {
            ends: [0, 1].map(|side| EndId { link: self.links_made, side }),
            ids: [caller.id.clone(), called.id.clone()],
            backlog: called.backlog.clone(),
        };
        self.links.insert(self.links_made, [End::new(from, caller.life), End::new(to, called.life)]);
        self.links_made += 1;
        self.weather_changed(now); // it may have been cut since the last packet
        Some(joined)
    }

    pub(super) fn changed(&self, end: EndId) -> Option<Arc<Notify>> {
        self.end(end).map(|end| Arc::clone(&end.changed))
    }

    pub(super) fn ended(&self, end: EndId) -> Option<Arc<Notify>> {
        self.end(end).map(|end| Arc::clone(&end.ended))
    }

    pub(super) fn datagram_came(&self, end: EndId) -> Option<Arc<Notify>> {
        self.end(end).map(|end| Arc::clone(&end.datagram_came))
    }

    pub(super) fn closed(&self, end: EndId) -> Option<String> {
        self.end(end).map_or_else(|| Some(GONE.to_owned()), |end| end.closed.clone())
    }

    pub(super) fn read(
        &mut self,
        end: EndId,
        lane: usize,
        into: &mut ReadBuf<'_>,
        now: Instant,
        waker: &Waker,
    ) -> Progress<io::Result<()>> {
        let Some(this) = self.end_mut(end).filter(|this| this.closed.is_none()) else {
            return Progress::Done(Err(not_connected()));
        };
        let (flows, arrived_by) = (this.silent_since.is_none(), this.silent_since.unwrap_or(now));
        let pipe = &mut this.lanes[lane];
        let mut read = false;
        while into.remaining() > 0 {
            let Some((at, piece)) = pipe.pieces.front_mut() else { break };
            if *at > arrived_by {
                break;
            }
            let bytes = piece.len().min(into.remaining());
            into.put_slice(&piece.split_to(bytes));
            pipe.bytes -= bytes;
            read = true;
            if !piece.has_remaining() {
                pipe.pieces.pop_front();
            }
        }
        if read {
            wake(&mut pipe.writer);
            return Progress::Done(Ok(()));
        }
        let next = pipe.pieces.front().map(|(at, _)| *at).or(pipe.finished);
        match next {
            Some(at) if at <= arrived_by => Progress::Done(Ok(())), // the end, or no room in `into`
            next => {
                pipe.reader = Some(waker.clone());
                next.filter(|_| flows).map_or(Progress::Wait, Progress::Until)
            }
        }
    }

    pub(super) fn write(
        &mut self,
        end: EndId,
        lane: usize,
        bytes: &[u8],
        now: Instant,
        waker: &Waker,
    ) -> Progress<io::Result<usize>> {
        let Some((from, to)) = self.open_direction(end) else { return Progress::Done(Err(not_connected())) };
        let capacity = self.options.lane_bytes_max;
        let arrival = now + self.travel(from, to);
        let Some(peer) = self.end_mut(end.peer()) else { return Progress::Done(Err(not_connected())) };
        let pipe = &mut peer.lanes[lane];
        if pipe.stopped || pipe.finished.is_some() {
            return Progress::Done(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = capacity - pipe.bytes;
        if room == 0 && !bytes.is_empty() {
            pipe.writer = Some(waker.clone());
            return Progress::Wait;
        }
        let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(room)]);
        let written = piece.len();
        if written > 0 {
            let arrival = pipe.in_order(arrival);
            pipe.bytes += written;
            pipe.pieces.push_back((arrival, piece));
            wake(&mut pipe.reader);
        }
        Progress::Done(Ok(written))
    }

    /// The writer sends nothing more.
    pub(super) fn finish(&mut self, end: EndId, lane: usize, now: Instant) {
        let Some((from, to)) = self.open_direction(end) else { return };
        let arrival = now + self.travel(from, to);
        if let Some(peer) = self.end_mut(end.peer()) {
            let pipe = &mut peer.lanes[lane];
            if pipe.finished.is_none() {
                pipe.finished = Some(pipe.in_order(arrival));
                wake(&mut pipe.reader);
            }
        }
    }

    /// The reader takes nothing more.
    pub(super) fn stop(&mut self, end: EndId, lane: usize) {
        if let Some(this) = self.end_mut(end) {
            let pipe = &mut this.lanes[lane];
            pipe.stopped = true;
            pipe.pieces.clear();
            pipe.bytes = 0;
            wake(&mut pipe.writer);
        }
    }

    /// False once the link is closed. What is sent into a cut is lost.
    pub(super) fn send_datagram(&mut self, end: EndId, datagram: Bytes, now: Instant) -> bool {
        let Some((from, to)) = self.open_direction(end) else { return false };
        let path = self.path((from, to));
        // Drawn in any case, so that a cut does not shift what chance brings later.
        let (lost, overtaken) = (self.rng.random::<f64>(), self.rng.random::<f64>());
        let mut travel = self.travel(from, to);
        if overtaken < path.datagram_reorder {
            travel += path.latency + REORDER_MIN;
        }
        if lost < path.datagram_loss || !self.flows(end.peer()) {
            return true;
        }
        let bytes_max = self.options.datagram_bytes_max_waiting;
        if let Some(peer) = self.end_mut(end.peer()) {
            peer.datagrams_sent += 1;
            peer.datagram_bytes += datagram.len();
            peer.datagrams.insert((now + travel, peer.datagrams_sent), datagram);
            while peer.datagram_bytes > bytes_max {
                let Some((_, oldest)) = peer.datagrams.pop_first() else { break };
                peer.datagram_bytes -= oldest.len();
            }
            peer.datagram_came.notify_one();
        }
        true
    }

    pub(super) fn take_datagram(&mut self, end: EndId, now: Instant) -> Progress<Option<Bytes>> {
        let Some(this) = self.end_mut(end).filter(|this| this.closed.is_none()) else {
            return Progress::Done(None);
        };
        let (flows, arrived_by) = (this.silent_since.is_none(), this.silent_since.unwrap_or(now));
        match this.datagrams.first_key_value() {
            Some((&(at, _), _)) if at <= arrived_by => {
                let datagram = this.datagrams.pop_first().map(|(_, datagram)| datagram);
                this.datagram_bytes -= datagram.as_ref().map_or(0, Bytes::len);
                Progress::Done(datagram)
            }
            Some((&(at, _), _)) if flows => Progress::Until(at),
            _ => Progress::Wait,
        }
    }

    /// Closes one end, and tells the peer if it may and can.
    pub(super) fn close(&mut self, end: EndId, reason: &str, word: bool, now: Instant) {
        let Some((from, to)) = self.open_direction(end) else { return };
        let heard = word && self.flows(end.peer());
        let arrival = now + self.travel(from, to);
        if let Some(this) = self.end_mut(end) {
            this.closed = Some(reason.to_owned());
        }
        if let Some(peer) = self.end_mut(end.peer()).filter(|_| heard) {
            peer.goodbye = Some((arrival, reason.to_owned()));
            peer.changed.notify_one();
        }
        self.wake_all(end);
        self.weather_changed(now);
    }

    /// Nobody holds this end any more.
    pub(super) fn release(&mut self, end: EndId, now: Instant) {
        self.close(end, LET_GO, true, now);
        let Some(ends) = self.links.get_mut(&end.link) else { return };
        ends[end.side].released = true;
        if ends.iter().all(|end| end.released) {
            self.links.remove(&end.link);
        }
    }

    /// When an end next has to be looked at: for the peer's goodbye, or because it has been silent too long.
    /// A frozen process looks at nothing.
    pub(super) fn due(&self, end: EndId) -> Due {
        let Some(this) = self.end(end).filter(|this| this.closed.is_none()) else { return Due::Gone };
        if self.frozen(this.addr) {
            return Due::Nothing;
        }
        let goodbye = this.goodbye.as_ref().map(|(at, _)| *at);
        let silence = this.silent_since.map(|since| since + self.options.idle_max);
        goodbye.into_iter().chain(silence).min().map_or(Due::Nothing, Due::At)
    }

    pub(super) fn ripen(&mut self, end: EndId, now: Instant) {
        match self.due(end) {
            Due::At(at) if at <= now => {}
            _ => return,
        }
        let goodbye = self.end(end).and_then(|this| this.goodbye.clone()).filter(|(at, _)| *at <= now);
        let reason = goodbye.map_or_else(|| SILENCE.to_owned(), |(_, reason)| reason);
        self.close(end, &reason, false, now);
    }

    /// Something was cut, healed, frozen, thawed or ended: who hears whom now? What was on its way through
    /// a cut sets out again.
    fn weather_changed(&mut self, now: Instant) {
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for end in ids.into_iter().flat_map(|link| [0, 1].map(|side| EndId { link, side })) {
            let flows = self.flows(end);
            let Some((to, from)) = self.link_addrs(end) else { continue };
            let heard_before = self.end(end).is_some_and(|this| this.silent_since.is_none());
            if flows == heard_before {
                continue;
            }
            let again = now + self.travel(from, to);
            let Some(this) = self.end_mut(end) else { continue };
            match this.silent_since.take() {
                Some(since) => this.resume(since, again),
                None => this.fall_silent(now),
            }
            this.changed.notify_one();
        }
    }

    /// Whether what is sent to this end arrives there.
    fn flows(&self, end: EndId) -> bool {
        let (Some(this), Some(peer)) = (self.end(end), self.end(end.peer())) else { return false };
        // What a peer has said before its goodbye comes before it.
        let speaks = peer.closed.is_none() || this.goodbye.is_some();
        speaks && self.passable((peer.addr, this.addr))
    }

    fn open_direction(&self, end: EndId) -> Option<Direction> {
        self.end(end).filter(|this| this.closed.is_none())?;
        self.link_addrs(end)
    }

    fn link_addrs(&self, end: EndId) -> Option<Direction> {
        Some((self.end(end)?.addr, self.end(end.peer())?.addr))
    }

    fn ends_at(&self, addr: SocketAddr) -> Vec<EndId> {
        let life = self.nodes.get(&addr).map(|node| node.life);
        let here = |end: &End| end.addr == addr && Some(end.life) == life;
        self.links
            .iter()
            .flat_map(|(&link, ends)| {
                ends.iter().enumerate().map(move |(side, end)| (EndId { link, side }, end))
            })
            .filter(|(_, end)| here(end))
            .map(|(id, _)| id)
            .collect()
    }

    fn end(&self, end: EndId) -> Option<&End> {
        self.links.get(&end.link).map(|ends| &ends[end.side])
    }

    fn end_mut(&mut self, end: EndId) -> Option<&mut End> {
        self.links.get_mut(&end.link).map(|ends| &mut ends[end.side])
    }

    fn wake_all(&mut self, end: EndId) {
        if let Some(this) = self.end_mut(end) {
            this.lanes.iter_mut().for_each(|pipe| wake(&mut pipe.reader));
            this.datagram_came.notify_one();
            this.changed.notify_one();
            this.ended.notify_waiters();
        }
        if let Some(peer) = self.end_mut(end.peer()) {
            peer.lanes.iter_mut().for_each(|pipe| wake(&mut pipe.writer));
        }
    }
}

/// A new link.
pub(super) struct Joined {
    pub(super) ends: [EndId; 2],
    pub(super) ids: [NodeId; 2],
    pub(super) backlog: mpsc::Sender<Link>,
}

/// A datagram that is overtaken comes at least this much later.
const REORDER_MIN: Duration = Duration::from_millis(1);
const SILENCE: &str = "silent for too long";
const LET_GO: &str = "the peer let go of the link";
pub(super) const GONE: &str = "the link is gone";

impl EndId {
    pub(super) fn peer(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

impl End {
    fn new(addr: SocketAddr, life: u64) -> Self {
        Self {
            addr,
            life,
            lanes: Default::default(),
            datagrams: BTreeMap::new(),
            datagram_bytes: 0,
            datagrams_sent: 0,
            datagram_came: Arc::default(),
            silent_since: None,
            goodbye: None,
            closed: None,
            changed: Arc::default(),
            ended: Arc::default(),
            released: false,
        }
    }

    /// Datagrams on their way are lost.
    fn fall_silent(&mut self, now: Instant) {
        self.silent_since = Some(now);
        self.datagrams.retain(|(at, _), _| *at <= now);
        self.datagram_bytes = self.datagrams.values().map(Bytes::len).sum();
    }

    /// Lanes lose nothing; what had not arrived before the silence arrives no earlier than this.
    fn resume(&mut self, since: Instant, again: Instant) {
        let later = |at: Instant| if at > since { again.max(at) } else { at };
        for pipe in &mut self.lanes {
            for (at, _) in &mut pipe.pieces {
                *at = later(*at);
            }
            pipe.finished = pipe.finished.map(later);
            pipe.last_at = pipe.last_at.map(later);
            wake(&mut pipe.reader);
        }
        self.datagram_came.notify_one();
    }
}

impl Pipe {
    fn in_order(&mut self, arrival: Instant) -> Instant {
        let arrival = self.last_at.map_or(arrival, |last| last.max(arrival));
        self.last_at = Some(arrival);
        arrival
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn not_connected() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
