//! Messages of one node to the one shard of a type.

use super::*;
use crate::cluster::Incarnation;
use crate::cluster::lease::LeaseLimits;
use crate::cluster::testing::{id, view};

const SHARD: ShardId = ShardId(0);
const TERM: Term = Term { incarnation: Incarnation(1), number: 1 };

struct One {
    sender: Sender<u32>,
    start: Instant,
    owner: NodeId,
    other: NodeId,
}

impl One {
    fn new() -> Self {
        let ms = Duration::from_millis;
        let spec = ShardSpec {
            name: "series".into(),
            home: None,
            role: None,
            shard_count: 1,
            queue_max: 9,
            grace: ms(0),
            acquire_max: ms(1_000),
            transfer_retry: ms(100),
            transfer_max: ms(1_000),
            lease: LeaseLimits { electorate: 2, lease: ms(800), promise: ms(1_000), renew: ms(200) },
        };
        let start = Instant::now();
        let limits = SenderLimits { window: 2, waiting_max: 2, answer_max: ms(500) };
        let mut placement = Placement::new(&spec);
        placement.on_view(&spec, &view("a b"), start);
        let owner = placement.owner(SHARD).cloned().unwrap();
        let other = if owner == id("a") { id("b") } else { id("a") };
        let mut sender = Sender::new(spec, limits);
        sender.on_view(&view("a b"), start);
        Self { sender, start, owner, other }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn send(&mut self, message: u32) -> Vec<Sending<u32>> {
        self.sender.send(SHARD, message, self.at(2_000), self.at(0)).1
    }

    fn answer(&mut self, from: &NodeId, name: u64, answer: Answer, ms: u64) -> Vec<Sending<u32>> {
        self.sender.on_answer(from, SHARD, name, answer, self.at(ms))
    }
}

/// To whom which messages go, and which ended how.
fn said(sendings: &[Sending<u32>]) -> Vec<String> {
    let say = |sending: &Sending<u32>| match sending {
        Sending::Send(to, delivery) => format!("{} to {to}", delivery.message),
        Sending::Ended { id, fate } => format!("{id} {fate:?}"),
    };
    sendings.iter().map(say).collect()
}

fn not_owner(hint: Option<&NodeId>) -> Answer {
    Answer::NotOwner { hint: hint.cloned(), same_view: false }
}

#[test]
fn one_goes_first_and_the_others_follow_once_the_owner_is_known() {
    let mut one = One::new();
    let owner = one.owner.clone();
    assert_eq!(said(&one.send(1)), [format!("1 to {owner}")]);
    assert_eq!((one.send(2).len(), one.send(3).len()), (0, 0));
    assert_eq!(said(&one.send(4)), ["4 Failed(Full)"]);
    let next = one.answer(&owner, 1, Answer::Accepted(TERM), 1);
    assert_eq!(said(&next)[1..], [format!("2 to {owner}"), format!("3 to {owner}")]);
}

#[test]
fn whoever_has_it_is_tried_next_and_then_again_after_a_moment() {
    let mut one = One::new();
    let (owner, other) = (one.owner.clone(), one.other.clone());
    one.send(1);
    assert_eq!(said(&one.answer(&owner, 1, not_owner(Some(&other)), 1)), [format!("1 to {other}")]);
    assert_eq!(said(&one.answer(&other, 1, not_owner(Some(&owner)), 2)), [""; 0]);
    let due = one.sender.wake_at().unwrap();
    assert_eq!(due, one.at(2) + WAIT);
    assert_eq!(said(&one.sender.tick(due)), [format!("1 to {owner}")]);
    one.answer(&owner, 1, not_owner(None), 100);
    assert_eq!(said(&one.sender.tick(one.at(2_000))), ["1 Failed(Unrouted)"]);
}

#[test]
fn what_is_told_to_wait_keeps_its_place() {
    let mut one = One::new();
    let owner = one.owner.clone();
    one.send(1);
    one.send(2);
    assert!(one.answer(&owner, 1, Answer::Wait, 1).is_empty());
    let due = one.sender.wake_at().unwrap();
    assert_eq!(said(&one.sender.tick(due)), [format!("1 to {owner}")]);
}

#[test]
fn a_hint_to_one_that_is_gone_or_silent_is_forgotten() {
    let mut one = One::new();
    let (owner, other) = (one.owner.clone(), one.other.clone());
    one.send(1);
    let next = one.answer(&owner, 1, not_owner(Some(&id("gone"))), 1);
    assert_eq!(said(&next), [format!("1 to {owner}")], "the placement decides");
    one.answer(&owner, 1, not_owner(Some(&other)), 2);
    let due = one.sender.wake_at().unwrap();
    assert_eq!(said(&one.sender.tick(due)), [format!("1 to {other}")]);
    assert_eq!(said(&one.sender.tick(due + Duration::from_millis(500))), ["1 Failed(Lost)"]);
    assert_eq!(said(&one.send(2)), [format!("2 to {owner}")]);
}

#[test]
fn what_is_under_way_to_one_that_goes_is_lost() {
    let mut one = One::new();
    one.send(1);
    let gone = one.sender.on_view(&view(one.other.as_str()), one.at(10));
    assert_eq!(said(&gone), ["1 Failed(Lost)"]);
    assert_eq!(one.sender.open(), 0);
}
