//! Request bodies: bounded as announced, as sent and as inflated. Knows no route and no format.

use std::io::Read;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use actix_web::web::{self, Bytes, BytesMut};
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use futures_util::StreamExt;

/// Reserved at once for an announced body; more only as it arrives.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// Deflate packs no denser.
const INFLATION_MAX: usize = 1032;

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// As sent and as inflated.
    pub(crate) bytes_max: usize,
    /// Of all bodies that are read or worked on at the same time.
    pub(crate) together_max: usize,
    /// From the first byte to the last.
    pub(crate) within: Duration,
}

/// Bytes of all bodies that are held now: connections are many, and what they may send together has to fit in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(crate) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    fn of(budget: &Budget) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    fn grow(&mut self, by: usize, max: usize) -> Result<(), BodyError> {
        let before = self.budget.0.fetch_add(by, Ordering::Relaxed);
        self.bytes += by;
        // The first chunk of a body lies in its connection's buffer whether it is taken or not.
        if before.saturating_add(by) > max && self.bytes > by { Err(BodyError::NoRoom) } else { Ok(()) }
    }

    fn shrink_to(&mut self, bytes: usize) {
        self.budget.0.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = self.bytes.min(bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole body.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    sent_bytes: usize,
    _share: Share,
}

impl Body {
    /// Of it as it came, packed or not.
    pub(crate) fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }
}

impl Deref for Body {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// The body cannot be read; the caller's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// 413.
    #[error("the body is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    /// 415.
    #[error("content encoding `{0}` is not supported; gzip, deflate and identity are")]
    Encoding(String),
    /// 400.
    #[error("the body is not what its content encoding says, or is cut short")]
    Corrupt,
    /// 400.
    #[error("the body is not UTF-8")]
    NotText,
    /// 400.
    #[error("the body ended early or was framed wrongly")]
    Broken,
    /// 429.
    #[error("the bodies of other requests fill the memory that there is for them")]
    NoRoom,
    /// 408.
    #[error("the body did not arrive within {} s", within.as_secs())]
    Slow { within: Duration },
}

#[derive(Clone, Copy)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

/// The whole body, inflated.
pub(crate) async fn read(
    headers: &HeaderMap,
    payload: &mut web::Payload,
    limits: BodyLimits,
    budget: &Budget,
) -> Result<Body, BodyError> {
    let encoding = encoding(headers)?;
    let mut share = Share::of(budget);
    let slow = BodyError::Slow { within: limits.within };
    let sent = collect(headers, payload, limits, &mut share);
    let sent = tokio::time::timeout(limits.within, sent).await.map_err(|_elapsed| slow)??;
    let sent_bytes = sent.len();
    let bytes = match encoding {
        Encoding::Identity => sent,
        packed => {
            // What it may become; then what it became.
            share
                .grow(limits.bytes_max.min(sent_bytes.saturating_mul(INFLATION_MAX)), limits.together_max)?;
            // Inflating may take long; the worker has other connections to serve.
            let inflated = web::block(move || inflate(packed, &sent, limits.bytes_max)).await;
            let plain = Bytes::from(inflated.map_err(|_cancelled| BodyError::Broken)??);
            share.shrink_to(plain.len());
            plain
        }
    };
    Ok(Body { bytes, sent_bytes, _share: share })
}

/// At most one, on however many lines they stand.
fn encoding(headers: &HeaderMap) -> Result<Encoding, BodyError> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
    let lines: Vec<String> = headers.get_all(CONTENT_ENCODING).map(text).collect();
    let names = lines.iter().flat_map(|line| line.split(',')).map(str::trim);
    let mut names = names.filter(|name| !matches!(*name, "" | "identity"));
    match (names.next(), names.next()) {
        (None, _) => Ok(Encoding::Identity),
        (Some("gzip" | "x-gzip"), None) => Ok(Encoding::Gzip),
        (Some("deflate"), None) => Ok(Encoding::Deflate),
        (Some(_), _) => Err(BodyError::Encoding(lines.join(", "))),
    }
}

/// Bytes that are to come, if the headers say so.
pub(super) fn announced(headers: &HeaderMap, bytes_max: usize) -> Result<Option<u64>, BodyError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(BodyError::TooLarge { bytes_max });
    }
    Ok(announced)
}

