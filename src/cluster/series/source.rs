//! The series of all nodes, as the gateway of one sees them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use peregrine_actors::series::{
    Effect, Listing, Pattern, Series, SeriesEntry, SeriesLog, SeriesName, Tick, TickError, page,
};
use peregrine_actors::stream::{Prediction, Source, SourceError, StreamEvent, StreamId};
use peregrine_actors::{Done, SpanKind, System, Trace};
use peregrine_runtime::shard::ShardRegion;
use peregrine_runtime::{AskError, Clock, Cluster, Deadline, NodeId, Refusal};
use tokio::sync::watch;

use super::desk::{Unread, read_events};
use super::quorum::Quorum;
use super::wire::{AskBulk, NodeAnswer, NodeAsk, ShardAnswer, ShardAsk, heard};
use super::{SERVICE, Wanted};
use crate::series::LISTED_MAX;

/// Ticks of one message, and about how many bytes they may take.
const CHUNK_TICKS_MAX: usize = 256;
const CHUNK_BYTES_MAX: usize = 24 << 10;
/// A larger tick fits no message.
const TICK_BYTES_MAX: usize = 24 << 10;
/// Between two tries to reach an owner.
const PATIENCE: Duration = Duration::from_millis(50);
/// What an owner accepted and did not answer in this time is sent again: it is longer than the cluster takes to notice
/// that a node died, and a tick may come twice.
const TRY: Duration = Duration::from_millis(1500);

pub(super) struct ClusterSource {
    pub(super) cluster: Cluster,
    pub(super) series: Series,
    pub(super) system: System,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) region: ShardRegion<ShardAsk>,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) quorum: Quorum,
    /// What two nodes that accept each other's credentials have.
    pub(super) agreement: &'static str,
}

#[async_trait]
impl Source for ClusterSource {
    async fn ticks(&self, ticks: Vec<Tick>, deadline: Deadline) -> Vec<Result<Effect, TickError>> {
        let mut effects = vec![Err(TickError::Unavailable("not answered".to_owned())); ticks.len()];
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut open: BTreeMap<u16, usize> = BTreeMap::new();
        for (place, tick) in ticks.into_iter().enumerate() {
            let bytes = bytes_of(&tick);
            if bytes > TICK_BYTES_MAX {
                effects[place] = Err(TickError::Invalid("the tick is too large".to_owned()));
                continue;
            }
            let shard = self.series.shard_of(&tick.series);
            let fits = |at: &&usize| {
                let chunk: &Chunk = &chunks[**at];
                chunk.places.len() < CHUNK_TICKS_MAX && chunk.bytes + bytes <= CHUNK_BYTES_MAX
            };
            let at = open.get(&shard).filter(fits).copied().unwrap_or_else(|| {
                let (places, ticks) = (Vec::new(), Vec::new());
                chunks.push(Chunk { key: tick.series.clone(), places, ticks, bytes: 0 });
                chunks.len() - 1
            });
            open.insert(shard, at);
            chunks[at].places.push(place);
            chunks[at].bytes += bytes;
            chunks[at].ticks.push(tick);
        }
        // Those of one shard are sent in order, since asks are sent when they are first polled.
        let sent = chunks.into_iter().map(|chunk| self.send(chunk, deadline));
        for (places, answers) in join_all(sent).await {
            places.into_iter().zip(answers).for_each(|(place, effect)| effects[place] = effect);
        }
        effects
    }

    fn wanted(&self, wanted: Vec<(Arc<str>, Pattern)>) {
        // Who wants to know what there is already asks for it, of all nodes.
        self.series.want(self.cluster.id().as_str(), wanted.clone());
        self.wanted.send_replace(Arc::new(wanted));
    }

    async fn replay(
        &self,
        stream: &StreamId,
        from: u64,
        deadline: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        self.until_owned(deadline, || self.try_replay(stream, from, deadline)).await
    }

