//! Requests and answers of the Machines API. What is not needed is not read.
//!
//! Answers are foreign text: identifiers are checked here, texts are cut where they are shown.

use std::collections::BTreeMap;

use peregrine_scaler::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::{Guest, MachineConfig};
use super::lenient::{GoDuration, or_default, readable};

/// A machine as the platform shows it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Machine {
    /// Stable for its life.
    pub id: String,
    /// Unique in the app among machines that live.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What it does.
    pub state: State,
    /// Where.
    #[serde(default, deserialize_with = "or_default")]
    pub region: String,
    /// New with every change of its configuration; the older name of `version`.
    #[serde(default, deserialize_with = "or_default")]
    pub instance_id: String,
    /// The newer name of `instance_id`.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// It may change with a start, so it identifies nothing.
    #[serde(default, deserialize_with = "or_default")]
    pub private_ip: String,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub created_at: String,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub updated_at: String,
    /// What it is made of.
    #[serde(default)]
    pub config: Option<MachineConfig>,
    /// What is left of that while its host cannot be reached.
    #[serde(default)]
    pub incomplete_config: Option<MachineConfig>,
    /// What happened to it, the latest first.
    #[serde(default, deserialize_with = "readable")]
    pub events: Vec<Event>,
    /// The proxy sends it no callers.
    #[serde(default, deserialize_with = "or_default")]
    pub cordoned: bool,
    /// Whether its host can be reached.
    #[serde(default, deserialize_with = "or_default")]
    pub host_status: HostStatus,
}

impl Machine {
    /// The version of its configuration, by whichever name it came.
    #[must_use]
    pub fn generation(&self) -> &str {
        if self.version.is_empty() { &self.instance_id } else { &self.version }
    }

    /// Its metadata, as far as it is there.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let configs = [&self.config, &self.incomplete_config];
        configs.into_iter().flatten().find_map(|config| config.metadata.get(key)).map(String::as_str)
    }

    /// When it came to be.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.created_at.parse().ok()
    }

    /// When it changed last.
    #[must_use]
    pub fn updated(&self) -> Option<Timestamp> {
        self.updated_at.parse().ok()
    }
}

/// What a machine does, as the platform says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum State {
    /// Made and never started.
    Created,
    /// It runs.
    Started,
    /// It does not run.
    Stopped,
    /// Its memory is on disk.
    Suspended,
    /// It did not come up, or fell over for good.
    Failed,
    /// On its way to `Created` or `Started`.
    Creating,
    /// On its way to `Started`.
    Starting,
    /// On its way to `Stopped`.
    Stopping,
    /// Stopped and started again.
    Restarting,
    /// On its way to `Suspended`.
    Suspending,
    /// On its way to `Destroyed`.
    Destroying,
    /// Its configuration changes.
    Updating,
    /// Its configuration changes.
    Replacing,
    /// The host could not boot it.
    LaunchFailed,
    /// Gone.
    Destroyed,
    /// This version is gone.
    Replaced,
    /// Gone from this host.
    Migrated,
    /// A word that is not known here.
    #[default]
    Unheard,
}

impl From<String> for State {
    fn from(word: String) -> Self {
        Self::from_word(&word)
    }
}

impl State {
    /// The state of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "created" => Self::Created,
            "started" => Self::Started,
            "stopped" => Self::Stopped,
            "suspended" => Self::Suspended,
            "failed" => Self::Failed,
            "creating" => Self::Creating,
            "starting" => Self::Starting,
            "stopping" => Self::Stopping,
            "restarting" => Self::Restarting,
            "suspending" => Self::Suspending,
            "destroying" => Self::Destroying,
            "updating" => Self::Updating,
            "replacing" => Self::Replacing,
            "launch_failed" => Self::LaunchFailed,
            "destroyed" => Self::Destroyed,
            "replaced" => Self::Replaced,
            "migrated" => Self::Migrated,
            _ => Self::Unheard,
        }
    }

    /// It is gone and will not come back.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Destroyed | Self::Replaced | Self::Migrated)
    }
}

