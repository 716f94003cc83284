//! Where the newest overview hangs, and how many may look at it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::gateway::stream::text_frame;
use crate::overview::{BYTES_MAX, Overview, fit};

/// Websockets that watch overviews, on one node.
pub(super) const VIEWERS_MAX: usize = 64;

/// Shared by all workers of a node.
pub(crate) struct Board {
    newest: watch::Sender<Option<Arc<Shown>>>,
    seats: Arc<Semaphore>,
    /// Other nodes that are watched from here; a relay that nobody watches ends.
    pub(super) relays: Mutex<BTreeMap<String, Weak<watch::Sender<Option<Bytes>>>>>,
}

/// One overview. It is written when the first viewer wants it, and once for all of them.
pub(crate) struct Shown {
    overview: Overview,
    whole: OnceLock<Bytes>,
    brief: OnceLock<Bytes>,
    frame: OnceLock<Bytes>,
}

/// A viewer's place; it is free again when this is dropped.
pub(crate) struct Seat {
    _permit: OwnedSemaphorePermit,
}

impl Default for Board {
    fn default() -> Self {
        let seats = Arc::new(Semaphore::new(VIEWERS_MAX));
        Self { newest: watch::Sender::new(None), seats, relays: Mutex::default() }
    }
}

impl Board {
    pub(super) fn hang(&self, overview: Overview) {
        let [whole, brief, frame] = Default::default();
        self.newest.send_replace(Some(Arc::new(Shown { overview, whole, brief, frame })));
    }

    /// What is newest now.
    pub(super) fn now(&self) -> Option<Arc<Shown>> {
        self.newest.borrow().clone()
    }

    /// What is newest; a node that has just started is waited for.
    pub(super) async fn newest(&self, within: Duration) -> Option<Arc<Shown>> {
        let mut newest = self.newest.subscribe();
        let hung = tokio::time::timeout(within, newest.wait_for(Option::is_some)).await;
        hung.ok()?.ok()?.clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Shown>>> {
        self.newest.subscribe()
    }

    /// A place for one more viewer, if there is one.
    pub(in crate::gateway) fn sit(&self) -> Option<Seat> {
        let permit = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        Some(Seat { _permit: permit })
    }

    /// How many watch.
    pub(super) fn viewers(&self) -> usize {
        VIEWERS_MAX - self.seats.available_permits()
    }
}

impl Shown {
    /// With the history, as JSON.
    pub(super) fn whole(&self) -> Bytes {
        self.whole.get_or_init(|| fit(self.overview.clone(), BYTES_MAX)).clone()
    }

    /// Without the history, as JSON.
    pub(super) fn brief(&self) -> Bytes {
        let without = || Overview { history: None, ..self.overview.clone() };
        self.brief.get_or_init(|| fit(without(), BYTES_MAX)).clone()
    }

    /// Without the history, as it goes over a websocket.
    pub(super) fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| text_frame(&self.brief())).clone()
    }
}
