//! What waits to be forecast by one model, and whose turn it is to serve it. Plain values in, plain values out.
//!
//! A queue of windows has an end. A stream that finds it full skips to its newest window once there is room, and says
//! which numbers it skipped.

use std::collections::{HashMap, VecDeque};

use super::predict::Work;
use crate::stream::StreamId;

/// The windows of one model.
#[derive(Debug)]
pub(super) struct Desk {
    works: VecDeque<Work>,
    works_max: usize,
    /// Streams that found no room, with the first number that they skipped.
    skipped: HashMap<StreamId, u64>,
    server: Server,
}

/// Who serves; nobody else may, or predictions of one stream would overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Nobody,
    /// Whoever handed the only window in.
    Caller,
    Task,
}

/// What somebody who handed windows in has to do.
#[derive(Debug)]
pub(super) enum Call {
    /// Nothing: they are seen to.
    Served,
    /// Wake the task.
    Task,
    /// Forecast this one, then [`Desk::leave`].
    InLine(Box<Work>),
}

/// What the task has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sleep.
    Nothing,
    /// Forecast the batch.
    Batch,
    /// Forecast the newest windows of these streams.
    Skipped(Vec<StreamId>),
}

impl Desk {
    pub(super) fn new(works_max: usize) -> Self {
        Self { works: VecDeque::new(), works_max, skipped: HashMap::new(), server: Server::Nobody }
    }

    /// Takes a window in, unless its stream skips.
    pub(super) fn push(&mut self, work: Work) {
        if !self.skipped.is_empty() && self.skipped.contains_key(&work.stream) {
            return; // its newest window is made when there is room
        }
        if let Some(last) = self.works.back_mut()
            && work.windows.is_none()
            && last.windows.is_none()
            && last.stream == work.stream
        {
            last.seq = work.seq; // told together, and no window's place is taken
        } else if self.works.len() < self.works_max {
            self.works.push_back(Work { skipped_from: None, ..work });
        } else {
            self.skipped.insert(work.stream, work.from);
        }
    }

    /// Whose turn it is after windows were handed in. `in_line`: whether the only one there is would be forecast at once.
    pub(super) fn call(&mut self, in_line: impl FnOnce(&Work) -> bool) -> Call {
        if self.server != Server::Nobody || !self.has_more() {
            return Call::Served;
        }
        let alone = self.works.len() == 1 && self.skipped.is_empty();
        match self.works.pop_front_if(|work| alone && in_line(work)) {
            Some(work) => {
                self.server = Server::Caller;
                Call::InLine(Box::new(work))
            }
            None => {
                self.server = Server::Task;
                Call::Task
            }
        }
    }

    /// A caller has served its window; true: the task is to be woken for what came meanwhile.
    pub(super) fn leave(&mut self) -> bool {
        let more = self.has_more();
        self.server = if more { Server::Task } else { Server::Nobody };
        more
    }

    /// Fills the task's next batch, or says what else there is.
    pub(super) fn next(&mut self, rows_max: usize, batch: &mut Vec<Work>) -> Next {
        if !self.works.is_empty() {
            batch.extend(self.works.drain(..self.works.len().min(rows_max)));
            return Next::Batch;
        }
        if !self.skipped.is_empty() {
            return Next::Skipped(self.skipped.keys().take(rows_max).cloned().collect());
        }
        self.server = Server::Nobody;
        Next::Nothing
    }

    /// A stream skips no more; says from which number on it did.
    pub(super) fn forgive(&mut self, stream: &StreamId) -> Option<u64> {
        self.skipped.remove(stream)
    }

