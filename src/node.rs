//! One node: start order (catalog, series, system, cluster, models, HTTP server; in `start`) and stop order (the reverse).
//!
//! Decides nothing else. A node lives on a thread of its own, so that tests start several in one process.

mod rooms;
mod start;

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peregrine_actors::stream::{Hub, Source};
use peregrine_actors::{StartError, System};
use peregrine_fly::IdentityError;
use peregrine_runtime::singleton::SingletonError;
use peregrine_runtime::{Clock, Deadline, NodeId, SystemClock, View};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use self::start::{Started, start};
use crate::audit;
use crate::backends::{self, BackendError, Factories};
use crate::catalog::CatalogError;
use crate::cluster::ClusterError;
use crate::cluster::series::SeriesError;
use crate::config::{Config, ConfigError, Resolved};
use crate::gateway::TlsError;
use crate::gateway::overview::OverviewError;
use crate::journal::OpenError;
use crate::models::ModelError;
use crate::open_files;
use crate::releases::ReleasesError;
use crate::reload::{Reload, Room};
use crate::scaler::home::HomeError;
use crate::security::KeysError;
use crate::surroundings::SurveyError;

/// Who is in the cluster, as that changes.
type Views = watch::Receiver<Arc<View>>;

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
    views: Option<Views>,
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
    /// What the configuration names is not so, or contradicts the models.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device that was asked for is not there.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The actors did not start.
    #[error("actors: {0}")]
    System(#[from] StartError),
    /// The cluster cannot be joined.
    #[error("cluster: {0}")]
    Cluster(#[from] ClusterError),
    /// What was kept of releases cannot be used.
    #[error("releases: {0}")]
    Releases(#[from] ReleasesError),
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
    /// The address cannot be bound.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The operating system lets the process open too few files.
    #[error(
        "{limit} files may be open at once, and this configuration needs {needed}: raise the hard limit (`ulimit -Hn`)"
    )]
    Files {
        /// Open at once.
        limit: u64,
        /// By this configuration.
        needed: u64,
    },
    /// The operating system gives no thread, or no signals.
    #[error("operating system: {0}")]
    Os(#[from] io::Error),
    /// The node's thread died before it was ready.
    #[error("the node died while it started")]
    Died,
}

impl From<SurveyError> for NodeError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Catalog(error) => error.into(),
            SurveyError::Config(error) => error.into(),
        }
    }
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
        let (addr, system, reload, views) = ready.recv().map_err(|_| NodeError::Died)??;
        Ok(Self { addr, system, reload, views, scheme, stop: Some(stop), thread: Some(thread) })
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
/// before that one that it cannot yet, where that is so; `tells_members`: after that one at each change of who is there.
/// SIGHUP reads the configuration again.
///
/// # Errors
/// When it does not start.
pub fn serve(resolved: Resolved, rooms: Vec<Box<dyn Room>>, tells_members: bool) -> Result<(), NodeError> {
    check_files(&resolved.config)?;
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
        announce(&format!("ready {}", node.url()));
    } else {
        // The first is the reason; others may pass meanwhile.
        let reason = health.reasons.first().map_or("well again, but not for long", String::as_str);
        announce(&format!("listening {}, not ready: {reason}", node.url()));
        if node.system.models().is_empty() {
            warn!(
                "nothing is served: put a model's folder into one of models.repositories and POST /v1/models/NAME/load, or \
                 start again with --models"
            );
        }
    }
    let mut views = node.views.clone().filter(|_| tells_members);
    if let Some(views) = &mut views {
        views.mark_changed(); // the first view counts as well
    }
    let mut told = String::new();
    let name = runtime.block_on(async {
        let mut signal = std::pin::pin!(signal);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                name = &mut signal => return name,
                // What comes of it is logged and counted; nobody waits for it.
                Some(()) = hangups.recv() => drop(node.reload.reread()),
                _ = look.tick(), if !is_announced => {
                    is_announced = node.system.health().ready;
                    if is_announced {
                        announce(&format!("ready {}", node.url()));
                    }
                }
                Some(line) = members(&mut views), if views.is_some() => {
                    if line != told {
                        announce(&line);
                        told = line;
                    }
                }
            }
        }
    });
    info!(signal = name, "stopping");
    node.stop();
    info!("stopped");
    Ok(())
}

/// Who is there by the next view.
async fn members(views: &mut Option<Views>) -> Option<String> {
    let views = views.as_mut()?;
    views.changed().await.ok()?;
    let view = views.borrow_and_update();
    let names: Vec<&str> = view.members.keys().map(NodeId::as_str).collect();
    Some(format!("members {}", names.join(" ")))
}

/// Threads that get no file for their event loop would die one by one, and a node that says it is ready would not answer.
fn check_files(config: &Config) -> Result<(), NodeError> {
    let (limit, needed) = (open_files::raised_limit(), open_files::needed(config));
    if limit < needed {
        return Err(NodeError::Files { limit, needed });
    }
    let connections = limit - needed;
    if connections < config.server.connections_max as u64 {
        warn!(
            limit,
            connections, "fewer files may be open than server.connections_max asks for: others wait"
        );
    }
    Ok(())
}

/// Whoever has started the node may have read enough, or be gone: that is no reason to end.
fn announce(line: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        warn!(%error, line, "nobody reads what is said on stdout");
    }
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

type Ready = Result<(SocketAddr, System, Arc<Reload>, Option<Views>), NodeError>;

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
    let views = joined.as_ref().map(|joined| joined.cluster.views());
    if ready.send(Ok((addr, system.clone(), reload, views))).is_ok() {
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
