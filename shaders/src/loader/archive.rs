//! Named tensors of one safetensors file, checked as they are taken.
//!
//! Knows no architecture. Remembers which tensors were taken, so that a file with weights that the described
//! network has no place for is refused instead of being served wrongly.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use sha2::{Digest, Sha256};

use super::{Files, LoadError, doubles};

const WEIGHTS_BYTES_MAX: u64 = 1 << 30;
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// Training state that inference has no use for.
const IGNORED_PREFIXES: [&str; 4] = ["loss.", "valid_loss.", "__hparams__.", "scaler."];
/// Batch norms count their training steps.
const IGNORED_SUFFIX: &str = ".num_batches_tracked";

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: HashMap<String, Entry>,
    /// Dropped name → kept name, for tensors that are stored once under one of several names.
    aliases: HashMap<String, String>,
    metadata: HashMap<String, String>,
    taken: RefCell<HashSet<String>>,
}

impl Archive {
    pub(crate) fn open(path: &Path, files: &dyn Files) -> Result<Self, LoadError> {
        Self::parse(path, files.read(path, WEIGHTS_BYTES_MAX)?)
    }

    pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, LoadError> {
        let refuse = |source| LoadError::Archive { path: path.to_owned(), source };
        if header_bytes(&bytes) > HEADER_BYTES_MAX {
            return Err(refuse(SafeTensorError::HeaderTooLarge));
        }
        let (header_len, header) = SafeTensors::read_metadata(&bytes).map_err(refuse)?;
        let data_start = size_of::<u64>() + header_len;
        doubles::refuse(&bytes[size_of::<u64>()..data_start])
            .map_err(|source| refuse(SafeTensorError::InvalidHeaderDeserialization(source)))?;
        let mut entries = HashMap::new();
        for (name, info) in header.tensors() {
            let (start, end) = info.data_offsets;
            let range = data_start.checked_add(start).zip(data_start.checked_add(end));
            match range.map(|(start, end)| start..end).filter(|range| bytes.get(range.clone()).is_some()) {
                Some(range) => {
                    entries.insert(name, Entry { dtype: info.dtype, shape: info.shape.clone(), range })
                }
                None => return Err(refuse(SafeTensorError::InvalidOffset(name))),
            };
        }
        Ok(Self {
            metadata: header.metadata().clone().unwrap_or_default(),
            aliases: HashMap::new(),
            taken: RefCell::default(),
            entries,
            bytes,
        })
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub(crate) fn alias(&mut self, dropped: String, kept: String) {
        self.aliases.insert(dropped, kept);
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entry(name).map(|entry| entry.shape.as_slice())
    }

    /// The numbers of a tensor of exactly this shape, all finite.
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, LoadError> {
        let entry = self.entry(name).ok_or_else(|| LoadError::MissingTensor { name: name.to_owned() })?;
        if entry.shape != shape {
            return Err(LoadError::TensorShape {
                name: name.to_owned(),
                got: entry.shape.clone(),
                want: format!("{shape:?}"),
            });
        }
        let values = self.values(name, entry)?;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(LoadError::NotFinite { name: name.to_owned(), index });
        }
        let stored = self.aliases.get(name).map_or(name, String::as_str);
        self.taken.borrow_mut().insert(stored.to_owned());
        Ok(values)
    }

    /// # Errors
    /// Names the first tensor, in the order of names, that nothing has taken.
    pub(crate) fn check_all_taken(&self) -> Result<(), LoadError> {
        let taken = self.taken.borrow();
        let ignored = |name: &str| {
            IGNORED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name.ends_with(IGNORED_SUFFIX)
        };
        match self.entries.keys().filter(|name| !taken.contains(*name) && !ignored(name)).min() {
            Some(name) => Err(LoadError::UnusedTensor { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name).or_else(|| self.entries.get(self.aliases.get(name)?))
    }

    fn values(&self, name: &str, entry: &Entry) -> Result<Vec<f64>, LoadError> {
        let bytes = &self.bytes[entry.range.clone()];
        Ok(match entry.dtype {
            Dtype::F32 => decode(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::F64 => decode(bytes, f64::from_le_bytes),
            Dtype::F16 => decode(bytes, |b| f16::from_le_bytes(b).to_f64()),
            Dtype::BF16 => decode(bytes, |b| bf16::from_le_bytes(b).to_f64()),
            other => {
                return Err(LoadError::TensorType { name: name.to_owned(), dtype: format!("{other:?}") });
            }
        })
    }
}

fn decode<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| number(chunk)).collect()
}

/// Hex SHA-256.
pub(crate) fn digest(file: &[u8]) -> String {
    hex(&Sha256::digest(file))
}

fn header_bytes(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |&prefix| u64::from_le_bytes(prefix))
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
