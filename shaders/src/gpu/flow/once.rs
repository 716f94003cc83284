//! The kernel that runs once: inputs lie in the arena, results leave for where the host reads them when all is done.

use super::{Flow, INVOCATIONS, ROWS_MAX};

/// What surrounds the layers of a kernel.
pub(super) struct Frame {
    /// Bindings, and the functions that layers call.
    pub(super) before: String,
    /// Up to the first layer, and from the last on.
    pub(super) head: String,
    pub(super) tail: String,
}

pub(super) fn frame(flow: &Flow, rows: usize) -> Frame {
    let inputs = flow.input_starts.len().max(1);
    let words = flow.words;
    let before = format!(
        "struct Inputs {{ places: array<vec4<u32>, {inputs}> }} // first float, floats a row
struct Batch {{ row_count: u32, words_set: u32, rows_before: u32, sink_stride: u32 }}
@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> inputs: Inputs;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> sink: array<f32>;
@group(0) @binding(5) var<storage, read_write> results: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> failed: array<u32>;

fn give_up() {{
    gave_up = true;
    failed[0] = 1u;
}}

fn put(at: u32, value: f32) {{
    atomicStore(&results[at], said(value));
}}

fn emit(row: u32, out: u32, value: f32) {{
    sink[row * batch.sink_stride + out] = value;
}}

fn taken(input: u32, row: u32, column: u32) -> f32 {{
    let at = inputs.places[input].x + row * inputs.places[input].y + column;
    return arena[at / 4u][at % 4u];
}}"
    );
    let head = format!(
        "
@compute @workgroup_size({INVOCATIONS})
fn flow(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(num_workgroups) groups: vec3<u32>) {{
    gave_up = false;
    let row_first = group.y * {rows}u;
    let row_last = batch.row_count - 1u;
    let words_at = batch.words_set * {set_words}u;
    let other = {set_words}u - words_at;
    let all = groups.x * groups.y * {INVOCATIONS}u;
    for (var at = (group.y * groups.x + group.x) * {INVOCATIONS}u + index; at < batch.rows_before * {words}u; at += all) {{
        atomicStore(&results[other + at], EMPTY);
    }}
",
        set_words = ROWS_MAX * words,
    );
    Frame { before, head, tail: "}\n".to_owned() }
}
