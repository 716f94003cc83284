//! The audit records on disk: a folder of segments, one thread that appends to the last of them.
//!
//! ```text
//! dir/lock                      one process at a time
//! dir/head                      where the chain ends
//! dir/000000000000002a.segment  records in the order in which they were made
//! dir/000000000000002a.index    of a segment that takes no more; made again where it is missing
//! ```
//! Plain files and no database: a chain is read and written in one order and never changed, and what verifies it has to
//! see every byte. What the bytes mean is decided by `peregrine_actors::audit`.

mod files;
mod folder;
mod open;
mod view;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use peregrine_actors::audit::index::Index;
use peregrine_actors::audit::{Audit, AuditSettings};
use peregrine_runtime::Clock;
use tracing::{error, info, warn};

use crate::config::{AuditConfig, NodeConfig};
use crate::embedded::{self, Lock, LockError};

pub use folder::{Folder, Located, ReadError};
pub use open::Found;
pub use view::{RowView, TimingView, View};

/// The records cannot be opened for writing. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two processes must not write one chain.
    #[error("{}: another process writes these records", .0.display())]
    Locked(PathBuf),
    /// The disk, or who may write to it.
    #[error("{}: {source}", dir.display())]
    Io {
        /// Where.
        dir: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The records of a node. Dropping it closes them.
pub struct AuditRecords {
    audit: Arc<Audit>,
    folder: Folder,
    writer: parking_lot::Mutex<Option<JoinHandle<()>>>,
    /// Of the folder; released last.
    _lock: Lock,
}

/// What the thread that writes shares with those who search: the index of the segment that grows, by its number.
type Live = Arc<parking_lot::Mutex<(u64, Index)>>;

impl AuditRecords {
    /// Opens the records in their folder, which is made if it is not there; reads the last segment. What was found is
    /// logged too. Blocks.
    ///
    /// # Errors
    /// When another process writes them, or the disk refuses. Damage is no error: it is noted in the chain, and
    /// recording goes on in a new segment.
    pub fn open(
        config: &AuditConfig,
        node: &NodeConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Found), OpenError> {
        let dir = config.dir.as_path();
        let failed = |source: io::Error| OpenError::Io { dir: dir.to_owned(), source };
        let lock = lock(dir)?;
        let (mut files, found) = open::open(dir, config.keep, node, clock.wall()).map_err(failed)?;
        report(dir, &found);
        let folder = Folder::live(dir, files.live());
        let audit = Audit::new(AuditSettings {
            node: node.name.as_str().to_owned(),
            region: node.region.as_str().to_owned(),
            on_failure: config.on_failure,
            survives: config.survives,
            sync_every: config.sync_every,
            queue_bytes_max: config.queue_bytes_max,
            record_bytes_max: usize::try_from(config.keep.record_bytes_max()).unwrap_or(usize::MAX),
            group_bytes: usize::try_from(config.keep.group_bytes()).unwrap_or(usize::MAX),
        });
        let run = {
            let audit = Arc::clone(&audit);
            move || {
                if catch_unwind(AssertUnwindSafe(|| audit.run(&mut files, &*clock))).is_err() {
                    error!("the thread that writes audit records panicked");
                    audit.abandon("the thread that writes them has died: restart the node");
                }
            }
        };
        let writer = thread::Builder::new().name("audit".to_owned()).spawn(run).map_err(failed)?;
        let writer = parking_lot::Mutex::new(Some(writer));
        Ok((Self { audit, folder, writer, _lock: lock }, found))
    }

    /// What takes the records.
    #[must_use]
    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// Where they lie.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}

impl AuditRecords {
    /// Takes no more, writes what waits, and says in the chain that it ends here. Blocks.
    pub fn close(&self) {
        self.audit.close();
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join(); // a panic was caught
        }
    }
}

impl Drop for AuditRecords {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes the folder for this process.
fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    // What callers asked and were answered is for nobody else; a folder that is there is the operator's affair.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    embedded::lock(dir).map_err(|error| match error {
        LockError::Held => OpenError::Locked(dir.to_owned()),
        LockError::Io(source) => failed(source),
    })
}

fn report(dir: &Path, found: &Found) {
    let dir = dir.display();
    if let Some(broken) = &found.broken {
        error!(%dir, found = %broken, "audit records are not as they were left; they go on in a new segment");
    }
    if !found.was_closed {
        warn!(%dir, cut_bytes = found.cut_bytes, "the last node here was killed: records that waited in its memory are missing");
    }
    info!(%dir, segments = found.segments, "audit records opened");
}

#[cfg(test)]
mod tests;
