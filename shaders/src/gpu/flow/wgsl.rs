//! Writes the kernel of a flow: one layer after the other, each its own code.

use std::fmt::Write;

use super::once::Frame;
use super::{Flow, INVOCATIONS, Layer, Segment, Source};
use crate::gpu::kernels::ACTIVATIONS;
use crate::gpu::params;

/// Polls of one word before a run fails: ten milliseconds or so.
pub(in crate::gpu) const POLLS_MAX: usize = 20_000;
/// What a word says.
pub(in crate::gpu) const WORDS: &str = "
const EMPTY: u32 = 0xffffffffu;
var<private> gave_up: bool;

// A word that says something.
fn said(value: f32) -> u32 {
    let word = bitcast<u32>(value);
    return select(word, 0x7fc00000u, word == EMPTY);
}
";

impl Flow {
    /// The kernel for groups of `rows` rows, which runs once.
    pub(super) fn wgsl(&self, rows: usize) -> String {
        self.text(rows, super::once::frame(self, rows))
    }

    fn text(&self, rows: usize, frame: Frame) -> String {
        let mut text = String::new();
        self.write(&mut text, rows, frame).expect("a string takes any text");
        text + ACTIVATIONS
    }

    fn write(&self, to: &mut String, rows: usize, frame: Frame) -> std::fmt::Result {
        let input_vec4s = self.layers.iter().map(super::Layer::input_vec4s).max().unwrap_or(1);
        let vec4s = self.layers.iter().map(|layer| layer.vec4s(self.workgroups)).sum::<usize>();
        writeln!(
            to,
            "{before}{WORDS}
var<workgroup> x: array<vec4<f32>, {cells}>;
var<workgroup> partials: array<f32, {partials}>;",
            before = frame.before,
            cells = rows * input_vec4s,
            partials = rows * INVOCATIONS,
        )?;
        self.write_readers(to)?;
        to.push_str(&frame.head);
        for (index, layer) in self.layers.iter().enumerate() {
            self.write_layer(to, index, layer, rows, vec4s * 4)?;
        }
        to.push_str(&frame.tail);
        Ok(())
    }

