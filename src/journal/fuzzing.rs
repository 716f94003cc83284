//! What a disk may hand back, as a function of bytes; see [`crate::fuzzing`].

use peregrine_actors::series::{JournalEntry, Tick};

use super::entry::{decode, encode, series_of};

/// A byte with the length of the key, the key, then the value: what is read writes itself back as it was read.
pub fn journal(input: &[u8]) -> bool {
    let Some((&len, rest)) = input.split_first() else { return false };
    let Some((key, value)) = rest.split_at_checked(usize::from(len)) else { return false };
    let Ok(series) = series_of(key) else { return false };
    let Ok(entry) = decode(series.clone(), value) else { return false };
    let written = encode(&entry);
    let again = decode(series, &written).expect("what was written is read");
    assert_eq!(encode(&again), written, "as bytes, since a NaN is not equal to itself");
    true
}

/// A tick that was taken comes back from the disk as it was.
pub(crate) fn comes_back(tick: Tick) {
    let series = tick.series.clone();
    let entry = JournalEntry { seq: u64::MAX, epoch: 1, tick };
    let again = decode(series, &encode(&entry)).expect("what was written is read");
    assert_eq!((again.seq, again.epoch, again.tick), (entry.seq, entry.epoch, entry.tick));
}
