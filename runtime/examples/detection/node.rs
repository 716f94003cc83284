//! One process: a member that says on its output whom it sees and to whom it has a link.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use peregrine_runtime::{
    Cluster, ClusterConfig, Credentials, Detector, Discovery, Incarnation, Limits, NodeId, QuicFabric,
    QuicOptions, Region, SystemClock,
};

/// How often the links are looked at.
const LOOK: Duration = Duration::from_millis(10);

struct Seeds(Vec<SocketAddr>);

#[async_trait]
impl Discovery for Seeds {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.0.clone()
    }
}

/// Until its input ends.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn run(id: &str, listen: &str, advertise: &str, seeds: &str) -> Result<(), Box<dyn Error>> {
    let id = NodeId::new(id)?;
    let credentials = Credentials::from_secret(b"of this example alone", "detection", &id)?;
    let fabric = QuicFabric::bind(listen.parse()?, &credentials, QuicOptions::default())?;
    let born = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let config = ClusterConfig {
        cluster: "detection".to_owned(),
        id: id.clone(),
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
    let cluster = Cluster::start(config, Arc::new(fabric), Some(discovery), Arc::new(SystemClock)).await?;
    let mut views = cluster.views();
    let mut looks = tokio::time::interval(LOOK);
    let (mut members, mut links) = (BTreeSet::new(), BTreeSet::new());
    let (ended, mut input) = tokio::sync::oneshot::channel();
    std::thread::spawn(|| ended.send(std::io::stdin().read_line(&mut String::new())));
    loop {
        tokio::select! {
            _ = &mut input => return Ok(()),
            _ = views.changed() => {}
            _ = looks.tick() => {}
        }
        let now: BTreeSet<NodeId> =
            views.borrow_and_update().members.keys().filter(|member| **member != id).cloned().collect();
        tell("member", &members, &now);
        let open = now.iter().filter(|member| cluster.connected(member)).cloned().collect();
        tell("link", &links, &open);
        (members, links) = (now, open);
    }
}

fn tell(what: &str, before: &BTreeSet<NodeId>, now: &BTreeSet<NodeId>) {
    now.difference(before).for_each(|id| println!("{what} + {id}"));
    before.difference(now).for_each(|id| println!("{what} - {id}"));
}
