//! `recurrent`: an LSTM or GRU layer over the steps of a tile of rows. The state's matrix goes through `linear`, for
//! all rows at once; the cell is elementwise.

use super::activation::{sigmoid, tanh};
use super::linear;
use super::pack::Packed;
use super::rows::Rows;
use super::simd::{Kernel, Simd};
use crate::{Activation, Cell, Recurrent};

/// One layer over `rows` rows.
///
/// Invariant (of whoever builds one): row `r` of `gates`, `state` and `dst` is as wide as the command says, at
/// `ptr + r · stride`; the last two may be written, and no two overlap.
pub(crate) struct Layer<'p> {
    pub(crate) command: &'p Recurrent,
    pub(crate) recurrent: &'p Packed,
    pub(crate) projection: Option<&'p Packed>,
    pub(crate) rows: usize,
    pub(crate) gates: Rows<*const f32>,
    pub(crate) state: Rows<*mut f32>,
    pub(crate) dst: Rows<*mut f32>,
}

/// Kept between runs.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[rows, gates · units]`: what the state adds to the gates.
    own: Vec<f32>,
    /// `[rows, units]`: the cell's output before its projection.
    hidden: Vec<f32>,
}

/// # Safety
/// `layer` keeps its invariant; the rest as for [`linear::run`], whose scratch is `linear_scratch`.
pub(crate) unsafe fn run(
    simd: Simd,
    layer: &Layer<'_>,
    scratch: &mut Scratch,
    linear_scratch: &mut linear::Scratch,
) {
    let Layer { command, rows, gates, state, dst, .. } = *layer;
    let (units, out, width) = (command.units(), command.out_width(), command.recurrent.out_width);
    let grow = |values: &mut Vec<f32>, len: usize| {
        if values.len() < len {
            values.resize(len, 0.0);
        }
    };
    grow(&mut scratch.own, rows * width);
    grow(&mut scratch.hidden, rows * units);
    let own = Rows { ptr: scratch.own.as_mut_ptr(), stride: width };
    let hidden = Rows { ptr: scratch.hidden.as_mut_ptr(), stride: units };
    let mut apply = |packed: &Packed, src: Rows<*const f32>, dst: Rows<*mut f32>| {
        let activation = Activation::Identity;
        let step = linear::Layer { packed, rows, src, dst, mask: None, accumulate: false, activation };
        // SAFETY: handed on to the caller; the scratch has just been grown and overlaps nothing of the layer.
        unsafe { linear::run(simd, &step, linear_scratch) }
    };
    // SAFETY: every range lies inside the widths that the invariant promises; a row's slices are of different
    // buffers or of different columns of one.
    unsafe {
        if !command.resumes {
            for row in 0..rows {
                state.at(row, 0).ptr.write_bytes(0, command.state.width);
            }
        }
        let mut before = state;
        for step in 0..command.steps {
            apply(layer.recurrent, before.as_const(), own);
            let after = dst.at(0, step * out);
            let cell_out = if layer.projection.is_some() { hidden } else { after };
            for row in 0..rows {
                simd.run(CellRow {
                    cell: command.cell,
                    given: std::slice::from_raw_parts(gates.at(row, step * width).ptr, width),
                    own: std::slice::from_raw_parts(own.at(row, 0).ptr, width),
                    h_before: std::slice::from_raw_parts(before.at(row, 0).ptr, out),
                    c: match command.cell {
                        Cell::Lstm => std::slice::from_raw_parts_mut(state.at(row, out).ptr, units),
                        Cell::Gru => &mut [],
                    },
                    h: std::slice::from_raw_parts_mut(cell_out.at(row, 0).ptr, units),
                });
            }
            if let Some(projection) = layer.projection {
                apply(projection, hidden.as_const(), after);
            }
            before = after;
        }
        for row in 0..rows {
            state.at(row, 0).ptr.copy_from_nonoverlapping(before.at(row, 0).ptr, out);
        }
    }
}

/// One step of one row.
struct CellRow<'a> {
    cell: Cell,
    /// The input's part of the gates, gate-major.
    given: &'a [f32],
    /// The state's part.
    own: &'a [f32],
    h_before: &'a [f32],
    c: &'a mut [f32],
    h: &'a mut [f32],
}

impl Kernel for CellRow<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { cell, given, own, h_before, c, h } = self;
        let units = h.len();
        let gate = |gate: usize| (&given[gate * units..][..units], &own[gate * units..][..units]);
        match cell {
            Cell::Lstm => {
                let [i, f, g, o] = [0, 1, 2, 3].map(gate);
                let c = &mut c[..units];
                for u in 0..units {
                    let kept = sigmoid(f.0[u] + f.1[u]) * c[u];
                    c[u] = sigmoid(i.0[u] + i.1[u]).mul_add(tanh(g.0[u] + g.1[u]), kept);
                    h[u] = sigmoid(o.0[u] + o.1[u]) * tanh(c[u]);
                }
            }
            Cell::Gru => {
                let [r, z, n] = [0, 1, 2].map(gate);
                let h_before = &h_before[..units];
                for u in 0..units {
                    let reset = sigmoid(r.0[u] + r.1[u]);
                    let update = sigmoid(z.0[u] + z.1[u]);
                    let new = tanh(reset.mul_add(n.1[u], n.0[u]));
                    h[u] = update.mul_add(h_before[u] - new, new);
                }
            }
        }
    }
}
