use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::pin;

use super::*;
use crate::address::AskError;
use crate::clock::{ManualClock, SystemClock};

#[derive(Debug, PartialEq, actix::Message)]
#[rtype(result = "u32")]
struct Number(u32);

#[test]
fn a_full_mailbox_gives_the_message_back() {
    let mailbox = numbers(2);
    let address = mailbox.address();
    assert!(address.tell(Number(1)).is_ok() && address.tell(Number(2)).is_ok());
    assert!(matches!(address.tell(Number(3)), Err(TellError::Full(Number(3)))));
    assert_eq!((address.depth(), address.capacity(), address.dead_letters().full), (2, 2, 1));
}

#[test]
fn a_closed_mailbox_gives_the_message_back() {
    let mailbox = numbers(2);
    mailbox.core.close();
    assert!(matches!(mailbox.address().tell(Number(1)), Err(TellError::Closed(Number(1)))));
    assert_eq!(mailbox.address().dead_letters().closed, 1);
}

#[test]
fn a_drained_mailbox_stops_once_it_is_empty() {
    check_stop(Core::drain, &[1, 2]);
}

#[test]
fn a_halted_mailbox_stops_at_once() {
    check_stop(Core::halt, &[]);
}

#[track_caller]
fn check_stop(order: impl Fn(&Core<Number>), expected: &[u32]) {
    let mailbox = numbers(4);
    let mut inbox = mailbox.core.open_inbox();
    for number in [1, 2] {
        mailbox.address().tell(Number(number)).unwrap();
    }
    order(&mailbox.core);
    let received: Vec<u32> = std::iter::from_fn(|| inbox.recv()).map(|envelope| envelope.message.0).collect();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn what_was_taken_is_counted_over_all_incarnations_and_what_was_dropped_is_not() {
    let clock = Arc::new(ManualClock::new());
    let mailbox = Mailbox::<Number>::new(8, clock.clone());
    let address = mailbox.address();
    (0..4).for_each(|number| address.tell(Number(number)).unwrap());
    let late = Deadline::after(clock.now(), Duration::from_secs(1));
    let _ = address.ask(Number(9), late).now_or_never();
    let mut inbox = mailbox.core.open_inbox();
    assert!(inbox.recv().is_some());
    let mut inbox = mailbox.core.open_inbox();
    assert_eq!(inbox.drain(&mut Vec::new(), 2), 2);
    assert!(inbox.recv().is_some());
    assert!(matches!(inbox.try_recv(), Received::Nothing), "its asker has left");
    assert_eq!(mailbox.core.taken(), 4);
}

#[test]
fn the_next_incarnation_finds_what_was_queued() {
    let mailbox = numbers(4);
    let mut first = mailbox.core.open_inbox();
    mailbox.address().tell(Number(1)).unwrap();
    mailbox.core.halt();
    assert!(first.recv().is_none());
    let mut second = mailbox.core.open_inbox();
    assert!(first.recv().is_none(), "an old inbox must not steal");
    assert_eq!(second.recv().map(|envelope| envelope.message), Some(Number(1)));
}

#[test]
fn draining_takes_no_more_than_asked() {
    let mailbox = numbers(8);
    let mut inbox = mailbox.core.open_inbox();
    for number in 0..5 {
        mailbox.address().tell(Number(number)).unwrap();
    }
    let mut taken = Vec::new();
    assert_eq!(inbox.drain(&mut taken, 3), 3);
    assert_eq!(inbox.drain(&mut taken, 3), 2);
    assert_eq!(taken.iter().map(|envelope| envelope.message.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn waiting_for_mail_ends_at_its_deadline() {
    let mut inbox = numbers(1).core.open_inbox();
    let until = SystemClock.now() + Duration::from_millis(5);
    assert!(matches!(inbox.recv_deadline(until), Received::Nothing));
    assert!(SystemClock.now() >= until);
}

#[test]
fn a_sleeping_receiver_is_woken_by_mail_and_by_a_halt() {
    let mailbox = numbers(1);
    let mut inbox = mailbox.core.open_inbox();
    let receiver = std::thread::spawn(move || {
        let first = inbox.recv().map(|envelope| envelope.message);
        (first, inbox.recv().is_none())
    });
    mailbox.address().tell(Number(7)).unwrap();
    while mailbox.address().depth() > 0 {
        std::thread::yield_now();
    }
    mailbox.core.halt();
    assert_eq!(receiver.join().unwrap(), (Some(Number(7)), true));
}

#[tokio::test]
async fn an_ask_nobody_serves_ends_at_its_deadline() {
    let mailbox = numbers(1);
    let deadline = Deadline::after(SystemClock.now(), Duration::from_millis(5));
    assert_eq!(mailbox.address().ask(Number(1), deadline).await, Err(AskError::Deadline));
}

#[tokio::test]
async fn an_ask_that_is_late_already_is_not_sent() {
    let mailbox = numbers(1);
    let address = mailbox.address();
    assert_eq!(address.ask(Number(1), Deadline::at(SystemClock.now())).await, Err(AskError::Deadline));
    assert_eq!((address.depth(), address.dead_letters().expired), (0, 1));
}

#[tokio::test]
async fn an_ask_of_a_full_mailbox_is_refused_at_once() {
    let mailbox = numbers(1);
    mailbox.address().tell(Number(1)).unwrap();
    assert_eq!(mailbox.address().ask(Number(2), soon()).await, Err(AskError::Full));
}

#[tokio::test]
async fn an_ask_of_a_closed_mailbox_is_refused_at_once() {
    let mailbox = numbers(1);
    mailbox.core.close();
    assert_eq!(mailbox.address().ask(Number(2), soon()).await, Err(AskError::Closed));
}

#[tokio::test]
async fn closing_fails_the_asks_that_wait() {
    let mailbox = numbers(1);
    let address = mailbox.address();
    let ask = address.ask(Number(1), soon());
    pin!(ask);
    assert!(ask.as_mut().now_or_never().is_none());
    assert_eq!(mailbox.core.close(), 1);
    assert_eq!(ask.await, Err(AskError::Failed));
}

#[tokio::test]
async fn a_message_past_its_deadline_is_skipped() {
    let clock = Arc::new(ManualClock::new());
    let mailbox = Mailbox::<Number>::new(4, Arc::clone(&clock) as Arc<dyn Clock>);
    let address = mailbox.address();
    let ask = address.ask(Number(1), Deadline::after(clock.now(), Duration::from_secs(60)));
    pin!(ask);
    assert!(ask.as_mut().now_or_never().is_none());
    clock.advance(Duration::from_secs(61));
    assert!(matches!(mailbox.core.open_inbox().try_recv(), Received::Nothing));
    assert_eq!(address.dead_letters().expired, 1);
    assert_eq!(ask.await, Err(AskError::Deadline));
}

#[tokio::test]
async fn a_message_whose_asker_left_is_skipped() {
    let mailbox = numbers(4);
    let address = mailbox.address();
    assert!(address.ask(Number(1), soon()).now_or_never().is_none());
    address.tell(Number(2)).unwrap();
    let next = mailbox.core.open_inbox().recv().map(|envelope| envelope.message);
    assert_eq!(next, Some(Number(2)));
    assert_eq!(address.dead_letters().abandoned, 1);
}

fn numbers(capacity: usize) -> Mailbox<Number> {
    Mailbox::new(capacity, Arc::new(SystemClock))
}

fn soon() -> Deadline {
    Deadline::after(SystemClock.now(), Duration::from_secs(10))
}
