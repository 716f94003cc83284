//! What is told and what is exported, as text.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use peregrine_actors::alerts::{Alert, AlertState, Event, Happening, Labels};

use super::*;
use crate::config::{Secret, Sources, Webhook, resolve};

fn config() -> AlertsConfig {
    resolve(&Sources::default()).unwrap().config.alerts
}

fn event(what: Happening) -> Event {
    let rule = config().rules.into_iter().find(|rule| rule.name == "device_temperature").unwrap();
    let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let resolved_at = (what == Happening::Resolved).then(|| at(60));
    let state = if what == Happening::Resolved { AlertState::Resolved } else { AlertState::Firing };
    let alert = Alert {
        rule: Arc::new(rule),
        labels: Labels::from([("device", "0".to_owned())]),
        state,
        value: Some(91.5),
        bad_since: at(0),
        fired_at: Some(at(30)),
        resolved_at,
    };
    Event { what, alert, at: resolved_at.unwrap_or(at(30)) }
}

/// Judges a node by the built-in rules, a reading each second.
#[track_caller]
fn firing(readings: impl IntoIterator<Item = (Signal, Option<f64>)>) -> Vec<String> {
    let mut engine = Engine::new(config().rules, Duration::from_secs(3600));
    let start = std::time::Instant::now();
    for (second, (signal, value)) in (0..).map(Duration::from_secs).zip(readings) {
        let reading = value.map(|value| Reading { signal, labels: Labels::new(), value });
        let sample = Sample { readings: reading.into_iter().collect(), expected: vec![signal] };
        engine.look(&sample, Moment { now: start + second, wall: SystemTime::UNIX_EPOCH + second });
    }
    let firing = engine.active().filter(|alert| alert.state == AlertState::Firing);
    firing.map(|alert| alert.rule.name.clone()).collect()
}

#[test]
fn what_is_said_of_requests_ends_when_there_are_none() {
    for (signal, bad, name, quiet) in
        [(Signal::ErrorShare, 0.5, "error_share", 31), (Signal::ResponseP95Seconds, 1.0, "response_p95", 1)]
    {
        let busy = || std::iter::repeat_n((signal, Some(bad)), 62);
        assert_eq!(firing(busy()), [name]);
        let silent = |seconds| busy().chain(std::iter::repeat_n((signal, None), seconds));
        assert_eq!(firing(silent(quiet)), [""; 0], "{name}");
        if quiet > 1 {
            assert_eq!(firing(silent(quiet - 1)), [name], "a pause is no end");
        }
    }
}

fn origin() -> Origin {
    Origin { node: "iad-1".to_owned(), region: "iad".to_owned() }
}

#[test]
fn an_event_is_what_alertmanager_would_post() {
    let body = payload::body(&origin(), &event(Happening::Fired));
    let labels = serde_json::json!({
        "alertname": "device_temperature", "severity": "critical", "node": "iad-1", "region": "iad", "device": "0",
    });
    for (pointer, want) in [
        ("/version", "4".into()),
        ("/status", "firing".into()),
        ("/receiver", "peregrine".into()),
        ("/groupLabels/alertname", "device_temperature".into()),
        ("/commonLabels", labels.clone()),
        ("/alerts/0/labels", labels),
        ("/alerts/0/status", "firing".into()),
        ("/alerts/0/startsAt", "1970-01-01T00:00:30.000Z".into()),
        ("/alerts/0/endsAt", "0001-01-01T00:00:00Z".into()),
        ("/alerts/0/annotations/value", "91.5".into()),
    ] {
        assert_eq!(body.pointer(pointer), Some(&want), "{pointer}");
    }
    let body = payload::body(&origin(), &event(Happening::Resolved));
    assert_eq!(
        (&body["status"], &body["alerts"][0]["endsAt"]),
        (&"resolved".into(), &"1970-01-01T00:01:00.000Z".into())
    );
}

