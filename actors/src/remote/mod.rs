//! The room that gets forecasts from other nodes: one request, several candidates, one deadline around all of it.
//!
//! Knows no network: it asks through [`Peers`]. Whom to ask is `choose.rs`'s decision, when to ask a second one that of
//! `hedge.rs`, how often at all that of `budget.rs`; here they are carried out. What nobody waits for any more is
//! dropped, which cancels it where it runs.

mod attempt;
mod budget;
mod choose;
mod hedge;
mod message;
mod peer;
mod shapes;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use peregrine_runtime::{Clock, Deadline, NodeId};
use tokio::time::sleep_until;

pub use budget::RetryLimits;
pub use choose::Prefer;
pub use hedge::HedgeLimits;
pub use message::{Peers, Provider, RemoteAnswer, RemoteForecast, RemoteRefusal};
pub(crate) use shapes::Shapes;
pub use wire::WireError;

use attempt::{Attempt, Seats, Verdict};
use budget::{HedgeBudget, RetryBudget};
use choose::{Candidate, Course, Passed, Stop, Wish, order};
use hedge::hedge_after;
use peer::Peer;

use crate::breaker::{BreakerLimits, Gate, GateSpec, Orders};
use crate::inference::Expected;
use crate::settings::RoutingSettings;
use crate::status::{BreakerStatus, Guarded, PeerStats, RemoteStats};
use crate::trace::Trace;

pub(crate) struct Remote {
    pub(crate) peers: Arc<dyn Peers>,
    settings: ArcSwap<RoutingSettings>,
    breaker: BreakerLimits,
    orders: Arc<Orders>,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    seats: Arc<Seats>,
    retries: Mutex<RetryBudget>,
    hedges: Mutex<HedgeBudget>,
    counts: Totals,
    pub(crate) shapes: Shapes,
}

#[derive(Default)]
struct Totals {
    requests: AtomicU64,
    answered: AtomicU64,
    retries: AtomicU64,
    retries_refused: AtomicU64,
    hedges: AtomicU64,
    hedge_wins: AtomicU64,
    hedges_refused: AtomicU64,
}

/// Nodes remembered; those that hold nothing of ours are forgotten first.
const PEERS_MAX: usize = 1024;
/// Nodes asked for one request, whatever the budgets allow.
const ASKS_MAX: usize = 4;

/// Why no other node answered.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody says that it serves the model.
    Nobody,
    /// Somebody does, but nothing came of it.
    Refused(RemoteRefusal),
}

/// Which of the nodes that serve a model will do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Need {
    pub(crate) gpu: bool,
    /// Nobody else takes the request: one whose breaker is open is better than none.
    pub(crate) any: bool,
}

/// Where a request would go, and what is known of it.
pub(crate) struct Prospect {
    pub(crate) node: NodeId,
    pub(crate) rtt: Duration,
    pub(crate) expected: Option<Expected>,
}

impl Remote {
    pub(crate) fn new(
        peers: Arc<dyn Peers>,
        settings: RoutingSettings,
        (breaker, orders): (BreakerLimits, Arc<Orders>),
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = clock.now();
        Self {
            peers,
            retries: Mutex::new(RetryBudget::new(settings.retry, now)),
            hedges: Mutex::new(HedgeBudget::new(settings.hedge.share, settings.hedge.burst)),
            settings: ArcSwap::from_pointee(settings),
            breaker,
            orders,
            clock,
            known: Mutex::default(),
            seats: Arc::default(),
            counts: Totals::default(),
            shapes: Shapes::default(),
        }
    }

    /// Works by other settings from now on, with full budgets.
    pub(crate) fn set(&self, settings: RoutingSettings) {
        *self.retries.lock() = RetryBudget::new(settings.retry, self.clock.now());
        *self.hedges.lock() = HedgeBudget::new(settings.hedge.share, settings.hedge.burst);
        let percentile = settings.hedge.percentile;
        let before = self.settings.swap(Arc::new(settings));
        if before.hedge.percentile != percentile {
            self.known.lock().values().for_each(|peer| peer.relearn(percentile));
        }
    }

