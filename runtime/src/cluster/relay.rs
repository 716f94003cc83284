//! Which third member passes frames on when two cannot reach each other directly.
//!
//! One hop and never two: what came over a relay is delivered or refused, so a frame cannot circle.
//! Pure: views and round trips in, a choice out. A choice is kept unless it is gone or clearly worse, because
//! every change of way may leave a gap.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Member, NodeId, RttClass, Standing, View};

/// What a node knows of the ways to the others.
pub trait Ways {
    /// Whether it has a link to that member now.
    fn connected(&self, to: &NodeId) -> bool;

    /// Round trip between two members, as far as it is known.
    fn rtt(&self, from: &NodeId, to: &NodeId) -> Option<Duration>;
}

/// A new way must be shorter than the present one by this share of it.
const BETTER_BY: f64 = 0.3;
/// And by this much: a share of little is noise.
const BETTER_BY_MIN: Duration = Duration::from_millis(1);

/// The relays that one node uses.
#[derive(Debug, Default)]
pub struct Relays {
    chosen: BTreeMap<NodeId, NodeId>,
}

/// A frame for another member, as far as passing it on goes.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// Whom it is for.
    pub target: &'a NodeId,
    /// Its sender asks for the one hop there is. What has been passed on before does not.
    pub via: bool,
    /// It ends an ask that was passed on before.
    pub ends_ask: bool,
}

/// Why a frame goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPassage {
    /// It has had its one hop, or was never to have one.
    NoHop,
    /// There is no link to the target here either.
    NoWay,
    /// This node leaves and passes on nothing new.
    Draining,
}

impl Relays {
    /// None in use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whom `me` gives frames for `target` now; nobody when nobody has a way.
    pub fn choose(&mut self, view: &View, me: &NodeId, target: &NodeId, ways: &impl Ways) -> Option<&NodeId> {
        let cost = |via: &NodeId| leg(view, ways, me, via) + leg(view, ways, via, target);
        let able = |via: &Member| can_relay(view, me, target, via) && ways.connected(&via.id);
        let best = (view.members.values().filter(|via| able(via)).map(|via| &via.id))
            .min_by_key(|&via| (cost(via), via.clone()));
        let Some(best) = best else {
            self.chosen.remove(target);
            return None;
        };
        let kept = (self.chosen.get(target))
            .filter(|kept| view.get(kept).is_some_and(able) && !clearly_better(cost(best), cost(kept)))
            .cloned();
        self.chosen.insert(target.clone(), kept.unwrap_or_else(|| best.clone()));
        self.chosen.get(target)
    }

    /// The direct way is back.
    pub fn forget(&mut self, target: &NodeId) {
        self.chosen.remove(target);
    }

    /// Forgets the ways to those who left.
    pub fn retain(&mut self, view: &View) {
        self.chosen.retain(|target, _| view.get(target).is_some());
    }
}

/// Whether `me` passes a frame on to its target.
///
/// # Errors
/// With the reason why it goes no further.
pub fn pass(view: &View, me: &NodeId, frame: Onward<'_>, ways: &impl Ways) -> Result<(), NoPassage> {
    let draining = view.get(me).is_some_and(|member| member.standing == Standing::Draining);
    match () {
        () if !frame.via => Err(NoPassage::NoHop),
        // What was let through before is finished.
        () if draining && !frame.ends_ask => Err(NoPassage::Draining),
        () if !ways.connected(frame.target) => Err(NoPassage::NoWay),
        () => Ok(()),
    }
}

/// Whether nothing that is known speaks against the way over `via`.
fn can_relay(view: &View, me: &NodeId, target: &NodeId, via: &Member) -> bool {
    let cut = |a: &NodeId, b: &NodeId| view.get(a).is_some_and(|member| member.cut_from.contains(b));
    let apart = |a: &NodeId, b: &NodeId| cut(a, b) || cut(b, a);
    via.id != *me
        && via.id != *target
        && via.standing == Standing::Active
        && !apart(me, &via.id)
        && !apart(&via.id, target)
}

fn leg(view: &View, ways: &impl Ways, from: &NodeId, to: &NodeId) -> Duration {
    let region = |id| view.get(id).map(|member| &member.region);
    ways.rtt(from, to).unwrap_or_else(|| match (region(from), region(to)) {
        (Some(a), Some(b)) if a == b => RttClass::SameRegion.ceiling(),
        _ => RttClass::Far.ceiling(),
    })
}

