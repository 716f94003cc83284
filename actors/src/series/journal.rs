//! What the series ask of a disk.

use async_trait::async_trait;

use super::{SeriesName, Tick};

/// A tick that has changed a window, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// The sequence number that its series then had: rises from entry to entry of a series.
    pub seq: u64,
    /// Under which possession of its shard it was accepted: of two entries of one number, the higher one counts.
    pub epoch: u64,
    /// What came.
    pub tick: Tick,
}

/// What is kept of a series whose newest observations are not those with the newest numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// Of which series.
    pub series: SeriesName,
    /// First and last of each run of numbers that are kept, lowest first. None: they rise by one again.
    pub runs: Vec<(u64, u64)>,
    /// Entries whose places newer numbers take; they are put aside.
    pub aside: Vec<JournalEntry>,
    /// Numbers of entries that were put aside and are kept no more.
    pub dropped: Vec<u64>,
}

/// Entries were not kept; the operator acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// More waits to be written than may; come back later.
    #[error("the disk does not keep up")]
    Full,
    /// The disk refused.
    #[error("disk: {0}")]
    Disk(String),
}

/// Keeps the newest entries of every series over restarts.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// How many numbers of a series have places: an entry takes that of the one so many numbers before it.
    fn places(&self) -> usize;

    /// Keeps entries, and what is scattered with them; returns when they survive the death of this process. They are
    /// queued when this is first polled. Of entries of one series with one sequence number the last one counts.
    async fn keep(&self, entries: Vec<JournalEntry>, scattered: Vec<Scatter>) -> Result<(), JournalError>;

    /// Keeps entries of series that are not scattered.
    async fn append(&self, entries: Vec<JournalEntry>) -> Result<(), JournalError> {
        self.keep(entries, Vec::new()).await
    }

    /// All that is kept, one series after the other, each in the order of its sequence numbers. Without holes: what stands
    /// before a hole is left out, unless the series was said to be scattered so. Read at start, before anything is
    /// appended.
    fn restore(&self, each: &mut dyn FnMut(JournalEntry)) -> Result<(), JournalError>;

    /// Forgets a series.
    async fn forget(&self, series: SeriesName) -> Result<(), JournalError>;
}
