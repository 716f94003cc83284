//! Writes what comes next to many connections that sleep at the end of one log: a walk over one table, where a task for each
//! would be woken.
//!
//! Outside the kernel a message costs what its connection's task, queue and futures are in no cache; a place here is one line
//! of it. A connection gives its place when it has nothing left to write, and takes it back whenever it wakes: for a
//! message of its client, for its timer, or because its socket did not take everything here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use peregrine_actors::stream::{Read, Subscription};
use slab::Slab;
use socket2::SockRef;

use super::port::{WRITE_BYTES, Written};
use super::state::Streams;

/// Readers of a channel from which on this costs less than it saves.
const READERS_MIN: usize = 8;
/// Writes before other connections of the thread have their turn.
const WRITES: usize = 64;

thread_local! {
    /// By channel. Each belongs to a task of this thread, which ends with its last place.
    static FANOUTS: RefCell<HashMap<usize, Rc<RefCell<Fanout>>>> = RefCell::default();
}

/// A connection's place, which is left when this is dropped.
pub(super) struct Place {
    fanout: Rc<RefCell<Fanout>>,
    key: usize,
}

struct Fanout {
    streams: Arc<Streams>,
    /// Reads for all of them.
    reader: Subscription,
    members: Slab<Member>,
    batch: Batch,
    /// Wakes the task.
    waker: Option<Waker>,
}

struct Member {
    /// In the log: everything before it is written.
    place: u64,
    socket: RawFd,
    waker: Waker,
    any: bool,
    /// It was woken and has not come yet; the rest of a message is what it is to write first.
    called: Option<Bytes>,
}

/// Frames that are being written.
#[derive(Default)]
struct Batch {
    /// Place of the first.
    from: u64,
    /// Where each begins.
    starts: Vec<usize>,
    bytes: Bytes,
    /// The next member.
    next: usize,
}

/// Whether a reader's place can be taken here.
pub(super) fn takes(reader: &Subscription) -> bool {
    reader.place().is_some() && reader.readers() >= READERS_MIN
}

/// Takes a place: the frames behind it are written to `socket`, until it leaves, which must be before the socket is closed.
pub(super) fn join(
    streams: &Arc<Streams>,
    reader: &Subscription,
    socket: RawFd,
    waker: &Waker,
) -> Option<Place> {
    let place = reader.place()?;
    let fanout = FANOUTS.with_borrow_mut(|all| {
        let fanout = all.entry(reader.channel_key()).or_insert_with(|| {
            let fanout = Rc::new(RefCell::new(Fanout {
                streams: Arc::clone(streams),
                reader: streams.hub().join_beside(reader),
                members: Slab::new(),
                batch: Batch::default(),
                waker: None,
            }));
            drop(tokio::task::spawn_local(run(Rc::clone(&fanout)))); // it ends with its last place
            fanout
        });
        Rc::clone(fanout)
    });
    let member = Member { place, socket, waker: waker.clone(), any: false, called: None };
    let key = fanout.borrow_mut().members.insert(member);
    Some(Place { fanout, key })
}

impl Place {
    /// Back to the connection: where its reader stands now, and what was written.
    pub(super) fn leave(self) -> (u64, Written) {
        let member = self.fanout.borrow_mut().members.remove(self.key);
        (member.place, Written { any: member.any, rest: member.called.unwrap_or_default() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut fanout = self.fanout.borrow_mut();
        fanout.members.try_remove(self.key);
        // The task ends, unless somebody comes before it runs.
        if fanout.members.is_empty()
            && let Some(waker) = fanout.waker.take()
        {
            waker.wake();
        }
    }
}

async fn run(fanout: Rc<RefCell<Fanout>>) {
    while poll_fn(|cx| fanout.borrow_mut().gather(cx)).await {
        while fanout.borrow_mut().write() {
            tokio::task::yield_now().await;
        }
    }
    let key = fanout.borrow().reader.channel_key();
    FANOUTS.with_borrow_mut(|all| all.remove(&key));
}

impl Fanout {
    /// Waits for frames; whether there is anybody left to write them to.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.members.is_empty() {
            return Poll::Ready(false);
        }
        let Some(from) = self.reader.place() else { return self.fall() };
        let (mut first, mut joined, mut starts) = (Bytes::new(), BytesMut::new(), Vec::new());
        let read = self.reader.read(Some(cx.waker()), |frame| {
            if starts.is_empty() {
                first = frame.clone();
                starts.push(0);
                return true;
            }
            let len = first.len().max(joined.len());
            if len + frame.len() > WRITE_BYTES {
                return false;
            }
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            starts.push(len);
            joined.extend_from_slice(frame);
            true
        });
        if read == Read::Fell {
            return self.fall();
        }
        if starts.is_empty() {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = if joined.is_empty() { first } else { joined.freeze() };
        self.streams.saw_lag(starts.len() as u64);
        self.batch = Batch { from, starts, bytes, next: 0 };
        Poll::Ready(true)
    }

    /// Frames left the log before they were read here: each connection sees to it itself.
    fn fall(&mut self) -> Poll<bool> {
        self.members.iter_mut().for_each(|(_, member)| member.call(Bytes::new()));
        Poll::Ready(false)
    }

    /// Writes the batch to some; whether there are more.
    fn write(&mut self) -> bool {
        let Batch { from, starts, bytes, next } = &mut self.batch;
        let to = *from + starts.len() as u64;
        let until = next.saturating_add(WRITES).min(self.members.capacity());
        let (mut frames, mut sent) = (0, 0);
        for key in *next..until {
            let Some(member) = self.members.get_mut(key) else { continue };
            if member.called.is_some() || member.place >= to {
                continue;
            }
            let at = member.place.checked_sub(*from).and_then(|at| usize::try_from(at).ok());
            let Some(&start) = at.and_then(|at| starts.get(at)) else {
                member.call(Bytes::new());
                continue;
            };
            let due = &bytes[start..];
            // What went wrong its own task finds out as it tries.
            let len = send(member.socket, due).unwrap_or(0);
            if len > 0 {
                frames += to - member.place;
                sent += len as u64;
                (member.place, member.any) = (to, true);
            }
            if len < due.len() {
                member.call(if len > 0 { Bytes::copy_from_slice(&due[len..]) } else { Bytes::new() });
            }
        }
        self.streams.count(frames, sent);
        *next = until;
        let more = until < self.members.capacity();
        if !more {
            self.batch = Batch::default();
        }
        more
    }
}

impl Member {
    /// Its connection is to go on by itself.
    fn call(&mut self, rest: Bytes) {
        if self.called.is_none() {
            self.called = Some(rest);
            self.waker.wake_by_ref();
        }
    }
}

fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: a place is left before its socket is closed, and what a member's socket is written is between two polls of the
    // task that owns both.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    SockRef::from(&socket).send(bytes)
}
