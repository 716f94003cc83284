//! The room on nodes that do as they are told, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use peregrine_runtime::{Clock, Deadline, NodeId, Region};
use peregrine_shaders::{Backend, Family, Head, ModelSpec, NormalizerKind, Windows};

use crate::remote::{
    Need, NoAnswer, Peers, Prefer, Provider, Remote, RemoteAnswer, RemoteForecast, RemoteRefusal,
};
use crate::trace::{Trace, TraceParent};
use crate::{BreakerLimits, BreakerState, RoutingSettings, Timing};

const MS: Duration = Duration::from_millis(1);

/// The clock of the paused timer.
struct Virtual;

impl Clock for Virtual {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

/// How a node behaves from now on.
#[derive(Clone, Debug)]
enum Way {
    Answers(Duration),
    Refuses(Duration, RemoteRefusal),
    Hangs,
    /// Answers numbers that do not fit.
    Lies,
}

/// A cluster of fakes: who there is, how each behaves, and what was asked of it.
#[derive(Default)]
struct Cluster {
    nodes: Mutex<Vec<(Provider, Way)>>,
    asked: Mutex<Vec<String>>,
    cancelled: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>, bool);

impl Drop for Running {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Peers for Cluster {
    fn here(&self) -> (NodeId, Region) {
        (NodeId::new("here").unwrap(), Region::new("ams").unwrap())
    }

    fn providers(&self, model: &str, _: Option<u32>) -> Vec<Provider> {
        let nodes = self.nodes.lock();
        if model == "m" { nodes.iter().map(|(provider, _)| provider.clone()).collect() } else { Vec::new() }
    }

    fn serve_anything(&self) -> bool {
        !self.nodes.lock().is_empty()
    }

    fn ask(
        &self,
        node: &NodeId,
        request: Arc<RemoteForecast>,
        _: Option<TraceParent>,
        _: Deadline,
    ) -> BoxFuture<'static, Result<RemoteAnswer, RemoteRefusal>> {
        self.asked.lock().push(node.to_string());
        let nodes = self.nodes.lock();
        let (provider, way) = nodes.iter().find(|(provider, _)| provider.node == *node).cloned().unwrap();
        let running = Running(Arc::clone(&self.cancelled), false);
        Box::pin(async move {
            // The whole of it moves in here: its flag alone would be copied.
            let mut running = running;
            let ended = match way {
                Way::Answers(after) => {
                    tokio::time::sleep(after).await;
                    Ok(answer(&provider, &request, 2))
                }
                Way::Lies => Ok(answer(&provider, &request, 3)),
                Way::Refuses(after, refusal) => {
                    tokio::time::sleep(after).await;
                    Err(refusal)
                }
                Way::Hangs => std::future::pending().await,
            };
            running.1 = true;
            ended
        })
    }
}

fn answer(provider: &Provider, request: &RemoteForecast, len: usize) -> RemoteAnswer {
    let spec = ModelSpec {
        name: "m".to_owned(),
        family: Family::Mlp,
        horizon: 2,
        window: 3,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["mean".to_owned()],
    };
    RemoteAnswer {
        spec: Arc::new(spec),
        version: 1,
        digest: String::new(),
        weight_bytes: 0,
        rows: request.rows(),
        values: vec![1.0; request.rows() * len],
        backend: Backend::Gpu,
        degraded: false,
        timing: Timing::default(),
        node: provider.node.clone(),
        region: provider.region.clone(),
    }
}

struct Rig {
    cluster: Arc<Cluster>,
    remote: Remote,
}

impl Rig {
    /// Nodes by name, round trip in milliseconds and behaviour.
    fn new(nodes: &[(&str, u64, Way)], change: impl FnOnce(&mut RoutingSettings)) -> Self {
        let cluster = Arc::new(Cluster::default());
        for (name, rtt_ms, way) in nodes {
            let provider = Provider {
                node: NodeId::new(name).unwrap(),
                region: Region::new("ams").unwrap(),
                rtt: Duration::from_millis(*rtt_ms),
                load: 0.0,
                cost: 1.0,
                has_gpu: true,
                gpu_open: false,
                doubted: false,
                draining: false,
                standby: false,
            };
            cluster.nodes.lock().push((provider, way.clone()));
        }
        let mut settings = RoutingSettings::default();
        change(&mut settings);
        let breaker = BreakerLimits { calls_min: 4, probes: 1, ..BreakerLimits::default() };
        let peers = Arc::clone(&cluster) as Arc<dyn Peers>;
        Self { cluster, remote: Remote::new(peers, settings, (breaker, Arc::default()), Arc::new(Virtual)) }
    }

