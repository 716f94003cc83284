//! A request whose model stays on the device: no batch, no queue, no actor, whatever else the device runs.

use peregrine_shaders::{ExecuteError, Forecaster, NotServed};

use super::Line;
use crate::inference::engine::Broken;
use crate::inference::residents::ROWS_MAX;
use crate::inference::{Job, Kept, Outcome, Served};
use crate::profile::Residence;

impl Line {
    /// Whether a model stays here.
    pub(crate) fn keeps(&self, forecaster: &Forecaster) -> bool {
        forecaster.plans().next().is_some_and(|plan| self.residents.has(plan.id))
    }

    /// What its device keeps.
    pub(crate) fn kept(&self) -> Kept {
        Kept { staying: self.residents.wanted(), memory: *self.memory.lock() }
    }

    /// A model is not to stay here after all.
    pub(crate) fn forgo(&self, forecaster: &Forecaster) {
        for plan in forecaster.plans() {
            self.residents.forget(plan.id);
        }
    }

    /// Whether a request of one window would be answered in its caller's thread now.
    pub(crate) fn answers_at_once(&self, served: &Served) -> bool {
        if !self.is_up() {
            return false;
        }
        let stays = served.terms.residence == Residence::Stays && self.keeps(&served.forecaster);
        stays || self.is_idle() && (served.forecaster.row_macs() as u64) < self.inline_macs_max(&served.terms)
    }

    /// Answers a request in its caller's thread, if its model stays; gives it back for the ordinary way if not.
    pub(super) fn run_staying(&self, job: Job) -> Option<Job> {
        let stays = job.served.terms.residence == Residence::Stays && job.windows.rows <= ROWS_MAX;
        if !stays || !self.is_up() || !self.keeps(&job.served.forecaster) {
            return Some(job);
        }
        let judge = job.served.judge(self.spec.device);
        let (broken, mut jobs) = self.residents.with(|engine| self.run_on(engine, vec![job])).err()?;
        match broken {
            // It rests, is on its way, or has enough to do: nothing is wrong.
            Broken::Refused(ExecuteError::NotServed(NotServed::Away | NotServed::Busy)) => {}
            broken => judge.judge(Outcome::Failed(&broken.to_string()), false),
        }
        jobs.pop()
    }
}
