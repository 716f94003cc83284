//! The data that ship as a live market: replays them as ticks, so that whoever starts a node sees a stream.
//!
//! First, as fast as they are taken, as many rows as fill the windows; then at the rate that is configured. What is
//! refused for want of room is sent again later; nothing is left out. Where the windows have a tick already (a journal
//! has brought them back), it goes ahead without waiting.

mod replay;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use peregrine_actors::series::{Effect, Tick, TickError};
use peregrine_actors::stream::Source;
use peregrine_runtime::{Clock, Deadline};
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub use replay::{Replay, ReplayError};

/// Ticks that are sent at once while windows fill.
const BATCH: usize = 256;
/// How long the series may take for one batch.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Shortest time between two batches: more ticks a second are sent several at a time.
const PERIOD_MIN: Duration = Duration::from_millis(10);
/// A pause after a refusal, whatever the refusal says.
const RETRY_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(5);
/// Ticks that fell so far behind are not caught up with.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// How time passes for a replay.
#[async_trait]
pub trait Pause: Send + Sync + 'static {
    /// Waits so long.
    async fn pause(&self, time: Duration);
}

/// Time as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealPause;

#[async_trait]
impl Pause for RealPause {
    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// How fast a replay goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Rows of each series that are sent at once: the longest window of a model.
    pub history_len: usize,
    /// Ticks a second after that, all series together; above 0.
    pub rate: f64,
}

/// A running replay. Dropping it ends it.
pub struct Demo {
    task: JoinHandle<()>,
    fed: Arc<AtomicU64>,
}

impl Demo {
    /// Starts to replay, on the runtime of the caller.
    #[must_use]
    pub fn start(
        replay: Replay,
        pace: Pace,
        source: Arc<dyn Source>,
        clock: Arc<dyn Clock>,
        pause: Arc<dyn Pause>,
    ) -> Self {
        let fed = Arc::new(AtomicU64::new(0));
        let (series, rows) = (replay.series_count(), replay.row_count());
        info!(series, rows, rate = pace.rate, "demo: the data file is replayed as ticks");
        let feeder = Feeder { source, clock, pause, fed: Arc::clone(&fed) };
        Self { task: tokio::spawn(feeder.run(replay, pace)), fed }
    }

    /// Ticks that the series have.
    #[must_use]
    pub fn fed(&self) -> u64 {
        self.fed.load(Relaxed)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Feeder {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    pause: Arc<dyn Pause>,
    fed: Arc<AtomicU64>,
}

impl Feeder {
    async fn run(self, mut replay: Replay, pace: Pace) {
        let mut left = pace.history_len.saturating_mul(replay.series_count());
        while left > 0 {
            let batch = replay.ticks(left.min(BATCH), self.clock.wall().into());
            left -= batch.len();
            self.feed(batch).await;
        }
        let (batch_len, period) = batches(pace.rate);
        let mut due = self.clock.now();
        loop {
            let batch = replay.ticks(batch_len, self.clock.wall().into());
            if self.feed(batch).await {
                due = next(due, period, self.clock.now());
                self.pause.pause(due.saturating_duration_since(self.clock.now())).await;
            } else {
                due = self.clock.now();
                tokio::task::yield_now().await;
            }
        }
    }

    /// Until the series have all of them, or can never have them. Whether one of them takes time: they all do but those
    /// that the windows have already.
    async fn feed(&self, mut ticks: Vec<Tick>) -> bool {
        let mut takes_time = false;
        while !ticks.is_empty() {
            let deadline = Deadline::after(self.clock.now(), ANSWER_WITHIN);
            let answers = self.source.ticks(ticks.clone(), deadline).await;
            let mut refused = Vec::new();
            let mut wait: Option<Duration> = None;
            let mut answers = answers.into_iter();
            for tick in ticks {
                let again = match answers.next() {
                    Some(Ok(effect)) => {
                        takes_time |= matches!(effect, Effect::Advanced { .. } | Effect::Inserted { .. });
                        self.fed.fetch_add(1, Relaxed);
                        continue;
                    }
                    Some(Err(why @ (TickError::Invalid(_) | TickError::Full { .. }))) => {
                        takes_time = true;
                        warn!(series = %tick.series, %why, "demo: a tick cannot be part of its series");
                        continue;
                    }
                    Some(Err(later)) => {
                        later.retry_after_ms().map_or(BEHIND_MAX, |after| Duration::from_millis(after.into()))
                    }
                    None => BEHIND_MAX,
                };
                wait = wait.max(Some(again));
                refused.push(tick);
            }
            ticks = refused;
            if let Some(wait) = wait {
                self.pause.pause(wait.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end())).await;
            }
        }
        takes_time
    }
}

/// Ticks of one batch, and the time from one to the next.
fn batches(rate: f64) -> (usize, Duration) {
    let len = (rate * PERIOD_MIN.as_secs_f64()).ceil().max(1.0);
    (len as usize, Duration::try_from_secs_f64(len / rate).unwrap_or(Duration::MAX))
}

/// When the next batch is due: a period after the last, unless that lies far behind.
fn next(due: Instant, period: Duration, now: Instant) -> Instant {
    let next = due.checked_add(period).unwrap_or(now + BEHIND_MAX);
    if now.saturating_duration_since(next) > BEHIND_MAX { now } else { next }
}
