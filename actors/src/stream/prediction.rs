//! What a stream carries.

use std::sync::Arc;

use peregrine_shaders::ModelSpec;

use crate::series::{SeriesName, Timestamp};

/// One model's predictions of one series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Name of the model.
    pub model: Arc<str>,
    /// The series.
    pub series: SeriesName,
}

/// A prediction that followed a tick.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Of which stream.
    pub stream: StreamId,
    /// The sequence number of the window that it was made from: rises by one with each tick that changed it.
    pub seq: u64,
    /// Of two predictions with one sequence number, the one of the higher epoch counts: the other was made by an
    /// owner that died before the tick was accepted.
    pub epoch: u64,
    /// Place of the newest observation in the series: step `k` of the prediction is about place `position + k`.
    pub position: u64,
    /// When the newest observation was made.
    pub last: Timestamp,
    /// When the tick was accepted that the window ends with, by number. `None`: nobody knows any more.
    pub accepted_at: Option<Timestamp>,
    /// When the prediction was made.
    pub made_at: Timestamp,
    /// The model's shapes and columns.
    pub spec: Arc<ModelSpec>,
    /// The version that answered.
    pub version: u32,
    /// `[h, C]`, row-major.
    pub values: Box<[f32]>,
    /// `cpu`, `gpu` or `remote:` and a region.
    pub backend: Arc<str>,
    /// The CPU stood in for a GPU.
    pub degraded: bool,
}

/// What happens in a stream.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// A prediction.
    Prediction(Arc<Prediction>),
    /// Some that will not come.
    Gap(Gap),
}

/// Sequence numbers of a stream without a prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of which stream.
    pub stream: StreamId,
    /// The first.
    pub from: u64,
    /// The last: the stream goes on behind it. Below the first where the numbers began again, with an owner that knew
    /// nothing of the former ones.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why predictions do not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GapReason {
    /// Ticks came faster than predictions can be made, or than the subscriber read: a newer one follows.
    Conflated,
    /// Older than what is kept.
    Expired,
    /// The model could not forecast these windows.
    Failed,
    /// The nodes that had them do not answer, or have begun anew.
    Lost,
}

impl GapReason {
    /// As users read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflated => "conflated",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}
