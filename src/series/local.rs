//! One node owns all series.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use peregrine_actors::series::{
    Effect, Listing, Outlet, Pattern, Series, SeriesLog, SeriesName, Tick, TickError,
};
use peregrine_actors::stream::{Prediction, Source, SourceError, StreamEvent, StreamId};
use peregrine_runtime::Deadline;

use super::{Audience, SHARDS};

/// The only node there is, to itself.
const HERE: &str = "here";

/// All series, owned here.
pub(crate) struct Local {
    series: Series,
    epoch: u64,
}

impl Local {
    /// Owns all shards from now on, under an epoch higher than in any earlier life of which something is kept: the
    /// `millis` since 1970, unless the clock was set back meanwhile.
    pub(crate) fn own(series: Series, millis: u64) -> Self {
        let epoch = millis.max(series.highest_epoch().saturating_add(1));
        (0..SHARDS).for_each(|shard| series.gained(shard, epoch));
        Self { series, epoch }
    }
}

#[async_trait]
impl Source for Local {
    async fn ticks(&self, ticks: Vec<Tick>, deadline: Deadline) -> Vec<Result<Effect, TickError>> {
        if let [tick] = &ticks[..] {
            let shard = self.series.shard_of(&tick.series);
            return match self.series.feed(shard, self.epoch, ticks, deadline).await {
                Ok(effects) => effects,
                Err(failed) => vec![Err(TickError::Unavailable(failed.to_string()))],
            };
        }
        let mut by_shard: BTreeMap<u16, (Vec<usize>, Vec<Tick>)> = BTreeMap::new();
        let count = ticks.len();
        for (at, tick) in ticks.into_iter().enumerate() {
            let (places, ticks) = by_shard.entry(self.series.shard_of(&tick.series)).or_default();
            places.push(at);
            ticks.push(tick);
        }
        let fed = by_shard.into_iter().map(|(shard, (places, ticks))| async move {
            (places, self.series.feed(shard, self.epoch, ticks, deadline).await)
        });
        let mut effects = vec![Err(TickError::Unavailable("not answered".to_owned())); count];
        for (places, fed) in join_all(fed).await {
            match fed {
                Ok(fed) => places.into_iter().zip(fed).for_each(|(at, effect)| effects[at] = effect),
                Err(failed) => places
                    .into_iter()
                    .for_each(|at| effects[at] = Err(TickError::Unavailable(failed.to_string()))),
            }
        }
        effects
    }

    fn wanted(&self, wanted: Vec<(Arc<str>, Pattern)>) {
        self.series.want(HERE, wanted); // who wants to know what there is already asks for it
    }

    async fn replay(
        &self,
        stream: &StreamId,
        from: u64,
        deadline: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        self.series.replay(stream, from, deadline).await
    }

    async fn newest(
        &self,
        model: &str,
        pattern: &Pattern,
        deadline: Deadline,
    ) -> Result<Vec<Arc<Prediction>>, SourceError> {
        self.series.newest(model, pattern, deadline).await
    }

    async fn log(&self, series: &SeriesName, _: Deadline) -> Result<SeriesLog, SourceError> {
        self.series.log(series)
    }

    async fn list(
        &self,
        pattern: &Pattern,
        after: Option<&SeriesName>,
        count_max: usize,
        _: Deadline,
    ) -> Listing {
        self.series.list(pattern, after, count_max)
    }
}

/// Everything stays here.
pub(crate) struct LocalOutlet(pub(crate) Audience);

impl Outlet for LocalOutlet {
    fn deliver(&self, nodes: &[Arc<str>], event: StreamEvent) {
        if let StreamEvent::Prediction(prediction) = &event {
            self.0.predicted(prediction);
        }
        if !nodes.is_empty() {
            self.0.publish(event);
        }
    }

    fn observed(&self, series: &SeriesName, position: u64, value: f32) {
        self.0.observed(series, position, value);
    }
}
