//! The death of the thread under an actix actor.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::{Mailbox, SystemClock};

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Nothing;

struct Idle;

impl actix::Actor for Idle {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Nothing> for Idle {
    type Result = ();

    fn handle(&mut self, _: Nothing, _: &mut Self::Context) {}
}

#[test]
fn an_actor_vanishes_with_its_arbiter_and_starts_on_the_next() {
    let (sender, events) = channel();
    let mut arbiter = Arbiter::new(sender.clone());
    let mailbox = Mailbox::<Nothing>::new(1, Arc::new(SystemClock));
    let mut launch = light(mailbox.core, Arc::new(|| Ok(Idle)));
    launch.launch(&mut arbiter, Report::new(sender.clone(), 0, 1));
    assert_eq!(next(&events), "started 1");
    arbiter.run(Box::new(|| panic!("the arbiter dies"))).unwrap();
    assert_eq!(next(&events), "ended 1: vanished with its thread");
    assert_eq!(next(&events), "arbiter ended");
    launch.launch(&mut arbiter, Report::new(sender, 0, 2));
    assert_eq!(next(&events), "started 2");
    assert!(arbiter.close());
    assert_eq!(next(&events), "ended 2: vanished with its thread");
    assert_eq!(next(&events), "arbiter ended");
    arbiter.reap();
    assert!(!arbiter.close());
}

fn next(events: &Receiver<Event>) -> String {
    match events.recv_timeout(Duration::from_secs(20)).unwrap() {
        Event::Started { incarnation, .. } => format!("started {incarnation}"),
        Event::Ended { incarnation, how, .. } => format!("ended {incarnation}: {how}"),
        Event::ArbiterEnded => "arbiter ended".to_owned(),
        Event::Stop(_) => "stop".to_owned(),
    }
}
