//! Sharded types on real nodes: what is accepted is processed, in order, by one owner, while nodes come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::*;
use crate::actor::Failure;
use crate::cluster::Cluster;
use crate::cluster::testbed::{Testbed, after, leases, seconds, soon};
use crate::{AskError, remote_message};

/// The how-manieth of its sender to its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, actix::Message)]
#[rtype(result = "(String, u64)")]
struct Tick {
    sender: String,
    number: u64,
}
remote_message!(Tick, "test.shard.tick", version 1, up to 256 bytes, lane Stream);

/// What was processed, by key and sender, and the epochs under which each shard was.
#[derive(Default)]
struct World {
    numbers: Mutex<Numbers>,
    epochs: Mutex<BTreeMap<ShardId, Vec<u64>>>,
}

/// By key and sender.
type Numbers = BTreeMap<(Vec<u8>, String), Vec<u64>>;

struct Recorder {
    node: String,
    world: Arc<World>,
}

#[async_trait]
impl ShardHandler<Tick> for Recorder {
    async fn handle(&self, job: ShardJob<Tick>) -> Result<(String, u64), Failure> {
        match job.message.number {
            u64::MAX => return Err("not this one".into()),
            number if number == u64::MAX - 1 => panic!("nor this one"),
            _ => {}
        }
        self.world.epochs.lock().entry(job.shard).or_default().push(job.epoch);
        let mut numbers = self.world.numbers.lock();
        numbers.entry((job.key, job.message.sender)).or_default().push(job.message.number);
        Ok((self.node.clone(), job.epoch))
    }
}

fn spec() -> ShardSpec {
    let ms = Duration::from_millis;
    ShardSpec {
        name: "series".into(),
        home: None,
        role: Some("host".into()),
        shard_count: 16,
        queue_max: 1_000,
        grace: ms(500),
        acquire_max: ms(4_000),
        transfer_retry: ms(100),
        transfer_max: ms(5_000),
        lease: leases(),
    }
}

fn take_part(cluster: &Cluster, world: &Arc<World>) -> ShardRegion<Tick> {
    let host = cluster.view().get(cluster.id()).is_some_and(|it| !it.roles.is_empty());
    let handler = Recorder { node: cluster.id().to_string(), world: Arc::clone(world) };
    let handler = host.then(|| Arc::new(handler) as Arc<dyn ShardHandler<Tick>>);
    cluster.shards(spec(), RegionLimits::default(), handler).unwrap()
}

fn take_part_all(bed: &Testbed) -> (Arc<World>, BTreeMap<String, ShardRegion<Tick>>) {
    let world = Arc::default();
    let regions = bed.nodes().map(|node| (node.id().to_string(), take_part(node, &world))).collect();
    (world, regions)
}

fn keys() -> Vec<Vec<u8>> {
    (0..40).map(|key| format!("series/{key}").into_bytes()).collect()
}

async fn ask(
    region: &ShardRegion<Tick>,
    key: &[u8],
    sender: &str,
    number: u64,
) -> Result<(String, u64), AskError> {
    region.ask(key, Tick { sender: sender.into(), number }, seconds(10)).await
}

/// Until every shard has an owner that answers; who has which key.
async fn settled(region: &ShardRegion<Tick>) -> BTreeMap<Vec<u8>, String> {
    let mut owners = BTreeMap::new();
    for key in keys() {
        let answers = async {
            loop {
                // One that was accepted by an owner that is gone is answered by nobody.
                let tick = Tick { sender: "probe".into(), number: 0 };
                if let Ok((node, _)) = region.ask(&key, tick, after(Duration::from_secs(1))).await {
                    return node;
                }
            }
        };
        owners.insert(key.clone(), soon("a shard has an owner", answers).await);
    }
    owners
}

/// Asks one after the other for every key until told to stop; which were answered, and which failed and how.
async fn pump(region: ShardRegion<Tick>, sender: String, stop: Arc<AtomicBool>) -> (Answered, Failed) {
    let (mut answered, mut failed) = (Answered::new(), Failed::new());
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let all = keys();
        let asks = all.iter().map(|key| ask(&region, key, &sender, number));
        for (key, ended) in all.iter().zip(futures_util::future::join_all(asks).await) {
            match ended {
                Ok(_) => drop(answered.insert((key.clone(), number))),
                Err(why) => failed.push((key.clone(), number, why, sender.clone())),
            }
        }
        // A pause that the pace of the senders needs, and no condition waits for.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (answered, failed)
}

