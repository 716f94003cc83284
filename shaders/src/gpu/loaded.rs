//! The plans on a device, and which of them leave when its memory is short: those that were not run for longest. A plan that
//! left comes back when it is run.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::Device;
use super::kernels::Kernels;
use super::prepared::{Fit, Prepared};
use crate::{ExecuteError, Plan, PlanId};

#[derive(Default)]
pub(super) struct Loaded {
    plans: HashMap<PlanId, Prepared>,
    runs: u64,
    /// Bytes of all plans and batches; `None`: what the driver gives.
    budget: Option<u64>,
    evictions: u64,
    /// How often the driver will have no memory left.
    #[cfg(test)]
    pub(super) refusals: usize,
}

/// A plan that may leave.
#[derive(Clone, Copy, Debug)]
struct Tenant {
    plan: PlanId,
    bytes: u64,
    run_at: u64,
}

impl Loaded {
    pub(super) fn new(budget: Option<u64>) -> Self {
        Self { budget, ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn get(&self, plan: PlanId) -> Option<&Prepared> {
        self.plans.get(&plan)
    }

    pub(super) fn get_mut(&mut self, plan: PlanId) -> Option<&mut Prepared> {
        self.plans.get_mut(&plan)
    }

    /// # Panics
    /// When it was not brought.
    pub(super) fn of(&mut self, plan: PlanId) -> &mut Prepared {
        self.plans.get_mut(&plan).expect("a plan is loaded before it is run")
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Prepared> {
        self.plans.values_mut()
    }

    pub(super) fn remove(&mut self, plan: PlanId) {
        self.plans.remove(&plan);
    }

    pub(super) fn len(&self) -> usize {
        self.plans.len()
    }

    /// Bytes of all plans.
    pub(super) fn bytes(&self) -> u64 {
        self.plans.values().map(Prepared::bytes).sum()
    }

    pub(super) fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// How often a plan left.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Brings a plan to the device, beside so many bytes of batches; others leave for it.
    pub(super) fn bring(
        &mut self,
        device: &Device,
        kernels: &mut Kernels,
        plan: &Arc<Plan>,
        beside: u64,
    ) -> Result<(), ExecuteError> {
        self.runs += 1;
        if let Some(prepared) = self.plans.get_mut(&plan.id) {
            prepared.run_at = self.runs;
            return Ok(());
        }
        let fit = Fit::of(device, plan, self.budget)?;
        self.make_room(device, plan, beside + fit.bytes())?;
        kernels.prepare(device, plan)?;
        let mut prepared = self.granted(device, plan.id, || Prepared::new(device, kernels, plan, &fit))?;
        prepared.run_at = self.runs;
        device.compiler.keep();
        self.plans.insert(plan.id, prepared);
        // A single dispatch has weights of its own, if it came to be.
        let fits = self.make_room(device, plan, beside);
        if fits.is_err() {
            self.remove(plan.id);
        }
        fits
    }

    /// Has plans leave until `plan`, whose own bytes count once it is there, fits the budget beside `more` bytes.
    pub(super) fn make_room(&mut self, device: &Device, plan: &Plan, more: u64) -> Result<(), ExecuteError> {
        let Some(budget) = self.budget else { return Ok(()) };
        let excess = (self.bytes() + more).saturating_sub(budget);
        if excess == 0 || self.evict(device, plan.id, excess) {
            return Ok(());
        }
        Err(ExecuteError::OutOfMemory(format!(
            "plan `{}` and its batches do not fit the {budget} bytes that the configuration gives the device's plans",
            plan.name
        )))
    }

    /// Has plans leave, but for one, until so many bytes are free; nobody leaves if that is not enough.
    pub(super) fn evict(&mut self, device: &Device, but: PlanId, bytes: u64) -> bool {
        let may_leave = |(id, prepared): &(&PlanId, &Prepared)| **id != but && prepared.resident.is_none();
        let tenant = |(id, prepared): (&PlanId, &Prepared)| Tenant {
            plan: *id,
            bytes: prepared.bytes(),
            run_at: prepared.run_at,
        };
        let Some(leave) = leaving(self.plans.iter().filter(may_leave).map(tenant).collect(), bytes) else {
            return false;
        };
        for id in leave {
            if let Some(prepared) = self.plans.remove(&id) {
                tracing::info!(plan = %prepared.plan.name, bytes = prepared.bytes(), "left the device for others");
            }
            self.evictions += 1;
        }
        device.sweep();
        true
    }

    /// What the driver makes; plans but for one leave while it has no memory left.
    pub(super) fn granted<T>(
        &mut self,
        device: &Device,
        but: PlanId,
        make: impl Fn() -> Result<T, ExecuteError>,
    ) -> Result<T, ExecuteError> {
        loop {
            match self.unless_refused(&make) {
                Err(ExecuteError::OutOfMemory(_)) if self.evict(device, but, 1) => {}
                made => return made,
            }
        }
    }

    /// What is made, unless a test has it refused.
    fn unless_refused<T>(
        &mut self,
        make: impl FnOnce() -> Result<T, ExecuteError>,
    ) -> Result<T, ExecuteError> {
        #[cfg(test)]
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(ExecuteError::OutOfMemory("as a test has it".to_owned()));
        }
        make()
    }
}

/// Who leaves, so that `bytes` are free: those that were not run for longest; `None`: all of them are not enough.
fn leaving(mut tenants: Vec<Tenant>, bytes: u64) -> Option<Vec<PlanId>> {
    tenants.sort_by_key(|tenant| tenant.run_at);
    let mut free = 0;
    let mut leave = Vec::new();
    for tenant in tenants {
        if free >= bytes {
            break;
        }
        free += tenant.bytes;
        leave.push(tenant.plan);
    }
    (free >= bytes).then_some(leave)
}

#[cfg(test)]
mod tests {
    use super::{PlanId, Tenant, leaving};

    #[track_caller]
    fn check(bytes: u64, expected: Option<&[u64]>) {
        let tenants = [(1, 100, 7), (2, 50, 3), (3, 200, 5)];
        let tenants = tenants.map(|(plan, bytes, run_at)| Tenant { plan: PlanId(plan), bytes, run_at });
        let expected = expected.map(|plans| plans.iter().copied().map(PlanId).collect::<Vec<_>>());
        assert_eq!(leaving(tenants.to_vec(), bytes), expected, "{bytes} bytes");
    }

    #[test]
    fn those_leave_that_were_not_run_for_longest() {
        check(1, Some(&[2]));
        check(50, Some(&[2]));
        check(51, Some(&[2, 3]));
        check(250, Some(&[2, 3]));
        check(350, Some(&[2, 3, 1]));
    }

    #[test]
    fn nobody_leaves_in_vain() {
        check(351, None);
        assert_eq!(leaving(Vec::new(), 1), None);
    }
}
