//! The message that asks another node for a forecast, and the actors that answer it.
//!
//! What it says is `peregrine_actors`' business; here it gets a name, a version and a lane. Large requests take a lane
//! of their own, or small ones would wait behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_actors::{RemoteAnswer, RemoteForecast, RemoteRefusal, System, WireError};
use peregrine_runtime::{CodecError, Deadline, Failure, Inbox, Lane, RemoteMessage, TraceContext, Worker};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// The service that takes it.
pub(super) const SERVICE: &str = "forecast";
/// Layouts of the message; both lanes share them.
const VERSION: u16 = 1;
/// Larger ones, and their answers, are not sent.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// Whoever finds this node full may come back after this.
const RETRY_AFTER_MS: u32 = 20;
/// For an ask that came without a deadline, which none does.
const UNBOUNDED: Duration = Duration::from_secs(60);

/// A forecast asked of another node, and what asks, if that is recorded; the shared request is written where it is
/// sent, not copied.
pub(super) struct AskForecast<const BULK: bool>(
    pub(super) Arc<RemoteForecast>,
    pub(super) Option<TraceContext>,
);

impl<const BULK: bool> actix::Message for AskForecast<BULK> {
    type Result = Result<RemoteAnswer, RemoteRefusal>;
}

impl<const BULK: bool> RemoteMessage for AskForecast<BULK> {
    const NAME: &'static str = if BULK { "forecast.bulk" } else { "forecast.ask" };
    const VERSION: u16 = VERSION;
    const OLDEST: u16 = VERSION;
    const BYTES_MAX: usize = BYTES_MAX;
    const LANE: Lane = if BULK { Lane::Bulk } else { Lane::Ask };

    fn trace(&self) -> Option<TraceContext> {
        self.1
    }

    fn traced(&mut self, context: TraceContext) {
        self.1 = Some(context);
    }

    fn write(&self, _version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.write(out);
        Ok(())
    }

    fn read(_version: u16, bytes: &[u8]) -> Result<Self, CodecError> {
        RemoteForecast::read(bytes).map(|request| Self(Arc::new(request), None)).map_err(malformed)
    }

    fn write_answer(answer: &Self::Result, _version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match answer {
            Ok(answer) => {
                out.push(ANSWERED);
                answer.write(out);
            }
            Err(refusal) => {
                out.push(REFUSED);
                refusal.write(out);
            }
        }
        Ok(())
    }

    fn read_answer(_version: u16, bytes: &[u8]) -> Result<Self::Result, CodecError> {
        match bytes.split_first() {
            Some((&ANSWERED, bytes)) => RemoteAnswer::read(bytes).map(Ok).map_err(malformed),
            Some((&REFUSED, bytes)) => RemoteRefusal::read(bytes).map(Err).map_err(malformed),
            Some((code, _)) => Err(CodecError::Malformed(format!("{code} is no kind of answer"))),
            None => Err(CodecError::Malformed("an answer has no bytes".to_owned())),
        }
    }
}

const ANSWERED: u8 = 0;
const REFUSED: u8 = 1;

fn malformed(error: WireError) -> CodecError {
    CodecError::Malformed(error.to_string())
}

/// Answers other nodes. Each request runs as a task of the cluster's runtime and ends with its deadline, or when
/// whoever asked has given up.
pub(super) struct Desk {
    pub(super) system: System,
    pub(super) runtime: Handle,
    /// As many requests of others as may be inside.
    pub(super) seats: Arc<Semaphore>,
}

impl<const BULK: bool> Worker<AskForecast<BULK>> for Desk {
    fn run(&mut self, inbox: &mut Inbox<AskForecast<BULK>>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            let mut slot = envelope.slot;
            let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
                slot.send(Err(RemoteRefusal::Overloaded { retry_after_ms: RETRY_AFTER_MS }));
                continue;
            };
            let deadline = envelope.deadline.unwrap_or_else(|| Deadline::after(Instant::now(), UNBOUNDED));
            let AskForecast(request, caller) = envelope.message;
            let request = Arc::unwrap_or_clone(request);
            let system = self.system.clone();
            self.runtime.spawn(async move {
                let _seat = seat;
                let served = tokio::select! {
                    served = system.serve_remote(request, caller, deadline) => served,
                    // Dropping the work takes it out of its queue.
                    () = slot.abandoned() => return,
                };
                slot.send(served);
            });
        }
        Ok(())
    }
}
