//! Releases on disk: which version of a model answers outlives the node that was told so.
//!
//! ```text
//! dir/lock           one process at a time
//! dir/releases.json  of every model that has a release, as it stood last
//! ```
//! What a release is, and how it goes on, is decided by `peregrine_actors::release`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use actix_web::rt::task::spawn_blocking;
use peregrine_actors::System;
use peregrine_actors::release::{KeptRelease, ReleaseRefused};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{error, info};

use crate::embedded::{self, Lock, LockError};

const FILE: &str = "releases.json";
/// Far more than releases of all models take: what is larger was written by nobody here.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How long whoever has ordered a release waits for the disk.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Releases of every model that has one, by name.
pub(crate) type Kept = BTreeMap<String, KeptRelease>;

/// Releases cannot be kept, or were kept and cannot be read. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum ReleasesError {
    /// Of two nodes each would undo what the other keeps.
    #[error("{}: another process keeps its releases there", .0.display())]
    Locked(PathBuf),
    /// The disk, or who may write to it.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Nobody knows which versions must not answer.
    #[error(
        "{}: {reason}. Mend it, or take it away: the highest version of every model answers then", file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The same, of one model.
    #[error(
        "what was kept of model `{model}` makes no sense: {source}. Mend {FILE} in models.releases, or take it away"
    )]
    Refused {
        /// The model.
        model: String,
        /// What is wrong with it.
        source: ReleaseRefused,
    },
}

/// Lets a system that has no models yet go on with what was kept.
///
/// # Errors
/// What was kept makes no sense.
pub(crate) async fn resume(system: &System, kept: Kept) -> Result<(), ReleasesError> {
    if !kept.is_empty() {
        info!(models = ?kept.keys(), "releases go on as they were kept, or as models.versions says");
    }
    let refused = |(model, source)| ReleasesError::Refused { model, source };
    system.resume_releases(kept).await.map_err(refused)
}

/// The folder of one node.
pub(crate) struct Releases {
    dir: PathBuf,
    /// What the file says. Whoever writes it has this.
    written: Arc<Mutex<Vec<u8>>>,
    /// The last attempt to write it failed.
    fails: AtomicBool,
    _lock: Lock,
}

impl Releases {
    /// Opens the folder, made if it is not there, and reads what the node before kept. Blocks.
    ///
    /// # Errors
    /// See [`ReleasesError`].
    pub(crate) fn open(dir: &Path) -> Result<(Self, Kept), ReleasesError> {
        let failed = |source| ReleasesError::Io { path: dir.to_owned(), source };
        let lock = embedded::lock(dir).map_err(|error| match error {
            LockError::Held => ReleasesError::Locked(dir.to_owned()),
            LockError::Io(source) => failed(source),
        })?;
        let file = dir.join(FILE);
        let bytes = read(&file).map_err(|source| ReleasesError::Io { path: file.clone(), source })?;
        let kept = match bytes.as_deref() {
            Some(bytes) => serde_json::from_slice::<Kept>(bytes)
                .map_err(|error| ReleasesError::Damaged { file, reason: error.to_string() })?,
            None => Kept::new(),
        };
        let written = Arc::new(Mutex::new(bytes.unwrap_or_default()));
        Ok((Self { dir: dir.to_owned(), written, fails: AtomicBool::new(false), _lock: lock }, kept))
    }

    /// Writes how releases stand, if that is not what the file says. False: it could not be; the first of several failures
    /// is logged.
    pub(crate) async fn keep(&self, system: &System) -> bool {
        let done = timeout(WRITE_WITHIN, self.write(system)).await;
        let late =
            || io::Error::new(ErrorKind::TimedOut, format!("the disk takes longer than {WRITE_WITHIN:?}"));
        let done = done.unwrap_or_else(|_| Err(late()));
        let failed_before = self.fails.swap(done.is_err(), Relaxed);
        let dir = self.dir.display();
        match &done {
            Err(error) if !failed_before => {
                error!(%dir, %error, "releases cannot be kept: a restart would go on with older ones");
            }
            Ok(()) if failed_before => info!(%dir, "releases are kept again"),
            Ok(()) | Err(_) => {}
        }
        done.is_ok()
    }

    /// The file says something else than what is in effect.
    pub(crate) fn fails(&self) -> bool {
        self.fails.load(Relaxed)
    }

    async fn write(&self, system: &System) -> io::Result<()> {
        let mut written = Arc::clone(&self.written).lock_owned().await;
        let bytes = serde_json::to_vec_pretty(&system.kept_releases())?;
        if *written == bytes || (written.is_empty() && bytes == b"{}") {
            return Ok(());
        }
        let dir = self.dir.clone();
        // Whoever stops waiting leaves the turn to this thread, until it is through.
        let done = spawn_blocking(move || {
            replace(&dir, &bytes)?;
            *written = bytes;
            Ok(())
        });
        done.await.unwrap_or_else(|failed| Err(io::Error::other(failed)))
    }
}

/// `None`: there is none yet.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(bytes))
}

/// All of it or nothing, whatever happens meanwhile.
fn replace(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let (beside, file) = (dir.join("releases.new"), dir.join(FILE));
    fs::write(&beside, bytes)?;
    File::open(&beside)?.sync_all()?;
    fs::rename(beside, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_node() {
        let dir = tempfile::tempdir().unwrap();
        let (first, kept) = Releases::open(dir.path()).unwrap();
        assert!(kept.is_empty());
        assert!(matches!(Releases::open(dir.path()), Err(ReleasesError::Locked(_))));
        drop(first);
        assert!(Releases::open(dir.path()).is_ok());
    }

    #[test]
    fn what_nobody_has_kept_keeps_a_node_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let release = r#"{"stable":1,"previous":null,"plan":"whole","shadow":null,"taken_back":[2]}"#;
        fs::write(&file, format!(r#"{{"m":{release}}}"#)).unwrap();
        let (_, kept) = Releases::open(dir.path()).unwrap();
        assert_eq!(kept["m"].stable, 1);
        let extended = release.replace("stable", "extra");
        for bad in ["", "{", "[]", r#"{"m":{}}"#, &format!(r#"{{"m":{extended}}}"#)] {
            fs::write(&file, bad).unwrap();
            let refused = Releases::open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                refused.contains("releases.json: ") && refused.contains("take it away"),
                "{bad}: {refused}"
            );
        }
        fs::write(&file, vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(Releases::open(dir.path()), Err(ReleasesError::Io { .. })));
    }
}
