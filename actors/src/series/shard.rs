//! The series of one shard on one node: as their owner, or as the copy that takes over.
//!
//! Logs agree as in Raft (Ongaro & Ousterhout 2014, section 5.3): a part of a log fits where the tick before it was
//! accepted under the same epoch, and replaces what differs. Knows no other node; says what one lacks.

use std::collections::HashMap;

use peregrine_shaders::{ModelSpec, Windows};

use super::history::History;
use super::journal::JournalEntry;
use super::tick::{Effect, SeriesName, Tick, TickError, Timestamp};
use super::window::Unready;

/// No series gets so far: numbers above it are another node's or a disk's mistake, and would run out.
const SEQ_MAX: u64 = 1 << 62;

/// What is kept of each series, and of how many.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardLimits {
    /// Observations kept of each series.
    pub history: usize,
    /// Series of one shard. Ticks of one more are refused.
    pub series_max: usize,
    /// Slot of the time grid in nanoseconds, by pattern; the first that matches.
    pub steps: Vec<(super::Pattern, i64)>,
}

/// A part of the log of one series, from node to node.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesLog {
    /// Of which series.
    pub series: SeriesName,
    /// The epoch of the number before the first tick below; `None`: what is held is replaced by this.
    pub after: Option<u64>,
    /// In the order of their numbers. What came under a number between them has been given up.
    pub ticks: Vec<JournalEntry>,
}

impl SeriesLog {
    /// Number of the first tick.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.ticks.first().map(|entry| entry.seq)
    }
}

/// How far a node's log of one series goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Of which series.
    pub series: SeriesName,
    /// Number of its last tick.
    pub seq: u64,
    /// Under which epoch that was accepted.
    pub epoch: u64,
}

/// What a copy says to a part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It goes up to here now.
    UpTo(u64),
    /// It does not fit: send more of it.
    Apart,
}

/// Names one life of one node that holds a copy.
pub type Holder = (std::sync::Arc<str>, u64);

/// Series of one shard.
#[derive(Debug, Default)]
pub struct Shard {
    series: HashMap<SeriesName, Kept>,
    /// Messages of owners of a lower epoch are refused.
    fence: u64,
}

/// One series, and what its copy is known to have.
#[derive(Debug)]
struct Kept {
    history: History,
    /// Up to which number the copy agrees; of that life of that node.
    confirmed: Option<(Holder, u64)>,
    /// The newest number that was given here, and when.
    accepted: Option<(u64, Timestamp)>,
}

impl Shard {
    /// The highest epoch that was heard of.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Refuses owners of lower epochs from now on. False: this one is lower itself.
    pub fn raise(&mut self, epoch: u64) -> bool {
        let fits = epoch >= self.fence;
        self.fence = self.fence.max(epoch);
        fits
    }

    /// Series held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// One series.
    #[must_use]
    pub fn get(&self, series: &SeriesName) -> Option<&History> {
        self.series.get(series).map(|kept| &kept.history)
    }

    /// All series.
    pub fn iter(&self) -> impl Iterator<Item = (&SeriesName, &History)> {
        self.series.iter().map(|(series, kept)| (series, &kept.history))
    }

    /// Takes a tick as the owner of the shard.
    ///
    /// # Errors
    /// It cannot be part of its series, or there are too many series.
    pub fn feed(&mut self, tick: &Tick, epoch: u64, limits: &ShardLimits) -> Result<Effect, TickError> {
        if let Some(kept) = self.series.get_mut(&tick.series) {
            kept.history.check(tick)?;
            return Ok(kept.history.apply(tick, epoch));
        }
        if self.series.len() >= limits.series_max {
            return Err(TickError::Full { series_max: limits.series_max });
        }
        let mut history = limits.history_of(&tick.series);
        history.check(tick)?;
        let effect = history.apply(tick, epoch);
        self.series.insert(tick.series.clone(), Kept::new(history));
        Ok(effect)
    }

    /// Keeps when the tick came that has the newest number.
    pub fn accepted(&mut self, series: &SeriesName, seq: u64, at: Timestamp) {
        if let Some(kept) = self.series.get_mut(series) {
            kept.accepted = Some((seq, at));
        }
    }

    /// When the tick came that has a number, as far as that is known.
    #[must_use]
    pub fn accepted_at(&self, series: &SeriesName, seq: u64) -> Option<Timestamp> {
        let (newest, at) = self.series.get(series)?.accepted?;
        (newest == seq).then_some(at)
    }

