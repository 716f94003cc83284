// moves: dst[i, j] = src[start + i · step + j · step] — copies, reversals, broadcasts, transposes (`move` is reserved).

struct Moves {
    src_base: u32,
    src_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    outer: u32,
    inner: u32,
    start: u32,
    src_outer: i32,
    src_inner: i32,
    dst_outer: u32,
    dst_inner: u32,
    pad_0: u32,
}

struct Batch {
    row_count: u32,
    words_set: u32,
    rows_before: u32,
    sink_stride: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<f32>;
@group(0) @binding(1) var<uniform> moves_params: Moves;
@group(0) @binding(2) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn moves(@builtin(global_invocation_id) cell: vec3<u32>) {
    if cell.x < moves_params.outer * moves_params.inner && cell.y < batch.row_count {
        let i = cell.x / moves_params.inner;
        let j = cell.x % moves_params.inner;
        let source = u32(i32(moves_params.start) + i32(i) * moves_params.src_outer + i32(j) * moves_params.src_inner);
        let target_column = i * moves_params.dst_outer + j * moves_params.dst_inner;
        arena[moves_params.dst_base + cell.y * moves_params.dst_stride + target_column] =
            arena[moves_params.src_base + cell.y * moves_params.src_stride + source];
    }
}
