//! Which of a series' entries count: values in, values out.

use std::cmp::Reverse;

use peregrine_actors::series::JournalEntry;

/// What counts, and why the rest does not.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// In the order of their numbers, without holes unless the series is scattered.
    pub(super) entries: Vec<JournalEntry>,
    /// Entries that stand before a hole, or are more than the ring holds.
    pub(super) before_hole: u64,
    /// Entries of an owner that a later owner, of a higher epoch, has written past.
    pub(super) superseded: u64,
}

/// Of all that a series has in the store, in any order, the newest that stand without a hole, `ring` at most. Of one that
/// is scattered, whose numbers are these `runs`, the newest in time; nothing unless all are there: what is missing may
/// belong between the others.
///
/// Epochs never fall while numbers rise. Where they do, an owner had died before what it wrote was accepted, and its
/// successor has gone on from an earlier number: what stands after that is the dead one's.
pub(super) fn kept(mut entries: Vec<JournalEntry>, runs: &[(u64, u64)], ring: u32) -> Kept {
    entries.sort_by_key(|entry| entry.seq);
    let all = entries.len();
    let mut epoch = 0;
    entries.retain(|entry| {
        epoch = epoch.max(entry.epoch);
        entry.epoch == epoch
    });
    let superseded = (all - entries.len()) as u64;
    let standing = entries.len();
    // Numbers that end elsewhere are those of a series that is scattered no more.
    let is_scattered = runs.last().map(|run| run.1) == entries.last().map(|entry| entry.seq);
    if runs.is_empty() || !is_scattered {
        let follows = |pair: &[JournalEntry]| pair[0].seq.checked_add(1) == Some(pair[1].seq);
        let hole = entries.windows(2).rposition(|pair| !follows(pair)).map_or(0, |before| before + 1);
        let start = hole.max(entries.len().saturating_sub(ring as usize));
        entries.drain(..start);
    } else {
        entries.dedup_by_key(|entry| entry.seq);
        entries.retain(|entry| runs.iter().any(|&(first, last)| (first..=last).contains(&entry.seq)));
        let want: u128 = runs.iter().map(|&(first, last)| u128::from(last - first) + 1).sum();
        if entries.len() as u128 != want {
            entries.clear();
        }
        entries.sort_by_key(|entry| Reverse(entry.tick.at));
        entries.truncate(ring as usize);
        entries.sort_by_key(|entry| entry.seq);
    }
    Kept { before_hole: (standing - entries.len()) as u64, entries, superseded }
}

#[cfg(test)]
mod tests {
    use peregrine_actors::series::{SeriesName, Tick, Timestamp};

    use super::*;

    #[test]
    fn entries_come_in_order() {
        check(&[(3, 0), (1, 0), (2, 0)], &[1, 2, 3], 0, 0);
        check(&[], &[], 0, 0);
    }

    #[test]
    fn what_stands_before_a_hole_is_left_out() {
        check(&[(1, 0), (2, 0), (4, 0), (5, 0)], &[4, 5], 2, 0);
        check(&[(1, 0), (3, 0), (5, 0)], &[5], 2, 0);
        check(&[(0, 0), (u64::MAX, 0)], &[u64::MAX], 1, 0);
    }

    #[test]
    fn a_ring_that_was_larger_leaves_the_newest() {
        check(&[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)], &[3, 4, 5, 6], 2, 0);
    }

    #[test]
    fn what_a_dead_owner_wrote_past_its_successor_is_none() {
        check(&[(6, 1), (7, 1), (8, 2), (9, 1), (10, 1)], &[6, 7, 8], 0, 2);
        check(&[(8, 2), (9, 3), (10, 2)], &[8, 9], 0, 1);
    }

    #[track_caller]
    fn check(written: &[(u64, u64)], want: &[u64], before_hole: u64, superseded: u64) {
        let got = kept(written.iter().map(|&(seq, epoch)| entry(seq, epoch)).collect(), &[], 4);
        assert_eq!(got.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), want);
        assert_eq!((got.before_hole, got.superseded), (before_hole, superseded));
    }

    fn entry(seq: u64, epoch: u64) -> JournalEntry {
        let tick = Tick {
            series: SeriesName::new("s").unwrap(),
            at: Timestamp(0),
            value: None,
            hist_exog: Vec::new(),
            futr_exog: Vec::new(),
            stat_exog: Vec::new(),
            trace: peregrine_actors::Trace::default(),
        };
        JournalEntry { seq, epoch, tick }
    }
}
