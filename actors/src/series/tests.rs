//! Histories against a list that is searched and sorted anew for every question.

use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::trace::Trace;

fn spec(window: usize, hist: &[&str], futr: &[&str], stat: &[&str]) -> ModelSpec {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    ModelSpec {
        name: "m".to_owned(),
        family: Family::Nlinear,
        horizon: 2,
        window,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: names(hist),
        futr_exog: names(futr),
        stat_exog: names(stat),
        columns: vec!["mean".to_owned()],
    }
}

fn name() -> SeriesName {
    SeriesName::new("S").expect("a name")
}

fn tick(at: i64, value: f32) -> Tick {
    Tick {
        series: name(),
        at: Timestamp(at),
        value: Some(value),
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        trace: Trace::default(),
    }
}

/// Applies (time, value) pairs and compares the effects, written `+` advanced, `^` inserted, `=` duplicate,
/// `!` conflict, `<` too late.
#[track_caller]
fn check(capacity: usize, step: Option<i64>, ticks: &[(i64, f32)], effects: &str) -> History {
    let mut history = History::new(capacity, step);
    let marks: String = ticks
        .iter()
        .map(|&(at, value)| match history.apply(&tick(at, value), 1) {
            Effect::Advanced { .. } => '+',
            Effect::Inserted { .. } => '^',
            Effect::Duplicate { .. } => '=',
            Effect::Conflict { .. } => '!',
            Effect::TooLate { .. } => '<',
        })
        .collect();
    assert_eq!(marks, effects);
    history
}

#[track_caller]
fn check_window(history: &History, seq: u64, window: usize, want: Result<(&[f32], Option<&[f32]>), Unready>) {
    let got = history.window(seq, &spec(window, &[], &[], &[]));
    let got = got.map(|windows| {
        assert_eq!(windows.rows, 1);
        (windows.y, windows.mask)
    });
    assert_eq!(got, want.map(|(y, mask)| (y.to_vec(), mask.map(<[f32]>::to_vec))));
}

#[test]
fn each_tick_in_order_moves_the_window() {
    let history = check(8, None, &[(1, 10.0), (2, 20.0), (5, 50.0)], "+++");
    check_window(&history, 3, 2, Ok((&[20.0, 50.0], None)));
    check_window(&history, 2, 2, Ok((&[10.0, 20.0], None)));
    check_window(&history, 3, 4, Err(Unready::Short { got: 3, want: 4 }));
    check_window(&history, 4, 1, Err(Unready::Expired));
}

#[test]
fn a_tick_sent_again_changes_nothing() {
    let history =
        check(8, None, &[(1, 10.0), (2, 20.0), (1, 10.0), (2, 20.0), (2, 21.0), (1, 1.0)], "++==!!");
    assert_eq!(history.seq(), 2);
    check_window(&history, 2, 2, Ok((&[10.0, 20.0], None)));
}

#[test]
fn a_late_tick_takes_its_place_under_a_number_of_its_own() {
    let history = check(8, None, &[(1, 10.0), (3, 30.0), (2, 20.0)], "++^");
    check_window(&history, 3, 3, Ok((&[10.0, 20.0, 30.0], None)));
    check_window(&history, 2, 2, Ok((&[10.0, 30.0], None)));
    assert_eq!(history.position(), 2);
}

#[test]
fn zeros_of_either_sign_are_one_number() {
    check(8, None, &[(1, 0.0), (1, -0.0), (2, -0.0), (2, 0.0), (2, 1.0)], "+=+=!");
    let mut history = History::new(8, None);
    let with = |cell: f32| Tick { hist_exog: vec![("x".to_owned(), cell)], ..tick(1, 1.0) };
    history.apply(&with(0.0), 1);
    assert_eq!(history.apply(&with(-0.0), 1), Effect::Duplicate { seq: 1 });
    assert_eq!(history.apply(&with(1.0), 1), Effect::Conflict { seq: 1 });
}

#[test]
fn a_tick_with_another_future_or_another_constant_is_a_conflict() {
    let with = |ahead: &[f32], beta: &[f32]| Tick {
        hist_exog: vec![("vol".to_owned(), 2.0)],
        futr_exog: vec![("dow".to_owned(), ahead.to_vec())],
        stat_exog: beta.iter().map(|&beta| ("beta".to_owned(), beta)).collect(),
        ..tick(1, 1.0)
    };
    let mut history = History::new(8, None);
    history.apply(&with(&[1.0, 2.0, 3.0], &[0.5]), 1);
    let mut copy = History::new(8, None);
    copy.follow(&history.tick(&name(), 1).expect("kept"), 1);
    for mut history in [history, copy] {
        // What says less says nothing else.
        for (ahead, beta) in
            [(&[1.0, 2.0, 3.0][..], &[0.5][..]), (&[1.0, 2.0], &[0.5]), (&[1.0, 2.0, 3.0], &[])]
        {
            assert_eq!(
                history.apply(&with(ahead, beta), 1),
                Effect::Duplicate { seq: 1 },
                "{ahead:?} {beta:?}"
            );
        }
        for (ahead, beta) in [
            (&[1.0, 2.0, 4.0][..], 0.5),
            (&[9.0, 2.0, 3.0], 0.5),
            (&[1.0, 2.0, 3.0, 4.0], 0.5),
            (&[1.0, 2.0, 3.0], 0.6),
        ] {
            assert_eq!(
                history.apply(&with(ahead, &[beta]), 1),
                Effect::Conflict { seq: 1 },
                "{ahead:?} {beta}"
            );
        }
        let more = Tick { stat_exog: vec![("size".to_owned(), 1.0)], ..with(&[1.0], &[]) };
        assert_eq!(history.apply(&more, 1), Effect::Conflict { seq: 1 });
    }
}

