//! API keys: 256 bits of chance as text, and the hash that is kept of them.
//!
//! The hash is one round of SHA-256. A slow hash is for passwords, which can be guessed; there are more keys than
//! anybody could ever try, and a request must not wait for a hash that is slow on purpose.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

/// Tells people and scanners what they have found.
const PREFIX: &str = "pgk_";
/// Before a hash in the file.
const HASH_PREFIX: &str = "sha256:";

/// A key, while it is made; only [`NewKey::expose`] shows it.
pub(crate) struct NewKey(String);

/// What is kept of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash([u8; 32]);

/// The operating system gives no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub(crate) struct NoChance;

impl NewKey {
    pub(crate) fn draw() -> Result<Self, NoChance> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoChance)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }
}

impl KeyHash {
    /// Of whatever a caller shows.
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }

    /// As the file writes it: `sha256:` and 64 digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }

    /// How long it takes says nothing about where they differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not for logs either: it is nobody's business which of two callers had the same key.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_again_by_its_written_hash() {
        let key = NewKey::draw().unwrap();
        assert_eq!(key.expose().len(), PREFIX.len() + 43);
        let written = key.hash().to_string();
        assert!(KeyHash::parse(&written).unwrap().is(&KeyHash::of(key.expose().as_bytes())));
        assert!(!KeyHash::parse(&written).unwrap().is(&NewKey::draw().unwrap().hash()));
        assert!(!written.contains(key.expose()));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let digits = "0".repeat(64);
        assert!(KeyHash::parse(&format!("sha256:{digits}")).is_some());
        for text in [&digits[..], "sha256:", "sha256:00", &format!("sha256:{}", "g".repeat(64)), ""] {
            assert!(KeyHash::parse(text).is_none(), "{text}");
        }
    }
}
