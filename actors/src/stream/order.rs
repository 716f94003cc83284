//! The order of one stream's events: what is passed on, what came twice, what is missing.
//!
//! Pure. Sequence numbers are passed on without holes; a hole is either filled by a repair or becomes a gap that says
//! so. An owner that took a series over says a number again under a higher epoch, and is believed.

use std::collections::VecDeque;

use super::prediction::{Gap, GapReason, StreamEvent, StreamId};

/// Events of one stream that may wait for what is missing before them.
const HELD_MAX: usize = 256;

/// What comes of an event.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// To be passed on, in this order.
    pub(super) events: Vec<StreamEvent>,
    /// Everything from this number on is to be asked for.
    pub(super) repair_from: Option<u64>,
}

/// Where a stream is.
#[derive(Debug)]
pub(super) struct Order {
    stream: StreamId,
    /// Number and epoch of the last that was passed on.
    last: Option<(u64, u64)>,
    /// Behind a hole, as they came.
    held: VecDeque<StreamEvent>,
    repairing: bool,
}

impl Order {
    pub(super) fn new(stream: StreamId) -> Self {
        Self { stream, last: None, held: VecDeque::new(), repairing: false }
    }

    /// Number of the last event that was passed on.
    pub(super) fn last(&self) -> Option<u64> {
        self.last.map(|(seq, _)| seq)
    }

    /// What happened up to here was learnt by other ways. No effect on a stream that has begun.
    pub(super) fn begin(&mut self, seq: u64, epoch: u64) -> bool {
        let new = self.last.is_none();
        if new {
            self.last = Some((seq, epoch));
        }
        new
    }

    /// An event came.
    pub(super) fn offer(&mut self, event: StreamEvent) -> Passed {
        let mut passed = Passed::default();
        if self.repairing {
            self.hold(event, &mut passed);
            return passed;
        }
        if let Err(early) = self.accept(event, &mut passed.events) {
            self.repairing = true;
            self.held.push_back(early);
            passed.repair_from = self.last.map(|(seq, _)| seq.saturating_add(1));
        }
        passed
    }

    /// What the repair brought; nothing when it failed. What still is missing is lost.
    pub(super) fn repaired(&mut self, events: Vec<StreamEvent>) -> Passed {
        let mut passed = Passed::default();
        self.repairing = false;
        // What overtook others waits no less than they do.
        self.held.make_contiguous().sort_by_key(first);
        for event in events.into_iter().chain(std::mem::take(&mut self.held)) {
            self.force(event, &mut passed.events);
        }
        passed
    }

    fn hold(&mut self, event: StreamEvent, passed: &mut Passed) {
        self.held.push_back(event);
        if self.held.len() > HELD_MAX {
            *passed = self.repaired(Vec::new());
        }
    }

    /// Passes an event on, whatever is missing before it.
    fn force(&mut self, event: StreamEvent, out: &mut Vec<StreamEvent>) {
        let Err(early) = self.accept(event, out) else { return };
        let Some((seq, epoch)) = self.last else { return };
        let to = first(&early).saturating_sub(1);
        let gap =
            Gap { stream: self.stream.clone(), from: seq.saturating_add(1), to, reason: GapReason::Lost };
        out.push(StreamEvent::Gap(gap));
        self.last = Some((to, epoch));
        // Nothing is missing before it any more.
        let _ = self.accept(early, out);
    }

    /// Passes an event on unless it is known already; hands it back when something is missing before it.
    fn accept(&mut self, event: StreamEvent, out: &mut Vec<StreamEvent>) -> Result<(), StreamEvent> {
        let Some((last, last_epoch)) = self.last else {
            self.last = Some((end(&event), epoch(&event).unwrap_or(0)));
            out.push(event);
            return Ok(());
        };
        match event {
            StreamEvent::Prediction(one) => {
                let newer_owner = one.epoch > last_epoch;
                if one.epoch < last_epoch || (one.seq <= last && !newer_owner) {
                    return Ok(());
                }
                if one.seq > last.saturating_add(1) {
                    return Err(StreamEvent::Prediction(one));
                }
                self.last = Some((one.seq, one.epoch));
                out.push(StreamEvent::Prediction(one));
            }
            StreamEvent::Gap(mut gap) => {
                if gap.to <= last || gap.to < gap.from {
                    return Ok(());
                }
                if gap.from > last.saturating_add(1) {
                    return Err(StreamEvent::Gap(gap));
                }
                gap.from = last.saturating_add(1);
                self.last = Some((gap.to, last_epoch));
                out.push(StreamEvent::Gap(gap));
            }
        }
        Ok(())
    }
}

/// The first sequence number that an event is about.
pub(super) fn first(event: &StreamEvent) -> u64 {
    match event {
        StreamEvent::Prediction(one) => one.seq,
        StreamEvent::Gap(gap) => gap.from,
    }
}

/// The last sequence number that an event is about.
pub(super) fn end(event: &StreamEvent) -> u64 {
    match event {
        StreamEvent::Prediction(one) => one.seq,
        StreamEvent::Gap(gap) => gap.to,
    }
}

/// Under which epoch a prediction was made; a gap has none.
pub(super) fn epoch(event: &StreamEvent) -> Option<u64> {
    match event {
        StreamEvent::Prediction(one) => Some(one.epoch),
        StreamEvent::Gap(_) => None,
    }
}
