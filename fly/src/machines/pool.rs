//! The pool of machines that a cluster has on Fly.
//!
//! A machine is the cluster's by a word in its metadata, and has its slot for a name: names are unique among the live
//! machines of an app, so a slot cannot have two, whoever asks for it and however often. An app has one cluster.
//!
//! Nothing is repeated here. What may have happened or not is said so, and the next list shows it.

mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peregrine_scaler::Timestamp;
use peregrine_scaler::fleet::{self, GroupSpec, MachineId, Slot};
use peregrine_scaler::pool::{Change, Hold, MachinePool, Order, PoolError};

use super::client::Client;
use super::config::{ConfigError, MachineConfig, STOP_TIMEOUT_MAX, StopConfig};
use super::error::ApiError;
use super::lenient::GoDuration;
use super::rate::{Action, Limiter};
use super::wire::{CreateMachine, HostStatus, Machine, State, StopMachine};

/// Metadata: the cluster that a machine belongs to.
pub const CLUSTER_KEY: &str = "peregrine_cluster";
/// Metadata: its slot.
pub const SLOT_KEY: &str = "peregrine_slot";
/// Metadata: what it runs.
pub const RELEASE_KEY: &str = "peregrine_release";
/// What a machine is sent that is to end.
const STOP_SIGNAL: &str = "SIGTERM";

/// What machines of a group are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The group.
    pub group: String,
    /// The one word for it.
    pub release: String,
    /// What the platform is asked for.
    pub config: MachineConfig,
    /// How long a machine has to end.
    pub drain: Duration,
}

/// Whose machines they are, and what they are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// The cluster.
    pub cluster: String,
    /// The organisation; without it the platform is not asked for room.
    pub org: Option<String>,
    /// One for each group and release.
    pub templates: Vec<Template>,
}

/// Machines on Fly.
pub struct FlyPool {
    client: Client,
    spec: PoolSpec,
    limiter: Limiter,
    /// As they were listed last.
    seen: BTreeMap<MachineId, (Slot, String)>,
    strays: Vec<String>,
}

impl FlyPool {
    /// A pool; nothing is asked yet.
    ///
    /// # Errors
    /// [`ConfigError`], with the group whose template has the mistake.
    pub fn new(client: Client, mut spec: PoolSpec) -> Result<Self, (String, ConfigError)> {
        for template in &mut spec.templates {
            complete(template, &spec.cluster).map_err(|error| (template.group.clone(), error))?;
        }
        Ok(Self { client, spec, limiter: Limiter::default(), seen: BTreeMap::new(), strays: Vec::new() })
    }

    /// Machines of the cluster whose name is no slot, as of the last list: somebody made them by hand.
    #[must_use]
    pub fn strays(&self) -> &[String] {
        &self.strays
    }

    fn template(&self, group: &str, release: Option<&str>) -> Option<&Template> {
        let fits = |template: &&Template| {
            template.group == group && release.is_none_or(|release| release == template.release)
        };
        self.spec.templates.iter().find(fits)
    }

    fn is_ours(&self, machine: &Machine) -> bool {
        match machine.metadata(CLUSTER_KEY) {
            Some(cluster) => cluster == self.spec.cluster,
            // Its host cannot be reached, and with it went its metadata. Its name tells: were it not listed, it
            // would be made once more, and refused for its name.
            None => {
                let of_a_group = |slot: Slot| self.template(&slot.group, None).is_some();
                machine.host_status == HostStatus::Unreachable && machine.name.parse().is_ok_and(of_a_group)
            }
        }
    }

    fn spend(&mut self, action: Action, machine: &str, now: Timestamp) -> Result<(), PoolError> {
        if self.limiter.take(action, machine, now) { Ok(()) } else { Err(PoolError::RateLimited) }
    }

    /// Makes a call that the limits allow.
    fn call<T>(
        &mut self,
        action: Action,
        machine: &str,
        now: Timestamp,
        call: impl FnOnce(&mut Client) -> Result<T, ApiError>,
    ) -> Result<Result<T, ApiError>, PoolError> {
        self.spend(action, machine, now)?;
        let result = call(&mut self.client);
        if matches!(result, Err(ApiError::RateLimited)) {
            self.limiter.drain(action, machine, now);
        }
        Ok(result)
    }

