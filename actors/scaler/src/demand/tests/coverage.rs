//! How often upper bounds hold, and how much they cost, over months of several seeds.

use std::collections::VecDeque;
use std::time::Duration;

use super::trace::Trace;
use super::{Demand, DemandSettings, Score, Season, hourly, run, xnys};

const HOURS_A_WEEK: usize = 168;
/// Four weeks are learned from.
const LEARNED: usize = 4 * HOURS_A_WEEK;

/// What others would have said: `upper` of each lead from the truth up to now, whose errors of late set the interval.
fn baseline(trace: &Trace, judged_from: usize, guess: impl Fn(&[f64], usize) -> f64) -> Score {
    const LEVEL: f64 = 0.975;
    let mut score = Score::default();
    let mut errors: Vec<VecDeque<f64>> = vec![VecDeque::new(); 24];
    for at in HOURS_A_WEEK..trace.rates.len() {
        let past = &trace.rates[..at];
        for (lead, errors) in errors.iter_mut().enumerate() {
            // The error of the forecast for the cell that has just ended, made `lead` cells before.
            let told = guess(&past[..at - 1 - lead], lead);
            errors.push_back(past[at - 1].ln_1p() - told);
            if errors.len() > 2 * HOURS_A_WEEK {
                errors.pop_front();
            }
            if at < judged_from {
                continue;
            }
            let Some(truth) = trace.rates.get(at + lead) else { continue };
            let mut sorted: Vec<f64> = errors.iter().copied().collect();
            let rank = (((sorted.len() + 1) as f64 * LEVEL).ceil() as usize).min(sorted.len());
            let error = *sorted.select_nth_unstable_by(rank - 1, f64::total_cmp).1;
            let upper = (guess(past, lead) + error).exp_m1().max(0.0);
            score.add(LEVEL, upper, *truth);
        }
    }
    score
}

/// As it is now, it stays.
fn persistence(past: &[f64], _lead: usize) -> f64 {
    past[past.len() - 1].ln_1p()
}

/// As it was a day before.
fn yesterday(past: &[f64], lead: usize) -> f64 {
    past[past.len() + lead - 24].ln_1p()
}

/// As it was a week before.
fn last_week(past: &[f64], lead: usize) -> f64 {
    past[(past.len() + lead).saturating_sub(168)].ln_1p()
}

/// September to Thanksgiving of 2026, over the end of summer time.
#[test]
fn upper_bounds_hold_as_often_as_they_should_and_cost_less_than_simpler_ones() {
    let mut sum = [0.0; 5];
    let mut held = 0.0;
    const SEEDS: u64 = 8;
    for seed in 1..=SEEDS {
        let trace = Trace::hours(seed, "2026-08-31", 89);
        let ours = run(&mut hourly(None), &trace, LEARNED, |_, _| {});
        let mut blind =
            Demand::new(DemandSettings::default(), Season::Week(xnys().zone().clone()), None).unwrap();
        let losses = [
            ours,
            run(&mut blind, &trace, LEARNED, |_, _| {}),
            baseline(&trace, LEARNED, persistence),
            baseline(&trace, LEARNED, yesterday),
            baseline(&trace, LEARNED, last_week),
        ];
        for (sum, score) in sum.iter_mut().zip(losses) {
            *sum += score.loss() / SEEDS as f64;
        }
        held += ours.held() / SEEDS as f64;
        println!(
            "seed {seed}: held {:.4}, loss {:.3}; {:?}",
            ours.held(),
            ours.loss(),
            losses.map(|s| (s.held(), s.loss()))
        );
        assert!((0.95..=0.995).contains(&ours.held()), "seed {seed}: {}", ours.held());
    }
    println!("held {held:.4}, losses {sum:?}");
    assert!((0.965..=0.985).contains(&held), "{held}");
    let [ours, blind, persistence, yesterday, last_week] = sum;
    assert!(ours < blind, "the calendar knows holidays: {ours} {blind}");
    assert!(ours < 0.9 * last_week, "{ours} {last_week}");
    assert!(ours < 0.7 * yesterday, "{ours} {yesterday}");
    assert!(ours < 0.4 * persistence, "{ours} {persistence}");
}

