// attention: softmax(Q · Kᵀ + previous) · V per head inside a row; one invocation a head and query.
// Rows of `qkv` are [steps, 3, heads, head_width], of the scores [heads, steps, steps].

struct Attention {
    qkv_base: u32,
    qkv_stride: u32,
    previous_base: u32,
    previous_stride: u32,
    scores_base: u32,
    scores_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    has_previous: u32,
    head_count: u32,
    step_count: u32,
    head_width: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> attention_params: Attention;
@group(0) @binding(2) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn attention(@builtin(global_invocation_id) cell: vec3<u32>) {
    let steps = attention_params.step_count;
    if cell.x < attention_params.head_count * steps && cell.y < batch.row_count {
        let head = cell.x / steps;
        let query = cell.x % steps;
        let width = attention_params.head_width;
        let model = attention_params.head_count * width;
        let qkv = attention_params.qkv_base + cell.y * attention_params.qkv_stride + head * width;
        let q = qkv + query * 3u * model;
        let scores = attention_params.scores_base + cell.y * attention_params.scores_stride + cell.x * steps;
        let previous = attention_params.previous_base + cell.y * attention_params.previous_stride + cell.x * steps;
        let dst = attention_params.dst_base + cell.y * attention_params.dst_stride + query * model + head * width;
        // Whole vectors everywhere.
        let is_whole = (attention_params.qkv_base | attention_params.dst_base | width) % 4u == 0u;

        var top = -3.4e38;
        for (var key = 0u; key < steps; key++) {
            let k = qkv + (key * 3u + 1u) * model;
            var score = 0.0;
            if is_whole {
                for (var c = 0u; c < width; c += 4u) {
                    let a = arena[(q + c) / 4u];
                    let b = arena[(k + c) / 4u];
                    score = fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, score))));
                }
            } else {
                for (var c = 0u; c < width; c++) {
                    score = fma(number(q + c), number(k + c), score);
                }
            }
            if attention_params.has_previous != 0u {
                score += number(previous + key);
            }
            arena[(scores + key) / 4u][(scores + key) % 4u] = score;
            top = select(top, score, score > top);
        }
        var total = 0.0;
        for (var key = 0u; key < steps; key++) {
            total += exp(max(number(scores + key) - top, -87.0));
        }
        // Four columns at a time; those past the last read it again and are dropped.
        for (var c = 0u; c < width; c += 4u) {
            let last = width - 1u;
            let columns = vec4<u32>(c, min(c + 1u, last), min(c + 2u, last), min(c + 3u, last));
            var sum = vec4<f32>();
            for (var key = 0u; key < steps; key++) {
                let share = exp(max(number(scores + key) - top, -87.0)) / total;
                let v = qkv + (key * 3u + 2u) * model;
                var values: vec4<f32>;
                if is_whole {
                    values = arena[(v + c) / 4u];
                } else {
                    values = vec4<f32>(
                        number(v + columns.x),
                        number(v + columns.y),
                        number(v + columns.z),
                        number(v + columns.w),
                    );
                }
                sum = fma(vec4<f32>(share), values, sum);
            }
            if is_whole {
                arena[(dst + c) / 4u] = sum;
            } else {
                for (var lane = 0u; lane < min(4u, width - c); lane++) {
                    arena[(dst + c + lane) / 4u][(dst + c + lane) % 4u] = sum[lane];
                }
            }
        }
    }
}

fn number(at: u32) -> f32 {
    return arena[at / 4u][at % 4u];
}
