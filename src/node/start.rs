//! Starts a node, piece by piece: what is read, the actors, the cluster, the series, the models, the HTTP server. What
//! was started before something failed is stopped again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::rt::task::spawn_blocking;
use actix_web::web::Data;
use peregrine_actors::release::KeptRelease;
use peregrine_actors::scorecard::Scorecard;
use peregrine_actors::series::Journal;
use peregrine_actors::stream::Source;
use peregrine_actors::{Settings, System};
use peregrine_fly::Identity;
use peregrine_runtime::watchdog::Watch;
use peregrine_runtime::{Address, Clock, Deadline};
use tracing::warn;

use super::rooms::{GatewayRoom, RoutingRoom};
use super::{Guests, NodeError};
use crate::alerts::{self, Alerts, AlertsRoom, Loops, Origin};
use crate::audit::AuditRecords;
use crate::backends::Factories;
use crate::catalog;
use crate::cluster::{self, Joined, OwnCertificateRoom};
use crate::config::{Config, Holding, Resolved};
use crate::demo::{Demo, Pace, RealPause, Replay};
use crate::gateway::overview::{self, Board};
use crate::gateway::stream::Streams;
use crate::gateway::{self, Shared, SharedParts, Tls, TlsRoom};
use crate::journal::TickJournal;
use crate::memory;
use crate::models;
use crate::releases::{self, Releases};
use crate::reload::{Current, Reload};
use crate::scaler::pools::Meeting;
use crate::scaler::{self, LatestPicture, ToScaler, Told};
use crate::security::{Security, SecurityRoom};
use crate::series::{self, Audience};
use crate::series_store::SeriesStore;
use crate::settings::settings;
use crate::surroundings::{Surroundings, short_series, survey};
use crate::telemetry::Telemetry;

/// An actor that is longer at one message is stuck: twice what bringing a model to a device may take.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// All of a node that has to be stopped.
pub(super) struct Started {
    pub(super) server: Server,
    pub(super) addr: SocketAddr,
    pub(super) system: System,
    pub(super) reload: Arc<Reload>,
    pub(super) joined: Option<Joined>,
    /// Closed when the last answer was given.
    pub(super) records: Option<Arc<AuditRecords>>,
    /// Likewise.
    pub(super) telemetry: Option<Arc<Telemetry>>,
}

/// What is read before the actors start.
struct Stock {
    entries: Vec<catalog::Entry>,
    series: SeriesStore,
    replay: Option<Replay>,
    releases: Option<(Releases, releases::Kept)>,
    records: Option<Arc<AuditRecords>>,
    telemetry: Option<Arc<Telemetry>>,
}

pub(super) async fn start(
    mut resolved: Resolved,
    factories: Factories,
    guests: Guests,
    clock: &Arc<dyn Clock>,
) -> Result<Started, NodeError> {
    let Surroundings { mut entries, data: series, replay, unknown_models, unplaced, overlooked } =
        survey(&resolved, clock.wall())?;
    if resolved.config.scaler.enabled && resolved.config.cluster.is_none() {
        resolved.config.cluster = Some(scaler::home_of(&resolved.config.scaler)?);
    }
    let config = &resolved.config;
    let mut settings = Settings { cpu_first: factories.cpu_first, ..settings(config, factories.placement) };
    let of_others = |name: &&String| config.holding(name) == Holding::No;
    let named = entries.iter().map(|entry| &entry.name).chain(config.placement.keys());
    settings.models_of_others = named.filter(of_others).cloned().collect();
    entries.retain(|entry| config.holding(&entry.name) != Holding::No);
    for overlooked in overlooked {
        warn!("{overlooked}");
    }
    for unplaced in unplaced {
        warn!(key = unplaced.key, at = %unplaced.origin, "{}", unplaced.message);
    }
    for unknown in unknown_models {
        warn!(key = unknown.key, at = %unknown.origin, "has no effect yet: {}", unknown.message);
    }
    let releases = open_releases(config).await?;
    let records = open_audit(config, clock).await?;
    // The seed of a real node is chance; simulations bring their own.
    let has_meters = factories.meters.is_some();
    let system = System::start_metered(
        settings,
        factories.cpu,
        factories.gpus,
        factories.meters,
        clock.clone(),
        rand::random(),
    )?;
    if let Some(records) = &records {
        system.attach_audit(Arc::clone(records.audit()));
    }
    let telemetry = start_telemetry(config, &system, clock)?;
    let drain = config.server.drain;
    let mut joined = None;
    let guests = Guests { has_meters, ..guests };
    let stock =
        Stock { entries, series, replay, releases, records: records.clone(), telemetry: telemetry.clone() };
    match serve_models(&system, stock, resolved, guests, clock, &mut joined).await {
        Ok((server, addr, reload)) => {
            Ok(Started { server, addr, system, reload, joined, records, telemetry })
        }
        Err(failed) => {
            let deadline = Deadline::after(clock.now(), drain);
            if let Some(joined) = joined {
                joined.drain(deadline, async {}).await;
            }
            system.stop(deadline).await;
            Err(failed)
        }
    }
}

