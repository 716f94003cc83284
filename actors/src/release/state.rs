//! Where the release of one model stands, and every way it can go on.
//!
//! Pure: orders, evidence and the time go in, the next state comes out, with the reason in its log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use super::canary::{Canary, CanarySpec, Evidence, Fault, Verdict, Waiting, judge};
use super::order::{ReleaseOrder, ReleaseRefused, ShadowSpec, check_shadow, check_weights};
use super::split::WEIGHT_MAX;

/// Changes that are remembered.
pub const LOG_MAX: usize = 16;

/// The release of one model: who answers requests that name no version.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The version that callers are told of, and that all else is measured by.
    pub stable: u32,
    /// The stable version before this one.
    pub previous: Option<u32>,
    /// Who answers.
    pub plan: Plan,
    /// Who is asked besides.
    pub shadow: Option<ShadowSpec>,
    /// Versions that were taken back, and that nobody has chosen since.
    pub taken_back: BTreeSet<u32>,
    /// The newest changes, oldest first.
    pub log: Vec<Event>,
    /// All changes so far.
    pub counts: ChangeCounts,
}

/// Who answers requests that name no version.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// The stable version.
    Whole,
    /// Versions by weight.
    Split(BTreeMap<u32, u32>),
    /// A canary, and for the rest the stable version.
    Canary(Canary),
}

impl Plan {
    /// Lowercase name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Split(_) => "split",
            Self::Canary(_) => "canary",
        }
    }
}

/// Changes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Steps of canaries after their first.
    pub advanced: u64,
    /// Versions that became stable.
    pub promoted: u64,
    /// Versions that were taken back.
    pub rolled_back: u64,
}

/// A change, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub change: Change,
}

/// What happened to a release.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An operator set weights.
    Split,
    /// A canary began.
    CanaryBegan {
        /// The version.
        version: u32,
        /// Its part of the traffic.
        percent: f64,
    },
    /// A canary gets more.
    Advanced {
        /// The version.
        version: u32,
        /// Its part of the traffic.
        percent: f64,
    },
    /// A version became the stable one.
    Promoted {
        /// The version.
        version: u32,
        /// The stable one before.
        from: u32,
        /// Who decided.
        by: By,
    },
    /// Traffic went back.
    RolledBack {
        /// To this version.
        to: u32,
        /// From this one, or several.
        from: Option<u32>,
        /// Why.
        why: Fault,
    },
    /// A shadow began.
    ShadowBegan {
        /// The version.
        version: u32,
    },
    /// A shadow ended.
    ShadowEnded {
        /// The version.
        version: u32,
    },
    /// The node has started, and the release is as the one before kept it, or as its configuration says.
    Resumed,
    /// A version that had a part is not served any more.
    Gone {
        /// The version.
        version: u32,
    },
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An operator.
    Operator,
    /// The canary's rules.
    Rules {
        /// Scores were compared too.
        by_scores: bool,
    },
    /// Nobody: the stable version is not served any more.
    Loss,
    /// The truth: its intervals hold enough of it again.
    Truth,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split => f.write_str("traffic is split by weight"),
            Self::CanaryBegan { version, percent } => {
                write!(f, "version {version} is the canary, with {percent} %")
            }
            Self::Advanced { version, percent } => {
                write!(f, "canary {version} did well and gets {percent} %")
            }
            Self::Promoted { version, from, by } => {
                let why = match by {
                    By::Operator => "an operator said so",
                    By::Rules { by_scores: true } => "it did well at every step",
                    By::Rules { by_scores: false } => {
                        "it did well at every step, and no score of its predictions was compared"
                    }
                    By::Loss => "the other is not served any more",
                    By::Truth => "its breaker lets it answer again",
                };
                write!(f, "version {version} is stable, before it was {from}: {why}")
            }
            Self::RolledBack { to, from: Some(from), why } => {
                write!(f, "back from version {from} to {to}: {why}")
            }
            Self::RolledBack { to, from: None, why } => write!(f, "back to version {to}: {why}"),
            Self::ShadowBegan { version } => write!(f, "version {version} is asked besides"),
            Self::ShadowEnded { version } => write!(f, "version {version} is not asked besides any more"),
            Self::Resumed => f.write_str("as it was kept, or configured, when this node started"),
            Self::Gone { version } => write!(f, "version {version} is not served any more"),
        }
    }
}

