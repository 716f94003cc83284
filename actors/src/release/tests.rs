//! Orders, evidence and times in, releases out; keys and turns in, versions out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::canary::{Evidence, ScoreLimit, Scores, Seen, Waiting};
use super::mirror::difference;
use super::split::{Split, key_of};
use super::{
    By, CanaryLimits, CanarySpec, Change, Fault, KeptRelease, LOG_MAX, Plan, Ready, Release, ReleaseOrder,
    ReleaseRefused, ShadowSpec,
};

const DRAWS: u64 = 100_000;

// ---- split -----------------------------------------------------------------------------------------------------------

#[test]
fn shares_of_keys_are_within_binomial_bounds() {
    for weights in
        [vec![(1, 90), (2, 10)], vec![(1, 1), (2, 1), (3, 1)], vec![(7, 9999), (8, 1)], vec![(4, 3)]]
    {
        let split = Split::new(weights.clone());
        let counts = count((0..DRAWS).map(|at| split.by_key(key_of(&format!("series-{at}")))));
        for (version, weight) in &weights {
            let share =
                f64::from(*weight) / weights.iter().map(|(_, weight)| f64::from(*weight)).sum::<f64>();
            let sigma = (DRAWS as f64 * share * (1.0 - share)).sqrt();
            let off = counts.get(version).copied().unwrap_or(0) as f64 - DRAWS as f64 * share;
            assert!(
                off.abs() <= 4.5 * sigma,
                "version {version} of {weights:?}: off by {off}, sigma {sigma}"
            );
        }
    }
}

#[test]
fn turns_are_shared_out_evenly_in_every_run() {
    let split = Split::new([(1, 90), (2, 10)]);
    for start in [0, 77, u64::MAX - 500] {
        let run = (0..1000).map(|at| split.by_turn(u64::wrapping_add(start, at)));
        let counts = count(run);
        assert!((98..=102).contains(&counts[&2]), "from {start}: {counts:?}");
    }
}

#[test]
fn a_key_keeps_its_version_and_moves_only_to_what_grows() {
    let (few, many) = (Split::new([(1, 90), (2, 10)]), Split::new([(1, 50), (2, 50)]));
    let three = Split::new([(1, 90), (2, 10), (3, 20)]);
    for at in 0..10_000 {
        let key = key_of(&format!("caller-{at}"));
        assert_eq!(few.by_key(key), few.by_key(key));
        assert!(few.by_key(key) == 1 || many.by_key(key) == 2, "who has the canary keeps it as it grows");
        assert!(three.by_key(key) == 3 || three.by_key(key) == few.by_key(key), "only the new one takes");
    }
}

#[test]
fn the_key_of_a_text_is_the_same_for_ever() {
    // Computed by another program.
    assert_eq!(key_of("AAPL"), 0xD04F_B30B_9BC8_5506);
    assert_eq!(key_of("EURUSD"), 0x9AB8_B74A_3113_00AB);
}

fn count(versions: impl Iterator<Item = u32>) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    versions.for_each(|version| *counts.entry(version).or_default() += 1);
    counts
}

// ---- canary ----------------------------------------------------------------------------------------------------------

#[test]
fn a_canary_that_does_well_advances_and_is_promoted() {
    let rig = Rig::canary(|_| {});
    let mut release = rig.release.clone();
    let mut now = rig.now;
    for percent in [10.0, 100.0] {
        now += HOLD;
        release = release.reviewed(&good(), now).unwrap();
        assert_eq!(release.canary().map(super::Canary::percent), Some(percent));
        assert_eq!(last(&release), &Change::Advanced { version: 2, percent });
    }
    assert_eq!(release.weights(), [(2, 1_000_000), (1, 0)]);
    release = release.reviewed(&good(), now + HOLD).unwrap();
    assert_eq!((release.stable, release.previous, &release.plan), (2, Some(1), &Plan::Whole));
    assert_eq!(last(&release), &Change::Promoted { version: 2, from: 1, by: By::Rules { by_scores: false } });
    assert!(last(&release).to_string().ends_with("no score of its predictions was compared"));
    let before = rig.release.counts.promoted;
    let counts = release.counts;
    assert_eq!((counts.advanced, counts.promoted - before, counts.rolled_back), (2, 1, 0));
}

