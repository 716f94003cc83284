//! The port to whatever carries a call, and the one that does it over HTTP.
//!
//! An answer is bounded in size and in time. What matters of a failure is whether the call may have been carried out.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ureq::http;

/// Largest answer that is taken: some thousand machines with their events.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Of the head of an answer.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// An idle connection is kept for less than servers keep theirs: one that is closed while a call goes out leaves
/// open whether it was carried out.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes.
    Post,
    /// Replaces.
    Put,
    /// Merges.
    Patch,
    /// Takes away.
    Delete,
}

/// A call.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// What is done.
    pub method: Method,
    /// Begins with a slash; encoded.
    pub path: String,
    /// Not encoded yet.
    pub query: Vec<(String, String)>,
    /// Lowercase names.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Option<Vec<u8>>,
}

impl HttpRequest {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Path and query as they are sent.
    #[must_use]
    pub fn target(&self) -> String {
        let mut target = self.path.clone();
        for (index, (name, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            encode(name, &mut target);
            target.push('=');
            encode(value, &mut target);
        }
        target
    }
}

// Headers hold the token and nonces, bodies may hold environments: neither is for logs.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body_bytes = self.body.as_ref().map_or(0, Vec::len);
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("body_bytes", &body_bytes)
            .finish_non_exhaustive()
    }
}

/// Percent-encodes all but letters, digits and `-._~`.
pub(super) fn encode(text: &str, out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// Bounded.
    pub body: Vec<u8>,
}

/// No answer, or none that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing has reached the API: the caller comes back.
    #[error("the API was not reached: {0}")]
    NotSent(&'static str),
    /// It was sent, or part of it; nobody knows whether it was carried out. The caller looks.
    #[error("the API did not answer: {0}")]
    Lost(&'static str),
    /// It was answered at a length that is not taken. The caller looks.
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

impl TransportError {
    /// Whether the call may have been carried out.
    #[must_use]
    pub const fn was_sent(&self) -> bool {
        !matches!(self, Self::NotSent(_))
    }
}

/// Carries a call. It may block for as long as its own timeouts.
pub trait Transport: Send {
    /// Sends one request, once: it is never repeated here.
    ///
    /// # Errors
    /// See [`TransportError`].
    fn send(&mut self, request: HttpRequest) -> Result<HttpResponse, TransportError>;
}

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

/// Not an address of the API. The operator acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Not of the form `https://host`, with neither user, path nor query.
    #[error("`{0}` is no address like https://api.machines.dev")]
    Malformed(String),
    /// The token would be readable on the way.
    #[error("`{0}` would send the token in the clear: plain http is for private addresses")]
    InTheClear(String),
}

impl BaseUrl {
    /// From anywhere.
    pub const PUBLIC: &'static str = "https://api.machines.dev";
    /// From a machine of the platform.
    pub const PRIVATE: &'static str = "http://_api.internal:4280";

    /// An address that was given.
    ///
    /// # Errors
    /// See [`BaseUrlError`].
    pub fn new(url: &str) -> Result<Self, BaseUrlError> {
        let url = url.trim();
        let url = url.strip_suffix('/').filter(|rest| !rest.ends_with('/')).unwrap_or(url);
        let malformed = || BaseUrlError::Malformed(url.chars().take(128).collect());
        let parsed: http::Uri = url.parse().map_err(|_| malformed())?;
        let host = parsed.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        if parsed.path() != "/" && !parsed.path().is_empty() || parsed.query().is_some() || url.contains('@')
        {
            return Err(malformed());
        }
        match parsed.scheme_str() {
            Some("https") => {}
            Some("http") if is_private(host) => {}
            Some("http") => return Err(BaseUrlError::InTheClear(url.chars().take(128).collect())),
            _ => return Err(malformed()),
        }
        Ok(Self(url.to_owned()))
    }

    /// Reads the environment through `get`: `FLY_FLAPS_BASE_URL` if it is set; otherwise the private address on a
    /// machine of the platform and the public one elsewhere.
    ///
    /// # Errors
    /// See [`BaseUrlError`].
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, BaseUrlError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        match (get("FLY_FLAPS_BASE_URL"), get("FLY_MACHINE_ID")) {
            (Some(url), _) => Self::new(&url),
            (None, Some(_)) => Self::new(Self::PRIVATE),
            (None, None) => Self::new(Self::PUBLIC),
        }
    }
}

fn is_private(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => name == "localhost" || name.ends_with(".internal"),
    }
}

/// Times that a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection, the look-up of the name included.
    pub connect: Duration,
    /// From the start to the last byte of the answer.
    pub overall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), overall: Duration::from_secs(30) }
    }
}

