//! A machine of the platform: what it is, and what is to become of it.

use std::collections::VecDeque;
use std::time::Duration;

use peregrine_scaler::Timestamp;
use serde_json::{Value, json};

/// Events that are kept, by count.
const EVENTS_MAX: usize = 20;

#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) nonce: String,
    /// In whole seconds, as it is told.
    pub(crate) expires_at: i64,
    pub(crate) description: String,
}

/// A change to come.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at: Timestamp,
    pub(crate) state: &'static str,
    /// Type of the event that it is.
    pub(crate) event: &'static str,
    /// Details of it.
    pub(crate) request: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeMachine {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) state: &'static str,
    pub(crate) instance_id: String,
    pub(crate) private_ip: String,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) config: Value,
    pub(crate) cordoned_at: Option<Timestamp>,
    pub(crate) lease: Option<Lease>,
    pub(crate) events: VecDeque<Value>,
    pub(crate) versions: Vec<(String, Value)>,
    pub(crate) next: VecDeque<Step>,
    /// Its host cannot be reached until then; this is what was last heard of its state.
    pub(crate) unreachable: Option<(Timestamp, &'static str)>,
    pub(crate) shown_from: Timestamp,
    /// Before it a start of one that was just made is refused.
    pub(crate) settled_at: Timestamp,
    pub(crate) gone_at: Option<Timestamp>,
    /// Restarts in place so far, since it was started.
    pub(crate) restarts: u64,
    /// When its process came up; nothing while it is down.
    pub(crate) up_since: Option<Timestamp>,
}

impl FakeMachine {
    pub(crate) fn is_gone(&self) -> bool {
        self.state == "destroyed"
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.unreachable.is_none()
    }

    /// It takes room of its host.
    pub(crate) fn uses_host(&self) -> bool {
        !matches!(self.state, "created" | "stopped" | "suspended" | "failed" | "launch_failed" | "destroyed")
    }

    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.config["metadata"][key].as_str()
    }

    /// The lease that holds at this moment.
    pub(crate) fn lease(&self, now: Timestamp) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| lease.expires_at > now.as_second())
    }

    pub(crate) fn note(&mut self, at: Timestamp, id: String, kind: &str, source: &str, request: Value) {
        let event = json!({ "id": id, "type": kind, "status": self.state, "source": source,
            "timestamp": at.as_millisecond(), "request": request });
        self.events.push_front(event);
        self.events.truncate(EVENTS_MAX);
        self.updated_at = at;
    }

    /// Changes by and by to these states, each after its delay. What was to come does not.
    pub(crate) fn then(&mut self, now: Timestamp, steps: &[(&'static str, &'static str, Duration)]) {
        self.next.clear();
        let mut at = now;
        for (state, event, delay) in steps {
            at = at.checked_add(*delay).unwrap_or(Timestamp::MAX);
            self.next.push_back(Step { at, state, event, request: Value::Null });
        }
    }

    /// `Machine` of the notes.
    pub(crate) fn shown(&self, now: Timestamp, with_lease: bool) -> Value {
        let state = self.unreachable.map_or(self.state, |(_, state)| state);
        let mut shown = json!({
            "id": self.id, "name": self.name, "state": state, "region": self.region,
            "instance_id": self.instance_id, "version": self.instance_id, "private_ip": self.private_ip,
            "created_at": self.created_at.to_string(), "updated_at": self.updated_at.to_string(),
            "config": self.config, "image_ref": { "digest": "sha256:0" }, "events": self.events, "checks": null,
            "cordoned": self.cordoned_at.is_some(), "host_status": "ok",
        });
        if !self.is_reachable() {
            shown["host_status"] = json!("unreachable");
            shown["config"] = Value::Null;
            // open: how much of it is left; nothing is the worst.
            shown["incomplete_config"] = json!({});
            shown["events"] = Value::Null;
        }
        // Written as a boolean where it is one.
        if let Some(services) = shown.pointer_mut("/config/services").and_then(Value::as_array_mut) {
            for service in services {
                match service["autostop"].as_str() {
                    Some("off") => service["autostop"] = json!(false),
                    Some("stop") => service["autostop"] = json!(true),
                    _ => {}
                }
            }
        }
        if let (true, Some(lease)) = (with_lease, self.lease(now)) {
            shown["lease"] = json!({ "description": lease.description, "expires_at": lease.expires_at,
                "owner": super::ORG });
        }
        shown
    }

    /// `LeaseEnvelope`; a stranger does not see the nonce.
    pub(crate) fn envelope(&self, lease: &Lease, with_nonce: bool) -> Value {
        let mut data = json!({ "expires_at": lease.expires_at, "owner": super::ORG,
            "description": lease.description, "version": self.instance_id });
        if with_nonce {
            data["nonce"] = json!(lease.nonce);
        }
        json!({ "status": "success", "data": data })
    }
}
