//! The newest of each stream, for a reader that could not keep up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::channel::{Tag, passed_over};
use super::log::Frame;

/// One frame of each stream at most, in the order in which streams came, and what was passed over.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) order: VecDeque<u32>,
    pub(super) by_stream: HashMap<u32, Newest>,
}

#[derive(Debug)]
pub(super) struct Newest {
    /// Numbers that were passed over.
    pub(super) passed: Option<(u64, u64)>,
    /// `None`: the newest that happened was a gap, which `passed` contains.
    pub(super) frame: Option<Frame>,
    pub(super) tag: Arc<Tag>,
}

impl Newest {
    /// The first number that came.
    pub(super) fn first(&self) -> Option<u64> {
        let frame = self.frame.as_ref().map(|frame| frame.seqs.0);
        self.passed.map(|(from, _)| from).into_iter().chain(frame).min()
    }
}

impl Held {
    /// Takes the place of what is held of the same stream; returns whether something was passed over.
    pub(super) fn add(&mut self, frame: &Frame) -> bool {
        let index = frame.stream.index;
        let gap = frame.epoch.is_none();
        let newest = self.by_stream.entry(index).or_insert_with(|| {
            self.order.push_back(index);
            Newest { passed: None, frame: None, tag: Arc::clone(&frame.stream) }
        });
        let old = newest.frame.take();
        let over = old.as_ref().map(|old| old.seqs).or(gap.then_some(frame.seqs));
        if let Some((from, to)) = over {
            let (first, last) = newest.passed.unwrap_or((from, to));
            newest.passed = Some((first.min(from), last.max(to)));
        }
        if gap {
            let (first, last) = newest.passed.unwrap_or(frame.seqs);
            newest.passed = Some((first.min(frame.seqs.0), last.max(frame.seqs.1)));
        } else {
            // A new owner says numbers again: they are not passed over.
            newest.passed = newest
                .passed
                .filter(|(from, _)| *from < frame.seqs.0)
                .map(|(from, to)| (from, to.min(frame.seqs.0.saturating_sub(1))));
            newest.frame = Some(frame.clone());
        }
        old.is_some()
    }

    /// Takes what came after: of each stream the newer takes the place of the older. `skip` is what the reader has
    /// been answered already.
    pub(super) fn absorb(&mut self, newer: Self, skip: &mut Option<HashMap<u32, (u64, u64)>>) {
        let Self { order, mut by_stream } = newer;
        for index in order {
            let Some(mut next) = by_stream.remove(&index) else { continue };
            if let Some((seq, _)) = skip.as_ref().and_then(|streams| streams.get(&index)) {
                let after = |(from, to): (u64, u64)| (from.max(seq.saturating_add(1)), to);
                next.passed = next.passed.map(after).filter(|(from, to)| from <= to);
            }
            next.frame = next.frame.filter(|frame| !passed_over(skip, frame));
            if next.frame.is_none() && next.passed.is_none() {
                continue;
            }
            let Some(old) = self.by_stream.get_mut(&index) else {
                self.order.push_back(index);
                self.by_stream.insert(index, next);
                continue;
            };
            let over = [old.frame.take().map(|frame| frame.seqs), next.passed].into_iter().flatten();
            let passed = over.fold(old.passed, |passed, (from, to)| {
                let (first, last) = passed.unwrap_or((from, to));
                Some((first.min(from), last.max(to)))
            });
            old.passed = match &next.frame {
                // A new owner says numbers again: they are not passed over.
                Some(frame) => passed
                    .filter(|(from, _)| *from < frame.seqs.0)
                    .map(|(from, to)| (from, to.min(frame.seqs.0.saturating_sub(1)))),
                None => passed,
            };
            old.frame = next.frame;
        }
    }
}
