//! A shard's place on a node: what is held of it, and whether it is owned.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::wants::Want;
use super::{SeriesLog, SeriesName, Shard, ShardLimits, Taken};

/// A shard's place on this node.
pub(super) struct Place {
    pub(super) held: Mutex<Held>,
    /// The epoch under which this node owns it and is ready to; 0: it does not.
    pub(super) ready: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) shard: Shard,
    /// What is wanted of each series, and at which generation that was found.
    pub(super) wanted: HashMap<SeriesName, (u64, Arc<[Want]>)>,
    /// Numbers up to which the journal has a series.
    pub(super) kept: HashMap<SeriesName, u64>,
}

impl Held {
    /// Takes logs of other nodes; says how each went, and which series they were of.
    pub(super) fn take(
        &mut self,
        logs: &[SeriesLog],
        limits: &ShardLimits,
    ) -> (Vec<(SeriesName, Taken)>, HashSet<SeriesName>) {
        let mut taken = Vec::with_capacity(logs.len());
        let mut touched = HashSet::with_capacity(logs.len());
        for log in logs {
            // What is replaced has to be kept again.
            let kept = self.kept.entry(log.series.clone()).or_default();
            *kept = (*kept).min(log.first.saturating_sub(1));
            taken.push((log.series.clone(), self.shard.take(log, limits)));
            touched.insert(log.series.clone());
        }
        (taken, touched)
    }
}
