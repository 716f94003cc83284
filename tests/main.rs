//! One integration binary: real nodes, driven from outside.

mod architecture;
mod failover;
mod harness;
mod hostile;
mod reload;
mod request_path;
mod score;
