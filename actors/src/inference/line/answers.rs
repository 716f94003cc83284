//! What becomes of a batch that has run: answers, checks of answers, and requests that go on to the spare device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_runtime::Deadline;

use super::Line;
use crate::inference::check::{self, Check};
use crate::inference::engine::Fate;
use crate::inference::ledger::{Answered, Entry, Split};
use crate::inference::{Job, Outcome, Served};
use crate::request::{Forecast, ForecastError, Origin, Priority, ServedBy, Timing};

/// A check that waits longer is not made.
const CHECK_WITHIN: Duration = Duration::from_secs(5);

impl Line {
    pub(super) fn answer(&self, jobs: Vec<Job>, fates: Vec<Fate>, started: Instant, split: Split) {
        let device = self.spec.device;
        let batch_rows: usize = jobs.iter().map(|job| job.windows.rows).sum();
        let Some(served) = jobs.first().map(|job| Arc::clone(&job.served)) else { return };
        let now = self.spec.clock.now();
        // The way to the device is part of what a request waits for; it shows where one waited least.
        let waits = jobs.iter().map(|job| started.saturating_duration_since(job.accepted_at));
        let way = waits.min().unwrap_or_default();
        served.paces[device].record(batch_rows, way + split.total(), now);
        let mut answered = Vec::with_capacity(jobs.len());
        let mut ready = Vec::with_capacity(jobs.len());
        let mut doubted = Vec::new();
        let mut unconfirmed = Vec::new();
        let mut sample = self.sample(&served, &jobs, &fates, now);
        for (at, (mut job, fate)) in jobs.into_iter().zip(fates).enumerate() {
            let queue = started.saturating_duration_since(job.accepted_at);
            match fate {
                Fate::Values(values) if job.ticket.is_some() => {
                    // The caller of a probe gets what the CPU says: a device that lied may still do so.
                    job.check =
                        Some(Check { device, values, ticket: job.ticket.take(), took: split.total() });
                    unconfirmed.push(job);
                }
                Fate::Values(values) => {
                    if let Some(check) = job.check.take() {
                        check.conclude(&served, &job.windows, &values, &self.spec.checks);
                    }
                    if let Some((_, row)) = sample.take_if(|(sampled, _)| *sampled == at) {
                        self.confirm(&job, row, &values, split.total(), now);
                    }
                    let Some(slot) = job.slot else { continue };
                    if let Some(suspect) = job.suspect {
                        let why = "the gpu's answer was not finite, the cpu's is";
                        served.judge(suspect).judge(Outcome::Failed(why), false);
                    }
                    let spec = Arc::clone(served.forecaster.spec());
                    answered.push(Answered {
                        rows: job.windows.rows,
                        crossed: check::crossed(&spec, &values).count(),
                        queued: queue,
                        degraded: job.degraded,
                    });
                    let timing = Timing { queue, compute: split.total(), batch_rows };
                    let degraded = job.degraded;
                    let forecast = Forecast {
                        spec,
                        version: served.version,
                        values,
                        backend: device.backend,
                        served_by: ServedBy::Here,
                        degraded,
                        timing,
                    };
                    ready.push((slot, forecast));
                }
                Fate::NotFinite { .. } if self.spare_for(&served).is_some() => {
                    job.suspect = Some(device);
                    doubted.push(job);
                }
                Fate::NotFinite { row } => job.fail(ForecastError::NotFinite { row }, now),
            }
        }
        let at = self.spec.clock.wall();
        self.count(answered.len(), batch_rows);
        served.ledger.succeeded(&Entry {
            backend: device.backend,
            requests: &answered,
            rows: batch_rows,
            split,
            at,
        });
        for (slot, forecast) in ready {
            // A caller that left needs no answer.
            slot.send(Ok(forecast));
        }
        self.give_to_spare(doubted, "its answer was not finite");
        self.give_to_spare(unconfirmed, "its answer is to be confirmed");
    }

    /// Where a model's requests go when this device fails, if they may.
    pub(super) fn spare_for(&self, served: &Served) -> Option<&Arc<Line>> {
        self.spec.spare.as_ref().filter(|_| served.terms.fallback.falls_back())
    }

    /// Whether a model's answers of this device are compared with those of a spare one.
    pub(super) fn checks(&self, served: &Served) -> bool {
        self.spare_for(served).is_some() && !self.spec.checks.every.is_zero()
    }

    /// The request of a batch, and its row, whose answer is to be checked.
    fn sample(&self, served: &Served, jobs: &[Job], fates: &[Fate], now: Instant) -> Option<(usize, usize)> {
        if !self.checks(served) {
            return None;
        }
        let rows = jobs.iter().map(|job| job.windows.rows);
        let odd = || {
            let crossed = jobs.iter().zip(fates).scan(0, |before, (job, fate)| {
                let first = std::mem::replace(before, *before + job.windows.rows);
                let Fate::Values(values) = fate else { return Some(None) };
                Some(check::crossed(served.forecaster.spec(), values).next().map(|row| first + row))
            });
            crossed.flatten().next()
        };
        let mut row = served.sampler.take(rows.clone().sum(), self.spec.checks.every, now, odd)?;
        for (at, rows) in rows.enumerate() {
            if row < rows {
                return Some((at, row));
            }
            row -= rows;
        }
        None
    }

    /// Lets the spare device compute one row of an answer again, if it has time.
    fn confirm(&self, job: &Job, row: usize, values: &[f32], took: Duration, now: Instant) {
        let Some(spare) = self.spare_for(&job.served) else { return };
        let len = job.served.forecaster.spec().answer_len();
        let values = values[row * len..][..len].to_vec();
        let check = Check { device: self.spec.device, values, ticket: None, took };
        let copy = Job {
            served: Arc::clone(&job.served),
            windows: check::row(&job.windows, row),
            accepted_at: now,
            deadline: Deadline::after(now, CHECK_WITHIN),
            origin: Origin { priority: Priority::Low, ..Origin::default() },
            is_alone: false,
            slot: None,
            degraded: false,
            relieved: false,
            ticket: None,
            suspect: None,
            check: Some(check),
        };
        // A CPU that is busy has more to do than this.
        let _ = spare.enqueue(copy);
    }
}
