//! The rounds of the scaler that acts: on a thread of its own, since pools may take their time.
//!
//! Looks, has the controller decide, carries out, keeps, and shows. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use peregrine_runtime::{Clock, Failure, Inbox, Received, Worker};
use peregrine_scaler::budget::Spent;
use peregrine_scaler::calendar::Calendar;
use peregrine_scaler::carry::Nodes;
use peregrine_scaler::control::{
    Attached, Controller, Decision, Done, GroupView, Markets, Round, Seen, run_once,
};
use peregrine_scaler::cost::Accrued;
use peregrine_scaler::demand::{Demand, NoOutlook, Outlook};
use peregrine_scaler::fleet::{Machine, MachineState};
use peregrine_scaler::place::RoundTrips;
use peregrine_scaler::pool::PoolError;
use peregrine_scaler::reconcile::Action;
use peregrine_scaler::report::{Ledger, Report, Usage};
use peregrine_scaler::signal::{NodeReport, Signal};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tracing::{error, info, warn};

use super::book::Book;
use super::ledger::LedgerError;
use super::pace::Pace;
use super::past::Past;

/// What pools have room for changes slowly, and they count calls.
const ROOM_EVERY: Duration = Duration::from_secs(60);

/// Go round now.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Nudge;

/// What a group has beside the machines of its spec.
pub(crate) struct GroupParts {
    /// Of the markets that it follows.
    pub(crate) calendars: Vec<Arc<Calendar>>,
    /// What its machines run unless an operator has said otherwise.
    pub(crate) release: String,
    pub(crate) demand: Demand,
    pub(crate) past: Past,
}

/// The latest round, for whoever asks.
pub(crate) struct Picture {
    pub(crate) at: Timestamp,
    pub(crate) round: Round,
    pub(crate) done: Vec<Done>,
    pub(crate) machines: BTreeMap<String, Result<Vec<Machine>, PoolError>>,
    pub(crate) outlooks: BTreeMap<String, Result<Outlook, NoOutlook>>,
    pub(crate) markets: BTreeMap<String, Markets>,
    pub(crate) releases: BTreeMap<String, String>,
    pub(crate) spent: Spent,
    pub(crate) decisions: Vec<String>,
    pub(crate) ready: BTreeMap<String, [Vec<Duration>; 2]>,
    /// Of all that this scaler has done since it began to act.
    pub(crate) report: Report,
}

/// The latest one; none while the scaler does not act here.
pub(crate) type LatestPicture = Arc<ArcSwapOption<Picture>>;

/// Everything that one life of the scaler needs.
pub(crate) struct Parts {
    pub(crate) controller: Controller,
    pub(crate) pools: BTreeMap<String, Attached>,
    pub(crate) groups: BTreeMap<String, GroupParts>,
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) keeper: Box<dyn Keeper>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) every: Duration,
    pub(crate) stale_after: Duration,
    pub(crate) dry_run: bool,
    pub(crate) picture: LatestPicture,
    /// Between regions, as this node's cluster has measured.
    pub(crate) round_trips: Box<dyn Fn() -> RoundTrips + Send>,
    pub(crate) seed: u64,
}

/// The port to what is kept of money and decisions.
pub(crate) trait Keeper: Send {
    /// Charges for the machines up to now. `prediction_rates`: predictions per second, by group and region.
    fn account(
        &mut self,
        machines: &[Machine],
        prediction_rates: &BTreeMap<(String, String), f64>,
        now: Timestamp,
    ) -> Result<Accounts, LedgerError>;

    /// Keeps what was decided, and how long machines took to be ready.
    fn keep(
        &mut self,
        decisions: &[Decision],
        controller: &Controller,
        now: Timestamp,
    ) -> Result<(), LedgerError>;
}

/// What the keeper knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Accounts {
    pub(crate) spent: Spent,
    /// What was billed since the last time.
    pub(crate) accrued: Vec<Accrued>,
    /// Money for 1,000 predictions, of late, by group.
    pub(crate) cost_per_1000: BTreeMap<String, f64>,
}