#[test]
fn a_step_waits_for_its_time_its_requests_and_its_scores() {
    let scored = |spec: &mut CanarySpec| spec.limits.scores = ScoreLimit::Always(1.1);
    let ms = Duration::from_millis;
    waits(|_| {}, good(), HOLD - ms(1), Waiting::Hold { remaining: ms(1) });
    waits(|_| {}, with(|seen| seen.canary.requests = 99), HOLD * 9, Waiting::Requests { missing: 1 });
    waits(scored, good(), HOLD, Waiting::Scores);
    let few = with(|seen| seen.scores = Some(Scores::Few));
    for seen in [few, with(|seen| seen.scores = None)] {
        waits(|_| {}, seen, HOLD, Waiting::Scores);
    }
}

#[test]
fn a_canary_that_fails_is_taken_back_at_once() {
    let errors = |failed, requests| Fault::Errors { failed, requests, limit: 0.01 };
    falls(|_| {}, with(|seen| seen.canary.failed = 11), Duration::ZERO, errors(11, 1000));
    // Two failures are too many, however well the requests that are missing to the hundred may go.
    falls(|_| {}, failing(3, 2), Duration::ZERO, errors(2, 3));
    waits(|_| {}, failing(3, 1), Duration::ZERO, Waiting::Hold { remaining: HOLD });
    let any = |spec: &mut CanarySpec| spec.limits.error_share = 0.0;
    falls(any, failing(1, 1), Duration::ZERO, Fault::Errors { failed: 1, requests: 1, limit: 0.0 });
}

#[test]
fn a_slow_canary_is_taken_back_if_both_are_known() {
    let (p95, stable) = (Duration::from_millis(16), Duration::from_millis(10));
    let slow = with(|seen| seen.canary.p95 = p95);
    falls(|_| {}, slow, Duration::ZERO, Fault::Slow { p95, stable, limit: 1.5 });
    let unknown = Evidence { stable: Seen { requests: 99, ..slow.stable }, ..slow };
    waits(|_| {}, unknown, Duration::ZERO, Waiting::Hold { remaining: HOLD });
    let tiny = with(|seen| {
        (seen.stable.p95, seen.canary.p95) = (Duration::from_micros(60), Duration::from_micros(900));
    });
    waits(|_| {}, tiny, Duration::ZERO, Waiting::Hold { remaining: HOLD });
}

#[test]
fn a_canary_that_forecasts_worse_is_taken_back_when_its_step_is_over() {
    let scores = |canary| Evidence { scores: Some(Scores::Known { canary, stable: 1.0 }), ..good() };
    falls(|_| {}, scores(40_000.0), HOLD, Fault::Score { canary: 40_000.0, stable: 1.0, limit: 1.2 });
    let strict = |spec: &mut CanarySpec| spec.limits.scores = ScoreLimit::Always(1.1);
    falls(strict, scores(1.15), HOLD, Fault::Score { canary: 1.15, stable: 1.0, limit: 1.1 });
    let goes_on = |rig: &Rig, seen: &Evidence| {
        assert!(rig.release.reviewed(seen, rig.now + HOLD).is_ok_and(|next| next.canary().is_some()));
    };
    goes_on(&Rig::canary(strict), &scores(1.1));
    goes_on(&Rig::canary(|_| {}), &scores(1.2));
    let off = Rig::canary(|spec| spec.limits.scores = ScoreLimit::Off);
    goes_on(&off, &scores(40_000.0));
    goes_on(&off, &with(|seen| seen.scores = None));
    let last_step = Rig::canary(|spec| spec.steps = vec![100.0]);
    let promoted = last_step.release.reviewed(&scores(1.0), last_step.now + HOLD).unwrap();
    assert_eq!(last(&promoted), &Change::Promoted { version: 2, from: 1, by: By::Rules { by_scores: true } });
}

