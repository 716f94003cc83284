//! A file encrypted at rest: AES-256-GCM over chunks, so that nothing unauthenticated is ever handed on.
//!
//! `PGSEAL1\n`, 32 bytes of salt, then chunks of 64 KiB and their tags. The key of a file is HKDF-SHA256 (RFC 5869) of the
//! secret and the salt. A chunk's nonce is its number and whether it is the last (the STREAM construction of Hoang,
//! Reyhanitabar, Rogaway and Vizár 2015), so that chunks cannot be cut off, swapped or repeated; the name of the file is
//! authenticated with each, so that one file cannot stand in for another.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use super::ModelKey;

const MAGIC: &[u8; 8] = b"PGSEAL1\n";
const SALT_LEN: usize = 32;
const HEADER_LEN: usize = MAGIC.len() + SALT_LEN;
const CHUNK_LEN: usize = 64 << 10;
const TAG_LEN: usize = 16;
const PURPOSE: &[u8] = b"peregrine model at rest 1";

/// Why a sealed file cannot be opened, or made. The operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("it is not a sealed file")]
    Form,
    #[error("the key does not fit, or the file was changed")]
    Broken,
    #[error("the system has no randomness")]
    Random,
}

/// Encrypts the content of the file called `name`.
pub(crate) fn seal(key: &ModelKey, name: &str, content: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut salt = [0; SALT_LEN];
    SystemRandom::new().fill(&mut salt).map_err(|_| SealError::Random)?;
    let mut sealed =
        Vec::with_capacity(HEADER_LEN + content.len() + (content.len() / CHUNK_LEN + 1) * TAG_LEN);
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&salt);
    let cipher = cipher(key, &salt)?;
    let chunks = content.len().div_ceil(CHUNK_LEN).max(1);
    for at in 0..chunks {
        let chunk = &content[at * CHUNK_LEN..content.len().min((at + 1) * CHUNK_LEN)];
        let from = sealed.len();
        sealed.extend_from_slice(chunk);
        let nonce = nonce(at, at + 1 == chunks);
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(name.as_bytes()), &mut sealed[from..]);
        sealed.extend_from_slice(tag.map_err(|_| SealError::Broken)?.as_ref());
    }
    Ok(sealed)
}

/// The content of the file that was called `name`: all of it, unchanged, or an error.
pub(crate) fn open(key: &ModelKey, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (header, body) = sealed.split_at_checked(HEADER_LEN).ok_or(SealError::Form)?;
    let salt = header.strip_prefix(MAGIC).ok_or(SealError::Form)?;
    let cipher = cipher(key, salt)?;
    let chunks = body.len().div_ceil(CHUNK_LEN + TAG_LEN).max(1);
    let mut content = Vec::with_capacity(body.len());
    let mut chunk = Vec::with_capacity(CHUNK_LEN + TAG_LEN);
    for at in 0..chunks {
        let from = at * (CHUNK_LEN + TAG_LEN);
        chunk.clear();
        chunk.extend_from_slice(&body[from..body.len().min(from + CHUNK_LEN + TAG_LEN)]);
        let nonce = nonce(at, at + 1 == chunks);
        let plain = cipher.open_in_place(nonce, Aad::from(name.as_bytes()), &mut chunk);
        content.extend_from_slice(plain.map_err(|_| SealError::Broken)?);
    }
    Ok(content)
}

fn cipher(key: &ModelKey, salt: &[u8]) -> Result<LessSafeKey, SealError> {
    let derived = Salt::new(HKDF_SHA256, salt).extract(key.expose());
    let okm = derived.expand(&[PURPOSE], &AES_256_GCM).map_err(|_| SealError::Broken)?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

fn nonce(at: usize, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[0] = u8::from(is_last);
    nonce[4..].copy_from_slice(&(at as u64).to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "weights.safetensors";

    fn key(byte: u8) -> ModelKey {
        ModelKey::parse(&format!("{byte:02x}").repeat(32)).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_and_name_alone() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
            let content: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
            let sealed = seal(&key(1), NAME, &content).unwrap();
            assert_eq!(open(&key(1), NAME, &sealed), Ok(content.clone()), "{len} bytes");
            assert_eq!(open(&key(2), NAME, &sealed), Err(SealError::Broken));
            assert_eq!(open(&key(1), "other", &sealed), Err(SealError::Broken));
            assert_ne!(seal(&key(1), NAME, &content).unwrap(), sealed, "another salt each time");
        }
    }

    #[test]
    fn every_change_is_noticed() {
        let content: Vec<u8> = (0..2 * CHUNK_LEN + 100).map(|at| (at % 256) as u8).collect();
        let sealed = seal(&key(1), NAME, &content).unwrap();
        for at in (0..sealed.len()).step_by(997).chain(0..HEADER_LEN + 20) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&key(1), NAME, &changed).is_err(), "byte {at}");
        }
        let whole = CHUNK_LEN + TAG_LEN;
        for len in
            [0, HEADER_LEN - 1, HEADER_LEN, HEADER_LEN + whole, HEADER_LEN + 2 * whole, sealed.len() - 1]
        {
            assert!(open(&key(1), NAME, &sealed[..len]).is_err(), "cut to {len}");
        }
        let (first, second) = (HEADER_LEN..HEADER_LEN + whole, HEADER_LEN + whole..HEADER_LEN + 2 * whole);
        let swapped =
            [&sealed[..HEADER_LEN], &sealed[second.clone()], &sealed[first], &sealed[second.end..]].concat();
        assert!(open(&key(1), NAME, &swapped).is_err());
        assert!(open(&key(1), NAME, &[&sealed[..], b"x"].concat()).is_err());
        assert_eq!(open(&key(1), NAME, &content), Err(SealError::Form));
    }
}
