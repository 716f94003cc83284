//! A plan is data: commands over named row buffers, recorded by a forecaster, interpreted by an executor.
//!
//! Every buffer is `[rows, width]`, row-major; a view is a column range of one. A command reads and writes whole
//! rows and never looks across rows, so a forecast cannot depend on its batch mates. Invariant: a buffer is written
//! before it is read, and source and destination of a command do not overlap (`Linear` with [`Init::Accumulate`]
//! reads its destination by design).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// `out × in` matrix, row-major as trained (`W[o, i]`), and `out` biases. Shared, never copied per batch.
#[derive(Debug)]
pub struct Weights {
    /// Number of outputs.
    pub out_width: usize,
    /// Number of inputs.
    pub in_width: usize,
    /// `[out, in]`.
    pub matrix: Vec<f32>,
    /// `[out]`; zeros when the layer has none.
    pub bias: Vec<f32>,
}

/// Applied to each output of a `Linear`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `x` for `x > 20`, else `ln(1 + exp x)`
    Softplus,
    /// `tanh x`
    Tanh,
    /// `1.0507009873554805 · (x > 0 ? x : 1.6732632423543772 · (exp x − 1))`
    Selu,
    /// `x > 0 ? x : slope · x` (leaky: 0.01; parametric: from the weights)
    Leaky(f32),
    /// `1 / (1 + exp −x)`
    Sigmoid,
}

/// What a `Linear` starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// `bias`
    Bias,
    /// `dst + bias`
    Accumulate,
}

/// `dst = activation(init + src · Wᵀ) · mask`, the sum taken in rising order of the input column.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `in_width` columns.
    pub src: View,
    /// `out_width` columns.
    pub dst: View,
    /// The layer.
    pub weights: Arc<Weights>,
    /// What the sum is added to.
    pub init: Init,
    /// Applied to the sum.
    pub activation: Activation,
    /// `out_width` columns that multiply the result, after the activation.
    pub mask: Option<View>,
}

/// How a pooling window becomes one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// Maximum.
    Max,
    /// Mean over the elements that exist.
    Mean,
}

/// Pools `[steps, columns]` (step-major, flattened) along time in windows `[0,k), [k,2k), …`; the last may be short.
#[derive(Clone, Debug)]
pub struct Pool {
    /// `steps · columns` wide.
    pub src: View,
    /// `ceil(steps / kernel) · columns` wide.
    pub dst: View,
    /// Columns per step.
    pub columns: usize,
    /// Window and stride, at least 1.
    pub kernel: usize,
    /// Maximum or mean.
    pub mode: PoolMode,
}

/// `dst[j] = src[start + j · step]`, for reversal (`step = −1`), copies (`1`) and broadcasts (`0`).
#[derive(Clone, Debug)]
pub struct Move {
    /// Source columns.
    pub src: View,
    /// Destination columns.
    pub dst: View,
    /// Source column of `dst[0]`.
    pub start: usize,
    /// Distance in the source between neighbours of the destination.
    pub step: i32,
}

/// One kernel call.
#[derive(Clone, Debug)]
pub enum Command {
    /// Fully connected layer with its epilogue.
    Linear(Linear),
    /// Pooling along time.
    Pool(Pool),
    /// Strided move of columns.
    Move(Move),
}

/// What a forecaster asks an executor to do for one batch.
#[derive(Debug)]
pub struct Plan {
    /// Process-unique.
    pub id: PlanId,
    /// The model's name, for messages.
    pub name: String,
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
        self.linears().map(|linear| linear.weights.matrix.len()).sum()
    }

    /// Bytes of all matrices and biases in f32.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.linears().map(|l| (l.weights.matrix.len() + l.weights.bias.len()) * size_of::<f32>()).sum()
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.commands.iter().filter_map(|command| match command {
            Command::Linear(linear) => Some(linear),
            Command::Pool(_) | Command::Move(_) => None,
        })
    }
}

/// Records a plan; every `record_*` asserts the shapes so that a finished plan needs no check by its executors.
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
    /// When shapes disagree.
    pub fn linear(&mut self, linear: Linear) {
        let weights = &linear.weights;
        assert_eq!(linear.src.width, weights.in_width, "linear input");
        assert_eq!(linear.dst.width, weights.out_width, "linear output");
        assert_eq!(weights.matrix.len(), weights.in_width * weights.out_width, "linear matrix");
        assert_eq!(weights.bias.len(), weights.out_width, "linear bias");
        assert!(linear.mask.is_none_or(|mask| mask.width == weights.out_width), "linear mask");
        assert_ne!(linear.src.buffer, linear.dst.buffer, "linear in place");
        self.commands.push(Command::Linear(linear));
    }

    /// Records a pooling.
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn pool(&mut self, pool: Pool) {
        assert!(pool.kernel > 0 && pool.columns > 0, "pool window");
        assert_eq!(pool.src.width % pool.columns, 0, "pool source");
        let steps = pool.src.width / pool.columns;
        assert_eq!(pool.dst.width, steps.div_ceil(pool.kernel) * pool.columns, "pool destination");
        assert_ne!(pool.src.buffer, pool.dst.buffer, "pool in place");
        self.commands.push(Command::Pool(pool));
    }

    /// Records a strided move.
    ///
    /// # Panics
    /// When a source column would lie outside its view.
    pub fn move_columns(&mut self, step: Move) {
        let last = step.start as i64 + i64::from(step.step) * (step.dst.width as i64 - 1);
        assert!(step.start < step.src.width && (0..step.src.width as i64).contains(&last), "move source");
        assert_ne!(step.src.buffer, step.dst.buffer, "move in place");
        self.commands.push(Command::Move(step));
    }

    /// Finishes the plan; `output` must be a whole buffer.
    #[must_use]
    pub fn finish(self, output: View) -> Plan {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        assert_eq!(output.width, self.buffer_widths[output.buffer.0], "output is a whole buffer");
        Plan {
            id: PlanId(NEXT.fetch_add(1, Ordering::Relaxed)),
            name: self.name,
            buffer_widths: self.buffer_widths,
            inputs: self.inputs,
            output: output.buffer,
            commands: self.commands,
        }
    }
}
