//! Typed calls of the Machines API. Each is one request: nothing is repeated, waited for or decided here.

use std::fmt;

use peregrine_scaler::fleet::MachineId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::Guest;
use super::error::ApiError;
use super::transport::{HttpRequest, HttpResponse, Method, Transport, TransportError, encode};
use super::wire::{
    AskPlacements, CreateMachine, Lease, LeaseAnswer, Machine, Placement, Placements, Regions, SetMetadata,
    Started, StopMachine, TakeLease,
};

/// Header of the right to change a machine.
pub const NONCE_HEADER: &str = "fly-machine-lease-nonce";
/// Longest token: it may hold many macaroons.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longest name of an app.
const APP_BYTES_MAX: usize = 63;

/// What the API knows a caller by. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Something that a client cannot be made with. The operator acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Empty, too long, or with characters that a header cannot hold. It is not repeated here.
    #[error("the token is empty, too long or has characters that no token has")]
    BadToken,
    /// Not lowercase letters, digits and hyphens.
    #[error("`{0}` is no name of an app")]
    BadApp(String),
}

impl Token {
    /// A token as the platform's tools print it, with or without the word before it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn new(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        let (scheme, token) = match text.split_once(' ') {
            Some(("Bearer", token)) => ("Bearer", token.trim()),
            Some(("FlyV1", token)) => ("FlyV1", token.trim()),
            // Macaroons, one or several with commas between them.
            None if ["fm2_", "fm1r_", "fm1a_"].iter().any(|kind| text.starts_with(kind)) => ("FlyV1", text),
            _ => ("Bearer", text),
        };
        let is_plain =
            token.bytes().all(|byte| byte.is_ascii_graphic()) && !["Bearer", "FlyV1"].contains(&token);
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !is_plain {
            return Err(ClientError::BadToken);
        }
        Ok(Self(format!("{scheme} {token}")))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Name of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppName(String);

impl AppName {
    /// A name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn new(name: &str) -> Result<Self, ClientError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=APP_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) {
            Ok(Self(name.to_owned()))
        } else {
            Err(ClientError::BadApp(name.chars().take(APP_BYTES_MAX).collect()))
        }
    }
}

/// The API of one app.
pub struct Client {
    transport: Box<dyn Transport>,
    app: AppName,
    token: Token,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("app", &self.app).finish_non_exhaustive()
    }
}

/// What is asked, before it has a token.
struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    nonce: Option<String>,
    body: Option<Vec<u8>>,
}

impl Call {
    fn new(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), nonce: None, body: None }
    }

    fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    fn under(mut self, nonce: Option<&str>) -> Self {
        self.nonce = nonce.map(str::to_owned);
        self
    }

    fn json(mut self, body: &impl Serialize) -> Result<Self, ApiError> {
        let malformed = |_| TransportError::NotSent("the request cannot be written");
        self.body = Some(serde_json::to_vec(body).map_err(malformed)?);
        Ok(self)
    }
}

impl Client {
    /// A client of one app.
    #[must_use]
    pub fn new(transport: Box<dyn Transport>, app: AppName, token: Token) -> Self {
        Self { transport, app, token }
    }

