//! Writes the kernel of a flow that stays.
//!
//! As the one that runs once, but that a subgroup adds up the slices of an output, so that one barrier a layer is left,
//! and the first layer's words are polled together with the request's. Each layer's weights are loaded while its input is
//! on its way; in registers from the first request on they leave too few for the rest (measured: two microseconds more
//! for nine layers).

use std::fmt::Write;

use super::{
    HEADER, REQUEST_MASK, SETS, STOP, TURNS_MAX, all_at_once, begin, empty, protocol, wait, wait_with,
};
use crate::gpu::flow::wgsl::write_pooled;
use crate::gpu::flow::{Flow, Form, INVOCATIONS, Layer, Source, WORDS};
use crate::gpu::kernels::ACTIVATIONS;
use crate::gpu::params;

impl Flow {
    /// The kernel for groups of `rows` rows.
    ///
    /// # Panics
    /// When the flow was not made to stay.
    pub(in crate::gpu) fn wgsl_stays(&self, rows: usize) -> String {
        let Form::Stays { solo, lanes, rows_max } = self.form else { panic!("a flow that stays") };
        let mut text = String::new();
        Writer { flow: self, solo, lanes, rows, rows_max }.write(&mut text).expect("a string takes any text");
        text + ACTIVATIONS
    }
}

struct Writer<'f> {
    flow: &'f Flow,
    solo: bool,
    /// Invocations of a subgroup.
    lanes: usize,
    rows: usize,
    rows_max: usize,
}

