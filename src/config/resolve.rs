//! From as written to as used: bounds, addresses, folders; every mistake is collected, none hides another.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::file::{BackendFile, BatchingFile, BreakerFile, ConfigFile, DataFile, DeadlineFile, ServerFile};
use super::layers::{Leaves, Sources, assemble, gather};
use super::units::{WrittenDuration, WrittenSize};
use super::{
    BackendConfig, BatchingConfig, BreakerConfig, Config, ConfigError, DataConfig, DeadlineConfig, Leaf,
    LogConfig, Mistake, ModelsConfig, NodeConfig, Origin, ServerConfig, paths,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A checked configuration that remembers where each value came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// As used.
    pub config: Config,
    leaves: Leaves,
}

/// Reads, merges and checks all layers.
///
/// # Errors
/// Every mistake of every layer.
pub fn resolve(sources: &Sources) -> Result<Resolved, ConfigError> {
    let mut mistakes = Vec::new();
    let mut leaves = gather(sources, &mut mistakes);
    let config = match assemble(&leaves) {
        Ok(written) => Checker { leaves: &mut leaves, mistakes: &mut mistakes }.config(written, sources),
        Err(error) => {
            let origin = Origin::BuiltIn { line: 1, column: 1 };
            mistakes.push(Mistake { origin, key: String::new(), message: error.message().to_owned() });
            None
        }
    };
    match config {
        Some(config) if mistakes.is_empty() => Ok(Resolved { config, leaves }),
        _ => {
            mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
            Err(ConfigError { mistakes })
        }
    }
}

impl Resolved {
    /// The resolved form as TOML, each value with its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut keys: Vec<(&[String], &String, &Leaf)> = self
            .leaves
            .iter()
            .filter_map(|(path, leaf)| path.split_last().map(|(key, section)| (section, key, leaf)))
            .filter(|(.., leaf)| !leaf.value.is_table())
            .collect();
        keys.sort_by_key(|(section, key, _)| (*section, *key));
        let mut text = String::new();
        let mut open: &[String] = &[];
        for (section, key, leaf) in keys {
            if section != open {
                let gap = if text.is_empty() { "" } else { "\n" };
                let header: Vec<String> = section.iter().map(|key| quoted(key)).collect();
                text.push_str(&format!("{gap}[{}]\n", header.join(".")));
                open = section;
            }
            let assignment = format!("{} = {}", quoted(key), leaf.value);
            text.push_str(&format!("{assignment:<44} # {}\n", leaf.origin));
        }
        text
    }

    /// The same for machines: key → value and origin.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let entries = self.leaves.iter().filter(|(_, leaf)| !leaf.value.is_table()).map(|(path, leaf)| {
            let entry = serde_json::json!({ "value": leaf.value, "origin": leaf.origin.to_string() });
            (path.join("."), entry)
        });
        serde_json::Value::Object(entries.collect())
    }
}

/// As a TOML key.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

struct Checker<'a> {
    leaves: &'a mut Leaves,
    mistakes: &'a mut Vec<Mistake>,
}

