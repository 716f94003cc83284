//! The actor that decides who serves a model: it alone replaces the table, which every request reads without a lock.
//!
//! Knows what it routes to only as a [`Route`]; restarted, it goes on with the table as it was published.

mod placement;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use actix::{Actor, Context, Handler, Message};
use arc_swap::ArcSwap;

pub(crate) use placement::{Outlook, prefers_cpu};
pub(crate) use table::Table;

use crate::breaker::Gate;
use crate::inference::Served;
use crate::status::ModelStatus;

/// A model version with the gates in front of its backends.
pub(crate) struct Route {
    pub(crate) served: Arc<Served>,
    pub(crate) cpu: Arc<Gate>,
    pub(crate) gpu: Arc<Gate>,
    pub(crate) status: Arc<ModelStatus>,
    /// Requests that could have gone to either device.
    pub(crate) turns: AtomicU64,
}

/// What callers read.
pub(crate) type Published = Arc<ArcSwap<Table<Arc<Route>>>>;

/// What the router is told; the answer says whether a version was there before.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) enum RouterMail {
    /// A version is on its way.
    Announce { model: String, version: u32 },
    /// It will not come.
    Withdraw { model: String, version: u32 },
    /// It is ready.
    Publish { route: Arc<Route> },
    /// It is no longer wanted; `None`: none of the model's versions is.
    Remove { model: String, version: Option<u32> },
}

pub(crate) struct Router {
    published: Published,
}

impl Router {
    pub(crate) fn new(published: Published) -> Self {
        Self { published }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<RouterMail> for Router {
    type Result = bool;

    fn handle(&mut self, mail: RouterMail, _: &mut Context<Self>) -> bool {
        let table = Table::clone(&self.published.load());
        let (table, was_there) = match mail {
            RouterMail::Announce { model, version } => {
                let was_there = table.find(&model, Some(version)).is_ok();
                (table.with_announced(&model, version), was_there)
            }
            RouterMail::Withdraw { model, version } => (table.without_announced(&model, version), false),
            RouterMail::Publish { route } => {
                let (model, version) = (&route.status.spec.name, route.status.version);
                let was_there = table.find(model, Some(version)).is_ok();
                tracing::info!(model = %model, version, digest = %route.status.digest, "model ready");
                (table.with(model, version, Arc::clone(&route)), was_there)
            }
            RouterMail::Remove { model, version } => {
                tracing::info!(model = %model, version, "model removed");
                table.without(&model, version)
            }
        };
        self.published.store(Arc::new(table));
        was_there
    }
}
