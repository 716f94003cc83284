//! Records plans.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Affine, Attention, BufferId, Command, LayerNorm, Linear, Move, Plan, PlanId, Pool, Precision, Recurrent,
    View,
};

/// Records a plan; every method asserts the shapes so that a finished plan needs no check by its executors.
#[derive(Debug)]
pub struct PlanBuilder {
    name: String,
    buffer_widths: Vec<usize>,
    inputs: Vec<BufferId>,
    commands: Vec<Command>,
}

impl PlanBuilder {
    /// An empty plan for the model `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), buffer_widths: Vec::new(), inputs: Vec::new(), commands: Vec::new() }
    }

    /// A buffer that the caller of `Executor::run` fills; inputs are numbered in the order of these calls.
    pub fn input(&mut self, width: usize) -> View {
        let view = self.buffer(width);
        self.inputs.push(view.buffer);
        view
    }

    /// A buffer of `width` columns, undefined until written.
    pub fn buffer(&mut self, width: usize) -> View {
        assert!(width > 0, "a buffer has at least one column");
        self.buffer_widths.push(width);
        View { buffer: BufferId(self.buffer_widths.len() - 1), offset: 0, width }
    }

    /// Records a fully connected layer.
    ///
    /// # Panics
    /// When shapes disagree; so do all methods below.
    pub fn linear(&mut self, linear: Linear) {
        self.record(Command::Linear(linear));
    }

    /// Records a pooling.
    pub fn pool(&mut self, pool: Pool) {
        self.record(Command::Pool(pool));
    }

    /// Records a strided move.
    pub fn move_columns(&mut self, step: Move) {
        self.record(Command::Move(step));
    }

    /// Records a scaled sum.
    pub fn affine(&mut self, affine: Affine) {
        self.record(Command::Affine(affine));
    }

    /// Records a layer normalization.
    pub fn layer_norm(&mut self, norm: LayerNorm) {
        self.record(Command::LayerNorm(norm));
    }

    /// Records an attention.
    pub fn attention(&mut self, attention: Attention) {
        self.record(Command::Attention(attention));
    }

    /// Records a recurrent layer.
    pub fn recurrent(&mut self, layer: Recurrent) {
        self.record(Command::Recurrent(layer));
    }

    fn record(&mut self, command: Command) {
        command.assert_valid();
        self.commands.push(command);
    }

    /// Finishes the plan; `output` must be a whole buffer.
    #[must_use]
    pub fn finish(self, output: View) -> Plan {
        assert_eq!(output.width, self.buffer_widths[output.buffer.0], "output is a whole buffer");
        Plan {
            id: next_id(),
            name: self.name,
            precision: Precision::F32,
            buffer_widths: self.buffer_widths,
            inputs: self.inputs,
            output: output.buffer,
            commands: self.commands,
        }
    }
}

/// Of a plan that is new in this process.
pub(super) fn next_id() -> PlanId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    PlanId(NEXT.fetch_add(1, Ordering::Relaxed))
}
