//! Decides what a failure leads to: which actors restart, when, or that it is over.
//!
//! Pure: failures and clock readings in, verdicts out. Knows actors as numbers in start order.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Which siblings restart along with a child that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// None: they do not depend on each other.
    OneForOne,
    /// All: they share a state that has become doubtful.
    OneForAll,
    /// Those started after it: later ones depend on earlier ones.
    RestForOne,
}

/// How many failures in how long are met with a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Restarts within the window; one failure more spends the budget.
    pub restarts_max: u32,
    /// The sliding window.
    pub within: Duration,
}

/// How long to wait before a restart: doubles with every failure in the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// After the first failure.
    pub base: Duration,
    /// Never longer than this.
    pub max: Duration,
    /// Share of the delay that chance may take off, from 0 to 1.
    pub jitter: f64,
}

/// What happens when a budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalate {
    /// The group fails as a whole, which counts against its own budget; at the root that ends the tree.
    Parent,
    /// The tree ends at once, whoever the parents are.
    StopNode,
    /// This child stays down for good and the others live on.
    LeaveDown,
}

/// What to do about one failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Stop those that still run, last first; after the delay start them all, first first.
    Restart { actors: Range<usize>, after: Duration },
    /// These stay down.
    LeaveDown { actors: Range<usize> },
    /// The whole tree goes down.
    StopNode,
}

/// What supervision knows about one child, actor or group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) budget: Budget,
    pub(crate) backoff: Backoff,
    pub(crate) when_spent: Escalate,
}

/// The shape of a tree with the failures remembered in it.
pub(crate) struct Policy {
    nodes: Vec<Node>,
    rng: StdRng,
}

struct Node {
    parent: usize,
    rules: Rules,
    /// Of its children; means nothing for an actor.
    strategy: Strategy,
    /// The actors in it, by start order.
    actors: Range<usize>,
    failures: VecDeque<Instant>,
}

/// The root has no rules of its own: a failure that reaches it ends the tree.
pub(crate) const ROOT: usize = 0;

impl Policy {
    pub(crate) fn new(strategy: Strategy, seed: u64) -> Self {
        let rules = Rules {
            budget: Budget { restarts_max: 0, within: Duration::ZERO },
            backoff: Backoff { base: Duration::ZERO, max: Duration::ZERO, jitter: 0.0 },
            when_spent: Escalate::StopNode,
        };
        let root = Node { parent: ROOT, rules, strategy, actors: 0..0, failures: VecDeque::new() };
        Self { nodes: vec![root], rng: StdRng::seed_from_u64(seed) }
    }

    /// Adds a group at the end of its parent.
    pub(crate) fn add_group(&mut self, parent: usize, rules: Rules, strategy: Strategy) -> usize {
        let next = self.nodes[ROOT].actors.end;
        self.nodes.push(Node { parent, rules, strategy, actors: next..next, failures: VecDeque::new() });
        self.nodes.len() - 1
    }

    /// Adds the next actor in start order to the end of its parent.
    pub(crate) fn add_actor(&mut self, parent: usize, rules: Rules) {
        let node = self.add_group(parent, rules, Strategy::OneForOne);
        let end = self.nodes[node].actors.start + 1;
        self.nodes[node].actors.end = end;
        let mut group = parent;
        loop {
            self.nodes[group].actors.end = end;
            if group == ROOT {
                return;
            }
            group = self.nodes[group].parent;
        }
    }

    pub(crate) fn on_failure(&mut self, actor: usize, now: Instant) -> Verdict {
        let mut node = self.node_of(actor);
        while node != ROOT {
            let roll = self.rng.random::<f64>();
            let Node { parent, rules, actors, failures, .. } = &mut self.nodes[node];
            if let Some(count) = count_within(failures, now, rules.budget) {
                let (after, parent, failed) = (rules.backoff.delay(count, roll), *parent, actors.clone());
                let actors = self.affected(parent, failed);
                return Verdict::Restart { actors, after };
            }
            match rules.when_spent {
                Escalate::StopNode => return Verdict::StopNode,
                Escalate::LeaveDown => {
                    return Verdict::LeaveDown { actors: actors.clone() };
                }
                Escalate::Parent => node = *parent,
            }
            self.forget_within(node);
        }
        Verdict::StopNode
    }

    /// The node that is the actor itself: the last one added of those that hold it.
    fn node_of(&self, actor: usize) -> usize {
        self.nodes.iter().rposition(|node| node.actors.contains(&actor)).unwrap_or(ROOT)
    }

    fn affected(&self, parent: usize, failed: Range<usize>) -> Range<usize> {
        let group = &self.nodes[parent];
        match group.strategy {
            Strategy::OneForOne => failed,
            Strategy::OneForAll => group.actors.clone(),
            Strategy::RestForOne => failed.start..group.actors.end,
        }
    }

    /// A group that restarts as a whole starts with fresh budgets inside.
    fn forget_within(&mut self, group: usize) {
        let actors = self.nodes[group].actors.clone();
        for node in &mut self.nodes[group + 1..] {
            if node.actors.start >= actors.start && node.actors.end <= actors.end {
                node.failures.clear();
            }
        }
    }
}

impl Backoff {
    /// The wait after the `count`-th failure in a row; `roll` is drawn from 0 to 1.
    pub(crate) fn delay(&self, count: u32, roll: f64) -> Duration {
        let doublings = count.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64((1.0 - self.jitter * roll).clamp(0.0, 1.0))
    }
}

/// Remembers a failure; how many the window then holds, or nothing if that is more than the budget allows.
fn count_within(failures: &mut VecDeque<Instant>, now: Instant, budget: Budget) -> Option<u32> {
    failures.retain(|&at| now.saturating_duration_since(at) <= budget.within);
    failures.push_back(now);
    let count = u32::try_from(failures.len()).unwrap_or(u32::MAX);
    (count <= budget.restarts_max).then_some(count)
}
