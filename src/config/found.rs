//! What a configuration names, beside what there is: columns of the data, models of the repositories.
//!
//! What the built-in text names is not asked about: it is of the models and data that ship.

use std::collections::BTreeMap;

use peregrine_shaders::ModelSpec;

use super::layers::{key_of, origin_of, path_of};
use super::{Mistake, Origin, Resolved};

impl Resolved {
    /// Columns that are named and that the data do not have.
    #[must_use]
    pub fn unknown_columns(&self, columns: &[String]) -> Vec<Mistake> {
        self.named(
            |path| matches!(path, ["data" | "demo", "column"] | ["data", "columns", _]).then_some(path.len()),
            // An empty `demo.column` is that of the data.
            |path, leaf| leaf.filter(|text| !text.is_empty() || path.first() == Some(&"data")),
            |column| {
                (!columns.iter().any(|known| known == column))
                    .then(|| unknown("the data have no column", column, columns))
            },
        )
    }

    /// That the value of a key does not fit what it names.
    #[must_use]
    pub(crate) fn mistake(&self, key: &str, message: String) -> Mistake {
        Mistake { origin: origin_of(self.leaves(), key), key: key.to_owned(), message }
    }

    /// Whether the replayed column has a name of its own.
    pub(crate) fn names_demo_column(&self) -> bool {
        let leaf = self.leaves().get(&path_of("demo.column"));
        leaf.and_then(|leaf| leaf.value.as_str()).is_some_and(|column| !column.is_empty())
    }

    /// Models that are named and that no repository of this machine holds; another node may.
    #[must_use]
    pub fn unknown_models(&self, models: &[String]) -> Vec<Mistake> {
        self.named(
            |path| match path {
                ["models", "profiles" | "precisions" | "versions", _]
                | ["data", "columns", _]
                | ["backend", "fallbacks", _]
                | ["series", "always", _, ..] => Some(3),
                ["placement", _, ..] => Some(2),
                _ => None,
            },
            |path, _| path.last().copied(),
            |model| {
                (!models.iter().any(|known| known == model))
                    .then(|| unknown("no repository holds a model", model, models))
            },
        )
    }

    /// Versions that are to answer, of models that the repositories `held`, and that are not among those.
    pub(crate) fn unknown_versions<'a>(
        &self,
        held: impl Iterator<Item = (&'a str, u32)> + Clone,
    ) -> Vec<Mistake> {
        let mistake = |(model, version): (&String, &u32)| {
            let of_model = held.clone().filter(|(name, _)| name == model);
            let known: Vec<u32> = of_model.map(|(_, version)| version).collect();
            let there = match known.as_slice() {
                [] => return None,
                known if known.contains(version) => return None,
                [one] => format!("there is {one}"),
                many => {
                    format!("there are {}", many.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
                }
            };
            let message = format!("no repository holds version {version} of it: {there}");
            Some(self.mistake(&key_of(&["models", "versions", model]), message))
        };
        self.config.models.versions.iter().filter_map(mistake).collect()
    }

    /// Keys by which less of a series is kept than one of these models needs to follow it.
    #[must_use]
    pub fn too_short<'a>(&self, models: impl IntoIterator<Item = &'a ModelSpec>) -> Vec<Mistake> {
        let followers = models.into_iter().filter(|spec| spec.series == 1);
        let Some(ModelSpec { name, window, .. }) = followers.max_by_key(|spec| spec.window) else {
            return Vec::new();
        };
        let journaled = self.config.journal.as_ref().map(|journal| journal.capacity as usize);
        let keys = [("series.history", Some(self.config.series.history)), ("journal.capacity", journaled)];
        let short = keys.into_iter().filter_map(|(key, kept)| {
            let kept = kept.filter(|kept| kept < window)?;
            Some(self.mistake(key, format!("{kept} is less than the window of model `{name}`, {window}")))
        });
        let mut mistakes: Vec<Mistake> = short.collect();
        mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
        mistakes
    }

    /// The first mistake at each key, in the order of the text: `depth` of a path if it is of interest, the name that it
    /// or its value has, and what is wrong with that.
    fn named(
        &self,
        depth: impl Fn(&[&str]) -> Option<usize>,
        name: impl for<'a> Fn(&[&'a str], Option<&'a str>) -> Option<&'a str>,
        wrong: impl Fn(&str) -> Option<String>,
    ) -> Vec<Mistake> {
        let mut found = BTreeMap::new();
        for (path, leaf) in self.leaves() {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let Some(path) = depth(&path).and_then(|depth| path.get(..depth)) else { continue };
            let name =
                name(path, leaf.value.as_str()).filter(|_| !matches!(leaf.origin, Origin::BuiltIn { .. }));
            if let Some(message) = name.and_then(&wrong) {
                let mistake = Mistake { origin: leaf.origin.clone(), key: key_of(path), message };
                found.entry(mistake.key.clone()).or_insert(mistake);
            }
        }
        let mut mistakes: Vec<Mistake> = found.into_values().collect();
        mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
        mistakes
    }
}

fn unknown(what: &str, name: &str, known: &[String]) -> String {
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    let known =
        if known.is_empty() { "there is none".to_owned() } else { format!("there are {}", known.join(", ")) };
    format!("{what} `{name}`: {known}")
}
