//! An entry as bytes, and its place in the store.
//!
//! The name of the series and its slot in the ring are the key; the rest is the value: numbers as LEB128, floats as
//! their bits. Bytes come from a disk: what they say is compared with what is there before anything is allocated.

use peregrine_actors::Trace;
use peregrine_actors::series::{JournalEntry, NAME_BYTES_MAX, SeriesName, Tick, Timestamp};

/// Longest value that is kept, in bytes: a tick with columns for thousands of steps ahead.
pub(super) const VALUE_BYTES_MAX: usize = 64 * 1024;

const HAS_VALUE: u8 = 1;
const HAS_HIST: u8 = 2;
const HAS_FUTR: u8 = 4;
const HAS_STAT: u8 = 8;
/// Ends the name within a key; no name has it.
const NAME_END: u8 = 0;

/// Bytes that are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    /// They end too early.
    #[error("cut short")]
    Short,
    /// Something follows.
    #[error("more bytes than an entry has")]
    Long,
    /// A number that cannot be.
    #[error("a number out of range")]
    Number,
    /// A name that cannot be.
    #[error("no name")]
    Name,
}

/// Where an entry lies: entries of one series that are `ring` apart take each other's place.
pub(super) fn key(series: &SeriesName, seq: u64, ring: u32) -> Vec<u8> {
    let slot = (seq % u64::from(ring)) as u32;
    let mut key = prefix(series);
    key.extend_from_slice(&slot.to_be_bytes());
    key
}

/// Slots above those of any ring.
const ASIDE: u32 = 1 << 31;

/// Where an entry lies whose place in the ring a newer one has.
pub(super) fn key_aside(series: &SeriesName, seq: u64) -> Vec<u8> {
    let mut key = prefix(series);
    key.extend_from_slice(&(ASIDE | seq as u32).to_be_bytes());
    key
}

/// First and last of each run of numbers that a scattered series has.
pub(super) fn encode_runs(runs: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(runs.len() * 4);
    let mut before = 0;
    for &(first, last) in runs {
        put_number(&mut bytes, first - before);
        put_number(&mut bytes, last - first);
        before = last;
    }
    bytes
}

/// The runs that these bytes are.
pub(super) fn decode_runs(bytes: &[u8]) -> Result<Vec<(u64, u64)>, EntryError> {
    let mut rest = Rest(bytes);
    let mut runs = Vec::new();
    let mut before = 0_u64;
    while !rest.0.is_empty() {
        let first = before.checked_add(rest.number()?).ok_or(EntryError::Number)?;
        let last = first.checked_add(rest.number()?).ok_or(EntryError::Number)?;
        runs.push((first, last));
        before = last;
    }
    Ok(runs)
}

/// What all keys of a series begin with, and no other key does.
pub(super) fn prefix(series: &SeriesName) -> Vec<u8> {
    let mut key = Vec::with_capacity(series.as_str().len() + 5);
    key.extend_from_slice(series.as_str().as_bytes());
    key.push(NAME_END);
    key
}

/// The series of a key.
pub(super) fn series_of(key: &[u8]) -> Result<SeriesName, EntryError> {
    let (name, slot) =
        key.split_last_chunk::<4>().map(|(name, slot)| (name, *slot)).ok_or(EntryError::Short)?;
    let _ = u32::from_be_bytes(slot);
    let name = name.strip_suffix(&[NAME_END]).ok_or(EntryError::Name)?;
    let name = std::str::from_utf8(name).map_err(|_| EntryError::Name)?;
    SeriesName::new(name).map_err(|_| EntryError::Name)
}

