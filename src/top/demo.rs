//! A cluster of three regions that does not exist, with some life in it: to see what `peregrine top` is like without
//! one that does. A seed makes all of it.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::overview::{
    Actor, Cluster, Device, History, LastFailure, Machine, Model, Node, Overview, Requests, Scaler,
    ScalerGroup, Streams,
};

/// Seconds that have passed when somebody begins to look: a whole history.
const PAST_S: u64 = 900;
/// Name, region, requests per second, round trip to the first in milliseconds, by its graphics card.
const NODES: [(&str, &str, f64, f64, Option<&str>); 4] = [
    ("fra-1", "fra", 1900.0, 0.0, Some("NVIDIA L4")),
    ("fra-2", "fra", 1700.0, 0.4, Some("NVIDIA L4")),
    ("iad-1", "iad", 2600.0, 88.0, Some("NVIDIA H100 80GB HBM3")),
    ("nrt-1", "nrt", 800.0, 221.0, None),
];
/// Name, family, share of the requests, windows of a request.
const MODELS: [(&str, &str, f64, f64); 5] = [
    ("nbeats-ret-point", "NBEATS", 0.12, 1.0),
    ("nhits-vol-quantile", "NHITS", 0.46, 1.4),
    ("patchtst-rate-quantile", "PatchTST", 0.20, 2.0),
    ("tide-gk-exog", "TiDE", 0.17, 1.2),
    ("tsmixer-vol-point", "TSMixer", 0.05, 8.0),
];
/// Name, parent, messages for each request.
const ACTORS: [(&str, &str, f64); 13] = [
    ("system", "node", 0.0),
    ("router", "system", 0.002),
    ("breaker", "system", 0.04),
    ("inference-cpu", "system", 0.02),
    ("inference-gpu", "system", 0.31),
    ("meters", "system", 0.0005),
    ("health", "system", 0.0005),
    ("remote", "node", 0.0),
    ("remote-asks", "remote", 0.08),
    ("series", "node", 0.0),
    ("series-asks", "series", 0.22),
    ("overview", "node", 0.0),
    ("overview-asks", "overview", 0.001),
];

/// All of its nodes at one moment.
pub(crate) struct Demo {
    chance: SmallRng,
    start_ms: u64,
    seconds: u64,
    nodes: Vec<Sim>,
}

/// One node.
struct Sim {
    place: usize,
    /// Requests per second, and what one takes in milliseconds.
    rate: f64,
    took_ms: f64,
    /// Drifts about 1.
    mood: f64,
    ticks: f64,
    /// Until when its graphics card is gone, and until when it is on probation after that.
    down_until: u64,
    probed_until: u64,
    failures: u64,
    failed_at_ms: u64,
    history: History,
}

impl Sim {
    fn has_card(&self) -> bool {
        NODES[self.place].4.is_some()
    }

    fn is_down(&self, now: u64) -> bool {
        now < self.down_until
    }
}

impl Demo {
    /// A cluster that has been up for a while. `start`: since 1970.
    pub(crate) fn new(seed: u64, start: Duration) -> Self {
        let sim = |place| Sim {
            place,
            rate: 0.0,
            took_ms: 1.0,
            mood: 1.0,
            ticks: 0.0,
            down_until: 0,
            probed_until: 0,
            failures: 0,
            failed_at_ms: 0,
            history: History::default(),
        };
        let start_ms = u64::try_from(start.as_millis()).unwrap_or(u64::MAX / 2).saturating_sub(PAST_S * 1000);
        let nodes = (0..NODES.len()).map(sim).collect();
        let mut demo = Self { chance: SmallRng::seed_from_u64(seed), start_ms, seconds: 0, nodes };
        (0..PAST_S).for_each(|_| demo.step());
        demo
    }

