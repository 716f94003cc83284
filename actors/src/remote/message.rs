//! What crosses between two nodes for one forecast: the question, the answer, and every way to have none.
//!
//! Plain values; their bytes are `wire.rs`'s business, the way there is that of whoever implements [`Peers`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use peregrine_runtime::{Deadline, NodeId, Region};
use peregrine_shaders::{Backend, ModelSpec, WindowError, Windows};

use crate::request::{ForecastError, Timing};
use crate::trace::TraceParent;

/// What the remote room asks of a cluster.
pub trait Peers: Send + Sync + 'static {
    /// Name and region of this node, as its answers to others say them.
    fn here(&self) -> (NodeId, Region);

    /// Live nodes that serve `model` (and `version` if named), this one excluded, as known now. Called once a
    /// request: it must not wait.
    fn providers(&self, model: &str, version: Option<u32>) -> Vec<Provider>;

    /// Whether any live node, this one excluded, serves any model, as known now.
    fn serve_anything(&self) -> bool;

    /// Asks one of them; dropping the future cancels there. Ends by the deadline. `trace` is the piece of work that the
    /// other node's is part of, if it is recorded.
    fn ask(
        &self,
        node: &NodeId,
        request: Arc<RemoteForecast>,
        trace: Option<TraceParent>,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<RemoteAnswer, RemoteRefusal>>;
}

/// A node that says it serves a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Its name.
    pub node: NodeId,
    /// Where it is.
    pub region: Region,
    /// Measured round trip.
    pub rtt: Duration,
    /// How busy it says it is: 0 idle, 1 full.
    pub load: f32,
    /// What a request there costs, in whatever unit the operator compares by.
    pub cost: f32,
    /// Whether it has a GPU that serves.
    pub has_gpu: bool,
    /// It says that it trusts none of its GPUs with this model now.
    pub gpu_open: bool,
    /// Another node says that its breaker is open for this one: hearsay, which makes it less wanted and no more.
    pub doubted: bool,
    /// It leaves soon and is given nothing new.
    pub draining: bool,
    /// It is asked when no other can answer.
    pub standby: bool,
}

/// A forecast wanted from another node, which must not pass it on.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteForecast {
    /// The model's name.
    pub model: String,
    /// `None`: the highest that is ready there.
    pub version: Option<u32>,
    /// Whether an answer of a CPU that stands in for a GPU is of use.
    pub may_degrade: bool,
    /// What to forecast from; `None`: only the model's shapes are wanted.
    pub windows: Option<Windows>,
}

impl RemoteForecast {
    /// Windows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.windows.as_ref().map_or(0, |windows| windows.rows)
    }
}

/// The answer to a [`RemoteForecast`].
#[derive(Clone, Debug)]
pub struct RemoteAnswer {
    /// The model's shapes and columns.
    pub spec: Arc<ModelSpec>,
    /// The version that answered.
    pub version: u32,
    /// Hex SHA-256 of its weights file.
    pub digest: String,
    /// Bytes of its weights and biases in f32.
    pub weight_bytes: usize,
    /// Windows answered; 0 if only shapes were wanted.
    pub rows: usize,
    /// `rows` times [`ModelSpec::answer_len`] numbers.
    pub values: Vec<f32>,
    /// The device there.
    pub backend: Backend,
    /// A CPU stood in for a GPU there.
    pub degraded: bool,
    /// Where the time went there.
    pub timing: Timing,
    /// Who answered.
    pub node: NodeId,
    /// And where that is.
    pub region: Region,
}

/// Why another node gave no forecast.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RemoteRefusal {
    /// It does not serve the model. Ask elsewhere.
    #[error("it does not serve the model")]
    UnknownModel,
    /// It does not serve this version. Ask elsewhere.
    #[error("it does not serve this version")]
    UnknownVersion,
    /// The model is being loaded there. Ask elsewhere.
    #[error("the model is not ready there")]
    NotReady,
    /// It is full. Ask elsewhere, or come back later.
    #[error("overloaded, retry in {retry_after_ms} ms")]
    Overloaded {
        /// A guess at when there will be room.
        retry_after_ms: u32,
    },
    /// It is leaving. Ask elsewhere.
    #[error("it is stopping")]
    Stopping,
    /// Only a degraded answer could be had, and none was wanted. Ask elsewhere.
    #[error("only its cpu could answer, in place of a gpu")]
    Degraded,
    /// None of its devices can answer. Ask elsewhere.
    #[error("unavailable there: {0}")]
    Unavailable(String),
    /// It was not reached, or was lost while it had the request. Ask elsewhere.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// The two do not understand each other. Ask elsewhere; the operator may have to act.
    #[error("not understood: {0}")]
    Malformed(String),
    /// The caller's windows do not fit the model.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The caller must split the request.
    #[error("at most {max} windows are accepted there")]
    TooManyRows {
        /// Windows accepted.
        max: usize,
    },
    /// The network overflows on this finite input.
    #[error("the forecast of series {row} is not finite")]
    NotFinite {
        /// Row of the request.
        row: usize,
    },
    /// Time was over.
    #[error("deadline exceeded")]
    DeadlineExceeded,
}

