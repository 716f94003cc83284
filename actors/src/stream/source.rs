//! What subscribers ask of the series, wherever those are.

use std::sync::Arc;

use async_trait::async_trait;
use peregrine_runtime::Deadline;

use super::prediction::{Prediction, StreamEvent, StreamId};
use crate::series::{Effect, Listing, Pattern, SeriesLog, SeriesName, Tick, TickError};

/// The series of this node and of all others.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Feeds ticks; one answer for each, in order. A tick that is answered `Ok` is not lost by the death of one node.
    async fn ticks(&self, ticks: Vec<Tick>, deadline: Deadline) -> Vec<Result<Effect, TickError>>;

    /// Says which predictions are wanted here, all of them; what was wanted before and is not named is wanted no
    /// more. They then come to the hub of this node, in the order of their sequence numbers for each stream, missing
    /// ones as gaps.
    fn wanted(&self, wanted: Vec<(Arc<str>, Pattern)>);

    /// What a stream carried from a sequence number on, up to now: oldest first, each number once as a prediction or
    /// within a gap. What comes to the hub afterwards may repeat its end, and leaves nothing out. Where the numbers have
    /// not come so far, because their owner began them again, a gap says so that ends before the newest, which follows.
    async fn replay(
        &self,
        stream: &StreamId,
        from: u64,
        deadline: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError>;

    /// The newest prediction of each series that a pattern means.
    async fn newest(
        &self,
        model: &str,
        pattern: &Pattern,
        deadline: Deadline,
    ) -> Result<Vec<Arc<Prediction>>, SourceError>;

    /// All that is kept of a series, by its owner.
    async fn log(&self, series: &SeriesName, deadline: Deadline) -> Result<SeriesLog, SourceError>;

    /// The series that a pattern means, the first `count_max` of them after a name.
    async fn list(
        &self,
        pattern: &Pattern,
        after: Option<&SeriesName>,
        count_max: usize,
        deadline: Deadline,
    ) -> Listing;
}

/// The series cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The caller named a model that nobody serves. 404.
    #[error("unknown model `{0}`")]
    UnknownModel(String),
    /// The caller named a series that nobody has. 404.
    #[error("unknown series `{0}`")]
    UnknownSeries(String),
    /// The model cannot forecast single series from ticks; the caller acts. 422.
    #[error("{0}")]
    Unsuitable(String),
    /// Come back later. 503.
    #[error("unavailable: {0}")]
    Unavailable(String),
}
