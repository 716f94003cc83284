//! One node: start order (catalog, series, system, cluster, models, HTTP server) and stop order (the reverse).
//!
//! Decides nothing else. A node lives on a thread of its own, so that tests start several in one process.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::rt::task::spawn_blocking;
use actix_web::web::Data;
use peregrine_actors::scorecard::Scorecard;
use peregrine_actors::series::Journal;
use peregrine_actors::stream::{Hub, Source};
use peregrine_actors::{StartError, System};
use peregrine_fly::{Identity, IdentityError};
use peregrine_runtime::singleton::SingletonError;
use peregrine_runtime::watchdog::Watch;
use peregrine_runtime::{Address, Clock, Deadline, SystemClock};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::alerts::{self, Alerts, AlertsRoom, Loops, Origin};
use crate::audit::{self, AuditRecords};
use crate::backends::{self, BackendError, Factories};
use crate::catalog::{self, CatalogError};
use crate::cluster::series::SeriesError;
use crate::cluster::{self, ClusterError, Joined};
use crate::config::{Config, DemoConfig, Holding, Resolved};
use crate::demo::{Demo, Pace, RealPause, Replay, ReplayError};
use crate::gateway::overview::{self, Board, OverviewError};
use crate::gateway::stream::Streams;
use crate::gateway::{self, Shared, SharedParts, Tls, TlsError, TlsRoom};
use crate::journal::{OpenError, TickJournal};
use crate::memory;
use crate::models::{self, ModelError};
use crate::reload::{Current, Reload, Room, Staged};
use crate::scaler::home::HomeError;
use crate::scaler::pools::Meeting;
use crate::scaler::{self, LatestPicture, ToScaler, Told};
use crate::security::{KeysError, Security, SecurityRoom};
use crate::series::{self, Audience};
use crate::series_store::{DataError, SeriesStore};
use crate::settings::settings;
use crate::telemetry::Telemetry;

/// An actor that is longer at one message is stuck: twice what bringing a model to a device may take.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// What the last spans have to leave a node at least.
const TRACES_WITHIN: Duration = Duration::from_secs(2);

