//! Random predictions and truths in random order, against sums done the plain way from all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};

use super::*;
use crate::series::Timestamp;
use crate::stream::StreamId;

const HORIZON: usize = 5;
const PLACES: u64 = 700;

#[test]
fn scores_are_those_done_the_plain_way_whatever_the_order() {
    for seed in 1..=40 {
        check(seed, Head::Quantiles(vec![0.5, 0.1, 0.9, 0.25]), &["median", "lo", "hi", "q"]);
    }
}

#[test]
fn point_models_have_errors_alone() {
    for seed in 1..=10 {
        check(seed, Head::Point, &["mean"]);
    }
}

#[test]
fn distributions_are_scored_at_their_quantiles() {
    let card = Scorecard::default();
    let spec = spec(Head::Normal, &["mean", "loc", "scale"]);
    // A standard normal distribution holds 1.5 within 95 % (±1.96) and not within 80 % (±1.28).
    card.predicted(&prediction(&spec, "a", 0, [0.0, 0.0, 1.0].repeat(HORIZON)));
    card.observed(&name("a"), 1, 1.5);
    let coverage = |level| card.coverage("m", 1, level).unwrap().held;
    assert_eq!((coverage(80.0), coverage(95.0)), (0.0, 100.0));
    assert_eq!(card.coverage("m", 1, 50.0), None);
    assert_eq!(card.coverage("m", 2, 80.0), None);
}

#[test]
fn numbers_are_those_done_by_hand() {
    let card = Scorecard::default();
    let spec = spec(Head::Point, &["mean"]);
    card.observed(&name("a"), 0, 1.0);
    card.observed(&name("a"), 1, 3.0); // moves by 2
    card.predicted(&prediction(&spec, "a", 1, vec![4.0, 4.0, 4.0, 4.0, 4.0]));
    assert_eq!(card.scores(Question::default()), []);
    card.observed(&name("a"), 2, 3.0); // off by 1; moves by 0
    let score = &card.scores(Question::default())[0];
    assert!((score.mae - 1.0).abs() < 1e-12);
    let scale = 2.0 * (-1.0 / WINDOW as f64).exp() / (1.0 + (-1.0 / WINDOW as f64).exp());
    assert!((score.mase.unwrap() - 1.0 / scale).abs() < 1e-12);
    assert_eq!((score.series, score.step, score.pinball), (1, None, None));
    assert_eq!(card.scored(), [(Arc::from("m"), 1, 1)]);
}

#[test]
fn a_series_that_does_not_move_has_no_scale() {
    let card = Scorecard::default();
    card.predicted(&prediction(&spec(Head::Point, &["mean"]), "a", 0, vec![2.0; HORIZON]));
    (0..4).for_each(|place| card.observed(&name("a"), place, 1.0));
    let score = &card.scores(Question::default())[0];
    assert_eq!((score.mae, score.mase), (1.0, None));
}

#[test]
fn questions_name_model_version_series_and_steps() {
    let card = Scorecard::default();
    let spec = spec(Head::Point, &["mean"]);
    for (series, version) in [("a", 1), ("a", 2), ("b", 1)] {
        let mut one = prediction(&spec, series, 0, vec![0.0; HORIZON]);
        one.version = version;
        card.predicted(&one);
    }
    for series in ["a", "b"] {
        (1..=3).for_each(|place| card.observed(&name(series), place, place as f32));
    }
    let ask = |question| {
        let scores = card.scores(question);
        scores.iter().map(|score| (score.version, score.step, score.series)).collect::<Vec<_>>()
    };
    let all = Question::default();
    assert_eq!(ask(all), [(1, None, 2), (2, None, 1)]);
    assert_eq!(ask(Question { version: Some(2), ..all }), [(2, None, 1)]);
    assert_eq!(ask(Question { series: Some("b"), ..all }), [(1, None, 1)]);
    assert_eq!(ask(Question { model: Some("other"), ..all }), []);
    assert_eq!(ask(Question { series: Some("*"), ..all }), []);
    let steps = Question { by_step: true, series: Some("b"), ..all };
    assert_eq!(ask(steps), [(1, Some(1), 1), (1, Some(2), 1), (1, Some(3), 1)]);
}

