//! What all streams of a node share: the hub, the source, the seats, and what is counted.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use peregrine_actors::stream::{Hub, HubLimits, Source};
use peregrine_runtime::Clock;

use super::connection::Patience;
use super::port::End;
use super::print::Frames;
use crate::config::StreamConfig;

/// Ticks of a connection's timer between two heartbeats.
const TICKS_PER_HEARTBEAT: u32 = 2;

/// Shared by all workers of a node.
pub(crate) struct Streams {
    hub: Hub,
    source: Arc<dyn Source>,
    limits: StreamConfig,
    seats: Mutex<Seats>,
    stopping: AtomicBool,
    sent: Tally,
    conflated: AtomicU64,
    /// The worst since somebody asked, in frames.
    lag: AtomicU64,
    /// The worst since each of those who ask asked last, but for what is in `lag`.
    lags: [AtomicU64; LAG_READERS],
    ends: [AtomicU64; End::ALL.len()],
}

/// Threads that count in different cache lines; more of them share.
const LANES: usize = 16;

/// Messages and bytes that were sent. Each thread counts in a cache line of its own: what all write to at each message is a
/// miss at each message, and so is what lies beside it.
#[derive(Default)]
struct Tally {
    lanes: [Lane; LANES],
}

#[derive(Default)]
#[repr(align(128))]
struct Lane {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    fn add(&self, messages: u64, bytes: u64) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static LANE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % LANES;
        }
        let lane = &self.lanes[LANE.with(|lane| *lane)];
        lane.messages.fetch_add(messages, Ordering::Relaxed);
        lane.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sums(&self) -> (u64, u64) {
        self.lanes.iter().fold((0, 0), |(messages, bytes), lane| {
            (messages + lane.messages.load(Ordering::Relaxed), bytes + lane.bytes.load(Ordering::Relaxed))
        })
    }
}

#[derive(Default)]
struct Seats {
    taken: usize,
    next: u64,
    /// Those who are to be told when the node stops.
    wakers: HashMap<u64, Waker>,
}

/// One connection's place; it is free again when this is dropped.
pub(crate) struct Seat {
    streams: Arc<Streams>,
    number: u64,
    known: Cell<bool>,
    end: Cell<End>,
}

/// What is counted, for `/metrics`.
pub(crate) struct StreamStats {
    pub(crate) subscribers: usize,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) conflated: u64,
    pub(crate) lag_frames: u64,
    pub(crate) ends: Vec<(&'static str, u64)>,
}

/// Who asks how far readers were behind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LagReader {
    /// `/metrics`.
    Metrics,
    /// The overview.
    Overview,
}

const LAG_READERS: usize = 2;

/// The hub of a node.
pub(crate) fn hub(config: &StreamConfig) -> Hub {
    let limits = HubLimits {
        channels_max: config.channels_max,
        channels_per_caller_max: config.channels_per_caller_max,
        streams_max: config.streams_max,
        log_frames_max: config.log_frames_max,
        log_bytes_max: config.log_bytes_max,
        retention: config.retention,
        ..HubLimits::default()
    };
    Hub::new(Arc::new(Frames), limits)
}

impl Streams {
    /// Websockets over a hub and the source that publishes to it; what is also returned must run meanwhile.
    pub(crate) fn start(
        limits: StreamConfig,
        hub: Hub,
        source: Arc<dyn Source>,
        clock: Arc<dyn Clock>,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + use<>) {
        let keeper = hub.attach(Arc::clone(&source), clock);
        let streams = Self {
            hub,
            source,
            limits,
            seats: Mutex::default(),
            stopping: AtomicBool::new(false),
            sent: Tally::default(),
            conflated: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            lags: Default::default(),
            ends: Default::default(),
        };
        (Arc::new(streams), keeper)
    }

    /// Where predictions are published.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    pub(crate) fn limits(&self) -> &StreamConfig {
        &self.limits
    }

    pub(super) fn message_bytes_max(&self) -> usize {
        self.limits.message_bytes_max
    }

    pub(super) fn patience(&self) -> Patience {
        let tick = (self.limits.heartbeat / TICKS_PER_HEARTBEAT).max(Duration::from_millis(10));
        let ticks = |time: Duration| {
            u16::try_from(time.as_millis().div_ceil(tick.as_millis()).max(1)).unwrap_or(u16::MAX)
        };
        Patience {
            tick,
            ping_after: ticks(self.limits.idle_max / 2),
            stuck_max: ticks(self.limits.stuck_max),
            close: self.limits.close_timeout,
        }
    }

    /// A seat, if one is free and the node does not stop.
    pub(crate) fn sit(self: &Arc<Self>) -> Option<Seat> {
        let mut seats = self.seats();
        if seats.taken >= self.limits.connections_max || self.stopping.load(Ordering::SeqCst) {
            return None;
        }
        seats.taken += 1;
        seats.next += 1;
        let (known, end) = (Cell::new(false), Cell::new(End::Gone));
        Some(Seat { streams: Arc::clone(self), number: seats.next, known, end })
    }

    /// Takes leave of all clients; nobody new gets a seat.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.seats().wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Lets clients in again: the node was told to go on after all.
    pub(crate) fn resume(&self) {
        self.stopping.store(false, Ordering::SeqCst);
    }

    pub(super) fn count(&self, frames: u64, bytes: u64) {
        if frames > 0 {
            self.sent.add(frames, bytes);
        }
    }

    pub(super) fn saw_lag(&self, frames: u64) {
        if frames > self.lag.load(Ordering::Relaxed) {
            self.lag.fetch_max(frames, Ordering::Relaxed);
        }
    }

    pub(super) fn conflated(&self, frames: u64) {
        self.conflated.fetch_add(frames, Ordering::Relaxed);
    }

    /// Counted so far; the lag is the worst since this reader asked last.
    pub(crate) fn stats(&self, reader: LagReader) -> StreamStats {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let (messages, bytes) = self.sent.sums();
        StreamStats {
            subscribers: self.seats().taken,
            messages,
            bytes,
            conflated: count(&self.conflated),
            lag_frames: self.lag(reader),
            ends: End::ALL.iter().map(|end| (end.name(), count(&self.ends[*end as usize]))).collect(),
        }
    }

    /// What one reader takes away it leaves for the others.
    fn lag(&self, reader: LagReader) -> u64 {
        let new = self.lag.swap(0, Ordering::Relaxed);
        self.lags.iter().for_each(|lag| {
            lag.fetch_max(new, Ordering::Relaxed);
        });
        self.lags[reader as usize].swap(0, Ordering::Relaxed)
    }

    fn seats(&self) -> std::sync::MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Does the node stop? If not, the waker is told when it does.
    pub(super) fn stopping(&self, waker: &Waker) -> bool {
        if !self.known.replace(true) {
            self.streams.seats().wakers.insert(self.number, waker.clone());
        }
        self.streams.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn leave(self, end: End) {
        self.end.set(end);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.streams.ends[self.end.get() as usize].fetch_add(1, Ordering::Relaxed);
        let mut seats = self.streams.seats();
        seats.taken -= 1;
        seats.wakers.remove(&self.number);
        if seats.wakers.is_empty() {
            seats.wakers = HashMap::new();
        }
    }
}
