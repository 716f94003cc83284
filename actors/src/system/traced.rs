//! The spans of a request's way through this node: the router's, and those of requests that other nodes sent.

use std::sync::Arc;
use std::time::Instant;

use peregrine_runtime::Deadline;

use super::System;
use crate::remote::{RemoteAnswer, RemoteForecast, RemoteRefusal};
use crate::request::{Forecast, ForecastError, ForecastRequest};
use crate::trace::{Began, Done, SpanKind, SpanSink, Trace, TraceParent};

impl System {
    /// Records requests of other nodes that these have recorded, from now on and for good. False: it already does.
    pub fn attach_spans(&self, sink: Arc<dyn SpanSink>) -> bool {
        self.inner.spans.set(sink).is_ok()
    }

    /// Work here that is part of another node's, if both record it.
    #[must_use]
    pub fn follow(&self, caller: TraceParent) -> Trace {
        let Some(sink) = self.inner.spans.get() else { return Trace::default() };
        Trace::follow(caller, Began::now(self.inner.clock.as_ref()), Arc::clone(sink))
    }

    /// As `asked`, of a request that is recorded.
    pub(super) async fn traced(
        &self,
        mut request: ForecastRequest,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        let span = request.origin.trace.child();
        request.origin.trace = span.clone();
        let (model, rows) = (request.model.clone(), request.windows.rows);
        let ended = self.asked(request, now).await;
        span.end(|| {
            let done = Done::new("router", now, self.inner.clock.now());
            let done = done.with("peregrine.model", model).with("peregrine.rows", rows);
            match &ended {
                Ok(forecast) => done
                    .with("peregrine.version", forecast.version)
                    .with("peregrine.backend", forecast.backend_label().into_owned())
                    .with("peregrine.degraded", forecast.degraded),
                Err(error) => done.failed(Some((error.kind(), error.to_string()))),
            }
        });
        ended
    }

    /// Answers another node that records what it asks, if this one can.
    pub(super) async fn serve_traced(
        &self,
        request: RemoteForecast,
        caller: TraceParent,
        deadline: Deadline,
    ) -> Result<RemoteAnswer, RemoteRefusal> {
        let clock = &self.inner.clock;
        let (now, span) = (clock.now(), self.follow(caller));
        let (model, rows) = (request.model.clone(), request.rows());
        let ended = self.served(request, span.clone(), deadline).await;
        span.end(|| {
            let done = Done::new("forecast.ask", now, clock.now()).of_kind(SpanKind::Server);
            let done = done.with("rpc.system.name", "peregrine").with("rpc.method", "forecast.ask");
            let done = done.with("peregrine.model", model).with("peregrine.rows", rows);
            match &ended {
                Ok(answer) => done
                    .with("peregrine.version", answer.version)
                    .with("peregrine.backend", answer.backend.name())
                    .with("peregrine.degraded", answer.degraded),
                Err(refusal) => done.failed(Some((refusal.kind(), refusal.to_string()))),
            }
        });
        ended
    }
}
