// moves: dst[j] = src[start + j · step] — copies, reversals and broadcasts of columns (`move` is reserved in WGSL).

struct Moves {
    src_base: u32,
    src_stride: u32,
    dst_base: u32,
    dst_stride: u32,
    dst_width: u32,
    start: u32,
    step: i32,
    pad_0: u32,
}

struct Batch {
    row_count: u32,
    pad_0: u32,
    pad_1: u32,
    pad_2: u32,
}

@group(0) @binding(0) var<storage, read_write> arena: array<f32>;
@group(0) @binding(1) var<uniform> moves_params: Moves;
@group(0) @binding(2) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn moves(@builtin(global_invocation_id) cell: vec3<u32>) {
    if cell.x < moves_params.dst_width && cell.y < batch.row_count {
        let column = u32(i32(moves_params.start) + i32(cell.x) * moves_params.step);
        arena[moves_params.dst_base + cell.y * moves_params.dst_stride + cell.x] =
            arena[moves_params.src_base + cell.y * moves_params.src_stride + column];
    }
}
