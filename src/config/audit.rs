//! `[audit]`: as written, and as used.

use std::path::PathBuf;
use std::time::Duration;

use peregrine_actors::audit::{Keep, OnFailure, Survives};
use schemars::JsonSchema;
use serde::Deserialize;

use super::checker::{Checker, DAY, SECOND};
use super::units::{WrittenDuration, WrittenSize};

/// Records of predictions: what each was made of, for whom, and what it said.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct AuditFile {
    /// Folder, made if it is not there; empty: predictions are not recorded.
    pub(super) dir: Option<PathBuf>,
    /// What happens to requests while records cannot be written, or not fast enough.
    pub(super) on_failure: Option<FailureChoice>,
    /// What a record survives when its answer is given.
    pub(super) durability: Option<SurvivesChoice>,
    /// With a `durability` other than `disk`: how soon a record that was written survives the loss of power.
    pub(super) sync_every: Option<WrittenDuration>,
    /// Bytes on disk; the oldest are deleted before there are more.
    pub(super) size_max: Option<WrittenSize>,
    /// Older records are deleted when there are newer ones, in pieces of an eighth of it.
    pub(super) age_max: Option<WrittenDuration>,
    /// Bytes that may wait to be written.
    pub(super) queue_max: Option<WrittenSize>,
}

/// What happens to requests that cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailureChoice {
    /// They are refused with 503, or 429 where the disk is slow
    Refuse,
    /// They are answered without a record: counted, logged, and noted among the records
    Serve,
}

/// What a record survives when its answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SurvivesChoice {
    /// Nothing yet: it is written some milliseconds later
    Queue,
    /// The death of the process, however sudden; the answer waits for that
    Process,
    /// The loss of power; the answer waits for the disk
    Disk,
}

/// Records of predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditConfig {
    /// Where.
    pub dir: PathBuf,
    /// What happens to requests that cannot be recorded.
    pub on_failure: OnFailure,
    /// What a record survives when its answer is given.
    pub survives: Survives,
    /// How soon one that was written survives the loss of power.
    pub sync_every: Duration,
    /// How much is kept.
    pub keep: Keep,
    /// Bytes that may wait.
    pub queue_bytes_max: usize,
}

impl Checker<'_> {
    pub(super) fn audit(&mut self, written: AuditFile) -> Option<Option<AuditConfig>> {
        let bytes = |written: Option<WrittenSize>| written.map(|WrittenSize(bytes)| bytes);
        let dir = self.present("audit.dir", written.dir);
        let on_failure = self.present("audit.on_failure", written.on_failure);
        let durability = self.present("audit.durability", written.durability);
        let sync_every = self.time("audit.sync_every", written.sync_every, SECOND / 1000..=60 * SECOND);
        let size_max = self.within("audit.size_max", bytes(written.size_max), 1 << 20..=1 << 44);
        let age_max = self.time("audit.age_max", written.age_max, SECOND..=DAY * 36_600);
        let queue_max = self.within("audit.queue_max", bytes(written.queue_max), 1 << 16..=1 << 34);
        let dir = dir?;
        let is_off = dir.as_os_str().is_empty();
        let config = AuditConfig {
            dir,
            on_failure: match on_failure? {
                FailureChoice::Refuse => OnFailure::Refuse,
                FailureChoice::Serve => OnFailure::Serve,
            },
            survives: match durability? {
                SurvivesChoice::Queue => Survives::Nothing,
                SurvivesChoice::Process => Survives::Process,
                SurvivesChoice::Disk => Survives::Disk,
            },
            sync_every: sync_every?,
            keep: Keep { bytes_max: size_max? as u64, age_max: age_max? },
            queue_bytes_max: queue_max?,
        };
        Some((!is_off).then_some(config))
    }
}
