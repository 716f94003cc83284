//! What a node measures of itself for the scaler, over the last seconds. What it cannot measure it does not say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peregrine_actors::alerts::{Window, error_share, quantile};
use peregrine_actors::{DeviceMeter, DeviceStatus, Health};
use peregrine_scaler::signal::Signal;
use peregrine_shaders::Backend;

use crate::cluster::{Computed, computed, computing, serving};
use crate::gateway::{BOUNDS_S, Served, Shared};

/// Rates are of so long: shorter ones jump, longer ones lag.
const SPAN: Duration = Duration::from_secs(10);

/// Counters of a node at one moment.
#[derive(Clone, Debug)]
struct Counts {
    at: Instant,
    /// Requests for forecasts that devices here were asked, answered or not, other nodes' among them.
    asked: u64,
    rows: u64,
    ticks: u64,
    /// Time that each device has computed.
    computed: Computed,
    /// What became of callers' requests.
    served: Served,
}

/// Measures one node.
pub(crate) struct VitalsMeter {
    window: Window<Counts>,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) signals: BTreeMap<Signal, f64>,
    /// Requests per second that came from callers.
    pub(crate) asked_here: Option<f64>,
}

impl VitalsMeter {
    pub(crate) fn new() -> Self {
        Self { window: Window::new(SPAN) }
    }

    /// Measures. `others_inside`: requests of other nodes that are worked on.
    pub(crate) fn read(&mut self, shared: &Shared, others_inside: usize, now: Instant) -> Measured {
        let health = shared.system.health();
        let stats = shared.system.stats();
        let counts = Counts {
            at: now,
            asked: stats.iter().map(|stats| stats.success.count + stats.fail.count).sum(),
            rows: stats.iter().map(|stats| stats.inference_count).sum(),
            ticks: shared.live.series.stats().acknowledged,
            computed: computed(&health),
            served: shared.meter.served(),
        };
        let mut measured = Measured::default();
        let inside = shared.meter.in_flight() + others_inside;
        measured.signals.insert(Signal::InFlight, inside as f64);
        of_now(&health, &mut measured.signals);
        if let Some(before) = self.window.turn(now, counts.clone()) {
            of_late(before, &counts, &health, &mut measured);
        }
        measured
    }
}

fn of_now(health: &Health, signals: &mut BTreeMap<Signal, f64>) {
    let serving = serving(health);
    // A request that comes now waits where least waits.
    if let Some(least) = serving.iter().map(|device| device.backlog).min() {
        signals.insert(Signal::QueueAge, least.as_secs_f64());
    }
    let share = |used: Option<u64>, all: Option<u64>| {
        used.zip(all).filter(|(_, all)| *all > 0).map(|(used, all)| used as f64 / all as f64)
    };
    let of_device = |device: &DeviceMeter| share(device.memory_used_bytes, device.memory_total_bytes);
    let is_gpu = serving.first().is_some_and(|device| device.backend == Backend::Gpu);
    // The fullest counts: a model has to fit wherever it is asked.
    let memory = match health.meters.iter().filter_map(of_device).reduce(f64::max) {
        Some(worst) => Some(worst),
        // A device's memory that cannot be read is not known; the machine's says nothing of it.
        None if is_gpu => None,
        None => health
            .system
            .and_then(|vitals| share(Some(vitals.memory_used_bytes), Some(vitals.memory_total_bytes))),
    };
    signals.extend(memory.map(|memory| (Signal::MemoryShare, memory)));
}

fn of_late(before: &Counts, now: &Counts, health: &Health, measured: &mut Measured) {
    let over = now.at.saturating_duration_since(before.at);
    let elapsed = over.as_secs_f64();
    if elapsed <= 0.0 {
        return;
    }
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / elapsed;
    let signals = &mut measured.signals;
    signals.insert(Signal::RequestRate, rate(now.asked, before.asked));
    signals.insert(Signal::PredictionRate, rate(now.rows, before.rows));
    signals.insert(Signal::TickRate, rate(now.ticks, before.ticks));
    let computing = computing(&serving(health), &before.computed, &now.computed, over);
    // What the driver says counts too: others may use the devices.
    let driver = driver_share(health);
    signals
        .insert(Signal::Utilisation, driver.map_or(computing, |share| share.max(computing)).clamp(0.0, 1.0));
    let pairs = now.served.buckets.iter().zip(before.served.buckets);
    let buckets: Vec<u64> = pairs.map(|(now, then)| now.saturating_sub(then)).collect();
    let answered = buckets.last().copied().unwrap_or(0);
    measured.asked_here = Some(answered as f64 / elapsed);
    signals.extend(quantile(&BOUNDS_S, &buckets, 0.95).map(|p95| (Signal::P95, p95)));
    let failed = now.served.failed.saturating_sub(before.served.failed);
    signals.extend(error_share(failed, answered).map(|share| (Signal::ErrorShare, share)));
}

