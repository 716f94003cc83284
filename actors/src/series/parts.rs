//! What the series of a node are made of.

use std::sync::Arc;
use std::time::Duration;

use peregrine_runtime::Clock;
use tokio::runtime::Handle;

use super::copies::Copies;
use super::journal::Journal;
use super::{Pattern, SeriesName, ShardLimits};
use crate::stream::StreamEvent;
use crate::system::System;

/// Everything that can be chosen about the series of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSettings {
    /// Shards that series are cut into; the same on all nodes, for ever.
    pub shards: u16,
    /// Of each shard.
    pub limits: ShardLimits,
    /// How far ahead of this node's clock a tick may be dated.
    pub ahead_max: Duration,
    /// Predictions that one replay makes at most; older ones are gone.
    pub replay_max: usize,
    /// Windows of one model that wait to be forecast. One more, and its stream skips to its newest.
    pub queue_max: usize,
    /// Windows of one batch.
    pub rows_max: usize,
    /// Longest that a prediction is tried for.
    pub predict_within: Duration,
    /// Longest that a new owner waits for the copies of nodes that are there and do not answer.
    pub recover_max: Duration,
    /// Predictions that are made and scored though nobody subscribed.
    pub always: Vec<(Arc<str>, Pattern)>,
}

/// Where predictions go.
pub trait Outlet: Send + Sync + 'static {
    /// Hands an event to the hubs of these nodes, in order for each stream. Must not block. Comes with no nodes for what
    /// is only scored.
    fn deliver(&self, nodes: &[Arc<str>], event: StreamEvent);

    /// A place of a series has this value. A late one has a place only where time is a grid.
    fn observed(&self, series: &SeriesName, position: u64, value: f32);
}

/// What the room is made of.
pub struct SeriesParts {
    /// What can be chosen.
    pub settings: SeriesSettings,
    /// Who forecasts.
    pub system: System,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The disk, if there is one.
    pub journal: Option<Arc<dyn Journal>>,
    /// The other nodes.
    pub copies: Arc<dyn Copies>,
    /// Where predictions go.
    pub outlet: Arc<dyn Outlet>,
    /// Where predictions and recoveries run.
    pub runtime: Handle,
}
