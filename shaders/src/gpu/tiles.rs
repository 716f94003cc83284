//! Writes the entry point of a layer over many lines: a tile of outputs a workgroup, its sums in registers.
//!
//! Text, because registers are named: the compiler keeps `sum_3_1` in one, an array perhaps not. Everything else, and
//! the order of every sum, is that of linear.wgsl, to which this is appended.

use std::fmt::Write;

/// Input columns in workgroup memory at a time; a slice is a whole number of them.
pub(super) const DEPTH: usize = 16;
/// Lines of one invocation, as two quads.
const LINES: usize = 8;
/// Invocations that run together: 4 along lines, 8 along outputs.
const TEAM: [usize; 2] = [4, 8];
/// Both tiles are loaded in blocks of 4 × 4, one an invocation.
const BLOCK: usize = 4;

/// The shape of a workgroup's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Entry point.
    pub(super) name: &'static str,
    pub(super) lines: usize,
    pub(super) outputs: usize,
    /// Vectors of four outputs that one invocation sums.
    vec4s: usize,
}

/// Four workgroups fit a multiprocessor: for layers that have few tiles.
pub(super) const SMALL: Tile = Tile { name: "linear_small_tile", lines: 64, outputs: 64, vec4s: 1 };
/// Twice the arithmetic on every number read from workgroup memory.
pub(super) const LARGE: Tile = Tile { name: "linear_large_tile", lines: 128, outputs: 128, vec4s: 2 };

impl Tile {
    const fn invocations(self) -> usize {
        self.lines / LINES * (self.outputs / 4 / self.vec4s)
    }

    pub(super) fn wgsl(self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes any text");
        text
    }

