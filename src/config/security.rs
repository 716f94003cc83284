//! `[security]`: as written, and as used.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checker::Checker;

/// Who may do what, and how often.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct SecurityFile {
    /// File of API keys, hashed, relative to the working directory; empty: there are none.
    pub(super) keys: Option<PathBuf>,
    /// File of an identity provider's public keys, a JSON Web Key Set (RFC 7517), relative to the working directory: the
    /// tokens that they signed are taken like keys. Empty: none are.
    pub(super) jwks: Option<PathBuf>,
    /// Whose tokens: their `iss`.
    pub(super) token_issuer: Option<String>,
    /// For whom they must be meant: their `aud`.
    pub(super) token_audience: Option<String>,
    /// Must callers show a key or a token? Liveness and readiness never need one.
    pub(super) required: Option<bool>,
    /// With `required`: what callers without either may do nevertheless.
    pub(super) anonymous: Option<Vec<Scope>>,
    /// Of one key, and of one address without a key; 0: no limit.
    pub(super) requests_per_second: Option<f64>,
    /// Requests at once, after a rest; 0: as many as one second gives.
    pub(super) burst: Option<usize>,
    /// Web pages that browsers may read answers for, open websockets from and send to, e.g. `https://desk.example`;
    /// empty: none but the node's own. By the host names in them callers on this machine may ask without a key, as by
    /// address and `localhost`.
    pub(super) cors_origins: Option<Vec<String>>,
}

/// What a key lets its bearer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Forecasts, and subscriptions to them
    Predict,
    /// Ticks
    Ingest,
    /// The configuration, and which models are loaded
    Admin,
    /// Health, metrics, what is served, the documents
    Observe,
}

impl Scope {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Predict, Self::Ingest, Self::Admin, Self::Observe];

    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
            Self::Observe => "observe",
        }
    }
}

/// Who may do what, and how often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecurityConfig {
    /// File of API keys.
    pub keys: Option<PathBuf>,
    /// Whose tokens are taken; `None`: nobody's.
    pub tokens: Option<TokenConfig>,
    /// Must callers show a key or a token?
    pub required: bool,
    /// What callers without either may do where one is required.
    pub anonymous: Vec<Scope>,
    /// Of one key or address; `None`: no limit.
    pub rate: Option<Rate>,
    /// Origins of web pages; empty: none.
    pub cors_origins: Vec<String>,
}

/// Tokens that an identity provider signs (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// File of its public keys, a JSON Web Key Set (RFC 7517).
    pub jwks: PathBuf,
    /// Its name in `iss`.
    pub issuer: String,
    /// This service's name in `aud`.
    pub audience: String,
}

/// How often somebody may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// On average; above 0 and finite.
    pub per_second: f64,
    /// At once, after a rest; at least 1.
    pub burst: f64,
}

impl Rate {
    /// From numbers as written: no rate above 0 is no limit, no burst is what one second gives.
    ///
    /// # Errors
    /// What is wrong with the rate; the operator acts.
    pub fn from_written(per_second: f64, burst: usize) -> Result<Option<Self>, String> {
        if !(0.0..=1e9).contains(&per_second) {
            return Err(format!("{per_second} is not within 0 and 1000000000"));
        }
        let burst = if burst == 0 { per_second.max(1.0) } else { burst as f64 };
        Ok((per_second > 0.0).then_some(Self { per_second, burst }))
    }
}

impl Checker<'_> {
    pub(super) fn security(&mut self, written: SecurityFile) -> Option<SecurityConfig> {
        let keys = self.present("security.keys", written.keys);
        let jwks = self.present("security.jwks", written.jwks);
        let token_issuer = self.present("security.token_issuer", written.token_issuer);
        let token_audience = self.present("security.token_audience", written.token_audience);
        let required = self.present("security.required", written.required);
        let anonymous = self.present("security.anonymous", written.anonymous);
        let per_second = self.present("security.requests_per_second", written.requests_per_second);
        let burst = self.within("security.burst", written.burst, 0..=1_000_000_000);
        let origins = self.present("security.cors_origins", written.cors_origins);
        let keys = keys.and_then(|file| self.file("security.keys", file));
        let rate = per_second.zip(burst).and_then(|(per_second, burst)| {
            self.named(Rate::from_written(per_second, burst), "security.requests_per_second")
        });
        let tokens = jwks.zip(token_issuer.zip(token_audience));
        let tokens = tokens.and_then(|(jwks, (issuer, audience))| self.tokens(jwks, issuer, audience));
        for origin in origins.iter().flatten().filter(|origin| !is_origin(origin)) {
            let message = format!("`{origin}` is not an origin such as https://desk.example");
            self.mistake("security.cors_origins", message);
        }
        if required == Some(true) && keys == Some(None) && tokens == Some(None) {
            let message = "there is no file of keys in security.keys, and none in security.jwks".to_owned();
            self.mistake("security.required", message);
        }
        if anonymous.iter().flatten().any(|scope| *scope == Scope::Admin) {
            self.mistake("security.anonymous", "`admin` always needs a key".to_owned());
        }
        Some(SecurityConfig {
            keys: keys?,
            tokens: tokens?,
            required: required?,
            anonymous: anonymous?,
            rate: rate?,
            cors_origins: origins?,
        })
    }

    /// `None` only with a mistake.
    fn tokens(&mut self, jwks: PathBuf, issuer: String, audience: String) -> Option<Option<TokenConfig>> {
        let Some(jwks) = self.file("security.jwks", jwks)? else { return Some(None) };
        // Any service of the provider could use tokens that were meant for another.
        for (key, value) in [("security.token_issuer", &issuer), ("security.token_audience", &audience)] {
            if value.is_empty() {
                self.mistake(key, "tokens of security.jwks are not taken without it".to_owned());
            }
        }
        Some(Some(TokenConfig { jwks, issuer, audience }))
    }

    /// A file that must be there, unless no file is named. `None` only with a mistake.
    pub(super) fn file(&mut self, key: &str, file: PathBuf) -> Option<Option<PathBuf>> {
        if file.as_os_str().is_empty() {
            return Some(None);
        }
        let found = file.is_file().then(|| Some(file.clone()));
        self.require(found, key, || format!("there is no file `{}`", file.display()))
    }
}

/// Scheme and authority as a browser sends them: nothing behind, no capitals.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits =
        |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/?#@*\"".contains(&byte);
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(fits))
}
