//! Fly's Machines API: typed calls, and the pool of machines that the scaler has there.
//!
//! ```text
//! pool (MachinePool) -> client (typed calls) -> transport (bytes over HTTP)
//!   |                     wire, config, error
//!  rate (stays below the platform's limits)
//! ```
//! Calls block: whoever makes them does it on a thread that may wait. Source: `superfly/fly-go`, `superfly/flyctl` and
//! Fly's documentation as of 2026-08; where those contradict each other both forms are taken, see [`lenient`].

pub mod client;
pub mod config;
pub mod error;
pub mod lenient;
pub mod pool;
pub mod rate;
pub mod transport;
pub mod wire;

pub use client::{AppName, Client, Token};
pub use config::{ConfigError, Guest, MachineConfig};
pub use error::ApiError;
pub use pool::{FlyPool, PoolSpec, Template};
pub use transport::{BaseUrl, HttpRequest, HttpResponse, Method, Transport, TransportError, UreqTransport};
