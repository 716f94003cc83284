//! The port through which a device tells how its batches went; what follows from that is not its business.

use std::sync::Arc;
use std::time::Duration;

/// How a batch went.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    Finished {
        took: Duration,
    },
    Failed(&'a str),
    /// It answered, but not what it had to.
    Wrong(&'a str),
}

/// Whoever wants to know how the batches of one model went on one backend.
pub(crate) trait Judge: Send + Sync {
    /// Told once per batch, and once per probe in it.
    fn judge(self: Arc<Self>, outcome: Outcome<'_>, probe: bool);

    /// Whether nothing speaks against sending it more.
    fn trusts(&self) -> bool;

    /// A probe of this epoch never ran.
    fn forfeit(&self, epoch: u32);
}

/// Marks a request as a probe. Dropped without an outcome, it gives the probe back.
pub(crate) struct Ticket {
    judge: Option<Arc<dyn Judge>>,
    epoch: u32,
}

impl Ticket {
    pub(crate) fn new(judge: Arc<dyn Judge>, epoch: u32) -> Self {
        Self { judge: Some(judge), epoch }
    }

    pub(crate) fn settle(mut self, outcome: Outcome<'_>) {
        if let Some(judge) = self.judge.take() {
            judge.judge(outcome, true);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(judge) = &self.judge {
            judge.forfeit(self.epoch);
        }
    }
}
