//! The same rules for a Prometheus that watches the nodes: each signal as an expression over what `/metrics` exports.
//!
//! A test starts a node and looks for every metric that is named here.

use std::fmt::Write as _;
use std::time::Duration;

use peregrine_actors::alerts::{ANSWERS_MIN, Comparison, Missing, Rule, Signal};

/// Routes that answer with forecasts, as metrics label them.
const ROUTES: &str = "v2_infer|v1_forecast|neural";

/// A signal as Prometheus sees it.
struct Expression {
    value: String,
    /// Labels that tell its series of one node apart.
    labels: &'static [&'static str],
    /// What must hold as well.
    condition: Option<String>,
}

/// A rules file with these rules.
pub(crate) fn rules_file(rules: &[Rule], window: Duration) -> String {
    let mut out = String::from(
        "# Made by `peregrine alerts rules`. Where a rule holds its alert while a reading is missing, a node does so and\n\
         # Prometheus ends it.\ngroups:\n  - name: peregrine\n    rules:\n",
    );
    for rule in rules {
        // Writing to a string cannot fail.
        let _ = write_rule(&mut out, rule, window);
    }
    out
}

fn write_rule(out: &mut String, rule: &Rule, window: Duration) -> std::fmt::Result {
    writeln!(out, "      - alert: {}", rule.name)?;
    writeln!(out, "        expr: {}", quoted(&whole(rule, window)))?;
    if !rule.lasting.is_zero() {
        writeln!(out, "        for: {}", time(rule.lasting))?;
    }
    if !rule.clear_lasting.is_zero() {
        writeln!(out, "        keep_firing_for: {}", time(rule.clear_lasting))?;
    }
    writeln!(out, "        labels:\n          severity: {}", rule.severity.name())?;
    writeln!(out, "        annotations:\n          summary: {}", quoted(&rule.summary))
}

/// Double quotes and the escapes of JSON are YAML's as well.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// In milliseconds where seconds do not do.
fn time(time: Duration) -> String {
    let millis = time.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

fn whole(rule: &Rule, window: Duration) -> String {
    let Expression { value, labels, condition } = expression(rule.signal, window);
    let sign = match rule.comparison {
        Comparison::Above => '>',
        Comparison::Below => '<',
    };
    let condition = condition.map_or_else(String::new, |condition| format!(" and {condition}"));
    let mut text = format!("({value} {sign} {}{condition})", rule.threshold);
    if rule.clear != rule.threshold {
        // What fires goes on until the value is not beyond the other bound either.
        let on = ["node", "region"].iter().chain(labels).copied().collect::<Vec<_>>().join(", ");
        let firing = format!("ALERTS{{alertname=\"{}\", alertstate=\"firing\"}} == 1", rule.name);
        let _ = write!(text, " or ({value} {sign} {} and on ({on}) ({firing}))", rule.clear);
    }
    if rule.missing == Missing::Fire {
        let _ = write!(text, " or (peregrine_uptime_seconds unless on (node, region) {value})");
    }
    text
}

fn expression(signal: Signal, window: Duration) -> Expression {
    let window = time(window);
    let plain = |value: &str, labels| Expression { value: value.to_owned(), labels, condition: None };
    match signal {
        Signal::DeviceTemperatureCelsius => plain("peregrine_device_temperature_celsius", &["device"]),
        Signal::DeviceUtilisationShare => plain("peregrine_device_utilisation_share", &["device"]),
        Signal::DeviceMemoryShare => {
            plain("(peregrine_device_memory_used_bytes / peregrine_device_memory_total_bytes)", &["device"])
        }
        Signal::MemoryShare => plain("(peregrine_memory_used_bytes / peregrine_memory_total_bytes)", &[]),
        Signal::ResponseP95Seconds => Expression {
            value: format!(
                "histogram_quantile(0.95, sum by (node, region, le) \
                 (rate(peregrine_request_seconds_bucket{{route=~\"{ROUTES}\"}}[{window}])))"
            ),
            labels: &[],
            condition: None,
        },
        Signal::ErrorShare => {
            let of = |class: &str| {
                format!(
                    "sum by (node, region) (increase(peregrine_requests_total{{{class}route=~\"{ROUTES}\"}}[{window}]))"
                )
            };
            Expression {
                value: format!("({} / {})", of("class=\"5xx\", "), of("")),
                labels: &[],
                condition: Some(format!("{} >= {ANSWERS_MIN}", of(""))),
            }
        }
        Signal::BreakerState => {
            plain("peregrine_breaker_state", &["model", "version", "backend", "device", "to"])
        }
        Signal::ReplicaLost => plain("peregrine_cluster_member_lost", &["member"]),
        Signal::ReplicasMissing => plain("peregrine_cluster_members_missing", &[]),
        Signal::CertificateRemainingSeconds => plain("peregrine_tls_certificate_expiry_seconds", &["port"]),
        Signal::VitalsAgeSeconds => plain("peregrine_vitals_age_seconds", &[]),
        Signal::EventLoopLagSeconds => plain("peregrine_event_loop_lag_seconds", &["loop"]),
        Signal::ActorsStuck => plain("peregrine_actors_stuck", &[]),
        Signal::CoverageShortfallShare => plain("peregrine_score_coverage_shortfall", &["model", "version"]),
        Signal::ScalerPoolSilent => plain("peregrine_scaler_pool_silent", &["pool"]),
        Signal::JournalFailures => Expression {
            value: format!("increase(peregrine_journal_failed_total[{window}])"),
            labels: &[],
            condition: None,
        },
    }
}
