//! What a machine is made of, as the API takes it, and what of that we do not ask for.
//!
//! Checked before a call, so that a mistake is named by key rather than by a refusal of the platform. A GPU can be
//! written down, since configurations of before 2026-08 hold one; it never leaves this process.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lenient::{Autostop, GoDuration, or_default};

/// Longest time that the platform waits for a machine to end by itself.
pub const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Longest list, map and text of a configuration that is sent.
const ITEMS_MAX: usize = 256;

/// Image, size, ports and checks of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineConfig {
    /// The image's reference.
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    /// Of its processes. Secrets do not belong here: the platform has a store for them.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Processors and memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// The same as the name of a preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What it runs instead of the image's own command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Words about it that others find it by; they change without a restart.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Volumes. A machine of a group does the work of any other, so it has none.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<serde_json::Value>,
    /// Ports that the platform's proxy sends callers to.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Where the platform reads metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Checks that do not gate callers.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, Check>,
    /// What happens when its process ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// How it is asked to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_config: Option<StopConfig>,
    /// It is destroyed when its process ends.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub auto_destroy: bool,
    /// It is started by a clock of the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// Processors and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// `shared` or `performance`.
    #[serde(deserialize_with = "or_default")]
    pub cpu_kind: String,
    /// How many.
    #[serde(deserialize_with = "or_default")]
    pub cpus: u32,
    /// In MiB.
    #[serde(deserialize_with = "or_default")]
    pub memory_mb: u32,
    /// Not offered; any value is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<serde_json::Value>,
    /// Not offered; any value is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_kind: Option<String>,
}

/// The process of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Init {
    /// Instead of the image's entry point.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Instead of the image's command.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
}

/// A port behind the platform's proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `tcp` or `udp`.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// Where the machine listens.
    #[serde(deserialize_with = "or_default")]
    pub internal_port: u16,
    /// Whether the proxy stops machines.
    #[serde(deserialize_with = "or_default")]
    pub autostop: Autostop,
    /// Whether the proxy starts machines. Absent, the platform takes it for yes.
    pub autostart: Option<bool>,
    /// Ports outside.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<Port>,
    /// Checks that gate callers.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// When the proxy prefers another machine, and when it sends no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
}

/// A port that callers see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `http`, `tls`, `proxy_proto`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<String>,
    /// Plain HTTP is sent on to TLS.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub force_https: bool,
}

/// How much the proxy sends to one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Concurrency {
    /// `requests` or `connections`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Above it others are preferred.
    #[serde(deserialize_with = "or_default")]
    pub soft_limit: u32,
    /// Above it nothing comes; zero is none.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub hard_limit: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Where the platform scrapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Its port.
    pub port: u16,
    /// Its path.
    #[serde(deserialize_with = "or_default")]
    pub path: String,
}

