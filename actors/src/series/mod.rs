//! Series: the rolling windows of observations, and what their ticks do to them.

mod history;
mod journal;
mod pattern;
#[cfg(test)]
mod tests;
mod tick;
mod window;

pub use history::{COLUMNS_MAX, FUTURE_MAX, History, Unknown};
pub use journal::{Journal, JournalEntry, JournalError};
pub use pattern::{Pattern, PatternError};
pub use tick::{
    Effect, NAME_BYTES_MAX, Observation, SeriesName, SeriesNameError, Tick, TickError, Timestamp,
};
pub use window::Unready;
