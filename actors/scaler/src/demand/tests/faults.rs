//! Models that fail, feeds that die, clocks that jump, settings that make no sense.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::models::with;
use super::trace::Trace;
use super::*;

/// Five weeks of hours, then an answer; from then on as it fails.
#[track_caller]
fn check_fails(answer: Result<Quantiles, ModelError>, expected: &str) {
    let trace = Trace::hours(1, "2026-09-01", 36);
    let mut demand = with(move |_| answer.clone());
    let mut plain = hourly(None);
    for (at, rate) in trace.rates.iter().enumerate() {
        demand.observe(trace.start(at), *rate).unwrap();
        plain.observe(trace.start(at), *rate).unwrap();
    }
    let now = trace.start(trace.rates.len());
    let outlook = demand.outlook(now).unwrap();
    assert_eq!(outlook.by, Source::SeasonalNaive);
    assert!(matches!(outlook.why, Why::Failed(_)));
    assert!(outlook.why.to_string().contains(expected), "{}", outlook.why);
    // A model that fails leaves no trace in what is said without it.
    assert_eq!(outlook.points, plain.outlook(now).unwrap().points);
}

#[test]
fn a_model_that_fails_is_done_without_and_named() {
    let good = || vec![1.0; 24];
    check_fails(Err(ModelError::Unavailable("no device".to_owned())), "not available: no device");
    check_fails(Err(ModelError::Refused("too long".to_owned())), "refused: too long");
    check_fails(Ok(Quantiles::point(vec![1.0; 23])), "23 values where 24 were due");
    check_fails(Ok(Quantiles::point(vec![1.0; 1000])), "1000 values where 24 were due");
    check_fails(
        Ok(Quantiles { upper: Vec::new(), ..Quantiles::point(good()) }),
        "0 values where 24 were due",
    );
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = good();
        values[5] = bad;
        check_fails(
            Ok(Quantiles { upper: values.clone(), ..Quantiles::point(good()) }),
            "value 6 steps ahead",
        );
        check_fails(
            Ok(Quantiles { lower: values.clone(), ..Quantiles::point(good()) }),
            "value 6 steps ahead",
        );
        check_fails(Ok(Quantiles { median: values, ..Quantiles::point(good()) }), "value 6 steps ahead");
    }
}

/// Finite and absurd: it is believed for no longer than until it is compared, and no bound leaves the range of rates.
#[test]
fn absurd_values_stay_in_range_and_lose() {
    let trace = Trace::hours(1, "2026-09-01", 60);
    let mut demand =
        with(|_| Ok(Quantiles { lower: vec![f32::MAX; 24], ..Quantiles::point(vec![f32::MIN; 24]) }));
    run(&mut demand, &trace, 35 * 24, |_, outlook| {
        assert_eq!(outlook.by, Source::SeasonalNaive);
        assert!(outlook.points.iter().all(|point| point.upper.is_finite()));
    });
    let mut demand = with(|_| Ok(Quantiles::point(vec![f32::MAX; 24])));
    run(&mut demand, &trace, 35 * 24, |_, outlook| assert_eq!(outlook.by, Source::SeasonalNaive));
}

/// It was the better one until it fails; it is again when it is back.
#[test]
fn a_model_that_fell_over_is_replaced_at_once_and_taken_back() {
    let trace = Trace::hours(2, "2026-08-31", 80);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // Asked twice a step, from the 168th on: it fails from the 1,500th to the 1,510th.
    let fails = 2 * (1500 - 168)..2 * (1510 - 168);
    let range = fails.clone();
    let mut demand = with(move |values| {
        let turn = counter.fetch_add(1, Ordering::Relaxed);
        if range.contains(&turn) {
            return Err(ModelError::Unavailable("it restarts".to_owned()));
        }
        let mean = values[162..].iter().sum::<f32>() / 6.0;
        Ok(Quantiles::point((0..24).map(|lead| mean * 0.97f32.powi(lead)).collect()))
    });
    let (mut by_naive, mut failed) = (0, 0);
    run(&mut demand, &trace, 1490, |_, outlook| {
        by_naive += usize::from(outlook.by == Source::SeasonalNaive);
        failed += usize::from(matches!(&outlook.why, Why::Failed(Failure::Model(_))));
    });
    assert!(asked.load(Ordering::Relaxed) > fails.end);
    assert_eq!(failed, 10);
    assert!(by_naive < 200, "{by_naive}");
}

