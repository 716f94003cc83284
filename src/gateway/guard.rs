//! Who is let in, by path and headers; what browsers are told. Decides nothing itself: `security` does.
//!
//! The address of a caller is that of the socket. No header has a say in it: whoever can write one could claim any.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use actix_http::RequestHead;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    self, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, SEC_WEBSOCKET_PROTOCOL, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::http::uri::Authority;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use peregrine_actors::stream::Opener;
use peregrine_actors::{Origin, Priority};
use peregrine_runtime::Clock;

use super::Shared;
use super::error::Refusal;
use super::traced;
use crate::config::Scope;
use crate::security::{Bearer, Caller, Denied, Refused, Rules, Scopes, Security, name_of};

pub(super) const PREDICT: Scopes = Scopes::of(&[Scope::Predict]);
pub(super) const INGEST: Scopes = Scopes::of(&[Scope::Ingest]);
const ADMIN: Scopes = Scopes::of(&[Scope::Admin]);
const OBSERVE: Scopes = Scopes::of(&[Scope::Observe]);
const DATA: Scopes = PREDICT.and(INGEST);
/// More than any path has that does not end with a name; what follows is part of a name.
const SEGMENTS_MAX: usize = 8;

/// The scopes of which a caller needs one; `None`: no such path, and [`admit`] lets nobody further. Each path is told by
/// all of its segments, so that a route that is not listed here leads nowhere. A test asks for every operation of the
/// document.
pub(super) fn needed(method: &Method, path: &str) -> Option<Scopes> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let mut segments = [""; SEGMENTS_MAX];
    let mut len = 0;
    for (segment, place) in path.strip_prefix('/')?.splitn(SEGMENTS_MAX, '/').zip(&mut segments) {
        *place = segment;
        len += 1;
    }
    Some(match segments[..len] {
        ["health", "live" | "ready" | "startup"] | ["v2", "health", "live" | "ready"] => Scopes::NONE,
        // The dashboard is a page like one to log in at: it says nothing, and asks for what it shows as anybody does.
        [""] | ["dashboard", _] => Scopes::NONE,
        // It is asked with POST, and only lists.
        ["v2", "repository", "index"] => OBSERVE,
        ["v2", "repository", ..] => ADMIN,
        ["v2", "models", _, "infer"] | ["v2", "models", _, "versions", _, "infer"] => PREDICT,
        ["v2"] | ["v2", ""] | ["v2", "models", _] | ["v2", "models", _, "versions", _] => OBSERVE,
        ["v2", "models", _, "ready" | "config" | "stats"]
        | ["v2", "models", _, "versions", _, "ready" | "config" | "stats"] => OBSERVE,
        ["v1", "forecast"] | ["neural", "predict" | "batch_predict"] => PREDICT,
        ["v1", "ticks"] => INGEST,
        // Names of series have slashes.
        ["v1", "stream"] | ["v1", "series", ..] => DATA,
        // What was asked and answered is confidential; where the chain ends is for whoever keeps that elsewhere.
        ["v1", "config"] | ["v1", "audit", _] => ADMIN,
        ["v1", "models" | "breakers" | "scaler", ..] => {
            if reads {
                OBSERVE
            } else {
                ADMIN
            }
        }
        ["v1", "scorecard" | "cluster" | "echo" | "alerts" | "audit"] => OBSERVE,
        ["v1", "overview"] | ["v1", "overview", "stream"] => OBSERVE,
        ["health"] | ["health", "gpu" | "cluster"] | ["metrics"] | ["metrics", "gpu"] => OBSERVE,
        ["status" | "openapi.json" | "docs"] => OBSERVE,
        _ => return None,
    })
}

/// Who asks, by what it shows.
pub(super) fn caller(security: &Security, head: &RequestHead, clock: &dyn Clock) -> Caller {
    let address = head.peer_addr.map(|peer| peer.ip().to_canonical());
    let is_here = address.is_some_and(|ip| ip.is_loopback());
    // A page from elsewhere, in a browser on this machine, speaks from this machine's address; and if its name leads here,
    // what it asks for is of its own origin. Only browsers follow names that strangers choose, and they tell them.
    let is_local = is_here && head.headers().get(ORIGIN).is_none_or(is_local_origin);
    let is_misled = is_here && host(head).is_some_and(|host| !security.rules().knows_name(host));
    Caller { bearer: bearer(security, head.headers(), clock), address, is_local, is_misled }
}

