//! One forecaster's record: what it has said of cells that are not over yet, how it fared, and how its interval is
//! mended by that.
//!
//! The interval follows the truth by a step each time (adaptive conformal prediction in the form of quantile tracking:
//! online gradient descent on the pinball loss). A bound that was broken moves out by much, one that held moves in by
//! little, so that in the long run it is broken as often as it should be, whatever the forecaster says and however
//! demand changes.

use std::collections::VecDeque;

use super::history::{Cell, RATE_MAX};
use super::model::{Band, Failure};

/// A broken bound moves by this share of the usual error.
const GAIN: f64 = 0.25;
/// What a new error counts for in the usual one.
const ERROR_SHARE: f64 = 0.03;
/// The usual error is no less, in `ln(1 + rate)`.
const ERROR_MIN: f64 = 1e-3;
/// No bound is moved further out than so many usual errors.
const SHIFT_MAX_ERRORS: f64 = 10.0;
/// No bound is moved further, and no error counts for more.
const SHIFT_MAX: f64 = 5.0;

/// How the bounds of one lead are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Shift {
    up: f64,
    down: f64,
    /// Mean absolute error of the median.
    error: Option<f64>,
}

impl Shift {
    fn mended(&self, band: Band) -> Band {
        Band { lower: band.lower - self.down, median: band.median, upper: band.upper + self.up }.ordered()
    }

    /// `share` is how often each bound may be broken; whether it was is asked of what was given out.
    fn learn(&mut self, said: Band, given: Band, truth: f64, share: f64) {
        let error = (truth - said.median).abs().min(SHIFT_MAX);
        let usual = self.error.map_or(error, |usual| usual + ERROR_SHARE * (error - usual)).max(ERROR_MIN);
        self.error = Some(usual);
        // What was moved far in wild times comes back as soon as errors are small again.
        let furthest = (SHIFT_MAX_ERRORS * usual).min(SHIFT_MAX);
        let moved = |shift: f64, broken: bool, short: f64, width: f64| {
            let shift = if broken {
                // A bound that lies on the median moves from there. Forecasts of a day break all at once; together they
                // move no further than what would have held well.
                let from = shift.max(-width);
                (from + GAIN * (1.0 - share) * usual).min(from.max(short + usual))
            } else {
                shift - GAIN * share * usual
            };
            shift.clamp(-SHIFT_MAX, furthest)
        };
        let (above, below) = (said.upper - said.median, said.median - said.lower);
        self.up = moved(self.up, truth > given.upper, truth - said.upper, above);
        self.down = moved(self.down, truth < given.lower, said.lower - truth, below);
    }
}

/// A forecast that was made.
#[derive(Clone, Debug)]
struct Made {
    origin: Cell,
    /// As the forecaster said it, and as it was given out.
    said: Vec<Band>,
    given: Vec<Band>,
}

/// How the forecasts of one cell fared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// Pinball loss of the upper bound in requests per second, by the origin of the forecast.
    pub(super) losses: Vec<(Cell, f64)>,
    held: usize,
}

/// The record of one forecaster.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Quantile of the upper bound.
    upper: f64,
    /// By lead.
    shifts: Vec<Shift>,
    made: VecDeque<Made>,
    /// Of each step: bounds that held, and all of them.
    held: VecDeque<(usize, usize)>,
    /// Of each step: its loss and that of the one that it is compared to.
    races: VecDeque<(f64, f64)>,
    /// Steps that both go back.
    steps_max: usize,
    failure: Option<Failure>,
}

impl Record {
    pub(super) fn new(upper: f64, horizon: usize, steps_max: usize) -> Self {
        Self {
            upper,
            steps_max,
            shifts: vec![Shift::default(); horizon],
            made: VecDeque::with_capacity(horizon),
            held: VecDeque::new(),
            races: VecDeque::new(),
            failure: None,
        }
    }

