//! Machines that are processes on this machine: the pool of whoever has no other.
//!
//! ```text
//! dir/lock                 one scaler at a time, for the length of a call
//! dir/inference-0.json     the record of a machine: its slot is taken while that is there
//! dir/inference-0.process  what distinguishes its process; the process itself writes it before its program runs
//! dir/inference-0.log      what it says
//! ```
//! Machines outlive the scaler. Whoever opens the folder next finds them there, and goes on with what was begun: a
//! process that was asked to end is ended when its drain is over. A process that ends by itself has failed.

mod program;
pub(in crate::scaler) mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use jiff::Timestamp;
use peregrine_scaler::fleet::{GroupSpec, Machine, MachineId, MachineState, Slot};
use peregrine_scaler::pool::{Change, Hold, MachinePool, Order, PoolError};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tracing::{info, warn};

use self::record::{Aim, Record, is_word};
use super::folder::{Folder, FolderError, Locked};
use super::hold;
use super::process::{Process, Signal, boot};

pub use self::program::{Program, Setting};

/// A log that is longer begins anew: nobody rotates it.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Of a machine whose group is no longer known.
const DRAIN_OTHERWISE: Duration = Duration::from_secs(30);

/// What a pool of processes needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalSpec {
    /// Where records are kept; made if it is not there.
    pub dir: PathBuf,
    /// What machines run, by group.
    pub programs: BTreeMap<String, Program>,
    /// Machines that may run at once: this machine is only so large.
    pub running_max: u32,
}

/// The pool.
pub struct LocalPool {
    folder: Folder,
    programs: BTreeMap<String, Program>,
    running_max: u32,
    boot: String,
    /// Those that this process has started and not yet seen the end of.
    children: Vec<Child>,
    chance: StdRng,
}

/// A machine and what its process does.
struct Seen {
    record: Record,
    process: Option<Process>,
    state: MachineState,
}

