//! Releases of a whole system: who answers, who is asked besides, and what scores decide.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::fake::Mode;
use super::{MODEL, Rig, forecaster, ramp, until};
use crate::breaker::{BreakerMode, BreakerSelector};
use crate::release::{
    By, CanaryLimits, CanarySpec, Change, CoverageLimits, Fault, Plan, ReleaseOrder, ReleaseStatus,
    ShadowSpec, key_of,
};
use crate::scorecard::{Question, Scorecard};
use crate::series::{SeriesName, Timestamp};
use crate::status::{BreakerState, Guarded};
use crate::stream::{Prediction, StreamId};
use crate::{ForecastError, ForecastRequest, Origin, Settings};

const SHADOW: ReleaseOrder =
    ReleaseOrder::Shadow(Some(ShadowSpec { version: 2, share: 1.0, tolerance: ShadowSpec::TOLERANCE }));

#[tokio::test]
async fn a_key_is_answered_by_one_version_and_a_named_version_by_itself() {
    let rig = two(|_| {}).await;
    rig.order(ReleaseOrder::Split([(1, 1), (2, 1)].into())).await;
    let mut seen = BTreeSet::new();
    for at in 0..20 {
        let origin = Origin { key: Some(key_of(&at.to_string())), ..Origin::default() };
        let first = rig.version_of(origin.clone(), None).await;
        assert_eq!(rig.version_of(origin.clone(), None).await, first);
        assert_eq!(rig.system.version_for(MODEL, key_of(&at.to_string())), Some(first));
        assert_eq!(rig.version_of(origin, Some(3 - first)).await, 3 - first);
        let caller = Origin { caller: at.to_string().into(), ..Origin::default() };
        assert_eq!(rig.version_of(caller, None).await, first, "a caller's name is as good a key");
        seen.insert(first);
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[tokio::test]
async fn a_release_outlives_the_absence_of_its_model() {
    let rig = three().await;
    rig.order(ReleaseOrder::Promote(Some(2))).await;
    assert!(rig.system.unload(MODEL, None).await);
    assert!(rig.system.release(MODEL).is_none() && rig.system.releases().is_empty(), "nobody answers");
    assert!(matches!(rig.ask().await, Err(ForecastError::UnknownModel(_))));
    // Nobody knows yet whether version 2 comes.
    rig.system.load(forecaster(), 1).await.unwrap();
    assert_eq!(rig.ask().await.unwrap().version, 1);
    for version in [2, 3] {
        rig.system.load(forecaster(), version).await.unwrap();
        assert_eq!(rig.ask().await.unwrap().version, 2, "not version {version}");
    }
    assert!(rig.system.loaded(MODEL).await);
    let release = rig.status().release;
    assert_eq!((release.stable, release.previous, release.plan), (2, Some(3), Plan::Whole));

    // One after the other, the stable one last.
    for version in [3, 1, 2] {
        assert!(rig.system.unload(MODEL, Some(version)).await);
    }
    rig.reload(&[1, 2, 3]).await;
    assert_eq!(rig.ask().await.unwrap().version, 2);
}

#[tokio::test]
async fn what_a_release_keeps_is_what_comes_back() {
    let rig = three().await;
    rig.order(ReleaseOrder::Split([(1, 1), (2, 1)].into())).await;
    rig.system.unload(MODEL, None).await;
    rig.reload(&[1, 2, 3]).await;
    assert_eq!(rig.status().release.weights(), [(1, 1), (2, 1)]);
    rig.system.unload(MODEL, None).await;
    rig.reload(&[2, 3]).await;
    assert_eq!((rig.status().release.stable, rig.status().release.weights()), (2, vec![(2, 1)]));

    let hold = Duration::from_secs(60);
    let limits = CanaryLimits::default();
    rig.order(ReleaseOrder::Canary(CanarySpec { version: 3, steps: vec![50.0], hold, limits })).await;
    rig.system.unload(MODEL, None).await;
    rig.reload(&[2, 3]).await;
    let release = rig.status().release;
    assert_eq!((release.stable, &release.plan), (2, &Plan::Whole), "a canary has to begin again");
    let taken_back = Change::RolledBack { to: 2, from: Some(3), why: Fault::Gone };
    assert_eq!(release.log.last().unwrap().change, taken_back);

    // The stable version does not come back.
    rig.system.unload(MODEL, None).await;
    rig.reload(&[3]).await;
    assert_eq!(rig.ask().await.unwrap().version, 3);
    assert!(rig.system.release(MODEL).is_none_or(|status| status.release.stable == 3));
}

#[tokio::test]
async fn another_system_goes_on_with_what_was_kept() {
    let before = three().await;
    before.order(ReleaseOrder::Rollback).await;
    let kept = before.system.kept_releases();
    assert_eq!(kept.keys().collect::<Vec<_>>(), [MODEL]);
    let stable = before.status().release.stable;
    assert_ne!(stable, 3, "it was taken back");

    let after = Rig::cpu(|_| {}).await;
    assert!(after.system.unload(MODEL, None).await);
    after.system.resume_releases(kept.clone()).await.unwrap();
    assert!(after.system.releases().is_empty(), "nobody answers yet");
    assert_eq!(after.system.kept_releases(), kept, "what waits for its model is kept too");
    after.reload(&[1, 2, 3]).await;
    assert_eq!(after.ask().await.unwrap().version, stable);
    assert_eq!(after.status().release.log.last().unwrap().change, Change::Resumed);
    assert_eq!(after.system.kept_releases(), kept);

    // Its version is gone: those that are there go on.
    let later = Rig::cpu(|_| {}).await;
    assert!(later.system.unload(MODEL, None).await);
    later.system.resume_releases(kept).await.unwrap();
    later.reload(&[3]).await;
    assert_eq!(later.ask().await.unwrap().version, 3);
}

#[tokio::test]
async fn a_shadow_is_not_asked_while_its_device_is_busy() {
    let rig = two(|_| {}).await;
    rig.order(ReleaseOrder::Promote(Some(1))).await;
    rig.order(SHADOW).await;
    rig.cpu.set(Mode::Hang);
    let first = rig.begin(ramp(1));
    until("it runs", || rig.cpu.entered() == 1).await;
    let others: Vec<_> = (0..3).map(|_| rig.begin(ramp(1))).collect();
    until("they wait", || rig.queued(0) == 3).await;
    assert_eq!(rig.shadow().dropped, 3, "before anything was copied");
    rig.cpu.set(Mode::Good);
    for answer in others.into_iter().chain([first]) {
        assert_eq!(answer.await.unwrap().unwrap().version, 1);
    }
    until("the first has been compared", || rig.shadow().compared + rig.shadow().dropped == 4).await;
}

#[tokio::test]
async fn what_callers_got_no_answer_to_is_not_compared() {
    let rig = two(|settings| settings.breaker.calls_min = 1000).await;
    rig.order(ReleaseOrder::Promote(Some(1))).await;
    rig.order(SHADOW).await;
    assert_eq!(rig.ask().await.unwrap().version, 1);
    until("it was compared", || rig.shadow().compared == 1).await;
    assert_eq!(rig.shadow().differing, 0, "fakes answer alike");
    rig.cpu.set(Mode::NanForConstant);
    let constant = rig.begin(super::constant()).await.unwrap();
    assert_eq!(constant.map(|_| ()), Err(ForecastError::NotFinite { row: 0 }));
    assert_eq!((rig.shadow().compared, rig.shadow().seen.failed), (1, 0), "nothing to compare with");
}

#[tokio::test]
async fn scores_decide_about_a_canary_once_they_are_known() {
    let rig = two(|_| {}).await;
    let card = Arc::<Scorecard>::default();
    assert!(rig.system.attach_scorecard(Arc::clone(&card)));
    assert!(!rig.system.attach_scorecard(Arc::clone(&card)), "once");
    rig.order(ReleaseOrder::Promote(Some(1))).await;
    let limits = CanaryLimits { requests_min: 2, ..CanaryLimits::default() };
    let hold = Duration::from_secs(60);
    rig.order(ReleaseOrder::Canary(CanarySpec { version: 2, steps: vec![50.0], hold, limits })).await;
    for _ in 0..10 {
        rig.ask().await.unwrap();
    }
    let series = SeriesName::new("a").unwrap();
    for (version, off) in [(1, 1.0), (2, 3.0)] {
        card.predicted(&rig.prediction(&series, version, off));
    }
    card.observed(&series, 1, 1.0);
    rig.clock.advance(hold);
    let waits = || rig.status().waiting.map(|waiting| waiting.to_string());
    assert_eq!(waits().as_deref(), Some("too few predictions of both versions are scored yet"));
    tokio::time::sleep(Duration::from_millis(400)).await; // it is looked at meanwhile
    assert!(rig.status().release.canary().is_some(), "one value of each says nothing yet");
    (2..=4).for_each(|place| card.observed(&series, place, place as f32));
    until("it is taken back", || rig.status().release.canary().is_none()).await;
    let log = rig.status().release.log;
    let change = &log.last().unwrap().change;
    let Change::RolledBack { to: 1, from: Some(2), why: Fault::Score { canary, stable, .. } } = change else {
        panic!("{change}")
    };
    assert!((canary / stable - 3.0).abs() < 1e-6, "{canary} by {stable}");
}

#[tokio::test]
async fn a_version_whose_intervals_collapse_hands_over_to_the_one_before() {
    let (rig, card) = scored().await;
    assert_eq!(rig.ask().await.unwrap().version, 2, "the highest");
    // Intervals without a width, beside the truth.
    card.predicted(&rig.prediction(&name(), 2, 3.0));
    (1..=5).for_each(|place| card.observed(&name(), place, place as f32));
    rig.look();
    assert_eq!(rig.ask().await.unwrap().version, 2, "too little is known");
    assert_eq!(rig.trust(2), "closed");
    (6..=24).for_each(|place| card.observed(&name(), place, place as f32));
    rig.look();
    until("the version before answers", || rig.system.release(MODEL).is_some()).await;
    assert_eq!(rig.ask().await.unwrap().version, 1);
    let release = rig.status().release;
    let change = &release.log.last().unwrap().change;
    assert!(
        matches!(change, Change::RolledBack { to: 1, from: Some(2), why: Fault::Coverage { held, .. } } if *held < 1.0),
        "{change}"
    );
    let of_version = |version: u32| {
        let all = rig.system.breakers();
        all.into_iter()
            .find(|one| one.guards == Guarded::Coverage { model: MODEL.to_owned(), version })
            .unwrap()
    };
    assert!(matches!(of_version(2).state, BreakerState::Open { .. }), "{:?}", of_version(2));
    let reasons = rig.system.health().reasons;
    assert!(reasons.iter().any(|reason| reason == "1 breakers are not closed"), "{reasons:?}");
    assert!(of_version(2).reason.contains("interval"), "{:?}", of_version(2));
    assert_eq!((of_version(2).failures, of_version(2).transitions), (1, 1));
    assert_eq!(of_version(1).state, BreakerState::Closed);
}

#[tokio::test]
async fn what_has_collapsed_forecasts_for_the_scorecard_until_it_holds_the_truth_and_comes_back() {
    let (rig, card) = scored().await;
    rig.collapse(&card).await;
    assert!(rig.system.probes(MODEL, 1).is_empty(), "not yet");
    rig.look();
    until("it is half-open", || rig.trust(2) == "half-open").await;
    assert_eq!(rig.ask().await.unwrap().version, 1, "callers see nothing of it");
    let weight = |version: u32| {
        let question = Question { model: Some(MODEL), version: Some(version), ..Question::default() };
        card.scores(question).first().map_or(0.0, |score| score.weight)
    };
    assert!(weight(2) == 0.0, "what it said before does not count");
    // Wrong once more: it stays out, for longer.
    card.predicted(&rig.prediction(&name(), 2, 3.0));
    rig.look();
    until("it is open", || rig.trust(2) == "open").await;
    // Twice as long.
    rig.look();
    rig.look();
    until("it is half-open", || rig.trust(2) == "half-open").await;
    card.predicted(&rig.prediction(&name(), 2, 0.0));
    rig.look();
    until("it is closed", || rig.trust(2) == "closed").await;
    until("it answers again", || rig.status().release.stable == 2).await;
    assert_eq!(rig.ask().await.unwrap().version, 2);
    let release = rig.status().release;
    assert_eq!(release.log.last().unwrap().change, Change::Promoted { version: 2, from: 1, by: By::Truth });
    assert_eq!(release.previous, Some(1));
}

#[tokio::test]
async fn a_probe_is_scored_and_there_is_one_at_a_time() {
    let (rig, card) = scored().await;
    rig.collapse(&card).await;
    rig.look();
    until("it is half-open", || rig.trust(2) == "half-open").await;
    let probes = rig.system.probes(MODEL, 1);
    assert_eq!(probes.iter().map(|probe| probe.version).collect::<Vec<_>>(), [2]);
    assert!(rig.system.probes(MODEL, 1).is_empty());
    drop(probes);
    assert!(rig.system.probes(MODEL, 2).is_empty(), "it answers");
    let scored =
        || card.scored().iter().find(|(_, version, _)| *version == 2).map_or(0, |(.., values)| *values);
    let before = scored();
    let probe = rig.system.probes(MODEL, 1).pop().unwrap();
    let blank = rig.prediction(&name(), 1, 0.0);
    rig.system.probe(probe, ramp(1), vec![blank], rig.system.default_deadline());
    until("it was scored", || scored() > before).await;
    until("there may be another", || !rig.system.probes(MODEL, 1).is_empty()).await;
    assert!(rig.status().portions.iter().all(|portion| portion.version != 2 || portion.seen.requests == 0));
}

#[tokio::test]
async fn what_nobody_can_answer_for_goes_on_and_closes_by_what_it_says() {
    let rig = Rig::cpu(judged).await;
    let card = Arc::<Scorecard>::default();
    rig.system.attach_scorecard(Arc::clone(&card));
    let says = |off: f32| card.predicted(&rig.prediction(&name(), 1, off));
    says(3.0);
    (1..=24).for_each(|place| card.observed(&name(), place, place as f32));
    for (state, off) in [("open", 3.0), ("half-open", 0.0), ("closed", 0.0)] {
        rig.look();
        until(state, || rig.trust(1) == state).await;
        assert_eq!(rig.ask().await.unwrap().version, 1, "{state}");
        says(off);
    }
    assert!(rig.system.release(MODEL).is_none());
}

#[tokio::test]
async fn operators_decide_about_what_is_believed_too() {
    let (rig, card) = scored().await;
    let order = async |mode| {
        let selector = BreakerSelector {
            backend: Some("coverage".to_owned()),
            version: Some(2),
            ..BreakerSelector::default()
        };
        assert_eq!(rig.system.set_breaker_mode(selector, mode).await.unwrap().len(), 1);
        rig.look();
    };
    order(BreakerMode::ForcedOpen).await;
    until("the version before answers", || rig.system.release(MODEL).is_some()).await;
    assert_eq!((rig.ask().await.unwrap().version, rig.trust(2)), (1, "forced-open"));
    order(BreakerMode::Auto).await;
    until("it answers again", || rig.status().release.stable == 2).await;
    assert_eq!((rig.ask().await.unwrap().version, rig.trust(2)), (2, "closed"));
    order(BreakerMode::MetricsOnly).await;
    card.predicted(&rig.prediction(&name(), 2, 3.0));
    (1..=24).for_each(|place| card.observed(&name(), place, place as f32));
    rig.look();
    until("it shows what it would do", || rig.trust(2) == "open").await;
    assert_eq!(rig.ask().await.unwrap().version, 2);
    order(BreakerMode::Disabled).await;
    assert_eq!((rig.ask().await.unwrap().version, rig.trust(2)), (2, "closed"));
}

/// What collapses is looked at again after ten seconds.
fn judged(settings: &mut Settings) {
    settings.coverage = Some(CoverageLimits { shortfall: 0.3, values_min: 20.0 });
    settings.breaker.open_for = Duration::from_secs(10);
}

/// Two versions that are scored.
async fn scored() -> (Rig, Arc<Scorecard>) {
    let rig = two(judged).await;
    let card = Arc::<Scorecard>::default();
    rig.system.attach_scorecard(Arc::clone(&card));
    (rig, card)
}

fn name() -> SeriesName {
    SeriesName::new("a").unwrap()
}

#[tokio::test]
async fn failures_of_callers_and_load_are_no_faults_of_a_version() {
    let rig = two(|_| {}).await;
    rig.order(ReleaseOrder::Promote(Some(1))).await;
    let short = crate::ForecastRequest::new(
        MODEL,
        peregrine_shaders::Windows::default(),
        rig.system.default_deadline(),
    );
    assert!(matches!(rig.system.forecast(short).await, Err(ForecastError::Window(_))));
    let late = ForecastRequest {
        deadline: peregrine_runtime::Deadline::at(peregrine_runtime::Clock::now(&*rig.clock)),
        ..rig.request(ramp(1))
    };
    assert!(matches!(rig.system.forecast(late).await, Err(ForecastError::DeadlineExceeded)));
    assert_eq!(rig.status().portions[0].seen.failed, 0);
    rig.cpu.set(Mode::NanForConstant);
    assert!(rig.begin(super::constant()).await.unwrap().is_err());
    assert_eq!(rig.status().portions[0].seen.failed, 1, "what comes of its weights is");
}

/// A model in versions 1 and 2 on a CPU.
async fn two(change: impl FnOnce(&mut Settings)) -> Rig {
    let rig = Rig::cpu(change).await;
    rig.system.load(forecaster(), 2).await.unwrap();
    rig
}

async fn three() -> Rig {
    let rig = two(|_| {}).await;
    rig.system.load(forecaster(), 3).await.unwrap();
    rig
}

impl Rig {
    /// Loads these versions of a model that is away, and no more.
    async fn reload(&self, versions: &[u32]) {
        for version in versions {
            self.system.load(forecaster(), *version).await.unwrap();
        }
        assert!(self.system.loaded(MODEL).await);
    }

    /// Lets the router look at what intervals held.
    fn look(&self) {
        self.clock.advance(Duration::from_secs(10));
    }

    /// Version 2 says what is far from the truth, and version 1 answers then.
    async fn collapse(&self, card: &Scorecard) {
        card.predicted(&self.prediction(&name(), 2, 3.0));
        (1..=24).for_each(|place| card.observed(&name(), place, place as f32));
        self.look();
        until("the version before answers", || self.system.release(MODEL).is_some()).await;
    }

    /// The circuit of what a version's intervals hold.
    fn trust(&self, version: u32) -> &'static str {
        let guards = Guarded::Coverage { model: MODEL.to_owned(), version };
        self.system.breakers().into_iter().find(|one| one.guards == guards).unwrap().state.name()
    }

    async fn order(&self, order: ReleaseOrder) {
        self.system.order_release(MODEL, order).await.unwrap();
    }

    fn status(&self) -> ReleaseStatus {
        self.system.release(MODEL).unwrap()
    }

    fn shadow(&self) -> crate::release::ShadowStats {
        self.status().shadow.unwrap()
    }

    async fn version_of(&self, origin: Origin, version: Option<u32>) -> u32 {
        let request = ForecastRequest { origin, version, ..self.request(ramp(1)) };
        self.system.forecast(request).await.unwrap().version
    }

    /// Made at place 0, of a series that rises by one from there; off by so much at every step.
    fn prediction(&self, series: &SeriesName, version: u32, off: f32) -> Prediction {
        let spec = Arc::clone(&self.system.find(MODEL, Some(version)).unwrap().spec);
        let width = spec.columns.len();
        let values = (1..=spec.horizon).flat_map(|step| std::iter::repeat_n(step as f32 + off, width));
        Prediction {
            stream: StreamId { model: MODEL.into(), series: series.clone() },
            seq: 1,
            epoch: 1,
            position: 0,
            last: Timestamp(0),
            accepted_at: None,
            made_at: Timestamp(0),
            version,
            values: values.collect(),
            backend: "cpu".into(),
            degraded: false,
            spec,
        }
    }
}
