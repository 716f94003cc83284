//! The bounded queue between addresses and the actor that serves them.
//!
//! A mailbox belongs to the tree, not to an incarnation of its actor: each incarnation takes a new [`Inbox`] on
//! the same queue. Knows no actor and no supervision policy; it is told to halt, drain or close.
//!
//! One mutex, one deque and one condition variable: a receiver is woken only when it sleeps, so under load a
//! send is a push. `examples/mailbox_cost.rs` measures it beside the bounded channel of the standard library.
//! A receiver sleeps at once: yielding a few times first carried more tells on an idle machine but mostly fewer
//! with every core busy, and helped asks in neither.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::address::{Address, TellError};
use crate::clock::Clock;
use crate::cluster::watchdog::Pulse;
use crate::deadline::Deadline;
use crate::reply::ReplySlot;

/// What may travel: an actix message whose answer may cross threads.
pub trait Mail: actix::Message<Result: Send> + Send + 'static {}

impl<M: actix::Message<Result: Send> + Send + 'static> Mail for M {}

/// The supervised end of a mailbox, to be handed to a tree with the actor that serves it.
pub struct Mailbox<M: Mail> {
    pub(crate) core: Arc<Core<M>>,
}

impl<M: Mail> Mailbox<M> {
    /// An empty mailbox that holds up to `capacity` messages, at least one.
    pub fn new(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            queue: VecDeque::with_capacity(capacity.min(PREALLOCATED_MAX)),
            accepts: true,
            order: Order::Serve,
            incarnation: 0,
            panic_next: false,
            asleep: false,
            waker: None,
            looks: 0,
            in_hand: 0,
            space: Vec::new(),
        };
        Self {
            core: Arc::new(Core {
                state: Mutex::new(state),
                ready: Condvar::new(),
                capacity: capacity.max(1),
                depth: AtomicUsize::new(0),
                taken: AtomicU64::new(0),
                clock,
                full: AtomicU64::new(0),
                closed: AtomicU64::new(0),
                expired: AtomicU64::new(0),
                abandoned: AtomicU64::new(0),
            }),
        }
    }

    /// An address of this mailbox; valid before its actor starts and over all its restarts.
    pub fn address(&self) -> Address<M> {
        Address::new(Arc::clone(&self.core))
    }
}

/// A message and the slot its answer goes to.
pub struct Envelope<M: Mail> {
    /// What was sent.
    pub message: M,
    /// Where the answer goes; leads nowhere for a tell.
    pub slot: ReplySlot<M::Result>,
    /// When the answer stops being useful; none for a tell.
    pub deadline: Option<Deadline>,
}

impl<M: Mail> Envelope<M> {
    /// A message nobody waits for.
    pub(crate) fn told(message: M) -> Self {
        Self { message, slot: ReplySlot::nobody(), deadline: None }
    }
}

/// An envelope that was not taken, and why.
pub(crate) enum NotPushed<M: Mail> {
    Full(Envelope<M>),
    Closed(Envelope<M>),
}

/// What a look into the inbox found.
pub enum Received<M: Mail> {
    /// The next message.
    Mail(Envelope<M>),
    /// Nothing yet.
    Nothing,
    /// Return from [`Worker::run`](crate::Worker::run): the tree stops this incarnation.
    Stop,
}

/// Messages that reached nobody, counted by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// Refused: the mailbox was full.
    pub full: u64,
    /// Refused or thrown away: the actor was gone for good.
    pub closed: u64,
    /// The deadline passed before the actor came to it.
    pub expired: u64,
    /// The asker left before the actor came to it.
    pub abandoned: u64,
}

/// The end an incarnation reads from.
pub struct Inbox<M: Mail> {
    core: Arc<Core<M>>,
    incarnation: u64,
}

impl<M: Mail> Inbox<M> {
    /// Blocks for the next message; `None` means stop.
    pub fn recv(&mut self) -> Option<Envelope<M>> {
        match self.receive(Wait::Forever) {
            Received::Mail(envelope) => Some(envelope),
            Received::Nothing | Received::Stop => None,
        }
    }

    /// Blocks for the next message until an instant of the machine's clock.
    pub fn recv_deadline(&mut self, until: Instant) -> Received<M> {
        self.receive(Wait::Until(until))
    }

    /// The next message if there is one; never blocks.
    pub fn try_recv(&mut self) -> Received<M> {
        self.receive(Wait::Never)
    }

