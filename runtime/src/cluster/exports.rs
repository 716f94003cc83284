//! What this node lets others reach: actors by service name and message type, and the asks that others wait for.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::address::{Address, AskError, Refusal};
use crate::cluster::Fnv;
use crate::cluster::link::Path;
use crate::deadline::Deadline;
use crate::fabric::Lane;
use crate::mailbox::{Control as _, Core, Envelope, NotPushed};
use crate::reply::{Caller, ReplySlot};
use crate::trace::TraceContext;
use crate::wire::{CodecError, Header, Kind, RemoteMessage, TypeId};

#[cfg(test)]
mod tests;

/// How long a reader waits for a mailbox to have room for a message that nobody waits for: long enough for an actor
/// whose thread is kept from running by a busy machine, so that none of what is told to it is lost. It holds up
/// the other actors behind it on the lane, once until the mailbox is half empty.
const ROOM_WAIT: Duration = Duration::from_millis(250);

/// Hash of a service's name, as frames carry it.
pub(crate) fn service_key(service: &str) -> u64 {
    Fnv::of(service.as_bytes())
}

/// The body of a frame: between others, or large and in memory of its own.
pub(crate) enum Payload<'a> {
    Shared(&'a [u8]),
    Own(Bytes),
}

impl AsRef<[u8]> for Payload<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// An actor that other nodes may send one type of message to.
pub(crate) trait Export: Send + Sync {
    fn bytes_max(&self) -> usize;
    /// Oldest and newest layout that is read here.
    fn versions(&self) -> (u16, u16);
    /// Resolves when the mailbox has room, or has been full for too long; nothing: no wait.
    fn room(&self) -> Option<BoxFuture<'_, ()>>;
    /// Puts a message into the mailbox. Its actor may sleep on until [`Export::rouse`].
    fn tell(&self, version: u16, body: Payload<'_>, trace: Option<TraceContext>) -> Result<(), AskError>;
    /// As [`Export::tell`].
    fn ask(
        &self,
        version: u16,
        body: Payload<'_>,
        deadline: Deadline,
        from: (Call, Option<TraceContext>),
    ) -> Result<(), AskError>;
    /// Wakes the actor, if it sleeps.
    fn rouse(&self);
}

/// Two actors want to be reached by one name and message. A mistake of the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The pair is taken, or its hash is.
    #[error("`{message}` of service `{service}` is exported already")]
    Taken {
        /// The service.
        service: String,
        /// The message.
        message: &'static str,
    },
    /// Only actors of this process can be exported.
    #[error("service `{0}`: the actor is on another node")]
    NotHere(String),
}

/// All of them.
#[derive(Default)]
pub(crate) struct Exports {
    by_key: RwLock<HashMap<(u64, u32), Arc<dyn Export>>>,
    services: RwLock<HashMap<u64, String>>,
    /// Rises with every change: what was found before may be wrong.
    generation: AtomicU64,
}

