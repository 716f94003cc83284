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

@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> affine_params: Affine;
@group(0) @binding(2) var<uniform> batch: Batch;
@group(0) @binding(3) var<storage, read> weights: array<f32>;

// An invocation has four columns, whole vectors where they lie so.
@compute @workgroup_size(64)
fn affine(@builtin(global_invocation_id) cell: vec3<u32>) {
    let first = cell.x * 4u;
    if first < affine_params.width && cell.y < batch.row_count {
        let src = affine_params.src_base + cell.y * affine_params.src_stride + first;
        let dst = affine_params.dst_base + cell.y * affine_params.dst_stride + first;
        let add = affine_params.add_base + cell.y * affine_params.add_stride + first;
        let is_whole = (src | dst | add | affine_params.width) % 4u == 0u;
        if is_whole && affine_params.period % 4u == 0u {
            let c = first % affine_params.period;
            let shift = c + affine_params.period;
            whole(
                src,
                dst,
                add,
                vec4<f32>(weights[c], weights[c + 1u], weights[c + 2u], weights[c + 3u]),
                vec4<f32>(weights[shift], weights[shift + 1u], weights[shift + 2u], weights[shift + 3u]),
            );
        } else if is_whole && affine_params.period == 1u {
            whole(src, dst, add, vec4<f32>(weights[0]), vec4<f32>(weights[1]));
        } else {
            for (var i = 0u; i < min(4u, affine_params.width - first); i++) {
                let c = (first + i) % affine_params.period;
                let sum = fma(number(src + i), weights[c], weights[affine_params.period + c]);
                var value = activate(affine_params.activation, affine_params.slope, sum);
                if affine_params.has_add != 0u {
                    value += number(add + i);
                }
                arena[(dst + i) / 4u][(dst + i) % 4u] = value;
            }
        }
    }
}

fn number(at: u32) -> f32 {
    return arena[at / 4u][at % 4u];
}

fn whole(src: u32, dst: u32, add: u32, scale: vec4<f32>, shift: vec4<f32>) {
    let sum = fma(arena[src / 4u], scale, shift);
    let kind = affine_params.activation;
    let slope = affine_params.slope;
    var value = vec4<f32>(
        activate(kind, slope, sum.x),
        activate(kind, slope, sum.y),
        activate(kind, slope, sum.z),
        activate(kind, slope, sum.w),
    );
    if affine_params.has_add != 0u {
        value += arena[add / 4u];
    }
    arena[dst / 4u] = value;
}
