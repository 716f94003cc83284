//! `[scaler]` as written. The comments here are the schema's descriptions; bounds are checked by `scaler.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::secret::Secret;
use super::units::WrittenDuration;

/// How many machines there are: when, where, of which kind, and for how much.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ScalerFile {
    /// Does this node scale? Of several nodes that do, one acts at a time.
    pub(super) enabled: Option<bool>,
    /// Decide and explain, and change nothing.
    pub(super) dry_run: Option<bool>,
    /// How often it is decided anew.
    pub(super) evaluate_every: Option<WrittenDuration>,
    /// A report of a node that is older is none.
    pub(super) stale_after: Option<WrittenDuration>,
    /// How long fewer machines must have been enough before some go.
    pub(super) stabilisation: Option<WrittenDuration>,
    /// Share by which the demand must differ from the capacity before it changes anything, 0 to 1.
    pub(super) dead_band: Option<f64>,
    /// What a millisecond of the mean round trip is worth, per hour.
    pub(super) rtt_worth: Option<f64>,
    /// How long machines of a former release stay stopped.
    pub(super) rollback_for: Option<WrittenDuration>,
    /// How long the right to change a machine lasts unless it is renewed; more than `evaluate_every`.
    pub(super) hold: Option<WrittenDuration>,
    /// All machines together never cost more per hour; 0: no bound.
    pub(super) budget_per_hour: Option<f64>,
    /// All machines together never cost more in a calendar month, UTC; 0: no bound.
    pub(super) budget_per_month: Option<f64>,
    /// Folder of what is kept: costs and decisions, and the records of pools; made when the scaler is enabled.
    pub(super) dir: Option<PathBuf>,
    /// Costs and decisions that are older are dropped.
    pub(super) keep: Option<WrittenDuration>,
    /// Files of market calendars, besides those that come with the product.
    pub(super) calendars: Option<Vec<PathBuf>>,
    /// Model that forecasts the demand of the next hours from those of a week, where it does so better than their
    /// seasons; "": none.
    pub(super) demand_model: Option<String>,
    /// Machines of one purpose and size, by name.
    pub(super) groups: Option<BTreeMap<String, GroupFile>>,
    /// When a group should have more machines or fewer, by name.
    pub(super) rules: Option<BTreeMap<String, RuleFile>>,
    /// Where machines come from, by name.
    pub(super) pools: Option<BTreeMap<String, PoolFile>>,
    /// What machines cost, by provider, region and kind.
    pub(super) prices: Option<PricesFile>,
}

/// By provider, region and kind.
pub(super) type PricesFile = BTreeMap<String, BTreeMap<String, BTreeMap<String, PriceFile>>>;

/// Machines of one purpose and size.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct GroupFile {
    /// Is it in use? Left out: yes. The machines of one that is not are left alone.
    pub(super) enabled: Option<bool>,
    /// The pool that its machines come from.
    pub(super) pool: Option<String>,
    /// Who bills them: with `kind`, what `prices` are looked up by.
    pub(super) provider: Option<String>,
    /// Which machines of the provider they are.
    pub(super) kind: Option<String>,
    /// What they run, e.g. an image; left out: this version.
    pub(super) release: Option<String>,
    /// Never fewer that run, but for want of capacity or money; left out: none.
    pub(super) machines_min: Option<usize>,
    /// Never more, stopped ones included.
    pub(super) machines_max: Option<usize>,
    /// Stopped machines that are kept, to be started in seconds; left out: none.
    pub(super) warm: Option<usize>,
    /// Requests per second that one machine answers within its objective.
    pub(super) capacity: Option<f64>,
    /// How long a machine may take to finish what it has; left out: 30 s.
    pub(super) drain: Option<WrittenDuration>,
    /// From the decision to the first answer of a new machine, until that was measured; left out: 60 s.
    pub(super) ready_after: Option<WrittenDuration>,
    /// Calendars of the markets that its load follows; left out: none.
    pub(super) markets: Option<Vec<String>>,
    /// Where its machines may stand, by region; the first by name is preferred where nothing else decides.
    pub(super) regions: Option<BTreeMap<String, GroupRegionFile>>,
}

/// One region that machines of a group may stand in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct GroupRegionFile {
    /// Never more here; left out: as many as of the group.
    pub(super) machines_max: Option<usize>,
    /// Who bills them here; left out: as in other regions.
    pub(super) provider: Option<String>,
    /// Which machines they are here; left out: as in other regions.
    pub(super) kind: Option<String>,
}

