//! This node's part in its cluster: it meets the others, says what it serves, asks them and answers them.
//!
//! The shell between `peregrine_runtime`, which knows no forecasts, and `peregrine_actors`, which knows no network.
//! Runs on threads of its own, so that a busy gateway does not make a node look dead.

mod credentials;
mod discovery;
mod forecast;
mod herald;
mod offer;
mod peers;
mod routing;
mod seats;
pub(crate) mod series;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use peregrine_actors::System;
use peregrine_fly::Identity;
use peregrine_fly::passage::HostMachine;
use peregrine_runtime::{
    BindError, ChildSpec, Children, Clock, Cluster, ClusterConfig as Part, CredentialsError, Deadline,
    Detector, ExportError, Fabric as _, Incarnation, JoinError, Limits, Mailbox, QuicFabric, QuicOptions,
    StartError, Strategy, Tree, TreeView,
};
use tokio::runtime::{Handle, Runtime};
use tracing::{info, warn};

pub(crate) use self::credentials::{OwnCertificate, OwnCertificateRoom, bad_files};
use self::discovery::Seeds;
use self::forecast::{AskForecast, Desk, SERVICE};
pub(crate) use self::herald::{Computed, computed, computing, serving};
pub(crate) use self::offer::{Offer, doubters, elsewhere, machine_of, model_of, servers};
use self::peers::ClusterPeers;
pub(crate) use self::routing::{devices, routing};
use self::seats::Seats;
use self::series::Live;
use crate::backends;
use crate::config::{ClusterConfig, Config, NodeConfig, RoleChoice};
use crate::reload::Current;

