// linear: dst = activation(init + src · Wᵀ) · mask over a batch of rows. Here for a few of them; `tiles` in Rust writes
// the entry points for many, which share all functions below.
//
// Every output is summed the same way everywhere, so that a row's result has the same bits whoever its batch mates
// are: slices of `slice_len` input columns, each one fma chain from zero in rising order, added up in rising order of
// the slices, and last the init.
// A layer that is repeated inside a row has a line at every place: "line" below is row · places + place. Where all lines of a
// batch lie at even steps there is one place, and the strides are those steps.
// `weights` holds the matrix transposed and padded, `[in_padded, out_vec4s]` of vec4, then the bias, `[out_vec4s]`. `variants`
// in Rust declares it for matrices of halves as well: those are multiplied as f32, but for cooperative matrices.

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
    slice_len: u32,
    row_lines: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> linear_params: Linear;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(4) var<storage, read_write> sink: array<vec4<f32>>; // what the host reads
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;

fn weight(at: u32) -> vec4<f32> {
    return weights[at];
}

fn bias(out_vec4: u32) -> vec4<f32> {
    return weights[linear_params.in_padded * linear_params.out_vec4s + out_vec4];
}
// Ends what is declared for each kind of weights.

const LINES: u32 = 4u; // of one workgroup
const SLICES: u32 = 32u; // no layer has more
const VEC4S: u32 = 4u;
// Whether the layer has whole vectors everywhere, and whether its lines lie at even steps and are bent at zero if at all as
// well. The rest is code that only costs time to be fetched.
const WHOLE: bool = false;
const PLAIN: bool = false;
const EACH: u32 = 128u; // invocations of a workgroup,
const EACH_LINES: u32 = 4u; // and lines of each of them

var<workgroup> partials: array<vec4<f32>, LINES * SLICES * VEC4S>;

// Few lines: there is nothing to share but the weights, so the input columns are dealt out instead.
@compute @workgroup_size(VEC4S, SLICES)
fn linear(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let out_vec4s = linear_params.out_vec4s;
    let out_vec4 = min(tile.x * VEC4S + local.x, out_vec4s - 1u);
    let line_last = line_count() - 1u;
    let init = bias(out_vec4);
    var srcs: array<u32, LINES>;
    var sums: array<vec4<f32>, LINES>;
    for (var l = 0u; l < LINES; l++) {
        srcs[l] = src_of(min(tile.y * LINES + l, line_last));
        sums[l] = vec4<f32>();
    }
    let k_first = local.y * linear_params.slice_len;
    let k_end = min(k_first + linear_params.slice_len, linear_params.in_padded);
    for (var k_tile = k_first; k_tile < k_end; k_tile += 16u) {
        for (var quad = 0u; quad < 4u; quad++) {
            let k = k_tile + quad * 4u;
            let at = k * out_vec4s + out_vec4;
            let w_0 = weight(at);
            let w_1 = weight(at + out_vec4s);
            let w_2 = weight(at + 2u * out_vec4s);
            let w_3 = weight(at + 3u * out_vec4s);
            for (var l = 0u; l < LINES; l++) {
                let x = source(srcs[l], k);
                var sum = fma(vec4<f32>(x.x), w_0, sums[l]);
                sum = fma(vec4<f32>(x.y), w_1, sum);
                sum = fma(vec4<f32>(x.z), w_2, sum);
                sums[l] = fma(vec4<f32>(x.w), w_3, sum);
            }
        }
    }
    for (var l = 0u; l < LINES; l++) {
        partials[(l * SLICES + local.y) * VEC4S + local.x] = sums[l];
    }
    workgroupBarrier();
    if local.y < LINES {
        let line = tile.y * LINES + local.y;
        let slice_count = (linear_params.in_padded + linear_params.slice_len - 1u) / linear_params.slice_len;
        var total = vec4<f32>();
        for (var slice = 0u; slice < slice_count; slice++) {
            total += partials[(local.y * SLICES + slice) * VEC4S + local.x];
        }
        finish(line, tile.x * VEC4S + local.x, init, total);
    }
}

// Thin layers, which have too little to share: an invocation has one vector of outputs of a few lines.
@compute @workgroup_size(EACH)
fn linear_each(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let out_vec4s = linear_params.out_vec4s;
    let across = min(out_vec4s, EACH);
    let down = EACH / across;
    let out_vec4 = tile.x * across + index % across;
    let out_here = min(out_vec4, out_vec4s - 1u);
    let line_last = line_count() - 1u;
    let line_first = tile.y * down * EACH_LINES + index / across;
    let is_spare = index / across >= down;
    let init = bias(out_here);
    var srcs: array<u32, EACH_LINES>;
    var totals: array<vec4<f32>, EACH_LINES>;
    for (var l = 0u; l < EACH_LINES; l++) {
        srcs[l] = src_of(min(line_first + l * down, line_last));
        totals[l] = vec4<f32>();
    }
    for (var k_first = 0u; k_first < linear_params.in_width; k_first += linear_params.slice_len) {
        var sums: array<vec4<f32>, EACH_LINES>;
        for (var l = 0u; l < EACH_LINES; l++) {
            sums[l] = vec4<f32>();
        }
        let k_end = min(k_first + linear_params.slice_len, linear_params.in_width);
        var k = k_first;
        // Written out, so that what four of them need is on its way at once.
        for (; k + 16u <= k_end; k += 16u) {
            for (var quad = 0u; quad < 4u; quad++) {
                add_quad(&srcs, k + quad * 4u, out_here, &sums);
            }
        }
        for (; k < k_end; k += 4u) {
            if k + 1u == linear_params.in_width {
                // Of a single input, which many series have, nothing else is to be fetched.
                let w = weight(k * out_vec4s + out_here);
                for (var l = 0u; l < EACH_LINES; l++) {
                    let at = srcs[l] + k;
                    sums[l] = fma(vec4<f32>(arena[at / 4u][at % 4u]), w, sums[l]);
                }
            } else {
                add_quad(&srcs, k, out_here, &sums);
            }
        }
        for (var l = 0u; l < EACH_LINES; l++) {
            totals[l] += sums[l];
        }
    }
    for (var l = 0u; l < EACH_LINES; l++) {
        finish(select(line_first + l * down, line_last + 1u, is_spare), out_vec4, init, totals[l]);
    }
}

