//! The one thread that writes: takes what waits, commits it in one go, tells everybody, and has the disk follow.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use peregrine_actors::series::{JournalError, SeriesName};
use peregrine_runtime::Clock;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Shared;
use super::entry::VALUE_BYTES_MAX;
use super::queue::{Taken, Task, Work};
use super::store::{Failure, Put, Store, Write};
use crate::config::Durability;

/// How long a store that has failed is left alone.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) ring: u32,
    pub(super) series_max: usize,
    pub(super) durability: Durability,
    pub(super) known: HashSet<SeriesName>,
    pub(super) clock: Arc<dyn Clock>,
    /// When the store was last tried in vain, and why it does not work.
    pub(super) failed: Option<(Instant, String)>,
}

type Done = oneshot::Sender<Result<(), JournalError>>;

/// What one commit does.
#[derive(Default)]
struct Commit {
    writes: Vec<Write>,
    forgotten: Vec<SeriesName>,
    done: Vec<Done>,
}

impl Writer {
    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        // When what was written first after the last sync must be on the disk.
        let mut sync_at: Option<Instant> = None;
        loop {
            let now = self.clock.now();
            let wait_max = sync_at.map(|at| at.saturating_duration_since(now));
            match self.shared.queue.take(wait_max) {
                Taken::Work(work) => {
                    self.work(work);
                    if let Durability::Process { sync_every } = self.durability {
                        sync_at = sync_at.or_else(|| Some(self.clock.now() + sync_every));
                    }
                }
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            if sync_at.is_some_and(|at| at <= self.clock.now()) {
                self.sync();
                sync_at = None;
            }
        }
        self.sync();
    }

    fn work(&mut self, work: Vec<Work>) {
        let mut commit = Commit::default();
        for Work { task, done } in work {
            match task {
                Task::Append(entries, scattered) => {
                    let write = Write::of(entries, scattered);
                    match self.admit(&write.put) {
                        Ok(()) => {
                            commit.writes.push(write);
                            commit.done.push(done);
                        }
                        Err(refused) => drop(done.send(Err(refused))),
                    }
                }
                Task::Forget(series) => {
                    // Forgets what was written, so that must be written first; it is rare.
                    self.commit(std::mem::take(&mut commit));
                    self.known.remove(&series);
                    self.commit(Commit { forgotten: vec![series], done: vec![done], ..Commit::default() });
                }
            }
        }
        self.commit(commit);
    }

    /// Nothing of an append is written unless all of it may be.
    fn admit(&mut self, values: &[Put]) -> Result<(), JournalError> {
        if let Some(Put { series, value, .. }) = values.iter().find(|put| put.value.len() > VALUE_BYTES_MAX) {
            let len = value.len();
            let text = format!("an entry of `{series}` has {len} bytes, {VALUE_BYTES_MAX} are the most");
            return Err(JournalError::Disk(text));
        }
        let new: HashSet<_> =
            values.iter().map(|put| &put.series).filter(|&s| !self.known.contains(s)).collect();
        if self.known.len() + new.len() > self.series_max {
            let text = format!("it holds {} series, journal.series_max allows no more", self.known.len());
            return Err(JournalError::Disk(text));
        }
        let new: Vec<SeriesName> = new.into_iter().cloned().collect();
        self.known.extend(new);
        Ok(())
    }

    fn commit(&mut self, commit: Commit) {
        let Commit { writes, forgotten, done } = commit;
        if done.is_empty() {
            return;
        }
        let count = writes.iter().map(|write| write.put.len() as u64).sum();
        let result = self.with_store(|store, to_disk| store.write(writes, &forgotten, to_disk));
        let counted = if result.is_ok() { &self.shared.written } else { &self.shared.failed };
        counted.fetch_add(count, Relaxed);
        self.shared.refuses.store(result.is_err(), Relaxed);
        for done in done {
            let _ = done.send(result.clone()); // who has gone away asks no more
        }
    }

    fn sync(&mut self) {
        // What failed is logged, and the next commit says so to those who wait.
        let _ = self.with_store(|store, _| store.sync());
    }

    fn with_store(
        &mut self,
        work: impl FnOnce(&Store, bool) -> Result<(), Failure>,
    ) -> Result<(), JournalError> {
        let shared = Arc::clone(&self.shared);
        let mut slot = shared.store.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(self.reopen()?);
        }
        let Some(store) = slot.as_ref() else { return Err(JournalError::Disk("not open".to_owned())) };
        let result = work(store, self.durability == Durability::Disk);
        result.map_err(|failure| {
            error!(error = %failure, "journal: the disk refused");
            // It takes nothing more until it is opened again.
            *slot = None;
            self.failed = Some((self.clock.now(), failure.to_string()));
            JournalError::Disk(failure.to_string())
        })
    }

    fn reopen(&mut self) -> Result<Store, JournalError> {
        let now = self.clock.now();
        if let Some((at, why)) = &self.failed
            && now.saturating_duration_since(*at) < REOPEN_AFTER
        {
            return Err(JournalError::Disk(why.clone()));
        }
        match Store::reopen(&self.dir, self.ring) {
            Ok(store) => {
                info!("journal: the disk takes entries again");
                self.failed = None;
                Ok(store)
            }
            Err(failure) => {
                warn!(error = %failure, "journal: the store does not open again");
                self.failed = Some((now, failure.to_string()));
                Err(JournalError::Disk(failure.to_string()))
            }
        }
    }
}
