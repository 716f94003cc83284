//! One actor per device: a thread that owns nothing but the right to wait, and serves the device's [`Line`].
//!
//! It sleeps on its mailbox while the line is empty, and is supervised like any actor: when the device is lost or the
//! executor panics it ends, and its next incarnation builds the executor anew.

mod admission;
mod batch;
mod check;
mod engine;
mod job;
mod judge;
mod ladder;
mod ledger;
mod line;
mod pace;
mod residents;
mod speed;
mod spread;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actix::Message;
use peregrine_runtime::{Envelope, Failure, Inbox, Received, Worker};
use peregrine_shaders::{ExecuteError, Executor, Plan};

pub use admission::AdmissionLimits;
pub(crate) use admission::Turned;
pub use batch::BatchLimits;
pub use check::CheckLimits;
pub(crate) use check::Sampler;
pub(crate) use job::{Answer, Job, Served};
pub(crate) use judge::{Judge, Outcome, Ticket};
pub use ladder::Ladder;
pub(crate) use ledger::Ledger;
pub(crate) use line::{Line, LineSpec, Refused};
pub(crate) use pace::{Expected, Pace};
pub(crate) use residents::{Kept, ROWS_MAX as RESIDENT_ROWS_MAX};
pub use spread::Spread;

use crate::profile::Residence;
use engine::{Broken, Engine};

/// Builds the executor of a device; called again whenever the device has been lost.
pub type ExecutorFactory = Arc<dyn Fn() -> Result<Box<dyn Executor>, ExecuteError> + Send + Sync>;

/// What a device actor is told.
#[derive(Message)]
#[rtype(result = "Result<(), ExecuteError>")]
pub(crate) enum Order {
    /// The line is no longer empty.
    Wake,
    /// Bring a model to the device; of a guest, only find out that its weights fit.
    Prepare { plan: Arc<Plan>, residence: Residence },
    /// The executor broke in a caller's thread. The actor may have found out by itself: then its successor reads this.
    Lost(String),
    /// The executor answers wrongly.
    Rebuild(String),
}

/// The actor; its executor lies in the line, where an idle moment lets callers use it directly.
pub(crate) struct Device {
    line: Arc<Line>,
}

impl Device {
    /// Builds the executor and opens the line.
    pub(crate) fn open(line: &Arc<Line>, factory: &ExecutorFactory) -> Result<Self, Failure> {
        let built = Opening { line, done: false }.build(factory);
        match built {
            Ok(executor) => {
                let name = executor.device().to_owned();
                line.open(Engine::new(executor), &name)?;
                Ok(Self { line: Arc::clone(line) })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn obey(&mut self, envelope: Envelope<Order>) -> Result<(), Failure> {
        match envelope.message {
            Order::Wake => Ok(()),
            Order::Prepare { plan, residence } => match self.line.prepare(&plan, residence) {
                Ok(()) => {
                    envelope.slot.send(Ok(()));
                    Ok(())
                }
                Err(broken) => {
                    let fatal = broken.is_fatal();
                    let why = broken.to_string();
                    if let Broken::Refused(error) = broken {
                        envelope.slot.send(Err(error));
                    }
                    if fatal { Err(why.into()) } else { Ok(()) }
                }
            },
            Order::Lost(_) if self.line.has_executor() => Ok(()),
            Order::Lost(why) | Order::Rebuild(why) => Err(why.into()),
        }
    }
}

impl Worker<Order> for Device {
    fn run(&mut self, inbox: &mut Inbox<Order>) -> Result<(), Failure> {
        loop {
            match inbox.try_recv() {
                Received::Mail(envelope) => self.obey(envelope)?,
                Received::Stop => break,
                Received::Nothing => {
                    if self.line.serve()? || !self.line.doze() {
                        continue;
                    }
                    match inbox.recv() {
                        Some(envelope) => self.obey(envelope)?,
                        None => break,
                    }
                }
            }
        }
        while self.line.serve()? {}
        self.line.shut("stopped");
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.line.interrupt("its actor failed");
    }
}

/// Notices when a factory fails or panics.
struct Opening<'a> {
    line: &'a Line,
    done: bool,
}

impl Opening<'_> {
    fn build(mut self, factory: &ExecutorFactory) -> Result<Box<dyn Executor>, ExecuteError> {
        let built = factory();
        self.done = true;
        if let Err(error) = &built {
            self.line.end(&error.to_string());
        }
        built
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.line.end("its factory panicked");
        }
    }
}
