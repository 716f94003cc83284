//! Forecasters that are better or worse than the season, and which of them is believed.

use super::trace::Trace;
use super::{Demand, DemandModel, ModelError, Outlook, Quantiles, Source, Why, hourly, run};

/// 168 values in, 24 out, by a function of the window.
struct Model<F>(F);

impl<F: FnMut(&[f32]) -> Result<Quantiles, ModelError> + Send> DemandModel for Model<F> {
    fn name(&self) -> &str {
        "test"
    }

    fn window(&self) -> usize {
        168
    }

    fn horizon(&self) -> usize {
        24
    }

    fn forecast(&mut self, values: &[f32]) -> Result<Quantiles, ModelError> {
        assert_eq!(values.len(), self.window());
        assert!(values.iter().all(|value| value.is_finite()));
        (self.0)(values)
    }
}

pub(super) fn with(forecast: impl FnMut(&[f32]) -> Result<Quantiles, ModelError> + Send + 'static) -> Demand {
    hourly(Some(Box::new(Model(forecast))))
}

/// The mean of the latest values stays and fades: what a series without seasons does.
fn fading(values: &[f32]) -> Vec<f32> {
    let latest = &values[values.len() - 6..];
    let mean = latest.iter().sum::<f32>() / latest.len() as f32;
    (0..24).map(|lead| mean * 0.97f32.powi(lead)).collect()
}

/// The same hour of a week before.
fn week_before(values: &[f32]) -> Vec<f32> {
    values[..24].to_vec()
}

const JUDGED_FROM: usize = 6 * 168;

/// Forecasts of the last weeks: the score, and how many were whose.
fn judge(demand: &mut Demand, trace: &Trace) -> (super::Score, [usize; 3], Option<Outlook>) {
    let (mut by, mut last) = ([0; 3], None);
    let score = run(demand, trace, JUDGED_FROM, |_, outlook| {
        match &outlook.by {
            Source::SeasonalNaive => by[0] += 1,
            Source::Model { .. } => by[1] += 1,
            Source::ModelOfRest { .. } => by[2] += 1,
        }
        last = Some(outlook.clone());
    });
    (score, by, last)
}

/// It knows no hours; of what the season leaves it knows that busy days stay busy. Its interval is none: the record
/// makes one.
#[test]
fn a_model_without_seasons_helps_once_the_season_is_taken_off() {
    let (mut with_model, mut without, mut held) = (0.0, 0.0, 0.0);
    let mut whose = [0; 3];
    for seed in 1..=4 {
        let trace = Trace::hours(seed, "2026-08-31", 89);
        without += judge(&mut hourly(None), &trace).0.loss() / 4.0;
        let (score, by, last) = judge(&mut with(|values| Ok(Quantiles::point(fading(values)))), &trace);
        whose = std::array::from_fn(|at| whose[at] + by[at]);
        with_model += score.loss() / 4.0;
        held += score.held() / 4.0;
        let last = last.unwrap();
        match last.why {
            Why::Better { loss, naive } => assert!(loss < naive && last.by != Source::SeasonalNaive),
            Why::NotBetter { loss, naive } => assert!(loss >= naive && last.by == Source::SeasonalNaive),
            other => panic!("{other}"),
        }
    }
    println!("with {with_model:.3}, without {without:.3}, held {held:.4}, by {whose:?}");
    assert!(with_model < 0.95 * without, "{with_model} {without}");
    assert!((0.955..=0.985).contains(&held), "{held}");
    assert!(whose[2] > 10 * whose[1] && whose[2] > 2 * whose[0], "{whose:?}");
}

#[test]
fn a_model_that_knows_less_than_the_season_is_not_used() {
    let trace = Trace::hours(3, "2026-08-31", 75);
    // On rates it is what persistence is; on the rest it adds noise that is not there.
    let (_, by, last) = judge(
        &mut with(|values| {
            let noise =
                values.iter().enumerate().map(|(at, value)| value * if at % 2 == 0 { 9.0 } else { -9.0 });
            Ok(Quantiles::point(noise.take(24).collect()))
        }),
        &trace,
    );
    assert_eq!(by[1..], [0, 0]);
    let last = last.unwrap();
    assert!(matches!(last.why, Why::NotBetter { loss, naive } if loss > naive), "{}", last.why);
    assert!(last.why.to_string().starts_with("the model's loss is "));
}

/// A tie is the season's: a rest of nothing is the very same forecast, with an interval made by the record alone.
#[test]
fn a_tie_goes_to_the_season() {
    let flat = vec![10.0; 80 * 24];
    let mut trace = Trace::hours(1, "2026-08-31", 80);
    trace.rates = flat;
    let (score, by, last) = judge(&mut with(|_| Ok(Quantiles::point(vec![0.0; 24]))), &trace);
    assert_eq!(by[1..], [0, 0], "{:?}", last.map(|last| last.why));
    assert!(score.loss() < 0.01, "{score:?}");
}

/// An interval of nothing, or of far too much, comes to hold as it should; the model must be good in its middle.
#[test]
fn a_wrong_interval_is_mended() {
    for width in [0.0, 0.05, 3.0] {
        let trace = Trace::hours(4, "2026-08-31", 110);
        let (score, by, _) = judge(
            &mut with(move |values| {
                let median = fading(values);
                let off = |by: f32| median.iter().map(|value| value + by).collect();
                Ok(Quantiles { lower: off(-width), upper: off(width), median: median.clone() })
            }),
            &trace,
        );
        println!("width {width}: held {:.4}, loss {:.3}, by {by:?}", score.held(), score.loss());
        assert!((0.955..=0.99).contains(&score.held()), "{width}: {}", score.held());
    }
}

/// The better model wins whichever way it is asked.
#[test]
fn a_model_of_rates_is_used_when_it_knows_them() {
    // Every week is like the last but for noise, and days within it are not alike: the season's days are.
    let mut trace = Trace::hours(1, "2026-06-01", 100);
    for (at, rate) in trace.rates.iter_mut().enumerate() {
        let day = at / 24 % 7;
        *rate = [5.0, 80.0, 5.0, 200.0, 30.0, 2.0, 2.0][day] * (1.0 + (at % 24) as f64 / 24.0);
    }
    let (score, by, last) = judge(&mut with(|values| Ok(Quantiles::point(week_before(values)))), &trace);
    println!("{score:?} {by:?} {:?}", last.as_ref().map(|last| &last.why));
    assert_eq!(by, [0, by[1], 0]);
    assert_eq!(last.unwrap().by.to_string(), "test");
}
