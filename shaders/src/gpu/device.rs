//! One open device and its faults: turns everything that wgpu reports, or panics with, into an [`ExecuteError`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wgpu::{ErrorFilter, PollError, PollType, SubmissionIndex};

use super::compiler::Compiler;
use super::resident::{self, Sides};
use super::{AdapterFacts, AdapterKind, GpuError, Refusals};
use super::{mapped, matrices, spirv};
use crate::ExecuteError;

/// How long a real device is polled before its thread sleeps: sleeping costs 20–30 µs more, and a batch of a thousand
/// rows is done within this time. A software device needs the cores for itself.
const SPIN: Duration = Duration::from_micros(500);

#[derive(Clone)]
pub(super) struct Device {
    pub(super) raw: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    /// Whether the host writes straight into the device's memory.
    pub(super) host_reaches_device: bool,
    pub(super) flows: Flows,
    /// Invocations of a subgroup, if all have as many.
    pub(super) lanes: Option<usize>,
    /// Whether it multiplies matrices of halves by itself.
    pub(super) products: Option<Products>,
    /// Queues that nobody uses yet.
    pub(super) sides: Sides,
    pub(super) compiler: Arc<Compiler>,
    adapter: wgpu::Adapter,
    facts: AdapterFacts,
    /// Where what the driver makes of kernels is kept.
    kernels: Option<PathBuf>,
    faults: Arc<Faults>,
    spin: Duration,
}

/// Products of 16 × 16 halves that are summed in f32, by subgroups of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Products {
    /// Invocations of a subgroup.
    pub(super) lanes: usize,
}

/// What products of halves need.
const PRODUCTS: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SUBGROUP_BARRIER);

/// Whether small batches go through one dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flows {
    /// They do not: the device runs workgroups one after the other, or may.
    None,
    /// By one workgroup, which waits for nobody.
    Solo,
    Parallel,
}

/// Breaks a device from any thread, as a fault to be survived.
#[derive(Clone, Debug)]
pub struct KillSwitch {
    raw: wgpu::Device,
    faults: Arc<Faults>,
}

impl KillSwitch {
    /// Before its next run the device's memory is damaged: bits of the weights it holds are not what they were. It
    /// goes on answering, wrongly.
    pub fn damage_weights(&self) {
        self.faults.damaged.store(true, Ordering::Release);
    }

    /// The device is gone after this: every later run answers [`ExecuteError::DeviceLost`].
    pub fn destroy_device(&self) {
        // Said before it is done: wgpu tells of a destruction only once the queue has run dry.
        self.faults.lose("destroyed");
        self.raw.destroy();
    }
}

/// Written by wgpu's callbacks, on whatever thread polls.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Set once, for ever.
    lost: Mutex<Option<String>>,
    /// The weights are to be damaged.
    damaged: AtomicBool,
    /// The first error that no scope caught since it was last taken.
    uncaptured: Mutex<Option<ExecuteError>>,
}

impl Device {
    /// What the driver makes of kernels is kept in the folder.
    pub(super) fn open(
        adapter: &wgpu::Adapter,
        facts: &AdapterFacts,
        kernels: Option<&Path>,
        refusals: &Refusals,
    ) -> Result<Self, GpuError> {
        let refused = |reason: String| GpuError::DeviceRefused { adapter: facts.name.clone(), reason };
        let products = products(adapter);
        let descriptor = describe(adapter, products);
        let limits = descriptor.required_limits.clone();
        let flows = if facts.kind == AdapterKind::Discrete { Flows::Parallel } else { Flows::None };
        let beside =
            if flows == Flows::Parallel { resident::open_beside(adapter, &descriptor) } else { None };
        let (raw, queue, sides) = match beside {
            Some(opened) => opened,
            None => {
                let (raw, queue) = pollster::block_on(adapter.request_device(&descriptor))
                    .map_err(|error| refused(error.to_string()))?;
                (raw, queue, Sides::default())
            }
        };
        let faults = Arc::new(Faults::default());
        let on_lost = Arc::clone(&faults);
        raw.set_device_lost_callback(move |reason, text| on_lost.lose(&format!("{reason:?} {text}")));
        faults.hear(&raw);
        let spin = if facts.software { Duration::ZERO } else { SPIN };
        let host_reaches_device = mapped::host_reaches_device(&raw);
        let compiler = Compiler::new(&raw, facts, spirv::newest(adapter), kernels, refusals.clone());
        let lanes = lanes(adapter);
        Ok(Self {
            raw,
            queue,
            limits,
            host_reaches_device,
            flows,
            lanes,
            products,
            sides,
            compiler: Arc::new(compiler),
            adapter: adapter.clone(),
            facts: facts.clone(),
            kernels: kernels.map(Path::to_owned),
            faults,
            spin,
        })
    }