    /// A second passes.
    pub(crate) fn step(&mut self) {
        self.seconds += 1;
        let (now, at_ms) = (self.seconds, self.at_ms());
        for sim in &mut self.nodes {
            let (_, _, base, _, _) = NODES[sim.place];
            let noise = self.chance.random_range(-0.08..0.08);
            sim.mood = (1.0 + 0.9 * (sim.mood - 1.0) + noise).clamp(0.4, 1.8);
            let day = (TAU * (now as f64 / 700.0 + sim.place as f64 / 5.0)).sin();
            sim.rate = base * (1.0 + 0.45 * day) * sim.mood;
            sim.ticks = sim.rate * 2.3 * self.chance.random_range(0.9..1.1);
            if sim.has_card() && now >= sim.probed_until && self.chance.random_bool(1.0 / 400.0) {
                sim.down_until = now + self.chance.random_range(15..45);
                sim.probed_until = sim.down_until + 5;
                sim.failures += 1;
                sim.failed_at_ms = at_ms;
            }
            let load = sim.rate / (base * 1.6);
            let slow = if sim.is_down(now) || !sim.has_card() { 3.5 } else { 1.0 };
            sim.took_ms = 0.9 * slow * (1.0 + 0.6 * load * load) * self.chance.random_range(0.95..1.08);
            if now.is_multiple_of(5) {
                let (requests, streams) = (requests(sim, now), streams(sim));
                sim.history.push(at_ms, &requests, &streams);
            }
        }
    }

    /// A node as it is now; one that does not exist is the first.
    pub(crate) fn overview(&self, node: Option<&str>) -> Overview {
        let is_meant = |sim: &&Sim| node == Some(NODES[sim.place].0);
        let sim = self.nodes.iter().find(is_meant).unwrap_or(&self.nodes[0]);
        let (name, region, ..) = NODES[sim.place];
        let now = self.seconds;
        let is_down = sim.is_down(now);
        let reasons = is_down.then(|| "gpu is down: the cpu answers".to_owned());
        let acts = sim.place == 2;
        Overview {
            at: self.at_ms(),
            node: Node {
                name: name.to_owned(),
                region: region.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_seconds: 190_000.0 + now as f64,
                ready: true,
                reasons: reasons.into_iter().collect(),
            },
            cluster: Cluster {
                name: Some("demo".to_owned()),
                size: NODES.len() as u64,
                members: self.nodes.iter().map(|other| member(other, sim, now)).collect(),
                lost: Vec::new(),
            },
            requests: requests(sim, now),
            models: MODELS.iter().map(|model| model_of(sim, *model, now)).collect(),
            devices: devices(sim, now),
            breakers: self.breakers(sim),
            actors: actors(sim, now),
            streams: streams(sim),
            system: Machine {
                cpu_share: Some((sim.rate / NODES[sim.place].2 * 0.31).min(1.0)),
                process_cpu_share: Some(sim.rate / NODES[sim.place].2 * 2.2),
                memory_used_bytes: Some(9 << 30),
                memory_total_bytes: Some(32 << 30),
                process_bytes: Some(840 << 20),
            },
            alerts: is_down.then(|| alert(sim)).into_iter().collect(),
            scaler: acts.then(|| self.scaler()),
            history: Some(sim.history.clone()),
            cut: false,
        }
    }

    fn at_ms(&self) -> u64 {
        self.start_ms + self.seconds * 1000
    }

    fn breakers(&self, sim: &Sim) -> Vec<Value> {
        let now = self.seconds;
        let (state, probe_ms) = match (sim.is_down(now), now < sim.probed_until) {
            (true, _) => ("open", Some((sim.down_until - now) * 1000)),
            (_, true) => ("half-open", None),
            _ => ("closed", None),
        };
        let breaker = |model: &str,
                       backend: &str,
                       state: &str,
                       failures: u64,
                       probe_ms: Option<u64>,
                       why: &str| {
            json!({
                "model": model, "version": 1, "backend": backend, "device": 0, "node": null, "mode": "auto", "state": state,
                "probe_in_ms": probe_ms, "failures": failures * 7, "transitions": failures * 3, "reason": why,
            })
        };
        let why = if sim.failures > 0 { "7 of 20 calls failed: the device was lost" } else { "" };
        let mut breakers: Vec<Value> = MODELS
            .iter()
            .flat_map(|(model, ..)| {
                let card = sim.has_card().then(|| breaker(model, "gpu", state, sim.failures, probe_ms, why));
                [Some(breaker(model, "cpu", "closed", 0, None, "")), card].into_iter().flatten()
            })
            .collect();
        let others = self.nodes.iter().filter(|other| other.place != sim.place);
        breakers.extend(others.map(|other| {
            json!({
                "model": null, "version": null, "backend": "remote", "device": null, "node": NODES[other.place].0, "mode": "auto",
                "state": "closed", "probe_in_ms": null, "failures": 0, "transitions": 0, "reason": "",
            })
        }));
        breakers
    }

