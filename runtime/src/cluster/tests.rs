//! A cluster of real nodes: over the simulated network, and over QUIC on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    Address, AskError, ChildSpec, Children, Cluster, ClusterConfig, CodecError, Credentials, Deadline,
    Detector, Discovery, Fabric, Failure, Inbox, Incarnation, Lane, Limits, Mailbox, NodeId, QuicFabric,
    QuicOptions, Refusal, Region, RemoteMessage, SimNetwork, Strategy, SystemClock, TellError, Tree, Worker,
    codec_read, codec_write, remote_message,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, actix::Message)]
#[rtype(result = "u64")]
struct Add(u64, u64);
remote_message!(Add, "test.add", version 1, up to 4096 bytes, lane Ask);

/// The same service in a later program: a layout that the first does not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, actix::Message)]
#[rtype(result = "u64")]
struct LaterAdd(u64, u64, u64);
remote_message!(LaterAdd, "test.add", version 2, up to 4096 bytes, lane Ask);

/// The same, in a later program that still writes the first layout.
#[derive(Debug, actix::Message)]
#[rtype(result = "u64")]
struct PatientAdd(u64, u64);

impl RemoteMessage for PatientAdd {
    const NAME: &'static str = "test.add";
    const VERSION: u16 = 2;
    const OLDEST: u16 = 1;
    const BYTES_MAX: usize = 4096;
    const LANE: Lane = Lane::Ask;

    fn write(&self, version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match version {
            1 => codec_write(&Add(self.0, self.1), out),
            _ => codec_write(&LaterAdd(self.0, self.1, 0), out),
        }
    }

    fn read(_version: u16, _bytes: &[u8]) -> Result<Self, CodecError> {
        Err(CodecError::Malformed("it is only sent here".to_owned()))
    }

    fn write_answer(answer: &u64, _version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        codec_write(answer, out)
    }

    fn read_answer(_version: u16, bytes: &[u8]) -> Result<u64, CodecError> {
        codec_read::<u64, 8>(bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, actix::Message)]
#[rtype(result = "()")]
struct Count(u64);
remote_message!(Count, "test.count", version 1, up to 64 bytes, lane Stream);

struct Adder;

impl Worker<Add> for Adder {
    fn run(&mut self, inbox: &mut Inbox<Add>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            // A pair of zeros is never answered: its slot is dropped.
            if envelope.message != Add(0, 0) {
                envelope.slot.send(envelope.message.0 + envelope.message.1);
            }
        }
        Ok(())
    }
}

struct Seeds(Vec<SocketAddr>);

#[async_trait]
impl Discovery for Seeds {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.0.clone()
    }
}

/// One node and the actors behind it.
struct Node {
    cluster: Cluster,
    counted: std::sync::mpsc::Receiver<u64>,
    _tree: Tree,
}

struct Counter(std::sync::mpsc::Sender<u64>);

impl Worker<Count> for Counter {
    fn run(&mut self, inbox: &mut Inbox<Count>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            self.0.send(envelope.message.0)?;
        }
        Ok(())
    }
}

fn name(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

async fn start(fabric: Arc<dyn Fabric>, id: &str, life: u64, seeds: &[SocketAddr]) -> Node {
    let clock = Arc::new(SystemClock);
    let config = ClusterConfig {
        cluster: "test".to_owned(),
        id: name(id),
        incarnation: Incarnation(life),
        advertise: fabric.local_addr(),
        region: Region::new("iad").unwrap(),
        roles: vec!["test".to_owned()],
        version: "1".to_owned(),
        detector: Detector::default(),
        limits: Limits::default(),
    };
    let seeds = Arc::new(Seeds(seeds.to_vec()));
    let cluster = Cluster::start(config, fabric, Some(seeds), clock.clone()).await.unwrap();
    let adds = Mailbox::new(64, clock.clone());
    let counts = Mailbox::new(1024, clock.clone());
    cluster.export("adder", &adds.address()).unwrap();
    cluster.export("counter", &counts.address()).unwrap();
    let (seen, counted) = std::sync::mpsc::channel();
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new("adder"), adds, || Ok(Adder));
    children.worker(ChildSpec::new("counter"), counts, move || Ok(Counter(seen.clone())));
    Node { cluster, counted, _tree: Tree::start(children, clock, 1).unwrap() }
}

