//! `[models]`, as used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Value;

use super::checker::Checker;
use super::file::{ModelsFile, PrecisionChoice, ProfileChoice, WorkloadChoice};
use super::secret::Secret;
use super::{Mistake, Origin, paths};
use crate::sealed::{ModelKey, Signer, Vault};

/// What is served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelsConfig {
    /// Folders of model folders; the first that holds a name wins.
    pub repositories: Vec<PathBuf>,
    /// The model of requests that name none; `None`: the first by name.
    pub default: Option<String>,
    /// What the load will be like.
    pub workload: WorkloadChoice,
    /// What models are served for.
    pub profile: ProfileChoice,
    /// By model name.
    pub profiles: BTreeMap<String, ProfileChoice>,
    /// How exactly matrices are kept.
    pub precision: PrecisionChoice,
    /// By model name.
    pub precisions: BTreeMap<String, PrecisionChoice>,
    /// The version that answers from a start on, by model name.
    pub versions: BTreeMap<String, u32>,
    /// Where releases outlive the node; `None`: they end with it.
    pub releases: Option<PathBuf>,
    /// What opens encrypted models, and who must have signed them.
    pub vault: Vault,
}

impl Checker<'_> {
    pub(super) fn models(
        &mut self,
        written: ModelsFile,
        added: &[PathBuf],
        needs_none: bool,
    ) -> Option<ModelsConfig> {
        let repositories = self.repositories(written.repositories, added, needs_none);
        let default = self.default_model(written.default, repositories.as_deref());
        let workload = self.present("models.workload", written.workload);
        let profile = self.present("models.profile", written.profile);
        let precision = self.present("models.precision", written.precision);
        let releases = self.present("models.releases", written.releases);
        let vault = self.vault(written.key, written.signers);
        Some(ModelsConfig {
            repositories: repositories?,
            default: default?,
            workload: workload?,
            profile: profile?,
            profiles: written.profiles.unwrap_or_default(),
            precision: precision?,
            precisions: written.precisions.unwrap_or_default(),
            versions: written.versions.unwrap_or_default(),
            releases: releases.map(|dir| (!dir.as_os_str().is_empty()).then_some(dir))?,
            vault: vault?,
        })
    }

    fn repositories(
        &mut self,
        written: Option<Vec<PathBuf>>,
        added: &[PathBuf],
        needs_none: bool,
    ) -> Option<Vec<PathBuf>> {
        const KEY: &str = "models.repositories";
        let written = self.present(KEY, written)?;
        let origin = self.origin(KEY);
        let found = paths::repositories(added, &written, &origin, needs_none);
        let flags = |_: &PathBuf| Origin::Flag("--models");
        let places = added.iter().map(flags).chain(written.iter().map(|_| origin.clone()));
        for (place, message) in places.zip(&found.refused).filter_map(|(p, m)| m.clone().map(|m| (p, m))) {
            self.mistakes.push(Mistake { origin: place, key: KEY.to_owned(), message });
        }
        if !added.is_empty() {
            let shown =
                found.folders.iter().map(|folder| Value::String(folder.display().to_string())).collect();
            self.replace(KEY, Value::Array(shown), Some(Origin::Flag("--models")));
        }
        Some(found.folders)
    }

    fn default_model(
        &mut self,
        written: Option<String>,
        repositories: Option<&[PathBuf]>,
    ) -> Option<Option<String>> {
        const KEY: &str = "models.default";
        let name = self.present(KEY, written)?;
        if name.is_empty() {
            return Some(None);
        }
        if repositories?.iter().any(|repository| repository.join(&name).is_dir()) {
            return Some(Some(name));
        }
        if matches!(self.origin(KEY), Origin::BuiltIn { .. }) {
            self.replace(KEY, Value::String(String::new()), None);
        } else {
            self.mistake(KEY, format!("no repository holds a model `{name}`"));
        }
        Some(None)
    }

    fn vault(&mut self, key: Option<Secret>, signers: Option<Vec<String>>) -> Option<Vault> {
        let key = self.present("models.key", key);
        let signers = self.present("models.signers", signers);
        let key = match key?.expose() {
            "" => None,
            text => {
                let parsed = ModelKey::parse(text);
                Some(self.require(parsed, "models.key", || "is not 64 hexadecimal digits".to_owned())?)
            }
        };
        let mut known = Vec::new();
        for text in signers? {
            let bad = || format!("`{text}` is not a public key of 64 hexadecimal digits");
            known.extend(self.require(Signer::parse(&text), "models.signers", bad));
        }
        Some(Vault::new(key, known))
    }
}
