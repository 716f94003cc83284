//! Whole systems beside each other: who answers what for whom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use peregrine_runtime::{Deadline, NodeId, Region};
use peregrine_shaders::{Backend, ExecuteError, Windows};

use super::fake::Mode;
use super::{MODEL, Rig, ramp, until};
use crate::trace::TraceParent;
use crate::{
    BreakerState, FallbackPolicy, ForecastError, ForecastRequest, Peers, Provider, RemoteAnswer,
    RemoteForecast, RemoteRefusal, ServedBy, System,
};

/// A cluster of two: everything is asked of the other system, over the bytes that would cross.
struct Pair {
    other: Option<System>,
    names_it: bool,
    rtt: Duration,
    asked: Arc<Mutex<Vec<RemoteForecast>>>,
}

impl Peers for Pair {
    fn here(&self) -> (NodeId, Region) {
        (NodeId::new("there").unwrap(), Region::new("nrt").unwrap())
    }

    fn providers(&self, model: &str, version: Option<u32>) -> Vec<Provider> {
        let provider = Provider {
            node: NodeId::new("there").unwrap(),
            region: Region::new("nrt").unwrap(),
            rtt: self.rtt,
            load: 0.0,
            cost: 1.0,
            has_gpu: true,
            gpu_open: false,
            doubted: false,
            draining: false,
            standby: false,
        };
        let has = match model {
            "nowhere" => false,
            "first" => version.is_none_or(|version| version == 1),
            _ => true,
        };
        if self.names_it && has { vec![provider] } else { Vec::new() }
    }

    fn serve_anything(&self) -> bool {
        self.names_it
    }

