//! Brings what the repositories hold into service, version by version.
//!
//! A version that cannot be is refused by name, and the others are served; only where nothing is left does a node not
//! start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use actix_web::rt::task::spawn_blocking;
use futures_util::stream::{self, Stream, StreamExt as _};
use parking_lot::Mutex;
use peregrine_actors::{ForecastError, LoadRefused, System};
use peregrine_shaders::{Forecaster, LoadError};
use tracing::{error, info};

use crate::backends;
use crate::catalog::{self, Entry};
use crate::sealed::Vault;

/// A version cannot be served; the operator mends its folder or takes it away.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be read.
    #[error("model folder {}: {source}", dir.display())]
    Folder {
        /// Its folder.
        dir: PathBuf,
        /// What is wrong with it.
        source: LoadError,
    },
    /// It was read, and an ensemble that names it could not be made of it.
    #[error("ensemble `{ensemble}`, which is served and names it, could not be made any more: {source}")]
    Ensemble {
        /// Name of the ensemble.
        ensemble: String,
        /// What is wrong with that then.
        source: LoadError,
    },
    /// It was read and not taken into service.
    #[error("model `{model}`: {source}")]
    Device {
        /// Its name.
        model: String,
        /// Why.
        source: LoadRefused,
    },
}

impl ModelError {
    /// Whether somebody has to mend the model, or start a build that knows its family: nothing is wrong with what devices
    /// had no time for.
    fn is_damage(&self) -> bool {
        match self {
            Self::Folder { .. } | Self::Ensemble { .. } => true,
            Self::Device { source, .. } => matches!(source, LoadRefused::Device { .. }),
        }
    }
}

/// Versions that are not served as they lie in the repositories, and why.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_version: Mutex<BTreeMap<(String, u32), Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    reason: String,
    /// The repository that it lies in.
    repository: PathBuf,
    /// See [`ModelError::is_damage`].
    is_damage: bool,
}

impl Refusals {
    /// Remembers that `entry` was refused.
    pub(crate) fn add(&self, entry: &Entry, error: &ModelError) {
        let mut above = entry.dir.ancestors().skip_while(|dir| !dir.ends_with(&entry.name)).skip(1);
        let repository = above.next().unwrap_or(&entry.dir).to_owned();
        let refusal = Refusal { reason: error.to_string(), repository, is_damage: error.is_damage() };
        self.by_version.lock().insert((entry.name.clone(), entry.version), refusal);
    }

    /// Forgets what was refused of a name: it is about to be read again.
    pub(crate) fn forget(&self, model: &str) {
        self.by_version.lock().retain(|(name, _), _| name != model);
    }

    /// Forgets what was refused of one version: it serves.
    pub(crate) fn forget_version(&self, model: &str, version: u32) {
        self.by_version.lock().remove(&(model.to_owned(), version));
    }

    /// Why this version was refused, folder and all; `None`: it was not.
    pub(crate) fn reason(&self, model: &str, version: u32) -> Option<String> {
        let by_version = self.by_version.lock();
        by_version.get(&(model.to_owned(), version)).map(|refusal| refusal.reason.clone())
    }

    /// Why the newest refused version of a name was.
    pub(crate) fn reason_of(&self, model: &str) -> Option<String> {
        let by_version = self.by_version.lock();
        let mut newest_first = by_version.iter().rev();
        newest_first.find(|((name, _), _)| name == model).map(|(_, refusal)| refusal.reason.clone())
    }

    /// What callers are told of a model that is not served because it was refused, or this version of it. Says which file is
    /// wrong and not where repositories lie. `None`: it was not.
    pub(crate) fn told(&self, model: &str, version: Option<u32>) -> Option<ForecastError> {
        let by_version = self.by_version.lock();
        let mut newest_first = by_version.iter().rev().filter(|((name, _), _)| name == model);
        let (_, refusal) = newest_first.find(|((_, of), _)| version.is_none_or(|version| version == *of))?;
        let reason = refusal.reason.replace(&format!("{}/", refusal.repository.display()), "");
        Some(ForecastError::Unavailable { reason: format!("model `{model}` cannot be loaded: {reason}") })
    }

    /// A sentence for each that somebody has to mend. Names no folder: whoever asks for health may hear it.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let by_version = self.by_version.lock();
        let damaged = by_version.iter().filter(|(_, refusal)| refusal.is_damage);
        damaged
            .map(|((name, version), _)| {
                format!("version {version} of model `{name}` cannot be loaded as it lies in its repository")
            })
            .collect()
    }
}