    /// Whether a CPU plays it.
    pub(super) fn is_software(&self) -> bool {
        self.facts.software
    }

    /// What is known to be wrong with it, for those that run beside its executor.
    pub(super) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults)
    }

    pub(super) fn kill_switch(&self) -> KillSwitch {
        KillSwitch { raw: self.raw.clone(), faults: Arc::clone(&self.faults) }
    }

    /// Whether the weights are to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.faults.damaged.load(Ordering::Relaxed)
    }

    /// The same, but says so once.
    pub(super) fn takes_damage(&self) -> bool {
        self.is_damaged() && self.faults.damaged.swap(false, Ordering::AcqRel)
    }

    /// Runs `work` with every fault caught: a lost device at the door, errors that no scope caught, and panics.
    pub(super) fn guard<T>(&self, work: impl FnOnce() -> Result<T, ExecuteError>) -> Result<T, ExecuteError> {
        self.check_lost()?;
        self.faults.uncaptured.lock().take();
        let result = self.unpanicked(work);
        let result = match self.faults.uncaptured.lock().take() {
            Some(error) => Err(error),
            None => result,
        };
        if result.is_err() {
            // A loss is told while polling; whatever else failed, failed because of it.
            let _ = self.unpanicked(|| {
                self.poll(PollType::Poll).map_err(|error| ExecuteError::Refused(error.to_string()))
            });
        }
        self.check_lost()?;
        result
    }

    /// A panic inside wgpu is how it answers a device that dies under a poll.
    pub(super) fn unpanicked<T>(
        &self,
        work: impl FnOnce() -> Result<T, ExecuteError>,
    ) -> Result<T, ExecuteError> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text =
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic in the driver");
            self.faults.lose(text);
            Err(ExecuteError::DeviceLost(text.to_owned()))
        })
    }

    /// Creates resources under error scopes, so that a refusal is known before they are used.
    pub(super) fn create<T>(&self, work: impl FnOnce(&wgpu::Device) -> T) -> Result<T, ExecuteError> {
        let memory = self.raw.push_error_scope(ErrorFilter::OutOfMemory);
        let internal = self.raw.push_error_scope(ErrorFilter::Internal);
        let validation = self.raw.push_error_scope(ErrorFilter::Validation);
        let made = work(&self.raw);
        let errors = [validation.pop(), internal.pop(), memory.pop()].map(pollster::block_on);
        // The last scope first: an allocation that fails makes what is built on it invalid as well.
        match errors.into_iter().rev().flatten().next() {
            Some(error) => Err(translate(&error)),
            None => Ok(made),
        }
    }

    /// Makes on another device of the adapter what may break it, and gives it back.
    pub(super) fn try_apart<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ExecuteError>,
    ) -> Result<T, ExecuteError> {
        let descriptor = describe(&self.adapter, self.products);
        let opened = pollster::block_on(self.adapter.request_device(&descriptor));
        let (raw, queue) = opened.map_err(|error| ExecuteError::Refused(error.to_string()))?;
        // What breaks this device is found out by it alone.
        let refusals = Refusals::default();
        let compiler = Arc::new(Compiler::new(
            &raw,
            &self.facts,
            spirv::newest(&self.adapter),
            self.kernels.as_deref(),
            refusals,
        ));
        let apart = Self { raw, queue, compiler, faults: Arc::default(), ..self.clone() };
        apart.faults.hear(&apart.raw);
        apart.guard(|| work(&apart))
    }

    /// Waits until `submission` is done, until `timeout` after `started` at most. The device is polled for a while
    /// first if `newest`: only then does an empty queue tell of this submission.
    pub(super) fn wait(
        &self,
        submission: &SubmissionIndex,
        newest: bool,
        started: Instant,
        timeout: Duration,
    ) -> Result<(), ExecuteError> {
        let spin_until = Instant::now() + self.spin.min(timeout);
        let mut done = false;
        while newest && !done && Instant::now() < spin_until {
            let status = self.raw.poll(PollType::Poll).map_err(|_| timed_out(timeout))?;
            done = status.is_queue_empty();
            std::hint::spin_loop();
        }
        if !done {
            let left = timeout.saturating_sub(started.elapsed());
            let wait = PollType::Wait { submission_index: Some(submission.clone()), timeout: Some(left) };
            match self.poll(wait) {
                Ok(()) => {}
                Err(PollError::Timeout) => return Err(timed_out(timeout)),
                Err(error @ PollError::WrongSubmissionIndex(..)) => {
                    return Err(ExecuteError::Refused(error.to_string()));
                }
            }
        }
        self.check_lost()
    }

    /// Keeps a device that may never finish from being waited for when its last handle is dropped.
    pub(super) fn abandon(&self) {
        std::mem::forget((self.raw.clone(), self.queue.clone()));
    }

    /// Has the driver take back what was dropped and is not in use any more.
    pub(super) fn sweep(&self) {
        // A device that is lost is told of by whatever is done next.
        let _ = self.unpanicked(|| self.poll(PollType::Poll).map_err(|_| timed_out(Duration::ZERO)));
    }

    fn poll(&self, how: PollType) -> Result<(), PollError> {
        self.raw.poll(how).map(|_status| ())
    }

    /// Whether it is lost, also where nobody has been told yet.
    pub(super) fn is_gone(&self) -> bool {
        self.sweep();
        self.check_lost().is_err()
    }

    pub(super) fn check_lost(&self) -> Result<(), ExecuteError> {
        match &*self.faults.lost.lock() {
            Some(reason) => Err(ExecuteError::DeviceLost(reason.clone())),
            None => Ok(()),
        }
    }
}