    /// Moves up to `count_max` waiting messages to the end of `into` and says how many; never blocks.
    pub fn drain(&mut self, into: &mut Vec<Envelope<M>>, count_max: usize) -> usize {
        let (len_before, len_max) = (into.len(), into.len().saturating_add(count_max));
        while into.len() < len_max {
            let mut state = self.core.state.lock();
            self.panic_if_told(&mut state);
            if self.is_halted(&state) {
                break;
            }
            let first = into.len();
            let count = state.queue.len().min(len_max - first);
            into.extend(state.queue.drain(..count));
            state.looks += 1;
            state.in_hand = into.len() - len_before;
            self.core.shortened(&mut state);
            drop(state);
            if count == 0 {
                break;
            }
            into.extract_if(first.., |envelope| !self.core.is_wanted(envelope)).for_each(drop);
        }
        let count = into.len() - len_before;
        self.core.taken.fetch_add(count as u64, Ordering::Relaxed);
        count
    }

    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Envelope<M>>> {
        loop {
            let mut state = self.core.state.lock();
            match self.look(&mut state) {
                Received::Nothing => {
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Received::Stop => return Poll::Ready(None),
                Received::Mail(envelope) => {
                    drop(state);
                    if let Some(envelope) = self.core.wanted(envelope) {
                        return Poll::Ready(Some(envelope));
                    }
                }
            }
        }
    }

    fn receive(&mut self, mut wait: Wait) -> Received<M> {
        let mut state = self.core.state.lock();
        loop {
            match (self.look(&mut state), wait) {
                (Received::Mail(envelope), _) => {
                    drop(state);
                    if let Some(envelope) = self.core.wanted(envelope) {
                        return Received::Mail(envelope);
                    }
                    state = self.core.state.lock();
                }
                (Received::Nothing, Wait::Forever) => {
                    state.asleep = true;
                    self.core.ready.wait(&mut state);
                }
                (Received::Nothing, Wait::Until(instant)) => {
                    state.asleep = true;
                    if self.core.ready.wait_until(&mut state, instant).timed_out() {
                        state.asleep = false;
                        wait = Wait::Never;
                    }
                }
                (found, _) => return found,
            }
        }
    }

    /// The next message, wanted or not.
    fn look(&self, state: &mut MutexGuard<'_, State<M>>) -> Received<M> {
        self.panic_if_told(state);
        if self.is_halted(state) {
            return Received::Stop;
        }
        let found = state.queue.pop_front();
        state.looks += 1;
        state.in_hand = usize::from(found.is_some());
        match found {
            Some(envelope) => {
                self.core.shortened(state);
                Received::Mail(envelope)
            }
            None if state.order == Order::Drain => Received::Stop,
            None => Received::Nothing,
        }
    }

    fn is_halted(&self, state: &State<M>) -> bool {
        state.order == Order::Halt || state.incarnation != self.incarnation
    }

    fn panic_if_told(&self, state: &mut MutexGuard<'_, State<M>>) {
        if state.incarnation == self.incarnation && mem::take(&mut state.panic_next) {
            MutexGuard::unlocked(state, || panic!("injected fault"));
        }
    }
}

#[derive(Clone, Copy)]
enum Wait {
    Never,
    Until(Instant),
    Forever,
}

/// What the tree wants of the current incarnation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    /// Empty the queue, then stop.
    Drain,
    /// Stop now; the queue stays for the next incarnation.
    Halt,
}

/// Queues larger than this grow on demand.
const PREALLOCATED_MAX: usize = 1024;

#[cfg(test)]
mod tests;

pub(crate) struct Core<M: Mail> {
    state: Mutex<State<M>>,
    ready: Condvar,
    capacity: usize,
    /// Length of the queue, for readers of links, who look before each push: the lock is the actor's.
    depth: AtomicUsize,
    /// Messages that actors have taken to be handled, over all incarnations.
    taken: AtomicU64,
    clock: Arc<dyn Clock>,
    full: AtomicU64,
    closed: AtomicU64,
    expired: AtomicU64,
    abandoned: AtomicU64,
}

struct State<M: Mail> {
    queue: VecDeque<Envelope<M>>,
    accepts: bool,
    order: Order,
    incarnation: u64,
    panic_next: bool,
    asleep: bool,
    waker: Option<Waker>,
    /// How often the actor has come for messages, and how many it took the last time: what a watchdog sees.
    looks: u64,
    in_hand: usize,
    /// Who waits for the queue to have room: readers of links, so few.
    space: Vec<Waker>,
}

impl<M: Mail> Core<M> {
    /// Resolves when the mailbox has room, or will never have any.
    pub(crate) fn has_room(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.accepts || state.queue.len() < self.capacity {
                return Poll::Ready(());
            }
            if !state.space.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.space.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    pub(crate) fn push(&self, envelope: Envelope<M>) -> Result<(), TellError<M>> {
        self.try_push(envelope).map_err(|refused| match refused {
            NotPushed::Full(envelope) => TellError::Full(envelope.message),
            NotPushed::Closed(envelope) => TellError::Closed(envelope.message),
        })
    }

    pub(crate) fn try_push(&self, envelope: Envelope<M>) -> Result<(), NotPushed<M>> {
        self.enqueue(envelope).map(|state| self.wake(state))
    }

    /// Leaves whoever sleeps on the queue asleep: [`Core::rouse`] has to follow, once for many.
    pub(crate) fn try_push_quietly(&self, envelope: Envelope<M>) -> Result<(), NotPushed<M>> {
        self.enqueue(envelope).map(drop)
    }

    /// Wakes whoever sleeps on the queue.
    pub(crate) fn rouse(&self) {
        self.wake(self.state.lock());
    }

    fn enqueue(&self, envelope: Envelope<M>) -> Result<MutexGuard<'_, State<M>>, NotPushed<M>> {
        let mut state = self.state.lock();
        if !state.accepts {
            self.closed.fetch_add(1, Ordering::Relaxed);
            return Err(NotPushed::Closed(envelope));
        }
        if state.queue.len() >= self.capacity {
            self.full.fetch_add(1, Ordering::Relaxed);
            return Err(NotPushed::Full(envelope));
        }
        state.queue.push_back(envelope);
        self.depth.store(state.queue.len(), Ordering::Relaxed);
        Ok(state)
    }

