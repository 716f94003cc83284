//! How fast news spread, and what that costs: chitchat itself, as configured here, over a network of regions.
//!
//! The clock is paused and the network seeded; whom a node gossips with chitchat draws by itself. What is assumed
//! and what came out is in `MEMBERSHIP.md`.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatHandle, ChitchatId, ChitchatMessage, Serializable as _, spawn_chitchat};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::gossip;
use super::record::{LOAD, RECORD, Record};
use super::{Detector, chitchat_config};
use crate::cluster::net::GossipMail;

/// Nodes that change their load, and nodes that crash, all at once.
const CHANGES: usize = 5;
const CRASHES: usize = 3;
/// How long traffic is measured while nothing happens.
const STEADY: Duration = Duration::from_secs(3);
/// Longer than anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest message that travels as one datagram; longer ones go over a lane, which repeats what is lost.
const DATAGRAM_BYTES: usize = 1300;

struct World {
    rng: Mutex<StdRng>,
    /// Round trips and losses between regions.
    paths: Vec<Vec<(Duration, f64)>>,
    mailboxes: Mutex<HashMap<SocketAddr, (usize, mpsc::Sender<GossipMail>)>>,
    sent_bytes: AtomicU64,
    sent: AtomicU64,
}

impl World {
    fn new(seed: u64, regions: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut paths = vec![vec![(Duration::from_micros(500), 0.001); regions]; regions];
        for (a, b) in (0..regions).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let path = (Duration::from_millis(rng.random_range(5..=280)), rng.random_range(0.001..=0.01));
            (paths[a][b], paths[b][a]) = (path, path);
        }
        Self {
            rng: Mutex::new(rng),
            paths,
            mailboxes: Mutex::default(),
            sent_bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// When a message arrives, if it does.
    fn latency(&self, from: usize, to: usize, bytes: usize) -> Option<Duration> {
        let (rtt, loss) = self.paths[from][to];
        let mut latency = rtt / 2;
        let mut rng = self.rng.lock();
        if bytes <= DATAGRAM_BYTES {
            return (!rng.random_bool(loss)).then_some(latency);
        }
        let packets = i32::try_from(bytes.div_ceil(DATAGRAM_BYTES)).unwrap();
        // Each repetition is asked for a round trip later.
        while rng.random_bool(1.0 - (1.0 - loss).powi(packets)) {
            latency += rtt;
        }
        Some(latency)
    }

    fn post(self: &Arc<Self>, from: (SocketAddr, usize), to: SocketAddr, message: Bytes) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        let Some((region, mailbox)) = self.mailboxes.lock().get(&to).cloned() else { return };
        let Some(latency) = self.latency(from.1, region, message.len()) else { return };
        tokio::spawn(async move {
            sleep(latency).await;
            let _full_or_crashed = mailbox.try_send((from.0, message));
        });
    }
}

struct Place {
    world: Arc<World>,
    addr: SocketAddr,
    region: usize,
}

struct PlaceSocket {
    world: Arc<World>,
    from: (SocketAddr, usize),
    mailbox: mpsc::Receiver<GossipMail>,
}

#[async_trait]
impl Transport for Place {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (sender, mailbox) = mpsc::channel(1024);
        self.world.mailboxes.lock().insert(self.addr, (self.region, sender));
        let from = (self.addr, self.region);
        Ok(Box::new(PlaceSocket { world: Arc::clone(&self.world), from, mailbox }))
    }
}

#[async_trait]
impl Socket for PlaceSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.world.post(self.from, to, Bytes::from(message.serialize_to_vec()));
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let mail = self.mailbox.recv().await;
            let (from, message) = mail.ok_or_else(|| anyhow::anyhow!("crashed"))?;
            if let Some(message) = gossip::read(&message) {
                return Ok((from, message));
            }
        }
    }
}

/// What nodes have seen, as they see it: at the pace of their own rounds.
enum Seen {
    Everybody,
    Change(Instant),
    Crash(Instant),
    WronglyGone,
}

