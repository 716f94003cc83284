//! What of a release outlives its node: what was decided, without what was counted, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::canary::{Canary, CanarySpec};
use super::order::{ReleaseRefused, ShadowSpec, check_shadow, check_weights};
use super::state::{Change, ChangeCounts, Event, Plan, Release};

/// A release as another process can read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptRelease {
    /// As in [`Release`].
    pub stable: u32,
    previous: Option<u32>,
    plan: KeptPlan,
    shadow: Option<ShadowSpec>,
    taken_back: BTreeSet<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum KeptPlan {
    Whole,
    Split(BTreeMap<u32, u32>),
    Canary { spec: CanarySpec, step: usize },
}

impl From<&Release> for KeptRelease {
    fn from(release: &Release) -> Self {
        let plan = match &release.plan {
            Plan::Whole => KeptPlan::Whole,
            Plan::Split(weights) => KeptPlan::Split(weights.clone()),
            Plan::Canary(canary) => KeptPlan::Canary { spec: canary.spec.clone(), step: canary.step },
        };
        Self {
            stable: release.stable,
            previous: release.previous,
            plan,
            shadow: release.shadow,
            taken_back: release.taken_back.clone(),
        }
    }
}

impl KeptRelease {
    /// Of a model that one version answers alone.
    #[must_use]
    pub const fn whole(version: u32) -> Self {
        let taken_back = BTreeSet::new();
        Self { stable: version, previous: None, plan: KeptPlan::Whole, shadow: None, taken_back }
    }

    /// The release as it goes on: a canary at the step that it had come to, which begins anew.
    ///
    /// # Errors
    /// Numbers that no order could have led to; whoever wrote them acts.
    pub(crate) fn resumed(self, now: Instant) -> Result<Release, ReleaseRefused> {
        let plan = match self.plan {
            KeptPlan::Whole => Plan::Whole,
            KeptPlan::Split(weights) => {
                check_weights(&weights)?;
                Plan::Split(weights)
            }
            KeptPlan::Canary { spec, step } => {
                spec.check()?;
                if step >= spec.steps.len() {
                    return Err(ReleaseRefused::Numbers("`step`: not one of `steps`"));
                }
                if spec.version == self.stable {
                    return Err(ReleaseRefused::Stable { version: spec.version });
                }
                Plan::Canary(Canary { spec, step, since: now })
            }
        };
        self.shadow.as_ref().map_or(Ok(()), check_shadow)?;
        Ok(Release {
            stable: self.stable,
            previous: self.previous,
            plan,
            shadow: self.shadow,
            taken_back: self.taken_back,
            log: vec![Event { at: now, change: Change::Resumed }],
            counts: ChangeCounts::default(),
        })
    }
}
