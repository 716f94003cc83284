//! What is trusted and what is let in: breakers, checks of answers, queues.

use std::fmt::Display;

use peregrine_actors::{BreakerMode, BreakerState, Guarded, Health, ModelStats};

use super::devices::labels;
use super::{Page, Shared};

pub(super) fn breakers(page: &mut Page, shared: &Shared) {
    let breakers = shared.system.breakers();
    page.family("peregrine_breaker_state", "gauge", "0 closed, 1 half-open, 2 open, 3 forced open.");
    for one in &breakers {
        let state = match one.state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } => 2,
            BreakerState::ForcedOpen => 3,
        };
        page.sample("", &guarded(&one.guards), state);
    }
    page.family("peregrine_breaker_mode", "gauge", "1 for who decides about a breaker, unless its calls do.");
    for one in breakers.iter().filter(|one| one.mode != BreakerMode::Auto) {
        let mut labels = guarded(&one.guards);
        let mode = one.mode.name();
        labels.push(("mode", &mode));
        page.sample("", &labels, 1);
    }
    page.family("peregrine_breaker_transitions_total", "counter", "Changes of a breaker's state.");
    for one in &breakers {
        page.sample("", &guarded(&one.guards), one.transitions);
    }
    page.family("peregrine_breaker_failures_total", "counter", "Failed calls that a breaker saw.");
    for one in &breakers {
        page.sample("", &guarded(&one.guards), one.failures);
    }
}

fn guarded(guards: &Guarded) -> Vec<(&'static str, &dyn Display)> {
    match guards {
        Guarded::Device { model, version, device } => {
            let [backend, index] = labels(device.backend, &device.index);
            vec![("model", model), ("version", version), backend, index]
        }
        Guarded::Coverage { model, version } => {
            vec![("model", model), ("version", version), ("backend", &"coverage")]
        }
        Guarded::Peer { node } => vec![("backend", &"remote"), ("to", node)],
    }
}

/// Answers of a GPU beside those of its CPU twin.
pub(super) fn checks(page: &mut Page, stats: &[ModelStats]) {
    let mut family = |name, kind, help, value: fn(&ModelStats) -> f64| {
        page.family(name, kind, help);
        for one in stats.iter().filter(|one| one.checks.checked > 0) {
            page.sample("", &[("model", &one.model), ("version", &one.version)], value(one));
        }
    };
    family("peregrine_checks_total", "counter", "Answers of a GPU that the CPU computed again.", |one| {
        one.checks.checked as f64
    });
    family("peregrine_checks_wrong_total", "counter", "Of those, the ones that were wrong.", |one| {
        one.checks.wrong as f64
    });
    let help = "Largest difference so far, as a share of the range that the answer moves in.";
    family("peregrine_checks_drift_max_ratio", "gauge", help, |one| one.checks.drift_max);
}

/// What waits for devices, and what was not let in.
pub(super) fn queues(page: &mut Page, health: &Health) {
    page.family("peregrine_queue_rows", "gauge", "Rows waiting for a device.");
    for device in &health.devices {
        page.sample("", &labels(device.backend, &device.index), device.queue_rows);
    }
    page.family("peregrine_queue_requests", "gauge", "Requests waiting for a device.");
    for device in &health.devices {
        page.sample("", &labels(device.backend, &device.index), device.queue_requests);
    }
    page.family("peregrine_backlog_seconds", "gauge", "What waits will take so long, by the pace of late.");
    for device in &health.devices {
        page.sample("", &labels(device.backend, &device.index), device.backlog.as_secs_f64());
    }
    page.family(
        "peregrine_backlog_limit_seconds",
        "gauge",
        "As much may wait; absent while nothing waited long.",
    );
    for device in &health.devices {
        let Some(limit) = device.backlog_max else { continue };
        page.sample("", &labels(device.backend, &device.index), limit.as_secs_f64());
    }
    page.family(
        "peregrine_turned_away_total",
        "counter",
        "Requests that were not let wait for a device, by reason.",
    );
    for device in &health.devices {
        for (why, count) in &device.refused {
            page.sample(
                "",
                &[("backend", &device.backend.name()), ("device", &device.index), ("why", why)],
                count,
            );
        }
    }
}
