//! What counters did of late: a counter since the start of a node tells nothing of the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Readings kept of one counter; beyond that the window is shorter than asked for.
const READINGS_MAX: usize = 1024;

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
        while self.readings.len() == READINGS_MAX || self.readings.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.readings.pop_front();
        }
        self.readings.push_back((now, reading));
        let (_, first) = self.readings.front()?;
        (self.readings.len() > 1).then_some(first)
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

/// Who was there and is gone.
#[derive(Debug, Default)]
pub struct Roll {
    members: BTreeMap<String, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    is_leaving: bool,
}

/// Members that are remembered.
const MEMBERS_MAX: usize = 1024;

impl Roll {
    /// Notes who is there, by name and whether it said that it leaves. Returns every member that should be there and
    /// whether it is lost: gone, without having said so, for less than `forget_after`.
    pub fn call<'a>(
        &mut self,
        there: impl IntoIterator<Item = (&'a str, bool)>,
        now: Instant,
        forget_after: Duration,
    ) -> Vec<(String, bool)> {
        for (name, is_leaving) in there {
            if self.members.len() < MEMBERS_MAX || self.members.contains_key(name) {
                self.members.insert(name.to_owned(), Seen { at: now, is_leaving });
            }
        }
        self.members.retain(|_, seen| {
            let silent = now.saturating_duration_since(seen.at);
            silent.is_zero() || (!seen.is_leaving && silent < forget_after)
        });
        self.members.iter().map(|(name, seen)| (name.clone(), seen.at != now)).collect()
    }
}
