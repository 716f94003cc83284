//! A stack of LSTM or GRU layers: its weights, and its run over some steps.

use std::sync::Arc;

use crate::loader::{Archive, LoadError};
use crate::{Activation, Cell, PlanBuilder, Recurrent, View, Weights};

use super::dense::{Budget, Dense};
use super::steps::each_step;

/// Widths of a stack.
#[derive(Clone, Copy)]
pub(super) struct StackShape {
    pub(super) cell: Cell,
    pub(super) layer_count: usize,
    /// Columns of one step.
    pub(super) in_width: usize,
    pub(super) units: usize,
    /// Width of `h` where it is projected.
    pub(super) projected: Option<usize>,
    /// Whether the layers have biases.
    pub(super) biased: bool,
}

impl StackShape {
    /// Width of `h`.
    pub(super) fn out_width(self) -> usize {
        self.projected.unwrap_or(self.units)
    }

    /// The layers `hist_encoder.*_l0`, `_l1`, …
    pub(super) fn take(self, archive: &Archive, budget: &mut Budget) -> Result<Stack, LoadError> {
        let layers = (0..self.layer_count).map(|number| self.take_layer(archive, budget, number));
        Ok(Stack { shape: self, layers: layers.collect::<Result<_, _>>()? })
    }

    fn take_layer(self, archive: &Archive, budget: &mut Budget, number: usize) -> Result<Layer, LoadError> {
        let Self { cell, units, .. } = self;
        let (gates, out) = (cell.gates() * units, self.out_width());
        let in_width = if number == 0 { self.in_width } else { out };
        let name = |kind: &str| format!("hist_encoder.{kind}_l{number}");
        let matrix =
            |kind: &str, out_width: usize, in_width: usize| archive.take(&name(kind), &[out_width, in_width]);
        let bias = |kind: &str| match self.biased {
            true => archive.take(&name(kind), &[gates]),
            false => Ok(vec![0.0; gates]),
        };
        budget.spend(gates, in_width.saturating_add(out))?;

        let mut input = Dense {
            out_width: gates,
            in_width,
            matrix: matrix("weight_ih", gates, in_width)?,
            bias: bias("bias_ih")?,
        };
        let mut recurrent = Dense {
            out_width: gates,
            in_width: out,
            matrix: matrix("weight_hh", gates, out)?,
            bias: bias("bias_hh")?,
        };
        // Both biases are added to the same sum, but for the GRU's last gate: there `r` scales the recurrent one.
        let folded = match cell {
            Cell::Lstm => gates,
            Cell::Gru => gates - units,
        };
        for (bias, own) in input.bias.iter_mut().zip(&mut recurrent.bias[..folded]) {
            *bias += std::mem::take(own);
        }
        let projection = match self.projected {
            None => None,
            Some(width) => {
                budget.spend(width, units)?;
                let (matrix, bias) = (matrix("weight_hr", width, units)?, vec![0.0; width]);
                let dense = Dense { out_width: width, in_width: units, matrix, bias };
                Some(dense.weights(&name("weight_hr"))?)
            }
        };
        Ok(Layer {
            input: input.weights(&name("weight_ih"))?,
            recurrent: recurrent.weights(&name("weight_hh"))?,
            projection,
        })
    }
}

/// Layers on top of each other.
pub(super) struct Stack {
    shape: StackShape,
    layers: Vec<Layer>,
}

struct Layer {
    /// The input's part of the gates, with the biases of both parts where they can be folded.
    input: Arc<Weights>,
    recurrent: Arc<Weights>,
    projection: Option<Arc<Weights>>,
}

/// Buffers of a run over a fixed number of steps.
pub(super) struct Run {
    steps: usize,
    gates: View,
    /// For each layer `h` after every step.
    outputs: Vec<View>,
}

impl Run {
    /// `h` of the top layer after the last `steps` steps.
    pub(super) fn last(&self, steps: usize) -> View {
        let top = self.outputs[self.outputs.len() - 1];
        let width = top.width / self.steps * steps;
        top.slice(top.width - width, width)
    }
}

impl Stack {
    pub(super) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Buffers for the state of each layer.
    pub(super) fn states(&self, plan: &mut PlanBuilder) -> Vec<View> {
        let StackShape { cell, units, .. } = self.shape;
        let width = match cell {
            Cell::Lstm => self.shape.out_width() + units,
            Cell::Gru => units,
        };
        self.layers.iter().map(|_| plan.buffer(width)).collect()
    }

    /// Buffers for a run over `steps` steps.
    pub(super) fn run(
        &self,
        plan: &mut PlanBuilder,
        budget: &mut Budget,
        steps: usize,
    ) -> Result<Run, LoadError> {
        let StackShape { cell, units, .. } = self.shape;
        let gates = budget.buffer(plan, steps, cell.gates() * units)?;
        let outputs = self.layers.iter().map(|_| budget.buffer(plan, steps, self.shape.out_width()));
        Ok(Run { steps, gates, outputs: outputs.collect::<Result<_, _>>()? })
    }

    /// Walks over `src`, from the states on or from zero.
    pub(super) fn record(
        &self,
        plan: &mut PlanBuilder,
        src: View,
        run: &Run,
        states: &[View],
        resumes: bool,
    ) {
        let mut from = src;
        for ((layer, &state), &dst) in self.layers.iter().zip(states).zip(&run.outputs) {
            each_step(plan, from, run.gates, &layer.input, Activation::Identity, run.steps);
            plan.recurrent(Recurrent {
                cell: self.shape.cell,
                steps: run.steps,
                gates: run.gates,
                recurrent: Arc::clone(&layer.recurrent),
                projection: layer.projection.clone(),
                state,
                resumes,
                dst,
            });
            from = dst;
        }
    }
}