/// For whom a forecast is made, and how urgently.
pub(super) fn origin(shared: &Shared, request: &HttpRequest) -> Origin {
    let shown = request.extensions();
    let caller = shown.get().map_or_else(Arc::default, |shown| shared.security.rules().name(shown));
    let priority = request.head().headers().get(&PRIORITY).map(HeaderValue::as_bytes);
    let trace = traced::of(shared, request);
    Origin { caller, priority: priority.map_or_else(Priority::default, urgency), key: None, trace }
}

/// Before a key among subprotocols.
const KEY_PROTOCOL: &str = "peregrine.key.";
const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// RFC 9218 section 4.1: `u` from 0, the most urgent, to 7; 3 unless said. What else the field holds, and a field that
/// cannot be read, is passed over, as section 4 there wants.
fn urgency(field: &[u8]) -> Priority {
    let members = field.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let mut urgency = members.filter_map(|member| match member {
        [b'u', b'=', digit @ b'0'..=b'7'] => Some(digit - b'0'),
        _ => None,
    });
    match urgency.next_back() {
        Some(0..=2) => Priority::High,
        Some(4..) => Priority::Low,
        Some(3) | None => Priority::Normal,
    }
}

fn bearer(security: &Security, headers: &HeaderMap, clock: &dyn Clock) -> Bearer {
    shown(headers).map_or(Bearer::Nobody, |shown| security.bearer(&shown, clock))
}

fn shown(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    let key = bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii()));
    key.map(Cow::Borrowed).or_else(|| offered_key(headers).map(Cow::Owned))
}

/// A page can set no header of a websocket but the subprotocols that it offers: one of them may be its key, in base64url
/// so that it is a token. Like any that is not known it is never agreed on, so no answer repeats it.
fn offered_key(headers: &HeaderMap) -> Option<Vec<u8>> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
    let mut offers = offers.flat_map(|value| value.split(',')).map(str::trim);
    let key = offers.find_map(|offer| offer.strip_prefix(KEY_PROTOCOL))?;
    // What is no key is nobody's, and refused as such.
    Some(URL_SAFE_NO_PAD.decode(key).unwrap_or_default())
}

fn is_local_origin(origin: &HeaderValue) -> bool {
    let Some((_, authority)) = origin.to_str().ok().and_then(|text| text.split_once("://")) else {
        return false;
    };
    let host = name_of(authority);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Is it a page of this node, by the name that it was asked under? A browser lets no page write either header. What ends
/// TLS before the node changes neither: by which scheme the node was asked is not looked at, only what port that means.
fn is_own_origin(origin: &HeaderValue, host: &str) -> bool {
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|text| text.split_once("://")) else {
        return false;
    };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    bare(host) == bare(authority)
}

/// The name that the node was asked under: HTTP/2 has it in the place of the `Host` header.
fn host(head: &RequestHead) -> Option<&str> {
    let named = head.headers().get(HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| head.uri.authority().map(Authority::as_str))
}

/// A browser sends what any page wants to be sent, and says whose page it is; other clients do not.
fn refuse_foreign(security: &Security, rules: &Rules, head: &RequestHead) -> Result<(), Refused> {
    let is_own = |origin| host(head).is_some_and(|host| is_own_origin(origin, host));
    match head.headers().get(ORIGIN) {
        Some(origin) if !rules.shares_with(origin.as_bytes()) && !is_own(origin) => {
            Err(security.deny(Denied::Origin))
        }
        _ => Ok(()),
    }
}

