//! A shard's place on a node: what is held of it, and whether it is owned.

use std::collections::{BTreeSet, HashMap, HashSet};
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
    /// What the journal has put aside of a series.
    pub(super) aside: HashMap<SeriesName, Aside>,
    /// Streams that have begun here: by series the models, each with the newest number whose window was handed to it or
    /// given up.
    pub(super) begun: HashMap<SeriesName, Vec<(Arc<str>, u64)>>,
}

/// What the journal has put aside of one series.
#[derive(Default)]
pub(super) struct Aside {
    pub(super) seqs: BTreeSet<u64>,
    /// The disk has refused something of it.
    pub(super) is_unsure: bool,
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
            taken.push((log.series.clone(), self.shard.take(log, limits)));
            // What is replaced has to be kept again. Of a series that was refused nothing is known.
            if let Some(kept) = self.kept.get_mut(&log.series) {
                *kept = (*kept).min(log.first().unwrap_or(0).saturating_sub(1));
            }
            touched.insert(log.series.clone());
        }
        (taken, touched)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{JournalEntry, Tick, Timestamp};
    use super::*;
    use crate::trace::Trace;

    #[test]
    fn of_logs_that_are_refused_nothing_stays() {
        let limits = ShardLimits { history: 8, series_max: 1, steps: Vec::new() };
        let mut held = Held::default();
        let log = |name: &str, first| {
            let series = SeriesName::new(name).unwrap();
            let at = |at| Tick {
                series: series.clone(),
                at: Timestamp(at),
                value: Some(1.0),
                hist_exog: Vec::new(),
                futr_exog: Vec::new(),
                stat_exog: Vec::new(),
                trace: Trace::default(),
            };
            let entry = |seq, tick| JournalEntry { seq, epoch: 1, tick };
            SeriesLog {
                series: series.clone(),
                after: None,
                ticks: vec![entry(first, at(1)), entry(first + 1, at(2))],
            }
        };
        let refused = ["b", "c", "d"].map(|name| log(name, 1));
        let (taken, _) = held.take(&[log("a", 5)], &limits);
        assert_eq!(taken[0].1, Taken::UpTo(6));
        let (taken, _) = held.take(&refused, &limits);
        assert!(taken.iter().all(|(_, taken)| *taken == Taken::Apart), "{taken:?}");
        assert_eq!((held.shard.len(), held.kept.len()), (1, 0), "nothing is in the journal yet");

        // What is replaced has to be kept again.
        let series = SeriesName::new("a").unwrap();
        held.kept.insert(series.clone(), 6);
        held.take(&[log("a", 6)], &limits);
        assert_eq!(held.kept[&series], 5);
    }
}
