//! Interpolation from knots to steps as a matrix: half-pixel centres, corners not aligned.

use crate::loader::LoadError;

/// Terms of one output: knot and weight.
pub(super) type Taps = Vec<(usize, f64)>;

/// How knots become steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interpolation {
    Linear,
    Nearest,
    Cubic,
}

impl Interpolation {
    pub(super) fn parse(name: &str) -> Result<Self, LoadError> {
        match name {
            "linear" => Ok(Self::Linear),
            "nearest" => Ok(Self::Nearest),
            "cubic" => Ok(Self::Cubic),
            other => Err(LoadError::unsupported(format!("interpolation_mode `{other}`"))),
        }
    }

    /// Knots that one step sums.
    pub(super) fn tap_count(self) -> usize {
        match self {
            Self::Linear => 2,
            Self::Nearest => 1,
            Self::Cubic => 4,
        }
    }

    /// Per step the knots it sums.
    pub(super) fn taps(self, knots: usize, steps: usize) -> Vec<Taps> {
        (0..steps).map(|step| self.step_taps(step, knots, steps)).collect()
    }

    fn step_taps(self, step: usize, knots: usize, steps: usize) -> Taps {
        let centre = (step as f64 + 0.5) * knots as f64 / steps as f64 - 0.5;
        match self {
            Self::Linear => {
                let at = centre.max(0.0);
                let low = at.floor();
                let weight = at - low;
                let low = low as usize;
                vec![(low, 1.0 - weight), ((low + 1).min(knots - 1), weight)]
            }
            Self::Nearest => {
                // Quotient first, both roundings to f32: the exact rational picks another knot for some sizes.
                let at = (step as f32 * (knots as f32 / steps as f32)).floor();
                vec![((at as usize).min(knots - 1), 1.0)]
            }
            Self::Cubic => {
                let low = centre.floor();
                let t = centre - low;
                let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
                let knot = |tap: usize| (low as i64 + tap as i64 - 1).clamp(0, knots as i64 - 1) as usize;
                weights.iter().enumerate().map(|(tap, &weight)| (knot(tap), weight)).collect()
            }
        }
    }
}

/// The cubic convolution's coefficient.
const A: f64 = -0.75;

/// Weight of a knot less than one away.
fn near(x: f64) -> f64 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// Weight of a knot between one and two away.
fn far(x: f64) -> f64 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}
