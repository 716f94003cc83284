//! Who serves which model: a value that is never changed, only replaced.
//!
//! Knows names and versions; what is served is opaque to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::release::Live;
use crate::request::ForecastError;

/// Names → versions → what serves them.
pub(crate) struct Table<S> {
    models: HashMap<String, Entry<S>>,
}

/// One model.
#[derive(Clone)]
struct Entry<S> {
    /// `None` while it is being loaded for the first time.
    versions: BTreeMap<u32, Option<S>>,
    /// Who answers requests that name no version; `None`: the highest. Kept while the model is away.
    release: Option<Arc<Live>>,
    /// The model was away, and not every version that the release names is back.
    rests: bool,
}

impl<S> Default for Entry<S> {
    fn default() -> Self {
        Self { versions: BTreeMap::new(), release: None, rests: false }
    }
}

impl<S> Entry<S> {
    fn ready(&self, version: u32) -> Option<&S> {
        self.versions.get(&version).and_then(Option::as_ref)
    }

    fn find(&self, model: &str, version: Option<u32>) -> Result<&S, ForecastError> {
        let found = match version {
            Some(version) => self
                .versions
                .get(&version)
                .ok_or_else(|| ForecastError::UnknownVersion { model: model.to_owned(), version })?
                .as_ref(),
            None => self.stable(),
        };
        found.ok_or_else(|| ForecastError::NotReady(model.to_owned()))
    }

    /// What callers are told of that name no version.
    fn stable(&self) -> Option<&S> {
        let stable = self.release.as_ref().and_then(|live| self.ready(live.release.stable));
        stable.or_else(|| self.versions.values().rev().find_map(Option::as_ref))
    }
}

/// Who answers a request.
pub(crate) struct Choice<'a, S> {
    pub(crate) served: &'a S,
    /// The release that chose it.
    pub(crate) by: Option<&'a Arc<Live>>,
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
    /// What serves this version; if none is named, the stable one of a release, or else the highest that is ready.
    pub(crate) fn find(&self, model: &str, version: Option<u32>) -> Result<&S, ForecastError> {
        self.entry(model)?.find(model, version)
    }

    /// As [`Table::find`], but whoever names no version is answered by the one that the release chooses.
    pub(crate) fn choose(
        &self,
        model: &str,
        version: Option<u32>,
        key: Option<u64>,
    ) -> Result<Choice<'_, S>, ForecastError> {
        let entry = self.entry(model)?;
        if let (None, Some(live), false) = (version, &entry.release, entry.rests)
            && let Some(served) = entry.ready(live.choose(key))
        {
            return Ok(Choice { served, by: Some(live) });
        }
        entry.find(model, version).map(|served| Choice { served, by: None })
    }

    fn entry(&self, model: &str) -> Result<&Entry<S>, ForecastError> {
        let entry = self.models.get(model).filter(|entry| !entry.versions.is_empty());
        entry.ok_or_else(|| ForecastError::UnknownModel(model.to_owned()))
    }

    /// Everything that is ready, by name and version.
    pub(crate) fn ready(&self) -> Vec<S> {
        let mut names: Vec<_> = self.models.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        names.into_iter().flat_map(|(_, entry)| entry.versions.values().flatten().cloned()).collect()
    }

    /// The versions of a model that are ready, in order.
    pub(crate) fn ready_of(&self, model: &str) -> Vec<(u32, S)> {
        let versions = self.models.get(model).into_iter().flat_map(|entry| &entry.versions);
        versions.filter_map(|(version, served)| Some((*version, served.clone()?))).collect()
    }

    /// The release of a model of which a version is ready.
    pub(crate) fn release(&self, model: &str) -> Option<&Arc<Live>> {
        let entry = self.models.get(model)?;
        entry.release.as_ref().filter(|_| entry.versions.values().any(Option::is_some))
    }

    /// The release of a model, also while that is away.
    pub(crate) fn kept_release(&self, model: &str) -> Option<&Arc<Live>> {
        self.models.get(model)?.release.as_ref()
    }

    /// Whether the release waits for versions that it names, since the model was away.
    pub(crate) fn rests(&self, model: &str) -> bool {
        self.models.get(model).is_some_and(|entry| entry.rests)
    }

    /// With a release that waits for its versions, or does not any more.
    pub(crate) fn with_rest(mut self, model: &str, rests: bool) -> Self {
        if let Some(entry) = self.models.get_mut(model) {
            entry.rests = rests;
        }
        self
    }

    /// Every release that waits for none of its versions, by name.
    pub(crate) fn releases<'a>(&'a self) -> Vec<(&'a str, &'a Arc<Live>)> {
        let release = |(name, entry): (&'a String, &'a Entry<S>)| {
            Some((name.as_str(), entry.release.as_ref().filter(|_| !entry.rests)?))
        };
        let mut releases: Vec<_> = self.models.iter().filter_map(release).collect();
        releases.sort_unstable_by_key(|(name, _)| *name);
        releases
    }

    /// With this release, or none, for a model that is there.
    pub(crate) fn with_release(mut self, model: &str, release: Option<Arc<Live>>) -> Self {
        if let Some(entry) = self.models.get_mut(model) {
            entry.release = release;
        }
        self
    }

    /// With the release of a model that is away, which waits for the versions that it names.
    pub(crate) fn with_awaited(mut self, model: &str, release: Arc<Live>) -> Self {
        let entry = self.models.entry(model.to_owned()).or_default();
        (entry.release, entry.rests) = (Some(release), true);
        self
    }

    /// Every release, also of models that are away.
    pub(crate) fn kept_releases(&self) -> impl Iterator<Item = (&str, &Arc<Live>)> {
        self.models.iter().filter_map(|(name, entry)| Some((name.as_str(), entry.release.as_ref()?)))
    }

    /// With a version that is on its way; what serves it already goes on serving.
    pub(crate) fn with_announced(mut self, model: &str, version: u32) -> Self {
        self.models.entry(model.to_owned()).or_default().versions.entry(version).or_insert(None);
        self
    }

    /// Without a version that was on its way and will not come.
    pub(crate) fn without_announced(mut self, model: &str, version: u32) -> Self {
        if let Some(entry) = self.models.get_mut(model)
            && matches!(entry.versions.get(&version), Some(None))
        {
            entry.versions.remove(&version);
        }
        self.tidied()
    }

    /// With a version that is ready from now on.
    pub(crate) fn with(mut self, model: &str, version: u32, served: S) -> Self {
        self.models.entry(model.to_owned()).or_default().versions.insert(version, Some(served));
        self
    }

    /// Without a version, or without all of them; and whether there was one.
    pub(crate) fn without(mut self, model: &str, version: Option<u32>) -> (Self, bool) {
        let removed = match (self.models.get_mut(model), version) {
            (Some(entry), Some(version)) => entry.versions.remove(&version).flatten().is_some(),
            (Some(entry), None) => {
                let any = entry.versions.values().any(Option::is_some);
                entry.versions.clear();
                any
            }
            (None, _) => false,
        };
        (self.tidied(), removed)
    }

    fn tidied(mut self) -> Self {
        self.models.retain(|_, entry| !entry.versions.is_empty() || entry.release.is_some());
        self
    }
}
