//! Load for a server of forecasts, and figures of what it did under it.
//!
//! Few cycles: each thread has one epoll, bodies are built beforehand, and only a sample of the answers is read in full.
//! The generator shares its machine with what it measures more often than not, so what it spends is part of its report.
//!
//! Closed loop: each connection asks again when its answer is complete. Open loop: requests fall due at seeded random
//! moments whether or not earlier ones were answered, and latency counts from the due moment, so that a server that
//! stalls cannot hide the requests that would have come (no coordinated omission).
//!
//! Pure: [`ramp`], [`schedule`], [`recorder`], [`stable`], [`compare`], [`trend`], [`shape`], [`request`], [`answer`],
//! [`split`], and the wire formats [`http`] and [`websocket`]. The shell is [`session`] with what it stands on.

pub mod answer;
pub mod breakdown;
pub mod compare;
mod connection;
pub mod control;
mod drive;
pub mod error;
pub mod http;
mod poll;
pub mod ramp;
pub mod recorder;
pub mod request;
pub mod schedule;
pub mod session;
pub mod shape;
pub mod split;
pub mod stable;
mod stream;
pub mod target;
pub mod trend;
pub mod websocket;

pub use error::LoadError;
