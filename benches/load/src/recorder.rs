//! What was seen within a window of time. Pure.
//!
//! A completion counts in the window that it falls in, whenever its request was due; a failure is counted by its kind and
//! has no latency, so that refusing quickly makes no server look fast.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::split::Samples;

/// What is longer counts as this, in nanoseconds.
const NANOS_MAX: u64 = 600_000_000_000;

/// Why a request has no answer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The server answered with another status than 200.
    Status(u16),
    /// An answer whose shape is not what was asked for.
    Shape,
    /// An answer with a number that is not one.
    NotFinite,
    /// Bytes that are no answer.
    Malformed,
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer.
    Lost,
    /// No new connection could be made.
    Connect,
    /// The stream said that the prediction will not come.
    Gap,
    /// The stream refused the tick.
    Refused,
    /// The open loop was too far behind to keep the request in mind.
    Unsent,
}

impl Failure {
    /// Whether an answer came and was wrong.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        matches!(self, Self::Shape | Self::NotFinite | Self::Malformed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "http_{status}"),
            Self::Shape => f.write_str("wrong_shape"),
            Self::NotFinite => f.write_str("not_finite"),
            Self::Malformed => f.write_str("malformed"),
            Self::Timeout => f.write_str("timeout"),
            Self::Lost => f.write_str("connection_lost"),
            Self::Connect => f.write_str("no_connection"),
            Self::Gap => f.write_str("gap"),
            Self::Refused => f.write_str("refused"),
            Self::Unsent => f.write_str("unsent"),
        }
    }
}

/// Durations, to a thousandth. An empty one takes no memory to speak of.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    nanos: Option<Box<Histogram<u64>>>,
    longest: Duration,
}

impl Spread {
    /// Counts one.
    pub fn add(&mut self, one: Duration) {
        self.longest = self.longest.max(one);
        self.nanos().saturating_record(u64::try_from(one.as_nanos()).unwrap_or(NANOS_MAX));
    }

    /// Counts all of another.
    pub fn merge(&mut self, other: &Self) {
        if let Some(nanos) = &other.nanos {
            self.longest = self.longest.max(other.longest);
            self.nanos().add(&**nanos).expect("equal bounds");
        }
    }

    fn nanos(&mut self) -> &mut Histogram<u64> {
        self.nanos.get_or_insert_with(|| {
            Box::new(
                Histogram::new_with_bounds(1, NANOS_MAX, 3).expect("constant bounds that a histogram takes"),
            )
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.nanos.as_ref().map_or(0, |nanos| nanos.len())
    }

    /// The smallest that `share` of them do not exceed; zero where there are none.
    #[must_use]
    pub fn at(&self, share: f64) -> Duration {
        // A bucket ends a little above what fell into it, and nothing is above the longest.
        let nanos = self.nanos.as_ref().map_or(0, |nanos| nanos.value_at_quantile(share));
        Duration::from_nanos(nanos).min(self.longest)
    }

    /// Their mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.nanos.as_ref().map_or(0, |nanos| nanos.mean() as u64))
    }

    /// The longest, exactly.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

/// One window of one thread, or of all.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// How long it was.
    pub span: Duration,
    /// Of what was answered.
    pub latency: Spread,
    /// How much later than due requests went out though a connection was free: the generator's own fault.
    pub lateness: Spread,
    /// Requests that have no answer that counts, by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Answers that were read in full.
    pub checked: u64,
    /// Idle connections that the server closed, and that were made again.
    pub reconnects: u64,
    /// Bytes of answers.
    pub bytes_in: u64,
    /// Age of the oldest request without an answer at the end, what has not been sent included.
    pub oldest_waiting: Duration,
    /// Due and not sent at the end.
    pub backlog: usize,
    /// Connections.
    pub connections: usize,
    /// Connections without one answer.
    pub starved: usize,
    /// Processor time of the generator.
    pub own_cpu: Duration,
    /// The largest share of the window that one thread of the generator was busy.
    pub busiest: f64,
    /// What sampled answers say of their time in the server.
    pub samples: Samples,
}

impl Window {
    /// An answer that counts.
    pub fn completed(&mut self, due: Duration, now: Duration) {
        self.latency.add(now.saturating_sub(due));
    }

    /// A request without one.
    pub fn failed(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    /// Answers that count.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.latency.count()
    }

    /// Requests that failed.
    #[must_use]
    pub fn failed_count(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Answers that were wrong.
    #[must_use]
    pub fn wrong_count(&self) -> u64 {
        self.failures.iter().filter(|(failure, _)| failure.is_wrong()).map(|(_, count)| count).sum()
    }

    /// Answers a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.span.is_zero() { 0.0 } else { self.answered() as f64 / self.span.as_secs_f64() }
    }

    /// Takes in the same window of another thread.
    pub fn beside(&mut self, other: &Self) {
        self.span = self.span.max(other.span);
        self.connections += other.connections;
        self.starved += other.starved;
        self.backlog += other.backlog;
        self.add(other);
    }

    /// Takes in the window that followed: what was true at the end is what was true at its end.
    pub fn then(&mut self, next: &Self) {
        let busy = self.busiest * self.span.as_secs_f64() + next.busiest * next.span.as_secs_f64();
        self.span += next.span;
        self.connections = next.connections;
        self.starved = self.starved.min(next.starved);
        self.backlog = next.backlog;
        self.oldest_waiting = Duration::ZERO;
        self.add(next);
        self.busiest = if self.span.is_zero() { 0.0 } else { busy / self.span.as_secs_f64() };
    }

    fn add(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.lateness.merge(&other.lateness);
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.checked += other.checked;
        self.reconnects += other.reconnects;
        self.bytes_in += other.bytes_in;
        self.oldest_waiting = self.oldest_waiting.max(other.oldest_waiting);
        self.own_cpu += other.own_cpu;
        self.busiest = self.busiest.max(other.busiest);
        self.samples.merge(&other.samples);
    }
}

#[cfg(test)]
#[path = "tests/recorder.rs"]
mod tests;