/// Requests of other nodes that wait for a desk; it takes them out at once.
const DESK_QUEUE: usize = 256;
/// What a link is given beyond a silent node.
const LINK_GRACE: Duration = Duration::from_millis(200);
/// Longest that the last packets may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The node did not become part of its cluster; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The secret or the files with it cannot be used.
    #[error("credentials: {0}")]
    Credentials(#[from] CredentialsError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The gossip did not start.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The machine's DNS cannot be used.
    #[error("dns: {0}")]
    Resolver(String),
    /// The actors that answer others did not start.
    #[error("actors: {0}")]
    Actors(#[from] StartError),
    /// They have no name to be found by.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The operating system gives no threads.
    #[error("operating system: {0}")]
    Os(#[from] std::io::Error),
}

/// A node's part in its cluster, from joining to leaving.
pub(crate) struct Joined {
    pub(crate) cluster: Cluster,
    /// Its series, once they are started.
    pub(crate) live: Option<Live>,
    /// Answers other nodes that ask how this one is, once the gateway knows.
    pub(crate) overview: Option<Tree>,
    /// `None`: nodes know each other by a secret.
    pub(crate) certificate: Option<Arc<OwnCertificate>>,
    fabric: Arc<QuicFabric>,
    addr: SocketAddr,
    desk: Tree,
    seats: Seats,
    herald: tokio::task::JoinHandle<()>,
    /// Dropped last.
    _threads: Threads,
}

/// Joins the cluster and lets `system` ask the other nodes and answer them.
///
/// # Errors
/// See [`ClusterError`]; whatever had been started is stopped again.
pub(crate) async fn join(
    part: &ClusterConfig,
    system: &System,
    current: &Current,
    platform: Option<&Identity>,
    clock: &Arc<dyn Clock>,
) -> Result<Joined, ClusterError> {
    let config = current.get();
    let node = &config.node;
    let threads = Threads::start()?;
    let runtime = threads.handle.clone();
    let Met { fabric, cluster, certificate } = {
        let (part, node, clock) = (part.clone(), node.clone(), Arc::clone(clock));
        let scales = config.scaler.enabled;
        let met = runtime.spawn(async move { meet(&part, &node, scales, clock).await });
        match met.await {
            Ok(met) => met?,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    };
    let seats = Seats::new(current.clone());
    let desk = open_desk(&cluster, system, &runtime, &seats, clock)?;
    system.attach_peers(Arc::new(ClusterPeers {
        cluster: cluster.clone(),
        here: (node.name.clone(), node.region.clone()),
        config: current.clone(),
    }));
    // Whoever answers callers is where the proxy brings them.
    let is_public = part.roles.contains(&RoleChoice::Gateway);
    let machine = platform.map(|identity| HostMachine::new(identity, is_public));
    let telling = herald::herald(cluster.clone(), system.clone(), Config::clone(&config), machine);
    let herald = runtime.spawn(telling);
    let bound = fabric.local_addr();
    let addr = part.advertise.unwrap_or(bound);
    Ok(Joined {
        cluster,
        live: None,
        overview: None,
        certificate,
        fabric,
        addr,
        desk,
        seats,
        herald,
        _threads: threads,
    })
}

struct Met {
    fabric: Arc<QuicFabric>,
    cluster: Cluster,
    certificate: Option<Arc<OwnCertificate>>,
}

/// Binds the address and takes part, on the runtime that this is awaited on.
async fn meet(
    part: &ClusterConfig,
    node: &NodeConfig,
    scales: bool,
    clock: Arc<dyn Clock>,
) -> Result<Met, ClusterError> {
    let (credentials, files) = credentials::read(part, node)?;
    // A link that is cut silently is lost a little after a node would be.
    let idle_max = part.detector.silence_max + LINK_GRACE;
    let options = QuicOptions { idle_max, keep_alive_every: idle_max / 5, ..QuicOptions::default() };
    let fabric = Arc::new(QuicFabric::bind(part.listen, &credentials, options)?);
    let bound = fabric.local_addr();
    let advertise = part.advertise.unwrap_or(bound);
    let seeds = Seeds::new(part.seeds.clone(), vec![bound, advertise], part.resolver)?;
    let scales = scales.then(|| crate::scaler::NAME.to_owned());
    let born = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let settings = Part {
        cluster: part.name.clone(),
        id: node.name.clone(),
        incarnation: Incarnation(u64::try_from(born.as_millis()).unwrap_or(u64::MAX)),
        advertise,
        region: node.region.clone(),
        roles: part.roles.iter().map(|role| role.name().to_owned()).chain(scales).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        detector: Detector {
            gossip_interval: part.detector.gossip_interval,
            silence_max: part.detector.silence_max,
            dead_grace: part.detector.dead_grace,
        },
        limits: Limits::default(),
    };
    let cluster = Cluster::start(settings, fabric.clone(), Some(Arc::new(seeds)), clock).await?;
    info!(cluster = part.name, %advertise, "part of a cluster");
    let certificate = files.map(|files| Arc::new(OwnCertificate::new(part, node, &fabric, files)));
    Ok(Met { fabric, cluster, certificate })
}

/// Starts the actors that answer other nodes, and lets these send to them.
fn open_desk(
    cluster: &Cluster,
    system: &System,
    runtime: &Handle,
    seats: &Seats,
    clock: &Arc<dyn Clock>,
) -> Result<Tree, ClusterError> {
    let asks = Mailbox::<AskForecast<false>>::new(DESK_QUEUE, Arc::clone(clock));
    let bulk = Mailbox::<AskForecast<true>>::new(DESK_QUEUE, Arc::clone(clock));
    cluster.export(SERVICE, &asks.address())?;
    cluster.export(SERVICE, &bulk.address())?;
    let (system, runtime, seats) = (system.clone(), runtime.clone(), seats.clone());
    let desk = move || Ok(Desk { system: system.clone(), runtime: runtime.clone(), seats: seats.clone() });
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new("remote-asks"), asks, desk.clone());
    children.worker(ChildSpec::new("remote-bulk"), bulk, desk);
    Ok(Tree::start(children, Arc::clone(clock), rand::random())?)
}

impl Joined {
    /// Where other nodes reach this one.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests of other nodes that are worked on now.
    pub(crate) fn inside(&self) -> impl Fn() -> usize + Send + 'static {
        let seats = self.seats.clone();
        move || seats.taken()
    }

    /// The actors that answer other nodes, by what they answer about.
    pub(crate) fn trees(&self) -> Vec<(&'static str, TreeView)> {
        let live = self.live.as_ref().map(|live| ("series", live.tree()));
        let overview = self.overview.as_ref().map(|tree| ("overview", tree.view()));
        [Some(("remote", self.desk.view())), live, overview].into_iter().flatten().collect()
    }

    /// Where the cluster's own tasks run.
    pub(crate) fn runtime(&self) -> Handle {
        self._threads.handle.clone()
    }

    /// Tells the others to send nothing new, waits until `finish` is over and what they have asked is answered, then
    /// leaves. At the deadline it leaves whatever it owes.
    pub(crate) async fn drain(self, deadline: Deadline, finish: impl Future<Output = ()>) {
        let finish = async {
            finish.await;
            self.seats.given_back().await;
        };
        let report = self.cluster.drain(deadline, finish).await;
        if !report.is_clean() {
            warn!(undone = ?report.undone, "not all was done in time");
        }
        self.herald.abort();
        if let Some(live) = self.live {
            live.stop(deadline).await;
        }
        if let Some(overview) = self.overview {
            overview.stop(deadline).await;
        }
        self.desk.stop(deadline).await;
        self.fabric.closed(CLOSE_MAX).await;
    }
}

/// The cluster's own threads. A runtime waits for them when it is dropped, which a task may not do: this one does not.
struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    fn start() -> std::io::Result<Self> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        // Two at least: an answer that is computed in place must not hold up the heartbeat.
        threads.worker_threads(backends::cores().clamp(2, 8)).thread_name("cluster").enable_all();
        let runtime = threads.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
