// layer_norm: each group of columns to mean 0 and variance 1, then scaled and shifted; eight invocations a group.
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

const LANES: u32 = 8u; // of a group,
const GROUPS: u32 = 8u; // and groups of a workgroup

var<workgroup> parts: array<f32, LANES * GROUPS>;

// Mean and variance of the group's numbers times `unit`. In 2⁻¹⁰⁰ the largest number has a square; what so loses digits is
// nothing beside numbers whose squares are too large.
fn moments(src: u32, width: u32, unit: f32, lane: u32, index: u32) -> vec2<f32> {
    var sum = 0.0;
    for (var c = lane; c < width; c += LANES) {
        sum = fma(arena[src + c], unit, sum);
    }
    let mean = of_all(sum, index) / f32(width);
    // From the differences, not from the squares: a large mean would swallow a small variance.
    var squares = 0.0;
    for (var c = lane; c < width; c += LANES) {
        let off = fma(arena[src + c], unit, -mean);
        squares = fma(off, off, squares);
    }
    return vec2(mean, of_all(squares, index) / f32(width));
}

// The sum over the lanes of a group, in their order.
fn of_all(part: f32, index: u32) -> f32 {
    workgroupBarrier();
    parts[index] = part;
    workgroupBarrier();
    var sum = 0.0;
    let first = index / LANES * LANES;
    for (var lane = 0u; lane < LANES; lane++) {
        sum += parts[first + lane];
    }
    return sum;
}

@compute @workgroup_size(LANES * GROUPS)
fn layer_norm(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = index % LANES;
    let count = layer_norm_params.group_count;
    let group = workgroup.y * GROUPS + index / LANES;
    let is_there = group < batch.row_count * count;
    // Those that are not there go along: all wait for each other.
    let row = min(group / count, batch.row_count - 1u);
    let width = layer_norm_params.group_width;
    let src = layer_norm_params.src_base + row * layer_norm_params.src_stride + group % count * width;
    let dst = layer_norm_params.dst_base + row * layer_norm_params.dst_stride + group % count * width;
    let plain = moments(src, width, 1.0, lane, index);
    let scaled = moments(src, width, 0x1p-100, lane, index);
    let is_huge = !(plain.y < 0x1.fffffep+127);
    let unit = select(1.0, 0x1p-100, is_huge);
    let at = select(plain, scaled, is_huge);
    let factor = 1.0 / sqrt(fma(layer_norm_params.epsilon * unit, unit, at.y));
    if is_there {
        for (var c = lane; c < width; c += LANES) {
            arena[dst + c] = fma(fma(arena[src + c], unit, -at.x) * factor, weights[c], weights[width + c]);
        }
    }
}
