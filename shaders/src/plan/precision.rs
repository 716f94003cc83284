//! How exactly the matrices of a plan are kept.

use std::collections::HashMap;
use std::sync::Arc;

use half::f16;

use super::{Command, Plan, Weights, builder};

/// Behind the digest of a file whose weights were rounded.
const HALVED: &str = "+f16";

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
}

impl Precision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// `"f32"` or `"f16"`, as the configuration and answers say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// A digest of weights that are kept so.
    #[must_use]
    pub fn sign(self, hex: &str) -> String {
        match self {
            Self::F32 => hex.to_owned(),
            Self::F16 => format!("{hex}{HALVED}"),
        }
    }

    /// The digest of the file alone, and how its weights are kept.
    #[must_use]
    pub fn of_digest(digest: &str) -> (&str, Self) {
        match digest.strip_suffix(HALVED) {
            Some(hex) => (hex, Self::F16),
            None => (digest, Self::F32),
        }
    }

    /// Bytes of one weight.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
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
        let matrix = match precision {
            Precision::F32 => self.matrix.clone(),
            Precision::F16 => self.matrix.iter().map(halve).collect::<Option<Vec<f32>>>()?,
        };
        Some(Self { out_width: self.out_width, in_width: self.in_width, matrix, bias: self.bias.clone() })
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
                for (exact, rounded) in exact.matrix.iter().zip(&rounded.matrix) {
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
        let weights =
            |largest| Weights { out_width: 1, in_width: 2, matrix: vec![1.0, largest], bias: vec![1e9] };
        assert!(weights(65_504.0).rounded(Precision::F16).is_some());
        assert!(weights(65_530.0).rounded(Precision::F16).is_none());
    }
}
