//! Where readings come from: each part of a node says what it knows of itself.
//!
//! What is not there is not said: a node without a cluster has no replicas, and a value that cannot be read is left
//! out while its signal stays expected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix_web::web::Data;
use parking_lot::Mutex;
use peregrine_actors::alerts::{
    Labels, Moment, Reading, Roll, Sample, Signal, Window, error_share, quantile,
};
use peregrine_actors::scorecard::{Question, Score};
use peregrine_actors::{BreakerState, DeviceMeter, Guarded};
use peregrine_runtime::{Incarnation, NodeId, Region};

use crate::gateway::{BOUNDS_S, Served, Shared};

/// A part of a node that measures something.
pub(crate) trait Feed: Send {
    /// Adds what it knows now.
    fn read(&mut self, at: Moment, sample: &mut Sample);
}

/// A node that went without a word is spoken of for so long.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Every part of this node.
pub(crate) fn of_node(shared: &Data<Shared>, window: Duration) -> Vec<Box<dyn Feed>> {
    let shared = Arc::clone(shared);
    vec![
        Box::new(State(Arc::clone(&shared))),
        Box::new(Requests { shared: Arc::clone(&shared), window: Window::new(window) }),
        Box::new(Replicas { shared: Arc::clone(&shared), roll: Roll::default(), lives: BTreeMap::new() }),
        Box::new(Intervals { shared: Arc::clone(&shared), read_at: None, readings: Vec::new() }),
        Box::new(Pools(Arc::clone(&shared))),
        Box::new(Disk { shared, window: Window::new(window) }),
    ]
}

fn say(sample: &mut Sample, signal: Signal, labels: Labels, value: f64) {
    sample.readings.push(Reading { signal, labels, value });
}

/// What is so at this moment: devices, memory, circuits, certificates, loops and actors.
struct State(Arc<Shared>);

impl Feed for State {
    fn read(&mut self, at: Moment, sample: &mut Sample) {
        let shared = &self.0;
        let health = shared.system.health();
        if shared.has_meters {
            sample.expected.extend(DEVICE);
            health.meters.iter().for_each(|device| of_device(device, sample));
        }
        sample.expected.extend([Signal::MemoryShare, Signal::VitalsAgeSeconds, Signal::BreakerState]);
        sample.expected.extend([Signal::ActorsStuck, Signal::EventLoopLagSeconds]);
        if let Some(vitals) = health.system {
            let share = vitals.memory_used_bytes as f64 / vitals.memory_total_bytes as f64;
            say(sample, Signal::MemoryShare, Labels::new(), share);
            let age = at.now.saturating_duration_since(vitals.taken_at);
            say(sample, Signal::VitalsAgeSeconds, Labels::new(), age.as_secs_f64());
        }
        for breaker in shared.system.breakers() {
            let state = match breaker.state {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open { .. } => 2.0,
                BreakerState::ForcedOpen => 3.0,
            };
            say(sample, Signal::BreakerState, guarded(&breaker.guards), state);
        }
        for (port, left) in shared.certificates(at.wall) {
            sample.expected.push(Signal::CertificateRemainingSeconds);
            let labels = Labels::from([("port", port.to_owned())]);
            say(sample, Signal::CertificateRemainingSeconds, labels, left);
        }
        for (name, lag) in shared.lags(at.now, &health) {
            let labels = Labels::from([("loop", name)]);
            say(sample, Signal::EventLoopLagSeconds, labels, lag.as_secs_f64());
        }
        say(sample, Signal::ActorsStuck, Labels::new(), shared.watch.stuck() as f64);
    }
}

const DEVICE: [Signal; 3] =
    [Signal::DeviceTemperatureCelsius, Signal::DeviceUtilisationShare, Signal::DeviceMemoryShare];

fn of_device(device: &DeviceMeter, sample: &mut Sample) {
    let labels = Labels::from([("device", device.index.to_string()), ("name", device.name.clone())]);
    let share = device.memory_used_bytes.zip(device.memory_total_bytes);
    for (signal, value) in [
        (Signal::DeviceTemperatureCelsius, device.temperature_celsius),
        (Signal::DeviceUtilisationShare, device.utilisation),
        (Signal::DeviceMemoryShare, share.map(|(used, total)| used as f64 / total as f64)),
    ] {
        // A sensor that this one does not have is no sensor that has failed.
        if let Some(value) = value {
            say(sample, signal, labels.clone(), value);
        }
    }
}

fn guarded(guards: &Guarded) -> Labels {
    match guards {
        Guarded::Device { model, version, device } => Labels::from([
            ("model", model.clone()),
            ("version", version.to_string()),
            ("backend", device.backend.name().to_owned()),
            ("device", device.index.to_string()),
        ]),
        Guarded::Coverage { model, version } => Labels::from([
            ("model", model.clone()),
            ("version", version.to_string()),
            ("backend", "coverage".to_owned()),
        ]),
        Guarded::Peer { node } => Labels::from([("backend", "remote".to_owned()), ("to", node.to_string())]),
    }
}

/// How forecasts fared of late.
struct Requests {
    shared: Arc<Shared>,
    window: Window<Served>,
}

