//! Inputs of large batches cross the bus as halves, where a plan keeps halves and its layers round their inputs anyway.
//!
//! The host rounds them while it writes them, and one dispatch an input widens them in the arena. Half the bytes cross: on
//! a large batch that is the slower half of the work.

use half::f16;

use super::compiler::Source;
use super::device::Device;
use super::layout::{self, Layout};
use super::mapped::Copier;
use super::memory::Memory;
use crate::{BufferId, ExecuteError, Plan, halves};

const INVOCATIONS: usize = 256;
/// Each invocation goes on to the next vector that nobody has.
const WORKGROUPS_MAX: usize = 2048;

/// What the kernel is told of one input: vectors of four in front of it, in the arena and among the halves, and those of a
/// row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct NarrowParams {
    to: u32,
    source: u32,
    row_vec4s: u32,
    pad_0: u32,
}

const WGSL: &str = "
struct Narrow {
    to: u32,
    source: u32,
    row_vec4s: u32,
    pad_0: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> narrow: Narrow;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(3) var<storage, read> halves: array<vec2<u32>>;

@compute @workgroup_size(256)
fn widen(@builtin(global_invocation_id) own: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = batch.row_count * narrow.row_vec4s;
    for (var at = own.x; at < count; at += groups.x * 256u) {
        let four = halves[narrow.source + at];
        arena[narrow.to + at] = vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
    }
}
";

/// Bytes of all inputs of `rows` rows.
pub(super) fn bytes(plan: &Plan, rows: usize) -> usize {
    let floats = plan.inputs.iter().map(|input| layout::stride(plan.width(*input))).sum::<usize>();
    floats * rows * size_of::<f16>()
}

pub(super) fn params(plan: &Plan, layout: &Layout, capacity_rows: usize) -> Vec<NarrowParams> {
    let vec4s = |floats: usize| u32::try_from(floats / 4).expect("counts inside the arena fit u32");
    let mut source = 0;
    let each = |input: &BufferId| {
        let stride = layout.stride(*input);
        let params = NarrowParams {
            to: vec4s(layout.base(*input)),
            source: vec4s(source),
            row_vec4s: vec4s(stride),
            pad_0: 0,
        };
        source += capacity_rows * stride;
        params
    };
    plan.inputs.iter().map(each).collect()
}

pub(super) fn pipeline(
    device: &Device,
    bindings: &wgpu::BindGroupLayout,
) -> Result<wgpu::ComputePipeline, ExecuteError> {
    let source = Source { name: "widen", wgsl: WGSL.to_owned(), bindings };
    let [widen] = device.compiler.pipelines(device, [source])?;
    Ok(widen)
}

/// Workgroups for one input.
pub(super) fn workgroups(plan: &Plan, input: BufferId, rows: usize) -> u32 {
    let vec4s = rows * layout::stride(plan.width(input)) / 4;
    u32::try_from(vec4s.div_ceil(INVOCATIONS).min(WORKGROUPS_MAX)).expect("a few thousand")
}

/// Rounds the rows of one input to `at`, bytes into what the host writes. Rows are padded to their stride.
pub(super) fn write(memory: &Memory, at: usize, width: usize, rows: &[f32], copier: &Copier) {
    let stride = layout::stride(width);
    let mapped = memory.halves.as_ref().expect("room was made");
    let count = rows.len() / width * stride;
    mapped.fill(at, count * size_of::<f16>(), stride * size_of::<f16>(), copier, |first, cells| {
        let cells: &mut [f16] = bytemuck::cast_slice_mut(cells);
        let first_row = first / (stride * size_of::<f16>());
        for (row, cells) in (first_row..).zip(cells.chunks_exact_mut(stride)) {
            halves::round(&rows[row * width..][..width], &mut cells[..width]);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{NarrowParams, WGSL};
    use crate::gpu::params::BatchParams;
    use crate::gpu::tests::{members, valid};

    #[test]
    fn the_kernel_is_valid() {
        valid(WGSL);
    }

    #[test]
    fn its_structs_are_laid_out_as_their_wgsl() {
        let at = |name: &str, offset: usize| (name.to_owned(), offset);
        let narrow = [
            at("to", offset_of!(NarrowParams, to)),
            at("source", offset_of!(NarrowParams, source)),
            at("row_vec4s", offset_of!(NarrowParams, row_vec4s)),
            at("pad_0", offset_of!(NarrowParams, pad_0)),
        ];
        assert_eq!(members(WGSL, "Narrow", size_of::<NarrowParams>()), narrow);
        let batch = [
            at("row_count", offset_of!(BatchParams, row_count)),
            at("words_set", offset_of!(BatchParams, words_set)),
            at("rows_before", offset_of!(BatchParams, rows_before)),
            at("sink_stride", offset_of!(BatchParams, sink_stride)),
        ];
        assert_eq!(members(WGSL, "Batch", size_of::<BatchParams>()), batch);
    }
}