    pub(crate) fn is_over(&self, deadline: Deadline) -> bool {
        self.clock.has_reached(deadline.instant())
    }

    pub(crate) fn count_expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// A new incarnation takes over the queue; the inbox of any earlier one says stop from now on.
    pub(crate) fn open_inbox(self: &Arc<Self>) -> Inbox<M> {
        let mut state = self.state.lock();
        state.incarnation += 1;
        state.in_hand = 0;
        state.order = Order::Serve;
        let incarnation = state.incarnation;
        self.wake(state);
        Inbox { core: Arc::clone(self), incarnation }
    }

    /// The queue is shorter than before.
    fn shortened(&self, state: &mut State<M>) {
        self.depth.store(state.queue.len(), Ordering::Relaxed);
        // Half empty, not one free: whoever waits then finds room for a while.
        if !state.space.is_empty() && state.queue.len() <= self.capacity / 2 {
            state.space.drain(..).for_each(Waker::wake);
        }
    }

    /// A message that was taken out, if somebody still wants it. Asked without the lock: the answer lies in memory that
    /// the asker has written, and whatever the message does when it is dropped may reach back to this mailbox.
    fn wanted(&self, envelope: Envelope<M>) -> Option<Envelope<M>> {
        let is_wanted = self.is_wanted(&envelope);
        self.taken.fetch_add(u64::from(is_wanted), Ordering::Relaxed);
        is_wanted.then_some(envelope)
    }

    fn is_wanted(&self, envelope: &Envelope<M>) -> bool {
        if envelope.slot.is_abandoned() {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        } else if envelope.deadline.is_some_and(|deadline| self.is_over(deadline)) {
            self.count_expired();
        } else {
            return true;
        }
        false
    }

    /// Wakes whoever sleeps on the queue, after the lock is gone so that it does not wake into it.
    fn wake(&self, mut state: MutexGuard<'_, State<M>>) {
        let asleep = mem::take(&mut state.asleep);
        let waker = state.waker.take();
        if !state.accepts {
            state.space.drain(..).for_each(Waker::wake);
        }
        drop(state);
        if asleep {
            // All: a revoked incarnation may sleep beside the current one.
            self.ready.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What the tree does with a mailbox, whatever its messages are.
pub(crate) trait Control: Send + Sync {
    /// Stops the incarnation at its next look; the queue stays.
    fn halt(&self);
    /// Refuses new messages and stops the incarnation once the queue is empty.
    fn drain(&self);
    /// Refuses new messages, stops the incarnation and throws away the queue: its asks fail at once. Says how long it was.
    fn close(&self) -> usize;
    /// Makes the incarnation panic at its next look.
    fn panic_next(&self);
    fn depth(&self) -> usize;
    /// Messages that were taken out to be handled, over all incarnations.
    fn taken(&self) -> u64;
    /// Whether the actor moves.
    fn pulse(&self) -> Pulse;
    fn capacity(&self) -> usize;
    fn dead_letters(&self) -> DeadLetters;
}

impl<M: Mail> Control for Core<M> {
    fn halt(&self) {
        let mut state = self.state.lock();
        state.order = Order::Halt;
        self.wake(state);
    }

    fn drain(&self) {
        let mut state = self.state.lock();
        state.accepts = false;
        if state.order == Order::Serve {
            state.order = Order::Drain;
        }
        self.wake(state);
    }

    fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.accepts = false;
        state.order = Order::Halt;
        let queue = mem::take(&mut state.queue);
        self.depth.store(0, Ordering::Relaxed);
        self.wake(state);
        self.closed.fetch_add(queue.len() as u64, Ordering::Relaxed);
        queue.len()
    }

    fn panic_next(&self) {
        let mut state = self.state.lock();
        state.panic_next = true;
        self.wake(state);
    }

    fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn pulse(&self) -> Pulse {
        let state = self.state.lock();
        Pulse { handled: state.looks, depth: state.queue.len() + state.in_hand }
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn dead_letters(&self) -> DeadLetters {
        DeadLetters {
            full: self.full.load(Ordering::Relaxed),
            closed: self.closed.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            abandoned: self.abandoned.load(Ordering::Relaxed),
        }
    }
}
