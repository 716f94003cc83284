//! What comes over a link: frames are checked, taken apart and handed to whom they are for.
//!
//! Bytes are hostile even from a member. A frame that breaks the rules ends its link; a message that is not
//! wanted is refused, with a reason that its sender sees.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::buf::Limit;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::address::{AskError, Refusal};
use crate::cluster::exports::{Call, Export, Payload, Receiver, deadline_of};
use crate::cluster::link::{Path, reason_from_byte};
use crate::cluster::net::Net;
use crate::cluster::order::Order;
use crate::cluster::spare::Spare;
use crate::fabric::{Lane, LaneReader};
use crate::trace::TraceContext;
use crate::wire::{CodecError, FRAME_BODY_BYTES_MAX, Flags, FrameError, HEADER_BYTES, Header, Kind};

#[cfg(test)]
mod tests;

/// Read at a time; what a peer announces is never allocated before it comes.
const READ_BYTES: usize = 64 << 10;
/// A body of this length or more is gathered in memory of its own, if it does not come at once.
const LARGE_BYTES: usize = 16 << 10;
/// What such a body is given at first, if it is as long.
const LARGE_BYTES_FIRST: usize = 256 << 10;
/// Memory for such bodies that a lane keeps, and for how long when nothing comes.
const KEPT_BYTES_MAX: usize = 4 << 20;
const REST: Duration = Duration::from_millis(100);
/// Longest gossip message: the bound of its own protocol.
pub(crate) const GOSSIP_BYTES_MAX: u32 = 65_507;

pub(crate) struct Reader {
    net: Arc<Net>,
    pub(crate) path: Arc<Path>,
    order: Arc<Order>,
    /// By which gossip knows the peer; nothing on a link that was dialled, where no gossip comes.
    gossips_as: Option<SocketAddr>,
    /// Messages nobody waits for that were not taken, until the peer is told.
    untaken: Mutex<BTreeMap<u8, (AskError, u32)>>,
}

/// Why a link is given up.
#[derive(Debug, thiserror::Error)]
enum Violation {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a frame of lane {0:?} came on another")]
    OtherLane(Lane),
    #[error("a frame in another's name")]
    OtherOrigin,
    #[error("{0:?} does not belong here")]
    Misplaced(Kind),
    #[error("a body of {0} bytes that may not be so long")]
    TooLong(u32),
}

/// What is done with a body before it has come.
enum Plan {
    Keep,
    Skip(Option<Refusal>),
}

impl Reader {
    pub(crate) fn dialled(net: &Arc<Net>, path: &Arc<Path>) -> Self {
        Self::new(net, path, None)
    }

    pub(crate) fn accepted(net: &Arc<Net>, path: &Arc<Path>, gossips_as: SocketAddr) -> Self {
        Self::new(net, path, Some(gossips_as))
    }

    fn new(net: &Arc<Net>, path: &Arc<Path>, gossips_as: Option<SocketAddr>) -> Self {
        let order = net.orders.of(path.peer.key, path.peer.incarnation.0);
        Self { net: Arc::clone(net), path: Arc::clone(path), order, gossips_as, untaken: Mutex::default() }
    }

    pub(crate) async fn read_datagrams(self: Arc<Self>) {
        while let Some(datagram) = self.path.wire.recv_datagram().await {
            self.gossip(datagram);
        }
    }

    fn gossip(&self, message: Bytes) {
        if let Some(from) = self.gossips_as {
            // Full: gossip is lossy by design, and the next round says it again.
            let _ = self.net.gossip.try_send((from, message));
        }
    }