#[derive(Debug)]
struct Outcome {
    joined: Duration,
    changes: Spread,
    crashes: Spread,
    wrongly_gone: usize,
    bytes_per_s: u64,
    messages_per_s: u64,
}

/// Until half, 99 % and all of the nodes knew.
#[derive(Debug)]
struct Spread([Duration; 3]);

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: f64| times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1];
        Self([at(0.5), at(0.99), at(1.0)])
    }
}

fn simulate(seed: u64, nodes: usize, regions: usize, detector: &Detector) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(live(Arc::new(World::new(seed, regions)), nodes, detector))
}

async fn live(world: Arc<World>, count: usize, detector: &Detector) -> Outcome {
    let regions = world.paths.len();
    let ids: Vec<ChitchatId> = (0..count)
        .map(|node| {
            let host = u16::try_from(node).unwrap();
            let addr = SocketAddr::from((Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, host), 7000));
            ChitchatId::new(format!("machine-{node:06}"), 1, addr)
        })
        .collect();
    let crashing: BTreeSet<ChitchatId> = ids[..CRASHES].iter().cloned().collect();
    let changing: BTreeSet<ChitchatId> = ids[CRASHES..CRASHES + CHANGES].iter().cloned().collect();
    let started = Instant::now();
    let (seeing, mut seen) = mpsc::channel(1 << 16);
    let mut handles = Vec::new();
    for (node, id) in ids.iter().enumerate() {
        let mut config = chitchat_config(id.clone(), "sim".to_owned(), detector);
        config.seed_nodes = ids[..3].iter().map(|seed| seed.gossip_advertise_addr.to_string()).collect();
        let place =
            Place { world: Arc::clone(&world), addr: id.gossip_advertise_addr, region: node % regions };
        let values = vec![(RECORD.to_owned(), record(node % regions).to_text())];
        let handle = spawn_chitchat(config, values, &place).await.unwrap();
        let live = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let (crashing, changing, seeing) = (crashing.clone(), changing.clone(), seeing.clone());
        tokio::spawn(look(live, count, crashing, changing, seeing));
        handles.push(handle);
        // Rounds of different nodes do not fall together.
        sleep(detector.gossip_interval / u32::try_from(count).unwrap()).await;
    }
    let next = async |seen: &mut mpsc::Receiver<Seen>| timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
    let (mut everybody, mut wrongly_gone) = (0, 0);
    while everybody < count {
        match next(&mut seen).await {
            Seen::Everybody => everybody += 1,
            Seen::WronglyGone => wrongly_gone += 1,
            Seen::Change(_) | Seen::Crash(_) => panic!("nothing has happened yet"),
        }
    }
    let joined = started.elapsed();
    sleep(detector.silence_max).await;
    let before = (world.sent_bytes.load(Ordering::Relaxed), world.sent.load(Ordering::Relaxed));
    sleep(STEADY).await;
    let sent_bytes = world.sent_bytes.load(Ordering::Relaxed) - before.0;
    let sent = world.sent.load(Ordering::Relaxed) - before.1;
    let per_node_second = |total: u64| total / (count as u64 * STEADY.as_secs());

    let happened = Instant::now();
    for handle in &handles[CRASHES..CRASHES + CHANGES] {
        handle.with_chitchat(|chitchat| chitchat.self_node_state().set(LOAD, "0.75")).await;
    }
    for (handle, id) in handles.iter().zip(&ids).take(CRASHES) {
        handle.abort();
        world.mailboxes.lock().remove(&id.gossip_advertise_addr);
    }
    let (mut changes, mut crashes) = (Vec::new(), Vec::new());
    let survivors = count - CRASHES;
    while changes.len() < (survivors - 1) * CHANGES || crashes.len() < survivors * CRASHES {
        match next(&mut seen).await {
            Seen::Change(at) => changes.push(at - happened),
            Seen::Crash(at) => crashes.push(at - happened),
            Seen::WronglyGone => wrongly_gone += 1,
            Seen::Everybody => {}
        }
    }
    handles.iter().for_each(ChitchatHandle::abort);
    Outcome {
        joined,
        changes: Spread::of(changes),
        crashes: Spread::of(crashes),
        wrongly_gone,
        bytes_per_s: per_node_second(sent_bytes),
        messages_per_s: per_node_second(sent),
    }
}

