//! What machines have cost, second by second, from the lists of them.
//!
//! Between two lists the fleet is taken to be the one of the earlier, so that a gap in observation is billed at what was
//! last known; a gap that is longer than it should be is flagged. A machine that came to be in between is billed from
//! then. Who is starting, stopping or out of sight is billed as running: so do platforms, and a budget that reckons with
//! less would be exceeded.

mod unit;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

pub use unit::{UnitCost, per_1000};

use crate::budget::Spent;
use crate::fleet::{GroupSpec, Machine, MachineId, MachineState};
use crate::signal::age;

/// Longer than this nobody was away: the clock was wrong.
const GAP_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// How a machine is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Billing {
    /// At the price of a machine that runs.
    Running,
    /// At the price of its disk.
    Stopped,
}

impl Billing {
    /// That of a machine in this state.
    #[must_use]
    pub const fn of(state: MachineState) -> Self {
        match state {
            MachineState::Starting
            | MachineState::Started
            | MachineState::Stopping
            | MachineState::Unknown => Self::Running,
            MachineState::Stopped
            | MachineState::Suspended
            | MachineState::Failed
            | MachineState::Destroying => Self::Stopped,
        }
    }

    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// What a machine costs per hour now; `None`: its region is no place of its group, and nobody has written a price.
#[must_use]
pub fn price(group: &GroupSpec, machine: &Machine) -> Option<f64> {
    let place = group.place(&machine.region)?;
    Some(match Billing::of(machine.state) {
        Billing::Running => place.running_per_hour,
        Billing::Stopped => place.stopped_per_hour,
    })
}

/// What machines that are billed alike have cost over a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Their group.
    pub group: String,
    /// Where they stand.
    pub region: String,
    /// How they are billed.
    pub billing: Billing,
    /// Seconds of all of them together.
    pub machine_seconds: f64,
    /// What that costs.
    pub money: f64,
}

/// What a fleet has cost from one list of it to the next, within one month.
#[derive(Clone, Debug, PartialEq)]
pub struct Accrued {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// By group, region and billing, in that order.
    pub lines: Vec<Line>,
    /// The fleet was not looked at for too long; it may have been another.
    pub is_gap: bool,
    /// Seconds of machines for which there is no price.
    pub unpriced_seconds: f64,
}

impl Accrued {
    /// All of its money.
    #[must_use]
    pub fn money(&self) -> f64 {
        self.lines.iter().map(|line| line.money).sum()
    }

    /// How long it is.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.to.duration_since(self.from).as_secs_f64()
    }
}

/// A reading that is not taken; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccrualError {
    /// The clock was put back: nothing is billed twice. It passes by itself, or the operator sets the clock.
    #[error("{now} is before {last}, up to which all is billed")]
    ClockBack {
        /// The reading.
        now: Timestamp,
        /// The latest before it.
        last: Timestamp,
    },
    /// Nobody knows what was over such a time: accrual goes on from now. The operator looks at the clock.
    #[error("nothing was seen from {last} to {now}; that is not billed")]
    FarAhead {
        /// The reading.
        now: Timestamp,
        /// The latest before it.
        last: Timestamp,
    },
}

/// How a machine was billed when it was last seen.
#[derive(Clone, Debug, PartialEq)]
struct Rate {
    group: String,
    region: String,
    billing: Billing,
    per_hour: Option<f64>,
}

/// Adds up what a fleet costs.
#[derive(Clone, Debug)]
pub struct Accrual {
    gap_after: Duration,
    last: Option<Timestamp>,
    fleet: BTreeMap<MachineId, Rate>,
    /// The first day of the month that is added up, and what it has cost.
    month: Option<(Date, f64)>,
}

type Sums = BTreeMap<(String, String, Billing), (f64, f64)>;

impl Accrual {
    /// Nothing has been seen. Lists further apart than `gap_after` leave a gap.
    #[must_use]
    pub const fn new(gap_after: Duration) -> Self {
        Self { gap_after, last: None, fleet: BTreeMap::new(), month: None }
    }

    /// One that goes on from a record: the month of `at` has cost `this_month` until then.
    #[must_use]
    pub fn resumed(gap_after: Duration, at: Timestamp, this_month: f64) -> Self {
        let month = month_of(at).map(|month| (month, this_month.max(0.0)));
        Self { month, ..Self::new(gap_after) }
    }

