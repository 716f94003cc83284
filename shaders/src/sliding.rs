//! Stacked LSTM or GRU over a window that slides: what STAC-ML Markets measures, and what follows a stream of ticks.

use std::sync::Arc;

use crate::{Activation, Cell, Init, Linear, Plan, PlanBuilder, Recurrent, Repeat, Weights};

/// Recurrent layers on top of each other, the first on the steps of a window, and a linear head on the state that the
/// last one has after the newest step. Every window begins at a state of zero.
#[derive(Clone, Debug)]
pub struct SlidingStack {
    /// For messages.
    pub name: String,
    /// Of all layers.
    pub cell: Cell,
    /// Steps of a window.
    pub steps: usize,
    /// From the first on, which reads the steps.
    pub layers: Vec<SlidingLayer>,
    /// `[outputs, units]`.
    pub head: Arc<Weights>,
}

/// One recurrent layer.
#[derive(Clone, Debug)]
pub struct SlidingLayer {
    /// `[gates · units, in]`: `W_ih` and `b_ih`, gate-major in the order of [`Cell`].
    pub input: Arc<Weights>,
    /// `[gates · units, units]`: `W_hh` and `b_hh`.
    pub recurrent: Arc<Weights>,
}

impl SlidingStack {
    /// Columns of one step.
    ///
    /// # Panics
    /// When it has no layer.
    #[must_use]
    pub fn in_width(&self) -> usize {
        self.layers[0].input.in_width
    }

    /// Units of every layer.
    #[must_use]
    pub fn units(&self) -> usize {
        self.head.in_width
    }

    /// Numbers of one forecast.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.head.out_width
    }

    /// The same over whole windows: `[steps · in_width]` in, step-major, `[outputs]` out.
    ///
    /// # Panics
    /// When the shapes of two layers disagree.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Self { cell, steps, .. } = *self;
        let (units, width) = (self.units(), self.units() * cell.gates());
        let mut plan = PlanBuilder::new(&self.name);
        let mut below = plan.input(steps * self.in_width());
        for layer in &self.layers {
            let in_width = layer.input.in_width;
            let gates = plan.buffer(steps * width);
            let state = plan.buffer(if cell == Cell::Lstm { 2 * units } else { units });
            let outputs = plan.buffer(steps * units);
            plan.linear(Linear {
                src: below,
                dst: gates,
                weights: Arc::clone(&layer.input),
                init: Init::Bias,
                activation: Activation::Identity,
                mask: None,
                repeat: Repeat { count: steps, src_step: in_width, dst_step: width },
            });
            plan.recurrent(Recurrent {
                cell,
                steps,
                gates,
                recurrent: Arc::clone(&layer.recurrent),
                projection: None,
                state,
                resumes: false,
                dst: outputs,
            });
            below = outputs;
        }
        let output = plan.buffer(self.outputs());
        plan.linear(Linear {
            src: below.slice((steps - 1) * units, units),
            dst: output,
            weights: Arc::clone(&self.head),
            init: Init::Bias,
            activation: Activation::Identity,
            mask: None,
            repeat: Repeat::ONCE,
        });
        plan.finish(output)
    }
}