/// Over HTTP.
pub struct UreqTransport {
    agent: ureq::Agent,
    base: BaseUrl,
}

impl fmt::Debug for UreqTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UreqTransport").field("base", &self.base).finish_non_exhaustive()
    }
}

impl UreqTransport {
    /// Connects when it first has something to send.
    #[must_use]
    pub fn new(base: BaseUrl, timeouts: Timeouts) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_global(Some(timeouts.overall))
            // A token is not carried to another address.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(HEAD_BYTES_MAX)
            .max_idle_age(IDLE_MAX)
            // Only where the operator said, whatever the environment says.
            .proxy(None)
            .user_agent(concat!("peregrine/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().new_agent(), base }
    }
}

impl Transport for UreqTransport {
    fn send(&mut self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let method = match request.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Patch => http::Method::PATCH,
            Method::Delete => http::Method::DELETE,
        };
        let mut builder =
            http::Request::builder().method(method).uri(format!("{}{}", self.base.0, request.target()));
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let malformed = |_: http::Error| TransportError::NotSent("the request is malformed");
        let answer = match request.body {
            Some(body) => {
                let builder = builder.header("content-type", "application/json");
                self.agent.run(builder.body(body).map_err(malformed)?)
            }
            None => self.agent.run(builder.body(()).map_err(malformed)?),
        };
        let mut answer = answer.map_err(|error| failed(&error))?;
        let status = answer.status().as_u16();
        match answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec() {
            Ok(body) => Ok(HttpResponse { status, body }),
            Err(ureq::Error::BodyExceedsLimit(_)) => Err(TransportError::TooLarge),
            // Its head is there, so it was carried out or refused; which of them the rest would have said.
            Err(error) => Err(TransportError::Lost(word(&error))),
        }
    }
}

fn failed(error: &ureq::Error) -> TransportError {
    let is_before = match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) => true,
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    };
    if is_before { TransportError::NotSent(word(error)) } else { TransportError::Lost(word(error)) }
}

/// In our words: its own may repeat what was sent.
fn word(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => "no connection in time",
        ureq::Error::Timeout(_) => "no answer in time",
        ureq::Error::HostNotFound => "no such host",
        ureq::Error::ConnectionFailed => "no connection",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "tls failed",
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused"
        }
        ureq::Error::Io(_) => "connection lost",
        _ => "no answer that can be read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_the_given_one_or_the_nearest() {
        let read = |environment: &[(&str, &str)]| {
            let environment: Vec<(String, String)> =
                environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            BaseUrl::read(|name| environment.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        assert_eq!(read(&[]), Ok(BaseUrl(BaseUrl::PUBLIC.to_owned())));
        assert_eq!(read(&[("FLY_MACHINE_ID", "148e")]), Ok(BaseUrl(BaseUrl::PRIVATE.to_owned())));
        let given = [("FLY_MACHINE_ID", "148e"), ("FLY_FLAPS_BASE_URL", "http://127.0.0.1:9/")];
        assert_eq!(read(&given), Ok(BaseUrl("http://127.0.0.1:9".to_owned())));
    }

    #[test]
    fn a_token_does_not_travel_in_the_clear() {
        for url in
            ["http://api.machines.dev", "http://93.184.216.34", "http://internal", "http://[2001:db8::1]"]
        {
            assert_eq!(BaseUrl::new(url), Err(BaseUrlError::InTheClear(url.to_owned())));
        }
        for url in
            ["http://localhost:1", "http://[fdaa::3]:4280", "http://10.0.0.1", "https://api.machines.dev"]
        {
            assert_eq!(BaseUrl::new(url), Ok(BaseUrl(url.to_owned())));
        }
        for url in
            ["", "api.machines.dev", "ftp://x", "https://", "https://a/b", "https://a?b", "https://u:p@a"]
        {
            assert_eq!(BaseUrl::new(url), Err(BaseUrlError::Malformed(url.to_owned())));
        }
    }

    #[test]
    fn a_query_is_encoded_and_a_request_does_not_show_its_headers() {
        let request = HttpRequest {
            method: Method::Get,
            path: "/v1".to_owned(),
            query: vec![("metadata.a b".to_owned(), "c&d=é".to_owned()), ("x".to_owned(), "1".to_owned())],
            headers: vec![("authorization", "Bearer secret".to_owned())],
            body: Some(b"secret".to_vec()),
        };
        assert_eq!(request.target(), "/v1?metadata.a%20b=c%26d%3D%C3%A9&x=1");
        assert!(!format!("{request:?}").contains("secret"));
    }
}