/// A check of health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `http` or `tcp`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// How often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// How long one may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// How long after a start nothing counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<GoDuration>,
    /// Of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What happens when the process of a machine ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restart {
    /// `no`, `on-failure` or `always`.
    #[serde(deserialize_with = "or_default")]
    pub policy: String,
    /// In five minutes; then it stays stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// How a machine is asked to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopConfig {
    /// How long it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// What it is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// A configuration that no machine is made of. Whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A GPU.
    #[error(
        "`{0}` asks for a GPU: Fly has offered none since 2026-08-01 and its API refuses them since 2026-08-11; run GPU \
         workers at another provider and let them join as an external region (provider = \"external\")"
    )]
    GpuNotOffered(String),
    /// No image.
    #[error("`image` is missing")]
    NoImage,
    /// Not a size there is.
    #[error("`{0}` is no size: shared-cpu-1x to 8x, performance-1x to 16x")]
    UnknownSize(String),
    /// The guest is not offered.
    #[error("no guest has {cpus} {cpu_kind} processors and {memory_mb} MiB")]
    NoSuchGuest {
        /// Kind of processor.
        cpu_kind: String,
        /// How many.
        cpus: u32,
        /// In MiB.
        memory_mb: u32,
    },
    /// Neither guest nor size.
    #[error("one of `guest` and `size` is needed")]
    NoSize,
    /// The proxy would start and stop machines beside the scaler, undrained.
    #[error("the service on port {0} needs autostop = \"off\" and autostart = false: the scaler does both")]
    ProxyScales(u16),
    /// It would end or begin without the scaler.
    #[error("`{0}` is not for machines that the scaler keeps")]
    NotForFleet(&'static str),
    /// The platform's own names.
    #[error("the environment must not set `{0}`: names with FLY_ are the platform's")]
    ReservedEnv(String),
    /// The pool's own names.
    #[error("metadata `{0}` is the pool's own")]
    ReservedMetadata(String),
    /// Longer than the platform waits.
    #[error("a drain of {} s is longer than the {} s that the platform waits", .0.as_secs(), STOP_TIMEOUT_MAX.as_secs())]
    DrainTooLong(Duration),
    /// More than fits.
    #[error("`{0}` has more than {ITEMS_MAX} entries")]
    TooMany(&'static str),
}

impl MachineConfig {
    /// Whether a machine of a fleet may be made of it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_size()?;
        if self.image.trim().is_empty() {
            return Err(ConfigError::NoImage);
        }
        for (what, items) in
            [("env", self.env.len()), ("metadata", self.metadata.len()), ("services", self.services.len())]
        {
            if items > ITEMS_MAX {
                return Err(ConfigError::TooMany(what));
            }
        }
        if let Some(name) = self.env.keys().find(|name| name.starts_with("FLY_")) {
            return Err(ConfigError::ReservedEnv(name.clone()));
        }
        // Absent, the proxy starts machines.
        let proxied =
            |service: &&Service| service.autostop != Autostop::Off || service.autostart.unwrap_or(true);
        if let Some(service) = self.services.iter().find(proxied) {
            return Err(ConfigError::ProxyScales(service.internal_port));
        }
        for (what, is_there) in [
            ("mounts", !self.mounts.is_empty()),
            ("auto_destroy", self.auto_destroy),
            ("schedule", self.schedule.is_some()),
        ] {
            if is_there {
                return Err(ConfigError::NotForFleet(what));
            }
        }
        Ok(())
    }

    fn check_size(&self) -> Result<(), ConfigError> {
        if let Some(size) = &self.size {
            check_preset(size)?;
        }
        match (&self.guest, &self.size) {
            (Some(guest), _) => guest.check(),
            (None, Some(_)) => Ok(()),
            (None, None) => Err(ConfigError::NoSize),
        }
    }

    /// Processors and memory, whichever way they were written.
    #[must_use]
    pub fn guest(&self) -> Option<Guest> {
        self.guest.clone().or_else(|| self.size.as_deref().and_then(Guest::preset))
    }
}

impl Guest {
    /// Whether the platform has such a guest.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(gpus) = &self.gpus {
            return Err(ConfigError::GpuNotOffered(format!("guest.gpus = {gpus}")));
        }
        if let Some(kind) = &self.gpu_kind {
            return Err(ConfigError::GpuNotOffered(format!("guest.gpu_kind = {kind}")));
        }
        // Memory per processor, and its step, in MiB.
        let (counts, bounds, step): (&[u32], _, _) = match self.cpu_kind.as_str() {
            "shared" => (&[1, 2, 4, 6, 8], (256, 2048), 256),
            "performance" => (&[1, 2, 4, 6, 8, 10, 12, 14, 16], (2048, 8192), 2048),
            _ => (&[], (0, 0), 1),
        };
        let fits = counts.contains(&self.cpus)
            && (bounds.0 * self.cpus..=bounds.1 * self.cpus).contains(&self.memory_mb)
            && self.memory_mb.is_multiple_of(step);
        if fits {
            return Ok(());
        }
        let cpu_kind = self.cpu_kind.chars().take(32).collect();
        Err(ConfigError::NoSuchGuest { cpu_kind, cpus: self.cpus, memory_mb: self.memory_mb })
    }

    /// The guest of a preset, with the memory that comes with it.
    #[must_use]
    pub fn preset(size: &str) -> Option<Self> {
        let (cpu_kind, count, memory_per_cpu) = match size.split_once("-cpu-") {
            Some(("shared", count)) => ("shared", count, 256),
            Some(_) => return None,
            None => ("performance", size.strip_prefix("performance-")?, 2048),
        };
        let cpus: u32 = count.strip_suffix('x')?.parse().ok().filter(|cpus| *cpus <= 64)?;
        let guest =
            Self { cpu_kind: cpu_kind.to_owned(), cpus, memory_mb: cpus * memory_per_cpu, ..Self::default() };
        guest.check().is_ok().then_some(guest)
    }
}

