//! What befalls the nodes, and what must hold meanwhile and afterwards.

use rand::RngExt;

use super::*;

impl World {
    pub(super) fn trouble(&mut self) {
        if self.now > TROUBLE_US {
            return;
        }
        let pause = self.rng.random_range(200_000..1_500_000);
        self.at(self.now + pause, Event::Trouble);
        let count = self.nodes.len();
        let node = self.rng.random_range(0..count);
        let other = (node + self.rng.random_range(1..count)) % count;
        if self.setup.chaos == Chaos::Drains {
            let calm =
                self.nodes.iter().all(|node| node.up.as_ref().is_some_and(|up| up.drain == Drain::Serving));
            if calm {
                self.start_drain(node);
            }
            return;
        }
        match self.rng.random_range(0..9) {
            0 => self.kill(node),
            1 => {
                // Never shortened, and over before the healing: what waits for the thaw keeps its order.
                let until = self.now + self.rng.random_range(100_000..3_900_000);
                self.nodes[node].frozen_until = self.nodes[node].frozen_until.max(until);
            }
            2 => self.cut[node][other] = true,
            3 => (self.cut[node][other], self.cut[other][node]) = (true, true),
            4 => self.isolate(|at| at == node),
            5 => {
                let side: Vec<bool> = (0..count).map(|_| self.rng.random_bool(0.5)).collect();
                self.isolate(|at| side[at]);
            }
            6 => self.start_drain(node),
            7 => {
                self.loss = self.rng.random_range(0.0..0.2);
                self.slow_us = self.rng.random_range(0..300_000);
            }
            _ => {
                self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
                (self.loss, self.slow_us) = (0.0, 0);
            }
        }
    }

    fn start_drain(&mut self, node: usize) {
        let now = self.instant();
        if let Some(up) = &mut self.nodes[node].up {
            up.drain.start(DRAIN, now);
        }
    }

    fn isolate(&mut self, side: impl Fn(usize) -> bool) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.cut[from][to] |= side(from) != side(to);
            }
        }
    }

    fn kill(&mut self, node: usize) {
        if self.nodes[node].up.take().is_some() {
            self.ledger.killed.insert((node, self.nodes[node].life));
            let after = self.rng.random_range(50_000..3_000_000);
            self.at(self.now + after, Event::Restart(node));
        }
    }

    pub(super) fn check_singleton(&mut self) {
        let now = self.instant();
        let acts = |node: &&Node| {
            node.frozen_until <= self.now
                && node.up.as_ref().is_some_and(|up| up.singleton.acting(now).is_some())
        };
        if self.nodes.iter().filter(acts).count() > 1 {
            self.broken = Some("two act as the singleton".to_owned());
        }
    }

    pub(super) fn settle(&self) -> Result<(), String> {
        let now = self.instant();
        let up = || self.nodes.iter().filter_map(|node| node.up.as_ref());
        if up().count() != self.nodes.len() || up().any(|at| at.view.members.len() != self.nodes.len()) {
            return Err("the views have not converged".to_owned());
        }
        let acting = up().filter(|up| up.singleton.acting(now).is_some()).count();
        if acting != 1 {
            return Err(format!("{acting} act as the singleton after healing"));
        }
        for shard in 0..self.setup.spec.shard_count {
            let owners = up().filter(|up| up.owner.holds(ShardId(shard), now).is_some()).count();
            if owners != 1 {
                return Err(format!("{owners} own shard {shard} after healing"));
            }
        }
        let left: usize = up().map(|up| up.owner.unfinished().messages + up.sender.open()).sum();
        if left != 0 {
            return Err(format!("{left} messages are left after healing"));
        }
        self.ledger.settle(self.setup.chaos == Chaos::Drains, |life| self.is_alive(life))
    }
}
