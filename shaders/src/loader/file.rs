//! Reads a whole file under a bound, and nothing that is not a regular file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::LoadError;

/// Where the content of model files comes from: whoever keeps them otherwise than plainly on disk says how.
pub trait Files: Sync {
    /// All of the file, if it has at most `bytes_max` bytes. Of a path that is not there the error says so.
    ///
    /// # Errors
    /// It cannot be read, is larger, or is not to be trusted.
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError>;

    /// Whether there is something to read at `path`.
    fn holds(&self, path: &Path) -> bool {
        path.is_file()
    }
}

/// The files as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainFiles;

impl Files for PlainFiles {
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
        read(path, bytes_max)
    }
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    // Asked by path first: opening a pipe would block.
    let facts = std::fs::metadata(path).map_err(io)?;
    if !facts.is_file() {
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::with_capacity(facts.len().min(bytes_max) as usize);
    // One byte more than allowed tells a file that grew, or lied about its length, from one that fits.
    File::open(path).map_err(io)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > bytes_max {
        return Err(LoadError::FileTooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}
