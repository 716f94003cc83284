//! What a node says of itself at one moment: what `/status`, `/metrics`, `/v1/cluster`, `/v1/breakers` and `/v1/alerts`
//! read too.

use std::collections::BTreeSet;
use std::sync::Arc;

use peregrine_actors::{DeviceMeter, DeviceStatus, Health, ModelCounts};
use peregrine_runtime::{ActorStatus, Outcome, TreeView};
use peregrine_scaler::fleet::MachineState;
use peregrine_shaders::Backend;

use crate::gateway::app::unix_millis;
use crate::gateway::stream::LagReader;
use crate::gateway::v1::breakers;
use crate::gateway::{Shared, alerts, cluster, health};
use crate::overview::{
    Actor, Cluster, Counters, Device, LastFailure, Machine, Model, Node, Overview, Requests, Scaler,
    ScalerGroup, Streams, clip,
};
use crate::scaler::Picture;

/// The actor above all others.
const ROOT: &str = "node";
/// The supervisor of what forecasts.
const SYSTEM: &str = "system";

/// What was counted so far, and what is so now.
pub(super) fn read(shared: &Shared) -> (Counters, Overview) {
    let health = shared.system.health();
    let mut counters = Counters {
        answered: shared.meter.served_finely(),
        failed: shared.meter.served().failed,
        ..Counters::default()
    };
    let overview = Overview {
        at: unix_millis(shared.clock.wall()),
        node: node(shared, &health),
        cluster: nodes(shared),
        requests: Requests { in_flight: shared.meter.in_flight() as u64, ..Requests::default() },
        models: models(shared, &mut counters),
        devices: devices(&health, &mut counters),
        breakers: shared.system.breakers().iter().map(breakers::view).collect(),
        actors: actors(shared, &health, &mut counters),
        streams: streams(shared, &mut counters),
        system: machine(&health),
        alerts: alerts::active(shared),
        scaler: shared.picture.load().as_deref().map(|picture| scaler(shared, picture)),
        history: None,
        cut: false,
    };
    (counters, overview)
}

fn node(shared: &Shared, health: &Health) -> Node {
    let config = shared.config();
    let drains = shared.told.is_draining();
    let mut reasons: Vec<String> = health.reasons.iter().map(|reason| clip(reason)).collect();
    reasons.extend(drains.then(|| health::TOLD_TO_DRAIN.to_owned()));
    Node {
        name: config.node.name.to_string(),
        region: config.node.region.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: shared.uptime().as_secs_f64(),
        ready: health.ready && !drains,
        reasons,
    }
}

fn nodes(shared: &Shared) -> Cluster {
    let config = shared.config();
    let part = config.cluster.as_ref();
    Cluster {
        name: part.map(|part| part.name.clone()),
        size: part.map_or(1, |part| part.size as u64),
        members: match &shared.cluster {
            Some(cluster) => cluster::members(cluster),
            None => vec![health::standing_alone(shared)],
        },
        lost: cluster::lost(shared),
    }
}

fn models(shared: &Shared, counters: &mut Counters) -> Vec<Model> {
    let key = |counts: ModelCounts| ((counts.model.clone(), counts.version.to_string()), counts);
    counters.models = shared.system.counts().into_iter().map(key).collect();
    let models = shared.system.models();
    let model = models.iter().map(|model| Model {
        name: model.spec.name.clone(),
        version: model.version.to_string(),
        family: model.spec.family.class().to_owned(),
        state: model.state.name().to_owned(),
        ..Model::default()
    });
    model.collect()
}

fn devices(health: &Health, counters: &mut Counters) -> Vec<Device> {
    let devices = health.devices.iter().map(|device| {
        let backend = device.backend.name().to_owned();
        counters.busy.insert((backend.clone(), device.index as u64), device.busy);
        let meter = meter_of(device, health);
        Device {
            name: device.name.clone(),
            backend,
            device: device.index as u64,
            state: health::state_name(&device.state).to_owned(),
            reason: health::reason(device).map(|reason| clip(&reason)),
            busy_share: None,
            queue_rows: device.queue_rows as u64,
            queue_requests: device.queue_requests as u64,
            utilisation: meter.and_then(|meter| meter.utilisation),
            memory_used_bytes: meter.and_then(|meter| meter.memory_used_bytes),
            memory_total_bytes: meter.and_then(|meter| meter.memory_total_bytes),
            temperature_celsius: meter.and_then(|meter| meter.temperature_celsius),
            power_watts: meter.and_then(|meter| meter.power_watts),
        }
    });
    devices.collect()
}

