//! The door of the measured choice of kernels: an executor that measures the layers of plans, and says what is known of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::GpuExecutor;
use super::choices::{Choice, Question};
use super::stand::Stand;
use super::tuner::{self, Stand as _, Tally};
use super::variants::{Arithmetic, Layer};
use crate::{ExecuteError, Plan};

/// Which kernel takes a layer over so many lines, and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelChoice {
    /// Columns that the layer reads.
    pub in_width: usize,
    /// Columns that it writes.
    pub out_width: usize,
    /// Rows, times the places that the layer has in each: the largest number that shares this choice.
    pub lines: usize,
    /// What its kernel takes for granted: of `plain` layers the most, of `whole` ones less, of `general` ones nothing.
    pub kind: &'static str,
    /// How its matrix is multiplied: `single`, `half` or `matrices`.
    pub arithmetic: &'static str,
    /// Without a measurement.
    pub guess: &'static str,
    /// The one that is used.
    pub chosen: &'static str,
    /// Microseconds of a dispatch among others by each that was tried; empty: nothing was measured.
    pub micros: Vec<(&'static str, f64)>,
}

/// What became of the layers of some plans.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuned {
    /// Questions that were measured now,
    pub measured: usize,
    /// known before,
    pub known: usize,
    /// and left to the guess: no time, or nothing that can be run.
    pub left: usize,
    /// All of them, layer by layer, fewest lines first.
    pub choices: Vec<KernelChoice>,
}

impl KernelChoice {
    /// Microseconds of the guess over those of what is used; `None`: one of both was not measured.
    #[must_use]
    pub fn gain(&self) -> Option<f64> {
        let of =
            |wanted: &str| self.micros.iter().find(|(name, _)| *name == wanted).map(|(_, micros)| *micros);
        Some(of(self.guess)? / of(self.chosen)?)
    }
}

impl GpuExecutor {
    /// Measures which kernel is the fastest for each layer of some plans, over each number of rows that a batch may have, and uses and
    /// keeps what it finds. What is known is not measured again. Answers keep their bits. Ends with the question that is
    /// under way when `budget` is spent; the device should have nothing else to do.
    ///
    /// # Errors
    /// [`ExecuteError`] of the device. What was measured before is kept.
    pub fn tune(&mut self, plans: &[Arc<Plan>], budget: Duration) -> Result<Tuned, ExecuteError> {
        let began = Instant::now();
        let device = self.device.clone();
        let mut tuned = Tuned::default();
        let mut seen = HashSet::new();
        // A software device has no clock that would have to be brought up.
        let mut warm = self.device.is_software();
        for plan in plans {
            device.guard(|| self.kernels.prepare(&device, plan))?;
            let arithmetic = self.kernels.arithmetic(plan.precision);
            for layer in Layer::all(plan).filter(|layer| seen.insert(Question::of(*layer, 1, arithmetic))) {
                let left = budget.saturating_sub(began.elapsed());
                let tally = device.guard(|| self.tune_layer(plan, layer, arithmetic, left, &mut warm))?;
                tuned.add(tally);
                let questions = tuner::questions(layer, arithmetic);
                tuned.choices.extend(questions.map(|question| self.choice(&question)));
            }
        }
        Ok(tuned)
    }

    fn tune_layer(
        &mut self,
        plan: &Plan,
        layer: Layer<'_>,
        arithmetic: Arithmetic,
        budget: Duration,
        warm: &mut bool,
    ) -> Result<Tally, ExecuteError> {
        let mut choices = self.kernels.choices.clone();
        let mut stand = Stand::new(&self.device, &self.kernels, plan, self.timeout, *warm)?;
        let until = stand.now() + budget;
        let is_known = |question: Question| choices.get(&question).is_some();
        if !budget.is_zero() && !tuner::questions(layer, arithmetic).all(is_known) {
            stand.make_ready(layer)?;
        }
        let tally = tuner::tune(&mut choices, layer, arithmetic, &mut stand, until);
        *warm |= stand.is_warm();
        drop(stand);
        // What was measured before something broke as well.
        if choices != self.kernels.choices {
            self.device.compiler.keep_choices(&choices);
            self.kernels.choices = choices;
        }
        self.device.sweep();
        tally
    }

    fn choice(&self, question: &Question) -> KernelChoice {
        let Question { in_width, out_width, kind, arithmetic, lines } = *question;
        let known = self.kernels.choices.get(question);
        let guess = question.guess();
        let nanos = known.into_iter().flat_map(Choice::nanos);
        KernelChoice {
            in_width,
            out_width,
            lines,
            kind: kind.name(),
            arithmetic: arithmetic.name(),
            guess: guess.name(),
            chosen: known.map_or(guess, Choice::variant).name(),
            micros: nanos.map(|(variant, nanos)| (variant.name(), *nanos as f64 / 1e3)).collect(),
        }
    }
}

impl Tuned {
    fn add(&mut self, tally: Tally) {
        self.measured += tally.measured;
        self.known += tally.known;
        self.left += tally.left;
    }
}
