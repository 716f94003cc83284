//! Who serves which model: a value that is never changed, only replaced.
//!
//! Knows names and versions; what is served is opaque to it.

use std::collections::{BTreeMap, HashMap};

use crate::request::ForecastError;

/// Names → versions → what serves them; `None` while it is being loaded for the first time.
#[derive(Debug)]
pub(crate) struct Table<S> {
    models: HashMap<String, BTreeMap<u32, Option<S>>>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { models: HashMap::new() }
    }
}

impl<S: Clone> Clone for Table<S> {
    fn clone(&self) -> Self {
        Self { models: self.models.clone() }
    }
}

impl<S: Clone> Table<S> {
    /// What serves this version, or the highest one that is ready.
    pub(crate) fn find(&self, model: &str, version: Option<u32>) -> Result<&S, ForecastError> {
        let versions = self.models.get(model).ok_or_else(|| ForecastError::UnknownModel(model.to_owned()))?;
        let found = match version {
            Some(version) => versions
                .get(&version)
                .ok_or_else(|| ForecastError::UnknownVersion { model: model.to_owned(), version })?
                .as_ref(),
            None => versions.values().rev().find_map(Option::as_ref),
        };
        found.ok_or_else(|| ForecastError::NotReady(model.to_owned()))
    }

    /// Everything that is ready, by name and version.
    pub(crate) fn ready(&self) -> Vec<S> {
        let mut names: Vec<_> = self.models.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        names.into_iter().flat_map(|(_, versions)| versions.values().flatten().cloned()).collect()
    }

    /// With a version that is on its way; what serves it already goes on serving.
    pub(crate) fn with_announced(mut self, model: &str, version: u32) -> Self {
        self.models.entry(model.to_owned()).or_default().entry(version).or_insert(None);
        self
    }

    /// Without a version that was on its way and will not come.
    pub(crate) fn without_announced(mut self, model: &str, version: u32) -> Self {
        if let Some(versions) = self.models.get_mut(model)
            && matches!(versions.get(&version), Some(None))
        {
            versions.remove(&version);
        }
        self.tidied()
    }

    /// With a version that is ready from now on.
    pub(crate) fn with(mut self, model: &str, version: u32, served: S) -> Self {
        self.models.entry(model.to_owned()).or_default().insert(version, Some(served));
        self
    }

    /// Without a version, or without all of them; and whether there was one.
    pub(crate) fn without(mut self, model: &str, version: Option<u32>) -> (Self, bool) {
        let removed = match (self.models.get_mut(model), version) {
            (Some(versions), Some(version)) => versions.remove(&version).flatten().is_some(),
            (Some(versions), None) => {
                let any = versions.values().any(Option::is_some);
                versions.clear();
                any
            }
            (None, _) => false,
        };
        (self.tidied(), removed)
    }

    fn tidied(mut self) -> Self {
        self.models.retain(|_, versions| !versions.is_empty());
        self
    }
}
