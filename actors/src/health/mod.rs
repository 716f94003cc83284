//! The actor that samples the machine on a timer and publishes the latest sample.
//!
//! Knows no model and no device; what the samples mean is decided in `policy.rs` and `steady.rs`, when somebody asks.

mod memory;
mod meters;
mod policy;
mod steady;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use arc_swap::ArcSwapOption;
use peregrine_runtime::watchdog::lag::{BEAT, LoopLag};
use peregrine_runtime::{Address, Clock};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

pub use memory::{MemoryMeter, MemoryRoom};
pub use meters::{DeviceMeter, Meters};
pub(crate) use meters::{LatestMeters, MeterReader, ReadMeters, known as known_meters};
pub(crate) use policy::{Findings, judge};
pub(crate) use steady::{Now, Steady};

use crate::status::Vitals;

/// The latest sample; none before the first.
pub(crate) type Latest = Arc<ArcSwapOption<Vitals>>;

/// Take a sample now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Sample;

/// What the actor is given anew with each life.
#[derive(Clone)]
pub(crate) struct HealthParts {
    pub(crate) latest: Latest,
    pub(crate) every: Duration,
    /// Of the loop that all light actors share.
    pub(crate) lag: Arc<LoopLag>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) memory: MemoryMeter,
    /// Who reads the devices' meters, where there are any.
    pub(crate) meters: Option<Address<ReadMeters>>,
}

pub(crate) struct Health {
    system: System,
    process: Option<Pid>,
    parts: HealthParts,
}

impl Health {
    pub(crate) fn new(parts: HealthParts) -> Result<Self, sysinfo::Error> {
        Ok(Self { system: System::new()?, process: sysinfo::get_current_pid().ok(), parts })
    }

    fn sample(&mut self) {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        if let Some(pid) = self.process {
            let kinds = ProcessRefreshKind::nothing().with_memory().with_cpu();
            self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kinds);
        }
        let memory = self.parts.memory.read(MemoryRoom {
            used_bytes: self.system.used_memory(),
            total_bytes: self.system.total_memory(),
        });
        let process = self.process.and_then(|pid| self.system.process(pid));
        self.parts.latest.store(Some(Arc::new(Vitals {
            taken_at: self.parts.clock.now(),
            cpu_share: f64::from(self.system.global_cpu_usage()) / 100.0,
            cpu_count: self.system.cpus().len(),
            load_1m: System::load_average().map_or(0.0, |load| load.one),
            memory_used_bytes: memory.used_bytes,
            memory_total_bytes: memory.total_bytes,
            process_bytes: process.map_or(0, sysinfo::Process::memory),
            process_cpu_share: process.map_or(0.0, |process| f64::from(process.cpu_usage()) / 100.0),
        })));
        if let Some(meters) = &self.parts.meters {
            // One that is still at the last reading is asked again the next time.
            let _ = meters.tell(ReadMeters);
        }
    }
}

impl Actor for Health {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.sample();
        context.run_interval(self.parts.every, |health, _| health.sample());
        context.run_interval(BEAT, |health, _| health.parts.lag.beat(health.parts.clock.now()));
    }
}

impl Handler<Sample> for Health {
    type Result = ();

    fn handle(&mut self, _: Sample, _: &mut Context<Self>) {
        self.sample();
    }
}