const HOLD: Duration = Duration::from_secs(10);

fn good() -> Evidence {
    let seen = Seen { requests: 1000, failed: 0, p95: Duration::from_millis(10) };
    Evidence { canary: seen, stable: seen, scores: Some(Scores::Unscored) }
}

fn with(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut seen = good();
    change(&mut seen);
    seen
}

fn failing(requests: u64, failed: u64) -> Evidence {
    with(|seen| (seen.canary.requests, seen.canary.failed) = (requests, failed))
}

#[track_caller]
fn waits(change: impl FnOnce(&mut CanarySpec), seen: Evidence, after: Duration, what: Waiting) {
    let rig = Rig::canary(change);
    assert_eq!(rig.release.reviewed(&seen, rig.now + after), Err(what));
}

#[track_caller]
fn falls(change: impl FnOnce(&mut CanarySpec), seen: Evidence, after: Duration, why: Fault) {
    let rig = Rig::canary(change);
    let release = rig.release.reviewed(&seen, rig.now + after).unwrap();
    assert_eq!((release.stable, &release.plan, release.counts.rolled_back), (1, &Plan::Whole, 1));
    assert_eq!(last(&release), &Change::RolledBack { to: 1, from: Some(2), why });
}

// ---- orders ----------------------------------------------------------------------------------------------------------

#[test]
fn the_heaviest_version_of_a_first_split_is_the_stable_one() {
    let release = ordered(None, &split(&[(1, 90), (2, 10)])).unwrap().unwrap();
    assert_eq!((release.stable, release.weights()), (1, vec![(1, 90), (2, 10)]));
    let moved = ordered(Some(&release), &split(&[(1, 10), (2, 90)])).unwrap().unwrap();
    assert_eq!(moved.stable, 1, "as long as it has a part");
    let back = ordered(Some(&moved), &ReleaseOrder::Rollback).unwrap().unwrap();
    assert_eq!((back.stable, back.weights()), (1, vec![(1, 1)]));
    assert_eq!(ordered(Some(&moved), &split(&[])), Ok(None), "no weights, no release");
}

#[test]
fn without_a_release_a_rollback_goes_one_version_down() {
    let back = ordered(None, &ReleaseOrder::Rollback).unwrap().unwrap();
    assert_eq!((back.stable, back.weights()), (2, vec![(2, 1)]), "of 1, 2, 3");
    assert_eq!(ordered(Some(&back), &ReleaseOrder::Rollback), Err(ReleaseRefused::NothingBefore));
}

#[test]
fn a_promoted_version_can_be_rolled_back() {
    let pinned = ordered(None, &ReleaseOrder::Promote(Some(1))).unwrap().unwrap();
    assert_eq!((pinned.stable, pinned.previous), (1, Some(3)), "the highest answered before");
    let next = ordered(Some(&pinned), &ReleaseOrder::Promote(Some(2))).unwrap().unwrap();
    assert_eq!((next.stable, next.previous), (2, Some(1)));
    let back = ordered(Some(&next), &ReleaseOrder::Rollback).unwrap().unwrap();
    assert_eq!((back.stable, back.previous), (1, None));
    let why = Fault::Operator;
    assert_eq!(last(&back), &Change::RolledBack { to: 1, from: Some(2), why });
}

#[test]
fn an_operator_ends_a_canary_either_way() {
    let rig = Rig::canary(|_| {});
    let promoted = ordered(Some(&rig.release), &ReleaseOrder::Promote(None)).unwrap().unwrap();
    assert_eq!((promoted.stable, promoted.previous, promoted.canary()), (2, Some(1), None));
    let back = ordered(Some(&rig.release), &ReleaseOrder::Rollback).unwrap().unwrap();
    assert_eq!((back.stable, back.canary()), (1, None));
    assert_eq!(last(&back), &Change::RolledBack { to: 1, from: Some(2), why: Fault::Operator });
}

