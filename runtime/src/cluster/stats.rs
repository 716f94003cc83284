//! What links and messages have come to, counted since the start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::address::AskError;

#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) links_opened: AtomicU64,
    pub(crate) links_lost: AtomicU64,
    pub(crate) links_refused: AtomicU64,
    /// Frames sent through a third node.
    pub(crate) detours: AtomicU64,
    /// Frames passed on for others.
    pub(crate) relayed: AtomicU64,
    /// Answers that could not be sent: their askers wait until their deadlines. Shared with the links.
    pub(crate) answers_lost: Arc<AtomicU64>,
    /// Frames that broke the rules; each ended its link.
    pub(crate) violations: AtomicU64,
    /// Messages of others that were not taken here, by reason.
    pub(crate) refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Messages nobody waited for that others did not take, by reason.
    pub(crate) tells_refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// Counters of a node's part in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStats {
    /// Links that came about, dialled from here.
    pub links_opened: u64,
    /// Of those, how many were lost.
    pub links_lost: u64,
    /// Callers that were turned away after their credentials had been accepted.
    pub links_refused: u64,
    /// Messages sent through a third node.
    pub detours: u64,
    /// Frames passed on for others.
    pub relayed: u64,
    /// Answers that could not be sent, since the asker takes too slowly: it waits until its deadline.
    pub answers_lost: u64,
    /// Links ended because the peer broke the rules.
    pub violations: u64,
    /// Asks of this node that wait for an answer now.
    pub asks_waiting: usize,
    /// Messages of others that were not taken here, by reason: dead letters.
    pub refused: BTreeMap<&'static str, u64>,
    /// Messages told to others that they did not take, by reason: dead letters there.
    pub tells_refused: BTreeMap<&'static str, u64>,
}

impl Stats {
    pub(crate) fn refuse(&self, why: AskError) {
        *self.refused.lock().entry(reason_name(why)).or_default() += 1;
    }

    pub(crate) fn tell_refused(&self, why: AskError, count: u64) {
        *self.tells_refused.lock().entry(reason_name(why)).or_default() += count;
    }

    pub(crate) fn read(&self, asks_waiting: usize) -> ClusterStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClusterStats {
            links_opened: count(&self.links_opened),
            links_lost: count(&self.links_lost),
            links_refused: count(&self.links_refused),
            detours: count(&self.detours),
            relayed: count(&self.relayed),
            answers_lost: count(&self.answers_lost),
            violations: count(&self.violations),
            asks_waiting,
            refused: self.refused.lock().clone(),
            tells_refused: self.tells_refused.lock().clone(),
        }
    }
}

/// A word for metrics.
fn reason_name(why: AskError) -> &'static str {
    use crate::address::Refusal;
    match why {
        AskError::Full => "full",
        AskError::Closed => "closed",
        AskError::Failed => "failed",
        AskError::Deadline => "deadline",
        AskError::Unreachable => "unreachable",
        AskError::Lost => "lost",
        AskError::Refused(Refusal::UnknownService) => "unknown_service",
        AskError::Refused(Refusal::UnknownType) => "unknown_type",
        AskError::Refused(Refusal::UnknownVersion) => "unknown_version",
        AskError::Refused(Refusal::TooLarge) => "too_large",
        AskError::Refused(Refusal::Malformed) => "malformed",
        AskError::Refused(Refusal::Overtaken) => "overtaken",
        AskError::Refused(Refusal::OtherLife) => "other_life",
        AskError::Refused(Refusal::NoRoute) => "no_route",
    }
}