#[test]
fn what_is_older_than_all_that_is_kept_is_too_late() {
    let history =
        check(2, None, &[(10, 1.0), (20, 2.0), (30, 3.0), (10, 1.0), (5, 0.5), (25, 2.5)], "+++<<^");
    assert_eq!((history.len(), history.first_seq()), (2, 3));
    check_window(&history, 4, 2, Ok((&[2.5, 3.0], None)));
}

#[test]
fn what_is_given_up_is_the_oldest_by_its_time() {
    let history = check(3, None, &[(10, 1.0), (20, 2.0), (30, 3.0), (28, 2.8), (29, 2.9)], "+++^^");
    check_window(&history, 5, 3, Ok((&[2.8, 2.9, 3.0], None)));
    let history = check(2, None, &[(20, 2.0), (30, 3.0), (25, 2.5), (40, 4.0)], "++^+");
    check_window(&history, 4, 2, Ok((&[3.0, 4.0], None)));
    check_window(&history, 2, 1, Ok((&[3.0], None)));
    check_window(&history, 2, 2, Err(Unready::Expired));
    // The newest comes first, and stays.
    let history = check(3, None, &[(90, 9.0), (10, 1.0), (20, 2.0), (30, 3.0), (15, 1.5)], "+^^^<");
    check_window(&history, 4, 3, Ok((&[2.0, 3.0, 9.0], None)));
    assert_eq!((history.seq(), history.first_seq(), history.len()), (4, 1, 3));
    // When none was given up yet, what is older than all would be.
    check(2, None, &[(20, 2.0), (30, 3.0), (10, 1.0)], "++<");
}

/// Live ticks, then many older ones in any order, then live ones again.
#[test]
fn a_backfill_costs_no_window_of_what_is_live() {
    const KEPT: usize = 64;
    const LIVE: i64 = 20;
    for (step, backfill) in [None, Some(10)].into_iter().flat_map(|step| [(step, 0), (step, 1), (step, 2)]) {
        let mut rng = StdRng::seed_from_u64(backfill);
        let older: Vec<i64> = match backfill {
            0 => (0..200).collect(),
            1 => (0..200).rev().collect(),
            _ => (0..200).map(|_| rng.random_range(0..200)).collect(),
        };
        let mut history = History::new(KEPT, step);
        for at in (200..200 + LIVE).chain(older) {
            history.apply(&tick(at * 10, at as f32), 1);
        }
        for at in 200 + LIVE..200 + 3 * KEPT as i64 {
            assert!(matches!(history.apply(&tick(at * 10, at as f32), 1), Effect::Advanced { .. }));
            let live: Vec<f32> = (at - LIVE..=at).map(|at| at as f32).collect();
            let window =
                history.window(history.seq(), &spec(live.len(), &[], &[], &[])).expect("all are kept");
            assert_eq!((window.y, window.mask), (live, None), "step {step:?}, backfill {backfill}");
            assert_eq!(history.len(), KEPT);
        }
        assert_eq!(history.first_seq() + KEPT as u64 - 1, history.seq(), "all of it is in order again");
    }
}