    /// What a copy has to be sent so that it holds these series as this node does; nothing for those that it has.
    #[must_use]
    pub fn lacking<'a>(
        &self,
        holder: &Holder,
        series: impl IntoIterator<Item = &'a SeriesName>,
    ) -> Vec<SeriesLog> {
        let log = |name: &'a SeriesName| {
            let kept = self.series.get(name)?;
            let confirmed = kept.confirmed.as_ref().filter(|(of, _)| of == holder).map(|&(_, seq)| seq);
            match confirmed {
                Some(seq) if seq >= kept.history.last_seq() => None,
                // A copy that was never asked may well have all but the last tick.
                None if kept.history.len() > 1 => Some(kept.log(name, kept.history.last_seq())),
                known => Some(kept.log(name, known.map_or(1, |seq| seq + 1))),
            }
        };
        series.into_iter().filter_map(log).collect()
    }

    /// What a copy has answered to such a part of a log.
    pub fn answered(&mut self, holder: &Holder, series: &SeriesName, taken: Taken) {
        let Some(kept) = self.series.get_mut(series) else { return };
        let up_to = match taken {
            Taken::UpTo(seq) => seq,
            Taken::Apart => kept.history.first_seq() - 1, // all of it, from the beginning
        };
        let known = kept.confirmed.as_ref().filter(|(of, _)| of == holder).map_or(0, |&(_, seq)| seq);
        let up_to = if taken == Taken::Apart { up_to } else { up_to.max(known) };
        kept.confirmed = Some((holder.clone(), up_to.min(kept.history.seq())));
    }

    /// All that is held of a series.
    #[must_use]
    pub fn whole(&self, series: &SeriesName) -> Option<SeriesLog> {
        let kept = self.series.get(series)?;
        Some(kept.log(series, kept.history.first_seq()))
    }

    /// Holds what the owner of the shard holds.
    pub fn take(&mut self, log: &SeriesLog, limits: &ShardLimits) -> Taken {
        let known = self.series.contains_key(&log.series);
        if !known && self.series.len() >= limits.series_max {
            return Taken::Apart; // the same limit as the owner's: it has fewer
        }
        let kept = self
            .series
            .entry(log.series.clone())
            .or_insert_with(|| Kept::new(limits.history_of(&log.series)));
        (kept.confirmed, kept.accepted) = (None, None); // whoever owns it now, it is not this node
        let taken = kept.take(log);
        if kept.history.is_empty() {
            self.series.remove(&log.series);
        }
        taken
    }

    /// Holds what the journal of this node had of a series: the lowest number first, and those between two were given up.
    pub fn restore(&mut self, entry: &JournalEntry, limits: &ShardLimits) -> bool {
        let JournalEntry { seq, epoch, tick } = entry;
        let known = self.series.contains_key(&tick.series);
        if !known && self.series.len() >= limits.series_max || !(1..=SEQ_MAX).contains(seq) {
            return false;
        }
        let kept = self
            .series
            .entry(tick.series.clone())
            .or_insert_with(|| Kept::new(limits.history_of(&tick.series)));
        if !known {
            kept.history.begin_at(*seq);
        }
        let fits = *seq > kept.history.seq() && kept.history.check(tick).is_ok();
        if fits {
            kept.history.follow_as(*seq, tick, *epoch);
        } else if !known {
            self.series.remove(&tick.series);
        }
        fits
    }

    /// How far each series goes.
    #[must_use]
    pub fn ends(&self) -> Vec<LogEnd> {
        let end = |(name, kept): (&SeriesName, &Kept)| {
            let seq = kept.history.last_seq();
            Some(LogEnd { series: name.clone(), seq, epoch: kept.history.epoch(seq)? })
        };
        self.series.iter().filter_map(end).collect()
    }
}

impl ShardLimits {
    /// How many observations the series of a log is short of a model's window. 0: none, or waiting does not help.
    #[must_use]
    pub fn missing(&self, log: &SeriesLog, spec: &ModelSpec) -> usize {
        match self.window(log, spec) {
            Err(Unready::Short { got, want }) => want.saturating_sub(got),
            _ => 0,
        }
    }

    /// The newest window of the series of a log, as one row for the model.
    ///
    /// # Errors
    /// [`Unready`].
    pub fn window(&self, log: &SeriesLog, spec: &ModelSpec) -> Result<Windows, Unready> {
        let mut kept = Kept::new(self.history_of(&log.series));
        kept.take(log);
        kept.history.window(kept.history.seq(), spec)
    }

    fn history_of(&self, series: &SeriesName) -> History {
        let step =
            self.steps.iter().find(|(pattern, _)| pattern.matches(series.as_str())).map(|&(_, step)| step);
        History::new(self.history, step)
    }
}

impl Kept {
    fn new(history: History) -> Self {
        Self { history, confirmed: None, accepted: None }
    }

    /// From a number on; all of it if that is kept no more.
    fn log(&self, series: &SeriesName, from: u64) -> SeriesLog {
        let history = &self.history;
        let goes_on = from > history.first_seq() && history.row(from).is_some();
        let after = if goes_on { history.epoch(from - 1) } else { None };
        let ticks = history.entries(series, if after.is_some() { from } else { 0 });
        SeriesLog { series: series.clone(), after, ticks }
    }

    fn take(&mut self, log: &SeriesLog) -> Taken {
        let history = &mut self.history;
        let Some(first) = log.ticks.first() else { return Taken::Apart };
        let rises = log.ticks.windows(2).all(|pair| pair[0].seq < pair[1].seq);
        if !rises || first.seq == 0 || log.ticks.last().is_none_or(|last| last.seq > SEQ_MAX) {
            return Taken::Apart;
        }
        let agrees = match log.after {
            Some(epoch) if history.epoch(first.seq - 1) != Some(epoch) => return Taken::Apart,
            Some(_) => follow(history, log),
            // One that came before, again: what was taken since stays.
            None => history.epoch(first.seq) == Some(first.epoch) && follow(history, log),
        };
        if !agrees {
            if log.after.is_some() {
                return Taken::Apart;
            }
            history.begin_at(first.seq);
            if !follow(history, log) {
                return Taken::Apart;
            }
        }
        Taken::UpTo(history.seq())
    }
}

/// Takes of a log what differs. False: it does not fit.
fn follow(history: &mut History, log: &SeriesLog) -> bool {
    let Some(mut agreed) = log.first().and_then(|first| first.checked_sub(1)) else { return false };
    for JournalEntry { seq, epoch, tick } in &log.ticks {
        // What was accepted under one epoch was accepted once.
        if history.epoch(*seq) != Some(*epoch) {
            if history.check(tick).is_err() || history.rewind(agreed).is_err() || history.seq() > agreed {
                return false;
            }
            history.follow_as(*seq, tick, *epoch);
        }
        agreed = *seq;
    }
    true
}