#[test]
fn a_canary_of_the_version_that_was_just_loaded_leaves_the_one_below_stable() {
    let release = ordered(None, &ReleaseOrder::Canary(spec(3, |_| {}))).unwrap().unwrap();
    assert_eq!((release.stable, release.weights()), (2, vec![(3, 10_000), (2, 990_000)]));
}

#[test]
fn a_shadow_lasts_until_it_answers() {
    let shadow = ReleaseOrder::Shadow(Some(ShadowSpec { version: 2, share: 0.5, tolerance: 0.0 }));
    let release = ordered(None, &shadow).unwrap().unwrap();
    assert_eq!((release.stable, release.weights()), (3, vec![(3, 1)]));
    let ended = ordered(Some(&release), &ReleaseOrder::Promote(Some(2))).unwrap().unwrap();
    assert_eq!((ended.shadow, last(&ended)), (None, &Change::ShadowEnded { version: 2 }));
    assert!(ordered(Some(&ended), &shadow).is_err(), "it answers");
    assert_eq!(ordered(None, &ReleaseOrder::Shadow(None)), Ok(None));
}

#[test]
fn bad_orders_change_nothing() {
    let refused = |order: ReleaseOrder| ordered(None, &order).unwrap_err();
    let numbers = |order| assert!(matches!(refused(order), ReleaseRefused::Numbers(_)));
    let canary = |change: fn(&mut CanarySpec)| ReleaseOrder::Canary(spec(3, change));
    assert_eq!(refused(split(&[(1, 1), (9, 1)])), ReleaseRefused::NotReady { version: 9 });
    assert_eq!(refused(split(&[(1, 2), (4, 1)])), ReleaseRefused::OtherShape { version: 4, stable: 1 });
    assert_eq!(refused(ReleaseOrder::Promote(None)), ReleaseRefused::NothingToPromote);
    assert_eq!(refused(ReleaseOrder::Promote(Some(9))), ReleaseRefused::NotReady { version: 9 });
    numbers(split(&[(1, 0), (2, 0)]));
    numbers(split(&[(1, 1_000_001)]));
    numbers(ReleaseOrder::Split((1..=17).map(|version| (version, 1)).collect()));
    numbers(canary(|spec| spec.steps.clear()));
    numbers(canary(|spec| spec.steps = vec![10.0, 5.0]));
    numbers(canary(|spec| spec.steps = vec![101.0]));
    numbers(canary(|spec| spec.steps = vec![f64::NAN]));
    numbers(canary(|spec| spec.limits.error_share = 1.1));
    numbers(canary(|spec| spec.limits.p95_ratio = f64::INFINITY));
    numbers(canary(|spec| spec.limits.scores = ScoreLimit::Always(-1.0)));
    numbers(canary(|spec| spec.limits.requests_min = 0));
    numbers(canary(|spec| spec.hold = Duration::MAX));
    for share in [0.0, 1.1, f64::NAN] {
        numbers(ReleaseOrder::Shadow(Some(ShadowSpec { version: 2, share, tolerance: 0.0 })));
    }
}

#[test]
fn the_log_has_an_end() {
    let mut release = ordered(None, &split(&[(1, 1)])).unwrap().unwrap();
    for _ in 0..2 * LOG_MAX {
        release = ordered(Some(&release), &split(&[(1, 1), (2, 1)])).unwrap().unwrap();
    }
    assert_eq!(release.log.len(), LOG_MAX);
}

// ---- versions that go ------------------------------------------------------------------------------------------------

#[test]
fn a_canary_that_is_unloaded_is_taken_back() {
    let rig = Rig::canary(|_| {});
    let left = rig.release.with_only(&ready(&[1, 3]), rig.now).unwrap();
    assert_eq!(last(&left), &Change::RolledBack { to: 1, from: Some(2), why: Fault::Gone });
}

