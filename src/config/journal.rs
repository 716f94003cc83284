//! `[journal]`, as used.

use std::path::PathBuf;
use std::time::Duration;

use super::checker::{Checker, SECOND};
use super::file::{DurabilityChoice, JournalFile};

/// Ticks on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalConfig {
    /// Where.
    pub dir: PathBuf,
    /// Ticks kept of each series, at least 1.
    pub capacity: u32,
    /// Series kept.
    pub series_max: usize,
    /// What an acknowledged tick survives.
    pub durability: Durability,
}

/// What an acknowledged tick survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process; the loss of power too, once it is so old.
    Process {
        /// How old.
        sync_every: Duration,
    },
    /// The loss of power.
    Disk,
}

impl Checker<'_> {
    pub(super) fn journal(&mut self, written: JournalFile) -> Option<Option<JournalConfig>> {
        let dir = self.present("journal.dir", written.dir);
        let capacity = self.within("journal.capacity", written.capacity, 1..=1 << 20);
        let series_max = self.within("journal.series_max", written.series_max, 1..=10_000_000);
        let durability = self.present("journal.durability", written.durability);
        let sync_every = self.time("journal.sync_every", written.sync_every, SECOND / 1000..=60 * SECOND);
        let durability = match durability? {
            DurabilityChoice::Disk => Durability::Disk,
            DurabilityChoice::Process => Durability::Process { sync_every: sync_every? },
        };
        let (dir, capacity, series_max) = (dir?, u32::try_from(capacity?).ok()?, series_max?);
        let is_off = dir.as_os_str().is_empty();
        Some((!is_off).then_some(JournalConfig { dir, capacity, series_max, durability }))
    }
}
