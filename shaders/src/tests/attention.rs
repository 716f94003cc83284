//! `attention`: oracle ≈ CPU ≈ GPU over heads, steps and widths, with and without scores handed on.

use super::{Case, Tolerance, check};
use crate::{Attention, Move, PlanBuilder};

/// Scores of up to 40 products, an exponential within 3 + 2 |x| ulp at |x| ≤ 40, a mean of numbers below 1.
const TOLERANCE: Tolerance = Tolerance { abs: 1e-5, rel: 4e-6 };

#[test]
fn every_shape_is_right() {
    for (heads, steps, width) in [(1, 1, 1), (1, 5, 3), (4, 17, 8), (2, 70, 5), (3, 9, 40)] {
        for hands_on in [false, true] {
            for rows in [1, 3, 20] {
                check(&case(heads, steps, width, hands_on, rows), TOLERANCE);
            }
        }
    }
}

/// Two attentions on the same input, the second with the scores of the first; then the scores beside the result.
fn case(heads: usize, steps: usize, width: usize, hands_on: bool, rows: usize) -> Case {
    let model = heads * width;
    let mut plan = PlanBuilder::new(&format!("attention {heads}×{steps}×{width} hands on {hands_on}"));
    let qkv = plan.input(steps * 3 * model + 2).slice(1, steps * 3 * model);
    let scores = [plan.buffer(heads * steps * steps), plan.buffer(heads * steps * steps)];
    let results = [plan.buffer(steps * model), plan.buffer(steps * model)];
    for (index, (scores_now, dst)) in scores.into_iter().zip(results).enumerate() {
        let previous = (hands_on && index == 1).then_some(scores[0]);
        plan.attention(Attention { qkv, previous, scores: scores_now, dst, heads, steps });
    }
    let out = plan.buffer(scores[1].width + results[1].width);
    plan.move_columns(Move::copy(results[1], out.slice(0, results[1].width)));
    plan.move_columns(Move::copy(scores[1], out.slice(results[1].width, scores[1].width)));
    Case::of(plan.finish(out), rows)
}