    fn scaler(&self) -> Scaler {
        let hours = self.seconds as f64 / 3600.0;
        let asked: f64 = self.nodes.iter().map(|sim| sim.rate).sum();
        let wanted = (asked / 2500.0).ceil().max(1.0) as u64;
        let group = ScalerGroup {
            name: "gpu".to_owned(),
            wanted,
            running: Some(wanted.min(3)),
            reason: format!("{asked:.0} requests/s are asked, 2500 a machine"),
        };
        Scaler {
            acting_on: NODES[2].0.to_owned(),
            groups: vec![group],
            cost_so_far: Some(hours * 3.0 * 1.1),
            cost_fixed: Some(hours * 4.0 * 1.1),
            currency: None,
        }
    }
}

fn requests(sim: &Sim, now: u64) -> Requests {
    let took = sim.took_ms;
    Requests {
        rate: Some(sim.rate.round()),
        error_rate: Some(if sim.is_down(now) { (sim.rate * 0.0008).round() } else { 0.0 }),
        in_flight: (sim.rate * took / 1000.0).ceil() as u64,
        p50_ms: Some(took),
        p95_ms: Some(took * 1.9),
        p99_ms: Some(took * 2.7),
        p999_ms: Some(took * 4.4),
    }
}

fn streams(sim: &Sim) -> Streams {
    Streams {
        subscribers: 240 + 35 * sim.place as u64,
        lag_max: (sim.ticks / 700.0) as u64,
        messages_rate: Some((sim.ticks * 18.0).round()),
        bytes_rate: Some((sim.ticks * 18.0 * 310.0).round()),
        conflated_rate: Some((sim.ticks * 0.01).round()),
        ticks_rate: Some(sim.ticks.round()),
        predictions_rate: Some((sim.ticks * 0.98).round()),
    }
}

fn member(other: &Sim, sim: &Sim, now: u64) -> Value {
    let ((name, region, base, rtt, _), here) = (NODES[other.place], NODES[sim.place]);
    let is_here = other.place == sim.place;
    let models: serde_json::Map<String, Value> = (MODELS.iter())
        .map(|(model, ..)| ((*model).to_owned(), json!({ "versions": ["1"], "gpu": !other.is_down(now) })))
        .collect();
    let rtt_ms = (rtt - here.3).abs().max(0.3);
    let distance = if region == here.1 { "same_region" } else { "far" };
    json!({
        "node": name, "region": region, "here": is_here, "roles": ["gateway", "inference"],
        "version": env!("CARGO_PKG_VERSION"), "state": "active",
        "load": (other.rate / base * 0.5 * 1000.0).round() / 1000.0,
        "connected": true, "rtt_ms": (!is_here).then_some(rtt_ms), "distance": (!is_here).then_some(distance),
        "models": models,
    })
}

fn model_of(sim: &Sim, (name, family, share, rows): (&str, &str, f64, f64), now: u64) -> Model {
    let rate = sim.rate * share;
    let took = sim.took_ms * (0.8 + rows / 8.0);
    Model {
        name: name.to_owned(),
        version: "1".to_owned(),
        family: family.to_owned(),
        state: "ready".to_owned(),
        rate: Some(rate.round()),
        rows_rate: Some((rate * rows).round()),
        failed_rate: Some(if sim.is_down(now) { (rate * 0.0008).ceil() } else { 0.0 }),
        p50_ms: Some(took),
        p95_ms: Some(took * 1.8),
        p99_ms: Some(took * 2.6),
        queue_p99_ms: Some(took * 1.5),
        compute_p99_ms: Some(took * 1.1),
        batch_rows_mean: Some((rate * rows * took / 1000.0 * 2.0).max(1.0)),
    }
}

