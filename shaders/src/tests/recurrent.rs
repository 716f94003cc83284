//! `recurrent`: oracle ≈ CPU ≈ GPU over cells, widths, projections and resumed states.

use super::cases::weights;
use super::{Case, Tolerance, check, gpu};
use crate::{Cell, ExecuteError, Move, PlanBuilder, Recurrent};

/// Up to 40 steps, each with sums of up to 130 numbers below 1 and four activations; the gates forget what came long
/// before, so errors do not pile up.
const TOLERANCE: Tolerance = Tolerance { abs: 3e-5, rel: 1e-5 };

#[test]
fn every_cell_is_right() {
    for cell in [Cell::Lstm, Cell::Gru] {
        for (units, steps) in [(1, 1), (5, 3), (48, 40), (130, 9)] {
            for rows in [1, 7, 13] {
                check(&case(cell, units, None, steps, rows), TOLERANCE);
            }
        }
    }
}

#[test]
fn a_long_layer_is_right() {
    // Nearly as many steps as llvmpipe makes: its loops end by themselves after 819.
    check(&case(Cell::Lstm, 129, None, 730, 1), TOLERANCE);
}

#[test]
fn a_layer_that_a_software_device_would_not_end_is_refused() {
    let case = case(Cell::Gru, 129, None, 1300, 1);
    let refused = gpu::with_shared(|shared| gpu::run(shared, &case));
    assert!(
        matches!(&refused, Err(ExecuteError::Unfit(why)) if why.contains("software device")),
        "{refused:?}"
    );
}

#[test]
fn a_projected_state_is_right() {
    for (units, out) in [(5, 1), (48, 5), (7, 7), (3, 9)] {
        check(&case(Cell::Lstm, units, Some(out), 12, 3), TOLERANCE);
    }
}

#[test]
fn a_batch_of_many_rows_is_right() {
    check(&case(Cell::Lstm, 16, None, 5, 200), TOLERANCE);
    check(&case(Cell::Gru, 16, None, 5, 200), TOLERANCE);
    // As many as take larger workgroups, the last of them not full; one layer is too wide for those.
    for rows in [265, 2115] {
        check(&case(Cell::Lstm, 5, Some(3), 3, rows), TOLERANCE);
        check(&case(Cell::Gru, 7, None, 3, rows), TOLERANCE);
    }
    check(&case(Cell::Lstm, 130, None, 2, 267), TOLERANCE);
}

/// All steps but the last at once, the last one resumed; the result is all outputs and the state.
fn case(cell: Cell, units: usize, projection: Option<usize>, steps: usize, rows: usize) -> Case {
    let (out, width) = (projection.unwrap_or(units), units * cell.gates());
    let mut plan = PlanBuilder::new(&format!("{cell:?} {units} units to {out}, {steps} steps"));
    let gates = plan.input((steps + 1) * width + 1).slice(1, (steps + 1) * width);
    let state = plan.buffer(if cell == Cell::Lstm { out + units } else { out });
    let outputs = plan.buffer((steps + 1) * out);
    let recurrent = weights(units as u64 + 7, out, width);
    let projection = projection.map(|out| weights(units as u64 + 8, units, out));
    for (first, steps, resumes) in [(0, steps, false), (steps, 1, true)] {
        plan.recurrent(Recurrent {
            cell,
            steps,
            gates: gates.slice(first * width, steps * width),
            recurrent: recurrent.clone(),
            projection: projection.clone(),
            state,
            resumes,
            dst: outputs.slice(first * out, steps * out),
        });
    }
    let all = plan.buffer(outputs.width + state.width);
    plan.move_columns(Move::copy(outputs, all.slice(0, outputs.width)));
    plan.move_columns(Move::copy(state, all.slice(outputs.width, state.width)));
    Case::of(plan.finish(all), rows)
}
