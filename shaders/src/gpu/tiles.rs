//! Writes the entry point of a layer over many lines: a tile of outputs a workgroup, its sums in registers.
//!
//! Text, because registers are named: the compiler keeps `sum_3_1` in one, an array perhaps not. Everything else, and
//! the order of every sum, is that of linear.wgsl, to which this is appended.

use std::fmt::Write;

/// Input columns in workgroup memory at a time; a slice is a whole number of them.
pub(super) const DEPTH: usize = 16;
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
    /// Fours of lines that one invocation sums,
    quads: usize,
    /// and vectors of four outputs.
    vec4s: usize,
    /// Parts of the workgroup that share out the slices: each sums its own, and the first one adds up those of all.
    groups: usize,
}

/// For layers that have fewer of the others than there are multiprocessors.
pub(super) const TINY: Tile =
    Tile { name: "linear_tiny_tile", lines: 32, outputs: 32, quads: 1, vec4s: 1, groups: 4 };

/// Four workgroups fit a multiprocessor: for layers that have few tiles.
pub(super) const SMALL: Tile =
    Tile { name: "linear_small_tile", lines: 64, outputs: 64, quads: 2, vec4s: 1, groups: 1 };
/// Twice the arithmetic on every number read from workgroup memory.
pub(super) const LARGE: Tile =
    Tile { name: "linear_large_tile", lines: 128, outputs: 128, quads: 2, vec4s: 2, groups: 1 };

impl Tile {
    /// Of one group.
    const fn invocations(self) -> usize {
        self.lines / 4 / self.quads * (self.outputs / 4 / self.vec4s)
    }

    /// Bytes in workgroup memory.
    const fn bytes(self) -> usize {
        let tiles = 2 * DEPTH * (self.lines + self.outputs) * self.groups;
        let sums = self.lines * self.outputs * (self.groups - 1);
        (tiles + sums) * size_of::<f32>()
    }

    /// With as many groups as a workgroup has memory for.
    pub(super) const fn within(self, workgroup_bytes: usize) -> Self {
        let mut tile = self;
        while tile.bytes() > workgroup_bytes && tile.groups > 1 {
            tile.groups /= 2;
        }
        tile
    }

    /// Lines and vectors of one invocation.
    fn cells(self) -> impl Iterator<Item = (usize, usize)> {
        (0..4 * self.quads).flat_map(move |l| (0..self.vec4s).map(move |v| (l, v)))
    }

    pub(super) fn wgsl(self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes any text");
        text
    }

