//! The message that asks another node for a forecast, and the actors that answer it.
//!
//! What it says is `peregrine_actors`' business; here it gets a name, a version and a lane. Large requests take a lane
//! of their own, or small ones would wait behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_actors::{RemoteAnswer, RemoteForecast, RemoteRefusal, System, TraceParent, WireError};
use peregrine_runtime::{
    CodecError, Deadline, Failure, Inbox, Lane, RemoteMessage, TraceContext, TraceState, Worker,
};
use tokio::runtime::Handle;

use super::seats::Seats;

/// The service that takes it.
pub(super) const SERVICE: &str = "forecast";
/// Layouts of the message; both lanes share them. The first has no `tracestate`, the second has one in front.
const PLAIN: u16 = 1;
const VERSION: u16 = 2;
/// Of a `tracestate`; the standard lets no more be expected.
const STATE_BYTES_MAX: usize = 512;
/// Larger ones, and their answers, are not sent.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// Whoever finds this node full may come back after this.
const RETRY_AFTER_MS: u32 = 20;
/// For an ask that came without a deadline, which none does.
const UNBOUNDED: Duration = Duration::from_secs(60);

/// A forecast asked of another node, and what asks, if that is recorded; the shared request is written where it is
/// sent, not copied.
pub(super) struct AskForecast<const BULK: bool> {
    request: Arc<RemoteForecast>,
    /// Frames carry it.
    trace: Option<TraceContext>,
    state: Option<TraceState>,
}

impl<const BULK: bool> AskForecast<BULK> {
    pub(super) fn new(request: Arc<RemoteForecast>, caller: Option<TraceParent>) -> Self {
        let (trace, state) = caller.map(|caller| (caller.context, caller.state)).unzip();
        Self { request, trace, state: state.flatten() }
    }

    fn caller(&self) -> Option<TraceParent> {
        Some(TraceParent { context: self.trace?, state: self.state.clone() })
    }
}

impl<const BULK: bool> actix::Message for AskForecast<BULK> {
    type Result = Result<RemoteAnswer, RemoteRefusal>;
}

impl<const BULK: bool> RemoteMessage for AskForecast<BULK> {
    const NAME: &'static str = if BULK { "forecast.bulk" } else { "forecast.ask" };
    const VERSION: u16 = VERSION;
    const OLDEST: u16 = PLAIN;
    const BYTES_MAX: usize = BYTES_MAX;
    const LANE: Lane = if BULK { Lane::Bulk } else { Lane::Ask };

    fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    fn layout(&self) -> u16 {
        if self.state.is_some() { VERSION } else { PLAIN }
    }

    fn traced(&mut self, context: TraceContext) {
        self.trace = Some(context);
    }

    fn write(&self, version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        if version > PLAIN {
            let state = self.state.as_ref().map_or("", TraceState::as_str);
            // One that is longer is none of the standard's.
            let state = if state.len() <= STATE_BYTES_MAX { state } else { "" };
            out.extend_from_slice(&(state.len() as u16).to_le_bytes());
            out.extend_from_slice(state.as_bytes());
        }
        self.request.write(out);
        Ok(())
    }

    fn read(version: u16, bytes: &[u8]) -> Result<Self, CodecError> {
        let (state, bytes) = if version > PLAIN { read_state(bytes)? } else { (None, bytes) };
        let request = Arc::new(RemoteForecast::read(bytes).map_err(malformed)?);
        Ok(Self { request, trace: None, state })
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

/// The `tracestate` in front of a request, and the request. What is no such field is passed on to nobody.
fn read_state(bytes: &[u8]) -> Result<(Option<TraceState>, &[u8]), CodecError> {
    let (len, bytes) = bytes.split_first_chunk().ok_or_else(|| malformed(WireError::Short))?;
    let len = usize::from(u16::from_le_bytes(*len));
    if len > STATE_BYTES_MAX {
        return Err(malformed(WireError::TooLarge("tracestate")));
    }
    let (state, bytes) = bytes.split_at_checked(len).ok_or_else(|| malformed(WireError::Short))?;
    Ok((TraceState::parse([state]), bytes))
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
    pub(super) seats: Seats,
}

impl<const BULK: bool> Worker<AskForecast<BULK>> for Desk {
    fn run(&mut self, inbox: &mut Inbox<AskForecast<BULK>>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            let mut slot = envelope.slot;
            let Some(seat) = self.seats.take() else {
                slot.send(Err(RemoteRefusal::Overloaded { retry_after_ms: RETRY_AFTER_MS }));
                continue;
            };
            let deadline = envelope.deadline.unwrap_or_else(|| Deadline::after(Instant::now(), UNBOUNDED));
            let caller = envelope.message.caller();
            let request = Arc::unwrap_or_clone(envelope.message.request);
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

#[cfg(test)]
mod tests {
    use peregrine_runtime::{SpanId, TraceId};

    use super::*;

    type Ask = AskForecast<false>;

    fn ask(state: Option<&str>) -> Ask {
        let request =
            RemoteForecast { model: "m".to_owned(), version: Some(3), may_degrade: true, windows: None };
        let state = state.map(|text| TraceState::parse([text.as_bytes()]).unwrap());
        let (trace, span) = (TraceId::new([7; 16]).unwrap(), SpanId::new([9; 8]).unwrap());
        let context = TraceContext { trace, span, sampled: true };
        Ask::new(Arc::new(request), Some(TraceParent { context, state }))
    }

    fn written(ask: &Ask, version: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        ask.write(version, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_goes_along_with_a_trace_crosses_in_the_second_layout_alone() {
        let long = format!("a={}", "x".repeat(250)) + ",b=" + &"y".repeat(250);
        for state in ["a=1,b=2", &long] {
            let sent = ask(Some(state));
            assert_eq!(sent.layout(), VERSION);
            let mut read = Ask::read(VERSION, &written(&sent, VERSION)).unwrap();
            assert_eq!((&read.request, read.caller()), (&sent.request, None));
            // As the frame says it.
            read.traced(sent.trace.unwrap());
            assert_eq!(read.caller(), sent.caller());
            let former = Ask::read(PLAIN, &written(&sent, PLAIN)).unwrap();
            assert_eq!((&former.request, &former.state), (&sent.request, &None));
        }
    }

    #[test]
    fn without_it_nothing_is_sent_that_an_earlier_version_does_not_read() {
        let sent = ask(None);
        assert_eq!(sent.layout(), PLAIN);
        let mut former = Vec::new();
        sent.request.write(&mut former);
        assert_eq!(written(&sent, PLAIN), former);
        assert_eq!(Ask::read(VERSION, &written(&sent, VERSION)).unwrap().state, None);
    }

    #[test]
    fn a_tracestate_that_is_none_is_refused_or_void() {
        let request = written(&ask(None), PLAIN);
        let with = |len: u16, state: &[u8]| [&len.to_le_bytes()[..], state, &request].concat();
        assert!(Ask::read(VERSION, &with(513, &[b'a'; 513])).is_err());
        assert!(Ask::read(VERSION, &with(u16::MAX, b"a=1")).is_err());
        assert!(Ask::read(VERSION, b"\x01").is_err());
        for void in [&b"A=1"[..], b"\xff\xff", b"a"] {
            let read = Ask::read(VERSION, &with(void.len() as u16, void)).unwrap();
            assert_eq!(read.state, None, "{void:?}");
        }
    }
}