async fn collect(
    headers: &HeaderMap,
    payload: &mut web::Payload,
    BodyLimits { bytes_max, together_max, .. }: BodyLimits,
    share: &mut Share,
) -> Result<Bytes, BodyError> {
    let announced = announced(headers, bytes_max)?;
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        if whole.len() + first.len() + chunk.len() > bytes_max {
            return Err(BodyError::TooLarge { bytes_max });
        }
        share.grow(chunk.len(), together_max)?;
        if first.is_empty() && whole.is_empty() {
            first = chunk; // most requests are one chunk: no copy
            continue;
        }
        if whole.is_empty() {
            let announced = usize::try_from(announced.unwrap_or_default()).unwrap_or_default();
            whole.reserve(announced.min(RESERVE_BYTES_MAX).max(first.len() + chunk.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// All that was packed: several members of gzip are one text (RFC 1952 section 2.2), and nothing may be left over.
pub(super) fn inflate(encoding: Encoding, packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut plain = Vec::new();
    let mut rest = packed;
    let limit = bytes_max as u64 + 1;
    let read = match encoding {
        Encoding::Gzip => MultiGzDecoder::new(&mut rest).take(limit).read_to_end(&mut plain),
        Encoding::Deflate | Encoding::Identity => {
            ZlibDecoder::new(&mut rest).take(limit).read_to_end(&mut plain)
        }
    };
    if plain.len() > bytes_max {
        return Err(BodyError::TooLarge { bytes_max });
    }
    if read.is_ok() && rest.is_empty() { Ok(plain) } else { Err(BodyError::Corrupt) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        check(Encoding::Gzip, &gzip(b"abc"), Ok(b"abc".to_vec()));
        check(Encoding::Deflate, &zlib(b"abc"), Ok(b"abc".to_vec()));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let blanks = vec![b' '; 1 << 20];
        check(Encoding::Deflate, &zlib(&blanks), Err(BodyError::TooLarge { bytes_max: 1000 }));
        check(Encoding::Gzip, &gzip(&blanks), Err(BodyError::TooLarge { bytes_max: 1000 }));
        let members = [gzip(&blanks[..600]), gzip(&blanks[..600])].concat();
        check(Encoding::Gzip, &members, Err(BodyError::TooLarge { bytes_max: 1000 }));
    }

    #[test]
    fn members_are_one_text_and_nothing_is_left_over() {
        let two = [gzip(b"abc"), gzip(b""), gzip(b"def")].concat();
        check(Encoding::Gzip, &two, Ok(b"abcdef".to_vec()));
        check(Encoding::Gzip, &two[..two.len() - 9], Err(BodyError::Corrupt));
        for (encoding, whole) in [(Encoding::Gzip, gzip(b"abc")), (Encoding::Deflate, zlib(b"abc"))] {
            for rest in [&b"junk"[..], b"\0", b"\x1f", b"\x1f\x8b"] {
                check(encoding, &[&whole, rest].concat(), Err(BodyError::Corrupt));
            }
        }
        check(Encoding::Deflate, &[zlib(b"abc"), zlib(b"def")].concat(), Err(BodyError::Corrupt));
    }

    #[test]
    fn what_bodies_hold_together_is_bounded_and_given_back() {
        let budget = Budget::default();
        let mut first = Share::of(&budget);
        assert_eq!(first.grow(60, 100), Ok(()));
        let mut second = Share::of(&budget);
        assert_eq!(second.grow(60, 100), Ok(()), "its first chunk is there anyway");
        assert_eq!(second.grow(1, 100), Err(BodyError::NoRoom));
        first.shrink_to(10);
        assert_eq!(budget.held(), 71);
        drop(second);
        assert_eq!(first.grow(90, 100), Ok(()));
        drop(first);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn junk_and_cut_streams_are_corrupt() {
        check(Encoding::Gzip, b"junk", Err(BodyError::Corrupt));
        check(Encoding::Deflate, b"", Err(BodyError::Corrupt));
        let whole = gzip(b"abcdefgh");
        check(Encoding::Gzip, &whole[..whole.len() - 9], Err(BodyError::Corrupt));
    }

    #[track_caller]
    fn check(encoding: Encoding, packed: &[u8], want: Result<Vec<u8>, BodyError>) {
        assert_eq!(inflate(encoding, packed, 1000), want);
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }
}
