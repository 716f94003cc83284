//! An alert as a plain value, and what is said of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::rule::{Rule, Signal};

/// Which of several devices, circuits or nodes; empty where there is one of a kind.
pub type Labels = BTreeMap<&'static str, String>;

/// One value of one signal. A value that is not a number is one that could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Of what.
    pub signal: Signal,
    /// Of which one.
    pub labels: Labels,
    /// In the signal's unit.
    pub value: f64,
}

/// What was measured at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The values.
    pub readings: Vec<Reading>,
    /// Signals that this node is meant to measure, whether or not there are readings of them.
    pub expected: Vec<Signal>,
}

/// One moment by both clocks: the first for arithmetic, the second for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic.
    pub now: Instant,
    /// Of day.
    pub wall: SystemTime,
}

/// Where an alert is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    /// Bad, but not for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It has fired and ended.
    Resolved,
}

impl AlertState {
    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// One alert as it is now, or was when it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// As it was when last looked at.
    pub rule: Arc<Rule>,
    /// Of which one.
    pub labels: Labels,
    /// Where in its life.
    pub state: AlertState,
    /// The latest reading; `None`: it is missing.
    pub value: Option<f64>,
    /// Since when it is bad.
    pub bad_since: SystemTime,
    /// Since when it fires.
    pub fired_at: Option<SystemTime>,
    /// When it ended.
    pub resolved_at: Option<SystemTime>,
}

impl Alert {
    /// The same for every alert of this rule and these labels, also on another day: receivers know it again by this.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let labels = self.labels.iter().flat_map(|(name, value)| [*name, value.as_str()]);
        // FNV-1a, with a byte between texts that no text holds.
        std::iter::once(self.rule.name.as_str()).chain(labels).fold(0xcbf2_9ce4_8422_2325, |hash, text| {
            text.bytes()
                .chain([0xff])
                .fold(hash, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
        })
    }
}

/// What has happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It fires now.
    Fired,
    /// It fires still.
    Repeated,
    /// It has ended.
    Resolved,
}

/// Something that people may want to be told, each once.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What.
    pub what: Happening,
    /// To which alert; as it is after that.
    pub alert: Alert,
    /// When.
    pub at: SystemTime,
}
