//! A log of what a scaler saw, decided and did, from which the same decisions come again.
//!
//! It is text, a fact a line, its words parted by blanks; numbers are written so that the very same are read. A round
//! begins with `round` and is over when the next one begins:
//!
//! ```text
//! round TIME SPENT REMAINING-NS
//! list POOL ok | list POOL ERROR
//! machine POOL ID GROUP NUMBER REGION STATE CORDONED RELEASE CREATED
//! report MACHINE TIME READY DRAINING SIGNAL=VALUE…
//! view GROUP RELEASE OPEN OPENS-IN-NS DEMAND COST
//! origin GROUP REGION RATE
//! room GROUP REGION MACHINES
//! trip REGION REGION NS
//! decided GROUP FROM TO
//! done ACTION CHANCE ok | done ACTION CHANCE ERROR
//! ```
//!
//! What is not known is `-`. A log is read by the fleet's specification that it was written under, from its beginning:
//! cooldowns and measured times are not in it, but come again.

mod read;
mod write;

use jiff::Timestamp;

pub use read::replay;
pub use write::Recorder;

use crate::control::Decision;

/// Longest log.
const LOG_LEN_MAX: usize = 1 << 30;
/// Longest line.
const LINE_LEN_MAX: usize = 4096;
/// Facts of one round at most.
const ROUND_LINES_MAX: usize = 100_000;

/// A log that cannot be read, or is of another scaler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// More than anybody reads: whoever keeps logs cuts them sooner.
    #[error("has more than {max} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// At most.
        max: usize,
    },
    /// A line that no log has: it is damaged, or of another version.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It tells what became of an action that is not taken now: it is of another specification, or another version
    /// decides otherwise.
    #[error("round of {at}: action {action} was done, which is not decided now")]
    Diverged {
        /// Which round.
        at: Timestamp,
        /// Counted from 0.
        action: usize,
    },
}

/// What came of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Rounds of it.
    pub rounds: usize,
    /// Every decision of every round, as it comes now.
    pub decisions: Vec<Decision>,
    /// Those that are others than the log tells.
    pub differing: Vec<Differing>,
}

/// A decision that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// When.
    pub at: Timestamp,
    /// Of which group.
    pub group: String,
    /// From and to how many machines, as the log tells; `None`: it tells of no decision.
    pub logged: Option<(u32, u32)>,
    /// …and as it comes now.
    pub now: Option<(u32, u32)>,
}
