//! Series over all nodes: the shell between `peregrine_runtime`'s shards, which know no series, and the series of
//! `peregrine_actors`, which know no network.

mod copies;
mod desk;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod outlet;
mod quorum;
mod source;
mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use peregrine_actors::System;
use peregrine_actors::series::{Journal, JournalError, Pattern, Series, SeriesParts, SeriesSettings};
use peregrine_actors::stream::Source;
use peregrine_runtime::lease::LeaseLimits;
use peregrine_runtime::shard::{RegionLimits, ShardError, ShardSpec};
use peregrine_runtime::{
    ChildSpec, Children, Clock, Cluster, Deadline, ExportError, Mailbox, NodeId, StartError, Strategy, Tree,
    TreeView,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use self::copies::ClusterCopies;
use self::desk::{Desk, Owner};
use self::outlet::ClusterOutlet;
use self::quorum::Quorum;
use self::source::ClusterSource;
use self::wire::{Ask, AskBulk, NodeAsk};
use crate::config::{Config, Credentials, HoldersChoice, RoleChoice};
use crate::reload::Current;
use crate::series::{Audience, SHARDS};

/// The service by which nodes ask each other about series.
const SERVICE: &str = "series";
/// Name of the sharded type.
const SHARDED: &str = "series";
/// Questions of other nodes that wait for the desk; it takes them out at once.
const DESK_QUEUE: usize = 1024;
/// Questions of other nodes inside at once.
const SEATS: usize = 4096;
/// How often the others are told again what is wanted here.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Longest that telling one of them may take.
const TELL_MAX: Duration = Duration::from_secs(1);
/// Messages that a shard may hold; with their size, they fit one hand-over.
const SHARD_QUEUE: usize = 56;

/// What is wanted on this node: model and pattern.
type Wanted = Arc<Vec<(Arc<str>, Pattern)>>;

/// The series did not become part of the cluster; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// What was kept cannot be read.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// Their shards cannot be shared out.
    #[error("shards: {0}")]
    Shards(#[from] ShardError),
    /// They have no name to be found by.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The actors that answer others did not start.
    #[error("actors: {0}")]
    Actors(#[from] StartError),
    /// The operating system gives no thread.
    #[error("operating system: {0}")]
    Os(#[from] std::io::Error),
}

/// What the series of a node in a cluster are made of.
pub(crate) struct Parts {
    pub(crate) cluster: Cluster,
    pub(crate) system: System,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) current: Current,
    pub(crate) settings: SeriesSettings,
    pub(crate) journal: Option<Arc<dyn Journal>>,
    pub(crate) audience: Audience,
    /// Where windows are forecast.
    pub(crate) forecasts: Handle,
    /// The cluster's own runtime.
    pub(crate) runtime: Handle,
}

/// This node's part in the series of its cluster.
pub(crate) struct Live {
    pub(crate) series: Series,
    pub(crate) source: Arc<dyn Source>,
    /// Events for other nodes that were lost on the way.
    pub(crate) lost: Arc<AtomicU64>,
    desk: Tree,
    teller: tokio::task::JoinHandle<()>,
}

/// What has to be the same on two nodes.
fn agreement(credentials: Option<&Credentials>) -> &'static str {
    match credentials {
        Some(Credentials::Files { .. }) => {
            "`cluster.name` must be the same on both, each `cluster.certificate` of an authority in both `cluster.ca`"
        }
        _ => "`cluster.name` and `cluster.secret` must be the same on both",
    }
}

impl Live {
    /// Takes part from now on. Awaited on the cluster's runtime.
    ///
    /// # Errors
    /// See [`SeriesError`].
    pub(crate) fn start(parts: Parts) -> Result<Self, SeriesError> {
        let Parts { cluster, system, clock, current, settings, journal, audience, forecasts, runtime } =
            parts;
        let config = current.get();
        let role = match config.series.nodes {
            HoldersChoice::Inference => Some(RoleChoice::Inference.name()),
            HoldersChoice::All => None,
        };
        let outlet =
            ClusterOutlet::new(cluster.clone(), audience.clone(), runtime.clone(), Arc::clone(&clock));
        let lost = Arc::clone(&outlet.lost);
        let series = Series::start(SeriesParts {
            settings,
            system: system.clone(),
            clock: Arc::clone(&clock),
            journal,
            copies: Arc::new(ClusterCopies {
                cluster: cluster.clone(),
                config: current.clone(),
                role,
                electorate: electorate(&config, role),
            }),
            outlet: Arc::new(outlet),
            runtime: forecasts,
        })?;
        let seats = Arc::new(Semaphore::new(SEATS));
        let desk = Desk {
            series: series.clone(),
            system: system.clone(),
            audience,
            runtime: runtime.clone(),
            seats,
        };
        let desk = open(&cluster, desk, &clock)?;
        let holds = config.series.nodes == HoldersChoice::All
            || config.cluster.as_ref().is_some_and(|part| part.roles.contains(&RoleChoice::Inference));
        let owner = holds.then(|| {
            let me = cluster.id().as_str().to_owned();
            let owner = Owner { series: series.clone(), system: system.clone(), me };
            Arc::new(owner) as Arc<dyn peregrine_runtime::shard::ShardHandler<wire::ShardAsk>>
        });
        let limits = RegionLimits { epoch_floor: series.highest_epoch(), ..RegionLimits::default() };
        let region = cluster.shards(spec(&config, role), limits, owner)?;
        let (wanted, _) = watch::channel(Wanted::default());
        let teller = Teller { cluster: cluster.clone(), series: series.clone(), clock: Arc::clone(&clock) };
        let teller = runtime.spawn(teller.run(wanted.subscribe()));
        let quorum = Quorum::new(role, electorate(&config, role));
        let source = Arc::new(ClusterSource {
            cluster,
            series: series.clone(),
            system,
            clock,
            region,
            wanted,
            quorum,
            agreement: agreement(config.cluster.as_ref().map(|part| &part.credentials)),
        });
        Ok(Self { series, source, lost, desk, teller })
    }

    /// The actors that answer other nodes.
    pub(crate) fn tree(&self) -> TreeView {
        self.desk.view()
    }

    /// Answers nobody any more; the cluster has handed the shards over by then.
    pub(crate) async fn stop(self, deadline: Deadline) {
        self.teller.abort();
        self.desk.stop(deadline).await;
    }
}

/// Lets other nodes ask.
fn open(cluster: &Cluster, desk: Desk, clock: &Arc<dyn Clock>) -> Result<Tree, SeriesError> {
    let asks = Mailbox::<Ask>::new(DESK_QUEUE, Arc::clone(clock));
    let bulk = Mailbox::<AskBulk>::new(DESK_QUEUE, Arc::clone(clock));
    cluster.export(SERVICE, &asks.address())?;
    cluster.export(SERVICE, &bulk.address())?;
    let again = desk.clone();
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new("series-asks"), asks, move || Ok(desk.clone()));
    children.worker(ChildSpec::new("series-bulk"), bulk, move || Ok(again.clone()));
    Ok(Tree::start(children, Arc::clone(clock), rand::random())?)
}

