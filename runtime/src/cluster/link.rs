//! One open link as both of its ends use it: outboxes with their writers, and the way back for answers.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};

use tokio::io::AsyncWriteExt as _;

use crate::address::{AskError, Refusal};
use crate::cluster::exports::Askings;
use crate::cluster::outbox::{Outbox, Unsent};
use crate::cluster::{Incarnation, NodeId};
use crate::fabric::{Lane, LaneWrite as _, LaneWriter, Wire};
use crate::wire::{CodecError, Flags, Header, Kind};

/// Who is at the other end, as proven by its credentials and said in its greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: NodeId,
    /// Hash of `id`.
    pub(crate) key: u64,
    pub(crate) incarnation: Incarnation,
}

/// A link on which this end sends.
pub(crate) struct Path {
    pub(crate) me: Identity,
    pub(crate) peer: Identity,
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) outboxes: Arc<Outboxes>,
    /// Asks that came over it.
    pub(crate) askings: Askings,
    /// Answers that could not be sent, since the asker does not take what it asked for fast enough.
    pub(crate) answers_lost: Arc<AtomicU64>,
}

/// One outbox a lane.
pub(crate) struct Outboxes([Outbox; 4]);

impl Outboxes {
    pub(crate) fn new(lane_bytes_max: usize) -> Self {
        Self(Lane::ALL.map(|_| Outbox::new(lane_bytes_max)))
    }

    pub(crate) fn lane(&self, lane: Lane) -> &Outbox {
        &self.0[lane as usize]
    }

    pub(crate) fn open(&self) {
        self.0.iter().for_each(Outbox::open);
    }

    pub(crate) fn close(&self) {
        self.0.iter().for_each(Outbox::close);
    }
}

impl Path {
    pub(crate) fn answer_header(
        &self,
        kind: Kind,
        lane: Lane,
        correlation: u64,
        asker: u64,
        relayed: bool,
    ) -> Header {
        Header {
            correlation,
            origin: self.me.key,
            incarnation: self.me.incarnation.0,
            destination: asker,
            flags: if relayed { Flags::VIA } else { Flags::default() },
            ..Header::new(kind, lane)
        }
    }

    /// Sends an answer. What cannot be written becomes the reason why there is none.
    pub(crate) fn answer(
        &self,
        header: Header,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), Refusal>,
    ) -> Result<(), AskError> {
        match self.outboxes.lane(header.lane).push(header, body) {
            Ok(()) => Ok(()),
            Err(Unsent::Closed) => Err(AskError::Lost),
            Err(Unsent::Full) => Err(AskError::Full),
            Err(Unsent::Body(refusal)) => Err(AskError::Refused(refusal)),
        }
    }

    /// Says why there is no answer. When not even that can be sent, the asker's deadline ends its ask.
    pub(crate) fn refuse(&self, header: Header, why: AskError) {
        let body = |out: &mut Vec<u8>| -> Result<(), CodecError> {
            out.push(reason_to_byte(why));
            Ok(())
        };
        if self.outboxes.lane(header.lane).push(header, body).is_err() {
            self.answers_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// From here on a piece is handed over as it is; a smaller one is copied for less.
const HANDED_BYTES_MIN: usize = 16 << 10;

/// Writes what gathers in an outbox until the outbox or the lane is closed.
pub(crate) async fn write_lane(outboxes: Arc<Outboxes>, lane: Lane, mut writer: LaneWriter) {
    let outbox = outboxes.lane(lane);
    let mut frames = Vec::new();
    while outbox.take(&mut frames).await {
        let written = if frames.len() < HANDED_BYTES_MIN {
            writer.write_all(&frames).await
        } else {
            let mut piece = outbox.lend(&mut frames);
            poll_fn(|cx| {
                while !piece.is_empty() {
                    ready!(Pin::new(&mut writer).poll_hand_over(cx, &mut piece))?;
                }
                Poll::Ready(Ok(()))
            })
            .await
        };
        if written.is_err() {
            return;
        }
        frames.clear();
    }
}

const REASONS: [AskError; 14] = [
    AskError::Full,
    AskError::Closed,
    AskError::Failed,
    AskError::Deadline,
    AskError::Unreachable,
    AskError::Lost,
    AskError::Refused(Refusal::UnknownService),
    AskError::Refused(Refusal::UnknownType),
    AskError::Refused(Refusal::UnknownVersion),
    AskError::Refused(Refusal::TooLarge),
    AskError::Refused(Refusal::Malformed),
    AskError::Refused(Refusal::Overtaken),
    AskError::Refused(Refusal::OtherLife),
    AskError::Refused(Refusal::NoRoute),
];

pub(crate) fn reason_to_byte(why: AskError) -> u8 {
    // A reason that is not in the list reads as `Failed`.
    REASONS.iter().position(|&reason| reason == why).map_or(u8::MAX, |at| at as u8)
}

/// What a refusal says. A reason of a later version is only known to be one.
pub(crate) fn reason_from_byte(byte: u8) -> AskError {
    REASONS.get(usize::from(byte)).copied().unwrap_or(AskError::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in REASONS {
            assert_eq!(reason_from_byte(reason_to_byte(reason)), reason);
        }
        assert_eq!(reason_from_byte(200), AskError::Failed, "a reason of a later version is still an end");
    }
}