/// Against a sorted map that is cut to its newest, on the owner, on a copy that hears of them in parts, and on one that is
/// sent all at the end.
#[test]
fn the_newest_in_time_are_kept_here_and_in_copies() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let step = [None, Some(3)][rng.random_range(0..2)];
        let slot = |at: i64| at.div_euclid(step.unwrap_or(1));
        let kept = rng.random_range(1..20);
        let limits = ShardLimits {
            history: kept,
            steps: step.map(|step| (Pattern::all(), step)).into_iter().collect(),
            ..LIMITS
        };
        let (mut owner, mut copy) = (Shard::default(), Shard::default());
        let holder: Holder = ("copy".into(), 1);
        let mut model = std::collections::BTreeMap::<i64, Tick>::new();
        let mut seq = 0;
        let spread = [3, 40, 400][rng.random_range(0..3)];
        for at in 0..rng.random_range(1..150_i64) {
            let tick =
                Tick { value: Some(rng.random()), ..tick(at * 2 + rng.random_range(-spread..spread), 0.0) };
            let effect = owner.feed(&tick, 1, &limits).expect("a tick");
            let is_older = model.first_key_value().is_some_and(|(&oldest, _)| slot(tick.at.0) < oldest);
            let newest = model.last_key_value().map(|(&newest, _)| newest);
            match model.get(&slot(tick.at.0)) {
                Some(known) if *known == tick => assert_eq!(effect, Effect::Duplicate { seq }),
                Some(_) => assert_eq!(effect, Effect::Conflict { seq }),
                None if model.len() == kept && is_older => assert_eq!(effect, Effect::TooLate { seq }),
                None => {
                    seq += 1;
                    let is_newest = newest.is_none_or(|newest| slot(tick.at.0) > newest);
                    let want = if is_newest { Effect::Advanced { seq } } else { Effect::Inserted { seq } };
                    assert_eq!(effect, want, "seed {seed}");
                    model.insert(slot(tick.at.0), tick);
                    if model.len() > kept {
                        model.pop_first();
                    }
                }
            }
            if rng.random_range(0..4) == 0 {
                // One that fails is followed by all of it.
                for _ in 0..3 {
                    for log in owner.lacking(&holder, [&name()]) {
                        let taken = copy.take(&log, &limits);
                        owner.answered(&holder, &log.series, taken);
                    }
                }
                assert!(owner.lacking(&holder, [&name()]).is_empty(), "seed {seed}");
                assert_eq!(by_time(&copy), by_time(&owner), "seed {seed}");
            }
        }
        let want: Vec<Tick> = model.into_values().collect();
        assert_eq!(by_time(&owner), want, "seed {seed}");
        let mut late = Shard::default();
        let whole = owner.whole(&name()).expect("held");
        assert_eq!(late.take(&whole, &limits), Taken::UpTo(seq), "seed {seed}");
        assert_eq!((by_time(&late), late.ends()), (want, owner.ends()), "seed {seed}");
        // Whoever takes over has the windows of whoever had it.
        let of = |shard: &Shard, seq| {
            let history = shard.get(&name()).expect("held");
            history.window(seq, &spec(kept.min(4), &[], &[], &[])).ok()
        };
        for seq in 1..=seq {
            assert_eq!(of(&late, seq).or_else(|| of(&owner, seq)), of(&owner, seq), "seed {seed} seq {seq}");
        }
        assert_eq!(of(&late, seq), of(&owner, seq), "seed {seed}");
    }
}

/// What is kept of the one series, oldest first.
fn by_time(shard: &Shard) -> Vec<Tick> {
    let Some(log) = shard.whole(&name()) else { return Vec::new() };
    let mut ticks: Vec<Tick> = log.ticks.into_iter().map(|entry| entry.tick).collect();
    ticks.sort_by_key(|tick| tick.at);
    ticks
}

#[test]
fn empty_slots_of_a_grid_are_masked() {
    let ticks = [(0, 1.0), (10, 2.0), (39, 4.0), (31, 9.0), (20, 3.0), (70, 8.0)];
    let history = check(8, Some(10), &ticks, "+++!^+");
    check_window(&history, 3, 4, Ok((&[1.0, 2.0, 0.0, 4.0], Some(&[1.0, 1.0, 0.0, 1.0]))));
    check_window(&history, 4, 4, Ok((&[1.0, 2.0, 3.0, 4.0], None)));
    check_window(&history, 5, 5, Ok((&[4.0, 0.0, 0.0, 0.0, 8.0], Some(&[1.0, 0.0, 0.0, 0.0, 1.0]))));
    check_window(&history, 1, 2, Err(Unready::Short { got: 1, want: 2 }));
    assert_eq!(history.position(), 8);
    assert_eq!([3, 4].map(|seq| history.position_at(seq)), [Some(4); 2], "the late one does not move it");
}

#[test]
fn a_log_from_before_there_was_a_grid_has_the_first_of_each_slot() {
    let columns = |at: i64, value: f32| Tick {
        hist_exog: vec![("vol".to_owned(), value)],
        futr_exog: vec![("dow".to_owned(), vec![value, value + 0.1, value + 0.2])],
        ..tick(at, value)
    };
    let with = spec(2, &["vol"], &["dow"], &[]);
    // In the order of time, and with a late one that is the earlier in its slot.
    for times in [[0, 12, 17, 21, 24], [0, 17, 12, 24, 21]] {
        let mut former = History::new(8, None);
        let mut history = History::new(8, Some(10));
        let values = [1.0, 2.0, 9.0, 3.0, 8.0];
        for (&at, value) in times.iter().zip(values) {
            former.apply(&columns(at, value), 1);
            history.follow(&former.tick(&name(), former.seq()).expect("kept"), 1);
        }
        check_window(&history, 5, 3, Ok((&[1.0, 2.0, 3.0], None)));
        check_window(&history, 3, 2, Ok((&[1.0, 2.0], None)));
        let windows = history.window(5, &with).expect("whole");
        assert_eq!((windows.hist_exog, windows.futr_exog), (vec![2.0, 3.0], vec![2.0, 3.0, 3.1, 3.2]));
        assert_eq!(history.last(5), Some(Timestamp(times[3])), "{times:?}");
        assert_eq!(history.apply(&columns(times[3], 3.0), 1), Effect::Duplicate { seq: 5 });
        assert_eq!(history.apply(&columns(times[4], 8.0), 1), Effect::Conflict { seq: 5 });
    }
}

#[test]
fn a_tick_that_saw_nothing_is_masked() {
    let mut history = check(8, None, &[(1, 10.0)], "+");
    history.apply(&Tick { value: None, ..tick(2, 0.0) }, 1);
    check_window(&history, 2, 2, Ok((&[10.0, 0.0], Some(&[1.0, 0.0]))));
    check_window(&history, 2, 1, Err(Unready::Empty));
}