async fn serve_models(
    system: &System,
    stock: Stock,
    resolved: Resolved,
    guests: Guests,
    clock: &Arc<dyn Clock>,
    joined: &mut Option<Joined>,
) -> Result<(Server, SocketAddr, Arc<Reload>), NodeError> {
    let Stock { entries, series, replay, releases, records, telemetry } = stock;
    let Guests { mut rooms, feed, has_meters, .. } = guests;
    let config = &resolved.config;
    let current = Current::new(config.clone());
    let security = Security::start(&config.security)?;
    let tls = config.server.tls.as_ref().map(|files| Tls::start(files, clock.wall())).transpose()?;
    let alerts = start_alerts(config, clock)?;
    // Before anybody hears of this node: what it kept may be what they lack.
    let journal = open_journal(config, clock).await?;
    let mut platform = None;
    if let Some(part) = &config.cluster {
        platform = Identity::read(|name| std::env::var(name).ok())?;
        *joined = Some(cluster::join(part, system, &current, platform.as_ref(), clock).await?);
    }
    let machine = platform.as_ref().map(|identity| identity.machine.clone());
    let hub = gateway::stream::hub(&config.stream);
    let scorecard = Arc::<Scorecard>::default();
    system.attach_scorecard(Arc::clone(&scorecard));
    let audience = Audience { hub: hub.clone(), scorecard: Arc::clone(&scorecard) };
    let kept = journal.clone().map(|journal| journal as Arc<dyn Journal>);
    let live = series::start(system, clock, &current, joined.as_mut(), kept, audience)?;
    let source = match feed {
        Some(feed) => feed(&hub),
        None => Arc::clone(&live.source),
    };
    let (releases, kept) = releases.unzip();
    let mut kept: releases::Kept = kept.unwrap_or_default();
    let pinned = config.models.versions.iter();
    kept.extend(pinned.map(|(model, version)| (model.clone(), KeptRelease::whole(*version))));
    let stable: BTreeMap<String, u32> =
        kept.iter().map(|(model, kept)| (model.clone(), kept.stable)).collect();
    releases::resume(system, kept).await?;
    let refusals = models::bring_in(system, entries, config.models.vault.clone(), stable.clone()).await?;
    for model in stable.keys() {
        system.loaded(model).await;
    }
    // Beside all that follows: nothing waits for either.
    drop(spawn_blocking(memory::trim));
    let gpus = system.clone();
    actix_web::rt::spawn(async move {
        gpus.bring_gpus().await;
        drop(spawn_blocking(memory::trim));
    });
    let served = system.models();
    for short in short_series(&resolved, served.iter().map(|model| &*model.spec))? {
        warn!(key = short.key, at = %short.origin, "series are too short for a model: {}", short.message);
    }
    if let Some(default) = &config.models.default
        && config.holding(default) != Holding::No
        && system.find(default, None).is_err()
    {
        let reason = refusals.reason_of(default).unwrap_or_else(|| "no repository holds it".to_owned());
        return Err(NodeError::NoDefault { model: default.clone(), reason });
    }
    let (server, stream_config) = (config.server.clone(), config.stream.clone());
    let rate = config.demo.as_ref().map(|demo| demo.rate);
    let columns = series.columns().to_vec();
    rooms.push(Box::new(GatewayRoom { system: system.clone(), columns, current: current.clone() }));
    rooms.push(Box::new(RoutingRoom { system: system.clone() }));
    rooms.push(Box::new(SecurityRoom(Arc::clone(&security))));
    rooms.push(Box::new(AlertsRoom { alerts: Arc::clone(&alerts), clock: Arc::clone(clock) }));
    if let Some(tls) = &tls {
        rooms.push(Box::new(TlsRoom { tls: Arc::clone(tls), clock: Arc::clone(clock) }));
    }
    let certificate = joined.as_ref().and_then(|joined| joined.certificate.clone());
    if let Some(certificate) = &certificate {
        rooms.push(Box::new(OwnCertificateRoom(Arc::clone(certificate))));
    }
    let window = config.alerts.window;
    let files = resolved.sources().files.clone();
    let picture = LatestPicture::default();
    let scaler = match joined.as_ref() {
        Some(joined) => Some(reach_scaler(config, files, joined, system, &picture, clock)?),
        None => None,
    };
    let reload = Arc::new(Reload::new(resolved, rooms));
    let part = joined.as_ref().map(|joined| joined.cluster.clone());
    let overviews = Arc::<Board>::default();
    if let Some(joined) = joined.as_mut() {
        joined.overview = Some(overview::open(&joined.cluster, &overviews, clock)?);
    }
    let trees = joined.as_ref().map(Joined::trees).unwrap_or_default();
    let others_inside = joined.as_ref().map(Joined::inside);
    let told = Arc::<Told>::default();
    let watch = Watch::start(system.tree().pulses(), STUCK_AFTER, Arc::clone(clock), |_| {});
    let demo = replay.zip(rate).map(|(replay, rate)| start_demo(replay, rate, system, &source, clock));
    let (stream, keeper) = Streams::start(stream_config, hub, source, clock.clone());
    drop(actix_web::rt::spawn(keeper)); // it ends with the node's thread
    let loops = Arc::<Loops>::default();
    loops.watch("node", clock);
    let shared = Data::new(Shared::new(SharedParts {
        system: system.clone(),
        refusals,
        clock: clock.clone(),
        series,
        live,
        current,
        reload: Arc::clone(&reload),
        cluster: part,
        platform,
        watch,
        alerts: Arc::clone(&alerts),
        loops,
        has_meters,
        stream,
        tls,
        certificate,
        security,
        scorecard,
        journal,
        records,
        releases,
        telemetry,
        demo,
        told,
        picture,
        scaler: scaler.clone(),
        overviews,
        trees,
    }));
    if let (Some(cluster), Some(scaler), Some(inside)) = (shared.cluster.clone(), scaler, others_inside) {
        let speaking = scaler::speak(shared.clone(), cluster, scaler, machine, inside);
        drop(actix_web::rt::spawn(speaking)); // it ends with the node's thread
    }
    let feeds = alerts::of_node(&shared, window);
    drop(actix_web::rt::spawn(alerts::keep(alerts, feeds, clock.clone()))); // it ends with the node's thread
    drop(actix_web::rt::spawn(overview::keep(Arc::clone(&shared)))); // it ends with the node's thread
    drop(actix_web::rt::spawn(gateway::follow_releases(Arc::clone(&shared)))); // it ends with the node's thread
    drop(actix_web::rt::spawn(gateway::keep_releases(Arc::clone(&shared)))); // it ends with the node's thread
    let bound = gateway::bind(&server, shared);
    let (server, addr) = bound.map_err(|source| NodeError::Listen { listen: server.listen, source })?;
    Ok((server, addr, reload))
}

