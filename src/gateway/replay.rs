//! A forecast that another Machine is to answer through Fly's proxy: the shell around `peregrine_fly::passage`, which
//! decides. Headers in, at most one header out, and what is counted of it.
//!
//! Handlers ask here once who asks was let in: nobody is told where a model lives who may not be told its forecasts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use peregrine_actors::{Forecast, ServedBy};
use peregrine_fly::passage::{HostMachine, Passage, Stays, may_travel, replay};
use peregrine_fly::replay::{HEADER, PREFER_REGION_HEADER, Reason, prefer_region};
use peregrine_runtime::Deadline;

use super::app::Shared;
use super::body::Body;
use super::glimpse::Glimpse;
use crate::cluster::machine_of;

/// Of requests that came through the proxy.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    asked: AtomicU64,
    taken: AtomicU64,
    failed: [AtomicU64; Reason::ALL.len()],
}

impl Replays {
    /// Replays that this node has asked for.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Requests that other Machines have sent here.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Replays of this node that came back, by why.
    pub(super) fn failed(&self) -> [(&'static str, u64); Reason::ALL.len()] {
        Reason::ALL.map(|reason| (reason.name(), self.failed[reason as usize].load(Ordering::Relaxed)))
    }

    fn count(&self, passage: &Passage) {
        let counter = match passage {
            Passage::Direct | Passage::Proxied => return,
            Passage::Replayed { .. } => &self.taken,
            Passage::Returned(failed) => &self.failed[failed.reason as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The way of one request: how it came, and how large it is.
pub(super) struct Way {
    passage: Passage,
    /// It would have been sent on, were its body smaller or its node public.
    is_better_elsewhere: bool,
}

impl Way {
    /// By a request's headers. Elsewhere than on Fly they say nothing.
    pub(super) fn of(shared: &Shared, headers: &HeaderMap) -> Self {
        let passage = match &shared.platform {
            Some(_) => Passage::of(|name| Some(headers.get(name)?.to_str().unwrap_or_default())),
            None => Passage::Direct,
        };
        shared.replays.count(&passage);
        Self { passage, is_better_elsewhere: false }
    }

    /// The answer that has the request sent to another Machine; `None`: it is to be read and answered. `glimpse` is
    /// asked only of requests that may be sent on.
    pub(super) fn onwards<'a>(
        &mut self,
        shared: &Shared,
        body: &Body,
        glimpse: impl FnOnce() -> Option<Glimpse<'a>>,
    ) -> Option<HttpResponse> {
        let here = shared.platform.as_ref()?;
        let config = shared.config();
        let sent_bytes = body.sent_bytes();
        let fits = may_travel(&self.passage, sent_bytes, config.routing.replay_from);
        self.is_better_elsewhere = matches!(fits, Ok(()) | Err(Stays::TooLarge));
        fits.ok()?;
        let glimpse = glimpse()?;
        let model = glimpse.model.as_deref().or(config.models.default.as_deref())?;
        let deadline = self.deadline(shared, shared.clock.now(), glimpse.within);
        let left = deadline.remaining(shared.clock.now());
        let machine = shared.bound_for(model, glimpse.version, deadline);
        let header = replay(here, left, machine).ok()?.to_header(sent_bytes).ok()?;
        shared.replays.asked.fetch_add(1, Ordering::Relaxed);
        // The status is for who sees it though it should not: nothing was done, and it is no error.
        Some(HttpResponse::TemporaryRedirect().insert_header((HEADER, header)).finish())
    }

    /// What the caller wished, within what the node allows, less what the way here has taken. `since`: when the body was
    /// there.
    pub(super) fn deadline(&self, shared: &Shared, since: Instant, wished: Option<Duration>) -> Deadline {
        let allowed = shared.time_for(wished);
        Deadline::after(since, self.passage.left_of(allowed))
    }

    /// The region that the caller's next request of this kind had better be sent to: its body crossed the cluster.
    pub(super) fn hint(&self, shared: &Shared, forecast: &Forecast) -> Option<(HeaderName, HeaderValue)> {
        let here = shared.platform.as_ref()?;
        let ServedBy::Peer { region, .. } = &forecast.served_by else { return None };
        if !self.is_better_elsewhere || *region == shared.config().node.region {
            return None;
        }
        let view = shared.cluster.as_ref()?.view();
        let mut there = view.members.values().filter(|member| member.region == *region);
        let takes_callers = |machine: HostMachine| machine.takes_callers_of(here);
        there.any(|member| machine_of(member).is_some_and(takes_callers)).then_some(())?;
        let value = HeaderValue::from_str(prefer_region(region.as_str()).ok()?).ok()?;
        Some((HeaderName::from_static(PREFER_REGION_HEADER), value))
    }
}

impl Shared {
    /// The Machine of the node that would be asked for a forecast now.
    fn bound_for(&self, model: &str, version: Option<u32>, deadline: Deadline) -> Option<HostMachine> {
        let node = self.system.bound_for(model, version, deadline)?;
        machine_of(self.cluster.as_ref()?.view().members.get(&node)?)
    }
}
