//! Models of the repositories, taken into service and out of it while requests are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use peregrine_shaders::{Forecaster, LoadError, Precision};
use tracing::{info, warn};

use super::app::Shared;
use super::error::Refusal;
use crate::catalog::{self, Entry};
use crate::models::{self, ModelError};

/// How soon ensembles change after a release of one of their members, and what becomes of a release is on the disk.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Makes ensembles anew that name a model of which another version is the stable one now; a release on its way changes none.
/// Ends with the thread that runs it.
pub(crate) async fn follow_releases(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(FOLLOW_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = BTreeMap::new();
    loop {
        every.tick().await;
        let stable = shared.stable();
        if stable == known {
            continue;
        }
        let models: BTreeSet<&String> = known.keys().chain(stable.keys()).collect();
        for model in models.into_iter().filter(|model| known.get(*model) != stable.get(*model)) {
            shared.follow(model).await;
        }
        known = stable;
    }
}

/// Keeps what becomes of releases by themselves. Ends with the thread that runs it.
pub(crate) async fn keep_releases(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(FOLLOW_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shared.keep_releases().await.is_some() {
        every.tick().await;
    }
}

impl Shared {
    /// What the repositories hold, loaded or not.
    pub(crate) async fn repository(&self) -> Result<Vec<Entry>, Refusal> {
        let repositories = self.repositories();
        blocking(move || catalog::scan(&repositories).map_err(|error| Refusal::Repository(error.to_string())))
            .await
    }

    /// Loads every version of `name` that the repositories hold; a served one answers until the new one does, and one that
    /// cannot be loaded keeps none of the others from it. Those that can serve from one moment on, so that who names no
    /// version is not answered by one on the way to the newest. A version whose folder is gone is unloaded where another one
    /// answers, as it would be after a restart. Ensembles that name it are made anew and change with it in the same moment;
    /// where one of them cannot be, nothing changes.
    pub(crate) async fn load(&self, name: &str) -> Result<(), Refusal> {
        if !self.config().computes() {
            return Err(match self.not_served(name, None) {
                elsewhere @ Refusal::ServedElsewhere { .. } => elsewhere,
                _ => Refusal::ComputesNothing,
            });
        }
        // Of two at once the later would publish an ensemble of what it read first.
        let _one_at_a_time = self.loads.lock().await;
        let (entries, others): (Vec<Entry>, Vec<Entry>) =
            self.repository().await?.into_iter().partition(|entry| entry.name == name);
        self.refusals.forget(name);
        if entries.is_empty() {
            return Err(Refusal::NotInRepository(name.chars().take(128).collect()));
        }
        let held: BTreeSet<u32> = entries.iter().map(|entry| entry.version).collect();
        let (mut first, mut read) = (None, Vec::new());
        for entry in entries {
            match self.read(entry).await? {
                (entry, Ok(forecaster)) => read.push((entry, Arc::new(forecaster))),
                (entry, Err(source)) => {
                    let refused = ModelError::Folder { dir: entry.dir.clone(), source };
                    self.refusals.add(&entry, &refused);
                    first.get_or_insert(Refusal::Load(refused.to_string()));
                }
            }
        }
        let along = if read.is_empty() { Ok(Vec::new()) } else { self.along(name, others).await? };
        let along = along.map_err(|refused| self.refused(&entries_of(&read), &refused))?;
        let ensembles = entries_of(&along);
        let together = read.iter().cloned().chain(along).collect();
        match models::serve(&self.system, together).await {
            Ok(()) => self.serves_with(name, ensembles),
            Err(refused) if !ensembles.is_empty() => return Err(self.refused(&entries_of(&read), &refused)),
            Err(_one_of_them) => {
                for one in read {
                    let version = one.0.clone();
                    if let Err(refused) = models::serve(&self.system, vec![one]).await {
                        let refused = self.refused(&[version], &refused);
                        first.get_or_insert(refused);
                    }
                }
            }
        }
        self.unload_but(name, &held).await;
        self.system.loaded(name).await;
        first.map_or(Ok(()), Err)
    }

    /// Ensembles serve that were made anew for the sake of `member`.
    fn serves_with(&self, member: &str, ensembles: Vec<Entry>) {
        for Entry { name: ensemble, version, .. } in ensembles {
            info!(ensemble, version, member, "ensemble serves with its member");
            self.refusals.forget_version(&ensemble, version);
        }
    }

    /// Keeps how releases stand, if that is asked for, and says whether they are kept. What an operator has ordered is before
    /// it is answered.
    pub(crate) async fn keep_releases(&self) -> Option<bool> {
        match &self.releases {
            Some(releases) => Some(releases.keep(&self.system).await),
            None => None,
        }
    }

    /// By name, the version that all else of a release is measured by. Models without a release are left out.
    fn stable(&self) -> BTreeMap<String, u32> {
        let releases = self.system.releases().into_iter();
        releases.map(|status| (status.model, status.release.stable)).collect()
    }

    /// Takes ensembles into service whose member has another stable version than they were made of. Those that cannot be
    /// made so answer as they did.
    async fn follow(&self, member: &str) {
        let _one_at_a_time = self.loads.lock().await;
        let along = match self.repository().await {
            Ok(mut entries) => {
                entries.retain(|entry| entry.name != member);
                self.along(member, entries).await
            }
            Err(refusal) => Err(refusal),
        };
        let along = match along {
            Ok(Ok(along)) => along,
            Ok(Err(refused)) => return warn!(member, error = %refused, "ensembles stay as they were"),
            Err(refusal) => return warn!(member, error = %refusal, "ensembles stay as they were"),
        };
        if along.is_empty() {
            return;
        }
        let ensembles = entries_of(&along);
        match models::serve(&self.system, along).await {
            Ok(()) => self.serves_with(member, ensembles),
            Err(refused) => warn!(member, error = %refused, "ensembles stay as they were"),
        }
    }

    /// The ensembles among `others` that name `member`, made of what lies in the repositories now: those that are served
    /// and would change by it, and those that were refused and need not be any more.
    async fn along(
        &self,
        member: &str,
        others: Vec<Entry>,
    ) -> Result<Result<Vec<(Entry, Arc<Forecaster>)>, ModelError>, Refusal> {
        let (vault, member) = (self.config().models.vault.clone(), member.to_owned());
        let naming = move || {
            // One that cannot be read names nobody: what serves of it goes on.
            let names = |entry: &Entry| Forecaster::members(&entry.dir, &vault).unwrap_or_default();
            Ok(others.into_iter().filter(|entry| names(entry).contains(&member)).collect::<Vec<Entry>>())
        };
        let mut along = Vec::new();
        for entry in blocking(naming).await? {
            let served = self.system.find(&entry.name, Some(entry.version)).ok();
            let was_refused = self.refusals.reason(&entry.name, entry.version).is_some();
            if served.is_none() && !was_refused {
                continue;
            }
            let (entry, made) = self.read(entry).await?;
            match (made, served) {
                (Ok(made), Some(served)) if Precision::of_digest(&served.digest).0 == made.digest() => {}
                (Ok(made), _) => along.push((entry, Arc::new(made))),
                (Err(source), Some(_)) => {
                    return Ok(Err(ModelError::Ensemble { ensemble: entry.name, source }));
                }
                (Err(source), None) => {
                    let refused = ModelError::Folder { dir: entry.dir.clone(), source };
                    self.refusals.add(&entry, &refused);
                }
            }
        }
        Ok(Ok(along))
    }

    /// Remembers that `entries` were refused together.
    fn refused(&self, entries: &[Entry], error: &ModelError) -> Refusal {
        entries.iter().for_each(|entry| self.refusals.add(entry, error));
        Refusal::Load(error.to_string())
    }

    async fn read(&self, entry: Entry) -> Result<(Entry, Result<Forecaster, LoadError>), Refusal> {
        let (vault, stable) = (self.config().models.vault.clone(), self.stable());
        let load = move || {
            let loaded = catalog::load_choosing(&entry, &vault, &|member| stable.get(member).copied());
            Ok((entry, loaded))
        };
        blocking(load).await
    }

    /// Takes a model out of service, or one version of it. One that was refused serves nobody already: it is complained of no
    /// more until it is read again.
    pub(crate) async fn unload(&self, name: &str, version: Option<u32>) -> Result<(), Refusal> {
        let was_refused = self.refusals.told(name, version).is_some();
        match version {
            Some(version) => self.refusals.forget_version(name, version),
            None => self.refusals.forget(name),
        }
        let served = self.system.unload(name, version).await;
        if served || was_refused { Ok(()) } else { Err(self.not_served(name, version)) }
    }

    /// Takes versions of `name` that no repository holds out of service, unless nothing would be left.
    async fn unload_but(&self, name: &str, held: &BTreeSet<u32>) {
        let served = self.system.models().into_iter().filter(|model| model.spec.name == name);
        let (stay, gone): (Vec<u32>, Vec<u32>) =
            served.map(|model| model.version).partition(|version| held.contains(version));
        for version in gone {
            if stay.is_empty() {
                warn!(
                    model = name,
                    version, "no repository holds this version any more, and no other serves"
                );
            } else if self.system.unload(name, Some(version)).await {
                warn!(model = name, version, "unloaded: no repository holds this version any more");
            }
        }
    }

    /// Where models are looked for.
    pub(crate) fn repositories(&self) -> Vec<PathBuf> {
        self.config().models.repositories.clone()
    }
}

fn entries_of(read: &[(Entry, Arc<Forecaster>)]) -> Vec<Entry> {
    read.iter().map(|(entry, _)| entry.clone()).collect()
}

/// Files are read off the workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    web::block(work).await.map_err(|cancelled| Refusal::Repository(cancelled.to_string()))?
}