    /// Whether a body is wanted; asked again while it comes.
    fn plan(&self, header: &Header, whole: bool, receiver: &mut Receiver) -> Result<Plan, Violation> {
        let direct = !header.flags.has(Flags::RELAYED);
        if direct
            && matches!(header.kind, Kind::Tell | Kind::Ask | Kind::Cancel | Kind::Answer | Kind::Refusal)
            && header.origin != self.path.peer.key
        {
            return Err(Violation::OtherOrigin);
        }
        if matches!(header.kind, Kind::Tell | Kind::Ask)
            && direct
            && header.incarnation != self.path.peer.incarnation.0
        {
            return Err(Violation::OtherOrigin);
        }
        let too_long = |max: u32| if header.body_bytes > max { Err(Violation::TooLong(max)) } else { Ok(()) };
        match header.kind {
            Kind::Hello | Kind::Welcome => return Err(Violation::Misplaced(header.kind)),
            Kind::Gossip => too_long(GOSSIP_BYTES_MAX)?,
            Kind::Goodbye | Kind::Cancel => too_long(0)?,
            Kind::Refusal => too_long(8)?,
            Kind::Tell | Kind::Ask | Kind::Answer if header.destination != self.net.me.key => {
                if header.body_bytes > self.net.limits.relayed_bytes {
                    return Ok(Plan::Skip(Some(Refusal::TooLarge)));
                }
            }
            // One that is here whole is judged when it is handed over.
            Kind::Answer if whole => {}
            Kind::Answer => {
                if header.body_bytes as usize > self.net.pending.answer_bytes_max(header.correlation) {
                    return Ok(Plan::Skip(None));
                }
            }
            Kind::Tell | Kind::Ask => match receiver.find(&self.net.exports, header) {
                Err(refusal) => return Ok(Plan::Skip(Some(refusal))),
                Ok(export) => {
                    if let Some(refusal) = unreadable(header, export) {
                        return Ok(Plan::Skip(Some(refusal)));
                    }
                }
            },
        }
        Ok(Plan::Keep)
    }

    async fn take(
        &self,
        header: Header,
        body: Payload<'_>,
        receiver: &mut Receiver,
    ) -> Result<(), Violation> {
        match header.kind {
            Kind::Gossip => self.gossip(Bytes::copy_from_slice(body.as_ref())),
            Kind::Goodbye => {
                let life = (self.path.peer.id.clone(), self.path.peer.incarnation);
                // Full: the failure detector finds out by itself, later.
                let _ = self.net.goodbyes.try_send(life);
            }
            _ if header.destination != self.net.me.key => {
                if let Err(why) = self.net.forward(header, body.as_ref()) {
                    self.refuse(&header, why);
                }
            }
            Kind::Tell | Kind::Ask => self.deliver(&header, body, receiver).await,
            Kind::Answer => {
                let outcome = Ok((header.schema, body.as_ref()));
                self.net.pending.complete(header.correlation, header.origin, outcome);
            }
            Kind::Refusal => self.refused(&header, body.as_ref()),
            Kind::Cancel => self.path.askings.cancel(header.origin, header.correlation),
            Kind::Hello | Kind::Welcome => return Err(Violation::Misplaced(header.kind)),
        }
        Ok(())
    }

    async fn deliver(&self, header: &Header, body: Payload<'_>, receiver: &mut Receiver) {
        if header.destination_incarnation != self.net.me.incarnation.0 {
            return self.refuse(header, AskError::Refused(Refusal::OtherLife));
        }
        let export = match receiver.find(&self.net.exports, header) {
            Ok(export) => export,
            Err(refusal) => return self.refuse(header, AskError::Refused(refusal)),
        };
        if header.kind == Kind::Tell
            && let Some(room) = export.room()
        {
            // It makes no room asleep.
            export.rouse();
            room.await;
        }
        let relayed_order;
        let order = if header.flags.has(Flags::RELAYED) {
            relayed_order = self.net.orders.of(header.origin, header.incarnation);
            &relayed_order
        } else {
            &self.order
        };
        // Held while the message is handed over, so that one that came another way cannot slip between.
        let turn = order.turn(header.lane, header.sequence);
        if turn.is_none() {
            return self.refuse(header, AskError::Refused(Refusal::Overtaken));
        }
        if header.kind == Kind::Tell {
            match export.tell(header.schema, body, traced(header)) {
                Ok(()) => receiver.handed(),
                Err(why) => {
                    drop(turn);
                    self.refuse(header, why);
                }
            }
            return;
        }
        let limit = self.net.limits.asks_per_link;
        let Some(asking) = self.path.askings.enter(header.origin, header.correlation, limit) else {
            drop(turn);
            return self.refuse(header, AskError::Full);
        };
        let call = Call {
            path: Arc::clone(&self.path),
            lane: header.lane,
            correlation: header.correlation,
            origin: header.origin,
            relayed: header.flags.has(Flags::RELAYED),
            asking,
        };
        let deadline = deadline_of(header.budget_us, self.net.now());
        match export.ask(header.schema, body, deadline, (call, traced(header))) {
            Ok(()) => receiver.handed(),
            Err(why) => self.net.stats.refuse(why),
        }
    }

