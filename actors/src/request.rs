//! A question, its answer, and every way it can end without one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use peregrine_runtime::{Deadline, NodeId, Region};
use peregrine_shaders::{Backend, ModelSpec, WindowError, Windows};

use crate::audit::{PredictionIds, RowName};
use crate::release::key_of;
use crate::trace::Trace;

/// Windows to be forecast by one model.
#[derive(Clone, Debug)]
pub struct ForecastRequest {
    /// The model's name.
    pub model: String,
    /// `None`: the highest that is ready.
    pub version: Option<u32>,
    /// What to forecast from.
    pub windows: Windows,
    /// When the answer stops being useful.
    pub deadline: Deadline,
    /// Who asks, and how urgently.
    pub origin: Origin,
    /// What the answer is called where it is recorded.
    pub subject: Subject,
    /// Its caller has no other request that could share its batch: a device may run it in the caller's thread.
    pub is_alone: bool,
}

/// What the answer to a request is called in the audit records.
#[derive(Clone, Debug, Default)]
pub enum Subject {
    /// Nothing: it is found by the number that it is given.
    #[default]
    Unnamed,
    /// What the caller knows it by.
    Named(Box<Names>),
    /// It was recorded when it was first made, and is made again.
    Again,
}

impl Subject {
    pub(crate) fn names(&self) -> Option<&Names> {
        if let Self::Named(names) = self { Some(names) } else { None }
    }
}

/// What a caller knows an answer by.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Numbers that its rows were told to have; `None`: any.
    pub ids: Option<PredictionIds>,
    /// The caller's own word for the request; empty: none.
    pub request: String,
    /// Of each row; empty: none.
    pub rows: Vec<RowName>,
}

impl ForecastRequest {
    /// Asks the highest version of `model` that is ready, for nobody in particular.
    #[must_use]
    pub fn new(model: impl Into<String>, windows: Windows, deadline: Deadline) -> Self {
        let (origin, subject) = (Origin::default(), Subject::default());
        Self { model: model.into(), version: None, windows, deadline, origin, subject, is_alone: true }
    }

    /// All of it but what is to be forecast.
    pub(crate) fn clone_without_windows(&self) -> Self {
        Self {
            model: self.model.clone(),
            version: self.version,
            windows: Windows::default(),
            deadline: self.deadline,
            origin: self.origin.clone(),
            subject: self.subject.clone(),
            is_alone: self.is_alone,
        }
    }
}

/// Who asks, and how urgently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name of the caller's key, among which a node that is full is shared fairly; empty: all who show none.
    pub caller: Arc<str>,
    /// What is refused last.
    pub priority: Priority,
    /// Of what is asked about, such as a series: requests with one key are answered by one version of a model, as long
    /// as its release allows. `None`: those of one caller are. See [`key_of`](crate::release::key_of).
    pub key: Option<u64>,
    /// What it is part of, if that is recorded.
    pub trace: Trace,
}

impl Origin {
    /// By what a release chooses who answers; `None`: nothing is known of the caller.
    pub(crate) fn release_key(&self) -> Option<u64> {
        self.key.or_else(|| (!self.caller.is_empty()).then(|| key_of(&self.caller)))
    }
}

/// What is refused last when there is too much: the order is that of importance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Whatever can be asked again later: copies of requests, portfolios over night.
    Low,
    /// The rest.
    #[default]
    Normal,
    /// What somebody waits for: predictions that follow ticks.
    High,
}

impl Priority {
    /// From what is refused first to what is refused last.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// The answer to a [`ForecastRequest`].
#[derive(Clone, Debug)]
pub struct Forecast {
    /// The model's shapes and columns.
    pub spec: Arc<ModelSpec>,
    /// The version that answered.
    pub version: u32,
    /// `[rows, h, C]`, or `[rows, h, N, C]` of several series; row-major.
    pub values: Vec<f32>,
    /// The kind of device that computed it.
    pub backend: Backend,
    /// The node of that device.
    pub served_by: ServedBy,
    /// The CPU stood in for a GPU that was asked for.
    pub degraded: bool,
    /// Where the time went.
    pub timing: Timing,
}

/// The node that computed a forecast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// This one.
    Here,
    /// Another one.
    Peer {
        /// Its name.
        node: NodeId,
        /// Where it is.
        region: Region,
        /// Hex SHA-256 of the weights there.
        digest: String,
    },
}

impl Forecast {
    /// `cpu`, `gpu`, or `remote:` and the region of the node that answered.
    #[must_use]
    pub fn backend_label(&self) -> Cow<'static, str> {
        match &self.served_by {
            ServedBy::Here => Cow::Borrowed(self.backend.name()),
            ServedBy::Peer { region, .. } => Cow::Owned(format!("remote:{region}")),
        }
    }

    /// Name of the other node that answered, if one did.
    #[must_use]
    pub fn peer(&self) -> Option<&str> {
        match &self.served_by {
            ServedBy::Here => None,
            ServedBy::Peer { node, .. } => Some(node.as_str()),
        }
    }
}

/// Where the time of one request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From acceptance to the start of its batch.
    pub queue: Duration,
    /// Of its batch, from first copy to answer.
    pub compute: Duration,
    /// Rows of its batch, its own included.
    pub batch_rows: usize,
}

/// Why a request got no forecast.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ForecastError {
    /// The caller named something we do not serve. 404.
    #[error("unknown model `{0}`")]
    UnknownModel(String),
    /// The model is served, but not in this version. 404.
    #[error("model `{model}` has no version {version}")]
    UnknownVersion {
        /// The model.
        model: String,
        /// The version that was asked for.
        version: u32,
    },
    /// It is still being loaded: come back later. 503.
    #[error("model `{0}` is not ready")]
    NotReady(String),
    /// The caller's windows do not fit the model. 422.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The caller must split the request. 413.
    #[error("{rows} windows in one request, at most {max} are accepted")]
    TooManyRows {
        /// Windows that came.
        rows: usize,
        /// Windows accepted.
        max: usize,
    },
    /// Nothing is broken; come back later. 429.
    #[error("overloaded, retry in {retry_after_ms} ms")]
    Overloaded {
        /// A guess at when there will be room.
        retry_after_ms: u32,
    },
    /// The caller gave too little time, or we took too long. 504.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// No device can answer now: the operator acts. 503.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: String,
    },
    /// The network overflows on this finite input. 422.
    #[error("the forecast of series {row} is not finite")]
    NotFinite {
        /// Row of the request.
        row: usize,
    },
}

impl ForecastError {
    /// One word for each way, as spans have it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::UnknownModel(_) => "unknown_model",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::NotReady(_) => "not_ready",
            Self::Window(_) => "window",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::Overloaded { .. } => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unavailable { .. } => "unavailable",
            Self::NotFinite { .. } => "not_finite",
        }
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}