    /// What a machine of that release is made of: as its template says, or, where the release is an image, as the
    /// group's with that image.
    fn config_of(&self, group: &str, release: &str) -> Result<MachineConfig, PoolError> {
        if let Some(template) = self.template(group, Some(release)) {
            return Ok(template.config.clone());
        }
        let is_image = release.contains('/') && (release.contains(':') || release.contains('@'));
        match self.template(group, None).filter(|_| is_image) {
            Some(template) => {
                let mut config = template.config.clone();
                release.clone_into(&mut config.image);
                config.metadata.insert(RELEASE_KEY.to_owned(), release.to_owned());
                Ok(config)
            }
            None => Err(PoolError::Refused(format!(
                "release `{release}` is no image, as registry/name:tag, and group {group} has no template of it"
            ))),
        }
    }

    fn drain_of(&self, machine: &MachineId) -> Option<Duration> {
        let (slot, release) = self.seen.get(machine)?;
        self.template(&slot.group, Some(release))
            .or_else(|| self.template(&slot.group, None))
            .map(|template| template.drain)
    }

    fn start(&mut self, machine: &MachineId, nonce: &str, now: Timestamp) -> Result<(), PoolError> {
        let started =
            self.call(Action::Start, &machine.0, now, |client| client.start(machine, Some(nonce)))?;
        match started {
            // An answer that cannot be read still was a success, and the next list shows what came of it.
            Ok(_) | Err(ApiError::Nonsense(_)) => Ok(()),
            Err(ApiError::WrongState(state)) => match State::from_word(&state) {
                State::Started | State::Starting | State::Creating => Ok(()),
                state if state.is_terminal() => Err(PoolError::Gone),
                _ => Err(PoolError::WrongState(state)),
            },
            // The machine stands in that region; another one may stand elsewhere.
            Err(ApiError::NoCapacity) => Err(PoolError::HostFull),
            Err(error) => Err(changed(error, now)),
        }
    }

    fn destroy(&mut self, machine: &MachineId, nonce: &str, now: Timestamp) -> Result<(), PoolError> {
        // What the platform does to one that runs is not documented, so it is not asked to.
        let seen = self.call(Action::Get, &machine.0, now, |client| client.get(machine))?;
        let seen = seen.map_err(|error| changed_by_read(error, now))?;
        if seen.host_status == HostStatus::Unreachable {
            return Err(PoolError::WrongState("its host cannot be reached".to_owned()));
        }
        match seen.state {
            State::Created | State::Stopped | State::Suspended | State::Failed | State::LaunchFailed => {}
            State::Destroying => return Ok(()),
            state if state.is_terminal() => return Err(PoolError::Gone),
            state => return Err(PoolError::WrongState(states::seen(&state).name().to_owned())),
        }
        let destroyed =
            self.call(Action::Destroy, &machine.0, now, |client| client.destroy(machine, Some(nonce)))?;
        destroyed.map_err(|error| changed(error, now))
    }
}

/// Adds what every machine of the pool has, and checks the whole.
fn complete(template: &mut Template, cluster: &str) -> Result<(), ConfigError> {
    if template.drain > STOP_TIMEOUT_MAX {
        return Err(ConfigError::DrainTooLong(template.drain));
    }
    let config = &mut template.config;
    if let Some(key) = config.metadata.keys().find(|key| key.starts_with("peregrine_")) {
        return Err(ConfigError::ReservedMetadata(key.clone()));
    }
    config.check()?;
    config.metadata.insert(CLUSTER_KEY.to_owned(), cluster.to_owned());
    config.metadata.insert(RELEASE_KEY.to_owned(), template.release.clone());
    // Also when somebody else stops it, or its host does.
    config.stop_config =
        Some(StopConfig { timeout: Some(GoDuration(template.drain)), signal: Some(STOP_SIGNAL.to_owned()) });
    Ok(())
}

