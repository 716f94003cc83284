//! Kernels that stay: a request costs one trip over the bus and the layers, no submission.
//!
//! A submission through any API costs ten to thirty microseconds, and a device that was idle runs at a fraction of its
//! clock. A kernel that stays polls for the next request in memory that the host writes, and writes its answer where the
//! host polls for it. It never stays for ever: every poll has a bound, every launch has a bound of requests, and four
//! times a second a launch hands over to the next, which waits behind it in the queue. Where it does not serve, the
//! executor takes the ordinary way: this is an addition, never the only way.
//!
//! `words` is what both sides say, `launch` is Vulkan below wgpu, `keeper` is when which launch runs, and this is who asks.

mod keeper;
mod launch;
mod side;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::launch::{Launcher, SINK, STARTS, WORDS};
use self::side::Side;
pub(super) use self::side::{Sides, open_beside};
pub(super) use self::words::Extent;
use self::words::{Line, Silence};
use super::device::{Device, Faults, Flows};
use super::flow::{Flow, Form, stays};
use super::walk::Walk;
use crate::{ExecuteError, NotServed, Plan, ResidentCounts, ResidentPlan};

/// How long a launch serves before the next one takes over: well below what a kernel waits for a request.
const LEASE: Duration = Duration::from_millis(250);
/// The same where a processor plays the device, which ends loops sooner.
const LEASE_SOLO: Duration = Duration::from_millis(100);
/// How long a request waits for its answer: a handover and a device that is busy with others included.
const ANSWER_MAX: Duration = Duration::from_millis(5);
/// The same where a processor plays the device.
const ANSWER_MAX_SOLO: Duration = Duration::from_secs(60);
/// Who may ask at the same time: the last of them waits as long as a submission takes.
const ASKING_MAX: usize = 3;
/// How long a launch may take to end once it was told, its longest polls included.
const END_MAX: Duration = Duration::from_secs(5);
/// The same where a processor plays the device: the first launch is compiled before it begins.
const END_MAX_SOLO: Duration = Duration::from_secs(60);

/// A queue, until it is let go.
struct Taken {
    side: Option<Side>,
    workgroups: u32,
    sides: Sides,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(side) = self.side.take() {
            self.sides.give_back(side, self.workgroups);
        }
    }
}

/// A plan that stays on its device.
pub(super) struct Resident {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    faults: Arc<Faults>,
    rows_max: usize,
    bytes: u64,
}

struct Shared {
    desk: Mutex<Desk>,
    /// Those who ask now: one is answered, the others wait.
    asking: AtomicUsize,
    /// The keeper sleeps on it.
    bell: Condvar,
    answer_max: Duration,
    end_max: Duration,
    lease: Duration,
    rest_after: Option<Duration>,
    /// A launch is one workgroup.
    solo: bool,
}

struct Desk {
    line: Line,
    state: State,
    counts: ResidentCounts,
    /// Whether a launch waits behind the one that runs.
    is_followed: bool,
    /// How often the kernel was launched anew, after which it knows nothing of what was before.
    life: u32,
    /// As if the keeper were kept away.
    #[cfg(test)]
    is_neglected: bool,
}

impl Desk {
    /// From the launch that runs to the one that waits.
    fn hand_over(&mut self) {
        self.line.hand_over();
        self.counts.handovers += 1;
        self.is_followed = false;
    }