    fn set(&self, node: &str, way: Way) {
        let mut nodes = self.cluster.nodes.lock();
        nodes.iter_mut().find(|(provider, _)| provider.node.as_str() == node).unwrap().1 = way;
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut Provider)) {
        let mut nodes = self.cluster.nodes.lock();
        change(&mut nodes.iter_mut().find(|(provider, _)| provider.node.as_str() == node).unwrap().0);
    }

    /// One request with this much time; who answered, or why nobody did.
    async fn ask(&self, within: Duration) -> Result<String, RemoteRefusal> {
        let windows = Windows { rows: 1, y: vec![1.0, 2.0, 3.0], ..Windows::default() };
        let request = RemoteForecast {
            model: "m".to_owned(),
            version: None,
            may_degrade: true,
            windows: Some(windows),
        };
        let start = tokio::time::Instant::now();
        let deadline = Deadline::after(start.into_std(), within);
        let ended =
            self.remote.forecast(Arc::new(request), Need::default(), deadline, &Trace::default()).await;
        assert!(start.elapsed() <= within + 2 * MS, "it ended {:?} after it began", start.elapsed());
        match ended {
            Ok(answer) => Ok(answer.node.to_string()),
            Err(NoAnswer::Refused(refusal)) => Err(refusal),
            Err(NoAnswer::Nobody) => panic!("the cluster serves the model"),
        }
    }

    /// Asked since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.cluster.asked.lock())
    }

    fn state(&self, node: &str) -> BreakerState {
        let breakers = self.remote.breakers(Virtual.now());
        let of = |status: &&crate::BreakerStatus| status.guards.node().unwrap().as_str() == node;
        breakers.iter().find(of).unwrap().state
    }
}

const GOOD: Way = Way::Answers(MS);

fn refuses(refusal: RemoteRefusal) -> Way {
    Way::Refuses(MS, refusal)
}

fn gone() -> Way {
    refuses(RemoteRefusal::Unreachable("gone".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn the_nearest_node_answers() {
    let rig = Rig::new(&[("far", 40, GOOD), ("near", 1, GOOD)], |_| {});
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "near");
    assert_eq!(rig.asked(), ["near"]);
}

#[tokio::test(start_paused = true)]
async fn a_preferred_region_answers_first() {
    let nrt = Region::new("nrt").unwrap();
    let wanted = nrt.clone();
    let rig = Rig::new(&[("far", 40, GOOD), ("near", 1, GOOD)], |settings| {
        settings.regions_by_model = BTreeMap::from([("m".to_owned(), wanted)]);
    });
    rig.change("far", |provider| provider.region = nrt);
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "far");
    rig.set("far", gone());
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "near");
}

#[tokio::test(start_paused = true)]
async fn the_least_loaded_answers_if_that_is_wanted() {
    let rig = Rig::new(&[("far", 40, GOOD), ("near", 1, GOOD)], |settings| {
        settings.prefer = Prefer::LeastLoaded;
    });
    rig.change("near", |provider| provider.load = 0.9);
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "far");
}

