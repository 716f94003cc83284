//! Keeps what this node says of itself true: the models it serves, how busy it is, and what its breakers
//! have found out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peregrine_actors::{DeviceId, DeviceState, DeviceStatus, Health, System};
use peregrine_fly::passage::HostMachine;
use peregrine_runtime::Cluster;
use peregrine_shaders::Backend;
use tracing::warn;

use super::offer::{MACHINE, doubts, offers};
use crate::config::{Config, Holding};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A load is told again when it differs by this much: each telling goes to every node.
const LOAD_STEP: f32 = 0.05;

/// Looks and tells until its task is aborted. `config`: which models are held as a standby does not change while a
/// node runs, nor does the machine that it runs on.
pub(super) async fn herald(cluster: Cluster, system: System, config: Config, machine: Option<HostMachine>) {
    let machine = machine.map(|machine| (MACHINE.to_owned(), machine.to_text()));
    // A record says nothing and a load of zero until it is told otherwise.
    let mut told = (BTreeMap::new(), 0.0_f32);
    let mut meter = LoadMeter::default();
    loop {
        let health = system.health();
        let has_gpu = serving(&health).first().is_some_and(|device| device.backend == Backend::Gpu);
        let is_standby = |model: &str| config.holding(model) == Holding::Standby;
        let breakers = system.breakers();
        let (mut services, left_out) = offers(&system.models(), is_standby, has_gpu, &breakers);
        services.extend(doubts(&breakers));
        services.extend(machine.clone());
        if services != told.0 {
            if left_out > 0 {
                warn!(left_out, "more models than a record holds: other nodes do not ask for these");
            }
            cluster.set_services(services.clone()).await;
            told.0 = services;
        }
        let load = meter.read(&health, Instant::now());
        if (load - told.1).abs() >= LOAD_STEP {
            cluster.set_load(load).await;
            told.1 = load;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The devices that answer: the GPUs that are up, or the CPU where there is none.
pub(crate) fn serving(health: &Health) -> Vec<&DeviceStatus> {
    let up = |backend| {
        let devices = health.devices.iter();
        devices.filter(move |device| device.backend == backend && device.state == DeviceState::Up)
    };
    let gpus: Vec<_> = up(Backend::Gpu).collect();
    if gpus.is_empty() { up(Backend::Cpu).collect() } else { gpus }
}

/// How long each device has computed so far.
pub(crate) type Computed = Vec<(DeviceId, Duration)>;

pub(crate) fn computed(health: &Health) -> Computed {
    health.devices.iter().map(|device| (device.id(), device.busy)).collect()
}

/// The share of the time since `before` in which devices have computed, 0 to 1: their mean, since what they have left is
/// what the next requests get.
pub(crate) fn computing(
    serving: &[&DeviceStatus],
    before: &Computed,
    now: &Computed,
    elapsed: Duration,
) -> f64 {
    let of = |computed: &Computed, device: &DeviceStatus| {
        computed.iter().find(|(id, _)| *id == device.id()).map(|(_, busy)| *busy)
    };
    let share = |device: &&DeviceStatus| {
        let spent = of(now, device)?.saturating_sub(of(before, device)?);
        Some(spent.as_secs_f64() / elapsed.as_secs_f64())
    };
    if elapsed.is_zero() || serving.is_empty() {
        return 0.0;
    }
    let total: f64 = serving.iter().filter_map(share).sum();
    (total / serving.len() as f64).clamp(0.0, 1.0)
}

/// How busy a node is: how full the queues of its devices are, or the share of the time that they compute, if that is
/// more.
#[derive(Default)]
struct LoadMeter {
    before: Option<(Instant, Computed)>,
}

impl LoadMeter {
    /// From 0 to 1; a node whose devices are down is full.
    fn read(&mut self, health: &Health, now: Instant) -> f32 {
        let serving = serving(health);
        let computed = computed(health);
        let before = self.before.replace((now, computed.clone()));
        if serving.is_empty() {
            return 1.0;
        }
        let computing = before.map_or(0.0, |(at, before)| {
            computing(&serving, &before, &computed, now.saturating_duration_since(at))
        });
        let sum = |rows: fn(&DeviceStatus) -> usize| serving.iter().map(|device| rows(device)).sum::<usize>();
        let queued =
            sum(|device| device.queue_rows) as f32 / sum(|device| device.queue_rows_max).max(1) as f32;
        (computing as f32).max(queued).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: DeviceState = DeviceState::Up;

    #[test]
    fn the_load_is_the_share_of_the_time_that_the_device_computes() {
        let (mut meter, start) = (LoadMeter::default(), Instant::now());
        assert_eq!(meter.read(&health(&[(Backend::Cpu, UP, 0, 100)]), start), 0.0);
        let later = start + Duration::from_millis(400);
        assert_eq!(meter.read(&health(&[(Backend::Cpu, UP, 0, 200)]), later), 0.25);
        assert_eq!(
            meter.read(&health(&[(Backend::Cpu, UP, 0, 900)]), later + Duration::from_millis(100)),
            1.0
        );
    }

    #[test]
    fn a_full_queue_is_a_full_node() {
        let mut meter = LoadMeter::default();
        assert_eq!(meter.read(&health(&[(Backend::Cpu, UP, 50, 0)]), Instant::now()), 0.5);
        assert_eq!(meter.read(&health(&[(Backend::Cpu, UP, 900, 0)]), Instant::now()), 1.0);
    }

    #[test]
    fn the_gpu_counts_while_it_is_up() {
        let down = DeviceState::Down { reason: "lost".to_owned() };
        let mut meter = LoadMeter::default();
        let devices = [(Backend::Cpu, UP, 20, 0), (Backend::Gpu, UP, 70, 0)];
        assert_eq!(meter.read(&health(&devices), Instant::now()), 0.7);
        let devices = [(Backend::Cpu, UP, 20, 0), (Backend::Gpu, down.clone(), 70, 0)];
        assert_eq!(meter.read(&health(&devices), Instant::now()), 0.2);
        assert_eq!(meter.read(&health(&[(Backend::Cpu, down, 0, 0)]), Instant::now()), 1.0);
    }

    #[test]
    fn several_gpus_share_the_load() {
        let (mut meter, start) = (LoadMeter::default(), Instant::now());
        let gpus = |rows: [usize; 2], busy_ms: [u64; 2]| {
            let mut health =
                health(&[(Backend::Gpu, UP, rows[0], busy_ms[0]), (Backend::Gpu, UP, rows[1], busy_ms[1])]);
            health.devices[1].index = 1;
            health
        };
        assert_eq!(meter.read(&gpus([60, 20], [0, 9_000]), start), 0.4);
        let later = start + Duration::from_millis(100);
        assert_eq!(meter.read(&gpus([0, 0], [100, 9_000]), later), 0.5);
        let mut one_down = gpus([0, 0], [175, 9_000]);
        one_down.devices[1].state = DeviceState::Down { reason: "lost".to_owned() };
        assert_eq!(meter.read(&one_down, later + Duration::from_millis(100)), 0.75);
    }

    fn health(devices: &[(Backend, DeviceState, usize, u64)]) -> Health {
        let device = |(backend, state, rows, busy_ms): &(Backend, DeviceState, usize, u64)| DeviceStatus {
            state: state.clone(),
            queue_rows: *rows,
            queue_rows_max: 100,
            busy: Duration::from_millis(*busy_ms),
            ..DeviceStatus::idle(DeviceId { backend: *backend, index: 0 })
        };
        Health {
            live: true,
            ready: true,
            started: true,
            reasons: Vec::new(),
            devices: devices.iter().map(device).collect(),
            actors: Vec::new(),
            system: None,
            meters: Vec::new(),
            actor_lag: Duration::ZERO,
        }
    }
}