    /// Whether a request of this model is to be answered elsewhere even where it could be here.
    pub(crate) fn is_preferred(&self, model: &str) -> bool {
        self.settings.load().regions_by_model.contains_key(model)
    }

    /// Where a request would go now.
    pub(crate) fn prospect(
        &self,
        (model, version): (&str, Option<u32>),
        rows: usize,
        needs_gpu: bool,
        deadline: Deadline,
        now: Instant,
    ) -> Option<Prospect> {
        let need = Need { gpu: needs_gpu, any: false };
        let (stops, _) = self.stops((model, version), need, deadline.remaining(now), now)?;
        let first = stops.into_iter().next()?;
        let known = self.known.lock().get(&first.node).cloned();
        let expected = known.and_then(|peer| peer.expect(model, rows, now));
        Some(Prospect { node: first.node, rtt: first.rtt, expected })
    }

    /// Gets a forecast from another node. Ends by the deadline; dropped, whatever it has asked for is cancelled.
    pub(crate) async fn forecast(
        &self,
        request: Arc<RemoteForecast>,
        need: Need,
        deadline: Deadline,
        trace: &Trace,
    ) -> Result<RemoteAnswer, NoAnswer> {
        let now = self.clock.now();
        let key = (request.model.as_str(), request.version);
        let (stops, passed) = self.stops(key, need, deadline.remaining(now), now).ok_or(NoAnswer::Nobody)?;
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.retries.lock().deposit(now);
        self.hedges.lock().deposit();
        let errand = Errand {
            remote: self,
            request,
            need,
            trace,
            deadline,
            course: Course::default(),
            passed,
            attempts: FuturesUnordered::new(),
            asks: 0,
            worst: None,
        };
        let ended = match tokio::time::timeout_at(deadline.instant().into(), errand.run(stops)).await {
            Ok(ended) => ended,
            Err(_elapsed) => Err(RemoteRefusal::DeadlineExceeded),
        };
        if ended.is_ok() {
            self.counts.answered.fetch_add(1, Ordering::Relaxed);
        }
        ended.map_err(NoAnswer::Refused)
    }

    /// Nodes that may be asked now, the preferred first; `None`: nobody serves the model.
    fn stops(
        &self,
        (model, version): (&str, Option<u32>),
        need: Need,
        remaining: Duration,
        now: Instant,
    ) -> Option<(Vec<Stop>, Passed)> {
        let providers = self.peers.providers(model, version);
        if providers.is_empty() {
            return None;
        }
        let candidates = {
            let known = self.known.lock();
            let candidates = providers.into_iter().map(|provider| {
                let region_in_flight = self.seats.of(&provider.region);
                match known.get(&provider.node) {
                    Some(peer) => Candidate {
                        is_open: !peer.gate.admits(now),
                        is_forced: !peer.gate.is_last_resort(),
                        is_full: peer.is_full(now),
                        in_flight: peer.in_flight.load(Ordering::Relaxed),
                        region_in_flight,
                        provider,
                    },
                    None => Candidate {
                        is_open: false,
                        is_forced: false,
                        is_full: false,
                        in_flight: 0,
                        region_in_flight,
                        provider,
                    },
                }
            });
            candidates.collect()
        };
        let settings = self.settings.load();
        let prefer = match settings.regions_by_model.get(model) {
            Some(region) => &Prefer::Region(region.clone()),
            None => &settings.prefer,
        };
        let (_, home) = self.peers.here();
        Some(order(
            candidates,
            Wish { prefer, home: &home, needs_gpu: need.gpu, takes_any: need.any, remaining },
            &settings,
        ))
    }

