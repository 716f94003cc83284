//! Who is asked again, and when: ever later, spread by chance, and by what the error says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::Action;
use crate::pool::PoolError;
use crate::rule::after;

/// First and longest wait after what may pass.
const WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
/// …after a machine was in another state than it was seen in: shorter than a hold, so that it is still held then.
const WAIT_STATE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));
/// …after a region had no capacity, which seldom changes soon.
const WAIT_CAPACITY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(900));
/// …after what will be refused again until somebody has mended it.
const WAIT_REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Slot(u32),
    Machine(String),
    Region(String),
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Timestamp,
    attempts: u32,
}

/// All waits of one group; as many as it has machines, slots and regions.
#[derive(Debug, Default)]
pub(crate) struct Backoffs {
    waits: BTreeMap<Key, Wait>,
}

fn keys(action: &Action) -> Vec<Key> {
    match action {
        Action::Create(order) => vec![Key::Slot(order.slot.number), Key::Region(order.region.clone())],
        Action::Change(machine, _) | Action::Hold(machine) | Action::Undrain(machine) => {
            vec![Key::Machine(machine.id.0.clone())]
        }
        Action::Drain(_) | Action::Release(_) => Vec::new(),
    }
}

impl Backoffs {
    pub(super) fn allows(&self, action: &Action, now: Timestamp) -> bool {
        keys(action).iter().all(|key| self.waits.get(key).is_none_or(|wait| wait.until <= now))
    }

    pub(super) fn full_regions(&self, now: Timestamp) -> BTreeSet<String> {
        let waits = self.waits.iter().filter(|(_, wait)| wait.until > now);
        waits
            .filter_map(|(key, _)| match key {
                Key::Region(region) => Some(region.clone()),
                Key::Slot(_) | Key::Machine(_) => None,
            })
            .collect()
    }

    /// Attempts count until the longest wait has passed once more without one.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.waits.retain(|_, wait| after(wait.until, WAIT_CAPACITY.1) > now);
    }

    pub(super) fn done(
        &mut self,
        action: &Action,
        result: Result<(), &PoolError>,
        now: Timestamp,
        chance: f64,
    ) {
        let keys = keys(action);
        let Err(error) = result else {
            for key in keys {
                self.waits.remove(&key);
            }
            return;
        };
        let (key, (first, longest)) = match (error, action) {
            (PoolError::NoCapacity { region }, _) => (Key::Region(region.clone()), WAIT_CAPACITY),
            (PoolError::HostFull, Action::Create(order)) => (Key::Region(order.region.clone()), WAIT),
            (PoolError::HostFull, Action::Change(machine, _)) => {
                (Key::Machine(machine.id.0.clone()), WAIT_CAPACITY)
            }
            (PoolError::Refused(_), _) => match keys.into_iter().next() {
                Some(key) => (key, WAIT_REFUSED),
                None => return,
            },
            (PoolError::WrongState(_), Action::Change(machine, _)) => {
                (Key::Machine(machine.id.0.clone()), WAIT_STATE)
            }
            _ => match keys.into_iter().next() {
                Some(key) => (key, WAIT),
                None => return,
            },
        };
        let attempts = self.waits.get(&key).map_or(0, |wait| wait.attempts);
        let grown = first.saturating_mul(1 << attempts.min(16)).min(longest);
        // Half of it is sure, half is chance: many that failed together do not come back together.
        let delay = grown.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
        self.waits.insert(key, Wait { until: after(now, delay), attempts: attempts.saturating_add(1) });
    }
}
