//! Who makes the predictions of one model, and when: the thread that took a tick where nothing waits and the model answers
//! at once, else a task, for which windows gather while a batch is under way and leave together.
//!
//! One at a time serves a model, in the order in which its windows came: `desk` decides whose turn it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::desk::{Call, Desk, Next};
use super::predict::{Tools, Work, serve};

/// The way to the predictions of one model.
pub(super) struct Predictor {
    tools: Arc<Tools>,
    desk: Arc<Mutex<Desk>>,
    bell: mpsc::Sender<()>,
    runtime: Handle,
}

impl Predictor {
    /// Starts the task that makes them, on `runtime`; it ends when this is dropped.
    pub(super) fn start(tools: Tools, queue_max: usize, runtime: &Handle) -> Self {
        let (bell, rung) = mpsc::channel(1);
        let (tools, desk) = (Arc::new(tools), Arc::new(Mutex::new(Desk::new(queue_max))));
        runtime.spawn(run(Arc::clone(&tools), Arc::clone(&desk), rung));
        Self { tools, desk, bell, runtime: runtime.clone() }
    }

    /// Hands a window in; keeps the order of those of one stream if its callers do. It waits until somebody calls
    /// [`Self::answer`] or [`Self::wake`].
    fn submit(&self, work: Work) {
        self.desk.lock().push(work);
    }

    /// Has what was handed in forecast: here and now where that is quick, of which `spent` was so far.
    fn answer(&self, spent: &mut Duration) {
        let mut expected = Duration::ZERO;
        let call = self.desk.lock().call(|work| {
            let takes = self.tools.system.in_line(&work.stream.model, work.key(), *spent);
            expected = takes.unwrap_or_default();
            takes.is_some()
        });
        match call {
            Call::Served => {}
            Call::Task => self.ring(),
            Call::InLine(work) => {
                *spent += expected;
                self.answer_in_line(*work);
            }
        }
    }

    /// Has what was handed in forecast by the task.
    fn wake(&self) {
        if let Call::Task = self.desk.lock().call(|_| false) {
            self.ring();
        }
    }

    fn ring(&self) {
        // Full: it has been rung and not been heard yet. Closed: the node stops.
        let _ = self.bell.try_send(());
    }

    fn answer_in_line(&self, work: Work) {
        let tools = Arc::clone(&self.tools);
        let seat = Seat { desk: Arc::clone(&self.desk), bell: self.bell.clone() };
        let mut turn: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _seat = seat;
            serve(&tools, &mut vec![work]).await;
        });
        // What it may wait for is to be waited for there, not in the caller's runtime, which may end first.
        let _runtime = self.runtime.enter();
        if turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            self.tools.counters.in_line();
        } else {
            self.runtime.spawn(turn);
        }
    }
}

/// Held by whoever serves a model in line; given back, the task serves what has gathered meanwhile.
struct Seat {
    desk: Arc<Mutex<Desk>>,
    bell: mpsc::Sender<()>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.desk.lock().leave() {
            let _ = self.bell.try_send(()); // as `ring`
        }
    }
}

/// Predictors that were handed windows. Whatever becomes of it, they learn of them.
#[derive(Default)]
pub(super) struct Handed {
    predictors: Vec<Arc<Predictor>>,
}

impl Handed {
    /// Hands a window in; its prediction does not begin yet.
    pub(super) fn submit(&mut self, predictor: Arc<Predictor>, work: Work) {
        predictor.submit(work);
        if !self.predictors.iter().any(|known| Arc::ptr_eq(known, &predictor)) {
            self.predictors.push(predictor);
        }
    }

    /// Has the windows forecast, in this thread where that is quick. No lock may be held.
    pub(super) fn answer(mut self) {
        let mut spent = Duration::ZERO;
        while let Some(predictor) = self.predictors.pop() {
            predictor.answer(&mut spent);
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.predictors.iter().for_each(|predictor| predictor.wake());
    }
}

async fn run(tools: Arc<Tools>, desk: Arc<Mutex<Desk>>, mut rung: mpsc::Receiver<()>) {
    let mut batch = Vec::new();
    while rung.recv().await.is_some() {
        loop {
            let next = desk.lock().next(tools.rows_max, &mut batch);
            match next {
                Next::Nothing => break,
                Next::Batch => {}
                Next::Skipped(streams) => streams.iter().for_each(|stream| {
                    (tools.newest)(stream, &mut |work| {
                        let skipped_from = desk.lock().forgive(stream);
                        batch.extend(work.map(|work| Work { skipped_from, ..work }));
                    });
                }),
            }
            serve(&tools, &mut batch).await;
        }
    }
}
