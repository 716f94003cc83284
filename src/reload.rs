//! A running node takes a new configuration: all of it or nothing.
//!
//! Two phases. Whoever uses a part of the configuration is a [`Room`]: it prepares what the new one would change, or
//! vetoes it. When nobody vetoes, all commit, and a commit cannot fail. Keys that no room can change while the node
//! runs are refused by name. Knows no HTTP and no signal.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::config::{Config, ConfigError, Resolved, key_of, resolve};

/// Makes a prepared change happen, and says whether what was read from files of the room's own is another now. Dropped
/// instead, nothing has happened.
pub type Staged = Box<dyn FnOnce() -> bool + Send>;

/// A part of the node that uses the configuration while it runs.
pub trait Room: Send + Sync {
    /// In refusals and logs.
    fn name(&self) -> &'static str;

    /// Does everything that may fail, and changes nothing.
    ///
    /// # Errors
    /// Why this room cannot work by `next`.
    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String>;

    /// Does it read files of its own, which may be others though no key has changed?
    fn reads_files(&self) -> bool {
        false
    }
}

/// Why the configuration in use stays. Whoever changed it acts.
#[derive(Debug, thiserror::Error)]
pub enum ReloadRefused {
    /// It is wrong in itself.
    #[error("{0}")]
    Invalid(#[from] ConfigError),
    /// It changes what only a restart can.
    #[error("only a restart changes {}", keys.join(", "))]
    Fixed {
        /// Which keys.
        keys: Vec<String>,
    },
    /// A room cannot work by it.
    #[error("{room}: {reason}")]
    Veto {
        /// Which room.
        room: &'static str,
        /// Its words.
        reason: String,
    },
}

/// How reloads ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something is different now.
    Applied,
    /// There was nothing to change.
    Unchanged,
    /// [`ReloadRefused::Invalid`]
    Invalid,
    /// [`ReloadRefused::Fixed`]
    Fixed,
    /// [`ReloadRefused::Veto`]
    Vetoed,
}

impl Outcome {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Applied, Self::Unchanged, Self::Invalid, Self::Fixed, Self::Vetoed];

    /// As a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Invalid => "invalid",
            Self::Fixed => "fixed",
            Self::Vetoed => "vetoed",
        }
    }
}

/// The configuration in use, and the rooms that must agree to another.
pub struct Reload {
    /// Held over a whole reload: one at a time.
    resolved: Mutex<Resolved>,
    rooms: Vec<Box<dyn Room>>,
    counts: [AtomicU64; Outcome::ALL.len()],
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("rooms", &self.rooms.len()).finish_non_exhaustive()
    }
}

impl Reload {
    /// What a node has started with, and who uses it.
    #[must_use]
    pub fn new(resolved: Resolved, rooms: Vec<Box<dyn Room>>) -> Self {
        Self { resolved: Mutex::new(resolved), rooms, counts: Default::default() }
    }

    /// The configuration in use with the origin of each value; no secret shows.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).to_json()
    }

    /// Reads the files again; what was posted since is forgotten. Reads files: not for a thread that must not wait.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn reread(&self) -> Result<Vec<String>, ReloadRefused> {
        self.replace(|current| resolve(current.sources()))
    }

    /// One more layer of TOML over the configuration in use.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn post(&self, text: &str) -> Result<Vec<String>, ReloadRefused> {
        self.replace(|current| current.over(text))
    }

    /// Reloads that ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize].load(Ordering::Relaxed)
    }

    fn replace(
        &self,
        make: impl FnOnce(&Resolved) -> Result<Resolved, ConfigError>,
    ) -> Result<Vec<String>, ReloadRefused> {
        let mut current = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let result = make(&current).map_err(ReloadRefused::from).and_then(|mut next| {
            // No key of it can have changed, and that of a node whose scaler starts machines beside it is in no file.
            next.config.cluster.clone_from(&current.config.cluster);
            let changed = self.apply(&current, &next)?;
            *current = next;
            Ok(changed)
        });
        let outcome = match &result {
            Ok((changed, false)) if changed.is_empty() => Outcome::Unchanged,
            Ok(_) => Outcome::Applied,
            Err(ReloadRefused::Invalid(_)) => Outcome::Invalid,
            Err(ReloadRefused::Fixed { .. }) => Outcome::Fixed,
            Err(ReloadRefused::Veto { .. }) => Outcome::Vetoed,
        };
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
        match &result {
            Ok((changed, files)) => {
                tracing::info!(files, outcome = outcome.name(), ?changed, "configuration reloaded");
            }
            Err(error) => tracing::warn!(outcome = outcome.name(), %error, "configuration not reloaded"),
        }
        result.map(|(changed, _)| changed)
    }

    /// The keys that are different now, and whether files of a room's own are.
    fn apply(&self, current: &Resolved, next: &Resolved) -> Result<(Vec<String>, bool), ReloadRefused> {
        let changed = current.differences(next);
        let fixed: Vec<String> =
            changed.iter().filter(|path| !is_live(path)).map(|path| key_of(path)).collect();
        if !fixed.is_empty() {
            return Err(ReloadRefused::Fixed { keys: fixed });
        }
        let config = Arc::new(next.config.clone());
        let mut staged = Vec::new();
        for room in self.rooms.iter().filter(|room| !changed.is_empty() || room.reads_files()) {
            let veto = |reason| ReloadRefused::Veto { room: room.name(), reason };
            staged.push(room.prepare(&config).map_err(veto)?);
        }
        // All of them, whatever the first says.
        let files = staged.into_iter().map(|commit| commit()).filter(|read| *read).count() > 0;
        Ok((changed.iter().map(|path| key_of(path)).collect(), files))
    }
}

