//! What counters did of late: a counter since the start of a node tells nothing of the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Readings are kept this finely over a window, however often they are taken.
const SLICES: u32 = 512;

/// Readings of counters over a span of time.
#[derive(Debug)]
pub struct Window<T> {
    span: Duration,
    readings: VecDeque<(Instant, T)>,
}

impl<T> Window<T> {
    /// Over the last `span`, or as much of it as there was.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self { span, readings: VecDeque::new() }
    }

    /// Takes a reading and returns the one to compare it with: the newest that is a whole span older, else the oldest.
    /// `None`: it is the first.
    pub fn turn(&mut self, now: Instant, reading: T) -> Option<&T> {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= self.span;
        while self.readings.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.readings.pop_front();
        }
        let is_first = self.readings.is_empty();
        let newest = self.readings.back().map(|(at, _)| now.saturating_duration_since(*at));
        if newest.is_none_or(|age| age >= self.span / SLICES) {
            self.readings.push_back((now, reading));
        }
        self.readings.front().filter(|_| !is_first).map(|(_, first)| first)
    }
}

/// The value below which `share` of what a histogram counted lies, evenly spread within a bucket. `counts` are
/// cumulative and have one entry more than `bounds`: all. Beyond the last bound nothing is known but that: the bound is
/// returned. `None`: nothing was counted.
#[must_use]
pub fn quantile(bounds: &[f64], counts: &[u64], share: f64) -> Option<f64> {
    let all = *counts.last()?;
    if all == 0 {
        return None;
    }
    let rank = share * all as f64;
    let at = counts.iter().position(|&count| count as f64 >= rank)?;
    let Some(&bound) = bounds.get(at) else { return bounds.last().copied() };
    let (below, lower) = match at.checked_sub(1) {
        Some(before) => (counts[before], bounds[before]),
        None => (0, 0.0),
    };
    let within = (counts[at] - below) as f64;
    let part = if within > 0.0 { (rank - below as f64) / within } else { 1.0 };
    Some(lower + (bound - lower) * part)
}

/// A share of fewer answers means nothing.
pub const ANSWERS_MIN: u64 = 20;

/// Share of answers that failed; `None`: there were too few to say.
#[must_use]
pub fn error_share(failed: u64, answered: u64) -> Option<f64> {
    (answered >= ANSWERS_MIN).then(|| failed as f64 / answered as f64)
}

/// Who was there and is gone.
#[derive(Debug, Default)]
pub struct Roll {
    members: BTreeMap<String, Instant>,
}

/// Members that are remembered.
const MEMBERS_MAX: usize = 1024;

impl Roll {
    /// Notes who is there, by name. Returns every member that should be there and whether it is lost: gone, without
    /// having said goodbye, for less than `forget_after`.
    pub fn call<'a>(
        &mut self,
        there: impl IntoIterator<Item = &'a str>,
        said_goodbye: impl Fn(&str) -> bool,
        now: Instant,
        forget_after: Duration,
    ) -> Vec<(String, bool)> {
        for name in there {
            if self.members.len() < MEMBERS_MAX || self.members.contains_key(name) {
                self.members.insert(name.to_owned(), now);
            }
        }
        self.members.retain(|name, seen| {
            let silent = now.saturating_duration_since(*seen);
            silent.is_zero() || (silent < forget_after && !said_goodbye(name))
        });
        self.members.iter().map(|(name, seen)| (name.clone(), *seen != now)).collect()
    }
}
