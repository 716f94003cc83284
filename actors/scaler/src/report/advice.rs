//! What could be better, with the figures that say so.

use std::fmt;
use std::time::Duration;

/// One recommendation.
#[derive(Clone, Debug, PartialEq)]
pub enum Advice {
    /// Keep more stopped machines.
    Warm {
        /// Of this group.
        group: String,
        /// So many in all.
        warm: u32,
        /// Starts that would have been of stopped machines.
        starts: u64,
        /// What those would have saved together.
        saved: Duration,
        /// No stopped machine was ever started: their time is taken to be none, so that this is the most it can be.
        is_at_most: bool,
        /// What the disks of the additional ones cost per hour.
        per_hour: f64,
    },
    /// A rule did nothing: mend it or strike it out.
    RuleNeverActed {
        /// Which.
        rule: String,
        /// Times that it was asked.
        rounds: u64,
        /// Of those, when a condition of it held,
        held: u64,
        /// …and when it could not be decided for want of data.
        blind: u64,
    },
    /// A condition failed for another reason than missing data: mend it.
    RuleBroken {
        /// Which.
        rule: String,
        /// Times that it failed.
        rounds: u64,
    },
    /// More machines were needed than the group may have: raise `machines_max`, or accept what was beyond it.
    AtMaximum {
        /// Of this group.
        group: String,
        /// What it is.
        machines_max: u32,
        /// For so long.
        lasted: Duration,
        /// So many were needed at most.
        needed: u32,
    },
    /// Machines could not be paid: raise the budget, or accept what was beyond it.
    BudgetBound {
        /// Of this group.
        group: String,
        /// For so long.
        lasted: Duration,
        /// So many were missing at most.
        missing: u32,
    },
    /// No region had room for machines: give the group another.
    NoRoom {
        /// Of this group.
        group: String,
        /// For so long.
        lasted: Duration,
        /// So many were missing at most.
        missing: u32,
    },
    /// A region had no machine to give: look for another, or reserve some.
    RegionFull {
        /// Which.
        region: String,
        /// Times that it refused.
        times: u64,
    },
    /// Machines were kept only because nodes were silent: look at what keeps their reports from arriving.
    Blind {
        /// Of this group.
        group: String,
        /// For so long.
        lasted: Duration,
    },
    /// A pool did not list its machines: look at it.
    PoolSilent {
        /// Of this group.
        group: String,
        /// For so long.
        lasted: Duration,
    },
    /// Machines stand where their group has no price: write one, or take them away.
    Unpriced {
        /// Machine-hours that are in no sum of this report.
        machine_hours: f64,
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warm { group, warm, starts, saved, is_at_most, per_hour } => {
                let at_most = if *is_at_most { "up to " } else { "" };
                write!(
                    f,
                    "{group}: warm = {warm} would have saved {at_most}{:.0} s over {starts} starts, for {per_hour:.4} per hour",
                    saved.as_secs_f64()
                )
            }
            Self::RuleNeverActed { rule, rounds, held, blind } => {
                write!(
                    f,
                    "rule `{rule}` never acted in {rounds} rounds: it held in {held} and was blind in {blind}"
                )
            }
            Self::RuleBroken { rule, rounds } => {
                write!(f, "rule `{rule}` fails: its condition could not be computed in {rounds} rounds")
            }
            Self::AtMaximum { group, machines_max, lasted, needed } => write!(
                f,
                "{group}: machines_max = {machines_max} was binding for {}; {needed} were needed at most",
                Lasted(*lasted)
            ),
            Self::BudgetBound { group, lasted, missing } => write!(
                f,
                "{group}: the budget was binding for {}; {missing} machines could not be paid at most",
                Lasted(*lasted)
            ),
            Self::NoRoom { group, lasted, missing } => write!(
                f,
                "{group}: no region had room for {}; {missing} machines were missing at most",
                Lasted(*lasted)
            ),
            Self::RegionFull { region, times } => {
                write!(f, "region {region} had no capacity {times} times")
            }
            Self::Blind { group, lasted } => {
                write!(f, "{group}: for {} machines were kept because nodes were silent", Lasted(*lasted))
            }
            Self::PoolSilent { group, lasted } => {
                write!(f, "{group}: for {} its pool did not list its machines", Lasted(*lasted))
            }
            Self::Unpriced { machine_hours } => {
                write!(f, "{machine_hours:.2} machine-hours have no price and are in no sum")
            }
        }
    }
}

/// A time in the unit that suits it.
pub(super) struct Lasted(pub(super) Duration);

impl fmt::Display for Lasted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            seconds if seconds >= 3600.0 => write!(f, "{:.1} h", seconds / 3600.0),
            seconds if seconds >= 60.0 => write!(f, "{:.1} min", seconds / 60.0),
            seconds => write!(f, "{seconds:.0} s"),
        }
    }
}
