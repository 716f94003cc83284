//! Asks of this node that wait for an answer from another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::address::AskError;

/// What comes of an ask: version and bytes of the answer, or why there is none.
pub(crate) type Outcome<'a> = Result<(u16, &'a [u8]), AskError>;
type Complete = Box<dyn FnOnce(Outcome<'_>) + Send>;

/// All of them, by correlation id.
#[derive(Default)]
pub(crate) struct Pending {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    /// Who must answer: hash of its name, and its life.
    from: (u64, u64),
    /// The first link of the way it took.
    over: Option<SocketAddr>,
    answer_bytes_max: usize,
    complete: Complete,
}

impl Pending {
    /// Registers an ask; its id.
    pub(crate) fn insert(&self, from: (u64, u64), answer_bytes_max: usize, complete: Complete) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting.lock().insert(id, Waiting { from, over: None, answer_bytes_max, complete });
        id
    }

    /// Says which link the ask went over.
    pub(crate) fn went_over(&self, id: u64, link: SocketAddr) {
        if let Some(waiting) = self.waiting.lock().get_mut(&id) {
            waiting.over = Some(link);
        }
    }

    /// Longest answer that an ask takes; nothing that waits takes none.
    pub(crate) fn answer_bytes_max(&self, id: u64) -> usize {
        self.waiting.lock().get(&id).map_or(0, |waiting| waiting.answer_bytes_max)
    }

    /// Ends an ask; false when it was not waiting, or for somebody else. Each is ended once.
    pub(crate) fn complete(&self, id: u64, origin: u64, outcome: Outcome<'_>) -> bool {
        let waiting = {
            let mut all = self.waiting.lock();
            if all.get(&id).is_none_or(|waiting| waiting.from.0 != origin) {
                return false;
            }
            all.remove(&id)
        };
        waiting.is_some_and(|waiting| {
            (waiting.complete)(outcome);
            true
        })
    }

    /// Forgets an ask whose asker has left; false when it has ended already.
    pub(crate) fn forget(&self, id: u64) -> bool {
        self.waiting.lock().remove(&id).is_some()
    }

    /// The life of a node is over: it will answer nothing.
    pub(crate) fn fail_node(&self, node: u64, incarnation: u64) -> usize {
        self.fail(|waiting| waiting.from == (node, incarnation))
    }

    /// A link is lost, and with it what travelled over it.
    pub(crate) fn fail_link(&self, link: SocketAddr) -> usize {
        self.fail(|waiting| waiting.over == Some(link))
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    fn fail(&self, lost: impl Fn(&Waiting) -> bool) -> usize {
        let lost: Vec<Waiting> =
            self.waiting.lock().extract_if(|_, waiting| lost(waiting)).map(|(_, w)| w).collect();
        let count = lost.len();
        for waiting in lost {
            (waiting.complete)(Err(AskError::Lost));
        }
        count
    }
}
