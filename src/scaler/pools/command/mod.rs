//! Machines of any cloud, by programs of the user's own: what has a command line can be a pool.
//!
//! Programs are run as they are, without a shell, with what they need in variables: `SCALER_GROUP`, `SCALER_SLOT`,
//! `SCALER_REGION`, `SCALER_RELEASE`, `SCALER_LAUNCH` (`true` | `false`), `SCALER_MACHINE`, `SCALER_DRAIN_SECONDS`, and
//! `SCALER_REGIONS` with commas. None waits until a machine has changed. `wire` says what they print, and what their
//! exit codes mean; what they say on stderr is logged.
//!
//! They may be naive: this looks before it asks, so that nothing that runs is destroyed, nothing is done twice, and no
//! slot is filled that has a machine. Who may change a machine is kept in a folder, with the cordons of a cloud that
//! has none; scalers of several machines need one that they share.

mod run;
#[cfg(test)]
mod tests;
pub(in crate::scaler) mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use peregrine_scaler::fleet::{GroupSpec, Machine, MachineId, MachineState};
use peregrine_scaler::pool::{Change, Hold, MachinePool, Order, PoolError};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use self::run::{RunError, run};
use self::wire::{BadOutput, Meaning};
use super::folder::{Folder, FolderError, Locked};
use super::hold::{self, HoldFile};

/// Lines of one run's stderr that are logged.
const LINES_MAX: usize = 32;

/// The programs of a pool, each with its arguments, and what else the pool needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Commands {
    /// Prints all machines.
    pub list: Vec<String>,
    /// Makes a machine and prints its name.
    pub create: Vec<String>,
    /// Starts a machine.
    pub start: Vec<String>,
    /// Asks a machine to end, and ends it after its drain.
    pub stop: Vec<String>,
    /// Takes a machine away for good.
    pub destroy: Vec<String>,
    /// Sends a machine no new callers; `None`: the cloud has no such thing.
    pub cordon: Option<Vec<String>>,
    /// Sends it callers again; there is one where there is a `cordon`.
    pub uncordon: Option<Vec<String>>,
    /// Prints how many more machines there may be; `None`: nobody knows.
    pub room: Option<Vec<String>>,
    /// For one run of one of them.
    pub timeout: Duration,
    /// Where holds are kept; made if it is not there.
    pub dir: PathBuf,
    /// How long machines of a group may take to end.
    pub drains: BTreeMap<String, Duration>,
}

/// The pool.
pub struct CommandPool {
    commands: Commands,
    notes: Folder,
    /// Locked while a machine is made: between the look and the making there is nobody else.
    making: Folder,
    chance: StdRng,
}

/// What is kept here of a machine.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NoteFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<HoldFile>,
    cordoned: bool,
}

#[derive(Default, PartialEq)]
struct Note {
    hold: Option<Hold>,
    cordoned: bool,
}