    fn write(self, to: &mut String) -> std::fmt::Result {
        let Self { name, lines, outputs, vec4s } = self;
        let invocations = self.invocations();
        let (line_quads, out_vec4s) = (lines / 4, outputs / 4);
        let src_blocks = line_quads * (DEPTH / BLOCK);
        assert_eq!(src_blocks + DEPTH / BLOCK * out_vec4s, invocations, "one block an invocation");
        let teams_across = out_vec4s / (TEAM[1] * vec4s);
        let (src_cells, weight_cells) = (DEPTH * line_quads, DEPTH * out_vec4s);

        writeln!(
            to,
            "
var<workgroup> {name}_src: array<vec4<f32>, {src_twice}>; // two of [DEPTH][lines / 4]
var<workgroup> {name}_weights: array<vec4<f32>, {weight_twice}>; // two of [DEPTH][outputs / 4]

@compute @workgroup_size({invocations})
fn {name}(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) index: u32) {{
    let out_vec4s = linear_params.out_vec4s;
    let line_last = line_count() - 1u;
    let team = index / {team}u;
    let quad = team / {teams_across}u * {team_quads}u + index % {team}u / {across}u;
    let column = team % {teams_across}u * {team_vec4s}u + index % {across}u;
    let line = tile.y * {lines}u + quad * 4u;
    let out_vec4 = tile.x * {out_vec4s}u + column;
    // The block that this invocation loads: of the source the first, of the weights the others.
    let loads_src = index < {src_blocks}u;
    let src_k = index % 4u;
    let src_quad = index / 4u;
    let weight_block = index - {src_blocks}u;
    let weight_k = weight_block / {out_vec4s}u;
    let weight_vec4 = weight_block % {out_vec4s}u;
    // Swizzled, so that the four invocations of a quad meet different banks.
    let src_cell = src_k * {src_rows}u + (src_quad ^ (src_k * 2u));
    let weight_cell = weight_k * {weight_rows}u + weight_vec4;
    var weight_at = weight_k * 4u * out_vec4s + min(tile.x * {out_vec4s}u + weight_vec4, out_vec4s - 1u);
    let src_line = tile.y * {lines}u + src_quad * 4u;
    var k_load = src_k * 4u;",
            src_twice = 2 * src_cells,
            weight_twice = 2 * weight_cells,
            team = TEAM[0] * TEAM[1],
            across = TEAM[1],
            team_quads = TEAM[0] * LINES / 4,
            team_vec4s = TEAM[1] * vec4s,
            src_rows = BLOCK * line_quads,
            weight_rows = BLOCK * out_vec4s,
        )?;
        for i in 0..BLOCK {
            writeln!(to, "    let src_{i} = src_of(min(src_line + {i}u, line_last));")?;
            writeln!(to, "    var load_{i}: vec4<f32>;")?;
        }
        for l in 0..LINES {
            for v in 0..vec4s {
                writeln!(to, "    var total_{l}_{v} = vec4<f32>();")?;
                writeln!(to, "    var sum_{l}_{v} = vec4<f32>();")?;
            }
        }
        writeln!(
            to,
            "    var src_from = 0u;\n    var weights_from = 0u;\n    var slice_left = linear_params.slice_len;"
        )?;
        self.write_load(to)?;
        self.write_store(to, "0u", "0u")?;
        writeln!(
            to,
            "    workgroupBarrier();
    for (var k_first = 0u; k_first < linear_params.in_padded; k_first += {DEPTH}u) {{
        let more = k_first + {DEPTH}u < linear_params.in_padded;
        if more {{"
        )?;
        self.write_load(to)?;
        writeln!(to, "        }}")?;
        for k in 0..DEPTH {
            let block = k / BLOCK;
            writeln!(to, "        {{")?;
            for q in 0..LINES / 4 {
                let cell = k * line_quads;
                let quad = q * TEAM[0];
                let swizzle = block * 2;
                writeln!(
                    to,
                    "            let x_{q} = {name}_src[src_from + {cell}u + ((quad + {quad}u) ^ {swizzle}u)];"
                )?;
            }
            for v in 0..vec4s {
                let cell = k * out_vec4s + v * TEAM[1];
                writeln!(to, "            let w_{v} = {name}_weights[weights_from + {cell}u + column];")?;
            }
            for l in 0..LINES {
                for v in 0..vec4s {
                    let (q, part) = (l / 4, ["x", "y", "z", "w"][l % 4]);
                    writeln!(
                        to,
                        "            sum_{l}_{v} = fma(vec4<f32>(x_{q}.{part}), w_{v}, sum_{l}_{v});"
                    )?;
                }
            }
            writeln!(to, "        }}")?;
        }
        writeln!(to, "        slice_left -= {DEPTH}u;\n        if slice_left == 0u || !more {{")?;
        for l in 0..LINES {
            for v in 0..vec4s {
                writeln!(
                    to,
                    "            total_{l}_{v} += sum_{l}_{v};\n            sum_{l}_{v} = vec4<f32>();"
                )?;
            }
        }
        writeln!(
            to,
            "            slice_left = linear_params.slice_len;
        }}
        src_from = {src_cells}u - src_from;
        weights_from = {weight_cells}u - weights_from;
        if more {{"
        )?;
        self.write_store(to, "src_from", "weights_from")?;
        writeln!(to, "        }}\n        workgroupBarrier();\n    }}")?;
        for l in 0..LINES {
            for v in 0..vec4s {
                let (line, vec4) = (Self::line(l), v * TEAM[1]);
                writeln!(to, "    finish(line + {line}u, out_vec4 + {vec4}u, total_{l}_{v});")?;
            }
        }
        writeln!(to, "}}")
    }

    /// An invocation's second quad of lines lies behind those of its team.
    fn line(l: usize) -> usize {
        l / 4 * TEAM[0] * 4 + l % 4
    }

    /// Takes the next block into registers.
    fn write_load(self, to: &mut String) -> std::fmt::Result {
        // Plain sources are masked when they are stored: a branch here would wait for what is loaded.
        writeln!(to, "        if loads_src {{\n            if PLAIN {{")?;
        for i in 0..BLOCK {
            writeln!(to, "                load_{i} = arena[src_{i} / 4u + k_load / 4u];")?;
        }
        writeln!(to, "            }} else {{")?;
        for i in 0..BLOCK {
            writeln!(to, "                load_{i} = source(src_{i}, k_load);")?;
        }
        writeln!(to, "            }}\n            k_load += {DEPTH}u;\n        }} else {{")?;
        for i in 0..BLOCK {
            writeln!(to, "            load_{i} = weight(weight_at + {i}u * out_vec4s);")?;
        }
        writeln!(to, "            weight_at += {DEPTH}u * out_vec4s;\n        }}")
    }

    /// Puts the registers into workgroup memory, the source's block transposed.
    fn write_store(self, to: &mut String, src_from: &str, weights_from: &str) -> std::fmt::Result {
        let Self { name, lines, outputs, .. } = self;
        writeln!(
            to,
            "        if loads_src {{
            // What lies behind the last column is somebody else's.
            let held = !PLAIN || k_load < linear_params.in_width + {DEPTH}u;"
        )?;
        for (k, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
            let cell = k * lines / 4;
            writeln!(
                to,
                "            {name}_src[{src_from} + src_cell + {cell}u] = \
                 select(vec4<f32>(), vec4<f32>(load_0.{part}, load_1.{part}, load_2.{part}, load_3.{part}), held);"
            )?;
        }
        writeln!(to, "        }} else {{")?;
        for i in 0..BLOCK {
            let cell = i * outputs / 4;
            writeln!(to, "            {name}_weights[{weights_from} + weight_cell + {cell}u] = load_{i};")?;
        }
        writeln!(to, "        }}")
    }
}