/// Can a running node change this key? Batches and breakers are built with their limits, threads and sockets are
/// there already, and who a node is may not change under others that know it.
fn is_live(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path[..],
        ["server", "bodies_max" | "body_max" | "in_flight_max"]
            | ["deadline" | "routing" | "regions" | "security", ..]
            | ["alerts", "evaluate_every" | "webhook" | "webhook_file" | "webhook_timeout" | "repeat_every"]
            | ["alerts", "rules", ..]
            | ["data", "column" | "columns", ..]
            | ["models", "default"]
            | ["log", "filter"]
    )
}

/// The configuration in use, for whoever reads it once per request.
#[derive(Clone, Debug)]
pub(crate) struct Current(Arc<RwLock<Arc<Config>>>);

impl Current {
    pub(crate) fn new(config: Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// As of now; later changes do not reach it.
    pub(crate) fn get(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// To be committed.
    pub(crate) fn stage(&self, next: &Arc<Config>) -> Staged {
        let (current, next) = (self.clone(), Arc::clone(next));
        Box::new(move || {
            *current.0.write().unwrap_or_else(PoisonError::into_inner) = next;
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::Sources;

    /// Counts its commits; vetoes columns that it does not know.
    struct Column(Arc<AtomicU64>);

    impl Room for Column {
        fn name(&self) -> &'static str {
            "column"
        }

        fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
            if next.data.column == "unknown" {
                return Err("no such column".to_owned());
            }
            let commits = Arc::clone(&self.0);
            Ok(Box::new(move || {
                commits.fetch_add(1, Ordering::Relaxed);
                false
            }))
        }
    }

    #[test]
    fn a_live_key_is_applied_by_every_room() {
        check("deadline.max = \"30s\"", Ok(&["deadline.max"]), Outcome::Applied);
        check("data.columns = { \"a.b\" = \"x\" }", Ok(&["data.columns.\"a.b\""]), Outcome::Applied);
        check("[regions.fra]\nin_flight_max = 3", Ok(&["regions.fra.in_flight_max"]), Outcome::Applied);
        check("routing.remote = false", Ok(&["routing.remote"]), Outcome::Applied);
        let off = "[alerts.rules.memory]\nenabled = false";
        check(off, Ok(&["alerts.rules.memory.enabled"]), Outcome::Applied);
    }

    #[test]
    fn what_is_so_already_changes_nothing() {
        check("deadline.max = \"60s\"\n", Ok(&[]), Outcome::Unchanged);
        check("", Ok(&[]), Outcome::Unchanged);
    }

    #[test]
    fn a_fixed_key_is_refused_by_name_with_all_that_came_with_it() {
        let text = "server = { listen = \"127.0.0.1:1\", in_flight_max = 7 }\nnode.name = \"b\"";
        check(text, Err("only a restart changes node.name, server.listen"), Outcome::Fixed);
        check("breaker.probes = 5", Err("only a restart changes breaker.probes"), Outcome::Fixed);
        check("alerts.window = \"9s\"", Err("only a restart changes alerts.window"), Outcome::Fixed);
        check("log.format = \"json\"", Err("only a restart changes log.format"), Outcome::Fixed);
        check(
            "cluster.secret = \"0123456789abcdef\"",
            Err("only a restart changes cluster.secret"),
            Outcome::Fixed,
        );
    }

    #[test]
    fn a_mistake_is_placed_in_the_posted_text() {
        let words = "posted text:2:7: deadline.max: 0ns is not within 1ms and 86400s";
        check("[deadline]\nmax = \"0s\"", Err(words), Outcome::Invalid);
    }

    #[test]
    fn one_veto_stops_every_room() {
        check(
            "data.column = \"unknown\"\ndeadline.max = \"9s\"",
            Err("column: no such column"),
            Outcome::Vetoed,
        );
    }

    #[test]
    fn a_posted_layer_lasts_until_the_files_are_read_again() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
        let reload = Reload::new(resolve(&sources).unwrap(), Vec::new());
        reload.post("deadline.max = \"30s\"").unwrap();
        reload.post("server.in_flight_max = 7").unwrap();
        assert_eq!(reload.to_json()["deadline.max"]["value"], "30s");
        assert_eq!(reload.to_json()["server.in_flight_max"]["value"], 7);
        file.write_all(b"routing.ocean_rtt = \"90ms\"\n").unwrap();
        assert_eq!(reload.reread().unwrap(), ["deadline.max", "routing.ocean_rtt", "server.in_flight_max"]);
        assert_eq!(reload.to_json()["deadline.max"]["value"], "60s");
    }

    #[test]
    fn other_files_of_a_room_are_a_change_though_no_key_is() {
        /// Reads a file that is another one each second time.
        struct File(Arc<AtomicU64>);

        impl Room for File {
            fn name(&self) -> &'static str {
                "file"
            }

            fn reads_files(&self) -> bool {
                true
            }

            fn prepare(&self, _: &Arc<Config>) -> Result<Staged, String> {
                let reads = Arc::clone(&self.0);
                Ok(Box::new(move || reads.fetch_add(1, Ordering::Relaxed) % 2 == 1))
            }
        }

        let reload = Reload::new(resolve(&Sources::default()).unwrap(), vec![Box::new(File(Arc::default()))]);
        for counted in [(1, 0), (1, 1), (2, 1)] {
            assert_eq!(reload.reread().unwrap(), [""; 0]);
            assert_eq!((reload.count(Outcome::Unchanged), reload.count(Outcome::Applied)), counted);
        }
    }

    #[test]
    fn a_cluster_that_no_file_speaks_of_outlives_a_reload() {
        /// The configuration that it was asked to work by.
        struct Last(Arc<Mutex<Option<Arc<Config>>>>);

        impl Room for Last {
            fn name(&self) -> &'static str {
                "last"
            }

            fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
                let (last, next) = (Arc::clone(&self.0), Arc::clone(next));
                Ok(Box::new(move || {
                    *last.lock().unwrap() = Some(next);
                    false
                }))
            }
        }

