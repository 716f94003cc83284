//! Whole windows through recurrent layers that stay, by one workgroup, which a software adapter runs as well;
//! `examples/sliding.rs` has many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::weights;
use super::resident::{for_ever, open, open_solo, until};
use super::sliding::stack;
use super::{Case, alone, oracle};
use crate::gpu::GpuExecutor;
use crate::{
    Activation, Cell, Executor, Linear, Move, NotServed, Plan, PlanBuilder, Recurrent, Repeat, ResidentPlan,
    View,
};

/// Sums of up to 30 numbers below 1 over some steps that forget.
const ERROR_MAX: f64 = 1e-5;
/// Rows that take turns, so that no answer can be that of the request before.
const ROWS: usize = 5;

struct Asked {
    case: Case,
    expected: Vec<f64>,
    resident: Arc<dyn ResidentPlan>,
    turn: usize,
}

impl Asked {
    fn new(executor: &mut GpuExecutor, plan: Plan) -> Self {
        let case = Case::of(plan, ROWS);
        let expected = oracle(&case.plan, ROWS, &case.input_slices());
        let resident = executor
            .reside(&case.plan, for_ever(4))
            .unwrap_or_else(|error| panic!("{} does not stay: {error}", case.name));
        assert_eq!(resident.rows_max(), 1, "a window at a time");
        Self { case, expected, resident, turn: 0 }
    }

    /// One window more, which is answered rightly.
    #[track_caller]
    fn ask(&mut self) {
        self.try_ask().unwrap_or_else(|why| panic!("{}, request {}: {why}", self.case.name, self.turn));
    }

    #[track_caller]
    fn try_ask(&mut self) -> Result<(), NotServed> {
        let row = self.case.some_rows(self.turn % ROWS, 1);
        let width = row.plan.width(row.plan.output);
        let mut actual = vec![f32::NAN; width];
        self.resident.run(1, &row.input_slices(), &mut actual)?;
        let expected = &self.expected[self.turn % ROWS * width..][..width];
        for (actual, expected) in actual.iter().zip(expected) {
            let error = (f64::from(*actual) - expected).abs();
            assert!(
                error <= ERROR_MAX,
                "{}, request {}: {actual} where {expected} is right",
                row.name,
                self.turn
            );
        }
        self.turn += 1;
        Ok(())
    }
}

/// A recurrent layer over all steps of `src`.
fn recurrent(plan: &mut PlanBuilder, cell: Cell, src: View, steps: usize, units: usize, seed: u64) -> View {
    let (in_width, width) = (src.width / steps, units * cell.gates());
    let gates = plan.buffer(steps * width);
    let state = plan.buffer(if cell == Cell::Lstm { 2 * units } else { units });
    let dst = plan.buffer(steps * units);
    let repeat = Repeat { count: steps, src_step: in_width, dst_step: width };
    let input = weights(seed, in_width, width);
    plan.linear(Linear { repeat, ..Linear::plain(src, gates, input, Activation::Identity) });
    let recurrent = weights(seed + 1, units, width);
    plan.recurrent(Recurrent { cell, steps, gates, recurrent, projection: None, state, resumes: false, dst });
    dst
}

/// As forecasters record them: steps woven of two inputs, two cells, a decoder on the last `ahead` steps, and all of that
/// mixed along time.
pub(crate) fn forecast(steps: usize, ahead: usize, units: usize, cells: [Cell; 2]) -> Plan {
    let mut plan = PlanBuilder::new(&format!("{cells:?}, {steps} steps, {ahead} ahead, {units} units"));
    let (y, beside) = (plan.input(steps), plan.input(3 + steps));
    let woven = plan.buffer(3 * steps);
    for (first, src, start, step) in [(0, y, 0, 1), (1, beside, 3, 1), (2, beside, 1, 0)] {
        plan.move_columns(Move {
            src,
            dst: woven.slice(first, woven.width - first),
            counts: [steps, 1],
            start,
            src_steps: [step, 1],
            dst_steps: [3, 1],
        });
    }
    let below = recurrent(&mut plan, cells[0], woven, steps, units, 5);
    let top = recurrent(&mut plan, cells[1], below, steps, units + 3, 7);
    let wide = top.width / steps;
    let last = top.slice((steps - ahead) * wide, ahead * wide);
    let hidden = plan.buffer(ahead * 10);
    let decoder = Linear::plain(last, hidden, weights(11, wide, 10), Activation::Relu);
    plan.linear(Linear { repeat: Repeat { count: ahead, src_step: wide, dst_step: 10 }, ..decoder });
    let by_channel = plan.buffer(10 * ahead);
    plan.move_columns(Move::transpose(hidden, by_channel, 10));
    let mixed = plan.buffer(10 * 2 * ahead);
    let mixer = Linear::plain(by_channel, mixed, weights(13, ahead, 2 * ahead), Activation::Tanh);
    plan.linear(Linear { repeat: Repeat { count: 10, src_step: ahead, dst_step: 2 * ahead }, ..mixer });
    let output = plan.buffer(10 * 2);
    let head = Linear::plain(mixed, output, weights(17, 2 * ahead, 2), Activation::Softplus);
    plan.linear(Linear { repeat: Repeat { count: 10, src_step: 2 * ahead, dst_step: 2 }, ..head });
    plan.finish(output)
}

