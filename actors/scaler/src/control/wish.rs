//! How many machines a group should have.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::Cause;
use crate::fleet::GroupSpec;
use crate::rule::{Direction, Judgement, after};
use crate::signal::Reading;

/// Requests per second, as forecast and as measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Upper bound until a new machine would be ready.
    pub(super) forecast: Option<f64>,
    /// Of now.
    pub(super) measured: Reading,
    /// There are machines that should speak, and none does.
    pub(super) is_blind: bool,
    /// Of one machine.
    pub(super) capacity: f64,
    /// Of nodes that come from no pool.
    pub(super) fixed: f64,
    /// Share by which it must lie below what fewer machines answer before any go.
    pub(super) dead_band: f64,
}

/// The number, and what it was made of lately.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Machines that should run.
    pub wanted: u32,
    /// What was needed or asked for by a rule, of late.
    enough: VecDeque<(Timestamp, u32)>,
}

impl Wish {
    /// What is found running is wanted, within the group's bounds.
    pub(super) fn adopted(present: u32, group: &GroupSpec) -> Self {
        Self { wanted: present.clamp(group.machines_min, group.machines_max), enough: VecDeque::new() }
    }

    /// Says anew how many, and what decided that.
    pub(super) fn update(
        &mut self,
        judged: &Judgement,
        demand: Demand,
        group: &GroupSpec,
        stabilisation: Duration,
        now: Timestamp,
    ) -> Cause {
        let present = self.wanted;
        if demand.is_blind {
            // Not even more: whatever would say so was made of the time before, or of nothing that was measured.
            self.wanted = present.clamp(group.machines_min, group.machines_max);
            return if self.wanted == present { Cause::Blind } else { Cause::Bounds };
        }
        // The requests of now are a demand too, even where some nodes are silent.
        let rate = match (demand.forecast, demand.measured.to_add()) {
            (Some(forecast), Some(measured)) => Some(forecast.max(measured)),
            (forecast, measured) => forecast.or(measured),
        };
        let left = |rate: f64| (rate - demand.fixed).max(0.0);
        let needed = rate.map(|rate| machines_for(left(rate), demand.capacity, present, demand.dead_band));
        let (mut to, mut cause) = match &judged.by {
            Some((rule, direction)) => (judged.to, Cause::Rule(rule.clone(), *direction)),
            None => (present, Cause::Steady),
        };
        if let (Some(needed), Some(rate)) = (needed, rate)
            && needed > to.max(present)
        {
            (to, cause) = (needed, Cause::Demand { rate });
        }
        let is_known = matches!(demand.measured, Reading::Known(_));
        if to < present && needed.is_some_and(|needed| needed > to) {
            // A rule would take away what the demand needs.
            to = needed.unwrap_or(present).min(present);
        }
        // The demand alone takes machines away where all is known, and only those that for the whole window it did not
        // need itself, no rule has added and none has kept.
        let added = match &judged.by {
            Some((_, Direction::Up)) => judged.to,
            _ => 0,
        };
        let asked = needed.unwrap_or(present).max(added).max(judged.keeps);
        let enough = self.enough_for(asked, stabilisation, now);
        if to == present
            && is_known
            && demand.forecast.is_some()
            && judged.keeps < present
            && let (Some(needed), Some(rate)) = (needed, rate)
            && needed < present
        {
            (to, cause) = if enough < present {
                (enough, Cause::Demand { rate })
            } else {
                (present, Cause::Stabilising)
            };
        }
        if to < present && !is_known {
            (to, cause) = (present, Cause::Blind);
        }
        let bounded = to.clamp(group.machines_min, group.machines_max);
        if bounded != to {
            to = bounded;
            cause = if to == present { Cause::Steady } else { Cause::Bounds };
        }
        self.wanted = to;
        cause
    }

    /// The most that was asked for within the window, now included.
    fn enough_for(&mut self, asked: u32, window: Duration, now: Timestamp) -> u32 {
        if self.enough.is_empty() {
            // Nothing is known of the time before: what was found may have been needed.
            self.enough.push_back((now, self.wanted));
        }
        self.enough.push_back((now, asked));
        while self.enough.front().is_some_and(|(at, _)| after(*at, window) < now) {
            self.enough.pop_front();
        }
        // Of equal ones in a row the first and the last say it all: the queue grows only while the number changes.
        let len = self.enough.len();
        if len >= 3 && self.enough[len - 2].1 == asked && self.enough[len - 3].1 == asked {
            self.enough.remove(len - 2);
        }
        self.enough.iter().map(|(_, asked)| *asked).max().unwrap_or(asked)
    }
}

/// Machines for a rate. What is more than the present ones answer within their objective is needed at once; what fewer
/// could answer must lie below that by the dead band, or each would take its turn.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded ratio, saturating")]
fn machines_for(rate: f64, capacity: f64, present: u32, dead_band: f64) -> u32 {
    if !rate.is_finite() || rate < 0.0 || capacity <= 0.0 {
        return present;
    }
    let needed = rate / capacity;
    let now = f64::from(present);
    let within = present > 0 && needed <= now && needed > (now - 1.0) * (1.0 - dead_band);
    if within { present } else { needed.ceil().min(f64::from(u32::MAX)) as u32 }
}
