//! Writes the entry point of a layer over many lines by cooperative matrices: a subgroup multiplies 16 × 16 halves at a
//! time and sums in f32, in units of the device that do nothing else (`SPV_KHR_cooperative_matrix`).
//!
//! Text, for the reasons of [`tiles`](super::tiles), and appended to linear.wgsl in the same way. Inputs are rounded to
//! halves on their way into workgroup memory, unless they lie in the arena as such. All control flow around a product is the
//! same for all invocations.

use std::fmt::Write;

use super::halved::Halved;
use super::weights::HALF_TILE_DEPTH;

/// Lines, outputs and input columns of one product.
pub(super) const SIDE: usize = 16;
/// Vectors of four between the ends of a row and the next: eight rows then lie in different banks.
const GAP: usize = 2;

/// What a module with such an entry point begins with.
pub(super) const ENABLE: &str = "enable f16;\nenable wgpu_cooperative_matrix;\n";

/// What layers with halves in the arena have besides.
const HALVES: &str = "
// The arena once more: where a row of halves begins it would begin as f32.
@group(0) @binding(6) var<storage, read_write> halves: array<vec4<f16>>;

// As `finish` of a layer without init and mask.
fn finish_halves(line: u32, out_vec4: u32, bias_here: vec4<f32>, total: vec4<f32>) {
    if line < line_count() && out_vec4 < linear_params.out_vec4s {
        halves[dst_of(line) / 2u + out_vec4] = vec4<f16>(bend(total + bias_here));
    }
}";

/// The shape of a workgroup's tile, and of the part of it that one subgroup has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Entry point.
    pub(super) name: &'static str,
    pub(super) lines: usize,
    pub(super) outputs: usize,
    /// Input columns in workgroup memory at a time.
    depth: usize,
    /// Lines and outputs of a subgroup.
    part: [usize; 2],
}

/// Several workgroups fit a multiprocessor: for layers that have few tiles.
pub(super) const SMALL: Tile =
    Tile { name: "linear_small_matrices", lines: 64, outputs: 64, depth: 64, part: [16, 32] };
/// Half the traffic for the same products.
pub(super) const LARGE: Tile =
    Tile { name: "linear_large_matrices", lines: 128, outputs: 128, depth: 64, part: [64, 32] };

const _: () = assert!(
    HALF_TILE_DEPTH.is_multiple_of(SMALL.depth) && HALF_TILE_DEPTH.is_multiple_of(LARGE.depth),
    "no loop has a remainder"
);

impl Tile {
    /// For subgroups of `lanes` invocations.
    pub(super) fn wgsl(self, lanes: usize, halved: Halved) -> String {
        let mut text = String::new();
        self.write(&mut text, lanes, halved).expect("a string takes any text");
        text
    }