impl Writer<'_> {
    fn write(&self, to: &mut String) -> std::fmt::Result {
        let Self { flow, rows, rows_max, .. } = *self;
        let staged_vec4s = flow.staged_vec4s().iter().sum::<usize>();
        let vec4s = flow.layers.iter().map(|layer| layer.vec4s(flow.workgroups)).sum::<usize>();
        to.push_str(&protocol(flow.out_width()));
        to.push_str(WORDS);
        writeln!(
            to,
            "
// Two layers take turns, so that nobody overwrites what another still reads.
var<workgroup> x: array<vec4<f32>, {cells}>;
var<workgroup> partials: array<f32, {partials}>;",
            cells = rows * staged_vec4s,
            partials = rows * INVOCATIONS.div_ceil(self.lanes),
        )?;
        flow.write_readers(to)?;
        writeln!(
            to,
            "
{empty}
@compute @workgroup_size({INVOCATIONS})
fn flow(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(num_workgroups) groups: vec3<u32>) {{
    gave_up = false;
    if index == 0u {{ atomicStore(&lost, 0u); }}
    workgroupBarrier();
    let row_first = group.y * {rows}u;
    let place_of_all = (group.y * groups.x + group.x) * {INVOCATIONS}u + index;
{begin}",
            begin = begin(self.solo),
            empty = empty(rows_max.next_multiple_of(rows) * flow.words),
        )?;
        for (index, layer) in flow.layers.iter().enumerate() {
            self.write_places(to, index, layer, vec4s * 4)?;
        }
        writeln!(
            to,
            "    for (var turn = 0u; turn < {TURNS_MAX}u; turn++) {{
    let request = (request_first + turn) & {REQUEST_MASK}u;
    let words_at = {HEADER}u + request % {SETS}u * {set_words}u;",
            set_words = rows_max.next_multiple_of(rows) * flow.words,
        )?;
        let together = self.waits_with_first();
        if !together {
            to.push_str(&wait(self.solo, self.loops()));
            self.write_entry(to)?;
        }
        for (index, layer) in flow.layers.iter().enumerate() {
            self.write_layer(to, index, layer, together && index == 0)?;
        }
        writeln!(
            to,
            "    // The first group always has rows, and has a part in the next answer, behind this: another may be late.
    if group.y == 0u {{ empty(request, place_of_all, groups.x * {INVOCATIONS}u); }}
    workgroupBarrier();
    }}
}}"
        )
    }

    /// Turns of all loops for one request, at most.
    fn loops(&self) -> usize {
        let counts = |segments: &[crate::gpu::flow::Segment]| -> usize {
            segments.iter().map(|segment| segment.source.count).sum()
        };
        let layer = |layer: &Layer| {
            let columns = (layer.slices * layer.len).div_ceil(INVOCATIONS);
            let added = layer.before.iter().chain(&layer.mask).map(|segments| counts(segments));
            1 + columns * self.rows * counts(&layer.src) + layer.rounds * added.sum::<usize>()
        };
        let words = self.rows_max.next_multiple_of(self.rows) * self.flow.words;
        self.flow.layers.iter().map(layer).sum::<usize>() + words.div_ceil(INVOCATIONS) + 2
    }

    /// What follows once `row_count` is known.
    fn write_entry(&self, to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "    if row_count == {STOP}u {{
        empty(request, place_of_all, groups.x * groups.y * {INVOCATIONS}u);
        break;
    }}
    if row_first >= row_count {{ workgroupBarrier(); continue; }}
    let row_last = row_count - 1u;"
        )
    }

    /// Whether the first layer reads words of the request only, and one row of them.
    fn waits_with_first(&self) -> bool {
        let inputs = self.flow.layers.first().and_then(|layer| layer.words);
        !self.solo
            && self.rows == 1
            && self.flow.layers.first().is_some_and(|layer| {
                let last = |source: Source| source.at + source.step * (source.count - 1);
                let reads = |segment: &crate::gpu::flow::Segment| {
                    let end = last(segment.source) + (segment.len - 1) * segment.apart;
                    inputs.is_none_or(|word| end < word)
                };
                alike(layer).is_some() && layer.src.iter().all(reads)
            })
    }

    /// What an invocation sums and ends, in each round, and the bias of it.
    fn write_places(
        &self,
        to: &mut String,
        index: usize,
        layer: &Layer,
        biases_at: usize,
    ) -> std::fmt::Result {
        let Layer { linear, slices, outputs, rounds, bias_at, .. } = layer;
        let width = linear.weights.out_width;
        let here = layer.outputs_here(self.flow.workgroups);
        writeln!(
            to,
            "    let slice_{index} = index % {slices}u;\n    let place_{index} = index / {slices}u;"
        )?;
        for round in 0..*rounds {
            writeln!(
                to,
                "    let of_group_{index}_{round} = {round}u * {outputs}u + place_{index};
    let out_{index}_{round} = group.x * {here}u + of_group_{index}_{round};
    let ends_{index}_{round} = slice_{index} < {rows}u && of_group_{index}_{round} < {here}u && out_{index}_{round} < {width}u;
    let bias_at_{index}_{round} = {first}u + min(out_{index}_{round}, {last}u);
    let bias_{index}_{round} = weights[bias_at_{index}_{round} / 4u][bias_at_{index}_{round} % 4u];",
                rows = self.rows,
                first = biases_at + bias_at,
                last = width - 1,
            )?;
        }
        Ok(())
    }

    fn write_loads(&self, to: &mut String, index: usize, layer: &Layer) -> std::fmt::Result {
        let vec4s = layer.len / 4;
        for round in 0..layer.rounds {
            for q in 0..vec4s {
                writeln!(
                    to,
                    "    let w_{index}_{round}_{q} = weights[{}u + (({round}u * {}u + group.x) * {vec4s}u + {q}u) * {INVOCATIONS}u + index];",
                    layer.weights_at, self.flow.workgroups,
                )?;
            }
        }
        Ok(())
    }

    fn write_layer(&self, to: &mut String, index: usize, layer: &Layer, first: bool) -> std::fmt::Result {
        let Self { rows, lanes, .. } = *self;
        let Layer { linear, len, slices, rounds, .. } = layer;
        let (width, in_width) = (linear.weights.out_width, linear.weights.in_width);
        let workgroups = self.flow.workgroups;
        let here = layer.outputs_here(workgroups);
        let cells = layer.input_vec4s();
        let half = index % 2 * rows * self.flow.staged_vec4s()[0];
        // One without outputs reads nothing: what it read would be emptied once every output is there.
        let busy = width.div_ceil(here);
        let idles = if busy < workgroups { format!("if group.x < {busy}u ") } else { String::new() };
        if !first {
            writeln!(to, "    {idles}{{ // {in_width} → {width}")?;
        }
        self.write_loads(to, index, layer)?;
        if self.solo {
            writeln!(to, "        workgroupBarrier();")?;
        }
        if !first {
            self.write_additions(to, index, layer)?;
        }
        self.write_staging(to, index, layer, first, half)?;
        writeln!(to, "        workgroupBarrier();")?;
        if first {
            writeln!(to, "        let row_count = order;")?;
            self.write_entry(to)?;
            writeln!(to, "    {idles}{{ // {in_width} → {width}")?;
            self.write_additions(to, index, layer)?;
        }
        let (activation, slope) = params::activation(linear.activation);
        for round in 0..*rounds {
            writeln!(
                to,
                "        {{
        let out = out_{index}_{round};
        let row = row_first + slice_{index};
        let ends = ends_{index}_{round} && row <= row_last;
        let slice_at = {half}u + slice_{index} * {}u;",
                layer.slice_vec4s()
            )?;
            for row in 0..rows {
                writeln!(to, "        var sum_{row} = 0.0;")?;
                for q in 0..len / 4 {
                    writeln!(
                        to,
                        "        {{ let v = x[slice_at + {}u]; let w = w_{index}_{round}_{q}; sum_{row} = fma(v.x, w.x, sum_{row}); sum_{row} = fma(v.y, w.y, sum_{row}); sum_{row} = fma(v.z, w.z, sum_{row}); sum_{row} = fma(v.w, w.w, sum_{row}); }}",
                        row * cells + q
                    )?;
                }
            }
            // Every lane has the sum afterwards.
            let mut apart = 1;
            while apart < (*slices).min(lanes) {
                for row in 0..rows {
                    writeln!(to, "        sum_{row} += subgroupShuffleXor(sum_{row}, {apart}u);")?;
                }
                apart *= 2;
            }
            let parts = slices / lanes;
            if parts > 1 {
                if round > 0 {
                    writeln!(to, "        workgroupBarrier();")?;
                }
                for row in 0..rows {
                    writeln!(
                        to,
                        "        if index % {lanes}u == 0u {{ partials[{}u + index / {lanes}u] = sum_{row}; }}",
                        row * INVOCATIONS / lanes
                    )?;
                }
                writeln!(to, "        workgroupBarrier();")?;
            }
            writeln!(to, "        if ends {{\n            var total = sum_0;")?;
            if parts > 1 {
                writeln!(
                    to,
                    "            let part_at = slice_{index} * {}u + place_{index} * {parts}u;
            total = partials[part_at];",
                    INVOCATIONS / lanes
                )?;
                for part in 1..parts {
                    writeln!(to, "            total += partials[part_at + {part}u];")?;
                }
            } else {
                for row in 1..rows {
                    writeln!(to, "            if slice_{index} == {row}u {{ total = sum_{row}; }}")?;
                }
            }
            let times =
                if layer.mask.is_some() { format!(" * mask_of_{index}_{round}") } else { String::new() };
            writeln!(
                to,
                "            let value = activate({activation}u, f32({slope}), total + init_{index}_{round}){times};"
            )?;
            match layer.words {
                Some(word) => {
                    let words = self.flow.words;
                    writeln!(to, "            put(words_at + row * {words}u + {word}u + out, value);")?;
                }
                None => writeln!(to, "            emit(row, out, value);")?,
            }
            writeln!(to, "        }}\n        }}")?;
        }
        writeln!(to, "    }}")
    }

    /// What is added and multiplied last: it is there before the layer's input.
    fn write_additions(&self, to: &mut String, index: usize, layer: &Layer) -> std::fmt::Result {
        for round in 0..layer.rounds {
            writeln!(
                to,
                "        var init_{index}_{round} = bias_{index}_{round};\n        var mask_of_{index}_{round} = 1.0;"
            )?;
            if layer.before.is_none() && layer.mask.is_none() {
                continue;
            }
            writeln!(
                to,
                "        if ends_{index}_{round} && row_first + slice_{index} <= row_last {{
            let row = row_first + slice_{index};"
            )?;
            if layer.before.is_some() {
                writeln!(
                    to,
                    "            init_{index}_{round} += before_{index}(row, words_at, out_{index}_{round});"
                )?;
            }
            if layer.mask.is_some() {
                writeln!(
                    to,
                    "            mask_of_{index}_{round} = mask_{index}(row, words_at, out_{index}_{round});"
                )?;
            }
            writeln!(to, "        }}")?;
        }
        Ok(())
    }

    /// Brings a layer's input to workgroup memory.
    fn write_staging(
        &self,
        to: &mut String,
        index: usize,
        layer: &Layer,
        first: bool,
        half: usize,
    ) -> std::fmt::Result {
        let rows = self.rows;
        let Layer { linear, len, slices, .. } = layer;
        let (in_width, words) = (linear.weights.in_width, self.flow.words);
        let staged = slices * len;
        let columns = staged.div_ceil(INVOCATIONS);
        let (stride, cells) = (layer.slice_vec4s(), layer.input_vec4s());
        for column in 0..columns {
            let at = column * INVOCATIONS;
            writeln!(to, "        let k_{index}_{column} = index + {at}u;")?;
            writeln!(
                to,
                "        let cell_{index}_{column} = {half}u + k_{index}_{column} / {len}u * {stride}u + k_{index}_{column} % {len}u / 4u;"
            )?;
        }
        let like = alike(layer);
        if let Some(Source { step, count, .. }) = like {
            for column in 0..columns {
                writeln!(
                    to,
                    "        let read_{index}_{column} = words_at + at_{index}(min(k_{index}_{column}, {}u));",
                    in_width - 1
                )?;
            }
            let (mut loads, mut missing) = (String::new(), Vec::new());
            for column in 0..columns {
                for (row, part) in (0..rows).flat_map(|row| (0..count).map(move |part| (row, part))) {
                    let name = format!("word_{index}_{column}_{row}_{part}");
                    let row = if rows == 1 {
                        "row_first".to_owned()
                    } else {
                        format!("min(row_first + {row}u, row_last)")
                    };
                    writeln!(to, "        var {name} = EMPTY;")?;
                    writeln!(
                        loads,
                        "            {name} = atomicLoad(&results[read_{index}_{column} + {row} * {words}u + {}u]);",
                        part * step
                    )?;
                    missing.push(format!("{name} == EMPTY"));
                }
            }
            let missing = missing.join(" || ");
            if first {
                to.push_str(&wait_with(&loads, &missing));
            } else {
                to.push_str(&all_at_once(&loads, &missing));
            }
        }
        for column in 0..columns {
            writeln!(to, "        if k_{index}_{column} < {staged}u {{")?;
            for row in 0..rows {
                let value = match like {
                    Some(source) => {
                        write_pooled(to, row, source, |part| format!("word_{index}_{column}_{row}_{part}"))?;
                        format!("value_{row}")
                    }
                    None => format!(
                        "src_{index}(min(row_first + {row}u, row_last), words_at, min(k_{index}_{column}, {}u))",
                        in_width - 1
                    ),
                };
                writeln!(
                    to,
                    "            x[{}u + cell_{index}_{column}][k_{index}_{column} % 4u] = select(0.0, {value}, k_{index}_{column} < {in_width}u);",
                    row * cells
                )?;
            }
            writeln!(to, "        }}")?;
        }
        Ok(())
    }
}

/// How all columns of a layer's input are read, if all are read alike.
fn alike(layer: &Layer) -> Option<Source> {
    let first = layer.src[0].source;
    let same = |source: Source| Source { at: first.at, ..source } == first;
    layer.src.iter().all(|segment| same(segment.source)).then_some(first)
}
