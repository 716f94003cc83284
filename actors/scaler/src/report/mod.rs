//! What a fleet did over a time, what it cost, and what would have been better.
//!
//! A [`Ledger`] adds up what each round saw, decided and spent, in a bounded space however long that is; a [`Report`] is
//! read from it. Advice comes with the figures that it rests on, and none without.

mod advice;
mod ledger;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use jiff::Timestamp;

pub use advice::Advice;
pub use ledger::{Ledger, Usage};

use crate::control::Decision;

/// A fleet over a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Seconds of it in which the fleet was not looked at for too long, and was billed as last known.
    pub gap_seconds: f64,
    /// By group.
    pub groups: Vec<GroupReport>,
    /// The latest decisions that changed something, the newest last.
    pub decisions: Vec<Decision>,
    /// What could be better.
    pub advice: Vec<Advice>,
}

/// One group over a time.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupReport {
    /// Its name.
    pub group: String,
    /// Machines that were billed as running, on average…
    pub machines_mean: f64,
    /// …and at most.
    pub machines_max: u32,
    /// Mean of the times in which all nodes said it; `None`: none did.
    pub utilisation: Option<f64>,
    /// What it cost in all.
    pub money: f64,
    /// By region.
    pub by_region: Vec<(String, f64)>,
    /// Money per hour.
    pub per_hour: f64,
    /// Money for 1,000 predictions, of the times in which they were counted.
    pub per_1000: Option<f64>,
    /// Decisions that changed the number of machines.
    pub changes: u64,
    /// Starts of machines that were made for it, and how long they took.
    pub cold: Starts,
    /// The same of machines that were stopped before.
    pub warm: Starts,
    /// Against fleets of a fixed number.
    pub savings: Vec<Saving>,
}

/// Starts of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Starts {
    /// That many.
    pub count: u64,
    /// From the decision to the first answer, of the latest that were measured.
    pub mean: Option<Duration>,
    /// The slowest of those.
    pub slowest: Option<Duration>,
}

/// Which fleet of a fixed number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixedFleet {
    /// Of the most machines that there were at once.
    Most,
    /// One that was asked about.
    Asked,
    /// The smallest that would have been over its objective for no longer.
    Smallest,
}

/// Against a fixed fleet at the mean price of a machine that ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saving {
    /// Which.
    pub fleet: FixedFleet,
    /// Machines of that fleet.
    pub machines: u32,
    /// What it would have cost.
    pub money: f64,
    /// Share of that which was not spent; below zero: more was.
    pub share: f64,
}

impl Saving {
    /// Of a fleet that would have cost `money`, where `spent` was.
    #[must_use]
    pub fn new(fleet: FixedFleet, machines: u32, money: f64, spent: f64) -> Self {
        let share = if money > 0.0 { (money - spent) / money } else { 0.0 };
        Self { fleet, machines, money, share }
    }
}