impl Faults {
    /// Whether nothing is known to be wrong, or about to be: else the next run through the executor tells.
    pub(super) fn is_sound(&self) -> bool {
        !self.damaged.load(Ordering::Relaxed) && self.lost.lock().is_none()
    }

    /// Notes what no scope catches.
    fn hear(self: &Arc<Self>, raw: &wgpu::Device) {
        let faults = Arc::clone(self);
        raw.on_uncaptured_error(Arc::new(move |error| {
            faults.uncaptured.lock().get_or_insert_with(|| translate(&error));
        }));
    }

    fn lose(&self, reason: &str) {
        self.lost.lock().get_or_insert_with(|| reason.trim().to_lowercase());
    }
}

/// What a device is opened with.
fn describe(adapter: &wgpu::Adapter, products: Option<Products>) -> wgpu::DeviceDescriptor<'static> {
    // For runs that are observed, and for starts that come after another.
    let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
    // Every kernel is translated here.
    let mut required_features = adapter.features() & wanted | wgpu::Features::PASSTHROUGH_SHADERS;
    let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
    if products.is_some() {
        required_features |= PRODUCTS;
        // SAFETY: cooperative matrices are the only experimental feature that is asked for. Kernels that use them keep to
        // what is known to work: loads and stores of whole matrices inside workgroup memory, in uniform control flow.
        experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
    }
    wgpu::DeviceDescriptor {
        label: Some("peregrine"),
        required_features,
        required_limits: adapter.limits(),
        experimental_features,
        memory_hints: wgpu::MemoryHints::Performance,
        trace: wgpu::Trace::Off,
    }
}

/// Invocations of a subgroup, if all have as many.
fn lanes(adapter: &wgpu::Adapter) -> Option<usize> {
    let info = adapter.get_info();
    (info.subgroup_min_size == info.subgroup_max_size).then_some(info.subgroup_min_size as usize)
}

fn products(adapter: &wgpu::Adapter) -> Option<Products> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let side = u32::try_from(matrices::SIDE).expect("a handful");
    let fits = |shape: &wgpu::CooperativeMatrixProperties| {
        [shape.m_size, shape.n_size, shape.k_size] == [side; 3]
            && (shape.ab_type, shape.cr_type) == (F16, F32)
    };
    let told =
        adapter.features().contains(PRODUCTS) && adapter.cooperative_matrix_properties().iter().any(fits);
    lanes(adapter).filter(|_| told).map(|lanes| Products { lanes })
}

fn translate(error: &wgpu::Error) -> ExecuteError {
    match error {
        wgpu::Error::OutOfMemory { .. } => ExecuteError::OutOfMemory("the driver has none left".to_owned()),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            ExecuteError::Refused(description.clone())
        }
    }
}

fn timed_out(timeout: Duration) -> ExecuteError {
    ExecuteError::Timeout { millis: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) }
}
