//! One node alone, which is its own majority.

use std::time::Duration;

use super::*;
use crate::cluster::lease::LeaseLimits;
use crate::cluster::testing::{id, view};

struct Alone {
    owner: Owner<u32>,
    start: Instant,
}

impl Alone {
    /// `a` has looked at a view of itself.
    fn new() -> Self {
        let ms = Duration::from_millis;
        let spec = ShardSpec {
            name: "series".into(),
            home: None,
            role: None,
            shard_count: 2,
            queue_max: 2,
            grace: ms(0),
            acquire_max: ms(3_000),
            transfer_retry: ms(100),
            transfer_max: ms(1_000),
            lease: LeaseLimits { electorate: 1, lease: ms(800), promise: ms(1_000), renew: ms(200) },
        };
        let start = Instant::now();
        let mut owner = Owner::new(spec, id("a"), Incarnation(1), 0, start);
        owner.on_view(&view("a"), start);
        Self { owner, start }
    }

    fn owning() -> Self {
        let mut alone = Self::new();
        let gained = alone.owner.tick(alone.at(1_000));
        assert_eq!(gained.iter().filter(|action| matches!(action, Action::Gained { .. })).count(), 2);
        alone
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn deliver(&mut self, term: Option<Term>, message: u32, ms: u64) -> Answer {
        let delivery = Delivery { shard: ShardId(0), id: 1, term, view: view("a").fingerprint(), message };
        let (answer, back) = self.owner.deliver(delivery, self.at(ms));
        assert_eq!(back.is_none(), matches!(answer, Answer::Accepted(_)), "{answer:?}");
        answer
    }
}

#[test]
fn nothing_is_accepted_before_the_lease_is_here() {
    let mut alone = Alone::new();
    assert_eq!(alone.deliver(None, 1, 10), Answer::Wait);
    // Too long: whoever holds it would be named, if anybody did.
    assert_eq!(alone.deliver(None, 1, 3_001), Answer::NotOwner { hint: None, same_view: true });
}

#[test]
fn an_owner_accepts_under_its_term_until_it_is_full() {
    let mut alone = Alone::owning();
    let Answer::Accepted(term) = alone.deliver(None, 1, 1_001) else { panic!("not accepted") };
    let other = Term { number: term.number + 1, ..term };
    assert!(matches!(alone.deliver(Some(other), 2, 1_002), Answer::NotOwner { .. }));
    assert_eq!(alone.deliver(Some(term), 2, 1_003), Answer::Accepted(term));
    assert_eq!(alone.deliver(Some(term), 3, 1_004), Answer::Full);
}

#[test]
fn one_message_of_a_shard_is_processed_at_a_time_and_only_with_the_lease() {
    let mut alone = Alone::owning();
    alone.deliver(None, 1, 1_001);
    alone.deliver(None, 2, 1_001);
    let now = alone.at(1_002);
    assert_eq!(alone.owner.next(now).map(|work| work.message), Some(1));
    assert_eq!(alone.owner.next(now), None, "the shard is busy");
    assert!(alone.owner.done(ShardId(0), now).0);
    let late = alone.at(1_801);
    assert_eq!(alone.owner.next(late), None, "the lease is over");
}

#[test]
fn what_nobody_takes_is_reported_when_the_node_leaves() {
    let mut alone = Alone::owning();
    alone.deliver(None, 7, 1_001);
    assert!(!alone.owner.has_successor());
    assert_eq!(alone.owner.unfinished(), Unfinished { shards: 2, messages: 1 });
    let actions = alone.owner.leave(alone.at(1_002));
    let lost = Lost { shard: ShardId(0), why: Failure::Left, messages: vec![7] };
    assert!(actions.contains(&Action::Failed(lost)), "{actions:?}");
    assert!(matches!(alone.deliver(None, 8, 1_003), Answer::NotOwner { .. }));
}

#[test]
fn a_shard_that_belongs_elsewhere_moves_with_what_it_holds() {
    let mut alone = Alone::owning();
    alone.deliver(None, 7, 1_001);
    let mut actions = alone.owner.on_view(&view("a! b"), alone.at(1_002));
    // Nothing is being processed, so it goes with the next look.
    actions.extend(alone.owner.tick(alone.at(1_003)));
    let moved = actions.iter().find_map(|action| match action {
        Action::Send(to, ShardMessage::Transfer(transfer)) if transfer.shard == ShardId(0) => {
            Some((to.clone(), transfer.batch.clone()))
        }
        _ => None,
    });
    assert_eq!(moved, Some((id("b"), vec![7])));
    assert!(alone.owner.has_successor());
}
