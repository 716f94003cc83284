//! Answers of HTTP/1.1, as strictly as RFC 9112 allows and within bounds. Pure: bytes in, lengths out.

use std::borrow::Cow;

/// Longest header, in bytes.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest line that begins a chunk, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Bytes that are no answer. The server is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No end of the header within its bound.
    #[error("the header is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// The first line.
    #[error("the first line is not `HTTP/1.1` and a status")]
    StatusLine,
    /// A field.
    #[error("a header field is malformed")]
    Field,
    /// The body has no length, or more than one.
    #[error("the body's length is not clear")]
    Length,
    /// The body is longer than anybody asked for.
    #[error("the body is longer than {BODY_BYTES_MAX} bytes")]
    BodyTooLong,
    /// A chunk.
    #[error("a chunk is malformed")]
    Chunk,
    /// More bytes than the answer has.
    #[error("bytes behind the answer")]
    Surplus,
}

/// How the body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(usize),
    /// Chunks.
    Chunked,
}

/// A header that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Three digits.
    pub status: u16,
    /// Bytes of it, the empty line included.
    pub head_len: usize,
    /// How the body's end is found.
    pub framing: Framing,
    /// Length of the JSON part where raw tensors follow.
    pub json_len: Option<usize>,
    /// The server will close the connection.
    pub closes: bool,
    /// What proves that a websocket's server has read the key.
    pub accept: Option<String>,
}

/// Reads the header; `Ok(None)` while it is incomplete.
///
/// # Errors
/// [`Malformed`] as soon as the bytes cannot become a header.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let within = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(end) = find(within, b"\r\n\r\n") else {
        return if bytes.len() >= HEAD_BYTES_MAX { Err(Malformed::HeadTooLong) } else { Ok(None) };
    };
    let mut lines = Lines { rest: &bytes[..end + 2] };
    let status = lines.next().and_then(status).ok_or(Malformed::StatusLine)?;
    let (mut length, mut chunked, mut json_len, mut closes, mut accept) = (None, false, None, false, None);
    for line in lines {
        let (name, value) = field(line).ok_or(Malformed::Field)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("content-length") {
            let number = digits(value).ok_or(Malformed::Length)?;
            if length.replace(number).is_some_and(|before| before != number) {
                return Err(Malformed::Length);
            }
        } else if is("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Length);
            }
            chunked = true;
        } else if is("inference-header-content-length") {
            json_len = Some(digits(value).ok_or(Malformed::Field)?);
        } else if is("connection") {
            closes |= value
                .split(|byte| *byte == b',')
                .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
        } else if is("sec-websocket-accept") {
            accept = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    let bodiless = matches!(status, 101 | 204 | 304);
    let framing = match (length, chunked) {
        (Some(_), true) => return Err(Malformed::Length),
        (_, _) if bodiless => Framing::Length(0),
        (Some(length), false) if length > BODY_BYTES_MAX => return Err(Malformed::BodyTooLong),
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        // Until the connection ends: then no connection could be used twice.
        (None, false) => return Err(Malformed::Length),
    };
    Ok(Some(Head { status, head_len: end + 4, framing, json_len, closes, accept }))
}

/// The body, once `bytes` hold all of it and nothing else; `Ok(None)` before.
///
/// # Errors
/// [`Malformed`] where chunks are, or where bytes follow that nobody asked for.
pub fn body<'a>(head: &Head, bytes: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
    let rest = &bytes[head.head_len..];
    match head.framing {
        Framing::Length(length) if rest.len() < length => Ok(None),
        Framing::Length(length) if rest.len() == length => Ok(Some(Cow::Borrowed(rest))),
        Framing::Length(_) => Err(Malformed::Surplus),
        Framing::Chunked => chunks(rest).map(|whole| whole.map(Cow::Owned)),
    }
}

fn chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut whole = Vec::new();
    loop {
        let within = &rest[..rest.len().min(CHUNK_LINE_BYTES_MAX)];
        let Some(end) = find(within, b"\r\n") else {
            return if rest.len() >= CHUNK_LINE_BYTES_MAX { Err(Malformed::Chunk) } else { Ok(None) };
        };
        // Extensions mean nothing to us.
        let size = rest[..end].split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        let size = hex(size).ok_or(Malformed::Chunk)?;
        rest = &rest[end + 2..];
        if size == 0 {
            return trailer(rest).map(|ended| ended.then_some(whole));
        }
        if whole.len() + size > BODY_BYTES_MAX {
            return Err(Malformed::BodyTooLong);
        }
        let Some((data, after)) = rest.split_at_checked(size) else {
            return Ok(None);
        };
        match after.split_at_checked(2) {
            Some((b"\r\n", after)) => rest = after,
            Some(_) => return Err(Malformed::Chunk),
            None => return Ok(None),
        }
        whole.extend_from_slice(data);
    }
}

/// No trailer fields, as nobody here sends them: the empty line alone.
fn trailer(rest: &[u8]) -> Result<bool, Malformed> {
    match rest {
        b"\r\n" => Ok(true),
        b"" | b"\r" => Ok(false),
        _ if rest.starts_with(b"\r\n") => Err(Malformed::Surplus),
        _ => Err(Malformed::Chunk),
    }
}

/// Lines that end in CR LF; a lone CR or LF is part of its line, where it is refused.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = find(self.rest, b"\r\n")?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        Some(line)
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ")?;
    let (code, reason) = rest.split_at_checked(3)?;
    let shaped = matches!(reason.first(), None | Some(b' ')) && is_text(reason);
    // Interim answers are for those who asked for them.
    let status = digits(code).filter(|&code| shaped && (code == 101 || (200..600).contains(&code)))?;
    u16::try_from(status).ok()
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (!name.is_empty() && name.iter().all(token) && is_text(value)).then_some((name, value))
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F))
}

/// Digits alone: no sign and no blanks, and few enough not to overflow.
fn digits(text: &[u8]) -> Option<usize> {
    let usable = !text.is_empty() && text.len() <= 15 && text.iter().all(u8::is_ascii_digit);
    usable.then(|| text.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

fn hex(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 8 {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    text.iter().try_fold(0_usize, |sum, byte| Some(sum * 16 + digit(byte)? as usize))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
#[path = "tests/http.rs"]
mod tests;