#[test]
fn a_mask_of_one_row_is_ones_for_the_others() {
    let full =
        check(8, None, &[(1, 10.0), (2, 20.0)], "++").window(2, &spec(2, &[], &[], &[])).expect("full");
    let gap =
        check(8, Some(10), &[(0, 1.0), (20, 3.0)], "++").window(2, &spec(2, &[], &[], &[])).expect("a gap");
    let all = window::joined([&full, &gap, &full]).expect("of one shape");
    assert_eq!(all.mask.as_deref(), Some(&[1.0, 1.0, 0.0, 1.0, 1.0, 1.0][..]));
    assert_eq!((all.rows, all.y.len()), (3, 6));
    assert!(window::joined([]).is_none());
}

#[test]
fn columns_come_in_the_order_of_the_model() {
    let mut history = History::new(8, None);
    for at in 0..3_i16 {
        let at_f = f32::from(at);
        let tick = Tick {
            hist_exog: vec![("vol".to_owned(), at_f), ("range".to_owned(), 10.0 + at_f)],
            futr_exog: vec![("dow".to_owned(), vec![at_f, at_f + 0.1, at_f + 0.2])],
            stat_exog: vec![("sector".to_owned(), 7.0)],
            ..tick(i64::from(at), 0.0)
        };
        history.check(&tick).expect("a tick");
        history.apply(&tick, 1);
        assert_eq!(history.tick(&name(), u64::try_from(at).expect("small") + 1), Some(tick));
    }
    let both = spec(2, &["range", "vol"], &["dow"], &["sector"]);
    let windows = history.window(3, &both).expect("known");
    assert_eq!(windows.hist_exog, [11.0, 1.0, 12.0, 2.0]);
    assert_eq!(windows.futr_exog, [1.0, 2.0, 2.1, 2.2]);
    assert_eq!(windows.stat_exog, [7.0]);
    let other = spec(2, &["volume"], &[], &[]);
    assert_eq!(history.window(3, &other), Err(Unready::Column("volume".to_owned())));
    // A column that begins later is not known throughout.
    history.apply(&tick(9, 1.0), 1);
    assert_eq!(history.window(4, &both), Err(Unready::Column("range".to_owned())));
}

