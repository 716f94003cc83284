//! A link that this node dials and keeps: every message it sends goes over links of its own, answers come back on
//! them.
//!
//! Two nodes thus have two links, one each way. That costs a connection and saves an election: the order of what
//! a node sends never depends on which of two links won.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::cluster::greeting::{self, Greeted, GreetingError, Layouts};
use crate::cluster::link::{Identity, Outboxes, Path, write_lane};
use crate::cluster::net::Net;
use crate::cluster::reader::{Reader, read_lane};
use crate::fabric::{ConnectError, Lane, Link};
use crate::seldom::Seldom;

/// How long a link nobody asked for is kept.
const UNWANTED_AFTER: Duration = Duration::from_secs(10);

pub(crate) struct Conn {
    pub(crate) addr: SocketAddr,
    pub(crate) outboxes: Arc<Outboxes>,
    inner: Mutex<Inner>,
    /// Rouses the dialler from its wait.
    nudge: Notify,
}

struct Inner {
    state: ConnState,
    /// The last attempt failed by what the two hold of each other.
    estranged: bool,
    wanted_at: Instant,
    retired: bool,
}

#[derive(Clone)]
pub(crate) enum ConnState {
    /// The first attempt is not over: what is sent waits for it.
    Fresh,
    /// Open.
    Up(Arc<Up>),
    /// It failed; another attempt will come.
    Down,
}

pub(crate) struct Up {
    pub(crate) path: Arc<Path>,
    /// As the other end greeted: it may do so before the membership knows it.
    pub(crate) layouts: Layouts,
}

impl Conn {
    /// Starts dialling.
    pub(crate) fn dial(net: &Arc<Net>, addr: SocketAddr) -> Arc<Self> {
        let outboxes = Arc::new(Outboxes::new(net.limits.lane_bytes));
        outboxes.open();
        let inner = Inner { state: ConnState::Fresh, estranged: false, wanted_at: net.now(), retired: false };
        let conn = Arc::new(Self { addr, outboxes, inner: Mutex::new(inner), nudge: Notify::new() });
        net.runtime.spawn(keep(Arc::clone(net), Arc::clone(&conn)));
        conn
    }

    pub(crate) fn state(&self) -> ConnState {
        self.inner.lock().state.clone()
    }

    /// Whether what is sent to a life of a node leaves here; nothing when another life answers.
    pub(crate) fn reaches(&self, identity: &Identity) -> Option<bool> {
        match &self.inner.lock().state {
            ConnState::Up(up) => (up.path.peer == *identity).then_some(true),
            ConnState::Fresh => Some(true),
            ConnState::Down => Some(false),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.inner.lock().state, ConnState::Up(_))
    }

    /// Does whoever answers there refuse this node, or this node it?
    pub(crate) fn is_estranged(&self) -> bool {
        self.inner.lock().estranged
    }

    /// Somebody has a use for it.
    pub(crate) fn want(&self, now: Instant) {
        self.inner.lock().wanted_at = now;
    }

    /// Ends it if nobody has had a use for it; whether it ends.
    pub(crate) fn retire(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock();
        if now.saturating_duration_since(inner.wanted_at) < UNWANTED_AFTER {
            return false;
        }
        inner.retired = true;
        if let ConnState::Up(up) = &inner.state {
            up.path.wire.close("not wanted any more");
        }
        drop(inner);
        self.nudge.notify_one();
        true
    }

    fn is_retired(&self) -> bool {
        self.inner.lock().retired
    }

    fn enter(&self, state: ConnState, estranged: bool) {
        let mut inner = self.inner.lock();
        (inner.state, inner.estranged) = (state, estranged);
    }
}

/// Dials, serves and dials again, until nobody wants the link or the node stops.
async fn keep(net: Arc<Net>, conn: Arc<Conn>) {
    let mut stopping = net.stopping.subscribe();
    let (mut failures, mut seldom, mut failing_since) = (0_u32, Seldom::default(), None);
    loop {
        let served = tokio::select! {
            served = attempt(&net, &conn) => served,
            _ = stopping.wait_for(|&stop| stop) => {
                conn.outboxes.close();
                return;
            }
        };
        conn.enter(ConnState::Down, matches!(served, Err(NoLink::Estranged(_))));
        conn.outboxes.close();
        let lost = net.pending.fail_link(conn.addr);
        match served {
            Ok(reason) => {
                (failures, failing_since) = (0, None);
                net.stats.links_lost.fetch_add(1, Ordering::Relaxed);
                tracing::info!(addr = %conn.addr, reason, asks = lost, "link lost");
            }
            Err(failed) => {
                failures = failures.saturating_add(1);
                let (addr, reason, now) = (conn.addr, failed.to_string(), net.now());
                let failing = now.saturating_duration_since(*failing_since.get_or_insert(now));
                if matches!(failed, NoLink::Estranged(_)) && seldom.happened(now).is_some() {
                    tracing::warn!(%addr, reason, failures, "a node and this one refuse each other");
                } else if let Some(unsaid) = net.unheard(failing) {
                    tracing::warn!(
                        %addr, reason, failures, unsaid,
                        "this node is alone: nobody answers where it dials, and nobody dials it"
                    );
                } else {
                    tracing::debug!(%addr, reason, failures, "link did not come about");
                }
            }
        }
        if conn.is_retired() {
            return;
        }
        let (first, longest) = net.limits.redial;
        let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
        let wait = full.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::select! {
            () = sleep(wait) => {}
            () = conn.nudge.notified() => {}
            _ = stopping.wait_for(|&stop| stop) => return,
        }
        if conn.is_retired() {
            return;
        }
    }
}

