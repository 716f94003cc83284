//! A plan is data: commands over named row buffers, recorded by a forecaster, interpreted by an executor.
//!
//! Every buffer is `[rows, width]`, row-major; a view is a column range of one. A command reads and writes whole
//! rows and never looks across rows, so a forecast cannot depend on its batch mates. Invariant: a buffer is written
//! before it is read, and source and destination of a command lie in different buffers (`Linear` with
//! [`Init::Accumulate`] reads its destination by design, and so does the state of a [`Recurrent`]). Inside a row a buffer often holds
//! steps, patches or series one after the other: `[steps, width]`, step-major.

mod builder;
mod command;
mod precision;
mod shorten;
mod weights;

pub use builder::PlanBuilder;
pub use command::{
    Activation, Affine, Attention, Cell, Command, Init, LayerNorm, Linear, Move, Pool, PoolMode, Recurrent,
    Repeat,
};
pub use precision::Precision;
pub(crate) use precision::{scale, whole};
pub use weights::Weights;

/// Unique within the process; executors key their prepared weights by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanId(pub u64);

/// Index of a row buffer in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub usize);

/// Columns `offset .. offset + width` of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The buffer.
    pub buffer: BufferId,
    /// First column.
    pub offset: usize,
    /// Number of columns.
    pub width: usize,
}

impl View {
    /// Columns `offset .. offset + width` of this view.
    ///
    /// # Panics
    /// When the range leaves the view.
    #[must_use]
    pub fn slice(self, offset: usize, width: usize) -> Self {
        assert!(offset + width <= self.width, "slice {offset}+{width} of a view {} wide", self.width);
        Self { buffer: self.buffer, offset: self.offset + offset, width }
    }
}

/// What a forecaster asks an executor to do for one batch.
#[derive(Debug)]
pub struct Plan {
    /// Process-unique.
    pub id: PlanId,
    /// The model's name, for messages.
    pub name: String,
    /// How exactly its matrices are kept.
    pub precision: Precision,
    /// Width of each buffer, by [`BufferId`].
    pub buffer_widths: Vec<usize>,
    /// Buffers that the caller fills, in the order of `Executor::run`'s `inputs`.
    pub inputs: Vec<BufferId>,
    /// The buffer that is read back.
    pub output: BufferId,
    /// In order.
    pub commands: Vec<Command>,
}

impl Plan {
    /// Width of a buffer.
    #[must_use]
    pub fn width(&self, buffer: BufferId) -> usize {
        self.buffer_widths[buffer.0]
    }

    /// Holds the caller of [`crate::Executor::run`] to its contract.
    ///
    /// # Panics
    /// When a slice's length does not fit the plan: a programmer's error.
    pub fn assert_fits(&self, rows: usize, inputs: &[&[f32]], output: &[f32]) {
        assert_eq!(inputs.len(), self.inputs.len(), "count of inputs");
        for (input, buffer) in inputs.iter().zip(&self.inputs) {
            assert_eq!(input.len(), rows * self.width(*buffer), "length of an input");
        }
        assert_eq!(output.len(), rows * self.width(self.output), "length of the output");
    }

    /// Multiply-adds of one row: the arithmetic floor.
    #[must_use]
    pub fn row_macs(&self) -> usize {
        self.commands.iter().map(Command::row_macs).sum()
    }

    /// Bytes of all distinct matrices and biases as they are kept.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let all = self.commands.iter().flat_map(Command::weights);
        let distinct = all.filter(|weights| seen.insert(std::ptr::from_ref::<Weights>(weights)));
        let bytes = |weights: &Weights| {
            let scales = if self.precision == Precision::Int8 { weights.out_width } else { 0 };
            weights.matrix_len() * self.precision.bytes() + (weights.bias.len() + scales) * size_of::<f32>()
        };
        distinct.map(|weights| bytes(weights)).sum()
    }
}
