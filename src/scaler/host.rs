//! The scaler as one actor of the whole cluster: of the nodes that may run it, one does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use peregrine_actors::System;
use peregrine_runtime::lease::LeaseLimits;
use peregrine_runtime::singleton::{Hosted, Hosting, SingletonError, SingletonSpec};
use peregrine_runtime::{Address, ChildSpec, Children, Clock, Cluster, Failure, Mailbox, Strategy, Tree};
use peregrine_scaler::calendar::Calendars;
use peregrine_scaler::control::Controller;
use peregrine_scaler::demand::{Demand, DemandModel, Season};
use peregrine_scaler::place::RoundTrips;
use peregrine_scaler::simulate::Forecast;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::runtime::Handle;
use tracing::warn;

use super::book::Book;
use super::desk::Desk;
use super::forecaster::Forecaster;
use super::home::{Home, HomeError};
use super::keeper::LedgerKeeper;
use super::messages::{NAME, ToScaler};
use super::open::pools;
use super::past::Past;
use super::pools::Meeting;
use super::rounds::{GroupParts, LatestPicture, Parts, Rounds, names};
use crate::config::{
    ClusterConfig, Config, Credentials, DetectorConfig, GroupConfig, RoleChoice, ScalerConfig,
};

/// Messages that wait for the desk: a second's worth of a large cluster.
const DESK_QUEUE: usize = 4096;
/// Rounds that wait: one more is all that a nudge can want.
const NUDGES: usize = 1;
/// What the scaler may take to end a call to a pool.
const STOP_WITHIN: Duration = Duration::from_secs(10);
const RESTART_AFTER: Duration = Duration::from_secs(2);

/// What a scaler that starts on this node finds here.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) cluster: Cluster,
    pub(crate) system: System,
    pub(crate) runtime: Handle,
    pub(crate) clock: Arc<dyn Clock>,
    /// What the scaler shows while it acts here.
    pub(crate) picture: LatestPicture,
    pub(crate) config: Config,
    pub(crate) meeting: Meeting,
    /// Nodes that may run it, when all are up.
    pub(crate) electorate: usize,
}

/// The part in a cluster of a node that is alone but for the machines that it starts beside itself.
pub(crate) fn home_of(config: &ScalerConfig) -> Result<ClusterConfig, HomeError> {
    let home = Home::open(&config.dir.join("home"), &mut StdRng::from_rng(&mut rand::rng()))?;
    let ms = Duration::from_millis;
    Ok(ClusterConfig {
        // What those machines are configured with, as the same files say: a node with another name has a listen too.
        name: "peregrine".to_owned(),
        listen: home.listen,
        advertise: None,
        seeds: Vec::new(),
        resolver: None,
        credentials: Credentials::Secret(home.secret),
        roles: [RoleChoice::Gateway, RoleChoice::Inference].into(),
        size: 1,
        detector: DetectorConfig { gossip_interval: ms(100), silence_max: ms(900), dead_grace: ms(60_000) },
    })
}

/// Takes part in running the scaler, and says where to reach it.
pub(crate) fn host(home: Host) -> Result<Address<ToScaler>, SingletonError> {
    let ms = Duration::from_millis;
    let spec = SingletonSpec {
        name: NAME.to_owned(),
        role: Some(NAME.to_owned()),
        // Longer than for series: nobody waits for a round, and a frozen scaler must not be followed at once.
        lease: LeaseLimits {
            electorate: home.electorate,
            lease: ms(4_000),
            promise: ms(5_000),
            renew: ms(1_000),
        },
    };
    let hosting = Hosting { stop_within: STOP_WITHIN, restart_after: RESTART_AFTER };
    let cluster = home.cluster.clone();
    let handle = cluster.singleton::<ToScaler>(spec, hosting, move |_fence| start(&home))?;
    Ok(handle.address())
}