fn record(region: usize) -> Record {
    Record {
        region: format!("r{region:02}"),
        roles: vec!["gateway".to_owned(), "inference".to_owned()],
        version: "0.1.0".to_owned(),
        draining: false,
        left: false,
        services: [("router", "1"), ("series", "1")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
    }
}

type Live = tokio::sync::watch::Receiver<std::collections::BTreeMap<ChitchatId, chitchat::NodeState>>;

/// One node's eyes.
async fn look(
    mut live: Live,
    count: usize,
    crashing: BTreeSet<ChitchatId>,
    mut changing: BTreeSet<ChitchatId>,
    seen: mpsc::Sender<Seen>,
) {
    let mut known = BTreeSet::new();
    let mut complete = false;
    while live.changed().await.is_ok() {
        let mut news = Vec::new();
        {
            let now = live.borrow_and_update();
            for gone in known.iter().filter(|id| !now.contains_key(id)) {
                let crashed = complete && crashing.contains(gone);
                news.push(if crashed { Seen::Crash(Instant::now()) } else { Seen::WronglyGone });
            }
            known = now.keys().cloned().collect();
            let told = |id: &ChitchatId| now.get(id).is_some_and(|state| state.get(LOAD).is_some());
            let before = changing.len();
            changing.retain(|id| !told(id));
            (changing.len()..before).for_each(|_| news.push(Seen::Change(Instant::now())));
        }
        if !complete && known.len() == count {
            complete = true;
            news.push(Seen::Everybody);
        }
        for what in news {
            if seen.send(what).await.is_err() {
                return;
            }
        }
    }
}

#[test]
fn sixty_nodes_in_six_regions_agree_in_time() {
    let outcome = simulate(1, 60, 6, &Detector::default());
    let [_, _, change] = outcome.changes.0;
    let [_, _, crash] = outcome.crashes.0;
    assert_eq!(outcome.wrongly_gone, 0, "{outcome:?}");
    assert!(change < Duration::from_millis(1500), "{outcome:?}");
    assert!(crash < Duration::from_millis(2000), "{outcome:?}");
    assert!((10_000..400_000).contains(&outcome.bytes_per_s), "{outcome:?}");
}

/// `cargo test --release -p peregrine_runtime --lib membership::sim -- --ignored --nocapture`
#[test]
#[ignore = "a table of several minutes"]
fn five_hundred_nodes_in_thirty_regions() {
    println!(
        "| nodes | regions | interval | silence | joined | change 50/99/100 % | crash 50/99/100 % | wrong | kB/s | messages/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let second = Duration::from_secs(1);
    for (nodes, regions, interval, silence) in [
        (60, 6, second / 10, second * 9 / 10),
        (125, 30, second / 10, second * 9 / 10),
        (250, 30, second / 10, second * 9 / 10),
        (500, 30, second / 10, second * 9 / 10),
        (500, 30, second / 2, second * 4),
    ] {
        let detector = Detector { gossip_interval: interval, silence_max: silence, ..Detector::default() };
        let outcome = simulate(1, nodes, regions, &detector);
        let ms = |spread: &Spread| spread.0.map(|time| time.as_millis().to_string()).join(" / ");
        println!(
            "| {nodes} | {regions} | {interval:?} | {silence:?} | {:.1} s | {} | {} | {} | {} | {} |",
            outcome.joined.as_secs_f64(),
            ms(&outcome.changes),
            ms(&outcome.crashes),
            outcome.wrongly_gone,
            outcome.bytes_per_s / 1000,
            outcome.messages_per_s,
        );
    }
}
