//! One round with the pools at hand.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Controller, Round, Seen};
use crate::carry::{Carrier, Nodes};
use crate::fleet::Machine;
use crate::pool::{MachinePool, PoolError};
use crate::reconcile::Action;

/// A pool, with the holds on its machines.
pub struct Attached {
    /// The pool.
    pub pool: Box<dyn MachinePool>,
    /// Carries out what is decided for it.
    pub carrier: Carrier,
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The action.
    pub action: Action,
    /// What the pool said.
    pub result: Result<(), PoolError>,
}

/// Lists, decides and carries out once, with pools that do not block for long: simulations and tests, and a node's own
/// thread. `look` completes what the lists show.
pub fn run_once(
    controller: &mut Controller,
    pools: &mut BTreeMap<String, Attached>,
    nodes: &mut dyn Nodes,
    now: Timestamp,
    look: impl FnOnce(BTreeMap<String, Result<Vec<Machine>, PoolError>>) -> Seen,
    mut chance: impl FnMut() -> f64,
) -> (Round, Vec<Done>) {
    let lists = pools.iter_mut().map(|(name, at)| (name.clone(), at.pool.list(now))).collect();
    let seen = look(lists);
    for (name, list) in &seen.machines {
        if let (Ok(machines), Some(attached)) = (list, pools.get_mut(name)) {
            attached.carrier.keep(machines.iter());
        }
    }
    let round = controller.round(&seen);
    let mut outcomes = Vec::new();
    for (pool, action) in &round.actions {
        let Some(Attached { pool, carrier }) = pools.get_mut(pool) else { continue };
        let result = carrier.carry(action, pool.as_mut(), nodes, now);
        controller.done(action, result.as_ref().copied(), now, chance());
        outcomes.push(Done { action: action.clone(), result });
    }
    (round, outcomes)
}
