// linear: dst = activation(init + src · Wᵀ) · mask over a batch of rows, tiled for many and plain for few.
//
// Every output is one fma chain that starts at its init and takes the input columns in rising order, in both entry
// points: a row's result has the same bits whoever its batch mates are.
// A layer that is repeated inside a row counts every place as a row of its own: "line" below is row · places + place.
// `weights` holds the matrix transposed and padded, `[in_padded, out_vec4s]` of vec4, then the bias, `[out_vec4s]`.

struct Linear {
    src_base: u32,
    src_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    mask_base: u32,
    mask_stride: u32,
    in_width: u32,
    in_padded: u32,
    out_width: u32,
    out_vec4s: u32,
    has_mask: u32,
    accumulates: u32,
    activation: u32,
    slope: f32,
    place_count: u32,
    src_step: u32,
    dst_step: u32,
    sinks: u32,
    pad_0: u32,
    pad_1: u32,
}

struct Batch {
    row_count: u32,
    pad_0: u32,
    pad_1: u32,
    pad_2: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<f32>;
@group(0) @binding(1) var<uniform> linear_params: Linear;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> sink: array<f32>; // what the host reads

// Many lines: 64 lines × 64 outputs by 16 × 8 invocations, each 8 lines × one vec4 of outputs.
const TILE_LINES: u32 = 64u;
const TILE_VEC4S: u32 = 16u;
const TILE_DEPTH: u32 = 16u;

var<workgroup> src_tile: array<vec4<f32>, 256>; // [TILE_DEPTH][TILE_LINES / 4]
var<workgroup> weight_tile: array<vec4<f32>, 256>; // [TILE_DEPTH][TILE_VEC4S]

@compute @workgroup_size(16, 8)
fn linear(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let line_first = tile.y * TILE_LINES + local.y * 8u;
    let out_vec4 = tile.x * TILE_VEC4S + local.x;
    var sum_0 = initial(line_first, out_vec4);
    var sum_1 = initial(line_first + 1u, out_vec4);
    var sum_2 = initial(line_first + 2u, out_vec4);
    var sum_3 = initial(line_first + 3u, out_vec4);
    var sum_4 = initial(line_first + 4u, out_vec4);
    var sum_5 = initial(line_first + 5u, out_vec4);
    var sum_6 = initial(line_first + 6u, out_vec4);
    var sum_7 = initial(line_first + 7u, out_vec4);
    // Two cells of each tile an invocation, of the same column; neighbours read neighbouring columns.
    let k_src = index % TILE_DEPTH;
    let quad_0 = sources(tile.y * TILE_LINES + (index / TILE_DEPTH) * 4u);
    let quad_1 = sources(tile.y * TILE_LINES + (index / TILE_DEPTH + 8u) * 4u);
    for (var k_first = 0u; k_first < linear_params.in_padded; k_first += TILE_DEPTH) {
        src_tile[k_src * 16u + index / TILE_DEPTH] = source_quad(quad_0, k_first + k_src);
        src_tile[k_src * 16u + index / TILE_DEPTH + 8u] = source_quad(quad_1, k_first + k_src);
        for (var half = 0u; half < 2u; half++) {
            let cell = index + half * 128u;
            weight_tile[cell] = weight(k_first + cell / TILE_VEC4S, tile.x * TILE_VEC4S + cell % TILE_VEC4S);
        }
        workgroupBarrier();
        for (var k = 0u; k < TILE_DEPTH; k++) {
            let w = weight_tile[k * TILE_VEC4S + local.x];
            let low = src_tile[k * 16u + local.y * 2u];
            let high = src_tile[k * 16u + local.y * 2u + 1u];
            sum_0 = fma(vec4<f32>(low.x), w, sum_0);
            sum_1 = fma(vec4<f32>(low.y), w, sum_1);
            sum_2 = fma(vec4<f32>(low.z), w, sum_2);
            sum_3 = fma(vec4<f32>(low.w), w, sum_3);
            sum_4 = fma(vec4<f32>(high.x), w, sum_4);
            sum_5 = fma(vec4<f32>(high.y), w, sum_5);
            sum_6 = fma(vec4<f32>(high.z), w, sum_6);
            sum_7 = fma(vec4<f32>(high.w), w, sum_7);
        }
        workgroupBarrier();
    }
    finish(line_first, out_vec4, sum_0);
    finish(line_first + 1u, out_vec4, sum_1);
    finish(line_first + 2u, out_vec4, sum_2);
    finish(line_first + 3u, out_vec4, sum_3);
    finish(line_first + 4u, out_vec4, sum_4);
    finish(line_first + 5u, out_vec4, sum_5);
    finish(line_first + 6u, out_vec4, sum_6);
    finish(line_first + 7u, out_vec4, sum_7);
}

// No tile and no barrier: with few lines nothing is read twice often enough to pay for either.
@compute @workgroup_size(16, 4)
fn linear_few_rows(@builtin(global_invocation_id) cell: vec3<u32>) {
    let line = cell.y;
    let out_vec4 = cell.x;
    if line < line_count() && out_vec4 < linear_params.out_vec4s {
        var sum = initial(line, out_vec4);
        let src = src_of(line);
        for (var k = 0u; k < linear_params.in_width; k++) {
            sum = fma(vec4<f32>(arena[src + k]), weights[k * linear_params.out_vec4s + out_vec4], sum);
        }
        finish(line, out_vec4, sum);
    }
}

fn line_count() -> u32 {
    return batch.row_count * linear_params.place_count;
}

fn src_of(line: u32) -> u32 {
    let row = line / linear_params.place_count;
    return linear_params.src_base + row * linear_params.src_stride
        + (line % linear_params.place_count) * linear_params.src_step;
}

fn dst_of(line: u32) -> u32 {
    let row = line / linear_params.place_count;
    return linear_params.dst_base + row * linear_params.dst_stride
        + (line % linear_params.place_count) * linear_params.dst_step;
}

const NOWHERE: u32 = 0xffffffffu;

// Where four lines begin; a line beyond the last one is nowhere.
fn sources(line: u32) -> vec4<u32> {
    let count = line_count();
    return vec4<u32>(
        select(NOWHERE, src_of(line), line < count),
        select(NOWHERE, src_of(line + 1u), line + 1u < count),
        select(NOWHERE, src_of(line + 2u), line + 2u < count),
        select(NOWHERE, src_of(line + 3u), line + 3u < count),
    );
}

fn source_quad(quad: vec4<u32>, k: u32) -> vec4<f32> {
    return vec4<f32>(source(quad.x, k), source(quad.y, k), source(quad.z, k), source(quad.w, k));
}

fn source(first: u32, k: u32) -> f32 {
    if first != NOWHERE && k < linear_params.in_width {
        return arena[first + k];
    }
    return 0.0;
}

fn weight(k: u32, out_vec4: u32) -> vec4<f32> {
    if out_vec4 < linear_params.out_vec4s {
        return weights[k * linear_params.out_vec4s + out_vec4];
    }
    return vec4<f32>();
}

fn initial(line: u32, out_vec4: u32) -> vec4<f32> {
    if line >= line_count() || out_vec4 >= linear_params.out_vec4s {
        return vec4<f32>();
    }
    let bias = weights[linear_params.in_padded * linear_params.out_vec4s + out_vec4];
    if linear_params.accumulates == 0u {
        return bias;
    }
    let out = out_vec4 * 4u;
    let dst = dst_of(line);
    return bias + vec4<f32>(before(dst, out), before(dst, out + 1u), before(dst, out + 2u), before(dst, out + 3u));
}

fn before(dst: u32, out: u32) -> f32 {
    if out < linear_params.out_width {
        return arena[dst + out];
    }
    return 0.0;
}

fn finish(line: u32, out_vec4: u32, sum: vec4<f32>) {
    if line < line_count() {
        let out = out_vec4 * 4u;
        store(line, out, sum.x);
        store(line, out + 1u, sum.y);
        store(line, out + 2u, sum.z);
        store(line, out + 3u, sum.w);
    }
}

fn store(line: u32, out: u32, sum: f32) {
    if out < linear_params.out_width {
        var value = activate(linear_params.activation, linear_params.slope, sum);
        if linear_params.has_mask != 0u {
            // Masked layers are never repeated: a line is a row.
            value *= arena[linear_params.mask_base + line * linear_params.mask_stride + out];
        }
        if linear_params.sinks != 0u {
            sink[dst_of(line) + out] = value;
        } else {
            arena[dst_of(line) + out] = value;
        }
    }
}
