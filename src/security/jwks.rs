//! The keys of an identity provider: a JSON Web Key Set (RFC 7517) of public keys. Text comes in, keys go out.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::key::KeyHash;

/// A token may have to be tried with each of them.
const KEYS_MAX: usize = 32;

/// A key whose tokens are taken.
pub(super) struct Trusted {
    id: Option<String>,
    /// Of one family.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
    /// Of the key and of what it may sign.
    pub(super) hash: KeyHash,
}

/// A set of keys that cannot be used; the operator acts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadJwks {
    #[error("it is no JSON Web Key Set: {0}")]
    Json(String),
    #[error("key {0} is a secret: whoever reads it could sign; take keys of a kind that has a public half")]
    Secret(usize),
    #[error("key {0} cannot be read")]
    Key(usize),
    #[error("no key in it can verify RS, PS, ES256, ES384 or EdDSA (Ed25519) signatures")]
    Nothing,
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

/// `purpose` goes into the hash of each key: trusted for something else, it is another.
pub(super) fn parse(text: &str, purpose: &str) -> Result<Vec<Trusted>, BadJwks> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| BadJwks::Json(error.to_string()))?;
    if set.keys.len() > KEYS_MAX {
        return Err(BadJwks::TooMany);
    }
    let mut keys = Vec::new();
    for (at, jwk) in set.keys.iter().enumerate() {
        if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
            return Err(BadJwks::Secret(at + 1));
        }
        let algorithms = algorithms(jwk);
        if algorithms.is_empty() {
            continue; // for other services of the provider
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| BadJwks::Key(at + 1))?;
        let material = serde_json::to_string(&jwk.algorithm).map_err(|_| BadJwks::Key(at + 1))?;
        let hash = KeyHash::of(format!("{purpose}\n{material}").as_bytes());
        keys.push(Trusted { id: jwk.common.key_id.clone(), algorithms, key, hash });
    }
    if keys.is_empty() { Err(BadJwks::Nothing) } else { Ok(keys) }
}

/// What a key can verify here; what it says that it is for is all that it is for.
fn algorithms(jwk: &Jwk) -> Vec<Algorithm> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return Vec::new();
    }
    let able: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => &[],
    };
    let meant = |algorithm: &&Algorithm| {
        jwk.common.key_algorithm.is_none_or(|said| said == KeyAlgorithm::from(**algorithm))
    };
    able.iter().filter(meant).copied().collect()
}

impl Trusted {
    /// May it have signed a token that names this algorithm and key?
    pub(super) fn may_sign(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let is_it = match (&self.id, id) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        };
        is_it && self.algorithms.contains(&algorithm)
    }
}

impl PartialEq for Trusted {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.algorithms == other.algorithms && self.hash == other.hash
    }
}

impl std::fmt::Debug for Trusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trusted").field("id", &self.id).field("algorithms", &self.algorithms).finish()
    }
}