/// Lets a request in, or says why not; what it showed for that is found among its extensions.
pub(super) fn admit(shared: &Shared, request: &ServiceRequest) -> Result<(), Refusal> {
    let head = request.head();
    // As routes are found by it: with its escapes undone.
    let path = request.match_info().as_str();
    let known = needed(&head.method, path);
    // Who may not look around is not told which paths there are.
    let needed = known.unwrap_or(OBSERVE);
    if needed == Scopes::NONE {
        return Ok(());
    }
    // What a page reads here a browser keeps from it; what it sends has happened.
    if !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        refuse_foreign(&shared.security, &shared.security.rules(), head)?;
    }
    let caller = caller(&shared.security, head, &*shared.clock);
    shared.security.admit(&caller, needed, &*shared.clock)?;
    if known.is_none() {
        return Err(Refusal::NoSuchPath);
    }
    if caller.bearer != Bearer::Nobody {
        request.extensions_mut().insert(caller.bearer);
    }
    Ok(())
}

/// What somebody with a websocket may do, looked at again while it lasts.
pub(super) struct Pass {
    security: Arc<Security>,
    caller: Caller,
    scopes: Scopes,
}

impl Pass {
    /// For a request to open one.
    pub(super) fn admit(shared: &Shared, head: &RequestHead) -> Result<Self, Refusal> {
        let security = Arc::clone(&shared.security);
        let (caller, rules) = (caller(&security, head, &*shared.clock), security.rules());
        refuse_foreign(&security, &rules, head)?;
        let needed = needed(&head.method, head.uri.path()).ok_or(Refusal::NoSuchPath)?;
        security.admit(&caller, needed, &*shared.clock)?;
        let scopes = rules.scopes(&caller, shared.clock.wall()).map_err(|denied| security.deny(denied))?;
        Ok(Self { security, caller, scopes })
    }

    /// May it still do all that it could do when it came?
    pub(super) fn renew(&self, clock: &dyn Clock) -> Result<(), Denied> {
        let scopes = self.security.rules().scopes(&self.caller, clock.wall())?;
        if scopes.and(self.scopes) == scopes { Ok(()) } else { Err(Denied::Scope { needed: self.scopes }) }
    }

    /// Whose channels it opens.
    pub(super) fn opener(&self) -> Opener {
        Opener(Security::number_of(&self.caller))
    }

    /// One message that does what needs one of these scopes.
    pub(super) fn message(&self, needed: Scopes, clock: &dyn Clock) -> Result<(), Refused> {
        if !self.scopes.suffice(needed) {
            return Err(self.security.deny(Denied::Scope { needed }));
        }
        self.security.again(&self.caller, clock)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Denied(denied) => Self::Denied(denied),
            Refused::Limited(after) => Self::RateLimited { after },
        }
    }
}

/// The origin of the page that asks, if it may read the answer.
pub(super) fn sharing(rules: &Rules, headers: &HeaderMap) -> Option<HeaderValue> {
    if !rules.shares() {
        return None;
    }
    headers.get(ORIGIN).filter(|origin| rules.shares_with(origin.as_bytes())).cloned()
}

/// The answer to a browser that asks whether it may ask; nobody's key is shown with that.
pub(super) fn preflight(head: &RequestHead) -> Option<HttpResponse> {
    let asks =
        head.method == Method::OPTIONS && head.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    asks.then(|| {
        HttpResponse::NoContent()
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"))
            .insert_header((
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, x-api-key, content-type, content-encoding, inference-header-content-length, priority, \
                 traceparent, tracestate, fly-prefer-region",
            ))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"))
            .finish()
    })
}

