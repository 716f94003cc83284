//! Answers other nodes about series: as the owner of shards, as the keeper of copies, as the hub of subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use peregrine_actors::series::{CopyError, Pattern, Series, SeriesName, Taken, Tick};
use peregrine_actors::stream::{SourceError, StreamEvent};
use peregrine_actors::{Done, ForecastError, SpanKind, System, TraceParent};
use peregrine_runtime::shard::{ShardHandler, ShardId, ShardJob};
use peregrine_runtime::{
    Deadline, Failure, Inbox, RemoteMessage, SpanId, TraceContext, TraceId, TraceState, Worker,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::wire::{
    Ask, AskBulk, Impossible, NodeAnswer, NodeAsk, ShardAnswer, ShardAsk, WireEvent, WireTick, gap, heard,
    name, names, said, stream, wanted,
};
use crate::series::{Audience, LISTED_MAX};

/// For what came without a deadline, which nothing does.
const UNBOUNDED: Duration = Duration::from_secs(10);

/// As the owner of shards.
pub(super) struct Owner {
    pub(super) series: Series,
    pub(super) system: System,
    /// Name of this node.
    pub(super) me: String,
}

/// Of a span on another node. A `tracestate` that is none, or none at all, is passed on to nobody.
pub(super) fn parent(trace: [u8; 16], span: [u8; 8], state: &str) -> Option<TraceParent> {
    let context = TraceContext { trace: TraceId::new(trace)?, span: SpanId::new(span)?, sampled: true };
    Some(TraceParent { context, state: TraceState::parse([state.as_bytes()]) })
}

#[async_trait]
impl ShardHandler<ShardAsk> for Owner {
    async fn handle(&self, job: ShardJob<ShardAsk>) -> Result<ShardAnswer, Failure> {
        let deadline = job.deadline.unwrap_or_else(|| Deadline::after(Instant::now(), UNBOUNDED));
        let (ticks, caller) = match job.message {
            // Who is asked next must have what was there before it.
            ShardAsk::Where => match self.series.owns(job.shard.0, job.epoch, deadline).await {
                Ok(()) => return Ok(ShardAnswer::Here(self.me.clone())),
                Err(_) => return Ok(ShardAnswer::NotReady),
            },
            ShardAsk::Ticks(ticks) => (ticks, None),
            ShardAsk::Traced(ticks, trace, span) => (ticks, parent(trace, span, "")),
            ShardAsk::Stated(ticks, trace, span, state) => (ticks, parent(trace, span, &state)),
        };
        let trace = caller.map(|caller| self.system.follow(caller)).unwrap_or_default();
        let began = trace.is_recorded().then(Instant::now);
        let ticks: Result<Vec<Tick>, Impossible> = ticks.into_iter().map(WireTick::try_into).collect();
        let mut ticks = ticks.map_err(|_| "a tick makes no sense")?;
        if trace.is_recorded() {
            ticks.iter_mut().for_each(|tick| tick.trace = trace.clone());
        }
        let count = ticks.len();
        if ticks.iter().any(|tick| self.series.shard_of(&tick.series) != job.shard.0) {
            return Err("a tick is of another shard".into());
        }
        let fed = self.series.feed(job.shard.0, job.epoch, ticks, deadline).await;
        if let Some(began) = began {
            trace.end(|| {
                let done = Done::new("series.shard", began, Instant::now()).of_kind(SpanKind::Server);
                let done = done.with("rpc.system.name", "peregrine").with("rpc.method", "series.shard");
                let why = fed.as_ref().err().map(|failed| ("not_ready", failed.to_string()));
                done.with("peregrine.ticks", count).failed(why)
            });
        }
        Ok(match fed {
            Ok(effects) => ShardAnswer::Effects(effects.into_iter().map(Into::into).collect()),
            Err(_) => ShardAnswer::NotReady,
        })
    }

    fn gained(&self, shard: ShardId, epoch: u64) {
        self.series.gained(shard.0, epoch);
    }

    fn ended(&self, shard: ShardId) {
        self.series.ended(shard.0);
    }
}

/// As everything else. Each question runs as a task of the cluster's runtime.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) series: Series,
    pub(super) system: System,
    pub(super) audience: Audience,
    pub(super) runtime: Handle,
    /// As many questions as may be inside.
    pub(super) seats: Arc<Semaphore>,
}

impl Worker<Ask> for Desk {
    fn run(&mut self, inbox: &mut Inbox<Ask>) -> Result<(), Failure> {
        self.answer_all(inbox, |ask| ask.0)
    }
}

impl Worker<AskBulk> for Desk {
    fn run(&mut self, inbox: &mut Inbox<AskBulk>) -> Result<(), Failure> {
        self.answer_all(inbox, |ask| ask.0)
    }
}

