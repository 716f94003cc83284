//! How a node comes to own a shard: it finds out which node has the longest log of each series, and takes that.
//!
//! What was acknowledged was in two places, so it is in one of those that are left. Of two logs the one whose last tick
//! was accepted later, by epoch and number, holds all that was acknowledged (as Raft chooses a leader, section 5.4.1).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use peregrine_runtime::Deadline;
use tracing::{debug, info, warn};

use super::copies::CopyError;
use super::place::Place;
use super::room::Series;
use super::{Holder, LogEnd, SeriesName};

/// Between two tries to reach a node.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longest that one try takes.
const TRY_MAX: Duration = Duration::from_millis(500);
/// Series asked for at once, so that the answer fits a message.
const FETCH_MAX: usize = 16;

impl Series {
    /// This node owns a shard from now on, and takes ticks for it once it holds what other nodes held.
    pub fn gained(&self, shard: u16, epoch: u64) {
        let series = self.clone();
        self.inner.runtime.spawn(async move { series.recover(shard, epoch).await });
    }

    /// This node owns a shard no more; it keeps what it holds, as a copy.
    pub fn ended(&self, shard: u16) {
        if let Some(place) = self.inner.places.get(usize::from(shard)) {
            place.ready.send_replace(0);
        }
    }

    async fn recover(&self, shard: u16, epoch: u64) {
        let inner = &self.inner;
        let Ok(place) = inner.place(shard) else { return };
        let deadline = Deadline::after(inner.clock.now(), inner.settings.recover_max);
        if !place.held.lock().shard.raise(epoch) {
            return; // another owner came after this
        }
        let holders = inner.copies.others();
        let found =
            join_all(holders.into_iter().map(|holder| self.ends_of(holder, shard, epoch, deadline))).await;
        let mut complete = true;
        let mut best: HashMap<SeriesName, (LogEnd, Holder)> = HashMap::new();
        for (holder, ends) in found {
            match ends {
                Ok(ends) => ends.into_iter().for_each(|end| keep_best(&mut best, end, &holder)),
                Err(CopyError::Fenced) => return,
                Err(CopyError::Unreachable(why)) => {
                    complete = false;
                    warn!(
                        shard,
                        node = &*holder.0,
                        why,
                        "took over a shard without asking a node that is there"
                    );
                }
            }
        }
        let wanted = self.better_than_here(place, best);
        for (holder, names) in wanted {
            for names in names.chunks(FETCH_MAX) {
                complete &= self.fetch_from(place, &holder, shard, names, deadline).await;
            }
        }
        let series_count = {
            let mut held = place.held.lock();
            if held.shard.fence() > epoch {
                return;
            }
            place.ready.send_replace(epoch);
            // What the former owner may not have predicted, or not delivered; before a tick comes, whose window would be
            // predicted twice.
            self.refresh(&mut held, |_, _| true);
            held.shard.len()
        };
        inner.counters.recovered(complete);
        match series_count {
            // Each node has dozens of them at its start.
            0 if complete => debug!(shard, epoch, "owns a shard without series"),
            _ => info!(shard, epoch, series = series_count, complete, "owns a shard"),
        }
    }

    /// Asks until there is an answer, the node is gone, or it is too late.
    async fn ends_of(
        &self,
        holder: Holder,
        shard: u16,
        epoch: u64,
        deadline: Deadline,
    ) -> (Holder, Result<Vec<LogEnd>, CopyError>) {
        let inner = &self.inner;
        loop {
            let now = inner.clock.now();
            let this_try = Deadline::at(deadline.instant().min(now + TRY_MAX));
            match inner.copies.ends(&holder, shard, epoch, this_try).await {
                Err(CopyError::Unreachable(_)) if !inner.copies.others().contains(&holder) => {
                    return (holder, Ok(Vec::new())); // it took what it had with it
                }
                Err(CopyError::Unreachable(_)) if !deadline.expired(inner.clock.now() + PATIENCE) => {
                    tokio::time::sleep(PATIENCE).await;
                }
                ended => return (holder, ended),
            }
        }
    }

    /// Series that other nodes know more of, by node.
    fn better_than_here(
        &self,
        place: &Place,
        best: HashMap<SeriesName, (LogEnd, Holder)>,
    ) -> HashMap<Holder, Vec<SeriesName>> {
        let held = place.held.lock();
        let mut wanted: HashMap<Holder, Vec<SeriesName>> = HashMap::new();
        for (name, (end, holder)) in best {
            let here = held.shard.get(&name).map(|history| {
                let seq = history.seq();
                (history.epoch(seq).unwrap_or(0), seq)
            });
            if here.is_none_or(|here| here < (end.epoch, end.seq)) {
                wanted.entry(holder).or_default().push(name);
            }
        }
        wanted
    }

    /// Whether all of it came.
    async fn fetch_from(
        &self,
        place: &Place,
        holder: &Holder,
        shard: u16,
        names: &[SeriesName],
        deadline: Deadline,
    ) -> bool {
        let inner = &self.inner;
        loop {
            let now = inner.clock.now();
            let this_try = Deadline::at(deadline.instant().min(now + TRY_MAX));
            match inner.copies.fetch(holder, shard, names.to_vec(), this_try).await {
                Ok(logs) => {
                    let touched: HashSet<SeriesName> =
                        place.held.lock().take(&logs, &inner.settings.limits).1;
                    if let Err(failed) = inner.keep(place, &touched).await {
                        warn!(shard, error = %failed, "a shard was taken over and is not on disk");
                    }
                    return touched.len() == names.len();
                }
                Err(_) if inner.copies.others().contains(holder) && !deadline.expired(now + PATIENCE) => {
                    tokio::time::sleep(PATIENCE).await;
                }
                Err(failed) => {
                    warn!(shard, node = &*holder.0, error = %failed, "what a node held of a shard is not here");
                    return false;
                }
            }
        }
    }
}

fn keep_best(best: &mut HashMap<SeriesName, (LogEnd, Holder)>, end: LogEnd, holder: &Holder) {
    let better =
        best.get(&end.series).is_none_or(|(known, _)| (known.epoch, known.seq) < (end.epoch, end.seq));
    if better {
        best.insert(end.series.clone(), (end, holder.clone()));
    }
}
