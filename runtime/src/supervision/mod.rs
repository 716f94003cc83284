//! Who starts whom, in which order, and what happens when one of them fails.
//!
//! `spec` is what the owner writes, `policy` decides, `keeper` acts, `tree` is the handle.

mod keeper;
mod policy;
mod spec;
mod status;
#[cfg(test)]
mod tests;
mod tree;

pub use policy::{Backoff, Budget, Escalate, Strategy};
pub use spec::{ChildSpec, Children};
pub use status::{ActorFailure, ActorKind, ActorState, ActorStatus, LastFailure, Outcome, StopReport};
pub use tree::{StartError, Tree, TreeView};