impl Exports {
    pub(crate) fn add<M: RemoteMessage>(
        &self,
        service: &str,
        address: &Address<M>,
    ) -> Result<(), ExportError> {
        let core = address.core().ok_or_else(|| ExportError::NotHere(service.to_owned()))?;
        let key = service_key(service);
        let taken = || ExportError::Taken { service: service.to_owned(), message: M::NAME };
        let mut services = self.services.write();
        if services.get(&key).is_some_and(|known| known != service) {
            return Err(taken());
        }
        let mut by_key = self.by_key.write();
        let slot = (key, TypeId::of(M::NAME).0);
        if by_key.contains_key(&slot) {
            return Err(taken());
        }
        by_key.insert(slot, Arc::new(Exported { core: Arc::clone(core), stalled: AtomicBool::new(false) }));
        services.insert(key, service.to_owned());
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes a service back: what comes for it from now on is refused.
    pub(crate) fn remove(&self, service: &str) {
        let key = service_key(service);
        self.services.write().remove(&key);
        self.by_key.write().retain(|(target, _), _| *target != key);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn find(&self, header: &Header) -> Result<Arc<dyn Export>, Refusal> {
        match self.by_key.read().get(&(header.target, header.type_id)) {
            Some(export) => Ok(Arc::clone(export)),
            None if self.services.read().contains_key(&header.target) => Err(Refusal::UnknownType),
            None => Err(Refusal::UnknownService),
        }
    }

    /// Every message type with the layouts read here, for greetings.
    pub(crate) fn types(&self) -> Vec<(u32, u16, u16)> {
        let mut types: Vec<_> = (self.by_key.read().iter())
            .map(|((_, type_id), export)| {
                let (oldest, newest) = export.versions();
                (*type_id, oldest, newest)
            })
            .collect();
        types.sort_unstable();
        types.dedup();
        types
    }
}

/// The receiver of the last message of a lane: the next one is mostly for the same, which then is neither looked up
/// again nor woken again.
#[derive(Default)]
pub(crate) struct Receiver {
    found: Option<Found>,
    /// Messages in its mailbox that it has not been woken for.
    quiet: usize,
}

struct Found {
    key: (u64, u32),
    generation: u64,
    export: Arc<dyn Export>,
}

/// Messages that a sleeping actor may be late for: a few microseconds of reading.
const QUIET_MAX: usize = 64;

impl Receiver {
    /// Whom a message is for.
    pub(crate) fn find(&mut self, exports: &Exports, header: &Header) -> Result<&dyn Export, Refusal> {
        let key = (header.target, header.type_id);
        // Read before the table: a change in between is seen next time.
        let generation = exports.generation.load(Ordering::Acquire);
        if !self.found.as_ref().is_some_and(|found| found.key == key && found.generation == generation) {
            self.rouse();
            self.found = None;
            let export = exports.find(header)?;
            self.found = Some(Found { key, generation, export });
        }
        self.found.as_ref().map(|found| &*found.export).ok_or(Refusal::UnknownService)
    }

    /// It was handed a message.
    pub(crate) fn handed(&mut self) {
        self.quiet += 1;
        if self.quiet >= QUIET_MAX {
            self.rouse();
        }
    }

    /// Nothing more comes at once: whoever sleeps wakes.
    pub(crate) fn rouse(&mut self) {
        if let (1.., Some(found)) = (self.quiet, &self.found) {
            found.export.rouse();
        }
        self.quiet = 0;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.rouse();
    }
}

struct Exported<M: RemoteMessage> {
    core: Arc<Core<M>>,
    /// It did not make room in time: nothing waits for it until it is half empty.
    stalled: AtomicBool,
}

fn read<M: RemoteMessage>(
    version: u16,
    body: Payload<'_>,
    trace: Option<TraceContext>,
) -> Result<M, CodecError> {
    let mut message = match body {
        Payload::Shared(bytes) => M::read(version, bytes)?,
        Payload::Own(bytes) => M::read_owned(version, bytes)?,
    };
    if let Some(context) = trace {
        message.traced(context);
    }
    Ok(message)
}

impl<M: RemoteMessage> Export for Exported<M> {
    fn bytes_max(&self) -> usize {
        M::BYTES_MAX
    }

    fn versions(&self) -> (u16, u16) {
        (M::OLDEST, M::VERSION)
    }

    fn room(&self) -> Option<BoxFuture<'_, ()>> {
        let (depth, capacity) = (self.core.depth(), self.core.capacity());
        if depth <= capacity / 2 {
            self.stalled.store(false, Ordering::Relaxed);
        }
        if depth < capacity || self.stalled.load(Ordering::Relaxed) {
            return None;
        }
        Some(Box::pin(async {
            if tokio::time::timeout(ROOM_WAIT, self.core.has_room()).await.is_err() {
                self.stalled.store(true, Ordering::Relaxed);
            }
        }))
    }

    fn tell(&self, version: u16, body: Payload<'_>, trace: Option<TraceContext>) -> Result<(), AskError> {
        let message = read::<M>(version, body, trace).map_err(|_| AskError::Refused(Refusal::Malformed))?;
        self.core.try_push_quietly(Envelope::told(message)).map_err(|refused| match refused {
            NotPushed::Full(_) => AskError::Full,
            NotPushed::Closed(_) => AskError::Closed,
        })
    }

    fn ask(
        &self,
        version: u16,
        body: Payload<'_>,
        deadline: Deadline,
        (call, trace): (Call, Option<TraceContext>),
    ) -> Result<(), AskError> {
        let message = match read::<M>(version, body, trace) {
            Ok(message) => message,
            Err(_) => return Err(call.refuse(AskError::Refused(Refusal::Malformed))),
        };
        let caller = FarCaller::<M> { call: Some(call), version, message: PhantomData };
        let slot = ReplySlot::far(Box::new(caller));
        let envelope = Envelope { message, slot, deadline: Some(deadline) };
        let Err(refused) = self.core.try_push_quietly(envelope) else {
            return Ok(());
        };
        let (envelope, why) = match refused {
            NotPushed::Full(envelope) => (envelope, AskError::Full),
            NotPushed::Closed(envelope) => (envelope, AskError::Closed),
        };
        envelope.slot.refuse(why);
        Err(why)
    }

    fn rouse(&self) {
        self.core.rouse();
    }
}

/// An ask from another node while it is worked on here.
pub(crate) struct Call {
    pub(crate) path: Arc<Path>,
    pub(crate) lane: Lane,
    pub(crate) correlation: u64,
    pub(crate) origin: u64,
    /// It came through a third node, and the answer goes back through it.
    pub(crate) relayed: bool,
    pub(crate) asking: Arc<Asking>,
}

/// Whether somebody still waits.
#[derive(Default)]
pub(crate) struct Asking {
    gone: AtomicBool,
    left: Notify,
}

impl Asking {
    pub(crate) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.left.notify_waiters();
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    async fn left(&self) {
        let left = self.left.notified();
        if !self.is_gone() {
            left.await;
        }
    }
}

/// The asks that came over one link and are worked on.
#[derive(Default)]
pub(crate) struct Askings {
    by_id: Mutex<HashMap<(u64, u64), Arc<Asking>>>,
}

impl Askings {
    /// Registers one; nothing when the link has as many as it may.
    pub(crate) fn enter(&self, origin: u64, correlation: u64, count_max: usize) -> Option<Arc<Asking>> {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= count_max {
            return None;
        }
        let asking = Arc::new(Asking::default());
        by_id.insert((origin, correlation), Arc::clone(&asking));
        Some(asking)
    }

