//! The tick journal on disk: keeps the newest entries of every series over restarts.
//!
//! Callers queue entries; one thread commits whatever waits in one go, so that a commit is shared by all who came
//! meanwhile. A commit has reached the operating system when `append` returns: it survives the death of this process.
//! The disk follows every `sync_every`, or before the answer where `durability = "disk"`. Knows no series actor, only
//! the port that they own.

mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod kept;
mod queue;
mod store;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use peregrine_actors::series::{Journal, JournalEntry, JournalError, Scatter, SeriesName};
use peregrine_runtime::Clock;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::config::JournalConfig;
use queue::{Queue, Task, Work};
use store::Store;
use writer::Writer;

pub use store::{Aside, Found, OpenError};

/// A disk that does not answer for so long has failed, as far as the caller is concerned.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The journal. Dropping it writes what is queued and closes it.
pub struct TickJournal {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    places: usize,
    /// Of the folder; released last.
    _lock: store::Lock,
}

/// What callers and the writer share.
struct Shared {
    queue: Queue,
    /// `None` between a failure and the next try.
    store: Mutex<Option<Store>>,
    written: AtomicU64,
    failed: AtomicU64,
    refuses: AtomicBool,
}

/// Figures of a running journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStatus {
    /// Entries that wait.
    pub queued: usize,
    /// Entries kept since the start.
    pub written: u64,
    /// Entries that the disk refused.
    pub failed: u64,
    /// Whether it refused the newest of them.
    pub refuses: bool,
}

impl TickJournal {
    /// Opens the journal in its folder, which is made if it is not there; reads all of it once. What was found is logged
    /// too. Blocks.
    ///
    /// # Errors
    /// When another process has it open, another version has written it, or the disk refuses.
    pub fn open(config: &JournalConfig, clock: Arc<dyn Clock>) -> Result<(Self, Found), OpenError> {
        let dir = config.dir.as_path();
        let lock = store::lock(dir)?;
        let mut known = HashSet::new();
        let (store, found) = Store::open(dir, config.capacity, &mut known)?;
        report(dir, &found);
        let shared = Arc::new(Shared {
            queue: Queue::default(),
            store: Mutex::new(Some(store)),
            written: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            dir: dir.to_owned(),
            ring: config.capacity,
            series_max: config.series_max,
            durability: config.durability,
            known,
            clock,
            failed: None,
        };
        let failed = |source: io::Error| OpenError::Io { dir: dir.to_owned(), source };
        let writer =
            thread::Builder::new().name("journal".to_owned()).spawn(|| writer.run()).map_err(failed)?;
        let places = config.capacity as usize;
        Ok((Self { shared, writer: Some(writer), places, _lock: lock }, found))
    }

    /// Now.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        JournalStatus {
            queued: self.shared.queue.len(),
            written: self.shared.written.load(Relaxed),
            failed: self.shared.failed.load(Relaxed),
            refuses: self.shared.refuses.load(Relaxed),
        }
    }

    async fn ask(&self, task: Task) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        self.shared.queue.push(Work { task, done })?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_gone)) => Err(JournalError::Disk("the writer has died".to_owned())),
            Err(_elapsed) => Err(JournalError::Disk(format!("no answer within {ANSWER_WITHIN:?}"))),
        }
    }
}

#[async_trait]
impl Journal for TickJournal {
    fn places(&self) -> usize {
        self.places
    }

    async fn keep(&self, entries: Vec<JournalEntry>, scattered: Vec<Scatter>) -> Result<(), JournalError> {
        if entries.is_empty() && scattered.is_empty() {
            Ok(())
        } else {
            self.ask(Task::Append(entries, scattered)).await
        }
    }

    fn restore(&self, each: &mut dyn FnMut(JournalEntry)) -> Result<(), JournalError> {
        let store = self.shared.store.lock().unwrap_or_else(PoisonError::into_inner);
        let store = store.as_ref().ok_or_else(|| JournalError::Disk("not open".to_owned()))?;
        let (mut before_hole, mut superseded) = (0, 0);
        let read = store.each(&mut |kept| {
            before_hole += kept.before_hole;
            superseded += kept.superseded;
            kept.entries.into_iter().for_each(&mut *each);
        });
        if before_hole + superseded > 0 {
            warn!(before_hole, superseded, "journal: entries do not count");
        }
        read.map_err(|failure| JournalError::Disk(failure.to_string()))
    }

    async fn forget(&self, series: SeriesName) -> Result<(), JournalError> {
        self.ask(Task::Forget(series)).await
    }
}

impl Drop for TickJournal {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
    }
}

fn report(dir: &Path, found: &Found) {
    let Found { series, entries, skipped, torn_bytes, aside } = found;
    let dir = dir.display();
    if let Some(Aside { path, why, kept }) = aside {
        tracing::error!(path = %path.display(), error = why, kept, "journal was corrupt and is put aside");
    }
    if skipped + torn_bytes > 0 {
        warn!(%dir, skipped, torn_bytes, "journal: some of it could not be read");
    }
    info!(%dir, series, entries, "journal opened");
}

#[cfg(test)]
mod tests;
