//! What waits for the writer: bounded by entries, taken in batches, in the order in which it came.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peregrine_actors::series::{JournalEntry, JournalError, Scatter, SeriesName};
use tokio::sync::oneshot;

/// Entries that wait; more are refused.
pub(super) const ENTRIES_MAX: usize = 1 << 16;
/// Entries of one commit: what comes meanwhile is in the next.
const BATCH_ENTRIES: usize = 1 << 13;

/// Something to be written.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) task: Task,
    /// Told when it is kept, or why it is not.
    pub(super) done: oneshot::Sender<Result<(), JournalError>>,
}

#[derive(Debug)]
pub(super) enum Task {
    Append(Vec<JournalEntry>, Vec<Scatter>),
    Forget(SeriesName),
}

impl Task {
    /// What it counts for; nothing is free.
    fn weight(&self) -> usize {
        match self {
            Self::Append(entries, scattered) => {
                let aside = scattered.iter().map(|scatter| scatter.aside.len()).sum::<usize>();
                (entries.len() + aside).max(1)
            }
            Self::Forget(_) => 1,
        }
    }
}

/// What the writer finds.
#[derive(Debug)]
pub(super) enum Taken {
    Work(Vec<Work>),
    /// Nothing came for as long as it would wait.
    Nothing,
    /// Nothing is left and nothing will come.
    Closed,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    work: VecDeque<Work>,
    weight: usize,
    is_closed: bool,
}

impl Queue {
    /// Whatever fits, fits whole; a single piece of work larger than the queue fits an empty one.
    pub(super) fn push(&self, work: Work) -> Result<(), JournalError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(JournalError::Disk("the journal is closed".to_owned()));
        }
        let weight = work.task.weight();
        if state.weight > 0 && state.weight + weight > ENTRIES_MAX {
            return Err(JournalError::Full);
        }
        state.weight += weight;
        state.work.push_back(work);
        drop(state);
        self.came.notify_one();
        Ok(())
    }

    /// Waits at most so long; `None`: until something comes.
    pub(super) fn take(&self, wait_max: Option<Duration>) -> Taken {
        let is_idle = |state: &mut State| state.work.is_empty() && !state.is_closed;
        let state = self.state();
        let mut state = match wait_max {
            None => self.came.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(wait_max) => {
                let waited = self.came.wait_timeout_while(state, wait_max, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let mut batch = Vec::new();
        let mut weight = 0;
        while let Some(next) = state.work.front().map(|work| work.task.weight())
            && (weight == 0 || weight + next <= BATCH_ENTRIES)
        {
            weight += next;
            batch.extend(state.work.pop_front());
        }
        state.weight -= weight;
        match (batch.is_empty(), state.is_closed) {
            (false, _) => Taken::Work(batch),
            (true, false) => Taken::Nothing,
            (true, true) => Taken::Closed,
        }
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.came.notify_one();
    }

    /// Entries that wait.
    pub(super) fn len(&self) -> usize {
        self.state().weight
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under it can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_an_empty_one_takes_anything() {
        check(&[ENTRIES_MAX, 1], &[true, false]);
        check(&[1, ENTRIES_MAX - 1, 1], &[true, true, false]);
        check(&[ENTRIES_MAX + 5], &[true]);
        check(&[0, ENTRIES_MAX], &[true, false]);
    }

    #[test]
    fn batches_are_bounded_and_in_order() {
        let queue = filled(&[BATCH_ENTRIES, 1, 2, BATCH_ENTRIES]);
        assert_eq!(sizes(queue.take(None)), [BATCH_ENTRIES]);
        assert_eq!(sizes(queue.take(None)), [1, 2]);
        assert_eq!(sizes(queue.take(None)), [BATCH_ENTRIES]);
        assert_eq!(queue.len(), 0);
        assert!(matches!(queue.take(Some(Duration::ZERO)), Taken::Nothing));
    }

    #[test]
    fn what_was_queued_before_the_end_is_still_taken() {
        let queue = filled(&[3]);
        queue.close();
        assert!(matches!(queue.push(work(1)), Err(JournalError::Disk(_))));
        assert_eq!(sizes(queue.take(None)), [3]);
        assert!(matches!(queue.take(None), Taken::Closed));
    }

    #[track_caller]
    fn check(pushes: &[usize], accepted: &[bool]) {
        let queue = Queue::default();
        let got: Vec<bool> = pushes.iter().map(|&len| queue.push(work(len)).is_ok()).collect();
        assert_eq!(got, accepted);
    }

    fn filled(pushes: &[usize]) -> Queue {
        let queue = Queue::default();
        pushes.iter().for_each(|&len| queue.push(work(len)).unwrap());
        queue
    }

    fn sizes(taken: Taken) -> Vec<usize> {
        let Taken::Work(batch) = taken else { panic!("nothing was taken") };
        batch
            .iter()
            .map(|work| if let Task::Append(entries, _) = &work.task { entries.len() } else { 0 })
            .collect()
    }

    fn work(len: usize) -> Work {
        let entry = super::super::tests::entry("s", 0, 0.0);
        Work { task: Task::Append(vec![entry; len], Vec::new()), done: oneshot::channel().0 }
    }
}