impl Desk {
    fn answer_all<M>(&self, inbox: &mut Inbox<M>, question: impl Fn(M) -> NodeAsk) -> Result<(), Failure>
    where
        M: RemoteMessage + actix::Message<Result = NodeAnswer>,
    {
        while let Some(envelope) = inbox.recv() {
            let mut slot = envelope.slot;
            let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
                slot.send(not_now("too many questions"));
                continue;
            };
            let deadline = envelope.deadline.unwrap_or_else(|| Deadline::after(Instant::now(), UNBOUNDED));
            let (desk, question) = (self.clone(), question(envelope.message));
            self.runtime.spawn(async move {
                let _seat = seat;
                let answer = tokio::select! {
                    answer = desk.answer(question, deadline) => answer,
                    () = slot.abandoned() => return,
                };
                slot.send(answer.unwrap_or_else(|_| NodeAnswer::Failed("it makes no sense".to_owned())));
            });
        }
        Ok(())
    }

    async fn answer(&self, question: NodeAsk, deadline: Deadline) -> Result<NodeAnswer, Impossible> {
        Ok(match question {
            NodeAsk::Replicate { shard, epoch, logs } => {
                let text = |(series, taken): (SeriesName, Taken)| match taken {
                    Taken::UpTo(seq) => (series.as_str().to_owned(), Some(seq)),
                    Taken::Apart => (series.as_str().to_owned(), None),
                };
                match self.series.replicate(shard, epoch, heard(logs)?).await {
                    Ok(taken) => NodeAnswer::Taken(taken.into_iter().map(text).collect()),
                    Err(failed) => refusal(failed),
                }
            }
            NodeAsk::Ends { shard, epoch } => match self.series.ends(shard, epoch) {
                Ok(ends) => NodeAnswer::Ends(
                    ends.into_iter()
                        .map(|end| (end.series.as_str().to_owned(), end.seq, end.epoch))
                        .collect(),
                ),
                Err(failed) => refusal(failed),
            },
            NodeAsk::Fetch { shard, series } => match self.series.fetch(shard, &names(&series)?) {
                Ok(logs) => NodeAnswer::Logs(said(logs)),
                Err(failed) => refusal(failed),
            },
            NodeAsk::Log { series } => match self.series.log(&name(&series)?) {
                Ok(log) => NodeAnswer::Logs(said(vec![log])),
                Err(failed) => NodeAnswer::Refused(failed.into()),
            },
            NodeAsk::List { pattern, after, count_max } => {
                let pattern = Pattern::new(&pattern).map_err(|_| Impossible)?;
                let after = after.as_deref().map(name).transpose()?;
                let listed = self.series.list(&pattern, after.as_ref(), LISTED_MAX.min(count_max as usize));
                NodeAnswer::Listed(listed.series.into_iter().map(Into::into).collect(), listed.shards as u16)
            }
            NodeAsk::Want { node, wanted: pairs } => {
                let new = self.series.want(&node, wanted(&pairs)?);
                self.series.catch_up(&new);
                NodeAnswer::Done
            }
            NodeAsk::Deliver(events) => match read_events(&self.system, events, deadline).await {
                Ok(events) => {
                    events.into_iter().for_each(|event| self.audience.publish(event));
                    NodeAnswer::Done
                }
                Err(Unread::NotNow) => not_now("a model cannot be looked up"),
                Err(Unread::Impossible) => return Err(Impossible),
            },
            NodeAsk::Replay { model, series, from } => {
                events(self.series.replay(&stream(&model, &series)?, from, deadline).await)
            }
            NodeAsk::Newest { model, pattern } => {
                let pattern = Pattern::new(&pattern).map_err(|_| Impossible)?;
                let newest = self.series.newest(&model, &pattern, deadline).await;
                events(newest.map(|all| all.into_iter().map(StreamEvent::Prediction).collect()))
            }
        })
    }
}

/// Why the events of another node cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// They make no sense here, or are of a model that nobody knows.
    Impossible,
    /// Their model could not be looked up; it may be later.
    NotNow,
}

impl From<Impossible> for Unread {
    fn from(_: Impossible) -> Self {
        Self::Impossible
    }
}

/// Events of another node, with the shapes of their models.
pub(super) async fn read_events(
    system: &System,
    events: Vec<WireEvent>,
    deadline: Deadline,
) -> Result<Vec<StreamEvent>, Unread> {
    let mut all = Vec::with_capacity(events.len());
    for event in events {
        all.push(match event {
            WireEvent::Gap { model, series, from, to, reason } => {
                StreamEvent::Gap(gap(&model, &series, from, to, reason)?)
            }
            WireEvent::Prediction(prediction) => {
                let version = Some(prediction.version);
                let found = system.locate(&prediction.model, version, deadline).await;
                let spec = match found {
                    Ok(found) => Arc::clone(&found.spec),
                    Err(ForecastError::UnknownModel(_) | ForecastError::UnknownVersion { .. }) => {
                        return Err(Unread::Impossible);
                    }
                    Err(_) => return Err(Unread::NotNow),
                };
                StreamEvent::Prediction(Arc::new(prediction.with(spec)?))
            }
        });
    }
    Ok(all)
}

fn events(events: Result<Vec<StreamEvent>, SourceError>) -> NodeAnswer {
    match events {
        Ok(events) => NodeAnswer::Events(events.iter().map(Into::into).collect()),
        Err(failed) => NodeAnswer::Refused(failed.into()),
    }
}

/// Nothing is wrong with the question, and it was not answered.
fn not_now(why: &str) -> NodeAnswer {
    NodeAnswer::Refused(SourceError::Unavailable(why.to_owned()).into())
}

fn refusal(failed: CopyError) -> NodeAnswer {
    match failed {
        CopyError::Fenced => NodeAnswer::Fenced,
        CopyError::Unreachable(why) => NodeAnswer::Failed(why),
    }
}
