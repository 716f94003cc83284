//! Series: the rolling windows of observations, and what their ticks do to them.

mod copies;
mod counters;
mod history;
mod journal;
mod pattern;
mod predictor;
mod recovery;
mod replay;
mod room;
mod shard;
#[cfg(test)]
mod tests;
mod tick;
mod wants;
mod window;

pub use copies::{Alone, Copies, CopyError, Standby};
pub use counters::SeriesStats;
pub use history::{COLUMNS_MAX, FUTURE_MAX, History, Unknown};
pub use journal::{Journal, JournalEntry, JournalError};
pub use pattern::{Pattern, PatternError};
pub use room::{FeedError, Outlet, Series, SeriesParts, SeriesSettings};
pub use shard::{Holder, LogEnd, SeriesLog, Shard, ShardLimits, Taken};
pub use tick::{
    Effect, NAME_BYTES_MAX, Observation, SeriesName, SeriesNameError, Tick, TickError, Timestamp,
};
pub use wants::{Want, Wants};
pub use window::Unready;
