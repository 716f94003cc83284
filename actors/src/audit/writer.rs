//! The loop that writes: takes what is there, has it written, tells whoever waits, tries again when the store fails.
//!
//! Runs on a thread of its own and knows no file. What was accepted is kept and tried again until it is written; what a
//! store that fails has no room for is lost, counted, and noted in the chain once that can be written again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peregrine_runtime::Clock;
use tracing::{error, info, warn};

use super::Audit;
use super::frame::Group;
use super::link::Head;
use super::note::Note;
use super::policy::Survives;
use super::queue::{Batch, Queue};

/// How long a group gathers while nobody waits for it: what the death of the process may cost.
const GATHER: Duration = Duration::from_millis(10);
/// How long a store that has failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Between two lines about records that are lost, and between two notes.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);
/// Between two lines that say where the chain ends, for whoever keeps logs elsewhere.
const ANCHOR_EVERY: Duration = Duration::from_secs(60);

/// Groups cannot be appended. The operator acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// A chain that can be appended to.
pub trait Store: Send + 'static {
    /// Appends groups in order, as far as possible, and says how many are with the operating system, those counted that
    /// are empty; with fewer than came, why. The others are as if they had never been tried.
    fn append(&mut self, groups: &mut [&mut Group], now: SystemTime) -> (usize, Result<(), StoreError>);

    /// Has the disk follow.
    ///
    /// # Errors
    /// When it does not.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Where the chain ends.
    fn head(&self) -> Head;
}

struct Writer<'a> {
    audit: &'a Audit,
    queue: &'a Queue,
    store: &'a mut dyn Store,
    clock: &'a dyn Clock,
    pending: Vec<Batch>,
    sync_at: Option<Instant>,
    /// When lost predictions were last spoken of.
    complained_at: Option<Instant>,
    anchored: (Option<Instant>, Head),
    /// Of the last failure: why predictions were lost during it.
    blame: Option<String>,
}

/// Writes what comes to `audit` until it is closed and everything is written, or cannot be. Blocks.
pub(super) fn run(audit: &Audit, store: &mut dyn Store, clock: &dyn Clock) {
    let anchored = (None, store.head());
    audit.publish(anchored.1);
    let queue = &audit.queue;
    let (pending, sync_at, complained_at, blame) = (Vec::new(), None, None, None);
    Writer { audit, queue, store, clock, pending, sync_at, complained_at, anchored, blame }.run();
}

