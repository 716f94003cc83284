//! Stacks that slide, by one workgroup, which a software adapter runs as well; `examples/sliding.rs` has many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::weights;
use super::{alone, oracle};
use crate::gpu::{AdapterChoice, GpuExecutor, GpuOptions, Slider};
use crate::{Cell, SlidingLayer, SlidingStack};

/// Sums of up to 30 numbers below 1 over ten steps that forget.
const TOLERANCE: f64 = 1e-5;

#[test]
fn every_step_has_the_forecast_of_its_window() {
    let _alone = alone();
    for cell in [Cell::Lstm, Cell::Gru] {
        for (layers, steps, in_width, units, outputs) in
            [(1, 1, 3, 4, 1), (2, 6, 5, 12, 1), (3, 9, 30, 16, 3), (2, 4, 7, 1, 2)]
        {
            let stack = Arc::new(stack(cell, layers, steps, in_width, units, outputs));
            let mut slider = slider(&stack);
            // Twice the window and more, over launches that hand over to each other.
            follow(&mut slider, &stack, 0..2 * steps + 70);
        }
    }
}

#[test]
fn a_pause_changes_nothing() {
    let _alone = alone();
    let stack = Arc::new(stack(Cell::Lstm, 2, 6, 5, 12, 1));
    let mut slider = slider(&stack);
    follow(&mut slider, &stack, 0..10);
    std::thread::sleep(Duration::from_millis(300));
    follow(&mut slider, &stack, 10..20);
}

#[test]
fn a_kernel_that_falls_silent_has_its_states_made_again() {
    let _alone = alone();
    let stack = Arc::new(stack(Cell::Gru, 2, 5, 3, 8, 2));
    for pushed in [2, 13] {
        let mut slider = slider(&stack);
        follow(&mut slider, &stack, 0..pushed);
        let missed = step(pushed, 3);
        slider.push_in_vain(&missed);
        assert_eq!(slider.window()[..], window(&stack, pushed)[..]);
        let until = Instant::now() + Duration::from_secs(30);
        while slider.rests() {
            assert!(Instant::now() < until, "not launched again");
            std::thread::sleep(Duration::from_millis(5));
        }
        follow(&mut slider, &stack, pushed + 1..pushed + 9);
    }
}

#[test]
fn what_one_kernel_cannot_do_is_refused() {
    let _alone = alone();
    let gpu = open();
    for (layers, steps, units, outputs) in [(9, 4, 4, 1), (1, 129, 4, 1), (1, 4, 4, 17), (1, 4, 65, 1)] {
        let stack = Arc::new(stack(Cell::Lstm, layers, steps, 3, units, outputs));
        assert!(
            gpu.slide(&stack).is_err(),
            "{layers} layers, {steps} steps, {units} units, {outputs} outputs"
        );
    }
}

/// Pushes steps and compares each forecast with that of its whole window.
#[track_caller]
fn follow(slider: &mut Slider, stack: &SlidingStack, steps: std::ops::Range<usize>) {
    let plan = stack.plan();
    for at in steps {
        let mut actual = vec![f32::NAN; stack.outputs()];
        slider.push(&step(at, stack.in_width()), &mut actual).expect("it stays");
        let window = window(stack, at);
        // A window that is not complete yet has fewer steps: those that are there.
        let expected = if at + 1 < stack.steps {
            let short = SlidingStack { steps: at + 1, ..stack.clone() };
            oracle(&short.plan(), 1, &[&window[..(at + 1) * stack.in_width()]])
        } else {
            oracle(&plan, 1, &[&window])
        };
        for (actual, expected) in actual.iter().zip(expected) {
            let error = (f64::from(*actual) - expected).abs();
            assert!(error <= TOLERANCE, "{} at step {at}: {actual} where {expected} is right", stack.name);
        }
    }
}

/// The steps of the window that ends with `newest`, the oldest first, then zeros.
fn window(stack: &SlidingStack, newest: usize) -> Vec<f32> {
    let first = (newest + 1).saturating_sub(stack.steps);
    let mut window: Vec<f32> = (first..=newest).flat_map(|at| step(at, stack.in_width())).collect();
    window.resize(stack.steps * stack.in_width(), 0.0);
    window
}

/// Step `at` of a series that never repeats.
fn step(at: usize, in_width: usize) -> Vec<f32> {
    (0..in_width).map(|column| ((at * 31 + column * 7 + 3) as f32 * 0.7).sin()).collect()
}

pub(super) fn stack(
    cell: Cell,
    layers: usize,
    steps: usize,
    in_width: usize,
    units: usize,
    outputs: usize,
) -> SlidingStack {
    let width = units * cell.gates();
    let layer = |number: usize| SlidingLayer {
        input: weights(number as u64 + 11, if number == 0 { in_width } else { units }, width),
        recurrent: weights(number as u64 + 23, units, width),
    };
    SlidingStack {
        name: format!("{cell:?}, {layers} layers, {steps} steps, {in_width} inputs, {units} units"),
        cell,
        steps,
        layers: (0..layers).map(layer).collect(),
        head: weights(5, units, outputs),
    }
}

fn slider(stack: &Arc<SlidingStack>) -> Slider {
    open().slide(stack).unwrap_or_else(|error| panic!("{}: {error}", stack.name))
}

fn open() -> GpuExecutor {
    let options = GpuOptions {
        adapter: AdapterChoice::Software,
        timeout: Duration::from_secs(60),
        ..GpuOptions::default()
    };
    let mut executor = GpuExecutor::open(&options)
        .unwrap_or_else(|error| panic!("kernel tests need a software Vulkan adapter: {error}"));
    executor.set_solo_residents();
    executor
}
