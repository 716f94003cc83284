//! Carries spans to a collector, on a thread of its own: OTLP over HTTP, batch by batch, each with a deadline.
//!
//! Whoever hands in a span never waits: what the queue cannot hold is dropped and counted. Headers may hold a secret; no
//! log line repeats them, nor the endpoint.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use parking_lot::{Condvar, Mutex};
use peregrine_actors::Span;
use peregrine_runtime::{Clock, Deadline};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::encode::{self, Identity};
use super::queue::{Next, Outcome, Queue, QueueLimits, Tries, judge};
use crate::config::TracingConfig;
use crate::outbound;

/// Spans of one export.
const BATCH_MAX: usize = 512;
/// Of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Of its body.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Of the time that is left at the end, kept for saying that it is over.
const FAREWELL: Duration = Duration::from_millis(50);

/// What became of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The collector has them.
    Exported,
    /// There was no room for them.
    Dropped,
    /// The collector refused them, or was not reached for too long.
    Failed,
    /// The node stopped before they had left.
    Unsent,
}

impl Fate {
    pub(crate) const ALL: [Self; 4] = [Self::Exported, Self::Dropped, Self::Failed, Self::Unsent];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::Unsent => "unsent",
        }
    }
}

/// Hands spans to the thread that exports them.
pub(crate) struct Exporter {
    channel: Arc<Channel>,
}

struct Channel {
    state: Mutex<State>,
    changed: Condvar,
    fates: [AtomicU64; Fate::ALL.len()],
    clock: Arc<dyn Clock>,
    target: Target,
}

struct State {
    queue: Queue<Span>,
    /// It is over; what has not left by then is left behind.
    closing: Option<Deadline>,
    has_ended: bool,
}

struct Target {
    config: TracingConfig,
    identity: Identity,
}

impl Exporter {
    pub(super) fn start(
        config: &TracingConfig,
        identity: Identity,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> io::Result<Self> {
        let channel = Arc::new(Channel::new(config, identity, clock));
        let running = Arc::clone(&channel);
        thread::Builder::new().name("traces".to_owned()).spawn(move || running.run(seed))?;
        Ok(Self { channel })
    }

    /// Takes a span, or drops and counts it.
    pub(super) fn push(&self, span: Span) {
        let now = self.channel.clock.now();
        let mut state = self.channel.state.lock();
        if state.closing.is_some() || !state.queue.push(span, now) {
            drop(state);
            self.channel.count(Fate::Dropped, 1);
        } else if state.queue.rouses() {
            self.channel.changed.notify_all();
        }
    }

    /// Spans that came to this end.
    pub(crate) fn count(&self, fate: Fate) -> u64 {
        self.channel.fates[fate as usize].load(Ordering::Relaxed)
    }

    /// Spans that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.channel.state.lock().queue.len()
    }

    /// Sends what waits and returns when that is done, at the deadline at the latest. What was not sent is counted.
    pub(crate) fn close(&self, deadline: Deadline) {
        let channel = &self.channel;
        let mut state = channel.state.lock();
        state.closing = Some(deadline);
        channel.changed.notify_all();
        while !state.has_ended {
            if channel.changed.wait_until(&mut state, deadline.instant()).timed_out() {
                break;
            }
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let mut state = self.channel.state.lock();
        state.closing.get_or_insert_with(|| Deadline::at(self.channel.clock.now()));
        self.channel.changed.notify_all();
    }
}

impl Channel {
    fn new(config: &TracingConfig, identity: Identity, clock: Arc<dyn Clock>) -> Self {
        let limits =
            QueueLimits { spans_max: config.queue_max, batch_max: BATCH_MAX, linger: config.flush_every };
        Self {
            state: Mutex::new(State { queue: Queue::new(limits), closing: None, has_ended: false }),
            changed: Condvar::new(),
            fates: Default::default(),
            clock,
            target: Target { config: config.clone(), identity },
        }
    }

    fn run(&self, seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let agent = outbound::agent(HEAD_BYTES_MAX, None);
        while let Some(batch) = self.next() {
            self.export(&agent, batch, &mut chance);
        }
        let mut state = self.state.lock();
        state.has_ended = true;
        self.changed.notify_all();
    }

