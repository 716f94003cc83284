//! Tells a webhook what has happened, on a thread of its own: one event at a time, in order, each until it is taken.
//!
//! An attempt has a deadline, from the look-up of the name to the status of the answer. The URL may hold a secret: no
//! log line repeats it, nor what a failed attempt says in its own words.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use peregrine_actors::alerts::{DeliveryCounts, DeliveryLimits, Event, Failure, Outbox, Step};
use peregrine_runtime::Clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::payload::{self, Origin};
use crate::config::{AlertsConfig, Secret, Webhook, is_http_url};
use crate::outbound;

/// Which file holds a URL.
pub(super) const FILE_KEY: &str = "alerts.webhook_file";
/// Of that file.
const FILE_BYTES_MAX: u64 = 4096;
/// Of the head of an answer; its body is not read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Who is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    url: Secret,
    within: Duration,
}

/// Who is told by this configuration; `None`: nobody. Reads a file, of which [`FILE_KEY`] is the key.
pub(super) fn target(config: &AlertsConfig) -> Result<Option<Target>, String> {
    let url = match &config.webhook {
        Webhook::None => return Ok(None),
        Webhook::Url(url) => url.clone(),
        Webhook::File(file) => {
            let mut text = String::new();
            let read = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX).read_to_string(&mut text));
            read.map_err(|error| format!("{}: {error}", file.display()))?;
            let url = text.trim();
            if !is_http_url(url) {
                return Err(format!("{} holds no URL", file.display()));
            }
            Secret::from(url.to_owned())
        }
    };
    Ok(Some(Target { url, within: config.webhook_timeout }))
}

/// Hands events to the thread that tells them. Dropped, the thread ends after the attempt that it is at.
pub(crate) struct Teller {
    shared: Arc<Channel>,
}

struct Channel {
    state: Mutex<State>,
    changed: Condvar,
    origin: Origin,
    clock: Arc<dyn Clock>,
}

struct State {
    outbox: Outbox,
    target: Option<Target>,
    has_ended: bool,
}

impl Teller {
    pub(super) fn start(
        origin: Origin,
        target: Option<Target>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> io::Result<Self> {
        let state = State { outbox: Outbox::new(DeliveryLimits::default()), target, has_ended: false };
        let shared = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new(), origin, clock });
        let channel = Arc::clone(&shared);
        thread::Builder::new().name("alerts-webhook".to_owned()).spawn(move || channel.run(seed))?;
        Ok(Self { shared })
    }

    /// To be told, if there is anybody to tell.
    pub(super) fn tell(&self, event: Event) {
        let mut state = self.shared.state.lock();
        if state.target.is_some() {
            state.outbox.push(event);
            self.shared.changed.notify_all();
        }
    }

    /// Somebody else is told from now on, also what still waits. `false`: it is the same as before.
    pub(super) fn redirect(&self, target: Option<Target>) -> bool {
        let mut state = self.shared.state.lock();
        if state.target == target {
            return false;
        }
        match target {
            Some(_) => state.outbox.redirect(),
            None => state.outbox.clear(),
        }
        state.target = target;
        self.shared.changed.notify_all();
        true
    }

    pub(super) fn counts(&self) -> (DeliveryCounts, usize) {
        let state = self.shared.state.lock();
        (state.outbox.counts(), state.outbox.waiting())
    }

    /// For how long the receiver has taken nothing, though it was told.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        let since = self.shared.state.lock().outbox.failing_since()?;
        Some(self.shared.clock.now().saturating_duration_since(since))
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.shared.state.lock().has_ended = true;
        self.shared.changed.notify_all();
    }
}

impl Channel {
    fn run(&self, seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut agent: Option<(Target, ureq::Agent)> = None;
        while let Some((event, target)) = self.next() {
            let (_, agent) = match agent.take() {
                Some(known) if known.0 == target => agent.insert(known),
                _ => agent.insert((target.clone(), outbound::agent(ANSWER_BYTES_MAX, Some(target.within)))),
            };
            let outcome = self.attempt(agent, &target, &event);
            let mut state = self.state.lock();
            match outcome {
                Ok(()) => state.outbox.delivered(),
                Err((how, why)) => {
                    let refused = state.outbox.counts().refused;
                    state.outbox.failed(how, self.clock.now(), chance.random());
                    let rule = event.alert.rule.name.as_str();
                    let again = state.outbox.counts().refused == refused;
                    tracing::warn!(rule, why, again, "alert not delivered");
                }
            }
        }
    }

    /// Waits until there is something to tell; `None`: it is over.
    fn next(&self) -> Option<(Event, Target)> {
        let mut state = self.state.lock();
        loop {
            if state.has_ended {
                return None;
            }
            let now = self.clock.now();
            let State { outbox, target, .. } = &mut *state;
            match (target, outbox.next(now)) {
                (Some(target), Step::Send(event)) => return Some((event.clone(), target.clone())),
                (_, Step::Wait(until)) => {
                    let patience = until.saturating_duration_since(now);
                    self.changed.wait_for(&mut state, patience);
                }
                _ => self.changed.wait(&mut state),
            }
        }
    }

    fn attempt(&self, agent: &ureq::Agent, target: &Target, event: &Event) -> Result<(), (Failure, String)> {
        let body = payload::body(&self.origin, event).to_string();
        let answer = agent
            .post(target.url.expose())
            .content_type("application/json")
            .header("idempotency-key", payload::id(&self.origin, event))
            .send(body.as_bytes());
        match answer {
            Ok(answer) => judge(answer.status().as_u16()),
            Err(error) => Err((Failure::Passing, outbound::word(&error).to_owned())),
        }
    }
}

/// What a status says of the next try.
fn judge(status: u16) -> Result<(), (Failure, String)> {
    match status {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err((Failure::Passing, format!("answered {status}"))),
        // A redirect too: whoever is named in it was not named by the operator.
        _ => Err((Failure::Refused, format!("answered {status}"))),
    }
}