#[test]
fn each_event_has_an_id_of_its_own_and_each_try_the_same() {
    let ids: std::collections::BTreeSet<String> =
        [Happening::Fired, Happening::Repeated, Happening::Resolved]
            .map(|what| payload::id(&origin(), &event(what)))
            .into();
    assert_eq!(ids.len(), 3);
    assert!(ids.contains(&payload::id(&origin(), &event(Happening::Fired))));
}

#[test]
fn a_webhook_in_a_file_is_read_and_checked() {
    let in_file = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        target(&AlertsConfig { webhook: Webhook::File(file.path().to_owned()), ..config() })
    };
    let by_key = AlertsConfig { webhook: Webhook::Url(Secret::from("http://a/b".to_owned())), ..config() };
    assert_eq!(in_file("  http://a/b\n").unwrap(), target(&by_key).unwrap());
    let refused = in_file("s3cret").unwrap_err();
    assert!(refused.ends_with("holds no URL") && !refused.contains("s3cret"), "{refused}");
    let missing = AlertsConfig { webhook: Webhook::File(PathBuf::from("/no/file")), ..config() };
    assert!(target(&missing).is_err());
    assert_eq!(target(&config()).unwrap(), None);
}

/// The few forms of YAML that the file is made of.
#[test]
fn the_exported_rules_are_a_rules_file() {
    let config = config();
    let text = rules_file(&config.rules, config.window);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines[..3], ["groups:", "  - name: peregrine", "    rules:"]);
    let mut rules: Vec<std::collections::BTreeMap<&str, String>> = Vec::new();
    for line in &lines[3..] {
        if let Some(name) = line.strip_prefix("      - alert: ") {
            rules.push([("alert", name.to_owned())].into());
            continue;
        }
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let (key, value) = rest.split_once(':').unwrap();
        let value = match value.trim_start() {
            quoted if quoted.starts_with('"') => serde_json::from_str::<String>(quoted).unwrap(),
            plain => plain.to_owned(),
        };
        let place = match (indent.len(), key) {
            (8, "expr" | "for" | "keep_firing_for") => !value.is_empty(),
            (8, "labels" | "annotations") => value.is_empty(),
            (10, "severity") => ["warning", "critical"].contains(&value.as_str()),
            (10, "summary") => !value.is_empty(),
            _ => false,
        };
        assert!(place, "{line}");
        assert!(rules.last_mut().unwrap().insert(key, value).is_none(), "twice: {line}");
    }
    let names: Vec<&String> = rules.iter().map(|rule| &rule["alert"]).collect();
    assert_eq!(names, config.rules.iter().map(|rule| &rule.name).collect::<Vec<_>>());
    for rule in &rules {
        let expr = &rule["expr"];
        let balance = |open, close| expr.matches(open).count() == expr.matches(close).count();
        assert!(balance('(', ')') && balance('{', '}') && balance('[', ']'), "{expr}");
    }
    let of = |name: &str| rules.iter().find(|rule| rule["alert"] == name).unwrap();
    assert_eq!(
        of("device_temperature")["expr"],
        "(peregrine_device_temperature_celsius > 85) or (peregrine_device_temperature_celsius > 80 and on (node, \
         region, device) (ALERTS{alertname=\"device_temperature\", alertstate=\"firing\"} == 1))"
    );
    assert_eq!(of("device_temperature")["for"], "30s");
    assert_eq!(of("breaker_open")["keep_firing_for"], "10s");
    assert_eq!(of("certificate_expiry")["expr"], "(peregrine_tls_certificate_expiry_seconds < 1209600)");
    assert!(
        of("scaler_blind")["expr"]
            .ends_with("or (peregrine_uptime_seconds unless on (node, region) peregrine_vitals_age_seconds)")
    );
    assert!(of("error_share")["expr"].contains(" > 0.05 and sum by (node, region)"));
}

#[test]
fn every_signal_has_an_expression() {
    let plain = config().rules.remove(0);
    for signal in Signal::ALL {
        let text = rules_file(&[Rule { signal, ..plain.clone() }], Duration::from_millis(1500));
        assert!(text.contains("expr: \"(") && text.contains("peregrine_"), "{text}");
    }
}
