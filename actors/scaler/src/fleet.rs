//! The words of a fleet: groups of machines, the places they may stand, their slots and their states.
//!
//! A slot is what makes every change a reconciliation: its name is unique in a pool, so a second machine of the same
//! slot cannot come to be, whoever asks for it and however often. Slots of a group are numbered below its maximum;
//! two scalers that both think they lead can therefore never have more machines than that.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

/// Machines of one purpose and size, any of which does the work of any other.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// Lowercase letters, digits and hyphens; begins with a letter.
    pub name: String,
    /// The pool that its machines come from.
    pub pool: String,
    /// Never fewer that run, but for want of capacity or money.
    pub machines_min: u32,
    /// Never more that are not destroyed, stopped ones included. Slots are numbered below it.
    pub machines_max: u32,
    /// Stopped machines that are kept, to be started in seconds.
    pub warm: u32,
    /// Requests per second that one machine answers within its objective.
    pub capacity: f64,
    /// Where its machines may stand, the preferred first where nothing else decides.
    pub places: Vec<PlaceSpec>,
    /// How long a machine may take to finish what it has when it is to stop.
    pub drain: Duration,
    /// From the decision to the first answer of a new machine, until that was measured.
    pub ready_after: Duration,
}

/// One region that machines of a group may stand in.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceSpec {
    /// The region.
    pub region: String,
    /// Of a machine that runs.
    pub running_per_hour: f64,
    /// Of a machine that is stopped: its disk.
    pub stopped_per_hour: f64,
    /// At most so many here.
    pub machines_max: u32,
}

impl GroupSpec {
    /// The place with that region.
    #[must_use]
    pub fn place(&self, region: &str) -> Option<&PlaceSpec> {
        self.places.iter().find(|place| place.region == region)
    }
}

/// The place of a machine in its group: `inference-3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The group.
    pub group: String,
    /// Below the group's maximum.
    pub number: u32,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.group, self.number)
    }
}

/// A name that no slot has; whoever named the machine acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a group and a number")]
pub struct NoSlot(pub String);

impl FromStr for Slot {
    type Err = NoSlot;

    fn from_str(name: &str) -> Result<Self, NoSlot> {
        let (group, number) = name.rsplit_once('-').ok_or_else(|| NoSlot(name.to_owned()))?;
        // One spelling for each number: `+1` and `01` name nothing.
        let number = number.parse().ok().filter(|read: &u32| read.to_string() == number);
        match (group.is_empty(), number) {
            (false, Some(number)) => Ok(Self { group: group.to_owned(), number }),
            _ => Err(NoSlot(name.to_owned())),
        }
    }
}

/// What the pool calls a machine; unique in it, and never given again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub String);

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A machine as its pool sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The pool's name for it.
    pub id: MachineId,
    /// Its slot.
    pub slot: Slot,
    /// Where it stands.
    pub region: String,
    /// What it does.
    pub state: MachineState,
    /// The pool sends it no new callers.
    pub cordoned: bool,
    /// What it runs: image and configuration, as one word.
    pub release: String,
    /// When it came to be.
    pub created_at: Timestamp,
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineState {
    /// It is being made or started: capacity that is on its way.
    Starting,
    /// It runs, which does not mean that its node is ready.
    Started,
    /// It is on its way to being stopped.
    Stopping,
    /// It can be started in seconds, and costs its disk.
    Stopped,
    /// Its memory is kept on disk; it can be started sooner still.
    Suspended,
    /// It did not come up, or fell over for good. It may be destroyed.
    Failed,
    /// Its host cannot be reached; nobody knows what it does. It may come back, and costs until then.
    Unknown,
    /// It will be gone.
    Destroying,
}

impl MachineState {
    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Suspended => "suspended",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Destroying => "destroying",
        }
    }

    /// It answers, or is about to.
    #[must_use]
    pub const fn is_capacity(self) -> bool {
        matches!(self, Self::Starting | Self::Started)
    }

    /// It can be started.
    #[must_use]
    pub const fn is_warm(self) -> bool {
        matches!(self, Self::Stopped | Self::Suspended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<(&str, u32)>) {
        let read: Result<Slot, _> = name.parse();
        assert_eq!(read.as_ref().ok().map(|slot| (slot.group.as_str(), slot.number)), expected);
        if let Ok(slot) = read {
            assert_eq!(slot.to_string(), name);
        }
    }

    #[test]
    fn a_slot_is_read_as_it_is_written() {
        check("inference-3", Some(("inference", 3)));
        check("gpu-worker-0", Some(("gpu-worker", 0)));
        check("inference", None);
        check("-3", None);
        check("inference-", None);
        check("inference-03", None);
        check("inference-+3", None);
        check("inference-99999999999", None);
    }
}
