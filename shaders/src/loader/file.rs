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
    let too_large = || LoadError::FileTooLarge { path: path.to_owned(), bytes_max };
    if facts.len() > bytes_max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(facts.len() as usize);
    // One byte more than allowed tells a file that grew, or lied about its length, from one that fits.
    File::open(path).map_err(io)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        // Of nothing but a length: nobody has the memory for what may be read of it.
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        assert!(
            matches!(read(&path, 1 << 41), Err(LoadError::FileTooLarge { bytes_max, .. }) if bytes_max == 1 << 41)
        );
        File::create(&path).unwrap().set_len(8).unwrap();
        assert_eq!(read(&path, 8).unwrap(), [0; 8]);
        assert!(matches!(read(&path, 7), Err(LoadError::FileTooLarge { .. })));
    }
}
