//! What tests see of an executor, and do to it.

use std::time::Duration;

use super::GpuExecutor;
use crate::gpu::choices::Choice;
use crate::gpu::device::Flows;
use crate::gpu::resident::{Resident, Sides};
use crate::gpu::variants::{Arithmetic, Layer, Variant};
use crate::gpu::{GpuError, GpuOptions, tuner};
use crate::tests::Case;
use crate::{PlanId, ResidentPlan};

impl GpuExecutor {
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// As if the host could not write into the device's memory.
    pub(crate) fn set_copied(&mut self) {
        self.device.host_reaches_device = false;
    }

    /// Small batches by one workgroup, in one dispatch.
    pub(crate) fn set_solo_flows(&mut self) {
        self.device.flows = Flows::Solo;
    }

    /// One workgroup that stays, on wgpu's own queue: nothing else may run on the device meanwhile.
    pub(crate) fn set_solo_residents(&mut self) {
        self.set_solo_flows();
        self.device.sides = Sides::of_wgpu();
    }

    /// What a plan that stays has done.
    pub(crate) fn resident_counts(&self, plan: PlanId) -> Option<crate::ResidentCounts> {
        Some(self.resident(plan)?.counts())
    }

    /// Asks a plan that stays, and nobody else.
    pub(crate) fn ask_resident(&self, case: &Case) -> Result<(), crate::NotServed> {
        let mut output = vec![0.0; case.plan.width(case.plan.output)];
        let resident = self.resident(case.plan.id).expect("it stays");
        resident.ask(1, &case.input_slices(), &mut output, Duration::ZERO)
    }

    /// As if the answer of a plan that stays had not come in time.
    pub(crate) fn miss_resident(&self, case: &Case) {
        self.resident(case.plan.id).expect("it stays").miss(1, &case.input_slices());
    }

    pub(crate) fn resident_serves(&self, plan: PlanId) -> bool {
        self.resident(plan).is_some_and(|resident| resident.counts().serves)
    }

    /// Whether it is silent and waits to be launched again.
    pub(crate) fn resident_rests(&self, plan: PlanId) -> bool {
        self.resident(plan).is_some_and(Resident::rests)
    }

    /// As if nobody looked after the launches of a plan that stays.
    pub(crate) fn neglect_resident(&self, plan: PlanId, is_neglected: bool) {
        self.resident(plan).expect("it stays").neglect(is_neglected);
    }

    /// Launches of a plan that stays that have left by themselves.
    pub(crate) fn resident_left(&self, plan: PlanId) -> usize {
        self.resident(plan).expect("it stays").left()
    }

    fn resident(&self, plan: PlanId) -> Option<&Resident> {
        self.plans.get(plan)?.resident.as_deref()
    }

    /// As if the driver had no memory left, so often.
    pub(crate) fn refuse_memory(&mut self, times: usize) {
        self.plans.refusals = times;
    }

    /// Whether a plan is on the device.
    pub(crate) fn has(&self, plan: PlanId) -> bool {
        self.plans.get(plan).is_some()
    }

    /// As if the workgroups of the last flow had not run at once.
    pub(crate) fn fail_flow(&mut self) {
        let memory = self.lanes[0].memory.as_ref().expect("a flow was run");
        memory.failed.write(0, &[1], &self.copier);
    }

    /// Whether small batches of a plan go through one dispatch.
    pub(crate) fn has_flow(&self, plan: PlanId) -> bool {
        self.plans.get(plan).is_some_and(|prepared| prepared.flow.is_some())
    }

    /// Whether the device has a clock that can be asked.
    pub(crate) fn has_clock(&self) -> bool {
        self.device.raw.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Inputs of every batch cross as halves, where the plan keeps such.
    pub(crate) fn set_narrow(&mut self) {
        self.kernels.narrows_always = true;
    }

    /// Number of variants of a layer.
    pub(crate) const VARIANTS: usize = Variant::ALL.len();

    /// On a driver that refuses one variant of a layer, which takes the device with it if that is fatal.
    pub(crate) fn open_refusing(
        options: &GpuOptions,
        index: usize,
        is_fatal: bool,
    ) -> Result<Self, GpuError> {
        let name = Variant::ALL[index].entry_point(Arithmetic::Single);
        Self::open_after(options, |device| *device.compiler.refused.lock() = Some((name, is_fatal)))
    }

    /// After a device was lost over some kernel.
    pub(crate) fn open_carefully(options: &GpuOptions) -> Result<Self, GpuError> {
        options.refusals.be_careful();
        Self::open(options)
    }

    /// Every layer by variants that are drawn anew for each number of lines.
    pub(crate) fn set_choices(&mut self, cases: &[Case], mut draw: impl FnMut() -> usize) {
        for layer in cases.iter().flat_map(|case| Layer::all(&case.plan)) {
            for question in tuner::questions(layer, Arithmetic::Single) {
                let variant = Variant::ALL[draw() % Self::VARIANTS];
                let choice = Choice::decide(variant, vec![(variant, 1)]).expect("it was measured");
                self.kernels.choices.insert(question, choice);
            }
        }
    }

    /// Every layer by one variant, whatever the number of rows.
    pub(crate) fn force_variant(&mut self, index: usize) {
        self.kernels.forced = Some(Variant::ALL[index]);
    }
}
