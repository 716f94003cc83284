//! Rules: when a group should have more machines or fewer, in the Common Expression Language.
//!
//! A rule has an arm that adds machines, one that takes some away, or both; each with its condition, step, cooldown,
//! bounds and the time for which its condition must hold. An arm acts when its condition held for so long, when it
//! does not cool down from its own last time, and when no arm of the other direction has acted within its cooldown;
//! an emergency heeds only its own cooldown. What an arm that adds machines has led to stays while its condition holds,
//! for all arms that do not outrank it. Of those that would act the one with the highest priority does, and among
//! equals the one that keeps more machines. What an arm cannot know (a signal that is missing, or, for an arm that
//! takes away, only partly known) makes it blind, and a blind arm does not act; by CEL's own logic `a || b` is still
//! true when `b` is and `a` is not known.

mod condition;
mod defaults;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use condition::Answer;
pub use condition::{Condition, ConditionError, Facts, NAMES};
pub use defaults::defaults;

/// One rule as used.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Groups it is for; none: every group.
    pub groups: Vec<String>,
    /// The higher acts before the lower.
    pub priority: i32,
    /// It does not wait for the cooldowns of others.
    pub is_emergency: bool,
    /// What adds machines.
    pub up: Option<Arm>,
    /// What takes machines away.
    pub down: Option<Arm>,
}

/// One direction of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// When.
    pub when: Condition,
    /// How many machines; at least one.
    pub step: u32,
    /// How long it rests after it has acted.
    pub cooldown: Duration,
    /// How long its condition must hold before it acts.
    pub holds_for: Duration,
    /// It leads to no fewer machines than this…
    pub machines_min: u32,
    /// …and to no more than this.
    pub machines_max: u32,
}

/// Which arm of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// More machines.
    Up,
    /// Fewer.
    Down,
}

impl Direction {
    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What became of an arm at one evaluation, and so why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its condition does not hold.
    Quiet,
    /// It cannot be decided: these facts are not known.
    Blind(Vec<String>),
    /// Its condition fails for another reason: the expression is at fault. The operator acts.
    Broken(String),
    /// Its condition holds, but not yet for long enough.
    Waits {
        /// It would act then.
        until: Timestamp,
    },
    /// It, or one of the other direction, has acted too recently.
    Cools {
        /// Whose cooldown it is.
        rule: String,
        /// When that ends.
        until: Timestamp,
    },
    /// Its bounds leave nothing to do.
    AtBound,
    /// It would act, and another of more weight does.
    Outranked {
        /// That one.
        by: String,
    },
    /// It acts.
    Acts {
        /// The machines that there are to be.
        to: u32,
    },
}

/// What became of one arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// The arm.
    pub direction: Direction,
    /// What became of it.
    pub verdict: Verdict,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.rule, self.direction.name())?;
        match &self.verdict {
            Verdict::Quiet => write!(f, "its condition does not hold"),
            Verdict::Blind(missing) => write!(f, "cannot be decided, not known: {}", missing.join(", ")),
            Verdict::Broken(why) => write!(f, "its condition fails: {why}"),
            Verdict::Waits { until } => write!(f, "holds, but must go on holding until {until}"),
            Verdict::Cools { rule, until } => write!(f, "holds, but `{rule}` has acted: waits until {until}"),
            Verdict::AtBound => write!(f, "holds, but is at its bound"),
            Verdict::Outranked { by } => write!(f, "holds, but `{by}` goes first"),
            Verdict::Acts { to } => write!(f, "acts: {to} machines"),
        }
    }
}

/// What the rules of one group say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Machines there are to be.
    pub to: u32,
    /// The rule that says so, if one acts.
    pub by: Option<(String, Direction)>,
    /// Of those that are there, as many stay for arms that add machines and whose conditions hold: what such an arm has
    /// led to is not taken away before it lets go, or it would be added again.
    pub keeps: u32,
    /// Every arm.
    pub findings: Vec<Finding>,
}

/// What the rules remember of one group.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// When an arm acted last, and until when that matters.
    acted: BTreeMap<(String, Direction), Timestamp>,
    /// Since when a condition holds.
    held: BTreeMap<(String, Direction), Timestamp>,
}

impl Memory {
    /// Forgets all cooldowns, as after a change of the rules.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

struct Candidate {
    index: usize,
    priority: i32,
    to: u32,
}

/// An arm that adds machines and whose condition holds, whether or not it may act now.
struct Keeper<'a> {
    rule: &'a str,
    priority: i32,
    machines: u32,
}

