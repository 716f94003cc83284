//! The machine alone, then a singleton on real nodes that are killed, cut off, frozen and stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::*;
use crate::actor::Failure;
use crate::cluster::Cluster;
use crate::cluster::lease::{Bid, Claim, Vote};
use crate::cluster::testbed::{Testbed, after, leases, mailbox, seconds, sees, soon};
use crate::cluster::testing::{id, view};
use crate::{
    AskError, ChildSpec, Children, Inbox, Received, Strategy, SystemClock, Tree, Worker, remote_message,
};

/// Who acts?
#[derive(Clone, Debug, Serialize, Deserialize, actix::Message)]
#[rtype(result = "(String, u64)")]
struct Who;
remote_message!(Who, "test.who", version 1, up to 256 bytes, lane Ask);

/// What the world has seen: who acted under which epoch, in the order of its seeing.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Vec<(u64, String)>>>);

impl World {
    /// A step of one that may act. Looked and done under one lock, so that the order is that of the leases.
    fn step(&self, fence: &Fence, node: &str) {
        let mut seen = self.0.lock();
        if fence.holds() && seen.last().is_none_or(|(epoch, _)| *epoch != fence.epoch()) {
            seen.push((fence.epoch(), node.to_owned()));
        }
    }

    /// Those that have acted. An epoch that comes back is two at one time.
    #[track_caller]
    fn actors(&self) -> Vec<String> {
        let seen = self.0.lock();
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "two acted at one time: {seen:?}");
        seen.iter().map(|(_, node)| node.clone()).collect()
    }
}

struct Clerk {
    node: String,
    fence: Fence,
    world: World,
}

impl Worker<Who> for Clerk {
    fn run(&mut self, inbox: &mut Inbox<Who>) -> Result<(), Failure> {
        loop {
            self.world.step(&self.fence, &self.node);
            match inbox.recv_deadline(Instant::now() + Duration::from_millis(2)) {
                Received::Mail(envelope) => drop(envelope.slot.send((self.node.clone(), self.fence.epoch()))),
                Received::Nothing => {}
                Received::Stop => return Ok(()),
            }
        }
    }
}

fn spec() -> SingletonSpec {
    SingletonSpec { name: "clerk".into(), role: Some("host".into()), lease: leases() }
}

fn hosting() -> Hosting {
    Hosting { stop_within: Duration::from_secs(2), restart_after: Duration::from_millis(100) }
}

fn host(cluster: &Cluster, world: &World) -> SingletonHandle<Who> {
    cluster.singleton(spec(), hosting(), maker(cluster, world)).unwrap()
}

fn maker(cluster: &Cluster, world: &World) -> impl Fn(Fence) -> Result<Hosted<Who>, Failure> + use<> {
    let (node, world) = (cluster.id().to_string(), world.clone());
    move |fence: Fence| {
        let (node, world, mailbox) = (node.clone(), world.clone(), mailbox(64));
        let address = mailbox.address();
        let mut children = Children::new(Strategy::OneForOne);
        children.worker(ChildSpec::new("clerk"), mailbox, move || {
            Ok(Clerk { node: node.clone(), fence: fence.clone(), world: world.clone() })
        });
        Ok(Hosted { tree: Tree::start(children, Arc::new(SystemClock), 1)?, address })
    }
}

fn host_all(bed: &Testbed) -> (World, Vec<SingletonHandle<Who>>) {
    let world = World::default();
    let hosts = bed.nodes().filter(|node| node.id().as_str() != "d");
    let handles = hosts.map(|node| host(node, &world)).collect();
    (world, handles)
}

async fn who(from: &Cluster) -> (String, u64) {
    from.singleton_address("clerk").unwrap().ask(Who, seconds(20)).await.unwrap()
}