/// Whether the host of a machine can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum HostStatus {
    /// It can.
    #[default]
    Ok,
    /// Nobody knows, or not: what is said of the machine is old.
    Unreachable,
}

impl From<String> for HostStatus {
    fn from(word: String) -> Self {
        if matches!(word.as_str(), "ok" | "") { Self::Ok } else { Self::Unreachable }
    }
}

/// Something that happened to a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// `launch`, `start`, `stop`, `exit`, `update` and others.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// In milliseconds since 1970.
    #[serde(default, deserialize_with = "or_default")]
    pub timestamp: i64,
    /// Its details.
    #[serde(default)]
    pub request: Option<EventRequest>,
}

/// Details of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EventRequest {
    /// The end of its process.
    #[serde(default)]
    exit_event: Option<ExitEvent>,
    /// The same, where a monitor saw it.
    #[serde(rename = "MonitorEvent", default)]
    monitor: Option<MonitorEvent>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct MonitorEvent {
    #[serde(default)]
    exit_event: Option<ExitEvent>,
}

/// How the process of a machine ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ExitEvent {
    /// Its status.
    #[serde(default, deserialize_with = "or_default")]
    pub exit_code: i32,
    /// Memory ran out.
    #[serde(default, deserialize_with = "or_default")]
    pub oom_killed: bool,
    /// Somebody asked for it.
    #[serde(default, deserialize_with = "or_default")]
    pub requested_stop: bool,
    /// It is started again.
    #[serde(default, deserialize_with = "or_default")]
    pub restarting: bool,
}

impl Event {
    /// How the process ended, where that is what happened.
    #[must_use]
    pub fn exit(&self) -> Option<ExitEvent> {
        let request = self.request.as_ref()?;
        request.exit_event.or_else(|| request.monitor.as_ref().and_then(|monitor| monitor.exit_event))
    }
}

/// A machine that should come to be.
#[derive(Clone, Debug, Serialize)]
pub struct CreateMachine<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where.
    pub region: &'a str,
    /// What it is made of.
    pub config: &'a MachineConfig,
    /// It is made and not started.
    pub skip_launch: bool,
    /// It begins cordoned.
    pub skip_service_registration: bool,
}

/// How a machine is asked to end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StopMachine {
    /// `SIGTERM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<&'static str>,
    /// How long it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
}

/// A lease that is asked for.
#[derive(Clone, Debug, Serialize)]
pub struct TakeLease<'a> {
    /// For people.
    pub description: &'a str,
    /// In seconds.
    pub ttl: u64,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Lease {
    /// Known to its holder.
    #[serde(default)]
    pub nonce: Option<String>,
    /// In seconds since 1970.
    pub expires_at: i64,
    /// Who holds it.
    #[serde(default, deserialize_with = "or_default")]
    pub owner: String,
}

/// A lease comes in an envelope, or bare: documentation and specification differ.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum LeaseAnswer {
    Envelope { data: Lease },
    Bare(Lease),
}

impl LeaseAnswer {
    pub(super) fn into_lease(self) -> Lease {
        match self {
            Self::Envelope { data } => data,
            Self::Bare(lease) => lease,
        }
    }
}

/// A value of metadata.
#[derive(Clone, Debug, Serialize)]
pub struct SetMetadata<'a> {
    /// Of the key in the path.
    pub value: &'a str,
}

/// What a start did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Started {
    /// What it did before.
    #[serde(default, deserialize_with = "or_default")]
    pub previous_state: String,
    /// It stands on another host now, under another address.
    #[serde(default, deserialize_with = "or_default")]
    pub migrated: bool,
}

/// A question for room.
#[derive(Clone, Debug, Serialize)]
pub struct AskPlacements<'a> {
    /// Whose machines.
    pub org_slug: &'a str,
    /// Regions, separated by commas.
    pub region: &'a str,
    /// Zero: how many would there be.
    pub count: u32,
    /// Of what size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute: Option<&'a Guest>,
}

