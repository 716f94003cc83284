//! The actor that samples the machine on a timer and publishes the latest sample.
//!
//! Knows no model and no device; what the samples mean is decided in `policy.rs`, when somebody asks.

mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use arc_swap::ArcSwapOption;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

pub(crate) use policy::{Findings, judge};

use crate::status::Vitals;

/// The latest sample; none before the first.
pub(crate) type Latest = Arc<ArcSwapOption<Vitals>>;

/// Take a sample now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Sample;

pub(crate) struct Health {
    system: System,
    process: Option<Pid>,
    latest: Latest,
    every: Duration,
}

impl Health {
    pub(crate) fn new(latest: Latest, every: Duration) -> Result<Self, sysinfo::Error> {
        Ok(Self { system: System::new()?, process: sysinfo::get_current_pid().ok(), latest, every })
    }

    fn sample(&mut self) {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        if let Some(pid) = self.process {
            let kinds = ProcessRefreshKind::nothing().with_memory().with_cpu();
            self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kinds);
        }
        let process = self.process.and_then(|pid| self.system.process(pid));
        self.latest.store(Some(Arc::new(Vitals {
            cpu_share: f64::from(self.system.global_cpu_usage()) / 100.0,
            cpu_count: self.system.cpus().len(),
            load_1m: System::load_average().map_or(0.0, |load| load.one),
            memory_used_bytes: self.system.used_memory(),
            memory_total_bytes: self.system.total_memory(),
            process_bytes: process.map_or(0, sysinfo::Process::memory),
            process_cpu_share: process.map_or(0.0, |process| f64::from(process.cpu_usage()) / 100.0),
        })));
    }
}

impl Actor for Health {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.sample();
        context.run_interval(self.every, |health, _| health.sample());
    }
}

impl Handler<Sample> for Health {
    type Result = ();

    fn handle(&mut self, _: Sample, _: &mut Context<Self>) {
        self.sample();
    }
}