/// Takes part in running the scaler, where this node does, and finds the way to it.
fn reach_scaler(
    config: &Config,
    files: Vec<PathBuf>,
    joined: &Joined,
    system: &System,
    picture: &LatestPicture,
    clock: &Arc<dyn Clock>,
) -> Result<Address<ToScaler>, NodeError> {
    if !config.scaler.enabled {
        return Ok(joined.cluster.singleton_address(scaler::NAME)?);
    }
    let meeting = Meeting { files, seeds: vec![joined.addr().to_string()], ..scaler::meeting(config) };
    Ok(scaler::host(scaler::Host {
        cluster: joined.cluster.clone(),
        system: system.clone(),
        runtime: joined.runtime(),
        clock: Arc::clone(clock),
        picture: Arc::clone(picture),
        config: config.clone(),
        meeting,
        electorate: config.cluster.as_ref().map_or(1, |part| part.size),
    })?)
}

/// The traces of this node, and of what others ask of it.
fn start_telemetry(
    config: &Config,
    system: &System,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<Telemetry>>, NodeError> {
    let Some(part) = &config.tracing else { return Ok(None) };
    let telemetry = Telemetry::start(part, &config.node, Arc::clone(clock), rand::random())?;
    system.attach_spans(telemetry.sink());
    Ok(Some(Arc::new(telemetry)))
}

fn start_alerts(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<Alerts>, NodeError> {
    let origin = Origin { node: config.node.name.to_string(), region: config.node.region.to_string() };
    Alerts::start(&config.alerts, origin, Arc::clone(clock), rand::random()).map_err(NodeError::Alerts)
}

/// Reads all of it: not on the node's thread.
async fn open_journal(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<TickJournal>>, NodeError> {
    let Some(part) = config.journal.clone() else { return Ok(None) };
    let clock = Arc::clone(clock);
    let opened = spawn_blocking(move || TickJournal::open(&part, clock)).await;
    let (journal, _found) = opened.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
    Ok(Some(Arc::new(journal)))
}

/// Reads a file: not on the node's thread.
async fn open_releases(config: &Config) -> Result<Option<(Releases, releases::Kept)>, NodeError> {
    let Some(dir) = config.models.releases.clone() else { return Ok(None) };
    let opened = spawn_blocking(move || Releases::open(&dir)).await;
    Ok(Some(opened.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?))
}

/// Reads the last segment: not on the node's thread.
async fn open_audit(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<AuditRecords>>, NodeError> {
    let Some(part) = config.audit.clone() else { return Ok(None) };
    let (node, clock) = (config.node.clone(), Arc::clone(clock));
    let opened = spawn_blocking(move || AuditRecords::open(&part, &node, clock)).await;
    let (records, _found) = opened.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
    Ok(Some(Arc::new(records)))
}

/// Starts to replay the data, so that windows of every model fill at once.
fn start_demo(
    replay: Replay,
    rate: f64,
    system: &System,
    source: &Arc<dyn Source>,
    clock: &Arc<dyn Clock>,
) -> Demo {
    let history_len = system.models().iter().map(|model| model.spec.window).max().unwrap_or(0);
    let pace = Pace { history_len, rate };
    Demo::start(replay, pace, Arc::clone(source), Arc::clone(clock), Arc::new(RealPause))
}