    async fn newest(
        &self,
        model: &str,
        pattern: &Pattern,
        deadline: Deadline,
    ) -> Result<Vec<Arc<Prediction>>, SourceError> {
        let others: Vec<NodeId> =
            self.cluster.view().members.keys().filter(|id| *id != self.cluster.id()).cloned().collect();
        let question = || NodeAsk::Newest { model: model.to_owned(), pattern: pattern.as_str().to_owned() };
        let asked = others.iter().map(|node| self.ask(node, question(), deadline));
        let (own, far) = tokio::join!(self.series.newest(model, pattern, deadline), join_all(asked));
        let mut all: BTreeMap<SeriesName, Arc<Prediction>> = BTreeMap::new();
        let far = far.into_iter().flat_map(|events| match events {
            Ok(events) => events,
            // It knows of no such model, holds nothing, or has just died: what it had is had from its successor.
            Err(_) => Vec::new(),
        });
        let far = far.filter_map(|event| match event {
            StreamEvent::Prediction(prediction) => Some(prediction),
            StreamEvent::Gap(_) => None,
        });
        for prediction in own?.into_iter().chain(far) {
            let known = all.get(&prediction.stream.series);
            if known.is_none_or(|known| (known.epoch, known.seq) < (prediction.epoch, prediction.seq)) {
                all.insert(prediction.stream.series.clone(), prediction);
            }
        }
        Ok(all.into_values().collect())
    }

    async fn log(&self, series: &SeriesName, deadline: Deadline) -> Result<SeriesLog, SourceError> {
        // A subscriber's past is waited for all the same: what cannot be had would be told as lost.
        if let Some(why) = self.no_quorum() {
            return Err(SourceError::Unavailable(format!("no quorum: {why}")));
        }
        self.until_owned(deadline, || self.try_log(series, deadline)).await
    }

    async fn list(
        &self,
        pattern: &Pattern,
        after: Option<&SeriesName>,
        count_max: usize,
        deadline: Deadline,
    ) -> Listing {
        let count_max = count_max.min(LISTED_MAX);
        let question = || NodeAsk::List {
            pattern: pattern.as_str().to_owned(),
            after: after.map(|after| after.as_str().to_owned()),
            count_max: count_max as u32,
        };
        let view = self.cluster.view();
        let others: Vec<&NodeId> = view.members.keys().filter(|id| *id != self.cluster.id()).collect();
        let asked = others.iter().map(|node| self.try_list(node, question(), self.soon(deadline)));
        let mut listing = self.series.list(pattern, after, count_max);
        for (node, answer) in others.iter().zip(join_all(asked).await) {
            match answer {
                Some((entries, shards)) => {
                    listing.series.extend(entries);
                    listing.shards += usize::from(shards);
                }
                None => listing.silent.push(node.as_str().to_owned()),
            }
        }
        page(&mut listing.series, count_max);
        listing
    }
}

/// Ticks of one shard, and where their answers go.
struct Chunk {
    key: SeriesName,
    places: Vec<usize>,
    ticks: Vec<Tick>,
    bytes: usize,
}