/// When a group should have more machines or fewer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RuleFile {
    /// Is it in use? Left out: yes.
    pub(super) enabled: Option<bool>,
    /// The groups it is for; left out: all.
    pub(super) groups: Option<Vec<String>>,
    /// The higher acts before the lower; left out: 0.
    pub(super) priority: Option<i32>,
    /// It does not wait for the cooldowns of others. Left out: it does.
    pub(super) emergency: Option<bool>,
    /// What adds machines.
    pub(super) up: Option<ArmFile>,
    /// What takes machines away.
    pub(super) down: Option<ArmFile>,
}

/// One direction of a rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ArmFile {
    /// When, in the Common Expression Language, e.g. `utilisation > 0.85 && request_rate > 50.0`.
    pub(super) when: Option<String>,
    /// How many machines; left out: one.
    pub(super) step: Option<usize>,
    /// How long it rests after it has acted.
    pub(super) cooldown: Option<WrittenDuration>,
    /// How long its condition must hold before it acts; left out: no time.
    pub(super) r#for: Option<WrittenDuration>,
    /// It leads to no fewer machines than this; left out: none.
    pub(super) machines_min: Option<usize>,
    /// …and to no more than this.
    pub(super) machines_max: Option<usize>,
}

/// What a machine costs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct PriceFile {
    /// While it runs.
    pub(super) running_per_hour: Option<f64>,
    /// While it is stopped: its disk; left out: nothing.
    pub(super) stopped_per_hour: Option<f64>,
    /// The day on which that was read from the provider, e.g. `2026-11-28`.
    pub(super) read_on: Option<String>,
}

/// Where machines come from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct PoolFile {
    /// Is it in use? Left out: yes.
    pub(super) enabled: Option<bool>,
    /// What it is.
    pub(super) kind: Option<PoolChoice>,
    /// local, command: folder of its records; left out: one within `scaler.dir`. Scalers on several machines need one
    /// that they share.
    pub(super) dir: Option<PathBuf>,
    /// local: machines that may run at once.
    pub(super) machines_max: Option<usize>,
    /// local: what machines run; left out: this program, as a node with this node's configuration.
    pub(super) program: Option<PathBuf>,
    /// local: the arguments of `program`.
    pub(super) arguments: Option<Vec<String>>,
    /// local: variables that machines get besides those of this node. Never printed.
    pub(super) environment: Option<BTreeMap<String, String>>,
    /// command: program and arguments that print all machines.
    pub(super) list: Option<Vec<String>>,
    /// command: …make a machine.
    pub(super) create: Option<Vec<String>>,
    /// command: …start one.
    pub(super) start: Option<Vec<String>>,
    /// command: …ask one to end, and end it after its drain.
    pub(super) stop: Option<Vec<String>>,
    /// command: …take one away for good.
    pub(super) destroy: Option<Vec<String>>,
    /// command: …send one no new callers; left out: the cloud has no such thing.
    pub(super) cordon: Option<Vec<String>>,
    /// command: …send one callers again.
    pub(super) uncordon: Option<Vec<String>>,
    /// command: …print how many more there may be; left out: nobody knows.
    pub(super) room: Option<Vec<String>>,
    /// command, fly: for one call; left out: 60 s.
    pub(super) timeout: Option<WrittenDuration>,
    /// fly: the app whose machines they are.
    pub(super) app: Option<String>,
    /// fly: its organisation; left out: the platform is not asked for room.
    pub(super) organisation: Option<String>,
    /// fly: the token of the app, best given as `PEREGRINE_SCALER__POOLS__NAME__TOKEN`. Never printed.
    pub(super) token: Option<Secret>,
    /// fly: the JSON file of a machine's configuration, by group.
    pub(super) templates: Option<BTreeMap<String, PathBuf>>,
    /// simulated: how long a machine takes to be made; left out: 30 s.
    pub(super) create_takes: Option<WrittenDuration>,
    /// simulated: …to start; left out: 5 s.
    pub(super) start_takes: Option<WrittenDuration>,
    /// simulated: …to stop; left out: 5 s.
    pub(super) stop_takes: Option<WrittenDuration>,
}

/// What a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PoolChoice {
    /// Processes on this machine
    Local,
    /// Programs of the user's own
    Command,
    /// Fly's Machines API; it offers no GPU since 2026-08-01
    Fly,
    /// Machines that are none, to try rules with
    Simulated,
}
