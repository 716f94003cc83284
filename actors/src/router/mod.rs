//! The actor that decides who serves a model: it alone replaces the table, which every request reads without a lock.
//!
//! Knows what it routes to only as a [`Route`]; restarted, it goes on with the table as it was published.

mod in_line;
mod placement;
mod releases;
mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use arc_swap::ArcSwap;
use peregrine_runtime::Clock;

pub(crate) use in_line::{Prospect, in_line};
pub(crate) use placement::{Outlook, first, homes};
pub(crate) use table::Table;

use crate::breaker::{Gate, Trusts};
use crate::devices::PerDevice;
use crate::inference::Served;
use crate::release::{CoverageLimits, Release, ReleaseOrder, ReleaseRefused};
use crate::scorecard::Scorecard;
use crate::status::ModelStatus;

/// A model version with the gates in front of its devices.
pub(crate) struct Route {
    pub(crate) served: Arc<Served>,
    pub(crate) gates: PerDevice<Arc<Gate>>,
    pub(crate) status: Arc<ModelStatus>,
    /// Requests that could have gone to several devices.
    pub(crate) turns: AtomicU64,
}

/// What callers read.
pub(crate) type Published = Arc<ArcSwap<Table<Arc<Route>>>>;

/// Where scores are read; empty until somebody keeps them.
pub(crate) type Scores = Arc<OnceLock<Arc<Scorecard>>>;

/// How often canaries are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it is looked at what intervals hold: that reads every stream, and changes slowly.
const COVERAGE_EVERY: Duration = Duration::from_secs(10);

/// What the router answers.
#[derive(Debug)]
pub(crate) enum Routed {
    /// Whether a version was there before.
    Was(bool),
    /// What came of an operator's order.
    Ordered(Result<(), ReleaseRefused>),
}

/// What the router is told.
#[derive(Message)]
#[rtype(result = "Routed")]
pub(crate) enum RouterMail {
    /// A version is on its way.
    Announce { model: String, version: u32 },
    /// It will not come.
    Withdraw { model: String, version: u32 },
    /// They are ready, together.
    Publish { routes: Vec<Arc<Route>> },
    /// It is no longer wanted; `None`: none of the model's versions is.
    Remove { model: String, version: Option<u32> },
    /// What an earlier node has kept, before any model comes.
    Resume { releases: Vec<(String, Release)> },
    /// No more versions of the model come for now.
    Loaded { model: String },
    /// An operator decides who answers requests that name no version.
    Release { model: String, order: ReleaseOrder },
}

pub(crate) struct Router {
    published: Published,
    scores: Scores,
    coverage: Option<(CoverageLimits, Arc<Trusts>)>,
    /// When intervals were looked at last.
    covered_at: Instant,
    clock: Arc<dyn Clock>,
}

impl Router {
    pub(crate) fn new(
        published: Published,
        scores: Scores,
        coverage: Option<(CoverageLimits, Arc<Trusts>)>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let covered_at = clock.now();
        Self { published, scores, coverage, covered_at, clock }
    }

    fn review(&mut self) {
        let (card, now) = (self.scores.get().map(Arc::as_ref), self.clock.now());
        if let Some(table) = releases::reviewed(&self.published.load(), card, now) {
            self.published.store(Arc::new(table));
        }
        let (Some((limits, trusts)), Some(card)) = (&self.coverage, card) else { return };
        if now.saturating_duration_since(self.covered_at) < COVERAGE_EVERY {
            return;
        }
        self.covered_at = now;
        if let Some(table) = releases::trusted(&self.published.load(), card, (limits, trusts), now) {
            self.published.store(Arc::new(table));
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(LOOK_EVERY, |router, _| router.review());
    }
}

impl Handler<RouterMail> for Router {
    type Result = actix::MessageResult<RouterMail>;

    fn handle(&mut self, mail: RouterMail, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(self.route(mail))
    }
}

impl Router {
    fn route(&mut self, mail: RouterMail) -> Routed {
        let now = self.clock.now();
        let table = Table::clone(&self.published.load());
        let (table, was_there) = match mail {
            RouterMail::Announce { model, version } => {
                let was_there = table.find(&model, Some(version)).is_ok();
                (table.with_announced(&model, version), was_there)
            }
            RouterMail::Withdraw { model, version } => (table.without_announced(&model, version), false),
            RouterMail::Publish { routes } => {
                let was_there = |table: &Table<Arc<Route>>, route: &Route| {
                    table.find(&route.status.spec.name, Some(route.status.version)).is_ok()
                };
                let were_there = routes.iter().all(|route| was_there(&table, route));
                let table = routes.into_iter().fold(table, |table, route| {
                    let (model, version) = (route.status.spec.name.clone(), route.status.version);
                    tracing::info!(%model, version, digest = %route.status.digest, "model ready");
                    releases::settled(table.with(&model, version, route), &model, now)
                });
                (table, were_there)
            }
            RouterMail::Remove { model, version } => {
                tracing::info!(model = %model, version, "model removed");
                let (table, was_there) = table.without(&model, version);
                (releases::settled(table, &model, now), was_there)
            }
            RouterMail::Resume { releases } => (releases::resumed(table, releases), false),
            RouterMail::Loaded { model } => {
                let was_there = table.find(&model, None).is_ok();
                (releases::all_back(table, &model, now), was_there)
            }
            RouterMail::Release { model, order } => {
                return Routed::Ordered(releases::ordered(table, &model, &order, now).map(|table| {
                    self.published.store(Arc::new(table));
                }));
            }
        };
        self.published.store(Arc::new(table));
        Routed::Was(was_there)
    }
}
