//! Tokens that an identity provider signs for its callers: JSON Web Tokens (RFC 7519) as access tokens (RFC 9068).
//!
//! Reads no clock and no file. A signature costs some ten microseconds, so what was verified is kept by `security`; when
//! it begins, when it ends, and whether its key is still trusted is asked with every request (`rules`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::jwks::{BadJwks, Trusted, parse};
use super::key::KeyHash;
use super::scopes::Scopes;
use super::signature;
use crate::config::{Scope, TokenConfig};

/// Clocks of two houses differ so much.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);
/// Of a caller's name.
const SUBJECT_BYTES_MAX: usize = 128;
/// Before the subject in logs and records, so that no token can take the name of a key, which has no colon.
const NAME_PREFIX: &str = "token:";
/// Before a scope, where a provider shares its scopes out among several services.
const SCOPE_PREFIX: &str = "peregrine:";

/// Whose tokens are taken, and by which keys.
#[derive(Debug, PartialEq)]
pub(crate) struct Issuer {
    name: String,
    audience: String,
    keys: Vec<Trusted>,
}

/// A token whose signature is good, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// In logs and records.
    pub(super) name: Arc<str>,
    pub(super) scopes: Scopes,
    pub(super) not_before: SystemTime,
    pub(super) expires: SystemTime,
    /// The key that signed it.
    pub(super) key: KeyHash,
}

/// Why a token is not taken; whoever issued it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    #[error("it is no signed JSON Web Token, or demands what is not understood here")]
    Malformed,
    #[error("no key of that name and algorithm is trusted here")]
    Key,
    #[error("its signature is not that of its key")]
    Signature,
    #[error("`iss` is not security.token_issuer")]
    Issuer,
    #[error("`aud` does not name security.token_audience")]
    Audience,
    #[error(
        "`sub`, `exp`, `iss` and `aud` must be there, and `sub` be 1 to {SUBJECT_BYTES_MAX} visible characters"
    )]
    Claims,
    #[error("it is not valid yet (`nbf`)")]
    Early,
}

#[cfg(any(test, feature = "fuzzing"))]
impl Token {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    scope: Option<Granted>,
    /// As some providers call it.
    scp: Option<Granted>,
}

/// RFC 9068 section 2.2.3 wants words with spaces between them; some providers write a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Granted {
    Words(String),
    List(Vec<String>),
}

/// Keys, and a token of each algorithm, made once by Python's `cryptography`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) const FIXTURE: &str = include_str!("token/fixture.json");

/// Could it be a token? Three parts with dots between them, which no key has.
pub(super) fn is_token(text: &[u8]) -> bool {
    text.iter().filter(|byte| **byte == b'.').count() == 2
}

impl Issuer {
    /// By the provider's public keys.
    pub(super) fn new(config: &TokenConfig, jwks: &str) -> Result<Self, BadJwks> {
        signature::install();
        let (name, audience) = (config.issuer.clone(), config.audience.clone());
        let keys = parse(jwks, &format!("{name}\n{audience}"))?;
        Ok(Self { name, audience, keys })
    }

    /// The provider whose tokens [`FIXTURE`] holds.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_fixture(jwks: &str) -> Result<Self, BadJwks> {
        let (issuer, audience) = ("https://id.example".to_owned(), "peregrine".to_owned());
        Self::new(&TokenConfig { jwks: "jwks.json".into(), issuer, audience }, jwks)
    }

    /// Is a token of this key still taken?
    pub(super) fn trusts(&self, key: &KeyHash) -> bool {
        self.keys.iter().any(|known| known.hash == *key)
    }

    /// What a token says, if a trusted key signed it for this audience.
    ///
    /// # Errors
    /// See [`BadToken`].
    pub(crate) fn verify(&self, text: &[u8]) -> Result<Token, BadToken> {
        let header = decode_header(text).map_err(|_| BadToken::Malformed)?;
        // RFC 7515 section 4.1.11: what must be understood, and is not.
        if header.crit.is_some() {
            return Err(BadToken::Malformed);
        }
        let mut refused = BadToken::Key;
        for key in self.keys.iter().filter(|key| key.may_sign(header.alg, header.kid.as_deref())) {
            match decode::<Claims>(text, &key.key, &self.validation(key)) {
                Ok(token) => return token.claims.read(key.hash),
                Err(failed) => refused = reason(failed.kind()),
            }
        }
        Err(refused)
    }

    fn validation(&self, key: &Trusted) -> Validation {
        let mut validation = Validation::default();
        validation.algorithms.clone_from(&key.algorithms);
        validation.set_issuer(&[&self.name]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_exp = false; // by the node's clock, with every request
        validation
    }
}

fn reason(kind: &ErrorKind) -> BadToken {
    match kind {
        ErrorKind::InvalidSignature => BadToken::Signature,
        ErrorKind::InvalidIssuer => BadToken::Issuer,
        ErrorKind::InvalidAudience => BadToken::Audience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
            BadToken::Claims
        }
        _ => BadToken::Malformed,
    }
}

impl Claims {
    fn read(self, key: KeyHash) -> Result<Token, BadToken> {
        let fits = (1..=SUBJECT_BYTES_MAX).contains(&self.sub.len());
        if !fits || !self.sub.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadToken::Claims);
        }
        let granted: Vec<Scope> =
            [self.scope, self.scp].into_iter().flatten().flat_map(Granted::scopes).collect();
        Ok(Token {
            name: format!("{NAME_PREFIX}{}", self.sub).into(),
            scopes: Scopes::of(&granted),
            not_before: self.nbf.map_or(Ok(UNIX_EPOCH), instant)?,
            expires: instant(self.exp)?,
            key,
        })
    }
}

impl Granted {
    fn scopes(self) -> Vec<Scope> {
        let words = match self {
            Self::Words(words) => words.split(' ').map(str::to_owned).collect(),
            Self::List(words) => words,
        };
        let scope = |word: &String| {
            let word = word.strip_prefix(SCOPE_PREFIX).unwrap_or(word);
            Scope::ALL.into_iter().find(|scope| scope.name() == word)
        };
        words.iter().filter_map(scope).collect()
    }
}

/// RFC 7519 section 2, NumericDate.
fn instant(seconds: f64) -> Result<SystemTime, BadToken> {
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| BadToken::Claims)?;
    UNIX_EPOCH.checked_add(since).ok_or(BadToken::Claims)
}

#[cfg(test)]
mod tests;
