//! Files of the operator: configuration, keys, data, what seals and signs models.

use std::sync::LazyLock;

use crate::config::{Resolved, Sources, resolve};
use crate::long_table::last_windows;
use crate::score::Panel;
use crate::sealed::container::open;
use crate::sealed::{ModelKey, Signature, signer_of};
use crate::security::keys::parse;
use crate::security::token::{FIXTURE, Issuer};
use crate::series_store::SeriesStore;
use crate::testing::point_spec;

/// The name that the sealed files of the corpus had.
const SEALED: &str = "weights.safetensors";
static KEY: LazyLock<ModelKey> =
    LazyLock::new(|| ModelKey::parse(&"17".repeat(32)).expect("64 hexadecimal digits"));
static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let fixture: serde_json::Value = serde_json::from_str(FIXTURE).expect("JSON");
    Issuer::of_fixture(&fixture["jwks"].to_string()).expect("public keys")
});
static BUILT_IN: LazyLock<Resolved> =
    LazyLock::new(|| resolve(&Sources::default()).expect("what is built in is in order"));

/// A layer of configuration: what is taken is printed, and what was printed is no other configuration.
pub fn config(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match BUILT_IN.over(text) {
        Ok(resolved) => {
            let printed = resolved.to_toml();
            // A secret is not printed, and what stands in its stead may not be one.
            if let Ok(again) = BUILT_IN.over(&printed) {
                assert_eq!(again.to_toml().lines().count(), printed.lines().count(), "{printed}");
            } else {
                assert!(printed.contains("(redacted)"), "{printed}");
            }
            true
        }
        Err(error) => {
            assert!(!error.mistakes.is_empty());
            false
        }
    }
}

/// A file of keys: no two have one name or one hash.
pub fn keys(input: &[u8]) -> bool {
    let Ok(keys) = std::str::from_utf8(input).map_err(drop).and_then(|text| parse(text).map_err(drop)) else {
        return false;
    };
    for (at, key) in keys.iter().enumerate() {
        assert!(keys[..at].iter().all(|other| other.name != key.name && !other.hash.is(&key.hash)));
    }
    true
}

/// The public keys of an identity provider.
pub fn jwks(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| Issuer::of_fixture(text).is_ok())
}

/// What a caller shows as a token: only what the provider signed is one.
pub fn token(input: &[u8]) -> bool {
    let verified = ISSUER.verify(input);
    if let Ok(token) = &verified {
        assert_eq!(token.name(), "token:desk-7");
    }
    verified.is_ok()
}

/// The data that requests name by symbol.
pub fn data(input: &[u8]) -> bool {
    let Ok(store) = SeriesStore::read(input, &["y"]) else { return false };
    let spec = point_spec(3, 2);
    for symbol in store.symbols() {
        for column in store.columns() {
            if let Ok(latest) = store.latest(symbol, column, &spec) {
                assert_eq!((latest.windows.rows, latest.windows.y.len()), (1, spec.y_len()));
            }
        }
    }
    true
}

/// The table that `peregrine forecast` reads.
pub fn table(input: &[u8]) -> bool {
    let spec = point_spec(3, 2);
    let Ok(series) = last_windows(input, &spec) else { return false };
    assert!(series.iter().all(|one| one.windows.y.len() == spec.y_len()));
    true
}

/// The table that `peregrine score` reads.
pub fn panel(input: &[u8]) -> bool {
    let Ok(panel) = Panel::read(input, "y", &["x".to_owned()]) else { return false };
    assert!(
        panel.series().iter().all(|one| !one.y().is_empty() && one.y().iter().all(|value| value.is_finite()))
    );
    true
}

/// An encrypted file.
pub fn sealed(input: &[u8]) -> bool {
    open(&KEY, SEALED, input).is_ok()
}

/// Who vouches for files: nobody does for content that was not signed.
pub fn signature(input: &[u8]) -> bool {
    let Ok(signature) = Signature::read(input) else { return false };
    let signers = [signer_of(&KEY).expect("a seed of 32 bytes")];
    assert!(signature.vouches(&signers, SEALED, b"nobody signed this").is_err());
    signature.vouches(&signers, SEALED, b"signed").is_ok()
}
