//! The port behind which a plan is run: one contract, two executors (`cpu`, `gpu`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{NotServed, Plan, PlanId, ResidentPlan, Stay};

/// Where a plan ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// SIMD and threads on the host.
    Cpu,
    /// WGSL through Vulkan, on whatever adapter was chosen.
    Gpu,
}

impl Backend {
    /// `"cpu"` or `"gpu"`, as answers and metrics say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

/// Why a plan did not run. Every variant is an event for the breaker; the caller may try the other executor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExecuteError {
    /// The device is gone; the executor must be rebuilt from scratch.
    #[error("device lost: {0}")]
    DeviceLost(String),
    /// The device has no room for the plan or the batch.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// The plan is larger, wider or longer than the device takes, whatever else is there.
    #[error("not for this device: {0}")]
    Unfit(String),
    /// The device did not finish in the time it was given.
    #[error("device did not finish within {millis} ms")]
    Timeout {
        /// The bound that was passed.
        millis: u64,
    },
    /// The driver refused a kernel or a command: a fault of ours or the driver's.
    #[error("device refused: {0}")]
    Refused(String),
    /// A plan that stays has not answered; its executor has to be asked. Never what an executor itself says.
    #[error(transparent)]
    NotServed(#[from] NotServed),
    /// The network produced NaN or infinity for finite input.
    #[error("output of row {row} is not finite")]
    NotFinite {
        /// Row in the batch.
        row: usize,
    },
}

/// Where the time of a run went, as far as its executor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTimes {
    /// The host had written its inputs and handed over its last commands.
    pub submitted: Instant,
    /// The host saw that the device was done.
    pub finished: Instant,
    /// What the device itself measured from the first of its commands to the last; `None`: it does not measure.
    pub device: Option<Duration>,
}

/// What an executor keeps on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Plans that are there.
    pub plans: usize,
    /// Bytes of their weights, as this executor keeps them, and everything else that is theirs.
    pub plan_bytes: u64,
    /// Bytes that batches are computed in, which all plans share.
    pub batch_bytes: u64,
    /// What both may take; `None`: as much as the driver gives.
    pub budget_bytes: Option<u64>,
    /// How often a plan left for others, to come back when it is run.
    pub evictions: u64,
}

/// What an executor knows of its kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// Layers over numbers of rows for which the fastest kernel was measured on such a device; a guess has the others.
    pub choices: usize,
    /// Kernels that the driver refused; others do their work.
    pub refused: usize,
}

/// Runs plans on one device. Not shared: one thread owns an executor.
pub trait Executor: Send {
    /// Which kind of device this is.
    fn backend(&self) -> Backend;

    /// The device's own name, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)` or `AVX2, 2 threads`.
    fn device(&self) -> &str;

    /// Brings a plan's weights to the device and compiles what it needs. Idempotent.
    ///
    /// # Errors
    /// When the device refuses or has no room; earlier plans stay usable.
    fn load(&mut self, plan: &Arc<Plan>) -> Result<(), ExecuteError>;

    /// What is kept on the device, by the CPU in the memory of the host; `None`: it does not count.
    fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// What is known of its kernels; `None`: it has no choice.
    fn kernels(&self) -> Option<KernelFacts> {
        None
    }

    /// Whether the times of the runs that follow are noted, which may cost some microseconds each.
    fn observe(&mut self, wanted: bool) {
        let _ = wanted;
    }

    /// Of the last run, if it was observed; `None`: this executor notes nothing that its caller does not see.
    fn observed(&self) -> Option<RunTimes> {
        None
    }

    /// Keeps a plan running on the device between requests, where the device and the plan allow it: small requests then
    /// need no submission, through [`run`](Self::run) or from any thread through what is returned. Whether they do changes
    /// no answer. [`unload`](Self::unload) ends it, as does the end of the executor.
    ///
    /// # Errors
    /// Why not; the plan is served the ordinary way.
    fn reside(&mut self, plan: &Arc<Plan>, stay: Stay) -> Result<Arc<dyn ResidentPlan>, ExecuteError> {
        let _ = (plan, stay);
        Err(ExecuteError::Refused("no plan stays on this device".to_owned()))
    }

    /// Frees what `load` took. Unknown ids are ignored.
    fn unload(&mut self, plan: PlanId);

    /// Runs a plan over `rows` rows: `inputs[i]` is `[rows, width of plan.inputs[i]]`, `output` is
    /// `[rows, width of plan.output]`; all row-major. A row's result never depends on the other rows.
    /// Loads the plan first if need be.
    ///
    /// # Errors
    /// See [`ExecuteError`]; `output` then holds nothing to be used.
    ///
    /// # Panics
    /// When a slice's length does not fit the plan: a programmer's error.
    fn run(
        &mut self,
        plan: &Arc<Plan>,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), ExecuteError>;
}