/// A version that is ready. Versions of one shape take and answer the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) version: u32,
    pub(crate) shape: usize,
}

impl Release {
    /// What an operator's order makes of a release, or of none; `ready` in ascending order. `None`: no release.
    pub(crate) fn ordered(
        current: Option<&Self>,
        order: &ReleaseOrder,
        ready: &[Ready],
        now: Instant,
    ) -> Result<Option<Self>, ReleaseRefused> {
        let next = match order {
            ReleaseOrder::Split(weights) if weights.is_empty() => return Ok(None),
            ReleaseOrder::Split(weights) => Self::split(current, weights, ready, now)?,
            ReleaseOrder::Canary(spec) => Self::begin(current, spec, ready, now)?,
            ReleaseOrder::Shadow(spec) => match (current, spec) {
                (None, None) => return Ok(None),
                _ => Self::shadowed(current, *spec, ready, now)?,
            },
            ReleaseOrder::Promote(version) => Self::promoted(current, *version, ready, now)?,
            ReleaseOrder::Rollback => Self::rolled_back(current, ready, now)?,
        };
        Ok(Some(next))
    }

    fn split(
        current: Option<&Self>,
        weights: &BTreeMap<u32, u32>,
        ready: &[Ready],
        now: Instant,
    ) -> Result<Self, ReleaseRefused> {
        check_weights(weights)?;
        // Of those that are equally heavy, the one that has been there longer.
        let heaviest =
            weights.iter().rev().max_by_key(|(_, weight)| **weight).map_or(0, |(version, _)| *version);
        let known = current.map(|release| release.stable).filter(|stable| weights.contains_key(stable));
        let stable = known.unwrap_or(heaviest);
        for version in weights.keys() {
            fits(*version, stable, ready)?;
        }
        let mut next = Self::of(current, stable);
        next.plan = Plan::Split(weights.clone());
        next.taken_back.retain(|version| !weights.contains_key(version));
        Ok(next.noted(now, Change::Split).unshadowed(now))
    }

    fn begin(
        current: Option<&Self>,
        spec: &CanarySpec,
        ready: &[Ready],
        now: Instant,
    ) -> Result<Self, ReleaseRefused> {
        spec.check()?;
        let version = spec.version;
        let stable = match current {
            Some(release) => release.stable,
            // The version that answers alone has just been loaded, and is now to prove itself.
            None => ready
                .iter()
                .rev()
                .map(|ready| ready.version)
                .find(|other| *other != version)
                .ok_or(ReleaseRefused::Stable { version })?,
        };
        fits(version, stable, ready)?;
        if version == stable {
            return Err(ReleaseRefused::Stable { version });
        }
        let mut next = Self::of(current, stable);
        let canary = Canary { spec: spec.clone(), step: 0, since: now };
        let percent = canary.percent();
        next.plan = Plan::Canary(canary);
        next.taken_back.remove(&version);
        Ok(next.noted(now, Change::CanaryBegan { version, percent }).unshadowed(now))
    }

    fn shadowed(
        current: Option<&Self>,
        spec: Option<ShadowSpec>,
        ready: &[Ready],
        now: Instant,
    ) -> Result<Self, ReleaseRefused> {
        let stable = match (current, spec) {
            (Some(release), _) => release.stable,
            (None, spec) => {
                let shadow = spec.map_or(0, |spec| spec.version);
                let other = ready.iter().rev().map(|ready| ready.version).find(|other| *other != shadow);
                other.ok_or(ReleaseRefused::Stable { version: shadow })?
            }
        };
        let mut next = Self::of(current, stable);
        if let Some(spec) = spec {
            check_shadow(&spec)?;
            fits(spec.version, stable, ready)?;
            if next.weights().iter().any(|(version, weight)| *version == spec.version && *weight > 0) {
                return Err(ReleaseRefused::Numbers("`version`: that version answers already"));
            }
            next.shadow = Some(spec);
            Ok(next.noted(now, Change::ShadowBegan { version: spec.version }))
        } else {
            Ok(next.without_shadow(now))
        }
    }

