//! What must hold, told as soon as it does not.

use std::collections::{BTreeMap, BTreeSet};

/// One life of one node.
pub(super) type Life = (usize, u64);

/// One ask: whose, for which shard, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) id: u64,
    pub(super) origin: Life,
    pub(super) shard: u16,
}

#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) custodians: BTreeSet<Life>,
    pub(super) accepted: bool,
    pub(super) processed: usize,
    pub(super) reported: bool,
    pub(super) ended: usize,
}

/// What became of every ask.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) notes: BTreeMap<u64, (Note, Fate)>,
    pub(super) killed: BTreeSet<Life>,
    /// By sender and shard, in the order of processing.
    order: BTreeMap<(Life, u16), Vec<u64>>,
    /// The highest epoch under which a shard was processed.
    fences: BTreeMap<u16, u64>,
}

impl Ledger {
    pub(super) fn asked(&mut self, note: Note) {
        self.notes.insert(note.id, (note, Fate::default()));
    }

    fn fate(&mut self, note: Note) -> &mut Fate {
        &mut self.notes.entry(note.id).or_insert((note, Fate::default())).1
    }

    pub(super) fn accepted(&mut self, note: Note, by: Life) {
        let fate = self.fate(note);
        fate.accepted = true;
        fate.custodians.insert(by);
    }

    pub(super) fn carried(&mut self, note: Note, to: Life) {
        self.fate(note).custodians.insert(to);
    }

    pub(super) fn reported(&mut self, note: Note) {
        self.fate(note).reported = true;
    }

    pub(super) fn ended(&mut self, id: u64) {
        if let Some((_, fate)) = self.notes.get_mut(&id) {
            fate.ended += 1;
        }
    }

    pub(super) fn open(&self, id: u64) -> bool {
        self.notes.get(&id).is_some_and(|(_, fate)| fate.ended == 0)
    }

    pub(super) fn processed(&mut self, note: Note, epoch: u64) -> Result<(), String> {
        let fence = self.fences.entry(note.shard).or_default();
        if epoch < *fence {
            return Err(format!("shard {} is processed under epoch {epoch} after {fence}", note.shard));
        }
        *fence = epoch;
        self.order.entry((note.origin, note.shard)).or_default().push(note.id);
        let fate = self.fate(note);
        fate.processed += 1;
        if fate.processed > 1 { Err(format!("{note:?} is processed twice")) } else { Ok(()) }
    }

    /// After healing: nothing is missing. `calm`: nobody was killed, frozen or cut off.
    pub(super) fn settle(&self, calm: bool, alive: impl Fn(Life) -> bool) -> Result<(), String> {
        for (note, fate) in self.notes.values() {
            if alive(note.origin) && fate.ended != 1 {
                return Err(format!("{note:?} ended {} times", fate.ended));
            }
            let excused = fate.custodians.iter().any(|life| self.killed.contains(life));
            let missing = fate.accepted && fate.processed == 0;
            if missing && !excused && (calm || !fate.reported) {
                return Err(format!("{note:?} was accepted and is lost: {fate:?}"));
            }
        }
        for ids in self.order.values() {
            for pair in ids.windows(2).filter(|pair| pair[0] > pair[1]) {
                let custodians = |id: u64| &self.notes[&id].1.custodians;
                let same = custodians(pair[0]) == custodians(pair[1]) && custodians(pair[0]).len() == 1;
                if calm || same {
                    return Err(format!("{} was processed before {}", pair[0], pair[1]));
                }
            }
        }
        Ok(())
    }

    /// Asked, accepted, processed, and accepted but reported: says that a run did something.
    pub(super) fn counts(&self) -> [usize; 4] {
        let count = |kind: fn(&Fate) -> bool| self.notes.values().filter(|(_, fate)| kind(fate)).count();
        [self.notes.len(), count(|f| f.accepted), count(|f| f.processed > 0), count(|f| f.reported)]
    }
}