    fn write(self, to: &mut String, lanes: usize, halved: Halved) -> std::fmt::Result {
        let Self { name, lines, outputs, depth, part: [part_lines, part_outputs] } = self;
        let across = outputs / part_outputs;
        let subgroups = lines / part_lines * across;
        let invocations = subgroups * lanes;
        let (depth4, outputs4) = (depth / 4, outputs / 4);
        let (src_row, weight_row) = (depth4 + GAP, outputs4 + GAP);
        let (src_cells, weight_cells) = (lines * src_row, depth * weight_row);
        let [src_loads, weight_loads] = [lines * depth4, depth * outputs4].map(|cells| cells / invocations);
        assert_eq!(src_loads * invocations, lines * depth4, "whole loads");
        assert_eq!(weight_loads * invocations, depth * outputs4, "whole loads");
        let (tall, wide) = (part_lines / SIDE, part_outputs / SIDE);
        if halved.index().is_some() {
            writeln!(to, "{HALVES}")?;
        }
        let (src_type, finish) =
            (if halved.src { "f16" } else { "f32" }, if halved.dst { "finish_halves" } else { "finish" });
        writeln!(
            to,
            "
var<workgroup> {name}_src: array<vec4<f16>, {src_cells}>; // [line][k / 4], with gaps
var<workgroup> {name}_weights: array<vec4<f16>, {weight_cells}>; // [k][output / 4], with gaps
var<workgroup> {name}_sums: array<f32, {sums}>; // a product's a subgroup

@compute @workgroup_size({invocations})
fn {name}(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) index: u32) {{
    let out_vec4s = linear_params.out_vec4s;
    let line_last = line_count() - 1u;
    let subgroup = index / {lanes}u;
    let lane = index % {lanes}u;
    let part_line = subgroup / {across}u * {part_lines}u;
    let part_out = subgroup % {across}u * {part_outputs}u;
    var k_load = 0u;",
            sums = subgroups * SIDE * SIDE,
        )?;
        for i in 0..src_loads {
            let cell = i * invocations;
            writeln!(
                to,
                "    let src_row_{i} = (index + {cell}u) / {depth4}u;
    let src_k_{i} = (index + {cell}u) % {depth4}u * 4u;
    let src_{i} = src_of(min(tile.y * {lines}u + src_row_{i}, line_last));
    let src_cell_{i} = src_row_{i} * {src_row}u + src_k_{i} / 4u;
    var src_load_{i}: vec4<{src_type}>;"
            )?;
        }
        for i in 0..weight_loads {
            let cell = i * invocations;
            writeln!(
                to,
                "    let weight_k_{i} = (index + {cell}u) / {outputs4}u;
    let weight_vec4_{i} = (index + {cell}u) % {outputs4}u;
    let weight_at_{i} = weight_k_{i} * out_vec4s + min(tile.x * {outputs4}u + weight_vec4_{i}, out_vec4s - 1u);
    let weight_cell_{i} = weight_k_{i} * {weight_row}u + weight_vec4_{i};
    var weight_load_{i}: vec4<f16>;"
            )?;
        }
        for (i, j) in pairs(tall, wide) {
            writeln!(to, "    var sum_{i}_{j} = coop_mat16x16<f32,C>();")?;
        }
        // Behind the last step once more the last one, which nobody reads: a branch around it would keep the compiler from mixing
        // loads and products.
        let load = |to: &mut String| -> std::fmt::Result {
            writeln!(to, "        {{\n        let k = min(k_load, linear_params.in_padded - {depth}u);")?;
            for i in 0..src_loads {
                if halved.src {
                    writeln!(to, "        src_load_{i} = halves[src_{i} / 2u + (src_k_{i} + k) / 4u];")?;
                    continue;
                }
                writeln!(
                    to,
                    "        if WHOLE {{ src_load_{i} = places(src_{i} + src_k_{i}, k); }} \
                     else {{ src_load_{i} = source(src_{i}, k + src_k_{i}); }}"
                )?;
            }
            for i in 0..weight_loads {
                writeln!(to, "        weight_load_{i} = weights[weight_at_{i} + k * out_vec4s];")?;
            }
            writeln!(to, "        }}\n        k_load += {depth}u;")
        };
        let store = |to: &mut String| -> std::fmt::Result {
            for i in 0..src_loads {
                // What lies behind the last column is somebody else's.
                writeln!(
                    to,
                    "        {name}_src[src_cell_{i}] = vec4<f16>(select(vec4<{src_type}>(), src_load_{i}, \
                     !WHOLE || k_load - {depth}u + src_k_{i} < linear_params.in_width));"
                )?;
            }
            for i in 0..weight_loads {
                writeln!(to, "        {name}_weights[weight_cell_{i}] = weight_load_{i};")?;
            }
            Ok(())
        };
        load(to)?;
        store(to)?;
        writeln!(
            to,
            "    workgroupBarrier();
    for (var k_first = 0u; k_first < linear_params.in_padded; k_first += {depth}u) {{"
        )?;
        load(to)?;
        for k in 0..depth / SIDE {
            writeln!(to, "        {{")?;
            for i in 0..tall {
                let at = i * SIDE * src_row + k * SIDE / 4;
                writeln!(
                    to,
                    "            let x_{i} = coopLoadT<coop_mat16x16<f16,A>>(&{name}_src[part_line * {src_row}u + {at}u], {src_row}u);"
                )?;
            }
            for j in 0..wide {
                let at = k * SIDE * weight_row + j * SIDE / 4;
                writeln!(
                    to,
                    "            let w_{j} = coopLoadT<coop_mat16x16<f16,B>>(&{name}_weights[part_out / 4u + {at}u], {weight_row}u);"
                )?;
                for i in 0..tall {
                    writeln!(to, "            sum_{i}_{j} = coopMultiplyAdd(x_{i}, w_{j}, sum_{i}_{j});")?;
                }
            }
            writeln!(to, "        }}")?;
        }
        writeln!(to, "        workgroupBarrier();")?;
        store(to)?;
        writeln!(
            to,
            "        workgroupBarrier();
    }}
    let sums_from = subgroup * {square}u;",
            square = SIDE * SIDE
        )?;
        for (i, j) in pairs(tall, wide) {
            writeln!(
                to,
                "    coopStoreT(sum_{i}_{j}, &{name}_sums[sums_from], {SIDE}u);
    subgroupBarrier();
    for (var cell = lane; cell < {cells}u; cell += {lanes}u) {{
        let at = sums_from + cell * 4u;
        let total = vec4<f32>({name}_sums[at], {name}_sums[at + 1u], {name}_sums[at + 2u], {name}_sums[at + 3u]);
        let line = tile.y * {lines}u + part_line + {line}u + cell / {row}u;
        let out_vec4 = tile.x * {outputs4}u + (part_out + {out}u) / 4u + cell % {row}u;
        {finish}(line, out_vec4, bias(min(out_vec4, out_vec4s - 1u)), total);
    }}
    subgroupBarrier();",
                cells = SIDE * SIDE / 4,
                row = SIDE / 4,
                line = i * SIDE,
                out = j * SIDE,
            )?;
        }
        writeln!(to, "}}")
    }
}

fn pairs(tall: usize, wide: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..tall).flat_map(move |i| (0..wide).map(move |j| (i, j)))
}
