//! What every embedded store of a node does alike, whatever it keeps: one process at a time, damage told from a disk that
//! fails, and a store that cannot be read put aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

/// In the store's folder once all of it was made.
pub(crate) const MADE: &str = "made";
/// Folders put aside that are left alone; older ones are removed, or they would fill the disk.
const ASIDE_MAX: usize = 3;

/// Why an operation of the store failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Format(String),
    Io(io::Error),
    /// What is on the disk cannot be; says what was found.
    Damage(String),
}

/// A folder in use by this process. Given back outright: closing the file alone would leave it locked as long as a
/// child of this process that was forked meanwhile has not begun its own program.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(failed) = self.0.unlock() {
            tracing::warn!(error = %failed, "the folder of a store stays locked until this process ends");
        }
    }
}

/// A folder is not to be had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has it.
    Held,
    /// The disk, or who may write to it.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// Takes the folder, made if it is not there, for this process.
pub(crate) fn lock(dir: &Path) -> Result<Lock, LockError> {
    fs::create_dir_all(dir)?;
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(LockError::Held),
        Err(TryLockError::Error(source)) => Err(LockError::Io(source)),
    }
}

/// Renames the store, and removes the oldest of too many. Where it is now.
pub(crate) fn put_aside(dir: &Path, store: &Path, name: &str) -> io::Result<PathBuf> {
    let place = |number: u32| dir.join(format!("{name}.corrupt-{number}"));
    let prefix = format!("{name}.corrupt-");
    let mut numbers = Vec::new();
    for file in fs::read_dir(dir)? {
        let file = file?.file_name();
        let number = file.to_str().and_then(|file| file.strip_prefix(&prefix)?.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    fs::rename(store, place(next))?;
    let surplus = (numbers.len() + 1).saturating_sub(ASIDE_MAX);
    for &number in numbers.iter().take(surplus) {
        fs::remove_dir_all(place(number))?;
    }
    Ok(place(next))
}

/// The store takes parts without this file for parts that it had not finished to make, and deletes them. Once it was
/// made they are damage.
pub(crate) fn complete(store: &Path) -> Result<(), Failure> {
    if !store.join(MADE).is_file() {
        return Ok(());
    }
    let parts = store.join("keyspaces");
    let mut count = 0;
    for part in fs::read_dir(&parts).map_err(fjall::Error::from)? {
        let part = part.map_err(fjall::Error::from)?.path();
        if part.is_dir() && !part.join("current").is_file() {
            return Err(damage(&format!("{} has no `current`", part.display())));
        }
        count += 1;
    }
    // Its own, and our two.
    if count < 3 { Err(damage(&format!("{} lacks parts", parts.display()))) } else { Ok(()) }
}

/// The store asserts what it reads from a disk; damage may show as a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panicked| {
        let text = panicked.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panicked.downcast_ref::<String>().cloned());
        Err(damage(&text.unwrap_or_else(|| "the store panicked".to_owned())))
    })
}

pub(crate) fn damage(what: &str) -> Failure {
    Failure::Damage(what.to_owned())
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Self {
        use fjall::{Error, LsmError};
        match error {
            Error::Io(io) | Error::Storage(LsmError::Io(io)) => match io.kind() {
                // Files that should be there, or should not, or end too early.
                ErrorKind::NotFound
                | ErrorKind::AlreadyExists
                | ErrorKind::UnexpectedEof
                | ErrorKind::InvalidData
                | ErrorKind::InvalidInput
                | ErrorKind::Other => Self::Damage(io.to_string()),
                _ => Self::Io(io),
            },
            Error::InvalidVersion(Some(version)) => Self::Format(format!("{version:?} of the store")),
            Error::Locked => Self::Io(io::Error::new(ErrorKind::ResourceBusy, "the store is open already")),
            // It takes nothing more since a thread of its own could not write; only the log has that thread's words.
            Error::Poisoned => Self::Io(io::Error::other("the disk refused what the store wrote before")),
            other => Self::Damage(other.to_string()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(io) => io.fmt(f),
            Self::Format(found) => write!(f, "format {found}"),
            Self::Damage(what) => f.write_str(what),
        }
    }
}
