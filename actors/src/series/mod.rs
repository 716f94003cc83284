//! Series: the rolling windows of observations, and what their ticks do to them.

mod copies;
mod counters;
mod desk;
mod follow;
mod history;
mod journal;
mod listing;
mod parts;
mod pattern;
mod place;
mod predict;
mod predictor;
mod recovery;
mod replay;
mod room;
mod safe;
mod shard;
#[cfg(test)]
mod tests;
mod tick;
mod wants;
mod window;

pub use copies::{Alone, Copies, CopyError, Standby};
pub use counters::SeriesStats;
pub use history::{COLUMNS_MAX, FUTURE_MAX, History, Unknown};
pub use journal::{Journal, JournalEntry, JournalError, Scatter};
pub use listing::{Listing, SeriesEntry, page};
pub use parts::{Outlet, SeriesParts, SeriesSettings};
pub use pattern::{Pattern, PatternError};
pub use room::{FeedError, Series};
pub use shard::{Holder, LogEnd, SeriesLog, Shard, ShardLimits, Taken};
pub use tick::{Effect, NAME_BYTES_MAX, SeriesName, SeriesNameError, Tick, TickError, Timestamp};
pub use wants::{Want, Wants};
pub use window::Unready;
