// recurrent: an LSTM or GRU layer over the steps of some rows; a workgroup has a row or a few, their state in its memory.
// `weights` holds the state's matrix as [out, units] vectors of a unit's gates, then as many of their bias, then the projection as
// [units, out] and its bias. `recurrent` in Rust declares it for matrices of halves as well, and writes what is for more rows.

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
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;

// A unit's gates from its cell of the matrix.
fn gates(at: u32) -> vec4<f32> {
    return weights[at];
}

// The same of the bias, which `count` cells are before.
fn bias(count: u32, unit: u32) -> vec4<f32> {
    return weights[count + unit];
}

// Number `at` of a matrix which `count` cells and `units` biases are before.
fn projection(count: u32, units: u32, at: u32) -> f32 {
    return weights[count + units + at / 4u][at % 4u];
}

// Number `at` of the bias behind `before` such numbers.
fn projection_bias(count: u32, units: u32, before: u32, at: u32) -> f32 {
    return projection(count, units, before + at);
}
// Ends what is declared for each kind of weights.

alias Rows = f32;
const ROWS: u32 = 1u; // of one value
const SETS: u32 = 1u; // of rows in a workgroup
const WIDTH_MAX: u32 = 1024u;

// The same column of some rows; those that are not there are as the last one.
fn load(base: u32, stride: u32, row: u32, column: u32) -> Rows {
    return arena[base + row * stride + column];
}

fn store(base: u32, stride: u32, row: u32, column: u32, value: Rows) {
    arena[base + row * stride + column] = value;
}

fn sigmoids(x: Rows) -> Rows {
    return sigmoid(x);
}

fn tangents(x: Rows) -> Rows {
    return tangent(x);
}
// Ends what is declared for each number of rows.

const LANES: u32 = 64u;
const AHEAD: u32 = 8u; // cells of the matrix that are on their way at once

// [column][set]
var<workgroup> h: array<Rows, WIDTH_MAX * SETS>;
var<workgroup> c: array<Rows, WIDTH_MAX * SETS>;
var<workgroup> hidden: array<Rows, WIDTH_MAX * SETS>;

@compute @workgroup_size(64)
fn recurrent(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let units = recurrent_params.unit_count;
    let out = recurrent_params.out_width;
    let is_gru = recurrent_params.is_gru != 0u;
    let state_base = recurrent_params.state_base;
    let state_stride = recurrent_params.state_stride;
    let row_first = group.y * ROWS * SETS;
    let goes_on = recurrent_params.resumes != 0u;
    for (var s = 0u; s < SETS; s++) {
        let row = row_first + s * ROWS;
        for (var o = lane; o < out; o += LANES) {
            h[o * SETS + s] = Rows(0.0);
            if goes_on {
                h[o * SETS + s] = load(state_base, state_stride, row, o);
            }
        }
        for (var u = lane; u < units; u += LANES) {
            c[u * SETS + s] = Rows(0.0);
            if goes_on && !is_gru {
                c[u * SETS + s] = load(state_base, state_stride, row, out + u);
            }
        }
    }
    workgroupBarrier();

    for (var step = 0u; step < recurrent_params.step_count; step++) {
        for (var u = lane; u < units; u += LANES) {
            if is_gru {
                gru(u, row_first, step);
            } else {
                lstm(u, row_first, step);
            }
        }
        workgroupBarrier();
        for (var o = lane; o < out; o += LANES) {
            for (var s = 0u; s < SETS; s++) {
                var value = hidden[o * SETS + s];
                if recurrent_params.has_projection != 0u {
                    value = projected(o, s);
                }
                h[o * SETS + s] = value;
                let row = row_first + s * ROWS;
                store(recurrent_params.dst_base, recurrent_params.dst_stride, row, step * out + o, value);
            }
        }
        workgroupBarrier();
    }

    for (var s = 0u; s < SETS; s++) {
        let row = row_first + s * ROWS;
        for (var o = lane; o < out; o += LANES) {
            store(state_base, state_stride, row, o, h[o * SETS + s]);
        }
        if !is_gru {
            for (var u = lane; u < units; u += LANES) {
                store(state_base, state_stride, row, out + u, c[u * SETS + s]);
            }
        }
    }
}

// What the input adds to a gate.
fn given(row: u32, column: u32) -> Rows {
    return load(recurrent_params.gates_base, recurrent_params.gates_stride, row, column);
}

