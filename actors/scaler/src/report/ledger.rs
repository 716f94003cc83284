//! Adds up rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Advice, FixedFleet, GroupReport, Report, Saving, Starts};
use crate::control::{Cause, Decision, Done, ReadyTimes, Round, Start};
use crate::cost::{Accrued, Billing};
use crate::fleet::GroupSpec;
use crate::pool::{Change, PoolError};
use crate::reconcile::Action;
use crate::rule::{Direction, Verdict};

/// Decisions in a report.
const DECISIONS_MAX: usize = 64;
/// Regions and rules that are told apart.
const NAMES_MAX: usize = 256;
/// What lasted for less is no news.
const LASTED_MIN: f64 = 60.0;

/// What was measured of a group over a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Mean over its machines, if all of them said it. 0 to 1.
    pub utilisation: Option<f64>,
    /// Per second, if they were counted.
    pub predictions: Option<f64>,
}

/// Sums of one group.
#[derive(Clone, Debug)]
struct Sums {
    spec: GroupSpec,
    money: f64,
    money_running: f64,
    machine_seconds: f64,
    by_region: BTreeMap<String, f64>,
    running_max: u32,
    /// Utilisation times seconds, and the seconds.
    used: (f64, f64),
    /// Money and predictions of the times in which those were counted.
    counted: (f64, f64),
    changes: u64,
    cold: u64,
    warm: u64,
    /// Machines that were made for one round, at most.
    cold_burst: u32,
    at_max: Shortage,
    unpaid: Shortage,
    no_room: Shortage,
    blind_s: f64,
    pool_silent_s: f64,
}

/// What was missing, for how long and how many at most.
#[derive(Clone, Copy, Debug, Default)]
struct Shortage {
    seconds: f64,
    most: u32,
}

impl Shortage {
    fn add(&mut self, machines: u32, seconds: f64) {
        if machines > 0 {
            self.seconds += seconds;
            self.most = self.most.max(machines);
        }
    }

