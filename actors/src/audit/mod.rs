//! Which predictions were made, of what, for whom: written down behind the answers, so that each can be made again.
//!
//! Off the way of a request but for a copy of its windows and of its answer. Decides what is recorded, how records hang
//! together, how long they are kept and what happens when they cannot be written; knows no file. A request is recorded
//! by the node that was asked, whichever computed.

mod codec;
mod frame;
mod id;
pub mod index;
mod link;
mod note;
mod policy;
mod queue;
mod record;
mod verify;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use peregrine_runtime::Clock;
use peregrine_shaders::Windows;

pub use codec::RecordError;
pub use frame::{Entry, FRAME_BYTES, Frame, Frames, Group, frame_at, is_intact, unchecked};
pub use id::{NoPredictionId, PredictionId, PredictionIds, is_unique, keys_of_name};
pub use link::{Flaw, Format, HEAD_BYTES, HEADER_BYTES, Head, Link, NoLink, SegmentHeader};
pub use note::Note;
pub use policy::{Keep, OnFailure, Sealed, Survives};
pub use record::{Position, Record, RowName, is_record};
pub use verify::{Fault, Report, Verifier};
pub(crate) use writer::millis;
pub use writer::{Store, StoreError};

use crate::request::{Forecast, ForecastError, Names, Subject};
use queue::{NoRoom, Queue, Room};

/// What callers are told to wait when records are not written as fast as predictions are made.
const RETRY_AFTER_MS: u32 = 50;

/// How records are taken.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// The node that records.
    pub node: String,
    /// Where it is.
    pub region: String,
    /// What happens to requests that cannot be recorded.
    pub on_failure: OnFailure,
    /// What a record survives when its answer is given.
    pub survives: Survives,
    /// How soon a record that was written survives the loss of power.
    pub sync_every: Duration,
    /// Bytes of records that wait.
    pub queue_bytes_max: usize,
    /// Of one record.
    pub record_bytes_max: usize,
    /// Bytes at which a group of records ends, with the record that reaches them.
    pub group_bytes: usize,
}

/// Takes records, and has them written. One of a node.
#[derive(Debug)]
pub struct Audit {
    settings: AuditSettings,
    on_failure: OnFailure,
    survives: Survives,
    sync_every: Duration,
    queue: Queue,
    records: AtomicU64,
    bytes: AtomicU64,
    writes: AtomicU64,
    write_ns: AtomicU64,
    head: Mutex<Head>,
}

/// Figures of running records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditStatus {
    /// Records written since the start.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Predictions answered without a record.
    pub lost: u64,
    /// Bytes that wait, or will.
    pub queue_bytes: usize,
    /// Writes.
    pub writes: u64,
    /// Time that they took.
    pub write_time: Duration,
    /// Where the chain ends.
    pub head: Head,
    /// Why nothing can be written.
    pub failure: Option<Arc<str>>,
}

impl Audit {
    /// Takes records from now on; somebody has to [`run`](Self::run) it.
    #[must_use]
    pub fn new(settings: AuditSettings) -> Arc<Self> {
        let queue = Queue::new(settings.queue_bytes_max, settings.record_bytes_max, settings.group_bytes);
        Arc::new(Self {
            on_failure: settings.on_failure,
            survives: settings.survives,
            sync_every: settings.sync_every,
            settings,
            queue,
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            write_ns: AtomicU64::new(0),
            head: Mutex::default(),
        })
    }

    /// Writes what comes, until [`close`](Self::close). Blocks: for a thread of its own.
    pub fn run(&self, store: &mut dyn Store, clock: &dyn Clock) {
        writer::run(self, store, clock);
    }

    /// Nothing will be written any more, for this reason.
    pub fn abandon(&self, reason: &str) {
        self.queue.set_failure(Some(reason.into()));
    }

    /// Takes nothing more; the writer ends when everything is written, or cannot be.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Now.
    #[must_use]
    pub fn status(&self) -> AuditStatus {
        AuditStatus {
            records: self.records.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lost: self.queue.lost(),
            queue_bytes: self.queue.bytes(),
            writes: self.writes.load(Relaxed),
            write_time: Duration::from_nanos(self.write_ns.load(Relaxed)),
            head: *self.head.lock(),
            failure: self.queue.failure(),
        }
    }