#[test]
fn an_empty_slot_has_what_was_foretold_of_it_and_no_other_column() {
    // What is known of slot `n` is `n`, and 2.9 where a nearer tick knows better.
    let of = |at: i64, ahead: &[f32]| Tick {
        hist_exog: vec![("vol".to_owned(), 1.0)],
        futr_exog: vec![("dow".to_owned(), ahead.to_vec())],
        ..tick(at, 1.0)
    };
    let bare = |at: i64| Tick { value: None, ..tick(at, 0.0) };
    let fed = |capacity: usize, ticks: &[Tick]| {
        let mut history = History::new(capacity, Some(10));
        for tick in ticks {
            history.apply(tick, 1);
        }
        history
    };
    let known = |history: &History, window| {
        history.window(history.seq(), &spec(window, &[], &["dow"], &[])).map(|windows| windows.futr_exog)
    };
    let newest = of(40, &[4.0, 5.0, 6.0]);
    let foretold = Ok(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let (first, second) = (of(10, &[1.0, 2.9, 3.0]), of(20, &[2.0]));
    // A slot that nobody observed and a tick that saw nothing are one.
    for third in [None, Some(bare(35))] {
        let ticks: Vec<Tick> =
            [first.clone(), second.clone()].into_iter().chain(third).chain([newest.clone()]).collect();
        let history = fed(8, &ticks);
        assert_eq!(known(&history, 4), foretold, "the nearest that reaches so far");
        let hist = history.window(history.seq(), &spec(4, &["vol"], &[], &[]));
        assert_eq!(hist.map(drop), Err(Unready::Column("vol".to_owned())));
        let mask = history.window(history.seq(), &spec(4, &[], &[], &[])).expect("a window").mask;
        assert_eq!(mask, Some(vec![1.0, 1.0, 0.0, 1.0]));
    }
    // The window begins within the hole.
    let history = fed(8, &[of(10, &[1.0, 2.0, 3.0]), newest.clone()]);
    assert_eq!(known(&history, 2), Ok(vec![3.0, 4.0, 5.0, 6.0]));
    // The newest tick says nothing of the horizon, or too little.
    let said = of(20, &[2.0, 3.0, 4.0, 5.0]);
    assert_eq!(known(&fed(8, &[said.clone(), tick(30, 1.0)]), 2), Ok(vec![2.0, 3.0, 4.0, 5.0]));
    assert_eq!(known(&fed(8, &[said, of(30, &[3.0, 4.1])]), 2), Ok(vec![2.0, 3.0, 4.1, 5.0]));
    assert_eq!(
        known(&fed(8, &[of(20, &[2.0, 3.0, 4.0]), tick(30, 1.0)]), 2),
        Err(Unready::Column("dow".to_owned()))
    );
    // Too far to have been foretold, and by nobody.
    let lacks = Err(Unready::Column("dow".to_owned()));
    assert_eq!(known(&fed(8, &[of(10, &[1.0, 2.0]), newest.clone()]), 3), lacks);
    assert_eq!(known(&fed(8, &[tick(10, 1.0), newest.clone()]), 3), lacks);
    // By one that came late.
    let late = [of(10, &[1.0]), newest.clone(), of(25, &[2.0, 3.0])];
    assert_eq!(known(&fed(8, &late), 4), foretold);
    // By one that is kept no more, as far as anybody knows.
    let gone = [first, second, newest, of(50, &[5.0, 6.0, 7.0])];
    let then = |capacity| fed(capacity, &gone).window(3, &spec(3, &[], &["dow"], &[]));
    assert_eq!(then(4).map(|windows| windows.futr_exog), Ok(vec![2.0, 3.0, 4.0, 5.0, 6.0]));
    assert_eq!(then(3).map(drop), Err(Unready::Expired));
}

#[test]
fn a_name_may_be_a_column_of_either_kind() {
    let with = |at: i64, hist: &[f32], ahead: &[f32]| Tick {
        hist_exog: hist.iter().map(|&value| ("a".to_owned(), value)).collect(),
        futr_exog: [ahead]
            .iter()
            .filter(|ahead| !ahead.is_empty())
            .map(|&ahead| ("a".to_owned(), ahead.to_vec()))
            .collect(),
        ..tick(at, 1.0)
    };
    let windows = |history: &History| {
        let of = |spec: &ModelSpec| history.window(history.seq(), spec).expect("known");
        (of(&spec(2, &["a"], &[], &[])).hist_exog, of(&spec(2, &[], &["a"], &[])).futr_exog)
    };
    let mut history = History::new(8, None);
    let both = [with(1, &[10.0], &[20.0, 21.0, 22.0]), with(2, &[11.0], &[21.0, 22.0, 23.0])];
    for tick in &both {
        history.check(tick).expect("a tick");
        history.apply(tick, 1);
    }
    let want = (vec![10.0, 11.0], vec![20.0, 21.0, 22.0, 23.0]);
    assert_eq!(windows(&history), want);
    let mut copy = History::new(8, None);
    for (seq, tick) in (1..).zip(&both) {
        let kept = history.tick(&name(), seq).expect("kept");
        assert_eq!(kept, *tick);
        copy.follow(&kept, 1);
    }
    assert_eq!(windows(&copy), want);
    for mut history in [history, copy] {
        assert_eq!(history.apply(&both[1], 1), Effect::Duplicate { seq: 2 });
        for other in [with(2, &[21.0], &[21.0]), with(2, &[11.0], &[11.0]), with(2, &[12.0], &[])] {
            assert_eq!(history.apply(&other, 1), Effect::Conflict { seq: 2 }, "{other:?}");
        }
    }
    // One that came as one kind alone was that at its moment, whoever asks; so a log had it where both said the same.
    let mut history = History::new(8, None);
    history.apply(&with(1, &[7.0], &[]), 1);
    history.apply(&with(2, &[], &[8.0, 9.0, 10.0]), 1);
    assert_eq!(windows(&history), (vec![7.0, 8.0], vec![7.0, 8.0, 9.0, 10.0]));
    assert_eq!(history.apply(&with(2, &[8.0], &[8.0, 9.0]), 1), Effect::Duplicate { seq: 2 });
    // As many as may be, of each kind.
    let many = |count: usize| Tick {
        hist_exog: (0..COLUMNS_MAX).map(|i| (format!("h{i}"), 1.0)).collect(),
        futr_exog: (0..count).map(|i| (format!("f{i}"), vec![1.0])).collect(),
        ..tick(3, 1.0)
    };
    let history = History::new(8, None);
    history.check(&many(COLUMNS_MAX)).expect("as many as may be");
    assert!(history.check(&many(COLUMNS_MAX + 1)).is_err());
}

fn constant(at: i64, brings: &[(&str, f32)]) -> Tick {
    let stat_exog = brings.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    Tick { stat_exog, ..tick(at, 1.0) }
}

#[test]
fn what_does_not_change_with_time_is_that_of_the_newest_observation() {
    let mut history = History::new(4, None);
    let known = |history: &History, seq| {
        let windows = history.window(seq, &spec(1, &[], &[], &["beta", "size"]));
        windows.map(|windows| windows.stat_exog)
    };
    let lacks = |name: &str| Err(Unready::Column(name.to_owned()));
    history.apply(&constant(10, &[("beta", 1.0)]), 1);
    assert_eq!(known(&history, 1), lacks("size"));
    history.apply(&constant(20, &[("beta", 2.0), ("size", 5.0)]), 1);
    history.apply(&constant(30, &[]), 1);
    history.apply(&constant(15, &[("beta", 1.5), ("size", 9.0)]), 1);
    assert_eq!(known(&history, 4), Ok(vec![2.0, 5.0]), "a late one says nothing of what is newer");
    history.apply(&constant(40, &[("beta", 4.0)]), 1);
    history.apply(&constant(50, &[]), 1);
    // Earlier windows are what they were, and what the oldest that are kept did not bring themselves stays known.
    let then: Vec<_> = (3..=6).map(|seq| known(&history, seq)).collect();
    let of = |beta| Ok(vec![beta, 5.0]);
    assert_eq!(then, [of(2.0), of(2.0), of(4.0), of(4.0)]);
    let mut copy = History::new(4, None);
    copy.begin_at(history.first_seq());
    for entry in history.entries(&name(), 0) {
        copy.check(&entry.tick).expect("a tick");
        copy.follow_as(entry.seq, &entry.tick, entry.epoch);
    }
    assert_eq!((3..=6).map(|seq| known(&copy, seq)).collect::<Vec<_>>(), then, "as a copy makes them");
    assert_eq!(copy.rewind(4), Err(Unknown), "the late one was given up");
    copy.rewind(3).expect("kept");
    assert_eq!(copy.apply(&constant(60, &[]), 2), Effect::Advanced { seq: 4 });
    assert_eq!(known(&copy, 4), of(2.0));
}

#[test]
fn endless_columns_are_refused() {
    let mut history = History::new(8, None);
    let column = |i: usize| (format!("c{i}"), 1.0);
    let many =
        |range: std::ops::Range<usize>| Tick { hist_exog: range.map(column).collect(), ..tick(1, 1.0) };
    assert!(history.check(&many(0..COLUMNS_MAX + 1)).is_err());
    history.check(&many(0..COLUMNS_MAX)).expect("as many as may be");
    history.apply(&many(0..COLUMNS_MAX), 1);
    history.check(&many(0..COLUMNS_MAX)).expect("the same");
    assert!(history.check(&many(COLUMNS_MAX..COLUMNS_MAX + 1)).is_err());
    assert!(history.check(&Tick { value: Some(f32::NAN), ..tick(1, 1.0) }).is_err());
    assert!(history.check(&Tick { stat_exog: (0..65).map(column).collect(), ..tick(1, 1.0) }).is_err());
    let statics =
        |range: std::ops::Range<usize>| Tick { stat_exog: range.map(column).collect(), ..tick(2, 1.0) };
    history.apply(&statics(0..COLUMNS_MAX), 1);
    let next = |range| Tick { at: Timestamp(3), ..statics(range) };
    history.check(&next(1..COLUMNS_MAX)).expect("the same");
    assert!(history.check(&next(COLUMNS_MAX..COLUMNS_MAX + 1)).is_err());
    assert!(history.check(&Tick { futr_exog: vec![("f".to_owned(), Vec::new())], ..tick(1, 1.0) }).is_err());
}

#[test]
fn random_ticks_make_the_windows_of_a_sorted_list() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let step = [None, Some(3)][rng.random_range(0..2)];
        let (capacity, window) = (rng.random_range(4..40), rng.random_range(1..6));
        let mut history = History::new(capacity, step);
        let mut log: Vec<(i64, f32)> = Vec::new();
        let mut clock = 0;
        for _ in 0..rng.random_range(1..80) {
            clock += rng.random_range(0..6);
            let late = if rng.random_range(0..4) == 0 { rng.random_range(0..30) } else { 0 };
            let (at, value) = (clock - late, f32::from(rng.random_range(1_i16..5)));
            let before = history.seq();
            if matches!(history.apply(&tick(at, value), 1), Effect::Advanced { .. } | Effect::Inserted { .. })
            {
                log.push((at, value));
                assert_eq!(history.seq(), before + 1);
            } else {
                assert_eq!(history.seq(), before);
            }
            assert_eq!(history.seq(), log.len() as u64);
        }
        for seq in 1..=history.seq() {
            let outcome = history.window(seq, &spec(window, &[], &[], &[]));
            let want = oracle(
                &log[..usize::try_from(seq).expect("small")],
                window,
                step.unwrap_or(1),
                step.is_some(),
            );
            match (outcome, want) {
                (Ok(got), Some((y, mask))) => {
                    assert_eq!(got.y, y, "seed {seed} seq {seq}");
                    assert_eq!(got.mask.unwrap_or_else(|| vec![1.0; window]), mask, "seed {seed} seq {seq}");
                }
                (Ok(_), None) => panic!("seed {seed} seq {seq}: a window of nothing"),
                // What is not kept may be refused, never wrong; what is kept whole is not refused.
                (Err(unready), Some(_)) => {
                    assert_eq!(unready, Unready::Expired, "seed {seed} seq {seq}");
                    assert!(log.len() > capacity, "seed {seed} seq {seq}: nothing was given up");
                }
                (Err(_), None) => {}
            }
        }
    }
}

