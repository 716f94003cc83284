//! Many nodes as one: who is there, and how a message reaches an actor on another node.
//!
//! Shells: `handle` is what the program holds, `membership` the gossip, `conn`, `accept` and `reader` the links.
//! Decisions, each pure: the public modules.

mod accept;
mod body;
mod conn;
pub mod drain;
mod duties;
mod exports;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod greeting;
pub mod group;
mod handle;
pub mod lease;
mod link;
mod member;
mod membership;
mod net;
mod order;
mod outbox;
mod pending;
mod reader;
pub mod receptionist;
pub mod relay;
mod remote;
pub mod rendezvous;
mod rtt;
pub mod shard;
#[cfg(test)]
mod sim;
pub mod singleton;
mod spare;
mod stats;
mod talk;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod topics;
pub mod watchdog;

pub use exports::ExportError;
pub use handle::{Cluster, ClusterConfig, JoinError};
pub use member::{Incarnation, Member, NAME_BYTES_MAX, NameError, NodeId, Region, Standing, View};
pub use membership::{Detector, Discovery};
pub use net::Limits;
pub use rtt::{RttClass, RttTable};
pub use stats::ClusterStats;

pub(crate) use member::Fnv;
