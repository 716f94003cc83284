//! The observations of one series: what a tick does to them, and the window as it was after any of the last ticks.
//!
//! A tick that changes something gets the next sequence number, and the newest `capacity` observations are kept, by their
//! time: what is given up is older than all that stays. So the series is its log: whoever applies the same ticks in the
//! same order has the same windows, and the window of an earlier number is what the log up to that number makes of it.
//! Knows no clock and no model's name.

use std::collections::{BTreeMap, VecDeque};

use super::journal::JournalEntry;
use super::tick::{Effect, SeriesName, Tick, TickError, Timestamp};
use crate::trace::Trace;

/// Columns that one series may have beside its value, of each kind.
pub const COLUMNS_MAX: usize = 64;
/// Steps ahead that a column may be known for.
pub const FUTURE_MAX: usize = 1024;

/// Observations of one series.
#[derive(Clone, Debug)]
pub struct History {
    capacity: usize,
    /// Length of a slot of the time grid in nanoseconds; 1 where there is no grid.
    step: i64,
    /// Sequence number of the newest tick; 0: none has come.
    seq: u64,
    /// The rows below, oldest slot first. A log from before there was a grid may have several of one slot: the first that
    /// came is the last of them.
    at: VecDeque<i64>,
    value: VecDeque<f32>,
    /// What was observed beside the value.
    hist: Vec<Column>,
    /// What is known ahead, of each row's own moment.
    futr: Vec<Column>,
    /// From which number on ticks were accepted under which epoch.
    epochs: VecDeque<(u64, u64)>,
    /// What was known of the future, by the number of the tick that said it.
    futures: BTreeMap<u64, Vec<(String, Vec<f32>)>>,
    /// What does not change with time: from which number on it was what. A row has what its tick brought, and of the rest
    /// what the observation before it has, so that it can be told from the row alone.
    statics: VecDeque<(u64, Statics)>,
    /// The number of each row; `None`, which is usual: they rise by one from row to row up to `seq`.
    seqs: Option<VecDeque<u64>>,
    /// The newest slot that was given up for later ones; no row is as old.
    evicted: Option<i64>,
    /// The log begins above 1 or leaves numbers out: there was something before it, and nobody knows of when.
    has_past: bool,
    /// Slots that the series has gone forward; counts from an arbitrary start.
    position: u64,
}

/// A column beside the value; NaN where a tick did not name it.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    rows: VecDeque<f32>,
}

/// A column as one kind; where a row has none of that, the other kind's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a> {
    own: &'a VecDeque<f32>,
    other: Option<&'a VecDeque<f32>>,
}

impl<'a> Cells<'a> {
    fn of(own: &'a [Column], other: &'a [Column], name: &str) -> Option<Self> {
        let find = |columns: &'a [Column]| columns.iter().find(|column| column.name == name);
        let (own, other) = (find(own).map(|column| &column.rows), find(other).map(|column| &column.rows));
        Some(Self { own: own.or(other)?, other: own.and(other) })
    }

    pub(super) fn at(self, row: usize) -> Option<f32> {
        let known = |rows: &VecDeque<f32>| Some(rows[row]).filter(|value| !value.is_nan());
        known(self.own).or_else(|| self.other.and_then(known))
    }
}

/// By name.
type Statics = Vec<(String, f32)>;

