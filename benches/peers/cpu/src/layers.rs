//! N-HiTS by faer: what `export.py` leaves as matrices, each layer one product.

use std::path::Path;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use safetensors::SafeTensors;

/// `[out, in]` and `[out]`.
struct Layer {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Block {
    kernel: usize,
    hidden: Vec<Layer>,
    backcast: Option<Layer>,
    knots: Option<Layer>,
}

/// The network, and room for its batches.
pub(crate) struct Folded {
    blocks: Vec<Block>,
    head: Layer,
    buffers: [Vec<f32>; 5],
}

impl Layer {
    fn read(file: &SafeTensors<'_>, name: &str) -> Option<Self> {
        let floats = |part: &str| {
            let tensor = file.tensor(&format!("{name}.{part}")).ok()?;
            Some(tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        };
        Some(Self { weight: floats("weight")?, bias: floats("bias")? })
    }

    fn width(&self) -> usize {
        self.bias.len()
    }

    /// Into columns `at ..` of rows that are `stride` wide.
    fn run(&self, rows: usize, x: &[f32], out: &mut [f32], [at, stride]: [usize; 2], par: Par) {
        let (inputs, outputs) = (self.weight.len() / self.width(), self.width());
        for row in out.chunks_exact_mut(stride) {
            row[at..at + outputs].copy_from_slice(&self.bias);
        }
        let x = MatRef::from_row_major_slice(x, rows, inputs);
        let weight = MatRef::from_row_major_slice(&self.weight, outputs, inputs);
        let all = MatMut::from_row_major_slice_mut(out, rows, stride);
        matmul(all.subcols_mut(at, outputs), Accum::Add, x, weight.transpose(), 1.0, par);
    }
}

impl Folded {
    pub(crate) fn open(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let file = SafeTensors::deserialize(&bytes).expect("export.py writes safetensors");
        let kernels = file.tensor("kernels").expect("export.py writes the kernels");
        let kernels = kernels.data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
        let block = |(number, kernel): (usize, i64)| Block {
            kernel: usize::try_from(kernel).expect("a kernel is positive"),
            hidden: (0..).map_while(|at| Layer::read(&file, &format!("{number}.hidden.{at}"))).collect(),
            backcast: Layer::read(&file, &format!("{number}.backcast")),
            knots: Layer::read(&file, &format!("{number}.knots")),
        };
        Self {
            blocks: kernels.enumerate().map(block).collect(),
            head: Layer::read(&file, "head").expect("export.py writes the head"),
            buffers: Default::default(),
        }
    }

    /// Windows `[rows, window]` to `[rows, steps]`.
    pub(crate) fn run(&mut self, rows: usize, y: &[f32], out: &mut Vec<f32>, par: Par) {
        let window = y.len() / rows;
        let [residual, pooled, x, next, joined] = &mut self.buffers;
        residual.clear();
        residual.extend_from_slice(y);
        let slice = |block: &Block| {
            let hidden = block.hidden.last().map_or(0, Layer::width);
            block.knots.as_ref().map_or(hidden, Layer::width)
        };
        let stride: usize = self.blocks.iter().map(slice).sum();
        joined.resize(rows * stride, 0.0);
        let mut at = 0;
        for block in &self.blocks {
            let mut source: &[f32] = residual;
            if block.kernel > 1 {
                pooled.clear();
                pooled.extend(
                    residual
                        .chunks_exact(block.kernel)
                        .map(|group| group.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
                );
                source = pooled;
            }
            for layer in &block.hidden {
                next.resize(rows * layer.width(), 0.0);
                layer.run(rows, source, next, [0, layer.width()], par);
                next.iter_mut().for_each(|value| *value = value.max(0.0));
                std::mem::swap(x, next);
                source = x;
            }
            if let Some(backcast) = &block.backcast {
                next.resize(rows * window, 0.0);
                backcast.run(rows, source, next, [0, window], par);
                residual.iter_mut().zip(&*next).for_each(|(left, off)| *left -= off);
            }
            match &block.knots {
                Some(knots) => knots.run(rows, x, joined, [at, stride], par),
                None => {
                    let width = slice(block);
                    for (row, from) in joined.chunks_exact_mut(stride).zip(x.chunks_exact(width)) {
                        row[at..at + width].copy_from_slice(from);
                    }
                }
            }
            at += slice(block);
        }
        let steps = self.head.width();
        out.resize(rows * steps, 0.0);
        self.head.run(rows, joined, out, [0, steps], par);
        for (row, y) in out.chunks_exact_mut(steps).zip(y.chunks_exact(window)) {
            row.iter_mut().for_each(|step| *step += y[window - 1]);
        }
    }
}