    fn count(&self, fate: Fate, spans: usize) {
        self.fates[fate as usize].fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Waits until a batch is due; `None`: it is over.
    fn next(&self) -> Option<Vec<Span>> {
        let mut state = self.state.lock();
        loop {
            let now = self.clock.now();
            let is_last = state.closing.is_some();
            if let Some(deadline) = state.closing
                && deadline.expired(now)
            {
                while let Next::Export(batch) = state.queue.next(now, true) {
                    self.count(Fate::Unsent, batch.len());
                }
                return None;
            }
            match state.queue.next(now, is_last) {
                Next::Export(batch) => return Some(batch),
                Next::Wait if is_last => return None,
                Next::Wait => self.changed.wait(&mut state),
                Next::WaitUntil(at) => drop(self.changed.wait_until(&mut state, at)),
            }
        }
    }

    /// Tries one batch until it is taken, refused, or has been tried for too long.
    fn export(&self, agent: &ureq::Agent, batch: Vec<Span>, chance: &mut StdRng) {
        let spans = batch.len();
        let body = encode::body(&self.target.identity, batch);
        let mut tries = Tries::new(self.clock.now());
        let fate = loop {
            let now = self.clock.now();
            let within = match self.state.lock().closing {
                None => self.target.config.timeout,
                Some(deadline) => {
                    self.target.config.timeout.min(deadline.remaining(now).saturating_sub(FAREWELL))
                }
            };
            if within.is_zero() {
                break Fate::Unsent;
            }
            let (outcome, why) = self.attempt(agent, &body, within);
            let after = match outcome {
                Outcome::Taken { rejected } => {
                    let rejected = usize::try_from(rejected).unwrap_or(usize::MAX).min(spans);
                    self.count(Fate::Failed, rejected);
                    self.count(Fate::Exported, spans - rejected);
                    if rejected > 0 {
                        tracing::warn!(spans = rejected, "collector refused spans");
                    }
                    return;
                }
                Outcome::Refused => {
                    tracing::warn!(spans, %why, "spans not exported");
                    break Fate::Failed;
                }
                Outcome::Later(after) => after,
            };
            let now = self.clock.now();
            match tries.again(after, now, chance.random()) {
                Some(at) if self.pause(at) => tracing::debug!(spans, %why, "spans are exported again"),
                Some(_) => break Fate::Unsent,
                None => {
                    tracing::warn!(spans, %why, "spans not exported");
                    break Fate::Failed;
                }
            }
        };
        self.count(fate, spans);
    }

    /// Waits until then; false: it is over before.
    fn pause(&self, at: Instant) -> bool {
        let mut state = self.state.lock();
        loop {
            let now = self.clock.now();
            if state.closing.is_some_and(|deadline| at >= deadline.instant()) {
                return false;
            }
            if now >= at {
                return true;
            }
            self.changed.wait_until(&mut state, at);
        }
    }

    fn attempt(&self, agent: &ureq::Agent, body: &[u8], within: Duration) -> (Outcome, Cow<'static, str>) {
        let config = &self.target.config;
        let mut request = agent.post(&config.endpoint).content_type("application/x-protobuf");
        for (name, value) in &config.headers {
            request = request.header(name, value.expose());
        }
        let request = request.config().timeout_global(Some(within)).build();
        let mut answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => return (Outcome::Later(None), outbound::word(&error).into()),
        };
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| retry_after(text, self.clock.wall()));
        let status = answer.status().as_u16();
        match judge(status, after) {
            Outcome::Taken { .. } => {
                let told = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
                // What cannot be read says nothing of a refusal.
                let told = told.ok().and_then(|told| ExportTraceServiceResponse::decode(&*told).ok());
                let partial = told.and_then(|told| told.partial_success);
                let rejected =
                    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0));
                (Outcome::Taken { rejected }, "taken".into())
            }
            outcome => (outcome, format!("the collector answered {status}").into()),
        }
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(at.as_second()).ok()?);
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use peregrine_runtime::SystemClock;

    use super::*;

    #[test]
    fn a_refusal_names_its_status() {
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = TracingConfig {
            endpoint: format!("http://{}/v1/traces", collector.local_addr().unwrap()),
            sample_ratio: 1.0,
            follow_callers: true,
            traces_per_second_max: 1,
            headers: Vec::new(),
            service: "peregrine".to_owned(),
            timeout: Duration::from_secs(10),
            flush_every: Duration::from_secs(1),
            queue_max: 512,
        };
        let identity =
            Identity { service: "peregrine".to_owned(), node: "one".to_owned(), region: "fra".to_owned() };
        let channel = Channel::new(&config, identity, Arc::new(SystemClock));
        let answers = thread::spawn(move || {
            let (mut caller, _) = collector.accept().unwrap();
            assert!(caller.read(&mut [0; 4096]).unwrap() > 0);
            caller.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let (outcome, why) = channel.attempt(&outbound::agent(HEAD_BYTES_MAX, None), b"", config.timeout);
        answers.join().unwrap();
        assert_eq!((outcome, &*why), (Outcome::Refused, "the collector answered 403"));
    }

    #[test]
    fn a_pause_is_told_in_seconds_or_as_a_date() {
        let at = UNIX_EPOCH + Duration::from_secs(1_445_412_480);
        for (text, want) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, at), want.map(Duration::from_secs), "{text}");
        }
    }
}
