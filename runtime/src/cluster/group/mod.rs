//! Which members of a group get a message.
//!
//! Pure but for its own counter and seeded chance: members, a key and distances in, receivers out. `route` makes
//! an address of it.

#[cfg(test)]
mod nodes;
mod route;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::receptionist::load_of;
use super::rendezvous::owner;
use super::{Member, NodeId, RttClass};
pub use route::GroupSpec;

/// How a router chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// One after the other, by name.
    RoundRobin,
    /// Any.
    Random,
    /// The less busy of two drawn by chance: following the least busy of all, every sender would run to the
    /// same one at once.
    LeastLoaded,
    /// The same one for the same key, as long as it is there.
    Consistent,
    /// All of them.
    Broadcast,
    /// The less busy of two in the nearest class; the next class once all in it are this busy.
    NearestFirst {
        /// From this load on, from 0 to 1, a member is passed over.
        spill_at: f32,
    },
}

/// Chooses for one group.
#[derive(Debug)]
pub struct Router {
    choice: Choice,
    rng: StdRng,
    /// Whose turn it was last.
    last: Option<NodeId>,
}

impl Router {
    /// The seed matters where chance does.
    #[must_use]
    pub fn new(choice: Choice, seed: u64) -> Self {
        Self { choice, rng: StdRng::seed_from_u64(seed), last: None }
    }

