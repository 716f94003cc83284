//! An event as Alertmanager's webhook (version 4) would say it, so that whatever listens to that listens to this.

use std::collections::BTreeMap;
use std::time::SystemTime;

use peregrine_actors::alerts::{Alert, Event, Happening};
use serde_json::{Value, json};

use crate::security::rfc3339;

/// Of an alert that has not ended.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Whose alerts they are.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) node: String,
    pub(crate) region: String,
}

/// The same for every try at one event: a receiver that saw it already can tell.
pub(super) fn id(origin: &Origin, event: &Event) -> String {
    let what = match event.what {
        Happening::Fired => "fired",
        Happening::Repeated => "repeated",
        Happening::Resolved => "resolved",
    };
    let millis = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{}-{:016x}-{}-{what}", origin.node, event.alert.fingerprint(), millis(event.at))
}

pub(super) fn body(origin: &Origin, event: &Event) -> Value {
    let alert = &event.alert;
    let status = if event.what == Happening::Resolved { "resolved" } else { "firing" };
    let labels = labels(origin, alert);
    let annotations = json!({
        "summary": alert.rule.summary,
        "value": alert.value.map_or_else(|| "unknown".to_owned(), |value| value.to_string()),
    });
    let starts = alert.fired_at.unwrap_or(alert.bad_since);
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{alertname=\"{}\"}}", alert.rule.name),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "peregrine",
        "groupLabels": { "alertname": alert.rule.name },
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "eventId": id(origin, event),
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": rfc3339(starts),
            "endsAt": alert.resolved_at.map_or_else(|| NEVER.to_owned(), rfc3339),
            "generatorURL": "",
            "fingerprint": format!("{:016x}", alert.fingerprint()),
        }],
    })
}

/// As the exported rules name them.
fn labels<'a>(origin: &'a Origin, alert: &'a Alert) -> BTreeMap<&'a str, &'a str> {
    let own = alert.labels.iter().map(|(name, value)| (*name, value.as_str()));
    let common = [
        ("alertname", alert.rule.name.as_str()),
        ("severity", alert.rule.severity.name()),
        ("node", origin.node.as_str()),
        ("region", origin.region.as_str()),
    ];
    own.chain(common).collect()
}
