//! The endpoints of one machine.

use std::time::Duration;

use peregrine_fly::machines::lenient::GoDuration;
use peregrine_fly::machines::{HttpRequest, HttpResponse, Method};
use peregrine_scaler::Timestamp;
use serde_json::{Value, json};

use super::answers::{done, empty, fails, held, succeeds};
use super::machine::Lease;
use super::routes::Route;
use super::{Fake, ORG, What};

/// States that can be waited for.
const WAITED: [&str; 6] = ["started", "stopped", "suspended", "destroyed", "failed", "settled"];
const PERSISTENT: [&str; 6] = ["created", "started", "stopped", "suspended", "failed", "destroyed"];

impl Fake {
    pub(super) fn of_machine(
        &mut self,
        now: Timestamp,
        request: &HttpRequest,
        route: &Route,
        id: &str,
        body: Option<Value>,
    ) -> HttpResponse {
        let machine = &self.machines[id];
        let is_read = request.method == Method::Get;
        if machine.is_gone() && !is_read && route.action != "start" {
            return fails(404, "machine not found");
        }
        if !machine.is_reachable() && !is_read && !route.action.starts_with("lease") {
            // open: what is answered for a host that cannot be reached.
            return fails(503, "host is unreachable");
        }
        let nonce = request.header("fly-machine-lease-nonce");
        if let Some(lease) =
            machine.lease(now).filter(|lease| route.is_guarded && nonce != Some(&lease.nonce))
        {
            return held(ORG, lease.expires_at);
        }
        let body = match (route.action, body) {
            ("update" | "metadata_set", None) if request.method != Method::Delete => {
                return fails(400, "EOF");
            }
            (_, body) => body.unwrap_or(Value::Null),
        };
        match route.action {
            "get" => succeeds(200, &machine.shown(now, query(request, "include_leases") == Some("true"))),
            "update" => self.update(now, id, &body),
            "destroy" => {
                // The documentation says force, the platform's own client kill.
                let by_force = ["force", "kill"].iter().any(|name| query(request, name) == Some("true"));
                self.destroy(now, id, by_force)
            }
            "start" => self.start(now, id),
            "stop" => match duration(&body["timeout"]) {
                Ok(timeout) => self.stop(now, id, timeout),
                Err(refusal) => refusal,
            },
            "suspend" => self.suspend(now, id),
            "restart" => self.restart(now, id),
            "signal" => signal(&body["signal"]),
            "cordon" | "uncordon" => self.cordon(now, id, route.action == "cordon"),
            "wait" => self.wait(request, id),
            "lease_get" => match machine.lease(now) {
                Some(lease) => succeeds(200, &machine.envelope(lease, nonce == Some(&lease.nonce))),
                None => fails(404, "lease not found"),
            },
            "lease" => self.lease(now, id, nonce, &body, query(request, "ttl")),
            "lease_release" => self.release(now, id, nonce),
            "metadata_get" | "metadata_set" => self.metadata(request, id, route.key.as_deref(), &body),
            "events" => {
                let limit = query(request, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
                let events: Vec<&Value> = machine.events.iter().take(limit).collect();
                succeeds(200, &json!(events))
            }
            "versions" => {
                let version = |(version, config): &(String, Value)| json!({ "version": version, "user_config": config });
                succeeds(200, &Value::Array(machine.versions.iter().map(version).collect()))
            }
            _ => fails(405, "method not allowed"),
        }
    }

    fn cordon(&mut self, now: Timestamp, id: &str, is_cordoned: bool) -> HttpResponse {
        let machine = self.machines.get_mut(id).expect("it is there");
        machine.cordoned_at = is_cordoned.then_some(machine.cordoned_at.unwrap_or(now));
        self.note(now, id, if is_cordoned { What::Cordoned } else { What::Uncordoned });
        done()
    }

    /// Says at once what would be so in the end only if it is so already: time is virtual here.
    fn wait(&self, request: &HttpRequest, id: &str) -> HttpResponse {
        let states: Vec<&str> = request
            .query
            .iter()
            .filter(|(name, _)| name == "state")
            .flat_map(|(_, value)| value.split(','))
            .collect();
        let states = if states.is_empty() { vec!["started"] } else { states };
        let seconds = query(request, "timeout").map_or(Some(60), |text| text.parse::<u32>().ok());
        let is_known = states.iter().all(|state| WAITED.contains(state));
        if !is_known || seconds.is_none_or(|seconds| !(1..=60).contains(&seconds)) {
            return fails(400, "invalid wait");
        }
        let machine = &self.machines[id];
        let version = query(request, "version").or_else(|| query(request, "instance_id"));
        let is_this = version.is_none_or(|version| version == machine.instance_id);
        let is_reached = |state: &str| {
            state == machine.state || (state == "settled" && PERSISTENT.contains(&machine.state))
        };
        if is_this && states.iter().any(|state| is_reached(state)) {
            succeeds(200, &json!({ "ok": true, "state": machine.state, "version": machine.instance_id }))
        } else {
            fails(408, "deadline_exceeded: machine failed to reach desired state")
        }
    }

    fn lease(
        &mut self,
        now: Timestamp,
        id: &str,
        nonce: Option<&str>,
        body: &Value,
        ttl: Option<&str>,
    ) -> HttpResponse {
        let ttl = body["ttl"].as_i64().or_else(|| ttl.and_then(|ttl| ttl.parse().ok())).unwrap_or(13);
        let fresh = self.hex(12);
        let machine = self.machines.get_mut(id).expect("it is there");
        let nonce = match (machine.lease(now), nonce) {
            (Some(lease), Some(nonce)) if lease.nonce == nonce => nonce.to_owned(),
            (Some(lease), _) => return held(ORG, lease.expires_at),
            // open: what a renewal of a lease that has run out is answered.
            (None, Some(_)) => return fails(404, "lease not found"),
            (None, None) => fresh,
        };
        let description = body["description"].as_str().unwrap_or_default().to_owned();
        let lease = Lease { nonce, expires_at: now.as_second() + ttl.max(1), description };
        machine.lease = Some(lease.clone());
        succeeds(201, &machine.envelope(&lease, true))
    }

    fn release(&mut self, now: Timestamp, id: &str, nonce: Option<&str>) -> HttpResponse {
        let machine = self.machines.get_mut(id).expect("it is there");
        match machine.lease(now) {
            None => fails(404, "lease not found"),
            Some(lease) if nonce != Some(&lease.nonce) => held(ORG, lease.expires_at),
            Some(_) => {
                machine.lease = None;
                succeeds(200, &json!({ "status": "success", "data": { "ok": true } }))
            }
        }
    }

    /// Words about a machine: no restart, no new version.
    fn metadata(&mut self, request: &HttpRequest, id: &str, key: Option<&str>, body: &Value) -> HttpResponse {
        let machine = self.machines.get_mut(id).expect("it is there");
        if body["machine_version"].as_str().is_some_and(|version| version != machine.instance_id) {
            return fails(412, "machine_version does not match");
        }
        let words = &mut machine.config["metadata"];
        if !words.is_object() {
            *words = json!({});
        }
        let words = words.as_object_mut().expect("it was made one");
        match (request.method, key) {
            (Method::Get, None) => return succeeds(200, &json!(words)),
            (Method::Get, Some(key)) => {
                return match words.get(key) {
                    Some(value) => succeeds(200, &json!({ "value": value })),
                    None => fails(404, "metadata not found"),
                };
            }
            (Method::Post, Some(key)) => {
                words.insert(key.to_owned(), body["value"].clone());
            }
            (Method::Delete, Some(key)) => {
                words.remove(key);
            }
            (Method::Put | Method::Patch, None) => {
                if request.method == Method::Put {
                    words.clear();
                }
                for (key, value) in body["metadata"].as_object().cloned().unwrap_or_default() {
                    if value.is_null() {
                        words.remove(&key);
                    } else {
                        words.insert(key, value);
                    }
                }
            }
            _ => return fails(405, "method not allowed"),
        }
        empty(204)
    }
}

fn query<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// `accept signal as string or int`.
fn signal(value: &Value) -> HttpResponse {
    match value {
        Value::String(name) if name.starts_with("SIG") => done(),
        Value::Number(number) if number.as_u64().is_some_and(|number| (1..=64).contains(&number)) => done(),
        _ => fails(400, "invalid signal"),
    }
}

/// A Go duration, or nanoseconds.
fn duration(value: &Value) -> Result<Option<Duration>, HttpResponse> {
    match value {
        Value::Null => Ok(None),
        Value::Number(nanos) => Ok(nanos.as_u64().map(Duration::from_nanos)),
        Value::String(text) => match text.parse::<GoDuration>() {
            Ok(duration) => Ok(Some(duration.0)),
            Err(_) => Err(fails(400, "invalid duration")),
        },
        _ => Err(fails(400, "invalid duration")),
    }
}
