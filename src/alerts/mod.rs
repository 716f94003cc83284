//! A node's alerts: readings are taken on a timer, judged by `peregrine_actors::alerts`, kept for whoever asks, and
//! told to a webhook.
//!
//! Decides nothing: what is an alert is the engine's, when a receiver is tried again is the outbox's.

mod feeds;
mod loops;
mod payload;
mod prometheus;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use peregrine_actors::alerts::{
    Alert, AlertState, DeliveryCounts, Engine, Event, Happening, Moment, Reading, Rule, Sample, Signal,
};
use peregrine_runtime::Clock;

pub(crate) use feeds::{Feed, LostNode, LostNodes, of_node};
pub(crate) use loops::Loops;
pub(crate) use payload::Origin;
pub(crate) use prometheus::rules_file;
pub(crate) use webhook::Teller;
use webhook::{FILE_KEY, Target, target};

use crate::config::{AlertsConfig, Config};
use crate::reload::{Room, Staged};

/// What is wrong with the files that the configuration names, by key.
pub(crate) fn bad_files(config: &AlertsConfig) -> Option<(&'static str, String)> {
    target(config).err().map(|error| (FILE_KEY, error))
}

/// The alerts of this node.
pub(crate) struct Alerts {
    engine: Mutex<Engine>,
    every: Mutex<Duration>,
    latest: Mutex<Sample>,
    teller: Teller,
    evaluations: AtomicU64,
}

/// All alerts at one moment.
pub(crate) struct Picture {
    /// Pending and firing.
    pub(crate) active: Vec<Alert>,
    /// Ended, the latest first.
    pub(crate) ended: Vec<Alert>,
    pub(crate) rules: Vec<Arc<Rule>>,
    /// Alerts that there was no room for.
    pub(crate) overflowed: u64,
}

impl Picture {
    /// Alerts of a rule in a state.
    pub(crate) fn count(&self, rule: &Rule, state: AlertState) -> usize {
        self.active.iter().filter(|alert| alert.rule.name == rule.name && alert.state == state).count()
    }
}

impl Alerts {
    /// Nothing is known yet. Words that go wrong are for the operator.
    pub(crate) fn start(
        config: &AlertsConfig,
        origin: Origin,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Arc<Self>, String> {
        let target = target(config).map_err(|error| format!("{FILE_KEY}: {error}"))?;
        let teller = Teller::start(origin, target, clock, seed).map_err(|error| error.to_string())?;
        Ok(Arc::new(Self {
            engine: Mutex::new(Engine::new(config.rules.clone(), config.repeat_every)),
            every: Mutex::new(config.evaluate_every),
            latest: Mutex::new(Sample::default()),
            teller,
            evaluations: AtomicU64::new(0),
        }))
    }

    /// Judges one sample, and has people told.
    pub(crate) fn look(&self, sample: Sample, at: Moment) {
        let events = self.engine.lock().look(&sample, at);
        *self.latest.lock() = sample;
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.tell(events);
    }

    fn tell(&self, events: Vec<Event>) {
        for event in events {
            let Alert { rule, labels, value, .. } = &event.alert;
            let (name, severity) = (rule.name.as_str(), rule.severity.name());
            match event.what {
                Happening::Fired => {
                    tracing::warn!(rule = name, severity, ?labels, value, "alert fires: {}", rule.summary);
                }
                Happening::Resolved => tracing::info!(rule = name, severity, ?labels, "alert has ended"),
                Happening::Repeated => {}
            }
            self.teller.tell(event);
        }
    }

    pub(crate) fn picture(&self) -> Picture {
        let engine = self.engine.lock();
        Picture {
            active: engine.active().cloned().collect(),
            ended: engine.ended().cloned().collect(),
            rules: engine.rules().to_vec(),
            overflowed: engine.overflowed(),
        }
    }

    /// What was read last of some signal.
    pub(crate) fn latest(&self, signal: Signal) -> Vec<Reading> {
        let latest = self.latest.lock();
        latest.readings.iter().filter(|reading| reading.signal == signal).cloned().collect()
    }

    pub(crate) fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }

    /// What came of telling people, and how much is still to be told.
    pub(crate) fn deliveries(&self) -> (DeliveryCounts, usize) {
        self.teller.counts()
    }

    /// For how long nobody could be told; `None`: whoever was told last has taken it.
    pub(crate) fn untold_for(&self) -> Option<Duration> {
        self.teller.failing_for()
    }
}

/// Looks at the node again and again; ends with the thread that runs it.
pub(crate) async fn keep(alerts: Arc<Alerts>, mut feeds: Vec<Box<dyn Feed>>, clock: Arc<dyn Clock>) {
    loop {
        let at = Moment { now: clock.now(), wall: clock.wall() };
        let mut sample = Sample::default();
        feeds.iter_mut().for_each(|feed| feed.read(at, &mut sample));
        alerts.look(sample, at);
        let every = *alerts.every.lock();
        tokio::time::sleep(every).await;
    }
}

/// Which rules there are, and who is told.
pub(crate) struct AlertsRoom {
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Room for AlertsRoom {
    fn name(&self) -> &'static str {
        "alerts"
    }

    fn reads_files(&self) -> bool {
        true
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let target: Option<Target> = target(&next.alerts).map_err(|error| format!("{FILE_KEY}: {error}"))?;
        let (alerts, clock, next) = (Arc::clone(&self.alerts), Arc::clone(&self.clock), Arc::clone(next));
        Ok(Box::new(move || {
            let AlertsConfig { rules, repeat_every, evaluate_every, .. } = &next.alerts;
            *alerts.every.lock() = *evaluate_every;
            let is_other = alerts.teller.redirect(target);
            let at = Moment { now: clock.now(), wall: clock.wall() };
            let ended = alerts.engine.lock().replace(rules.clone(), *repeat_every, at);
            alerts.tell(ended);
            is_other
        }))
    }
}