    /// The same, with the request that the launch that ran has left.
    fn take_up(&mut self, output: &mut [f32], within: Duration) -> Result<(), Silence> {
        self.counts.handovers += 1;
        self.is_followed = false;
        self.line.take_up(output, within)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serves,
    /// A request was not answered: the kernel is stopped and, if it may, launched anew.
    Silent,
    /// All launches have left: it is launched anew.
    Deserted,
    /// The same, but it stays so until somebody asks.
    Rests,
    /// It will not serve again.
    Over,
    /// Its owner lets go.
    Stops,
}

/// A kernel that stays, and what it works on.
pub(super) struct Program {
    /// For messages.
    pub(super) name: String,
    pub(super) wgsl: String,
    pub(super) workgroups: [u32; 2],
    pub(super) extent: Extent,
    pub(super) weights: Vec<f32>,
    /// Bytes of the pieces that only the kernel knows; zeros when it begins anew.
    pub(super) own_bytes: Vec<u64>,
    /// One workgroup, on a processor that plays the device.
    pub(super) solo: bool,
}

impl Program {
    /// The flow of a plan, or its walk where it has recurrent layers.
    ///
    /// # Errors
    /// [`ExecuteError::Refused`] for a plan that neither computes.
    pub(super) fn of(device: &Device, plan: &Plan, rows_max: usize) -> Result<Self, ExecuteError> {
        let solo = device.flows == Flows::Solo;
        let lanes =
            device.lanes.ok_or_else(|| ExecuteError::Refused("its subgroups differ in size".to_owned()))?;
        let form = Form::Stays { solo, lanes, rows_max };
        let shorter = plan.shortened().and_then(|shorter| Flow::of(&shorter, form));
        let Some(flow) = shorter.or_else(|| Flow::of(plan, form)) else {
            let walk = Walk::of(plan, solo, lanes)
                .ok_or_else(|| ExecuteError::Refused("its layers do not go in one dispatch".to_owned()))?;
            return Ok(Self {
                name: plan.name.clone(),
                wgsl: walk.wgsl(),
                workgroups: walk.workgroups(),
                extent: walk.extent(plan),
                weights: walk.pack(),
                own_bytes: Vec::new(),
                solo,
            });
        };
        let (workgroups, group_rows) = flow.groups(rows_max);
        let extent = Extent {
            rows_max: rows_max.next_multiple_of(group_rows),
            row_words: flow.words(),
            inputs: flow.input_places(plan),
            out_width: flow.out_width(),
            turns_max: stays::TURNS_MAX,
        };
        Ok(Self {
            name: plan.name.clone(),
            wgsl: flow.wgsl_stays(group_rows),
            workgroups,
            extent,
            weights: flow.pack(),
            own_bytes: Vec::new(),
            solo,
        })
    }
}

impl Resident {
    /// Compiles a kernel and launches it on a queue of its own.
    ///
    /// # Errors
    /// [`ExecuteError::Refused`] where no queue is left; what the driver says otherwise.
    pub(super) fn start(
        device: &Device,
        program: Program,
        rest_after: Option<Duration>,
    ) -> Result<Self, ExecuteError> {
        let none = || {
            ExecuteError::Refused("no queue or no multiprocessors are left for another that stays".to_owned())
        };
        let workgroups = program.workgroups.iter().product();
        let side = Some(device.sides.take(workgroups).ok_or_else(none)?);
        let side = Taken { side, workgroups, sides: device.sides.clone() };
        let mut launcher = Launcher::new(device, side, &program)?;
        let bytes = launcher.bytes();
        let Program { name, extent, solo, .. } = program;
        let rows_max = extent.rows_max;
        // SAFETY: the launcher has pieces of these bytes until it is dropped, which is when the keeper ends, after which
        // nobody asks: `run` finds the desk closed.
        let line = unsafe { Line::new(extent, [WORDS, SINK, STARTS].map(|piece| launcher.piece(piece))) };
        launcher.launch()?;
        launcher.launch()?;
        let desk = Desk {
            line,
            state: State::Serves,
            counts: ResidentCounts::default(),
            is_followed: true,
            life: 0,
            #[cfg(test)]
            is_neglected: false,
        };
        let (answer_max, end_max, lease) = match solo {
            true => (ANSWER_MAX_SOLO, END_MAX_SOLO, LEASE_SOLO),
            false => (ANSWER_MAX, END_MAX, LEASE),
        };
        let shared = Arc::new(Shared {
            desk: Mutex::new(desk),
            asking: AtomicUsize::new(0),
            bell: Condvar::new(),
            answer_max,
            end_max,
            lease,
            rest_after,
            solo,
        });
        let keeper = std::thread::Builder::new()
            .name("resident".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || keeper::keep(&shared, launcher, &name)
            })
            .map_err(|error| ExecuteError::Refused(format!("no thread for a resident kernel: {error}")))?;
        Ok(Self { shared, keeper: Mutex::new(Some(keeper)), faults: device.faults(), rows_max, bytes })
    }

    /// Bytes that it takes on the device and of the host's memory that the device reaches.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the kernel, for good.
    pub(super) fn stop(&self) {
        self.shared.desk.lock().state = State::Stops;
        self.shared.bell.notify_all();
        if let Some(keeper) = self.keeper.lock().take() {
            // A panic there has been logged; the launcher was dropped by it.
            let _ = keeper.join();
        }
    }

    /// A request of one row that follows others of the same life, as [`run`](Self::run) if it goes on.
    pub(super) fn go_on(&self, life: u32, input: &[f32], output: &mut [f32]) -> Result<(), Interrupted> {
        let mut desk = self.shared.desk.lock();
        if desk.state == State::Serves && desk.life != life {
            return Err(Interrupted::Began(desk.life));
        }
        self.ask_at(&mut desk, 1, &[input], output, self.shared.answer_max).map_err(Interrupted::NotServed)
    }

