//! Plans that stay on a device: how they get there, and how requests reach them beside the device's executor.
//!
//! A request for one of them waits for no batch and no actor: its caller's thread asks the kernel itself. What it needs
//! (a scratch, buffers) lies ready, a set for each thread that asked at the same time so far.

use std::sync::Arc;

use parking_lot::Mutex;
use peregrine_shaders::{DeviceMemory, Plan, PlanId, ResidentExecutor, ResidentPlans, Stay};

use super::engine::{Broken, Engine};
use crate::status::ResidentStatus;

/// Rows of a request that a plan which stays answers: a tick's, or a single forecast's.
pub(crate) const ROWS_MAX: usize = 1;

/// What a device keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// Plans that stay there, or will.
    pub(crate) staying: usize,
    /// `None`: nobody knows.
    pub(crate) memory: Option<DeviceMemory>,
}

/// The plans of one device.
pub(crate) struct Residents {
    /// `None`: no plan stays here.
    stay: Option<Stay>,
    /// To be asked for again when the executor is built anew.
    wanted: Mutex<Vec<Arc<Plan>>>,
    plans: Arc<ResidentPlans>,
    /// What they stay on; of the executor that brought the latest.
    device: Mutex<String>,
    /// Ready to ask.
    engines: Mutex<Vec<Engine>>,
}

impl Residents {
    pub(crate) fn new(stay: Option<Stay>) -> Self {
        Self {
            stay,
            wanted: Mutex::default(),
            plans: Arc::default(),
            device: Mutex::default(),
            engines: Mutex::default(),
        }
    }

    /// Has a plan stay from now on, where it can.
    ///
    /// # Errors
    /// The executor broke.
    pub(crate) fn admit(&self, plan: &Arc<Plan>, engine: &mut Engine) -> Result<(), Broken> {
        if self.stay.is_none() {
            return Ok(());
        }
        {
            let mut wanted = self.wanted.lock();
            if !wanted.iter().any(|known| known.id == plan.id) {
                wanted.push(Arc::clone(plan));
            }
        }
        self.start(plan, engine)
    }

    /// Brings back on a new executor what has stayed on the one before it.
    ///
    /// # Errors
    /// The new one broke as well.
    pub(crate) fn restart(&self, engine: &mut Engine) -> Result<(), Broken> {
        self.clear();
        self.retry(engine)
    }

    /// Has those stay that have not yet: one has left, and with it its room.
    ///
    /// # Errors
    /// The executor broke.
    pub(crate) fn retry(&self, engine: &mut Engine) -> Result<(), Broken> {
        let mut wanted = self.wanted.lock().clone();
        wanted.retain(|plan| !self.has(plan.id));
        wanted.iter().try_for_each(|plan| self.start(plan, engine))
    }

    /// A plan is not served any more; `true`: it has stayed, and once it is unloaded there is room for another.
    pub(crate) fn forget(&self, plan: PlanId) -> bool {
        self.wanted.lock().retain(|known| known.id != plan);
        self.plans.write().remove(&plan).is_some()
    }

    /// The executor is gone.
    pub(crate) fn clear(&self) {
        self.plans.write().clear();
    }

    fn start(&self, plan: &Arc<Plan>, engine: &mut Engine) -> Result<(), Broken> {
        let Some(stay) = self.stay else { return Ok(()) };
        match engine.contain(|executor| executor.reside(plan, stay)) {
            Ok(resident) => {
                tracing::info!(plan = %plan.name, "stays on its device");
                engine.device().clone_into(&mut self.device.lock());
                self.plans.write().insert(plan.id, resident);
                Ok(())
            }
            Err(broken) if broken.is_fatal() => Err(broken),
            Err(broken) => {
                tracing::debug!(plan = %plan.name, why = %broken, "does not stay on its device");
                Ok(())
            }
        }
    }

    /// Plans that stay, or will where they can.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.lock().len()
    }

    /// Whether this plan stays.
    pub(crate) fn has(&self, plan: PlanId) -> bool {
        self.plans.read().contains_key(&plan)
    }

    /// Runs something on an engine that asks the plans that stay, and nobody else; one that panicked is not used again.
    pub(crate) fn with<T, U>(
        &self,
        body: impl FnOnce(&mut Engine) -> Result<T, (Broken, U)>,
    ) -> Result<T, (Broken, U)> {
        let ready = self.engines.lock().pop();
        let mut engine = ready.unwrap_or_else(|| {
            Engine::new(Box::new(ResidentExecutor::new(Arc::clone(&self.plans), &self.device.lock())))
        });
        let done = body(&mut engine);
        if !matches!(done, Err((Broken::Panicked(_), _))) {
            self.engines.lock().push(engine);
        }
        done
    }

    /// What all that stay have done, in the order in which they came.
    pub(crate) fn status(&self) -> Vec<ResidentStatus> {
        let (wanted, plans) = (self.wanted.lock(), self.plans.read());
        let there = wanted.iter().filter_map(|plan| Some((plan, plans.get(&plan.id)?)));
        there
            .map(|(plan, resident)| ResidentStatus { plan: plan.name.clone(), counts: resident.counts() })
            .collect()
    }
}