impl Feed for Requests {
    fn read(&mut self, at: Moment, sample: &mut Sample) {
        sample.expected.extend([Signal::ResponseP95Seconds, Signal::ErrorShare]);
        let served = self.shared.meter.served();
        let Some(before) = self.window.turn(at.now, served) else { return };
        let counts: Vec<u64> =
            served.buckets.iter().zip(before.buckets).map(|(now, then)| now.saturating_sub(then)).collect();
        if let Some(p95) = quantile(&BOUNDS_S, &counts, 0.95) {
            say(sample, Signal::ResponseP95Seconds, Labels::new(), p95);
        }
        let answered = counts.last().copied().unwrap_or(0);
        if let Some(share) = error_share(served.failed.saturating_sub(before.failed), answered) {
            say(sample, Signal::ErrorShare, Labels::new(), share);
        }
    }
}

/// Who else is there.
struct Replicas {
    shared: Arc<Shared>,
    roll: Roll,
    /// As they were seen last.
    lives: BTreeMap<String, Life>,
}

struct Life {
    id: NodeId,
    incarnation: Incarnation,
    region: Region,
    seen_at: SystemTime,
}

/// A node that is gone without having said goodbye, as this one saw it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostNode {
    pub(crate) id: NodeId,
    pub(crate) region: Region,
    pub(crate) since: SystemTime,
}

/// Those of the last evaluation, by name: what the alert about lost nodes speaks of.
#[derive(Debug, Default)]
pub(crate) struct LostNodes(Mutex<Vec<LostNode>>);

impl LostNodes {
    pub(crate) fn list(&self) -> Vec<LostNode> {
        self.0.lock().clone()
    }
}

impl Feed for Replicas {
    fn read(&mut self, at: Moment, sample: &mut Sample) {
        let Some(cluster) = &self.shared.cluster else { return };
        sample.expected.extend([Signal::ReplicaLost, Signal::ReplicasMissing]);
        let view = cluster.view();
        let others = || view.members.values().filter(|member| member.id != *cluster.id());
        for member in others() {
            let (id, incarnation, region) = (member.id.clone(), member.incarnation, member.region.clone());
            self.lives.insert(id.to_string(), Life { id, incarnation, region, seen_at: at.wall });
        }
        let lives = &self.lives;
        let said_goodbye = |name: &str| {
            let left = |life: &Life| cluster.left(&life.id).is_some_and(|left| left >= life.incarnation);
            lives.get(name).is_some_and(left)
        };
        let names = others().map(|member| member.id.as_str());
        let called = self.roll.call(names, said_goodbye, at.now, FORGET_AFTER);
        self.lives.retain(|name, _| called.iter().any(|(known, _)| known == name));
        let lost = called.iter().filter(|(_, is_lost)| *is_lost);
        let lost = lost.filter_map(|(name, _)| self.lives.get(name)).map(|life| LostNode {
            id: life.id.clone(),
            region: life.region.clone(),
            since: life.seen_at,
        });
        *self.shared.lost_nodes.0.lock() = lost.collect();
        for (name, is_lost) in called {
            let labels = Labels::from([("member", name)]);
            say(sample, Signal::ReplicaLost, labels, f64::from(u8::from(is_lost)));
        }
        let meant = self.shared.config().cluster.as_ref().map_or(1, |part| part.size);
        let missing = meant.saturating_sub(view.members.len());
        say(sample, Signal::ReplicasMissing, Labels::new(), missing as f64);
    }
}

/// What intervals of model versions held of the truth.
struct Intervals {
    shared: Arc<Shared>,
    read_at: Option<Instant>,
    /// As they were read last.
    readings: Vec<Reading>,
}

/// Reads every stream of the node, and changes slowly.
const INTERVALS_EVERY: Duration = Duration::from_secs(5);

impl Feed for Intervals {
    fn read(&mut self, at: Moment, sample: &mut Sample) {
        sample.expected.push(Signal::CoverageShortfallShare);
        if self.read_at.is_none_or(|read| at.now.saturating_duration_since(read) >= INTERVALS_EVERY) {
            self.read_at = Some(at.now);
            let values_min = self.shared.config().breaker.coverage_values_min as f64;
            let scores = self.shared.scorecard.scores(Question::default());
            let reading = |score: &Score| {
                let labels = [("model", score.model.to_string()), ("version", score.version.to_string())];
                Some(Reading {
                    signal: Signal::CoverageShortfallShare,
                    labels: labels.into(),
                    value: score.worst_interval(values_min)?.shortfall(),
                })
            };
            self.readings = scores.iter().filter_map(reading).collect();
        }
        sample.readings.extend(self.readings.iter().cloned());
    }
}

/// The pools of the scaler, while it acts on this node.
struct Pools(Arc<Shared>);

impl Feed for Pools {
    fn read(&mut self, _: Moment, sample: &mut Sample) {
        // Once it acts elsewhere, that node knows, and an alert of this one ends.
        let Some(picture) = self.0.picture.load_full() else { return };
        sample.expected.push(Signal::ScalerPoolSilent);
        for (pool, listed) in &picture.machines {
            let labels = Labels::from([("pool", pool.clone())]);
            say(sample, Signal::ScalerPoolSilent, labels, f64::from(u8::from(listed.is_err())));
        }
    }
}

/// What became of ticks on disk.
struct Disk {
    shared: Arc<Shared>,
    window: Window<u64>,
}

impl Feed for Disk {
    fn read(&mut self, at: Moment, sample: &mut Sample) {
        let Some(journal) = &self.shared.journal else { return };
        sample.expected.push(Signal::JournalFailures);
        let failed = journal.status().failed;
        if let Some(before) = self.window.turn(at.now, failed) {
            let of_late = failed.saturating_sub(*before);
            say(sample, Signal::JournalFailures, Labels::new(), of_late as f64);
        }
    }
}
