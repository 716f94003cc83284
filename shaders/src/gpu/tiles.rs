//! Writes the entry point of a layer over many lines: a tile of outputs a workgroup, its sums in registers.
//!
//! Text, because registers are named: the compiler keeps `sum_3_1` in one, an array perhaps not. Everything else, and
//! the order of every sum, is that of linear.wgsl, to which this is appended.
//!
//! Two steps of the loop are written out, so that the places in workgroup memory are constants, and they are one straight line:
//! what is loaded for the next step is loaded whether there is one or not, since a branch around it would keep the compiler
//! from mixing it with the products.

use std::fmt::Write;

/// Input columns in workgroup memory at a time; a slice is a whole number of pairs of them.
pub(super) const DEPTH: usize = 16;
/// Columns that one round of the loop adds up.
const PAIR: usize = 2 * DEPTH;
/// Invocations that run together: 4 along lines, 8 along outputs.
const TEAM: [usize; 2] = [4, 8];
/// One group loads both tiles in blocks of 4 × 4, one an invocation.
const BLOCK: usize = 4;
const PARTS: [&str; 4] = ["x", "y", "z", "w"];

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
    /// Parts of the workgroup that share out the slices: each sums its own, and adds up those of all for its share of the
    /// outputs.
    groups: usize,
}

/// For layers that have fewer of the others than there are multiprocessors.
pub(super) const TINY: Tile =
    Tile { name: "linear_tiny_tile", lines: 32, outputs: 32, quads: 1, vec4s: 1, groups: 4 };
/// The same, of which twice as many are under way at once.
pub(super) const PAIRED: Tile =
    Tile { name: "linear_paired_tile", lines: 32, outputs: 32, quads: 1, vec4s: 1, groups: 2 };