fn quic(id: &str) -> Arc<dyn Fabric> {
    quic_of(b"a secret of sixteen bytes", id)
}

fn quic_of(secret: &[u8], id: &str) -> Arc<dyn Fabric> {
    let credentials = Credentials::from_secret(secret, "test", &name(id)).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    Arc::new(QuicFabric::bind(listen, &credentials, QuicOptions::default()).unwrap())
}

async fn quic_nodes(ids: &[&str]) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for id in ids {
        let seeds: Vec<SocketAddr> = nodes.iter().map(|node| address_of(&node.cluster)).collect();
        nodes.push(start(quic(id), id, 1, &seeds).await);
    }
    for node in &nodes {
        meets(&node.cluster, ids.len()).await;
    }
    nodes
}

fn address_of(cluster: &Cluster) -> SocketAddr {
    cluster.view().get(cluster.id()).unwrap().addr
}

/// Until a node sees that many members and has a link to each.
async fn meets(cluster: &Cluster, count: usize) {
    let met = async {
        let mut views = cluster.views();
        views.wait_for(|view| view.members.len() == count).await.unwrap();
        let others: Vec<NodeId> =
            cluster.view().members.keys().filter(|id| *id != cluster.id()).cloned().collect();
        while !others.iter().all(|id| cluster.connected(id)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), met).await.expect("the nodes meet");
}

fn soon() -> Deadline {
    Deadline::after(std::time::Instant::now(), Duration::from_secs(10))
}

fn adder(from: &Node, to: &str) -> Address<Add> {
    from.cluster.address(&name(to), "adder").expect("a member")
}

