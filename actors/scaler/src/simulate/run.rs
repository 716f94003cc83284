//! Policies under a trace, one after the other, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::foresight::Foresight;
use super::log::Recorder;
use super::trace::Trace;
use super::world::{NodeModel, Step, World};
use crate::calendar::Calendar;
use crate::carry::Carrier;
use crate::control::{
    Attached, Controller, Done, FleetSpec, GroupView, Markets, Policy, Round, Seen, run_once,
};
use crate::cost::{Accrual, UnitCost, price};
use crate::fleet::{GroupSpec, Machine};
use crate::place::RoundTrips;
use crate::pool::Change;
use crate::pool::simulated::Delays;
use crate::reconcile::Action;
use crate::report::{Ledger, Report, Usage};
use crate::rule::after;

/// What was there before the first second that counts.
const LEAD: Duration = Duration::from_secs(3600);
/// Predictions of so long make the cost per 1,000.
const UNIT_WINDOW: Duration = Duration::from_secs(900);
const RELEASE: &str = "simulated";

/// A fleet and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario<'a> {
    /// Its first group is simulated.
    pub fleet: &'a FleetSpec,
    /// Who asks.
    pub trace: &'a Trace,
    /// From when it counts; what the trace says before is history.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// From one round to the next.
    pub step: Duration,
    /// Of machines.
    pub delays: Delays,
    /// Of nodes.
    pub node: NodeModel,
    /// Whose openings the rules know.
    pub calendars: Vec<Arc<Calendar>>,
    /// Between regions.
    pub round_trips: RoundTrips,
    /// Chance.
    pub seed: u64,
}

impl Scenario<'_> {
    /// Whether there is anything to simulate, and not too much.
    ///
    /// # Errors
    /// See [`ScenarioError`].
    pub fn check(&self) -> Result<(), ScenarioError> {
        let span = Duration::try_from(self.to.duration_since(self.from)).unwrap_or(Duration::ZERO);
        // A step may be less than a second.
        let steps = (span + LEAD).as_nanos().checked_div(self.step.as_nanos()).ok_or(ScenarioError::Steps)?;
        if span.is_zero() || !(1..=STEPS_MAX).contains(&steps) { Err(ScenarioError::Steps) } else { Ok(()) }
    }
}

/// A fleet that cannot be simulated. Whoever asks acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// It has no group.
    #[error("the fleet has no group")]
    NoGroup,
    /// Its steps are none, or its end is before its beginning, or it is longer than anybody waits for.
    #[error(
        "the time that is simulated is not between 1 and {STEPS_MAX} steps: it ends before it begins, or lasts too long"
    )]
    Steps,
}

const STEPS_MAX: u128 = 10_000_000;

/// Who decides.
#[derive(Debug)]
pub enum Contender<'a> {
    /// Rules and forecast.
    Ours(Box<dyn Foresight + 'a>),
    /// Another policy.
    Other(Box<dyn Policy>),
}

/// What became of a fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Who decided.
    pub policy: String,
    /// What it cost.
    pub cost: f64,
    /// Seconds in which more was asked than ready machines answer within their objective.
    pub violation_s: f64,
    /// Requests in all.
    pub requests: f64,
    /// Of those, the ones beyond what ready machines answer within their objective.
    pub requests_beyond: f64,
    /// Machines made, started, stopped and destroyed.
    pub actions: u32,
    /// Times that the wanted number changed.
    pub changes: u32,
    /// Of those, the ones that went the other way than the one before.
    pub direction_changes: u32,
    /// Machines that run or are on their way, on average.
    pub machines_mean: f64,
    /// …and at most.
    pub machines_max: u32,
    /// Seconds in which machines cost more per hour, or had cost more in the month, than the budget has.
    pub overrun_s: f64,
    /// Whatever was asked of the pool while nothing at all was known of its nodes.
    pub blind_actions: u32,
    /// Times that a region had no machine to give.
    pub refused: u32,
}

/// Everything of one run.
#[derive(Debug)]
struct Run<'a> {
    scenario: &'a Scenario<'a>,
    group: &'a GroupSpec,
    outcome: Outcome,
    direction: Option<bool>,
    machine_seconds: f64,
    seconds: f64,
    ledger: Ledger,
}