/// The value of an entry.
pub(super) fn encode(entry: &JournalEntry) -> Vec<u8> {
    let tick = &entry.tick;
    let mut bytes = Vec::with_capacity(48);
    put_number(&mut bytes, entry.seq);
    put_number(&mut bytes, entry.epoch);
    put_number(&mut bytes, zigzag(tick.at.0));
    let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
    bytes.push(
        flag(HAS_VALUE, tick.value.is_some())
            | flag(HAS_HIST, !tick.hist_exog.is_empty())
            | flag(HAS_FUTR, !tick.futr_exog.is_empty())
            | flag(HAS_STAT, !tick.stat_exog.is_empty()),
    );
    if let Some(value) = tick.value {
        put_float(&mut bytes, value);
    }
    for columns in [&tick.hist_exog, &tick.stat_exog].into_iter().filter(|columns| !columns.is_empty()) {
        put_number(&mut bytes, columns.len() as u64);
        for (name, value) in columns {
            put_text(&mut bytes, name);
            put_float(&mut bytes, *value);
        }
    }
    if !tick.futr_exog.is_empty() {
        put_number(&mut bytes, tick.futr_exog.len() as u64);
        for (name, values) in &tick.futr_exog {
            put_text(&mut bytes, name);
            put_number(&mut bytes, values.len() as u64);
            values.iter().for_each(|value| put_float(&mut bytes, *value));
        }
    }
    bytes
}

