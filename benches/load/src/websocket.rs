//! The client's side of RFC 6455, as far as a stream of short messages needs it. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::target::Target;

/// Longest message of a server, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Text, whole.
pub const TEXT: u8 = 0x81;
/// The end, with or without a reason.
pub const CLOSE: u8 = 0x88;
/// To be answered.
pub const PING: u8 = 0x89;
/// The answer.
pub const PONG: u8 = 0x8A;

/// A frame that a server may not send, or that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed frame")]
pub struct BadFrame;

/// The request that opens a stream, and what its answer must prove.
#[must_use]
pub fn handshake(target: &Target, path: &str, protocol: &str, nonce: [u8; 16]) -> (Vec<u8>, String) {
    let key = STANDARD.encode(nonce);
    let request = format!(
        "GET {path} HTTP/1.1\r\n{}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        target.fields()
    );
    (request.into_bytes(), accept(&key))
}

fn accept(key: &str) -> String {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finish())
}

/// A frame that has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is, e.g. [`TEXT`].
    pub first: u8,
    /// What it holds.
    pub payload: &'a [u8],
    /// Bytes of all of it.
    pub len: usize,
}

/// The next frame; `Ok(None)` while it is incomplete.
///
/// # Errors
/// [`BadFrame`] for what is masked, fragmented, of an unknown kind, or too long.
pub fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, BadFrame> {
    let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    if !matches!(first, TEXT | CLOSE | PING | PONG) || second & 0x80 != 0 {
        return Err(BadFrame);
    }
    let (len, at) = match second {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (usize::from(u16::from_be_bytes([high, low])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|len| <[u8; 8]>::try_from(len).ok()) {
            Some(len) => (usize::try_from(u64::from_be_bytes(len)).map_err(|_| BadFrame)?, 10),
            None => return Ok(None),
        },
        len => (usize::from(len), 2),
    };
    if len > MESSAGE_BYTES_MAX || (first != TEXT && len > 125) {
        return Err(BadFrame);
    }
    Ok(bytes.get(at..at + len).map(|payload| Frame { first, payload, len: at + len }))
}

/// Appends a client's frame.
pub fn masked(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(first);
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_proved() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_of_every_length_are_read_at_their_last_byte() {
        for len in [0, 5, 125, 126, 65_535, 65_536] {
            let mut bytes = vec![TEXT];
            match len {
                0..126 => bytes.push(len as u8),
                126..65_536 => bytes.extend([&[126], &(len as u16).to_be_bytes()[..]].concat()),
                _ => bytes.extend([&[127], &(len as u64).to_be_bytes()[..]].concat()),
            }
            let head_len = bytes.len();
            bytes.resize(head_len + len, b'x');
            for cut in [0, 1, head_len - 1, head_len + len - 1].into_iter().filter(|&cut| cut < bytes.len()) {
                assert_eq!(frame(&bytes[..cut]), Ok(None), "{len} cut at {cut}");
            }
            let total = bytes.len();
            bytes.push(TEXT);
            let want = Frame { first: TEXT, payload: &vec![b'x'; len], len: total };
            assert_eq!(frame(&bytes), Ok(Some(want)));
        }
    }

    #[test]
    fn frames_that_a_server_may_not_send_are_refused() {
        for bytes in [
            &[0x01, 0][..],
            &[0x80, 0],
            &[0x83, 0],
            &[0xC1, 0],
            &[TEXT, 0x80],
            &[CLOSE, 126, 0, 126],
            &[TEXT, 127, 0, 0, 0, 0, 0, 0x80, 0, 1],
            &[TEXT, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ] {
            assert_eq!(frame(bytes), Err(BadFrame), "{bytes:?}");
        }
    }

    #[test]
    fn a_client_masks() {
        let mut out = Vec::new();
        masked(&mut out, TEXT, b"Hello", [0x37, 0xFA, 0x21, 0x3D]);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]);
    }
}
