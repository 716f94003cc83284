//! The one thread that runs all actix actors of a tree: an actix system of their own, beside any other.

use std::sync::mpsc::Sender;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::actor::{Event, contain};

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread; makes a new one when the old one has died.
pub(crate) struct Arbiter {
    events: Sender<Event>,
    /// One job a launch, so as bounded as the tree.
    jobs: Option<UnboundedSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Arbiter {
    /// No thread yet: a tree of workers needs none.
    pub(crate) fn new(events: Sender<Event>) -> Self {
        Self { events, jobs: None, thread: None }
    }

    /// Runs a job on the thread.
    pub(crate) fn run(&mut self, job: Job) -> std::io::Result<()> {
        let job = match &self.jobs {
            Some(jobs) => match jobs.send(job) {
                Ok(()) => return Ok(()),
                Err(returned) => returned.0,
            },
            None => job,
        };
        let (jobs, queued) = unbounded_channel();
        let events = self.events.clone();
        let thread = thread::Builder::new().name("arbiter".into()).spawn(move || {
            // A panic here takes all its actors along; each reports that it vanished.
            let _ = contain(|| serve(queued));
            let _ = events.send(Event::ArbiterEnded);
        })?;
        // Cannot fail: the thread holds the other end until this one is dropped or it dies.
        let _ = jobs.send(job);
        self.jobs = Some(jobs);
        self.thread = Some(thread);
        Ok(())
    }

    /// Lets the thread end; whatever still runs on it is dropped. False if there is no thread to wait for.
    pub(crate) fn close(&mut self) -> bool {
        self.jobs = None;
        self.thread.is_some()
    }

    /// Called once the thread has reported its end.
    pub(crate) fn reap(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It has contained every panic, and has nothing left to do.
            let _ = thread.join();
        }
    }
}

fn serve(mut jobs: UnboundedReceiver<Job>) {
    actix::System::new().block_on(async move {
        while let Some(job) = jobs.recv().await {
            job();
        }
    });
}