#[test]
fn what_it_holds_is_bounded_and_given_back() {
    let card = Scorecard::new(ScorecardLimits { series_max: 2, bytes_max: 1 << 20 });
    let spec = spec(Head::Point, &["mean"]);
    for series in ["a", "b", "c"] {
        card.observed(&name(series), 0, 0.0);
        card.predicted(&prediction(&spec, series, 0, vec![0.0; HORIZON]));
    }
    assert_eq!((card.status().series, card.status().unscored), (2, 2));
    let full = card.status().bytes;
    for version in 1..=100 {
        let mut one = prediction(&spec, "a", version.into(), vec![0.0; HORIZON]);
        one.version = version;
        card.predicted(&one);
    }
    assert_eq!(card.status().bytes, full / 2 * (STREAMS_MAX + 1));
    card.retire("m", 100);
    assert_eq!(card.status().bytes, full / 2 * STREAMS_MAX);
    card.forget(&name("a"));
    card.forget(&name("b"));
    card.forget(&name("never seen"));
    assert_eq!((card.status().series, card.status().bytes), (0, 0));

    let small = Scorecard::new(ScorecardLimits { series_max: 9, bytes_max: 100 });
    small.predicted(&prediction(&spec, "a", 0, vec![0.0; HORIZON]));
    assert_eq!((small.status().bytes, small.status().unscored), (0, 1));
}

#[test]
fn what_cannot_be_scored_is_counted() {
    let card = Scorecard::default();
    let point = spec(Head::Point, &["mean"]);
    card.predicted(&prediction(&point, "a", 0, vec![f32::NAN; HORIZON]));
    card.predicted(&prediction(&point, "a", 0, vec![0.0; HORIZON - 1]));
    card.observed(&name("a"), 1, f32::INFINITY);
    let several = ModelSpec { series: 2, ..(*point).clone() };
    card.predicted(&prediction(&Arc::new(several), "a", 0, vec![0.0; 2 * HORIZON]));
    assert_eq!(card.status().unscored, 4);
}

#[test]
fn places_anywhere_are_taken() {
    let card = Scorecard::default();
    let point = spec(Head::Point, &["mean"]);
    for place in [0, 1, 1 << 20, u64::MAX - 9, u64::MAX - 8, u64::MAX - 1, u64::MAX, 0, 5] {
        card.predicted(&prediction(&point, "a", place, vec![1.0; HORIZON]));
        card.observed(&name("a"), place, 2.0);
    }
    let score = &card.scores(Question::default())[0];
    assert!((score.mae - 1.0).abs() < 1e-9 && score.weight.is_finite(), "{score:?}");
    assert!(card.status().too_late > 0);
}

/// What happens, and when; places and times in the same unit.
enum Event {
    Predicted(u64),
    Observed(u64, f32),
}

#[track_caller]
fn check(seed: u64, head: Head, columns: &[&str]) {
    let mut chance = chance(seed);
    let spec = spec(head, columns);
    let card = Scorecard::default();
    let (mut rows, mut truths, mut events) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let start = 1_000_000 * seed;
    for place in start..start + PLACES {
        let at = (place - start) as f64;
        if chance() < 0.9 {
            let row: Vec<f32> = (0..HORIZON * columns.len()).map(|_| chance() as f32).collect();
            rows.insert(place, row);
            events.push((at + 0.5 + 20.0 * chance() * chance(), Event::Predicted(place)));
        }
        if chance() < 0.95 {
            let when = at + 3.0 * chance();
            let mut truth = chance() as f32;
            events.push((when, Event::Observed(place, truth)));
            if chance() < 0.1 {
                truth = chance() as f32;
                events.push((when + 4.0 * chance(), Event::Observed(place, truth)));
            }
            truths.insert(place, truth);
        }
    }
    // A prediction that is more than LATE_PLACES behind another is not kept: let none be.
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut newest = 0;
    for (_, event) in events {
        match event {
            Event::Predicted(place) if place + LATE_PLACES < newest => drop(rows.remove(&place)),
            Event::Predicted(place) => {
                newest = newest.max(place);
                card.predicted(&prediction(&spec, "a", place, rows[&place].clone()));
            }
            Event::Observed(place, truth) => card.observed(&name("a"), place, truth),
        }
    }
    assert_eq!((card.status().unscored, card.status().too_late), (0, 0), "seed {seed}");
    let weight = |place: u64| ((place as f64 - newest as f64) / WINDOW as f64).exp();
    let mut moves = [0.0; 2];
    for (place, truth) in &truths {
        if let Some(before) = truths.get(&(place - 1)) {
            moves[0] += weight(*place);
            moves[1] += weight(*place) * f64::from((truth - before).abs());
        }
    }
    let by_step = card.scores(Question { by_step: true, ..Question::default() });
    let mut total = Plain::default();
    let mut values = 0;
    for step in 0..HORIZON {
        let mut plain = Plain::default();
        for (position, row) in &rows {
            let place = position + 1 + step as u64;
            if let Some(&truth) = truths.get(&place) {
                values += 1;
                let numbers = &row[step * columns.len()..][..columns.len()];
                plain.add(&spec.head, numbers, f64::from(truth), weight(place));
            }
        }
        plain.assert_is(&by_step[step], moves, seed);
        total.merge(&plain);
    }
    assert_eq!(card.scored()[0].2, values, "seed {seed}");
    total.assert_is(&card.scores(Question::default())[0], moves, seed);
}

