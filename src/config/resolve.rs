//! From as written to as used: bounds, addresses, folders; every mistake is collected, none hides another.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use peregrine_runtime::{NodeId, Region};
use toml::Value;

use super::file::{
    BackendFile, ConfigFile, DataFile, DeadlineFile, DemoFile, DurabilityChoice, JournalFile, LISTS,
    ServerFile, StreamFile,
};
use super::layers::{Leaves, Sources, add_posted, assemble, gather, key_of, path_of, quoted};
use super::secret::{REDACTED, is_secret};
use super::units::{WrittenDuration, WrittenSize};
use super::{
    BackendChoice, BackendConfig, Config, ConfigError, DataConfig, DeadlineConfig, DemoConfig, Durability,
    JournalConfig, KernelCache, Leaf, LogConfig, Mistake, ModelsConfig, NodeConfig, Origin, ServerConfig,
    StreamConfig, TlsConfig, paths,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a GPU's memory below which no model could be run.
const GPU_MEMORY_MIN: usize = 1 << 20;

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
    let config = match assemble(&leaves) {
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

    /// The resolved form as TOML, each value with its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut keys: Vec<(&[String], &String, &Leaf)> = self
            .leaves
            .iter()
            .filter_map(|(path, leaf)| path.split_last().map(|(key, section)| (section, key, leaf)))
            .filter(|(.., leaf)| !leaf.value.is_table())
            .collect();
        let position = |part: &String| (part.parse::<usize>().unwrap_or(usize::MAX), part.clone());
        keys.sort_by_cached_key(|(section, key, _)| {
            (section.iter().map(position).collect::<Vec<_>>(), (*key).clone())
        });
        let mut text = String::new();
        let mut open: &[String] = &[];
        for (section, key, leaf) in keys {
            if section != open {
                let gap = if text.is_empty() { "" } else { "\n" };
                let header = match section {
                    [list, _] if LISTS.contains(&list.as_str()) => format!("[[{list}]]"),
                    section => format!("[{}]", key_of(section)),
                };
                text.push_str(&format!("{gap}{header}\n"));
                open = section;
            }
            let path: Vec<String> = section.iter().chain([key]).cloned().collect();
            let assignment = format!("{} = {}", quoted(key), shown(&path, leaf));
            text.push_str(&format!("{assignment:<44} # {}\n", leaf.origin));
        }
        text
    }

    /// The same for machines: key → value and origin.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let entries = self.leaves.iter().filter(|(_, leaf)| !leaf.value.is_table()).map(|(path, leaf)| {
            let value = shown(path, leaf);
            let entry = serde_json::json!({ "value": value, "origin": leaf.origin.to_string() });
            (key_of(path), entry)
        });
        serde_json::Value::Object(entries.collect())
    }
}

/// Nobody is shown a secret; that there is none may be seen.
fn shown(path: &[String], leaf: &Leaf) -> Value {
    match &leaf.value {
        Value::String(text) if text.is_empty() => leaf.value.clone(),
        _ if is_secret(path) => Value::String(REDACTED.to_owned()),
        value => value.clone(),
    }
}

/// What Fly calls a Machine, and where it runs that.
const FLY_MACHINE_ID: &str = "FLY_MACHINE_ID";
const FLY_REGION: &str = "FLY_REGION";

/// Checks written values one by one and collects what is wrong with them.
pub(super) struct Checker<'a> {
    leaves: &'a mut Leaves,
    mistakes: &'a mut Vec<Mistake>,
}