impl CommandPool {
    /// Opens the pool; runs nothing yet.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(commands: Commands, chance: StdRng) -> Result<Self, FolderError> {
        let notes = Folder::open(&commands.dir)?;
        let making = Folder::open(&commands.dir.join("making"))?;
        Ok(Self { commands, notes, making, chance })
    }

    /// Runs a program that changes nothing.
    fn asked(
        &self,
        verb: &str,
        argv: &[String],
        environment: &[(&str, String)],
    ) -> Result<Vec<u8>, PoolError> {
        let unavailable = |what: String| PoolError::Unavailable(format!("`{verb}`: {what}"));
        match run(argv, environment, self.commands.timeout) {
            Ok(output) => {
                log(verb, &output.stderr);
                match Meaning::of(output.code) {
                    Meaning::Done => Ok(output.stdout),
                    Meaning::Later => Err(PoolError::RateLimited),
                    Meaning::Refused => Err(PoolError::Refused(ended(verb, output.code))),
                    _ => Err(unavailable(ended(verb, output.code))),
                }
            }
            Err(RunError::NotBegun(failed)) => Err(not_begun(verb, argv, &failed)),
            Err(failed) => Err(unavailable(failed.to_string())),
        }
    }

    /// Runs a program that changes something.
    fn told(
        &self,
        verb: &str,
        argv: &[String],
        region: &str,
        environment: &[(&str, String)],
    ) -> Result<Vec<u8>, PoolError> {
        let output = match run(argv, environment, self.commands.timeout) {
            Ok(output) => output,
            Err(RunError::NotBegun(failed)) => return Err(not_begun(verb, argv, &failed)),
            Err(failed) => return Err(PoolError::Ambiguous(format!("`{verb}` {failed}"))),
        };
        log(verb, &output.stderr);
        let ended = ended(verb, output.code);
        match Meaning::of(output.code) {
            Meaning::Done => Ok(output.stdout),
            Meaning::WrongState => Err(PoolError::WrongState(ended)),
            Meaning::Gone => Err(PoolError::Gone),
            Meaning::NoCapacity => Err(PoolError::NoCapacity { region: region.to_owned() }),
            Meaning::HostFull => Err(PoolError::HostFull),
            Meaning::SlotTaken => Err(PoolError::SlotTaken),
            Meaning::Later => Err(PoolError::RateLimited),
            Meaning::Refused => Err(PoolError::Refused(ended)),
            Meaning::Failed => Err(PoolError::Ambiguous(ended)),
        }
    }

    fn machines(&self) -> Result<Vec<Machine>, PoolError> {
        let stdout = self.asked("list", &self.commands.list, &[])?;
        wire::machines(&stdout).map_err(|bad| bad_output("list", &bad))
    }

    fn one(&self, machine: &MachineId) -> Result<Machine, PoolError> {
        self.machines()?.into_iter().find(|listed| listed.id == *machine).ok_or(PoolError::Gone)
    }

    fn note(&self, locked: &Locked, machine: &MachineId) -> Result<Note, PoolError> {
        let file = note_file(machine)?;
        let bad = |what: &dyn std::fmt::Display| {
            let path = locked.path(&file);
            PoolError::Refused(format!("{}: {what}; remove it when no scaler runs", path.display()))
        };
        let Some(bytes) = locked.read(&file).map_err(|failed| bad(&failed))? else {
            return Ok(Note::default());
        };
        read_note(&bytes).map_err(|why| bad(&why))
    }

    fn keep(&self, locked: &Locked, machine: &MachineId, note: &Note) -> Result<(), PoolError> {
        let file = note_file(machine)?;
        let kept = if *note == Note::default() {
            locked.remove(&file)
        } else {
            let note = NoteFile { hold: note.hold.as_ref().map(HoldFile::from), cordoned: note.cordoned };
            serde_json::to_vec(&note).map_err(io::Error::from).and_then(|bytes| locked.write(&file, &bytes))
        };
        kept.map_err(|failed| self.unavailable(&failed))
    }

    /// Removes notes of machines that are gone.
    fn forget(&self, locked: &Locked, listed: &[Machine], now: Timestamp) -> Result<(), PoolError> {
        for name in locked.names(".json").map_err(|failed| self.unavailable(&failed))? {
            let machine = MachineId(name);
            if !listed.iter().any(|listed| listed.id == machine)
                && self.note(locked, &machine)?.hold.is_none_or(|hold| hold.until <= now)
            {
                self.keep(locked, &machine, &Note::default())?;
            }
        }
        Ok(())
    }

    fn cordon(&self, machine: &Machine, cordoned: bool) -> Result<(), PoolError> {
        let (verb, argv) =
            if cordoned { ("cordon", &self.commands.cordon) } else { ("uncordon", &self.commands.uncordon) };
        if let Some(argv) = argv {
            return if machine.cordoned == cordoned {
                Ok(())
            } else {
                self.told(verb, argv, &machine.region, &self.about(machine)).map(drop)
            };
        }
        let locked = self.notes.lock()?;
        let note = self.note(&locked, &machine.id)?;
        self.keep(&locked, &machine.id, &Note { cordoned, ..note })
    }

    /// What a program is told of the machine that it is to change.
    fn about(&self, machine: &Machine) -> Vec<(&'static str, String)> {
        let drain = self.commands.drains.get(&machine.slot.group).copied().unwrap_or_default();
        vec![
            ("SCALER_MACHINE", machine.id.0.clone()),
            ("SCALER_GROUP", machine.slot.group.clone()),
            ("SCALER_SLOT", machine.slot.to_string()),
            ("SCALER_REGION", machine.region.clone()),
            ("SCALER_RELEASE", machine.release.clone()),
            ("SCALER_DRAIN_SECONDS", drain.as_secs_f64().ceil().to_string()),
        ]
    }

    fn unavailable(&self, failed: &io::Error) -> PoolError {
        PoolError::Unavailable(format!("{}: {failed}", self.notes.path().display()))
    }
}

impl MachinePool for CommandPool {
    fn list(&mut self, now: Timestamp) -> Result<Vec<Machine>, PoolError> {
        let mut machines = self.machines()?;
        let locked = self.notes.lock()?;
        self.forget(&locked, &machines, now)?;
        for machine in &mut machines {
            machine.cordoned |= self.note(&locked, &machine.id)?.cordoned;
        }
        Ok(machines)
    }

    fn room(&mut self, group: &GroupSpec, _: Timestamp) -> Result<Vec<(String, u32)>, PoolError> {
        let Some(argv) = &self.commands.room else { return Ok(Vec::new()) };
        let regions: Vec<&str> = group.places.iter().map(|place| place.region.as_str()).collect();
        let environment = [("SCALER_GROUP", group.name.clone()), ("SCALER_REGIONS", regions.join(","))];
        let stdout = self.asked("room", argv, &environment)?;
        wire::room(&stdout, group).map_err(|bad| bad_output("room", &bad))
    }