    fn ask(
        &self,
        _: &NodeId,
        request: Arc<RemoteForecast>,
        trace: Option<TraceParent>,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<RemoteAnswer, RemoteRefusal>> {
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        let request = RemoteForecast::read(&bytes).unwrap();
        self.asked.lock().push(request.clone());
        let other = self.other.clone();
        Box::pin(async move {
            let Some(other) = other else { return Err(RemoteRefusal::Unreachable("gone".to_owned())) };
            let mut bytes = Vec::new();
            match other.serve_remote(request, trace, deadline).await {
                Ok(answer) => {
                    answer.write(&mut bytes);
                    Ok(RemoteAnswer::read(&bytes).unwrap())
                }
                Err(refusal) => {
                    refusal.write(&mut bytes);
                    Err(RemoteRefusal::read(&bytes).unwrap())
                }
            }
        })
    }
}

type Asked = Arc<Mutex<Vec<RemoteForecast>>>;

/// `here` may ask `there`, which would ask `here` if it ever passed anything on.
pub(super) fn join(here: &Rig, there: Option<&Rig>, rtt: Duration) -> (Asked, Asked) {
    let (out, back) = (Asked::default(), Asked::default());
    let pair = |other, asked: &Asked| {
        Arc::new(Pair { other, names_it: true, rtt, asked: Arc::clone(asked) }) as Arc<dyn Peers>
    };
    assert!(here.system.attach_peers(pair(there.map(|there| there.system.clone()), &out)));
    assert!(!here.system.attach_peers(pair(None, &out)), "once");
    if let Some(there) = there {
        assert!(there.system.attach_peers(pair(Some(here.system.clone()), &back)));
    }
    (out, back)
}

fn from_there() -> ServedBy {
    let digest = super::forecaster().digest().to_owned();
    ServedBy::Peer { node: NodeId::new("there").unwrap(), region: Region::new("nrt").unwrap(), digest }
}

fn named(rig: &Rig, model: &str, windows: Windows) -> ForecastRequest {
    ForecastRequest { model: model.to_owned(), ..rig.request(windows) }
}

pub(super) const NO_WAY: Duration = Duration::ZERO;

#[tokio::test]
async fn a_model_that_is_not_here_is_answered_there() {
    let (here, there) = (Rig::cpu(|_| {}).await, Rig::gpu(|_| {}).await);
    assert!(here.system.unload(MODEL, None).await);
    let (out, _) = join(&here, Some(&there), NO_WAY);
    let forecast = here.system.forecast(here.request(ramp(3))).await.unwrap();
    assert_eq!((&forecast.served_by, forecast.backend), (&from_there(), Backend::Gpu));
    assert_eq!(forecast.backend_label(), "remote:nrt");
    let own = there.system.forecast(there.request(ramp(3))).await.unwrap();
    assert_eq!(forecast.values, own.values);
    assert_eq!(forecast.spec.columns, own.spec.columns);
    assert_eq!(out.lock().len(), 1);
}

#[tokio::test]
async fn its_shapes_are_known_before_it_is_asked() {
    let (here, there) = (Rig::cpu(|_| {}).await, Rig::gpu(|_| {}).await);
    assert!(here.system.unload(MODEL, None).await);
    let (out, _) = join(&here, Some(&there), NO_WAY);
    for _ in 0..3 {
        let found = here.system.locate(MODEL, None, here.system.default_deadline()).await.unwrap();
        let own = there.system.find(MODEL, None).unwrap();
        assert_eq!((&found.digest, found.spec.window), (&own.digest, own.spec.window));
    }
    assert_eq!(out.lock().len(), 1, "then they are remembered");
    let short = Windows { rows: 1, y: vec![0.0; 3], ..Windows::default() };
    assert!(matches!(here.system.forecast(here.request(short)).await, Err(ForecastError::Window(_))));
    assert_eq!(out.lock().len(), 1, "what does not fit does not cross");
}

#[tokio::test]
async fn windows_that_do_not_fit_are_refused_with_their_place() {
    let (here, there) = (Rig::cpu(|_| {}).await, Rig::gpu(|_| {}).await);
    assert!(here.system.unload(MODEL, None).await);
    join(&here, Some(&there), NO_WAY);
    let mut bad = ramp(2);
    bad.y[super::WINDOW + 5] = f32::NAN;
    let refused = here.system.forecast(here.request(bad)).await.unwrap_err();
    let place = peregrine_shaders::WindowError::NotFinite { tensor: "y", row: 1, index: 5 };
    assert_eq!(refused, ForecastError::Window(place));
}

#[tokio::test]
async fn a_model_that_is_nowhere_is_unknown() {
    let (here, there) = (Rig::cpu(|_| {}).await, Rig::gpu(|_| {}).await);
    let (out, back) = join(&here, Some(&there), NO_WAY);
    let unknown = |model: &str| Err(ForecastError::UnknownModel(model.to_owned()));
    let ask = |model: &'static str| here.system.forecast(named(&here, model, ramp(1)));
    assert_eq!(ask("nowhere").await.map(|_| ()), unknown("nowhere"));
    assert_eq!(out.lock().len(), 0);
    // The cluster believes that the other one serves it.
    assert_eq!(ask("stale").await.map(|_| ()), unknown("stale"));
    assert_eq!((out.lock().len(), back.lock().len()), (1, 0), "one hop, never two");
}

#[tokio::test]
async fn a_model_that_others_are_to_serve_is_missing_while_none_does() {
    let of_others =
        |settings: &mut crate::Settings| settings.models_of_others = ["nowhere".to_owned()].into();
    let here = Rig::cpu(of_others).await;
    join(&here, None, NO_WAY);
    let missing = ForecastError::unavailable("none of the nodes that can be asked serves `nowhere`");
    let asked = here.system.forecast(named(&here, "nowhere", ramp(1))).await;
    assert_eq!(asked.map(|_| ()), Err(missing.clone()));
    let located = here.system.locate("nowhere", None, here.request(ramp(1)).deadline).await;
    assert_eq!(located.map(|_| ()), Err(missing));
}

#[tokio::test]
async fn a_version_that_no_node_has_is_unknown_while_others_of_the_model_are_served() {
    let of_others = |settings: &mut crate::Settings| settings.models_of_others = ["first".to_owned()].into();
    let here = Rig::cpu(of_others).await;
    let (out, _) = join(&here, None, NO_WAY);
    let unknown = ForecastError::UnknownVersion { model: "first".to_owned(), version: 2 };
    let second = ForecastRequest { version: Some(2), ..named(&here, "first", ramp(1)) };
    let deadline = second.deadline;
    assert_eq!(here.system.forecast(second).await.map(|_| ()), Err(unknown.clone()));
    assert_eq!(here.system.locate("first", Some(2), deadline).await.map(|_| ()), Err(unknown));
    assert_eq!(out.lock().len(), 0);
    // The one that they have cannot be asked for: that says nothing of which there are.
    let first = here.system.locate("first", Some(1), deadline).await;
    assert!(matches!(first, Err(ForecastError::Unavailable { .. })), "{first:?}");
}

#[tokio::test]
async fn an_open_breaker_sends_requests_to_the_gpu_that_is_well() {
    let (here, there) = (Rig::gpu(|_| {}).await, Rig::gpu(|_| {}).await);
    let (out, back) = join(&here, Some(&there), NO_WAY);
    assert_eq!(here.ask().await.unwrap().served_by, ServedBy::Here);
    here.cpu.set(Mode::Slow(Duration::from_millis(20)));
    here.gpu.set(Mode::Fail(ExecuteError::Timeout { millis: 5 }));
    // The CPU stands in and is measured, the circuit opens.
    for _ in 0..2 {
        assert!(here.ask().await.unwrap().degraded);
    }
    let open = |rig: &Rig| rig.system.breakers().iter().any(|b| matches!(b.state, BreakerState::Open { .. }));
    until("it opens", || open(&here)).await;
    let forecast = here.ask().await.unwrap();
    assert_eq!((forecast.served_by.clone(), forecast.degraded), (from_there(), false));
    assert!(!out.lock()[0].may_degrade, "a cpu there is no better than the one here");
    assert_eq!(back.lock().len(), 0);
    // Its own gpu fails too: what it answers with its cpu is of no use, and the cpu here answers.
    there.gpu.set(Mode::Gone);
    there.ask().await.unwrap();
    until("the other gpu is down", || !there.system.health().reasons.is_empty()).await;
    let forecast = here.ask().await.unwrap();
    assert_eq!((forecast.served_by.clone(), forecast.degraded), (ServedBy::Here, true));
}

#[tokio::test]
async fn a_cpu_that_is_sooner_answers() {
    let (here, there) = (Rig::cpu(|_| {}).await, Rig::gpu(|_| {}).await);
    let (out, _) = join(&here, Some(&there), Duration::from_millis(30));
    here.cpu.set(Mode::Slow(Duration::from_millis(5)));
    for _ in 0..6 {
        assert_eq!(here.ask().await.unwrap().served_by, ServedBy::Here);
    }
    assert_eq!(out.lock().len(), 0);
    // Now it is not.
    here.cpu.set(Mode::Slow(Duration::from_millis(80)));
    for _ in 0..6 {
        here.ask().await.unwrap();
    }
    assert_eq!(here.ask().await.unwrap().served_by, from_there());
}

#[tokio::test]
async fn the_cpu_here_is_the_last_resort() {
    let here = Rig::cpu(|_| {}).await;
    let (out, _) = join(&here, None, NO_WAY);
    here.cpu.set(Mode::Slow(Duration::from_millis(20)));
    for _ in 0..8 {
        assert_eq!(here.ask().await.unwrap().served_by, ServedBy::Here);
    }
    assert!(!out.lock().is_empty(), "others were asked first");
}

#[tokio::test]
async fn a_model_of_a_region_is_answered_there() {
    let nrt = Region::new("nrt").unwrap();
    let prefer = BTreeMap::from([(MODEL.to_owned(), nrt)]);
    let here = Rig::gpu(|settings| settings.routing.regions_by_model = prefer).await;
    let there = Rig::gpu(|_| {}).await;
    let (out, back) = join(&here, Some(&there), Duration::from_millis(90));
    assert_eq!(here.ask().await.unwrap().served_by, from_there());
    assert_eq!((out.lock().len(), back.lock().len(), here.gpu.entered()), (1, 0, 0));
    there.system.stop(there.system.default_deadline()).await;
    assert_eq!(here.ask().await.unwrap().served_by, ServedBy::Here);
}

#[tokio::test]
async fn where_a_request_would_go_is_known_before_it_is_read() {
    let nrt = Region::new("nrt").unwrap();
    let prefer = BTreeMap::from([(MODEL.to_owned(), nrt)]);
    let bound = |rig: &Rig, model: &str, version| {
        let node = rig.system.bound_for(model, version, rig.system.default_deadline());
        node.map(|node| node.to_string())
    };
    let there = Some("there".to_owned());
    let (alone, here) = (Rig::cpu(|_| {}).await, Rig::cpu(|_| {}).await);
    let (out, _) = join(&here, None, NO_WAY);
    assert_eq!(bound(&alone, MODEL, None), None);
    assert_eq!(bound(&here, MODEL, None), None, "the cpu here answers it");
    assert_eq!(bound(&here, "nowhere", None), None);
    assert_eq!((bound(&here, "other", None), bound(&here, MODEL, Some(9))), (there.clone(), there.clone()));
    assert!(here.system.unload(MODEL, None).await);
    assert_eq!(bound(&here, MODEL, None), there);
    let placed = Rig::gpu(|settings| settings.routing.regions_by_model = prefer).await;
    join(&placed, None, NO_WAY);
    assert_eq!(bound(&placed, MODEL, None), there, "its place is there");
    // Nobody is asked for it, and one that is too far or whose breaker is open is not named.
    assert_eq!(out.lock().len(), 0);
    let far = Rig::cpu(|_| {}).await;
    join(&far, None, Duration::from_secs(3600));
    assert_eq!(bound(&far, "other", None), None);
    for _ in 0..20 {
        here.ask().await.unwrap_err();
    }
    assert!(!out.lock().is_empty());
    assert_eq!(bound(&here, MODEL, None), None);
}

#[tokio::test]
async fn what_is_full_here_is_answered_there() {
    let here = Rig::cpu(|settings| settings.batching.queue_rows_max = 1).await;
    let there = Rig::gpu(|_| {}).await;
    join(&here, Some(&there), NO_WAY);
    here.cpu.set(Mode::Hang);
    let busy = here.begin(ramp(1));
    until("the device is busy", || here.cpu.entered() == 1).await;
    let waits = here.begin(ramp(1));
    until("the queue is full", || here.queued(0) == 1).await;
    assert_eq!(here.ask().await.unwrap().served_by, from_there());
    here.cpu.set(Mode::Good);
    for own in [busy, waits] {
        assert_eq!(own.await.unwrap().unwrap().served_by, ServedBy::Here);
    }
}

#[tokio::test]
async fn a_model_that_prefers_the_cpu_here_asks_no_other_gpu() {
    for (fallback, is_here) in [(FallbackPolicy::Allow, false), (FallbackPolicy::Prefer, true)] {
        let here = Rig::gpu(|settings| {
            settings.fallback_by_model.insert(MODEL.to_owned(), fallback);
        })
        .await;
        let there = Rig::gpu(|_| {}).await;
        let (out, _) = join(&here, Some(&there), NO_WAY);
        here.cpu.set(Mode::Slow(Duration::from_millis(20)));
        here.gpu.set(Mode::Gone);
        assert!(here.ask().await.unwrap().degraded, "the device had it");
        until("the gpu is down", || !here.system.health().reasons.is_empty()).await;
        for _ in 0..4 {
            here.ask().await.unwrap();
        }
        let forecast = here.ask().await.unwrap();
        assert_eq!(forecast.served_by == ServedBy::Here, is_here, "{fallback:?}");
        assert_eq!((forecast.degraded, out.lock().is_empty()), (is_here, is_here), "{fallback:?}");
    }
}

#[tokio::test]
async fn without_a_fallback_another_gpu_answers_or_nobody() {
    for other_is_there in [true, false] {
        let here = Rig::gpu(|settings| settings.fallback = FallbackPolicy::Never).await;
        let there = Rig::gpu(|_| {}).await;
        join(&here, other_is_there.then_some(&there), NO_WAY);
        here.gpu.set(Mode::Fail(ExecuteError::Timeout { millis: 5 }));
        for _ in 0..2 {
            assert!(here.ask().await.is_err());
        }
        until("it opens", || !here.system.health().reasons.is_empty()).await;
        match here.ask().await {
            Ok(forecast) => assert!(other_is_there && forecast.served_by == from_there()),
            Err(error) => assert!(!other_is_there && matches!(error, ForecastError::Unavailable { .. })),
        }
    }
}

#[tokio::test]
async fn a_system_of_no_cluster_answers_nobody() {
    let rig = Rig::cpu(|_| {}).await;
    let request =
        RemoteForecast { model: MODEL.to_owned(), version: None, may_degrade: true, windows: Some(ramp(1)) };
    let refused = rig.system.serve_remote(request, None, rig.system.default_deadline()).await.err();
    assert!(matches!(refused, Some(RemoteRefusal::Unavailable(_))));
    assert!(rig.system.remote_stats().is_none());
}