#[tokio::test(start_paused = true)]
async fn the_next_node_answers_for_one_that_is_gone() {
    for refusal in [
        RemoteRefusal::Unreachable("gone".to_owned()),
        RemoteRefusal::Overloaded { retry_after_ms: 100 },
        RemoteRefusal::Stopping,
        RemoteRefusal::UnknownModel,
    ] {
        let rig = Rig::new(&[("a", 1, refuses(refusal)), ("b", 5, GOOD)], |_| {});
        assert_eq!(rig.ask(1000 * MS).await.unwrap(), "b");
        assert_eq!(rig.asked(), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_serves_by_now_answers_for_one_that_is_lost() {
    let lost = Way::Refuses(1500 * MS, RemoteRefusal::Unreachable("lost".to_owned()));
    let rig = Rig::new(&[("a", 1, lost), ("b", 5, GOOD), ("c", 6, GOOD)], |_| {});
    rig.change("b", |provider| provider.draining = true);
    rig.change("c", |provider| provider.draining = true);
    let join = async {
        tokio::time::sleep(1000 * MS).await;
        rig.change("b", |provider| provider.draining = false);
    };
    let (ended, ()) = tokio::join!(rig.ask(3000 * MS), join);
    assert_eq!(ended.unwrap(), "b");
    assert_eq!(rig.asked(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_final_refusal_is_not_retried() {
    let not_finite = RemoteRefusal::NotFinite { row: 0 };
    let rig = Rig::new(&[("a", 1, refuses(not_finite.clone())), ("b", 5, GOOD)], |_| {});
    assert_eq!(rig.ask(1000 * MS).await, Err(not_finite));
    assert_eq!(rig.asked(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_is_none() {
    let rig = Rig::new(&[("a", 1, Way::Lies), ("b", 5, GOOD)], |_| {});
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "b");
    assert_eq!(rig.remote.stats().peers[0].failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_has_after_all_is_unknown() {
    let unknown = refuses(RemoteRefusal::UnknownModel);
    let rig = Rig::new(&[("a", 1, unknown.clone()), ("b", 5, unknown)], |_| {});
    assert_eq!(rig.ask(1000 * MS).await, Err(RemoteRefusal::UnknownModel));
}

#[tokio::test(start_paused = true)]
async fn everything_ends_by_the_deadline() {
    let rig = Rig::new(&[("a", 1, Way::Hangs), ("b", 5, Way::Hangs)], |_| {});
    assert_eq!(rig.ask(50 * MS).await, Err(RemoteRefusal::DeadlineExceeded));
    assert_eq!(rig.cluster.cancelled.load(Ordering::Relaxed), 1);
    assert_eq!(rig.remote.stats().peers[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_cancels_what_it_asked_for() {
    let rig = Rig::new(&[("a", 1, Way::Hangs)], |_| {});
    let left = tokio::time::timeout(10 * MS, rig.ask(1000 * MS)).await;
    assert!(left.is_err());
    assert_eq!(rig.cluster.cancelled.load(Ordering::Relaxed), 1);
    let peer = &rig.remote.stats().peers[0];
    assert_eq!((peer.cancelled, peer.failed, peer.in_flight), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_node_is_outrun_and_its_ask_cancelled() {
    let rig = Rig::new(&[("a", 1, Way::Answers(20 * MS)), ("b", 5, GOOD)], |_| {});
    for _ in 0..40 {
        assert_eq!(rig.ask(1000 * MS).await.unwrap(), "a");
    }
    rig.asked();
    rig.set("a", Way::Hangs);
    let start = tokio::time::Instant::now();
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "b");
    let took = start.elapsed();
    assert!(took >= 20 * MS && took <= 25 * MS, "{took:?}: the percentile, then 1 ms");
    assert_eq!(rig.asked(), ["a", "b"]);
    assert_eq!(rig.cluster.cancelled.load(Ordering::Relaxed), 1);
    let stats = rig.remote.stats();
    assert_eq!((stats.hedges, stats.hedge_wins, stats.peers[0].cancelled), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn hedges_stay_within_their_share() {
    let rig = Rig::new(&[("a", 1, Way::Answers(10 * MS)), ("b", 5, Way::Answers(10 * MS))], |settings| {
        settings.hedge.share = 0.1;
        settings.hedge.burst = 1;
    });
    for _ in 0..30 {
        rig.ask(1000 * MS).await.unwrap();
    }
    rig.asked();
    // Late every time, but never so late that its breaker would call it slow.
    rig.set("a", Way::Answers(15 * MS));
    for _ in 0..100 {
        rig.ask(1000 * MS).await.unwrap();
    }
    let stats = rig.remote.stats();
    assert!(rig.asked().len() <= 100 + 11, "{stats:?}");
    assert!(stats.hedges > 0, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_not_multiplied() {
    const REQUESTS: usize = 500;
    let busy = || refuses(RemoteRefusal::NotReady);
    let rig = Rig::new(&[("a", 1, busy()), ("b", 2, busy()), ("c", 3, busy())], |settings| {
        settings.retry.share = 0.2;
        settings.retry.reserve = 0;
        settings.in_flight_max = REQUESTS;
        settings.region_in_flight_max = REQUESTS;
    });
    let ended = join_all((0..REQUESTS).map(|_| rig.ask(1000 * MS))).await;
    assert!(ended.iter().all(|ended| *ended == Err(RemoteRefusal::NotReady)));
    let asked = rig.asked().len();
    assert!((REQUESTS + 1..=REQUESTS + REQUESTS / 5).contains(&asked), "{asked} asks");
    assert!(rig.remote.stats().retries_refused > 0);
}

#[tokio::test(start_paused = true)]
async fn an_ocean_is_crossed_for_one_retry_at_most() {
    let rig = Rig::new(&[("a", 1, gone()), ("b", 90, gone()), ("c", 95, gone()), ("d", 97, GOOD)], |_| {});
    assert!(rig.ask(1000 * MS).await.is_err());
    assert_eq!(rig.asked(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_keeps_its_node_out_and_probes_again() {
    let rig = Rig::new(&[("a", 1, gone()), ("b", 5, GOOD)], |_| {});
    for _ in 0..4 {
        assert_eq!(rig.ask(1000 * MS).await.unwrap(), "b");
    }
    assert!(matches!(rig.state("a"), BreakerState::Open { .. }));
    rig.asked();
    rig.ask(1000 * MS).await.unwrap();
    assert_eq!(rig.asked(), ["b"], "it is left alone");
    rig.set("a", GOOD);
    tokio::time::advance(1100 * MS).await;
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "a", "a probe");
    assert_eq!(rig.state("a"), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_opens_its_breaker() {
    let rig = Rig::new(&[("a", 1, Way::Hangs), ("b", 5, GOOD)], |_| {});
    for _ in 0..4 {
        assert_eq!(rig.ask(50 * MS).await, Err(RemoteRefusal::DeadlineExceeded));
    }
    assert_eq!(rig.ask(50 * MS).await.unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_do_not_open_a_breaker() {
    let rig = Rig::new(&[("a", 1, Way::Answers(20 * MS))], |settings| settings.hedge.enabled = false);
    for _ in 0..10 {
        rig.ask(1000 * MS).await.unwrap();
    }
    for _ in 0..60 {
        assert_eq!(rig.ask(10 * MS).await, Err(RemoteRefusal::DeadlineExceeded));
    }
    assert_eq!(rig.state("a"), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_given_nothing() {
    let rig = Rig::new(&[("a", 1, GOOD), ("b", 5, GOOD)], |_| {});
    rig.change("a", |provider| provider.draining = true);
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "b");
    rig.change("b", |provider| provider.draining = true);
    assert!(matches!(rig.ask(1000 * MS).await, Err(RemoteRefusal::Unavailable(_))));
    assert_eq!(rig.asked(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_full_is_left_alone_for_a_while() {
    let full = refuses(RemoteRefusal::Overloaded { retry_after_ms: 200 });
    let rig = Rig::new(&[("a", 1, full), ("b", 5, GOOD)], |_| {});
    rig.ask(1000 * MS).await.unwrap();
    rig.asked();
    rig.set("a", GOOD);
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "b");
    tokio::time::advance(200 * MS).await;
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "a");
    assert_eq!(rig.state("a"), BreakerState::Closed, "full is not broken");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_is_bounded_by_node_and_by_region() {
    for by_region in [false, true] {
        let rig = Rig::new(&[("a", 1, Way::Answers(50 * MS))], |settings| {
            if by_region {
                settings.in_flight_max_by_region = BTreeMap::from([(Region::new("ams").unwrap(), 3)]);
            } else {
                settings.in_flight_max = 3;
            }
        });
        let ended = join_all((0..8).map(|_| rig.ask(1000 * MS))).await;
        assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 3);
        let full = |ended: &&Result<_, _>| matches!(ended, Err(RemoteRefusal::Overloaded { .. }));
        assert_eq!(ended.iter().filter(full).count(), 5);
        rig.ask(1000 * MS).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn other_settings_hold_from_the_next_request_on() {
    let rig = Rig::new(&[("far", 40, GOOD), ("near", 1, GOOD)], |_| {});
    rig.change("near", |provider| provider.load = 0.9);
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "near");
    rig.remote.set(RoutingSettings { prefer: Prefer::LeastLoaded, ..RoutingSettings::default() });
    assert_eq!(rig.ask(1000 * MS).await.unwrap(), "far");
}
