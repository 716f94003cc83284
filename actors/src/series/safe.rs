//! How a tick becomes safe: in the journal of this node, and in the copy on another.

use std::collections::{BTreeSet, HashSet};
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use peregrine_runtime::Deadline;

use super::copies::{CopyError, Standby};
use super::journal::{Journal, JournalEntry, JournalError, Scatter};
use super::place::{Aside, Held, Place};
use super::room::Inner;
use super::{History, SeriesName};

/// Between two tries to reach a copy.
const PATIENCE: Duration = Duration::from_millis(50);

impl Inner {
    /// Lets the journal keep what it does not have of these series.
    pub(super) async fn keep(
        &self,
        place: &Place,
        touched: &HashSet<SeriesName>,
    ) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let Some(mut queued) = Queued::of(&**journal, &mut place.held.lock(), touched) else { return Ok(()) };
        let result = match queued.done {
            Some(result) => result,
            None => queued.kept.as_mut().await,
        };
        let mut held = place.held.lock();
        if result.is_err() {
            for name in queued.scattered {
                held.aside.entry(name).or_default().is_unsure = true;
            }
        }
        result?;
        for (name, seq) in queued.ends {
            let kept = held.kept.entry(name.clone()).or_default();
            *kept = (*kept).max(seq);
        }
        Ok(())
    }

    /// Brings the copy of these series up to date, if there is to be one.
    pub(super) async fn copy(
        &self,
        place: &Place,
        shard: u16,
        epoch: u64,
        touched: &HashSet<SeriesName>,
        deadline: Deadline,
    ) -> Result<(), CopyError> {
        loop {
            let failed = match self.copies.standby(shard) {
                Standby::Nobody => return Ok(()),
                Standby::Missing => {
                    CopyError::Unreachable("no other node is there to hold a copy".to_owned())
                }
                Standby::On(holder) => {
                    let logs = place.held.lock().shard.lacking(&holder, touched);
                    if logs.is_empty() {
                        return Ok(());
                    }
                    match self.copies.replicate(&holder, shard, epoch, logs, deadline).await {
                        Ok(answers) => {
                            let mut held = place.held.lock();
                            for (series, taken) in answers {
                                held.shard.answered(&holder, &series, taken);
                            }
                            continue;
                        }
                        Err(CopyError::Fenced) => return Err(CopyError::Fenced),
                        Err(failed) => failed,
                    }
                }
            };
            if deadline.expired(self.clock.now() + PATIENCE) {
                return Err(failed);
            }
            // A node may be gone, which the members will know in a moment; another one is then named.
            tokio::time::sleep(PATIENCE).await;
        }
    }
}

/// What the journal was handed.
struct Queued<'a> {
    /// How far each series goes with it.
    ends: Vec<(&'a SeriesName, u64)>,
    scattered: Vec<SeriesName>,
    kept: Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send + 'a>>,
    done: Option<Result<(), JournalError>>,
}

impl<'a> Queued<'a> {
    /// What the journal lacks of these series. It is queued while no tick can come: an entry may take the place of one
    /// that is nearly as new.
    fn of(journal: &'a dyn Journal, held: &mut Held, touched: &'a HashSet<SeriesName>) -> Option<Self> {
        let (mut entries, mut ends, mut scattered) = (Vec::new(), Vec::new(), Vec::new());
        for name in touched {
            let Some(history) = held.shard.get(name) else { continue };
            let kept = held.kept.get(name).copied().unwrap_or(0);
            let mut new = history.entries(name, kept + 1);
            if new.is_empty() {
                continue;
            }
            ends.push((name, history.seq()));
            let newest = history.scattered(journal.places());
            if newest.is_some() || held.aside.contains_key(name) {
                let newest = newest.unwrap_or_default();
                new.retain(|entry| newest.is_empty() || newest.binary_search(&entry.seq).is_ok());
                scattered.push(held.scatter(name, &newest, kept, journal.places()));
            }
            entries.append(&mut new);
        }
        // One that is late for the journal's own limit changes nothing there.
        let is_same = |scatter: &Scatter| scatter.aside.is_empty() && scatter.dropped.is_empty();
        if entries.is_empty() && scattered.iter().all(is_same) {
            return None;
        }
        let names = scattered.iter().map(|scatter: &Scatter| scatter.series.clone()).collect();
        let mut kept = journal.keep(entries, scattered);
        let done = kept.as_mut().now_or_never();
        Some(Self { ends, scattered: names, kept, done })
    }
}

impl Held {
    /// What the journal is told of a series, of which it is to keep `newest`, and has all up to `kept`.
    fn scatter(&mut self, name: &SeriesName, newest: &[u64], kept: u64, places: usize) -> Scatter {
        let before = self.aside.remove(name).unwrap_or_default();
        let seqs = displaced(newest, places);
        let mut dropped = before.seqs;
        let is_new = |seq: &u64| before.is_unsure || *seq > kept || !dropped.contains(seq);
        let put: Vec<u64> = seqs.iter().copied().filter(is_new).collect();
        dropped.retain(|seq| !seqs.contains(seq));
        let tick = |seq: u64| {
            let history = self.shard.get(name)?;
            Some(JournalEntry { seq, epoch: history.epoch(seq)?, tick: history.tick(name, seq)? })
        };
        let scatter = Scatter {
            series: name.clone(),
            runs: runs(newest),
            aside: put.into_iter().filter_map(tick).collect(),
            dropped: dropped.into_iter().collect(),
        };
        if !newest.is_empty() {
            self.aside.insert(name.clone(), Aside { seqs, is_unsure: false });
        }
        scatter
    }

    /// What was read of a series is what its journal has.
    pub(super) fn found(&mut self, name: &SeriesName, places: usize) {
        let newest = self.shard.get(name).and_then(|history: &History| history.scattered(places));
        if let Some(newest) = newest {
            let seqs = displaced(&newest, places);
            self.aside.insert(name.clone(), Aside { seqs, is_unsure: false });
        }
    }
}

/// Of numbers that rise, those whose places newer ones take.
fn displaced(newest: &[u64], places: usize) -> BTreeSet<u64> {
    let last = newest.last().copied().unwrap_or(0);
    newest.iter().copied().filter(|seq| last - seq >= places as u64).collect()
}

fn runs(seqs: &[u64]) -> Vec<(u64, u64)> {
    let runs = seqs.chunk_by(|one, next| one + 1 == *next);
    runs.filter_map(|run| Some((*run.first()?, *run.last()?))).collect()
}