/// Reads `entries` and serves what can be served; ensembles are made of the `stable` versions of models that have a release.
///
/// # Errors
/// When none can be although there are some, and when devices do not answer; see [`ModelError`].
pub(crate) async fn bring_in(
    system: &System,
    entries: Vec<Entry>,
    vault: Vault,
    stable: BTreeMap<String, u32>,
) -> Result<Refusals, ModelError> {
    let refusals = Refusals::default();
    let (mut first, mut is_any_served) = (None, false);
    let mut loaded = pin!(load_all(entries, vault, stable));
    while let Some((entry, loaded)) = loaded.next().await {
        let served = match loaded {
            Ok(forecaster) => serve(system, vec![(entry.clone(), Arc::new(forecaster))]).await,
            Err(source) => Err(ModelError::Folder { dir: entry.dir.clone(), source }),
        };
        let refused = match served {
            Ok(()) => {
                info!(model = entry.name, version = entry.version, "model serves");
                is_any_served = true;
                continue;
            }
            Err(refused) => refused,
        };
        refusals.add(&entry, &refused);
        match &refused {
            damaged if damaged.is_damage() => {
                error!(
                    model = entry.name,
                    version = entry.version,
                    folder = %entry.dir.display(),
                    error = %damaged,
                    "model is refused and the others are served: mend its folder and load it, or take it away"
                );
                first.get_or_insert(refused);
            }
            _devices => return Err(refused),
        }
    }
    match first {
        Some(refused) if !is_any_served => Err(refused),
        _ => Ok(refusals),
    }
}

/// Takes all of `models` into service from one moment on, or none.
///
/// # Errors
/// See [`ModelError`].
pub(crate) async fn serve(system: &System, models: Vec<(Entry, Arc<Forecaster>)>) -> Result<(), ModelError> {
    let models = models.into_iter().map(|(entry, forecaster)| (forecaster, entry.version)).collect();
    let refused = |(model, source)| ModelError::Device { model, source };
    system.load_together(models).await.map_err(refused)
}

/// Reads and folds models on as many threads as there are cores; hands them out in order, few ahead of their use.
fn load_all(
    entries: Vec<Entry>,
    vault: Vault,
    stable: BTreeMap<String, u32>,
) -> impl Stream<Item = (Entry, Result<Forecaster, LoadError>)> {
    let stable = Arc::new(stable);
    let load = move |entry: Entry| {
        let (vault, stable) = (vault.clone(), Arc::clone(&stable));
        async move {
            let loading = spawn_blocking(move || {
                let loaded = catalog::load_choosing(&entry, &vault, &|member| stable.get(member).copied());
                (entry, loaded)
            });
            loading.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
        }
    };
    stream::iter(entries).map(load).buffered(backends::cores())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_until_its_model_is_read_again() {
        let refusals = Refusals::default();
        refusals.add(&entry("a", 1), &folder(LoadError::MissingTensor { name: "w".to_owned() }));
        refusals.add(&entry("a", 2), &folder(LoadError::MissingTensor { name: "v".to_owned() }));
        refusals.add(&entry("b", 1), &folder(LoadError::UnknownFamily { class: "New".to_owned() }));
        assert!(
            refusals.reason("a", 1).is_some_and(|reason| reason.contains("/here") && reason.contains("`w`"))
        );
        assert!(refusals.reason_of("a").is_some_and(|reason| reason.contains("`v`")));
        assert_eq!((refusals.reason("a", 3), refusals.reason_of("c")), (None, None));

        let complaints = refusals.complaints();
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(
            complaints[2].contains("version 1 of model `b`"),
            "of a family that this build does not know"
        );
        assert!(complaints[1].contains("version 2 of model `a`") && !complaints[1].contains("/here"));

        refusals.forget_version("a", 2);
        assert!(refusals.reason("a", 1).is_some() && refusals.reason("a", 2).is_none());
        refusals.forget("a");
        assert_eq!(refusals.reason("a", 1), None);
        assert!(refusals.reason("b", 1).is_some() && refusals.complaints().len() == 1);
        refusals.forget("b");

        let placed = Entry { dir: "/srv/desk/n/2".into(), ..entry("n", 2) };
        let source = LoadError::MissingTensor { name: "w".to_owned() };
        refusals.add(&placed, &ModelError::Folder { dir: placed.dir.clone(), source });
        let told = |version| refusals.told("n", version).map(|told| told.to_string());
        let want = "unavailable: model `n` cannot be loaded: model folder n/2: tensor `w` is missing";
        assert_eq!((told(None).as_deref(), told(Some(2)).as_deref()), (Some(want), Some(want)));
        assert_eq!((told(Some(1)), refusals.told("c", None)), (None, None));
        refusals.forget("n");

        let late = ModelError::Device { model: "a".to_owned(), source: LoadRefused::Deadline };
        refusals.add(&entry("a", 1), &late);
        assert!(refusals.reason("a", 1).is_some() && refusals.complaints().is_empty());
    }

    fn entry(name: &str, version: u32) -> Entry {
        Entry { name: name.to_owned(), version, dir: "/here".into() }
    }

    fn folder(source: LoadError) -> ModelError {
        ModelError::Folder { dir: "/here".into(), source }
    }
}
