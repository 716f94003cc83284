//! The only module that knows how messages become bytes: serde through bincode 2, always with a limit.
//!
//! bincode is no longer maintained (RUSTSEC-2025-0141). What keeps that harmless: it is named here alone, every
//! frame carries a codec id, so another codec can come in by a rolling upgrade, and nothing is read without a
//! limit (without one, a length prefix of 288 bytes makes bincode allocate until the process aborts).

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Codec ids of frame bodies.
pub(crate) const CODEC_BINCODE_2: u8 = 1;

/// Bytes that are not the message they claim to be, or a message that cannot become bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The sender wrote something else, or more than the type allows.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Longer than the type allows. Whoever made the message acts.
    #[error("{bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
}

/// Encodes behind what `out` holds.
///
/// # Errors
/// When serde cannot write the value.
pub fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    // Fixed integers: what is written has the length that the type suggests, and costs no branches.
    let config = bincode::config::standard().with_fixed_int_encoding();
    bincode::serde::encode_into_std_write(value, out, config)
        .map(|_written| ())
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

/// A text is given its room before it is read: one in a body of at most this is given no more than that.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Decodes a whole body and refuses what is left over. Allocates no more than `LIMIT` bytes for it, or 64 KiB for one that
/// is no longer than that, or the mebibyte that serde sets aside for any sequence that claims to be longer.
///
/// # Errors
/// When the bytes are no such value.
pub fn read_bounded<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > LIMIT {
        return Err(CodecError::TooLarge { bytes: bytes.len(), max: LIMIT });
    }
    // Every value counts as many bytes against the limit as it takes.
    if LIMIT > SMALL_BYTES_MAX && bytes.len() <= SMALL_BYTES_MAX {
        read_within::<T, SMALL_BYTES_MAX>(bytes)
    } else {
        read_within::<T, LIMIT>(bytes)
    }
}

fn read_within<T: DeserializeOwned, const COUNT_MAX: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let config: Configuration<LittleEndian, Fixint, Limit<COUNT_MAX>> =
        bincode::config::standard().with_fixed_int_encoding().with_limit::<COUNT_MAX>();
    match bincode::serde::decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(CodecError::Malformed(format!("{} bytes are left over", bytes.len() - read))),
        Err(error) => Err(CodecError::Malformed(error.to_string())),
    }
}

/// What greetings and records may take.
const HELLO_BYTES_MAX: usize = 64 << 10;

pub(crate) fn read_hello<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    read_bounded::<T, HELLO_BYTES_MAX>(bytes)
}
