//! Which series there are, a page at a time.

use super::history::History;
use super::tick::{SeriesName, Timestamp};

/// A series and how far it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesEntry {
    /// What it is called.
    pub name: SeriesName,
    /// Number of its newest tick.
    pub seq: u64,
    /// Observations kept.
    pub kept: usize,
    /// When the oldest of them was made.
    pub first: Timestamp,
    /// When the newest was.
    pub last: Timestamp,
}

/// A page of the series of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their names.
    pub series: Vec<SeriesEntry>,
    /// Nodes that did not answer: what they own is not listed.
    pub silent: Vec<String>,
    /// Shards whose owners answered.
    pub shards: usize,
}

impl SeriesEntry {
    /// `None`: nothing is kept of it.
    pub(super) fn of(name: &SeriesName, history: &History) -> Option<Self> {
        let times = history.times();
        let (first, last) = (Timestamp(*times.front()?), Timestamp(*times.back()?));
        Some(Self { name: name.clone(), seq: history.seq(), kept: history.len(), first, last })
    }
}

/// Leaves the first of them, in the order of their names. Of one that several nodes name while it changes hands the entry
/// that goes furthest stays.
pub fn page(all: &mut Vec<SeriesEntry>, count_max: usize) {
    all.sort_by(|a, b| a.name.cmp(&b.name).then(b.seq.cmp(&a.seq)));
    all.dedup_by(|later, kept| later.name == kept.name);
    all.truncate(count_max);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, seq: u64) -> SeriesEntry {
        let name = SeriesName::new(name).expect("a name");
        SeriesEntry { name, seq, kept: 1, first: Timestamp(1), last: Timestamp(2) }
    }

    #[test]
    fn a_page_has_the_first_names_each_once() {
        let mut all = vec![entry("c", 1), entry("a", 3), entry("b", 1), entry("a", 7), entry("a", 5)];
        page(&mut all, 2);
        assert_eq!(all, [entry("a", 7), entry("b", 1)]);
        page(&mut all, 0);
        assert_eq!(all, []);
    }
}