#[test]
fn a_short_history_is_no_forecast_of_nothing() {
    let trace = Trace::hours(1, "2026-09-01", 10);
    let mut demand = hourly(None);
    assert!(matches!(
        demand.outlook(trace.start(0)),
        Err(NoOutlook::Failed(Failure::ShortHistory { have: 0, .. }))
    ));
    let mut first = None;
    for (at, rate) in trace.rates.iter().enumerate() {
        demand.observe(trace.start(at), *rate).unwrap();
        match demand.outlook(trace.start(at)) {
            Ok(_) => first = first.or(Some(at)),
            Err(error) => {
                assert!(matches!(error, NoOutlook::Failed(Failure::ShortHistory { .. })), "{error}");
                assert_eq!(first, None);
            }
        }
    }
    // A day to look back at, then 39 errors: as many as the level needs.
    assert_eq!(first, Some(24 + 39));
}

#[test]
fn a_dead_feed_is_no_quiet_market() {
    let trace = Trace::hours(3, "2026-09-01", 49);
    let dead = 40 * 24 + 8..40 * 24 + 14;
    let (mut demand, mut whole) = (hourly(None), hourly(None));
    let mut answers = Vec::new();
    for (at, rate) in trace.rates.iter().enumerate() {
        let now = trace.start(at);
        whole.observe(now, *rate).unwrap();
        if !dead.contains(&at) {
            demand.observe(now, *rate).unwrap();
        }
        if at >= dead.start {
            answers.push(demand.outlook(now + Duration::from_secs(1)).map(|outlook| outlook.points));
        }
    }
    let stale: Vec<usize> = (0..answers.len()).filter(|at| answers[*at].is_err()).collect();
    // Three hours without a word, and the answer is that there is none; one measured hour later it is back.
    assert_eq!(stale, [3, 4, 5, 6]);
    assert_eq!(answers[3], Err(NoOutlook::Stale { cells: 3 }));
    // The season is what it was: no hour of the gap was taken for an hour without requests.
    let last = answers.last().unwrap().as_ref().unwrap();
    let now = trace.start(trace.rates.len() - 1) + Duration::from_secs(2);
    for (with_gap, without) in last.iter().zip(whole.outlook(now).unwrap().points) {
        assert!((0.8..1.25).contains(&(with_gap.median / without.median)), "{with_gap:?} {without:?}");
        assert!(with_gap.upper > 0.5 * without.upper, "{with_gap:?} {without:?}");
    }
}

/// Some gaps are filled for the model, many are not shown to it.
#[test]
fn a_model_sees_few_gaps_and_never_many() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let mut demand = with(move |values| {
        sink.lock().unwrap().push(values.to_vec());
        Err(ModelError::Unavailable("not today".to_owned()))
    });
    let trace = Trace::hours(4, "2026-09-01", 40);
    let known = |at: usize| !at.is_multiple_of(20) || at > 900;
    for (at, rate) in trace.rates.iter().enumerate().filter(|(at, _)| known(*at) && !(901..919).contains(at))
    {
        demand.observe(trace.start(at), *rate).unwrap();
        let asked = std::mem::take(&mut *seen.lock().unwrap());
        // Hours 901 to 918 are missing, more than a tenth of a window together with the older gaps.
        let too_many = (919..1000).contains(&at);
        if too_many {
            assert!(asked.is_empty(), "{at}");
            let why = demand.outlook(trace.start(at)).map(|outlook| outlook.why);
            if let Ok(why) = why {
                assert!(why.to_string().contains("of the latest 168 cells were not measured"), "{why}");
            }
        } else if at > 400 && at < 900 && known(at - 1) {
            let plain = &asked[0];
            let lowest = (at - 168..at).map(|at| trace.rates[at]).fold(f64::MAX, f64::min).ln_1p() as f32;
            // A gap is what the season says of its hour, which is never nothing.
            assert!(plain.iter().all(|value| *value > 0.5 * lowest), "{at}");
        }
    }
}

#[test]
fn rates_and_clocks_that_make_no_sense_change_nothing() {
    let trace = Trace::hours(1, "2026-09-01", 30);
    let mut demand = hourly(None);
    for (at, rate) in trace.rates.iter().enumerate() {
        demand.observe(trace.start(at), *rate).unwrap();
    }
    let now = trace.start(trace.rates.len() - 1);
    let before = demand.outlook(now).unwrap();
    for rate in [f64::NAN, f64::INFINITY, -1.0, -0.001, 1.1e9] {
        assert!(matches!(demand.observe(now, rate), Err(Refused::NoRate(_))), "{rate}");
    }
    let late = now - SignedDuration::from_secs(1);
    assert!(matches!(demand.observe(late, 1.0), Err(Refused::Late { .. })));
    let far = now + SignedDuration::from_hours(24 * 365);
    assert!(matches!(demand.observe(far, 1.0), Err(Refused::FarAhead { .. })));
    assert!(matches!(demand.outlook(far), Err(NoOutlook::Refused(Refused::FarAhead { .. }))));
    assert!(demand.outlook(Timestamp::MAX).is_err() && demand.outlook(Timestamp::MIN).is_err());
    assert_eq!(demand.outlook(now).unwrap(), before);
}

