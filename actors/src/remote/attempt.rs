//! One ask of one node, from taking a seat there to what its end says of that node.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use peregrine_runtime::{Clock, Region};

use super::choose::Stop;
use super::message::{Blame, RemoteAnswer, RemoteForecast, RemoteRefusal};
use super::peer::Peer;
use crate::breaker::Permit;
use crate::inference::{Judge, Outcome, Ticket};
use crate::trace::{Done, SpanKind, Trace};

/// Our requests on their way, by region.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<BTreeMap<Region, usize>>);

impl Seats {
    pub(super) fn of(&self, region: &Region) -> usize {
        self.0.lock().get(region).copied().unwrap_or(0)
    }

    /// A place at a node and in its region, unless one of them holds as much as it may.
    pub(super) fn take(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        (node_max, region_max): (usize, usize),
    ) -> Option<Seat> {
        let mut regions = self.0.lock();
        let there = regions.entry(peer.region.clone()).or_insert(0);
        // Both counts move under this lock only.
        if *there >= region_max || peer.in_flight.load(Ordering::Relaxed) >= node_max {
            return None;
        }
        *there += 1;
        peer.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Seat { seats: Arc::clone(self), peer: Arc::clone(peer) })
    }
}

/// A place that is free again when this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    peer: Arc<Peer>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut regions = self.seats.0.lock();
        self.peer.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(there) = regions.get_mut(&self.peer.region) {
            *there -= 1;
            if *there == 0 {
                regions.remove(&self.peer.region);
            }
        }
    }
}

/// The ticket with which a request may go to a node, `None` inside if it is not a probe.
pub(super) fn enter(peer: &Peer, stop: &Stop, now: Instant) -> Option<Option<Ticket>> {
    match peer.gate.permit(now) {
        Permit::Pass => Some(None),
        Permit::Probe(ticket) => Some(Some(ticket)),
        Permit::Refuse => (stop.is_ejected && peer.gate.is_last_resort()).then_some(None),
    }
}

/// What an attempt begins with.
pub(super) struct Start {
    pub(super) asked: BoxFuture<'static, Result<RemoteAnswer, RemoteRefusal>>,
    pub(super) peer: Arc<Peer>,
    pub(super) seat: Seat,
    pub(super) ticket: Option<Ticket>,
    pub(super) request: Arc<RemoteForecast>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) since: Instant,
    /// What it was given.
    pub(super) remaining: Duration,
    pub(super) is_hedge: bool,
    /// The ask itself, as a piece of the request.
    pub(super) span: Trace,
}

/// An ask on its way; `None` once it has ended. Dropped before, it is cancelled.
pub(super) struct Attempt(Option<Start>);

/// How an attempt ended.
pub(super) struct Verdict {
    pub(super) result: Result<RemoteAnswer, RemoteRefusal>,
    pub(super) is_hedge: bool,
}

impl Attempt {
    pub(super) fn new(start: Start) -> Self {
        Self(Some(start))
    }

    /// Another node that was asked later answered first. One that loses again and again is slow.
    pub(super) fn outrun(&mut self) {
        let Some(mut start) = self.0.take() else { return };
        start.peer.counts.cancelled.fetch_add(1, Ordering::Relaxed);
        start.record(Some(("cancelled", "another node answered first".to_owned())));
        if start.is_hedge {
            return; // the first was merely late
        }
        start.peer.outrun(start.clock.now().saturating_duration_since(start.since));
        start.report(Outcome::Finished { took: Duration::MAX });
    }
}

impl Start {
    fn record(&self, error: Option<(&'static str, String)>) {
        self.span.end(|| {
            let done = Done::new("remote ask", self.since, self.clock.now()).of_kind(SpanKind::Client);
            done.with("rpc.system.name", "peregrine")
                .with("rpc.method", "forecast.ask")
                .with("peregrine.peer.node", self.peer.node.to_string())
                .with("peregrine.peer.region", self.peer.region.to_string())
                .with("peregrine.hedge", self.is_hedge)
                .failed(error)
        });
    }

    fn report(&mut self, outcome: Outcome<'_>) {
        match self.ticket.take() {
            Some(ticket) => ticket.settle(outcome),
            None => Arc::clone(&self.peer.gate).judge(outcome, false),
        }
    }

    fn end(mut self, result: Result<RemoteAnswer, RemoteRefusal>) -> Verdict {
        let now = self.clock.now();
        let took = now.saturating_duration_since(self.since);
        let result = result.and_then(|answer| match answer.misfit(&self.request) {
            None => Ok(answer),
            Some(why) => Err(RemoteRefusal::Malformed(why.to_owned())),
        });
        self.record(result.as_ref().err().map(|refusal| (refusal.kind(), refusal.to_string())));
        match &result {
            Ok(_) => {
                self.peer.answered(&self.request.model, self.request.rows(), took, now);
                self.report(Outcome::Finished { took });
            }
            Err(RemoteRefusal::DeadlineExceeded) => self.out_of_time(),
            Err(refusal) if refusal.blame() == Blame::Node => {
                self.peer.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.report(Outcome::Failed(&refusal.to_string()));
            }
            Err(refusal) => {
                self.peer.counts.refused.fetch_add(1, Ordering::Relaxed);
                if let RemoteRefusal::Overloaded { retry_after_ms } = refusal {
                    // It may guess wrong, or lie: nobody is passed by for long on the word of one answer.
                    let pause = Duration::from_millis(u64::from(*retry_after_ms).min(5_000));
                    self.peer.full(now + pause);
                }
            }
        }
        Verdict { result, is_hedge: self.is_hedge }
    }

    /// It did not answer in the time that the caller gave. That says something of it only if others got an answer in it.
    fn out_of_time(&mut self) {
        self.peer.counts.failed.fetch_add(1, Ordering::Relaxed);
        let usual = self.peer.with_latencies(super::hedge::Latencies::late);
        if self.remaining > usual {
            self.report(Outcome::Failed("it did not answer in time"));
        }
    }
}

impl Future for Attempt {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        let Some(start) = &mut self.0 else { return Poll::Pending };
        match start.asked.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => match self.0.take() {
                Some(start) => Poll::Ready(start.end(result)),
                None => Poll::Pending,
            },
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(mut start) = self.0.take() else { return };
        // Whoever drops it at the deadline did not see it end; whoever drops it earlier has left.
        if start.clock.now().saturating_duration_since(start.since) >= start.remaining {
            start.record(Some(("deadline_exceeded", "deadline exceeded".to_owned())));
            start.out_of_time();
        } else {
            start.record(Some(("cancelled", "the caller left".to_owned())));
            start.peer.counts.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        let _ = &start.seat; // free again from here on
    }
}