    /// Bills the time since the last list, and takes the fleet as it is now. One record for each month that the time
    /// is in; none for the first list.
    ///
    /// # Errors
    /// See [`AccrualError`].
    pub fn observe<'a>(
        &mut self,
        now: Timestamp,
        groups: &[GroupSpec],
        machines: impl Iterator<Item = &'a Machine>,
    ) -> Result<Vec<Accrued>, AccrualError> {
        let rate = |machine: &Machine| {
            let group = groups.iter().find(|group| group.name == machine.slot.group);
            Rate {
                group: machine.slot.group.clone(),
                region: machine.region.clone(),
                billing: Billing::of(machine.state),
                per_hour: group.and_then(|group| price(group, machine)),
            }
        };
        let seen: Vec<(&Machine, Rate)> = machines.map(|machine| (machine, rate(machine))).collect();
        let take = |seen: Vec<(&Machine, Rate)>| {
            seen.into_iter().map(|(machine, rate)| (machine.id.clone(), rate)).collect()
        };
        let Some(last) = self.last else {
            (self.last, self.fleet) = (Some(now), take(seen));
            return Ok(Vec::new());
        };
        let elapsed = age(now, last).ok_or(AccrualError::ClockBack { now, last })?;
        if elapsed > GAP_MAX {
            (self.last, self.fleet) = (Some(now), take(seen));
            return Err(AccrualError::FarAhead { now, last });
        }
        let is_gap = elapsed > self.gap_after;
        let mut accrued = Vec::new();
        let mut from = last;
        while from < now {
            let to = next_month(from).map_or(now, |next| next.min(now));
            let mut piece = Piece { from, to, sums: Sums::new(), unpriced: 0.0 };
            for rate in self.fleet.values() {
                piece.add(rate, from);
            }
            for (machine, rate) in seen.iter().filter(|(machine, _)| !self.fleet.contains_key(&machine.id)) {
                piece.add(rate, machine.created_at);
            }
            let piece = piece.accrued(is_gap);
            self.spend(from, piece.money());
            accrued.push(piece);
            from = to;
        }
        (self.last, self.fleet) = (Some(now), take(seen));
        Ok(accrued)
    }

    fn spend(&mut self, at: Timestamp, money: f64) {
        let Some(month) = month_of(at) else { return };
        match &mut self.month {
            Some((present, sum)) if *present == month => *sum += money,
            other => *other = Some((month, money)),
        }
    }

    /// What the month of `now` has cost so far, and how much of it is to come.
    #[must_use]
    pub fn spent(&self, now: Timestamp) -> Spent {
        let month = month_of(now);
        let this_month = match self.month {
            Some((present, sum)) if Some(present) == month => sum,
            _ => 0.0,
        };
        let remaining = next_month(now).and_then(|next| age(next, now)).unwrap_or_default();
        Spent { this_month, remaining }
    }
}

/// A time within one month, while its lines are added up.
struct Piece {
    from: Timestamp,
    to: Timestamp,
    sums: Sums,
    unpriced: f64,
}

impl Piece {
    fn add(&mut self, rate: &Rate, since: Timestamp) {
        let seconds = self.to.duration_since(since.max(self.from)).as_secs_f64().max(0.0);
        let Some(per_hour) = rate.per_hour else {
            self.unpriced += seconds;
            return;
        };
        let key = (rate.group.clone(), rate.region.clone(), rate.billing);
        let sum = self.sums.entry(key).or_default();
        sum.0 += seconds;
        sum.1 += per_hour * seconds / 3600.0;
    }

    fn accrued(self, is_gap: bool) -> Accrued {
        let lines = self.sums.into_iter().map(|((group, region, billing), (machine_seconds, money))| Line {
            group,
            region,
            billing,
            machine_seconds,
            money,
        });
        Accrued {
            from: self.from,
            to: self.to,
            lines: lines.collect(),
            is_gap,
            unpriced_seconds: self.unpriced,
        }
    }
}

/// The first day of the month, UTC.
fn month_of(at: Timestamp) -> Option<Date> {
    let date = TimeZone::UTC.to_datetime(at).date();
    Date::new(date.year(), date.month(), 1).ok()
}

fn next_month(at: Timestamp) -> Option<Timestamp> {
    let next = month_of(at)?.checked_add(1.month()).ok()?;
    TimeZone::UTC.to_timestamp(next.to_datetime(jiff::civil::Time::midnight())).ok()
}

#[cfg(test)]
mod tests;