impl LocalPool {
    /// Opens the pool, and with it all machines that are there.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(spec: LocalSpec, chance: StdRng) -> Result<Self, FolderError> {
        let folder = Folder::open(&spec.dir)?;
        let boot = boot().map_err(|source| FolderError { dir: spec.dir, source })?;
        let LocalSpec { programs, running_max, .. } = spec;
        Ok(Self { folder, programs, running_max, boot, children: Vec::new(), chance })
    }

    /// What is there, once what was due is done.
    fn see(&mut self, locked: &Locked, now: Timestamp) -> Result<Vec<Seen>, PoolError> {
        self.reap();
        let names = locked.names(".json").map_err(|failed| self.unavailable(&failed))?;
        names.iter().map(|name| self.seen(locked, name, now)).collect()
    }

    fn seen(&self, locked: &Locked, name: &str, now: Timestamp) -> Result<Seen, PoolError> {
        let file = format!("{name}.json");
        let at = |what: &dyn std::fmt::Display| {
            let path = locked.path(&file);
            // Left out of the list, it would be made once more.
            PoolError::Refused(format!("{}: {what}; remove it when no such machine runs", path.display()))
        };
        let bytes = locked.read(&file).map_err(|failed| at(&failed))?;
        let mut record = Record::decode(&bytes.unwrap_or_default()).map_err(|bad| at(&bad))?;
        if record.slot.to_string() != name {
            return Err(at(&format_args!("is the record of {}", record.slot)));
        }
        // What is there may be from before the machine was booted; or its scaler died before the program was started.
        let noted = if record.boot == self.boot {
            locked.read(&process_file(&record.slot)).map_err(|failed| at(&failed))?
        } else {
            None
        };
        let process = noted.and_then(|line| Process::from_stat(&line)).filter(|process| process.is_alive());
        let state = match (record.aim, process) {
            (Aim::Run, Some(_)) => MachineState::Started,
            (Aim::Run, None) => MachineState::Failed,
            (Aim::End { .. }, None) => MachineState::Stopped,
            (Aim::End { by, asked }, Some(process)) => {
                if !asked {
                    record = self.ask(locked, record, process, now)?;
                } else if by <= now {
                    warn!(machine = %record.id, pid = process.pid(), "did not end within its drain: killed");
                    process.signal(Signal::Kill).map_err(|failed| self.unavailable(&failed))?;
                }
                MachineState::Stopping
            }
        };
        self.cut_log(locked, &record.slot);
        Ok(Seen { record, process, state })
    }

    fn one(&mut self, locked: &Locked, machine: &MachineId, now: Timestamp) -> Result<Seen, PoolError> {
        let all = self.see(locked, now)?;
        all.into_iter().find(|seen| seen.record.id == *machine).ok_or(PoolError::Gone)
    }

    /// Takes note of children that have ended, or they would stay in the kernel's table.
    fn reap(&mut self) {
        self.children.retain_mut(|child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                info!(pid = child.id(), %status, "a process of the local pool has ended");
                false
            }
            Err(failed) => {
                warn!(pid = child.id(), error = %failed, "a process of the local pool cannot be waited for");
                false
            }
        });
    }

    fn room_left(&self, seen: &[Seen]) -> u32 {
        let running = seen.iter().filter(|seen| seen.process.is_some()).count();
        self.running_max.saturating_sub(u32::try_from(running).unwrap_or(u32::MAX))
    }

    fn cut_log(&self, locked: &Locked, slot: &Slot) {
        let path = locked.path(&log_file(slot));
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let Ok(log) = options.open(&path) else { return };
        let is_long = log.metadata().is_ok_and(|log| log.is_file() && log.len() > LOG_BYTES_MAX);
        if is_long && let Err(failed) = log.set_len(0) {
            warn!(path = %path.display(), error = %failed, "a machine's log cannot be cut");
        }
    }

    /// Starts the process of a machine whose record says that it runs.
    fn launch(&mut self, locked: &Locked, record: &Record) -> Result<(), PoolError> {
        let program = self.program(&record.slot)?;
        let (log, noted) = (locked.path(&log_file(&record.slot)), locked.path(&process_file(&record.slot)));
        match program.start(record, &log, &noted) {
            Ok(child) => {
                info!(machine = %record.id, pid = child.id(), log = %log.display(), "machine started");
                self.children.push(child);
                Ok(())
            }
            Err(failed) => Err(match failed.kind() {
                ErrorKind::WouldBlock | ErrorKind::OutOfMemory | ErrorKind::StorageFull => {
                    PoolError::HostFull
                }
                _ => PoolError::Refused(format!("{}: {failed}", program.path.display())),
            }),
        }
    }

    fn program(&self, slot: &Slot) -> Result<&Program, PoolError> {
        let unknown =
            || PoolError::Refused(format!("the local pool has no program for group {}", slot.group));
        self.programs.get(&slot.group).ok_or_else(unknown)
    }

    fn unavailable(&self, failed: &io::Error) -> PoolError {
        PoolError::Unavailable(format!("{}: {failed}", self.folder.path().display()))
    }

    fn write(&self, locked: &Locked, record: &Record) -> Result<(), PoolError> {
        let written = locked.write(&record_file(&record.slot), &record.encode());
        written.map_err(|failed| self.unavailable(&failed))
    }

    fn start(&mut self, locked: &Locked, stopped: Record, has_room: bool) -> Result<(), PoolError> {
        if !has_room {
            return Err(PoolError::HostFull);
        }
        self.program(&stopped.slot)?;
        // The note of its last process goes first: from here on there is none until the new one writes its own.
        locked.remove(&process_file(&stopped.slot)).map_err(|failed| self.unavailable(&failed))?;
        let running = Record { aim: Aim::Run, boot: self.boot.clone(), ..stopped.clone() };
        self.write(locked, &running)?;
        self.launch(locked, &running).inspect_err(|_| {
            if let Err(failed) = self.write(locked, &stopped) {
                warn!(machine = %stopped.id, error = %failed, "is listed as failed: it was not started");
            }
        })
    }

    fn stop(&self, locked: &Locked, seen: Seen, now: Timestamp) -> Result<(), PoolError> {
        // Written first: should this be all that this process still does, whoever comes next asks and waits anew.
        let record = Record { aim: Aim::End { by: now, asked: false }, ..seen.record };
        self.write(locked, &record)?;
        match seen.process {
            Some(process) => self.ask(locked, record, process, now).map(drop),
            None => Ok(()),
        }
    }

    /// Asks a process to end within its drain.
    fn ask(
        &self,
        locked: &Locked,
        record: Record,
        process: Process,
        now: Timestamp,
    ) -> Result<Record, PoolError> {
        process.signal(Signal::Terminate).map_err(|failed| self.unavailable(&failed))?;
        let drain = self.programs.get(&record.slot.group).map_or(DRAIN_OTHERWISE, |program| program.drain);
        let aim = Aim::End { by: hold::later(now, drain), asked: true };
        let asked = Record { aim, ..record };
        self.write(locked, &asked)?;
        Ok(asked)
    }

    fn destroy(&self, locked: &Locked, slot: &Slot) -> Result<(), PoolError> {
        // The record goes last: while it is there, so is the machine.
        for file in [process_file(slot), log_file(slot), record_file(slot)] {
            locked.remove(&file).map_err(|failed| self.unavailable(&failed))?;
        }
        Ok(())
    }
}

