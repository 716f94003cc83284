//! `[alerts]`: as written, and as used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use peregrine_actors::alerts::{Comparison, Missing, Rule, Severity, Signal};
use schemars::JsonSchema;
use serde::Deserialize;

use super::checker::{Checker, DAY, SECOND};
use super::layers::key_of;
use super::secret::Secret;
use super::units::WrittenDuration;

/// Rules beyond this many are refused.
const RULES_MAX: usize = 128;
/// Bytes of a rule's summary.
const SUMMARY_BYTES_MAX: usize = 512;

/// What is an alert, and who is told.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct AlertsFile {
    /// How often the rules are evaluated.
    pub(super) evaluate_every: Option<WrittenDuration>,
    /// Over how long response times, errors and failed writes are counted.
    pub(super) window: Option<WrittenDuration>,
    /// URL that events are posted to, in Alertmanager's webhook format; empty: nobody is told. Never printed.
    pub(super) webhook: Option<Secret>,
    /// File that holds the URL, in place of `webhook`; read again on SIGHUP.
    pub(super) webhook_file: Option<PathBuf>,
    /// For one attempt to deliver an event.
    pub(super) webhook_timeout: Option<WrittenDuration>,
    /// How soon an alert that goes on firing is told again.
    pub(super) repeat_every: Option<WrittenDuration>,
    /// By name; those that are built in may be changed key by key, or turned off.
    pub(super) rules: Option<BTreeMap<String, RuleFile>>,
}

/// One rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RuleFile {
    /// Is the rule in use? Left out: yes.
    pub(super) enabled: Option<bool>,
    /// What is looked at.
    pub(super) signal: Option<SignalChoice>,
    /// On which side of the threshold a value is bad; left out: above.
    pub(super) comparison: Option<ComparisonChoice>,
    /// A value beyond it is bad.
    pub(super) threshold: Option<f64>,
    /// An alert ends when the value is not beyond this either; left out: the threshold.
    pub(super) clear: Option<f64>,
    /// How long it must be bad before the alert fires; left out: no time.
    pub(super) r#for: Option<WrittenDuration>,
    /// How long it must be clear before the alert ends; left out: no time.
    pub(super) clear_for: Option<WrittenDuration>,
    /// How bad that is; left out: warning.
    pub(super) severity: Option<SeverityChoice>,
    /// What it means that a reading is missing; left out: hold.
    pub(super) missing: Option<MissingChoice>,
    /// One sentence for people.
    pub(super) summary: Option<String>,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SignalChoice {
    /// Of a device, as its driver says
    DeviceTemperatureCelsius,
    /// Share of time in which a device computed, 0 to 1, as its driver says
    DeviceUtilisationShare,
    /// Share of a device's memory in use, as its driver says
    DeviceMemoryShare,
    /// Share of the machine's memory in use
    MemoryShare,
    /// 95 of 100 forecasts of the window were answered within this time
    ResponseP95Seconds,
    /// Share of forecasts of the window that were answered 5xx; of fewer than 20 nothing is said
    ErrorShare,
    /// Of a circuit: 0 closed, 1 half-open, 2 open
    BreakerState,
    /// Of another node: 1 while it is gone without having said goodbye
    ReplicaLost,
    /// Nodes that the cluster is meant to have and has not
    ReplicasMissing,
    /// Until the certificate of the public port expires, or that which other nodes are shown
    CertificateRemainingSeconds,
    /// Since the machine was last sampled
    VitalsAgeSeconds,
    /// How late a timer of an event loop was of late
    EventLoopLagSeconds,
    /// Actors that are at one message for too long
    ActorsStuck,
    /// Ticks of the window that the disk refused
    JournalFailures,
    /// Of a model version: by how much an interval held less of the truth of late than it is meant to, 0 to 1
    CoverageShortfallShare,
    /// Of a pool of machines: 1 while it does not list them, on the node whose scaler acts
    ScalerPoolSilent,
}

