//! What an operator decides about the versions of a model, and why that may be refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::canary::CanarySpec;
use super::split::{VERSIONS_MAX, WEIGHT_MAX};

/// An operator's decision about one model.
#[derive(Clone, Debug, PartialEq)]
pub enum ReleaseOrder {
    /// Versions answer by weight. Without any, the model has no release any more: its highest version answers.
    Split(BTreeMap<u32, u32>),
    /// A version gets more and more traffic, and becomes the stable one or is taken back.
    Canary(CanarySpec),
    /// A version is asked what others answer; `None`: none is any more.
    Shadow(Option<ShadowSpec>),
    /// A version becomes the stable one and answers everything; `None`: the canary.
    Promote(Option<u32>),
    /// The stable version answers everything; if it does already, the one that was stable before it.
    Rollback,
}

/// A version that is asked what others answer. Its answers reach nobody.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSpec {
    /// The version.
    pub version: u32,
    /// The part of the requests that it is asked too, in (0, 1].
    pub share: f64,
    /// An answer differs if a value is off by more than this part of the largest value.
    pub tolerance: f64,
}

impl ShadowSpec {
    /// Differences that rounding makes on another device are none.
    pub const TOLERANCE: f64 = 1e-4;
}

/// Why an order was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReleaseRefused {
    /// The caller named a model that is not served here. 404.
    #[error("unknown model `{0}`")]
    UnknownModel(String),
    /// The caller named a version that is not ready here: load it first. 404.
    #[error("version {version} is not ready here")]
    NotReady {
        /// Which one.
        version: u32,
    },
    /// The caller's numbers make no sense. 400.
    #[error("{0}")]
    Numbers(&'static str),
    /// Callers would not know what to send: such a version is a model of its own. 409.
    #[error("version {version} does not take and answer what version {stable} does")]
    OtherShape {
        /// The version.
        version: u32,
        /// The one that callers are told of.
        stable: u32,
    },
    /// The version answers already, or is the only one. 409.
    #[error("version {version} is the stable one")]
    Stable {
        /// Which one.
        version: u32,
    },
    /// There is no canary, and no version was named. 409.
    #[error("there is no canary: name the version")]
    NothingToPromote,
    /// No version was stable before, or it is not ready any more. 409.
    #[error("there is no earlier version to go back to")]
    NothingBefore,
    /// Come back later. 503.
    #[error("the node is busy or stopping: nothing has changed")]
    Unavailable,
}

/// Weights make sense, and one at least is above zero.
pub(super) fn check_weights(weights: &BTreeMap<u32, u32>) -> Result<(), ReleaseRefused> {
    match () {
        () if weights.len() > VERSIONS_MAX => Err(ReleaseRefused::Numbers("`weights`: at most 16 versions")),
        () if weights.values().any(|weight| *weight > WEIGHT_MAX) => {
            Err(ReleaseRefused::Numbers("`weights`: at most 1000000 each"))
        }
        () if weights.values().all(|weight| *weight == 0) => {
            Err(ReleaseRefused::Numbers("`weights`: one at least above 0"))
        }
        () => Ok(()),
    }
}

pub(super) fn check_shadow(spec: &ShadowSpec) -> Result<(), ReleaseRefused> {
    match () {
        () if !(spec.share > 0.0 && spec.share <= 1.0) => {
            Err(ReleaseRefused::Numbers("`share`: above 0, at most 1"))
        }
        () if !(spec.tolerance >= 0.0 && spec.tolerance.is_finite()) => {
            Err(ReleaseRefused::Numbers("`tolerance`: 0 or more"))
        }
        () => Ok(()),
    }
}