/// A failed call that changes nothing.
fn read(error: ApiError) -> PoolError {
    match error {
        ApiError::RateLimited => PoolError::RateLimited,
        ApiError::Unauthenticated | ApiError::Forbidden | ApiError::NoApp | ApiError::Refused { .. } => {
            PoolError::Refused(error.to_string())
        }
        error => PoolError::Unavailable(error.to_string()),
    }
}

fn changed_by_read(error: ApiError, now: Timestamp) -> PoolError {
    match error {
        ApiError::NoMachine => PoolError::Gone,
        error if error.is_undecided() => PoolError::Unavailable(error.to_string()),
        error => changed(error, now),
    }
}

/// A failed call that would have changed a machine.
fn changed(error: ApiError, now: Timestamp) -> PoolError {
    match error {
        ApiError::NoMachine => PoolError::Gone,
        ApiError::Leased { until } => PoolError::Held { until: until.unwrap_or(now) },
        ApiError::HostFull => PoolError::HostFull,
        ApiError::Conflict => PoolError::WrongState(error.to_string()),
        ApiError::WrongState(state) if State::from_word(&state).is_terminal() => PoolError::Gone,
        ApiError::WrongState(state) => PoolError::WrongState(state),
        error if error.is_undecided() => PoolError::Ambiguous(error.to_string()),
        error => read(error),
    }
}

impl MachinePool for FlyPool {
    fn list(&mut self, now: Timestamp) -> Result<Vec<fleet::Machine>, PoolError> {
        // Not by metadata: a machine whose host cannot be reached may have none at the moment.
        let all = self.call(Action::List, "", now, |client| client.list(None))?.map_err(read)?;
        let (mut listed, mut strays) = (Vec::new(), Vec::new());
        for machine in all.into_iter().filter(|machine| self.is_ours(machine)) {
            if machine.state.is_terminal() {
                continue;
            }
            match machine.name.parse() {
                Ok(slot) => {
                    let known =
                        self.seen.get(&MachineId(machine.id.clone())).map(|(_, release)| release.clone());
                    listed.push(shown(machine, slot, known, now));
                }
                Err(_) => strays.push(machine.id),
            }
        }
        let seen =
            |machine: &fleet::Machine| (machine.id.clone(), (machine.slot.clone(), machine.release.clone()));
        self.seen = listed.iter().map(seen).collect();
        self.strays = strays;
        Ok(listed)
    }

    fn room(&mut self, group: &GroupSpec, now: Timestamp) -> Result<Vec<(String, u32)>, PoolError> {
        let Some(org) = self.spec.org.clone() else { return Ok(Vec::new()) };
        let regions: Vec<&str> = group.places.iter().map(|place| place.region.as_str()).collect();
        let guest = self.template(&group.name, None).and_then(|template| template.config.guest());
        let answer = self
            .call(Action::Placements, "", now, |client| client.placements(&org, &regions, guest.as_ref()))?;
        match answer {
            Ok(placements) => {
                let mut named = BTreeSet::new();
                let ours = placements.into_iter().filter(|placement| {
                    group.place(&placement.region).is_some() && named.insert(placement.region.clone())
                });
                Ok(ours.map(|placement| (placement.region, placement.count)).collect())
            }
            // A token of one app may not be allowed to ask about its organisation: then nobody can say.
            Err(ApiError::Forbidden | ApiError::NoMachine | ApiError::NoApp) => Ok(Vec::new()),
            Err(error) => Err(read(error)),
        }
    }