/// Runs one policy through a scenario.
///
/// # Errors
/// See [`ScenarioError`].
pub fn run(scenario: &Scenario<'_>, contender: Contender<'_>) -> Result<(Outcome, Report), ScenarioError> {
    run_recorded(scenario, contender, None)
}

/// The same, and writes down what was seen and done.
///
/// # Errors
/// See [`ScenarioError`].
pub fn run_recorded(
    scenario: &Scenario<'_>,
    contender: Contender<'_>,
    mut recorder: Option<&mut Recorder>,
) -> Result<(Outcome, Report), ScenarioError> {
    let group = scenario.fleet.groups.first().ok_or(ScenarioError::NoGroup)?;
    scenario.check()?;
    let fleet = FleetSpec { groups: vec![group.clone()], ..scenario.fleet.clone() };
    let groups = fleet.groups.clone();
    let rules: Vec<String> = match &contender {
        Contender::Ours(_) => fleet.rules.iter().map(|rule| rule.name.clone()).collect(),
        Contender::Other(_) => Vec::new(),
    };
    let (name, mut controller, mut foresight) = match contender {
        Contender::Ours(foresight) => ("ours".to_owned(), Controller::new(fleet), Some(foresight)),
        Contender::Other(policy) => (policy.name().to_owned(), Controller::led_by(fleet, policy), None),
    };
    let mut run = Run {
        scenario,
        group,
        outcome: Outcome { policy: name, ..Outcome::default() },
        direction: None,
        machine_seconds: 0.0,
        seconds: 0.0,
        ledger: Ledger::new(&groups, &rules, scenario.from),
    };
    let mut world = World::new(scenario.trace, group, scenario.node, scenario.delays);
    let pool = Attached { pool: Box::new(world.pool()), carrier: Carrier::new(scenario.fleet.hold) };
    let mut pools = BTreeMap::from([(group.pool.clone(), pool)]);
    let mut told = world.told();
    let mut accrual = Accrual::new(scenario.step * 3);
    let mut unit = UnitCost::new(UNIT_WINDOW);
    let mut rng = StdRng::seed_from_u64(scenario.seed);
    let mut origins = BTreeMap::new();
    let mut now = begins(scenario);
    while now < scenario.to {
        world.prepare(now);
        let ahead = controller.time_to_ready(&group.name).unwrap_or(group.ready_after) + scenario.step;
        let (mut step, mut machines, mut accrued) = (None, Vec::new(), Vec::new());
        let mut usage = Usage::default();
        let mut chances = Vec::new();
        let look = |lists: BTreeMap<String, Result<Vec<Machine>, _>>| {
            machines = lists.values().flatten().flatten().cloned().collect();
            let seen_step = world.step(&machines, now);
            accrued = accrual.observe(now, &groups, machines.iter()).unwrap_or_default();
            let is_heard = !seen_step.is_silent && seen_step.serving > 0;
            if is_heard {
                origins.clone_from(&seen_step.demand);
            }
            let predictions = is_heard.then_some(seen_step.rate * scenario.node.predictions_per_request);
            usage = Usage { utilisation: seen_step.utilisation.filter(|_| is_heard), predictions };
            let seconds = accrued.iter().map(crate::cost::Accrued::seconds).sum::<f64>();
            let money = accrued.iter().map(crate::cost::Accrued::money).sum();
            unit.add(now, money, predictions.map(|rate| rate * seconds));
            let demand = foresight.as_mut().and_then(|foresight| {
                if is_heard {
                    foresight.observe(now, seen_step.rate);
                }
                foresight.most(now, ahead)
            });
            let view = GroupView {
                markets: Markets::of(&scenario.calendars, now),
                demand,
                cost_per_1000: unit.value(),
                origins: origins.clone(),
                room: BTreeMap::new(),
                release: RELEASE.to_owned(),
                fixed: Vec::new(),
            };
            step = Some(seen_step);
            let seen = Seen {
                now,
                machines: lists,
                reports: world.reports().clone(),
                groups: BTreeMap::from([(group.name.clone(), view)]),
                round_trips: scenario.round_trips.clone(),
                spent: accrual.spent(now),
            };
            if let Some(recorder) = &mut recorder {
                recorder.saw(&seen);
            }
            seen
        };
        let chance = || {
            let chance = rng.random();
            chances.push(chance);
            chance
        };
        let (round, done) = run_once(&mut controller, &mut pools, &mut told, now, look, chance);
        if let Some(recorder) = &mut recorder {
            recorder.did(&round, &done, &chances);
        }
        if let Some(step) = step.filter(|_| now >= scenario.from) {
            run.ledger.accrue(&accrued, &BTreeMap::from([(group.name.clone(), usage)]));
            run.ledger.round(&round, &done, scenario.step);
            run.count(now, &step, &machines, &round, &done, accrual.spent(now).this_month);
            run.outcome.cost += accrued.iter().map(crate::cost::Accrued::money).sum::<f64>();
        }
        now = after(now, scenario.step);
    }
    run.outcome.machines_mean = run.machine_seconds / run.seconds.max(1.0);
    let ready = controller.ready_times(&group.name);
    let report = run.ledger.report(scenario.to, |_| ready, None, controller.decisions());
    Ok((run.outcome, report))
}