    fn peer(&self, stop: &Stop) -> Arc<Peer> {
        let mut known = self.known.lock();
        if let Some(peer) = known.get(&stop.node)
            && peer.region == stop.region
        {
            return Arc::clone(peer);
        }
        if known.len() >= PEERS_MAX {
            known.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        let guards = Guarded::Peer { node: stop.node.clone() };
        let gate = Gate::new(GateSpec {
            mode: self.orders.mode(&guards),
            guards,
            limits: self.breaker.clone(),
            clock: Arc::clone(&self.clock),
            breaker: None,
            mend: None,
        });
        let percentile = self.settings.load().hedge.percentile;
        let peer = Arc::new(Peer::new((stop.node.clone(), stop.region.clone()), gate, percentile));
        known.insert(stop.node.clone(), Arc::clone(&peer));
        peer
    }

    pub(crate) fn gates(&self) -> Vec<Arc<Gate>> {
        self.known.lock().values().map(|peer| Arc::clone(&peer.gate)).collect()
    }

    pub(crate) fn breakers(&self, now: Instant) -> Vec<BreakerStatus> {
        self.known.lock().values().map(|peer| peer.gate.status(now)).collect()
    }

    pub(crate) fn stats(&self) -> RemoteStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let known: Vec<_> = self.known.lock().values().cloned().collect();
        RemoteStats {
            requests: count(&self.counts.requests),
            answered: count(&self.counts.answered),
            retries: count(&self.counts.retries),
            retries_refused: count(&self.counts.retries_refused),
            hedges: count(&self.counts.hedges),
            hedge_wins: count(&self.counts.hedge_wins),
            hedges_refused: count(&self.counts.hedges_refused),
            peers: known.iter().map(|peer| peer.stats()).collect::<Vec<PeerStats>>(),
        }
    }
}

/// One request on its way through the nodes.
struct Errand<'a> {
    remote: &'a Remote,
    request: Arc<RemoteForecast>,
    need: Need,
    /// What it is part of.
    trace: &'a Trace,
    deadline: Deadline,
    course: Course,
    /// Who is not on the course, and why.
    passed: Passed,
    attempts: FuturesUnordered<Attempt>,
    asks: usize,
    /// The refusal that says most to the caller.
    worst: Option<RemoteRefusal>,
}

/// Why a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    First,
    Retry,
    Hedge,
}