    fn create(&mut self, order: &Order, now: Timestamp) -> Result<MachineId, PoolError> {
        let name = order.slot.to_string();
        let mut config = self.config_of(&order.slot.group, &order.release)?;
        config.metadata.insert(SLOT_KEY.to_owned(), name.clone());
        let wanted = CreateMachine {
            name: &name,
            region: &order.region,
            config: &config,
            skip_launch: !order.launch,
            skip_service_registration: false,
        };
        let created = self.call(Action::Create, "", now, |client| client.create(&wanted))?;
        match created {
            Ok(machine) => {
                let id = MachineId(machine.id);
                self.seen.insert(id.clone(), (order.slot.clone(), order.release.clone()));
                Ok(id)
            }
            Err(ApiError::NameTaken) => Err(PoolError::SlotTaken),
            // There is no machine yet, so another host is another region.
            Err(ApiError::NoCapacity | ApiError::HostFull) => {
                Err(PoolError::NoCapacity { region: order.region.clone() })
            }
            // Something there is not: the app, or what the configuration names.
            Err(ApiError::NoMachine | ApiError::WrongState(_)) => {
                Err(PoolError::Refused("the platform does not find what the machine needs".to_owned()))
            }
            Err(error) => Err(changed(error, now)),
        }
    }

    fn hold(
        &mut self,
        machine: &MachineId,
        held: Option<&Hold>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Hold, PoolError> {
        let ttl_seconds = ttl.as_millis().div_ceil(1000).max(1);
        let ttl_seconds = u64::try_from(ttl_seconds).unwrap_or(u64::MAX);
        let nonce = held.map(|hold| hold.nonce.as_str());
        let mut taken =
            self.call(Action::Lease, &machine.0, now, |client| client.lease(machine, ttl_seconds, nonce))?;
        if nonce.is_some() && matches!(taken, Err(ApiError::NoLease)) {
            // It has run out, and nobody else has taken one.
            taken =
                self.call(Action::Lease, &machine.0, now, |client| client.lease(machine, ttl_seconds, None))?;
        }
        let lease = taken.map_err(|error| changed(error, now))?;
        let nonce = lease.nonce.or_else(|| nonce.map(str::to_owned));
        let nonce = nonce.ok_or_else(|| PoolError::Ambiguous("the lease has no nonce".to_owned()))?;
        // By our own clock and from before the call: the platform's clock may go otherwise, its lease began later.
        let until = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        Ok(Hold { nonce, until })
    }

    fn release(&mut self, machine: &MachineId, hold: &Hold, now: Timestamp) -> Result<(), PoolError> {
        let released =
            self.call(Action::Release, &machine.0, now, |client| client.release(machine, &hold.nonce))?;
        match released {
            Ok(()) | Err(ApiError::NoLease | ApiError::NoMachine | ApiError::Leased { .. }) => Ok(()),
            Err(error) => Err(changed(error, now)),
        }
    }

    fn change(
        &mut self,
        machine: &MachineId,
        change: Change,
        hold: &Hold,
        now: Timestamp,
    ) -> Result<(), PoolError> {
        // Without a lease the platform guards nothing, so one that has run out is as good as another's.
        if hold.until <= now {
            return Err(PoolError::Held { until: now });
        }
        let (id, nonce) = (machine.0.as_str(), hold.nonce.as_str());
        let done = match change {
            Change::Start => return self.start(machine, nonce, now),
            Change::Destroy => return self.destroy(machine, nonce, now),
            Change::Cordon => {
                self.call(Action::Cordon, id, now, |client| client.cordon(machine, Some(nonce)))?
            }
            Change::Uncordon => {
                self.call(Action::Uncordon, id, now, |client| client.uncordon(machine, Some(nonce)))?
            }
            Change::Stop => {
                // Unknown to us, it has the time that it was made with.
                let timeout = self.drain_of(machine).map(GoDuration);
                let how = StopMachine { signal: Some(STOP_SIGNAL), timeout };
                self.call(Action::Stop, id, now, |client| client.stop(machine, &how, Some(nonce)))?
            }
        };
        done.map_err(|error| changed(error, now))
    }
}

/// `known`: what it ran when it was listed last, should it not be said now.
fn shown(machine: Machine, slot: Slot, known: Option<String>, now: Timestamp) -> fleet::Machine {
    let release = machine.metadata(RELEASE_KEY).map(str::to_owned).or(known);
    fleet::Machine {
        state: states::of(&machine, now),
        slot,
        cordoned: machine.cordoned,
        release: release.unwrap_or_default(),
        created_at: machine.created().unwrap_or(Timestamp::UNIX_EPOCH),
        region: machine.region,
        id: MachineId(machine.id),
    }
}
