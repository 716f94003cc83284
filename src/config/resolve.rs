//! From as written to as used: bounds, addresses, folders; every mistake is collected, none hides another.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use toml::Value;

use super::checker::Checker;
use super::file::ConfigFile;
use super::layers::{Leaves, Sources, add_posted, assemble, gather, path_of};
use super::{BackendChoice, Config, ConfigError, Mistake, Origin};

/// A checked configuration that remembers where each value came from.
#[derive(Clone)]
pub struct Resolved {
    /// As used.
    pub config: Config,
    leaves: Leaves,
    sources: Sources,
}

/// Without the written values, among which a secret may be.
impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Reads, merges and checks all layers.
///
/// # Errors
/// Every mistake of every layer.
pub fn resolve(sources: &Sources) -> Result<Resolved, ConfigError> {
    let mut mistakes = Vec::new();
    let leaves = gather(sources, &mut mistakes);
    checked(leaves, mistakes, &sources.overrides.models, sources)
}

/// `added` repositories come before the written ones.
fn checked(
    mut leaves: Leaves,
    mut mistakes: Vec<Mistake>,
    added: &[PathBuf],
    sources: &Sources,
) -> Result<Resolved, ConfigError> {
    // What the other layers come to without one that cannot be read says nothing of the whole.
    let is_whole = mistakes.iter().all(|mistake| !mistake.key.is_empty());
    let config = match assemble(&leaves) {
        _ if !is_whole => None,
        Ok(written) => {
            Checker { leaves: &mut leaves, mistakes: &mut mistakes }.config(written, added, sources)
        }
        Err(error) => {
            let origin = Origin::BuiltIn { line: 1, column: 1 };
            mistakes.push(Mistake { origin, key: String::new(), message: error.message().to_owned() });
            None
        }
    };
    match config {
        Some(config) if mistakes.is_empty() => Ok(Resolved { config, leaves, sources: sources.clone() }),
        _ => {
            mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
            Err(ConfigError { mistakes })
        }
    }
}

impl Resolved {
    /// Where it was read.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(super) fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// With one more layer of TOML above all others. Reads none of them again.
    ///
    /// # Errors
    /// Every mistake of the text, and of what it makes of the whole.
    pub fn over(&self, text: &str) -> Result<Self, ConfigError> {
        let (mut leaves, mut mistakes) = (self.leaves.clone(), Vec::new());
        add_posted(text, &mut leaves, &mut mistakes);
        checked(leaves, mistakes, &[], &self.sources) // added repositories are among the written ones by now
    }

    /// Paths of the values that are not the same in `other`, in order.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Vec<String>> {
        fn value<'a>(leaves: &'a Leaves, path: &[String]) -> Option<&'a Value> {
            leaves.get(path).map(|leaf| &leaf.value).filter(|value| !value.is_table())
        }
        let paths: BTreeSet<&Vec<String>> = self.leaves.keys().chain(other.leaves.keys()).collect();
        let differs = |path: &&&Vec<String>| value(&self.leaves, path) != value(&other.leaves, path);
        paths.iter().filter(differs).map(|path| (*path).clone()).collect()
    }

    /// Is there a cluster secret, or a certificate?
    #[must_use]
    pub fn gives_credentials(&self) -> bool {
        ["cluster.secret", "cluster.ca"].iter().any(|key| {
            let text = self.leaves.get(&path_of(key)).and_then(|leaf| leaf.value.as_str());
            text.is_some_and(|text| !text.is_empty())
        })
    }
}

impl Checker<'_> {
    /// `None` only with a mistake.
    fn config(&mut self, written: ConfigFile, added: &[PathBuf], sources: &Sources) -> Option<Config> {
        let environment = sources.environment.as_slice();
        let server = self.server(written.server);
        let security = self.security(written.security);
        let node = self.node(written.node, environment);
        let backend = self.backend(&written.backend);
        let batching = self.batching(&written.batching);
        let breaker = self.breaker(&written.breaker);
        let deadline = self.deadline(&written.deadline);
        let stream = self.stream(written.stream);
        let data = self.data(written.data);
        let series = self.series(written.series);
        let journal = self.journal(written.journal);
        let alerts = self.alerts(written.alerts);
        let audit = self.audit(written.audit);
        let scaler = self.scaler(written.scaler);
        let tracing = self.tracing(written.tracing, environment);
        let log = self.log(written.log);
        let models = self.models(written.models, added, sources.overrides.needs_no_models);
        let roles = written.cluster.roles.clone().unwrap_or_default();
        let chosen = written.backend.choice.unwrap_or(BackendChoice::Auto);
        let nodes_len = written.nodes.0.len();
        let cluster = self.cluster(written.cluster, environment, nodes_len);
        let routing = self.routing(&written.routing);
        let demo = self.demo(written.demo, data.as_ref(), cluster.as_ref().is_some_and(Option::is_some));
        let regions = self.regions(written.regions);
        let placement = self.placement(written.placement);
        let nodes = self.nodes(written.nodes, &roles, chosen);
        let config = Config {
            server: server?,
            security: security?,
            node: node?,
            models: models?,
            backend: backend?,
            batching: batching?,
            breaker: breaker?,
            deadline: deadline?,
            stream: stream?,
            data: data?,
            series: series?,
            journal: journal?,
            audit: audit?,
            demo: demo?,
            alerts: alerts?,
            scaler: scaler?,
            log: log?,
            tracing: tracing?,
            cluster: cluster?,
            routing: routing?,
            regions: regions?,
            placement: placement?,
            nodes: nodes?,
        };
        self.topology(&config);
        self.folders(&config);
        Some(config)
    }

    /// What is kept by one is locked by it.
    fn folders(&mut self, config: &Config) {
        let kept = [
            ("models.releases", config.models.releases.as_ref()),
            ("journal.dir", config.journal.as_ref().map(|part| &part.dir)),
            ("audit.dir", config.audit.as_ref().map(|part| &part.dir)),
        ];
        for (at, (key, dir)) in kept.iter().enumerate() {
            let same = kept[at + 1..].iter().find(|(_, other)| other.is_some() && other == dir);
            if let Some((other, _)) = same {
                self.mistake(key, format!("is {other}: each needs a folder of its own"));
            }
        }
    }
}
