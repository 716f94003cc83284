// layer_norm: each group of columns to mean 0 and variance 1, then scaled and shifted; one invocation a group.
// `weights` holds `group_width` scales, then as many shifts.

struct LayerNorm {
    src_base: u32,
    src_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    group_count: u32,
    group_width: u32,
    epsilon: f32,
    pad_0: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<f32>;
@group(0) @binding(1) var<uniform> layer_norm_params: LayerNorm;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(3) var<storage, read> weights: array<f32>;

// Mean and variance of the group's numbers times `unit`. In 2⁻¹⁰⁰ the largest number has a square; what so loses digits is
// nothing beside numbers whose squares are too large.
fn moments(src: u32, width: u32, unit: f32) -> vec2<f32> {
    var sum = 0.0;
    for (var c = 0u; c < width; c++) {
        sum = fma(arena[src + c], unit, sum);
    }
    let mean = sum / f32(width);
    // From the differences, not from the squares: a large mean would swallow a small variance.
    var squares = 0.0;
    for (var c = 0u; c < width; c++) {
        let off = fma(arena[src + c], unit, -mean);
        squares = fma(off, off, squares);
    }
    return vec2(mean, squares / f32(width));
}

@compute @workgroup_size(64)
fn layer_norm(@builtin(global_invocation_id) cell: vec3<u32>) {
    if cell.x < layer_norm_params.group_count && cell.y < batch.row_count {
        let width = layer_norm_params.group_width;
        let src = layer_norm_params.src_base + cell.y * layer_norm_params.src_stride + cell.x * width;
        let dst = layer_norm_params.dst_base + cell.y * layer_norm_params.dst_stride + cell.x * width;
        var unit = 1.0;
        var at = moments(src, width, unit);
        if !(at.y < 0x1.fffffep+127) {
            unit = 0x1p-100;
            at = moments(src, width, unit);
        }
        let factor = 1.0 / sqrt(fma(layer_norm_params.epsilon * unit, unit, at.y));
        for (var c = 0u; c < width; c++) {
            arena[dst + c] = fma(fma(arena[src + c], unit, -at.x) * factor, weights[c], weights[width + c]);
        }
    }
}