    /// Why no prediction may be given now; `None` as well where they are given without a record.
    pub(crate) fn refusal(&self) -> Option<Arc<str>> {
        self.queue.failure().filter(|_| self.on_failure == OnFailure::Refuse)
    }

    /// Waits until everything that was handed in is written; false when that takes longer. Needs a tokio timer around
    /// it.
    pub async fn settled(&self, within: Duration) -> bool {
        matches!(tokio::time::timeout(within, self.queue.settled()).await, Ok(Ok(())))
    }

    /// Takes room for a record of `windows`, and a copy of them. `None`: the answer will have no record.
    pub(crate) fn begin(
        &self,
        windows: &Windows,
        answer_len: usize,
        subject: &Subject,
    ) -> Result<Option<Draft<'_>>, ForecastError> {
        let names = subject.names();
        let (request, rows) = names.map_or(("", &[][..]), |names| (&*names.request, &*names.rows));
        let bytes = record::room_for(windows, answer_len, request, rows);
        let serves = self.on_failure == OnFailure::Serve;
        match self.queue.room(bytes, serves) {
            Ok(room) => Ok(Some(Draft { room, body: record::begin(windows, bytes) })),
            Err(_) if serves => Ok(None),
            Err(NoRoom::Full) => Err(ForecastError::Overloaded { retry_after_ms: RETRY_AFTER_MS }),
            Err(NoRoom::Failing(reason)) => {
                Err(ForecastError::unavailable(format!("predictions cannot be recorded: {reason}")))
            }
            Err(NoRoom::TooLarge { bytes, bytes_max }) => Err(ForecastError::unavailable(format!(
                "a record of this request takes {bytes} bytes, at most {bytes_max} are kept: ask for fewer rows"
            ))),
        }
    }

    /// Hands the record of an answer in, and waits until it is as safe as callers are promised.
    pub(crate) async fn end(
        &self,
        draft: Option<Draft<'_>>,
        answer: &Answer<'_>,
    ) -> Result<(), ForecastError> {
        let Some(Draft { room, mut body }) = draft else {
            self.queue.lose(answer.at, 1);
            return Ok(());
        };
        let none = Names::default();
        let names = answer.names.unwrap_or(&none);
        let finish = record::Finish {
            ids: answer.ids,
            request: &names.request,
            rows: &names.rows,
            caller: answer.caller,
            digest: answer.digest,
            node: &self.settings.node,
            region: &self.settings.region,
            at_ms: writer::millis(answer.at),
            took: answer.took,
        };
        record::finish(&mut body, answer.forecast, &finish);
        let Some(safe) = room.fill(&body, self.survives != Survives::Nothing) else { return Ok(()) };
        let safe = tokio::time::timeout_at(answer.until.into(), safe).await;
        match (safe, self.on_failure) {
            (Ok(Ok(())), _) => Ok(()),
            // It is kept, and written when that is possible.
            (_, OnFailure::Serve) => Ok(()),
            (_, OnFailure::Refuse) => {
                Err(ForecastError::unavailable("the prediction was not recorded in time"))
            }
        }
    }

    fn wrote(&self, records: u64, bytes: u64, took: Duration) {
        self.records.fetch_add(records, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.writes.fetch_add(1, Relaxed);
        self.write_ns.fetch_add(crate::status::nanos(took), Relaxed);
    }

    fn publish(&self, head: Head) {
        *self.head.lock() = head;
    }
}

/// A record that has room and no answer yet. Dropped, it leaves no trace.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    room: Room<'a>,
    body: Vec<u8>,
}

/// What a record is ended with.
pub(crate) struct Answer<'a> {
    pub(crate) forecast: &'a Forecast,
    pub(crate) ids: PredictionIds,
    pub(crate) names: Option<&'a Names>,
    pub(crate) caller: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) at: SystemTime,
    pub(crate) took: Duration,
    /// The caller's deadline.
    pub(crate) until: Instant,
}

#[cfg(test)]
mod tests;