/// What every answer tells browsers.
pub(super) fn seal(headers: &mut HeaderMap, sharing: Option<HeaderValue>, shares: bool) {
    const ALWAYS: [(HeaderName, &str); 5] = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in ALWAYS {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    if shares {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = sharing {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static(
            "retry-after, inference-header-content-length, traceresponse, fly-prefer-region",
        );
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

#[cfg(test)]
mod tests {
    use peregrine_runtime::SystemClock;

    use super::super::openapi::OPERATIONS;
    use super::*;
    use crate::config::SecurityConfig;
    use crate::security::KeyHash;

    #[test]
    fn every_operation_has_a_scope() {
        for one in OPERATIONS {
            let method = one.method.to_uppercase().parse().unwrap();
            let scopes = needed(&method, &filled(one.path, "n"));
            assert!(scopes.is_some(), "{} {}: nobody can ask", one.method, one.path);
            if !one.path.contains('{') {
                continue;
            }
            for name in ["fx/X", "a/b/c/d/e/f/g/h/i/j/k", "n/", "//n", "infer", "index", "live", "stats/load"]
            {
                let path = filled(one.path, name);
                let got = needed(&method, &path);
                assert!(got.is_none() || got == scopes, "{} {path}: {got:?}", one.method);
            }
        }
        for name in ["fx/X", "a/b/c/d/e/f/g/h/i/j/k"] {
            assert_eq!(needed(&Method::GET, &format!("/v1/series/{name}")), Some(DATA), "{name}");
        }
    }

    /// The path with this in the place of each parameter.
    fn filled(path: &str, name: &str) -> String {
        let fill = |segment| if str::starts_with(segment, '{') { name } else { segment };
        path.split('/').map(fill).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn what_changes_a_node_is_for_admins() {
        for (method, path, want) in [
            ("POST", "/v1/config", Some(ADMIN)),
            ("GET", "/v1/config", Some(ADMIN)),
            ("POST", "/v1/models/m/load", Some(ADMIN)),
            ("POST", "/v1/models/m/canary", Some(ADMIN)),
            ("POST", "/v1/models/m/rollback", Some(ADMIN)),
            ("GET", "/v1/models/m", Some(OBSERVE)),
            ("POST", "/v1/breakers/m", Some(ADMIN)),
            ("POST", "/v1/scaler/release", Some(ADMIN)),
            ("GET", "/v1/scaler/report", Some(OBSERVE)),
            ("POST", "/v2/repository/models/m/unload", Some(ADMIN)),
            ("POST", "/v2/repository/models/index/load", Some(ADMIN)),
            ("POST", "/v2/repository/index", Some(OBSERVE)),
            ("POST", "/v2/models/m/versions/1/infer", Some(PREDICT)),
            ("GET", "/v1/audit/1-2", Some(ADMIN)),
            ("GET", "/v1/audit", Some(OBSERVE)),
            ("POST", "/v1/ticks", Some(INGEST)),
            ("GET", "/v1/stream", Some(DATA)),
            ("GET", "/v1/overview/stream", Some(OBSERVE)),
            ("GET", "/v1/overview/other", None),
            ("GET", "/health/ready", Some(Scopes::NONE)),
            ("GET", "/health", Some(OBSERVE)),
            ("GET", "/", Some(Scopes::NONE)),
            ("GET", "/dashboard/app.js", Some(Scopes::NONE)),
            ("GET", "/dashboard/a/b", None),
            ("GET", "/a/b/c/d/e/f/g/h/i", None),
            ("GET", "/v1/series", Some(DATA)),
            ("GET", "/v1/series/fx/X", Some(DATA)),
            ("GET", "/v1/series/a/b/c/d/e/f/g/h", Some(DATA)),
            ("GET", "/v1/audit/1/2", None),
            ("GET", "/v2/models/m/other", None),
            ("GET", "/health/other", None),
            ("GET", "", None),
        ] {
            assert_eq!(needed(&method.parse().unwrap(), path), want, "{method} {path}");
        }
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        let key = || Bearer::Key(KeyHash::of(b"k"));
        check(&[("authorization", "Bearer k")], key(), true);
        check(&[("authorization", "bearer  k ")], key(), true);
        check(&[("x-api-key", "k")], key(), true);
        check(&[("authorization", "Basic abcdefgh"), ("x-api-key", "k")], key(), true);
        check(&[("authorization", "Basic")], Bearer::Nobody, true);
        check(&[], Bearer::Nobody, true);
    }

    #[test]
    fn a_page_offers_its_key_as_a_subprotocol() {
        let key = || Bearer::Key(KeyHash::of(b"k"));
        let offer = "sec-websocket-protocol";
        check(&[(offer, "peregrine.v1.json, peregrine.key.aw")], key(), true);
        check(&[(offer, "peregrine.key.aw")], key(), true);
        check(&[(offer, "peregrine.v1.json")], Bearer::Nobody, true);
        // What cannot be read is a key that nobody has, not the lack of one.
        check(&[(offer, "peregrine.key.a")], Bearer::Key(KeyHash::of(b"")), true);
        check(&[(offer, "peregrine.key.a*")], Bearer::Key(KeyHash::of(b"")), true);
        check(&[("x-api-key", "k"), (offer, "peregrine.key.eA")], key(), true);
    }

    #[test]
    fn a_page_of_this_node_is_told_from_others() {
        for (origin, host, is_own) in [
            ("https://desk.example", "desk.example", true),
            ("http://desk.example:8080", "Desk.example:8080", true),
            ("http://desk.example:8080", "desk.example", false),
            ("https://desk.example", "desk.example:443", true),
            ("http://desk.example", "desk.example:443", false),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("ftp://desk.example", "desk.example", false),
            ("https://evil.example", "desk.example", false),
            ("null", "null", false),
        ] {
            let origin = HeaderValue::from_str(origin).unwrap();
            assert_eq!(is_own_origin(&origin, host), is_own, "{origin:?} {host}");
        }
    }

    #[test]
    fn the_name_of_the_node_is_the_host_or_what_http_2_has_for_it() {
        let mut head = RequestHead::default();
        assert_eq!(host(&head), None);
        head.uri = "https://desk.example:8443/v1/ticks".parse().unwrap();
        assert_eq!(host(&head), Some("desk.example:8443"));
        head.headers.insert(HOST, HeaderValue::from_static("desk.example"));
        assert_eq!(host(&head), Some("desk.example"));
    }

    #[test]
    fn urgency_is_read_as_rfc_9218_wants() {
        for (field, want) in [
            ("u=0", Priority::High),
            ("u=2, i", Priority::High),
            ("i,u=3", Priority::Normal),
            ("u=7", Priority::Low),
            ("u=1,u=5", Priority::Low),
            ("u=9", Priority::Normal),
            ("u=12", Priority::Normal),
            ("high", Priority::Normal),
            ("", Priority::Normal),
        ] {
            assert_eq!(urgency(field.as_bytes()), want, "{field}");
        }
    }

    #[test]
    fn a_page_from_elsewhere_is_not_on_this_machine() {
        for (origin, is_local) in [
            ("http://localhost:8080", true),
            ("http://127.0.0.1:3000", true),
            ("http://[::1]:8080", true),
            ("https://evil.example", false),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
            ("null", false),
        ] {
            check(&[("origin", origin), ("x-forwarded-for", "127.0.0.1")], Bearer::Nobody, is_local);
        }
    }

    #[test]
    fn who_asks_on_this_machine_for_a_name_of_nobody_knows_whom_is_misled() {
        let security = Security::start(&SecurityConfig::default()).unwrap();
        for (peer, host, is_misled) in [
            ("127.0.0.1:1", "evil.example:8080", true),
            ("[::ffff:127.0.0.1]:1", "evil.example", true),
            ("127.0.0.1:1", "127.0.0.1:8080", false),
            ("[::1]:1", "localhost:8080", false),
            ("192.0.2.1:1", "node.fly.dev", false),
        ] {
            let mut head = RequestHead::default();
            head.peer_addr = Some(peer.parse().unwrap());
            assert!(!caller(&security, &head, &SystemClock).is_misled, "without a name");
            head.headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            assert_eq!(caller(&security, &head, &SystemClock).is_misled, is_misled, "{peer} {host}");
        }
    }

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], bearer: Bearer, is_local: bool) {
        let mut head = RequestHead::default();
        head.peer_addr = Some("[::ffff:127.0.0.1]:1".parse().unwrap());
        for (name, value) in headers {
            head.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let security = Security::start(&SecurityConfig::default()).unwrap();
        let got = caller(&security, &head, &SystemClock);
        assert_eq!((got.bearer, got.is_local), (bearer, is_local), "{headers:?}");
        head.peer_addr = Some("192.0.2.1:1".parse().unwrap());
        assert!(!caller(&security, &head, &SystemClock).is_local);
    }
}
