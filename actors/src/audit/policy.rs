//! What is kept, for how long, in how much room; and what happens to a request that cannot be recorded.

use std::time::Duration;

/// What happens to requests whose records cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They are refused.
    Refuse,
    /// They are answered without a record, which is counted, logged and noted in the chain.
    Serve,
}

/// What an answer's record survives when the caller has the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// Nothing yet: it waits in memory for some milliseconds.
    Nothing,
    /// The death of the process.
    Process,
    /// The loss of power.
    Disk,
}

/// How much is kept, and in which pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Bytes on disk, all in all.
    pub bytes_max: u64,
    /// Older ones are deleted.
    pub age_max: Duration,
}

/// A segment that takes no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Of it and its index.
    pub bytes: u64,
    /// When the one after it began, in milliseconds since 1970: nothing in it is younger.
    pub ended_ms: u64,
}

/// Segments of the largest kind are read whole, and their places have four bytes.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Bytes at which a group ends: hashed and written at the full speed of either, and still soon read for one record of it.
pub(super) const GROUP_BYTES_MAX: u64 = 64 << 10;
/// Pieces in which a store of a small bound, or a short age, is dropped.
const PIECES: u32 = 8;

impl Keep {
    /// Bytes at which a segment ends.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        (self.bytes_max / u64::from(PIECES)).min(SEGMENT_BYTES_MAX)
    }

    /// Bytes at which a group ends, with the record that reaches them: a part of a segment, so that little of one stays
    /// empty.
    #[must_use]
    pub fn group_bytes(&self) -> u64 {
        (self.segment_bytes() / 4).min(GROUP_BYTES_MAX)
    }

    /// Of one record: a larger one would leave no room for any other.
    #[must_use]
    pub fn record_bytes_max(&self) -> u64 {
        (self.bytes_max / 4).min(u64::from(u32::MAX) / 2)
    }

    /// Must a new segment begin before this group? Each takes one, however large.
    #[must_use]
    pub fn rotates(&self, bytes: u64, is_empty: bool, age: Duration, incoming: u64) -> bool {
        !is_empty && (bytes + incoming > self.segment_bytes() || age >= self.age_max / PIECES)
    }

    /// How many of the oldest segments go before a new one begins with `incoming` bytes.
    #[must_use]
    pub fn dropped(&self, sealed: &[Sealed], incoming: u64, now_ms: u64) -> usize {
        // What grows now, and its index.
        let room = self.segment_bytes().max(incoming).saturating_mul(5) / 4;
        let mut bytes = sealed.iter().map(|one| one.bytes).fold(room, u64::saturating_add);
        let age_ms = u64::try_from(self.age_max.as_millis()).unwrap_or(u64::MAX);
        let goes = |one: &&Sealed| {
            let goes = bytes > self.bytes_max || one.ended_ms.saturating_add(age_ms) <= now_ms;
            bytes -= one.bytes;
            goes
        };
        sealed.iter().take_while(goes).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { bytes_max: 800, age_max: Duration::from_millis(80) };

    #[test]
    fn the_oldest_go_until_there_is_room() {
        // A segment of 100 and its index are to come: 125.
        check(&[(100, 0); 6], 0, 1, 0);
        check(&[(100, 0); 7], 0, 1, 1);
        check(&[(100, 0); 9], 0, 1, 3);
        check(&[(300, 0), (300, 0), (50, 0)], 0, 1, 0);
        check(&[(300, 0), (300, 0), (100, 0)], 0, 1, 1);
        check(&[], 0, 1, 0);
        // Until nothing is left of a record that is larger than all of it.
        check(&[(100, 0), (100, 0)], 5_000, 1, 2);
    }

    #[test]
    fn what_is_too_old_goes_and_nothing_behind_it() {
        check(&[(1, 10), (1, 20), (1, 30)], 0, 89, 0);
        check(&[(1, 10), (1, 20), (1, 30)], 0, 90, 1);
        check(&[(1, 10), (1, 20), (1, 30)], 0, 105, 2);
        check(&[(1, 50), (1, 20)], 0, 105, 0); // a clock that was set back
        check(&[(1, 10), (1, u64::MAX)], 0, u64::MAX, 2);
    }

    #[test]
    fn a_segment_ends_when_it_is_full_or_old_and_never_empty() {
        let rotates = |bytes, is_empty, age_ms, incoming| {
            KEEP.rotates(bytes, is_empty, Duration::from_millis(age_ms), incoming)
        };
        assert!(!rotates(60, false, 9, 40));
        assert!(rotates(60, false, 9, 41));
        assert!(rotates(60, false, 10, 1));
        assert!(!rotates(88, true, 1_000, 1_000));
    }

    #[track_caller]
    fn check(sealed: &[(u64, u64)], incoming: u64, now_ms: u64, dropped: usize) {
        let sealed: Vec<Sealed> =
            sealed.iter().map(|&(bytes, ended_ms)| Sealed { bytes, ended_ms }).collect();
        assert_eq!(KEEP.dropped(&sealed, incoming, now_ms), dropped);
    }
}
