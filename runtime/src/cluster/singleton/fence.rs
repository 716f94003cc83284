//! What a singleton is given so that the world can be safe against two of it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::clock::Clock;

/// The epoch of one possession, and whether it still lasts. Clones are the same possession.
#[derive(Clone)]
pub struct Fence {
    epoch: u64,
    until: Arc<Mutex<Option<Instant>>>,
    clock: Arc<dyn Clock>,
}

impl Fence {
    pub(crate) fn new(epoch: u64, clock: Arc<dyn Clock>) -> Self {
        Self { epoch, until: Arc::default(), clock }
    }

    /// Goes along with everything done for others: they keep the highest that they have seen, and refuse what
    /// comes under a lower one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the lease lasts at this moment; to be asked before every step that the world sees. A process that
    /// was frozen between this and the step is late by that step: that is what the epoch is for.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.until.lock().is_some_and(|until| self.clock.now() < until)
    }

    pub(crate) fn set_until(&self, until: Option<Instant>) {
        *self.until.lock() = until;
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("epoch", &self.epoch).field("holds", &self.holds()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_fence_holds_until_its_lease_ends_and_no_longer() {
        let clock = Arc::new(ManualClock::new());
        let fence = Fence::new(7, clock.clone());
        assert!(!fence.holds(), "nothing is promised yet");
        fence.set_until(Some(clock.now() + Duration::from_secs(1)));
        assert!(fence.clone().holds());
        clock.advance(Duration::from_secs(1));
        assert!(!fence.holds());
    }
}
