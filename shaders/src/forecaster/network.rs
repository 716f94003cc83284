//! What a family makes of its weights: a plan, and how the plan's inputs are to be laid out.

use crate::loader::{Archive, Blueprint, LoadError};
use crate::{Family, ModelSpec, Plan};

use super::anchor::Instance;
use super::{deepar, dlinear, mlp, nbeats, nhits, nlinear, patchtst, rnn, tcn, tide, tsmixer};

/// A plan and the contract of its inputs and output.
///
/// Input 0, `features`: `[ y (L·N, step-major) | hist (L·X, step-major) | futr ((L+h)·F, step-major) | stat (S) ]`, normalized.
/// Input 1, only when `masked`: the mask (L), in the order of `y`.
/// Output: `[h, Q·N]`, step-major, still normalized; the anchor is undone by the caller.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) plan: Plan,
    pub(super) order: Order,
    pub(super) anchor: Anchor,
    pub(super) masked: bool,
}

/// The order in time of `y` and the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    NewestFirst,
}

/// What the normalized window itself has to do with the network's numbers. It is computed in f64, outside the plan:
/// that saves commands and their rounding.
#[derive(Clone, Debug)]
pub(super) enum Anchor {
    /// Nothing.
    None,
    /// Its last value is added to every output.
    Level,
    /// Its last value is taken off every `y` and added to every output.
    Difference,
    /// Every series of it is normalized once more, and every output brought back by the series it belongs to: output
    /// `j` of a step to series `j mod N`.
    Instance(Instance),
}

/// Columns of the `features` input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) y: usize,
    pub(super) hist: usize,
    pub(super) futr: usize,
    pub(super) stat: usize,
}

impl Layout {
    pub(super) fn of(spec: &ModelSpec) -> Self {
        Self {
            y: spec.y_len(),
            hist: spec.window * spec.hist_exog.len(),
            futr: (spec.window + spec.horizon) * spec.futr_exog.len(),
            stat: spec.stat_exog.len(),
        }
    }

    pub(super) fn width(self) -> usize {
        self.y + self.hist + self.futr + self.stat
    }
}

impl Network {
    /// # Errors
    /// When the weights do not fit the blueprint or hold more than it has a place for.
    pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Self, LoadError> {
        let network = match blueprint.spec.family {
            Family::Nhits => nhits::build(blueprint, archive),
            Family::Nbeats => nbeats::build(blueprint, archive),
            Family::Mlp => mlp::build(blueprint, archive),
            Family::Dlinear => dlinear::build(blueprint, archive),
            Family::Nlinear => nlinear::build(blueprint, archive),
            Family::Tide => tide::build(blueprint, archive),
            Family::Tsmixer => tsmixer::build(blueprint, archive),
            Family::Patchtst => patchtst::build(blueprint, archive),
            Family::Lstm | Family::Gru => rnn::build(blueprint, archive),
            Family::Deepar => deepar::build(blueprint, archive),
            Family::Tcn => tcn::build(blueprint, archive),
            Family::Ensemble => Err(LoadError::UnknownFamily { class: Family::Ensemble.class().to_owned() }),
        }?;
        archive.check_all_taken()?;
        Ok(network)
    }
}
