//! Voters that hear each other at once, or not at all.

use super::*;
use crate::cluster::testing::id;

const LIMITS: LeaseLimits = LeaseLimits {
    electorate: 3,
    lease: Duration::from_millis(800),
    promise: Duration::from_millis(1_000),
    renew: Duration::from_millis(200),
};

/// Three voters and a clock in milliseconds.
struct Voters {
    start: Instant,
    nodes: BTreeMap<NodeId, Leases>,
    cut: Vec<NodeId>,
}

impl Voters {
    /// All have been up for longer than their first silence.
    fn new() -> Self {
        let start = Instant::now();
        let names = ["a", "b", "c"].map(id);
        let node = |name: &NodeId| {
            let mut leases = Leases::new(name.clone(), Incarnation(1), LIMITS, 1, 0, start);
            leases.set_voters(names.clone());
            (name.clone(), leases)
        };
        Self { start, nodes: names.iter().map(node).collect(), cut: Vec::new() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + LIMITS.promise + Duration::from_millis(ms)
    }

    fn bid(&mut self, node: &str, ms: u64) {
        let now = self.at(ms);
        self.nodes.get_mut(&id(node)).unwrap().bid(0, now);
        self.tick(node, ms);
    }

    fn tick(&mut self, node: &str, ms: u64) {
        let now = self.at(ms);
        let post = self.nodes.get_mut(&id(node)).unwrap().tick(now);
        self.carry(node, post, now);
    }

    fn quit(&mut self, node: &str, ms: u64) {
        let now = self.at(ms);
        let post = self.nodes.get_mut(&id(node)).unwrap().quit(&[0], now);
        self.carry(node, post, now);
    }

    fn carry(&mut self, from: &str, post: Post, now: Instant) {
        let mut queue: VecDeque<_> = post.into_iter().map(|(to, message)| (id(from), to, message)).collect();
        while let Some((from, to, message)) = queue.pop_front() {
            if self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            let more = self.nodes.get_mut(&to).unwrap().on_message(&from, &message, now);
            queue.extend(more.into_iter().map(|(next, message)| (to.clone(), next, message)));
        }
    }

    fn held(&self, node: &str, ms: u64) -> Option<u64> {
        self.nodes[&id(node)].held(0, self.at(ms))
    }
}

#[test]
fn limits_that_promise_nothing_are_refused() {
    let ms = Duration::from_millis;
    assert_eq!(LIMITS.check(), Ok(()));
    for broken in [
        LeaseLimits { electorate: 0, ..LIMITS },
        LeaseLimits { renew: Duration::ZERO, ..LIMITS },
        LeaseLimits { renew: ms(800), ..LIMITS },
        LeaseLimits { promise: ms(800), ..LIMITS },
    ] {
        assert_eq!(broken.check(), Err(LeaseLimitsError), "{broken:?}");
    }
}

#[test]
fn a_majority_is_enough_and_less_is_not() {
    let mut voters = Voters::new();
    voters.cut = vec![id("c")];
    voters.bid("a", 0);
    assert_eq!(voters.held("a", 1), Some(1));
    let mut voters = Voters::new();
    voters.cut = vec![id("b"), id("c")];
    voters.bid("a", 0);
    assert_eq!(voters.held("a", 1), None);
}

#[test]
fn a_lease_ends_by_itself_before_another_can_have_it() {
    let mut voters = Voters::new();
    voters.bid("a", 0);
    voters.cut = vec![id("a")];
    voters.bid("b", 100);
    assert_eq!((voters.held("a", 799), voters.held("a", 800)), (Some(1), None));
    let mut got_at = None;
    for ms in 100..3_000 {
        voters.tick("b", ms);
        assert!(voters.held("a", ms).is_none() || voters.held("b", ms).is_none(), "two hold it at {ms}");
        got_at = got_at.or_else(|| voters.held("b", ms).map(|epoch| (ms, epoch)));
    }
    let (at, epoch) = got_at.expect("it comes free");
    assert!((1_000..2_200).contains(&at) && epoch > 1, "at {at} under {epoch}");
}

#[test]
fn what_is_given_back_is_free_at_once_under_a_higher_epoch() {
    let mut voters = Voters::new();
    voters.bid("a", 0);
    voters.tick("a", 200);
    voters.bid("b", 210);
    assert_eq!(voters.held("b", 211), None);
    voters.quit("a", 300);
    assert_eq!((voters.held("a", 301), voters.held("b", 301).is_some_and(|epoch| epoch > 1)), (None, true));
}

#[test]
fn a_voter_that_restarts_says_nothing_until_its_promises_are_over() {
    let mut voters = Voters::new();
    voters.cut = vec![id("c")];
    voters.bid("a", 0);
    let mut again = Leases::new(id("b"), Incarnation(2), LIMITS, 1, 0, voters.at(10));
    again.set_voters(["a", "b", "c"].map(id));
    voters.nodes.insert(id("b"), again);
    voters.cut = vec![id("a")];
    voters.bid("c", 20);
    for ms in 20..1_000 {
        voters.tick("c", ms);
        assert_eq!(voters.held("c", ms), None, "at {ms} `a` may still act");
    }
}