    pub(crate) fn cancel(&self, origin: u64, correlation: u64) {
        if let Some(asking) = self.by_id.lock().remove(&(origin, correlation)) {
            asking.leave();
        }
    }

    fn done(&self, origin: u64, correlation: u64) {
        self.by_id.lock().remove(&(origin, correlation));
    }

    /// The link is gone: nobody can be answered.
    pub(crate) fn leave_all(&self) {
        for (_, asking) in self.by_id.lock().drain() {
            asking.leave();
        }
    }
}

impl Call {
    fn header(&self, kind: Kind) -> Header {
        self.path.answer_header(kind, self.lane, self.correlation, self.origin, self.relayed)
    }

    /// Says why there is no answer, and gives the reason back.
    pub(crate) fn refuse(self, why: AskError) -> AskError {
        self.path.askings.done(self.origin, self.correlation);
        if !self.asking.is_gone() {
            self.path.refuse(self.header(Kind::Refusal), why);
        }
        why
    }
}

struct FarCaller<M: RemoteMessage> {
    call: Option<Call>,
    version: u16,
    message: PhantomData<fn() -> M>,
}

impl<M: RemoteMessage> Caller<M::Result> for FarCaller<M> {
    fn answer(mut self: Box<Self>, answer: M::Result) -> bool {
        let Some(call) = self.call.take() else { return false };
        call.path.askings.done(call.origin, call.correlation);
        if call.asking.is_gone() {
            return false;
        }
        let mut header = call.header(Kind::Answer);
        header.schema = self.version;
        let version = self.version;
        let written = call.path.answer(header, |out| {
            let start = out.len();
            M::write_answer(&answer, version, out).map_err(|_| Refusal::Malformed)?;
            if out.len() - start > M::BYTES_MAX { Err(Refusal::TooLarge) } else { Ok(()) }
        });
        match written {
            Ok(()) => true,
            Err(why) => {
                call.path.refuse(call.header(Kind::Refusal), why);
                false
            }
        }
    }

    fn refuse(mut self: Box<Self>, why: AskError) {
        if let Some(call) = self.call.take() {
            call.refuse(why);
        }
    }

    fn is_gone(&self) -> bool {
        self.call.as_ref().is_none_or(|call| call.asking.is_gone())
    }

    fn gone(&mut self) -> BoxFuture<'_, ()> {
        match &self.call {
            Some(call) => Box::pin(call.asking.left()),
            None => Box::pin(std::future::ready(())),
        }
    }
}

impl<M: RemoteMessage> Drop for FarCaller<M> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.refuse(AskError::Failed);
        }
    }
}

/// The deadline of an ask that comes in: what its asker had left, from now.
pub(crate) fn deadline_of(budget_us: u32, now: Instant) -> Deadline {
    Deadline::after(now, Duration::from_micros(budget_us.into()))
}
