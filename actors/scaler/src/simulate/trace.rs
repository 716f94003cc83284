//! A trace of demand: who asks how much, from where and when, and what goes wrong meanwhile.
//!
//! As text it is lines of three columns, in the order of time. A number is requests per second from a region, until the
//! next line of that region. Four words tell disturbances: `silent` and `heard` (no node's report arrives until it is
//! heard again; its region is `*`), `full` and `roomy` (the region has no machine to give).
//!
//! ```text
//! time,region,requests_per_second
//! 2026-03-09T13:30:00Z,iad,118.2
//! 2026-03-09T16:00:00Z,*,silent
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::signal::age;

const TEXT_LEN_MAX: usize = 64 << 20;
const LINES_MAX: usize = 2_000_000;
const REGIONS_MAX: usize = 64;
const REGION_LEN_MAX: usize = 32;
const RATE_MAX: f64 = 1e9;
const SPAN_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
const HEADER: &str = "time,region,requests_per_second";

/// From an instant to another; the end is not in it.
pub(super) type Span = (Timestamp, Timestamp);

/// Who asks, and what goes wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// By region, sorted by time: requests per second from then on.
    rates: BTreeMap<String, Vec<(Timestamp, f64)>>,
    silent: Vec<Span>,
    full: BTreeMap<String, Vec<Span>>,
}

/// A trace that cannot be used. Whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// More than anybody replays.
    #[error("has more than {max} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// At most.
        max: usize,
    },
    /// A line says nothing that can be used.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What it should be.
        why: &'static str,
    },
    /// Nobody asks for anything in it.
    #[error("has no line with a rate")]
    Empty,
}

impl Trace {
    /// Reads text, see the module.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn read(text: &str) -> Result<Self, TraceError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(TraceError::TooMuch { what: "bytes", max: TEXT_LEN_MAX });
        }
        let mut reader = Reader::default();
        // As spreadsheets begin their files.
        for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            if index >= LINES_MAX {
                return Err(TraceError::TooMuch { what: "lines", max: LINES_MAX });
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || (index == 0 && line == HEADER) {
                continue;
            }
            reader.line(line).map_err(|why| TraceError::Line { line: index + 1, why })?;
        }
        reader.done()
    }

    /// As text, to be read again.
    #[must_use]
    pub fn written(&self) -> String {
        let mut lines: Vec<(Timestamp, String)> = Vec::new();
        for (region, rates) in &self.rates {
            lines.extend(rates.iter().map(|(at, rate)| (*at, format!("{at},{region},{rate}"))));
        }
        let span = |region: &str, words: [&str; 2], span: &Span| {
            [
                (span.0, format!("{},{region},{}", span.0, words[0])),
                (span.1, format!("{},{region},{}", span.1, words[1])),
            ]
        };
        lines.extend(self.silent.iter().flat_map(|silent| span("*", ["silent", "heard"], silent)));
        for (region, spans) in &self.full {
            lines.extend(spans.iter().flat_map(|full| span(region, ["full", "roomy"], full)));
        }
        lines.sort_by_key(|(at, _)| *at);
        let mut text = format!("{HEADER}\n");
        for (_, line) in lines {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Made of its parts, for whoever generates one; each list sorted by time.
    pub(super) fn of(
        rates: BTreeMap<String, Vec<(Timestamp, f64)>>,
        silent: Vec<Span>,
        full: BTreeMap<String, Vec<Span>>,
    ) -> Self {
        Self { rates, silent, full }
    }

    /// The same of so many times the demand.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        self.rates.values_mut().flatten().for_each(|(_, rate)| *rate *= factor);
        self
    }

    /// The same with one line for each region and `step`, of the mean rate in it: as a recording has it.
    #[must_use]
    pub fn coarse(&self, step: Duration) -> Self {
        let step_s = i64::try_from(step.as_secs()).unwrap_or(i64::MAX).max(1);
        let begins = |at: Timestamp| at.as_second().div_euclid(step_s).saturating_mul(step_s);
        let rates = self.rates.iter().map(|(region, rates)| {
            let mut coarse: Vec<(Timestamp, f64)> = Vec::new();
            for cell in rates.chunk_by(|a, b| begins(a.0) == begins(b.0)) {
                let count = u32::try_from(cell.len()).unwrap_or(u32::MAX);
                let mean = cell.iter().map(|(_, rate)| rate).sum::<f64>() / f64::from(count);
                let at = Timestamp::from_second(begins(cell[0].0)).unwrap_or(cell[0].0);
                coarse.push((at, (mean * 1e3).round() / 1e3));
            }
            (region.clone(), coarse)
        });
        Self { rates: rates.collect(), silent: self.silent.clone(), full: self.full.clone() }
    }

    /// Its regions, in order.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.rates.keys().map(String::as_str)
    }

    /// From its first line with a rate to its last.
    #[must_use]
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let first = self.rates.values().filter_map(|rates| rates.first()).map(|(at, _)| *at).min()?;
        let last = self.rates.values().filter_map(|rates| rates.last()).map(|(at, _)| *at).max()?;
        Some((first, last))
    }

    /// Requests per second from each region; none where nothing is said yet.
    #[must_use]
    pub fn demand(&self, at: Timestamp) -> BTreeMap<String, f64> {
        let rate = |rates: &[(Timestamp, f64)]| {
            let after = rates.partition_point(|(since, _)| *since <= at);
            after.checked_sub(1).map(|latest| rates[latest].1)
        };
        self.rates.iter().filter_map(|(region, rates)| Some((region.clone(), rate(rates)?))).collect()
    }

    /// Requests per second from all regions.
    #[must_use]
    pub fn total(&self, at: Timestamp) -> f64 {
        self.demand(at).values().sum()
    }

    /// No report arrives.
    #[must_use]
    pub fn is_silent(&self, at: Timestamp) -> bool {
        holds(&self.silent, at)
    }

    /// Since when no report arrives.
    #[must_use]
    pub fn silent_since(&self, at: Timestamp) -> Option<Timestamp> {
        self.silent.iter().find(|span| span.0 <= at && at < span.1).map(|span| span.0)
    }

    /// Whether a region has no machine to give.
    #[must_use]
    pub fn is_full(&self, region: &str, at: Timestamp) -> bool {
        self.full.get(region).is_some_and(|spans| holds(spans, at))
    }
}