fn devices(sim: &Sim, now: u64) -> Vec<Device> {
    let is_down = sim.is_down(now);
    let load = sim.rate / (NODES[sim.place].2 * 1.6);
    let cpu = Device {
        name: "16 threads".to_owned(),
        backend: "cpu".to_owned(),
        state: "up".to_owned(),
        busy_share: Some(if is_down || !sim.has_card() { load.min(1.0) } else { 0.02 }),
        ..Device::default()
    };
    let card = NODES[sim.place].4.map(|name| Device {
        name: name.to_owned(),
        backend: "gpu".to_owned(),
        device: 0,
        state: if is_down { "down" } else { "up" }.to_owned(),
        reason: is_down.then(|| "the device was lost".to_owned()),
        busy_share: Some(if is_down { 0.0 } else { load.min(1.0) }),
        queue_rows: if is_down { 0 } else { (load * 40.0) as u64 },
        queue_requests: if is_down { 0 } else { (load * 26.0) as u64 },
        utilisation: Some(if is_down { 0.0 } else { (load * 1.05).min(1.0) }),
        memory_used_bytes: Some(5 << 30),
        memory_total_bytes: Some(if sim.place == 2 { 80 << 30 } else { 24 << 30 }),
        temperature_celsius: Some((41.0 + load * 30.0).round()),
        power_watts: Some((60.0 + load * if sim.place == 2 { 420.0 } else { 14.0 }).round()),
    });
    [Some(cpu), card].into_iter().flatten().collect()
}

fn actors(sim: &Sim, now: u64) -> Vec<Actor> {
    let root = Actor { name: "node".to_owned(), state: "running".to_owned(), ..Actor::default() };
    let below = ACTORS.iter().filter(|(name, ..)| sim.has_card() || *name != "inference-gpu");
    let below = below.map(|(name, parent, messages)| {
        let looks_after_others = *messages == 0.0;
        let is_card = *name == "inference-gpu";
        let rate = if is_card && sim.is_down(now) { 0.0 } else { sim.rate * messages };
        let failure = LastFailure { at: sim.failed_at_ms, failure: "failed: the device was lost".to_owned() };
        Actor {
            name: (*name).to_owned(),
            parent: Some((*parent).to_owned()),
            state: if is_card && sim.is_down(now) { "waiting" } else { "running" }.to_owned(),
            mailbox_depth: (!looks_after_others).then_some((rate / 180.0) as u64),
            messages_rate: (!looks_after_others).then_some((rate * 10.0).round() / 10.0),
            restarts: if is_card { sim.failures } else { 0 },
            last_failure: (is_card && sim.failures > 0).then_some(failure),
        }
    });
    std::iter::once(root).chain(below).collect()
}

fn alert(sim: &Sim) -> Value {
    json!({
        "rule": "breaker-open", "severity": "warning", "state": "firing", "value": 2.0,
        "summary": "a breaker is open: the device behind it fails",
        "labels": { "backend": "gpu", "model": MODELS[1].0, "node": NODES[sim.place].0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_795_000_000);

    #[test]
    fn a_seed_is_a_cluster() {
        let of = |seed| {
            let mut demo = Demo::new(seed, START);
            (0..20).for_each(|_| demo.step());
            demo.overview(Some("iad-1"))
        };
        assert_eq!(of(3), of(3));
        assert_ne!(of(3).requests, of(4).requests);
    }

    #[test]
    fn every_node_is_whole_and_something_happens() {
        let mut demo = Demo::new(1, START);
        let (mut rates, mut alerts, mut restarts) = (Vec::new(), 0, 0);
        for _ in 0..1200 {
            demo.step();
            let seen = demo.overview(None);
            rates.push(seen.requests.rate.unwrap_or_default());
            alerts += seen.alerts.len();
            restarts = restarts.max(seen.actors.iter().map(|actor| actor.restarts).max().unwrap_or(0));
        }
        let (least, most) =
            rates.iter().fold((f64::MAX, 0.0_f64), |(a, b), rate| (a.min(*rate), b.max(*rate)));
        assert!(most > 1.5 * least && least > 0.0, "{least} to {most}");
        assert!(alerts > 0 && restarts > 0, "{alerts} {restarts}");
        for (name, ..) in NODES {
            let seen = demo.overview(Some(name));
            assert_eq!((seen.node.name.as_str(), seen.cluster.members.len()), (name, NODES.len()));
            let history = seen.history.expect("a history");
            assert_eq!((history.at.len(), history.rate.len()), (180, 180));
            let text = serde_json::to_vec(&seen.actors).unwrap();
            assert!(!text.is_empty() && seen.scaler.is_some() == (name == "iad-1"));
        }
    }
}
