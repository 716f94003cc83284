//! Traces as the shell has them: which are recorded, and how their spans leave the node.
//!
//! Who asks for forecasts sees a [`Trace`] alone. Where nothing is configured, none of this is there.

mod encode;
mod export;
mod queue;
mod sampler;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use peregrine_actors::{Began, Span, SpanSink, Trace};
use peregrine_runtime::{Clock, Deadline, SpanId, TraceContext, TraceId, TraceState};

pub(crate) use self::export::Fate;

use self::encode::Identity;
use self::export::Exporter;
use self::sampler::{Sampler, SamplerLimits, Verdict, low};
use crate::config::{NodeConfig, TracingConfig};

/// The traces of a node.
pub(crate) struct Telemetry {
    sampler: Sampler,
    sink: Arc<Sink>,
    clock: Arc<dyn Clock>,
    recorded: AtomicU64,
    capped: AtomicU64,
}

/// Where its spans go.
struct Sink {
    exporter: Exporter,
}

impl SpanSink for Sink {
    fn span_id(&self) -> SpanId {
        span_id()
    }

    fn finished(&self, span: Span) {
        self.exporter.push(span);
    }
}

impl Telemetry {
    pub(crate) fn start(
        config: &TracingConfig,
        node: &NodeConfig,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> io::Result<Self> {
        let limits = SamplerLimits {
            ratio: config.sample_ratio,
            follows_callers: config.follow_callers,
            per_second_max: config.traces_per_second_max,
        };
        let identity = Identity {
            service: config.service.clone(),
            node: node.name.to_string(),
            region: node.region.to_string(),
        };
        let exporter = Exporter::start(config, identity, Arc::clone(&clock), seed)?;
        Ok(Self {
            sampler: Sampler::new(limits, clock.now()),
            sink: Arc::new(Sink { exporter }),
            clock,
            recorded: AtomicU64::new(0),
            capped: AtomicU64::new(0),
        })
    }

    /// A piece of work that came in at `now`: part of its caller's trace, or of one of its own. `roots`: one may begin
    /// here. Not recorded, it costs a random number and a comparison.
    pub(crate) fn begin<'a, H: IntoIterator<Item = &'a [u8]>>(
        &self,
        caller: Option<TraceContext>,
        state: impl FnOnce() -> H,
        roots: bool,
        now: Instant,
    ) -> Trace {
        let (id, verdict) = match &caller {
            Some(caller) => (caller.trace, self.sampler.decide(Some(caller), low(caller), now)),
            None if !roots => return Trace::default(),
            None => {
                let id_low: u64 = rand::random();
                if !self.sampler.takes(id_low) {
                    return Trace::default();
                }
                (trace_id(id_low), self.sampler.decide(None, id_low, now))
            }
        };
        match verdict {
            Verdict::Passed => return Trace::default(),
            Verdict::Capped => {
                self.capped.fetch_add(1, Ordering::Relaxed);
                return Trace::default();
            }
            Verdict::Recorded => self.recorded.fetch_add(1, Ordering::Relaxed),
        };
        let context = TraceContext { trace: id, span: span_id(), sampled: true };
        let state = caller.and_then(|_| TraceState::parse(state()));
        let began = Began::now(self.clock.as_ref());
        let sink = Arc::clone(&self.sink) as Arc<dyn SpanSink>;
        Trace::begin(context, caller.map(|caller| caller.span), state, began, sink)
    }

    /// For work that other nodes ask for.
    pub(crate) fn sink(&self) -> Arc<dyn SpanSink> {
        Arc::clone(&self.sink) as Arc<dyn SpanSink>
    }

    /// Spans that came to this end.
    pub(crate) fn count(&self, fate: Fate) -> u64 {
        self.sink.exporter.count(fate)
    }

    /// Spans that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.sink.exporter.waiting()
    }

    /// Traces that were recorded, and those that were too many.
    pub(crate) fn traces(&self) -> (u64, u64) {
        (self.recorded.load(Ordering::Relaxed), self.capped.load(Ordering::Relaxed))
    }

    /// Sends what waits, at the deadline at the latest.
    pub(crate) fn close(&self, deadline: Deadline) {
        self.sink.exporter.close(deadline);
    }
}

fn span_id() -> SpanId {
    loop {
        if let Some(id) = SpanId::new(rand::random()) {
            return id;
        }
    }
}

/// By chance but for its last eight bytes.
fn trace_id(id_low: u64) -> TraceId {
    loop {
        let high: u64 = rand::random();
        if let Some(id) = TraceId::new((u128::from(high) << 64 | u128::from(id_low)).to_be_bytes()) {
            return id;
        }
    }
}
