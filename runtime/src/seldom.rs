//! What may happen at any rate, since others cause it, and is logged once in a while.

use std::time::{Duration, Instant};

/// Between two that are said.
const EVERY: Duration = Duration::from_secs(60);

/// Decides which of many like events is said.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// It happened: `Some` if it is to be said, with how often it happened unsaid before.
    pub(crate) fn happened(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_next_a_minute_later() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let said: Vec<Option<u64>> =
            [0, 1, 59, 60, 61, 200].map(|s| seldom.happened(start + Duration::from_secs(s))).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
