//! The live series of a node that is alone: ticks come in, predictions go out.
//!
//! In a cluster, `crate::cluster` takes the place of [`Local`].

mod audience;
mod local;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, UNIX_EPOCH};

use peregrine_actors::System;
use peregrine_actors::series::{Alone, Journal, Series, SeriesParts, SeriesSettings, ShardLimits};
use peregrine_actors::stream::Source;
use peregrine_runtime::Clock;
use tokio::runtime::{Handle, Runtime};

pub(crate) use self::audience::Audience;
use self::local::{Local, LocalOutlet};
use crate::busy::{self, Looked};
use crate::cluster::Joined;
use crate::cluster::series::{Live, Parts, SeriesError};
use crate::config::Config;
use crate::reload::Current;

/// Shards of the series; fixed for the life of a cluster and of what it keeps on disk.
pub(crate) const SHARDS: u16 = 64;
/// Series of one page of a listing.
pub(crate) const LISTED_MAX: usize = 1000;
/// Longest that a prediction is tried for.
const PREDICT_WITHIN: Duration = Duration::from_secs(2);
/// Longest that a new owner of a shard waits for nodes that are there and do not answer.
const RECOVER_MAX: Duration = Duration::from_secs(3);

/// The live series as the rest of the node holds them.
pub(crate) struct Started {
    /// What this node holds.
    pub(crate) series: Series,
    /// The series of all nodes.
    pub(crate) source: Arc<dyn Source>,
    /// Events for other nodes that were lost on the way.
    pub(crate) lost: Arc<AtomicU64>,
    /// What threads have spent on looking for work before they slept.
    pub(crate) looked: Arc<Looked>,
    /// Dropped last.
    _thread: Thread,
}

/// Starts the series of a node, alone or in its cluster.
///
/// # Errors
/// See [`SeriesError`].
pub(crate) fn start(
    system: &System,
    clock: &Arc<dyn Clock>,
    current: &Current,
    joined: Option<&mut Joined>,
    journal: Option<Arc<dyn Journal>>,
    audience: Audience,
) -> Result<Started, SeriesError> {
    let thread = Thread::start()?;
    let (system, clock, config) = (system.clone(), Arc::clone(clock), current.get());
    let (settings, looked) = (settings(&config), Arc::<Looked>::default());
    let busy_poll = config.server.busy_poll;
    if !busy_poll.is_zero() {
        let look = busy::look(busy_poll, Arc::clone(&looked), Arc::clone(&clock));
        drop(thread.handle.spawn(look)); // it ends with its thread
    }
    let Some(joined) = joined else {
        let series = Series::start(SeriesParts {
            settings,
            system,
            clock: Arc::clone(&clock),
            journal,
            copies: Arc::new(Alone),
            outlet: Arc::new(LocalOutlet(audience)),
            runtime: thread.handle.clone(),
        })?;
        let since = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let source =
            Arc::new(Local::own(series.clone(), u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        return Ok(Started { series, source, lost: Arc::default(), looked, _thread: thread });
    };
    let live = Live::start(Parts {
        cluster: joined.cluster.clone(),
        system,
        clock,
        current: current.clone(),
        settings,
        journal,
        audience,
        forecasts: thread.handle.clone(),
        runtime: joined.runtime(),
    })?;
    let (series, source, lost) = (live.series.clone(), Arc::clone(&live.source), Arc::clone(&live.lost));
    joined.live = Some(live);
    Ok(Started { series, source, lost, looked, _thread: thread })
}

/// What the actors are told.
fn settings(config: &Config) -> SeriesSettings {
    let series = &config.series;
    let nanos = |step: &Duration| i64::try_from(step.as_nanos()).unwrap_or(i64::MAX);
    SeriesSettings {
        shards: SHARDS,
        limits: ShardLimits {
            history: series.history,
            series_max: series.per_shard_max,
            steps: series.steps.iter().map(|(pattern, step)| (pattern.clone(), nanos(step))).collect(),
        },
        ahead_max: series.ahead_max,
        replay_max: series.replay_max,
        queue_max: series.queue_max,
        rows_max: config.batching.rows_max.min(config.batching.request_rows_max),
        predict_within: PREDICT_WITHIN,
        recover_max: RECOVER_MAX,
        always: series
            .always
            .iter()
            .map(|(model, pattern)| (model.as_str().into(), pattern.clone()))
            .collect(),
    }
}

/// The thread that has windows forecast. A runtime waits for its threads when it is dropped, which a task may not do:
/// this one does not.
struct Thread {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let mut thread = tokio::runtime::Builder::new_multi_thread();
        let runtime = thread.worker_threads(1).thread_name("series").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
