// pool: dst[w, c] = max or mean of src[t, c] over the steps t of window w; the last window may be short.

struct Pool {
    src_base: u32,
    src_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    dst_width: u32,
    step_count: u32,
    columns: u32,
    window: u32,
    takes_mean: u32,
    pad_0: u32,
    pad_1: u32,
    pad_2: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<f32>;
@group(0) @binding(1) var<uniform> pool_params: Pool;
@group(0) @binding(2) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn pool(@builtin(global_invocation_id) cell: vec3<u32>) {
    if cell.x < pool_params.dst_width && cell.y < batch.row_count {
        let column = cell.x % pool_params.columns;
        let step_first = (cell.x / pool_params.columns) * pool_params.window;
        let step_end = min(step_first + pool_params.window, pool_params.step_count);
        let src = pool_params.src_base + cell.y * pool_params.src_stride + column;
        var largest = arena[src + step_first * pool_params.columns];
        var sum = largest;
        for (var step = step_first + 1u; step < step_end; step++) {
            let value = arena[src + step * pool_params.columns];
            largest = select(largest, value, value > largest);
            sum += value;
        }
        let mean = sum / f32(step_end - step_first);
        arena[pool_params.dst_base + cell.y * pool_params.dst_stride + cell.x] =
            select(largest, mean, pool_params.takes_mean != 0u);
    }
}