#[test]
fn a_window_keeps_the_place_that_it_had() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let step = [None, Some(3)][rng.random_range(0..2)];
        let mut history = History::new(64, step);
        let mut places = Vec::new();
        let mut clock = 0_i64;
        for _ in 0..60 {
            clock += rng.random_range(0..6);
            let late = if rng.random_range(0..4) == 0 { rng.random_range(0..30) } else { 0 };
            let newest = history.last(history.seq());
            let (at, before) = (clock - late, history.position());
            match history.apply(&tick(at, rng.random()), 1) {
                Effect::Advanced { .. } => {
                    let slot = |at: i64| at.div_euclid(step.unwrap_or(1));
                    let gone =
                        newest.filter(|_| step.is_some()).map_or(1, |newest| slot(at) - slot(newest.0));
                    assert_eq!(history.position() - before, gone as u64, "seed {seed}");
                    assert_eq!(history.own_place(), Some(history.position()), "seed {seed}");
                }
                Effect::Inserted { .. } => {
                    assert_eq!(history.position(), before, "seed {seed}: it is not the newest");
                    let slots = |newest: Timestamp| newest.0.div_euclid(3) - at.div_euclid(3);
                    // Before the first there is no place.
                    let own = newest.filter(|_| step.is_some());
                    let own = own.and_then(|newest| before.checked_sub(slots(newest) as u64));
                    assert_eq!(history.own_place(), own, "seed {seed}");
                }
                _ => continue,
            }
            places.push(history.position());
        }
        let then: Vec<u64> = (1..=history.seq()).filter_map(|seq| history.position_at(seq)).collect();
        assert_eq!(then, places, "seed {seed}");
    }
}