/// The share of the time in which the GPUs compute, as their driver says: the mean of those that serve, or, where nobody
/// knows which those are, the most of any.
fn driver_share(health: &Health) -> Option<f64> {
    let gpus = serving(health).into_iter().filter(|device| device.backend == Backend::Gpu);
    let known = |device: &DeviceStatus| {
        let meter = health.meters.iter().find(|meter| meter.gpu == Some(device.index))?;
        meter.utilisation
    };
    let shares: Vec<f64> = gpus.filter_map(known).collect();
    match shares.len() {
        0 => health.meters.iter().filter_map(|meter| meter.utilisation).reduce(f64::max),
        count => Some(shares.iter().sum::<f64>() / count as f64),
    }
}

#[cfg(test)]
mod tests {
    use peregrine_actors::DeviceId;

    use super::*;

    fn counts(at: Instant, asked: u64, busy_ms: u64, answered: u64, failed: u64) -> Counts {
        let mut buckets = [0; BOUNDS_S.len() + 1];
        buckets[5..].fill(answered);
        Counts {
            at,
            asked,
            rows: asked * 3,
            ticks: asked * 2,
            computed: vec![(DeviceId::CPU, Duration::from_millis(busy_ms))],
            served: Served { buckets, failed },
        }
    }

    fn health() -> Health {
        Health {
            live: true,
            ready: true,
            started: true,
            reasons: Vec::new(),
            devices: Vec::new(),
            actors: Vec::new(),
            system: None,
            meters: Vec::new(),
            actor_lag: Duration::ZERO,
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let mut measured = Measured::default();
        let health = Health { devices: vec![DeviceStatus::idle(DeviceId::CPU)], ..health() };
        of_late(&counts(start, 100, 0, 0, 0), &counts(later, 300, 5_000, 40, 4), &health, &mut measured);
        let signal = |signal| measured.signals.get(&signal).copied();
        assert_eq!(signal(Signal::RequestRate), Some(20.0));
        assert_eq!(signal(Signal::PredictionRate), Some(60.0));
        assert_eq!(signal(Signal::TickRate), Some(40.0));
        assert_eq!(signal(Signal::Utilisation), Some(0.5));
        assert_eq!(signal(Signal::ErrorShare), Some(0.1));
        assert_eq!(measured.asked_here, Some(4.0));
    }

    #[test]
    fn without_answers_there_is_no_time_of_answers() {
        let start = Instant::now();
        let mut measured = Measured::default();
        let later = start + Duration::from_secs(1);
        of_late(&counts(start, 0, 0, 7, 0), &counts(later, 0, 0, 7, 0), &health(), &mut measured);
        assert_eq!(measured.signals.get(&Signal::P95), None);
        assert_eq!(measured.signals.get(&Signal::ErrorShare), None);
        assert_eq!(measured.signals.get(&Signal::RequestRate), Some(&0.0));
    }

    #[test]
    fn the_memory_of_a_gpu_that_nobody_can_read_is_not_known() {
        let mut health = health();
        health.devices = vec![DeviceStatus::idle(DeviceId::gpu(0))];
        let mut signals = BTreeMap::new();
        of_now(&health, &mut signals);
        assert_eq!(signals.get(&Signal::MemoryShare), None);
        health.meters = vec![DeviceMeter {
            memory_used_bytes: Some(30),
            memory_total_bytes: Some(40),
            ..DeviceMeter::default()
        }];
        of_now(&health, &mut signals);
        assert_eq!(signals.get(&Signal::MemoryShare), Some(&0.75));
    }

    #[test]
    fn of_several_gpus_the_mean_computes_and_the_least_waits() {
        let (start, ids) = (Instant::now(), [DeviceId::gpu(0), DeviceId::gpu(1)]);
        let meter = |index: usize, share| DeviceMeter {
            gpu: Some(index),
            utilisation: Some(share),
            ..DeviceMeter::default()
        };
        let mut health = Health { devices: ids.map(DeviceStatus::idle).to_vec(), ..health() };
        for (device, ms) in health.devices.iter_mut().zip([40, 10]) {
            device.backlog = Duration::from_millis(ms);
        }
        let at = |at, busy_ms: [u64; 2]| Counts {
            computed: ids.into_iter().zip(busy_ms.map(Duration::from_millis)).collect(),
            ..counts(at, 0, 0, 0, 0)
        };
        let (before, now) = (at(start, [0, 500]), at(start + Duration::from_secs(1), [800, 900]));
        let utilisation = |health: &Health| {
            let mut measured = Measured::default();
            of_late(&before, &now, health, &mut measured);
            (measured.signals[&Signal::Utilisation] * 100.0).round()
        };
        assert_eq!(utilisation(&health), 60.0);
        // The third is nobody's here.
        health.meters = vec![meter(1, 0.6), meter(0, 0.8), DeviceMeter { gpu: None, ..meter(9, 1.0) }];
        assert_eq!(utilisation(&health), 70.0);
        let mut signals = BTreeMap::new();
        of_now(&health, &mut signals);
        assert_eq!(signals.get(&Signal::QueueAge), Some(&0.01));
    }
}
