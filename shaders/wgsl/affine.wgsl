// affine: dst = activation(src · scale + shift) + add, the vectors repeated along the row.
// `weights` holds `period` scales, then as many shifts.

struct Affine {
    src_base: u32,
    src_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    add_base: u32,
    add_stride: u32,
    has_add: u32,
    width: u32,
    period: u32,
    activation: u32,
    slope: f32,
    pad_0: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<f32>;
@group(0) @binding(1) var<uniform> affine_params: Affine;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(3) var<storage, read> weights: array<f32>;

@compute @workgroup_size(64)
fn affine(@builtin(global_invocation_id) cell: vec3<u32>) {
    if cell.x < affine_params.width && cell.y < batch.row_count {
        let c = cell.x % affine_params.period;
        let x = arena[affine_params.src_base + cell.y * affine_params.src_stride + cell.x];
        let sum = fma(x, weights[c], weights[affine_params.period + c]);
        var value = activate(affine_params.activation, affine_params.slope, sum);
        if affine_params.has_add != 0u {
            value += arena[affine_params.add_base + cell.y * affine_params.add_stride + cell.x];
        }
        arena[affine_params.dst_base + cell.y * affine_params.dst_stride + cell.x] = value;
    }
}