impl Writer<'_> {
    fn run(mut self) {
        loop {
            let wait_max = match self.queue.failure() {
                // It was waited before: what is held back is tried again whether anything comes or not.
                Some(_) => Some(Duration::ZERO),
                None => self.sync_at.map(|at| at.saturating_duration_since(self.clock.now())),
            };
            let is_over = self.queue.take(&mut self.pending, wait_max, GATHER);
            let is_written = self.write();
            self.note_gap();
            if self.sync_at.is_some_and(|at| at <= self.clock.now()) {
                self.sync();
            }
            if is_over && (is_written || self.queue.failure().is_some()) {
                break;
            }
            if !is_written {
                self.queue.pause(RETRY_AFTER);
            }
        }
        self.end();
    }

    /// All that is pending, or as far as it goes.
    fn write(&mut self) -> bool {
        let mut pending = std::mem::take(&mut self.pending);
        let is_empty = pending.iter().all(|batch| batch.group.is_empty());
        let (count, mut result) = match is_empty {
            false => self.append(&mut pending.iter_mut().map(|batch| &mut batch.group).collect::<Vec<_>>()),
            // Whether it can be written again has to be found out.
            true if self.queue.failure().is_some() => match self.store.sync() {
                Ok(()) => (pending.len(), Ok(())),
                failed => (0, failed),
            },
            true => (pending.len(), Ok(())),
        };
        if result.is_ok() && self.audit.survives == Survives::Disk && !is_empty {
            result = self.store.sync();
        }
        for batch in pending.drain(..count) {
            self.queue.release(batch.held);
            self.queue.recycle(batch.group);
            for done in batch.waiting.into_iter().filter(|_| result.is_ok()) {
                let _ = done.send(()); // nobody waits any more
            }
        }
        self.pending = pending;
        self.judge(result)
    }

    fn append(&mut self, groups: &mut [&mut Group]) -> (usize, Result<(), StoreError>) {
        let start = self.clock.now();
        let (count, result) = self.store.append(groups, self.clock.wall());
        let written = groups[..count].iter().filter(|group| !group.is_empty());
        let (records, bytes) = written.fold((0, 0), |(records, bytes), group| {
            (records + group.records(), bytes + group.frame_bytes() as u64)
        });
        if bytes > 0 {
            let now = self.clock.now();
            self.audit.wrote(records, bytes, now.saturating_duration_since(start));
            if let Survives::Nothing | Survives::Process = self.audit.survives {
                self.sync_at = self.sync_at.or(Some(now + self.audit.sync_every));
            }
            self.anchor(now);
        }
        (count, result)
    }

    fn sync(&mut self) {
        self.sync_at = None;
        // That a disk follows does not say that it takes more.
        if let Err(failed) = self.store.sync() {
            self.judge(Err(failed));
        }
    }

    fn judge(&mut self, result: Result<(), StoreError>) -> bool {
        match (result, self.queue.failure()) {
            (Ok(()), None) => true,
            (Ok(()), Some(_)) => {
                info!("audit records are written again");
                self.queue.set_failure(None);
                true
            }
            (Err(failed), before) => {
                if before.is_none() {
                    error!(error = %failed, on_failure = ?self.audit.on_failure, "audit records cannot be written");
                }
                self.queue.set_failure(Some(failed.0.as_str().into()));
                self.blame = Some(failed.0);
                false
            }
        }
    }

    /// Says what was lost; in the chain too, when nothing waits that came before.
    fn note_gap(&mut self) {
        let now = self.clock.now();
        if self.complained_at.is_some_and(|at| now < at + COMPLAIN_EVERY) && !self.queue.is_closed() {
            return;
        }
        let Some(gap) = self.queue.take_gap() else { return };
        self.complained_at = Some(now);
        let failure = self.queue.failure();
        let reason = failure.as_deref().unwrap_or("more waited to be written than may");
        warn!(
            count = gap.count,
            lost = self.queue.lost(),
            reason,
            "predictions were answered without a record"
        );
        if failure.is_some() || !self.pending.is_empty() {
            return self.queue.put_gap(gap);
        }
        let (from_ms, to_ms) = (millis(gap.since), millis(self.clock.wall()));
        let note = Note::Gap {
            from_ms,
            to_ms,
            count: gap.count,
            reason: self.blame.take().unwrap_or_else(|| reason.to_owned()),
        };
        let (count, result) = self.append(&mut [&mut Group::of(&note.encode())]);
        if count == 0 {
            self.queue.put_gap(gap);
        }
        self.judge(result);
    }

    /// Says where the chain ends, where that can be kept out of reach of whoever could rewrite the files.
    fn anchor(&mut self, now: Instant) {
        let head = self.store.head();
        self.audit.publish(head);
        let (at, said) = self.anchored;
        if at.is_none_or(|at| now >= at + ANCHOR_EVERY) && said != head {
            self.anchored = (Some(now), head);
            info!(segment = head.segment, offset = head.offset, records = head.records, link = %head.link, "audit chain");
        }
    }

    fn end(mut self) {
        let left: u64 = self.pending.iter().map(|batch| batch.group.records()).sum();
        if left > 0 {
            self.queue.lose(self.clock.wall(), left);
            error!(count = left, "audit records are lost: the node stops and they cannot be written");
        }
        if self.queue.failure().is_none() {
            let closed = Note::Closed { at_ms: millis(self.clock.wall()) };
            let (_, result) = self.append(&mut [&mut Group::of(&closed.encode())]);
            self.judge(result);
        }
        self.sync();
        self.queue.set_failure(Some("the records are closed".into()));
        let head = self.store.head();
        self.audit.publish(head);
        info!(segment = head.segment, offset = head.offset, records = head.records, link = %head.link, "audit chain ends");
    }
}

/// Since 1970.
pub(crate) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
