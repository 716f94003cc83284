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
    /// Streams that have begun here: by series the models, each with the newest number whose window was handed to it or
    /// given up.
    pub(super) begun: HashMap<SeriesName, Vec<(Arc<str>, u64)>>,
}

impl Held {
    /// Up to which number those who follow a stream hear, or have heard, what became of its windows. `None`: it has not
    /// begun.
    pub(super) fn begun(&self, series: &SeriesName, model: &str) -> Option<u64> {
        let streams = self.begun.get(series)?;
        streams.iter().find(|(known, _)| **known == *model).map(|&(_, seq)| seq)
    }

    /// A stream goes on up to a number.
    pub(super) fn go_on(&mut self, series: &SeriesName, model: &Arc<str>, seq: u64) {
        if let Some((_, last)) = self
            .begun
            .get_mut(series)
            .and_then(|streams| streams.iter_mut().find(|(known, _)| known == model))
        {
            *last = seq;
        } else {
            self.begun.entry(series.clone()).or_default().push((Arc::clone(model), seq));
        }
    }

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