/// One life of it. What it decides is safe beside a second scaler, so the fence is not asked: slots have unique names,
/// and machines are changed under holds.
fn start(home: &Host) -> Result<Hosted<ToScaler>, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::from(format!("scaler: {what}"));
    let config = &home.config.scaler;
    let pools = pools(&home.config, &home.meeting, |_| true).map_err(|error| failed(&error))?;
    let keeper = LedgerKeeper::open(config).map_err(|error| failed(&error))?;
    let mut groups = BTreeMap::new();
    for group in &config.groups {
        let parts = parts_of(home, group, &config.calendars).map_err(|e| failed(&e))?;
        groups.insert(group.spec.name.clone(), parts);
    }
    let (book, picture) = (Arc::<Mutex<Book>>::default(), Arc::clone(&home.picture));
    let nudges = Mailbox::new(NUDGES, Arc::clone(&home.clock));
    let asks = Mailbox::new(DESK_QUEUE, Arc::clone(&home.clock));
    let (rounds, address) = (nudges.address(), asks.address());
    let group_names = names(&groups);
    let cluster = home.cluster.clone();
    let parts = Parts {
        controller: Controller::new(config.fleet()),
        pools,
        groups,
        book: Arc::clone(&book),
        keeper: Box::new(keeper),
        clock: Arc::clone(&home.clock),
        every: config.evaluate_every,
        stale_after: config.stale_after,
        dry_run: config.dry_run,
        picture: Arc::clone(&picture),
        round_trips: Box::new(move || round_trips(&cluster)),
        seed: rand::random(),
    };
    // A life has one set of parts; a scaler that fell over begins anew as a whole, from what it finds.
    let parts = Mutex::new(Some(parts));
    let clock = Arc::clone(&home.clock);
    let mut children = Children::new(Strategy::OneForAll);
    children.worker(ChildSpec::new("scaler-rounds"), nudges, move || {
        let parts = parts.lock().take();
        parts.map(Rounds::new).ok_or_else(|| Failure::from("it is started anew as a whole"))
    });
    let desk = move || {
        Ok(Desk {
            book: Arc::clone(&book),
            picture: Arc::clone(&picture),
            groups: group_names.clone(),
            rounds: rounds.clone(),
            clock: Arc::clone(&clock),
        })
    };
    children.worker(ChildSpec::new("scaler-desk"), asks, desk);
    let tree =
        Tree::start(children, Arc::clone(&home.clock), rand::random()).map_err(|error| failed(&error))?;
    Ok(Hosted { tree, address })
}

fn parts_of(
    home: &Host,
    group: &GroupConfig,
    known: &Calendars,
) -> Result<GroupParts, Box<dyn std::error::Error>> {
    let followed = group.markets.iter().map(|name| known.get(name).cloned());
    let followed = followed.collect::<Result<Vec<_>, _>>()?;
    let season = match followed.first() {
        Some(calendar) => Season::Market(Arc::clone(calendar)),
        None => Season::Week(jiff::tz::TimeZone::UTC),
    };
    let model = &home.config.scaler.demand_model;
    let found = Forecaster::find(&home.system, &home.clock, &home.runtime, model);
    if found.is_none() && !model.is_empty() {
        warn!(model, "forecasts no demand: it is not served here, or needs more than one series");
    }
    let model = found.map(|model| Box::new(model) as Box<dyn DemandModel>);
    let mut demand = Demand::new(Forecast::settings(), season.clone(), model).or_else(|error| {
        warn!(%error, "demand is forecast by its season alone");
        Demand::new(Forecast::settings(), season, None)
    })?;
    let mut past = Past::of(&home.config.scaler.dir, &group.spec.name);
    past.recall(&mut demand);
    Ok(GroupParts { calendars: followed, release: group.release.clone(), demand, past })
}

/// Between this node's region and the others; and between two of those as far as a triangle says: no longer than both
/// ways together, which is taken.
fn round_trips(cluster: &Cluster) -> RoundTrips {
    let view = cluster.view();
    let here = view.get(cluster.id()).map(|member| member.region.to_string()).unwrap_or_default();
    let mut nearest = BTreeMap::<String, Duration>::new();
    for member in view.members.values() {
        if let Some(rtt) = cluster.rtt(&member.id).filter(|_| member.id != *cluster.id()) {
            let known = nearest.entry(member.region.to_string()).or_insert(rtt);
            *known = rtt.min(*known);
        }
    }
    nearest.remove(&here);
    let mut trips = RoundTrips::new();
    for (region, rtt) in &nearest {
        trips.insert((here.clone(), region.clone()), *rtt);
        for (other, onward) in nearest.range(region.clone()..).skip(1) {
            trips.insert((region.clone(), other.clone()), *rtt + *onward);
        }
    }
    trips
}