    /// What reads the views of each layer.
    pub(super) fn write_readers(&self, to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "
fn poll(at: u32) -> f32 {{
    if !gave_up {{
        for (var turn = 0u; turn < {POLLS_MAX}u; turn++) {{
            let word = atomicLoad(&results[at]);
            if word != EMPTY {{ return bitcast<f32>(word); }}
        }}
        give_up();
    }}
    return 0.0;
}}"
        )?;
        for (index, layer) in self.layers.iter().enumerate() {
            self.write_reader(to, &format!("src_{index}"), &layer.src)?;
            self.write_places(to, index, &layer.src)?;
            if let Some(before) = &layer.before {
                self.write_reader(to, &format!("before_{index}"), before)?;
            }
            if let Some(mask) = &layer.mask {
                self.write_reader(to, &format!("mask_{index}"), mask)?;
            }
        }
        Ok(())
    }

    /// `fn name(row, words_at, k)`: column `k` of a view.
    fn write_reader(&self, to: &mut String, name: &str, segments: &[Segment]) -> std::fmt::Result {
        writeln!(to, "\nfn {name}(row: u32, words_at: u32, k: u32) -> f32 {{")?;
        for (place, segment) in segments.iter().enumerate() {
            let Segment { first, len, source, apart } = *segment;
            let last = place + 1 == segments.len();
            if !last {
                writeln!(to, "    if k < {}u {{", first + len)?;
            }
            let cell = |offset: &str| match source.at.checked_sub(self.first_word) {
                Some(word) => {
                    let words = self.words;
                    format!(
                        "poll(words_at + row * {words}u + {word}u + (k - {first}u) * {apart}u + {offset})"
                    )
                }
                None => {
                    let input = self.input_starts.partition_point(|start| *start <= source.at) - 1;
                    let column = source.at - self.input_starts[input];
                    format!("taken({input}u, row, {column}u + (k - {first}u) * {apart}u + {offset})")
                }
            };
            writeln!(to, "    var value = {};", cell("0u"))?;
            for step in 1..source.count {
                let other = cell(&format!("{}u", step * source.step));
                if source.mean {
                    writeln!(to, "    value += {other};")?;
                } else {
                    writeln!(
                        to,
                        "    {{ let other = {other}; value = select(value, other, other > value); }}"
                    )?;
                }
            }
            if source.mean && source.count > 1 {
                writeln!(to, "    value = value / {}.0;", source.count)?;
            }
            writeln!(to, "    return value;")?;
            if !last {
                writeln!(to, "    }}")?;
            }
        }
        writeln!(to, "}}")
    }

    /// `fn at_index(k)`: the word of column `k`, if all are words.
    fn write_places(&self, to: &mut String, index: usize, segments: &[Segment]) -> std::fmt::Result {
        if segments.iter().any(|segment| segment.source.at < self.first_word) {
            return Ok(());
        }
        writeln!(to, "\nfn at_{index}(k: u32) -> u32 {{")?;
        for Segment { first, len, source, apart } in segments {
            let word = source.at - self.first_word;
            let at = format!("{word}u + (k - {first}u) * {apart}u");
            writeln!(to, "    if k < {}u {{ return {at}; }}", first + len)?;
        }
        writeln!(to, "    return 0u;\n}}")
    }

    fn write_layer(
        &self,
        to: &mut String,
        index: usize,
        layer: &Layer,
        rows: usize,
        biases_at: usize,
    ) -> std::fmt::Result {
        let Layer { linear, slices, outputs, rounds, weights_at, bias_at, .. } = layer;
        let (width, in_width) = (linear.weights.out_width, linear.weights.in_width);
        let len = layer.len;
        let vec4s = len / 4;
        let stride = layer.slice_vec4s();
        let cells = layer.input_vec4s();
        let workgroups = self.workgroups;
        let here = layer.outputs_here(workgroups);
        let (activation, slope) = params::activation(linear.activation);
        writeln!(to, "    {{ // {in_width} → {width}")?;
        let load = |to: &mut String, round: &str| -> std::fmt::Result {
            for q in 0..vec4s {
                writeln!(
                    to,
                    "        let w_{q} = weights[{weights_at}u + (({round} * {workgroups}u + group.x) * {vec4s}u + {q}u) * {INVOCATIONS}u + index];"
                )?;
            }
            Ok(())
        };
        // In flight while the input is polled.
        if *rounds == 1 {
            load(to, "0u")?;
        }
        if self.form.solo() {
            writeln!(to, "        workgroupBarrier();")?;
        }
        // Of what is added last as well, where an invocation finishes one output at most.
        let early = *rounds == 1 && outputs * rows <= INVOCATIONS;
        let write_last = |to: &mut String| -> std::fmt::Result {
            writeln!(
                to,
                "            let bias_at = {}u + out;
            init = weights[bias_at / 4u][bias_at % 4u];",
                biases_at + bias_at
            )?;
            if layer.before.is_some() {
                writeln!(to, "            init += before_{index}(row, words_at, out);")?;
            }
            if layer.mask.is_some() {
                writeln!(to, "            mask = mask_{index}(row, words_at, out);")?;
            }
            Ok(())
        };
        writeln!(to, "        var init = 0.0;\n        var mask = 1.0;")?;
        if early {
            writeln!(
                to,
                "        {{
            let row = row_first + index / {outputs}u;
            let place = index % {outputs}u;
            let out = group.x * {here}u + place;
            if index < {}u && place < {here}u && out < {width}u && row <= row_last {{",
                outputs * rows
            )?;
            write_last(to)?;
            writeln!(to, "            }}\n        }}")?;
        }
        let reads = INVOCATIONS.min(slices * len);
        let columns = (slices * len).div_ceil(reads);
        let alike = layer.src.iter().all(|segment| {
            let Source { at, step, count, mean } = segment.source;
            at >= self.first_word && Source { at, step, count, mean } == Source { at, ..layer.src[0].source }
        });
        for column in 0..columns {
            let first = column * INVOCATIONS;
            writeln!(to, "        let k_{column} = index + {first}u;")?;
            writeln!(
                to,
                "        let cell_{column} = k_{column} / {len}u * {stride}u + k_{column} % {len}u / 4u;"
            )?;
        }
        if alike {
            let Source { step, count, .. } = layer.src[0].source;
            for column in 0..columns {
                writeln!(
                    to,
                    "        let read_at_{column} = words_at + at_{index}(min(k_{column}, {}u));",
                    in_width - 1
                )?;
            }
            let words: Vec<(usize, usize, usize)> = (0..columns)
                .flat_map(|column| {
                    (0..rows).flat_map(move |row| (0..count).map(move |part| (column, row, part)))
                })
                .collect();
            for (column, row, part) in &words {
                writeln!(to, "        var word_{column}_{row}_{part} = EMPTY;")?;
            }
            // All at once: a poll is a trip to the second level cache.
            writeln!(
                to,
                "        var missing = true;
        let turns = select({POLLS_MAX}u, 1u, gave_up);
        for (var turn = 0u; turn < turns && missing; turn++) {{"
            )?;
            for (column, row, part) in &words {
                let offset = part * step;
                writeln!(
                    to,
                    "            word_{column}_{row}_{part} = atomicLoad(&results[read_at_{column} + min(row_first + {row}u, row_last) * {}u + {offset}u]);",
                    self.words
                )?;
            }
            writeln!(to, "            missing = false;")?;
            for (column, row, part) in &words {
                writeln!(to, "            missing = missing || word_{column}_{row}_{part} == EMPTY;")?;
            }
            writeln!(to, "        }}\n        if missing {{ give_up(); }}")?;
        }
        for column in 0..columns {
            writeln!(to, "        if k_{column} < {}u {{", slices * len)?;
            for row in 0..rows {
                let value = if alike {
                    write_pooled(to, row, layer.src[0].source, |part| format!("word_{column}_{row}_{part}"))?;
                    format!("value_{row}")
                } else {
                    format!(
                        "src_{index}(min(row_first + {row}u, row_last), words_at, min(k_{column}, {}u))",
                        in_width - 1
                    )
                };
                writeln!(
                    to,
                    "            x[{}u + cell_{column}][k_{column} % 4u] = select(0.0, {value}, k_{column} < {in_width}u);",
                    row * cells
                )?;
            }
            writeln!(to, "        }}")?;
        }
        writeln!(to, "        workgroupBarrier();")?;
        writeln!(to, "        let slice = index % {slices}u;\n        let slice_at = slice * {stride}u;",)?;
        let round = if *rounds == 1 { "0u" } else { "round" };
        if *rounds > 1 {
            writeln!(to, "        for (var round = 0u; round < {rounds}u; round++) {{")?;
            load(to, round)?;
        }
        for row in 0..rows {
            writeln!(to, "        {{ var sum = 0.0;")?;
            for q in 0..vec4s {
                writeln!(
                    to,
                    "        {{ let v = x[{}u + slice_at]; sum = fma(v.x, w_{q}.x, sum); sum = fma(v.y, w_{q}.y, sum); sum = fma(v.z, w_{q}.z, sum); sum = fma(v.w, w_{q}.w, sum); }}",
                    row * cells + q
                )?;
            }
            writeln!(to, "        partials[{}u + index] = sum; }}", row * INVOCATIONS)?;
        }
        writeln!(
            to,
            "        workgroupBarrier();
        for (var item = index; item < {finishing}u; item += {INVOCATIONS}u) {{
            let place = item % {outputs}u;
            let row_here = item / {outputs}u;
            let row = row_first + row_here;
            let of_group = {round} * {outputs}u + place;
            let out = group.x * {here}u + of_group;
            if of_group < {here}u && out < {width}u && row <= row_last {{",
            finishing = outputs * rows,
        )?;
        if !early {
            write_last(to)?;
        }
        writeln!(
            to,
            "            let part_at = row_here * {INVOCATIONS}u + place * {slices}u;\n            var total = 0.0;"
        )?;
        for slice in 0..*slices {
            writeln!(to, "            let part_{slice} = partials[part_at + {slice}u];")?;
        }
        for slice in 0..*slices {
            writeln!(to, "            total += part_{slice};")?;
        }
        let times = if layer.mask.is_some() { " * mask" } else { "" };
        writeln!(
            to,
            "                let value = activate({activation}u, f32({slope}), total + init){times};"
        )?;
        match layer.words {
            Some(word) => {
                writeln!(
                    to,
                    "                put(words_at + row * {}u + {word}u + out, value);",
                    self.words
                )?;
            }
            None => writeln!(to, "                emit(row, out, value);")?,
        }
        writeln!(to, "            }}\n        }}")?;
        if *rounds > 1 {
            writeln!(to, "        workgroupBarrier();\n        }}")?;
        }
        writeln!(to, "    }}")
    }
}

/// `value_{row}` of words that were polled, pooled where there are several; `word` names them.
pub(super) fn write_pooled(
    to: &mut String,
    row: usize,
    source: Source,
    word: impl Fn(usize) -> String,
) -> std::fmt::Result {
    writeln!(to, "            var value_{row} = bitcast<f32>({});", word(0))?;
    for part in 1..source.count {
        let other = format!("bitcast<f32>({})", word(part));
        if source.mean {
            writeln!(to, "            value_{row} += {other};")?;
        } else {
            writeln!(to, "            value_{row} = select(value_{row}, {other}, {other} > value_{row});")?;
        }
    }
    if source.mean && source.count > 1 {
        writeln!(to, "            value_{row} = value_{row} / {}.0;", source.count)?;
    }
    Ok(())
}
