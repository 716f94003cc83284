//! What the series ask of a disk.

use async_trait::async_trait;

use super::{SeriesName, Tick};

/// A tick that has changed a window, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// The sequence number that its series then had: rises by one from entry to entry of a series.
    pub seq: u64,
    /// Under which possession of its shard it was accepted: of two entries of one number, the higher one counts.
    pub epoch: u64,
    /// What came.
    pub tick: Tick,
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
    /// Keeps entries; returns when they survive the death of this process. Of entries of one series with one
    /// sequence number the last one counts.
    async fn append(&self, entries: Vec<JournalEntry>) -> Result<(), JournalError>;

    /// All that is kept, one series after the other, each in the order of its sequence numbers, without holes: what
    /// stands before a hole is left out. Read at start, before anything is appended.
    fn restore(&self, each: &mut dyn FnMut(JournalEntry)) -> Result<(), JournalError>;

    /// Forgets a series.
    async fn forget(&self, series: SeriesName) -> Result<(), JournalError>;
}
