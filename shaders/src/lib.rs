//! Numbers: forecasters become plans, executors run plans on a CPU or through WGSL on a Vulkan device.
//!
//! Knows no actor, socket, clock or asynchronous runtime. The way of one batch:
//! [`Windows`] (raw units) → [`Forecaster::forecast`] (normalize, run the [`Plan`] on an [`Executor`], map the head,
//! undo the normalizer) → one `f32` per row, step and column.

pub mod cpu;
mod executor;
mod forecaster;
pub mod gpu;
mod halves;
pub mod head;
mod loader;
mod normalizer;
mod plan;
mod resident;
mod sliding;
mod spec;
#[cfg(test)]
mod tests;
pub mod verify;
mod windows;

pub use executor::{Backend, DeviceMemory, ExecuteError, Executor, KernelFacts, RunTimes};
pub use forecaster::{Forecaster, Scratch};
pub use loader::{Files, LoadError, PlainFiles, place};
pub use plan::{
    Activation, Affine, Attention, BufferId, Cell, Command, Init, LayerNorm, Linear, Move, Plan, PlanBuilder,
    PlanId, Pool, PoolMode, Precision, Recurrent, Repeat, View, Weights,
};
pub use resident::{NotServed, ResidentCounts, ResidentExecutor, ResidentPlan, ResidentPlans, Stay};
pub use sliding::{SlidingLayer, SlidingStack};
pub use spec::{Family, Head, ModelSpec, NormalizerKind};
pub use windows::{WindowError, Windows};
