//! Runs a batch on the executor: answers, what a failure means to the breakers, and where the work goes then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peregrine_runtime::Failure;
use peregrine_shaders::Windows;

use super::Line;
use super::traced::{Ran, TracedBatch};
use crate::inference::admission::time;
use crate::inference::engine::{Broken, Engine};
use crate::inference::{Job, Outcome};
use crate::status::nanos;

impl Line {
    /// Runs a batch and answers each request. An error: the executor is gone and must be built anew.
    pub(super) fn run_batch(&self, engine: &mut Option<Engine>, jobs: Vec<Job>) -> Result<(), Failure> {
        let (Some(running), Some(first)) = (engine.as_mut(), jobs.first()) else { return Ok(()) };
        let served = Arc::clone(&first.served);
        let work = jobs.iter().map(Job::work).sum();
        let now = self.spec.clock.now();
        let until = now.saturating_duration_since(self.born) + time(work, self.speed.ns());
        self.busy_until_ns.store(nanos(until).max(1), Ordering::Relaxed); // zero is idle
        match self.run_on(running, jobs) {
            Ok(took) => {
                self.speed.record(work, took);
                Ok(())
            }
            Err((broken, mut jobs)) => {
                let why = broken.to_string();
                let traced = jobs.iter().find_map(|job| job.origin.trace.id());
                tracing::warn!(device = %self.spec.device, model = %served.forecaster.spec().name, error = why, trace_id = traced, "batch failed");
                if settle_tickets(&mut jobs, Outcome::Failed(&why)) == 0 {
                    served.judge(self.spec.device).judge(Outcome::Failed(&why), false);
                }
                self.hand_over(jobs, &why);
                if broken.is_fatal() {
                    if let Some(lost) = engine.take() {
                        lost.discard();
                    }
                    return Err(why.into());
                }
                Ok(())
            }
        }
    }

    /// Runs a batch on an engine and answers each request, or gives all of them back with what broke.
    pub(super) fn run_on(
        &self,
        running: &mut Engine,
        mut jobs: Vec<Job>,
    ) -> Result<Duration, (Broken, Vec<Job>)> {
        let Some(first) = jobs.first() else { return Ok(Duration::ZERO) };
        let clock = &self.spec.clock;
        let started = clock.now();
        let served = Arc::clone(&first.served);
        let windows: Vec<&Windows> = jobs.iter().map(|job| &job.windows).collect();
        let traced = TracedBatch::of(&jobs);
        if traced.is_some() {
            running.observe(true);
        }
        let ran = running.run(&served.forecaster, served.terms.residence, &windows, clock.as_ref());
        // Before anybody has an answer: who asks again then is not to take another device for the idler one.
        self.busy_until_ns.store(0, Ordering::Relaxed);
        if let Some(traced) = traced {
            running.observe(false);
            let batch = Ran {
                backend: self.backend(),
                device: running.device().to_owned(),
                model: &served.forecaster.spec().name,
                version: served.version,
                requests: jobs.len(),
                rows: windows.iter().map(|windows| windows.rows).sum(),
                started,
                ended: clock.now(),
            };
            match &ran {
                Ok((_, split)) => traced.ran(&batch, *split, running.observed()),
                Err(broken) => traced.broke(&batch, &broken.to_string()),
            }
        }
        match ran {
            Ok((fates, split)) => {
                self.busy_ns.fetch_add(nanos(split.total()), Ordering::Relaxed);
                let outcome = Outcome::Finished { took: split.total() };
                // Whether a probe went well is known once its answer has been checked.
                let probes = match self.checks(&served) {
                    true => jobs.iter().filter(|job| job.ticket.is_some()).count(),
                    false => settle_tickets(&mut jobs, outcome),
                };
                if probes == 0 {
                    served.judge(self.spec.device).judge(outcome, false);
                }
                self.answer(jobs, fates, started, split);
                Ok(split.total())
            }
            Err(broken) => Err((broken, jobs)),
        }
    }
}

/// Tells the outcome to whoever sent probes; says how many there were.
fn settle_tickets(jobs: &mut [Job], outcome: Outcome<'_>) -> usize {
    let tickets = jobs.iter_mut().filter_map(|job| job.ticket.take());
    tickets.map(|ticket| ticket.settle(outcome)).count()
}