    fn write(self, to: &mut String) -> std::fmt::Result {
        let Self { name, lines, outputs, quads, vec4s, groups } = self;
        let invocations = self.invocations();
        let (line_quads, out_vec4s) = (lines / 4, outputs / 4);
        let src_blocks = line_quads * (DEPTH / BLOCK);
        assert_eq!(src_blocks + DEPTH / BLOCK * out_vec4s, invocations, "one block an invocation");
        let teams_across = out_vec4s / (TEAM[1] * vec4s);
        let (src_cells, weight_cells) = (DEPTH * line_quads, DEPTH * out_vec4s);

        writeln!(
            to,
            "
var<workgroup> {name}_src: array<vec4<f32>, {src_all}>; // of each group two of [DEPTH][lines / 4]
var<workgroup> {name}_weights: array<vec4<f32>, {weight_all}>; // of each group two of [DEPTH][outputs / 4]
var<workgroup> {name}_sums: array<vec4<f32>, {sums_all}>; // of each group but the first",
            src_all = groups * 2 * src_cells,
            weight_all = groups * 2 * weight_cells,
            sums_all = ((groups - 1) * lines * out_vec4s).max(1),
        )?;
        writeln!(
            to,
            "
@compute @workgroup_size({all})
fn {name}(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) among_all: u32) {{
    let out_vec4s = linear_params.out_vec4s;
    let line_last = line_count() - 1u;
    let group = among_all / {invocations}u;
    let index = among_all % {invocations}u;
    let team = index / {team}u;
    let quad = team / {teams_across}u * {team_quads}u + index % {team}u / {across}u;
    let column = team % {teams_across}u * {team_vec4s}u + index % {across}u;
    let line = tile.y * {lines}u + quad * 4u;
    let out_vec4 = tile.x * {out_vec4s}u + column;
    // The slices of a group, the last of which may lie behind the last column: then it is all zeros.
    let slice_len = linear_params.slice_len;
    let turns = (linear_params.in_padded + {groups}u * slice_len - 1u) / ({groups}u * slice_len);
    let k_end = {k_end};
    let k_others = {others}u * slice_len;
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
    let weight_column = min(tile.x * {out_vec4s}u + weight_vec4, out_vec4s - 1u);
    let weight_last = (linear_params.in_padded - 4u) * out_vec4s + weight_column;
    var weight_at = (group * slice_len + weight_k * 4u) * out_vec4s + weight_column;
    let src_line = tile.y * {lines}u + src_quad * 4u;
    var k_load = group * slice_len + src_k * 4u;
    var load_left = slice_len;
    var k_held = 0u;",
            all = groups * invocations,
            k_end = if groups == 1 { "linear_params.in_padded" } else { "turns * slice_len" },
            others = groups - 1,
            team = TEAM[0] * TEAM[1],
            across = TEAM[1],
            team_quads = TEAM[0] * quads,
            team_vec4s = TEAM[1] * vec4s,
            src_rows = BLOCK * line_quads,
            weight_rows = BLOCK * out_vec4s,
        )?;
        for i in 0..BLOCK {
            writeln!(to, "    let src_{i} = src_of(min(src_line + {i}u, line_last));")?;
            writeln!(to, "    var load_{i}: vec4<f32>;")?;
        }
        for (l, v) in self.cells() {
            writeln!(to, "    var total_{l}_{v} = vec4<f32>();")?;
            writeln!(to, "    var sum_{l}_{v} = vec4<f32>();")?;
        }
        writeln!(
            to,
            "    let src_both = group * {src_two}u;
    let weights_both = group * {weight_two}u;
    var src_from = src_both;
    var weights_from = weights_both;
    var slice_left = slice_len;",
            src_two = 2 * src_cells,
            weight_two = 2 * weight_cells,
        )?;
        self.write_load(to)?;
        self.write_store(to)?;
        writeln!(
            to,
            "    workgroupBarrier();
    for (var k_first = 0u; k_first < k_end; k_first += {DEPTH}u) {{
        let more = k_first + {DEPTH}u < k_end;
        if more {{"
        )?;
        self.write_load(to)?;
        writeln!(to, "        }}")?;
        for k in 0..DEPTH {
            let block = k / BLOCK;
            writeln!(to, "        {{")?;
            for q in 0..quads {
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
            for (l, v) in self.cells() {
                let (q, part) = (l / 4, ["x", "y", "z", "w"][l % 4]);
                writeln!(to, "            sum_{l}_{v} = fma(vec4<f32>(x_{q}.{part}), w_{v}, sum_{l}_{v});")?;
            }
            writeln!(to, "        }}")?;
        }
        writeln!(
            to,
            "        slice_left -= {DEPTH}u;
        let ends = slice_left == 0u || !more;
        if ends {{
            slice_left = slice_len;"
        )?;
        // Where a group but the first leaves its sums.
        let sum_at = |group: &str, cell: usize| {
            let (of_group, of_cell) = (lines * out_vec4s, cell * invocations);
            format!("{name}_sums[{group} * {of_group}u + {of_cell}u + index]")
        };
        if groups > 1 {
            writeln!(to, "            if group > 0u {{")?;
            for (cell, (l, v)) in self.cells().enumerate() {
                writeln!(to, "                {} = sum_{l}_{v};", sum_at("(group - 1u)", cell))?;
            }
            writeln!(to, "            }}")?;
        }
        for (l, v) in self.cells() {
            writeln!(
                to,
                "            total_{l}_{v} += sum_{l}_{v};\n            sum_{l}_{v} = vec4<f32>();"
            )?;
        }
        writeln!(
            to,
            "        }}
        src_from = 2u * src_both + {src_cells}u - src_from;
        weights_from = 2u * weights_both + {weight_cells}u - weights_from;
        if more {{"
        )?;
        self.write_store(to)?;
        writeln!(to, "        }}\n        workgroupBarrier();")?;
        if groups > 1 {
            // In the order of the slices. They are written again behind another barrier: a slice has two steps or more.
            writeln!(to, "        if ends && group == 0u {{")?;
            for other in 0..groups - 1 {
                for (cell, (l, v)) in self.cells().enumerate() {
                    writeln!(to, "            total_{l}_{v} += {};", sum_at(&format!("{other}u"), cell))?;
                }
            }
            writeln!(to, "        }}")?;
        }
        writeln!(to, "    }}")?;
        if groups > 1 {
            writeln!(to, "    if group > 0u {{\n        return;\n    }}")?;
        }
        for (l, v) in self.cells() {
            let (line, vec4) = (Self::line(l), v * TEAM[1]);
            writeln!(to, "    finish(line + {line}u, out_vec4 + {vec4}u, total_{l}_{v});")?;
        }
        writeln!(to, "}}")
    }

    /// An invocation's second quad of lines lies behind those of its team.
    fn line(l: usize) -> usize {
        l / 4 * TEAM[0] * 4 + l % 4
    }

    /// Takes the next block into registers; behind the last column the one there, which meets zeros.
    fn write_load(self, to: &mut String) -> std::fmt::Result {
        let (mut k, mut weight_at) = ("k_load", "weight_at");
        if self.groups > 1 {
            writeln!(
                to,
                "        let k_here = min(k_load, linear_params.in_padded);
        let weight_here = min(weight_at, weight_last);"
            )?;
            (k, weight_at) = ("k_here", "weight_here");
        }
        // Plain sources are masked when they are stored: a branch here would wait for what is loaded.
        writeln!(to, "        k_held = k_load;\n        if loads_src {{\n            if PLAIN {{")?;
        for i in 0..BLOCK {
            writeln!(to, "                load_{i} = arena[src_{i} / 4u + {k} / 4u];")?;
        }
        writeln!(to, "            }} else {{")?;
        for i in 0..BLOCK {
            writeln!(to, "                load_{i} = source(src_{i}, {k});")?;
        }
        writeln!(to, "            }}\n        }} else {{")?;
        for i in 0..BLOCK {
            writeln!(to, "            load_{i} = weight({weight_at} + {i}u * out_vec4s);")?;
        }
        writeln!(to, "        }}\n        k_load += {DEPTH}u;\n        weight_at += {DEPTH}u * out_vec4s;")?;
        if self.groups > 1 {
            writeln!(
                to,
                "        load_left -= {DEPTH}u;
        if load_left == 0u {{
            load_left = slice_len;
            k_load += k_others;
            weight_at += k_others * out_vec4s;
        }}"
            )?;
        }
        Ok(())
    }

    /// Puts the registers into workgroup memory, the source's block transposed.
    fn write_store(self, to: &mut String) -> std::fmt::Result {
        let Self { name, lines, outputs, .. } = self;
        writeln!(
            to,
            "        if loads_src {{
            // What lies behind the last column is somebody else's.
            let held = !PLAIN || k_held < linear_params.in_width;"
        )?;
        for (k, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
            let cell = k * lines / 4;
            writeln!(
                to,
                "            {name}_src[src_from + src_cell + {cell}u] = \
                 select(vec4<f32>(), vec4<f32>(load_0.{part}, load_1.{part}, load_2.{part}, load_3.{part}), held);"
            )?;
        }
        writeln!(to, "        }} else {{")?;
        for i in 0..BLOCK {
            let cell = i * outputs / 4;
            writeln!(to, "            {name}_weights[weights_from + weight_cell + {cell}u] = load_{i};")?;
        }
        writeln!(to, "        }}")
    }
}