        let mut resolved = resolve(&Sources::default()).unwrap();
        let other = "[cluster]\nlisten = \"127.0.0.1:1\"\nsecret = \"0123456789abcdef\"\n";
        let home = resolved.over(other).unwrap().config.cluster;
        resolved.config.cluster.clone_from(&home);
        let last = Arc::default();
        let reload = Reload::new(resolved, vec![Box::new(Last(Arc::clone(&last)))]);
        let seen = || last.lock().unwrap().clone().unwrap().cluster.clone();
        reload.post("deadline.max = \"30s\"").unwrap();
        assert!(home.is_some() && seen() == home);
        reload.reread().unwrap();
        assert_eq!(seen(), home);
    }

    #[test]
    fn layer_upon_layer_stays_within_bounds() {
        let reload = Reload::new(resolve(&Sources::default()).unwrap(), Vec::new());
        let many: String = (0..5000).map(|at| format!("data.columns.c{at} = \"x\"\n")).collect();
        let refused = reload.post(&many).unwrap_err().to_string();
        assert!(refused.contains("more than 4096 keys"), "{refused}");
    }

    #[track_caller]
    fn check(text: &str, want: Result<&[&str], &str>, outcome: Outcome) {
        let commits = Arc::new(AtomicU64::new(0));
        let room = || Box::new(Column(Arc::clone(&commits))) as Box<dyn Room>;
        let current = Current::new(resolve(&Sources::default()).unwrap().config);
        struct Keeper(Current);
        impl Room for Keeper {
            fn name(&self) -> &'static str {
                "keeper"
            }
            fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
                Ok(self.0.stage(next))
            }
        }
        let rooms = vec![room(), Box::new(Keeper(current.clone())), room()];
        let reload = Reload::new(resolve(&Sources::default()).unwrap(), rooms);
        let (before, shown) = (current.get(), reload.to_json());
        let got = reload.post(text);
        match (&got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert_eq!(got.to_string(), want),
            _ => panic!("{got:?} instead of {want:?}"),
        }
        assert_eq!(reload.count(outcome), 1);
        let applied = outcome == Outcome::Applied;
        assert_eq!(commits.load(Ordering::Relaxed), if applied { 2 } else { 0 });
        assert_eq!(*current.get() != *before, applied);
        assert!(applied || outcome == Outcome::Unchanged || reload.to_json() == shown);
    }
}