impl ClusterSource {
    /// Sends until somebody answers, for as long as the caller waits and somebody could.
    async fn send(&self, chunk: Chunk, deadline: Deadline) -> (Vec<usize>, Vec<Result<Effect, TickError>>) {
        let Chunk { key, places, ticks, .. } = chunk;
        let count = places.len();
        let trace = ticks.iter().map(|tick| &tick.trace).find(|trace| trace.is_recorded());
        let mut trace = trace.cloned().unwrap_or_default();
        let mut tells_state = true;
        loop {
            if let Some(why) = self.no_quorum() {
                return (places, vec![Err(TickError::NoQuorum(why)); count]);
            }
            let wire = ticks.iter().cloned().map(Into::into).collect();
            let (span, began) = (trace.child(), self.clock.now());
            let parent = span.parent();
            let ids =
                parent.as_ref().map(|parent| (parent.context.trace.bytes(), parent.context.span.bytes()));
            let state = parent.and_then(|parent| parent.state).filter(|_| tells_state);
            let states = state.is_some();
            let question = match (ids, state) {
                (None, _) => ShardAsk::Ticks(wire),
                (Some((trace, span)), None) => ShardAsk::Traced(wire, trace, span),
                (Some((trace, span)), Some(state)) => {
                    ShardAsk::Stated(wire, trace, span, state.as_str().to_owned())
                }
            };
            let asked = self.region.ask(key.as_str().as_bytes(), question, self.soon(deadline)).await;
            span.end(|| {
                let done = Done::new("remote ask", began, self.clock.now()).of_kind(SpanKind::Client);
                let done = done.with("rpc.system.name", "peregrine").with("rpc.method", "series.shard");
                let why = asked.as_ref().err().map(|failed| ("ask", failed.to_string()));
                done.with("peregrine.ticks", count).failed(why)
            });
            if matches!(asked, Err(AskError::Refused(Refusal::Malformed))) && trace.is_recorded() {
                // An owner of an earlier version: its part of the trace is lost, or what goes along; its ticks are not.
                if !std::mem::take(&mut tells_state) || !states {
                    trace = Trace::default();
                }
                continue;
            }
            let failed = match asked {
                Ok(ShardAnswer::Effects(effects)) if effects.len() == count => {
                    return (places, effects.into_iter().map(Into::into).collect());
                }
                Ok(ShardAnswer::NotReady) => {
                    TickError::Unavailable("the series is being taken over".to_owned())
                }
                Ok(_) => TickError::Unavailable("the owner's answer makes no sense".to_owned()),
                Err(AskError::Full) => TickError::Overloaded { retry_after_ms: 20 },
                Err(failed) => TickError::Unavailable(self.why(failed)),
            };
            let is_over = deadline.expired(self.clock.now() + PATIENCE);
            if is_over || matches!(failed, TickError::Overloaded { .. }) {
                return (places, vec![Err(failed); count]);
            }
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// Why nobody can own anything now.
    fn no_quorum(&self) -> Option<String> {
        Some(self.why(self.quorum.lack(&self.cluster.view(), self.clock.now())?))
    }

    /// Why nobody answers: the deadline is seldom it where nodes do not let each other in.
    fn why(&self, failed: impl Display) -> String {
        match self.cluster.estranged() {
            Some(addr) => format!(
                "{failed}; the node at {addr} and this one refuse each other: {}, `node.name` must not be",
                self.agreement
            ),
            None => failed.to_string(),
        }
    }

    /// For one try.
    fn soon(&self, deadline: Deadline) -> Deadline {
        deadline.min(Deadline::after(self.clock.now(), TRY))
    }

    /// Tries again while a series has no owner that is ready.
    async fn until_owned<T, F>(
        &self,
        deadline: Deadline,
        tried: impl Fn() -> F + Send,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>> + Send,
    {
        loop {
            match tried().await {
                Err(SourceError::Unavailable(_)) if !deadline.expired(self.clock.now() + PATIENCE) => {
                    tokio::time::sleep(PATIENCE).await;
                }
                ended => return ended,
            }
        }
    }

    async fn owner(&self, series: &SeriesName, deadline: Deadline) -> Result<NodeId, SourceError> {
        let odd = || SourceError::Unavailable("the owner's answer makes no sense".to_owned());
        match self.region.ask(series.as_str().as_bytes(), ShardAsk::Where, self.soon(deadline)).await {
            Ok(ShardAnswer::Here(owner)) => NodeId::new(&owner).map_err(|_| odd()),
            Ok(ShardAnswer::NotReady) => {
                Err(SourceError::Unavailable("the series is being taken over".to_owned()))
            }
            Ok(_) => Err(odd()),
            Err(failed) => Err(SourceError::Unavailable(self.why(failed))),
        }
    }

    async fn try_log(&self, series: &SeriesName, deadline: Deadline) -> Result<SeriesLog, SourceError> {
        let owner = self.owner(series, deadline).await?;
        if owner == *self.cluster.id() {
            return self.series.log(series);
        }
        let gone = || SourceError::Unavailable("the owner has left".to_owned());
        let address = self.cluster.address::<AskBulk>(&owner, SERVICE).ok_or_else(gone)?;
        let question = NodeAsk::Log { series: series.as_str().to_owned() };
        match address.ask(AskBulk(question), deadline).await {
            Ok(NodeAnswer::Logs(logs)) => {
                let log = heard(logs).ok().and_then(|mut logs| logs.pop());
                log.ok_or_else(|| SourceError::Unavailable("the owner's answer makes no sense".to_owned()))
            }
            Ok(NodeAnswer::Refused(why)) => Err(why.into()),
            Ok(_) => Err(gone()),
            Err(failed) => Err(SourceError::Unavailable(self.why(failed))),
        }
    }

    /// `None`: it does not answer, or is of a version that cannot.
    async fn try_list(
        &self,
        node: &NodeId,
        question: NodeAsk,
        deadline: Deadline,
    ) -> Option<(Vec<SeriesEntry>, u16)> {
        let address = self.cluster.address::<AskBulk>(node, SERVICE)?;
        match address.ask(AskBulk(question), deadline).await {
            Ok(NodeAnswer::Listed(entries, shards)) => {
                let read: Result<_, _> = entries.into_iter().map(SeriesEntry::try_from).collect();
                Some((read.ok()?, shards))
            }
            _ => None,
        }
    }

    async fn try_replay(
        &self,
        stream: &StreamId,
        from: u64,
        deadline: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        let owner = self.owner(&stream.series, deadline).await?;
        if owner == *self.cluster.id() {
            return self.series.replay(stream, from, deadline).await;
        }
        // It must know that its later predictions are wanted before it says what there was.
        let wanted = self
            .wanted
            .borrow()
            .iter()
            .map(|(model, of)| (model.to_string(), of.as_str().to_owned()))
            .collect();
        let me = self.cluster.id().as_str().to_owned();
        self.ask(&owner, NodeAsk::Want { node: me, wanted }, deadline).await?;
        let model = stream.model.to_string();
        let question = NodeAsk::Replay { model, series: stream.series.as_str().to_owned(), from };
        self.ask(&owner, question, deadline).await
    }

    async fn ask(
        &self,
        node: &NodeId,
        question: NodeAsk,
        deadline: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        let gone = || SourceError::Unavailable("it has left".to_owned());
        let address = self.cluster.address::<AskBulk>(node, SERVICE).ok_or_else(gone)?;
        match address.ask(AskBulk(question), deadline).await {
            Ok(NodeAnswer::Events(events)) => {
                let read = read_events(&self.system, events, deadline).await;
                read.map_err(|failed| match failed {
                    Unread::Impossible => SourceError::Unavailable("its answer makes no sense".to_owned()),
                    Unread::NotNow => SourceError::Unavailable("a model cannot be looked up".to_owned()),
                })
            }
            Ok(NodeAnswer::Done) => Ok(Vec::new()),
            Ok(NodeAnswer::Refused(why)) => Err(why.into()),
            Ok(_) => Err(SourceError::Unavailable("its answer makes no sense".to_owned())),
            Err(failed) => Err(SourceError::Unavailable(self.why(failed))),
        }
    }
}

/// About how many bytes a tick takes in a message, at most.
fn bytes_of(tick: &Tick) -> usize {
    let named = |columns: &[(String, f32)]| columns.iter().map(|(name, _)| name.len() + 13).sum::<usize>();
    let ahead: usize = tick.futr_exog.iter().map(|(name, ahead)| name.len() + 18 + 4 * ahead.len()).sum();
    64 + tick.series.as_str().len() + named(&tick.hist_exog) + named(&tick.stat_exog) + ahead
}