#[test]
fn every_window_has_its_forecast() {
    let _alone = alone();
    for cell in [Cell::Lstm, Cell::Gru] {
        for (layers, steps, in_width, units, outputs) in
            [(1, 2, 3, 4, 1), (2, 17, 5, 12, 1), (3, 9, 30, 16, 3), (2, 8, 7, 1, 2), (2, 20, 1, 64, 1)]
        {
            let mut executor = open_solo();
            let plan = stack(cell, layers, steps, in_width, units, outputs).plan();
            let mut asked = Asked::new(&mut executor, plan);
            (0..2 * ROWS + 1).for_each(|_| asked.ask());
        }
    }
}

#[test]
fn layers_around_a_recurrence_stay_with_it() {
    let _alone = alone();
    for (steps, ahead, units, cells) in [
        (12, 5, 9, [Cell::Gru, Cell::Gru]),
        (11, 11, 14, [Cell::Lstm, Cell::Gru]),
        (19, 1, 6, [Cell::Gru, Cell::Lstm]),
    ] {
        let mut executor = open_solo();
        let mut asked = Asked::new(&mut executor, forecast(steps, ahead, units, cells));
        (0..ROWS + 2).for_each(|_| asked.ask());
    }
}

#[test]
fn launches_hand_over_between_windows() {
    let _alone = alone();
    let mut executor = open_solo();
    let mut asked = Asked::new(&mut executor, stack(Cell::Lstm, 2, 10, 3, 8, 1).plan());
    asked.ask();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(700) {
        asked.ask();
        if asked.turn.is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let counts = asked.resident.counts();
    assert_eq!((counts.requests, counts.silences), (asked.turn as u64, 0));
    assert!(counts.handovers >= 2, "{counts:?}");
}

#[test]
fn a_kernel_that_falls_silent_is_launched_again() {
    let _alone = alone();
    let mut executor = open_solo();
    let mut asked = Asked::new(&mut executor, stack(Cell::Gru, 2, 6, 3, 8, 2).plan());
    for _ in 0..2 {
        asked.ask();
        executor.miss_resident(&asked.case.some_rows(0, 1));
        assert_eq!(asked.try_ask(), Err(NotServed::Away), "silent");
        until(|| !executor.resident_rests(asked.case.plan.id), "it is launched again");
        (0..ROWS).for_each(|_| asked.ask());
    }
    assert_eq!(asked.resident.counts().silences, 2);
    executor.unload(asked.case.plan.id);
    assert_eq!(asked.try_ask(), Err(NotServed::Away), "it was told to stop");
}

#[test]
fn a_window_that_one_launch_leaves_is_answered_by_the_next() {
    let _alone = alone();
    let mut executor = open_solo();
    let mut asked = Asked::new(&mut executor, stack(Cell::Lstm, 2, 6, 3, 8, 2).plan());
    let id = asked.case.plan.id;
    for _ in 0..2 {
        asked.ask();
        executor.neglect_resident(id, true);
        until(|| executor.resident_left(id) == 1, "a launch left");
        asked.ask();
        executor.neglect_resident(id, false);
        until(|| executor.resident_left(id) == 0, "another one behind it");
    }
    assert_eq!(asked.resident.counts().silences, 0);
}

#[test]
fn a_launch_leaves_before_a_processor_ends_its_loops() {
    let _alone = alone();
    let mut executor = open_solo();
    let mut asked = Asked::new(&mut executor, stack(Cell::Gru, 2, 64, 3, 8, 1).plan());
    let id = asked.case.plan.id;
    asked.ask();
    // What is left of its loops when the first request comes is different each time, and the last ones find none.
    for pause in [0, 10, 20, 40, 80, 120] {
        executor.neglect_resident(id, true);
        std::thread::sleep(Duration::from_millis(pause));
        for _ in 0..40 {
            if executor.resident_left(id) == 2 {
                break;
            }
            // The second may leave just now, or may have answered as many as it may.
            if let Err(why) = asked.try_ask() {
                assert_eq!(why, NotServed::Away, "with nobody behind it");
                break;
            }
        }
        executor.neglect_resident(id, false);
        until(|| !executor.resident_rests(id) && executor.resident_left(id) == 0, "others follow");
    }
    assert_eq!(asked.resident.counts().silences, 0);
}

#[test]
fn a_batch_of_windows_goes_the_ordinary_way() {
    let _alone = alone();
    let mut executor = open();
    let plan = stack(Cell::Lstm, 2, 6, 3, 70, 1).plan();
    let case = Case::of(plan, 3);
    assert!(executor.reside(&case.plan, for_ever(1)).is_err(), "no queue for it");
    let mut output = vec![f32::NAN; 3];
    executor.run(&case.plan, 3, &case.input_slices(), &mut output).expect("it runs");
}

#[test]
fn what_one_kernel_cannot_do_is_refused() {
    let _alone = alone();
    let mut executor = open_solo();
    let mut refused = |plan: Plan| {
        let name = plan.name.clone();
        assert!(executor.reside(&Arc::new(plan), for_ever(1)).is_err(), "{name}");
    };
    // More units than one workgroup has invocations for, one step, and loops that a processor ends.
    refused(stack(Cell::Lstm, 1, 4, 3, 65, 1).plan());
    refused(stack(Cell::Lstm, 1, 1, 3, 4, 1).plan());
    refused(stack(Cell::Gru, 8, 4000, 1, 4, 1).plan());
    // Nobody reads the last step: a workgroup could be a request behind.
    let mut plan = PlanBuilder::new("the first step only");
    let src = plan.input(6);
    let states = recurrent(&mut plan, Cell::Gru, src, 3, 4, 1);
    let output = plan.buffer(2);
    plan.linear(Linear::plain(states.slice(0, 4), output, weights(3, 4, 2), Activation::Identity));
    refused(plan.finish(output));
}
