//! When a canary gets more traffic, when it becomes the stable version, and when it is taken back.
//!
//! Pure: what was seen and the time go in, a verdict with its reason comes out.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::order::ReleaseRefused;

/// Steps of one canary.
pub const STEPS_MAX: usize = 32;
/// Longest that one step can be held.
pub const HOLD_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// More scored values are not waited for, whatever `requests_min` says: a score is worth the newest alone.
const VALUES_MAX: u64 = 100;
/// A p95 that is longer by less than this is no slower: small models answer in less.
pub const NOISE: Duration = Duration::from_millis(1);

/// A version that is to become the stable one, if it does well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanarySpec {
    /// The version.
    pub version: u32,
    /// Percent of the traffic that it gets, step by step; each above the one before, at most 100.
    pub steps: Vec<f64>,
    /// A step lasts this long at least.
    pub hold: Duration,
    /// What it has to keep to.
    pub limits: CanaryLimits,
}

/// What a canary has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryLimits {
    /// A step lasts for so many requests to the canary at least.
    pub requests_min: u64,
    /// Of its requests, the part that may fail, 0 to 1.
    pub error_share: f64,
    /// Its 95th percentile by that of the stable version; not compared until both had `requests_min`.
    pub p95_ratio: f64,
    /// The error of its predictions, as the scorecard has it, by that of the stable version's.
    pub scores: ScoreLimit,
}

/// Whether a canary is compared with the stable version by the errors of its predictions, and the ratio allowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreLimit {
    /// Never.
    Off,
    /// Where predictions of the stable version are scored; a step waits then until enough of both are.
    WhereScored(f64),
    /// Always: a step waits until enough of both are.
    Always(f64),
}

impl ScoreLimit {
    /// The ratio.
    #[must_use]
    pub const fn ratio(self) -> Option<f64> {
        match self {
            Self::Off => None,
            Self::WhereScored(ratio) | Self::Always(ratio) => Some(ratio),
        }
    }
}

impl Default for CanaryLimits {
    fn default() -> Self {
        Self { requests_min: 100, error_share: 0.01, p95_ratio: 1.5, scores: ScoreLimit::WhereScored(1.2) }
    }
}

impl CanaryLimits {
    /// Values, weighted, that a score must rest on.
    pub(crate) fn values_min(&self) -> f64 {
        self.requests_min.min(VALUES_MAX) as f64
    }
}

impl CanarySpec {
    /// Whether its numbers make sense. The caller acts.
    pub(super) fn check(&self) -> Result<(), ReleaseRefused> {
        let limits = &self.limits;
        let rises = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        let within = self.steps.iter().all(|percent| (0.01..=100.0).contains(percent));
        let positive = |ratio: f64| ratio.is_finite() && ratio > 0.0;
        let bad = ReleaseRefused::Numbers;
        match () {
            () if self.steps.is_empty() || self.steps.len() > STEPS_MAX => {
                Err(bad("`steps`: 1 to 32 of them"))
            }
            () if !rises || !within => Err(bad("`steps`: rising percentages from 0.01 to 100")),
            () if self.hold > HOLD_MAX => Err(bad("`hold_ms`: at most a week")),
            () if limits.requests_min == 0 => Err(bad("`requests_min`: at least 1")),
            () if !(0.0..=1.0).contains(&limits.error_share) => Err(bad("`error_share`: 0 to 1")),
            () if !positive(limits.p95_ratio) => Err(bad("`p95_ratio`: above 0")),
            () if !limits.scores.ratio().is_none_or(positive) => Err(bad("`score_ratio`: above 0")),
            () => Ok(()),
        }
    }
}

/// A canary under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// What was ordered.
    pub spec: CanarySpec,
    /// Index of the step that it is at.
    pub step: usize,
    /// When that began.
    pub since: Instant,
}

impl Canary {
    /// Percent of the traffic that it gets now.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.spec.steps.get(self.step).copied().unwrap_or_default()
    }
}

/// What was seen of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests answered or failed.
    pub requests: u64,
    /// Of those, the failed ones.
    pub failed: u64,
    /// Of the answered ones, from acceptance to answer; up to 7 % too long.
    pub p95: Duration,
}

/// What there is to judge a canary by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Evidence {
    /// Of the canary, since its step began.
    pub(crate) canary: Seen,
    /// Of the stable version, since the canary began.
    pub(crate) stable: Seen,
    /// What the scorecard says of both; `None`: it was not asked yet.
    pub(crate) scores: Option<Scores>,
}

/// What the scorecard says of the predictions of both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scores {
    /// Of the stable version none was scored.
    Unscored,
    /// Some were, and too few of one of them.
    Few,
    /// Their errors.
    Known { canary: f64, stable: f64 },
}

