//! What a machine of this pool runs, and what it is told of itself.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::process::note_self;
use super::record::Record;

/// What the machines of one group run.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program's file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables that it gets, besides those of this process.
    pub environment: Vec<(String, Setting)>,
    /// How long it may take to end once it was asked to.
    pub drain: Duration,
}

/// The value of a variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// The same for every machine.
    Text(OsString),
    /// Its slot.
    Slot,
    /// Its region.
    Region,
    /// What it was ordered to run.
    Release,
    /// A folder of its own within this one, made if it is not there.
    FolderIn(PathBuf),
}

impl Program {
    /// This build of peregrine as a node of its own: `serve` with the same configuration files and model repositories,
    /// ports that are free, and what it takes to meet the others at `seeds` with `secret`. It runs no scaler, and
    /// replays no data.
    #[must_use]
    pub fn node(
        path: PathBuf,
        files: &[PathBuf],
        models: &[PathBuf],
        seeds: &[String],
        secret: Option<&str>,
        drain: Duration,
    ) -> Self {
        let options = [("--config", files), ("--models", models)];
        let options =
            options.into_iter().flat_map(|(option, paths)| paths.iter().map(move |path| (option, path)));
        let arguments = std::iter::once(OsString::from("serve"))
            .chain(options.flat_map(|(option, path)| [option.into(), path.clone().into_os_string()]));
        let text = |value: &str| Setting::Text(value.into());
        let mut environment: Vec<(String, Setting)> = [
            ("NODE__NAME", Setting::Slot),
            ("NODE__REGION", Setting::Region),
            ("SERVER__LISTEN", text("127.0.0.1:0")),
            ("CLUSTER__LISTEN", text("127.0.0.1:0")),
            ("CLUSTER__ADVERTISE", text("")),
            ("CLUSTER__SEEDS", text(&serde_json::json!(seeds).to_string())), // as TOML writes it
            ("SCALER__ENABLED", text("false")),
            ("DEMO__RATE", text("0")),
        ]
        .map(|(key, value)| (format!("PEREGRINE_{key}"), value))
        .into();
        // Not as an argument: those are there for everybody to read.
        environment.extend(secret.map(|secret| ("PEREGRINE_CLUSTER__SECRET".to_owned(), text(secret))));
        Self { path, arguments: arguments.collect(), environment, drain }
    }

    /// Each machine keeps what `key` names in a folder of its own within `dir`: one folder has one writer.
    #[must_use]
    pub fn with_folder(mut self, key: &str, dir: PathBuf) -> Self {
        self.environment.push((key.to_owned(), Setting::FolderIn(dir)));
        self
    }

    /// Starts it for a machine. What it says goes to `log`; what distinguishes its process is in `noted` before the
    /// program runs.
    pub(super) fn start(&self, machine: &Record, log: &Path, noted: &Path) -> io::Result<Child> {
        let append = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(log)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let note = options.open(noted)?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(append.try_clone()?).stderr(append);
        // Ctrl-C is for the scaler; and what the program starts is ended with it.
        command.process_group(0);
        for (key, setting) in &self.environment {
            command.env(key, setting.value(machine)?);
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(&note);
        // SAFETY: between fork and exec only async-signal-safe calls are made (open, read, write and close), nothing is
        // allocated, and `note` is open until the child has begun its program.
        unsafe { command.pre_exec(move || note_self(fd)) };
        let child = command.spawn();
        drop(note);
        child
    }
}

impl Setting {
    fn value(&self, machine: &Record) -> io::Result<OsString> {
        Ok(match self {
            Self::Text(text) => text.clone(),
            Self::Slot => machine.slot.to_string().into(),
            Self::Region => machine.region.clone().into(),
            Self::Release => machine.release.clone().into(),
            Self::FolderIn(dir) => {
                let own = dir.join(machine.slot.to_string());
                DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
                own.into_os_string()
            }
        })
    }
}