/// The thread.
pub(crate) struct Rounds {
    parts: Parts,
    room: BTreeMap<String, BTreeMap<String, u32>>,
    room_at: Option<Instant>,
    /// By pool.
    last_listed: BTreeMap<String, Vec<Machine>>,
    /// Pools that did not list in the last round.
    silent: BTreeSet<String>,
    sums: Ledger,
    chance: StdRng,
}

impl Rounds {
    pub(crate) fn new(parts: Parts) -> Self {
        let chance = StdRng::seed_from_u64(parts.seed);
        let spec = parts.controller.spec();
        let rules: Vec<String> = spec.rules.iter().map(|rule| rule.name.clone()).collect();
        let sums = Ledger::new(&spec.groups, &rules, wall(&*parts.clock));
        let (room, last_listed, silent) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { parts, room, room_at: None, last_listed, silent, sums, chance }
    }

    fn round(&mut self) {
        let now = wall(&*self.parts.clock);
        self.ask_for_room(now);
        let mut outlooks = BTreeMap::new();
        let mut markets = BTreeMap::new();
        let parts = &mut self.parts;
        parts.book.lock().forget(now);
        let origins = parts.book.lock().origins(now, parts.stale_after);
        let asked = parts.book.lock().asked(now, parts.stale_after);
        let releases = parts.book.lock().releases.by_group.clone();
        let mut views: BTreeMap<String, GroupView> = BTreeMap::new();
        for (index, (name, group)) in parts.groups.iter_mut().enumerate() {
            let open = Markets::of(&group.calendars, now);
            // What is asked of the whole cluster is the demand of its first group: nobody else can say whose it is.
            if index == 0
                && let Some(asked) = asked
            {
                let _ = group.demand.observe(now, asked); // one that is late or odd is left out
                group.past.keep(&group.demand);
            }
            let outlook = group.demand.outlook(now);
            let lead = parts.controller.time_to_ready(name).unwrap_or_default() + parts.every;
            views.insert(
                name.clone(),
                GroupView {
                    markets: open,
                    demand: outlook.as_ref().ok().map(|outlook| outlook.upper_within(lead)),
                    origins: origins.clone(),
                    room: self.room.get(name).cloned().unwrap_or_default(),
                    release: releases.get(name).unwrap_or(&group.release).clone(),
                    ..GroupView::default()
                },
            );
            outlooks.insert(name.clone(), outlook);
            markets.insert(name.clone(), open);
        }
        let releases = views.iter().map(|(name, view)| (name.clone(), view.release.clone())).collect();
        let round_trips = (parts.round_trips)();
        let is_budgeted = parts.controller.spec().budget.per_month.is_some();
        let (last_listed, sums) = (&mut self.last_listed, &mut self.sums);
        let (book, keeper) = (Arc::clone(&parts.book), &mut parts.keeper);
        let mut listed = BTreeMap::new();
        let mut spent = Spent { this_month: 0.0, remaining: until_next_month(now) };
        let look = |machines: BTreeMap<String, Result<Vec<Machine>, PoolError>>| {
            let all: Vec<&Machine> = machines.values().flatten().flatten().collect();
            let mut book = book.lock();
            // While a pool does not list, what its machines are told stands.
            if machines.values().all(Result::is_ok) {
                book.keep(all.iter().copied());
            }
            let reports = book.reports();
            let rates = prediction_rates(&all, &reports);
            // Machines of a pool that does not list cost as they did when it last has.
            for (pool, listed) in &machines {
                if let Ok(listed) = listed {
                    last_listed.insert(pool.clone(), listed.clone());
                }
            }
            let owned: Vec<Machine> = last_listed.values().flatten().cloned().collect();
            let fixed = book.fixed(all.iter().copied());
            drop(book);
            let mut machines = machines;
            match keeper.account(&owned, &rates, now) {
                Ok(accounts) => {
                    spent = accounts.spent;
                    sums.accrue(&accounts.accrued, &usage(&owned, &reports));
                    for (name, view) in &mut views {
                        view.cost_per_1000 = accounts.cost_per_1000.get(name).copied();
                    }
                }
                // What was spent is not known then, and is not nothing.
                Err(error) => {
                    error!(%error, "the scaler's ledger");
                    if is_budgeted {
                        let silent = PoolError::Unavailable(format!("what was spent is not known: {error}"));
                        machines.values_mut().for_each(|listed| *listed = Err(silent.clone()));
                    }
                }
            }
            // Nodes that come from no pool do the work of the first group.
            if let Some(view) = views.values_mut().next() {
                view.fixed = fixed;
            }
            listed = machines.clone();
            Seen { now, machines, reports, groups: views, round_trips, spent }
        };
        let (round, done) = if parts.dry_run {
            let lists = parts.pools.iter_mut().map(|(name, at)| (name.clone(), at.pool.list(now))).collect();
            (parts.controller.round(&look(lists)), Vec::new())
        } else {
            let chance = &mut self.chance;
            let mut nodes = Told(&parts.book);
            run_once(&mut parts.controller, &mut parts.pools, &mut nodes, now, look, || chance.random())
        };
        say(&round, &done);
        for heard in hear(&mut self.silent, &listed) {
            match heard {
                Heard::Silent(pool, error) => warn!(pool, %error, "pool is silent: nothing is done there"),
                Heard::Again(pool) => info!(pool, "pool lists its machines again"),
            }
        }
        if let Err(error) = parts.keeper.keep(&round.decisions, &parts.controller, now) {
            error!(%error, "the scaler's ledger");
        }
        let controller = &parts.controller;
        self.sums.round(&round, &done, parts.every);
        let ready_of = |group: &str| controller.ready_times(group);
        let report = self.sums.report(now, ready_of, None, controller.decisions());
        let ready = parts.groups.keys().map(|name| (name.clone(), ready_times(controller, name))).collect();
        parts.picture.store(Some(Arc::new(Picture {
            at: now,
            round,
            done,
            machines: listed,
            outlooks,
            markets,
            releases,
            spent,
            decisions: controller
                .decisions()
                .rev()
                .take(64)
                .map(|decision| format!("{} {decision}", decision.at))
                .collect(),
            ready,
            report,
        })));
    }