/// As far before as there is something to be seen, an hour at most.
fn begins(scenario: &Scenario<'_>) -> Timestamp {
    let lead = SignedDuration::try_from(LEAD).ok().and_then(|lead| scenario.from.checked_sub(lead).ok());
    let first = scenario.trace.span().map_or(scenario.from, |(first, _)| first);
    lead.unwrap_or(scenario.from).max(first).min(scenario.from)
}

impl Run<'_> {
    fn count(
        &mut self,
        now: Timestamp,
        step: &Step,
        machines: &[Machine],
        round: &Round,
        done: &[Done],
        this_month: f64,
    ) {
        let Self { scenario, outcome, .. } = self;
        let seconds = scenario.step.as_secs_f64();
        self.seconds += seconds;
        outcome.requests += step.rate * seconds;
        if step.beyond > 1e-9 {
            outcome.violation_s += seconds;
            outcome.requests_beyond += step.beyond * seconds;
        }
        let live = machines.iter().filter(|machine| machine.state.is_capacity()).count();
        let live = u32::try_from(live).unwrap_or(u32::MAX);
        outcome.machines_max = outcome.machines_max.max(live);
        self.machine_seconds += f64::from(live) * seconds;

        let per_hour: f64 = machines.iter().filter_map(|machine| price(self.group, machine)).sum();
        let budget = scenario.fleet.budget;
        let exceeds = |limit: Option<f64>, value: f64| limit.is_some_and(|limit| value > limit + 1e-9);
        if exceeds(budget.per_hour, per_hour) || exceeds(budget.per_month, this_month) {
            outcome.overrun_s += seconds;
        }
        for decision in &round.decisions {
            if decision.to != decision.from {
                let is_up = decision.to > decision.from;
                outcome.changes += 1;
                outcome.direction_changes += u32::from(self.direction.is_some_and(|was_up| was_up != is_up));
                self.direction = Some(is_up);
            }
        }
        let blind_since = scenario.trace.silent_since(now);
        let is_blind = blind_since.is_some_and(|since| after(since, scenario.fleet.stale_after) < now);
        for Done { action, result } in done {
            let changes = match action {
                Action::Create(_) => true,
                Action::Change(_, change) => {
                    matches!(change, Change::Start | Change::Stop | Change::Destroy)
                }
                _ => false,
            };
            outcome.actions += u32::from(changes && result.is_ok());
            outcome.blind_actions += u32::from(is_blind);
            let refused = matches!(
                result,
                Err(crate::pool::PoolError::NoCapacity { .. } | crate::pool::PoolError::HostFull)
            );
            outcome.refused += u32::from(refused);
        }
    }
}

/// Outcomes side by side.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(pub &'a [Outcome]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>9} {:>10} {:>11} {:>8} {:>8} {:>6} {:>6} {:>5} {:>8} {:>6}",
            "policy",
            "cost",
            "over SLO s",
            "beyond SLO",
            "actions",
            "changes",
            "turns",
            "mean",
            "most",
            "overrun",
            "blind"
        )?;
        for outcome in self.0 {
            writeln!(
                f,
                "{:<12} {:>9.2} {:>10.0} {:>11.0} {:>8} {:>8} {:>6} {:>6.2} {:>5} {:>7}s {:>6}",
                outcome.policy,
                outcome.cost,
                outcome.violation_s,
                outcome.requests_beyond,
                outcome.actions,
                outcome.changes,
                outcome.direction_changes,
                outcome.machines_mean,
                outcome.machines_max,
                outcome.overrun_s,
                outcome.blind_actions
            )?;
        }
        Ok(())
    }
}