/// Whatever comes, in whichever order: an answer of sense, or a typed refusal.
#[test]
fn random_feeds_never_make_it_fall_over() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut demand = with(move |values| {
            let noise = values.iter().map(|value| value * 1.5 - 0.1);
            Ok(Quantiles::point(noise.take(24).collect()))
        });
        let mut now = utc("2026-01-01T00:00");
        for _ in 0..3000 {
            now += SignedDuration::from_secs(match rng.random_range(0..200) {
                0 => rng.random_range(0..40 * 24 * 3600),
                1 => -rng.random_range(0..7200),
                _ => rng.random_range(0..5400),
            });
            let rate = match rng.random_range(0..50) {
                0 => 0.0,
                1 => 1e9,
                _ => rng.random_range(0.0..500.0),
            };
            let taken = demand.observe(now, rate);
            assert!(
                matches!(taken, Ok(()) | Err(Refused::Late { .. })),
                "replay with seed {seed}: {taken:?}"
            );
            if let Ok(outlook) = demand.outlook(now) {
                for Point { lower, median, upper } in &outlook.points {
                    let sane = 0.0 <= *lower && lower <= median && median <= upper && *upper <= 1e9;
                    assert!(sane, "replay with seed {seed}: {outlook:?}");
                }
            }
        }
        assert!(demand.kept().count() <= demand.settings.history_len);
    }
}

/// A node that starts anew forecasts as the one that went on did.
#[test]
fn what_was_kept_is_recalled() {
    let trace = Trace::hours(6, "2026-09-01", 41);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let mut first = hourly(None);
    let mut second = with(move |values| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Quantiles::point(values[..24].to_vec()))
    });
    for (at, rate) in trace.rates.iter().enumerate() {
        first.observe(trace.start(at), *rate).unwrap();
    }
    let now = trace.start(trace.rates.len());
    let goes_on = first.outlook(now).unwrap();
    assert_eq!(first.kept().count(), trace.rates.len());
    for (at, rate) in first.kept() {
        second.recall(at, rate).unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let anew = second.outlook(now).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(anew.why, Why::Unproven { steps: 0, need: 24 });
    for (one, other) in goes_on.points.iter().zip(&anew.points) {
        assert!((one.upper / other.upper - 1.0).abs() < 1e-9, "{one:?} {other:?}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let check = |change: fn(&mut DemandSettings), key: &str| {
        let mut settings = DemandSettings::default();
        change(&mut settings);
        let error = Demand::new(settings, Season::Market(xnys()), None).err().unwrap();
        assert!(error.to_string().starts_with(key), "{error}");
    };
    check(|settings| settings.step = Duration::from_secs(59), "step");
    check(|settings| settings.step = Duration::ZERO, "step");
    check(|settings| settings.step = Duration::from_secs(7000), "step");
    check(|settings| settings.step = Duration::from_millis(60_001), "step");
    check(|settings| settings.step = Duration::from_secs(2 * 86_400), "step");
    check(|settings| settings.horizon = 0, "horizon");
    check(|settings| settings.horizon = 289, "horizon");
    check(|settings| settings.history_len = 47, "history_len");
    check(|settings| settings.history_len = 50_001, "history_len");
    check(|settings| settings.upper = 0.5, "upper");
    check(|settings| settings.upper = f64::NAN, "upper");
    check(|settings| settings.upper = 0.999, "upper");
    check(|settings| settings.stale_after = 0, "stale_after");
    // A model of 24 steps where 25 are due, and one of 168 where fewer are kept.
    let defaults = DemandSettings::default();
    for settings in
        [DemandSettings { horizon: 25, ..defaults.clone() }, DemandSettings { history_len: 167, ..defaults }]
    {
        let model = with(|_| Ok(Quantiles::point(vec![0.0; 24]))).model.unwrap().model;
        let error = Demand::new(settings, Season::Market(xnys()), Some(model)).err().unwrap();
        assert!(matches!(error, SettingsError::Model { .. }), "{error}");
    }
}
