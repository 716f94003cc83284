//! A file that keeps what a driver made of kernels, or what was measured of them. Whatever is wrong with it, it is as if it were not there.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// What a file may have at most; more is neither read nor written.
const BYTES_MAX: usize = 256 << 20;
const MARK_BYTES: usize = 32;
/// In front of what is kept: who made it, and a digest of both.
pub(super) const HEAD_BYTES: usize = 2 * MARK_BYTES;
/// Neither group nor others may write: a driver runs what it finds there.
const WRITABLE_BY_OTHERS: u32 = 0o022;

type Mark = [u8; MARK_BYTES];

/// One file of a device.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    /// Of the device, its driver and this build: what others made is not read.
    maker: Mark,
    /// Digest of what lies there, as far as it is known.
    known: Mutex<Option<Mark>>,
}

impl Kept {
    /// `maker` says in words all that must be the same for a file to be read.
    pub(super) fn new(folder: &Path, name: &str, maker: &str) -> Self {
        let path = folder.join(name);
        Self { path, maker: Sha256::digest(maker).into(), known: Mutex::new(None) }
    }

    /// What lies there, if it is whole, of the same maker, and nobody else could have written it.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        match self.try_read() {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "what was kept of kernels is not read");
                None
            }
        }
    }

    fn try_read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut file = fs::File::open(&self.path)?;
        let facts = file.metadata()?;
        let owner = fs::metadata("/proc/self")?.uid();
        if facts.mode() & WRITABLE_BY_OTHERS != 0 || facts.uid() != owner {
            return Err(io::Error::other("others may write it: remove it, or make it yours alone"));
        }
        if facts.len() > BYTES_MAX as u64 {
            return Err(io::Error::other("it is too large: remove it"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(digest) = self.digest_in(&bytes) else { return Ok(None) };
        *self.known.lock() = Some(digest);
        Ok(Some(bytes.split_off(HEAD_BYTES)))
    }

    /// The digest of what is kept in a file, if it is whole and of this maker.
    pub(super) fn digest_in(&self, bytes: &[u8]) -> Option<Mark> {
        let (head, data) = bytes.split_at_checked(HEAD_BYTES)?;
        let digest = self.digest(data);
        (head[..MARK_BYTES] == self.maker && head[MARK_BYTES..] == digest).then_some(digest)
    }

    /// Keeps this instead. A file is whole or not there, whenever the process ends.
    pub(super) fn write(&self, data: &[u8]) {
        if let Err(error) = self.try_write(data) {
            tracing::warn!(path = %self.path.display(), %error, "nothing is kept of kernels, the next start begins anew");
        }
    }

    fn try_write(&self, data: &[u8]) -> io::Result<()> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        if data.len() > BYTES_MAX - HEAD_BYTES {
            return Err(io::Error::other("they are too large"));
        }
        let digest = self.digest(data);
        let mut known = self.known.lock();
        if *known == Some(digest) {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let count = WRITES.fetch_add(1, Ordering::Relaxed);
        let fresh = self.path.with_extension(format!("{}-{count}", std::process::id()));
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).and_then(|mut file| {
                // Whatever the process masks.
                file.set_permissions(Permissions::from_mode(0o600))?;
                [self.maker.as_slice(), &digest, data]
                    .into_iter()
                    .try_for_each(|part| file.write_all(part))?;
                file.sync_all()?;
                fs::rename(&fresh, &self.path)
            });
        if written.is_err() {
            // It may not be there at all.
            let _ = fs::remove_file(&fresh);
        }
        written?;
        *known = Some(digest);
        Ok(())
    }

    fn digest(&self, data: &[u8]) -> Mark {
        Sha256::new().chain_update(self.maker).chain_update(data).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn what_was_written_is_read_by_the_same_maker_alone() {
        let folder = folder();
        let kept = Kept::new(&folder.path().join("new"), "a.kernels", "H200, driver 580");
        assert_eq!(kept.read(), None);
        kept.write(b"first");
        kept.write(b"second");
        assert_eq!(kept.read().as_deref(), Some(b"second".as_slice()));
        let again = Kept::new(&folder.path().join("new"), "a.kernels", "H200, driver 580");
        assert_eq!(again.read().as_deref(), Some(b"second".as_slice()));
        let newer = Kept::new(&folder.path().join("new"), "a.kernels", "H200, driver 590");
        assert_eq!(newer.read(), None);
        newer.write(b"third");
        assert_eq!((newer.read().as_deref(), again.read()), (Some(b"third".as_slice()), None));
        let files = fs::read_dir(folder.path().join("new")).expect("made").count();
        assert_eq!(files, 1, "nothing is left over");
    }

    #[test]
    fn a_file_that_is_not_whole_is_as_none() {
        let folder = folder();
        let kept = Kept::new(folder.path(), "a.kernels", "H200");
        kept.write(&[7; 1000]);
        let whole = fs::read(&kept.path).expect("written");
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let broken = [whole[..999].to_vec(), whole[..HEAD_BYTES].to_vec(), whole[..10].to_vec(), Vec::new()];
        for bytes in broken.into_iter().chain([0, 40, 70, 1063].map(flipped)) {
            fs::write(&kept.path, &bytes).expect("broken");
            assert_eq!(kept.read(), None, "{} bytes", bytes.len());
        }
        fs::write(&kept.path, &whole).expect("mended");
        assert_eq!(kept.read(), Some(vec![7; 1000]));
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        let folder = folder();
        let kept = Kept::new(folder.path(), "a.kernels", "H200");
        kept.write(b"mine");
        fs::set_permissions(&kept.path, Permissions::from_mode(0o666)).expect("it is ours");
        assert_eq!(kept.read(), None);
        fs::set_permissions(&kept.path, Permissions::from_mode(0o644)).expect("it is ours");
        assert_eq!(kept.read().as_deref(), Some(b"mine".as_slice()));
    }

    #[test]
    fn a_folder_that_cannot_be_is_no_failure() {
        let folder = folder();
        fs::write(folder.path().join("file"), b"").expect("written");
        let kept = Kept::new(&folder.path().join("file"), "a.kernels", "H200");
        kept.write(b"lost");
        assert_eq!(kept.read(), None);
    }
}