/// What a refusal says of the node that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Something is wrong with it.
    Node,
    /// It is well.
    Nobody,
}

impl RemoteRefusal {
    /// Whether another node may do better: nothing was computed there, or whatever was is lost. Forecasts change
    /// nothing, so asking twice does no harm.
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::UnknownModel
            | Self::UnknownVersion
            | Self::NotReady
            | Self::Overloaded { .. }
            | Self::Stopping
            | Self::Degraded
            | Self::Unavailable(_)
            | Self::Unreachable(_)
            | Self::Malformed(_) => true,
            Self::Window(_) | Self::TooManyRows { .. } | Self::NotFinite { .. } | Self::DeadlineExceeded => {
                false
            }
        }
    }

    /// One word for each way, as spans have it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::UnknownModel => "unknown_model",
            Self::UnknownVersion => "unknown_version",
            Self::NotReady => "not_ready",
            Self::Overloaded { .. } => "overloaded",
            Self::Stopping => "stopping",
            Self::Degraded => "degraded",
            Self::Unavailable(_) => "unavailable",
            Self::Unreachable(_) => "unreachable",
            Self::Malformed(_) => "malformed",
            Self::Window(_) => "window",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::NotFinite { .. } => "not_finite",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    /// Whether the breaker of that node counts it. One that is full, leaves or knows no such model works as it should.
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::Unavailable(_) | Self::Unreachable(_) | Self::Malformed(_) | Self::DeadlineExceeded => {
                Blame::Node
            }
            Self::UnknownModel
            | Self::UnknownVersion
            | Self::NotReady
            | Self::Overloaded { .. }
            | Self::Stopping
            | Self::Degraded
            | Self::Window(_)
            | Self::TooManyRows { .. }
            | Self::NotFinite { .. } => Blame::Nobody,
        }
    }

    /// As the caller of this node hears it.
    pub(crate) fn for_caller(self, request: &RemoteForecast) -> ForecastError {
        let model = || request.model.clone();
        match self {
            Self::UnknownModel => ForecastError::UnknownModel(model()),
            Self::UnknownVersion => match request.version {
                Some(version) => ForecastError::UnknownVersion { model: model(), version },
                None => ForecastError::UnknownModel(model()),
            },
            Self::NotReady => ForecastError::NotReady(model()),
            Self::Overloaded { retry_after_ms } => ForecastError::Overloaded { retry_after_ms },
            Self::Window(error) => ForecastError::Window(error),
            Self::TooManyRows { max } => ForecastError::TooManyRows { rows: request.rows(), max },
            Self::NotFinite { row } => ForecastError::NotFinite { row },
            Self::DeadlineExceeded => ForecastError::DeadlineExceeded,
            refusal @ (Self::Stopping
            | Self::Degraded
            | Self::Unavailable(_)
            | Self::Unreachable(_)
            | Self::Malformed(_)) => ForecastError::unavailable(format!("no other node answered: {refusal}")),
        }
    }
}

impl From<ForecastError> for RemoteRefusal {
    fn from(error: ForecastError) -> Self {
        match error {
            ForecastError::UnknownModel(_) => Self::UnknownModel,
            ForecastError::UnknownVersion { .. } => Self::UnknownVersion,
            ForecastError::NotReady(_) => Self::NotReady,
            ForecastError::Window(error) => Self::Window(error),
            ForecastError::TooManyRows { max, .. } => Self::TooManyRows { max },
            ForecastError::Overloaded { retry_after_ms } => Self::Overloaded { retry_after_ms },
            ForecastError::DeadlineExceeded => Self::DeadlineExceeded,
            ForecastError::Unavailable { reason } => Self::Unavailable(reason),
            ForecastError::NotFinite { row } => Self::NotFinite { row },
        }
    }
}

impl RemoteAnswer {
    /// What is wrong with it as the answer to `request`; peers are not believed.
    pub(crate) fn misfit(&self, request: &RemoteForecast) -> Option<&'static str> {
        if self.spec.name != request.model {
            Some("it answered for another model")
        } else if request.version.is_some_and(|version| version != self.version) {
            Some("it answered with another version")
        } else if self.rows != request.rows() {
            Some("it answered another number of windows")
        } else if Some(self.values.len()) != self.rows.checked_mul(self.spec.answer_len()) {
            Some("its numbers do not fit its shapes")
        } else if !self.values.iter().all(|value| value.is_finite()) {
            Some("its numbers are not finite")
        } else {
            None
        }
    }
}