    fn create(&mut self, order: &Order, _: Timestamp) -> Result<MachineId, PoolError> {
        let _alone = self.making.lock()?;
        if self.machines()?.iter().any(|machine| machine.slot == order.slot) {
            return Err(PoolError::SlotTaken);
        }
        let environment = [
            ("SCALER_GROUP", order.slot.group.clone()),
            ("SCALER_SLOT", order.slot.to_string()),
            ("SCALER_REGION", order.region.clone()),
            ("SCALER_RELEASE", order.release.clone()),
            ("SCALER_LAUNCH", order.launch.to_string()),
        ];
        let stdout = self.told("create", &self.commands.create, &order.region, &environment)?;
        // It says that there is one, and not which.
        wire::created(&stdout).map_err(|bad| PoolError::Ambiguous(format!("`create`: {bad}")))
    }

    fn hold(
        &mut self,
        machine: &MachineId,
        held: Option<&Hold>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Hold, PoolError> {
        let locked = self.notes.lock()?;
        let note = self.note(&locked, machine)?;
        let hold = hold::taken(note.hold.as_ref(), held, ttl, now, &mut self.chance)?;
        self.keep(&locked, machine, &Note { hold: Some(hold.clone()), ..note })?;
        Ok(hold)
    }

    fn release(&mut self, machine: &MachineId, hold: &Hold, _: Timestamp) -> Result<(), PoolError> {
        let locked = self.notes.lock()?;
        let mut note = self.note(&locked, machine)?;
        match note.hold.take_if(|present| present.nonce == hold.nonce) {
            Some(_) => self.keep(&locked, machine, &note),
            None => Ok(()),
        }
    }

    fn change(
        &mut self,
        machine: &MachineId,
        change: Change,
        hold: &Hold,
        now: Timestamp,
    ) -> Result<(), PoolError> {
        use MachineState as State;
        let note = {
            let locked = self.notes.lock()?;
            self.note(&locked, machine)?
        };
        let seen = self.one(machine)?;
        hold::check(note.hold.as_ref(), hold, now)?;
        let commands = &self.commands;
        let (verb, argv) = match (change, seen.state) {
            (Change::Cordon, _) => return self.cordon(&seen, true),
            (Change::Uncordon, _) => return self.cordon(&seen, false),
            (Change::Start, State::Started | State::Starting)
            | (Change::Stop, State::Stopped | State::Stopping | State::Suspended)
            | (Change::Destroy, State::Destroying) => return Ok(()),
            (Change::Start, State::Stopped | State::Suspended | State::Failed) => ("start", &commands.start),
            (Change::Stop, State::Started | State::Starting) => ("stop", &commands.stop),
            (Change::Destroy, State::Stopped | State::Suspended | State::Failed) => {
                ("destroy", &commands.destroy)
            }
            (_, state) => return Err(PoolError::WrongState(state.name().to_owned())),
        };
        self.told(verb, argv, &seen.region, &self.about(&seen)).map(drop)
    }
}

/// Whether bytes are what is kept of a machine.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::scaler) fn is_note(bytes: &[u8]) -> bool {
    read_note(bytes).is_ok()
}

fn read_note(bytes: &[u8]) -> Result<Note, String> {
    let note: NoteFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let hold = note.hold.map(|hold| hold.hold().ok_or("is held until no time")).transpose()?;
    Ok(Note { hold, cordoned: note.cordoned })
}

fn note_file(machine: &MachineId) -> Result<String, PoolError> {
    // No list has such a machine.
    if wire::is_id(&machine.0) { Ok(format!("{machine}.json")) } else { Err(PoolError::Gone) }
}

fn bad_output(verb: &str, bad: &BadOutput) -> PoolError {
    PoolError::Unavailable(format!("`{verb}`: {bad}"))
}

fn not_begun(verb: &str, argv: &[String], failed: &io::Error) -> PoolError {
    PoolError::Refused(format!("`{verb}`: {}: {failed}", argv.first().map_or("", String::as_str)))
}

fn ended(verb: &str, code: Option<i32>) -> String {
    match code {
        Some(code) => format!("`{verb}` has ended with {code}"),
        None => format!("`{verb}` was ended by a signal"),
    }
}

fn log(verb: &str, stderr: &[u8]) {
    let text = String::from_utf8_lossy(stderr);
    for line in text.lines().filter(|line| !line.is_empty()).take(LINES_MAX) {
        info!(command = verb, line, "a pool's program said");
    }
    let left_out = text.lines().count().saturating_sub(LINES_MAX);
    if left_out > 0 {
        warn!(command = verb, left_out, "a pool's program said more");
    }
}
