//! What the checks of all sections are made of: a value that is there, within its bounds, or a mistake at its origin.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::layers::{Leaves, origin_of, path_of};
use super::units::WrittenDuration;
use super::{Mistake, Origin};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Checks written values one by one and collects what is wrong with them.
pub(super) struct Checker<'a> {
    pub(super) leaves: &'a mut Leaves,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

impl Checker<'_> {
    pub(super) fn present<T>(&mut self, key: &str, written: Option<T>) -> Option<T> {
        let refused = self.mistakes.iter().any(|mistake| mistake.key == key);
        if written.is_none() && !refused {
            self.mistake(key, "is missing".to_owned());
        }
        written
    }

    pub(super) fn require<T>(
        &mut self,
        checked: Option<T>,
        key: &str,
        message: impl FnOnce() -> String,
    ) -> Option<T> {
        if checked.is_none() {
            self.mistake(key, message());
        }
        checked
    }

    pub(super) fn mistake(&mut self, key: &str, message: String) {
        let origin = self.origin(key);
        self.mistakes.push(Mistake { origin, key: key.to_owned(), message });
    }

    pub(super) fn origin(&self, key: &str) -> Origin {
        origin_of(self.leaves, key)
    }

    pub(super) fn replace(&mut self, key: &str, value: Value, origin: Option<Origin>) {
        if let Some(leaf) = self.leaves.get_mut(&path_of(key)) {
            leaf.value = value;
            leaf.origin = origin.unwrap_or_else(|| leaf.origin.clone());
        }
    }

    /// What the platform says, where the built-in configuration is all that says otherwise.
    pub(super) fn told_by(
        &mut self,
        variable: &str,
        key: &str,
        written: Option<String>,
        environment: &[(String, String)],
    ) -> Option<String> {
        let said = environment.iter().find(|(name, text)| name == variable && !text.is_empty());
        match said {
            Some((_, text)) if matches!(self.origin(key), Origin::BuiltIn { .. }) => {
                self.replace(key, Value::String(text.clone()), Some(Origin::Variable(variable.to_owned())));
                Some(text.clone())
            }
            _ => written,
        }
    }

    pub(super) fn within(
        &mut self,
        key: &str,
        written: Option<usize>,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        let number = self.present(key, written)?;
        self.require(range.contains(&number).then_some(number), key, || {
            format!("{number} is not within {} and {}", range.start(), range.end())
        })
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        written: Option<f64>,
        fits: impl FnOnce(f64) -> bool,
        range: &str,
    ) -> Option<f64> {
        let number = self.present(key, written)?;
        self.require(fits(number).then_some(number), key, || format!("{number} is not {range}"))
    }

    pub(super) fn share(&mut self, key: &str, written: Option<f64>) -> Option<f64> {
        self.number(key, written, |share| share > 0.0 && share <= 1.0, "above 0 and at most 1")
    }

    pub(super) fn time(
        &mut self,
        key: &str,
        written: Option<WrittenDuration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let WrittenDuration(time) = self.present(key, written)?;
        self.require(range.contains(&time).then_some(time), key, || {
            format!("{time:?} is not within {:?} and {:?}", range.start(), range.end())
        })
    }

    /// 0 stands for the cores of this machine; the resolved form shows their number.
    pub(super) fn cores(&mut self, key: &str, written: Option<usize>) -> Option<usize> {
        let number = self.within(key, written, 0..=1024)?;
        if number > 0 {
            return Some(number);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.replace(key, Value::Integer(i64::try_from(cores).unwrap_or(i64::MAX)), None);
        Some(cores)
    }

    pub(super) fn socket(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        self.require(text.parse().ok(), key, || {
            format!("`{text}` is not an address and port such as 127.0.0.1:8080 or [::]:8080")
        })
    }

    /// What a constructor made of a name, or its own words.
    pub(super) fn named<T, E: Display>(&mut self, made: Result<T, E>, key: &str) -> Option<T> {
        made.map_err(|error| self.mistake(key, error.to_string())).ok()
    }
}
