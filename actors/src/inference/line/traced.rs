//! The spans of a batch some of whose requests are recorded: when it waited, ran, and where.
//!
//! A batch is one piece of work of several traces. Its span stands in the first of them and links to the requests of
//! all; each of the others has its own wait and computation, which link to it.

use std::time::Instant;

use peregrine_shaders::{Backend, RunTimes};

use crate::inference::Job;
use crate::inference::ledger::Split;
use crate::trace::{Done, Trace};

/// A batch that is being recorded.
pub(super) struct TracedBatch {
    span: Trace,
    /// Position of its first recorded request among all.
    host: usize,
    /// The recorded requests of it, and since when each waited.
    requests: Vec<(Trace, Instant)>,
}

/// What a batch was.
pub(super) struct Ran<'a> {
    pub(super) backend: Backend,
    pub(super) device: String,
    pub(super) model: &'a str,
    pub(super) version: u32,
    pub(super) requests: usize,
    pub(super) rows: usize,
    pub(super) started: Instant,
    pub(super) ended: Instant,
}

impl TracedBatch {
    /// `None`: no request of it is recorded.
    pub(super) fn of(jobs: &[Job]) -> Option<Box<Self>> {
        let host = jobs.iter().position(|job| job.origin.trace.is_recorded())?;
        let recorded = jobs[host..].iter().filter(|job| job.origin.trace.is_recorded());
        let requests = recorded.map(|job| (job.origin.trace.clone(), job.accepted_at)).collect();
        Some(Box::new(Self { span: jobs[host].origin.trace.child(), host, requests }))
    }

    /// It ran; `times` is what the executor noted of the last of its runs.
    pub(super) fn ran(&self, ran: &Ran<'_>, split: Split, times: Option<RunTimes>) {
        self.waits(ran);
        let ended = ran.ended;
        let submitted_at = ran.started + split.input;
        let computed_at = submitted_at + split.infer;
        match times {
            None => {
                self.span.piece(|| Done::new("device submit", ran.started, submitted_at));
                self.span.piece(|| computed(ran, submitted_at, computed_at));
                self.span.piece(|| Done::new("transfer", computed_at, ended));
            }
            Some(times) => {
                self.span.piece(|| Done::new("device submit", ran.started, times.submitted));
                let device_start = times.device.and_then(|took| times.finished.checked_sub(took));
                let start = device_start.map_or(times.submitted, |start| start.max(times.submitted));
                self.span.piece(|| {
                    let done = computed(ran, start, times.finished);
                    let done = done.with("peregrine.device.timestamps", times.device.is_some());
                    match times.device {
                        Some(took) => done.with("peregrine.device.nanoseconds", nanoseconds(took)),
                        None => done,
                    }
                });
                self.span.piece(|| Done::new("transfer", times.finished, ended));
            }
        }
        self.close(ran, None);
    }

    /// It did not run to its end.
    pub(super) fn broke(&self, ran: &Ran<'_>, why: &str) {
        self.waits(ran);
        self.close(ran, Some(("device", why.to_owned())));
    }

    fn waits(&self, ran: &Ran<'_>) {
        for (at, (request, since)) in self.requests.iter().enumerate() {
            let links = self.span.context().filter(|_| at > 0);
            request.piece(|| {
                let done = Done::new("queue", *since, ran.started).linked(links);
                done.with("peregrine.backend", ran.backend.name())
            });
            if at > 0 {
                request.piece(|| computed(ran, ran.started, ran.ended).linked(links));
            }
        }
    }

    fn close(&self, ran: &Ran<'_>, error: Option<(&'static str, String)>) {
        self.span.end(|| {
            let links = self.requests.iter().filter_map(|(request, _)| request.context());
            Done::new("batch", ran.started, ran.ended)
                .linked(links)
                .with("peregrine.model", ran.model.to_owned())
                .with("peregrine.version", ran.version)
                .with("peregrine.backend", ran.backend.name())
                .with("peregrine.batch.requests", ran.requests)
                .with("peregrine.batch.recorded", self.requests.len())
                .with("peregrine.batch.rows", ran.rows)
                .with("peregrine.batch.bucket", ran.rows.next_power_of_two())
                .with("peregrine.batch.place", self.host)
                .failed(error)
        });
    }
}

fn computed(ran: &Ran<'_>, start: Instant, end: Instant) -> Done {
    let done = Done::new("compute", start, end);
    done.with("peregrine.backend", ran.backend.name()).with("peregrine.device", ran.device.clone())
}

fn nanoseconds(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
