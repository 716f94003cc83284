//! `GET /v1/overview`: a node at one glance; `GET /v1/overview/stream`: the same every second over a websocket.
//!
//! One reading a second per node, whoever looks: viewers get the newest from a [`Board`]. Nothing here is on the way
//! of a request for a forecast.

mod board;
mod reading;
pub(super) mod relay;
mod viewer;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::web::{self, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::error::{Problem, Refusal};
use super::stream::{Dialects, agree};
use super::{Shared, get};
use crate::overview::Sampler;
pub(crate) use board::Board;
use board::VIEWERS_MAX;
pub(crate) use relay::{OverviewError, open};
pub(super) use viewer::{MESSAGE_BYTES_MAX, Viewer};

/// Between two readings.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// For the first reading of a node, and for another node's answer.
const WITHIN: Duration = Duration::from_secs(2);

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/v1/overview", show);
    get(config, PATH, refuse);
}

/// Of the websocket.
pub(super) const PATH: &str = "/v1/overview/stream";

/// `?node=`: whose overview; default: this node's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    node: Option<String>,
}

impl Whose {
    /// The other node that is meant, if one is.
    fn other(self, shared: &Shared) -> Option<String> {
        self.node.filter(|name| *name != *shared.config().node.name.as_str())
    }
}

async fn show(shared: Data<Shared>, whose: Query<Whose>) -> Result<HttpResponse, Problem> {
    let text = match whose.into_inner().other(&shared) {
        None => shared.overviews.newest(WITHIN).await.ok_or(Refusal::NoOverview)?.whole(),
        Some(node) => relay::ask(&shared, &node, true).await?,
    };
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(text))
}

/// Answers those who do not get a websocket.
async fn refuse(request: HttpRequest, _whose: Query<Whose>) -> Result<HttpResponse, Problem> {
    agree(request.head(), Dialects::Json).map_err(Refusal::from)?;
    Err(Refusal::NoSeat { connections_max: VIEWERS_MAX }.into())
}

/// Reads the node every second; ends with the thread that runs it.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut sampler = Sampler::default();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (counters, overview) = reading::read(&shared);
        shared.overviews.hang(sampler.look(shared.clock.now(), counters, overview));
    }
}
