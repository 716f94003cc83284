//! An actor on another node, as an [`Address`](crate::Address) holds it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::address::{AskError, Far, Refusal, TellError};
use crate::alarm::before;
use crate::cluster::NodeId;
use crate::cluster::net::{Net, Peer};
use crate::cluster::outbox::Unsent;
use crate::deadline::Deadline;
use crate::trace::TraceContext;
use crate::wire::{CODEC_BINCODE_2, CodecError, Header, Kind, RemoteMessage, TypeId};

pub(crate) struct RemoteActor<M> {
    net: Arc<Net>,
    peer: Arc<Peer>,
    /// Hash of the service's name.
    target: u64,
    /// Hash of the message's.
    type_id: u32,
    message: PhantomData<fn() -> M>,
}

impl<M: RemoteMessage> RemoteActor<M> {
    pub(crate) fn new(net: Arc<Net>, peer: Arc<Peer>, target: u64) -> Self {
        Self { net, peer, target, type_id: TypeId::of(M::NAME).0, message: PhantomData }
    }

    /// The layout that both sides know, for a message that is whole in `wanted`.
    fn schema(&self, wanted: u16) -> Result<u16, Refusal> {
        let theirs = self.peer.types.lock().get(&self.type_id).copied();
        common(wanted, (M::OLDEST, M::VERSION), theirs).ok_or(Refusal::UnknownVersion)
    }

    fn header(&self, kind: Kind, schema: u16) -> Header {
        Header {
            codec: CODEC_BINCODE_2,
            schema,
            type_id: self.type_id,
            target: self.target,
            ..Header::new(kind, M::LANE)
        }
    }
}

/// Of the layouts from the oldest to the newest on either side, the one that is nearest to `wanted`.
fn common(wanted: u16, ours: (u16, u16), theirs: Option<(u16, u16)>) -> Option<u16> {
    // Not greeted yet, or exported since: the oldest is what most read. The other side refuses what it does not.
    let Some((oldest, newest)) = theirs else { return Some(ours.0) };
    let common = wanted.max(oldest).min(newest);
    (ours.0..=ours.1).contains(&common).then_some(common)
}

fn write<M: RemoteMessage>(message: &M, schema: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    message.write(schema, out)?;
    let bytes = out.len() - start;
    if bytes > M::BYTES_MAX { Err(CodecError::TooLarge { bytes, max: M::BYTES_MAX }) } else { Ok(()) }
}

fn traced(header: Header, context: Option<TraceContext>) -> Header {
    let (trace, span) = TraceContext::for_frame(context);
    Header { trace, span, ..header }
}

fn refusal_of(error: &CodecError) -> Refusal {
    match error {
        CodecError::TooLarge { .. } => Refusal::TooLarge,
        CodecError::Malformed(_) => Refusal::Malformed,
    }
}

impl<M: RemoteMessage> Far<M> for RemoteActor<M> {
    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        let schema = match self.schema(message.layout()) {
            Ok(schema) => schema,
            Err(refusal) => return Err(TellError::Unsendable(message, refusal)),
        };
        let way = match self.net.way(&self.peer) {
            Ok(way) => way,
            Err(AskError::Closed) => return Err(TellError::Closed(message)),
            Err(_) => return Err(TellError::Unreachable(message)),
        };
        let header = traced(self.header(Kind::Tell, schema), message.trace());
        match self.net.send(&self.peer, &way, header, |out| write(&message, schema, out)) {
            Ok(()) => Ok(()),
            Err(Unsent::Full) => Err(TellError::Full(message)),
            Err(Unsent::Closed) => Err(TellError::Unreachable(message)),
            Err(Unsent::Body(error)) => Err(TellError::Unsendable(message, refusal_of(&error))),
        }
    }

    fn ask(&self, message: M, deadline: Deadline) -> BoxFuture<'static, Result<M::Result, AskError>> {
        let started = self.start(&message, deadline);
        Box::pin(async move {
            let (mut waiting, answer) = started?;
            let ended = match before(deadline, answer).await {
                Some(Ok(ended)) => {
                    // Whoever sent the outcome took the ask off the list.
                    waiting.ended = true;
                    ended
                }
                // The other half goes only with an outcome.
                Some(Err(_dropped)) => Err(AskError::Lost),
                None => Err(AskError::Deadline),
            };
            drop(waiting);
            ended
        })
    }

    fn node(&self) -> Option<&NodeId> {
        Some(&self.peer.identity.id)
    }

    fn window(&self) -> (usize, usize) {
        (self.peer.asks.load(Ordering::Relaxed), self.net.limits.asks_per_peer)
    }
}