    /// Who gets a message with this key; nobody only if there is nobody. `members` are those of the group,
    /// by name and none twice, as [`find`](super::receptionist::find) returns them.
    pub fn route<'a>(
        &mut self,
        members: &[&'a Member],
        key: &[u8],
        far: impl Fn(&NodeId) -> RttClass,
    ) -> Vec<&'a NodeId> {
        let one = match self.choice {
            Choice::RoundRobin => self.next_in_turn(members),
            Choice::Random => self.draw(members),
            Choice::LeastLoaded => self.draw_two(members),
            Choice::Consistent => {
                let id = owner(key, members.iter().map(|member| &member.id));
                return id.into_iter().collect();
            }
            Choice::Broadcast => return members.iter().map(|member| &member.id).collect(),
            Choice::NearestFirst { spill_at } => self.draw_near(members, spill_at, far),
        };
        one.map(|member| &member.id).into_iter().collect()
    }

    /// Kept by name and not by place: a member that comes or goes makes nobody else miss a turn.
    fn next_in_turn<'a>(&mut self, members: &[&'a Member]) -> Option<&'a Member> {
        let after = |member: &&&'a Member| self.last.as_ref().is_none_or(|last| member.id > *last);
        let next = members.iter().find(after).or(members.first()).copied()?;
        self.last = Some(next.id.clone());
        Some(next)
    }

    fn draw<'a>(&mut self, members: &[&'a Member]) -> Option<&'a Member> {
        (!members.is_empty()).then(|| members[self.rng.random_range(0..members.len())])
    }

    fn draw_two<'a>(&mut self, members: &[&'a Member]) -> Option<&'a Member> {
        if members.len() < 2 {
            return members.first().copied();
        }
        let first = self.rng.random_range(0..members.len());
        let other = (first + self.rng.random_range(1..members.len())) % members.len();
        // Equal loads leave it to the draw: a tie broken by name would send everything to the first name.
        let other_is_freer = load_of(members[other]) < load_of(members[first]);
        Some(members[if other_is_freer { other } else { first }])
    }

    fn draw_near<'a>(
        &mut self,
        members: &[&'a Member],
        spill_at: f32,
        far: impl Fn(&NodeId) -> RttClass,
    ) -> Option<&'a Member> {
        // A load that is no number is not below anything.
        let free: Vec<&Member> = members.iter().copied().filter(|member| member.load < spill_at).collect();
        let Some(nearest) = free.iter().map(|member| far(&member.id)).min() else {
            return self.draw_two(members);
        };
        let near: Vec<&Member> = free.into_iter().filter(|member| far(&member.id) == nearest).collect();
        self.draw_two(&near)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::testing::member;

    #[test]
    fn nobody_is_chosen_from_nobody() {
        for choice in [Choice::RoundRobin, Choice::Random, Choice::LeastLoaded, Choice::Consistent, NEAREST] {
            assert!(Router::new(choice, 1).route(&[], b"k", far).is_empty());
        }
    }

    #[test]
    fn round_robin_gives_everyone_a_turn() {
        check(Choice::RoundRobin, "a b c", &[("a", 100), ("b", 100), ("c", 100)]);
    }

    #[test]
    fn round_robin_goes_on_after_one_that_left() {
        let mut router = Router::new(Choice::RoundRobin, 1);
        let chosen = ["a b c", "a b c", "a c", "a c"].map(|names| route(&mut router, names, "k"));
        assert_eq!(chosen, ["a", "b", "c", "a"]);
    }

    #[test]
    fn chance_is_fair_and_repeats_with_its_seed() {
        check(Choice::Random, "a b c", &[("a", 100), ("b", 100), ("c", 100)]);
        let draw = |seed| {
            let mut router = Router::new(Choice::Random, seed);
            (0..20).map(|_| route(&mut router, "a b c", "k")).collect::<Vec<_>>()
        };
        assert!(draw(1) == draw(1) && draw(1) != draw(2));
    }

    #[test]
    fn of_two_the_less_busy_is_taken() {
        check(Choice::LeastLoaded, "a=0.9 b=0.1", &[("b", 300)]);
        // The busiest of three loses to both others, the idle one wins against both.
        check(Choice::LeastLoaded, "a=0.9 b=0.5 c=0.1", &[("b", 100), ("c", 200)]);
    }

    #[test]
    fn a_key_stays_where_it_is() {
        let mut router = Router::new(Choice::Consistent, 1);
        for key in (0..100).map(|key| key.to_string()) {
            let at = route(&mut router, "a b c", &key);
            let without: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != at).collect();
            let with_one_left = format!("{at} {}", without[0]);
            assert_eq!(route(&mut router, &with_one_left, &key), at);
        }
    }

    #[test]
    fn a_broadcast_reaches_all() {
        assert_eq!(route(&mut Router::new(Choice::Broadcast, 1), "a b c", "k"), "a b c");
    }

    #[test]
    fn the_nearest_are_taken_while_they_are_free() {
        check(NEAREST, "a b far-c far-d", &[("a", 150), ("b", 150)]);
        check(NEAREST, "a=0.9 b=0.2 far-c far-d", &[("b", 300)]);
        check(NEAREST, "a=0.9 b=0.8 far-c far-d", &[("far-c", 150), ("far-d", 150)]);
        check(NEAREST, "a=0.9 far-c=0.8", &[("far-c", 300)]);
        check(NEAREST, "a=NaN far-c", &[("far-c", 300)]);
    }

    const NEAREST: Choice = Choice::NearestFirst { spill_at: 0.8 };

    fn far(node: &NodeId) -> RttClass {
        if node.as_str().starts_with("far") { RttClass::Far } else { RttClass::SameRegion }
    }

    /// Members as `name` or `name=load`.
    fn route(router: &mut Router, names: &str, key: &str) -> String {
        let members: Vec<Member> = names
            .split(' ')
            .map(|said| {
                let (name, load) = said.split_once('=').unwrap_or((said, "0"));
                Member { load: load.parse().unwrap(), ..member(name) }
            })
            .collect();
        let chosen = router.route(&members.iter().collect::<Vec<_>>(), key.as_bytes(), far);
        chosen.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// 300 messages: how many each got, within 30.
    #[track_caller]
    fn check(choice: Choice, names: &str, expected: &[(&str, usize)]) {
        let mut router = Router::new(choice, 3);
        let mut counts = BTreeMap::new();
        for _ in 0..300 {
            *counts.entry(route(&mut router, names, "k")).or_insert(0usize) += 1;
        }
        assert!(counts.keys().eq(expected.iter().map(|(name, _)| name)), "{counts:?}");
        for (name, count) in expected {
            assert!(counts[*name].abs_diff(*count) <= 30, "{counts:?}");
        }
    }
}
