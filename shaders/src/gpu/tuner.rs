//! Measures the variants of layers within a budget. Whatever is known is not measured again.
//!
//! Knows no device: who measures, and whose clock it is, comes in.

use std::time::Duration;

use super::choices::{Choice, Choices, Question, class};
use super::layout::CHUNK_ROWS_MAX;
use super::variants::{Arithmetic, Layer, Variant};
use crate::ExecuteError;

/// What one layer may take for all numbers of lines: the smaller ones are measured first, the others keep the guess.
const LAYER_BUDGET: Duration = Duration::from_secs(2);
/// How much longer the next class of lines takes at most than the one before.
const GROWTH: u32 = 2;

/// What measures.
pub(super) trait Stand {
    /// Since any moment that stays the same.
    fn now(&self) -> Duration;

    /// Nanoseconds of one dispatch among others of a layer over so many lines, by each of the candidates that can be run.
    fn measure(
        &mut self,
        layer: Layer<'_>,
        lines: usize,
        candidates: &[Variant],
    ) -> Result<Vec<(Variant, u64)>, ExecuteError>;
}

/// What became of the questions of some layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Measured now.
    pub(super) measured: usize,
    /// Known before.
    pub(super) known: usize,
    /// Left to the guess: no time, or nothing that can be run.
    pub(super) left: usize,
}

/// The questions of a layer, fewest lines first.
pub(super) fn questions(layer: Layer<'_>, arithmetic: Arithmetic) -> impl Iterator<Item = Question> {
    let count = layer.lines(1);
    let asked = Question::of(layer, 1, arithmetic);
    let lines = std::iter::successors(Some(class(count)), |lines| Some(class(lines + 1)));
    let last = class(count * CHUNK_ROWS_MAX);
    lines.take_while(move |lines| *lines <= last).map(move |lines| Question { lines, ..asked })
}

