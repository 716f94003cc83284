//! Which of a model's versions answers requests that name none: by weight, as a canary, beside a shadow; and the way
//! back.
//!
//! Decisions only: no clock, no file, no device. Who routes asks `Live` and tells it what came of it; the router's
//! actor puts the next one in its place. A model without a release is answered by its highest version.

mod canary;
mod coverage;
mod kept;
mod live;
mod mirror;
mod order;
mod split;
mod state;
#[cfg(test)]
mod tests;
mod track;

pub use canary::{
    Canary, CanaryLimits, CanarySpec, Fault, HOLD_MAX, NOISE, STEPS_MAX, ScoreLimit, Seen, Waiting,
};
pub use coverage::CoverageLimits;
pub use kept::KeptRelease;
pub use live::{Portion, ReleaseStatus};
pub use mirror::{HELD_MAX, ShadowStats};
pub use order::{ReleaseOrder, ReleaseRefused, ShadowSpec};
pub use split::{VERSIONS_MAX, WEIGHT_MAX, key_of};
pub use state::{By, Change, ChangeCounts, Event, LOG_MAX, Plan, Release};

pub(crate) use canary::Scores;
pub(crate) use live::Live;
pub(crate) use mirror::Leave;
pub(crate) use state::Ready;