    /// Says why a message was not taken: an asker at once, a teller with the next batch.
    fn refuse(&self, header: &Header, why: AskError) {
        match header.kind {
            Kind::Ask => {
                let relayed = header.flags.has(Flags::RELAYED);
                let refusal = self.path.answer_header(
                    Kind::Refusal,
                    header.lane,
                    header.correlation,
                    header.origin,
                    relayed,
                );
                // Who refuses to pass it on answers in the name of whom it was for: the asker waits for that one.
                let origin =
                    if header.destination == self.net.me.key { refusal.origin } else { header.destination };
                let flags = if origin == refusal.origin { refusal.flags } else { Flags::RELAYED };
                self.path.refuse(Header { origin, flags, ..refusal }, why);
            }
            Kind::Tell => {
                let mut untaken = self.untaken.lock();
                let entry = untaken.entry(crate::cluster::link::reason_to_byte(why)).or_insert((why, 0));
                entry.1 = entry.1.saturating_add(1);
            }
            _ => return,
        }
        self.net.stats.refuse(why);
    }

    fn refused(&self, header: &Header, body: &[u8]) {
        let Some((&reason, count)) = body.split_first() else { return };
        let why = reason_from_byte(reason);
        if header.correlation == 0 {
            let count = count.first_chunk().map_or(1, |bytes| u32::from_le_bytes(*bytes));
            self.net.stats.tell_refused(why, count.into());
        } else {
            self.net.pending.complete(header.correlation, header.origin, Err(why));
        }
    }

    /// Tells the peer how many of its tells were not taken.
    fn report_untaken(&self, lane: Lane) {
        let untaken = std::mem::take(&mut *self.untaken.lock());
        for (reason, (_, count)) in untaken {
            let header = self.path.answer_header(Kind::Refusal, lane, 0, self.path.peer.key, false);
            // Full: counted here all the same.
            let _ = self.path.outboxes.lane(lane).push(header, |out| -> Result<(), CodecError> {
                out.push(reason);
                out.extend_from_slice(&count.to_le_bytes());
                Ok(())
            });
        }
    }
}

/// The piece of work that it was sent by.
fn traced(header: &Header) -> Option<TraceContext> {
    TraceContext::from_frame(header.trace, header.span)
}

fn unreadable(header: &Header, export: &dyn Export) -> Option<Refusal> {
    let (oldest, newest) = export.versions();
    if !(oldest..=newest).contains(&header.schema) {
        Some(Refusal::UnknownVersion)
    } else if header.body_bytes as usize > export.bytes_max() {
        Some(Refusal::TooLarge)
    } else {
        None
    }
}