type Answered = BTreeSet<(Vec<u8>, u64)>;
type Failed = Vec<(Vec<u8>, u64, AskError, String)>;

/// How strict the order is: what an owner that lost its lease had accepted is processed late.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Kept,
    LeasesWereLost,
}

/// What was answered was processed; what was processed of one sender and key is in order, none twice; and no
/// shard went back to an earlier epoch.
#[track_caller]
fn check(world: &World, answered: &BTreeMap<String, Answered>, order: Order) {
    let numbers = world.numbers.lock();
    for ((key, sender), numbers) in numbers.iter().filter(|((_, sender), _)| sender != "probe") {
        let once = numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len();
        let kept = order == Order::LeasesWereLost || numbers.is_sorted();
        assert!(once && kept, "{key:?} of {sender}: {numbers:?}");
    }
    for (sender, answered) in answered {
        for (key, number) in answered {
            let seen = numbers.get(&(key.clone(), sender.clone()));
            assert!(seen.is_some_and(|seen| seen.contains(number)), "{number} of {sender} is lost");
        }
    }
    for (shard, epochs) in &*world.epochs.lock() {
        assert!(epochs.is_sorted(), "two processed {shard:?} at one time: {epochs:?}");
    }
}

/// Pumps from the named nodes while `trouble` lasts.
async fn pumped<T>(
    regions: &BTreeMap<String, ShardRegion<Tick>>,
    from: &[&str],
    trouble: impl Future<Output = T>,
) -> (T, BTreeMap<String, Answered>, Failed) {
    let stop = Arc::new(AtomicBool::new(false));
    let pumps: Vec<_> = from
        .iter()
        .map(|name| {
            let pumping = pump(regions[*name].clone(), (*name).to_owned(), Arc::clone(&stop));
            ((*name).to_owned(), tokio::spawn(pumping))
        })
        .collect();
    let result = trouble.await;
    stop.store(true, Ordering::Relaxed);
    let (mut answered, mut failed) = (BTreeMap::new(), Failed::new());
    for (name, pump) in pumps {
        let (good, bad) = soon("the senders end", pump).await.unwrap();
        answered.insert(name, good);
        failed.extend(bad);
    }
    (result, answered, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_reaches_the_one_owner_of_a_key() {
    let bed = Testbed::sim(21, "a b c +d").await;
    let (_world, regions) = take_part_all(&bed);
    let owners = settled(&regions["d"]).await;
    for region in regions.values() {
        assert_eq!(settled(region).await, owners);
    }
    let used: BTreeSet<&String> = owners.values().collect();
    assert_eq!(used.len(), 3, "every host has some: {owners:?}");
    assert_eq!(regions.values().map(|region| region.stats().owned).sum::<usize>(), 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_or_panics_fails_its_ask_alone() {
    let bed = Testbed::sim(22, "a b c").await;
    let (_world, regions) = take_part_all(&bed);
    settled(&regions["a"]).await;
    for bad in [u64::MAX, u64::MAX - 1] {
        assert_eq!(ask(&regions["a"], b"series/1", "x", bad).await, Err(AskError::Failed));
    }
    assert!(ask(&regions["a"], b"series/1", "x", 1).await.is_ok());
    assert_eq!(
        regions["a"].tell(b"series/1", Tick { sender: "x".into(), number: 2 }, seconds(5)).await,
        Ok(())
    );
    let long = vec![b'k'; 300];
    let refused = ask(&regions["a"], &long, "x", 1).await;
    assert_eq!(refused, Err(AskError::Refused(crate::Refusal::TooLarge)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_and_a_return_lose_and_reorder_nothing() {
    drains_and_returns(Testbed::sim(23, "a b c +d").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_quic_a_drain_and_a_return_lose_and_reorder_nothing() {
    drains_and_returns(Testbed::quic("a b c +d").await).await;
}

async fn drains_and_returns(mut bed: Testbed) {
    let (world, mut regions) = take_part_all(&bed);
    settled(&regions["d"]).await;
    let leaves = bed.node("a").clone();
    let drain = async { leaves.drain(seconds(12), std::future::ready(())).await };
    let (report, mut answered, failed) = pumped(&regions, &["b", "d"], drain).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(regions["a"].stats().lost, 0);
    // An answer that was on its way over a link that closed is lost, and its ask ends late; but what nobody has
    // processed ends early, and with a reason.
    let numbers = world.numbers.lock().clone();
    let unexpected: Vec<_> = (failed.iter())
        .filter(|(key, number, why, sender)| match why {
            AskError::Lost | AskError::Full => false,
            AskError::Deadline => {
                let seen = numbers.get(&(key.clone(), sender.clone()));
                seen.is_none_or(|seen| !seen.contains(number))
            }
            _ => true,
        })
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    check(&world, &answered, Order::Kept);
    bed.forget("a");
    bed.met().await;
    let back = bed.start("a", 2).await;
    bed.met().await;
    regions.insert("a".to_owned(), take_part(&back, &world));
    let moves = async {
        let home = async {
            while regions["a"].stats().owned == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("shards come back", home).await;
    };
    world.numbers.lock().clear();
    answered.clear();
    let ((), answered, _) = pumped(&regions, &["b", "d"], moves).await;
    check(&world, &answered, Order::Kept);
    let owners = settled(&regions["d"]).await;
    assert!(owners.values().any(|owner| owner == "a"), "{owners:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_owner_is_followed_and_none_is_processed_twice() {
    let mut bed = Testbed::sim(24, "a b c +d").await;
    let (world, regions) = take_part_all(&bed);
    let before = settled(&regions["d"]).await;
    let killed = before.values().next().unwrap().clone();
    let gone = bed.kill(&killed);
    let others = regions.keys().map(String::as_str).filter(|name| *name != killed).collect::<Vec<_>>();
    let followed = async {
        let after = settled(&regions["d"]).await;
        assert!(after.values().all(|owner| *owner != killed), "{after:?}");
    };
    let ((), answered, _) = pumped(&regions, &others, followed).await;
    check(&world, &answered, Order::LeasesWereLost);
    drop(gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_are_cut_off_or_freeze_give_way_and_take_part_again() {
    let bed = Testbed::sim(25, "a b c +d").await;
    let (world, regions) = take_part_all(&bed);
    settled(&regions["d"]).await;
    let trouble = async {
        bed.isolate("a");
        let owners = soon("the others own all", async {
            loop {
                let owners = settled(&regions["d"]).await;
                if owners.values().all(|owner| owner != "a") {
                    return owners;
                }
            }
        });
        owners.await;
        bed.rejoin("a");
        bed.met().await;
        bed.freeze("b");
        let follows = async { while settled(&regions["d"]).await.values().any(|owner| owner == "b") {} };
        soon("the others own all again", follows).await;
        bed.thaw("b");
        bed.met().await;
    };
    let ((), answered, _) = pumped(&regions, &["c", "d"], trouble).await;
    settled(&regions["d"]).await;
    check(&world, &answered, Order::LeasesWereLost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_owner_an_ask_waits_until_its_deadline() {
    // One of three voters: no majority.
    let bed = Testbed::sim(26, "a").await;
    let (_world, regions) = take_part_all(&bed);
    let tick = Tick { sender: "a".into(), number: 1 };
    let ended = regions["a"].ask(b"k", tick, after(Duration::from_millis(300))).await;
    assert_eq!(ended, Err(AskError::Deadline));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused() {
    let bed = Testbed::sim(27, "a").await;
    let limits = RegionLimits::default();
    let refused = |spec: ShardSpec| bed.node("a").shards::<Tick>(spec, limits, None).err().unwrap();
    let lease = crate::lease::LeaseLimits { electorate: 0, ..leases() };
    assert!(matches!(refused(ShardSpec { lease, ..spec() }), ShardError::Limits(_)));
    assert_eq!(refused(ShardSpec { shard_count: 0, ..spec() }), ShardError::Nothing);
    assert!(matches!(refused(ShardSpec { queue_max: 10_000, ..spec() }), ShardError::TooLarge { .. }));
    assert_eq!(refused(spec()), ShardError::NoHandler("series".into()));
    let foreign = ShardSpec { role: Some("other".into()), ..spec() };
    let _region = bed.node("a").shards::<Tick>(foreign.clone(), limits, None).unwrap();
    assert_eq!(refused(foreign), ShardError::Taken("series".into()));
}
