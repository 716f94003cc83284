//! `[deadline]`, as used.

use std::time::Duration;

use super::checker::{Checker, DAY, SECOND};
use super::file::DeadlineFile;

/// How long a request may take.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadlineConfig {
    /// For requests that state none.
    pub default: Duration,
    /// The longest a request may ask for.
    pub max: Duration,
}

impl Checker<'_> {
    pub(super) fn deadline(&mut self, written: &DeadlineFile) -> Option<DeadlineConfig> {
        let default = self.time("deadline.default", written.default, SECOND / 1000..=DAY);
        let max = self.time("deadline.max", written.max, SECOND / 1000..=DAY);
        if let (Some(default), Some(max)) = (default, max)
            && default > max
        {
            self.mistake("deadline.default", format!("{default:?} is more than max = {max:?}"));
        }
        Some(DeadlineConfig { default: default?, max: max? })
    }
}