/// What `rules` say of `group`, which has `present` machines; what acts begins to cool down.
#[must_use]
pub fn judge(
    rules: &[Rule],
    group: &str,
    present: u32,
    facts: &Facts,
    memory: &mut Memory,
    now: Timestamp,
) -> Judgement {
    let mut findings = Vec::new();
    let mut candidates = Vec::new();
    let mut keepers = Vec::new();
    for rule in rules.iter().filter(|rule| rule.groups.is_empty() || rule.groups.iter().any(|g| g == group)) {
        let arms = [(Direction::Up, &rule.up), (Direction::Down, &rule.down)];
        for (direction, arm) in
            arms.into_iter().filter_map(|(direction, arm)| Some((direction, arm.as_ref()?)))
        {
            let verdict = consider(rules, rule, direction, arm, present, facts, memory, now);
            if let Verdict::Acts { to } = verdict {
                candidates.push(Candidate { index: findings.len(), priority: rule.priority, to });
            }
            let holds = !matches!(verdict, Verdict::Quiet | Verdict::Blind(_) | Verdict::Broken(_));
            if direction == Direction::Up && holds {
                let machines = present.min(arm.machines_max);
                keepers.push(Keeper { rule: &rule.name, priority: rule.priority, machines });
            }
            findings.push(Finding { rule: rule.name.clone(), direction, verdict });
        }
    }
    candidates.retain(|candidate| {
        let keeps = |keeper: &&Keeper<'_>| {
            keeper.priority >= candidate.priority && keeper.machines > candidate.to && candidate.to < present
        };
        let Some(keeper) = keepers.iter().find(keeps) else { return true };
        findings[candidate.index].verdict = Verdict::Outranked { by: keeper.rule.to_owned() };
        false
    });
    let keeps = keepers.iter().map(|keeper| keeper.machines).max().unwrap_or(0);
    // Who keeps more machines is the safer of equals; the first written of those.
    let chosen = candidates
        .iter()
        .max_by_key(|candidate| (candidate.priority, candidate.to, usize::MAX - candidate.index))
        .map(|candidate| (candidate.index, candidate.to));
    let Some((index, to)) = chosen else { return Judgement { to: present, by: None, keeps, findings } };
    let by = findings[index].rule.clone();
    for candidate in candidates.iter().filter(|candidate| candidate.index != index) {
        findings[candidate.index].verdict = Verdict::Outranked { by: by.clone() };
    }
    let key = (by, findings[index].direction);
    memory.acted.insert(key.clone(), now);
    memory.held.remove(&key);
    Judgement { to, by: Some(key), keeps, findings }
}

#[expect(clippy::too_many_arguments, reason = "one arm's whole situation")]
fn consider(
    rules: &[Rule],
    rule: &Rule,
    direction: Direction,
    arm: &Arm,
    present: u32,
    facts: &Facts,
    memory: &mut Memory,
    now: Timestamp,
) -> Verdict {
    let key = (rule.name.clone(), direction);
    match arm.when.ask(facts, direction) {
        Answer::No => {
            memory.held.remove(&key);
            return Verdict::Quiet;
        }
        Answer::Blind(missing) => {
            memory.held.remove(&key);
            return Verdict::Blind(missing);
        }
        Answer::Broken(why) => {
            memory.held.remove(&key);
            return Verdict::Broken(why);
        }
        Answer::Yes => {}
    }
    let since = *memory.held.entry(key).or_insert(now);
    let ripe = after(since, arm.holds_for);
    if ripe > now {
        return Verdict::Waits { until: ripe };
    }
    let to = match direction {
        Direction::Up => {
            present.saturating_add(arm.step).max(arm.machines_min).min(arm.machines_max).max(present)
        }
        Direction::Down => present.saturating_sub(arm.step).max(arm.machines_min).min(present),
    };
    if to == present {
        return Verdict::AtBound;
    }
    if let Some((rule, until)) = cooling(rules, rule, direction, memory, now) {
        return Verdict::Cools { rule, until };
    }
    Verdict::Acts { to }
}

/// Whose cooldown keeps this arm from acting, and until when: the longest.
fn cooling(
    rules: &[Rule],
    rule: &Rule,
    direction: Direction,
    memory: &Memory,
    now: Timestamp,
) -> Option<(String, Timestamp)> {
    let mut longest = None::<(String, Timestamp)>;
    for ((name, acted), at) in &memory.acted {
        let is_own = *name == rule.name && *acted == direction;
        let is_other_way = *acted != direction && !rule.is_emergency;
        if !is_own && !is_other_way {
            continue;
        }
        let Some(actor) = rules.iter().find(|rule| rule.name == *name) else { continue };
        let arm = match acted {
            Direction::Up => &actor.up,
            Direction::Down => &actor.down,
        };
        let Some(until) = arm.as_ref().map(|arm| after(*at, arm.cooldown)) else { continue };
        if until > now && longest.as_ref().is_none_or(|(_, longest)| until > *longest) {
            longest = Some((name.clone(), until));
        }
    }
    longest
}

/// `delay` after `at`, or the end of time.
pub(crate) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay)
        .ok()
        .and_then(|delay| at.checked_add(delay).ok())
        .unwrap_or(Timestamp::MAX)
}