impl Checker<'_> {
    /// `None` only with a mistake.
    fn config(&mut self, written: ConfigFile, sources: &Sources) -> Option<Config> {
        let server = self.server(written.server);
        let name = self.label("node.name", written.node.name);
        let region = self.label("node.region", written.node.region);
        let backend = self.backend(&written.backend);
        let batching = self.batching(&written.batching);
        let breaker = self.breaker(&written.breaker);
        let deadline = self.deadline(&written.deadline);
        let data = self.data(written.data);
        let format = self.present("log.format", written.log.format);
        let filter = self.filter(written.log.filter);
        let repositories = self.repositories(written.models.repositories, sources);
        let default = self.default_model(written.models.default, repositories.as_deref());
        let workload = self.present("models.workload", written.models.workload);
        let profile = self.present("models.profile", written.models.profile);
        let profiles = written.models.profiles.unwrap_or_default();
        Some(Config {
            server: server?,
            node: NodeConfig { name: name?, region: region? },
            models: ModelsConfig {
                repositories: repositories?,
                default: default?,
                workload: workload?,
                profile: profile?,
                profiles,
            },
            backend: backend?,
            batching: batching?,
            breaker: breaker?,
            deadline: deadline?,
            data: data?,
            log: LogConfig { format: format?, filter: filter? },
        })
    }

    fn server(&mut self, written: ServerFile) -> Option<ServerConfig> {
        let listen = self.present("server.listen", written.listen).and_then(|text| {
            let parsed = text.parse::<SocketAddr>().ok();
            self.require(parsed, "server.listen", || {
                format!("`{text}` is not an address and port such as 127.0.0.1:8080 or [::]:8080")
            })
        });
        let workers = self.cores("server.workers", written.workers);
        let body = self.within("server.body_max", written.body_max.map(|WrittenSize(n)| n), 1024..=1 << 30);
        let connections = self.within("server.connections_max", written.connections_max, 1..=1_000_000);
        let in_flight = self.within("server.in_flight_max", written.in_flight_max, 1..=1_000_000);
        let header_timeout = self.time("server.header_timeout", written.header_timeout, SECOND / 100..=DAY);
        let keep_alive = self.time("server.keep_alive", written.keep_alive, Duration::ZERO..=DAY);
        let drain = self.time("server.drain", written.drain, Duration::ZERO..=DAY);
        Some(ServerConfig {
            listen: listen?,
            workers: workers?,
            body_bytes_max: body?,
            connections_max: connections?,
            in_flight_max: in_flight?,
            header_timeout: header_timeout?,
            keep_alive: keep_alive?,
            drain: drain?,
        })
    }

    fn backend(&mut self, written: &BackendFile) -> Option<BackendConfig> {
        let choice = self.present("backend.choice", written.choice);
        let threads = self.cores("backend.threads", written.threads);
        let gpu_timeout = self.time("backend.gpu_timeout", written.gpu_timeout, SECOND / 1000..=SECOND * 600);
        let placement = self.present("backend.placement", written.placement);
        let fallback = self.present("backend.fallback", written.fallback);
        Some(BackendConfig {
            choice: choice?,
            threads: threads?,
            gpu_timeout: gpu_timeout?,
            placement: placement?,
            fallback: fallback?,
        })
    }

    fn batching(&mut self, written: &BatchingFile) -> Option<BatchingConfig> {
        let rows_max = self.within("batching.rows_max", written.rows_max, 1..=65_536);
        let wait_max = self.time("batching.wait_max", written.wait_max, Duration::ZERO..=SECOND * 10);
        let queue = self.within("batching.queue_rows_max", written.queue_rows_max, 1..=10_000_000);
        let request = self.within("batching.request_rows_max", written.request_rows_max, 1..=10_000_000);
        if let (Some(queue), Some(request)) = (queue, request)
            && request > queue
        {
            self.mistake(
                "batching.request_rows_max",
                format!("{request} is more than queue_rows_max = {queue}"),
            );
        }
        Some(BatchingConfig {
            rows_max: rows_max?,
            wait_max: wait_max?,
            queue_rows_max: queue?,
            request_rows_max: request?,
        })
    }

    fn breaker(&mut self, written: &BreakerFile) -> Option<BreakerConfig> {
        let window_calls = self.within("breaker.window_calls", written.window_calls, 1..=100_000);
        let calls_min = self.within("breaker.calls_min", written.calls_min, 1..=100_000);
        if let (Some(window), Some(min)) = (window_calls, calls_min)
            && min > window
        {
            self.mistake("breaker.calls_min", format!("{min} is more than window_calls = {window}"));
        }
        let failure_share = self.share("breaker.failure_share", written.failure_share);
        let slow_share = self.share("breaker.slow_share", written.slow_share);
        let slow_after = self.time("breaker.slow_after", written.slow_after, SECOND / 1000..=DAY);
        let open_for = self.time("breaker.open_for", written.open_for, SECOND / 1000..=DAY);
        let probes = self.within("breaker.probes", written.probes, 1..=1000);
        Some(BreakerConfig {
            window_calls: window_calls?,
            calls_min: calls_min?,
            failure_share: failure_share?,
            slow_share: slow_share?,
            slow_after: slow_after?,
            open_for: open_for?,
            probes: probes?,
        })
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

    fn repositories(&mut self, written: Option<Vec<PathBuf>>, sources: &Sources) -> Option<Vec<PathBuf>> {
        const KEY: &str = "models.repositories";
        let written = self.present(KEY, written)?;
        let added = &sources.overrides.models;
        let origin = self.origin(KEY);
        let found = paths::repositories(added, &written, &origin);
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

    fn label(&mut self, key: &str, written: Option<String>) -> Option<String> {
        let text = self.present(key, written)?;
        let fits = !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic());
        self.require(fits.then(|| text.clone()), key, || {
            format!("`{text}` is not 1 to 64 printable ASCII letters")
        })
    }

    fn filter(&mut self, written: Option<String>) -> Option<String> {
        let text = self.present("log.filter", written)?;
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) => Some(text),
            Err(error) => {
                self.mistake("log.filter", format!("`{text}`: {error}"));
                None
            }
        }
    }

    fn share(&mut self, key: &str, written: Option<f64>) -> Option<f64> {
        let share = self.present(key, written)?;
        let fits = share > 0.0 && share <= 1.0;
        self.require(fits.then_some(share), key, || format!("{share} is not above 0 and at most 1"))
    }

    fn time(
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

    fn within(&mut self, key: &str, written: Option<usize>, range: RangeInclusive<usize>) -> Option<usize> {
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

    fn present<T>(&mut self, key: &str, written: Option<T>) -> Option<T> {
        let refused = self.mistakes.iter().any(|mistake| mistake.key == key);
        if written.is_none() && !refused {
            self.mistake(key, "is missing".to_owned());
        }
        written
    }

    fn require<T>(&mut self, checked: Option<T>, key: &str, message: impl FnOnce() -> String) -> Option<T> {
        if checked.is_none() {
            self.mistake(key, message());
        }
        checked
    }

    fn mistake(&mut self, key: &str, message: String) {
        let origin = self.origin(key);
        self.mistakes.push(Mistake { origin, key: key.to_owned(), message });
    }

    fn origin(&self, key: &str) -> Origin {
        let leaf = self.leaves.get(&path_of(key));
        leaf.map_or(Origin::BuiltIn { line: 1, column: 1 }, |leaf| leaf.origin.clone())
    }

    fn replace(&mut self, key: &str, value: Value, origin: Option<Origin>) {
        if let Some(leaf) = self.leaves.get_mut(&path_of(key)) {
            leaf.value = value;
            leaf.origin = origin.unwrap_or_else(|| leaf.origin.clone());
        }
    }
}

fn path_of(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}
