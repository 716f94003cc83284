//! How exactly the matrices of a plan are kept.

use std::collections::HashMap;
use std::sync::Arc;

use half::f16;

use super::{Command, Plan, Weights, builder};

/// The largest whole number that a weight of eight bits is.
const WHOLE_MAX: f32 = 127.0;

/// How exactly the matrices of a plan are kept. Biases, states and sums are f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As trained.
    #[default]
    F32,
    /// Rounded to halves, 11 bits of 24, in half the memory: every executor computes with the same rounded numbers. Where a
    /// device multiplies halves by itself (cooperative matrices) the inputs of a layer over many lines are rounded as well,
    /// so that an answer may depend on the count of its batch mates, by some 5e-4 of its size.
    F16,
    /// Whole numbers from −127 to 127 times a scale for each output, which is 1/127 of its largest weight rounded up to 16 bits:
    /// each weight is off by at most half of that. A quarter of the memory on the CPU, where the scale is applied to a sum; a GPU
    /// keeps the same weights in f32, which holds every such product exactly.
    Int8,
}

impl Precision {
    /// The most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// `"f32"`, `"f16"` or `"int8"`, as the configuration and answers say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Behind the digest of a file whose weights were rounded.
    const fn sign_of(self) -> &'static str {
        match self {
            Self::F32 => "",
            Self::F16 => "+f16",
            Self::Int8 => "+int8",
        }
    }

    /// A digest of weights that are kept so.
    #[must_use]
    pub fn sign(self, hex: &str) -> String {
        format!("{hex}{}", self.sign_of())
    }

    /// The digest of the file alone, and how its weights are kept.
    #[must_use]
    pub fn of_digest(digest: &str) -> (&str, Self) {
        let signed = [Self::F16, Self::Int8].into_iter();
        let found = signed.filter_map(|kept| Some((digest.strip_suffix(kept.sign_of())?, kept))).next();
        found.unwrap_or((digest, Self::F32))
    }

    /// Bytes of one weight.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
            Self::Int8 => size_of::<i8>(),
        }
    }
}

/// What the whole numbers of an output are multiplied by, so that its largest weight becomes 127 of them. Of 16 bits: the
/// product with a whole number is a float, and 127 of them tell it again. Zero where it would be subnormal.
pub(crate) fn scale(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0.0, |max: f32, weight| max.max(weight.abs()));
    let rounded_up = f32::from_bits(((largest / WHOLE_MAX).to_bits() + 0xFF) & !0xFF);
    if rounded_up < f32::MIN_POSITIVE { 0.0 } else { rounded_up }
}

/// The nearest whole number of `scale`.
pub(crate) fn whole(weight: f32, scale: f32) -> i8 {
    if scale == 0.0 { 0 } else { (weight / scale).round_ties_even().clamp(-WHOLE_MAX, WHOLE_MAX) as i8 }
}

impl Plan {
    /// The same with matrices rounded to halves; `None` when a weight is larger than a half can be.
    #[must_use]
    pub fn halved(&self) -> Option<Self> {
        self.rounded(Precision::F16)
    }

    /// The same with matrices rounded to what `precision` keeps, under an id of its own; `None` when a weight is larger than
    /// that can be.
    #[must_use]
    pub fn rounded(&self, precision: Precision) -> Option<Self> {
        let mut known: HashMap<*const Weights, Arc<Weights>> = HashMap::new();
        let mut round = |weights: &mut Arc<Weights>| {
            let rounded = match known.get(&Arc::as_ptr(weights)) {
                Some(rounded) => Arc::clone(rounded),
                None => {
                    let rounded = Arc::new(weights.rounded(precision)?);
                    known.insert(Arc::as_ptr(weights), Arc::clone(&rounded));
                    rounded
                }
            };
            *weights = rounded;
            Some(())
        };
        let mut commands = self.commands.clone();
        for command in &mut commands {
            match command {
                Command::Linear(linear) => round(&mut linear.weights)?,
                Command::Recurrent(layer) => {
                    round(&mut layer.recurrent)?;
                    if let Some(projection) = &mut layer.projection {
                        round(projection)?;
                    }
                }
                Command::Pool(_)
                | Command::Move(_)
                | Command::Affine(_)
                | Command::LayerNorm(_)
                | Command::Attention(_) => {}
            }
        }
        Some(Self {
            id: builder::next_id(),
            name: self.name.clone(),
            precision,
            buffer_widths: self.buffer_widths.clone(),
            inputs: self.inputs.clone(),
            output: self.output,
            commands,
        })
    }
}

