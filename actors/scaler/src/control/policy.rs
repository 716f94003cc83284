//! The port to whoever else says how many machines a group should have.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::fleet::{GroupSpec, Machine, MachineId};
use crate::signal::{GroupSignals, NodeReport};

/// What a policy sees of one group.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The time.
    pub now: Timestamp,
    /// The group.
    pub group: &'a GroupSpec,
    /// All of its machines.
    pub machines: &'a [Machine],
    /// What their nodes last said; only what is fresh.
    pub reports: &'a BTreeMap<MachineId, NodeReport>,
    /// The same of the group.
    pub signals: &'a GroupSignals,
    /// Machines that run or are on their way, without those that are to go.
    pub present: u32,
    /// What was wanted last.
    pub wanted: u32,
}

/// Says how many machines a group should have, in place of rules and demand: what ours is compared with.
pub trait Policy: fmt::Debug + Send {
    /// What decisions call it.
    fn name(&self) -> &str;

    /// Machines that the group should have; its bounds come after.
    fn wanted(&mut self, sight: &Sight<'_>) -> u32;
}