/// Nodes that hold series when all are up.
fn electorate(config: &Config, role: Option<&str>) -> usize {
    let holds =
        |node: &&crate::config::NodeEntry| role.is_none() || node.roles.contains(&RoleChoice::Inference);
    match config.nodes.iter().filter(holds).count() {
        0 => config.cluster.as_ref().map_or(1, |part| part.size),
        listed => listed,
    }
}

fn spec(config: &Config, role: Option<&str>) -> ShardSpec {
    let ms = Duration::from_millis;
    ShardSpec {
        name: SHARDED.to_owned(),
        home: None,
        role: role.map(str::to_owned),
        shard_count: SHARDS,
        queue_max: SHARD_QUEUE,
        grace: ms(2_000),
        acquire_max: ms(2_000),
        transfer_retry: ms(200),
        transfer_max: ms(3_000),
        lease: LeaseLimits {
            electorate: electorate(config, role),
            lease: ms(1_000),
            promise: ms(1_200),
            renew: ms(200),
        },
    }
}

/// Tells the other nodes what is wanted here, and forgets what nodes wanted that are gone.
struct Teller {
    cluster: Cluster,
    series: Series,
    clock: Arc<dyn Clock>,
}

impl Teller {
    async fn run(self, mut wanted: watch::Receiver<Wanted>) {
        let mut views = self.cluster.views();
        let mut again = tokio::time::interval(TELL_EVERY);
        let mut seen = 0;
        loop {
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // How busy a member is changes often, and is nothing to this.
                    let members = views.borrow_and_update().fingerprint();
                    if std::mem::replace(&mut seen, members) == members {
                        continue;
                    }
                }
                _ = again.tick() => {}
            }
            self.forget();
            let now_wanted = Arc::clone(&wanted.borrow_and_update());
            self.tell(&now_wanted);
        }
    }

    fn forget(&self) {
        let view = self.cluster.view();
        for node in self.series.wanting() {
            if NodeId::new(&node).is_ok_and(|id| view.get(&id).is_none()) {
                self.series.want(&node, Vec::new());
            }
        }
    }

    fn tell(&self, wanted: &Wanted) {
        let deadline = Deadline::after(self.clock.now(), TELL_MAX);
        let me = self.cluster.id();
        for node in self.cluster.view().members.keys().filter(|id| *id != me) {
            let Some(address) = self.cluster.address::<Ask>(node, SERVICE) else { continue };
            let wanted =
                wanted.iter().map(|(model, of)| (model.to_string(), of.as_str().to_owned())).collect();
            let question = Ask(NodeAsk::Want { node: me.as_str().to_owned(), wanted });
            // A node that does not hear it is told again.
            tokio::spawn(async move { drop(address.ask(question, deadline).await) });
        }
    }
}
