//! Tokens that another program signed, and what is wrong with others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use peregrine_runtime::{Clock as _, SystemClock};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::config::SecurityConfig;
use crate::security::{Bearer, Caller, Denied, Rules, Security};

const PREDICT: Scopes = Scopes::of(&[Scope::Predict]);
const ADMIN: Scopes = Scopes::of(&[Scope::Admin]);

fn config() -> TokenConfig {
    TokenConfig {
        jwks: "jwks.json".into(),
        issuer: "https://id.example".to_owned(),
        audience: "peregrine".to_owned(),
    }
}

/// An identity provider with one key.
struct Provider(Ed25519KeyPair);

impl Provider {
    fn draw() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string()
    }

    fn issuer(&self) -> Issuer {
        Issuer::new(&config(), &self.jwks()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes())))
    }

    /// A good one, but for these members.
    fn token(&self, other: Value) -> String {
        let mut claims = json!({"iss": "https://id.example", "aud": "peregrine", "sub": "desk", "exp": 2000});
        for (name, value) in other.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.sign(&json!({"alg": "EdDSA", "kid": "k"}), &claims)
    }
}

#[test]
fn what_another_program_signed_is_verified_in_each_algorithm() {
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    let issuer = Issuer::of_fixture(&fixture["jwks"].to_string()).unwrap();
    let tokens = fixture["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 9);
    for token in tokens {
        let text = token.as_str().unwrap();
        let read = issuer.verify(text.as_bytes()).unwrap();
        assert_eq!((&*read.name, read.scopes.to_string()), ("token:desk-7", "predict or ingest".to_owned()));
        assert_eq!(read.expires, UNIX_EPOCH + Duration::from_secs(4_102_444_800));
        assert_eq!(read.not_before, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        // Any other byte in any part, and it is another's.
        for at in [text.find('.').unwrap() + 9, text.rfind('.').unwrap() + 9] {
            let mut forged = text.as_bytes().to_vec();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(issuer.verify(&forged), Err(BadToken::Signature), "{text} at {at}");
        }
    }
}

#[test]
fn a_token_says_what_is_wrong_with_it() {
    let provider = Provider::draw();
    let issuer = provider.issuer();
    #[track_caller]
    fn check(issuer: &Issuer, text: &str, want: BadToken) {
        assert_eq!(issuer.verify(text.as_bytes()), Err(want), "{text}");
    }
    assert!(issuer.verify(provider.token(json!({})).as_bytes()).is_ok());
    check(&issuer, &Provider::draw().token(json!({})), BadToken::Signature);
    check(&issuer, &provider.token(json!({"iss": "https://evil.example"})), BadToken::Issuer);
    check(&issuer, &provider.token(json!({"aud": ["other"]})), BadToken::Audience);
    for claims in [
        json!({"aud": null}),
        json!({"iss": null}),
        json!({"exp": null}),
        json!({"exp": -1}),
        json!({"exp": 1e300}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "a b"}),
        json!({"sub": "x".repeat(129)}),
        json!({"nbf": "soon"}),
        json!({"scope": 7}),
    ] {
        check(&issuer, &provider.token(claims), BadToken::Claims);
    }
    let good = json!({"iss": "https://id.example", "aud": "peregrine", "sub": "desk", "exp": 2000});
    let signed = |header: Value| provider.sign(&header, &good);
    check(&issuer, &signed(json!({"alg": "EdDSA", "kid": "other"})), BadToken::Key);
    check(&issuer, &signed(json!({"alg": "ES256", "kid": "k"})), BadToken::Key);
    // Not the public key as a secret, and not no key at all.
    check(&issuer, &signed(json!({"alg": "HS256", "kid": "k"})), BadToken::Key);
    check(&issuer, &signed(json!({"alg": "none"})), BadToken::Malformed);
    check(&issuer, &signed(json!({"alg": "EdDSA", "crit": ["exp"], "exp": 1})), BadToken::Malformed);
    for text in ["..", "a.b.c", "e30.e30.", "e30.e30.e30"] {
        check(&issuer, text, BadToken::Malformed);
    }
}

#[test]
fn scopes_are_words_a_list_or_of_this_service_by_its_name() {
    let provider = Provider::draw();
    for (claims, want) in [
        (json!({"scope": "predict admin"}), "predict or admin"),
        (json!({"scope": ["observe", "email"]}), "observe"),
        (json!({"scp": ["peregrine:predict"]}), "predict"),
        (json!({"scp": "ingest", "scope": "openid"}), "ingest"),
        (json!({"scope": "other:admin peregrine:peregrine:admin Predict"}), ""),
        (json!({}), ""),
    ] {
        let token = provider.issuer().verify(provider.token(claims.clone()).as_bytes()).unwrap();
        assert_eq!(token.scopes.to_string(), want, "{claims}");
    }
}

#[test]
fn a_token_lasts_as_long_as_it_says_and_its_key_is_trusted() {
    let provider = Provider::draw();
    let rules = |issuer: Option<Issuer>| {
        let config = SecurityConfig { required: true, ..SecurityConfig::default() };
        Rules::new(&config, Vec::new(), issuer.map(Arc::new))
    };
    let text = provider.token(json!({"nbf": 1000, "scope": "predict"}));
    let token = Arc::new(provider.issuer().verify(text.as_bytes()).unwrap());
    let check = |issuer: Option<Issuer>, needed, at: u64, want| {
        let caller = Caller {
            bearer: Bearer::Token(Arc::clone(&token)),
            address: None,
            is_local: false,
            is_misled: false,
        };
        let now = UNIX_EPOCH + Duration::from_secs(at);
        assert_eq!(rules(issuer).check(&caller, needed, now), want, "at {at}");
    };
    check(Some(provider.issuer()), PREDICT, 1500, Ok(()));
    check(Some(provider.issuer()), ADMIN, 1500, Err(Denied::Scope { needed: ADMIN }));
    check(Some(provider.issuer()), PREDICT, 939, Err(Denied::Token(BadToken::Early)));
    check(Some(provider.issuer()), PREDICT, 940, Ok(()));
    check(Some(provider.issuer()), PREDICT, 2059, Ok(()));
    check(Some(provider.issuer()), PREDICT, 2060, Err(Denied::Expired));
    // Its key was taken out, tokens are not taken any more, or are meant for somebody else.
    check(Some(Provider::draw().issuer()), PREDICT, 1500, Err(Denied::Token(BadToken::Key)));
    check(None, PREDICT, 1500, Err(Denied::Token(BadToken::Key)));
    let elsewhere = TokenConfig { audience: "other".to_owned(), ..config() };
    let elsewhere = Issuer::new(&elsewhere, &provider.jwks()).unwrap();
    check(Some(elsewhere), PREDICT, 1500, Err(Denied::Token(BadToken::Key)));
}

#[test]
fn a_token_is_told_from_a_key_and_is_verified_once() {
    let (provider, dir) = (Provider::draw(), tempfile::tempdir().unwrap());
    let jwks = dir.path().join("jwks.json");
    std::fs::write(&jwks, provider.jwks()).unwrap();
    let tokens = Some(TokenConfig { jwks, ..config() });
    let security = Security::start(&SecurityConfig { tokens, ..SecurityConfig::default() }).unwrap();
    let now = SystemClock.wall().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let bearer = |text: &str| security.bearer(text.as_bytes(), &SystemClock);
    let text = provider.token(json!({"exp": now + 600}));
    let (Bearer::Token(first), Bearer::Token(again)) = (bearer(&text), bearer(&text)) else {
        panic!("it is one")
    };
    assert!(Arc::ptr_eq(&first, &again), "not verified again");
    assert_eq!(bearer("a.b.c"), Bearer::BadToken(BadToken::Malformed));
    assert_eq!(bearer("pgk_abc"), Bearer::Key(KeyHash::of(b"pgk_abc")));
    let nobody = Security::start(&SecurityConfig::default()).unwrap();
    assert!(matches!(nobody.bearer(text.as_bytes(), &SystemClock), Bearer::Key(_)), "no tokens are taken");
    // More of them than are kept: nothing grows, and each is still taken.
    for at in 0..super::super::TOKENS_MAX + 2 {
        let token = Arc::clone(&first);
        security.remember(KeyHash::of(&at.to_le_bytes()), &token, &SystemClock);
    }
    assert!(security.tokens.lock().len() <= super::super::TOKENS_MAX);
    assert!(matches!(bearer(&text), Bearer::Token(_)));
}

#[test]
fn a_set_of_keys_says_what_is_wrong_with_it() {
    let check = |jwks: Value, want: BadJwks| {
        assert_eq!(Issuer::new(&config(), &jwks.to_string()).unwrap_err(), want);
    };
    check(json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}), BadJwks::Secret(1));
    check(json!({"keys": []}), BadJwks::Nothing);
    let x = URL_SAFE_NO_PAD.encode([7; 32]);
    check(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "enc", "x": x}]}), BadJwks::Nothing);
    check(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "ES256", "x": x}]}), BadJwks::Nothing);
    check(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "*"}]}), BadJwks::Key(1));
    let one = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    check(json!({"keys": vec![one; 33]}), BadJwks::TooMany);
    let error = Issuer::new(&config(), "{").unwrap_err();
    assert!(matches!(error, BadJwks::Json(_)), "{error}");
}