impl Checker<'_> {
    /// `None` only with a mistake.
    fn config(&mut self, written: ConfigFile, added: &[PathBuf], sources: &Sources) -> Option<Config> {
        let environment = sources.environment.as_slice();
        let server = self.server(written.server);
        let security = self.security(written.security);
        // On a Fly Machine a node that nobody has named is called as the platform calls it.
        let name = self.told_by(FLY_MACHINE_ID, "node.name", written.node.name, environment);
        let name = self.present("node.name", name);
        let name = name.and_then(|name| self.named(NodeId::new(&name), "node.name"));
        let region = self.told_by(FLY_REGION, "node.region", written.node.region, environment);
        let region = self.present("node.region", region);
        let region = region.and_then(|region| self.named(Region::new(&region), "node.region"));
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
        let format = self.present("log.format", written.log.format);
        let filter = self.filter(written.log.filter);
        let repositories =
            self.repositories(written.models.repositories, added, sources.overrides.needs_no_models);
        let default = self.default_model(written.models.default, repositories.as_deref());
        let workload = self.present("models.workload", written.models.workload);
        let profile = self.present("models.profile", written.models.profile);
        let profiles = written.models.profiles.unwrap_or_default();
        let precision = self.present("models.precision", written.models.precision);
        let precisions = written.models.precisions.unwrap_or_default();
        let vault = self.vault(written.models.key, written.models.signers);
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
            node: NodeConfig { name: name?, region: region? },
            models: ModelsConfig {
                repositories: repositories?,
                default: default?,
                workload: workload?,
                profile: profile?,
                profiles,
                precision: precision?,
                precisions,
                vault: vault?,
            },
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
            log: LogConfig { format: format?, filter: filter? },
            tracing: tracing?,
            cluster: cluster?,
            routing: routing?,
            regions: regions?,
            placement: placement?,
            nodes: nodes?,
        };
        self.topology(&config);
        Some(config)
    }

    fn server(&mut self, written: ServerFile) -> Option<ServerConfig> {
        let listen = self.present("server.listen", written.listen);
        let listen = listen.and_then(|text| self.socket("server.listen", &text));
        let workers = self.cores("server.workers", written.workers);
        let busy_poll = self.time("server.busy_poll", written.busy_poll, Duration::ZERO..=60 * SECOND);
        let bodies =
            self.within("server.bodies_max", written.bodies_max.map(|WrittenSize(n)| n), 1024..=1 << 40);
        let body = self.within("server.body_max", written.body_max.map(|WrittenSize(n)| n), 1024..=1 << 30);
        let connections = self.within("server.connections_max", written.connections_max, 1..=1_000_000);
        let in_flight = self.within("server.in_flight_max", written.in_flight_max, 1..=1_000_000);
        let header_timeout = self.time("server.header_timeout", written.header_timeout, SECOND / 100..=DAY);
        let keep_alive = self.time("server.keep_alive", written.keep_alive, Duration::ZERO..=DAY);
        let drain = self.time("server.drain", written.drain, Duration::ZERO..=DAY);
        let certificate = self.present("server.tls_certificate", written.tls_certificate);
        let key = self.present("server.tls_key", written.tls_key);
        let certificate = self.file("server.tls_certificate", certificate?)?;
        let tls = match (certificate, self.file("server.tls_key", key?)?) {
            (Some(certificate), Some(key)) => Some(TlsConfig { certificate, key }),
            (None, None) => None,
            (certificate, _) => {
                let lacks = if certificate.is_some() { "server.tls_key" } else { "server.tls_certificate" };
                self.mistake(lacks, "a certificate and its key come together".to_owned());
                None
            }
        };
        Some(ServerConfig {
            listen: listen?,
            workers: workers?,
            busy_poll: busy_poll?,
            body_bytes_max: body?,
            bodies_bytes_max: bodies?,
            connections_max: connections?,
            in_flight_max: in_flight?,
            header_timeout: header_timeout?,
            keep_alive: keep_alive?,
            drain: drain?,
            tls,
        })
    }

    fn backend(&mut self, written: &BackendFile) -> Option<BackendConfig> {
        let choice = self.present("backend.choice", written.choice);
        let threads = self.cores("backend.threads", written.threads);
        let gpus = self.present("backend.gpus", written.gpus);
        let gpu_timeout = self.time("backend.gpu_timeout", written.gpu_timeout, SECOND / 1000..=SECOND * 600);
        let gpu_memory = self.gpu_memory(written);
        let kernel_cache = self.present("backend.kernel_cache", written.kernel_cache.clone());
        let placement = self.present("backend.placement", written.placement);
        let fallback = self.present("backend.fallback", written.fallback);
        let resident = self.present("backend.resident", written.resident);
        let rest_after = self.time("backend.rest_after", written.rest_after, Duration::ZERO..=DAY);
        Some(BackendConfig {
            choice: choice?,
            threads: threads?,
            gpus: gpus?,
            gpu_timeout: gpu_timeout?,
            gpu_memory: gpu_memory?,
            kernel_cache: KernelCache::of(&kernel_cache?),
            placement: placement?,
            fallback: fallback?,
            fallbacks: written.fallbacks.clone().unwrap_or_default(),
            resident: resident?,
            rest_after: rest_after.map(|after| (!after.is_zero()).then_some(after))?,
        })
    }

    fn gpu_memory(&mut self, written: &BackendFile) -> Option<Option<u64>> {
        const KEY: &str = "backend.gpu_memory";
        let WrittenSize(bytes) = self.present(KEY, written.gpu_memory)?;
        self.require((bytes == 0 || bytes >= GPU_MEMORY_MIN).then_some(()), KEY, || {
            format!("less than {} MiB hold no model and its batches", GPU_MEMORY_MIN >> 20)
        })?;
        Some((bytes > 0).then_some(bytes as u64))
    }

    fn deadline(&mut self, written: &DeadlineFile) -> Option<DeadlineConfig> {
        let default = self.time("deadline.default", written.default, SECOND / 1000..=DAY);
        let max = self.time("deadline.max", written.max, SECOND / 1000..=DAY);
        if let (Some(default), Some(max)) = (default, max)
            && default > max
        {
            self.mistake("deadline.default", format!("{default:?} is more than max = {max:?}"));
        }
        Some(DeadlineConfig { default: default?, max: max? })
    }

    fn stream(&mut self, written: StreamFile) -> Option<StreamConfig> {
        let size = |written: Option<WrittenSize>| written.map(|WrittenSize(bytes)| bytes);
        let connections = self.within("stream.connections_max", written.connections_max, 1..=1_000_000);
        let message = self.within("stream.message_max", size(written.message_max), 1024..=16 << 20);
        let subscriptions = self.within("stream.subscriptions_max", written.subscriptions_max, 1..=10_000);
        let patterns = self.within("stream.patterns_max", written.patterns_max, 1..=10_000);
        let ticks = self.within("stream.ticks_in_flight_max", written.ticks_in_flight_max, 1..=10_000);
        let channels = self.within("stream.channels_max", written.channels_max, 1..=1_000_000);
        let streams = self.within("stream.streams_max", written.streams_max, 1..=10_000_000);
        let log_frames = self.within("stream.log_messages_max", written.log_messages_max, 4..=1_000_000);
        let log_bytes = self.within("stream.log_max", size(written.log_max), 64 << 10..=1 << 30);
        let retention = self.within("stream.retention", written.retention, 1..=100_000);
        let heartbeat = self.time("stream.heartbeat", written.heartbeat, SECOND / 20..=SECOND * 15);
        let idle = self.time("stream.idle_max", written.idle_max, SECOND / 10..=DAY);
        let stuck = self.time("stream.stuck_max", written.stuck_max, SECOND / 10..=DAY);
        let close = self.time("stream.close_timeout", written.close_timeout, SECOND / 100..=SECOND * 60);
        Some(StreamConfig {
            connections_max: connections?,
            message_bytes_max: message?,
            subscriptions_max: subscriptions?,
            patterns_max: patterns?,
            ticks_in_flight_max: ticks?,
            channels_max: channels?,
            streams_max: streams?,
            log_frames_max: log_frames?,
            log_bytes_max: log_bytes?,
            retention: retention?,
            heartbeat: heartbeat?,
            idle_max: idle?,
            stuck_max: stuck?,
            close_timeout: close?,
        })
    }

    fn data(&mut self, written: DataFile) -> Option<DataConfig> {
        let column = self.present("data.column", written.column);
        let columns = written.columns.unwrap_or_default();
        let file = self.present("data.file", written.file)?;
        let origin = self.origin("data.file");
        let file = match paths::data_file(file, &origin) {
            Ok(file) => file,
            Err(message) => {
                self.mistake("data.file", message);
                None
            }
        };
        Some(DataConfig { file, column: column?, columns })
    }

    fn journal(&mut self, written: JournalFile) -> Option<Option<JournalConfig>> {
        let dir = self.present("journal.dir", written.dir);
        let capacity = self.within("journal.capacity", written.capacity, 1..=1 << 20);
        let series_max = self.within("journal.series_max", written.series_max, 1..=10_000_000);
        let durability = self.present("journal.durability", written.durability);
        let sync_every = self.time("journal.sync_every", written.sync_every, SECOND / 1000..=60 * SECOND);
        let durability = match durability? {
            DurabilityChoice::Disk => Durability::Disk,
            DurabilityChoice::Process => Durability::Process { sync_every: sync_every? },
        };
        let (dir, capacity, series_max) = (dir?, u32::try_from(capacity?).ok()?, series_max?);
        let is_off = dir.as_os_str().is_empty();
        Some((!is_off).then_some(JournalConfig { dir, capacity, series_max, durability }))
    }

    /// The built-in text turns the replay on, for whoever tries a node that is alone; in a cluster it must be asked for.
    fn demo(
        &mut self,
        written: DemoFile,
        data: Option<&DataConfig>,
        is_clustered: bool,
    ) -> Option<Option<DemoConfig>> {
        const KEY: &str = "demo.rate";
        let fits = |rate: f64| (0.0..=1e6).contains(&rate);
        let rate = self.number(KEY, written.rate, fits, "within 0 and 1000000");
        let prefix = self.present("demo.prefix", written.prefix);
        let column = self.present("demo.column", written.column);
        let (mut rate, prefix, column, data) = (rate?, prefix?, column?, data?);
        let is_built_in = matches!(self.origin(KEY), Origin::BuiltIn { .. });
        if is_built_in && rate > 0.0 && (is_clustered || data.file.is_none()) {
            rate = 0.0;
            self.replace(KEY, Value::Float(rate), None);
        }
        if rate > 0.0 && data.file.is_none() {
            self.mistake(KEY, "there is no data.file to replay".to_owned());
        }
        let column = if column.is_empty() { data.column.clone() } else { column };
        Some((rate > 0.0).then_some(DemoConfig { rate, prefix, column }))
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

    pub(super) fn socket(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        self.require(text.parse().ok(), key, || {
            format!("`{text}` is not an address and port such as 127.0.0.1:8080 or [::]:8080")
        })
    }

    /// What a constructor made of a name, or its own words.
    pub(super) fn named<T, E: Display>(&mut self, made: Result<T, E>, key: &str) -> Option<T> {
        made.map_err(|error| self.mistake(key, error.to_string())).ok()
    }

    fn filter(&mut self, written: Option<String>) -> Option<String> {
        let text = self.present("log.filter", written)?;
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(targets) => {
                let is_path = |target: &str| {
                    target.chars().all(|char| char.is_alphanumeric() || matches!(char, '_' | ':' | '-'))
                };
                let odd = targets
                    .iter()
                    .map(|(target, _)| target)
                    .find(|target| !is_path(target))
                    .map(str::to_owned);
                if let Some(odd) = odd {
                    let message =
                        format!("`{odd}` is neither a level nor a module, such as `peregrine_actors`");
                    self.mistake("log.filter", message);
                    return None;
                }
                Some(text)
            }
            Err(error) => {
                self.mistake("log.filter", format!("`{text}`: {error}"));
                None
            }
        }
    }

    pub(super) fn share(&mut self, key: &str, written: Option<f64>) -> Option<f64> {
        self.number(key, written, |share| share > 0.0 && share <= 1.0, "above 0 and at most 1")
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        written: Option<f64>,
        fits: impl FnOnce(f64) -> bool,
        range: &str,
    ) -> Option<f64> {
        let number = self.present(key, written)?;
        self.require(fits(number).then_some(number), key, || format!("{number} is not {range}"))
    }

    pub(super) fn time(
        &mut self,
        key: &str,
        written: Option<WrittenDuration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let WrittenDuration(time) = self.present(key, written)?;
        self.require(range.contains(&time).then_some(time), key, || {
            format!("{time:?} is not within {:?} and {:?}", range.start(), range.end())
        })
    }

    pub(super) fn within(
        &mut self,
        key: &str,
        written: Option<usize>,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        let number = self.present(key, written)?;
        self.require(range.contains(&number).then_some(number), key, || {
            format!("{number} is not within {} and {}", range.start(), range.end())
        })
    }

    /// 0 stands for the cores of this machine; the resolved form shows their number.
    fn cores(&mut self, key: &str, written: Option<usize>) -> Option<usize> {
        let number = self.within(key, written, 0..=1024)?;
        if number > 0 {
            return Some(number);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.replace(key, Value::Integer(i64::try_from(cores).unwrap_or(i64::MAX)), None);
        Some(cores)
    }

    pub(super) fn present<T>(&mut self, key: &str, written: Option<T>) -> Option<T> {
        let refused = self.mistakes.iter().any(|mistake| mistake.key == key);
        if written.is_none() && !refused {
            self.mistake(key, "is missing".to_owned());
        }
        written
    }

    pub(super) fn require<T>(
        &mut self,
        checked: Option<T>,
        key: &str,
        message: impl FnOnce() -> String,
    ) -> Option<T> {
        if checked.is_none() {
            self.mistake(key, message());
        }
        checked
    }

    pub(super) fn mistake(&mut self, key: &str, message: String) {
        let origin = self.origin(key);
        self.mistakes.push(Mistake { origin, key: key.to_owned(), message });
    }

    pub(super) fn origin(&self, key: &str) -> Origin {
        let path = path_of(key);
        let below = || self.leaves.range(path.clone()..).next().filter(|(at, _)| at.starts_with(&path));
        let beside = || {
            let section = &path[..path.len().saturating_sub(1)];
            self.leaves.range(section.to_vec()..).next().filter(|(at, _)| at.starts_with(section))
        };
        // A key that is not there is missing where its section is.
        let leaf = self.leaves.get(&path).or_else(|| Some(below().or_else(beside)?.1));
        leaf.map_or(Origin::BuiltIn { line: 1, column: 1 }, |leaf| leaf.origin.clone())
    }

    /// What the platform says, where the built-in configuration is all that says otherwise.
    pub(super) fn told_by(
        &mut self,
        variable: &str,
        key: &str,
        written: Option<String>,
        environment: &[(String, String)],
    ) -> Option<String> {
        let said = environment.iter().find(|(name, text)| name == variable && !text.is_empty());
        match said {
            Some((_, text)) if matches!(self.origin(key), Origin::BuiltIn { .. }) => {
                self.replace(key, Value::String(text.clone()), Some(Origin::Variable(variable.to_owned())));
                Some(text.clone())
            }
            _ => written,
        }
    }

    pub(super) fn replace(&mut self, key: &str, value: Value, origin: Option<Origin>) {
        if let Some(leaf) = self.leaves.get_mut(&path_of(key)) {
            leaf.value = value;
            leaf.origin = origin.unwrap_or_else(|| leaf.origin.clone());
        }
    }
}
