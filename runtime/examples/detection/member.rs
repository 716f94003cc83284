//! What a process of these examples is to the others: a member that says whom it sees, until its input ends.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use peregrine_runtime::{
    Cluster, ClusterConfig, Credentials, Detector, Discovery, Incarnation, Limits, NodeId, QuicFabric,
    QuicOptions, Region, SystemClock,
};
use tokio::sync::oneshot;

struct Seeds(Vec<SocketAddr>);

#[async_trait]
impl Discovery for Seeds {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.0.clone()
    }
}

/// Takes part, in a life that began now.
pub(crate) async fn join(
    id: &str,
    listen: &str,
    advertise: &str,
    seeds: &str,
) -> Result<Cluster, Box<dyn Error>> {
    let id = NodeId::new(id)?;
    let credentials = Credentials::from_secret(b"of these examples alone", "examples", &id)?;
    let fabric = QuicFabric::bind(listen.parse()?, &credentials, QuicOptions::default())?;
    let born = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let config = ClusterConfig {
        cluster: "examples".to_owned(),
        id,
        incarnation: Incarnation(u64::try_from(born.as_millis())?),
        advertise: advertise.parse()?,
        region: Region::new("here")?,
        roles: Vec::new(),
        version: "1".to_owned(),
        detector: Detector::default(),
        limits: Limits::default(),
    };
    let seeds = seeds.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let discovery: Arc<dyn Discovery> = Arc::new(Seeds(seeds));
    Ok(Cluster::start(config, Arc::new(fabric), Some(discovery), Arc::new(SystemClock)).await?)
}

/// Resolves when this process's input ends.
pub(crate) fn input_end() -> oneshot::Receiver<std::io::Result<usize>> {
    let (ended, input) = oneshot::channel();
    std::thread::spawn(|| ended.send(std::io::stdin().read_line(&mut String::new())));
    input
}

/// Whom a member saw, and reached, when it last looked.
#[derive(Default)]
pub(crate) struct Sight {
    pub(crate) members: BTreeSet<NodeId>,
    links: BTreeSet<NodeId>,
}

impl Sight {
    /// Says what has changed.
    pub(crate) fn look(&mut self, cluster: &Cluster) {
        let view = cluster.view();
        let members: BTreeSet<NodeId> =
            view.members.keys().filter(|member| *member != cluster.id()).cloned().collect();
        tell("member", &self.members, &members);
        let links = members.iter().filter(|member| cluster.connected(member)).cloned().collect();
        tell("link", &self.links, &links);
        *self = Self { members, links };
    }
}

fn tell(what: &str, before: &BTreeSet<NodeId>, now: &BTreeSet<NodeId>) {
    now.difference(before).for_each(|id| println!("{what} + {id}"));
    before.difference(now).for_each(|id| println!("{what} - {id}"));
}
