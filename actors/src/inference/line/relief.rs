//! Where requests go whose device cannot run them: to another GPU, to the spare device, or back to their callers.
//!
//! Another GPU takes a request once. One that breaks whatever runs it must not go through all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use peregrine_shaders::Backend;

use super::Line;
use crate::devices::DeviceId;
use crate::inference::Job;
use crate::request::ForecastError;

impl Line {
    /// Gives requests that this device accepted to others, or tells their callers.
    pub(super) fn hand_over(&self, jobs: Vec<Job>, why: &str) {
        self.give_to_spare(self.relieve(jobs), why);
    }

    /// Gives requests to other GPUs that are up and trusted with their models; those that find none come back.
    pub(super) fn relieve(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut left = Vec::new();
        let mut given: BTreeMap<DeviceId, (Arc<Line>, Vec<Job>)> = BTreeMap::new();
        for mut job in jobs {
            let before = |id| given.get(&id).map_or(0, |(_, jobs)| jobs.len());
            let Some((id, line)) = self.relief(&job, before) else {
                left.push(job);
                continue;
            };
            job.relieved = true;
            job.ticket = None;
            given.entry(id).or_insert_with(|| (line, Vec::new())).1.push(job);
        }
        for (line, jobs) in given.into_values() {
            left.extend(line.adopt(jobs));
        }
        left
    }

    /// The GPU that takes a request over, where most waits `before` counts what it was just given.
    fn relief(&self, job: &Job, before: impl Fn(DeviceId) -> usize) -> Option<(DeviceId, Arc<Line>)> {
        if self.backend() == Backend::Cpu || job.relieved {
            return None;
        }
        let others = job
            .served
            .lines
            .gpus()
            .filter(|(id, line)| *id != self.id() && line.is_up() && job.served.judges[*id].trusts());
        let idlest = others.min_by_key(|(id, line)| line.queue() + before(*id));
        idlest.map(|(id, line)| (id, Arc::clone(line)))
    }

    /// Gives requests to the spare device where their models may be answered there, or tells their callers.
    pub(super) fn give_to_spare(&self, jobs: Vec<Job>, why: &str) {
        let (mut moved, left): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| self.spare_for(&job.served).is_some());
        let now = self.spec.clock.now();
        for job in left {
            job.fail(ForecastError::unavailable(why), now);
        }
        let Some(spare) = self.spec.spare.as_ref().filter(|_| !moved.is_empty()) else { return };
        for job in &mut moved {
            job.degraded = true;
            job.ticket = None;
        }
        for job in spare.adopt(moved) {
            let error = match spare.accepts() {
                true => {
                    let work = spare.waiting_work.load(Ordering::Relaxed);
                    ForecastError::Overloaded { retry_after_ms: spare.retry_after_ms(work) }
                }
                false => ForecastError::unavailable("no device is up"),
            };
            job.fail(error, now);
        }
    }

    /// Takes work that another device had accepted, for which there is a reserve; gives back what it cannot.
    fn adopt(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut refused = Vec::new();
        let mut desk = self.desk.lock();
        for job in jobs {
            if desk.accepts && desk.batcher.has_reserve(job.windows.rows) {
                desk.batcher.push(job.waiting());
            } else {
                refused.push(job);
            }
        }
        self.publish_queue(&desk);
        self.wake(desk);
        refused
    }

    /// Has requests wait on for this device, whose next executor is to come.
    pub(super) fn keep_waiting(&self, jobs: Vec<Job>, why: &str) {
        let mut desk = self.desk.lock();
        if !desk.accepts {
            // There is to be none: the node has begun to stop.
            drop(desk);
            return self.give_to_spare(jobs, why);
        }
        for job in jobs {
            desk.batcher.push(job.waiting());
        }
        self.publish_queue(&desk);
    }
}