fn lstm(u: u32, row_first: u32, step: u32) {
    let units = recurrent_params.unit_count;
    let out = recurrent_params.out_width;
    // Asked for before it is needed: it comes from far away.
    let column = step * 4u * units + u;
    var given_i: array<Rows, SETS>;
    var given_f: array<Rows, SETS>;
    var given_g: array<Rows, SETS>;
    var given_o: array<Rows, SETS>;
    var own_i: array<Rows, SETS>;
    var own_f: array<Rows, SETS>;
    var own_g: array<Rows, SETS>;
    var own_o: array<Rows, SETS>;
    let b = bias(out * units, u);
    for (var s = 0u; s < SETS; s++) {
        let row = row_first + s * ROWS;
        given_i[s] = given(row, column);
        given_f[s] = given(row, column + units);
        given_g[s] = given(row, column + 2u * units);
        given_o[s] = given(row, column + 3u * units);
        own_i[s] = Rows(b.x);
        own_f[s] = Rows(b.y);
        own_g[s] = Rows(b.z);
        own_o[s] = Rows(b.w);
    }
    var k = 0u;
    for (; k + AHEAD <= out; k += AHEAD) {
        var w: array<vec4<f32>, AHEAD>;
        for (var j = 0u; j < AHEAD; j++) {
            w[j] = gates((k + j) * units + u);
        }
        for (var j = 0u; j < AHEAD; j++) {
            for (var s = 0u; s < SETS; s++) {
                let x = h[(k + j) * SETS + s];
                own_i[s] = fma(x, Rows(w[j].x), own_i[s]);
                own_f[s] = fma(x, Rows(w[j].y), own_f[s]);
                own_g[s] = fma(x, Rows(w[j].z), own_g[s]);
                own_o[s] = fma(x, Rows(w[j].w), own_o[s]);
            }
        }
    }
    for (; k < out; k++) {
        let w = gates(k * units + u);
        for (var s = 0u; s < SETS; s++) {
            let x = h[k * SETS + s];
            own_i[s] = fma(x, Rows(w.x), own_i[s]);
            own_f[s] = fma(x, Rows(w.y), own_f[s]);
            own_g[s] = fma(x, Rows(w.z), own_g[s]);
            own_o[s] = fma(x, Rows(w.w), own_o[s]);
        }
    }
    for (var s = 0u; s < SETS; s++) {
        let input_gate = sigmoids(own_i[s] + given_i[s]);
        let forget_gate = sigmoids(own_f[s] + given_f[s]);
        let candidate = tangents(own_g[s] + given_g[s]);
        let output_gate = sigmoids(own_o[s] + given_o[s]);
        let cell = fma(input_gate, candidate, forget_gate * c[u * SETS + s]);
        c[u * SETS + s] = cell;
        hidden[u * SETS + s] = output_gate * tangents(cell);
    }
}

fn gru(u: u32, row_first: u32, step: u32) {
    let units = recurrent_params.unit_count;
    let out = recurrent_params.out_width;
    let column = step * 3u * units + u;
    var given_r: array<Rows, SETS>;
    var given_z: array<Rows, SETS>;
    var given_n: array<Rows, SETS>;
    var own_r: array<Rows, SETS>;
    var own_z: array<Rows, SETS>;
    var own_n: array<Rows, SETS>;
    let b = bias(out * units, u);
    for (var s = 0u; s < SETS; s++) {
        let row = row_first + s * ROWS;
        given_r[s] = given(row, column);
        given_z[s] = given(row, column + units);
        given_n[s] = given(row, column + 2u * units);
        own_r[s] = Rows(b.x);
        own_z[s] = Rows(b.y);
        own_n[s] = Rows(b.z);
    }
    var k = 0u;
    for (; k + AHEAD <= out; k += AHEAD) {
        var w: array<vec4<f32>, AHEAD>;
        for (var j = 0u; j < AHEAD; j++) {
            w[j] = gates((k + j) * units + u);
        }
        for (var j = 0u; j < AHEAD; j++) {
            for (var s = 0u; s < SETS; s++) {
                let x = h[(k + j) * SETS + s];
                own_r[s] = fma(x, Rows(w[j].x), own_r[s]);
                own_z[s] = fma(x, Rows(w[j].y), own_z[s]);
                own_n[s] = fma(x, Rows(w[j].z), own_n[s]);
            }
        }
    }
    for (; k < out; k++) {
        let w = gates(k * units + u);
        for (var s = 0u; s < SETS; s++) {
            let x = h[k * SETS + s];
            own_r[s] = fma(x, Rows(w.x), own_r[s]);
            own_z[s] = fma(x, Rows(w.y), own_z[s]);
            own_n[s] = fma(x, Rows(w.z), own_n[s]);
        }
    }
    for (var s = 0u; s < SETS; s++) {
        let reset = sigmoids(own_r[s] + given_r[s]);
        let update = sigmoids(own_z[s] + given_z[s]);
        let candidate = tangents(fma(reset, own_n[s], given_n[s]));
        hidden[u * SETS + s] = fma(update, h[u * SETS + s] - candidate, candidate);
    }
}

fn projected(o: u32, s: u32) -> Rows {
    let units = recurrent_params.unit_count;
    let out = recurrent_params.out_width;
    let count = out * units;
    var sum = Rows(projection_bias(count, units, count, o));
    for (var k = 0u; k < units; k++) {
        sum = fma(hidden[k * SETS + s], Rows(projection(count, units, k * out + o)), sum);
    }
    return sum;
}
