//! How machines come to be, change and go: `states.transitions` of the notes, with delays drawn by seed.

use std::collections::VecDeque;
use std::time::Duration;

use peregrine_fly::machines::HttpResponse;
use peregrine_scaler::Timestamp;
use serde_json::{Value, json};

use super::answers::{done, fails, fails_with, succeeds};
use super::faults::Fault;
use super::machine::{FakeMachine, Lease, Step};
use super::{Fake, What, guests};

// `mock_delays_ms_realistic`.
const CREATE_MS: [u64; 2] = [1500, 8000];
const START_MS: [u64; 2] = [800, 1600];
const RESUME_MS: [u64; 2] = [150, 600];
const STOP_MS: [u64; 2] = [300, 1500];
const UPDATE_MS: [u64; 2] = [3000, 12000];
/// Largest memory that is suspended, in MiB.
const SUSPEND_MEMORY_MAX: u64 = 2048;

impl Fake {
    /// What is due becomes so.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let is_due = |machine: &&FakeMachine| {
            machine.next.front().is_some_and(|step| step.at <= now)
                || machine.unreachable.is_some_and(|(until, _)| until <= now)
        };
        let due: Vec<String> = self.machines.values().filter(is_due).map(|m| m.id.clone()).collect();
        for id in due {
            self.advance_one(&id, now);
        }
        let forgets_after = self.settings.forgets_after;
        self.machines.retain(|_, machine| {
            let is_old = |at: Timestamp| at.checked_add(forgets_after).is_ok_and(|until| until < now);
            !machine.gone_at.is_some_and(is_old)
        });
    }

    fn advance_one(&mut self, id: &str, now: Timestamp) {
        let machine = self.machines.get_mut(id).expect("it was just there");
        machine.unreachable.take_if(|(until, _)| *until <= now);
        while let Some(step) =
            self.machines.get_mut(id).and_then(|m| m.next.pop_front_if(|step| step.at <= now))
        {
            let ulid = self.ulid(step.at);
            let machine = self.machines.get_mut(id).expect("it was just there");
            machine.state = step.state;
            machine.note(step.at, ulid, step.event, "flyd", step.request);
            machine.up_since = (step.state == "started").then_some(step.at);
            if step.state == "destroyed" {
                machine.gone_at = Some(step.at);
            }
            self.note(step.at, id, What::Became(step.state));
        }
    }

    /// What an injected fault makes of a change: slower, stuck or failed.
    fn change(&mut self, now: Timestamp, id: &str, steps: &[(&'static str, &'static str, Duration)]) {
        let mut steps = steps.to_vec();
        match self.twist.take() {
            Some(Fault::Slow(times)) => steps.iter_mut().for_each(|step| step.2 *= times),
            Some(Fault::Stuck) => steps[0].2 += self.settings.stuck_for,
            Some(Fault::LaunchFails) => {
                let last = steps.len() - 1;
                steps[last].0 = "failed";
            }
            twist => self.twist = twist,
        }
        self.machines.get_mut(id).expect("it was just there").then(now, &steps);
    }

    /// Begins a change at once: this state, this event.
    fn begin(&mut self, now: Timestamp, id: &str, state: &'static str, event: &str) {
        let ulid = self.ulid(now);
        let machine = self.machines.get_mut(id).expect("it was just there");
        machine.state = state;
        machine.up_since = None;
        machine.note(now, ulid, event, "user", Value::Null);
        self.note(now, id, What::Became(state));
    }

    pub(super) fn create(&mut self, now: Timestamp, body: &Value) -> HttpResponse {
        let config = body.get("config").cloned().unwrap_or(Value::Null);
        if let Some(refusal) = guests::refusal_of_config(&config) {
            return refusal;
        }
        if body["min_secrets_version"].as_u64().is_some_and(|wanted| wanted > self.settings.secrets_version) {
            return fails(412, "min_secrets_version not met");
        }
        let name = match body["name"].as_str() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => format!("generated-{}", self.hex(6)),
        };
        if let Some(other) = self.named(&name) {
            let text = format!(
                "already_exists: unique machine name violation, machine ID {} already exists with name \"{name}\"",
                other.id
            );
            return fails(409, &text);
        }
        let is_launched = body["skip_launch"] != true;
        let regions = guests::regions(body["region"].as_str().unwrap_or("iad"));
        let Some(region) = regions.into_iter().find(|region| self.room(region) != Some(0)) else {
            // Both are seen for a region that is full.
            return if self.happens(0.5) {
                fails_with(422, "insufficient_capacity", "could not find a candidate host")
            } else {
                fails(409, "aborted: no capacity")
            };
        };
        let late = match self.twist {
            Some(Fault::Late(after)) => Some(after),
            _ => None,
        };
        let id = self.insert(now, name, region, config, body);
        let half = self.millis(CREATE_MS) / 2;
        if is_launched {
            self.change(now, &id, &[("starting", "launch", half), ("started", "start", half)]);
        } else {
            self.change(now, &id, &[("created", "launch", half)]);
            if let Some(Fault::Unsettled(for_so_long)) = self.twist.take() {
                let machine = self.machines.get_mut(&id).expect("just made");
                machine.settled_at = now.checked_add(half + for_so_long).expect("a time");
            }
        }
        let machine = self.machines.get_mut(&id).expect("just made");
        if let Some(after) = late {
            machine.shown_from = now.checked_add(after).expect("a time");
            return fails(408, "timeout");
        }
        let mut shown = machine.shown(now, true);
        if let Some(lease) = machine.lease(now) {
            shown["nonce"] = json!(lease.nonce);
        }
        succeeds(200, &shown)
    }

    fn insert(&mut self, now: Timestamp, name: String, region: &str, config: Value, body: &Value) -> String {
        let id = self.hex(14);
        let instance_id = self.ulid(now);
        let lease = body["lease_ttl"].as_i64().filter(|ttl| *ttl > 0).map(|ttl| Lease {
            nonce: self.hex(12),
            expires_at: now.as_second() + ttl,
            description: String::new(),
        });
        let machine = FakeMachine {
            name,
            region: region.to_owned(),
            state: "creating",
            instance_id: instance_id.clone(),
            private_ip: format!("fdaa:0:1:a7b::{}", self.hex(4)),
            created_at: now,
            updated_at: now,
            cordoned_at: (body["skip_service_registration"] == true).then_some(now),
            lease,
            events: VecDeque::new(),
            versions: vec![(instance_id, config.clone())],
            config,
            next: VecDeque::new(),
            unreachable: None,
            shown_from: now,
            settled_at: now,
            gone_at: None,
            restarts: 0,
            up_since: None,
            id: id.clone(),
        };
        self.machines.insert(id.clone(), machine);
        self.note(now, &id, What::Created);
        id
    }

    pub(super) fn start(&mut self, now: Timestamp, id: &str) -> HttpResponse {
        let machine = &self.machines[id];
        let (state, region) = (machine.state, machine.region.clone());
        let is_unsettled = state == "created" && machine.settled_at > now;
        let delay = match state {
            "started" | "starting" => {
                return succeeds(200, &json!({ "previous_state": state, "migrated": false }));
            }
            "created" | "stopped" | "suspended" | "failed" | "launch_failed" if !is_unsettled => {
                self.millis(if state == "suspended" { RESUME_MS } else { START_MS })
            }
            _ => return fails(412, &format!("unable to start machine from current state: '{state}'")),
        };
        if self.room(&region) == Some(0) {
            let text = "aborted: could not reserve resource for machine: insufficient memory available to fulfill request \
                        on the current host";
            return fails(409, text);
        }
        let moves = matches!(self.twist, Some(Fault::Moves)) || self.happens(self.settings.moves_share);
        let address = format!("fdaa:0:1:a7b::{}", self.hex(4));
        let machine = self.machines.get_mut(id).expect("it is there");
        machine.restarts = 0;
        if moves {
            machine.private_ip = address;
        }
        self.begin(now, id, "starting", if state == "suspended" { "resume" } else { "start" });
        self.change(now, id, &[("started", "start", delay)]);
        succeeds(200, &json!({ "previous_state": state, "migrated": moves }))
    }

    pub(super) fn stop(&mut self, now: Timestamp, id: &str, timeout: Option<Duration>) -> HttpResponse {
        let machine = &self.machines[id];
        let (state, cordoned_at, up_since) = (machine.state, machine.cordoned_at, machine.up_since);
        self.note(now, id, What::StopAsked { up_since, cordoned_at, timeout });
        match state {
            "stopped" | "stopping" | "created" => done(),
            "started" | "starting" | "suspended" => {
                let delay = self.millis(STOP_MS);
                // open: one that is still starting is stopped as well.
                self.begin(now, id, "stopping", "stop");
                self.change(now, id, &[("stopped", "exit", delay)]);
                let exit =
                    json!({ "exit_event": { "exit_code": 0, "requested_stop": true, "restarting": false } });
                if let Some(step) = self.machines.get_mut(id).and_then(|machine| machine.next.back_mut()) {
                    step.request = exit;
                }
                done()
            }
            _ => fails(412, &format!("unable to stop machine from current state: '{state}'")),
        }
    }

    pub(super) fn suspend(&mut self, now: Timestamp, id: &str) -> HttpResponse {
        let machine = &self.machines[id];
        let state = machine.state;
        let is_small = machine.config["guest"]["memory_mb"].as_u64().unwrap_or(256) <= SUSPEND_MEMORY_MAX;
        match state {
            "suspended" => done(),
            "started" => {
                let delay = self.millis(STOP_MS);
                let becomes = if is_small { "suspended" } else { "stopped" };
                self.begin(now, id, "suspending", "suspend");
                self.change(now, id, &[(becomes, "suspend", delay)]);
                done()
            }
            _ => fails(412, &format!("unable to suspend machine from current state: '{state}'")),
        }
    }

    pub(super) fn restart(&mut self, now: Timestamp, id: &str) -> HttpResponse {
        match self.machines[id].state {
            "started" => {
                let delay = self.millis(START_MS);
                self.begin(now, id, "restarting", "restart");
                self.change(now, id, &[("started", "start", delay)]);
                done()
            }
            state => fails(412, &format!("unable to restart machine from current state: '{state}'")),
        }
    }

    pub(super) fn destroy(&mut self, now: Timestamp, id: &str, by_force: bool) -> HttpResponse {
        let state = self.machines[id].state;
        self.note(now, id, What::DestroyAsked { state, by_force });
        match state {
            "stopped" | "suspended" | "created" | "failed" | "launch_failed" => {
                let delay = self.millis(STOP_MS);
                self.begin(now, id, "destroying", "destroy");
                self.change(now, id, &[("destroyed", "destroy", delay)]);
                done()
            }
            "destroying" => done(),
            _ if by_force || !self.settings.destroy_needs_stop => {
                let delay = self.millis(STOP_MS);
                self.begin(now, id, "stopping", "stop");
                self.change(now, id, &[("destroying", "destroy", delay), ("destroyed", "destroy", delay)]);
                done()
            }
            state => fails(412, &format!("unable to destroy machine from current state: '{state}'")),
        }
    }

    pub(super) fn update(&mut self, now: Timestamp, id: &str, body: &Value) -> HttpResponse {
        let config = body.get("config").cloned().unwrap_or(Value::Null);
        if let Some(refusal) = guests::refusal_of_config(&config) {
            return refusal;
        }
        let machine = &self.machines[id];
        let state = machine.state;
        if body["current_version"].as_str().is_some_and(|version| version != machine.instance_id) {
            return fails(412, "current_version does not match the machine's version");
        }
        if body["min_secrets_version"].as_u64().is_some_and(|wanted| wanted > self.settings.secrets_version) {
            return fails(412, "min_secrets_version not met");
        }
        let half = self.millis(UPDATE_MS) / 2;
        let steps: &[(&'static str, &'static str, Duration)] = match state {
            "started" => &[("starting", "update", half), ("started", "start", half)],
            "stopped" => &[("stopped", "update", half)],
            "created" => &[("created", "update", half)],
            _ => return fails(409, "aborted: machine update failed due to concurrent update"),
        };
        let version = self.ulid(now);
        let machine = self.machines.get_mut(id).expect("it is there");
        machine.instance_id.clone_from(&version);
        machine.config = config.clone();
        machine.versions.push((version, config));
        self.begin(now, id, "replacing", "update");
        self.change(now, id, steps);
        succeeds(200, &self.machines[id].shown(now, false))
    }

    /// Its process ends by itself: restarted in place by its policy, up to its number of retries, then stopped.
    pub(crate) fn crash(&mut self, now: Timestamp, id: &str, exit_code: i32) {
        self.advance(now);
        let pause = self.millis(START_MS);
        let machine = self.machines.get_mut(id).expect("the test knows it");
        assert_eq!(machine.state, "started", "only what runs can fall over");
        let restart = &machine.config["restart"];
        let retries = restart["max_retries"].as_u64().unwrap_or(10);
        let policy = restart["policy"].as_str().unwrap_or("always");
        let restarts = policy == "always" || (policy == "on-failure" && exit_code != 0);
        let restarting = restarts && machine.restarts < retries;
        machine.restarts += 1;
        machine.up_since = None;
        let exit = json!({ "exit_event": { "exit_code": exit_code, "requested_stop": false, "restarting": restarting },
            "restart_count": machine.restarts });
        let state = if restarting { "started" } else { "stopped" };
        // The event comes first: for a moment it is said to run though it does not.
        let at = now.checked_add(pause).expect("a time");
        let event = if restarting { "start" } else { "stop" };
        machine.next = VecDeque::from([Step { at, state, event, request: Value::Null }]);
        let ulid = self.ulid(now);
        self.machines.get_mut(id).expect("it is there").note(now, ulid, "exit", "flyd", exit);
    }

    /// The host of a machine cannot be reached for a time.
    pub(crate) fn lose_host(&mut self, now: Timestamp, id: &str, for_so_long: Duration) {
        self.advance(now);
        let machine = self.machines.get_mut(id).expect("the test knows it");
        machine.unreachable = Some((now.checked_add(for_so_long).expect("a time"), machine.state));
    }
}