#[test]
fn what_was_taken_back_answers_only_where_nothing_else_is_there() {
    let pinned = ordered(None, &ReleaseOrder::Promote(Some(1))).unwrap().unwrap();
    assert_eq!(pinned.previous, Some(3), "the highest answered before");
    let canary = ordered(Some(&pinned), &ReleaseOrder::Canary(spec(3, |_| {}))).unwrap().unwrap();
    let back = canary.reviewed(&failing(100, 100), Instant::now()).unwrap();
    assert_eq!((back.stable, last(&back).to_string().contains("100 of 100")), (1, true));
    let left = |release: &Release, versions: &[u32]| {
        release.with_only(&ready(versions), Instant::now()).map(|left| left.stable)
    };
    assert_eq!(left(&back, &[2, 3]), Some(2));
    assert_eq!(left(&back, &[3]), Some(3));
    let refused = ordered(Some(&back), &ReleaseOrder::Rollback);
    assert_eq!(refused, Err(ReleaseRefused::NothingBefore), "not to what was taken back");
    let anew = back.with_only(&ready(&[1, 2]), Instant::now()).unwrap();
    assert_eq!(left(&anew, &[2, 3]), Some(2), "loaded anew it is no better");
    let chosen = ordered(Some(&back), &ReleaseOrder::Promote(Some(3))).unwrap().unwrap();
    assert_eq!(left(&chosen, &[2, 3]), Some(3));
    let chosen = ordered(Some(&back), &split(&[(1, 9), (3, 1)])).unwrap().unwrap();
    assert_eq!(left(&chosen, &[2, 3]), Some(3), "it has a part of its own");
}

#[test]
fn a_canary_outlives_its_stable_version() {
    let rig = Rig::canary(|_| {});
    let left = rig.release.with_only(&ready(&[2, 3]), rig.now).unwrap();
    assert_eq!((left.stable, left.weights()), (2, vec![(2, 1)]));
    assert_eq!(last(&left), &Change::Promoted { version: 2, from: 1, by: By::Loss });
}

#[test]
fn what_is_left_of_a_split_goes_on() {
    let release = ordered(None, &split(&[(1, 5), (2, 3), (3, 2)])).unwrap().unwrap();
    let left = release.with_only(&ready(&[2, 3]), Instant::now()).unwrap();
    assert_eq!((left.stable, left.weights()), (2, vec![(2, 3), (3, 2)]));
    assert_eq!(left.with_only(&ready(&[7]), Instant::now()), None, "nobody is left: the highest answers");
    assert_eq!(release.with_only(&ready(&[1, 2, 3, 9]), Instant::now()), Some(release), "nothing to do");
}

#[test]
fn a_version_that_comes_back_in_another_shape_has_no_part() {
    let release = ordered(None, &split(&[(1, 5), (2, 3)])).unwrap().unwrap();
    let shapes = [Ready { version: 1, shape: 0 }, Ready { version: 2, shape: 1 }];
    let left = release.with_only(&shapes, Instant::now()).unwrap();
    assert_eq!((left.weights(), last(&left)), (vec![(1, 5)], &Change::Gone { version: 2 }));
}

// ---- versions that are not trusted any more --------------------------------------------------------------------------

const COLLAPSED: Fault = Fault::Coverage { level: 80.0, held: 10.0, limit: 0.3 };

/// When these versions have collapsed.
fn trusted(current: Option<&Release>, collapsed: &[u32], versions: &[u32]) -> Option<Release> {
    let fault = |version| collapsed.contains(&version).then_some(COLLAPSED);
    Release::trusted(current, fault, &ready(versions), Instant::now())
}

#[test]
fn the_version_before_answers_instead_and_gives_way_to_nobody() {
    let next = trusted(None, &[3], &[1, 2, 3]).unwrap();
    assert_eq!((next.stable, last(&next)), (2, &Change::RolledBack { to: 2, from: Some(3), why: COLLAPSED }));
    assert_eq!(trusted(Some(&next), &[2], &[1, 2, 3]), None, "there is none before");
    assert_eq!(trusted(Some(&next), &[3], &[1, 2, 3]), None, "it does not answer");
    let promoted = ordered(Some(&next), &ReleaseOrder::Promote(Some(3))).unwrap().unwrap();
    assert_eq!(trusted(Some(&promoted), &[3], &[1, 2, 3]).unwrap().stable, 2);
    assert_eq!(trusted(Some(&promoted), &[3], &[1, 3]), None, "the one before is gone");
    assert_eq!(trusted(Some(&promoted), &[2, 3], &[1, 2, 3]), None, "the one before is no better");
    assert_eq!(trusted(None, &[1], &[1]), None, "it is alone");
    assert_eq!(trusted(None, &[2], &[1, 2, 3]), None, "another one answers");
}