    fn promoted(
        current: Option<&Self>,
        version: Option<u32>,
        ready: &[Ready],
        now: Instant,
    ) -> Result<Self, ReleaseRefused> {
        let canary = current.and_then(Self::canary).map(|canary| canary.spec.version);
        let version = version.or(canary).ok_or(ReleaseRefused::NothingToPromote)?;
        if !ready.iter().any(|ready| ready.version == version) {
            return Err(ReleaseRefused::NotReady { version });
        }
        Ok(match current {
            Some(release) if release.stable != version => {
                release.clone().promoting(version, By::Operator, now)
            }
            Some(release) => {
                let mut next = release.clone();
                next.plan = Plan::Whole;
                next.promotes(version, version, By::Operator, now)
            }
            None => {
                let newest = ready.last().map_or(version, |ready| ready.version);
                let mut next = Self::of(None, version);
                next.previous = (newest != version).then_some(newest);
                next.promotes(version, newest, By::Operator, now)
            }
        })
    }

    fn rolled_back(current: Option<&Self>, ready: &[Ready], now: Instant) -> Result<Self, ReleaseRefused> {
        let is_ready = |version: &u32| ready.iter().any(|ready| ready.version == *version);
        match current {
            Some(release) if !matches!(release.plan, Plan::Whole) => {
                let from = release.canary().map(|canary| canary.spec.version);
                Ok(release.clone().back_to_stable(from, Fault::Operator, now))
            }
            Some(release) => {
                let to = release.previous.filter(is_ready).ok_or(ReleaseRefused::NothingBefore)?;
                Ok(release.clone().back_to(to, release.stable, Fault::Operator, now))
            }
            // The highest version answers; the one below it did before that was loaded.
            None => match ready {
                [.., before, newest] => {
                    let next = Self::of(None, newest.version);
                    Ok(next.back_to(before.version, newest.version, Fault::Operator, now))
                }
                _ => Err(ReleaseRefused::NothingBefore),
            },
        }
    }

    /// What the rules of a canary make of what was seen.
    pub(crate) fn reviewed(&self, seen: &Evidence, now: Instant) -> Result<Self, Waiting> {
        let Plan::Canary(canary) = &self.plan else {
            return Err(Waiting::Requests { missing: 0 });
        };
        let version = canary.spec.version;
        match judge(canary, seen, now) {
            Verdict::Wait(waiting) => Err(waiting),
            Verdict::Advance => {
                let next = Canary { step: canary.step + 1, since: now, ..canary.clone() };
                let percent = next.percent();
                let mut release = self.clone();
                release.plan = Plan::Canary(next);
                release.counts.advanced += 1;
                Ok(release.noted(now, Change::Advanced { version, percent }))
            }
            Verdict::Promote { by_scores } => {
                Ok(self.clone().promoting(version, By::Rules { by_scores }, now))
            }
            Verdict::RollBack(fault) => Ok(self.clone().back_to_stable(Some(version), fault, now)),
        }
    }

    /// What becomes of a release, or of none, when some versions are not to be trusted any more. `None`: nothing, since
    /// none of them answers, or nobody is there to answer instead who is no better.
    pub(crate) fn trusted(
        current: Option<&Self>,
        fault: impl Fn(u32) -> Option<Fault>,
        ready: &[Ready],
        now: Instant,
    ) -> Option<Self> {
        let canary = current.and_then(Self::canary).map(|canary| canary.spec.version);
        let usual =
            current.map(|release| release.stable).or_else(|| ready.last().map(|newest| newest.version));
        canary.into_iter().chain(usual).find_map(|version| {
            let next = Self::without(current, version, fault(version)?, ready, now)?;
            fault(next.stable).is_none().then_some(next)
        })
    }