/// What a driver says of a device: the meter that is known to be of it, of its name, or the only one there is.
fn meter_of<'a>(device: &DeviceStatus, health: &'a Health) -> Option<&'a DeviceMeter> {
    if device.backend != Backend::Gpu {
        return None;
    }
    let known = |meter: &&DeviceMeter| meter.gpu == Some(device.index);
    let of_name = |meter: &&DeviceMeter| !meter.name.is_empty() && device.name.contains(&meter.name);
    health.meters.iter().find(known).or_else(|| health.meters.iter().find(of_name)).or(
        match health.meters.as_slice() {
            [only] => Some(only),
            _ => None,
        },
    )
}

/// The supervisors and what they look after, as one tree.
fn actors(shared: &Shared, health: &Health, counters: &mut Counters) -> Vec<Actor> {
    let mut tree = vec![supervisor(ROOT, None, None)];
    let system = shared.system.tree().view();
    branch(&mut tree, SYSTEM, system.outcome().as_ref(), &health.actors);
    for (name, view) in &shared.trees {
        branch(&mut tree, name, view.outcome().as_ref(), &view.snapshot());
    }
    let taken = |actor: &ActorStatus| (actor.name.to_string(), actor.taken);
    counters.taken = health.actors.iter().map(taken).collect();
    counters.taken.extend(
        shared
            .trees
            .iter()
            .flat_map(|(_, view): &(_, TreeView)| view.snapshot().iter().map(taken).collect::<Vec<_>>()),
    );
    tree
}

fn branch(tree: &mut Vec<Actor>, name: &str, ended: Option<&Outcome>, actors: &[ActorStatus]) {
    tree.push(supervisor(name, Some(ROOT), ended));
    let mut groups = BTreeSet::<Arc<str>>::new();
    for actor in actors {
        let mut parent = name;
        for group in &*actor.groups {
            if groups.insert(Arc::clone(group)) {
                tree.push(supervisor(group, Some(parent), ended));
            }
            parent = group;
        }
        tree.push(Actor {
            name: actor.name.to_string(),
            parent: Some(parent.to_owned()),
            state: health::actor_state(actor.state).to_owned(),
            mailbox_depth: Some(actor.depth as u64),
            messages_rate: None,
            restarts: actor.restarts,
            last_failure: actor.last_failure.as_ref().map(|last| LastFailure {
                at: unix_millis(last.at),
                failure: clip(&last.failure.to_string()),
            }),
        });
    }
}

/// It looks after others, and lives as long as they do.
fn supervisor(name: &str, parent: Option<&str>, ended: Option<&Outcome>) -> Actor {
    Actor {
        name: name.to_owned(),
        parent: parent.map(str::to_owned),
        state: if ended.is_some() { "stopped" } else { "running" }.to_owned(),
        ..Actor::default()
    }
}

fn streams(shared: &Shared, counters: &mut Counters) -> Streams {
    let stats = shared.stream.stats(LagReader::Overview);
    let series = shared.live.series.stats();
    (counters.messages, counters.bytes, counters.conflated) = (stats.messages, stats.bytes, stats.conflated);
    (counters.ticks, counters.predictions) = (series.acknowledged, series.predictions);
    Streams {
        subscribers: stats.subscribers.saturating_sub(shared.overviews.viewers()) as u64,
        lag_max: stats.lag_frames,
        ..Streams::default()
    }
}

fn machine(health: &Health) -> Machine {
    health.system.map_or_else(Machine::default, |vitals| Machine {
        cpu_share: Some(vitals.cpu_share),
        process_cpu_share: Some(vitals.process_cpu_share),
        memory_used_bytes: Some(vitals.memory_used_bytes),
        memory_total_bytes: Some(vitals.memory_total_bytes),
        process_bytes: Some(vitals.process_bytes),
    })
}

fn scaler(shared: &Shared, picture: &Picture) -> Scaler {
    let listed: Option<Vec<_>> = picture.machines.values().map(|listed| listed.as_ref().ok()).collect();
    let started = |group: &str| {
        let machines = listed.as_ref()?.iter().flat_map(|machines| machines.iter());
        let here =
            machines.filter(|machine| machine.slot.group == group && machine.state == MachineState::Started);
        Some(here.count() as u64)
    };
    let groups = picture.round.decisions.iter().map(|decision| ScalerGroup {
        name: decision.group.clone(),
        wanted: u64::from(decision.to),
        running: started(&decision.group),
        reason: clip(&decision.to_string()),
    });
    let fixed = picture.report.groups.iter().map(|group| {
        let most = group.savings.iter().max_by_key(|saving| saving.machines);
        most.map(|saving| saving.money)
    });
    Scaler {
        acting_on: shared.config().node.name.to_string(),
        groups: groups.collect(),
        cost_so_far: Some(picture.report.groups.iter().map(|group| group.money).sum()),
        cost_fixed: fixed.sum(),
        currency: None,
    }
}