    /// All machines that are not destroyed, those with this word in their metadata if one is given.
    ///
    /// A machine whose host cannot be reached may have lost its metadata for as long as that lasts.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn list(&mut self, metadata: Option<(&str, &str)>) -> Result<Vec<Machine>, ApiError> {
        let call = Call::new(Method::Get, self.machines());
        let call = match metadata {
            Some((key, value)) => call.query(&format!("metadata.{key}"), value),
            None => call,
        };
        let machines: Vec<Machine> = self.read(call)?;
        if machines.iter().all(|machine| is_id(&machine.id)) {
            Ok(machines)
        } else {
            Err(ApiError::Nonsense("a machine has an id that is none"))
        }
    }

    /// One machine. One that was destroyed may still be shown.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn get(&mut self, id: &MachineId) -> Result<Machine, ApiError> {
        let call = Call::new(Method::Get, self.machine(id, ""));
        self.read(call)
    }

    /// Makes a machine. A configuration that is not offered is refused here: see [`super::MachineConfig::check`].
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn create(&mut self, order: &CreateMachine<'_>) -> Result<Machine, ApiError> {
        if let Err(error) = order.config.check() {
            return Err(ApiError::Refused { status: 400, text: error.to_string() });
        }
        let call = Call::new(Method::Post, self.machines()).json(order)?;
        let machine: Machine = self.read(call)?;
        if is_id(&machine.id) {
            Ok(machine)
        } else {
            Err(ApiError::Nonsense("a machine has an id that is none"))
        }
    }

    /// Starts a machine, or resumes it. One that runs already is no error.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn start(&mut self, id: &MachineId, nonce: Option<&str>) -> Result<Started, ApiError> {
        let call = Call::new(Method::Post, self.machine(id, "/start")).under(nonce);
        self.read(call)
    }

    /// Asks a machine to end.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn stop(&mut self, id: &MachineId, how: &StopMachine, nonce: Option<&str>) -> Result<(), ApiError> {
        let call = Call::new(Method::Post, self.machine(id, "/stop")).under(nonce).json(how)?;
        self.send(call).map(|_| ())
    }

    /// Stops a machine and keeps its memory, where the platform can; otherwise it is stopped.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn suspend(&mut self, id: &MachineId, nonce: Option<&str>) -> Result<(), ApiError> {
        self.post(id, "/suspend", nonce)
    }

    /// The proxy sends the machine no new callers.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn cordon(&mut self, id: &MachineId, nonce: Option<&str>) -> Result<(), ApiError> {
        self.post(id, "/cordon", nonce)
    }

    /// The proxy sends the machine callers again.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn uncordon(&mut self, id: &MachineId, nonce: Option<&str>) -> Result<(), ApiError> {
        self.post(id, "/uncordon", nonce)
    }

    /// Takes a machine that does not run away for good. There is no way here to force it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn destroy(&mut self, id: &MachineId, nonce: Option<&str>) -> Result<(), ApiError> {
        let call = Call::new(Method::Delete, self.machine(id, "")).under(nonce);
        self.send(call).map(|_| ())
    }

    /// Takes the lease of a machine, or renews the one with this nonce.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn lease(
        &mut self,
        id: &MachineId,
        ttl_seconds: u64,
        nonce: Option<&str>,
    ) -> Result<Lease, ApiError> {
        // The documentation has the time in the body, the platform's own client in the query.
        let call = Call::new(Method::Post, self.machine(id, "/lease")).query("ttl", &ttl_seconds.to_string());
        let body = TakeLease { description: "peregrine scaler", ttl: ttl_seconds };
        let answer: LeaseAnswer = self.read(call.under(nonce).json(&body)?)?;
        Ok(answer.into_lease())
    }

    /// Gives the lease of a machine back.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn release(&mut self, id: &MachineId, nonce: &str) -> Result<(), ApiError> {
        let call = Call::new(Method::Delete, self.machine(id, "/lease")).under(Some(nonce));
        self.send(call).map(|_| ())
    }

    /// Writes a word about a machine; it neither restarts nor gets a new version.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn set_metadata(
        &mut self,
        id: &MachineId,
        key: &str,
        value: &str,
        nonce: Option<&str>,
    ) -> Result<(), ApiError> {
        let mut path = self.machine(id, "/metadata/");
        encode(key, &mut path);
        let call = Call::new(Method::Post, path).under(nonce).json(&SetMetadata { value })?;
        self.send(call).map(|_| ())
    }

    /// How many more machines of a size there could be in each region.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn placements(
        &mut self,
        org: &str,
        regions: &[&str],
        guest: Option<&Guest>,
    ) -> Result<Vec<Placement>, ApiError> {
        let region = regions.join(",");
        let body = AskPlacements { org_slug: org, region: &region, count: 0, compute: guest };
        let call = Call::new(Method::Post, "/v1/platform/placements".to_owned()).json(&body)?;
        self.read(call).map(|answer: Placements| answer.regions)
    }

    /// All regions of the platform.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn regions(&mut self) -> Result<Regions, ApiError> {
        self.read(Call::new(Method::Get, "/v1/platform/regions".to_owned()))
    }

    fn machines(&self) -> String {
        format!("/v1/apps/{}/machines", self.app.0)
    }

    fn machine(&self, id: &MachineId, rest: &str) -> String {
        let mut path = self.machines();
        path.push('/');
        encode(&id.0, &mut path);
        path.push_str(rest);
        path
    }

    fn post(&mut self, id: &MachineId, rest: &str, nonce: Option<&str>) -> Result<(), ApiError> {
        let call = Call::new(Method::Post, self.machine(id, rest)).under(nonce);
        self.send(call).map(|_| ())
    }

    fn read<T: DeserializeOwned>(&mut self, call: Call) -> Result<T, ApiError> {
        let body = self.send(call)?;
        serde_json::from_slice(&body).map_err(|_| ApiError::Nonsense("it cannot be read"))
    }

    fn send(&mut self, call: Call) -> Result<Vec<u8>, ApiError> {
        let mut headers = vec![("authorization", self.token.0.clone())];
        headers.extend(call.nonce.map(|nonce| (NONCE_HEADER, nonce)));
        let Call { method, path, query, body, .. } = call;
        let HttpResponse { status, body } =
            self.transport.send(HttpRequest { method, path, query, headers, body })?;
        match status {
            200..=299 => Ok(body),
            _ => Err(ApiError::of(status, &body)),
        }
    }
}

/// Whether it may be part of a path, and is of a length that is no attack.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_in_the_form_it_has_and_never_shown() {
        for (text, expected) in [
            ("abc", "Bearer abc"),
            ("Bearer abc\n", "Bearer abc"),
            ("fm2_a,fm2_b", "FlyV1 fm2_a,fm2_b"),
            ("FlyV1 fm2_a", "FlyV1 fm2_a"),
        ] {
            let token = Token::new(text).unwrap();
            assert_eq!(token.0, expected);
            assert_eq!(format!("{token:?}"), "Token(..)");
        }
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for text in ["", " ", "Bearer ", "a b", "a\r\nx: y", "é", &long] {
            assert_eq!(Token::new(text), Err(ClientError::BadToken), "{text}");
        }
    }

    #[test]
    fn the_name_of_an_app_is_part_of_a_path() {
        assert!(AppName::new("inference-edge-2").is_ok());
        for name in ["", "a/b", "..", "A", "a b", &"a".repeat(64)] {
            assert!(matches!(AppName::new(name), Err(ClientError::BadApp(_))), "{name}");
        }
    }
}