    /// What becomes of a release when a version may answer again that had given way to `heir`. `None`: nothing, since
    /// somebody has decided otherwise meanwhile.
    pub(crate) fn returned(&self, version: u32, heir: u32, ready: &[Ready], now: Instant) -> Option<Self> {
        let decides = |change: &&Change| {
            !matches!(change, Change::ShadowBegan { .. } | Change::ShadowEnded { .. } | Change::Gone { .. })
        };
        let last = self.log.iter().rev().map(|event| &event.change).find(decides)?;
        let gave_way = matches!(last, Change::RolledBack { to, from: Some(from), .. } if (*to, *from) == (heir, version));
        let is_free = gave_way && self.stable == heir && self.plan == Plan::Whole;
        let returns = is_free && fits(version, heir, ready).is_ok();
        returns.then(|| self.clone().promoting(version, By::Truth, now))
    }

    /// Without a version that answers: a canary gives way to the stable one, that to the one before. What an operator has
    /// split stays so.
    fn without(
        current: Option<&Self>,
        version: u32,
        why: Fault,
        ready: &[Ready],
        now: Instant,
    ) -> Option<Self> {
        let is_ready = |version: &u32| ready.iter().any(|ready| ready.version == *version);
        match (current, ready) {
            (Some(release), _) => match &release.plan {
                Plan::Canary(canary) if canary.spec.version == version => {
                    Some(release.clone().back_to_stable(Some(version), why, now))
                }
                Plan::Whole if release.stable == version => {
                    let to = release.previous.filter(is_ready)?;
                    Some(release.clone().back_to(to, version, why, now))
                }
                Plan::Whole | Plan::Canary(_) | Plan::Split(_) => None,
            },
            (None, [.., before, newest]) if newest.version == version => {
                Some(Self::of(None, version).back_to(before.version, version, why, now))
            }
            (None, _) => None,
        }
    }

    /// What is left when of all versions only these are ready, and fit the stable one. `None`: no release.
    pub(crate) fn with_only(&self, ready: &[Ready], now: Instant) -> Option<Self> {
        let is_ready = |version: u32| ready.iter().any(|ready| ready.version == version);
        if !is_ready(self.stable) {
            return self.without_stable(ready, now);
        }
        let remains = |version: u32| fits(version, self.stable, ready).is_ok();
        let mut next = self.clone();
        match &mut next.plan {
            Plan::Canary(canary) if !remains(canary.spec.version) => {
                let version = canary.spec.version;
                next = next.back_to_stable(Some(version), Fault::Gone, now);
            }
            Plan::Split(weights) => {
                let gone: Vec<u32> = weights.keys().copied().filter(|version| !remains(*version)).collect();
                weights.retain(|version, _| !gone.contains(version));
                if weights.values().all(|weight| *weight == 0) {
                    next.plan = Plan::Whole;
                }
                for version in gone {
                    next = next.noted(now, Change::Gone { version });
                }
            }
            Plan::Canary(_) | Plan::Whole => {}
        }
        if next.shadow.is_some_and(|shadow| !remains(shadow.version)) {
            next = next.without_shadow(now);
        }
        Some(next)
    }

    /// What is kept while no version is there: a canary would have to begin again.
    pub(crate) fn at_rest(&self, now: Instant) -> Self {
        match self.canary().map(|canary| canary.spec.version) {
            Some(version) => self.clone().back_to_stable(Some(version), Fault::Gone, now),
            None => self.clone(),
        }
    }

    /// Versions that it needs to go on.
    pub(crate) fn named(&self) -> Vec<u32> {
        let weights = self.weights();
        let answering = weights.iter().filter(|(_, weight)| *weight > 0).map(|(version, _)| *version);
        answering.chain([self.stable]).chain(self.shadow.map(|shadow| shadow.version)).collect()
    }

    /// The heaviest of the others takes its place, or the one before it. What was taken back does where it is alone.
    fn without_stable(&self, ready: &[Ready], now: Instant) -> Option<Self> {
        let is_ready = |version: &u32| ready.iter().any(|ready| ready.version == *version);
        let weights = self.weights();
        let others = weights.iter().filter(|(version, weight)| is_ready(version) && *weight > 0);
        let heir = others.max_by_key(|(_, weight)| *weight).map(|(version, _)| *version);
        let heir = heir.or(self.previous.filter(is_ready));
        let highest = || {
            let versions = || ready.iter().rev().map(|ready| ready.version);
            let usual = versions().find(|version| !self.taken_back.contains(version));
            usual.or_else(|| versions().next()).filter(|_| !self.taken_back.is_empty())
        };
        let heir = heir.or_else(highest)?;
        let mut next = self.clone();
        next.stable = heir;
        next.previous = self.previous.filter(|version| *version != heir);
        if matches!(next.plan, Plan::Canary(_)) {
            next.plan = Plan::Whole;
        }
        next.promotes(heir, self.stable, By::Loss, now).with_only(ready, now)
    }