    /// As [`ResidentPlan::run`], for who has seen that nothing is wrong with the device.
    pub(super) fn run_soundly(
        &self,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), NotServed> {
        let _asking = Asking::among(&self.shared.asking)?;
        self.ask(rows, inputs, output, self.shared.answer_max)
    }

    pub(super) fn ask(
        &self,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
        within: Duration,
    ) -> Result<(), NotServed> {
        self.ask_at(&mut self.shared.desk.lock(), rows, inputs, output, within)
    }

    fn ask_at(
        &self,
        desk: &mut MutexGuard<'_, Desk>,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
        within: Duration,
    ) -> Result<(), NotServed> {
        if desk.state == State::Rests {
            desk.state = State::Deserted;
            self.shared.bell.notify_all();
        }
        if desk.state != State::Serves {
            return Err(NotServed::Away);
        }
        if desk.line.is_worn() {
            self.follow(desk, within)?;
            desk.hand_over();
            self.shared.bell.notify_all();
        }
        let mut answer = desk.line.ask(rows, inputs, output, within);
        while answer == Err(Silence::Left) && self.shared.solo && self.follow(desk, within).is_ok() {
            answer = desk.take_up(output, within);
            self.shared.bell.notify_all();
        }
        match answer {
            Ok(()) => {
                desk.counts.requests += 1;
                Ok(())
            }
            Err(silence) => {
                // An answer may still come, so that no other request may be told to this life of it.
                let why = silence.told();
                let is_silent = why == NotServed::Silent;
                if is_silent {
                    tracing::warn!(?silence, "a resident kernel did not answer");
                    desk.counts.silences += 1;
                }
                if desk.state == State::Serves {
                    desk.state = if is_silent { State::Silent } else { State::Deserted };
                }
                self.shared.bell.notify_all();
                Err(why)
            }
        }
    }

    /// Until another launch waits: the keeper was kept away.
    fn follow(&self, desk: &mut MutexGuard<'_, Desk>, within: Duration) -> Result<(), NotServed> {
        let until = Instant::now() + within;
        while desk.state == State::Serves && !desk.is_followed {
            #[cfg(test)]
            if desk.is_neglected {
                return Err(NotServed::Away);
            }
            if self.shared.bell.wait_until(desk, until).timed_out() {
                return Err(NotServed::Away);
            }
        }
        if desk.state == State::Serves { Ok(()) } else { Err(NotServed::Away) }
    }

    /// A request whose answer is not listened to, as if none had come in time.
    #[cfg(test)]
    pub(super) fn miss(&self, rows: usize, inputs: &[&[f32]]) {
        let mut desk = self.shared.desk.lock();
        desk.line.tell_request(rows, inputs);
        desk.counts.silences += 1;
        desk.state = State::Silent;
        self.shared.bell.notify_all();
    }

    #[cfg(test)]
    pub(super) fn rests(&self) -> bool {
        !matches!(self.shared.desk.lock().state, State::Serves | State::Over)
    }

    /// As if the keeper were kept away from now on, or not any more.
    #[cfg(test)]
    pub(super) fn neglect(&self, is_neglected: bool) {
        self.shared.desk.lock().is_neglected = is_neglected;
        self.shared.bell.notify_all();
    }

    /// Launches that have left by themselves.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        let desk = self.shared.desk.lock();
        (0..2).filter(|launch| desk.line.has_left(*launch)).count()
    }
}

impl ResidentPlan for Resident {
    fn rows_max(&self) -> usize {
        self.rows_max
    }

    fn run(&self, rows: usize, inputs: &[&[f32]], output: &mut [f32]) -> Result<(), NotServed> {
        if !self.faults.is_sound() {
            return Err(NotServed::Away);
        }
        self.run_soundly(rows, inputs, output)
    }

    fn counts(&self) -> ResidentCounts {
        let desk = self.shared.desk.lock();
        ResidentCounts { serves: desk.state == State::Serves, ..desk.counts }
    }
}

/// Why a request did not follow those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// There was no answer.
    NotServed(NotServed),
    /// The kernel was launched anew: this life has seen nothing.
    Began(u32),
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One of those who ask at the same time.
struct Asking<'a>(&'a AtomicUsize);

impl<'a> Asking<'a> {
    fn among(all: &'a AtomicUsize) -> Result<Self, NotServed> {
        let before = all.fetch_add(1, Ordering::Relaxed);
        let asking = Self(all);
        if before < ASKING_MAX { Ok(asking) } else { Err(NotServed::Busy) }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