/// Sums without any bookkeeping.
#[derive(Default)]
struct Plain {
    weight: f64,
    error: f64,
    pinball: f64,
    within_80: f64,
}

impl Plain {
    fn add(&mut self, head: &Head, numbers: &[f32], truth: f64, weight: f64) {
        self.weight += weight;
        self.error += weight * (truth - f64::from(numbers[0])).abs();
        if let Head::Quantiles(levels) = head {
            for (level, q) in levels.iter().zip(numbers) {
                let above = truth - f64::from(*q);
                let loss = if above >= 0.0 { level * above } else { (1.0 - level) * -above };
                self.pinball += weight * loss / levels.len() as f64;
            }
            if f64::from(numbers[1]) <= truth && truth <= f64::from(numbers[2]) {
                self.within_80 += weight;
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.weight += other.weight;
        self.error += other.error;
        self.pinball += other.pinball;
        self.within_80 += other.within_80;
    }

    #[track_caller]
    fn assert_is(&self, score: &Score, moves: [f64; 2], seed: u64) {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs() + 1e-9; // median and truth are f32
        assert!(near(score.weight, self.weight), "seed {seed}: {score:?}");
        let mae = self.error / self.weight;
        assert!(near(score.mae, mae), "seed {seed}: {score:?}, mae is {mae}");
        assert!(near(score.mase.unwrap(), mae / (moves[1] / moves[0])), "seed {seed}: {score:?}");
        if let Some(pinball) = score.pinball {
            assert!(near(pinball, self.pinball / self.weight), "seed {seed}: {score:?}");
            let [coverage] = score.coverage[..] else { panic!("seed {seed}: {score:?}") };
            assert_eq!(coverage.level, 80.0);
            assert!(near(coverage.held, 100.0 * self.within_80 / self.weight), "seed {seed}: {score:?}");
        } else {
            assert!(self.pinball == 0.0 && score.coverage.is_empty(), "seed {seed}: {score:?}");
        }
    }
}

fn spec(head: Head, columns: &[&str]) -> Arc<ModelSpec> {
    Arc::new(ModelSpec {
        name: "m".to_owned(),
        family: Family::Mlp,
        horizon: HORIZON,
        window: 3,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: columns.iter().map(|&column| column.to_owned()).collect(),
    })
}

fn prediction(spec: &Arc<ModelSpec>, series: &str, position: u64, values: Vec<f32>) -> Prediction {
    Prediction {
        stream: StreamId { model: Arc::from("m"), series: name(series) },
        seq: position,
        epoch: 0,
        position,
        last: Timestamp(0),
        accepted_at: None,
        made_at: Timestamp(0),
        spec: Arc::clone(spec),
        version: 1,
        values: values.into(),
        backend: Arc::from("cpu"),
        degraded: false,
    }
}

fn name(name: &str) -> SeriesName {
    SeriesName::new(name).unwrap()
}

/// In `[0, 1)`, the same for the same seed.
fn chance(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}