    fn ask_for_room(&mut self, now: Timestamp) {
        let moment = self.parts.clock.now();
        if self.room_at.is_some_and(|at| moment.saturating_duration_since(at) < ROOM_EVERY) {
            return;
        }
        self.room_at = Some(moment);
        let groups = self.parts.controller.spec().groups.clone();
        for group in &groups {
            let Some(attached) = self.parts.pools.get_mut(&group.pool) else { continue };
            match attached.pool.room(group, now) {
                Ok(room) => drop(self.room.insert(group.name.clone(), room.into_iter().collect())),
                // What there was is too old to go by; what is asked for may be refused.
                Err(error) => {
                    self.room.remove(&group.name);
                    warn!(group = group.name, %error, "room is not known");
                }
            }
        }
    }
}

impl Drop for Rounds {
    /// It acts elsewhere from now on, or nowhere.
    fn drop(&mut self) {
        self.parts.picture.store(None);
    }
}

impl Worker<Nudge> for Rounds {
    fn run(&mut self, inbox: &mut Inbox<Nudge>) -> Result<(), Failure> {
        let clock = Arc::clone(&self.parts.clock);
        let mut pace = Pace::new(clock.now(), clock.wall());
        loop {
            if let Some(by) = pace.step(clock.now(), clock.wall()) {
                // Nothing that it remembers is of the time that it is now; what it finds is.
                return Err(Failure::from(format!("the time of day was set by {by:.0} s")));
            }
            let began = Instant::now();
            self.round();
            match inbox.recv_deadline(began + self.parts.every) {
                Received::Stop => return Ok(()),
                Received::Mail(_) | Received::Nothing => {}
            }
        }
    }
}

