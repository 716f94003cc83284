// linear: dst = activation(init + src · Wᵀ) · mask over a batch of rows, tiled for many and plain for few.
//
// Every output is one fma chain that starts at its init and takes the input columns in rising order, in both entry
// points: a row's result has the same bits whoever its batch mates are.
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

const RELU: u32 = 1u;
const SOFTPLUS: u32 = 2u;
const TANH: u32 = 3u;
const SELU: u32 = 4u;
const LEAKY: u32 = 5u;
const SIGMOID: u32 = 6u;

// Many rows: 64 rows × 64 outputs by 16 × 8 invocations, each 8 rows × one vec4 of outputs.
const TILE_ROWS: u32 = 64u;
const TILE_VEC4S: u32 = 16u;
const TILE_DEPTH: u32 = 16u;

var<workgroup> src_tile: array<vec4<f32>, 256>; // [TILE_DEPTH][TILE_ROWS / 4]
var<workgroup> weight_tile: array<vec4<f32>, 256>; // [TILE_DEPTH][TILE_VEC4S]

@compute @workgroup_size(16, 8)
fn linear(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row_first = tile.y * TILE_ROWS + local.y * 8u;
    let out_vec4 = tile.x * TILE_VEC4S + local.x;
    var sum_0 = initial(row_first, out_vec4);
    var sum_1 = initial(row_first + 1u, out_vec4);
    var sum_2 = initial(row_first + 2u, out_vec4);
    var sum_3 = initial(row_first + 3u, out_vec4);
    var sum_4 = initial(row_first + 4u, out_vec4);
    var sum_5 = initial(row_first + 5u, out_vec4);
    var sum_6 = initial(row_first + 6u, out_vec4);
    var sum_7 = initial(row_first + 7u, out_vec4);
    for (var k_first = 0u; k_first < linear_params.in_padded; k_first += TILE_DEPTH) {
        // Two cells of each tile an invocation; neighbours read neighbouring columns.
        for (var half = 0u; half < 2u; half++) {
            let cell = index + half * 128u;
            let k_src = cell % TILE_DEPTH;
            let row_quad = cell / TILE_DEPTH;
            let row = tile.y * TILE_ROWS + row_quad * 4u;
            src_tile[k_src * 16u + row_quad] = vec4<f32>(
                source(row, k_first + k_src),
                source(row + 1u, k_first + k_src),
                source(row + 2u, k_first + k_src),
                source(row + 3u, k_first + k_src),
            );
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
    finish(row_first, out_vec4, sum_0);
    finish(row_first + 1u, out_vec4, sum_1);
    finish(row_first + 2u, out_vec4, sum_2);
    finish(row_first + 3u, out_vec4, sum_3);
    finish(row_first + 4u, out_vec4, sum_4);
    finish(row_first + 5u, out_vec4, sum_5);
    finish(row_first + 6u, out_vec4, sum_6);
    finish(row_first + 7u, out_vec4, sum_7);
}

// No tile and no barrier: with few rows nothing is read twice often enough to pay for either.
@compute @workgroup_size(16, 4)
fn linear_few_rows(@builtin(global_invocation_id) cell: vec3<u32>) {
    let row = cell.y;
    let out_vec4 = cell.x;
    if row < batch.row_count && out_vec4 < linear_params.out_vec4s {
        var sum = initial(row, out_vec4);
        let src = linear_params.src_base + row * linear_params.src_stride;
        for (var k = 0u; k < linear_params.in_width; k++) {
            sum = fma(vec4<f32>(arena[src + k]), weights[k * linear_params.out_vec4s + out_vec4], sum);
        }
        finish(row, out_vec4, sum);
    }
}

fn source(row: u32, k: u32) -> f32 {
    if row < batch.row_count && k < linear_params.in_width {
        return arena[linear_params.src_base + row * linear_params.src_stride + k];
    }
    return 0.0;
}

fn weight(k: u32, out_vec4: u32) -> vec4<f32> {
    if out_vec4 < linear_params.out_vec4s {
        return weights[k * linear_params.out_vec4s + out_vec4];
    }
    return vec4<f32>();
}

fn initial(row: u32, out_vec4: u32) -> vec4<f32> {
    if row >= batch.row_count || out_vec4 >= linear_params.out_vec4s {
        return vec4<f32>();
    }
    let bias = weights[linear_params.in_padded * linear_params.out_vec4s + out_vec4];
    if linear_params.accumulates == 0u {
        return bias;
    }
    let out = out_vec4 * 4u;
    return bias + vec4<f32>(before(row, out), before(row, out + 1u), before(row, out + 2u), before(row, out + 3u));
}

fn before(row: u32, out: u32) -> f32 {
    if out < linear_params.out_width {
        return arena[linear_params.dst_base + row * linear_params.dst_stride + out];
    }
    return 0.0;
}

fn finish(row: u32, out_vec4: u32, sum: vec4<f32>) {
    let out = out_vec4 * 4u;
    store(row, out, sum.x);
    store(row, out + 1u, sum.y);
    store(row, out + 2u, sum.z);
    store(row, out + 3u, sum.w);
}

fn store(row: u32, out: u32, sum: f32) {
    if row < batch.row_count && out < linear_params.out_width {
        var value = activate(sum);
        if linear_params.has_mask != 0u {
            value *= arena[linear_params.mask_base + row * linear_params.mask_stride + out];
        }
        arena[linear_params.dst_base + row * linear_params.dst_stride + out] = value;
    }
}

fn activate(x: f32) -> f32 {
    switch linear_params.activation {
        case RELU: { return select(x, 0.0, x < 0.0); }
        case SOFTPLUS: { return softplus(x); }
        case TANH: { return tanh(clamp(x, -15.0, 15.0)); } // already 1.0 in f32 there; some drivers give NaN further out
        case SELU: { return 1.0507009873554805 * select(1.6732632423543772 * exp_m1(x), x, x > 0.0); }
        case LEAKY: { return select(linear_params.slope * x, x, x > 0.0); }
        case SIGMOID: { return 1.0 / (1.0 + exp(clamp(-x, -87.0, 87.0))); }
        default: { return x; }
    }
}

// ln(1 + exp x). Below −4 a short series in exp x, because 1 + exp x has lost its digits there.
fn softplus(x: f32) -> f32 {
    let e = exp(clamp(x, -87.0, 20.0));
    let near = select(log(1.0 + e), e * (1.0 - e * (0.5 - e * 0.33333334)), x < -4.0);
    return select(near, x, x > 20.0);
}

// exp x − 1 for x ≤ 0: a series near zero, where the difference would lose its digits.
fn exp_m1(x: f32) -> f32 {
    let series = x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * 0.008333334))));
    return select(exp(clamp(x, -87.0, 0.0)) - 1.0, series, x > -0.25);
}
