//! The line in front of one device: what waits, the executor behind it, and what happens when that fails.
//!
//! Two may use the executor: the device's actor, batch by batch, and a caller whose request is small and alone while
//! nobody else waits (its thread is already awake, so two hops are saved). Both run the same code under the executor's
//! lock. A GPU that fails hands what it held to another's line, or to the CPU's: accepted work is not lost.

mod answers;
mod opening;
mod relief;
mod running;
mod staying;
mod traced;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use peregrine_runtime::{Address, Clock, Failure};
use peregrine_shaders::{Backend, DeviceMemory, KernelFacts, Plan, PlanId, Stay};
use tokio::sync::watch;

use crate::devices::DeviceId;
use crate::inference::admission::{Excess, Turned, time};
use crate::inference::batch::{BatchLimits, Batcher, Waiting};
use crate::inference::check::CheckLimits;
use crate::inference::engine::{Broken, Engine};
use crate::inference::residents::Residents;
use crate::inference::speed::Speed;
use crate::inference::{Job, Order};
use crate::profile::{Residence, Terms};
use crate::request::ForecastError;
use crate::status::{DeviceState, DeviceStatus};

/// Told whether a device is up, and why not.
pub(crate) type Notice = Box<dyn Fn(bool, &str) + Send + Sync>;

/// What a line is made of.
pub(crate) struct LineSpec {
    pub(crate) device: DeviceId,
    pub(crate) limits: BatchLimits,
    pub(crate) checks: CheckLimits,
    pub(crate) clock: Arc<dyn Clock>,
    /// Wakes the device's actor.
    pub(crate) door: Address<Order>,
    /// Where the work of this device goes when it fails.
    pub(crate) spare: Option<Arc<Line>>,
    /// It takes no requests before it is released, whether it is up or not.
    pub(crate) held: bool,
    /// Told when the device goes down (with a reason) and when it is up.
    pub(crate) notice: Notice,
    /// How plans stay on the device, if they may.
    pub(crate) stay: Option<Stay>,
}

pub(crate) struct Line {
    spec: LineSpec,
    desk: Mutex<Desk>,
    engine: Mutex<Option<Engine>>,
    residents: Residents,
    /// What the engine keeps on its device, as of its last work.
    memory: Mutex<Option<DeviceMemory>>,
    /// What it knows of its kernels, as of then.
    kernels: Mutex<Option<KernelFacts>>,
    state: watch::Sender<DeviceState>,
    name: Mutex<String>,
    accepts: AtomicBool,
    /// It has an executor.
    up: AtomicBool,
    waiting: AtomicUsize,
    waiting_work: AtomicU64,
    busy_ns: AtomicU64,
    /// By the system's clock since `born`; when the batch that runs should be done.
    busy_until_ns: AtomicU64,
    born: Instant,
    speed: Speed,
    refused: [AtomicU64; Excess::NAMES.len()],
    done: Tallies,
}

/// What has been answered so far.
#[derive(Default)]
struct Tallies {
    requests: AtomicU64,
    rows: AtomicU64,
    batches: AtomicU64,
}

struct Desk {
    batcher: Batcher<Job>,
    retired: Vec<PlanId>,
    asleep: bool,
    accepts: bool,
    held: bool,
}

/// Why a line did not take a request.
pub(crate) enum Refused {
    /// Its queue holds as much as it may.
    Full { retry_after_ms: u32, job: Box<Job> },
    /// Its device is down.
    Down(Box<Job>),
}

impl Line {
    pub(crate) fn new(spec: LineSpec) -> Self {
        Self {
            desk: Mutex::new(Desk {
                batcher: Batcher::new(spec.limits.clone()),
                retired: Vec::new(),
                asleep: false,
                accepts: false,
                held: spec.held,
            }),
            engine: Mutex::new(None),
            residents: Residents::new(spec.stay),
            memory: Mutex::default(),
            kernels: Mutex::default(),
            state: watch::Sender::new(DeviceState::Starting),
            name: Mutex::new(String::new()),
            accepts: AtomicBool::new(false),
            up: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            waiting_work: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            busy_until_ns: AtomicU64::new(0),
            born: spec.clock.now(),
            speed: Speed::default(),
            refused: Default::default(),
            done: Tallies::default(),
            spec,
        }
    }

    // ---- callers -------------------------------------------------------------------------------------------------

    /// Whether the device takes requests.
    pub(crate) fn accepts(&self) -> bool {
        self.accepts.load(Ordering::Acquire)
    }

    /// Whether the device takes requests and can run them now: one that is being rebuilt may let them wait.
    pub(crate) fn is_up(&self) -> bool {
        self.accepts() && self.up.load(Ordering::Acquire)
    }