    fn told(self) -> Option<(Duration, u32)> {
        (self.seconds >= LASTED_MIN).then(|| (Duration::from_secs_f64(self.seconds), self.most))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct RuleSums {
    rounds: u64,
    acted: u64,
    held: u64,
    blind: u64,
    broken: u64,
}

/// Adds up what a fleet does.
#[derive(Clone, Debug)]
pub struct Ledger {
    from: Timestamp,
    groups: BTreeMap<String, Sums>,
    rules: BTreeMap<String, RuleSums>,
    full: BTreeMap<String, u64>,
    seconds: f64,
    gap_seconds: f64,
    unpriced_seconds: f64,
}

impl Ledger {
    /// Nothing has happened yet. `rules`: those of which it is told when they never act.
    #[must_use]
    pub fn new(groups: &[GroupSpec], rules: &[String], from: Timestamp) -> Self {
        let sums = |spec: &GroupSpec| Sums {
            spec: spec.clone(),
            money: 0.0,
            money_running: 0.0,
            machine_seconds: 0.0,
            by_region: BTreeMap::new(),
            running_max: 0,
            used: (0.0, 0.0),
            counted: (0.0, 0.0),
            changes: 0,
            cold: 0,
            warm: 0,
            cold_burst: 0,
            at_max: Shortage::default(),
            unpaid: Shortage::default(),
            no_room: Shortage::default(),
            blind_s: 0.0,
            pool_silent_s: 0.0,
        };
        Self {
            from,
            groups: groups.iter().map(|group| (group.name.clone(), sums(group))).collect(),
            rules: rules.iter().take(NAMES_MAX).map(|rule| (rule.clone(), RuleSums::default())).collect(),
            full: BTreeMap::new(),
            seconds: 0.0,
            gap_seconds: 0.0,
            unpriced_seconds: 0.0,
        }
    }

    /// Adds what was billed, and what was measured of groups over the same time.
    pub fn accrue(&mut self, accrued: &[Accrued], usage: &BTreeMap<String, Usage>) {
        for piece in accrued {
            let seconds = piece.seconds();
            self.seconds += seconds;
            self.unpriced_seconds += piece.unpriced_seconds;
            if piece.is_gap {
                self.gap_seconds += seconds;
            }
            for (name, sums) in &mut self.groups {
                sums.accrue(piece, usage.get(name).copied().unwrap_or_default());
            }
        }
    }

    /// Adds what a round decided and what became of it; `lasts`: until the next one.
    pub fn round(&mut self, round: &Round, done: &[Done], lasts: Duration) {
        let lasts = lasts.as_secs_f64();
        for decision in &round.decisions {
            let Some(sums) = self.groups.get_mut(&decision.group) else { continue };
            sums.decided(decision, lasts);
            self.judged(decision);
        }
        let mut made: BTreeMap<&str, u32> = BTreeMap::new();
        for Done { action, result } in done {
            match (action, result) {
                (Action::Create(order), Ok(())) if order.launch => {
                    *made.entry(order.slot.group.as_str()).or_default() += 1;
                }
                (Action::Change(machine, Change::Start), Ok(())) => {
                    if let Some(sums) = self.groups.get_mut(&machine.slot.group) {
                        sums.warm += 1;
                    }
                }
                (Action::Create(order), Err(PoolError::NoCapacity { .. } | PoolError::HostFull)) => {
                    self.refused(&order.region);
                }
                (Action::Change(machine, _), Err(PoolError::NoCapacity { .. } | PoolError::HostFull)) => {
                    self.refused(&machine.region);
                }
                _ => {}
            }
        }
        for (group, count) in made {
            if let Some(sums) = self.groups.get_mut(group) {
                sums.cold += u64::from(count);
                sums.cold_burst = sums.cold_burst.max(count);
            }
        }
    }

    fn judged(&mut self, decision: &Decision) {
        let mut told: BTreeMap<&str, RuleSums> = BTreeMap::new();
        for finding in &decision.findings {
            let sums = told.entry(finding.rule.as_str()).or_default();
            let once = |yes: bool, count: &mut u64| *count = (*count).max(u64::from(yes));
            once(true, &mut sums.rounds);
            once(matches!(finding.verdict, Verdict::Acts { .. }), &mut sums.acted);
            once(holds(&finding.verdict), &mut sums.held);
            once(matches!(finding.verdict, Verdict::Blind(_)), &mut sums.blind);
            once(matches!(finding.verdict, Verdict::Broken(_)), &mut sums.broken);
        }
        for (rule, once) in told {
            let Some(sums) = self.rules.get_mut(rule) else { continue };
            sums.rounds += once.rounds;
            sums.acted += once.acted;
            sums.held += once.held;
            sums.blind += once.blind;
            sums.broken += once.broken;
        }
    }

    fn refused(&mut self, region: &str) {
        if self.full.len() < NAMES_MAX || self.full.contains_key(region) {
            *self.full.entry(region.to_owned()).or_default() += 1;
        }
    }

    /// What there is to say. `ready`: what was measured of a group's starts. `fixed`: a fleet to compare each group
    /// with, beside that of its most machines. `decisions`: the newest last.
    #[must_use]
    pub fn report<'a>(
        &self,
        to: Timestamp,
        ready: impl Fn(&str) -> Option<&'a ReadyTimes>,
        fixed: Option<u32>,
        decisions: impl DoubleEndedIterator<Item = &'a Decision>,
    ) -> Report {
        let mut decisions: Vec<Decision> = decisions.rev().take(DECISIONS_MAX).cloned().collect();
        decisions.reverse();
        let mut advice = Vec::new();
        let mut groups = Vec::new();
        for sums in self.groups.values() {
            let times = ready(&sums.spec.name);
            let report = sums.report(self.seconds, times, fixed);
            sums.advise(&report, &mut advice);
            groups.push(report);
        }
        let full = self.full.iter().map(|(region, times)| (region.clone(), *times));
        advice.extend(full.map(|(region, times)| Advice::RegionFull { region, times }));
        for (rule, sums) in &self.rules {
            let RuleSums { rounds, acted, held, blind, broken } = *sums;
            let rule = rule.clone();
            if broken > 0 {
                advice.push(Advice::RuleBroken { rule, rounds: broken });
            } else if acted == 0 && rounds > 0 {
                advice.push(Advice::RuleNeverActed { rule, rounds, held, blind });
            }
        }
        if self.unpriced_seconds > 0.0 {
            advice.push(Advice::Unpriced { machine_hours: self.unpriced_seconds / 3600.0 });
        }
        Report { from: self.from, to, gap_seconds: self.gap_seconds, groups, decisions, advice }
    }
}

fn holds(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Quiet | Verdict::Blind(_) | Verdict::Broken(_))
}

impl Sums {
    fn accrue(&mut self, piece: &Accrued, usage: Usage) {
        let seconds = piece.seconds();
        let (mut money, mut running_s) = (0.0, 0.0);
        for line in piece.lines.iter().filter(|line| line.group == self.spec.name) {
            money += line.money;
            *self.by_region.entry(line.region.clone()).or_default() += line.money;
            if line.billing == Billing::Running {
                running_s += line.machine_seconds;
                self.money_running += line.money;
            }
        }
        self.money += money;
        self.machine_seconds += running_s;
        if seconds > 0.0 {
            self.running_max = self.running_max.max(rounded(running_s / seconds, f64::round));
        }
        if let Some(utilisation) = usage.utilisation.filter(|utilisation| utilisation.is_finite()) {
            self.used.0 += utilisation * seconds;
            self.used.1 += seconds;
        }
        if let Some(rate) = usage.predictions.filter(|rate| rate.is_finite() && *rate >= 0.0) {
            self.counted.0 += money;
            self.counted.1 += rate * seconds;
        }
    }

    fn decided(&mut self, decision: &Decision, lasts: f64) {
        self.changes += u64::from(decision.from != decision.to);
        self.no_room.add(decision.short.0, lasts);
        self.unpaid.add(decision.short.1, lasts);
        match decision.cause {
            Cause::Blind => self.blind_s += lasts,
            Cause::PoolSilent(_) => self.pool_silent_s += lasts,
            _ => {}
        }
        if decision.to == self.spec.machines_max {
            let needed = self.needed(decision);
            if needed > self.spec.machines_max {
                self.at_max.add(needed, lasts);
            }
        }
    }