/// A running node. Dropping it stops it.
pub struct Node {
    /// Where it listens; the port is the real one.
    pub addr: SocketAddr,
    /// Its actors.
    pub system: System,
    /// Its configuration.
    pub reload: Arc<Reload>,
    scheme: &'static str,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A node did not start, or could not go on; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A repository cannot be listed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// No model can be served, or no device serves one.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The default model is in no repository, or cannot be served.
    #[error("models.default is `{model}`, which is not served: {reason}")]
    NoDefault {
        /// Its name.
        model: String,
        /// Why.
        reason: String,
    },
    /// The series file cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device that was asked for is not there.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The actors did not start.
    #[error("actors: {0}")]
    System(#[from] StartError),
    /// The cluster cannot be joined.
    #[error("cluster: {0}")]
    Cluster(#[from] ClusterError),
    /// The ticks on disk cannot be used.
    #[error("journal: {0}")]
    Journal(#[from] OpenError),
    /// The records of predictions cannot be written.
    #[error("audit: {0}")]
    Audit(#[from] audit::OpenError),
    /// The live series did not start.
    #[error("series: {0}")]
    Series(#[from] SeriesError),
    /// Other nodes could not ask how this one is.
    #[error("overview: {0}")]
    Overview(#[from] OverviewError),
    /// The certificate of the public port cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The file of API keys cannot be used.
    #[error("keys: {0}")]
    Keys(#[from] KeysError),
    /// The webhook of alerts cannot be used.
    #[error("alerts: {0}")]
    Alerts(String),
    /// The machines that it starts here would not find it.
    #[error("scaler: {0}")]
    Home(#[from] HomeError),
    /// The scaler cannot be reached.
    #[error("scaler: {0}")]
    Scaler(#[from] SingletonError),
    /// The platform contradicts itself.
    #[error("platform: {0}")]
    Platform(#[from] IdentityError),
    /// The data cannot be replayed.
    #[error("demo: {0}")]
    Demo(#[from] ReplayError),
    /// The address cannot be bound.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The operating system gives no thread, or no signals.
    #[error("operating system: {0}")]
    Os(#[from] io::Error),
    /// The node's thread died before it was ready.
    #[error("the node died while it started")]
    Died,
}

impl Node {
    /// Starts a node and returns when it can answer.
    ///
    /// # Errors
    /// See [`NodeError`]; whatever had been started is stopped again.
    pub fn start(resolved: Resolved) -> Result<Self, NodeError> {
        let factories = backends::factories(&resolved.config.backend)?;
        Self::start_with(resolved, factories, Vec::new())
    }

    /// As [`Node::start_with`], with series that are fed from elsewhere: benches and tests.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn start_fed(resolved: Resolved, factories: Factories, feed: Feed) -> Result<Self, NodeError> {
        Self::start_whole(resolved, factories, Guests { feed: Some(feed), ..Guests::default() })
    }

    /// As [`Node::start_with`], by a clock of the caller's, whose time of day may be anything: tests.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn start_clocked(
        resolved: Resolved,
        factories: Factories,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NodeError> {
        let guests = Guests { clock, ..Guests::default() };
        Self::start_whole(resolved, factories, guests)
    }

    /// As [`Node::start`], on executors that the caller chose, and with rooms of the caller's that must agree to
    /// another configuration.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn start_with(
        resolved: Resolved,
        factories: Factories,
        rooms: Vec<Box<dyn Room>>,
    ) -> Result<Self, NodeError> {
        Self::start_whole(resolved, factories, Guests { rooms, ..Guests::default() })
    }

    fn start_whole(resolved: Resolved, factories: Factories, guests: Guests) -> Result<Self, NodeError> {
        let (ready_to, ready) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let scheme = if resolved.config.server.tls.is_some() { "https" } else { "http" };
        let body = move || {
            actix_web::rt::System::new().block_on(live(resolved, factories, guests, ready_to, stopped));
        };
        let thread = thread::Builder::new().name("node".to_owned()).spawn(body)?;
        let (addr, system, reload) = ready.recv().map_err(|_| NodeError::Died)??;
        Ok(Self { addr, system, reload, scheme, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    /// Stops taking requests, lets those inside finish within the configured drain, stops the actors.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("node thread panicked");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// How often a node that listens and is not ready is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs a node until SIGTERM or SIGINT: what `peregrine serve` does. One line on stdout says that it can answer, and
/// before that one that it cannot yet, where that is so. SIGHUP reads the configuration again.
///
/// # Errors
/// When it does not start.
pub fn serve(resolved: Resolved, rooms: Vec<Box<dyn Room>>) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the node starts: a signal while models load must not be lost.
    let (signal, mut hangups) = runtime.block_on(async { io::Result::Ok((signals()?, hangups()?)) })?;
    let factories = backends::factories(&resolved.config.backend)?;
    // In a cluster each of several may be waited for before the next is started, and one without models is ready only
    // when another is there: to be there is enough.
    let is_one_of_many = resolved.config.cluster.is_some() || resolved.config.scaler.enabled;
    let node = Node::start_with(resolved, factories, rooms)?;
    let health = node.system.health();
    let mut is_announced = is_one_of_many || health.ready;
    if is_announced {
        announce(&format!("ready {}", node.url()))?;
    } else {
        // The first is the reason; others may pass meanwhile.
        let reason = health.reasons.first().map_or("well again, but not for long", String::as_str);
        announce(&format!("listening {}, not ready: {reason}", node.url()))?;
        if node.system.models().is_empty() {
            warn!(
                "nothing is served: put a model's folder into one of models.repositories and POST /v1/models/NAME/load, or \
                 start again with --models"
            );
        }
    }
    let name = runtime.block_on(async {
        let mut signal = std::pin::pin!(signal);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                name = &mut signal => return io::Result::Ok(name),
                // What comes of it is logged and counted; nobody waits for it.
                Some(()) = hangups.recv() => drop(node.reload.reread()),
                _ = look.tick(), if !is_announced => {
                    is_announced = node.system.health().ready;
                    if is_announced {
                        announce(&format!("ready {}", node.url()))?;
                    }
                }
            }
        }
    })?;
    info!(signal = name, "stopping");
    node.stop();
    info!("stopped");
    Ok(())
}

fn announce(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Each asks the process to read its files again.
pub(crate) fn hangups() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
}

/// Resolves to the name of the first signal that asks the process to stop.
pub(crate) fn signals() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Makes the source of a node's predictions, which publishes to the hub that it is given.
pub type Feed = Box<dyn FnOnce(&Hub) -> Arc<dyn Source> + Send>;

/// What a caller brings of its own.
struct Guests {
    rooms: Vec<Box<dyn Room>>,
    feed: Option<Feed>,
    /// Whether the factories brought meters.
    has_meters: bool,
    clock: Arc<dyn Clock>,
}

impl Default for Guests {
    fn default() -> Self {
        Self { rooms: Vec::new(), feed: None, has_meters: false, clock: Arc::new(SystemClock) }
    }
}

type Ready = Result<(SocketAddr, System, Arc<Reload>), NodeError>;

/// All of a node that has to be stopped.
struct Started {
    server: Server,
    addr: SocketAddr,
    system: System,
    reload: Arc<Reload>,
    joined: Option<Joined>,
    /// Closed when the last answer was given.
    records: Option<Arc<AuditRecords>>,
    /// Likewise.
    telemetry: Option<Arc<Telemetry>>,
}

/// What is read before the actors start.
struct Stock {
    entries: Vec<catalog::Entry>,
    series: SeriesStore,
    records: Option<Arc<AuditRecords>>,
    telemetry: Option<Arc<Telemetry>>,
}

/// The whole life of a node, on its own thread.
async fn live(
    resolved: Resolved,
    factories: Factories,
    guests: Guests,
    ready: mpsc::SyncSender<Ready>,
    stopped: oneshot::Receiver<()>,
) {
    let clock = Arc::clone(&guests.clock);
    let drain = resolved.config.server.drain;
    let Started { server, addr, system, reload, joined, records, telemetry } =
        match start(resolved, factories, guests, &clock).await {
            Ok(started) => started,
            Err(failed) => {
                let _ = ready.send(Err(failed)); // the starter waits for it
                return;
            }
        };
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    if ready.send(Ok((addr, system.clone(), reload))).is_ok() {
        info!(%addr, "listening");
        let _ = stopped.await; // a dropped node says stop as well
    }
    let deadline = Deadline::after(clock.now(), drain);
    let finished = Cell::new(false);
    let finish = async {
        handle.stop(true).await;
        finished.set(true);
    };
    match joined {
        Some(joined) => joined.drain(deadline, finish).await,
        None => drop(tokio::time::timeout_at(deadline.instant().into(), finish).await),
    }
    if !finished.get() {
        warn!("connections were cut: the drain time is over");
        handle.stop(false).await;
    }
    if let Ok(Err(failed)) = running.await {
        error!(error = %failed, "http server failed");
    }
    system.stop(deadline).await;
    if let Some(records) = records {
        records.close(); // nobody else is on this thread any more
    }
    if let Some(telemetry) = telemetry {
        // What was answered at the very end is to be seen too, whatever was left of the drain.
        let deadline = deadline.instant().max(clock.now() + TRACES_WITHIN);
        telemetry.close(Deadline::at(deadline));
    }
}

async fn start(
    mut resolved: Resolved,
    factories: Factories,
    guests: Guests,
    clock: &Arc<dyn Clock>,
) -> Result<Started, NodeError> {
    if resolved.config.scaler.enabled && resolved.config.cluster.is_none() {
        resolved.config.cluster = Some(scaler::home_of(&resolved.config.scaler)?);
    }
    let config = &resolved.config;
    let mut entries = catalog::scan(&config.models.repositories)?;
    let unknown = resolved.unknown_models(&catalog::names(&entries));
    let mut settings = settings(config, factories.placement);
    let of_others = |name: &&String| config.holding(name) == Holding::No;
    let named = entries.iter().map(|entry| &entry.name).chain(config.placement.keys());
    settings.models_of_others = named.filter(of_others).cloned().collect();
    entries.retain(|entry| config.holding(&entry.name) != Holding::No);
    for overlooked in catalog::overlooked(&config.models.repositories)? {
        warn!("{overlooked}");
    }
    let series = config.data.file.as_deref().map(SeriesStore::load).transpose()?.unwrap_or_default();
    let unheard =
        if config.data.file.is_some() { resolved.unknown_columns(series.columns()) } else { Vec::new() };
    for mistake in unknown.into_iter().chain(unheard) {
        warn!(key = mistake.key, at = %mistake.origin, "has no effect: {}", mistake.message);
    }
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
    let stock = Stock { entries, series, records: records.clone(), telemetry: telemetry.clone() };
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
    let Stock { entries, series, records, telemetry } = stock;
    let Guests { mut rooms, feed, has_meters, .. } = guests;
    let config = &resolved.config;
    let current = Current::new(config.clone());
    let security = Security::start(&config.security)?;
    let tls = config.server.tls.as_ref().map(Tls::start).transpose()?;
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
    let refusals = models::bring_in(system, entries, config.models.vault.clone()).await?;
    memory::trim();
    if let Some(default) = &config.models.default
        && config.holding(default) != Holding::No
        && system.find(default, None).is_err()
    {
        let reason = refusals.reason_of(default).unwrap_or_else(|| "no repository holds it".to_owned());
        return Err(NodeError::NoDefault { model: default.clone(), reason });
    }
    let (server, stream_config, demo) = (config.server.clone(), config.stream.clone(), config.demo.clone());
    let columns = series.columns().to_vec();
    rooms.push(Box::new(GatewayRoom { system: system.clone(), columns, current: current.clone() }));
    rooms.push(Box::new(RoutingRoom { system: system.clone() }));
    rooms.push(Box::new(SecurityRoom(Arc::clone(&security))));
    rooms.push(Box::new(AlertsRoom { alerts: Arc::clone(&alerts), clock: Arc::clone(clock) }));
    if let Some(tls) = &tls {
        rooms.push(Box::new(TlsRoom(Arc::clone(tls))));
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
    let demo = match demo {
        Some(demo) => Some(replay(&demo, &series, system, Arc::clone(&source), clock)?),
        None => None,
    };
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
        security,
        scorecard,
        journal,
        records,
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

/// Reads the last segment: not on the node's thread.
async fn open_audit(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<AuditRecords>>, NodeError> {
    let Some(part) = config.audit.clone() else { return Ok(None) };
    let (node, clock) = (config.node.clone(), Arc::clone(clock));
    let opened = spawn_blocking(move || AuditRecords::open(&part, &node, clock)).await;
    let (records, _found) = opened.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
    Ok(Some(Arc::new(records)))
}

/// Starts to replay the data, so that windows of every model fill at once.
fn replay(
    demo: &DemoConfig,
    data: &SeriesStore,
    system: &System,
    source: Arc<dyn Source>,
    clock: &Arc<dyn Clock>,
) -> Result<Demo, NodeError> {
    let replay = Replay::new(data, &demo.prefix, &demo.column)?;
    let history_len = system.models().iter().map(|model| model.spec.window).max().unwrap_or(0);
    let pace = Pace { history_len, rate: demo.rate };
    Ok(Demo::start(replay, pace, source, Arc::clone(clock), Arc::new(RealPause)))
}

/// What requests are read by: limits, deadlines, the default model and the columns of the data.
struct GatewayRoom {
    system: System,
    /// Of the data; empty without data.
    columns: Vec<String>,
    current: Current,
}

impl Room for GatewayRoom {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let now = self.current.get();
        if next.models.default != now.models.default
            && let Some(default) = &next.models.default
            && next.holding(default) != Holding::No
            && self.system.find(default, None).is_err()
        {
            return Err(format!("model `{default}` is not served"));
        }
        let known = |column: &&String| self.columns.is_empty() || self.columns.contains(*column);
        let new = [&next.data.column].into_iter().chain(next.data.columns.values());
        let was = |column: &&String| {
            now.data.column == **column || now.data.columns.values().any(|known| known == *column)
        };
        if let Some(column) = new.into_iter().find(|column| !known(column) && !was(column)) {
            return Err(format!("the data have no column `{column}`"));
        }
        Ok(self.current.stage(next))
    }
}

/// How other nodes are asked.
struct RoutingRoom {
    system: System,
}

impl Room for RoutingRoom {
    fn name(&self) -> &'static str {
        "routing"
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let (system, routing) = (self.system.clone(), cluster::routing(next));
        // A node that is alone asks nobody.
        Ok(Box::new(move || {
            system.set_routing(routing);
        }))
    }
}