/// Until a node says that it and somebody refuse each other.
async fn is_estranged(cluster: &Cluster) -> SocketAddr {
    let estranged = async {
        loop {
            if let Some(addr) = cluster.estranged() {
                return addr;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), estranged).await.expect("it is refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_knows_by_whom_it_is_refused() {
    let nodes = quic_nodes(&["a", "b"]).await;
    assert!(nodes.iter().all(|node| node.cluster.estranged().is_none()));
    let at = address_of(&nodes[0].cluster);
    let stranger = start(quic_of(b"another secret altogether", "c"), "c", 1, &[at]).await;
    assert_eq!(is_estranged(&stranger.cluster).await, at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ask_crosses_nodes() {
    let nodes = quic_nodes(&["a", "b"]).await;
    assert_eq!(adder(&nodes[0], "b").ask(Add(2, 3), soon()).await, Ok(5));
    assert_eq!(adder(&nodes[1], "a").ask(Add(20, 3), soon()).await, Ok(23));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_does_not_take_is_refused_by_reason() {
    let nodes = quic_nodes(&["a", "b"]).await;
    let from = &nodes[0].cluster;
    let unknown: Address<Add> = from.address(&name("b"), "nobody").unwrap();
    assert_eq!(unknown.ask(Add(1, 1), soon()).await, Err(AskError::Refused(Refusal::UnknownService)));
    let other_type: Address<Add> = from.address(&name("b"), "counter").unwrap();
    assert_eq!(other_type.ask(Add(1, 1), soon()).await, Err(AskError::Refused(Refusal::UnknownType)));
    let later: Address<LaterAdd> = from.address(&name("b"), "adder").unwrap();
    assert_eq!(later.ask(LaterAdd(1, 1, 1), soon()).await, Err(AskError::Refused(Refusal::UnknownVersion)));
    // The link has survived all of it.
    assert_eq!(adder(&nodes[0], "b").ask(Add(2, 3), soon()).await, Ok(5));
    let refused = nodes[1].cluster.stats().refused;
    assert_eq!(refused.get("unknown_service"), Some(&1), "{refused:?}");
    assert_eq!(refused.get("unknown_type"), Some(&1), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_program_writes_the_layout_that_the_other_reads() {
    let nodes = quic_nodes(&["a", "b"]).await;
    for (from, to) in [(0, "b"), (1, "a")] {
        let address: Address<PatientAdd> = nodes[from].cluster.address(&name(to), "adder").unwrap();
        assert_eq!(address.ask(PatientAdd(2, 3), soon()).await, Ok(5), "asked of {to}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_drops_the_slot_has_failed() {
    let nodes = quic_nodes(&["a", "b"]).await;
    assert_eq!(adder(&nodes[0], "b").ask(Add(0, 0), soon()).await, Err(AskError::Failed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_arrive_once_and_in_order() {
    const COUNT: u64 = 100_000;
    let nodes = quic_nodes(&["a", "b"]).await;
    let counter: Address<Count> = nodes[0].cluster.address(&name("b"), "counter").unwrap();
    for number in 0..COUNT {
        let mut message = Count(number);
        loop {
            match counter.tell(message) {
                Ok(()) => break,
                Err(TellError::Full(back)) => {
                    message = back;
                    tokio::task::yield_now().await;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    let seen = tokio::task::block_in_place(|| {
        (0..COUNT)
            .map(|_| nodes[1].counted.recv_timeout(Duration::from_secs(20)))
            .collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(seen.unwrap(), (0..COUNT).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_gone_at_once_and_its_asks_end() {
    let nodes = quic_nodes(&["a", "b", "c"]).await;
    let address = adder(&nodes[0], "c");
    nodes[2].cluster.leave(soon()).await;
    let lost = name("c");
    let gone = nodes[0].cluster.gone(&lost, Incarnation(1));
    tokio::time::timeout(Duration::from_secs(2), gone).await.expect("a goodbye is heard");
    assert_eq!(address.ask(Add(1, 2), soon()).await, Err(AskError::Closed));
    assert_eq!(adder(&nodes[0], "b").ask(Add(1, 2), soon()).await, Ok(3));
}

/// Three nodes of one simulated network, all connected.
async fn sim_nodes(network: &SimNetwork) -> Vec<Node> {
    let addrs: Vec<SocketAddr> = (1..=3).map(|host| SocketAddr::from(([10, 0, 0, host], 7000))).collect();
    let mut nodes = Vec::new();
    for (id, addr) in ["a", "b", "c"].into_iter().zip(&addrs) {
        let fabric: Arc<dyn Fabric> = Arc::new(network.fabric(&name(id), *addr));
        nodes.push(start(fabric, id, 1, &addrs).await);
    }
    for node in &nodes {
        meets(&node.cluster, 3).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_silently_is_noticed_and_its_asks_fail() {
    let network = SimNetwork::new(1);
    let nodes = sim_nodes(&network).await;
    let killed = std::time::Instant::now();
    network.kill(address_of(&nodes[2].cluster));
    for node in &nodes[..2] {
        let lost = name("c");
        let gone = node.cluster.gone(&lost, Incarnation(1));
        tokio::time::timeout(Duration::from_secs(5), gone).await.expect("silence is noticed");
    }
    let noticed = killed.elapsed();
    assert!(noticed < Duration::from_millis(1500), "noticed after {noticed:?}");
    assert_eq!(adder(&nodes[0], "b").ask(Add(1, 2), soon()).await, Ok(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_pair_talks_through_a_third() {
    let network = SimNetwork::new(2);
    let nodes = sim_nodes(&network).await;
    let (a, b) = (address_of(&nodes[0].cluster), address_of(&nodes[1].cluster));
    network.cut(a, b);
    network.cut(b, a);
    let address = adder(&nodes[0], "b");
    // What was on its way over the cut link may fail; then the detour carries.
    let through = async {
        loop {
            let deadline = Deadline::after(std::time::Instant::now(), Duration::from_millis(500));
            if address.ask(Add(4, 5), deadline).await == Ok(9) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), through).await.expect("a detour is found");
    let stats = nodes[0].cluster.stats();
    assert!(stats.detours > 0, "{stats:?}");
    assert!(nodes[2].cluster.stats().relayed > 0);
    network.heal(a, b);
    network.heal(b, a);
    meets(&nodes[0].cluster, 3).await;
    let before = nodes[0].cluster.stats().detours;
    assert_eq!(address.ask(Add(4, 6), soon()).await, Ok(10));
    assert_eq!(nodes[0].cluster.stats().detours, before, "the direct way is back");
}
