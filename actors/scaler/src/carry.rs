//! Carries actions out: under holds, one after the other, each once.
//!
//! Knows pools and no policy. What fails is told to whoever decided; nothing is tried again here.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::fleet::{Machine, MachineId};
use crate::pool::{Change, Hold, MachinePool, PoolError};
use crate::reconcile::Action;
use crate::rule::after;

/// The port to the nodes themselves.
pub trait Nodes {
    /// Tells the node on a machine to take no more requests and to send its streams elsewhere. It may be lost; it is
    /// told again until its reports show that it knows.
    fn drain(&mut self, machine: &Machine, now: Timestamp);

    /// Tells it to take requests again. It may be lost; a node that goes on draining is stopped and replaced.
    fn undrain(&mut self, machine: &Machine, now: Timestamp);
}

/// Carries out what was decided for one pool.
#[derive(Debug)]
pub struct Carrier {
    holds: BTreeMap<MachineId, Hold>,
    ttl: Duration,
}

impl Carrier {
    /// Holds last `ttl` unless they are renewed; more than two rounds, so that one may be missed.
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        Self { holds: BTreeMap::new(), ttl }
    }

    /// Does one thing.
    ///
    /// # Errors
    /// What the pool said.
    pub fn carry(
        &mut self,
        action: &Action,
        pool: &mut dyn MachinePool,
        nodes: &mut dyn Nodes,
        now: Timestamp,
    ) -> Result<(), PoolError> {
        match action {
            Action::Create(order) => pool.create(order, now).map(|_| ()),
            Action::Hold(machine) => self.hold(machine, pool, now).map(|_| ()),
            Action::Release(machine) => {
                let Some(hold) = self.holds.remove(&machine.id) else { return Ok(()) };
                pool.release(&machine.id, &hold, now)
            }
            Action::Drain(machine) => {
                nodes.drain(machine, now);
                Ok(())
            }
            Action::Undrain(machine) => {
                // Whoever holds the machine may be about to stop it.
                self.hold(machine, pool, now)?;
                nodes.undrain(machine, now);
                Ok(())
            }
            Action::Change(machine, change) => {
                self.change(machine, *change, pool, now)?;
                if *change == Change::Start {
                    // What its node was told in its last life is over.
                    nodes.undrain(machine, now);
                }
                Ok(())
            }
        }
    }

    fn change(
        &mut self,
        machine: &Machine,
        change: Change,
        pool: &mut dyn MachinePool,
        now: Timestamp,
    ) -> Result<(), PoolError> {
        let before =
            self.holds.get(&machine.id).filter(|held| held.until > now).map(|held| held.nonce.clone());
        let hold = self.hold(machine, pool, now)?;
        if change == Change::Stop && before.as_ref() != Some(&hold.nonce) {
            // What was listed without a hold may have changed since: its cordon may be lifted, its node serve again.
            return Err(PoolError::WrongState("it is held only now, and may have changed before".to_owned()));
        }
        let result = pool.change(&machine.id, change, &hold, now);
        // What is on its way out stays held; everything else is over with this.
        if matches!(change, Change::Start | Change::Uncordon | Change::Destroy) {
            self.holds.remove(&machine.id);
            if result != Err(PoolError::Gone) && !(change == Change::Destroy && result.is_ok()) {
                // One that cannot be given back ends by itself.
                let _ = pool.release(&machine.id, &hold, now);
            }
        }
        result
    }

    /// A hold with more than half of its time to go, renewed if need be.
    fn hold(
        &mut self,
        machine: &Machine,
        pool: &mut dyn MachinePool,
        now: Timestamp,
    ) -> Result<Hold, PoolError> {
        let held = self.holds.get(&machine.id);
        if let Some(held) = held.filter(|held| held.until > after(now, self.ttl / 2)) {
            return Ok(held.clone());
        }
        match pool.hold(&machine.id, held, self.ttl, now) {
            Ok(hold) => {
                self.holds.insert(machine.id.clone(), hold.clone());
                Ok(hold)
            }
            Err(err) => {
                if matches!(err, PoolError::Held { .. } | PoolError::Gone) {
                    self.holds.remove(&machine.id);
                }
                Err(err)
            }
        }
    }

    /// Forgets holds on machines that are no longer listed.
    pub fn keep<'a>(&mut self, listed: impl Iterator<Item = &'a Machine>) {
        let listed: std::collections::BTreeSet<&MachineId> = listed.map(|machine| &machine.id).collect();
        self.holds.retain(|id, _| listed.contains(id));
    }
}