/// Until another than `former` answers.
async fn who_follows(from: &Cluster, former: &str) -> (String, u64) {
    let address = from.singleton_address("clerk").unwrap();
    let follows = async {
        loop {
            if let Ok(answer) = address.ask(Who, after(Duration::from_secs(1))).await
                && answer.0 != former
            {
                return answer;
            }
        }
    };
    soon("another acts", follows).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_acts_and_every_node_reaches_it() {
    let bed = Testbed::sim(1, "a b c +d").await;
    let (world, handles) = host_all(&bed);
    // `d` neither hosts nor votes.
    let (node, epoch) = who(bed.node("d")).await;
    for cluster in bed.nodes() {
        assert_eq!(who(cluster).await, (node.clone(), epoch));
    }
    for handle in &handles {
        assert_eq!(handle.address().ask(Who, seconds(5)).await, Ok((node.clone(), epoch)));
        assert_eq!(handle.holder().map(|holder| holder.epoch), Some(epoch));
    }
    assert_eq!(world.actors(), [node]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_is_followed() {
    let mut bed = Testbed::sim(2, "a b c +d").await;
    let (world, _handles) = host_all(&bed);
    let (first, epoch) = who(bed.node("d")).await;
    let killed = Instant::now();
    let _runs_on = bed.kill(&first);
    let (next, later) = who_follows(bed.node("d"), &first).await;
    let took = killed.elapsed();
    assert!(later > epoch, "{later} after {epoch}");
    assert!(took < Duration::from_secs(15), "followed after {took:?}");
    assert_eq!(world.actors(), [first, next]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_cut_off_stops_before_another_starts() {
    let bed = Testbed::sim(3, "a b c +d").await;
    let (world, handles) = host_all(&bed);
    let (first, _) = who(bed.node("d")).await;
    let mut lone =
        bed.nodes().position(|node| node.id().as_str() == first).map(|at| handles[at].states()).unwrap();
    bed.isolate(&first);
    soon("it stops", lone.wait_for(|state| !matches!(state, SingletonState::Acting { .. }))).await.unwrap();
    let (next, _) = who_follows(bed.node("d"), &first).await;
    assert_eq!(world.actors(), [first.clone(), next.clone()]);
    // Back again it may get it again, and everybody finds it.
    bed.rejoin(&first);
    bed.met().await;
    let settled = async {
        loop {
            let (one, other) = (who(bed.node(&first)).await, who(bed.node("d")).await);
            if one == other {
                return one;
            }
        }
    };
    let (last, _) = soon("all agree", settled).await;
    assert_eq!(world.actors().last(), Some(&last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_freezes_is_followed_and_stands_back_when_it_thaws() {
    let bed = Testbed::sim(4, "a b c").await;
    let (world, _handles) = host_all(&bed);
    let (first, _) = who(bed.node("a")).await;
    let other = if first == "a" { "b" } else { "a" };
    bed.freeze(&first);
    let (next, _) = who_follows(bed.node(other), &first).await;
    bed.thaw(&first);
    bed.met().await;
    let (last, epoch) = who(bed.node(&first)).await;
    let actors = world.actors();
    assert_eq!(actors[..2], [first, next]);
    assert!(world.0.lock().iter().any(|(seen, node)| (*seen, node) == (epoch, &last)), "{last} acts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ask_during_the_hand_over_reaches_the_next_holder() {
    let mut bed = Testbed::sim(5, "a b c +d").await;
    let (world, _handles) = host_all(&bed);
    let (first, _) = who(bed.node("d")).await;
    let leaves = bed.node(&first).clone();
    let leaving = tokio::spawn(async move { leaves.leave(seconds(5)).await });
    let address = bed.node("d").singleton_address("clerk").unwrap();
    // Whichever side of the hand-over each falls on, none is refused. One that is answered while the link goes
    // down may be lost, and says so.
    let mut answers = Vec::new();
    while answers.last().is_none_or(|node| *node == first) {
        match address.ask(Who, seconds(10)).await {
            Ok((node, _)) => answers.push(node),
            Err(why) => assert_eq!(why, AskError::Lost),
        }
    }
    leaving.await.unwrap();
    bed.forget(&first);
    bed.met().await;
    assert_eq!(world.actors(), [first, answers.pop().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_to_start_is_started_again_under_another_epoch() {
    let bed = Testbed::sim(6, "a b c").await;
    let (tries, world) = (Arc::new(AtomicUsize::new(0)), World::default());
    let mut handles = Vec::new();
    for node in bed.nodes() {
        let (tries, make) = (Arc::clone(&tries), maker(node, &world));
        let make = move |fence: Fence| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => Err("no device".into()),
            1 => panic!("no memory"),
            _ => make(fence),
        };
        handles.push(node.singleton::<Who>(spec(), hosting(), make).unwrap());
    }
    let (node, epoch) = who(bed.node("a")).await;
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    assert_eq!(world.0.lock().clone(), [(epoch, node)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_quic_a_crashed_holder_is_followed() {
    let mut bed = Testbed::quic("a b c +d").await;
    let (world, _handles) = host_all(&bed);
    let (first, epoch) = who(bed.node("d")).await;
    let _runs_on = bed.kill(&first);
    let (next, later) = who_follows(bed.node("d"), &first).await;
    assert!(later > epoch, "{later} after {epoch}");
    assert_eq!(world.actors(), [first.clone(), next]);
    sees(bed.node("d"), |view| view.get(&id(&first)).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_hosted_is_refused() {
    let bed = Testbed::sim(7, "a").await;
    let node = bed.node("a");
    let mut broken = spec();
    broken.lease.promise = broken.lease.lease;
    let make = |_: Fence| -> Result<Hosted<Who>, Failure> { Err("never".into()) };
    assert!(matches!(node.singleton(broken, hosting(), make), Err(SingletonError::Limits(_))));
    let _handle = node.singleton(spec(), hosting(), make).unwrap();
    assert!(matches!(node.singleton(spec(), hosting(), make), Err(SingletonError::Taken(_))));
    let nobody = node.singleton_address::<Who>("nobody").unwrap();
    assert_eq!(nobody.ask(Who, after(Duration::from_millis(30))).await, Err(AskError::Unreachable));
    assert!(matches!(nobody.tell(Who), Err(crate::TellError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_hands_over_and_leaves() {
    drains(Testbed::sim(8, "a b c +d").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_over_quic_finishes_hands_over_and_leaves() {
    drains(Testbed::quic("a b c +d").await).await;
}

async fn drains(mut bed: Testbed) {
    let (world, _handles) = host_all(&bed);
    let (first, _) = who(bed.node("d")).await;
    let watcher = bed.node("d").clone();
    // The work inside lasts until the others have seen that this node drains: a cordon that nobody sees never
    // ends it, and the drain is not clean.
    let (name, seen_by) = (id(&first), watcher.clone());
    let finish = async move {
        sees(&seen_by, |view| view.get(&name).is_some_and(|it| it.standing == Standing::Draining)).await;
    };
    let report = bed.node(&first).clone().drain(seconds(15), finish).await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.took < Duration::from_secs(10), "{report:?}");
    sees(&watcher, |view| view.get(&id(&first)).is_none()).await;
    let (next, _) = who(&watcher).await;
    assert_eq!(world.actors(), [first.clone(), next]);
    bed.forget(&first);
    bed.met().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_by_its_deadline_and_says_what_is_not_done() {
    let bed = Testbed::sim(9, "a b").await;
    let began = Instant::now();
    let report = bed.node("a").drain(seconds(2), std::future::pending()).await;
    assert_eq!((report.undone.in_flight, report.undone.singletons), (1, 0));
    assert!(began.elapsed() < Duration::from_millis(2_300), "it took {:?}", began.elapsed());
    sees(bed.node("b"), |view| view.members.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_drains_at_once_although_nobody_takes_over() {
    let bed = Testbed::sim(10, "a").await;
    let world = World::default();
    let alone = SingletonSpec { lease: LeaseLimits { electorate: 1, ..leases() }, ..spec() };
    let make = maker(bed.node("a"), &world);
    let handle = bed.node("a").singleton(alone, hosting(), make).unwrap();
    assert_eq!(handle.address().ask(Who, seconds(10)).await.unwrap().0, "a");
    let report = bed.node("a").drain(seconds(10), std::future::ready(())).await;
    assert!(report.is_clean() && report.took < Duration::from_secs(5), "{report:?}");
    assert_eq!(*handle.states().borrow(), SingletonState::Standby, "it has stopped before the goodbye");
}

/// One of three, alone with its clock: what it does at which millisecond.
struct Alone {
    singleton: Singleton,
    start: Instant,
}

impl Alone {
    fn new() -> Self {
        let start = Instant::now();
        let singleton = Singleton::new(spec_of_all(), id("b"), Incarnation(1), 0, start);
        Self { singleton, start }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn tick(&mut self, ms: u64) -> Vec<SingletonAction> {
        self.singleton.tick(self.at(ms))
    }

    /// `a` grants the claim that is under way.
    fn grant(&mut self, claim: &Claim, ms: u64) -> Vec<SingletonAction> {
        let granted = claim.bids.iter().map(|bid| (bid.slot, bid.epoch)).collect();
        let vote = Vote { incarnation: claim.incarnation, round: claim.round, granted, refused: Vec::new() };
        self.singleton.on_message(&id("a"), &LeaseMessage::Vote(vote), self.at(ms))
    }
}

fn spec_of_all() -> SingletonSpec {
    let ms = Duration::from_millis;
    let lease = LeaseLimits { electorate: 3, lease: ms(800), promise: ms(1_000), renew: ms(150) };
    SingletonSpec { role: None, lease, ..spec() }
}

fn claim_in(actions: &[SingletonAction]) -> Option<Claim> {
    actions.iter().find_map(|action| match action {
        SingletonAction::Send(_, LeaseMessage::Claim(claim)) => Some(claim.clone()),
        _ => None,
    })
}

/// With the view of all three, `b` is wanted here: its name scores highest.
fn wanted() -> View {
    let winner = owner(b"clerk", &["a", "b", "c"].map(id)).cloned().unwrap();
    assert_eq!(winner, id("b"), "the tests below are written for it");
    view("a b c")
}

#[test]
fn it_starts_with_a_majority_and_tells_the_voters_at_once() {
    let mut alone = Alone::new();
    alone.singleton.on_view(&wanted(), alone.at(0));
    // Mute at first, so its own vote comes with the first claim after that.
    let claim = claim_in(&alone.tick(1_000)).unwrap();
    let actions = alone.grant(&claim, 1_001);
    let epoch = claim.bids[0].epoch;
    assert_eq!(actions[0], SingletonAction::Start { epoch });
    assert_eq!(claim_in(&actions).unwrap().bids, [Bid { slot: 0, epoch, held: true }]);
    assert_eq!(alone.singleton.acting(alone.at(1_001)), Some(epoch));
}

#[test]
fn it_stops_when_no_majority_renews_and_bids_again_only_when_it_has_stopped() {
    let mut alone = Alone::new();
    alone.singleton.on_view(&wanted(), alone.at(0));
    let claim = claim_in(&alone.tick(1_000)).unwrap();
    alone.grant(&claim, 1_001);
    // Granted at 1,001, asked at 1,000: the lease of 800 ms counts from the asking.
    assert_eq!(alone.singleton.acts_until(), Some(alone.at(1_800)));
    let epoch = claim.bids[0].epoch;
    assert!(alone.tick(1_800).contains(&SingletonAction::Stop { epoch }));
    assert_eq!(alone.singleton.acting(alone.at(1_800)), None);
    assert_eq!(claim_in(&alone.tick(2_500)), None, "what stops does not bid");
    let again = alone.singleton.on_stopped(alone.at(2_600));
    assert!(claim_in(&again).unwrap().bids[0].epoch > epoch);
}

#[test]
fn what_has_failed_is_given_back_when_that_is_said() {
    let mut alone = Alone::new();
    alone.singleton.on_view(&wanted(), alone.at(0));
    let claim = claim_in(&alone.tick(1_000)).unwrap();
    alone.grant(&claim, 1_001);
    alone.singleton.on_failed();
    assert_eq!(alone.singleton.acting(alone.at(1_002)), None);
    let actions = alone.singleton.on_stopped(alone.at(1_003));
    let released =
        |action: &SingletonAction| matches!(action, SingletonAction::Send(_, LeaseMessage::Release(_)));
    assert_eq!(actions.iter().filter(|action| released(action)).count(), 2, "{actions:?}");
}

#[test]
fn one_that_leaves_stops_although_nobody_follows() {
    let mut alone = Alone::new();
    alone.singleton.on_view(&wanted(), alone.at(0));
    let claim = claim_in(&alone.tick(1_000)).unwrap();
    alone.grant(&claim, 1_001);
    let epoch = claim.bids[0].epoch;
    assert!(alone.singleton.on_view(&view("a! b! c!"), alone.at(1_002)).is_empty(), "the last one acts on");
    assert!(!alone.singleton.has_successor());
    assert_eq!(alone.singleton.leave(alone.at(1_003)), [SingletonAction::Stop { epoch }]);
    alone.singleton.on_stopped(alone.at(1_004));
    assert_eq!(alone.singleton.state(), SingletonState::Standby);
    alone.singleton.on_view(&wanted(), alone.at(1_005));
    assert_eq!(alone.singleton.state(), SingletonState::Standby, "it does not come back");
}