/// What follows for a canary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The step goes on.
    Wait(Waiting),
    /// The next step begins.
    Advance,
    /// It becomes the stable version.
    Promote {
        /// By scores too.
        by_scores: bool,
    },
    /// It gets no traffic any more.
    RollBack(Fault),
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Its time is not over.
    Hold {
        /// How long yet.
        remaining: Duration,
    },
    /// The canary had too few requests to say.
    Requests {
        /// So many yet.
        missing: u64,
    },
    /// Too few predictions of both versions are scored yet.
    Scores,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold { remaining } => write!(f, "the step lasts {:.3} s yet", remaining.as_secs_f64()),
            Self::Requests { missing } => write!(f, "the canary needs {missing} requests yet"),
            Self::Scores => f.write_str("too few predictions of both versions are scored yet"),
        }
    }
}

/// Why a canary was taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Too many of its requests failed.
    Errors {
        /// So many did.
        failed: u64,
        /// Of so many.
        requests: u64,
        /// The part that was allowed.
        limit: f64,
    },
    /// It is too slow.
    Slow {
        /// Its 95th percentile.
        p95: Duration,
        /// That of the stable version.
        stable: Duration,
        /// The ratio that was allowed.
        limit: f64,
    },
    /// Its predictions are too wrong.
    Score {
        /// Their error.
        canary: f64,
        /// That of the stable version's.
        stable: f64,
        /// The ratio that was allowed.
        limit: f64,
    },
    /// Its intervals hold too little of the truth.
    Coverage {
        /// Percent that an interval is meant to hold.
        level: f64,
        /// Percent that it held.
        held: f64,
        /// The share that it may hold less.
        limit: f64,
    },
    /// It is not served any more.
    Gone,
    /// An operator said so.
    Operator,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |took: &Duration| took.as_secs_f64() * 1e3;
        match self {
            Self::Errors { failed, requests, limit } => {
                write!(f, "{failed} of {requests} requests failed, {} % may", limit * 100.0)
            }
            Self::Slow { p95, stable, limit } => write!(
                f,
                "95 of 100 answers took up to {:.3} ms, {:.3} ms by the stable version, {limit} times that is allowed",
                ms(p95),
                ms(stable)
            ),
            Self::Score { canary, stable, limit } => write!(
                f,
                "the error of its predictions is {canary:.4}, {stable:.4} by the stable version, {limit} times that \
                 is allowed"
            ),
            Self::Coverage { level, held, limit } => write!(
                f,
                "its {level} % interval held {held:.1} % of the truth, {:.1} % less is allowed",
                limit * 100.0
            ),
            Self::Gone => f.write_str("it is not served any more"),
            Self::Operator => f.write_str("an operator said so"),
        }
    }
}

/// What follows from what was seen. Failures and slowness end a canary at once, the rest is looked at when its step
/// has lasted long enough.
pub(crate) fn judge(canary: &Canary, seen: &Evidence, now: Instant) -> Verdict {
    let limits = &canary.spec.limits;
    let Seen { requests, failed, p95 } = seen.canary;
    // Even if all that are still to come were answered.
    if failed as f64 > limits.error_share * requests.max(limits.requests_min) as f64 {
        return Verdict::RollBack(Fault::Errors { failed, requests, limit: limits.error_share });
    }
    let comparable = requests.min(seen.stable.requests) >= limits.requests_min;
    let stable = seen.stable.p95;
    if comparable && p95 > stable.mul_f64(limits.p95_ratio.min(1e6)).max(stable + NOISE) {
        return Verdict::RollBack(Fault::Slow { p95, stable, limit: limits.p95_ratio });
    }
    let held = now.saturating_duration_since(canary.since);
    if held < canary.spec.hold {
        return Verdict::Wait(Waiting::Hold { remaining: canary.spec.hold - held });
    }
    if requests < limits.requests_min {
        return Verdict::Wait(Waiting::Requests { missing: limits.requests_min - requests });
    }
    let by_scores = match (limits.scores, seen.scores) {
        (ScoreLimit::Off, _) | (ScoreLimit::WhereScored(_), Some(Scores::Unscored)) => false,
        (
            ScoreLimit::WhereScored(limit) | ScoreLimit::Always(limit),
            Some(Scores::Known { canary, stable }),
        ) => {
            if canary > stable * limit {
                return Verdict::RollBack(Fault::Score { canary, stable, limit });
            }
            true
        }
        _ => return Verdict::Wait(Waiting::Scores),
    };
    if canary.step + 1 < canary.spec.steps.len() { Verdict::Advance } else { Verdict::Promote { by_scores } }
}
