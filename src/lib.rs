//! The shell: command line, configuration, node and gateway. Decides nothing about batching, breaking or numbers.
//!
//! A library so that `tests/` and `benches/` boot the very node that the binary boots.

mod alerts;
pub mod audit;
pub mod backends;
mod busy;
pub mod catalog;
mod certificates;
pub mod cli;
mod client;
mod cluster;
pub mod config;
mod dashboard;
pub mod demo;
mod embedded;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gateway;
pub mod journal;
mod kernel_folder;
mod levels;
mod long_table;
mod memory;
pub mod models;
mod moment;
pub mod node;
mod nvml;
mod open_files;
mod outbound;
mod overview;
mod releases;
pub mod reload;
mod rhythm;
pub mod scaler;
pub mod score;
pub mod sealed;
mod security;
mod series;
pub mod series_store;
mod settings;
mod surroundings;
mod telemetry;
#[cfg(any(test, feature = "fuzzing"))]
mod testing;
mod top;
mod unpacked;