/// Two hours ahead in steps of five minutes.
#[test]
fn short_steps_hold_as_well() {
    let settings = DemandSettings {
        step: Duration::from_secs(300),
        horizon: 24,
        history_len: 35 * 288,
        upper: 0.975,
        stale_after: 3,
    };
    let mut held = 0.0;
    for seed in 1..=2 {
        let trace = Trace::new(seed, "2026-10-05", 35, settings.step);
        let mut demand = Demand::new(settings.clone(), Season::Market(xnys()), None).unwrap();
        let score = run(&mut demand, &trace, 21 * 288, |_, _| {});
        println!("seed {seed}: held {:.4}, loss {:.3}", score.held(), score.loss());
        held += score.held() / 2.0;
    }
    assert!((0.965..=0.985).contains(&held), "{held}");
}

/// The peaks are what capacity is for: their hours alone must hold too, and not be paid for by quiet nights.
#[test]
fn peaks_hold_as_well_as_nights() {
    let (mut peaks, mut others) = (Score::default(), Score::default());
    for seed in 1..=8 {
        let trace = Trace::hours(seed, "2026-08-31", 89);
        run(&mut hourly(None), &trace, LEARNED, |at, outlook| {
            for (lead, point) in outlook.points.iter().enumerate() {
                let Some(truth) = trace.rates.get(at + lead) else { continue };
                let score = if point.median > 60.0 { &mut peaks } else { &mut others };
                score.add(0.975, point.upper, *truth);
            }
        });
    }
    println!("peaks {:.4} of {}, others {:.4} of {}", peaks.held(), peaks.count, others.held(), others.count);
    assert!(peaks.count > 10_000);
    assert!(peaks.held() > 0.955, "{}", peaks.held());
    assert!(others.held() > 0.965, "{}", others.held());
}

/// For other levels than the usual one.
#[test]
fn an_80_percent_interval_is_one() {
    let settings = DemandSettings { upper: 0.9, ..DemandSettings::default() };
    let mut demand = Demand::new(settings, Season::Market(xnys()), None).unwrap();
    let trace = Trace::hours(5, "2026-08-31", 89);
    let score = run(&mut demand, &trace, LEARNED, |_, _| {});
    println!("held {:.4}", score.held());
    assert!((0.88..=0.93).contains(&score.held()), "{}", score.held());
}

/// A new customer doubles all rates for good: the bounds are broken at first, and hold again within a week.
#[test]
fn demand_that_doubles_is_caught_up_with() {
    let (mut first_day, mut second_week) = (0.0, 0.0);
    for seed in 1..=4 {
        let mut trace = Trace::hours(seed, "2026-08-31", 63);
        let doubles = 42 * 24;
        trace.rates[doubles..].iter_mut().for_each(|rate| *rate *= 2.0);
        let mut scores = [Score::default(); 2];
        run(&mut hourly(None), &trace, doubles, |at, outlook| {
            let score = match (at - doubles) / 24 {
                0 => &mut scores[0],
                7..14 => &mut scores[1],
                _ => return,
            };
            for (point, truth) in outlook.points.iter().zip(&trace.rates[at..]) {
                score.add(0.975, point.upper, *truth);
            }
        });
        first_day += scores[0].held() / 4.0;
        second_week += scores[1].held() / 4.0;
    }
    println!("first day {first_day:.4}, second week {second_week:.4}");
    assert!(first_day < 0.9, "{first_day}");
    assert!(second_week > 0.96, "{second_week}");
}

/// The record that goes with an outlook is the one that was measured here.
#[test]
fn an_outlook_says_how_it_fared() {
    let trace = Trace::hours(2, "2026-08-31", 60);
    let mut demand = hourly(None);
    let mut last = None;
    run(&mut demand, &trace, LEARNED, |_, outlook| last = Some(outlook.coverage));
    let coverage = last.unwrap();
    assert_eq!(coverage.nominal, 0.975);
    assert_eq!(coverage.count, HOURS_A_WEEK * 24);
    assert!((0.9..=1.0).contains(&coverage.share().unwrap()), "{coverage:?}");
}
