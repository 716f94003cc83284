//! A node at one glance: what it is, what it does now, and what it did of late.
//!
//! Pure: counters of two moments go in, rates and percentiles come out. Knows no socket, no clock and no actor; who
//! reads counters, who asks and who draws (`peregrine top`) meet at these types. What is not known is `None`, never 0.

mod fit;
mod history;
mod sampler;
mod types;

pub(crate) use fit::{BYTES_MAX, clip, fit};
pub(crate) use history::History;
pub(crate) use sampler::{Counters, Sampler};
pub(crate) use types::{
    Actor, Cluster, Device, LastFailure, Machine, Model, Node, Overview, Requests, Scaler, ScalerGroup,
    Streams,
};
