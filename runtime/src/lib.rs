//! Actors under supervision: bounded mailboxes, deadlines, restarts.
//!
//! Knows nothing of forecasts, HTTP, devices or the place it runs in. Two kinds of actors live in one tree:
//! actix actors share one arbiter thread, workers own a plain thread each.
//!
//! What holds:
//! - every mailbox is bounded, and a full one refuses;
//! - an ask always ends: with the answer, a refusal, a failure or its deadline;
//! - messages of one sender reach one mailbox in the order they were sent, each at most once;
//! - a mailbox outlives the incarnations of its actor: what is queued survives a restart, what was being
//!   handled fails at once with [`AskError::Failed`].

mod actor;
mod address;
mod alarm;
mod clock;
mod cluster;
mod deadline;
mod fabric;
mod mailbox;
mod reply;
mod seldom;
mod supervision;
mod trace;
mod wire;

pub use actor::{Failure, Worker};
pub use address::{Address, AskError, Refusal, TellError};
pub use clock::{Clock, ManualClock, SystemClock};
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use cluster::fuzzing;
pub use cluster::{
    Cluster, ClusterConfig, ClusterStats, Detector, Discovery, ExportError, Incarnation, JoinError, Limits,
    Member, NAME_BYTES_MAX, NameError, NodeId, Region, RttClass, RttTable, Standing, View, drain, group,
    lease, receptionist, relay, rendezvous, shard, singleton, topics, watchdog,
};
pub use deadline::Deadline;
pub use fabric::{
    BindError, CertificateNameError, ConnectError, Credentials, CredentialsError, DatagramError, Fabric,
    Lane, LaneReader, LaneWrite, LaneWriter, Link, QuicFabric, QuicOptions, SECRET_BYTES_MIN, SimFabric,
    SimNetwork, SimOptions, SimPath, Wire,
};
pub use mailbox::{DeadLetters, Envelope, Inbox, Mail, Mailbox, Received};
pub use reply::{Reply, ReplySlot, reply_slot};
pub use supervision::{
    ActorFailure, ActorKind, ActorState, ActorStatus, Backoff, Budget, ChildSpec, Children, Escalate,
    LastFailure, Outcome, StartError, StopReport, Strategy, Tree, TreeView,
};
pub use trace::{SpanId, TRACEPARENT_BYTES, TraceContext, TraceId, TraceState};
pub use wire::{CodecError, RemoteMessage, TypeId};
/// For [`remote_message!`]: the codec under names that do not tell which it is.
pub use wire::{read_bounded as codec_read, write as codec_write};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