impl Errand<'_> {
    async fn run(mut self, stops: Vec<Stop>) -> Result<RemoteAnswer, RemoteRefusal> {
        self.course.set(stops);
        let Some(mut hedge_at) = self.ask_next(Why::First) else {
            return Err(nobody(self.passed));
        };
        loop {
            let hedge = async {
                match hedge_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = self.attempts.next() => {
                    let Some(verdict) = ended else { break };
                    match self.weigh(verdict) {
                        Some(ended) => return ended,
                        // A hedge is under way: it is the retry.
                        None if !self.attempts.is_empty() => hedge_at = None,
                        None => match self.retry() {
                            Some(next) => hedge_at = next,
                            None => break,
                        },
                    }
                }
                () = hedge => {
                    hedge_at = None;
                    self.hedge();
                }
            }
        }
        Err(self.worst.take().unwrap_or_else(|| nobody(self.passed)))
    }

    /// What an ended attempt means for the caller; `None`: others may do better.
    fn weigh(&mut self, verdict: Verdict) -> Option<Result<RemoteAnswer, RemoteRefusal>> {
        match verdict.result {
            Ok(answer) => {
                if verdict.is_hedge {
                    self.remote.counts.hedge_wins.fetch_add(1, Ordering::Relaxed);
                }
                self.attempts.iter_mut().for_each(Attempt::outrun);
                Some(Ok(answer))
            }
            Err(refusal) if refusal.is_worth_a_retry() => {
                let told = self.worst.as_ref().map_or(0, weight);
                if weight(&refusal) >= told {
                    self.worst = Some(refusal);
                }
                None
            }
            Err(refusal) => Some(Err(refusal)),
        }
    }

    fn remaining(&self) -> Duration {
        self.deadline.remaining(self.remote.clock.now())
    }

    /// Asks another node because one refused; `None`: there is none, or too much was asked already.
    fn retry(&mut self) -> Option<Option<Instant>> {
        if self.asks >= ASKS_MAX {
            return None;
        }
        self.look_again();
        self.course.peek(self.remaining())?;
        if !self.remote.retries.lock().withdraw(self.remote.clock.now()) {
            self.remote.counts.retries_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.ask_next(Why::Retry)
    }

    /// A lost node is noticed after a second or two: who serves the model by now is another question than who did then.
    fn look_again(&mut self) {
        let now = self.remote.clock.now();
        let key = (self.request.model.as_str(), self.request.version);
        if let Some((stops, passed)) = self.remote.stops(key, self.need, self.deadline.remaining(now), now) {
            self.course.set(stops);
            self.passed = passed;
        }
    }

    /// Asks another node because one is late.
    fn hedge(&mut self) {
        if self.asks >= ASKS_MAX || self.course.peek(self.remaining()).is_none() {
            return;
        }
        if !self.remote.hedges.lock().withdraw() {
            self.remote.counts.hedges_refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.ask_next(Why::Hedge);
    }

    /// Asks the next node that lets itself be asked, and says when a second one is to be; `None`: there is none.
    fn ask_next(&mut self, why: Why) -> Option<Option<Instant>> {
        let remote = self.remote;
        loop {
            let stop = self.course.next(self.remaining())?;
            let now = remote.clock.now();
            let peer = remote.peer(&stop);
            let settings = remote.settings.load();
            let maxima = (settings.in_flight_max, settings.in_flight_max_of(&stop.region));
            let Some(seat) = remote.seats.take(&peer, maxima) else {
                self.passed.full += 1;
                continue;
            };
            let Some(ticket) = attempt::enter(&peer, &stop, now) else {
                self.passed.unwell += 1;
                continue;
            };
            self.course.asked(&stop);
            self.asks += 1;
            let count = match why {
                Why::First => None,
                Why::Retry => Some(&remote.counts.retries),
                Why::Hedge => Some(&remote.counts.hedges),
            };
            if let Some(count) = count {
                count.fetch_add(1, Ordering::Relaxed);
            }
            peer.counts.asks.fetch_add(1, Ordering::Relaxed);
            let span = self.trace.child();
            let request = Arc::clone(&self.request);
            let asked = remote.peers.ask(&stop.node, request, span.parent(), self.deadline);
            let hedge_at = self.hedge_at(&peer, now);
            self.attempts.push(Attempt::new(attempt::Start {
                asked,
                peer,
                seat,
                ticket,
                request: Arc::clone(&self.request),
                clock: Arc::clone(&remote.clock),
                since: now,
                remaining: self.deadline.remaining(now),
                is_hedge: why == Why::Hedge,
                span,
            }));
            return Some(hedge_at);
        }
    }

    fn hedge_at(&self, first: &Peer, now: Instant) -> Option<Instant> {
        let remaining = self.deadline.remaining(now);
        let second = self.course.peek(remaining)?;
        let known = self.remote.known.lock().get(&second.node).cloned();
        let expected = known.and_then(|peer| peer.expect(&self.request.model, self.request.rows(), now));
        let answer_min = expected.map_or(second.rtt, |expected| expected.took.max(second.rtt));
        let limits = &self.remote.settings.load().hedge;
        first
            .with_latencies(|latencies| hedge_after(latencies, limits, answer_min, remaining))
            .map(|after| now + after)
    }
}

/// What the caller is told when several nodes refused: come back later, before anything else.
fn weight(refusal: &RemoteRefusal) -> u8 {
    match refusal {
        RemoteRefusal::UnknownModel => 1,
        RemoteRefusal::UnknownVersion => 2,
        RemoteRefusal::Overloaded { .. } => 5,
        RemoteRefusal::NotReady => 4,
        _ => 3,
    }
}

/// What the caller is told when nobody could be asked.
fn nobody(passed: Passed) -> RemoteRefusal {
    /// Records of load are about as old as this.
    const RETRY_AFTER_MS: u32 = 100;
    if passed.full > 0 {
        RemoteRefusal::Overloaded { retry_after_ms: RETRY_AFTER_MS }
    } else if passed.unwell > 0 {
        RemoteRefusal::Unavailable(
            "every node that serves the model leaves or has its breaker open".to_owned(),
        )
    } else if passed.far > 0 {
        RemoteRefusal::DeadlineExceeded
    } else {
        RemoteRefusal::Unavailable("no node can answer".to_owned())
    }
}