#[test]
fn a_canary_is_taken_back_and_a_split_is_the_operators() {
    let canary = Rig::canary(|_| {}).release;
    let next = trusted(Some(&canary), &[2], &[1, 2, 3]).unwrap();
    assert_eq!((next.stable, next.weights()), (1, vec![(1, 1)]));
    assert_eq!(trusted(Some(&canary), &[1], &[1, 2, 3]), None, "the canary is judged by it");
    let split = ordered(None, &split(&[(1, 5), (2, 3)])).unwrap().unwrap();
    assert_eq!(trusted(Some(&split), &[1], &[1, 2, 3]), None);
}

// ---- what outlives the node ------------------------------------------------------------------------------------------

#[test]
fn a_release_goes_on_as_it_was_kept() {
    let (rig, later) = (Rig::canary(|_| {}), Instant::now() + HOLD);
    let advanced = rig.release.reviewed(&good(), rig.now + HOLD).unwrap();
    let split = ordered_of(&advanced, &split(&[(1, 5), (3, 1)]), &[1, 2, 3]);
    let shadow = ReleaseOrder::Shadow(Some(ShadowSpec { version: 2, share: 0.5, tolerance: 0.1 }));
    let shadowed = ordered_of(&split, &shadow, &[1, 2, 3]);
    let taken_back = ordered_of(&advanced, &ReleaseOrder::Rollback, &[1, 2, 3]);
    let promoted = ordered_of(&taken_back, &ReleaseOrder::Promote(Some(3)), &[1, 2, 3]);
    for release in [rig.release, advanced, split, shadowed, taken_back, promoted] {
        let resumed = KeptRelease::from(&release).resumed(later).unwrap();
        assert_eq!((resumed.weights(), resumed.stable), (release.weights(), release.stable));
        assert_eq!((resumed.previous, resumed.shadow), (release.previous, release.shadow));
        assert_eq!(resumed.taken_back, release.taken_back);
        assert_eq!(last(&resumed), &Change::Resumed);
        let canaries = [&resumed, &release].map(Release::canary);
        assert_eq!(canaries[0].map(|canary| &canary.spec), canaries[1].map(|canary| &canary.spec));
        assert!(canaries[0].is_none_or(|canary| canary.since == later), "its step begins anew");
    }
}

#[test]
fn what_no_order_leads_to_is_not_gone_on_with() {
    let refused = |change: &dyn Fn(&mut Release)| {
        let mut release = Rig::canary(|_| {}).release;
        change(&mut release);
        KeptRelease::from(&release).resumed(Instant::now()).unwrap_err()
    };
    let canary = |change: fn(&mut super::Canary)| {
        refused(&|release| {
            let Plan::Canary(canary) = &mut release.plan else { unreachable!("a canary") };
            change(canary);
        })
    };
    assert_eq!(canary(|canary| canary.step = 3), ReleaseRefused::Numbers("`step`: not one of `steps`"));
    assert_eq!(canary(|canary| canary.spec.version = 1), ReleaseRefused::Stable { version: 1 });
    assert!(matches!(canary(|canary| canary.spec.steps.clear()), ReleaseRefused::Numbers(_)));
    let weightless = refused(&|release| release.plan = Plan::Split([(1, 0)].into()));
    assert!(matches!(weightless, ReleaseRefused::Numbers(_)));
    let shadow = ShadowSpec { version: 3, share: 0.0, tolerance: 0.1 };
    assert!(matches!(refused(&|release| release.shadow = Some(shadow)), ReleaseRefused::Numbers(_)));
}