/// What [`History::rewind`] could not undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl History {
    /// An empty one that keeps `capacity` observations. With a `step` in nanoseconds, time is a grid whose slots
    /// without an observation are missing values; without one, each observation follows the one before it.
    ///
    /// # Panics
    /// Without capacity, or with a step that is not above zero.
    #[must_use]
    pub fn new(capacity: usize, step: Option<i64>) -> Self {
        assert!(capacity > 0, "a history keeps something");
        let step = step.unwrap_or(1);
        assert!(step > 0, "time goes forward");
        Self {
            capacity,
            step,
            seq: 0,
            at: VecDeque::new(),
            value: VecDeque::new(),
            hist: Vec::new(),
            futr: Vec::new(),
            epochs: VecDeque::new(),
            futures: BTreeMap::new(),
            statics: VecDeque::new(),
            seqs: None,
            evicted: None,
            has_past: false,
            position: 0,
        }
    }

    /// Number of the newest tick; 0: none has come.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Lowest number of an observation that is kept, one above [`Self::seq`] when there is none.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        match &self.seqs {
            None => self.seq + 1 - self.at.len() as u64,
            Some(seqs) => seqs.iter().min().copied().unwrap_or(self.seq + 1),
        }
    }

    /// Highest number of an observation that is kept; without one it is one below [`Self::first_seq`].
    pub(super) fn last_seq(&self) -> u64 {
        self.seqs.as_ref().and_then(|seqs| seqs.iter().max().copied()).unwrap_or(self.seq)
    }

    /// Numbers of the newest observations, so many at most, if they do not rise by one up to [`Self::seq`].
    pub(super) fn scattered(&self, count: usize) -> Option<Vec<u64>> {
        let seqs = self.seqs.as_ref()?;
        let mut newest: Vec<u64> = seqs.iter().rev().take(count).copied().collect();
        newest.sort_unstable();
        Some(newest)
    }

    /// Observations kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Place of the newest slot; only differences mean something.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Place of the newest slot as it was after a number: step `k` of a forecast of that window is about `k` places further.
    #[must_use]
    pub fn position_at(&self, seq: u64) -> Option<u64> {
        self.position.checked_sub(self.gone_since(seq)?)
    }

    /// Place of the newest tick itself. `None`: it is late and there is no grid, so that none was left for it.
    pub(super) fn own_place(&self) -> Option<u64> {
        let (at, newest) = (self.slot(self.at[self.row(self.seq)?]), self.newest()?);
        if at == newest {
            return Some(self.position);
        }
        self.has_grid().then(|| self.position.checked_sub(newest.abs_diff(at))).flatten()
    }

    /// How many places the series has gone forward since a number.
    fn gone_since(&self, seq: u64) -> Option<u64> {
        let then = self.newest_row(seq)?;
        if self.has_grid() {
            return Some(self.newest()?.abs_diff(self.slot(self.at[then])));
        }
        let Some(seqs) = &self.seqs else { return Some((self.at.len() - 1 - then) as u64) };
        // One place for each that was the newest when it came: of what is newer, all came later.
        let mut first = u64::MAX;
        let mut gone = 0;
        for &later in seqs.range(then + 1..).rev() {
            gone += u64::from(later < first);
            first = first.min(later);
        }
        Some(gone)
    }

    /// The row that was the newest at a number.
    fn newest_row(&self, seq: u64) -> Option<usize> {
        match &self.seqs {
            _ if seq > self.seq => None,
            None => self.row(seq),
            Some(seqs) => seqs.iter().rposition(|&known| known <= seq),
        }
    }

    /// How many places a series whose newest slot is `newest` goes forward with an observation of `slot`.
    fn forward(&self, newest: Option<i64>, slot: i64) -> u64 {
        match newest {
            Some(newest) if slot <= newest => 0,
            Some(newest) if self.has_grid() => slot.abs_diff(newest),
            _ => 1,
        }
    }

    /// When the newest observation at a sequence number was made.
    #[must_use]
    pub fn last(&self, seq: u64) -> Option<Timestamp> {
        self.newest_row(seq).map(|row| Timestamp(self.at[row]))
    }

    /// The epoch under which a number was accepted.
    #[must_use]
    pub fn epoch(&self, seq: u64) -> Option<u64> {
        if seq == 0 || seq > self.seq {
            return None;
        }
        self.epochs.iter().rev().find(|&&(from, _)| from <= seq).map(|&(_, epoch)| epoch)
    }

    /// Whether a tick could be part of this series, whatever its time.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self, tick: &Tick) -> Result<(), TickError> {
        let invalid = |what: String| Err(TickError::Invalid(what));
        let is_new = |columns: &[Column], name: &str| columns.iter().all(|column| column.name != name);
        let hist = tick.hist_exog.iter().filter(|(name, _)| is_new(&self.hist, name)).count();
        let futr = tick.futr_exog.iter().filter(|(name, _)| is_new(&self.futr, name)).count();
        let count = (self.hist.len() + hist).max(self.futr.len() + futr).max(tick.stat_exog.len());
        if count > COLUMNS_MAX {
            return invalid(format!("more than {COLUMNS_MAX} columns in one series"));
        }
        let too_far = tick.futr_exog.iter().find(|(_, ahead)| ahead.is_empty() || ahead.len() > FUTURE_MAX);
        if let Some((name, _)) = too_far {
            return invalid(format!("column `{name}`: 1 to {FUTURE_MAX} values of the future"));
        }
        let numbers = tick.value.iter().chain(tick.hist_exog.iter().map(|(_, value)| value));
        let numbers = numbers.chain(tick.futr_exog.iter().flat_map(|(_, ahead)| ahead));
        if !numbers.chain(tick.stat_exog.iter().map(|(_, value)| value)).all(|value| value.is_finite()) {
            return invalid("a number is not finite".to_owned());
        }
        if tick.stat_exog.is_empty() || self.with_inherited(tick).len() <= COLUMNS_MAX {
            Ok(())
        } else {
            invalid(format!("more than {COLUMNS_MAX} columns in one series"))
        }
    }

    /// Takes a tick that [`Self::check`] has passed, accepted under `epoch`.
    pub fn apply(&mut self, tick: &Tick, epoch: u64) -> Effect {
        let slot = self.slot(tick.at.0);
        let newest = self.newest();
        let seq = self.seq;
        if newest.is_some_and(|newest| slot <= newest) {
            if let Some(row) = self.find(slot) {
                let same = self.is_same(row, tick);
                return if same { Effect::Duplicate { seq } } else { Effect::Conflict { seq } };
            }
            let is_oldest = self.oldest().is_some_and(|oldest| slot < oldest);
            if self.is_gone(slot) || self.has_past && is_oldest {
                return Effect::TooLate { seq };
            }
        }
        let gone = self.forward(newest, slot);
        self.position = self.position.saturating_add(gone);
        let statics = self.with_inherited(tick);
        self.push(self.seq + 1, tick, &statics, epoch);
        let seq = self.seq;
        if gone > 0 { Effect::Advanced { seq } } else { Effect::Inserted { seq } }
    }

    /// Begins a log at a number above 1: that of the next tick. What was kept is forgotten.
    pub fn begin_at(&mut self, seq: u64) {
        let step = self.has_grid().then_some(self.step);
        let fresh = Self::new(self.capacity, step);
        // As the owner has it where none came late.
        let before = seq.saturating_sub(1);
        *self = Self { seq: before, position: before, has_past: seq > 1, ..fresh };
    }

    /// Takes the tick that its owner has given the next number, whatever its time, as [`Self::tick`] told it.
    pub fn follow(&mut self, tick: &Tick, epoch: u64) {
        self.follow_as(self.seq + 1, tick, epoch);
    }

    /// As [`Self::follow`], under a number further on: what came under those before it has been given up since.
    pub fn follow_as(&mut self, seq: u64, tick: &Tick, epoch: u64) {
        let gone = self.forward(self.newest(), self.slot(tick.at.0));
        self.position = self.position.saturating_add(gone);
        self.push(seq, tick, &tick.stat_exog, epoch);
    }

    /// Takes back all ticks above a number, which another owner has given to others.
    ///
    /// # Errors
    /// When that number is not known here any more, or what was given up for those ticks may belong between the others.
    pub fn rewind(&mut self, seq: u64) -> Result<(), Unknown> {
        if seq >= self.seq {
            return Ok(());
        }
        if self.row(seq).is_none() || self.seqs.is_some() && self.evicted.is_some() {
            return Err(Unknown);
        }
        self.position = self.position.saturating_sub(self.gone_since(seq).unwrap_or(0));
        let stays: Vec<bool> = (0..self.at.len()).map(|row| self.number(row) <= seq).collect();
        keep_rows(&mut self.at, &stays);
        keep_rows(&mut self.value, &stays);
        for column in self.hist.iter_mut().chain(&mut self.futr) {
            keep_rows(&mut column.rows, &stays);
        }
        if let Some(seqs) = &mut self.seqs {
            keep_rows(seqs, &stays);
        }
        self.seq = seq;
        self.epochs.retain(|&(from, _)| from <= seq);
        self.futures.split_off(&(seq + 1));
        self.statics.retain(|&(from, _)| from <= seq);
        self.forget_numbers();
        Ok(())
    }

    /// What is kept from a number on, in the order of numbers.
    #[must_use]
    pub fn entries(&self, series: &SeriesName, from: u64) -> Vec<JournalEntry> {
        let begin = match &self.seqs {
            None => usize::try_from(from.saturating_sub(self.first_seq())).unwrap_or(usize::MAX),
            Some(_) => 0,
        };
        let numbered = (begin..self.at.len()).map(|row| (self.number(row), row));
        let mut rows: Vec<(u64, usize)> = numbered.filter(|&(seq, _)| seq >= from).collect();
        if self.seqs.is_some() {
            rows.sort_unstable();
        }
        let entry =
            |(seq, row)| Some(JournalEntry { seq, epoch: self.epoch(seq)?, tick: self.tick_of(series, row) });
        rows.into_iter().filter_map(entry).collect()
    }

    /// The tick that has a number, as it came; with it comes what does not change with time, whichever tick brought it.
    #[must_use]
    pub fn tick(&self, series: &SeriesName, seq: u64) -> Option<Tick> {
        self.row(seq).map(|row| self.tick_of(series, row))
    }

    fn tick_of(&self, series: &SeriesName, row: usize) -> Tick {
        let seq = self.number(row);
        let hist_exog = self.hist.iter().filter_map(|column| {
            let value = column.rows[row];
            (!value.is_nan()).then(|| (column.name.clone(), value))
        });
        Tick {
            series: series.clone(),
            at: Timestamp(self.at[row]),
            value: Some(self.value[row]).filter(|value| !value.is_nan()),
            hist_exog: hist_exog.collect(),
            stat_exog: self.statics_of(seq).to_vec(),
            futr_exog: self.futures.get(&seq).cloned().unwrap_or_default(),
            trace: Trace::default(),
        }
    }

    /// Bytes that the observations take, without those of names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let row = size_of::<i64>() + size_of::<f32>() * (1 + self.hist.len() + self.futr.len());
        let ahead =
            |columns: &Vec<(String, Vec<f32>)>| columns.iter().map(|(_, ahead)| ahead.len()).sum::<usize>();
        let cells = self.futures.values().map(ahead).sum::<usize>()
            + self.statics.iter().map(|(_, statics)| statics.len()).sum::<usize>();
        let seqs = self.seqs.as_ref().map_or(0, VecDeque::capacity);
        self.at.capacity() * row + seqs * size_of::<u64>() + cells * size_of::<f32>()
    }

    pub(super) fn has_grid(&self) -> bool {
        self.step > 1
    }

    pub(super) fn slot(&self, at: i64) -> i64 {
        at.div_euclid(self.step)
    }

    pub(super) fn evicted(&self) -> Option<i64> {
        self.evicted
    }

    /// Row of a number.
    pub(super) fn row(&self, seq: u64) -> Option<usize> {
        match &self.seqs {
            None => {
                let row = usize::try_from(seq.checked_sub(self.first_seq())?).ok()?;
                (row < self.at.len()).then_some(row)
            }
            Some(seqs) => seqs.iter().rposition(|&known| known == seq),
        }
    }

    /// Number of a row.
    pub(super) fn number(&self, row: usize) -> u64 {
        self.seqs.as_ref().map_or_else(|| self.seq + 1 - (self.at.len() - row) as u64, |seqs| seqs[row])
    }

    /// The rows that there were at a number, as far as they are kept: all of the first so many, or these.
    pub(super) fn rows_at(&self, seq: u64) -> Result<usize, Vec<usize>> {
        match &self.seqs {
            Some(seqs) if seq == self.seq => Ok(seqs.len()),
            Some(seqs) if seq < self.seq => Err((0..seqs.len()).filter(|&row| seqs[row] <= seq).collect()),
            _ => Ok(self.row(seq).map_or(0, |row| row + 1)),
        }
    }

    pub(super) fn times(&self) -> &VecDeque<i64> {
        &self.at
    }

    pub(super) fn values(&self) -> &VecDeque<f32> {
        &self.value
    }

    /// What was observed of a column. A tick that brought it as one that is known ahead alone said so what it was then.
    pub(super) fn hist(&self, name: &str) -> Option<Cells<'_>> {
        Cells::of(&self.hist, &self.futr, name)
    }

    /// What a column that is known ahead was, likewise.
    pub(super) fn futr(&self, name: &str) -> Option<Cells<'_>> {
        Cells::of(&self.futr, &self.hist, name)
    }

    /// The future of a column, as the tick with that number told it: from its own moment on.
    pub(super) fn future(&self, name: &str, seq: u64) -> Option<&[f32]> {
        let (_, ahead) = self.futures.get(&seq)?.iter().find(|(known, _)| known == name)?;
        Some(ahead)
    }

    /// What does not change with time, as the observation with that number knows it.
    pub(super) fn constant(&self, name: &str, seq: u64) -> Option<f32> {
        self.statics_of(seq).iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    fn statics_of(&self, seq: u64) -> &[(String, f32)] {
        let run = self.statics.iter().rev().find(|&&(from, _)| from <= seq);
        run.map_or(&[][..], |(_, statics)| statics.as_slice())
    }

    /// What does not change with time as a new tick has it: what it brings itself comes first.
    fn with_inherited(&self, tick: &Tick) -> Statics {
        if self.statics.is_empty() {
            return tick.stat_exog.clone();
        }
        let before = self.place_of(self.slot(tick.at.0)).checked_sub(1);
        let inherited = before.map_or(&[][..], |row| self.statics_of(self.number(row)));
        let mut statics = inherited.to_vec();
        for (name, value) in &tick.stat_exog {
            match statics.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = *value,
                None => statics.push((name.clone(), *value)),
            }
        }
        statics
    }

    /// The newest slot.
    fn newest(&self) -> Option<i64> {
        self.at.back().map(|&at| self.slot(at))
    }

    /// The oldest slot that is kept.
    fn oldest(&self) -> Option<i64> {
        self.at.front().map(|&at| self.slot(at))
    }

    /// Whether what is so old would not be kept.
    fn is_gone(&self, slot: i64) -> bool {
        let is_full = self.at.len() == self.capacity;
        self.evicted.is_some_and(|evicted| slot <= evicted)
            || is_full && self.oldest().is_some_and(|oldest| slot < oldest)
    }

    /// The row that an observation of a slot is put before.
    fn place_of(&self, slot: i64) -> usize {
        if self.newest().is_none_or(|newest| newest < slot) {
            return self.at.len();
        }
        self.at.partition_point(|&at| self.slot(at) < slot)
    }

    /// Of several of one slot the first that came.
    fn find(&self, slot: i64) -> Option<usize> {
        let row = self.at.partition_point(|&at| self.slot(at) <= slot).checked_sub(1)?;
        (self.slot(self.at[row]) == slot).then_some(row)
    }

    /// Whether all that the tick says is what this row says.
    fn is_same(&self, row: usize, tick: &Tick) -> bool {
        // By number: 0 is -0, which some writers make of it. What is not known is the same as itself.
        let same = |known: f32, value: f32| known == value || known.is_nan() && value.is_nan();
        let is = |cells: Option<Cells<'_>>, value: f32| {
            let known = cells.map(|cells| cells.at(row).unwrap_or(f32::NAN));
            known.is_some_and(|known| same(known, value))
        };
        let seq = self.number(row);
        let foresees = |name: &str, ahead: &[f32]| {
            let Some((now, later)) = ahead.split_first() else { return false };
            let known = self.future(name, seq).and_then(|known| known.get(1..)).unwrap_or_default();
            let all =
                later.len() <= known.len() && known.iter().zip(later).all(|(&k, &value)| same(k, value));
            is(self.futr(name), *now) && all
        };
        self.at[row] == tick.at.0
            && same(self.value[row], tick.value.unwrap_or(f32::NAN))
            && tick.hist_exog.iter().all(|(name, value)| is(self.hist(name), *value))
            && tick.futr_exog.iter().all(|(name, ahead)| foresees(name, ahead))
            && (tick.stat_exog.iter())
                .all(|(name, value)| self.constant(name, seq).is_some_and(|known| same(known, *value)))
    }

    fn push(&mut self, seq: u64, tick: &Tick, statics: &[(String, f32)], epoch: u64) {
        let slot = self.slot(tick.at.0);
        let is_gone = self.is_gone(slot);
        if self.at.len() == self.capacity && !is_gone {
            self.evict();
        }
        if self.epochs.back().is_none_or(|&(_, last)| last != epoch) {
            self.epochs.push_back((seq, epoch));
        }
        let place = self.place_of(slot);
        let follows = seq == self.seq + 1 || self.at.is_empty();
        if self.seqs.is_none() && (is_gone || !follows || place < self.at.len()) {
            self.seqs = Some((self.first_seq()..=self.seq).collect());
        }
        self.has_past |= seq != self.seq + 1;
        self.seq = seq;
        if is_gone {
            self.evicted = self.evicted.max(Some(slot));
            return;
        }
        self.at.insert(place, tick.at.0);
        self.value.insert(place, tick.value.unwrap_or(f32::NAN));
        let hist = tick.hist_exog.iter().map(|(name, value)| (name, *value));
        let futr = tick.futr_exog.iter().filter_map(|(name, ahead)| Some((name, *ahead.first()?)));
        insert_row(&mut self.hist, self.at.len(), place, hist);
        insert_row(&mut self.futr, self.at.len(), place, futr);
        if !tick.futr_exog.is_empty() {
            self.futures.insert(seq, tick.futr_exog.clone());
        }
        if self.statics.back().map_or(&[][..], |(_, known)| known.as_slice()) != statics {
            self.statics.push_back((seq, statics.to_vec()));
        }
        if let Some(seqs) = &mut self.seqs {
            seqs.insert(place, seq);
            self.forget_numbers();
        }
    }

    /// Of numbers that rise by one again nothing need be kept.
    fn forget_numbers(&mut self) {
        let Some(seqs) = &self.seqs else { return };
        let rises = |(one, next): (&u64, &u64)| one + 1 == *next;
        let is_usual = seqs.back().is_none_or(|&last| {
            last == self.seq
                && seqs.front().is_some_and(|first| last - first + 1 == seqs.len() as u64)
                && seqs.iter().zip(seqs.iter().skip(1)).all(rises)
        });
        if is_usual {
            self.seqs = None;
        }
    }

    /// Gives the oldest observation up.
    fn evict(&mut self) {
        let gone = self.number(0);
        let Some(at) = self.at.pop_front() else { return };
        self.value.pop_front();
        for column in self.hist.iter_mut().chain(&mut self.futr) {
            column.rows.pop_front();
        }
        self.evicted = self.evicted.max(Some(self.slot(at)));
        self.futures.remove(&gone);
        if let Some(seqs) = &mut self.seqs {
            seqs.pop_front();
        }
        if self.epochs.len() > 1 {
            // The run that the lowest number is part of stays.
            let first = self.first_seq();
            while self.epochs.get(1).is_some_and(|&(from, _)| from <= first) {
                self.epochs.pop_front();
            }
        }
        if self.statics.len() > 1 {
            self.forget_statics(gone);
        }
    }

    /// A run of constants is kept while it has rows.
    fn forget_statics(&mut self, gone: u64) {
        let next = self.statics.partition_point(|&(from, _)| from <= gone);
        let Some(run) = next.checked_sub(1) else { return };
        let from = self.statics[run].0;
        let to = self.statics.get(next).map_or(u64::MAX, |&(from, _)| from);
        let has_rows = match &self.seqs {
            None => (from..to).contains(&self.first_seq().max(from)),
            Some(seqs) => seqs.iter().any(|seq| (from..to).contains(seq)),
        };
        if !has_rows {
            self.statics.remove(run);
        }
    }
}

/// Those rows alone that stay.
fn keep_rows<T>(rows: &mut VecDeque<T>, stays: &[bool]) {
    let mut row = 0;
    rows.retain(|_| {
        row += 1;
        stays[row - 1]
    });
}

/// One more row of each column at a place, with which there are so many; NaN where it is not named.
fn insert_row<'a>(
    columns: &mut Vec<Column>,
    rows: usize,
    place: usize,
    cells: impl Iterator<Item = (&'a String, f32)>,
) {
    for column in columns.iter_mut() {
        column.rows.insert(place, f32::NAN);
    }
    for (name, value) in cells {
        let at = columns.iter().position(|column| column.name == *name).unwrap_or_else(|| {
            let rows = std::iter::repeat_n(f32::NAN, rows).collect();
            columns.push(Column { name: name.clone(), rows });
            columns.len() - 1
        });
        columns[at].rows[place] = value;
    }
}