fn oracle(log: &[(i64, f32)], window: usize, step: i64, grid: bool) -> Option<(Vec<f32>, Vec<f32>)> {
    let mut sorted: Vec<(i64, f32)> = log.iter().map(|&(at, value)| (at.div_euclid(step), value)).collect();
    sorted.sort_by_key(|&(slot, _)| slot);
    if !grid {
        let values: Vec<f32> = sorted.iter().map(|&(_, value)| value).collect();
        let first = values.len().checked_sub(window)?;
        return Some((values[first..].to_vec(), vec![1.0; window]));
    }
    let newest = sorted.last()?.0;
    let oldest = newest - i64::try_from(window).ok()? + 1;
    if sorted.first()?.0 > oldest {
        return None;
    }
    let at = |slot| sorted.iter().find(|&&(other, _)| other == slot).map(|&(_, value)| value);
    let cells: Vec<Option<f32>> = (oldest..=newest).map(at).collect();
    Some((
        cells.iter().map(|cell| cell.unwrap_or(0.0)).collect(),
        cells.iter().map(|cell| f32::from(u8::from(cell.is_some()))).collect(),
    ))
}

#[test]
fn a_log_that_is_followed_and_rewound_is_the_log() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let step = [None, Some(3)][rng.random_range(0..2)];
        let mut owner = History::new(64, step);
        let mut clock = 0;
        let mut feed = |history: &mut History, epoch, count, rng: &mut StdRng| {
            for _ in 0..count {
                clock += rng.random_range(1..6);
                let at = clock - [0, 0, 7][rng.random_range(0..3)];
                history.apply(&tick(at, rng.random()), epoch);
            }
        };
        feed(&mut owner, 1, 20, &mut rng);
        let mut other = History::new(64, step);
        for seq in 1..=owner.seq() {
            other.follow(&owner.tick(&name(), seq).expect("kept"), owner.epoch(seq).expect("kept"));
        }
        assert_eq!(format!("{other:?}"), format!("{owner:?}"), "seed {seed}");
        let kept = owner.clone();
        feed(&mut other, 2, rng.random_range(1..10), &mut rng);
        other.rewind(kept.seq()).expect("kept");
        assert_eq!(format!("{other:?}"), format!("{kept:?}"), "seed {seed}");
    }
}

#[test]
fn epochs_are_known_for_what_is_kept() {
    let mut history = History::new(3, None);
    for (at, epoch) in [(1, 5), (2, 5), (3, 7), (4, 7), (5, 9)] {
        history.apply(&tick(at, 0.0), epoch);
    }
    let epochs: Vec<_> = (3..=6).map(|seq| history.epoch(seq)).collect();
    assert_eq!(epochs, [Some(7), Some(7), Some(9), None]);
    assert_eq!(history.rewind(1), Err(Unknown));
    history.begin_at(100);
    history.follow(&tick(6, 0.0), 11);
    assert_eq!((history.seq(), history.first_seq(), history.epoch(100)), (100, 100, Some(11)));
}

#[test]
fn a_log_says_how_much_its_series_is_short_of_a_window() {
    let check = |step: Option<i64>, times: &[i64], window, missing| {
        let steps = step.map(|step| (Pattern::all(), step)).into_iter().collect();
        let limits = ShardLimits { steps, ..LIMITS };
        let mut shard = Shard::default();
        for &at in times {
            shard.feed(&tick(at, 1.0), 1, &limits).expect("a tick");
        }
        let log = shard.whole(&tick(0, 0.0).series).expect("a log");
        assert_eq!(limits.missing(&log, &spec(window, &[], &[], &[])), missing, "{times:?} of {window}");
    };
    check(None, &[1], 4, 3);
    check(None, &[1, 2, 9], 4, 1);
    check(None, &[1, 2, 3, 4], 4, 0);
    // Slots of a grid count whether anything was observed in them or not.
    check(Some(10), &[0, 20], 4, 1);
    check(Some(10), &[0, 30], 4, 0);
}

const LIMITS: ShardLimits = ShardLimits { history: 256, series_max: 8, steps: Vec::new() };