// ---- shadow ----------------------------------------------------------------------------------------------------------

#[test]
fn answers_are_compared_by_the_largest_value_given() {
    assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.0]), Some(0.0));
    assert_eq!(difference(&[1.0, 3.0], &[1.0, 2.0]), Some(0.5));
    assert_eq!(difference(&[0.0], &[0.0]), Some(0.0));
    assert_eq!(difference(&[1.0], &[1.0, 2.0]), None);
    assert_eq!(difference(&[f32::NAN], &[1.0]), None);
}

/// A canary, version 2, beside version 1.
struct Rig {
    release: Release,
    now: Instant,
}

impl Rig {
    fn canary(change: impl FnOnce(&mut CanarySpec)) -> Self {
        let now = Instant::now();
        let pinned = Release::ordered(None, &ReleaseOrder::Promote(Some(1)), &three(), now).unwrap();
        let order = ReleaseOrder::Canary(spec(2, change));
        let release = Release::ordered(pinned.as_ref(), &order, &three(), now).unwrap().unwrap();
        Self { release, now }
    }
}

fn spec(version: u32, change: impl FnOnce(&mut CanarySpec)) -> CanarySpec {
    let mut spec =
        CanarySpec { version, steps: vec![1.0, 10.0, 100.0], hold: HOLD, limits: CanaryLimits::default() };
    change(&mut spec);
    spec
}

fn split(weights: &[(u32, u32)]) -> ReleaseOrder {
    ReleaseOrder::Split(weights.iter().copied().collect())
}

/// Versions 1 to 3 of one shape, and for who names it version 4 of another.
fn ordered(current: Option<&Release>, order: &ReleaseOrder) -> Result<Option<Release>, ReleaseRefused> {
    let mut all = three();
    if matches!(order, ReleaseOrder::Split(weights) if weights.contains_key(&4)) {
        all.push(Ready { version: 4, shape: 1 });
    }
    Release::ordered(current, order, &all, Instant::now())
}

fn three() -> Vec<Ready> {
    ready(&[1, 2, 3])
}

fn ready(versions: &[u32]) -> Vec<Ready> {
    versions.iter().map(|version| Ready { version: *version, shape: 0 }).collect()
}

fn last(release: &Release) -> &Change {
    &release.log.last().unwrap().change
}

#[test]
fn who_gave_way_comes_back_unless_somebody_has_decided_otherwise() {
    let now = Instant::now();
    let gone = trusted(None, &[3], &[1, 2, 3]).unwrap();
    let returned = |release: &Release| release.returned(3, 2, &ready(&[1, 2, 3]), now);
    let back = returned(&gone).unwrap();
    assert_eq!((back.stable, back.previous), (3, Some(2)));
    assert_eq!(last(&back), &Change::Promoted { version: 3, from: 2, by: By::Truth });
    assert_eq!(returned(&back), None, "it is back");
    assert_eq!(gone.returned(3, 1, &ready(&[1, 2, 3]), now), None, "it gave way to another");
    assert_eq!(gone.returned(3, 2, &ready(&[1, 2]), now), None, "it is not served any more");
    for order in [ReleaseOrder::Promote(Some(2)), ReleaseOrder::Promote(Some(1)), split(&[(1, 1), (2, 1)])] {
        let decided = ordered_of(&gone, &order, &[1, 2, 3]);
        assert_eq!(returned(&decided), None, "{order:?}");
    }
    let watched = ReleaseOrder::Shadow(Some(ShadowSpec { version: 3, share: 1.0, tolerance: 0.0 }));
    let watched = ordered_of(&gone, &watched, &[1, 2, 3]);
    assert_eq!(returned(&watched).map(|back| (back.stable, back.shadow)), Some((3, None)));
}

fn ordered_of(current: &Release, order: &ReleaseOrder, versions: &[u32]) -> Release {
    Release::ordered(Some(current), order, &ready(versions), Instant::now()).unwrap().unwrap()
}