/// Reads one lane to its end; why it ended, if the peer broke the rules.
pub(crate) async fn read_lane(
    reader: Arc<Reader>,
    lane: Lane,
    mut input: LaneReader,
    buffer: BytesMut,
) -> Option<String> {
    let mut coming = Coming { buffer, skip: 0, large: None, spare: Arc::default() };
    coming.spare.keep(KEPT_BYTES_MAX);
    let mut receiver = Receiver::default();
    loop {
        match take_frames(&reader, lane, &mut coming, &mut receiver).await {
            Ok(()) => receiver.rouse(),
            Err(violation) => {
                reader.net.stats.violations.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(node = %reader.path.peer.id, error = %violation, "peer broke the rules");
                return Some(violation.to_string());
            }
        }
        reader.report_untaken(lane);
        match coming.read(&mut input).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// What has come of a lane and is not taken yet.
struct Coming {
    buffer: BytesMut,
    /// Bytes that are thrown away when they come.
    skip: usize,
    /// While there is one, the buffer is empty.
    large: Option<Large>,
    spare: Arc<Spare>,
}

/// A frame of [`LARGE_BYTES`] or more, of which a part has come.
struct Large {
    header: Header,
    body: Vec<u8>,
}

impl Large {
    /// Where the rest of it goes. The room grows with what has come.
    fn room(&mut self) -> Limit<&mut Vec<u8>> {
        let (have, rest) = (self.body.len(), self.header.body_bytes as usize - self.body.len());
        if self.body.capacity() == have {
            self.body.reserve_exact(rest.min(have));
        }
        (&mut self.body).limit(rest)
    }
}

impl Coming {
    /// The frame that the buffer begins with moves into memory of its own.
    fn begin(&mut self, header: Header) {
        let mut body = self.spare.take();
        body.reserve_exact(LARGE_BYTES_FIRST.min(header.body_bytes as usize));
        body.extend_from_slice(&self.buffer[HEADER_BYTES..]);
        self.buffer.clear();
        self.large = Some(Large { header, body });
    }

    /// Reads on; memory of large bodies goes back when nothing comes.
    async fn read(&mut self, input: &mut LaneReader) -> std::io::Result<usize> {
        let Self { buffer, large, spare, .. } = self;
        let reading = async {
            match large {
                Some(large) => input.read_buf(&mut large.room()).await,
                None => {
                    buffer.reserve(READ_BYTES);
                    input.read_buf(buffer).await
                }
            }
        };
        if spare.bytes() == 0 {
            return reading.await;
        }
        let mut reading = std::pin::pin!(reading);
        match timeout(REST, &mut reading).await {
            Ok(read) => read,
            Err(_elapsed) => {
                spare.keep(0);
                spare.keep(KEPT_BYTES_MAX);
                reading.await
            }
        }
    }
}

async fn take_frames(
    reader: &Reader,
    lane: Lane,
    coming: &mut Coming,
    receiver: &mut Receiver,
) -> Result<(), Violation> {
    take_large(reader, coming, receiver).await?;
    let Coming { buffer, skip, .. } = coming;
    loop {
        let skipped = buffer.len().min(*skip);
        buffer.advance(skipped);
        *skip -= skipped;
        let Some(bytes) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(()) };
        let header = Header::read(bytes)?;
        if header.lane != lane {
            return Err(Violation::OtherLane(header.lane));
        }
        debug_assert!(header.body_bytes <= FRAME_BODY_BYTES_MAX, "checked by Header::read");
        let frame_bytes = HEADER_BYTES + header.body_bytes as usize;
        let whole = buffer.len() >= frame_bytes;
        match reader.plan(&header, whole, receiver)? {
            Plan::Skip(refusal) => {
                if let Some(refusal) = refusal {
                    reader.refuse(&header, AskError::Refused(refusal));
                }
                buffer.advance(HEADER_BYTES);
                *skip = header.body_bytes as usize;
            }
            Plan::Keep if !whole => {
                if frame_bytes - HEADER_BYTES >= LARGE_BYTES {
                    coming.begin(header);
                }
                return Ok(());
            }
            Plan::Keep => {
                let body = Payload::Shared(&buffer[HEADER_BYTES..frame_bytes]);
                reader.take(header, body, receiver).await?;
                buffer.advance(frame_bytes);
            }
        }
    }
}

/// Takes a large frame once it is whole, or no longer if it is not wanted any more.
async fn take_large(reader: &Reader, coming: &mut Coming, receiver: &mut Receiver) -> Result<(), Violation> {
    let Some(large) = coming.large.take() else { return Ok(()) };
    let Large { header, body } = &large;
    let missing = header.body_bytes as usize - body.len();
    match reader.plan(header, missing == 0, receiver)? {
        Plan::Skip(refusal) => {
            if let Some(refusal) = refusal {
                reader.refuse(header, AskError::Refused(refusal));
            }
            coming.skip = missing;
            coming.spare.put(large.body);
        }
        Plan::Keep if missing > 0 => coming.large = Some(large),
        Plan::Keep => {
            let body = Payload::Own(coming.spare.lend(large.body));
            reader.take(large.header, body, receiver).await?;
        }
    }
    Ok(())
}
