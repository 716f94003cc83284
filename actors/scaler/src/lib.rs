//! The scaler's decisions: how many machines there should be, of which kind and where, and in which order to get there.
//!
//! Pure: clock readings, signals and lists of machines come in, decisions and actions go out. It knows no actor, no
//! forecaster, no HTTP and no platform, so that a simulated week runs through the very code that runs a fleet.
//!
//! ```text
//! signals -> rules (rule) \
//! calendar ---------------> desired fleet (plan) -> actions (reconcile) -> machine pool (pool)
//! past demand (demand) ---/
//! ```

pub mod budget;
pub mod calendar;
pub mod carry;
pub mod control;
pub mod cost;
pub mod demand;
pub mod fleet;
pub mod place;
pub mod pool;
pub mod reconcile;
pub mod report;
pub mod rule;
pub mod signal;
pub mod simulate;

pub use jiff::Timestamp;