fn clearly_better(new: Duration, old: Duration) -> bool {
    new + BETTER_BY_MIN <= old && new < old.mul_f64(1.0 - BETTER_BY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{id, view};

    /// Links of `a`, and round trips in milliseconds.
    #[derive(Default)]
    struct Known {
        gone: Vec<NodeId>,
        rtts_ms: BTreeMap<(NodeId, NodeId), u64>,
    }

    impl Ways for Known {
        fn connected(&self, to: &NodeId) -> bool {
            !self.gone.contains(to)
        }

        fn rtt(&self, from: &NodeId, to: &NodeId) -> Option<Duration> {
            self.rtts_ms.get(&(from.clone(), to.clone())).copied().map(Duration::from_millis)
        }
    }

    #[test]
    fn the_shortest_sum_wins() {
        check("a b c d", &["a-c 10", "c-b 10", "a-d 1", "d-b 15"], &[("", "d")]);
    }

    #[test]
    fn an_unknown_leg_is_as_long_as_the_regions_say() {
        check("a@x b@y c@x d@z", &[], &[("", "c")]);
    }

    #[test]
    fn draining_members_relay_nothing() {
        check("a b c! d", &["a-d 100"], &[("", "d")]);
    }

    #[test]
    fn whoever_is_cut_from_either_end_is_no_way() {
        check("a b c d", &[], &[("cut c-b", "d"), ("cut b-d", "none")]);
        check("a b c d", &[], &[("cut a-c", "d"), ("cut d-a", "none")]);
    }

    #[test]
    fn whoever_has_no_link_here_is_no_way() {
        check("a b c d", &[], &[("down c", "d")]);
    }

    #[test]
    fn two_alone_have_no_way() {
        check("a b", &[], &[("", "none")]);
    }

    #[test]
    fn a_choice_is_kept_until_another_is_clearly_better() {
        let rtts = ["a-c 5", "c-b 5", "a-d 6", "d-b 6"];
        check(
            "a b c d",
            &rtts,
            &[("", "c"), ("rtt c-b 7", "c"), ("rtt c-b 12", "c"), ("rtt c-b 13", "d"), ("rtt c-b 5", "d")],
        );
    }

    #[test]
    fn a_choice_that_is_gone_is_replaced() {
        check("a b c d", &["a-d 100"], &[("", "c"), ("down c", "d"), ("up c", "c")]);
    }

    #[test]
    fn a_relayed_frame_goes_no_further() {
        passes("a", "b", Ok(()));
        passes("a", "b relayed", Err(NoPassage::NoHop));
        passes("a", "b relayed answer", Err(NoPassage::NoHop));
    }

    #[test]
    fn nothing_goes_where_no_link_leads() {
        passes("a", "d", Err(NoPassage::NoWay));
    }

    #[test]
    fn a_draining_member_passes_on_answers_alone() {
        passes("c", "b", Err(NoPassage::Draining));
        passes("c", "b answer", Ok(()));
        passes("c", "d answer", Err(NoPassage::NoWay));
    }

    /// Among `a`, `b`, the draining `c`, and `d` to whom nobody has a link.
    #[track_caller]
    fn passes(me: &str, frame: &str, expected: Result<(), NoPassage>) {
        let ways = Known { gone: vec![id("d")], ..Known::default() };
        let (target, how) = frame.split_once(' ').unwrap_or((frame, ""));
        let target = id(target);
        let frame =
            Onward { target: &target, via: !how.contains("relayed"), ends_ask: how.contains("answer") };
        assert_eq!(pass(&view("a b c! d"), &id(me), frame, &ways), expected);
    }

    /// From `a` to `b`: what happens, and the relay then.
    #[track_caller]
    fn check(members: &str, rtts: &[&str], steps: &[(&str, &str)]) {
        let (mut view, mut ways, mut relays) = (view(members), Known::default(), Relays::new());
        let pair = |said: &str| said.split_once('-').map(|(from, to)| (id(from), id(to))).unwrap();
        let set = |ways: &mut Known, legs: &str, ms: &str| {
            ways.rtts_ms.insert(pair(legs), ms.parse().unwrap());
        };
        for rtt in rtts {
            let (legs, ms) = rtt.split_once(' ').unwrap();
            set(&mut ways, legs, ms);
        }
        for (event, expected) in steps {
            match event.split(' ').collect::<Vec<_>>()[..] {
                ["cut", legs] => {
                    let (from, to) = pair(legs);
                    view.members.get_mut(&from).unwrap().cut_from.push(to);
                }
                ["down", node] => ways.gone.push(id(node)),
                ["up", node] => ways.gone.retain(|gone| *gone != id(node)),
                ["rtt", legs, ms] => set(&mut ways, legs, ms),
                _ => {}
            }
            let chosen = relays.choose(&view, &id("a"), &id("b"), &ways).map_or("none", NodeId::as_str);
            assert_eq!(chosen, *expected, "after `{event}`");
        }
    }
}
