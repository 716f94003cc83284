//! Decisions, and how they explain themselves.

use std::fmt;

use jiff::Timestamp;

use crate::pool::PoolError;
use crate::rule::{Direction, Finding};

/// Why a group's number changed, or that it did not.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// The group.
    pub group: String,
    /// Machines that were wanted.
    pub from: u32,
    /// Machines that are wanted.
    pub to: u32,
    /// What decided.
    pub cause: Cause,
    /// Every arm of every rule.
    pub findings: Vec<Finding>,
    /// What was known.
    pub facts: Vec<(&'static str, String)>,
    /// Of those that are wanted, the ones that no region has room for, and the ones that cannot be paid.
    pub short: (u32, u32),
}

/// What decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Nothing calls for a change.
    Steady,
    /// A rule.
    Rule(String, Direction),
    /// The demand that is forecast, or measured where that is more.
    Demand {
        /// Requests per second.
        rate: f64,
    },
    /// Fewer would do, but not yet for long enough.
    Stabilising,
    /// What was measured is not all there: nothing goes.
    Blind,
    /// The pool does not list its machines: nothing is done.
    PoolSilent(PoolError),
    /// The group's own bounds.
    Bounds,
    /// Another policy than rules and demand.
    Policy(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady => write!(f, "nothing calls for a change"),
            Self::Rule(rule, direction) => write!(f, "rule `{rule}` ({})", direction.name()),
            Self::Demand { rate } => write!(f, "a demand of {rate:.1} requests/s"),
            Self::Stabilising => write!(f, "fewer would do, but not yet for long enough"),
            Self::Blind => {
                write!(f, "nodes are silent, so nothing is taken away, and nothing done while all are")
            }
            Self::PoolSilent(error) => write!(f, "its machines are not known, so nothing is done: {error}"),
            Self::Bounds => write!(f, "its bounds"),
            Self::Policy(name) => write!(f, "policy `{name}`"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to.cmp(&self.from) {
            std::cmp::Ordering::Equal => write!(f, "{}: {} machines: {}", self.group, self.to, self.cause)?,
            _ => write!(f, "{}: {} -> {} machines: {}", self.group, self.from, self.to, self.cause)?,
        }
        if self.short.0 > 0 {
            write!(f, "; no region has room for {} of them", self.short.0)?;
        }
        if self.short.1 > 0 {
            write!(f, "; {} of them cannot be paid", self.short.1)?;
        }
        Ok(())
    }
}
