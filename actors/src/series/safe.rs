//! How a tick becomes safe: in the journal of this node, and in the copy on another.

use std::collections::HashSet;
use std::time::Duration;

use peregrine_runtime::Deadline;

use super::SeriesName;
use super::copies::{CopyError, Standby};
use super::journal::{JournalEntry, JournalError};
use super::place::Place;
use super::room::Inner;

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
        let (entries, ends) = {
            let held = place.held.lock();
            let mut entries = Vec::new();
            let mut ends = Vec::new();
            for name in touched {
                let Some(history) = held.shard.get(name) else { continue };
                let kept = held.kept.get(name).copied().unwrap_or(0);
                for seq in (kept + 1).max(history.first_seq())..=history.seq() {
                    let (Some(epoch), Some(tick)) = (history.epoch(seq), history.tick(name, seq)) else {
                        continue;
                    };
                    entries.push(JournalEntry { seq, epoch, tick });
                }
                ends.push((name, history.seq()));
            }
            (entries, ends)
        };
        if entries.is_empty() {
            return Ok(());
        }
        journal.append(entries).await?;
        let mut held = place.held.lock();
        for (name, seq) in ends {
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