/// The nodes, told when they speak next.
struct Told<'a>(&'a Mutex<Book>);

impl Nodes for Told<'_> {
    fn drain(&mut self, machine: &Machine, now: Timestamp) {
        self.0.lock().drain(machine, now);
    }

    fn undrain(&mut self, machine: &Machine, now: Timestamp) {
        self.0.lock().undrain(machine, now);
    }
}

/// What is new of a pool.
#[derive(Debug, PartialEq)]
enum Heard<'a> {
    Silent(&'a str, &'a PoolError),
    Again(&'a str),
}

/// Compares what pools said with the round before: a silence is told once, however long it lasts.
fn hear<'a>(
    silent: &mut BTreeSet<String>,
    listed: &'a BTreeMap<String, Result<Vec<Machine>, PoolError>>,
) -> Vec<Heard<'a>> {
    let news = |(pool, listed): (&'a String, &'a Result<Vec<Machine>, PoolError>)| match listed {
        Err(error) => silent.insert(pool.clone()).then_some(Heard::Silent(pool, error)),
        Ok(_) => silent.remove(pool).then_some(Heard::Again(pool)),
    };
    listed.iter().filter_map(news).collect()
}

fn say(round: &Round, done: &[Done]) {
    for decision in round.decisions.iter().filter(|decision| decision.from != decision.to) {
        let (group, from, to) = (decision.group.as_str(), decision.from, decision.to);
        info!(group, from, to, cause = %decision.cause, "fleet decided");
    }
    for Done { action, result } in done {
        let (what, machine) = match action {
            Action::Create(order) => ("create", order.slot.to_string()),
            Action::Change(machine, change) => (change.name(), machine.slot.to_string()),
            Action::Drain(_) | Action::Undrain(_) | Action::Hold(_) | Action::Release(_) => {
                if let Err(error) = result {
                    warn!(%error, "hold");
                }
                continue;
            }
        };
        match result {
            Ok(()) => info!(machine, "{what}"),
            Err(error) => warn!(machine, %error, "{what}"),
        }
    }
}

/// Of machines that say so, by group and region.
fn prediction_rates(
    machines: &[&Machine],
    reports: &BTreeMap<String, NodeReport>,
) -> BTreeMap<(String, String), f64> {
    let mut rates = BTreeMap::new();
    for machine in machines {
        let report = reports.get(&machine.id.0).or_else(|| reports.get(&machine.slot.to_string()));
        let rate = report.and_then(|report| report.measured.get(&Signal::PredictionRate));
        if let Some(rate) = rate.filter(|rate| rate.is_finite()) {
            *rates.entry((machine.slot.group.clone(), machine.region.clone())).or_insert(0.0) += rate;
        }
    }
    rates
}

/// What was measured of each group: of all its machines that run, or not at all.
fn usage(machines: &[Machine], reports: &BTreeMap<String, NodeReport>) -> BTreeMap<String, Usage> {
    let mut groups: BTreeMap<String, Vec<Option<&NodeReport>>> = BTreeMap::new();
    for machine in machines.iter().filter(|machine| machine.state == MachineState::Started) {
        let report = reports.get(&machine.id.0).or_else(|| reports.get(&machine.slot.to_string()));
        groups.entry(machine.slot.group.clone()).or_default().push(report);
    }
    let all = |reports: &[Option<&NodeReport>], signal: Signal| {
        let said =
            reports.iter().map(|report| report.and_then(|report| report.measured.get(&signal)).copied());
        said.sum::<Option<f64>>()
    };
    let of = |(group, reports): (String, Vec<Option<&NodeReport>>)| {
        let utilisation = all(&reports, Signal::Utilisation).map(|sum| sum / reports.len() as f64);
        (group, Usage { utilisation, predictions: all(&reports, Signal::PredictionRate) })
    };
    groups.into_iter().map(of).collect()
}

