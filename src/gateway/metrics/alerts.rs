//! Alerts, what came of telling people, and the signals that nothing else exports.

use std::fmt::Display;

use actix_web::web::Data;
use peregrine_actors::alerts::{AlertState, Signal};
use peregrine_actors::{DeviceMeter, Health};

use super::{Page, Shared};

pub(super) fn all(page: &mut Page, shared: &Data<Shared>, health: &Health) {
    let picture = shared.alerts.picture();
    page.family("peregrine_alerts", "gauge", "Alerts by rule and state.");
    for rule in &picture.rules {
        for state in [AlertState::Pending, AlertState::Firing] {
            let labels: [(&str, &dyn Display); 3] =
                [("rule", &rule.name), ("severity", &rule.severity.name()), ("state", &state.name())];
            page.sample("", &labels, picture.count(rule, state));
        }
    }
    let help = "Alerts that there was no room for.";
    page.family("peregrine_alerts_overflowed_total", "counter", help);
    page.sample("", &[], picture.overflowed);
    let help = "How often the rules were evaluated.";
    page.family("peregrine_alert_evaluations_total", "counter", help);
    page.sample("", &[], shared.alerts.evaluations());
    let (counts, waiting) = shared.alerts.deliveries();
    let help = "Events by what came of telling the webhook; failed: of tries that are made again.";
    page.family("peregrine_alert_deliveries_total", "counter", help);
    for (outcome, count) in [
        ("delivered", counts.delivered),
        ("failed", counts.failed),
        ("refused", counts.refused),
        ("dropped", counts.dropped),
    ] {
        page.sample("", &[("outcome", &outcome)], count);
    }
    page.family("peregrine_alert_deliveries_waiting", "gauge", "Events still to be told.");
    page.sample("", &[], waiting);
    signals(page, shared, health);
    meters(page, &health.meters);
}

fn signals(page: &mut Page, shared: &Data<Shared>, health: &Health) {
    let now = shared.clock.now();
    let help = "How late a timer of an event loop was at worst, of late.";
    page.family("peregrine_event_loop_lag_seconds", "gauge", help);
    for (name, lag) in shared.lags(now, health) {
        page.sample("", &[("loop", &name)], lag.as_secs_f64());
    }
    if let Some(vitals) = health.system {
        page.family("peregrine_vitals_age_seconds", "gauge", "Since the machine was last sampled.");
        page.sample("", &[], now.saturating_duration_since(vitals.taken_at).as_secs_f64());
    }
    if shared.cluster.is_none() {
        return;
    }
    let help = "1 while a node is gone without having said goodbye.";
    page.family("peregrine_cluster_member_lost", "gauge", help);
    for reading in shared.alerts.latest(Signal::ReplicaLost) {
        let labels: Vec<(&str, &dyn Display)> =
            reading.labels.iter().map(|(name, value)| (*name, value as &dyn Display)).collect();
        page.sample("", &labels, reading.value);
    }
    let help = "Nodes that the cluster is meant to have and has not.";
    page.family("peregrine_cluster_members_missing", "gauge", help);
    for reading in shared.alerts.latest(Signal::ReplicasMissing) {
        page.sample("", &[], reading.value);
    }
}

/// What drivers say of devices. What one does not say is missing, not zero.
fn meters(page: &mut Page, meters: &[DeviceMeter]) {
    type Read = fn(&DeviceMeter) -> Option<f64>;
    let families: [(&str, &str, Read); 5] = [
        ("peregrine_device_temperature_celsius", "Of a device's core.", |one| one.temperature_celsius),
        ("peregrine_device_utilisation_share", "Share of time in which a device computed.", |one| {
            one.utilisation
        }),
        ("peregrine_device_memory_used_bytes", "Memory of a device in use.", |one| {
            one.memory_used_bytes.map(|bytes| bytes as f64)
        }),
        ("peregrine_device_memory_total_bytes", "Memory of a device.", |one| {
            one.memory_total_bytes.map(|bytes| bytes as f64)
        }),
        ("peregrine_device_power_watts", "What a device draws.", |one| one.power_watts),
    ];
    for (name, help, read) in families {
        if meters.iter().all(|one| read(one).is_none()) {
            continue;
        }
        page.family(name, "gauge", help);
        for one in meters {
            let Some(value) = read(one) else { continue };
            page.sample("", &[("device", &one.index), ("name", &one.name)], value);
        }
    }
}
