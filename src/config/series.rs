//! `[series]`: as written, and as used.

use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_actors::series::Pattern;
use schemars::JsonSchema;
use serde::Deserialize;

use super::checker::{Checker, DAY};
use super::layers::key_of;
use super::units::WrittenDuration;

/// The windows of observations that ticks feed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct SeriesFile {
    /// Observations kept of each series: its longest window, and what can be replayed.
    pub(super) history: Option<usize>,
    /// Series of one of the 64 shards.
    pub(super) per_shard_max: Option<usize>,
    /// How far ahead of the node's clock a tick may be dated; what is later is refused, for nothing newer would come after it.
    pub(super) ahead_max: Option<WrittenDuration>,
    /// Predictions that a subscriber can go back.
    pub(super) replay_max: Option<usize>,
    /// Windows of one model that may wait to be forecast; one more, and its stream skips to its newest.
    pub(super) queue_max: Option<usize>,
    /// Which nodes of a cluster hold series.
    pub(super) nodes: Option<HoldersChoice>,
    /// Slot of the time grid, by pattern of names; slots without an observation are then missing values.
    pub(super) steps: Option<BTreeMap<String, WrittenDuration>>,
    /// Patterns of series, by model, that are forecast and scored though nobody subscribed.
    pub(super) always: Option<BTreeMap<String, Vec<String>>>,
}

/// Which nodes of a cluster hold series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldersChoice {
    /// Those that compute
    Inference,
    /// All of them
    All,
}

/// The windows of observations that ticks feed.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesConfig {
    /// Observations kept of each series.
    pub history: usize,
    /// Series of one shard.
    pub per_shard_max: usize,
    /// How far ahead of the node's clock a tick may be dated.
    pub ahead_max: Duration,
    /// Predictions that a subscriber can go back.
    pub replay_max: usize,
    /// Windows of one model that may wait.
    pub queue_max: usize,
    /// Which nodes of a cluster hold series.
    pub nodes: HoldersChoice,
    /// Slot of the time grid, by pattern; the longest pattern first.
    pub steps: Vec<(Pattern, Duration)>,
    /// Model and pattern of what is forecast though nobody subscribed.
    pub always: Vec<(String, Pattern)>,
}

impl Checker<'_> {
    pub(super) fn series(&mut self, written: SeriesFile) -> Option<SeriesConfig> {
        let history = self.within("series.history", written.history, 2..=1_000_000);
        let per_shard_max = self.within("series.per_shard_max", written.per_shard_max, 1..=65_536);
        let ahead_max = self.time("series.ahead_max", written.ahead_max, Duration::ZERO..=DAY * 36_600);
        let replay_max = self.within("series.replay_max", written.replay_max, 1..=100_000);
        let queue_max = self.within("series.queue_max", written.queue_max, 1..=1_000_000);
        let nodes = self.present("series.nodes", written.nodes);
        let mut steps = Vec::new();
        for (pattern, step) in written.steps.unwrap_or_default() {
            let key = key_of(&["series", "steps", &pattern]);
            let step = self.time(&key, Some(step), Duration::from_nanos(2)..=DAY * 366);
            steps.extend(self.named(Pattern::new(&pattern), &key).zip(step));
        }
        steps.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.as_str().len()));
        let mut always = Vec::new();
        for (model, patterns) in written.always.unwrap_or_default() {
            for pattern in patterns {
                let pattern = self.named(Pattern::new(&pattern), &key_of(&["series", "always", &model]));
                always.extend(pattern.map(|pattern| (model.clone(), pattern)));
            }
        }
        Some(SeriesConfig {
            history: history?,
            per_shard_max: per_shard_max?,
            ahead_max: ahead_max?,
            replay_max: replay_max?,
            queue_max: queue_max?,
            nodes: nodes?,
            steps,
            always,
        })
    }
}
