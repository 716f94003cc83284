//! In which coding an answer is sent: what the caller prefers (RFC 9110, section 12.5.3) of what we can make.

use std::io::{self, Write as _};

use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use actix_web::rt::task::spawn_blocking;
use actix_web::web::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// Smaller answers are not worth packing: a usual forecast is one.
const PACK_BYTES_MIN: u64 = 16 << 10;
/// Larger ones would keep the other connections of a thread waiting for milliseconds.
const PACK_BYTES_INLINE_MAX: usize = 64 << 10;

const VARIES: &str = "accept-encoding";

/// How an answer is sent. Of two that are preferred alike the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Identity,
}

impl Coding {
    const ALL: [Self; 3] = [Self::Gzip, Self::Deflate, Self::Identity];

    /// Which of those that we can make a caller with these headers prefers. One that accepts none is answered nevertheless.
    pub(crate) fn of(wishes: &HeaderMap, offered: &[Self]) -> Self {
        let accepted: Vec<(&str, u16)> = wishes
            .get_all(ACCEPT_ENCODING)
            .filter_map(|wishes| wishes.to_str().ok())
            .flat_map(|wishes| wishes.split(',').filter_map(accepted))
            .collect();
        let mut best = (0, Self::Identity);
        for &coding in offered {
            let weight = coding.weight(&accepted);
            if weight > best.0 {
                best = (weight, coding);
            }
        }
        best.1
    }

    /// In thousandths. Of what nothing is said is not accepted, but for the identity, which comes after all that is.
    fn weight(self, accepted: &[(&str, u16)]) -> u16 {
        let said_of = |name: &str| {
            accepted.iter().find(|(said, _)| said.eq_ignore_ascii_case(name)).map(|&(_, weight)| weight)
        };
        match self {
            Self::Gzip => said_of("gzip").or_else(|| said_of("x-gzip")).or_else(|| said_of("*")).unwrap_or(0),
            Self::Deflate => said_of("deflate").or_else(|| said_of("*")).unwrap_or(0),
            Self::Identity => said_of("identity").or_else(|| said_of("*")).unwrap_or(0),
        }
    }

    /// As headers call it; `None`: they say nothing.
    pub(crate) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
            Self::Identity => None,
        }
    }

    fn packed(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Identity => Ok(plain.to_vec()),
        }
    }
}

/// A coding and its weight in thousandths; `None`: it is malformed.
fn accepted(wish: &str) -> Option<(&str, u16)> {
    let (name, weight) = wish.split_once(';').unwrap_or((wish, "q=1"));
    let (q, weight) = weight.split_once('=')?;
    let weight = weight.trim().parse().ok().filter(|weight| (0.0..=1.0_f32).contains(weight))?;
    q.trim().eq_ignore_ascii_case("q").then_some((name.trim(), (weight * 1000.0).round() as u16))
}

/// Says of a large answer that it depends on what the caller accepts.
pub(crate) fn varies(headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static(VARIES));
}

/// Packs an answer that is large and has all of its bytes at hand, where the caller prefers that. Others, streams too, pass.
pub(super) async fn coded<B: MessageBody>(
    response: ServiceResponse<B>,
) -> ServiceResponse<EitherBody<B, Bytes>> {
    let is_large = matches!(response.response().body().size(), BodySize::Sized(PACK_BYTES_MIN..));
    if !is_large || is_decided(response.headers()) {
        return response.map_into_left_body();
    }
    let coding = Coding::of(response.request().headers(), &Coding::ALL);
    let mut response = response;
    varies(response.headers_mut());
    let Some(name) = coding.name() else { return response.map_into_left_body() };
    let (request, response) = response.into_parts();
    let (mut head, body) = response.into_parts();
    let plain = match body.try_into_bytes() {
        Ok(plain) => plain,
        Err(body) => {
            return ServiceResponse::new(request, head.set_body(body)).map_into_left_body();
        }
    };
    let packing = plain.clone();
    let packed = if plain.len() > PACK_BYTES_INLINE_MAX {
        spawn_blocking(move || coding.packed(&packing)).await.unwrap_or_else(|failed| Err(failed.into()))
    } else {
        coding.packed(&packing)
    };
    let body = match packed {
        Ok(packed) => {
            head.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(name));
            packed.into()
        }
        // As it is, rather than nothing.
        Err(_) => plain,
    };
    ServiceResponse::new(request, head.set_body(body)).map_body(|_, body| EitherBody::right(body))
}

/// Whether the handler had forms of its own to choose from.
fn is_decided(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING) || headers.get_all(VARY).any(|name| name == VARIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_decide() {
        for (wishes, want) in [
            (&[][..], Coding::Identity),
            (&[""], Coding::Identity),
            (&["gzip"], Coding::Gzip),
            (&["GZip , deflate"], Coding::Gzip),
            (&["deflate, gzip"], Coding::Gzip),
            (&["br, deflate"], Coding::Deflate),
            (&["x-gzip"], Coding::Gzip),
            (&["br"], Coding::Identity),
            (&["*"], Coding::Gzip),
            (&["br", "gzip;q=0.5"], Coding::Gzip),
            (&["gzip;q=0.1, identity;q=1"], Coding::Identity),
            (&["gzip;q=0.1"], Coding::Gzip),
            (&["gzip;q=0.5, deflate;q=0.6"], Coding::Deflate),
            (&["gzip;q=0.5, identity;q=0.5"], Coding::Gzip),
            (&["gzip;q=0"], Coding::Identity),
            (&["gzip; Q=0.000, *"], Coding::Deflate),
            (&["gzip;q=0.2, *;q=0.4"], Coding::Deflate),
            (&["gzip;q=0.2, deflate;q=0.1, *;q=0.4"], Coding::Identity),
            (&["identity;q=0, gzip;q=0.1"], Coding::Gzip),
            (&["*;q=0"], Coding::Identity),
            (&["gzip;q=x"], Coding::Identity),
            (&["gzip;q=1.5"], Coding::Identity),
            (&["gzip;level=9"], Coding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            for wish in wishes {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(wish));
            }
            assert_eq!(Coding::of(&headers, &Coding::ALL), want, "{wishes:?}");
        }
    }
}
