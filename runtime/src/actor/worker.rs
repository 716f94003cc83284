//! Actors on plain threads: one thread an incarnation, everything made, used and dropped on it.

use std::sync::Arc;
use std::thread;

use crate::actor::{Arbiter, Failure, Launch, Report, Worker, contain, make};
use crate::mailbox::{Core, Inbox, Mail};
use crate::supervision::ActorFailure;

type Factory<W> = dyn Fn() -> Result<W, Failure> + Send + Sync;

struct WorkerLaunch<M: Mail, W> {
    name: Arc<str>,
    core: Arc<Core<M>>,
    factory: Arc<Factory<W>>,
    thread: Option<thread::JoinHandle<()>>,
}

pub(crate) fn worker<M: Mail, W: Worker<M>>(
    name: Arc<str>,
    core: Arc<Core<M>>,
    factory: Arc<Factory<W>>,
) -> Box<dyn Launch> {
    Box::new(WorkerLaunch { name, core, factory, thread: None })
}

impl<M: Mail, W: Worker<M>> Launch for WorkerLaunch<M, W> {
    fn launch(&mut self, _arbiter: &mut Arbiter, report: Report) {
        let inbox = self.core.open_inbox();
        let factory = Arc::clone(&self.factory);
        // A thread that cannot be had drops the report, and that reports the incarnation as vanished.
        let spawned = thread::Builder::new()
            .name(self.name.to_string())
            .spawn(move || live(factory.as_ref(), inbox, report));
        match spawned {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::error!(actor = %self.name, %error, "no thread for a worker"),
        }
    }

    fn reap(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It has contained every panic of its actor, and has nothing left to do.
            let _ = thread.join();
        }
    }
}

fn live<M: Mail, W: Worker<M>>(factory: &Factory<W>, mut inbox: Inbox<M>, report: Report) {
    let mut worker = match make(factory) {
        Ok(worker) => worker,
        Err(failure) => return report.ended(failure),
    };
    report.started();
    let ran = contain(|| worker.run(&mut inbox));
    let dropped = contain(|| drop(worker));
    report.ended(match (ran, dropped) {
        (Ok(Err(error)), _) => ActorFailure::Failed(error.into()),
        (Err(message), _) | (Ok(Ok(())), Err(message)) => ActorFailure::Panicked(message),
        (Ok(Ok(())), Ok(())) => ActorFailure::Returned,
    });
}
