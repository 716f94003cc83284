//! Asks of this node that wait for an answer from another.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
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
    waiting: Mutex<HashMap<u64, Waiting, BuildHasherDefault<IdHasher>>>,
}

/// Spreads ids that this node counts up: nobody else chooses a key, so nothing has to be hard to guess.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(self.0 ^ u64::from(byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 over the golden ratio: the upper bits of the product differ too, which the table looks at first.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

struct Waiting {
    /// Who must answer: hash of its name, and its life.
    from: (u64, u64),
    /// The first link of the way it took.
    over: SocketAddr,
    answer_bytes_max: usize,
    complete: Complete,
}

impl Pending {
    /// Registers an ask before it is sent, since the link may be lost at once; its id.
    pub(crate) fn insert(
        &self,
        from: (u64, u64),
        over: SocketAddr,
        answer_bytes_max: usize,
        complete: Complete,
    ) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting.lock().insert(id, Waiting { from, over, answer_bytes_max, complete });
        id
    }

    /// Longest answer that an ask takes; nothing that waits takes none.
    pub(crate) fn answer_bytes_max(&self, id: u64) -> usize {
        self.waiting.lock().get(&id).map_or(0, |waiting| waiting.answer_bytes_max)
    }

    /// Ends an ask; false when it was not waiting, or for somebody else, or for a shorter answer. Each is ended once.
    pub(crate) fn complete(&self, id: u64, origin: u64, outcome: Outcome<'_>) -> bool {
        let bytes = outcome.map_or(0, |(_, body)| body.len());
        let waiting = {
            let mut all = self.waiting.lock();
            let takes = |waiting: &Waiting| waiting.from.0 == origin && bytes <= waiting.answer_bytes_max;
            if !all.get(&id).is_some_and(takes) {
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
        self.fail(|waiting| waiting.over == link)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LINK: ([u8; 4], u16) = ([10, 0, 0, 1], 7000);

    /// What an ask has ended with; nothing: it waits.
    type Ended = Arc<Mutex<Option<Result<Vec<u8>, AskError>>>>;

    /// One ask of node 7 in its life 1, for up to four bytes; what it ends with is in the second.
    fn waiting(pending: &Pending) -> (u64, Ended) {
        let ended = Arc::new(Mutex::new(None));
        let into = Arc::clone(&ended);
        let complete =
            move |outcome: Outcome<'_>| *into.lock() = Some(outcome.map(|(_, body)| body.to_vec()));
        (pending.insert((7, 1), LINK.into(), 4, Box::new(complete)), ended)
    }

    #[test]
    fn an_ask_ends_once_with_an_answer_that_it_takes() {
        let pending = Pending::default();
        let (id, ended) = waiting(&pending);
        assert!(!pending.complete(id, 8, Ok((1, &[1]))), "from somebody else");
        assert!(!pending.complete(id, 7, Ok((1, &[1; 5]))), "too long");
        assert_eq!((pending.len(), ended.lock().clone()), (1, None));
        assert!(pending.complete(id, 7, Ok((1, &[1; 4]))));
        assert!(!pending.complete(id, 7, Ok((1, &[2; 4]))), "it has ended");
        assert_eq!(ended.lock().clone(), Some(Ok(vec![1; 4])));
        assert!(!pending.forget(id));
    }

    #[test]
    fn a_lost_link_and_a_lost_life_end_their_asks() {
        let pending = Pending::default();
        let (_, over_link) = waiting(&pending);
        assert_eq!(pending.fail_link(([10, 0, 0, 2], 7000).into()), 0);
        assert_eq!(pending.fail_link(LINK.into()), 1);
        assert_eq!(over_link.lock().clone(), Some(Err(AskError::Lost)));
        let (_, of_life) = waiting(&pending);
        assert_eq!(pending.fail_node(7, 2), 0);
        assert_eq!(pending.fail_node(7, 1), 1);
        assert_eq!(of_life.lock().clone(), Some(Err(AskError::Lost)));
    }
}