    /// Takes what was said at `origin`, or why nothing was.
    pub(super) fn take(&mut self, origin: Cell, said: Result<Vec<Band>, Failure>) {
        match said {
            Ok(said) => {
                let given = said.iter().zip(&self.shifts).map(|(band, shift)| shift.mended(*band)).collect();
                self.failure = None;
                self.made.push_back(Made { origin, said, given });
            }
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// Looks at what was said of a cell that is over. Nothing is learned from one that was not measured.
    pub(super) fn settle(&mut self, cell: Cell, truth: Option<f64>) -> Verdict {
        let mut verdict = Verdict::default();
        for made in &self.made {
            let at = usize::try_from(cell - made.origin - 1).ok();
            let (Some(truth), Some(at)) = (truth, at.filter(|at| *at < made.said.len())) else { continue };
            self.shifts[at].learn(made.said[at], made.given[at], truth, 1.0 - self.upper);
            let upper = made.given[at].upper;
            verdict.held += usize::from(truth <= upper);
            verdict.losses.push((made.origin, pinball(self.upper, rate(truth) - rate(upper))));
        }
        self.made.retain(|made| made.origin + (made.said.len() as i64) > cell);
        if !verdict.losses.is_empty() {
            push(&mut self.held, (verdict.held, verdict.losses.len()), self.steps_max);
        }
        verdict
    }

    /// Compares this one's verdict of a cell with another's, forecast by forecast.
    pub(super) fn race(&mut self, ours: &Verdict, theirs: &Verdict) {
        let (mut our_loss, mut their_loss, mut count) = (0.0, 0.0, 0u32);
        for (origin, loss) in &ours.losses {
            if let Some((_, other)) = theirs.losses.iter().find(|(other, _)| other == origin) {
                (our_loss, their_loss, count) = (our_loss + loss, their_loss + other, count + 1);
            }
        }
        if count > 0 {
            let mean = |loss: f64| loss / f64::from(count);
            push(&mut self.races, (mean(our_loss), mean(their_loss)), self.steps_max);
        }
    }

    /// Steps that it was compared in, its mean loss in them, and that of the other.
    pub(super) fn races(&self) -> (usize, f64, f64) {
        let count = self.races.len();
        let (ours, theirs) = self.races.iter().fold((0.0, 0.0), |sum, race| (sum.0 + race.0, sum.1 + race.1));
        let mean = |sum: f64| if count == 0 { 0.0 } else { sum / count as f64 };
        (count, mean(ours), mean(theirs))
    }

    /// What was given out at `origin`.
    pub(super) fn given(&self, origin: Cell) -> Option<&[Band]> {
        self.made.back().filter(|made| made.origin == origin).map(|made| made.given.as_slice())
    }

    /// Upper bounds that held of late, and all of them.
    pub(super) fn held(&self) -> (usize, usize) {
        self.held.iter().fold((0, 0), |sum, step| (sum.0 + step.0, sum.1 + step.1))
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

fn push<T>(steps: &mut VecDeque<T>, step: T, steps_max: usize) {
    if steps.len() == steps_max {
        steps.pop_front();
    }
    steps.push_back(step);
}

/// Requests per second; never below none.
pub(super) fn rate(value: f64) -> f64 {
    value.exp_m1().clamp(0.0, RATE_MAX)
}

/// Loss of a quantile forecast: `level` of its distance where the truth lies above it, `1 − level` where below. Lowest,
/// on average, at the true quantile.
pub(super) fn pinball(level: f64, above: f64) -> f64 {
    (level * above).max((level - 1.0) * above)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// Says `band` of a uniform truth at every step; how often the upper bound held once it had learned.
    fn held(band: Band, spread: f64) -> f64 {
        let mut rng = StdRng::seed_from_u64(3);
        let mut record = Record::new(0.9, 1, 336);
        for cell in 0..5000 {
            record.take(cell - 1, Ok(vec![band]));
            record.settle(cell, Some(rng.random_range(0.0..spread)));
            if cell == 4000 {
                record.held.clear();
            }
        }
        let (held, all) = record.held();
        assert_eq!(all, 336);
        held as f64 / all as f64
    }

    /// Whatever it was to begin with, the bound comes to hold nine times of ten; the slack is 4 deviations of 336 draws.
    #[test]
    fn an_interval_is_mended_in_both_directions() {
        for upper in [0.0, 0.5, 0.9, 2.0] {
            let held = held(Band { lower: 0.0, median: 0.0, upper }, 1.0);
            assert!((held - 0.9).abs() < 0.066, "{upper}: {held}");
        }
    }

    #[test]
    fn a_bound_never_crosses_the_median() {
        let band = Band { lower: -1.0, median: 0.0, upper: 1.0 };
        let mut shift = Shift::default();
        for _ in 0..10_000 {
            shift.learn(band, shift.mended(band), 0.0, 0.1);
        }
        let mended = shift.mended(band);
        assert_eq!(mended.median, 0.0);
        assert!(mended.lower <= 0.0 && 0.0 <= mended.upper && mended.upper < 1.0, "{mended:?}");
    }

    /// A day of absurd forecasts is forgotten within weeks, not within years.
    #[test]
    fn an_interval_survives_an_absurd_forecaster() {
        let mut record = Record::new(0.975, 1, 336);
        let said = |cell: i64| {
            let absurd = (500..524).contains(&cell);
            let median = if absurd { f64::from(f32::MAX) } else { 3.0 };
            Band { lower: median - 0.2, median, upper: median + 0.2 }
        };
        for cell in 0..524 + 21 * 24 {
            record.take(cell - 1, Ok(vec![said(cell)]));
            record.settle(cell, Some(3.0));
        }
        assert!(record.shifts[0].down < 0.2, "{:?}", record.shifts);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        let mut record = Record::new(0.9, 2, 336);
        let band = Band { lower: 0.0, median: 1.0, upper: 2.0 };
        record.take(0, Ok(vec![band; 2]));
        assert_eq!(record.settle(1, None), Verdict::default());
        assert_eq!((record.held(), record.races().0), ((0, 0), 0));
        assert_eq!(record.settle(2, Some(1.0)).losses.len(), 1);
        assert!(record.made.is_empty());
    }

    #[test]
    fn only_forecasts_of_both_are_compared() {
        let mut record = Record::new(0.9, 2, 336);
        let ours = Verdict { losses: vec![(1, 10.0), (2, 1.0)], held: 2 };
        let theirs = Verdict { losses: vec![(2, 3.0), (3, 20.0)], held: 2 };
        record.race(&ours, &theirs);
        assert_eq!(record.races(), (1, 1.0, 3.0));
        record.race(&ours, &Verdict::default());
        assert_eq!(record.races(), (1, 1.0, 3.0));
    }

    #[test]
    fn the_loss_of_a_high_quantile_is_that_of_being_too_low() {
        assert_eq!(pinball(0.9, 10.0), 9.0);
        assert!((pinball(0.9, -10.0) - 1.0).abs() < 1e-12);
    }
}