impl MachinePool for LocalPool {
    fn list(&mut self, now: Timestamp) -> Result<Vec<Machine>, PoolError> {
        let locked = self.folder.lock()?;
        Ok(self.see(&locked, now)?.into_iter().map(Seen::machine).collect())
    }

    fn room(&mut self, group: &GroupSpec, now: Timestamp) -> Result<Vec<(String, u32)>, PoolError> {
        let locked = self.folder.lock()?;
        let seen = self.see(&locked, now)?;
        let left = self.room_left(&seen);
        Ok(group.places.iter().map(|place| (place.region.clone(), left)).collect())
    }

    fn create(&mut self, order: &Order, now: Timestamp) -> Result<MachineId, PoolError> {
        self.program(&order.slot)?;
        if !is_word(&order.region) || !is_word(&order.release) {
            return Err(PoolError::Refused("no region or release is called so".to_owned()));
        }
        let locked = self.folder.lock()?;
        let seen = self.see(&locked, now)?;
        if seen.iter().any(|seen| seen.record.slot == order.slot) {
            return Err(PoolError::SlotTaken);
        }
        if order.launch && self.room_left(&seen) == 0 {
            return Err(PoolError::NoCapacity { region: order.region.clone() });
        }
        let record = Record {
            id: MachineId(format!("{}.{:016x}", order.slot, self.chance.random::<u64>())),
            slot: order.slot.clone(),
            region: order.region.clone(),
            release: order.release.clone(),
            created_at: now,
            cordoned: false,
            aim: if order.launch { Aim::Run } else { Aim::End { by: now, asked: true } },
            boot: self.boot.clone(),
            hold: None,
        };
        // A note without a record is of a machine that was destroyed.
        locked.remove(&process_file(&order.slot)).map_err(|failed| self.unavailable(&failed))?;
        match locked.create(&record_file(&order.slot), &record.encode()) {
            Ok(()) => {}
            Err(taken) if taken.kind() == ErrorKind::AlreadyExists => return Err(PoolError::SlotTaken),
            Err(failed) => return Err(self.unavailable(&failed)),
        }
        if order.launch {
            self.launch(&locked, &record).inspect_err(|_| {
                if let Err(failed) = self.destroy(&locked, &order.slot) {
                    warn!(machine = %record.id, error = %failed, "is listed as failed: it was not started");
                }
            })?;
        }
        Ok(record.id)
    }

    fn hold(
        &mut self,
        machine: &MachineId,
        held: Option<&Hold>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Hold, PoolError> {
        let locked = self.folder.lock()?;
        let record = self.one(&locked, machine, now)?.record;
        let hold = hold::taken(record.hold.as_ref(), held, ttl, now, &mut self.chance)?;
        self.write(&locked, &Record { hold: Some(hold.clone()), ..record })?;
        Ok(hold)
    }

    fn release(&mut self, machine: &MachineId, hold: &Hold, now: Timestamp) -> Result<(), PoolError> {
        let locked = self.folder.lock()?;
        let record = match self.one(&locked, machine, now) {
            Ok(seen) => seen.record,
            Err(PoolError::Gone) => return Ok(()),
            Err(failed) => return Err(failed),
        };
        match &record.hold {
            Some(present) if present.nonce == hold.nonce => {
                self.write(&locked, &Record { hold: None, ..record })
            }
            _ => Ok(()),
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
        let locked = self.folder.lock()?;
        let all = self.see(&locked, now)?;
        let has_room = self.room_left(&all) > 0;
        let seen = all.into_iter().find(|seen| seen.record.id == *machine).ok_or(PoolError::Gone)?;
        hold::check(seen.record.hold.as_ref(), hold, now)?;
        match (change, seen.state) {
            (Change::Cordon | Change::Uncordon, _) => {
                self.write(&locked, &Record { cordoned: change == Change::Cordon, ..seen.record })
            }
            (Change::Start, State::Started) | (Change::Stop, State::Stopped | State::Stopping) => Ok(()),
            (Change::Start, State::Stopped | State::Failed) => self.start(&locked, seen.record, has_room),
            (Change::Stop, State::Started) => self.stop(&locked, seen, now),
            (Change::Destroy, State::Stopped | State::Failed) => self.destroy(&locked, &seen.record.slot),
            (_, state) => Err(PoolError::WrongState(state.name().to_owned())),
        }
    }
}

impl Seen {
    fn machine(self) -> Machine {
        let Record { id, slot, region, release, created_at, cordoned, .. } = self.record;
        Machine { id, slot, region, state: self.state, cordoned, release, created_at }
    }
}

fn record_file(slot: &Slot) -> String {
    format!("{slot}.json")
}

fn process_file(slot: &Slot) -> String {
    format!("{slot}.process")
}

fn log_file(slot: &Slot) -> String {
    format!("{slot}.log")
}
