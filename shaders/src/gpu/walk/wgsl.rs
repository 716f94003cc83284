//! Writes the kernel of whole windows.

use std::fmt::{Result, Write};

use super::stages::{Kind, Layer, Places, Stage, Words};
use super::{SUMS, Slices, Walk};
use crate::Cell;
use crate::gpu::cells::{self, INVOCATIONS};
use crate::gpu::flow::WORDS;
use crate::gpu::flow::stays::{self, HEADER, REQUEST_MASK, SETS, STOP};
use crate::gpu::kernels::ACTIVATIONS;
use crate::gpu::params;

/// Vectors of weights that an invocation keeps in registers over all steps; with more it reads them at every step.
const KEPT_MAX: usize = 32;
/// The same of both matrices of a layer, where those of its input are there before the input is.
const EARLY_MAX: usize = 28;
/// Words that an invocation polls at once.
const POLLED_MAX: usize = 24;

impl Walk {
    pub(in crate::gpu) fn wgsl(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes any text");
        text + ACTIVATIONS
    }

    fn write(&self, to: &mut String) -> Result {
        to.push_str(&stays::protocol(self.out_width));
        to.push_str(WORDS);
        to.push_str(&stays::empty(self.words));
        writeln!(
            to,
            "
// The input of some steps, or of one place; the state before a step, of which two take turns; sums of the input.
var<workgroup> x: array<vec4<f32>, {x}>;
var<workgroup> state: array<vec4<f32>, {state}>;
var<workgroup> given: array<f32, {given}>;",
            x = self.input_vec4s(),
            state = 2 * self.state_vec4s(),
            given = self.given(),
        )?;
        for (name, cell) in [("lstm", Cell::Lstm), ("gru", Cell::Gru)] {
            let body = cells::body(cell);
            writeln!(to, "\nfn {name}(sums: vec4<f32>, before: f32) -> vec2<f32> {{\n    {body}\n}}")?;
        }
        writeln!(
            to,
            "
@compute @workgroup_size({INVOCATIONS})
fn flow(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {{
    gave_up = false;
    if index == 0u {{ atomicStore(&lost, 0u); }}
    workgroupBarrier();
{begin}    for (var turn = 0u; turn < {turns}u; turn++) {{
    let request = (request_first + turn) & {REQUEST_MASK}u;
    let words_at = {HEADER}u + request % {SETS}u * {words}u;
{wait}    if row_count == {STOP}u {{ empty(request, group.x * {INVOCATIONS}u + index, {all}u); break; }}
    if row_count == 0u {{ workgroupBarrier(); continue; }}",
            begin = stays::begin(self.solo),
            turns = self.turns_max(),
            words = self.words,
            wait = stays::wait(self.solo, self.loops()),
            all = self.workgroups * INVOCATIONS,
        )?;
        for stage in &self.stages {
            match stage {
                Stage::Recurrent(layer) => self.write_layer(to, layer)?,
                Stage::Linear(places) => self.write_places(to, places)?,
            }
        }
        writeln!(
            to,
            "    empty(request, group.x * {INVOCATIONS}u + index, {}u);
    workgroupBarrier();
    }}
}}",
            self.workgroups * INVOCATIONS
        )
    }

    /// Turns of all loops for one request, at most; the one that finds a loop at its end counts as well.
    pub(super) fn loops(&self) -> usize {
        let all = |turns: usize| turns + 1;
        // Words are there at once, or the request is not answered anyway.
        let staging = |floats: usize| floats.div_ceil(INVOCATIONS).div_ceil(POLLED_MAX) * all(1);
        let stage = |stage: &Stage| match stage {
            Stage::Recurrent(layer) => {
                let chunks = layer.steps.div_ceil(layer.chunk);
                let chunk = staging(layer.chunk * layer.input_slices.floats()) + all(layer.chunk);
                let first = all(layer.recurrent_slices.vec4s().div_ceil(INVOCATIONS));
                let step = 1 + staging(layer.recurrent_slices.floats());
                all(chunks * all(chunk + 1)) + first + layer.steps * step
            }
            Stage::Linear(places) => {
                all(places.linear.repeat.count * places.blocks() * (1 + staging(places.slices.floats())))
            }
        };
        // And a turn of what waits for requests, and one of those who empty words.
        self.stages.iter().map(stage).sum::<usize>() + all(self.words.div_ceil(INVOCATIONS)) + all(1)
    }

    fn write_layer(&self, to: &mut String, layer: &Layer) -> Result {
        let Layer { units, steps, chunk, first_workgroup, word, .. } = layer;
        let (rows, slices, count, here) = (layer.rows(), units.slices, units.count, units.here);
        let state = layer.recurrent_slices;
        let workgroups = units.workgroups();
        let cell = if units.cell == Cell::Lstm { "lstm" } else { "gru" };
        writeln!(
            to,
            "    if group.x >= {first_workgroup}u && group.x < {}u {{ // {} of {count} over {steps} steps
    let place = group.x - {first_workgroup}u;
    let slice = index % {slices}u;
    let row = index / {slices}u;
    let unit = place * {here}u + row / {SUMS}u;
    let ends = index % {}u == 0u && row < {}u && unit < {count}u;
    let bias_at = {}u + place * {rows}u + row;
    let bias = weights[bias_at / 4u][bias_at % 4u];
    var kept = 0.0;",
            first_workgroup + workgroups,
            cell,
            SUMS * slices,
            SUMS * here,
            layer.bias_at,
        )?;
        let recurrent = write_loads(to, "own", layer.recurrent_at, "place", state)?;
        writeln!(to, "    for (var first = 0u; first < {steps}u; first += {chunk}u) {{")?;
        // In flight while the input is polled, if that leaves registers for it.
        let early = (layer.input_slices.len() + state.len()) / 4 <= EARLY_MAX;
        let load = |to: &mut String| write_loads(to, "in", layer.input_at, "place", layer.input_slices);
        let before = if early { Some(load(to)?) } else { None };
        if self.solo {
            writeln!(to, "    workgroupBarrier();")?;
        }
        self.write_staging(to, "x", "0u", layer.input_slices, *chunk, |step, column| {
            let step = format!("min(first + {step}, {}u)", steps - 1);
            column_at(&layer.src, &step, column)
        })?;
        let input = before.map_or_else(|| load(to), Ok)?;
        writeln!(
            to,
            "    workgroupBarrier();
    for (var step = 0u; step < {chunk}u; step++) {{
        let at = step * {}u + slice * {}u;
        var sum = 0.0;",
            layer.input_slices.vec4s(),
            layer.input_slices.stride(),
        )?;
        write_sum(to, "x", &input)?;
        self.write_joined(to, slices)?;
        writeln!(
            to,
            "        if slice == 0u {{ given[step * {rows}u + row] = sum + bias; }}
    }}
    let steps_end = min(first + {chunk}u, {steps}u);
    for (var step = first; step < steps_end; step++) {{
        let half = step % 2u * {}u;",
            self.state_vec4s(),
        )?;
        if self.solo {
            writeln!(to, "        workgroupBarrier();")?;
        }
        // Before the first step the state is zero.
        writeln!(
            to,
            "        if step == 0u {{
        for (var at = index; at < {}u; at += {INVOCATIONS}u) {{ state[at] = vec4<f32>(); }}
        }} else {{",
            state.vec4s(),
        )?;
        self.write_staging(to, "state", "half", state, 1, |_, column| {
            format!("{word}u + (step - 1u) * {count}u + {column}")
        })?;
        writeln!(
            to,
            "        }}
        workgroupBarrier();
        let at = half + slice * {}u;
        var sum = 0.0;",
            state.stride(),
        )?;
        write_sum(to, "state", &recurrent)?;
        self.write_joined(to, slices)?;
        // The four sums of a unit lie in neighbouring slices of its subgroup.
        writeln!(
            to,
            "        sum += given[(step - first) * {rows}u + row];
        let sums = vec4<f32>(sum, subgroupShuffleXor(sum, {slices}u), subgroupShuffleXor(sum, {}u), subgroupShuffleXor(sum, {}u));
        if ends {{
            let after = {cell}(sums, kept);
            kept = after.y;
            put(words_at + {word}u + step * {count}u + unit, after.x);
        }}
    }}
    workgroupBarrier();
    }}
    }}",
            2 * slices,
            3 * slices,
        )
    }

    fn write_places(&self, to: &mut String, places: &Places) -> Result {
        let Places { linear, slices, word, bias_at, .. } = places;
        let (width, count) = (linear.weights.out_width, linear.repeat.count);
        let (outputs, blocks) = (places.outputs(), places.blocks());
        let (activation, slope) = params::activation(linear.activation);
        writeln!(
            to,
            "    for (var work = group.x; work < {}u; work += {}u) {{ // {} → {width}, {count} times
    let place = work / {blocks}u;
    let block = work % {blocks}u;",
            count * blocks,
            self.workgroups,
            linear.weights.in_width,
        )?;
        let loaded = write_loads(to, "w", places.weights_at, "block", *slices)?;
        writeln!(to, "    workgroupBarrier();")?;
        self.write_staging(to, "x", "0u", *slices, 1, |_, column| column_at(&places.src, "place", column))?;
        writeln!(
            to,
            "    workgroupBarrier();
    let at = index % {}u * {}u;
    var sum = 0.0;",
            slices.count,
            slices.stride(),
        )?;
        write_sum(to, "x", &loaded)?;
        self.write_joined(to, slices.count)?;
        writeln!(
            to,
            "    let out = block * {outputs}u + index / {slices}u;
    if index % {slices}u == 0u && out < {width}u {{
        let bias_at = {bias_at}u + out;
        let value = activate({activation}u, f32({slope}), sum + weights[bias_at / 4u][bias_at % 4u]);",
            slices = slices.count,
        )?;
        match word {
            Some(word) => writeln!(to, "        put(words_at + {word}u + place * {width}u + out, value);")?,
            None => {
                let (first, step) = (linear.dst.offset, linear.repeat.dst_step);
                writeln!(to, "        emit(0u, {first}u + place * {step}u + out, value);")?;
            }
        }
        writeln!(to, "    }}\n    }}")
    }

    /// Adds up the slices: every lane of a row has the sum afterwards.
    fn write_joined(&self, to: &mut String, slices: usize) -> Result {
        debug_assert!(
            slices.is_power_of_two() && slices <= self.lanes,
            "the slices of a row are of one subgroup"
        );
        let mut apart = 1;
        while apart < slices {
            writeln!(to, "        sum += subgroupShuffleXor(sum, {apart}u);")?;
            apart *= 2;
        }
        Ok(())
    }

    /// Brings words to workgroup memory, `[steps, slices]` from vector `base` of `array` on: `word` says which is that of a
    /// step and a column.
    fn write_staging(
        &self,
        to: &mut String,
        array: &str,
        base: &str,
        slices: Slices,
        steps: usize,
        word: impl Fn(&str, &str) -> String,
    ) -> Result {
        let (floats, width) = (slices.floats(), slices.width);
        let (len, stride) = (slices.len(), slices.stride());
        let columns: Vec<usize> = (0..(steps * floats).div_ceil(INVOCATIONS)).collect();
        for some in columns.chunks(POLLED_MAX) {
            writeln!(to, "        {{")?;
            let mut loads = String::new();
            for column in some {
                let at = word(&format!("step_{column}"), &format!("min(k_{column}, {}u)", width - 1));
                writeln!(
                    to,
                    "        let cell_{column} = index + {}u;
        let step_{column} = min(cell_{column} / {floats}u, {}u);
        let k_{column} = cell_{column} % {floats}u;
        let at_{column} = words_at + {at};
        var word_{column} = EMPTY;",
                    column * INVOCATIONS,
                    steps - 1,
                )?;
                writeln!(loads, "            word_{column} = atomicLoad(&results[at_{column}]);")?;
            }
            let missing: Vec<String> = some.iter().map(|column| format!("word_{column} == EMPTY")).collect();
            to.push_str(&stays::all_at_once(&loads, &missing.join(" || ")));
            for column in some {
                writeln!(
                    to,
                    "        if cell_{column} < {}u {{ {array}[{base} + step_{column} * {}u + k_{column} / {len}u * {stride}u + k_{column} % {len}u / 4u][k_{column} % 4u] = select(0.0, bitcast<f32>(word_{column}), k_{column} < {width}u); }}",
                    steps * floats,
                    slices.vec4s(),
                )?;
            }
            writeln!(to, "        }}")?;
        }
        Ok(())
    }
}

/// The word of a column of a step or place, both given as text.
fn column_at(src: &Words, step: &str, column: &str) -> String {
    let at = format!("{step} * {}u + {column}", src.step);
    match &src.kind {
        Kind::Run(first) => format!("{first}u + {at}"),
        Kind::Table { at: table, .. } => {
            format!("u32(weights[({table}u + {at}) / 4u][({table}u + {at}) % 4u])")
        }
    }
}

/// A slice of a row of a matrix in registers, if there are not too many; what each vector of it is called.
fn write_loads(
    to: &mut String,
    name: &str,
    at: usize,
    block: &str,
    slices: Slices,
) -> std::result::Result<Vec<String>, std::fmt::Error> {
    let vec4s = slices.len() / 4;
    let vector = |q: usize| format!("weights[{at}u + ({block} * {vec4s}u + {q}u) * {INVOCATIONS}u + index]");
    if vec4s > KEPT_MAX {
        return Ok((0..vec4s).map(vector).collect());
    }
    for q in 0..vec4s {
        writeln!(to, "    let {name}_{q} = {};", vector(q))?;
    }
    Ok((0..vec4s).map(|q| format!("{name}_{q}")).collect())
}

/// Adds to `sum` the products of vectors of weights and those of `array` from `at` on.
fn write_sum(to: &mut String, array: &str, weights: &[String]) -> Result {
    for (q, weight) in weights.iter().enumerate() {
        writeln!(
            to,
            "        {{ let v = {array}[at + {q}u]; let w = {weight}; sum = fma(v.x, w.x, sum); sum = fma(v.y, w.y, sum); sum = fma(v.z, w.z, sum); sum = fma(v.w, w.w, sum); }}"
        )?;
    }
    Ok(())
}