/// Measures what is not known of a layer, until `until` at most but for the question that is under way.
pub(super) fn tune(
    choices: &mut Choices,
    layer: Layer<'_>,
    arithmetic: Arithmetic,
    stand: &mut impl Stand,
    until: Duration,
) -> Result<Tally, ExecuteError> {
    let began = stand.now();
    let mut candidates: Vec<Variant> = Variant::distinct(arithmetic).collect();
    let mut tally = Tally::default();
    let mut last = Duration::ZERO;
    let mut behind = Vec::new();
    for question in questions(layer, arithmetic) {
        if choices.get(&question).is_some() {
            tally.known += 1;
        } else {
            let now = stand.now();
            let spent = now.saturating_sub(began);
            if now >= until || spent + last * GROWTH > LAYER_BUDGET {
                tally.left += 1;
                continue;
            }
            let guess = question.guess();
            let same_bits = |variant: &Variant| variant.rounds(arithmetic) == guess.rounds(arithmetic);
            // The guess always: what is gained over it is to be known.
            let is_tried = |variant: &Variant| candidates.contains(variant) || *variant == guess;
            let all = Variant::distinct(arithmetic);
            let tried: Vec<Variant> = all.filter(same_bits).filter(is_tried).collect();
            let nanos = stand.measure(layer, question.lines, &tried)?;
            last = stand.now().saturating_sub(now);
            match Choice::decide(guess, nanos) {
                Some(choice) => {
                    choices.insert(question, choice);
                    tally.measured += 1;
                }
                None => tally.left += 1,
            }
        }
        if let Some(choice) = choices.get(&question) {
            let left_behind: Vec<Variant> =
                Variant::ALL.into_iter().filter(|v| choice.leaves_behind(*v)).collect();
            // Twice in a row: once may have been something else that the device had to do.
            candidates.retain(|variant| !(behind.contains(variant) && left_behind.contains(variant)));
            behind = left_behind;
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpu::variants::Kind;
    use crate::{Activation, Linear, PlanBuilder, Repeat, Weights};
    use Variant::{Each, LargeTile, Line, Lines, PairedTile, SmallTile};

    /// Takes so long for each question, and finds the variants in an order that a test has.
    struct Fake<'a> {
        now: Duration,
        each: Duration,
        nanos: &'a dyn Fn(usize, Variant) -> u64,
        asked: Vec<(usize, Vec<Variant>)>,
    }

    impl Stand for Fake<'_> {
        fn now(&self) -> Duration {
            self.now
        }

        fn measure(
            &mut self,
            _: Layer<'_>,
            lines: usize,
            candidates: &[Variant],
        ) -> Result<Vec<(Variant, u64)>, ExecuteError> {
            self.now += self.each;
            self.asked.push((lines, candidates.to_vec()));
            Ok(candidates.iter().map(|variant| (*variant, (self.nanos)(lines, *variant))).collect())
        }
    }

    fn layer(count: usize) -> Linear {
        let mut plan = PlanBuilder::new("a layer");
        let weights = Weights::new(64, 32, &[0.0; 64 * 32], vec![0.0; 64]);
        let (src, dst) = (plan.input(32 * count), plan.buffer(64 * count));
        let repeat = Repeat { count, src_step: 32, dst_step: 64 };
        Linear { repeat, ..Linear::plain(src, dst, Arc::new(weights), Activation::Relu) }
    }

    fn plain(linear: &Linear) -> Layer<'_> {
        Layer { linear, kind: Kind::Plain, even: true }
    }

    fn fake<'a>(each_ms: u64, nanos: &'a dyn Fn(usize, Variant) -> u64) -> Fake<'a> {
        Fake { now: Duration::ZERO, each: Duration::from_millis(each_ms), nanos, asked: Vec::new() }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_is_known_is_not_measured_again() {
        let mut choices = Choices::default();
        let tune = |choices: &mut Choices| {
            let mut stand = fake(1, &|lines, variant| (lines * 10 + variant as usize) as u64);
            let tally =
                tune(choices, plain(&layer(1)), Arithmetic::Single, &mut stand, HOUR).expect("it measures");
            (tally, stand.asked.len())
        };
        let all = questions(plain(&layer(1)), Arithmetic::Single).count();
        assert_eq!(all, 24, "1, 2, 3, 4, 6, … 4,096");
        assert_eq!(tune(&mut choices), (Tally { measured: all, known: 0, left: 0 }, all));
        let kept = choices.clone();
        assert_eq!(tune(&mut choices), (Tally { measured: 0, known: all, left: 0 }, 0));
        assert_eq!(choices, kept);
    }

    #[test]
    fn a_budget_ends_with_the_question_under_way() {
        let mut choices = Choices::default();
        let mut stand = fake(10, &|_, _| 1);
        let until = Duration::from_millis(35);
        let tally =
            tune(&mut choices, plain(&layer(1)), Arithmetic::Single, &mut stand, until).expect("it measures");
        assert_eq!((tally.measured, tally.left, stand.now), (4, 20, Duration::from_millis(40)));
        let mut stand = fake(10, &|_, _| 1);
        let tally =
            tune(&mut choices, plain(&layer(1)), Arithmetic::Single, &mut stand, until).expect("it measures");
        assert_eq!((tally.known, tally.measured, stand.asked[0].0), (4, 4, 6), "the next start goes on");
    }

    #[test]
    fn a_layer_has_a_budget_of_its_own() {
        let mut choices = Choices::default();
        let mut stand = fake(300, &|_, _| 1);
        let tally =
            tune(&mut choices, plain(&layer(1)), Arithmetic::Single, &mut stand, HOUR).expect("it measures");
        // After five the next might take 600 ms, which two seconds have no room for.
        assert_eq!((tally.measured, stand.now), (5, Duration::from_millis(1500)));
        assert!(stand.now <= LAYER_BUDGET);
    }

    #[test]
    fn variants_that_fell_behind_are_not_tried_with_more_lines() {
        let mut stand = fake(0, &|lines, variant| match variant {
            Line => lines as u64,
            _ => 3,
        });
        tune(&mut Choices::default(), plain(&layer(1)), Arithmetic::Single, &mut stand, HOUR)
            .expect("it measures");
        let with_line = stand.asked.iter().filter(|(_, tried)| tried.contains(&Line)).count();
        assert_eq!(with_line, 6, "up to eight lines: it takes twice as long with six, and again");
        assert!(stand.asked.iter().all(|(_, tried)| tried.len() >= 5));
    }

    #[test]
    fn products_of_halves_compete_among_themselves() {
        let mut choices = Choices::default();
        let matrices = Arithmetic::Matrices { lanes: 32 };
        let mut stand = fake(0, &|_, variant| 10 - variant as u64);
        tune(&mut choices, plain(&layer(1)), matrices, &mut stand, HOUR).expect("it measures");
        for (lines, tried) in &stand.asked {
            let expected: &[Variant] = match *lines {
                0..=2 => &[Line, Lines, Each],
                // One line a workgroup has fallen behind.
                3..=64 => &[Lines, Each],
                _ => &[SmallTile, LargeTile],
            };
            assert_eq!(tried, expected, "{lines} lines");
        }
        let first = |rows| choices.of(plain(&layer(1)), rows, matrices).next();
        assert_eq!([1, 64, 65, 4096].map(first), [Each, Each, LargeTile, LargeTile].map(Some));
    }

    #[test]
    fn a_choice_holds_for_its_class_of_lines_and_the_guess_elsewhere() {
        let mut choices = Choices::default();
        let single = Arithmetic::Single;
        let layer = layer(4);
        let guess = Variant::guess([32, 64], 400, single);
        assert_eq!(guess, PairedTile);
        let choice =
            Choice::decide(guess, vec![(LargeTile, 1), (guess, 2), (SmallTile, 3)]).expect("measured");
        choices.insert(Question { lines: 512, ..Question::of(plain(&layer), 1, single) }, choice);
        let order = |rows| choices.of(plain(&layer), rows, single).take(3).collect::<Vec<_>>();
        assert_eq!(order(97), [LargeTile, PairedTile, SmallTile]);
        assert_eq!(order(128), [LargeTile, PairedTile, SmallTile]);
        assert_eq!(order(96)[0], PairedTile);
        assert_eq!(order(129)[0], PairedTile);
    }
}
