//! A device that does as it is told.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use peregrine_runtime::ManualClock;
use peregrine_shaders::{
    Backend, ExecuteError, Executor, NotServed, Plan, PlanId, ResidentCounts, ResidentPlan, Stay,
};

use crate::ExecutorFactory;

/// How a fake behaves from now on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    Good,
    /// Takes this long by the system's clock, then is good.
    Slow(Duration),
    /// Waits for another mode, then behaves like that.
    Hang,
    Fail(ExecuteError),
    Panic,
    /// NaN for rows whose normalized window is all zeros: constant series.
    NanForConstant,
    /// Answers something else.
    Lies,
    /// The same, until it is built anew: the memory of the device is damaged.
    Damaged,
    /// Neither runs nor can be built.
    Gone,
}

/// How plans stay on a fake from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Staying {
    /// None does.
    Refused,
    /// They answer.
    Serves,
    /// They do not.
    Not(NotServed),
}

/// The strings of a fake.
pub(super) struct Script {
    state: Mutex<State>,
    changed: Condvar,
    clock: Arc<ManualClock>,
}

struct State {
    mode: Mode,
    entered: usize,
    rows: Vec<usize>,
    built: usize,
    loaded: HashSet<PlanId>,
    /// Plans that are still taken; `None`: all.
    takes: Option<usize>,
    staying: Staying,
    /// Plans that were told to stay, and what those that do have done.
    stays: Vec<Stay>,
    resident: ResidentCounts,
}

impl Script {
    pub(super) fn new(clock: &Arc<ManualClock>) -> Arc<Self> {
        let state = State {
            mode: Mode::Good,
            entered: 0,
            rows: Vec::new(),
            built: 0,
            loaded: HashSet::new(),
            takes: None,
            staying: Staying::Serves,
            stays: Vec::new(),
            resident: ResidentCounts::default(),
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), clock: Arc::clone(clock) })
    }

    pub(super) fn set(&self, mode: Mode) {
        self.state.lock().mode = mode;
        self.changed.notify_all();
    }

    pub(super) fn set_staying(&self, staying: Staying) {
        self.state.lock().staying = staying;
    }

    /// Takes so many plans more, and none after them.
    pub(super) fn refuse_after(&self, plans: usize) {
        self.state.lock().takes = Some(plans);
    }

    /// How each plan was told to stay, on every executor so far.
    pub(super) fn stays(&self) -> Vec<Stay> {
        self.state.lock().stays.clone()
    }

    /// Requests that plans which stay have answered.
    pub(super) fn answered_staying(&self) -> u64 {
        self.state.lock().resident.requests
    }

    /// Runs begun.
    pub(super) fn entered(&self) -> usize {
        self.state.lock().entered
    }

    /// Rows of each run that ended well.
    pub(super) fn rows(&self) -> Vec<usize> {
        self.state.lock().rows.clone()
    }

    /// Executors built.
    pub(super) fn built(&self) -> usize {
        self.state.lock().built
    }

    /// Plans on the device.
    pub(super) fn loaded(&self) -> usize {
        self.state.lock().loaded.len()
    }

    pub(super) fn factory(self: &Arc<Self>, backend: Backend) -> ExecutorFactory {
        let script = Arc::clone(self);
        Arc::new(move || {
            let mut state = script.state.lock();
            if state.mode == Mode::Gone {
                return Err(ExecuteError::DeviceLost("not there".into()));
            }
            state.built += 1;
            state.loaded.clear();
            if state.mode == Mode::Damaged {
                state.mode = Mode::Good;
            }
            Ok(Box::new(Fake { backend, script: Arc::clone(&script) }))
        })
    }
}

struct Fake {
    backend: Backend,
    script: Arc<Script>,
}

impl Executor for Fake {
    fn backend(&self) -> Backend {
        self.backend
    }

    fn device(&self) -> &str {
        "fake"
    }

    fn load(&mut self, plan: &Arc<Plan>) -> Result<(), ExecuteError> {
        let mut state = self.script.state.lock();
        if let Some(left) = &mut state.takes {
            *left = left.checked_sub(1).ok_or_else(|| ExecuteError::Refused("it is full".into()))?;
        }
        state.loaded.insert(plan.id);
        Ok(())
    }

    fn reside(&mut self, plan: &Arc<Plan>, stay: Stay) -> Result<Arc<dyn ResidentPlan>, ExecuteError> {
        let mut state = self.script.state.lock();
        state.stays.push(stay);
        if state.staying == Staying::Refused {
            return Err(ExecuteError::Refused("nothing stays here".into()));
        }
        drop(state);
        Ok(Arc::new(FakeResident {
            plan: Arc::clone(plan),
            rows_max: stay.rows_max,
            script: Arc::clone(&self.script),
        }))
    }

    fn unload(&mut self, plan: PlanId) {
        self.script.state.lock().loaded.remove(&plan);
    }

    fn run(
        &mut self,
        plan: &Arc<Plan>,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), ExecuteError> {
        let mut state = self.script.state.lock();
        state.entered += 1;
        state.loaded.insert(plan.id);
        while state.mode == Mode::Hang {
            let timed_out = self.script.changed.wait_for(&mut state, Duration::from_secs(20)).timed_out();
            assert!(!timed_out, "a test forgot its hanging device");
        }
        let mode = state.mode.clone();
        match mode {
            Mode::Good | Mode::NanForConstant | Mode::Hang | Mode::Lies | Mode::Damaged => {}
            Mode::Slow(time) => self.script.clock.advance(time),
            Mode::Fail(error) => return Err(error),
            Mode::Panic => {
                drop(state);
                panic!("scripted panic");
            }
            Mode::Gone => return Err(ExecuteError::DeviceLost("pulled".into())),
        }
        compute(&mode, rows, inputs, output);
        state.rows.push(rows);
        Ok(())
    }
}

fn compute(mode: &Mode, rows: usize, inputs: &[&[f32]], output: &mut [f32]) {
    let (in_len, out_len) = (inputs[0].len() / rows, output.len() / rows);
    for row in 0..rows {
        let input = &inputs[0][row * in_len..][..in_len];
        let sum: f32 = input.iter().sum();
        let poisoned = *mode == Mode::NanForConstant && input.iter().all(|&x| x == 0.0);
        for (step, cell) in output[row * out_len..][..out_len].iter_mut().enumerate() {
            let off = if matches!(mode, Mode::Lies | Mode::Damaged) { 0.25 } else { 0.0 };
            *cell = if poisoned { f32::NAN } else { sum * 0.01 + step as f32 + off };
        }
    }
}

/// A plan that stays on a fake, whatever mode its executor is in.
struct FakeResident {
    plan: Arc<Plan>,
    rows_max: usize,
    script: Arc<Script>,
}

impl ResidentPlan for FakeResident {
    fn rows_max(&self) -> usize {
        self.rows_max
    }

    fn run(&self, rows: usize, inputs: &[&[f32]], output: &mut [f32]) -> Result<(), NotServed> {
        self.plan.assert_fits(rows, inputs, output);
        let mut state = self.script.state.lock();
        match state.staying {
            Staying::Not(NotServed::Silent) => {
                state.resident.silences += 1;
                Err(NotServed::Silent)
            }
            Staying::Not(why) => Err(why),
            Staying::Refused => Err(NotServed::Away),
            Staying::Serves => {
                state.resident.requests += 1;
                compute(&Mode::Good, rows, inputs, output);
                Ok(())
            }
        }
    }

    fn counts(&self) -> ResidentCounts {
        let state = self.script.state.lock();
        ResidentCounts { serves: state.staying == Staying::Serves, ..state.resident }
    }
}