/// Several workgroups fit a multiprocessor: for layers that have few tiles.
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

    /// Vectors of the source and of the weights in workgroup memory for one step of one group.
    const fn step(self) -> [usize; 2] {
        [self.lines * DEPTH / 4, DEPTH * self.outputs / 4]
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

    /// Whether the source lies in workgroup memory by columns, so that four lines are read at once: [DEPTH][lines / 4]. Else it
    /// lies as it comes, [lines][DEPTH / 4], which takes more registers and no branch between who loads what.
    const fn turns(self) -> bool {
        self.groups == 1
    }

    /// Lines and vectors of one invocation.
    fn cells(self) -> impl Iterator<Item = (usize, usize)> {
        (0..4 * self.quads).flat_map(move |l| (0..self.vec4s).map(move |v| (l, v)))
    }

    /// The cells whose slices one of the groups adds up.
    fn share(self, group: usize) -> impl Iterator<Item = (usize, usize)> {
        self.cells().skip(group).step_by(self.groups)
    }

    /// From the first line of an invocation to another one of its lines.
    fn line(self, l: usize) -> usize {
        if self.turns() { l / 4 * TEAM[0] * 4 + l % 4 } else { l * TEAM[0] }
    }

    pub(super) fn wgsl(self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes any text");
        text
    }

    fn write(self, to: &mut String) -> std::fmt::Result {
        self.write_start(to)?;
        self.write_load(to)?;
        self.write_store(to, 0)?;
        writeln!(
            to,
            "    workgroupBarrier();
    for (var k_first = 0u; k_first < k_end; k_first += slice_len) {{"
        )?;
        for (l, v) in self.cells() {
            writeln!(to, "    var sum_{l}_{v} = vec4<f32>();")?;
        }
        // Written out once more, since sums that begin with zeros need not be set to them; most slices have no more than it.
        self.write_pair(to)?;
        writeln!(
            to,
            "    let slice_end = min(k_first + slice_len, k_end);
    for (var k = k_first + {PAIR}u; k < slice_end; k += {PAIR}u) {{
    workgroupBarrier();"
        )?;
        self.write_pair(to)?;
        writeln!(to, "    }}")?;
        if self.groups == 1 {
            for (l, v) in self.cells() {
                writeln!(to, "    total_{l}_{v} += sum_{l}_{v};")?;
            }
            writeln!(to, "    workgroupBarrier();")?;
        } else {
            self.write_exchange(to)?;
        }
        writeln!(to, "    }}")?;
        self.write_end(to)
    }

    /// Who an invocation is, what it loads, and its sums.
    fn write_start(self, to: &mut String) -> std::fmt::Result {
        let Self { name, lines, outputs, quads, vec4s, groups } = self;
        let invocations = self.invocations();
        let out_vec4s = outputs / 4;
        let teams_across = out_vec4s / (TEAM[1] * vec4s);
        let [src_step, weight_step] = self.step();
        writeln!(
            to,
            "
var<workgroup> {name}_src: array<vec4<f32>, {src_all}>; // of each group two steps
var<workgroup> {name}_weights: array<vec4<f32>, {weight_all}>; // of each group two of [DEPTH][outputs / 4]
var<workgroup> {name}_sums: array<vec4<f32>, {sums_all}>; // of each group those that others add up
@compute @workgroup_size({all})
fn {name}(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) among_all: u32) {{
    let out_vec4s = linear_params.out_vec4s;
    let line_last = line_count() - 1u;
    let group = {group};
    let index = {index};
    let team = index / {team}u;
    // Half a team reads two quads of lines and eight vectors of outputs, each of them by neighbours or every other one: so
    // that workgroup memory answers it at once.
    let down = index % 2u + index / 16u % 2u * 2u;
    let column = team % {teams_across}u * {team_vec4s}u + index / 2u % 8u;
    let row = team / {teams_across}u * {team_lines}u + down * {lines_together}u;
    let line = tile.y * {lines}u + row;
    let out_vec4 = tile.x * {out_vec4s}u + column;
    let slice_len = linear_params.slice_len;
    // Columns of one group. Those behind the last one are zeros.
    let k_end = {k_end};
    let k_last = linear_params.in_padded - {DEPTH}u;
    var k_load = {k_load};
    var k_held = 0u;
    let src_from = group * {src_two}u;
    let weights_from = group * {weight_two}u;",
            group = if groups == 1 { "0u".to_owned() } else { format!("among_all / {invocations}u") },
            index = match groups {
                1 => "among_all".to_owned(),
                _ => format!("among_all % {invocations}u"),
            },
            src_all = groups * 2 * src_step,
            weight_all = groups * 2 * weight_step,
            sums_all = ((groups - 1) * lines * out_vec4s).max(1),
            all = groups * invocations,
            team = TEAM[0] * TEAM[1],
            team_vec4s = TEAM[1] * vec4s,
            team_lines = TEAM[0] * quads * 4,
            lines_together = if self.turns() { 4 } else { 1 },
            k_end = match groups {
                1 => "linear_params.in_padded".to_owned(),
                _ => format!("(linear_params.in_padded + {groups}u * slice_len - 1u) / ({groups}u * slice_len) * slice_len"),
            },
            k_load = if groups == 1 { "0u" } else { "group * slice_len" },
            src_two = 2 * src_step,
            weight_two = 2 * weight_step,
        )?;
        if groups > 1 {
            writeln!(to, "    var load_left = slice_len;")?;
        }
        self.write_places(to)?;
        for v in 0..vec4s {
            let vec4 = v * TEAM[1];
            writeln!(to, "    let bias_{v} = bias(min(out_vec4 + {vec4}u, out_vec4s - 1u));")?;
        }
        if groups == 1 {
            for (l, v) in self.cells() {
                writeln!(to, "    var total_{l}_{v} = vec4<f32>();")?;
            }
        } else {
            for at in 0..self.share(0).count() {
                writeln!(to, "    var total_{at} = vec4<f32>();")?;
            }
        }
        Ok(())
    }

    /// Where what an invocation loads comes from and goes.
    fn write_places(self, to: &mut String) -> std::fmt::Result {
        let Self { lines, outputs, .. } = self;
        let invocations = self.invocations();
        let (line_quads, out_vec4s) = (lines / 4, outputs / 4);
        let [src_step, weight_step] = self.step();
        let width = "tile.x * OUTu + COLUMN".replace("OUT", &out_vec4s.to_string());
        let weight_column =
            |column: &str| format!("min({}, out_vec4s - 1u)", width.replace("COLUMN", column));
        if !self.turns() {
            let row = DEPTH / 4;
            for (i, first) in self.turn(src_step) {
                writeln!(
                    to,
                    "    let src_k_{i} = (index + {first}u) % {row}u * 4u;
    let src_{i} = src_of(min(tile.y * {lines}u + (index + {first}u) / {row}u, line_last)) + src_k_{i};
    var src_load_{i}: vec4<f32>;"
                )?;
            }
            for (i, first) in self.turn(weight_step) {
                let column = weight_column(&format!("(index + {first}u) % {out_vec4s}u"));
                writeln!(
                    to,
                    "    let weight_at_{i} = (index + {first}u) / {out_vec4s}u * out_vec4s + {column};
    var weight_load_{i}: vec4<f32>;"
                )?;
            }
            return Ok(());
        }
        let src_blocks = line_quads * (DEPTH / BLOCK);
        assert_eq!(src_blocks + DEPTH / BLOCK * out_vec4s, invocations, "one block an invocation");
        writeln!(
            to,
            "    // The block that this invocation loads: of the source the first, of the weights the others.
    let loads_src = index < {src_blocks}u;
    let src_k = index % 4u;
    let src_quad = index / 4u;
    let weight_k = (index - {src_blocks}u) / {out_vec4s}u;
    let weight_vec4 = (index - {src_blocks}u) % {out_vec4s}u;
    // Swizzled, so that the four invocations of a quad meet different banks.
    let src_cell = src_k * {src_rows}u + (src_quad ^ (src_k * 2u));
    let weight_cell = weight_k * {weight_rows}u + weight_vec4;
    let weight_at = weight_k * 4u * out_vec4s + {column};",
            src_rows = BLOCK * line_quads,
            weight_rows = BLOCK * out_vec4s,
            column = weight_column("weight_vec4"),
        )?;
        for i in 0..BLOCK {
            writeln!(
                to,
                "    let src_{i} = src_of(min(tile.y * {lines}u + src_quad * 4u + {i}u, line_last)) + src_k * 4u;
    var load_{i}: vec4<f32>;"
            )?;
        }
        Ok(())
    }

    /// What an invocation has of so many vectors: one, and further ones as far apart as there are invocations.
    fn turn(self, vectors: usize) -> impl Iterator<Item = (usize, usize)> {
        let invocations = self.invocations();
        assert!(vectors.is_multiple_of(invocations), "as many for each invocation");
        (0..vectors / invocations).map(move |i| (i, i * invocations))
    }

    /// Two steps, while the next two are loaded; behind a barrier, and before one.
    fn write_pair(self, to: &mut String) -> std::fmt::Result {
        for [here, there] in [[0, 1], [1, 0]] {
            self.write_load(to)?;
            self.write_sums(to, here)?;
            self.write_store(to, there)?;
            if here == 0 {
                writeln!(to, "    workgroupBarrier();")?;
            }
        }
        Ok(())
    }

    /// Takes the next step into registers; behind the last column what is there, which meets zeros.
    fn write_load(self, to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "    k_held = k_load;
    {{
        let k = min(k_load, k_last);
        let weights_k = k * out_vec4s;"
        )?;
        let source =
            |i: usize| format!("{}load_{i} = places(src_{i}, k);", if self.turns() { "" } else { "src_" });
        if self.turns() {
            writeln!(to, "        if loads_src {{")?;
            (0..BLOCK).try_for_each(|i| writeln!(to, "            {}", source(i)))?;
            writeln!(to, "        }} else {{")?;
            for i in 0..BLOCK {
                writeln!(to, "            load_{i} = weight(weight_at + weights_k + {i}u * out_vec4s);")?;
            }
            writeln!(to, "        }}")?;
        } else {
            let [src_step, weight_step] = self.step();
            self.turn(src_step).try_for_each(|(i, _)| writeln!(to, "        {}", source(i)))?;
            for (i, _) in self.turn(weight_step) {
                writeln!(to, "        weight_load_{i} = weight(weight_at_{i} + weights_k);")?;
            }
        }
        writeln!(to, "    }}\n    k_load += {DEPTH}u;")?;
        if self.groups > 1 {
            writeln!(
                to,
                "    load_left -= {DEPTH}u;
    if load_left == 0u {{
        load_left = slice_len;
        k_load += {others}u * slice_len;
    }}",
                others = self.groups - 1,
            )?;
        }
        Ok(())
    }

    /// Puts the registers into one of both steps in workgroup memory, zeros for columns that do not exist: what lies there is
    /// somebody else's.
    fn write_store(self, to: &mut String, step: usize) -> std::fmt::Result {
        let Self { name, lines, outputs, .. } = self;
        let [src_step, weight_step] = self.step();
        let [src_first, weight_first] = self.step().map(|vectors| step * vectors);
        if !self.turns() {
            for (i, first) in self.turn(src_step) {
                writeln!(
                    to,
                    "    {name}_src[src_from + {at}u + index] = within(src_load_{i}, k_held + src_k_{i});",
                    at = src_first + first
                )?;
            }
            for (i, first) in self.turn(weight_step) {
                let at = weight_first + first;
                writeln!(to, "    {name}_weights[weights_from + {at}u + index] = weight_load_{i};")?;
            }
            return Ok(());
        }
        writeln!(to, "    if loads_src {{")?;
        for i in 0..BLOCK {
            writeln!(to, "        let line_{i} = within(load_{i}, k_held + src_k * 4u);")?;
        }
        for (k, part) in PARTS.into_iter().enumerate() {
            let cell = src_first + k * lines / 4;
            writeln!(
                to,
                "        {name}_src[src_from + {cell}u + src_cell] = \
                 vec4<f32>(line_0.{part}, line_1.{part}, line_2.{part}, line_3.{part});"
            )?;
        }
        writeln!(to, "    }} else {{")?;
        for i in 0..BLOCK {
            let cell = weight_first + i * outputs / 4;
            writeln!(to, "        {name}_weights[weights_from + {cell}u + weight_cell] = load_{i};")?;
        }
        writeln!(to, "    }}")
    }

    /// The products of one of both steps in workgroup memory.
    fn write_sums(self, to: &mut String, step: usize) -> std::fmt::Result {
        let Self { name, lines, outputs, quads, vec4s, .. } = self;
        let (line_quads, out_vec4s) = (lines / 4, outputs / 4);
        let [src_first, weight_first] = self.step().map(|vectors| step * vectors);
        writeln!(to, "    {{")?;
        for k in 0..DEPTH {
            if self.turns() {
                for q in 0..quads {
                    let (cell, quad, swizzle) = (src_first + k * line_quads, q * TEAM[0], k / BLOCK * 2);
                    writeln!(
                        to,
                        "        let x_{k}_{q} = {name}_src[src_from + {cell}u + ((row / 4u + {quad}u) ^ {swizzle}u)];"
                    )?;
                }
            } else if k % 4 == 0 {
                for l in 0..4 * quads {
                    let cell = src_first + self.line(l) * (DEPTH / 4) + k / 4;
                    writeln!(
                        to,
                        "        let x_{k}_{l} = {name}_src[src_from + {cell}u + row * {}u];",
                        DEPTH / 4
                    )?;
                }
            }
            for v in 0..vec4s {
                let cell = weight_first + k * out_vec4s + v * TEAM[1];
                writeln!(to, "        let w_{k}_{v} = {name}_weights[weights_from + {cell}u + column];")?;
            }
            for (l, v) in self.cells() {
                let x = match self.turns() {
                    true => format!("x_{k}_{}.{}", l / 4, PARTS[l % 4]),
                    false => format!("x_{}_{l}.{}", k / 4 * 4, PARTS[k % 4]),
                };
                writeln!(to, "        sum_{l}_{v} = fma(vec4<f32>({x}), w_{k}_{v}, sum_{l}_{v});")?;
            }
        }
        writeln!(to, "    }}")
    }

    /// Each group adds up the slices of its share, in their order.
    fn write_exchange(self, to: &mut String) -> std::fmt::Result {
        let Self { name, groups, .. } = self;
        let invocations = self.invocations();
        let each = self.share(0).count();
        let place = |owner: usize, from: usize, at: usize| {
            let others = owner * (groups - 1) + if from < owner { from } else { from - 1 };
            format!("{name}_sums[{}u + index]", (others * each + at) * invocations)
        };
        for group in 0..groups {
            writeln!(to, "    if group == {group}u {{")?;
            for owner in (0..groups).filter(|owner| *owner != group) {
                for (at, (l, v)) in self.share(owner).enumerate() {
                    writeln!(to, "        {} = sum_{l}_{v};", place(owner, group, at))?;
                }
            }
            writeln!(to, "    }}")?;
        }
        // They are written again behind another barrier: there is one between two steps.
        writeln!(to, "    workgroupBarrier();")?;
        for group in 0..groups {
            writeln!(to, "    if group == {group}u {{")?;
            for (at, (l, v)) in self.share(group).enumerate() {
                for from in 0..groups {
                    let sum = if from == group { format!("sum_{l}_{v}") } else { place(group, from, at) };
                    writeln!(to, "        total_{at} += {sum};")?;
                }
            }
            writeln!(to, "    }}")?;
        }
        Ok(())
    }

    fn write_end(self, to: &mut String) -> std::fmt::Result {
        let Self { lines, outputs, groups, .. } = self;
        let finish = |to: &mut String, (l, v): (usize, usize), total: &str| {
            let (line, vec4) = (self.line(l), v * TEAM[1]);
            writeln!(to, "        finish(line + {line}u, out_vec4 + {vec4}u, bias_{v}, {total});")
        };
        if groups > 1 {
            for group in 0..groups {
                writeln!(to, "    if group == {group}u {{")?;
                for (at, cell) in self.share(group).enumerate() {
                    finish(to, cell, &format!("total_{at}"))?;
                }
                writeln!(to, "    }}")?;
            }
            return writeln!(to, "}}");
        }
        writeln!(
            to,
            "    if (PLAIN || WHOLE && linear_params.place_count == 1u) && linear_params.has_mask == 0u && linear_params.sinks == 0u
        && (tile.y + 1u) * {lines}u <= line_count() && (tile.x + 1u) * {vec4s_all}u <= out_vec4s {{
        // Everything that is added is read before anything is stored: a store might change it.
        let at = dst_of(line) / 4u + out_vec4;
        let step = linear_params.dst_stride / 4u;
        if linear_params.accumulates != 0u {{",
            vec4s_all = outputs / 4,
        )?;
        let place = |l: usize, v: usize| format!("at + {}u * step + {}u", self.line(l), v * TEAM[1]);
        for (l, v) in self.cells() {
            writeln!(to, "            let init_{l}_{v} = bias_{v} + arena[{}];", place(l, v))?;
        }
        for (l, v) in self.cells() {
            writeln!(to, "            arena[{}] = bend(total_{l}_{v} + init_{l}_{v});", place(l, v))?;
        }
        writeln!(to, "        }} else {{")?;
        for (l, v) in self.cells() {
            writeln!(to, "            arena[{}] = bend(total_{l}_{v} + bias_{v});", place(l, v))?;
        }
        writeln!(to, "        }}\n    }} else {{")?;
        for (l, v) in self.cells() {
            finish(to, (l, v), &format!("total_{l}_{v}"))?;
        }
        writeln!(to, "    }}\n}}")
    }
}
