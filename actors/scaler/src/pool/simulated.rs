//! A pool in memory, whose machines take their time: what simulations run on.
//!
//! Its clock is the `now` of each call. Faults are set from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Change, Hold, MachinePool, Order, PoolError};
use crate::fleet::{GroupSpec, Machine, MachineId, MachineState};
use crate::rule::after;

/// How long machines of the pool take.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// From created to started.
    pub create: Duration,
    /// From stopped to started.
    pub start: Duration,
    /// From started to stopped.
    pub stop: Duration,
}

struct Simulated {
    machine: Machine,
    /// What it becomes, and when.
    next: Option<(Timestamp, MachineState)>,
    hold: Option<Hold>,
}

/// The pool.
pub struct SimulatedPool {
    delays: Delays,
    machines: BTreeMap<MachineId, Simulated>,
    made: u64,
    /// Machines that a region has at most; one that is not named has any number.
    capacity: BTreeMap<String, u32>,
    refuses: Option<PoolError>,
}

impl SimulatedPool {
    /// An empty pool.
    #[must_use]
    pub fn new(delays: Delays) -> Self {
        Self { delays, machines: BTreeMap::new(), made: 0, capacity: BTreeMap::new(), refuses: None }
    }

    /// From now on `region` has room for `machines` in all; `None`: for any number.
    pub fn set_capacity(&mut self, region: &str, machines: Option<u32>) {
        match machines {
            Some(machines) => self.capacity.insert(region.to_owned(), machines),
            None => self.capacity.remove(region),
        };
    }

    /// From now on every call fails like this; `None`: none does.
    pub fn set_refuses(&mut self, error: Option<PoolError>) {
        self.refuses = error;
    }

    /// The machine falls over.
    pub fn fail(&mut self, id: &MachineId) {
        if let Some(simulated) = self.machines.get_mut(id) {
            simulated.machine.state = MachineState::Failed;
            simulated.next = None;
        }
    }

    fn advance(&mut self, now: Timestamp) -> Result<(), PoolError> {
        for simulated in self.machines.values_mut() {
            if let Some((_, state)) = simulated.next.take_if(|(at, _)| *at <= now) {
                simulated.machine.state = state;
            }
        }
        self.machines.retain(|_, simulated| simulated.machine.state != MachineState::Destroying);
        self.refuses.clone().map_or(Ok(()), Err)
    }

    fn room_in(&self, region: &str) -> Option<u32> {
        let capacity = *self.capacity.get(region)?;
        let runs =
            |simulated: &&Simulated| simulated.machine.region == region && !simulated.machine.state.is_warm();
        let running = self.machines.values().filter(runs).count();
        Some(capacity.saturating_sub(u32::try_from(running).unwrap_or(u32::MAX)))
    }
}

impl MachinePool for SimulatedPool {
    fn list(&mut self, now: Timestamp) -> Result<Vec<Machine>, PoolError> {
        self.advance(now)?;
        Ok(self.machines.values().map(|simulated| simulated.machine.clone()).collect())
    }

    fn room(&mut self, group: &GroupSpec, now: Timestamp) -> Result<Vec<(String, u32)>, PoolError> {
        self.advance(now)?;
        let regions = group.places.iter().map(|place| &place.region);
        Ok(regions.filter_map(|region| Some((region.clone(), self.room_in(region)?))).collect())
    }

    fn create(&mut self, order: &Order, now: Timestamp) -> Result<MachineId, PoolError> {
        self.advance(now)?;
        if self.machines.values().any(|simulated| simulated.machine.slot == order.slot) {
            return Err(PoolError::SlotTaken);
        }
        if self.room_in(&order.region) == Some(0) {
            return Err(PoolError::NoCapacity { region: order.region.clone() });
        }
        self.made += 1;
        let id = MachineId(format!("sim{:08}", self.made));
        let done = after(now, self.delays.create);
        let (state, next) = if order.launch {
            (MachineState::Starting, (done, MachineState::Started))
        } else {
            (MachineState::Stopping, (done, MachineState::Stopped))
        };
        let machine = Machine {
            id: id.clone(),
            slot: order.slot.clone(),
            region: order.region.clone(),
            state,
            cordoned: false,
            release: order.release.clone(),
            created_at: now,
        };
        self.machines.insert(id.clone(), Simulated { machine, next: Some(next), hold: None });
        Ok(id)
    }