    fn has_more(&self) -> bool {
        !self.works.is_empty() || !self.skipped.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use peregrine_shaders::Windows;

    use super::*;
    use crate::series::{SeriesName, Timestamp};

    fn stream(series: &str) -> StreamId {
        StreamId { model: "m".into(), series: SeriesName::new(series).unwrap() }
    }

    fn work(series: &str, seq: u64) -> Work {
        Work {
            stream: stream(series),
            nodes: Vec::new().into(),
            from: seq,
            seq,
            epoch: 1,
            position: seq,
            last: Timestamp(0),
            accepted_at: None,
            since: Timestamp(0),
            windows: Some(Windows::default()),
            skipped_from: None,
            traced: None,
        }
    }

    #[test]
    fn what_has_no_window_is_told_together_and_takes_one_place() {
        let mut desk = Desk::new(3);
        let nothing = |series, seq| Work { windows: None, ..work(series, seq) };
        desk.push(work("a", 1));
        (2..=9).for_each(|seq| desk.push(nothing("a", seq)));
        desk.push(nothing("b", 1));
        let mut batch = Vec::new();
        assert_eq!(desk.next(8, &mut batch), Next::Batch);
        let told: Vec<_> = batch.iter().map(|work| (work.from, work.seq, work.windows.is_some())).collect();
        assert_eq!(told, [(1, 1, true), (2, 9, false), (1, 1, false)]);
    }

    fn taken(desk: &mut Desk, rows_max: usize) -> Vec<u64> {
        let mut batch = Vec::new();
        assert_eq!(desk.next(rows_max, &mut batch), Next::Batch);
        batch.iter().map(|work| work.seq).collect()
    }

    #[test]
    fn the_only_window_is_served_by_who_brought_it() {
        let mut desk = Desk::new(4);
        assert!(matches!(desk.call(|_| true), Call::Served), "there is none");
        desk.push(work("a", 1));
        assert!(matches!(desk.call(|_| true), Call::InLine(work) if work.seq == 1));
        assert!(!desk.leave());
        desk.push(work("a", 2));
        assert!(matches!(desk.call(|_| true), Call::InLine(work) if work.seq == 2));
    }

    #[test]
    fn a_window_that_would_take_long_or_is_not_alone_is_the_tasks() {
        let mut desk = Desk::new(4);
        desk.push(work("a", 1));
        assert!(matches!(desk.call(|_| false), Call::Task));
        assert_eq!(taken(&mut desk, 8), [1]);
        assert_eq!(desk.next(8, &mut Vec::new()), Next::Nothing);
        desk.push(work("a", 2));
        desk.push(work("b", 1));
        assert!(matches!(desk.call(|_| panic!("they leave together")), Call::Task));
        assert_eq!(taken(&mut desk, 8), [2, 1]);
    }

    #[test]
    fn what_comes_while_a_caller_serves_waits_for_the_task() {
        let mut desk = Desk::new(4);
        desk.push(work("a", 1));
        assert!(matches!(desk.call(|_| true), Call::InLine(_)));
        desk.push(work("a", 2));
        assert!(matches!(desk.call(|_| true), Call::Served), "it must not overtake the first");
        assert!(desk.leave(), "the task is woken");
        desk.push(work("a", 3));
        assert!(matches!(desk.call(|_| true), Call::Served), "the task has it");
        assert_eq!(taken(&mut desk, 8), [2, 3]);
        desk.push(work("a", 4));
        assert!(matches!(desk.call(|_| true), Call::Served), "the task looks again before it sleeps");
        assert_eq!(taken(&mut desk, 8), [4]);
        assert_eq!(desk.next(8, &mut Vec::new()), Next::Nothing);
        desk.push(work("a", 5));
        assert!(matches!(desk.call(|_| true), Call::InLine(_)));
    }

    #[test]
    fn a_stream_without_room_skips_until_the_queue_is_empty() {
        let mut desk = Desk::new(2);
        (1..=4).for_each(|seq| desk.push(work("a", seq)));
        assert!(matches!(desk.call(|_| true), Call::Task));
        assert_eq!(taken(&mut desk, 1), [1]);
        desk.push(work("a", 5));
        desk.push(work("b", 1));
        assert_eq!(taken(&mut desk, 8), [2, 1], "b finds room, a skips");
        assert_eq!(desk.next(8, &mut Vec::new()), Next::Skipped(vec![stream("a")]));
        assert_eq!(desk.forgive(&stream("a")), Some(3));
        assert_eq!(desk.next(8, &mut Vec::new()), Next::Nothing);
    }

    #[test]
    fn a_caller_serves_nothing_before_what_was_skipped() {
        let mut desk = Desk::new(1);
        desk.push(work("a", 1));
        assert!(matches!(desk.call(|_| true), Call::InLine(_)));
        desk.push(work("a", 2));
        desk.push(work("b", 7));
        assert!(desk.leave());
        assert_eq!(taken(&mut desk, 8), [2]);
        desk.push(work("a", 3));
        assert!(matches!(desk.call(|_| true), Call::Served));
        assert_eq!(taken(&mut desk, 8), [3]);
        assert_eq!(desk.next(8, &mut Vec::new()), Next::Skipped(vec![stream("b")]));
    }
}
