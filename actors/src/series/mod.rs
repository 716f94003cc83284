//! Series: the rolling windows of observations, and what their ticks do to them.

mod journal;
mod pattern;
mod tick;

pub use journal::{Journal, JournalEntry, JournalError};
pub use pattern::{Pattern, PatternError};
pub use tick::{
    Effect, NAME_BYTES_MAX, Observation, SeriesName, SeriesNameError, Tick, TickError, Timestamp,
};