    fn hold(
        &mut self,
        machine: &MachineId,
        held: Option<&Hold>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Hold, PoolError> {
        self.advance(now)?;
        let made = self.made;
        let simulated = self.machines.get_mut(machine).ok_or(PoolError::Gone)?;
        let present = simulated.hold.as_ref().filter(|hold| hold.until > now);
        let nonce = match (present, held) {
            (Some(present), Some(held)) if present.nonce == held.nonce => held.nonce.clone(),
            (Some(present), _) => return Err(PoolError::Held { until: present.until }),
            (None, _) => format!("{made:06x}{:06x}", now.as_millisecond() & 0xff_ffff),
        };
        let hold = Hold { nonce, until: after(now, ttl) };
        simulated.hold = Some(hold.clone());
        Ok(hold)
    }

    fn release(&mut self, machine: &MachineId, hold: &Hold, now: Timestamp) -> Result<(), PoolError> {
        self.advance(now)?;
        if let Some(simulated) = self.machines.get_mut(machine) {
            simulated.hold.take_if(|present| present.nonce == hold.nonce);
        }
        Ok(())
    }

    fn change(
        &mut self,
        machine: &MachineId,
        change: Change,
        hold: &Hold,
        now: Timestamp,
    ) -> Result<(), PoolError> {
        use MachineState as State;
        self.advance(now)?;
        let region = &self.machines.get(machine).ok_or(PoolError::Gone)?.machine.region;
        let is_full = self.room_in(region) == Some(0);
        let delays = self.delays;
        let simulated = self.machines.get_mut(machine).ok_or(PoolError::Gone)?;
        let present = simulated.hold.as_ref().filter(|present| present.until > now);
        match present {
            Some(present) if present.nonce == hold.nonce => {}
            Some(present) => return Err(PoolError::Held { until: present.until }),
            None => return Err(PoolError::Held { until: now }),
        }
        let wrong = |state: State| PoolError::WrongState(state.name().to_owned());
        match (change, simulated.machine.state) {
            (Change::Cordon, _) => simulated.machine.cordoned = true,
            (Change::Uncordon, _) => simulated.machine.cordoned = false,
            (Change::Start, State::Started | State::Starting)
            | (Change::Stop, State::Stopped | State::Stopping | State::Suspended) => {}
            (Change::Start, State::Stopped | State::Suspended | State::Failed) => {
                if is_full {
                    return Err(PoolError::HostFull);
                }
                simulated.machine.state = State::Starting;
                simulated.next = Some((after(now, delays.start), State::Started));
            }
            (Change::Stop, State::Started | State::Starting) => {
                simulated.machine.state = State::Stopping;
                simulated.next = Some((after(now, delays.stop), State::Stopped));
            }
            (Change::Destroy, State::Stopped | State::Suspended | State::Failed) => {
                simulated.machine.state = State::Destroying;
                simulated.next = None;
            }
            (Change::Destroy, State::Destroying) => {}
            (_, state) => return Err(wrong(state)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn the_simulated_pool_keeps_the_contract() {
        let second = Duration::from_secs(1);
        let mut pool = SimulatedPool::new(Delays { create: second * 3, start: second, stop: second });
        let mut now = Timestamp::from_second(1_800_000_000).unwrap();
        contract::check(&mut pool, &contract::group("here"), "v1", &mut || {
            now = after(now, second / 2);
            now
        });
    }

    #[test]
    fn a_full_region_says_so() {
        let second = Duration::from_secs(1);
        let mut pool = SimulatedPool::new(Delays { create: second, start: second, stop: second });
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        pool.set_capacity("here", Some(1));
        let order = |number| Order {
            slot: crate::fleet::Slot { group: "g".to_owned(), number },
            region: "here".to_owned(),
            release: "v1".to_owned(),
            launch: true,
        };
        assert!(pool.create(&order(0), now).is_ok());
        let full = PoolError::NoCapacity { region: "here".to_owned() };
        assert_eq!(pool.create(&order(1), now), Err(full));
        assert_eq!(pool.room(&contract::group("here"), now), Ok(vec![("here".to_owned(), 0)]));
    }
}