    /// Versions and their weights, the stable one among them.
    #[must_use]
    pub fn weights(&self) -> Vec<(u32, u32)> {
        match &self.plan {
            Plan::Whole => vec![(self.stable, 1)],
            Plan::Split(weights) => weights.iter().map(|(version, weight)| (*version, *weight)).collect(),
            Plan::Canary(canary) => {
                let part = (canary.percent() / 100.0 * f64::from(WEIGHT_MAX)).round() as u32;
                vec![(canary.spec.version, part), (self.stable, WEIGHT_MAX - part.min(WEIGHT_MAX))]
            }
        }
    }

    /// The canary under way.
    #[must_use]
    pub fn canary(&self) -> Option<&Canary> {
        match &self.plan {
            Plan::Canary(canary) => Some(canary),
            Plan::Whole | Plan::Split(_) => None,
        }
    }

    fn of(current: Option<&Self>, stable: u32) -> Self {
        let mut next = current.cloned().unwrap_or_else(|| Self {
            stable,
            previous: None,
            plan: Plan::Whole,
            shadow: None,
            taken_back: BTreeSet::new(),
            log: Vec::new(),
            counts: ChangeCounts::default(),
        });
        next.stable = stable;
        next
    }

    fn promoting(mut self, version: u32, by: By, now: Instant) -> Self {
        let from = std::mem::replace(&mut self.stable, version);
        self.previous = Some(from);
        self.plan = Plan::Whole;
        self.promotes(version, from, by, now)
    }

    fn promotes(mut self, version: u32, from: u32, by: By, now: Instant) -> Self {
        self.counts.promoted += 1;
        self.taken_back.remove(&version);
        self.noted(now, Change::Promoted { version, from, by }).unshadowed(now)
    }

    fn back_to_stable(mut self, from: Option<u32>, why: Fault, now: Instant) -> Self {
        self.plan = Plan::Whole;
        self.counts.rolled_back += 1;
        if let Some(version) = from.filter(|_| why != Fault::Gone) {
            self.taken_back.insert(version);
            self.previous = self.previous.filter(|previous| *previous != version);
        }
        let to = self.stable;
        self.noted(now, Change::RolledBack { to, from, why })
    }

    fn back_to(mut self, to: u32, from: u32, why: Fault, now: Instant) -> Self {
        self.stable = to;
        self.previous = None;
        self.counts.rolled_back += 1;
        self.taken_back.remove(&to);
        self.taken_back.insert(from);
        self.noted(now, Change::RolledBack { to, from: Some(from), why }).unshadowed(now)
    }

    /// Without a shadow that answers by now.
    fn unshadowed(self, now: Instant) -> Self {
        let answers = |shadow: &ShadowSpec| {
            self.weights().iter().any(|(version, weight)| *version == shadow.version && *weight > 0)
        };
        if self.shadow.as_ref().is_some_and(answers) { self.without_shadow(now) } else { self }
    }

    fn without_shadow(mut self, now: Instant) -> Self {
        match self.shadow.take() {
            Some(shadow) => self.noted(now, Change::ShadowEnded { version: shadow.version }),
            None => self,
        }
    }

    fn noted(mut self, at: Instant, change: Change) -> Self {
        if self.log.len() == LOG_MAX {
            self.log.remove(0);
        }
        self.log.push(Event { at, change });
        self
    }
}

/// Both are ready, and callers need not care which one answers.
fn fits(version: u32, stable: u32, ready: &[Ready]) -> Result<(), ReleaseRefused> {
    let shape = |version: u32| {
        let found = ready.iter().find(|ready| ready.version == version);
        found.map(|ready| ready.shape).ok_or(ReleaseRefused::NotReady { version })
    };
    if shape(version)? == shape(stable)? {
        Ok(())
    } else {
        Err(ReleaseRefused::OtherShape { version, stable })
    }
}
