//! What a lane's reader does with receivers, without a lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use serde::{Deserialize, Serialize};

use super::{Exports, Payload, QUIET_MAX, Receiver, service_key};
use crate::address::Refusal;
use crate::fabric::Lane;
use crate::mailbox::{Mailbox, Received};
use crate::wire::{Header, Kind, RemoteMessage as _, TypeId};
use crate::{SystemClock, remote_message};

#[derive(Serialize, Deserialize, actix::Message)]
#[rtype(result = "()")]
struct Note(u64);
remote_message!(Note, "test.note", version 1, up to 64 bytes, lane Stream);

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn header() -> Header {
    let (target, type_id) = (service_key("notes"), TypeId::of(Note::NAME).0);
    Header { target, type_id, ..Header::new(Kind::Tell, Lane::Stream) }
}

fn exported(capacity: usize) -> (Exports, Mailbox<Note>) {
    let (exports, mailbox) = (Exports::default(), Mailbox::new(capacity, Arc::new(SystemClock)));
    exports.add("notes", &mailbox.address()).unwrap();
    (exports, mailbox)
}

fn tell(receiver: &mut Receiver, exports: &Exports) {
    receiver.find(exports, &header()).unwrap().tell(1, Payload::Shared(&7_u64.to_le_bytes()), None).unwrap();
    receiver.handed();
}

#[test]
fn a_withdrawn_service_is_not_found_again() {
    let (exports, _mailbox) = exported(4);
    let mut receiver = Receiver::default();
    assert!(receiver.find(&exports, &header()).is_ok());
    exports.remove("notes");
    assert_eq!(receiver.find(&exports, &header()).err(), Some(Refusal::UnknownService));
}

#[test]
fn a_sleeping_actor_is_woken_once_for_what_was_read_at_once() {
    check_wakes(5, 0, 1);
}

#[test]
fn a_sleeping_actor_is_not_late_for_more_than_a_few() {
    check_wakes(QUIET_MAX, 1, 1);
}

/// Wakes of a sleeping actor after so many messages, and after their reader has gone.
#[track_caller]
fn check_wakes(messages: usize, before: usize, after: usize) {
    let (exports, mailbox) = exported(2 * QUIET_MAX);
    let mut inbox = mailbox.core.open_inbox();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(inbox.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    let mut receiver = Receiver::default();
    (0..messages).for_each(|_| tell(&mut receiver, &exports));
    assert_eq!(woken.0.load(Ordering::Relaxed), before);
    drop(receiver);
    assert_eq!(woken.0.load(Ordering::Relaxed), after);
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_waited_for_once_until_it_is_half_empty() {
    let (exports, mailbox) = exported(4);
    let mut inbox = mailbox.core.open_inbox();
    let mut receiver = Receiver::default();
    let mut take = || assert!(matches!(inbox.try_recv(), Received::Mail(_)));
    (0..4).for_each(|_| tell(&mut receiver, &exports));
    exports.find(&header()).unwrap().room().expect("it is full").await;
    assert!(exports.find(&header()).unwrap().room().is_none(), "it had its time");
    take();
    assert!(exports.find(&header()).unwrap().room().is_none(), "there is room");
    tell(&mut receiver, &exports);
    assert!(exports.find(&header()).unwrap().room().is_none(), "full again, and was never half empty");
    (0..2).for_each(|_| take());
    assert!(exports.find(&header()).unwrap().room().is_none(), "there is room");
    (0..2).for_each(|_| tell(&mut receiver, &exports));
    assert!(exports.find(&header()).unwrap().room().is_some(), "it has shown that it works");
}
