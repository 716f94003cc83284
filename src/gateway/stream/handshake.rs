//! The opening handshake: is this a websocket, and in which subprotocol?

use actix_http::RequestHead;
use actix_web::http::header::{
    HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use actix_web::http::{Method, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use peregrine_actors::stream::Encoding;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// The only version there is.
pub(crate) const VERSION: &str = "13";
const JSON: &str = "peregrine.v1.json";
const MESSAGE_PACK: &str = "peregrine.v1.msgpack";

/// A request that is no opening handshake; the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHandshake {
    /// 426.
    #[error(
        "this path speaks websocket: ask with `Connection: Upgrade`, `Upgrade: websocket`, over HTTP/1.1"
    )]
    NoUpgrade,
    /// 426.
    #[error("the version of websocket must be {VERSION}")]
    Version,
    /// 400.
    #[error("`Sec-WebSocket-Key` must be 16 bytes in base64")]
    Key,
    /// 400.
    #[error("none of the subprotocols is known; {JSON} and {MESSAGE_PACK} are")]
    Subprotocol,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) encoding: Encoding,
    /// The head of the answer.
    pub(crate) answer: Bytes,
}

/// In which subprotocols a path speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialects {
    /// In none: what is offered means nothing there.
    None,
    /// In JSON, named if it is offered: a page that offers any hangs up unless one is named.
    Json,
    /// In JSON or MessagePack; what offers others alone is refused.
    All,
}

/// Reads the head of a request to a path that speaks so.
pub(crate) fn agree(head: &RequestHead, dialects: Dialects) -> Result<Agreed, NoHandshake> {
    let headers = head.headers();
    let upgrades = head.method == Method::GET && head.version == Version::HTTP_11 && head.upgrade();
    if !upgrades || !words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case("websocket")) {
        return Err(NoHandshake::NoUpgrade);
    }
    if words(headers, &SEC_WEBSOCKET_VERSION).next() != Some(VERSION) {
        return Err(NoHandshake::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().trim_ascii());
    let key = key.filter(|key| is_key(key)).ok_or(NoHandshake::Key)?;
    let (protocol, encoding) = match dialects {
        Dialects::None => (None, Encoding::Json),
        Dialects::Json => {
            (words(headers, &SEC_WEBSOCKET_PROTOCOL).any(|word| word == JSON).then_some(JSON), Encoding::Json)
        }
        Dialects::All => subprotocol(headers)?,
    };
    let mut answer =
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n".to_vec();
    answer.extend_from_slice(b"sec-websocket-accept: ");
    answer.extend_from_slice(accept(key).as_bytes());
    if let Some(protocol) = protocol {
        answer.extend_from_slice(format!("\r\nsec-websocket-protocol: {protocol}").as_bytes());
    }
    answer.extend_from_slice(b"\r\n\r\n");
    Ok(Agreed { encoding, answer: answer.into() })
}

/// The first of the client's that is known.
fn subprotocol(headers: &HeaderMap) -> Result<(Option<&'static str>, Encoding), NoHandshake> {
    let mut offered = words(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok((None, Encoding::Json));
    }
    let known = offered.find_map(|word| match word {
        JSON => Some((Some(JSON), Encoding::Json)),
        MESSAGE_PACK => Some((Some(MESSAGE_PACK), Encoding::MessagePack)),
        _ => None,
    });
    known.ok_or(NoHandshake::Subprotocol)
}

/// Those of a header that may be a list, or stand several times.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn is_key(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|key| key.len() == 16)
}

/// Proves that the key was read by somebody who speaks websocket.
fn accept(key: &[u8]) -> String {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{CONNECTION, HeaderValue};

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn the_example_of_the_standard_is_answered_as_there() {
        let answer = agree(&head("websocket", "13", KEY, ""), Dialects::All).unwrap().answer;
        let answer = std::str::from_utf8(&answer).unwrap();
        assert!(answer.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    }

    #[test]
    fn the_first_known_subprotocol_is_chosen() {
        check("", Ok(Encoding::Json));
        check("peregrine.v1.msgpack", Ok(Encoding::MessagePack));
        check("other, peregrine.v1.json, peregrine.v1.msgpack", Ok(Encoding::Json));
        check("other", Err(NoHandshake::Subprotocol));
        check("peregrine.key.aw, peregrine.v1.json", Ok(Encoding::Json));
    }

    #[test]
    fn a_key_among_them_is_not_repeated() {
        let answer =
            agree(&head("websocket", "13", KEY, "peregrine.key.c2VjcmV0, peregrine.v1.json"), Dialects::All)
                .unwrap();
        let answer = String::from_utf8(answer.answer.to_vec()).unwrap();
        assert!(
            answer.contains("sec-websocket-protocol: peregrine.v1.json\r\n") && !answer.contains("c2VjcmV0"),
            "{answer}"
        );
    }

    #[test]
    fn a_path_that_speaks_json_alone_names_it_when_asked() {
        for (offered, dialects, is_named) in [
            ("peregrine.v1.json, peregrine.key.aw", Dialects::Json, true),
            ("peregrine.v1.msgpack", Dialects::Json, false),
            ("", Dialects::Json, false),
            ("peregrine.v1.json", Dialects::None, false),
        ] {
            let agreed = agree(&head("websocket", "13", KEY, offered), dialects).unwrap();
            let answer = String::from_utf8(agreed.answer.to_vec()).unwrap();
            assert_eq!(
                answer.contains("sec-websocket-protocol: peregrine.v1.json\r\n"),
                is_named,
                "{answer}"
            );
            assert_eq!(agreed.encoding, Encoding::Json);
        }
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        for (upgrade, version, key, want) in [
            ("h2c", "13", KEY, NoHandshake::NoUpgrade),
            ("websocket", "8", KEY, NoHandshake::Version),
            ("websocket", "13", "short", NoHandshake::Key),
            ("websocket", "13", "dGhlIHNhbXBsZSBub25jZQ=!", NoHandshake::Key),
        ] {
            assert_eq!(agree(&head(upgrade, version, key, ""), Dialects::All), Err(want));
        }
    }

    #[track_caller]
    fn check(offered: &str, want: Result<Encoding, NoHandshake>) {
        let agreed = agree(&head("WebSocket", "13", KEY, offered), Dialects::All);
        assert_eq!(agreed.map(|agreed| agreed.encoding), want);
    }

    fn head(upgrade: &str, version: &str, key: &str, offered: &str) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in [
            (CONNECTION, "keep-alive, Upgrade"),
            (UPGRADE, upgrade),
            (SEC_WEBSOCKET_VERSION, version),
            (SEC_WEBSOCKET_KEY, key),
            (SEC_WEBSOCKET_PROTOCOL, offered),
        ] {
            head.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        head
    }
}
