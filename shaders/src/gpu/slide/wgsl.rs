//! Writes the kernel of a stack that slides.

use std::fmt::{Result, Write};

use super::{EARLY_MAX, Slide, TILE};
use crate::gpu::cells::{self, INVOCATIONS, SUMS, slice_len, stride};
use crate::gpu::flow::stays::{self, HEADER, LINE, REQUEST_MASK, SETS, STOP};
use crate::gpu::flow::{POLLS_MAX, WORDS};
use crate::gpu::kernels::ACTIVATIONS;

/// Words of `meeting`: who has arrived, and the step that is next.
pub(super) const MEETING_WORDS: usize = 2 * LINE;

impl Slide<'_> {
    pub(super) fn wgsl(&self, turns_max: u32) -> String {
        let mut text = String::new();
        self.write(&mut text, turns_max).expect("a string takes any text");
        text + ACTIVATIONS
    }

    fn write(&self, to: &mut String, turns_max: u32) -> Result {
        let stack = self.stack;
        let (units, layers, in_width) = (stack.units(), stack.layers.len(), stack.in_width());
        let Self { rows4, units_here, slices, workgroups, .. } = *self;
        let widest = slice_len(in_width.max(units), slices);
        let cell = cells::body(stack.cell);
        to.push_str(&stays::protocol(self.partials()));
        to.push_str(WORDS);
        writeln!(
            to,
            "
@group(0) @binding(4) @coherent var<storage, read_write> states: array<vec4<f32>>;
@group(0) @binding(5) @coherent @volatile var<storage, read_write> meeting: array<atomic<u32>>;

const UNITS = {units}u;
const HERE = {units_here}u;
const SLICES = {slices}u;
const WORKGROUPS = {workgroups}u;
const ROWS4 = {rows4}u;
const STATES = {states}u; // vectors of one of three copies: h twice, what the cells keep
const KEPT = 2u * STATES;

var<workgroup> x: array<vec4<f32>, {x_vec4s}>;
var<workgroup> parts: array<vec4<f32>, {parts}>;
var<workgroup> given: array<vec4<f32>, HERE>;
var<workgroup> due: array<vec4<f32>, {due}>;
var<workgroup> tops: array<f32, {tops}>;
var<workgroup> tile_h: array<vec4<f32>, {tile_h}>;
var<workgroup> tile_w: array<vec4<f32>, {tile_w}>;
// Of four rows.
var<private> sums_0: vec4<f32>;
var<private> sums_1: vec4<f32>;
var<private> sums_2: vec4<f32>;
var<private> sums_3: vec4<f32>;

fn cell(sums: vec4<f32>, before: f32) -> vec2<f32> {{
    {cell}
}}

{empty}
// All workgroups are past what was before. Who comes last turns the upper half, which the others wait for.
fn meet(index: u32) {{
    storageBarrier();
    if index == 0u && atomicLoad(&lost) == 0u {{
        let word = atomicAdd(&meeting[0], 1u);
        if (word & 0xffffu) == WORKGROUPS - 1u {{
            atomicAdd(&meeting[0], 0x10000u - WORKGROUPS);
        }} else {{
            var waits = true;
            for (var turn = 0u; turn < {POLLS_MAX}u && waits; turn++) {{
                waits = (atomicLoad(&meeting[0]) >> 16u) == (word >> 16u);
            }}
            if waits {{ give_up(); }}
        }}
    }}
    workgroupBarrier();
    storageBarrier();
}}

// Adds a matrix times the states of all rows: `matrix` is this workgroup's first vector, `states_at` that of the states.
fn add_product(matrix: u32, states_at: u32, index: u32) {{
    let v = index % HERE;
    let rows = min(index / HERE, ROWS4 - 1u);
    for (var first = 0u; first < UNITS; first += {TILE}u) {{
        workgroupBarrier();
        for (var at = index; at < {tile_h}u; at += {INVOCATIONS}u) {{
            let k = first + at / ROWS4;
            var four = vec4<f32>();
            if k < UNITS {{ four = states[states_at + k * ROWS4 + at % ROWS4]; }}
            tile_h[at] = four;
        }}
        for (var at = index; at < {tile_w}u; at += {INVOCATIONS}u) {{
            tile_w[at] = weights[matrix + first * HERE + at];
        }}
        workgroupBarrier();",
            states = layers * units * rows4,
            x_vec4s = slices * stride(widest),
            parts = slices * units_here,
            due = layers * units_here,
            tops = stack.outputs() * units_here,
            tile_h = TILE * rows4,
            tile_w = TILE * units_here,
            empty = stays::empty(self.words()),
        )?;
        let product = |k: &str| {
            format!(
                "        {{ let w = tile_w[{k} * HERE + v]; let h = tile_h[{k} * ROWS4 + rows];
          sums_0 = fma(vec4<f32>(h.x), w, sums_0); sums_1 = fma(vec4<f32>(h.y), w, sums_1);
          sums_2 = fma(vec4<f32>(h.z), w, sums_2); sums_3 = fma(vec4<f32>(h.w), w, sums_3); }}\n"
            )
        };
        if self.solo {
            // A processor compiles for seconds what is unrolled.
            writeln!(to, "        for (var k = 0u; k < {TILE}u; k++) {{\n{}        }}", product("k"))?;
        } else {
            (0..TILE).for_each(|k| to.push_str(&product(&format!("{k}u"))));
        }
        writeln!(
            to,
            "    }}
}}

@compute @workgroup_size({INVOCATIONS})
fn flow(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(num_workgroups) groups: vec3<u32>) {{
    gave_up = false;
    if index == 0u {{ atomicStore(&lost, 0u); }}
    workgroupBarrier();
    let unit = group.x * HERE + index;
    let has_unit = index < HERE && unit < UNITS;
{begin}    var step = atomicLoad(&meeting[{LINE}]);
    for (var turn = 0u; turn < {turns_max}u; turn++) {{
    let request = (request_first + turn) & {REQUEST_MASK}u;
    let words_at = {HEADER}u + request % {SETS}u * {words}u;
    let row_due = step % {steps}u;
    let before = step % 2u * STATES;
    let after = STATES - before;",
            begin = stays::begin(self.solo),
            words = self.words(),
            steps = stack.steps,
        )?;
        for layer in 0..layers {
            self.write_due(to, layer)?;
        }
        let early = self.early();
        for layer in 0..early {
            self.write_loads(to, layer, self.layers[layer].input_rows)?;
        }
        if self.solo {
            writeln!(
                to,
                "{wait}    if row_count == {STOP}u {{ empty(request, index, {INVOCATIONS}u); break; }}
    if row_count == 0u {{ continue; }}",
                wait = stays::wait(true, self.loops()),
            )?;
        }
        for layer in 0..layers {
            if layer >= early {
                self.write_loads(to, layer, self.layers[layer].input_rows)?;
            }
            self.write_answer(to, layer)?;
        }
        writeln!(to, "    empty(request, group.x * {INVOCATIONS}u + index, WORKGROUPS * {INVOCATIONS}u);")?;
        for layer in 0..layers {
            self.write_advance(to, layer)?;
        }
        writeln!(
            to,
            "    step = (step + 1u) % {round}u;
    if group.x == 0u && index == 0u {{ atomicStore(&meeting[{LINE}], step); }}
    }}
}}",
            round = 2 * stack.steps,
        )
    }

    /// Turns of all loops for one step, at most.
    fn loops(&self) -> usize {
        let (units, here) = (self.stack.units(), self.units_here);
        let widest = self.stack.in_width().max(units);
        let passes = |items: usize| items.div_ceil(INVOCATIONS) + 1;
        let tile = passes(TILE * self.rows4) + passes(TILE * here) + TILE + 1;
        let layer = passes(slice_len(widest, self.slices) * self.slices) + 2 * self.slices + here + 8;
        let products = 2 * units.div_ceil(TILE) * tile;
        self.stack.layers.len() * (layer + products) + passes(self.words()) + 2
    }

    /// Layers whose input weights are loaded before the step comes.
    fn early(&self) -> usize {
        let mut floats = 0;
        let fits = |layer: &&crate::SlidingLayer| {
            floats += slice_len(layer.input.in_width, self.slices);
            floats <= EARLY_MAX
        };
        self.stack.layers.iter().take_while(fits).count().max(1)
    }

    /// A slice of a row of a matrix, in registers.
    fn write_loads(&self, to: &mut String, layer: usize, matrix: usize) -> Result {
        let vec4s = slice_len(self.stack.layers[layer].input.in_width, self.slices) / 4;
        for q in 0..vec4s {
            writeln!(
                to,
                "    let w_{layer}_{q} = weights[{matrix}u + (group.x * {vec4s}u + {q}u) * {INVOCATIONS}u + index];"
            )?;
        }
        Ok(())
    }

    /// What the row that is due brings along: `due = b + W_hh · h`, and what its cell kept.
    fn write_due(&self, to: &mut String, layer: usize) -> Result {
        let units = self.stack.units();
        let len = slice_len(units, self.slices);
        let (vec4s, places) = (len / 4, self.layers[layer]);
        let first = layer * units * self.rows4;
        writeln!(to, "    {{")?;
        writeln!(
            to,
            "        for (var k = index; k < {staged}u; k += {INVOCATIONS}u) {{
            var value = 0.0;
            if k < UNITS {{ value = states[before + {first}u + k * ROWS4 + row_due / 4u][row_due % 4u]; }}
            x[k / {len}u * {stride}u + k % {len}u / 4u][k % 4u] = value;
        }}
        workgroupBarrier();",
            staged = len * self.slices,
            stride = stride(len),
        )?;
        let matrix = places.recurrent_rows;
        let weight =
            |q: usize| format!("weights[{matrix}u + (group.x * {vec4s}u + {q}u) * {INVOCATIONS}u + index]");
        self.write_products(to, vec4s, weight)?;
        writeln!(
            to,
            "        if has_unit {{
            var sums = weights[{bias}u + unit];
            for (var slice = 0u; slice < SLICES; slice++) {{ sums += parts[slice * HERE + index]; }}
            due[{due}u + index] = sums;
        }}
        workgroupBarrier();
    }}
    var kept_{layer} = 0.0;
    if has_unit {{ kept_{layer} = states[KEPT + {first}u + unit * ROWS4 + row_due / 4u][row_due % 4u]; }}",
            bias = places.bias,
            due = layer * self.units_here,
        )
    }

    /// Each invocation's part of a matrix times what is staged.
    fn write_products(&self, to: &mut String, vec4s: usize, weight: impl Fn(usize) -> String) -> Result {
        writeln!(
            to,
            "        if index < {}u {{
            let slice = index % SLICES;
            let row = index / SLICES;
            let slice_at = slice * {}u;
            var sum = 0.0;",
            SUMS * self.units_here * self.slices,
            stride(4 * vec4s),
        )?;
        for q in 0..vec4s {
            writeln!(
                to,
                "            {{ let v = x[slice_at + {q}u]; let w = {}; sum = fma(v.x, w.x, sum); sum = fma(v.y, w.y, sum); sum = fma(v.z, w.z, sum); sum = fma(v.w, w.w, sum); }}",
                weight(q)
            )?;
        }
        writeln!(
            to,
            "            parts[slice * HERE + row / {SUMS}u][row % {SUMS}u] = sum;
        }}
        workgroupBarrier();"
        )
    }

    /// A layer of the row that is due, with the step that has come.
    fn write_answer(&self, to: &mut String, layer: usize) -> Result {
        let (units, in_width) = (self.stack.units(), self.stack.in_width());
        let width = self.stack.layers[layer].input.in_width;
        let word = if layer == 0 { 0 } else { in_width + (layer - 1) * units };
        let len = slice_len(width, self.slices);
        let staged = len * self.slices;
        writeln!(to, "    {{ // layer {layer}")?;
        let columns = staged.div_ceil(INVOCATIONS);
        let mut loads = String::new();
        for column in 0..columns {
            writeln!(
                to,
                "        let k_{column} = index + {}u;\n        var word_{column} = EMPTY;",
                column * INVOCATIONS
            )?;
            writeln!(
                loads,
                "            word_{column} = atomicLoad(&results[words_at + {word}u + min(k_{column}, {}u)]);",
                width - 1
            )?;
        }
        let missing =
            (0..columns).map(|column| format!("word_{column} == EMPTY")).collect::<Vec<_>>().join(" || ");
        if layer == 0 && !self.solo {
            to.push_str(&stays::wait_with(&loads, &missing));
        } else {
            if self.solo {
                writeln!(to, "        workgroupBarrier();")?;
            }
            to.push_str(&stays::all_at_once(&loads, &missing));
        }
        for column in 0..columns {
            writeln!(
                to,
                "        if k_{column} < {staged}u {{ x[k_{column} / {len}u * {stride}u + k_{column} % {len}u / 4u][k_{column} % 4u] = select(0.0, bitcast<f32>(word_{column}), k_{column} < {width}u); }}",
                stride = stride(len),
            )?;
        }
        writeln!(to, "        workgroupBarrier();")?;
        if layer == 0 && !self.solo {
            writeln!(
                to,
                "        let row_count = order;
        if row_count == {STOP}u {{ empty(request, group.x * {INVOCATIONS}u + index, WORKGROUPS * {INVOCATIONS}u); break; }}
        if row_count == 0u {{ workgroupBarrier(); continue; }}"
            )?;
        }
        self.write_products(to, len / 4, |q| format!("w_{layer}_{q}"))?;
        writeln!(
            to,
            "        if has_unit {{
            var sums = vec4<f32>();
            for (var slice = 0u; slice < SLICES; slice++) {{ sums += parts[slice * HERE + index]; }}"
        )?;
        if layer == 0 {
            writeln!(to, "            given[index] = sums;")?;
        }
        writeln!(
            to,
            "            let h = cell(sums + due[{}u + index], kept_{layer}).x;",
            layer * self.units_here
        )?;
        let outputs = self.stack.outputs();
        if layer + 1 < self.stack.layers.len() {
            writeln!(to, "            put(words_at + {}u + unit, h);\n        }}", in_width + layer * units)?;
        } else {
            for output in 0..outputs {
                let at = format!(
                    "{}u + group.x * {}u + index",
                    self.head_at + output * self.units_here,
                    outputs * self.units_here
                );
                writeln!(
                    to,
                    "            {{ let at = {at}; tops[{}u + index] = h * weights[at / 4u][at % 4u]; }}",
                    output * self.units_here
                )?;
            }
            writeln!(
                to,
                "        }}
        workgroupBarrier();
        if index < {outputs}u {{
            let units_here = min(HERE, UNITS - group.x * HERE);
            var total = 0.0;
            for (var v = 0u; v < units_here; v++) {{ total += tops[index * HERE + v]; }}
            emit(0u, group.x * {outputs}u + index, total);
        }}"
            )?;
        }
        writeln!(to, "    }}")
    }

    /// A layer of all rows; the row that was due begins anew.
    fn write_advance(&self, to: &mut String, layer: usize) -> Result {
        let units = self.stack.units();
        let places = self.layers[layer];
        let first = |layer: usize| layer * units * self.rows4;
        let columns = units.next_multiple_of(TILE) * self.units_here;
        writeln!(
            to,
            "    {{ // layer {layer} of all rows
        let v = index % HERE;
        let unit = group.x * HERE + v;
        let rows = index / HERE;
        let works = rows < ROWS4 && unit < UNITS;
        var sums = vec4<f32>();
        if works {{
            sums = weights[{bias}u + unit]{given};
        }}
        sums_0 = sums;
        sums_1 = sums;
        sums_2 = sums;
        sums_3 = sums;",
            bias = places.bias,
            given = if layer == 0 { " + given[v]" } else { "" },
        )?;
        if let Some(matrix) = places.input_columns {
            writeln!(
                to,
                "        add_product({matrix}u + group.x * {columns}u, after + {}u, index);",
                first(layer - 1)
            )?;
        }
        writeln!(
            to,
            "        add_product({matrix}u + group.x * {columns}u, before + {first}u, index);
        if works {{
            let at = {first}u + unit * ROWS4 + rows;
            let kept = states[KEPT + at];
            let cell_0 = cell(sums_0, kept.x);
            let cell_1 = cell(sums_1, kept.y);
            let cell_2 = cell(sums_2, kept.z);
            let cell_3 = cell(sums_3, kept.w);
            let begins = vec4<u32>(4u * rows) + vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(row_due);
            states[after + at] = select(vec4<f32>(cell_0.x, cell_1.x, cell_2.x, cell_3.x), vec4<f32>(), begins);
            states[KEPT + at] = select(vec4<f32>(cell_0.y, cell_1.y, cell_2.y, cell_3.y), vec4<f32>(), begins);
        }}
        meet(index);
    }}",
            matrix = places.recurrent_columns,
            first = first(layer),
        )
    }
}