    /// Runs a small request at once if its model stays on the device or the device is idle, else queues it.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Refused> {
        let left = self.run_staying(job).and_then(|job| self.run_inline(job));
        left.map_or(Ok(()), |job| self.enqueue(job))
    }

    /// Whether nothing waits for the device and nothing runs on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.busy_until_ns.load(Ordering::Relaxed) == 0
    }

    /// Takes a request that nobody waits for, while the device is idle; it never runs in its caller's thread.
    pub(crate) fn submit_idle(&self, job: Job) -> Result<(), Refused> {
        if self.is_idle() {
            self.enqueue(job)
        } else {
            Err(Refused::Full { retry_after_ms: 1, job: Box::new(job) })
        }
    }

    fn run_inline(&self, job: Job) -> Option<Job> {
        let is_small = job.work() < self.inline_macs_max(&job.served.terms);
        if !job.is_alone || !is_small || self.waiting.load(Ordering::Relaxed) > 0 {
            return Some(job);
        }
        let Some(mut engine) = self.engine.try_lock() else { return Some(job) };
        if engine.is_none() {
            return Some(job);
        }
        if let Err(failure) = self.run_batch(&mut engine, vec![job]) {
            drop(engine);
            // Full: the actor has something to do already and will find the executor missing.
            let _ = self.spec.door.tell(Order::Lost(failure.to_string()));
        }
        None
    }

    /// Below so many multiply-adds a request may run in its caller's thread.
    fn inline_macs_max(&self, terms: &Terms) -> u64 {
        match self.backend() {
            Backend::Cpu => terms.inline_macs_max as u64,
            Backend::Gpu => terms.gpu_inline_macs_max as u64,
        }
    }

    fn enqueue(&self, job: Job) -> Result<(), Refused> {
        let mut desk = self.desk.lock();
        if !desk.accepts {
            return Err(Refused::Down(Box::new(job)));
        }
        let waiting = job.waiting();
        let now = self.spec.clock.now();
        match desk.batcher.admit(&waiting, now, self.speed.ns(), self.busy_for(now)) {
            Ok(()) => {
                desk.batcher.push(waiting);
                self.publish_queue(&desk);
                self.wake(desk);
                Ok(())
            }
            Err(turned) => {
                drop(desk);
                Err(Refused::Full { retry_after_ms: self.turn_away(turned), job: Box::new(waiting.item) })
            }
        }
    }

    /// What would be said to a request that came to the queue now; `None`: it would be taken, or nobody waits.
    pub(crate) fn would_turn(&self, waiting: &Waiting<()>, now: Instant) -> Option<Turned> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.desk.lock().batcher.admit(waiting, now, self.speed.ns(), self.busy_for(now)).err()
    }

    /// Counts a refusal, and says after how many milliseconds it might be another.
    pub(crate) fn turn_away(&self, turned: Turned) -> u32 {
        self.refused[turned.why.index()].fetch_add(1, Ordering::Relaxed);
        self.retry_after_ms(turned.excess)
    }

    fn wake(&self, mut desk: parking_lot::MutexGuard<'_, Desk>) {
        let asleep = std::mem::take(&mut desk.asleep);
        drop(desk);
        if asleep {
            // Full: then the actor has mail, and looks at the line after it.
            let _ = self.spec.door.tell(Order::Wake);
        }
    }

    fn publish_queue(&self, desk: &Desk) {
        self.waiting.store(desk.batcher.requests(), Ordering::Relaxed);
        self.waiting_work.store(desk.batcher.work(), Ordering::Relaxed);
    }

    /// What waits will take so long, by the pace of late. Takes no lock.
    pub(crate) fn backlog(&self) -> Duration {
        time(self.waiting_work.load(Ordering::Relaxed), self.speed.ns())
    }

    /// Requests that wait, and the batch that runs. Takes no lock.
    pub(crate) fn queue(&self) -> usize {
        let runs = self.busy_until_ns.load(Ordering::Relaxed) > 0;
        self.waiting.load(Ordering::Relaxed) + usize::from(runs)
    }

    /// What waits and what runs will take so long. A batch that is late is taken to be so for as long again. Takes no
    /// lock.
    pub(crate) fn ahead(&self, now: Instant) -> Duration {
        let running = match self.busy_until_ns.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            until => Duration::from_nanos(until).abs_diff(now.saturating_duration_since(self.born)),
        };
        self.backlog() + running
    }

    /// Until the batch that runs should be done.
    fn busy_for(&self, now: Instant) -> Duration {
        let until = Duration::from_nanos(self.busy_until_ns.load(Ordering::Relaxed));
        until.saturating_sub(now.saturating_duration_since(self.born))
    }

    /// When so much of what waits may have been done, by the pace of late.
    fn retry_after_ms(&self, excess: u64) -> u32 {
        let ms = time(excess, self.speed.ns()).as_millis();
        u32::try_from(ms).unwrap_or(u32::MAX).clamp(1, 5_000)
    }

    // ---- the device's actor --------------------------------------------------------------------------------------

    /// Runs the next batch; false if there was nothing to do.
    pub(crate) fn serve(&self) -> Result<bool, Failure> {
        // The executor first: whoever uses it now lets requests gather.
        let mut engine = self.engine.lock();
        let Some(running) = engine.as_mut() else { return Err("the executor is gone".into()) };
        let (retired, cut) = {
            let mut desk = self.desk.lock();
            let retired = std::mem::take(&mut desk.retired);
            let cut = desk.batcher.cut(self.spec.clock.now(), Job::is_abandoned);
            self.publish_queue(&desk);
            (retired, cut)
        };
        let now = self.spec.clock.now();
        let idle = cut.batch.is_empty() && retired.is_empty();
        let mut makes_room = false;
        for plan in retired {
            makes_room |= self.residents.forget(plan);
            running.contain(|executor| {
                executor.unload(plan);
                Ok(())
            })?;
        }
        if makes_room {
            self.residents.retry(running)?;
        }
        for job in cut.expired {
            job.fail(ForecastError::DeadlineExceeded, now);
        }
        for job in cut.abandoned {
            job.served.ledger.abandoned(1);
        }
        let mut ran = Ok(());
        if !cut.batch.is_empty() {
            let waits = cut.batch.iter().map(|job| now.saturating_duration_since(job.accepted_at));
            let waited = waits.sum::<Duration>() / u32::try_from(cut.batch.len()).unwrap_or(u32::MAX);
            ran = self.run_batch(&mut engine, cut.batch).inspect(|()| {
                let done = self.spec.clock.now();
                self.desk.lock().batcher.observe(waited, done.saturating_duration_since(now), done);
            });
        }
        self.note_memory(engine.as_ref());
        ran?;
        Ok(!idle)
    }

    /// Waits for whoever uses it.
    pub(crate) fn has_executor(&self) -> bool {
        self.engine.lock().is_some()
    }

    /// True if the actor may sleep: the next request will wake it.
    pub(crate) fn doze(&self) -> bool {
        let mut desk = self.desk.lock();
        desk.asleep = desk.batcher.requests() == 0 && desk.retired.is_empty();
        desk.asleep
    }

    /// Brings a plan to the device; a guest only shows that it can be brought.
    pub(crate) fn prepare(&self, plan: &Arc<Plan>, residence: Residence) -> Result<(), Broken> {
        let mut engine = self.engine.lock();
        let Some(running) = engine.as_mut() else {
            return Err(Broken::Panicked("the executor is gone".to_owned()));
        };
        let prepared = running.contain(|executor| {
            executor.load(plan)?;
            if residence == Residence::Guest {
                executor.unload(plan.id);
            }
            Ok(())
        });
        let prepared = match residence {
            Residence::Stays => prepared.and_then(|()| self.residents.admit(plan, running)),
            _ => prepared,
        };
        self.note_memory(engine.as_ref());
        prepared
    }

    fn note_memory(&self, engine: Option<&Engine>) {
        *self.memory.lock() = engine.and_then(Engine::memory);
        *self.kernels.lock() = engine.and_then(Engine::kernels);
    }

    /// The weights of a plan are no longer needed.
    pub(crate) fn retire(&self, plan: PlanId) {
        let mut desk = self.desk.lock();
        desk.retired.push(plan);
        self.wake(desk);
    }

    // ---- observers -----------------------------------------------------------------------------------------------

    fn count(&self, requests: usize, rows: usize) {
        self.done.requests.fetch_add(requests as u64, Ordering::Relaxed);
        self.done.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.done.batches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn backend(&self) -> Backend {
        self.spec.device.backend
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.spec.device
    }

    pub(crate) fn address(&self) -> &Address<Order> {
        &self.spec.door
    }

    pub(crate) fn watch(&self) -> watch::Receiver<DeviceState> {
        self.state.subscribe()
    }

    pub(crate) fn status(&self) -> DeviceStatus {
        let (queue_requests, queue_rows, limit) = {
            let desk = self.desk.lock();
            (desk.batcher.requests(), desk.batcher.rows(), desk.batcher.limit())
        };
        let refused = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        DeviceStatus {
            backend: self.spec.device.backend,
            index: self.spec.device.index,
            name: self.name.lock().clone(),
            state: self.state.borrow().clone(),
            queue_requests,
            queue_rows,
            queue_rows_max: self.spec.limits.queue_rows_max,
            backlog: self.backlog(),
            backlog_max: (limit < u64::MAX).then(|| time(limit, self.speed.ns())),
            refused: Excess::NAMES.into_iter().zip(refused).collect(),
            requests: self.done.requests.load(Ordering::Relaxed),
            rows: self.done.rows.load(Ordering::Relaxed),
            batches: self.done.batches.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed)),
            residents: self.residents.status(),
            memory: *self.memory.lock(),
            kernels: *self.kernels.lock(),
        }
    }
}
