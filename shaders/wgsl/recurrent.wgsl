// recurrent: an LSTM or GRU layer over the steps of a row; one workgroup a row, the state in workgroup memory.
// `weights` holds the state's matrix as [out, gates · units] and its bias, then the projection as [units, out] and its; the
// matrices as words or, two in a word, as halves.

struct Recurrent {
    gates_base: u32,
    gates_stride: u32,
    state_base: u32,
    state_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    step_count: u32,
    unit_count: u32,
    out_width: u32,
    is_gru: u32,
    resumes: u32,
    has_projection: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<f32>;
@group(0) @binding(1) var<uniform> recurrent_params: Recurrent;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(3) var<storage, read> weights: array<u32>;

const HALF: bool = false;
const WIDTH_MAX: u32 = 1024u;
const LANES: u32 = 64u;

var<workgroup> h: array<f32, WIDTH_MAX>;
var<workgroup> c: array<f32, WIDTH_MAX>;
var<workgroup> hidden: array<f32, WIDTH_MAX>;

@compute @workgroup_size(64)
fn recurrent(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let units = recurrent_params.unit_count;
    let out = recurrent_params.out_width;
    let is_gru = recurrent_params.is_gru != 0u;
    let gate_count = select(4u, 3u, is_gru);
    let state = recurrent_params.state_base + group.y * recurrent_params.state_stride;
    let dst = recurrent_params.dst_base + group.y * recurrent_params.dst_stride;
    let goes_on = recurrent_params.resumes != 0u;
    for (var o = lane; o < out; o += LANES) {
        h[o] = 0.0;
        if goes_on {
            h[o] = arena[state + o];
        }
    }
    for (var u = lane; u < units; u += LANES) {
        c[u] = 0.0;
        if goes_on && !is_gru {
            c[u] = arena[state + out + u];
        }
    }
    workgroupBarrier();

    for (var step = 0u; step < recurrent_params.step_count; step++) {
        let given = recurrent_params.gates_base + group.y * recurrent_params.gates_stride + step * gate_count * units;
        for (var u = lane; u < units; u += LANES) {
            if is_gru {
                hidden[u] = gru(u, given);
            } else {
                hidden[u] = lstm(u, given);
            }
        }
        workgroupBarrier();
        for (var o = lane; o < out; o += LANES) {
            var value = 0.0;
            if recurrent_params.has_projection != 0u {
                value = projected(o);
            } else {
                value = hidden[o];
            }
            h[o] = value;
            arena[dst + step * out + o] = value;
        }
        workgroupBarrier();
    }

    for (var o = lane; o < out; o += LANES) {
        arena[state + o] = h[o];
    }
    if !is_gru {
        for (var u = lane; u < units; u += LANES) {
            arena[state + out + u] = c[u];
        }
    }
}

// Number `at` of the matrix that begins at a word.
fn weight(matrix: u32, at: u32) -> f32 {
    if HALF {
        return unpack2x16float(weights[matrix + at / 2u])[at % 2u];
    }
    return bitcast<f32>(weights[matrix + at]);
}

// Words of a matrix, behind which its bias lies.
fn words(count: u32) -> u32 {
    return select(count, (count + 1u) / 2u, HALF);
}

fn bias(at: u32) -> f32 {
    return bitcast<f32>(weights[at]);
}

fn lstm(u: u32, given: u32) -> f32 {
    let units = recurrent_params.unit_count;
    let width = 4u * units;
    let b = words(recurrent_params.out_width * width) + u;
    var own = vec4<f32>(bias(b), bias(b + units), bias(b + 2u * units), bias(b + 3u * units));
    for (var k = 0u; k < recurrent_params.out_width; k++) {
        let w = k * width + u;
        let row = vec4<f32>(
            weight(0u, w),
            weight(0u, w + units),
            weight(0u, w + 2u * units),
            weight(0u, w + 3u * units),
        );
        own = fma(vec4<f32>(h[k]), row, own);
    }
    let input_gate = sigmoid(own.x + arena[given + u]);
    let forget_gate = sigmoid(own.y + arena[given + units + u]);
    let candidate = tangent(own.z + arena[given + 2u * units + u]);
    let output_gate = sigmoid(own.w + arena[given + 3u * units + u]);
    c[u] = fma(input_gate, candidate, forget_gate * c[u]);
    return output_gate * tangent(c[u]);
}

fn gru(u: u32, given: u32) -> f32 {
    let units = recurrent_params.unit_count;
    let width = 3u * units;
    let b = words(recurrent_params.out_width * width) + u;
    var own = vec3<f32>(bias(b), bias(b + units), bias(b + 2u * units));
    for (var k = 0u; k < recurrent_params.out_width; k++) {
        let w = k * width + u;
        let row = vec3<f32>(weight(0u, w), weight(0u, w + units), weight(0u, w + 2u * units));
        own = fma(vec3<f32>(h[k]), row, own);
    }
    let reset = sigmoid(own.x + arena[given + u]);
    let update = sigmoid(own.y + arena[given + units + u]);
    let candidate = tangent(fma(reset, own.z, arena[given + 2u * units + u]));
    return fma(update, h[u] - candidate, candidate);
}

fn projected(o: u32) -> f32 {
    let units = recurrent_params.unit_count;
    let out = recurrent_params.out_width;
    let matrix = words(out * 4u * units) + 4u * units;
    var sum = bias(matrix + words(units * out) + o);
    for (var k = 0u; k < units; k++) {
        sum = fma(hidden[k], weight(matrix, k * out + o), sum);
    }
    return sum;
}
