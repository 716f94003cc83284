//! `[scaler.pools.…]` as used. Each kind of pool has keys of its own, and takes none of another kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checker::{Checker, SECOND};
use super::layers::key_of;
use super::scaler::is_label;
use super::scaler_file::{PoolChoice, PoolFile};
use super::secret::Secret;
use super::units::WrittenDuration;
use crate::scaler::pools::Commands;

/// Where machines come from.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolConfig {
    /// Processes on this machine.
    Local(LocalPoolConfig),
    /// Programs of the user's own.
    Command(Box<Commands>),
    /// Fly's Machines API.
    Fly(FlyPoolConfig),
    /// Machines that are none.
    Simulated(SimulatedPoolConfig),
}

/// Processes on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalPoolConfig {
    /// Folder of its records.
    pub dir: PathBuf,
    /// Machines that may run at once.
    pub running_max: u32,
    /// `None`: this program, as a node.
    pub program: Option<PathBuf>,
    /// Of `program`.
    pub arguments: Vec<String>,
    /// What machines get besides this node's environment.
    pub environment: BTreeMap<String, Secret>,
    /// How long machines of a group may take to end.
    pub drains: BTreeMap<String, Duration>,
}

/// Fly's Machines API.
#[derive(Clone, Debug, PartialEq)]
pub struct FlyPoolConfig {
    /// The app whose machines they are.
    pub app: String,
    /// `None`: the platform is not asked for room.
    pub organisation: Option<String>,
    /// What lets in.
    pub token: Secret,
    /// For one call.
    pub timeout: Duration,
    /// The file of a machine's configuration, by group.
    pub templates: BTreeMap<String, PathBuf>,
}

/// Machines that are none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulatedPoolConfig {
    /// From created to started.
    pub create: Duration,
    /// From stopped to started.
    pub start: Duration,
    /// From started to stopped.
    pub stop: Duration,
}

