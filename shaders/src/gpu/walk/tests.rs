//! What many workgroups would do, one after the other on the host: that each finds its own weights and words. A software
//! adapter does not run workgroups at once, and has one (`tests/walk.rs`).

use super::Walk;
use super::stages::{Kind, Layer, Places, Stage, Words};
use crate::Cell;
use crate::gpu::cells::{INVOCATIONS, SUMS};
use crate::gpu::spirv::Rules;
use crate::tests::{Case, activate, forecast, oracle};

/// As many as the devices have that run workgroups at once.
const LANES: usize = 32;

struct Host<'w> {
    walk: &'w Walk,
    packed: Vec<f32>,
    words: Vec<f64>,
    output: Vec<f64>,
}

impl Host<'_> {
    fn weight(&self, vec4: usize, at: usize) -> f64 {
        f64::from(self.packed[vec4 * 4 + at])
    }

    /// The word of a column of a step, as the kernel finds it.
    fn input(&self, src: &Words, step: usize, column: usize) -> f64 {
        let at = step * src.step + column;
        match src.kind {
            Kind::Run(first) => self.words[first + at],
            Kind::Table { at: table, .. } => self.words[self.packed[table + at] as usize],
        }
    }

    /// The sum of an invocation: a slice of a row, from vector `first` on.
    fn sum(&self, first: usize, slices: super::Slices, index: usize, x: impl Fn(usize) -> f64) -> f64 {
        let slice = index % slices.count;
        let columns = (0..slices.len()).map(|k| (k, slice * slices.len() + k));
        let inside = columns.filter(|(_, column)| *column < slices.width);
        inside.map(|(k, column)| self.weight(first + k / 4 * INVOCATIONS + index, k % 4) * x(column)).sum()
    }

    fn layer(&mut self, layer: &Layer) {
        let (units, slices) = (layer.units, layer.units.slices);
        let mut kept = vec![0.0; units.count];
        for step in 0..layer.steps {
            let before: Vec<f64> = match step {
                0 => vec![0.0; units.count],
                _ => self.words[layer.word + (step - 1) * units.count..][..units.count].to_vec(),
            };
            let mut after = Vec::new();
            for workgroup in layer.first_workgroup..layer.first_workgroup + units.workgroups() {
                assert!(workgroup < self.walk.workgroups, "it runs");
                let place = workgroup - layer.first_workgroup;
                let vec4s = |slices: super::Slices| place * slices.len() / 4 * INVOCATIONS;
                let row_sum = |row: usize| -> f64 {
                    let bias = f64::from(self.packed[layer.bias_at + place * layer.rows() + row]);
                    let of_row = row * slices..(row + 1) * slices;
                    let part = |index: usize| {
                        let first = layer.input_at + vec4s(layer.input_slices);
                        let own = layer.recurrent_at + vec4s(layer.recurrent_slices);
                        self.sum(first, layer.input_slices, index, |k| self.input(&layer.src, step, k))
                            + self.sum(own, layer.recurrent_slices, index, |k| before[k])
                    };
                    bias + of_row.map(part).sum::<f64>()
                };
                for place_of_unit in 0..units.here {
                    let unit = place * units.here + place_of_unit;
                    if unit >= units.count {
                        continue;
                    }
                    let [a, b, c, d] = [0, 1, 2, 3].map(|sum| row_sum(place_of_unit * SUMS + sum));
                    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                    let h = match units.cell {
                        Cell::Lstm => {
                            kept[unit] = sigmoid(b) * kept[unit] + sigmoid(a) * c.tanh();
                            sigmoid(d) * kept[unit].tanh()
                        }
                        Cell::Gru => {
                            let candidate = (c + sigmoid(a) * d).tanh();
                            sigmoid(b) * (before[unit] - candidate) + candidate
                        }
                    };
                    after.push((layer.word + step * units.count + unit, h));
                }
            }
            after.into_iter().for_each(|(word, h)| self.words[word] = h);
        }
    }

    fn places(&mut self, places: &Places) {
        let Places { linear, slices, .. } = places;
        let (count, width) = (linear.repeat.count, linear.weights.out_width);
        for workgroup in 0..self.walk.workgroups {
            for work in (workgroup..count * places.blocks()).step_by(self.walk.workgroups) {
                let (place, block) = (work / places.blocks(), work % places.blocks());
                for row in 0..places.outputs() {
                    let out = block * places.outputs() + row;
                    if out >= width {
                        continue;
                    }
                    let first = places.weights_at + block * slices.len() / 4 * INVOCATIONS;
                    let of_row = row * slices.count..(row + 1) * slices.count;
                    let part = |index| self.sum(first, *slices, index, |k| self.input(&places.src, place, k));
                    let sum: f64 =
                        of_row.map(part).sum::<f64>() + f64::from(self.packed[places.bias_at + out]);
                    let value = activate(linear.activation, sum);
                    match places.word {
                        Some(word) => self.words[word + place * width + out] = value,
                        None => self.output[place * linear.repeat.dst_step + out] = value,
                    }
                }
            }
        }
    }
}

/// Every workgroup finds its own, and the kernel is valid; how many there are.
#[track_caller]
fn check(case: &Case, workgroups: usize) {
    let walk = Walk::of(&case.plan, false, LANES).unwrap_or_else(|| panic!("{} goes this way", case.name));
    assert_eq!(walk.workgroups, workgroups, "{}", case.name);
    Rules::Resident.translate(&walk.wgsl(), (1, 3)).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let mut words = vec![f64::NAN; walk.words];
    for (input, place) in case.inputs.iter().zip(walk.extent(&case.plan).inputs) {
        words[place].iter_mut().zip(input).for_each(|(word, value)| *word = f64::from(*value));
    }
    let output = vec![f64::NAN; walk.out_width];
    let mut host = Host { walk: &walk, packed: walk.pack(), words, output };
    for stage in &walk.stages {
        match stage {
            Stage::Recurrent(layer) => host.layer(layer),
            Stage::Linear(places) => host.places(places),
        }
    }
    assert!(host.words.iter().all(|word| !word.is_nan()), "{}: a word that nobody writes", case.name);
    for (actual, expected) in host.output.iter().zip(oracle(&case.plan, 1, &case.input_slices())) {
        assert!((actual - expected).abs() <= 1e-9, "{}: {actual} where {expected} is right", case.name);
    }
}

#[test]
fn layers_side_by_side_find_what_is_theirs() {
    check(&Case::of(forecast(5, 3, 45, [Cell::Lstm, Cell::Gru]), 1), 6 + 6);
    check(&Case::of(forecast(4, 4, 6, [Cell::Gru, Cell::Lstm]), 1), 1 + 2);
}

#[test]
fn layers_that_do_not_fit_side_by_side_share_their_workgroups() {
    check(&Case::of(forecast(2, 1, 530, [Cell::Gru, Cell::Gru]), 1), 67);
    // More units than eight a workgroup.
    check(&Case::of(forecast(2, 1, 1100, [Cell::Lstm, Cell::Gru]), 1), 123);
}
