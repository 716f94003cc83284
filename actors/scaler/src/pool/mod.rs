//! The port to whatever gives machines: what every pool must do, and how it says that it could not.
//!
//! Calls may block, each for no longer than the pool's own timeout; whoever calls does it on a thread that may wait.
//! None of them waits until a machine has changed: a later [`MachinePool::list`] shows that. `contract` is the one
//! test that every pool passes.

pub mod contract;
pub mod simulated;

use std::time::Duration;

use jiff::Timestamp;

use crate::fleet::{GroupSpec, Machine, MachineId, Slot};

/// A machine that should come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its slot, which is its name too.
    pub slot: Slot,
    /// Where.
    pub region: String,
    /// What it is to run.
    pub release: String,
    /// Start it; otherwise it is made and stays stopped.
    pub launch: bool,
}

/// The right to change a machine, for a time: others that ask for it meanwhile are told [`PoolError::Held`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Known to the pool and to the holder alone.
    pub nonce: String,
    /// Until when, unless it is renewed.
    pub until: Timestamp,
}

/// Why a pool did not do what it was asked; each says what comes next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A machine of that slot is there: list, and take that one.
    #[error("there is a machine of that name")]
    SlotTaken,
    /// The region has none left: try another.
    #[error("region {region} has no capacity")]
    NoCapacity {
        /// Which.
        region: String,
    },
    /// The host of this machine has no room to start it: try another machine.
    #[error("the host of the machine has no room")]
    HostFull,
    /// It may have happened or not: list before anything else.
    #[error("nobody knows whether it happened: {0}")]
    Ambiguous(String),
    /// Too many calls: come back later.
    #[error("the pool asks for fewer calls")]
    RateLimited,
    /// Somebody else changes that machine: leave it to them until they are done.
    #[error("another holds the machine until {until}")]
    Held {
        /// Until when, as far as the pool says.
        until: Timestamp,
    },
    /// It cannot be done to a machine in its state: list, and decide anew.
    #[error("the machine's state does not allow it: {0}")]
    WrongState(String),
    /// There is no such machine any more.
    #[error("there is no such machine")]
    Gone,
    /// It will be refused again: the operator acts.
    #[error("refused: {0}")]
    Refused(String),
    /// The pool does not answer, or not with sense: come back later.
    #[error("the pool is not available: {0}")]
    Unavailable(String),
}

/// Whatever gives machines.
pub trait MachinePool: Send {
    /// Every machine of this cluster that is not yet gone. All of them or an error: what is missing in the list would
    /// be made once more.
    ///
    /// # Errors
    /// See [`PoolError`].
    fn list(&mut self, now: Timestamp) -> Result<Vec<Machine>, PoolError>;

    /// How many more machines of `group` the pool has in each region of it, where it can say so; a region that is not
    /// named may have any number.
    ///
    /// # Errors
    /// See [`PoolError`].
    fn room(&mut self, group: &GroupSpec, now: Timestamp) -> Result<Vec<(String, u32)>, PoolError>;

    /// Makes a machine.
    ///
    /// # Errors
    /// See [`PoolError`].
    fn create(&mut self, order: &Order, now: Timestamp) -> Result<MachineId, PoolError>;

    /// Takes the right to change a machine for `ttl`, or renews `held`.
    ///
    /// # Errors
    /// See [`PoolError`].
    fn hold(
        &mut self,
        machine: &MachineId,
        held: Option<&Hold>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Hold, PoolError>;

    /// Gives the right back. One that is no longer held is no error.
    ///
    /// # Errors
    /// See [`PoolError`].
    fn release(&mut self, machine: &MachineId, hold: &Hold, now: Timestamp) -> Result<(), PoolError>;

    /// Changes a machine, under a hold on it. What is so already is no error.
    ///
    /// # Errors
    /// See [`PoolError`].
    fn change(
        &mut self,
        machine: &MachineId,
        change: Change,
        hold: &Hold,
        now: Timestamp,
    ) -> Result<(), PoolError>;
}

/// What can be done to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Start one that is stopped, suspended or failed.
    Start,
    /// Send it no new callers.
    Cordon,
    /// Send it callers again.
    Uncordon,
    /// Ask it to end, and end it when it has not within its group's drain.
    Stop,
    /// Take a machine that does not run away for good. One that runs is [`PoolError::WrongState`].
    Destroy,
}

impl Change {
    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Stop => "stop",
            Self::Destroy => "destroy",
        }
    }
}