    /// Machines that the demand, or a rule that would go on, asks for.
    fn needed(&self, decision: &Decision) -> u32 {
        let fact = |name: &str| {
            let (_, text) = decision.facts.iter().find(|(known, _)| *known == name)?;
            // Where some are silent, a remark follows.
            text.split(' ').next()?.parse::<f64>().ok()
        };
        let rate = fact("demand").into_iter().chain(fact("request_rate")).fold(0.0, f64::max);
        let by_demand =
            if self.spec.capacity > 0.0 { rounded(rate / self.spec.capacity, f64::ceil) } else { 0 };
        let by_rules = decision.findings.iter().filter(|finding| finding.direction == Direction::Up);
        let by_rules = by_rules.filter_map(|finding| match finding.verdict {
            Verdict::Acts { to } => Some(to),
            _ => None,
        });
        by_rules.max().unwrap_or(0).max(by_demand)
    }

    fn report(&self, seconds: f64, times: Option<&ReadyTimes>, fixed: Option<u32>) -> GroupReport {
        let hours = seconds / 3600.0;
        let over = |sum: f64, by: f64| if by > 0.0 { sum / by } else { 0.0 };
        let starts = |count: u64, start: Start| {
            let measured: Vec<Duration> = times.into_iter().flat_map(|times| times.measured(start)).collect();
            let number = u32::try_from(measured.len()).unwrap_or(u32::MAX);
            let mean = measured.iter().sum::<Duration>().checked_div(number);
            Starts { count, mean, slowest: measured.into_iter().max() }
        };
        // Of a machine that ran; where none did, of the first place.
        let first = self.spec.places.first().map_or(0.0, |place| place.running_per_hour);
        let price = if self.machine_seconds > 0.0 {
            self.money_running / self.machine_seconds * 3600.0
        } else {
            first
        };
        let saving = |(fleet, machines): (FixedFleet, u32)| {
            Saving::new(fleet, machines, price * hours * f64::from(machines), self.money)
        };
        let mut fleets = vec![(FixedFleet::Most, self.running_max)];
        fleets
            .extend(fixed.filter(|fixed| *fixed != self.running_max).map(|fixed| (FixedFleet::Asked, fixed)));
        GroupReport {
            group: self.spec.name.clone(),
            machines_mean: over(self.machine_seconds, seconds),
            machines_max: self.running_max,
            utilisation: (self.used.1 > 0.0).then(|| self.used.0 / self.used.1),
            money: self.money,
            by_region: self.by_region.iter().map(|(region, money)| (region.clone(), *money)).collect(),
            per_hour: over(self.money, hours),
            per_1000: crate::cost::per_1000(self.counted.0 * 3600.0, self.counted.1),
            changes: self.changes,
            cold: starts(self.cold, Start::Cold),
            warm: starts(self.warm, Start::Warm),
            savings: fleets.into_iter().filter(|(_, machines)| *machines > 0).map(saving).collect(),
        }
    }

    fn advise(&self, report: &GroupReport, advice: &mut Vec<Advice>) {
        let group = || self.spec.name.clone();
        if let Some(cold) = report.cold.mean.filter(|_| self.cold > 0) {
            let warm = report.warm.mean.unwrap_or_default();
            let each = cold.saturating_sub(warm);
            let starts = u32::try_from(self.cold).unwrap_or(u32::MAX);
            let saved = each.saturating_mul(starts);
            // As many as were made at once are enough; they stand where they are cheapest.
            let more = self.cold_burst.min(self.spec.machines_max.saturating_sub(self.spec.warm));
            let disk = self.spec.places.iter().map(|place| place.stopped_per_hour).reduce(f64::min);
            if more > 0 && saved.as_secs_f64() >= LASTED_MIN {
                advice.push(Advice::Warm {
                    group: group(),
                    warm: self.spec.warm + more,
                    starts: self.cold,
                    saved,
                    is_at_most: report.warm.mean.is_none(),
                    per_hour: f64::from(more) * disk.unwrap_or(0.0),
                });
            }
        }
        if let Some((lasted, needed)) = self.at_max.told() {
            let machines_max = self.spec.machines_max;
            advice.push(Advice::AtMaximum { group: group(), machines_max, lasted, needed });
        }
        if let Some((lasted, missing)) = self.unpaid.told() {
            advice.push(Advice::BudgetBound { group: group(), lasted, missing });
        }
        if let Some((lasted, missing)) = self.no_room.told() {
            advice.push(Advice::NoRoom { group: group(), lasted, missing });
        }
        let lasted = |seconds: f64| (seconds >= LASTED_MIN).then(|| Duration::from_secs_f64(seconds));
        advice.extend(lasted(self.blind_s).map(|lasted| Advice::Blind { group: group(), lasted }));
        advice.extend(lasted(self.pool_silent_s).map(|lasted| Advice::PoolSilent { group: group(), lasted }));
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded number, saturating")]
fn rounded(value: f64, round: fn(f64) -> f64) -> u32 {
    round(value).clamp(0.0, f64::from(u32::MAX)) as u32
}