// Four more input columns of some lines.
fn add_quad(
    srcs: ptr<function, array<u32, EACH_LINES>>,
    k: u32,
    out_vec4: u32,
    sums: ptr<function, array<vec4<f32>, EACH_LINES>>,
) {
    let out_vec4s = linear_params.out_vec4s;
    let at = k * out_vec4s + out_vec4;
    let w_0 = weight(at);
    let w_1 = weight(at + out_vec4s);
    let w_2 = weight(at + 2u * out_vec4s);
    let w_3 = weight(at + 3u * out_vec4s);
    for (var l = 0u; l < EACH_LINES; l++) {
        let x = source((*srcs)[l], k);
        var sum = fma(vec4<f32>(x.x), w_0, (*sums)[l]);
        sum = fma(vec4<f32>(x.y), w_1, sum);
        sum = fma(vec4<f32>(x.z), w_2, sum);
        (*sums)[l] = fma(vec4<f32>(x.w), w_3, sum);
    }
}

fn line_count() -> u32 {
    return batch.row_count * linear_params.row_lines;
}

fn src_of(line: u32) -> u32 {
    if PLAIN || linear_params.place_count == 1u {
        return linear_params.src_base + line * linear_params.src_stride;
    }
    let row = line / linear_params.place_count;
    return linear_params.src_base + row * linear_params.src_stride
        + (line % linear_params.place_count) * linear_params.src_step;
}

fn dst_of(line: u32) -> u32 {
    if PLAIN || linear_params.place_count == 1u {
        return linear_params.dst_base + line * linear_params.dst_stride;
    }
    let row = line / linear_params.place_count;
    return linear_params.dst_base + row * linear_params.dst_stride
        + (line % linear_params.place_count) * linear_params.dst_step;
}

// Four cells, the last of which may belong to something else.
fn quad_at(at: u32) -> vec4<f32> {
    if WHOLE || at % 4u == 0u {
        return arena[at / 4u];
    }
    return vec4<f32>(
        arena[at / 4u][at % 4u],
        arena[(at + 1u) / 4u][(at + 1u) % 4u],
        arena[(at + 2u) / 4u][(at + 2u) % 4u],
        arena[(at + 3u) / 4u][(at + 3u) % 4u],
    );
}

// Four cells from where two numbers together say, both of them whole vectors if the layer is whole.
fn places(base: u32, more: u32) -> vec4<f32> {
    if WHOLE {
        return arena[base / 4u + more / 4u];
    }
    return quad_at(base + more);
}

// Input columns k .. k + 4 of a line, zeros beyond the last.
fn source(src: u32, k: u32) -> vec4<f32> {
    return within(quad_at(src + k), k);
}

// What was read of input columns k .. k + 4, zeros beyond the last.
fn within(x: vec4<f32>, k: u32) -> vec4<f32> {
    if WHOLE {
        return select(vec4<f32>(), x, k < linear_params.in_width);
    }
    if k + 4u <= linear_params.in_width {
        return x;
    }
    return select(vec4<f32>(), x, vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(linear_params.in_width));
}

// Adds the init, of which the bias is there, to the sum of the slices, and so on; nothing where line or outputs do not exist.
fn finish(line: u32, out_vec4: u32, bias_here: vec4<f32>, total: vec4<f32>) {
    if line < line_count() && out_vec4 < linear_params.out_vec4s {
        let out = out_vec4 * 4u;
        let at = dst_of(line) + out;
        var init = bias_here;
        if linear_params.accumulates != 0u {
            init += quad_at(at);
        }
        var value = bend(total + init);
        if linear_params.has_mask != 0u {
            // Masked layers are never repeated: a line is a row.
            value *= quad_at(linear_params.mask_base + line * linear_params.mask_stride + out);
        }
        if WHOLE || at % 4u == 0u && out + 4u <= linear_params.out_width {
            if linear_params.sinks != 0u {
                sink[at / 4u] = value;
            } else {
                arena[at / 4u] = value;
            }
        } else {
            store(at, out, value.x);
            store(at + 1u, out + 1u, value.y);
            store(at + 2u, out + 2u, value.z);
            store(at + 3u, out + 3u, value.w);
        }
    }
}

fn store(at: u32, out: u32, value: f32) {
    if out < linear_params.out_width {
        if linear_params.sinks != 0u {
            sink[at / 4u][at % 4u] = value;
        } else {
            arena[at / 4u][at % 4u] = value;
        }
    }
}

fn bend(x: vec4<f32>) -> vec4<f32> {
    let slope = linear_params.slope;
    if !PLAIN {
        let kind = linear_params.activation;
        if kind == IDENTITY {
            return x;
        }
        return vec4<f32>(
            activate(kind, slope, x.x),
            activate(kind, slope, x.y),
            activate(kind, slope, x.z),
            activate(kind, slope, x.w),
        );
    }
    switch linear_params.activation {
        case RELU: { return select(x, vec4<f32>(), x < vec4<f32>()); }
        case LEAKY: { return select(slope * x, x, x > vec4<f32>()); }
        default: { return x; }
    }
}