impl Weights {
    fn rounded(&self, precision: Precision) -> Option<Self> {
        let halve = |value: &f32| {
            let half = f16::from_f32(*value);
            half.is_finite().then(|| half.to_f32())
        };
        let whole_numbers = |row: &[f32]| {
            let scale = scale(row);
            row.iter().map(|weight| f32::from(whole(*weight, scale)) * scale).collect::<Vec<f32>>()
        };
        let exact = self.matrix();
        let matrix = match precision {
            Precision::F32 => exact,
            Precision::F16 => exact.iter().map(halve).collect::<Option<Vec<f32>>>()?,
            Precision::Int8 => {
                let all_finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
                let matrix = exact.chunks_exact(self.in_width).flat_map(whole_numbers).collect::<Vec<f32>>();
                (all_finite(&exact) && all_finite(&matrix)).then_some(matrix)?
            }
        };
        Some(Self::new(self.out_width, self.in_width, &matrix, self.bias.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Case;

    #[test]
    fn a_plan_of_halves_differs_by_their_rounding_and_shares_what_was_shared() {
        let plan = Case::nhits(1).plan;
        let halved = plan.halved().expect("small weights");
        assert_ne!(halved.id, plan.id);
        assert_eq!((plan.precision, halved.precision), (Precision::F32, Precision::F16));
        assert_eq!(halved.weight_bytes() * 2 - plan.weight_bytes(), 4 * biases(&plan));
        for (exact, rounded) in plan.commands.iter().zip(&halved.commands) {
            for (exact, rounded) in exact.weights().zip(rounded.weights()) {
                assert_eq!(exact.bias, rounded.bias);
                for (exact, rounded) in exact.matrix().iter().zip(&rounded.matrix()) {
                    assert!((exact - rounded).abs() <= exact.abs() / 2048.0 + 3e-8, "{exact} {rounded}");
                    assert_eq!(f16::from_f32(*rounded).to_f32(), *rounded);
                }
            }
        }
    }

    fn biases(plan: &Plan) -> usize {
        plan.commands.iter().flat_map(Command::weights).map(|weights| weights.bias.len()).sum()
    }

    #[test]
    fn what_no_half_can_be_is_refused() {
        let weights = |largest| Weights::new(1, 2, &[1.0, largest], vec![1e9]);
        assert!(weights(65_504.0).rounded(Precision::F16).is_some());
        assert!(weights(65_530.0).rounded(Precision::F16).is_none());
        assert!(weights(3e38).rounded(Precision::Int8).is_some());
        assert!(weights(f32::MAX).rounded(Precision::Int8).is_none(), "rounded up it is infinite");
        assert!(weights(f32::NAN).rounded(Precision::Int8).is_none());
    }

    #[test]
    fn whole_numbers_are_off_by_half_a_scale_and_are_found_again() {
        let mut noise = crate::tests::Noise(5);
        for (size, width) in [(1.0, 1), (0.03, 700), (1e-30, 33), (3e36, 9), (1e-37, 5), (1e-42, 4), (0.0, 3)]
        {
            let row = noise.uniform(width, size);
            let weights = Weights::new(1, width, &row, vec![0.0]);
            let rounded = weights.rounded(Precision::Int8).expect("far from the largest").matrix();
            let largest = row.iter().fold(0.0, |max: f32, weight| max.max(weight.abs()));
            // Below some 1e-36 nothing is left.
            let (scale, lost) = (scale(&row), if scale(&row) == 0.0 { largest } else { 0.0 });
            assert!(scale <= largest / 127.0 * 1.0001 && lost < 1e-35, "{size} {width}");
            assert_eq!(super::scale(&rounded), scale, "{size} {width}");
            for (exact, rounded) in row.iter().zip(&rounded) {
                assert!(
                    (exact - rounded).abs() <= scale * 0.500_001 + lost,
                    "{size} {width}: {exact} {rounded}"
                );
                assert_eq!(f32::from(whole(*rounded, scale)) * scale, *rounded);
            }
        }
    }

    #[test]
    fn what_was_rounded_says_so() {
        for precision in Precision::ALL {
            assert_eq!(Precision::of_digest(&precision.sign("beef")), ("beef", precision));
        }
    }
}