/// Room in a region.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Placement {
    /// The region.
    #[serde(alias = "Region")]
    pub region: String,
    /// How many more machines.
    #[serde(alias = "Count", default, deserialize_with = "or_default")]
    pub count: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Placements {
    #[serde(alias = "Regions", default, deserialize_with = "or_default")]
    pub(super) regions: Vec<Placement>,
}

/// A region of the platform.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Region {
    /// Three letters.
    #[serde(alias = "Code")]
    pub code: String,
    /// For people.
    #[serde(alias = "Name", default, deserialize_with = "or_default")]
    pub name: String,
    /// It takes no new machines.
    #[serde(alias = "Deprecated", default, deserialize_with = "or_default")]
    pub deprecated: bool,
}

/// All regions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Regions {
    /// In no order.
    #[serde(alias = "Regions", default, deserialize_with = "or_default")]
    pub regions: Vec<Region>,
    /// The one next to the caller.
    #[serde(alias = "Nearest", default, deserialize_with = "or_default")]
    pub nearest: String,
}

/// What is said of an error: every part may be missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorBody {
    #[serde(deserialize_with = "or_default")]
    pub(super) error: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) message: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) code: String,
    pub(super) data: Option<BTreeMap<String, serde_json::Value>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_in_the_form_of_either_client() {
        let read = |json: serde_json::Value| serde_json::from_value::<Machine>(json).unwrap();
        let old =
            serde_json::json!({ "id": "148e4d2b", "state": "started", "instance_id": "01A", "events": null });
        let new = serde_json::json!({ "id": "148e4d2b", "state": "started", "instance_id": "01A", "version": "01A",
            "config": { "metadata": null, "services": [{ "internal_port": 1, "autostop": true }] }, "extra": {} });
        assert_eq!(read(old).generation(), "01A");
        assert_eq!(read(new).generation(), "01A");
        let frozen = serde_json::json!({ "id": "a", "state": "levitating", "host_status": "unreachable",
            "config": null, "incomplete_config": { "metadata": { "k": "v" } }, "events": [7, { "type": "exit" }] });
        let frozen = read(frozen);
        assert_eq!((frozen.metadata("k"), frozen.host_status), (Some("v"), HostStatus::Unreachable));
        assert_eq!((frozen.state, frozen.events.len()), (State::Unheard, 1));
    }

    #[test]
    fn a_lease_comes_with_or_without_its_envelope() {
        let lease = Lease { nonce: Some("0123456789ab".into()), expires_at: 7, owner: String::new() };
        for json in [
            r#"{"status":"success","data":{"nonce":"0123456789ab","expires_at":7,"version":"x"}}"#,
            r#"{"nonce":"0123456789ab","expires_at":7,"owner":null}"#,
        ] {
            let read: LeaseAnswer = serde_json::from_str(json).unwrap();
            assert_eq!(read.into_lease(), lease, "{json}");
        }
        assert!(serde_json::from_str::<LeaseAnswer>(r#"{"status":"success"}"#).is_err());
    }

    #[test]
    fn the_end_of_a_process_is_found_in_either_place() {
        for json in [
            r#"{"type":"exit","request":{"exit_event":{"exit_code":1,"restarting":true}}}"#,
            r#"{"type":"exit","request":{"MonitorEvent":{"exit_event":{"exit_code":1,"restarting":true}}}}"#,
        ] {
            let event: Event = serde_json::from_str(json).unwrap();
            let exit = event.exit().unwrap();
            assert_eq!((exit.exit_code, exit.restarting, exit.requested_stop), (1, true, false), "{json}");
        }
    }

    #[test]
    fn regions_are_read_in_either_case() {
        for json in [
            r#"{"regions":[{"code":"iad"}],"nearest":"iad"}"#,
            r#"{"Regions":[{"Code":"iad"}],"Nearest":"iad"}"#,
        ] {
            let regions: Regions = serde_json::from_str(json).unwrap();
            assert_eq!((regions.regions[0].code.as_str(), regions.nearest.as_str()), ("iad", "iad"));
        }
    }
}
