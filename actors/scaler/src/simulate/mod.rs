//! A fleet under a trace of demand, in virtual time: what a policy would have cost, and what it would have missed.
//!
//! The controller, the placement, the reconciler and the pool are those that run a fleet; only the machines, their
//! nodes and whoever asks are made up (`world`). Policies differ in nothing but the number of machines that they
//! want. A run is decided by its trace, its settings and its seed.

mod foresight;
mod log;
pub mod policy;
mod run;
#[cfg(test)]
mod tests;
mod trace;
mod week;
mod world;

pub use foresight::{Forecast, Foresight};
pub use log::{Differing, LogError, Recorder, Replay, replay};
pub use run::{Contender, Outcome, Scenario, ScenarioError, Table, run, run_recorded};
pub use trace::{Trace, TraceError};
pub use week::Week;
pub use world::{Load, NodeModel};