impl Checker<'_> {
    pub(super) fn pools(
        &mut self,
        written: BTreeMap<String, PoolFile>,
        dir: &Path,
        drains: &BTreeMap<String, Duration>,
    ) -> Option<BTreeMap<String, PoolConfig>> {
        self.few("scaler.pools", written.len())?;
        let (mut pools, mut is_whole) = (BTreeMap::new(), true);
        for (name, written) in written {
            let is_used = written.enabled.unwrap_or(true);
            match self.pool(&name, written, dir, drains) {
                Some(pool) if is_used => drop(pools.insert(name, pool)),
                Some(_) => {}
                None => is_whole = false,
            }
        }
        is_whole.then_some(pools)
    }

    fn pool(
        &mut self,
        name: &str,
        written: PoolFile,
        dir: &Path,
        drains: &BTreeMap<String, Duration>,
    ) -> Option<PoolConfig> {
        let key = |key: &str| key_of(&["scaler", "pools", name, key]);
        if !is_label(name) {
            let message = format!("`{name}` is no name: 1 to 32 of a-z, 0-9 and `-`, a letter first");
            self.mistake(&key_of(&["scaler", "pools", name]), message);
        }
        let kind = self.present(&key("kind"), written.kind)?;
        self.only_of(kind, &key, &written);
        let dir = written.dir.clone().unwrap_or_else(|| dir.join("pools").join(name));
        if dir.as_os_str().is_empty() {
            self.mistake(&key("dir"), "names no folder".to_owned());
        }
        match kind {
            PoolChoice::Local => self.local(&key, written, dir, drains).map(PoolConfig::Local),
            PoolChoice::Command => {
                self.commands(&key, written, dir, drains).map(Box::new).map(PoolConfig::Command)
            }
            PoolChoice::Fly => self.fly(&key, written).map(PoolConfig::Fly),
            PoolChoice::Simulated => self.simulated(&key, &written).map(PoolConfig::Simulated),
        }
    }

    /// What would be read by nobody is a mistake.
    fn only_of(&mut self, kind: PoolChoice, key: &dyn Fn(&str) -> String, written: &PoolFile) {
        use PoolChoice::{Command, Fly, Local, Simulated};
        let of_kinds: [(&str, bool, &[PoolChoice]); 21] = [
            ("dir", written.dir.is_some(), &[Local, Command]),
            ("machines_max", written.machines_max.is_some(), &[Local]),
            ("program", written.program.is_some(), &[Local]),
            ("arguments", written.arguments.is_some(), &[Local]),
            ("environment", written.environment.is_some(), &[Local]),
            ("list", written.list.is_some(), &[Command]),
            ("create", written.create.is_some(), &[Command]),
            ("start", written.start.is_some(), &[Command]),
            ("stop", written.stop.is_some(), &[Command]),
            ("destroy", written.destroy.is_some(), &[Command]),
            ("cordon", written.cordon.is_some(), &[Command]),
            ("uncordon", written.uncordon.is_some(), &[Command]),
            ("room", written.room.is_some(), &[Command]),
            ("timeout", written.timeout.is_some(), &[Command, Fly]),
            ("app", written.app.is_some(), &[Fly]),
            ("organisation", written.organisation.is_some(), &[Fly]),
            ("token", written.token.is_some(), &[Fly]),
            ("templates", written.templates.is_some(), &[Fly]),
            ("create_takes", written.create_takes.is_some(), &[Simulated]),
            ("start_takes", written.start_takes.is_some(), &[Simulated]),
            ("stop_takes", written.stop_takes.is_some(), &[Simulated]),
        ];
        for (name, is_written, kinds) in of_kinds {
            if is_written && !kinds.contains(&kind) {
                let own: Vec<&str> = kinds.iter().copied().map(PoolChoice::name).collect();
                let message =
                    format!("is a key of kind {}, and this pool is {}", own.join(" or "), kind.name());
                self.mistake(&key(name), message);
            }
        }
    }

    fn local(
        &mut self,
        key: &dyn Fn(&str) -> String,
        written: PoolFile,
        dir: PathBuf,
        drains: &BTreeMap<String, Duration>,
    ) -> Option<LocalPoolConfig> {
        let running_max = self.machines(&key("machines_max"), written.machines_max, 1);
        let program = match written.program.filter(|program| !program.as_os_str().is_empty()) {
            None => Some(None),
            Some(program) => self.file(&key("program"), program),
        };
        if written.arguments.is_some() && program == Some(None) {
            self.mistake(&key("arguments"), "there is no program to give them to".to_owned());
        }
        let environment = written.environment.unwrap_or_default();
        for name in environment.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
            self.mistake(&key("environment"), format!("`{name}` is no name of a variable"));
        }
        if let Some((name, _)) = environment.iter().find(|(_, value)| value.contains('\0')) {
            self.mistake(&key("environment"), format!("the value of `{name}` cannot be given to a program"));
        }
        Some(LocalPoolConfig {
            dir,
            running_max: running_max?,
            program: program?,
            arguments: written.arguments.unwrap_or_default(),
            environment: environment.into_iter().map(|(name, value)| (name, Secret::from(value))).collect(),
            drains: drains.clone(),
        })
    }

    fn commands(
        &mut self,
        key: &dyn Fn(&str) -> String,
        written: PoolFile,
        dir: PathBuf,
        drains: &BTreeMap<String, Duration>,
    ) -> Option<Commands> {
        let mut needed = |name: &str, written: Option<Vec<String>>| {
            let argv = self.present(&key(name), written)?;
            self.argv(&key(name), argv)
        };
        let list = needed("list", written.list);
        let create = needed("create", written.create);
        let start = needed("start", written.start);
        let stop = needed("stop", written.stop);
        let destroy = needed("destroy", written.destroy);
        let mut other = |name: &str, written: Option<Vec<String>>| match written {
            Some(argv) => self.argv(&key(name), argv).map(Some),
            None => Some(None),
        };
        let cordon = other("cordon", written.cordon);
        let uncordon = other("uncordon", written.uncordon);
        let room = other("room", written.room);
        if let (Some(cordon), Some(uncordon)) = (&cordon, &uncordon)
            && cordon.is_some() != uncordon.is_some()
        {
            let lacks = if cordon.is_some() { "uncordon" } else { "cordon" };
            self.mistake(&key(lacks), "is missing: `cordon` and `uncordon` come together".to_owned());
        }
        let timeout = self.call_timeout(key, written.timeout);
        Some(Commands {
            list: list?,
            create: create?,
            start: start?,
            stop: stop?,
            destroy: destroy?,
            cordon: cordon?,
            uncordon: uncordon?,
            room: room?,
            timeout: timeout?,
            dir,
            drains: drains.clone(),
        })
    }

    /// A program and its arguments. Whether the program is there is seen when it is run: it may be looked up.
    fn argv(&mut self, key: &str, argv: Vec<String>) -> Option<Vec<String>> {
        let fits = argv.first().is_some_and(|program| !program.is_empty())
            && argv.iter().all(|argument| !argument.contains('\0'));
        self.require(fits.then_some(argv), key, || {
            "is not a program and its arguments, such as [\"cloud\", \"list\"]".to_owned()
        })
    }

    fn fly(&mut self, key: &dyn Fn(&str) -> String, written: PoolFile) -> Option<FlyPoolConfig> {
        let app = self.present(&key("app"), written.app);
        let app = app.and_then(|app| {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let is_app = (1..=63).contains(&app.len()) && app.bytes().all(fits);
            self.require(is_app.then_some(app), &key("app"), || "is no name of an app".to_owned())
        });
        let token = self.present(&key("token"), written.token);
        let token = token.and_then(|token| {
            // Never repeats what was written.
            let fits =
                !token.expose().is_empty() && token.expose().bytes().all(|byte| (32..127).contains(&byte));
            self.require(fits.then_some(token), &key("token"), || "is no token".to_owned())
        });
        let timeout = self.call_timeout(key, written.timeout);
        let templates = self.present(&key("templates"), written.templates)?;
        for (group, file) in templates.iter().filter(|(_, file)| !file.is_file()) {
            let message = format!("there is no file `{}`", file.display());
            self.mistake(&format!("{}.{}", key("templates"), super::layers::quoted(group)), message);
        }
        Some(FlyPoolConfig {
            app: app?,
            organisation: written.organisation.filter(|organisation| !organisation.is_empty()),
            token: token?,
            timeout: timeout?,
            templates,
        })
    }

    fn simulated(&mut self, key: &dyn Fn(&str) -> String, written: &PoolFile) -> Option<SimulatedPoolConfig> {
        let mut time = |name: &str, written: Option<WrittenDuration>, otherwise: u32| {
            let written = written.unwrap_or(WrittenDuration(SECOND * otherwise));
            self.time(&key(name), Some(written), Duration::ZERO..=SECOND * 3600)
        };
        let create = time("create_takes", written.create_takes, 30);
        let start = time("start_takes", written.start_takes, 5);
        let stop = time("stop_takes", written.stop_takes, 5);
        Some(SimulatedPoolConfig { create: create?, start: start?, stop: stop? })
    }

    fn call_timeout(
        &mut self,
        key: &dyn Fn(&str) -> String,
        written: Option<WrittenDuration>,
    ) -> Option<Duration> {
        let written = written.unwrap_or(WrittenDuration(SECOND * 60));
        self.time(&key("timeout"), Some(written), SECOND / 10..=SECOND * 600)
    }
}

impl PoolChoice {
    /// As the configuration writes it.
    const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Command => "command",
            Self::Fly => "fly",
            Self::Simulated => "simulated",
        }
    }
}