/// Three copies of a shard whose messages are lost and repeated, and whose owners die one at a time.
#[test]
fn what_two_copies_have_survives_the_death_of_either() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut shards: Vec<Shard> = (0..3).map(|_| Shard::default()).collect();
        let holder = |node: usize, life: u64| -> Holder { (format!("n{node}").as_str().into(), life) };
        let mut lives = [1_u64; 3];
        let (mut owner, mut epoch, mut clock) = (0_usize, 1_u64, 0_i64);
        let mut acknowledged: Vec<Tick> = Vec::new();
        let mut late: Vec<SeriesLog> = Vec::new();
        for _ in 0..120 {
            let standby = (owner + 1 + rng.random_range(0..2)) % 3;
            let who = holder(standby, lives[standby]);
            let names: Vec<SeriesName> =
                ["a", "b"].iter().map(|name| SeriesName::new(name).expect("a name")).collect();
            let mut fed = Vec::new();
            for _ in 0..rng.random_range(0..4) {
                clock += rng.random_range(1..4);
                let late = i64::from(rng.random_range(0..8) == 0) * 5;
                let series = names[rng.random_range(0..2)].clone();
                let tick = Tick { series, ..tick(clock - late, rng.random()) };
                let effect = shards[owner].feed(&tick, epoch, &LIMITS).expect("few series");
                if matches!(effect, Effect::Advanced { .. } | Effect::Inserted { .. }) {
                    fed.push(tick);
                }
            }
            let mut agreed = false;
            for _ in 0..4 {
                let logs = shards[owner].lacking(&who, &names);
                agreed = logs.is_empty();
                for log in logs {
                    let lost = rng.random_range(0..4) == 0;
                    if rng.random_range(0..8) == 0 {
                        late.push(log.clone()); // it arrives a second time, later
                    }
                    if !lost && shards[standby].raise(epoch) {
                        let taken = shards[standby].take(&log, &LIMITS);
                        shards[owner].answered(&who, &log.series, taken);
                    }
                }
                if let Some(log) = late.pop() {
                    // Of the same owner only: those of others are fenced off.
                    shards[standby].take(&log, &LIMITS);
                }
            }
            if agreed {
                acknowledged.append(&mut fed);
            }
            // Only what agrees now with another copy can survive a death.
            if agreed && rng.random_range(0..6) == 0 {
                late.clear();
                let dead = if rng.random() { owner } else { standby };
                shards[dead] = Shard::default();
                lives[dead] += 1;
                epoch += 1;
                owner = rng.random_range(0..3);
                let ends: Vec<(usize, LogEnd)> = (0..3)
                    .flat_map(|node| {
                        assert!(shards[node].raise(epoch));
                        shards[node].ends().into_iter().map(move |end| (node, end))
                    })
                    .collect();
                for name in &names {
                    let of = ends.iter().filter(|(_, end)| end.series == *name);
                    let Some((best, _)) = of.max_by_key(|(_, end)| (end.epoch, end.seq)) else { continue };
                    let whole = shards[*best].whole(name).expect("it said so");
                    let taken = shards[owner].take(&whole, &LIMITS);
                    assert_eq!(
                        taken,
                        Taken::UpTo(shards[*best].get(name).expect("held").seq()),
                        "seed {seed}"
                    );
                }
            }
            for tick in &acknowledged {
                let history = shards[owner].get(&tick.series).expect("held");
                let held = (history.first_seq()..=history.seq())
                    .filter_map(|seq| history.tick(&tick.series, seq))
                    .any(|held| held == *tick);
                assert!(held, "seed {seed}: {tick:?} was acknowledged and is gone");
            }
        }
    }
}

#[test]
fn a_shard_has_so_many_series_and_no_more() {
    let mut shard = Shard::default();
    for i in 0..LIMITS.series_max {
        let series = SeriesName::new(&format!("s{i}")).expect("a name");
        shard.feed(&Tick { series, ..tick(1, 1.0) }, 1, &LIMITS).expect("room");
    }
    let full = TickError::Full { series_max: LIMITS.series_max };
    assert_eq!(shard.feed(&tick(1, 1.0), 1, &LIMITS), Err(full));
    let known = Tick { series: SeriesName::new("s0").expect("a name"), ..tick(2, 1.0) };
    assert_eq!(shard.feed(&known, 1, &LIMITS), Ok(Effect::Advanced { seq: 2 }));
}

#[test]
fn numbers_that_no_series_reaches_are_not_taken() {
    let limits = ShardLimits { history: 4, series_max: 2, steps: Vec::new() };
    let mut shard = Shard::default();
    let mut take = |first| {
        let entry = |seq, tick| JournalEntry { seq, epoch: 2, tick };
        let ticks = vec![entry(first, tick(1, 10.0)), entry(first + 1, tick(2, 20.0))];
        shard.take(&SeriesLog { series: name(), after: None, ticks }, &limits)
    };
    assert_eq!(take(1 << 40), Taken::UpTo((1 << 40) + 1));
    assert_eq!(take(u64::MAX - 2), Taken::Apart);
    assert_eq!(take(u64::MAX - 1), Taken::Apart);
    assert_eq!(shard.feed(&tick(3, 30.0), 2, &limits), Ok(Effect::Advanced { seq: (1 << 40) + 2 }));
}