fn check_preset(size: &str) -> Result<(), ConfigError> {
    let shown: String = size.chars().take(64).collect();
    // Presets that the platform's own client still knows.
    if ["a10", "a100", "l40s", "h100"].iter().any(|gpu| size.starts_with(gpu)) {
        return Err(ConfigError::GpuNotOffered(format!("size = {shown}")));
    }
    Guest::preset(size).map(|_| ()).ok_or(ConfigError::UnknownSize(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> MachineConfig {
        let mut whole =
            serde_json::json!({ "image": "registry.fly.io/peregrine:v1", "size": "performance-2x" });
        whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[track_caller]
    fn check(json: serde_json::Value, expected: Result<(), ConfigError>) {
        assert_eq!(config(json).check(), expected);
    }

    #[test]
    fn a_gpu_is_refused_with_the_date_and_the_alternative() {
        for json in [
            serde_json::json!({ "guest": { "cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpus": 1 } }),
            serde_json::json!({ "guest": { "cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpus": 0 } }),
            serde_json::json!({ "guest": { "cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpu_kind": "l40s" } }),
            serde_json::json!({ "size": "a100-40gb" }),
            serde_json::json!({ "size": "l40s" }),
        ] {
            let refused = config(json.clone()).check();
            assert!(matches!(refused, Err(ConfigError::GpuNotOffered(_))), "{json}: {refused:?}");
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("2026-08-01") && text.contains("2026-08-11"), "{text}");
            assert!(text.contains("external"), "{text}");
        }
    }

    #[test]
    fn guests_are_those_the_platform_has() {
        let guest = |cpu_kind: &str, cpus: u32, memory_mb: u32| {
            let guest = Guest { cpu_kind: cpu_kind.to_owned(), cpus, memory_mb, ..Guest::default() };
            guest.check().is_ok()
        };
        assert!(guest("shared", 1, 256) && guest("shared", 8, 16384) && guest("performance", 16, 131_072));
        assert!(!guest("shared", 3, 1024) && !guest("shared", 1, 300) && !guest("shared", 1, 4096));
        assert!(!guest("performance", 1, 1024) && !guest("performance", 1, 3072) && !guest("shared", 0, 0));
        assert!(!guest("quantum", 1, 256));
        for (size, expected) in [
            ("shared-cpu-2x", Some((2, 512))),
            ("performance-16x", Some((16, 32768))),
            ("shared-cpu-3x", None),
            ("performance-x", None),
            ("performance-4000000000x", None),
            ("performance-cpu-2x", None),
        ] {
            let found = Guest::preset(size).map(|guest| (guest.cpus, guest.memory_mb));
            assert_eq!(found, expected, "{size}");
        }
    }

    #[test]
    fn nothing_but_the_scaler_starts_and_stops_its_machines() {
        let service = |rest: serde_json::Value| {
            let mut service = serde_json::json!({ "protocol": "tcp", "internal_port": 8080 });
            service.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            serde_json::json!({ "services": [service] })
        };
        check(service(serde_json::json!({ "autostop": false, "autostart": false })), Ok(()));
        check(service(serde_json::json!({ "autostop": "off" })), Err(ConfigError::ProxyScales(8080)));
        let stops = service(serde_json::json!({ "autostop": "stop", "autostart": false }));
        check(stops, Err(ConfigError::ProxyScales(8080)));
        check(serde_json::json!({ "auto_destroy": true }), Err(ConfigError::NotForFleet("auto_destroy")));
        check(serde_json::json!({ "schedule": "daily" }), Err(ConfigError::NotForFleet("schedule")));
        check(serde_json::json!({ "mounts": [{}] }), Err(ConfigError::NotForFleet("mounts")));
    }

    #[test]
    fn mistakes_are_named() {
        check(serde_json::json!({ "image": " " }), Err(ConfigError::NoImage));
        check(serde_json::json!({ "size": "huge" }), Err(ConfigError::UnknownSize("huge".to_owned())));
        check(serde_json::json!({ "size": null }), Err(ConfigError::NoSize));
        let env = serde_json::json!({ "env": { "FLY_REGION": "iad" } });
        check(env, Err(ConfigError::ReservedEnv("FLY_REGION".to_owned())));
        let many: BTreeMap<String, String> = (0..257).map(|n| (format!("k{n}"), String::new())).collect();
        check(serde_json::json!({ "env": many }), Err(ConfigError::TooMany("env")));
        check(serde_json::json!({ "env": null, "services": null, "metadata": null }), Ok(()));
    }
}
