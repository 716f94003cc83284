//! A folder of small files that several processes change, one of them at a time.
//!
//! Every file is written whole and then given its name: whoever dies in the middle leaves the file as it was. The lock
//! is the kernel's, which ends it with its holder; a child that was just forked shares it until it runs its own
//! program.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use peregrine_scaler::pool::PoolError;

/// Larger files are none of ours.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// More entries than this are none of ours.
const ENTRIES_MAX: usize = 16_384;
/// How long another process may have the folder before this one is told to come back.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
/// How often it is asked for meanwhile.
const LOCK_EVERY: Duration = Duration::from_millis(2);

/// The folder of a pool cannot be used. The operator acts.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", dir.display())]
pub struct FolderError {
    /// Where.
    pub dir: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

/// The folder.
pub(in crate::scaler) struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// Made, for its owner alone, if it is not there.
    pub(in crate::scaler) fn open(dir: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        // Whether it can be written to shows now.
        let folder = Self { dir: fs::canonicalize(dir).map_err(failed)? };
        folder.lock_file().map_err(failed)?;
        Ok(folder)
    }

    pub(in crate::scaler) fn path(&self) -> &Path {
        &self.dir
    }

    /// Waits for its turn, not for ever.
    pub(in crate::scaler) fn lock(&self) -> Result<Locked, PoolError> {
        let file = self.lock_file().map_err(|failed| self.unavailable(&failed))?;
        let until = Instant::now() + LOCK_WITHIN;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Locked { dir: self.dir.clone(), file }),
                Err(TryLockError::Error(failed)) => return Err(self.unavailable(&failed)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_EVERY),
                Err(TryLockError::WouldBlock) => {
                    let message = format!("{}: another process is at it", self.dir.display());
                    return Err(PoolError::Unavailable(message));
                }
            }
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options.open(self.dir.join("lock"))
    }

    fn unavailable(&self, failed: &io::Error) -> PoolError {
        PoolError::Unavailable(format!("{}: {failed}", self.dir.display()))
    }
}

/// The folder while nobody else changes it.
pub(in crate::scaler) struct Locked {
    dir: PathBuf,
    file: File,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Given back outright: a child that another thread forks meanwhile may have a copy of the file.
        if let Err(failed) = self.file.unlock() {
            tracing::warn!(dir = %self.dir.display(), error = %failed, "the pool's folder stays locked");
        }
    }
}

impl Locked {
    pub(in crate::scaler) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `None`: there is no such file.
    pub(in crate::scaler) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        // A pipe that somebody put there would be waited for.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.path(name)) {
            Ok(file) => file,
            Err(failed) if failed.kind() == ErrorKind::NotFound => return Ok(None),
            Err(failed) => return Err(failed),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidData, "is no file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("has more than {FILE_BYTES_MAX} bytes"),
            ));
        }
        Ok(Some(bytes))
    }

    /// Makes the file; one that is there already is [`ErrorKind::AlreadyExists`], whatever it is.
    pub(in crate::scaler) fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let written = self.written(name, bytes)?;
        let linked = fs::hard_link(&written, self.path(name));
        let removed = fs::remove_file(&written);
        linked.and(removed).and_then(|()| self.sync())
    }

    /// Replaces the file.
    pub(in crate::scaler) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let written = self.written(name, bytes)?;
        fs::rename(&written, self.path(name))?;
        self.sync()
    }

    /// One that is not there is no error.
    pub(in crate::scaler) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(failed) if failed.kind() != ErrorKind::NotFound => Err(failed),
            _ => Ok(()),
        }
    }

    /// What stands before `suffix` in the names that end with it, in order.
    pub(in crate::scaler) fn names(&self, suffix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for (at, entry) in fs::read_dir(&self.dir)?.enumerate() {
            if at >= ENTRIES_MAX {
                let message = format!("holds more than {ENTRIES_MAX} files");
                return Err(io::Error::new(ErrorKind::InvalidData, message));
            }
            let name = entry?.file_name();
            names.extend(name.to_string_lossy().strip_suffix(suffix).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn written(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(&format!(".{name}.new"));
        // What a dead process has left there.
        self.remove(&format!(".{name}.new"))?;
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        Ok(path)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}
