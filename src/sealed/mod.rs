//! Models at rest: encrypted files are opened, and signatures are asked for, before a loader sees a byte.

pub(crate) mod container;
mod signature;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use peregrine_shaders::place::{PARTS, version_number};
use peregrine_shaders::{Files, LoadError, PlainFiles};
use ring::rand::{SecureRandom, SystemRandom};

pub(crate) use container::SealError;
pub use signature::Signer;
pub(crate) use signature::{FILE as SIGNATURE, Signature, signer_of};

/// Behind the name of a file that is encrypted.
const SUFFIX: &str = "aes";
/// Salt, tags and what they are for: more than any container adds to a file of a gibibyte.
const OVERHEAD_MAX: u64 = 1 << 20;
const SIGNATURE_BYTES_MAX: u64 = 64 << 10;
/// The variable that holds the key.
pub(crate) const VARIABLE: &str = "PEREGRINE_MODEL_KEY";
/// The variable that holds the key that signs; no node needs it.
pub(crate) const SIGNING: &str = "PEREGRINE_SIGNING_KEY";

/// 256 bits of chance that encrypt or sign models.
#[derive(Clone, PartialEq, Eq)]
pub struct ModelKey([u8; 32]);

impl ModelKey {
    /// 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text.trim()).map(Self)
    }

    /// A new one, and as text.
    pub(crate) fn draw() -> Option<(Self, String)> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).ok()?;
        Some((Self(key), hex(&key)))
    }

    fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for ModelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(redacted)")
    }
}

/// How model files are read: decrypted where they are encrypted, and only if somebody trusted vouches for them, where
/// anybody is named.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vault {
    key: Option<ModelKey>,
    signers: Vec<Signer>,
}

impl Vault {
    /// With the key for encrypted models, and those who must have signed; nobody: nothing needs a signature.
    #[must_use]
    pub fn new(key: Option<ModelKey>, signers: Vec<Signer>) -> Self {
        Self { key, signers }
    }

    fn content(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
        let sealed = sealed_name(path);
        // Where both are, the plain one may be anybody's.
        if !sealed.is_file() {
            return PlainFiles.read(path, bytes_max);
        }
        let refuse = |reason: String| LoadError::Refused { path: sealed.clone(), reason };
        let Some(key) = &self.key else {
            return Err(refuse(format!("it is encrypted, and {VARIABLE} is not set")));
        };
        let bytes = PlainFiles.read(&sealed, bytes_max.saturating_add(OVERHEAD_MAX))?;
        let content =
            container::open(key, &file_name(path), &bytes).map_err(|error| refuse(error.to_string()))?;
        if content.len() as u64 > bytes_max {
            return Err(LoadError::FileTooLarge { path: sealed, bytes_max });
        }
        Ok(content)
    }
}

impl Files for Vault {
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
        let content = self.content(path, bytes_max)?;
        if self.signers.is_empty() {
            return Ok(content);
        }
        let beside = path.with_file_name(SIGNATURE);
        let refuse = |reason: String| LoadError::Refused { path: path.to_owned(), reason };
        if !beside.is_file() {
            return Err(refuse(format!("nobody has signed it: there is no {}", SIGNATURE)));
        }
        let text = PlainFiles.read(&beside, SIGNATURE_BYTES_MAX)?;
        let signature = Signature::read(&text).map_err(|error| refuse(error.to_string()))?;
        let vouched = signature.vouches(&self.signers, &file_name(path), &content);
        vouched.map_err(|error| refuse(error.to_string()))?;
        // Whoever can write here may not choose which of the signed models answers to a name.
        if !is_of(path, signature.model()) {
            return Err(refuse(format!(
                "it was signed as the model `{}`, and its folder has another name: sign it again under that",
                signature.model().escape_debug()
            )));
        }
        Ok(content)
    }

    fn holds(&self, path: &Path) -> bool {
        path.is_file() || sealed_name(path).is_file()
    }
}

/// A model folder cannot be encrypted or signed; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum SealFailure {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be read as a part of a model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Nothing there is to be signed.
    #[error("{} holds nothing of a model", .0.display())]
    Nothing(PathBuf),
    /// The system would not.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Of the largest part of a model.
const PART_BYTES_MAX: u64 = 1 << 30;

/// Encrypts the weights of the model folder in place: the plain files are gone once the encrypted ones are on disk and
/// were opened again. Says which; none where no weights lie there in the clear. `model.json` stays as it is: it says what
/// the model is, not what it knows.
///
/// # Errors
/// See [`SealFailure`]; files already encrypted stay so.
pub(crate) fn encrypt(dir: &Path, key: &ModelKey) -> Result<Vec<PathBuf>, SealFailure> {
    let mut done = Vec::new();
    for part in PARTS.iter().filter(|part| part.ends_with(".safetensors")) {
        let plain = dir.join(part);
        if !plain.is_file() {
            continue;
        }
        let sealed_path = sealed_name(&plain);
        let io = |source| SealFailure::Io { path: sealed_path.clone(), source };
        let refuse =
            |error: SealError| SealFailure::Refused { path: plain.clone(), reason: error.to_string() };
        let content = PlainFiles.read(&plain, PART_BYTES_MAX)?;
        let sealed = container::seal(key, part, &content).map_err(refuse)?;
        write(&sealed_path, &sealed).map_err(io)?;
        let again = PlainFiles.read(&sealed_path, PART_BYTES_MAX + OVERHEAD_MAX)?;
        if container::open(key, part, &again).map_err(refuse)? != content {
            return Err(SealFailure::Refused { path: sealed_path, reason: "it reads otherwise".to_owned() });
        }
        fs::remove_file(&plain).map_err(|source| SealFailure::Io { path: plain.clone(), source })?;
        done.push(sealed_path);
    }
    Ok(done)
}

/// Whether the file lies in the folder of the model of this name, or of a version of it.
fn is_of(file: &Path, model: &str) -> bool {
    let name = |dir: &Path| dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(dir) = file.parent() else { return false };
    let Some(folder) = name(dir) else { return false };
    let above = || dir.parent().and_then(name);
    // A model may be called as a version is.
    folder == model || (version_number(&folder).is_some() && above().is_some_and(|above| above == model))
}

/// Signs what the folder of the model of this name, or of a version of it, holds.
///
/// # Errors
/// See [`SealFailure`].
pub(crate) fn sign(dir: &Path, name: &str, key: &ModelKey, vault: &Vault) -> Result<PathBuf, SealFailure> {
    let mut files = BTreeMap::new();
    for part in PARTS {
        let path = dir.join(part);
        if vault.holds(&path) {
            files.insert(part.to_owned(), vault.content(&path, PART_BYTES_MAX)?);
        }
    }
    if files.is_empty() {
        return Err(SealFailure::Nothing(dir.to_owned()));
    }
    let path = dir.join(SIGNATURE);
    let refused = || SealFailure::Refused { path: path.clone(), reason: "the key signs nothing".to_owned() };
    let signature = Signature::make(key, name, files).ok_or_else(refused)?;
    let text = serde_json::to_vec_pretty(&signature).map_err(|_| refused())?;
    write(&path, &text).map_err(|source| SealFailure::Io { path: path.clone(), source })?;
    Ok(path)
}

/// All of it or nothing, whatever happens meanwhile.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("part");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// What an encrypted file is called.
pub(crate) fn sealed_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SUFFIX);
    name.into()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    if text.len() != 2 * LEN || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; LEN];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let digits = &text[2 * at..2 * at + 2];
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