/// The entry of `series` that these bytes are.
pub(super) fn decode(series: SeriesName, bytes: &[u8]) -> Result<JournalEntry, EntryError> {
    let mut rest = Rest(bytes);
    let (seq, epoch, at) = (rest.number()?, rest.number()?, unzigzag(rest.number()?));
    let flags = rest.byte()?;
    if flags & !(HAS_VALUE | HAS_HIST | HAS_FUTR | HAS_STAT) != 0 {
        return Err(EntryError::Number);
    }
    let has = |flag: u8| flags & flag != 0;
    let value = if has(HAS_VALUE) { Some(rest.float()?) } else { None };
    let hist_exog = if has(HAS_HIST) { rest.columns()? } else { Vec::new() };
    let stat_exog = if has(HAS_STAT) { rest.columns()? } else { Vec::new() };
    let futr_exog = if has(HAS_FUTR) { rest.paths()? } else { Vec::new() };
    if !rest.0.is_empty() {
        return Err(EntryError::Long);
    }
    let trace = Trace::default();
    let tick = Tick { series, at: Timestamp(at), value, hist_exog, futr_exog, stat_exog, trace };
    Ok(JournalEntry { seq, epoch, tick })
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_float(bytes: &mut Vec<u8>, value: f32) {
    bytes.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Result<u8, EntryError> {
        let (&first, rest) = self.0.split_first().ok_or(EntryError::Short)?;
        self.0 = rest;
        Ok(first)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], EntryError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(EntryError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, EntryError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(EntryError::Number);
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(EntryError::Number)
    }

    fn float(&mut self) -> Result<f32, EntryError> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(EntryError::Short)?;
        self.0 = rest;
        Ok(f32::from_bits(u32::from_le_bytes(*bytes)))
    }

    /// How many follow, of which each takes at least so many bytes.
    fn count(&mut self, bytes_min: usize) -> Result<usize, EntryError> {
        let count = usize::try_from(self.number()?).map_err(|_| EntryError::Number)?;
        if count > self.0.len() / bytes_min { Err(EntryError::Short) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<String, EntryError> {
        let len = self.count(1)?;
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| EntryError::Name)
    }

    fn columns(&mut self) -> Result<Vec<(String, f32)>, EntryError> {
        (0..self.count(5)?).map(|_| Ok((self.text()?, self.float()?))).collect()
    }

    fn paths(&mut self) -> Result<Vec<(String, Vec<f32>)>, EntryError> {
        let path = |rest: &mut Self| {
            let name = rest.text()?;
            let values = (0..rest.count(4)?).map(|_| rest.float()).collect::<Result<_, _>>()?;
            Ok((name, values))
        };
        (0..self.count(2)?).map(|_| path(self)).collect()
    }
}

const _: () = assert!(NAME_BYTES_MAX + 5 <= u16::MAX as usize, "the store's keys are shorter than 64 KiB");

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    #[test]
    fn a_plain_tick_takes_few_bytes() {
        let tick = Tick {
            series: name("BTC"),
            at: Timestamp(1_700_000_000_000_000_000),
            value: Some(1.5),
            hist_exog: Vec::new(),
            futr_exog: Vec::new(),
            stat_exog: Vec::new(),
            trace: Trace::default(),
        };
        assert_eq!(encode(&JournalEntry { seq: 100_000, epoch: 3, tick }).len(), 3 + 1 + 9 + 1 + 4);
    }

    #[test]
    fn entries_come_back_bit_for_bit() {
        for seed in 0..2000 {
            let entry = random(&mut SmallRng::seed_from_u64(seed));
            let bytes = encode(&entry);
            let got = decode(entry.tick.series.clone(), &bytes).unwrap();
            assert_eq!(encode(&got), bytes, "seed {seed}");
            assert_eq!(
                (got.seq, got.epoch, got.tick.at),
                (entry.seq, entry.epoch, entry.tick.at),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn an_entry_that_is_cut_or_longer_is_none() {
        for seed in 0..200 {
            let entry = random(&mut SmallRng::seed_from_u64(seed));
            let mut bytes = encode(&entry);
            for len in 0..bytes.len() {
                assert!(decode(name("s"), &bytes[..len]).is_err(), "seed {seed} len {len}");
            }
            bytes.push(0);
            assert_eq!(decode(name("s"), &bytes), Err(EntryError::Long), "seed {seed}");
        }
    }

    /// Nothing here asserts what comes out: it must come out, and soon.
    #[test]
    fn hostile_bytes_are_an_entry_or_an_error() {
        let mut random_bytes = SmallRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let len = random_bytes.random_range(0..80);
            let bytes: Vec<u8> = (0..len).map(|_| random_bytes.random()).collect();
            let _ = decode(name("s"), &bytes);
            let _ = series_of(&bytes);
        }
        for seed in 0..500 {
            let mut chance = SmallRng::seed_from_u64(seed);
            let mut bytes = encode(&random(&mut chance));
            for _ in 0..3 {
                let at = chance.random_range(0..bytes.len());
                bytes[at] = chance.random();
            }
            let _ = decode(name("s"), &bytes);
        }
    }

    #[test]
    fn a_count_is_compared_with_the_bytes_that_are_there() {
        // seq, epoch, at, flags, then 2^60 columns.
        let mut bytes = vec![1, 1, 1, HAS_FUTR];
        put_number(&mut bytes, 1 << 60);
        assert_eq!(decode(name("s"), &bytes), Err(EntryError::Short));
    }

    #[test]
    fn a_key_says_the_series_and_takes_the_place_of_the_one_a_ring_before() {
        let series = name("crypto/BTC-USD");
        assert_eq!(series_of(&key(&series, 9, 4)), Ok(series.clone()));
        assert_eq!(key(&series, 9, 4), key(&series, 5, 4));
        assert_ne!(key(&series, 9, 4), key(&series, 8, 4));
        assert!(!key(&name("AB"), 0, 4).starts_with(&prefix(&name("A"))));
        for bad in
            [&b""[..], b"\0\0\0", b"A\0\0\0", b"A1234", b"\0\0\0\0\0", b"a*b\0\0\0\0\0", b"\xff\0\0\0\0\0"]
        {
            assert!(series_of(bad).is_err(), "{bad:?}");
        }
    }

    fn name(name: &str) -> SeriesName {
        SeriesName::new(name).unwrap()
    }

    fn random(chance: &mut SmallRng) -> JournalEntry {
        let text = |chance: &mut SmallRng| {
            let len = chance.random_range(0..9);
            (0..len).map(|_| chance.random_range('a'..='ž')).collect::<String>()
        };
        let float = |chance: &mut SmallRng| f32::from_bits(chance.random());
        let size = |chance: &mut SmallRng| if chance.random() { chance.random_range(0..5) } else { 0 };
        let columns = |chance: &mut SmallRng| -> Vec<(String, f32)> {
            (0..size(chance)).map(|_| (text(chance), float(chance))).collect()
        };
        let shift = chance.random_range(0..64);
        JournalEntry {
            seq: chance.random::<u64>() >> shift,
            epoch: chance.random::<u64>() >> shift,
            tick: Tick {
                series: name("s"),
                at: Timestamp(chance.random::<i64>() >> shift),
                value: chance.random::<bool>().then(|| float(chance)),
                hist_exog: columns(chance),
                futr_exog: (0..size(chance))
                    .map(|_| (text(chance), (0..size(chance)).map(|_| float(chance)).collect()))
                    .collect(),
                stat_exog: columns(chance),
                trace: Trace::default(),
            },
        }
    }
}
