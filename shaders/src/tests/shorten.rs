//! Plans whose chain of layers is made shorter compute what they have computed before.

use super::{Case, oracle};
use crate::Command;

/// Products of matrices are rounded to f32 where the matrices were: relative to the largest output.
const ERROR_MAX: f64 = 1e-6;

/// Lengths of the chain before and after, and by which part of a hundred the weights grow.
#[track_caller]
fn check(case: &Case, [before, after]: [usize; 2], growth_percent: usize) {
    let shorter = case.plan.shortened().unwrap_or_else(|| panic!("{} can be shorter", case.name));
    assert_eq!([case.plan.chain_len(), shorter.chain_len()], [before, after], "{}", case.name);
    let grown = (shorter.row_macs() * 100).saturating_sub(case.plan.row_macs() * 100) / case.plan.row_macs();
    assert_eq!(grown, growth_percent, "{}", case.name);
    // A column that was read before it was written would have made it panic.
    let expected = oracle(&case.plan, case.rows, &case.input_slices());
    let actual = oracle(&shorter, case.rows, &case.input_slices());
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    for (actual, expected) in actual.iter().zip(&expected) {
        let error = (actual - expected).abs() / largest;
        assert!(error <= ERROR_MAX, "{}: {actual} where {expected} is right", case.name);
    }
}

fn layers(plan: &crate::Plan) -> usize {
    plan.commands.iter().filter(|command| matches!(command, Command::Linear(_))).count()
}

#[test]
fn a_backcast_that_one_unpooled_stack_reads_vanishes() {
    // As examples measure it.
    check(&Case::complete_stacks(&[2, 2, 1], [512, 512, 96], None, 1), [9, 8], 0);
    check(&Case::complete_stacks(&[3, 2, 1], [41, 24, 7], None, 5), [9, 8], 0);
}

#[test]
fn all_backcasts_of_unpooled_stacks_vanish() {
    let case = Case::complete_stacks(&[1, 1, 1], [64, 64, 24], None, 4);
    check(&case, [9, 7], 10);
    assert_eq!(layers(&case.plan) - layers(&case.plan.shortened().unwrap()), 2);
}

#[test]
fn a_basis_vanishes_with_the_backcast_that_it_makes() {
    check(&Case::complete_stacks(&[1, 1, 1], [48, 32, 12], Some(4), 4), [12, 8], 15);
}

#[test]
fn weights_grow_by_a_quarter_at_most() {
    let case = Case::complete_stacks(&[1; 9], [32, 32, 8], None, 2);
    let shorter = case.plan.shortened().unwrap();
    assert!(shorter.row_macs() <= case.plan.row_macs() * 5 / 4, "{}", shorter.row_macs());
    assert!(shorter.chain_len() < case.plan.chain_len());
}

#[test]
fn what_something_else_reads_stays() {
    // Masked, or with an activation; pooled, at once or behind the next stack; nothing between the layers.
    for case in [
        Case::complete_stacks(&[1, 2, 1, 2], [40, 24, 7], None, 3),
        Case::stacks(2),
        Case::nhits(2),
        Case::complete_stacks(&[1, 2, 2], [40, 24, 7], None, 2),
        Case::complete_stacks(&[1], [40, 24, 7], None, 2),
    ] {
        assert!(case.plan.shortened().is_none(), "{}", case.name);
    }
}