fn ready_times(controller: &Controller, group: &str) -> [Vec<Duration>; 2] {
    use peregrine_scaler::control::Start;
    let times = |start| {
        controller.ready_times(group).map(|times| times.measured(start).collect()).unwrap_or_default()
    };
    [times(Start::Cold), times(Start::Warm)]
}

/// The months of the budget are UTC's.
pub(super) fn until_next_month(now: Timestamp) -> Duration {
    let today = now.to_zoned_datetime(TimeZone::UTC).date();
    let next = today.last_of_month().tomorrow().and_then(|first| first.to_zoned_datetime(TimeZone::UTC));
    next.ok()
        .and_then(|next| Duration::try_from(next.timestamp().duration_since(now)).ok())
        .unwrap_or_default()
}

pub(crate) fn wall(clock: &dyn Clock) -> Timestamp {
    Timestamp::try_from(clock.wall()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Names of groups that there are.
pub(crate) fn names(groups: &BTreeMap<String, GroupParts>) -> BTreeSet<String> {
    groups.keys().cloned().collect()
}

#[cfg(test)]
mod tests {
    use peregrine_scaler::calendar::Calendars;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_of_the_budget_ends_at_midnight_utc() {
        assert_eq!(until_next_month(at("2026-11-30T23:59:00Z")), Duration::from_secs(60));
        assert_eq!(until_next_month(at("2026-12-31T00:00:00Z")), Duration::from_secs(86_400));
    }

    #[test]
    fn a_silence_is_told_once_and_its_end_too() {
        let why = PoolError::Unavailable("exit status: 1".to_owned());
        let mut silent = BTreeSet::new();
        let mut check = |own_lists: bool, expected: &[Heard<'_>]| {
            let own = if own_lists { Ok(Vec::new()) } else { Err(why.clone()) };
            let listed = BTreeMap::from([("local".to_owned(), Ok(Vec::new())), ("own".to_owned(), own)]);
            assert_eq!(hear(&mut silent, &listed), expected);
        };
        check(true, &[]);
        check(false, &[Heard::Silent("own", &why)]);
        check(false, &[]);
        check(true, &[Heard::Again("own")]);
        check(true, &[]);
        check(false, &[Heard::Silent("own", &why)]);
    }

    #[test]
    fn markets_are_open_while_one_is() {
        let built_in = Calendars::built_in();
        let of = |names: &[&str], now: &str| {
            let calendars: Vec<_> =
                names.iter().map(|name| Arc::clone(built_in.get(name).unwrap())).collect();
            Markets::of(&calendars, at(now))
        };
        // A Wednesday: Frankfurt is open, New York opens in three hours and a half.
        let morning = of(&["XNYS", "XETR"], "2026-11-25T11:00:00Z");
        assert_eq!(morning.is_open, Some(true));
        let new_york = of(&["XNYS"], "2026-11-25T11:00:00Z");
        assert_eq!(new_york, Markets { is_open: Some(false), opens_in: Some(Duration::from_secs(12_600)) });
        assert_eq!(of(&[], "2026-11-25T11:00:00Z"), Markets::default());
        // Nobody knows the holidays of that year.
        assert_eq!(of(&["XNYS"], "2093-11-25T11:00:00Z"), Markets::default());
    }

    #[test]
    fn a_market_that_is_not_known_may_be_open() {
        let desk = "extends = \"xnys\"\nvalid = { first = 2024, last = 2029 }\n";
        let known = Calendars::built_in().with(&[("desk", desk)]).unwrap();
        let calendars = ["desk", "xlon"].map(|name| Arc::clone(known.get(name).unwrap()));
        let is_open = |now: &str| Markets::of(&calendars, at(now)).is_open;
        // London's calendar ends with 2027.
        assert_eq!(is_open("2027-11-24T03:00:00Z"), Some(false));
        assert_eq!(is_open("2028-11-22T03:00:00Z"), None);
        assert_eq!(is_open("2028-11-22T15:00:00Z"), Some(true), "New York is, whatever London does");
    }
}