type Answer<M> = oneshot::Receiver<Result<<M as actix::Message>::Result, AskError>>;

impl<M: RemoteMessage> RemoteActor<M> {
    fn start(&self, message: &M, deadline: Deadline) -> Result<(Waiting, Answer<M>), AskError> {
        let left = deadline.remaining(self.net.now());
        if left.is_zero() {
            return Err(AskError::Deadline);
        }
        let schema = self.schema(message.layout()).map_err(AskError::Refused)?;
        let way = self.net.way(&self.peer)?;
        let window = self.peer.asks.fetch_add(1, Ordering::AcqRel);
        let (sender, answer) = oneshot::channel();
        let from = (self.peer.identity.key, self.peer.identity.incarnation.0);
        let complete = move |outcome: Result<(u16, &[u8]), AskError>| {
            let answer = outcome.and_then(|(schema, bytes)| {
                M::read_answer(schema, bytes).map_err(|error| AskError::Refused(refusal_of(&error)))
            });
            // The asker may have left this very moment.
            let _ = sender.send(answer);
        };
        let id = self.net.pending.insert(from, way.conn.addr, M::BYTES_MAX, Box::new(complete));
        let mut waiting = Waiting {
            net: Arc::clone(&self.net),
            peer: Arc::clone(&self.peer),
            cancel: Header { correlation: id, ..self.header(Kind::Cancel, schema) },
            sent: false,
            ended: false,
        };
        if window >= self.net.limits.asks_per_peer {
            return Err(AskError::Full);
        }
        let budget_us = u32::try_from(left.as_micros()).unwrap_or(u32::MAX).max(1);
        let header = Header { correlation: id, budget_us, ..self.header(Kind::Ask, schema) };
        let header = traced(header, message.trace());
        match self.net.send(&self.peer, &way, header, |out| write(message, schema, out)) {
            Ok(()) => waiting.sent = true,
            Err(Unsent::Full) => return Err(AskError::Full),
            Err(Unsent::Closed) => return Err(AskError::Unreachable),
            Err(Unsent::Body(error)) => return Err(AskError::Refused(refusal_of(&error))),
        }
        // A life that ended between the look at the way and the entry into the list is not in the list it cleared.
        if self.peer.is_gone() {
            return Err(AskError::Lost);
        }
        Ok((waiting, answer))
    }
}

/// An ask on its way; when its asker leaves, the other side is told to stop.
struct Waiting {
    net: Arc<Net>,
    peer: Arc<Peer>,
    cancel: Header,
    sent: bool,
    ended: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.peer.asks.fetch_sub(1, Ordering::AcqRel);
        if !self.ended && self.net.pending.forget(self.cancel.correlation) && self.sent {
            self.net.send_unnumbered(&self.peer, self.cancel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_one_that_both_sides_know() {
        for (wanted, ours, theirs, want) in [
            (2, (1, 2), Some((1, 2)), Some(2)),
            (2, (1, 2), Some((1, 1)), Some(1)),
            (2, (1, 2), Some((2, 3)), Some(2)),
            (2, (1, 2), Some((3, 3)), None),
            (2, (2, 2), Some((1, 1)), None),
            // What is whole in an earlier one is sent in it, for as long as that is read.
            (1, (1, 2), Some((1, 2)), Some(1)),
            (1, (1, 2), Some((2, 2)), Some(2)),
            (1, (1, 1), Some((2, 2)), None),
            // Nothing is known of the other side.
            (2, (1, 2), None, Some(1)),
            (2, (2, 2), None, Some(2)),
        ] {
            assert_eq!(common(wanted, ours, theirs), want, "{wanted} {ours:?} {theirs:?}");
        }
    }
}