impl From<SignalChoice> for Signal {
    fn from(choice: SignalChoice) -> Self {
        match choice {
            SignalChoice::DeviceTemperatureCelsius => Self::DeviceTemperatureCelsius,
            SignalChoice::DeviceUtilisationShare => Self::DeviceUtilisationShare,
            SignalChoice::DeviceMemoryShare => Self::DeviceMemoryShare,
            SignalChoice::MemoryShare => Self::MemoryShare,
            SignalChoice::ResponseP95Seconds => Self::ResponseP95Seconds,
            SignalChoice::ErrorShare => Self::ErrorShare,
            SignalChoice::BreakerState => Self::BreakerState,
            SignalChoice::ReplicaLost => Self::ReplicaLost,
            SignalChoice::ReplicasMissing => Self::ReplicasMissing,
            SignalChoice::CertificateRemainingSeconds => Self::CertificateRemainingSeconds,
            SignalChoice::VitalsAgeSeconds => Self::VitalsAgeSeconds,
            SignalChoice::EventLoopLagSeconds => Self::EventLoopLagSeconds,
            SignalChoice::ActorsStuck => Self::ActorsStuck,
            SignalChoice::JournalFailures => Self::JournalFailures,
            SignalChoice::CoverageShortfallShare => Self::CoverageShortfallShare,
            SignalChoice::ScalerPoolSilent => Self::ScalerPoolSilent,
        }
    }
}

/// On which side of its threshold a value is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ComparisonChoice {
    /// Bad when larger
    Above,
    /// Bad when smaller
    Below,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SeverityChoice {
    /// Somebody should look at it during the day
    Warning,
    /// Somebody must act now
    Critical,
}

/// What a missing reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum MissingChoice {
    /// What was measured is no more, and its alert with it
    Resolve,
    /// Nothing is known: the alert stays as it is
    Hold,
    /// Not to know is what is bad
    Fire,
}

/// What is an alert, and who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertsConfig {
    /// How often the rules are evaluated.
    pub evaluate_every: Duration,
    /// Over how long counters are compared.
    pub window: Duration,
    /// Who is told.
    pub webhook: Webhook,
    /// For one attempt.
    pub webhook_timeout: Duration,
    /// How soon an alert that goes on is told again.
    pub repeat_every: Duration,
    /// Those that are in use, by name.
    pub rules: Vec<Rule>,
}

/// Where events are posted to.
#[derive(Clone, Debug, PartialEq)]
pub enum Webhook {
    /// Nowhere.
    None,
    /// A URL, which may hold a secret.
    Url(Secret),
    /// The file that holds it.
    File(PathBuf),
}

/// Whether it is an address of HTTP: its scheme, a host, and a port if one is named.
#[must_use]
pub fn is_http_url(url: &str) -> bool {
    let parsed: Option<ureq::http::Uri> = url.parse().ok();
    parsed.is_some_and(|parsed| {
        let has_scheme = matches!(parsed.scheme_str(), Some("http" | "https"));
        let has_host = parsed.host().is_some_and(|host| !host.is_empty());
        // A port that is none would be the scheme's.
        let asks_port = parsed.authority().is_some_and(|authority| {
            let behind = authority.as_str().rsplit('@').next().unwrap_or_default();
            behind.rsplit(']').next().is_some_and(|rest| rest.contains(':'))
        });
        has_scheme && has_host && (!asks_port || parsed.port_u16().is_some_and(|port| port > 0))
    })
}

