//! Decides which readings of a node are an alert, when it has ended, and what is still to be told to whom.
//!
//! Knows no clock, socket or text format; what is measured and who is told is the shell's.

mod alert;
mod engine;
mod outbox;
mod rule;
#[cfg(test)]
mod tests;
mod window;

pub use alert::{Alert, AlertState, Event, Happening, Labels, Moment, Reading, Sample};
pub use engine::{ACTIVE_MAX, Engine, HISTORY_MAX};
pub use outbox::{DeliveryCounts, DeliveryLimits, Failure, Outbox, Step};
pub use rule::{Comparison, Missing, Rule, Severity, Signal};
pub use window::{ANSWERS_MIN, Roll, Window, error_share, quantile};