fn holds(spans: &[Span], at: Timestamp) -> bool {
    spans.iter().any(|span| span.0 <= at && at < span.1)
}

/// A trace while its lines are read.
#[derive(Default)]
struct Reader {
    trace: Trace,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    silent_since: Option<Timestamp>,
    full_since: BTreeMap<String, Timestamp>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        let mut columns = line.split(',').map(str::trim);
        let (Some(at), Some(region), Some(value), None) =
            (columns.next(), columns.next(), columns.next(), columns.next())
        else {
            return Err("is not three columns: time,region,requests_per_second");
        };
        let at: Timestamp = at.parse().map_err(|_| "its time is not like 2026-03-09T13:30:00Z")?;
        if self.last.is_some_and(|last| at < last) {
            return Err("is earlier than the line before it");
        }
        let first = *self.first.get_or_insert(at);
        if age(at, first).is_none_or(|span| span > SPAN_MAX) {
            return Err("is more than 400 days after the first line");
        }
        self.last = Some(at);
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= REGION_LEN_MAX
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        match (region, value) {
            ("*", "silent") => {
                self.silent_since.get_or_insert(at);
            }
            ("*", "heard") => {
                let since = self.silent_since.take().ok_or("is heard again without having been silent")?;
                self.trace.silent.push((since, at));
            }
            (region, _) if !is_name(region) => return Err("its region is no name"),
            (region, "full") => {
                self.known(region)?;
                self.full_since.entry(region.to_owned()).or_insert(at);
            }
            (region, "roomy") => {
                let since =
                    self.full_since.remove(region).ok_or("is roomy again without having been full")?;
                self.trace.full.entry(region.to_owned()).or_default().push((since, at));
            }
            (region, rate) => {
                let rate: f64 = rate.parse().map_err(|_| "is neither a rate nor a word that is known")?;
                if !(0.0..=RATE_MAX).contains(&rate) {
                    return Err("its rate is not between 0 and 1e9");
                }
                self.known(region)?;
                let rates = self.trace.rates.entry(region.to_owned()).or_default();
                if rates.last().is_some_and(|(last, _)| *last == at) {
                    return Err("says a second rate of its region for the same time");
                }
                rates.push((at, rate));
            }
        }
        Ok(())
    }

    /// Regions that are named take room, whatever is said of them.
    fn known(&self, region: &str) -> Result<(), &'static str> {
        let is_new = |known: usize| known >= REGIONS_MAX;
        if !self.trace.rates.contains_key(region) && is_new(self.trace.rates.len()) {
            return Err("is of the 65th region");
        }
        let full = self.full_since.len() + self.trace.full.len();
        if !self.full_since.contains_key(region) && !self.trace.full.contains_key(region) && is_new(full) {
            return Err("is of the 65th region");
        }
        Ok(())
    }

    fn done(mut self) -> Result<Trace, TraceError> {
        let end = self.last.unwrap_or(Timestamp::MAX);
        // What does not end lasts to the end of the trace.
        self.trace.silent.extend(self.silent_since.map(|since| (since, end)));
        for (region, since) in self.full_since {
            self.trace.full.entry(region).or_default().push((since, end));
        }
        if self.trace.rates.is_empty() { Err(TraceError::Empty) } else { Ok(self.trace) }
    }
}