/// Why a link did not begin.
#[derive(Debug, thiserror::Error)]
enum NoLink {
    /// It may work the next time.
    #[error("{0}")]
    Failed(String),
    /// It will not until somebody has configured one of the two otherwise.
    #[error("{0}")]
    Estranged(String),
}

impl From<ConnectError> for NoLink {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused { .. } => Self::Estranged(error.to_string()),
            ConnectError::Timeout { .. } | ConnectError::Unreachable { .. } => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl From<GreetingError> for NoLink {
    fn from(error: GreetingError) -> Self {
        match error {
            GreetingError::OtherCluster(_) | GreetingError::OtherName { .. } | GreetingError::Namesake(_) => {
                Self::Estranged(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// One life of the link: why it ended, or why it did not begin.
async fn attempt(net: &Arc<Net>, conn: &Arc<Conn>) -> Result<String, NoLink> {
    let link = net.fabric.connect(conn.addr).await?;
    let Link { peer, lanes, wire, .. } = link;
    let [(mut control_in, mut control_out), ask, stream, bulk] = lanes;
    let greeting = greeting::greet(net, &peer, &mut control_in, &mut control_out);
    let greeted = match timeout(net.limits.greeting, greeting).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => {
            wire.close("greeting refused");
            return Err(error.into());
        }
        Err(_) => {
            wire.close("no greeting");
            return Err(NoLink::Failed("no greeting in time".to_owned()));
        }
    };
    let Greeted { identity, layouts, rest, .. } = greeted;
    let path = Arc::new(Path {
        me: net.me.clone(),
        peer: identity,
        wire: Arc::clone(&wire),
        outboxes: Arc::clone(&conn.outboxes),
        askings: Default::default(),
        answers_lost: Arc::clone(&net.stats.answers_lost),
    });
    conn.outboxes.open();
    let up = Up { path: Arc::clone(&path), layouts: layouts.clone() };
    conn.enter(ConnState::Up(Arc::new(up)), false);
    // After the link is up: whoever enters the view meanwhile takes them from there.
    net.learn(&path.peer, layouts);
    net.stats.links_opened.fetch_add(1, Ordering::Relaxed);
    net.reached(&path.peer.id);
    tracing::info!(node = %path.peer.id, addr = %conn.addr, "link open");
    let reader = Arc::new(Reader::dialled(net, &path));
    Ok(serve(reader, [(control_in, control_out), ask, stream, bulk], rest).await)
}

/// Reads and writes all lanes of a link until one of them ends; why. `control` is what the greeting left unread.
pub(crate) async fn serve(
    reader: Arc<Reader>,
    lanes: [(crate::fabric::LaneReader, crate::fabric::LaneWriter); 4],
    control: bytes::BytesMut,
) -> String {
    let wire = Arc::clone(&reader.path.wire);
    let outboxes = Arc::clone(&reader.path.outboxes);
    let mut control = Some(control);
    let mut reading = FuturesUnordered::new();
    let mut writing = FuturesUnordered::new();
    for (lane, (input, output)) in Lane::ALL.into_iter().zip(lanes) {
        // Tasks of their own, so that a wait on one lane holds up no other.
        let rest = control.take().unwrap_or_default();
        reading.push(tokio::spawn(read_lane(Arc::clone(&reader), lane, input, rest)));
        writing.push(tokio::spawn(write_lane(Arc::clone(&outboxes), lane, output)));
    }
    let datagrams = tokio::spawn(Arc::clone(&reader).read_datagrams());
    let reason = tokio::select! {
        reason = wire.closed() => reason,
        Some(ended) = reading.next() => ended.ok().flatten().unwrap_or_else(|| "the peer ended a lane".to_owned()),
        Some(_) = writing.next() => "a lane takes no more".to_owned(),
    };
    wire.close(&reason);
    datagrams.abort();
    reading.iter().for_each(tokio::task::JoinHandle::abort);
    writing.iter().for_each(tokio::task::JoinHandle::abort);
    reader.path.askings.leave_all();
    reason
}