impl Checker<'_> {
    pub(super) fn alerts(&mut self, written: AlertsFile) -> Option<AlertsConfig> {
        let evaluate_every =
            self.time("alerts.evaluate_every", written.evaluate_every, SECOND / 10..=60 * SECOND);
        let window = self.time("alerts.window", written.window, SECOND..=SECOND * 3600);
        let timeout = self.time("alerts.webhook_timeout", written.webhook_timeout, SECOND / 10..=60 * SECOND);
        let repeat_every = self.time("alerts.repeat_every", written.repeat_every, SECOND..=DAY * 7);
        let webhook = self.webhook(written.webhook, written.webhook_file);
        let rules = self.rules(written.rules.unwrap_or_default());
        Some(AlertsConfig {
            evaluate_every: evaluate_every?,
            window: window?,
            webhook: webhook?,
            webhook_timeout: timeout?,
            repeat_every: repeat_every?,
            rules: rules?,
        })
    }

    fn webhook(&mut self, url: Option<Secret>, file: Option<PathBuf>) -> Option<Webhook> {
        let url = self.present("alerts.webhook", url);
        let file = self.present("alerts.webhook_file", file);
        let (url, file) = (url?, self.file("alerts.webhook_file", file?)?);
        match (url.expose(), file) {
            ("", None) => Some(Webhook::None),
            ("", Some(file)) => Some(Webhook::File(file)),
            (_, Some(_)) => {
                self.mistake("alerts.webhook_file", "there is a URL in alerts.webhook already".to_owned());
                None
            }
            // Never repeats what was written: a token may be in it.
            (text, None) if !is_http_url(text) => {
                self.mistake("alerts.webhook", "is not a URL such as https://desk.example/hook".to_owned());
                None
            }
            (_, None) => Some(Webhook::Url(url)),
        }
    }

    fn rules(&mut self, written: BTreeMap<String, RuleFile>) -> Option<Vec<Rule>> {
        if written.len() > RULES_MAX {
            self.mistake("alerts.rules", format!("{} rules are more than {RULES_MAX}", written.len()));
            return None;
        }
        let len = written.len();
        let mut rules = Vec::with_capacity(len);
        let mut is_whole = true;
        for (name, rule) in written {
            let enabled = rule.enabled.unwrap_or(true);
            match self.rule(name, rule) {
                Some(rule) if enabled => rules.push(rule),
                Some(_) => {}
                None => is_whole = false,
            }
        }
        is_whole.then_some(rules)
    }

    fn rule(&mut self, name: String, written: RuleFile) -> Option<Rule> {
        let key = |key: &str| key_of(&["alerts", "rules", &name, key]);
        let fits = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !fits {
            let message = format!("`{name}` is no name: 1 to 64 of a-z, 0-9 and `_`");
            self.mistake(&key_of(&["alerts", "rules", &name]), message);
        }
        let signal = self.present(&key("signal"), written.signal);
        let threshold = self.number(&key("threshold"), written.threshold, f64::is_finite, "a finite number");
        let comparison = match written.comparison.unwrap_or(ComparisonChoice::Above) {
            ComparisonChoice::Above => Comparison::Above,
            ComparisonChoice::Below => Comparison::Below,
        };
        let clear = match written.clear {
            Some(_) => self.number(&key("clear"), written.clear, f64::is_finite, "a finite number"),
            None => threshold,
        };
        if let (Some(threshold), Some(clear)) = (threshold, clear)
            && comparison.is_beyond(clear, threshold)
        {
            self.mistake(&key("clear"), format!("{clear} is beyond threshold = {threshold}"));
        }
        let mut time = |name: &str, written: Option<WrittenDuration>| {
            self.time(
                &key(name),
                Some(written.unwrap_or(WrittenDuration(Duration::ZERO))),
                Duration::ZERO..=DAY,
            )
        };
        let (lasting, clear_lasting) = (time("for", written.r#for), time("clear_for", written.clear_for));
        let summary = written.summary.unwrap_or_default();
        if summary.len() > SUMMARY_BYTES_MAX || summary.contains(char::is_control) {
            let message = format!("is not one line of at most {SUMMARY_BYTES_MAX} bytes");
            self.mistake(&key("summary"), message);
        }
        let severity = match written.severity.unwrap_or(SeverityChoice::Warning) {
            SeverityChoice::Warning => Severity::Warning,
            SeverityChoice::Critical => Severity::Critical,
        };
        let missing = match written.missing.unwrap_or(MissingChoice::Hold) {
            MissingChoice::Resolve => Missing::Resolve,
            MissingChoice::Hold => Missing::Hold,
            MissingChoice::Fire => Missing::Fire,
        };
        Some(Rule {
            name,
            signal: signal?.into(),
            comparison,
            threshold: threshold?,
            clear: clear?,
            lasting: lasting?,
            clear_lasting: clear_lasting?,
            severity,
            missing,
            summary,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peregrine_actors::alerts::{Comparison, Missing, Severity, Signal};

    use super::super::tests::{check, file_with};
    use super::super::{AlertsConfig, Sources, resolve};
    use super::*;

    #[test]
    fn the_built_in_rules_are_those_that_were_promised() {
        let rules = alerts("").rules;
        let of = |name: &str| rules.iter().find(|rule| rule.name == name).unwrap();
        for (name, signal, threshold, severity) in [
            ("device_temperature", Signal::DeviceTemperatureCelsius, 85.0, Severity::Critical),
            ("device_utilisation", Signal::DeviceUtilisationShare, 0.95, Severity::Warning),
            ("device_memory", Signal::DeviceMemoryShare, 0.9, Severity::Warning),
            ("memory", Signal::MemoryShare, 0.9, Severity::Warning),
            ("response_p95", Signal::ResponseP95Seconds, 0.1, Severity::Warning),
            ("error_share", Signal::ErrorShare, 0.05, Severity::Critical),
            ("breaker_open", Signal::BreakerState, 1.0, Severity::Critical),
            ("replica_lost", Signal::ReplicaLost, 0.0, Severity::Critical),
            ("scaler_pool_silent", Signal::ScalerPoolSilent, 0.0, Severity::Critical),
        ] {
            let rule = of(name);
            assert_eq!((rule.signal, rule.threshold, rule.severity), (signal, threshold, severity), "{name}");
            assert_eq!(rule.comparison, Comparison::Above, "{name}");
            assert!(!rule.summary.is_empty());
        }
        assert_eq!(of("certificate_expiry").comparison, Comparison::Below);
        assert_eq!(of("scaler_blind").missing, Missing::Fire);
    }

    #[test]
    fn every_signal_can_be_written() {
        for signal in Signal::ALL {
            let text = format!("[alerts.rules.own]\nsignal = \"{}\"\nthreshold = 1\n", signal.name());
            let rules = alerts(&text).rules;
            assert_eq!(rules.iter().find(|rule| rule.name == "own").unwrap().signal, signal);
        }
    }

    #[test]
    fn a_built_in_rule_is_changed_key_by_key_or_turned_off() {
        let text =
            "[alerts.rules.device_temperature]\nthreshold = 90.0\n[alerts.rules.memory]\nenabled = false\n";
        let rules = alerts(text).rules;
        let heat = rules.iter().find(|rule| rule.name == "device_temperature").unwrap();
        assert_eq!((heat.threshold, heat.clear, heat.severity), (90.0, 80.0, Severity::Critical));
        assert!(rules.iter().all(|rule| rule.name != "memory"));
    }

    #[test]
    fn what_is_left_out_of_a_rule_is_the_plain_thing() {
        let own = "[alerts.rules.own]\nsignal = \"actors_stuck\"\nthreshold = 2.0\nfor = \"5s\"\n";
        let rules = alerts(own).rules;
        let rule = rules.iter().find(|rule| rule.name == "own").unwrap();
        assert_eq!(
            (rule.clear, rule.lasting, rule.clear_lasting),
            (2.0, Duration::from_secs(5), Duration::ZERO)
        );
        assert_eq!((rule.severity, rule.missing), (Severity::Warning, Missing::Hold));
    }

    #[test]
    fn rules_that_make_no_sense_are_named() {
        check(
            "[alerts.rules.own]\nsignal = \"memory_share\"\nthreshold = 0.9\nclear = 0.95\nfor = \"25h\"\n",
            &[
                "FILE:4:9: alerts.rules.own.clear: 0.95 is beyond threshold = 0.9",
                "FILE:5:7: alerts.rules.own.for: 90000s is not within 0ns and 86400s",
            ],
        );
        check(
            "[alerts.rules.own]\nthreshold = inf\n",
            &[
                "FILE:2:13: alerts.rules.own.signal: is missing",
                "FILE:2:13: alerts.rules.own.threshold: inf is not a finite number",
            ],
        );
        check(
            "[alerts.rules.\"x y\"]\nsignal = \"memory_share\"\nthreshold = 1\n",
            &["FILE:2:10: alerts.rules.\"x y\": `x y` is no name: 1 to 64 of a-z, 0-9 and `_`"],
        );
    }

    #[test]
    fn a_webhook_is_a_url_and_no_mistake_repeats_it() {
        assert_eq!(alerts("").webhook, Webhook::None);
        let url = "https://desk.example/hook?token=s3cret";
        let config = alerts(&format!("alerts.webhook = \"{url}\"\n"));
        assert_eq!(config.webhook, Webhook::Url(Secret::from(url.to_owned())));
        assert!(!format!("{config:?}").contains("s3cret"));
        check(
            "alerts.webhook = \"ftp://s3cret\"\n",
            &["FILE:1:18: alerts.webhook: is not a URL such as https://desk.example/hook"],
        );
        check(
            "alerts.webhook_file = \"/no/file\"\n",
            &["FILE:1:23: alerts.webhook_file: there is no file `/no/file`"],
        );
        for good in ["http://[::1]:9/x", "https://user:word@desk.example/x?y=z", "http://desk.example:65535"]
        {
            assert!(is_http_url(good), "{good}");
        }
        for wrong in [
            "http://",
            "http:///x",
            "https://a b",
            "desk.example",
            "http://a:99999/x",
            "http://a:0/x",
            "http://:80/x",
            "http://[::1]:x/",
        ] {
            assert!(!is_http_url(wrong), "{wrong}");
        }
    }

    #[track_caller]
    fn alerts(text: &str) -> AlertsConfig {
        let file = file_with(text);
        let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
        resolve(&sources).unwrap_or_else(|error| panic!("{error}")).config.alerts
    }
}
