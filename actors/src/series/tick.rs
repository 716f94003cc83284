//! A tick, the name of its series, its time, and what it did.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::trace::Trace;

/// Longest name of a series, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Name of a series, e.g. `AAPL` or `crypto/BTC-USD`: 1 to [`NAME_BYTES_MAX`] bytes without control characters and
/// without `*`, which stands for many in a [`Pattern`](super::Pattern). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesName(Arc<str>);

/// A name that no series can have; the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a series has 1 to {NAME_BYTES_MAX} bytes, no control characters and no `*`")]
pub struct SeriesNameError;

impl SeriesName {
    /// # Errors
    /// Unless it is a name.
    pub fn new(name: &str) -> Result<Self, SeriesNameError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
        if fits && !name.chars().any(|c| c.is_control() || c == '*') {
            Ok(Self(name.into()))
        } else {
            Err(SeriesNameError)
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl std::fmt::Display for SeriesName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for SeriesName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Nanoseconds since 1970-01-01T00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl From<SystemTime> for Timestamp {
    /// The time of day; what does not fit is cut off.
    fn from(wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// One observation of one series, as it comes in.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Of which series.
    pub series: SeriesName,
    /// Of which moment; a series has one observation for each.
    pub at: Timestamp,
    /// What was seen; `None`: nothing, which a mask then says.
    pub value: Option<f32>,
    /// Further columns of that moment, by name.
    pub hist_exog: Vec<(String, f32)>,
    /// Columns whose future is known, by name: the value of that moment, then those of the steps after it.
    pub futr_exog: Vec<(String, Vec<f32>)>,
    /// What does not change with time, by name.
    pub stat_exog: Vec<(String, f32)>,
    /// What it is part of, if that is recorded; not kept with it.
    pub trace: Trace,
}

/// What a tick did. Every effect is an answer; a tick that has one may be sent again without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is the newest of its series, which now has this sequence number.
    Advanced {
        /// Rises by one with each tick that changes the window.
        seq: u64,
    },
    /// It came late and stands in its place in the window, which so has another sequence number.
    Inserted {
        /// As above.
        seq: u64,
    },
    /// The window has exactly this already; nothing changed.
    Duplicate {
        /// Of the series now.
        seq: u64,
    },
    /// The window has something else for that moment; what came first stays.
    Conflict {
        /// Of the series now.
        seq: u64,
    },
    /// It is older than all that the window holds; nothing changed.
    TooLate {
        /// Of the series now.
        seq: u64,
    },
}

impl Effect {
    /// As users read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Advanced { .. } => "advanced",
            Self::Inserted { .. } => "inserted",
            Self::Duplicate { .. } => "duplicate",
            Self::Conflict { .. } => "conflict",
            Self::TooLate { .. } => "too_late",
        }
    }

    /// Sequence number of the series afterwards.
    #[must_use]
    pub fn seq(self) -> u64 {
        match self {
            Self::Advanced { seq }
            | Self::Inserted { seq }
            | Self::Duplicate { seq }
            | Self::Conflict { seq }
            | Self::TooLate { seq } => seq,
        }
    }
}

/// A tick was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TickError {
    /// It cannot be part of its series; the caller acts.
    #[error("{0}")]
    Invalid(String),
    /// Come back later: nothing is broken.
    #[error("overloaded, retry in {retry_after_ms} ms")]
    Overloaded {
        /// A guess at when there will be room.
        retry_after_ms: u32,
    },
    /// Its shard has no room for another series; the operator acts, and until then it is refused again.
    #[error(
        "its shard has {series_max} series, the most that `series.per_shard_max` allows: the operator raises it"
    )]
    Full {
        /// Series that one shard may have.
        series_max: usize,
    },
    /// Too few nodes are there for any of them to own the series, as said; the operator acts. It may be there from before
    /// all the same: send it again, some time later.
    #[error("no quorum: {0}")]
    NoQuorum(String),
    /// Who owns the series has not answered, and may have it all the same: send it again.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// When to come back to a cluster that lacks nodes.
const NO_QUORUM_RETRY_MS: u32 = 1_000;

impl TickError {
    /// As users read it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
            Self::Full { .. } => "full",
            Self::NoQuorum(_) => "no_quorum",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// When to send it again, where that is known.
    #[must_use]
    pub const fn retry_after_ms(&self) -> Option<u32> {
        match self {
            Self::Overloaded { retry_after_ms } => Some(*retry_after_ms),
            Self::NoQuorum(_) => Some(NO_QUORUM_RETRY_MS),
            Self::Invalid(_) | Self::Full { .. } | Self::Unavailable(_) => None,
        }
    }
}
