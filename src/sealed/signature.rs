//! Who vouches for a model: Ed25519 over its name and the names and SHA-256 of its files, in `signature.json` beside them.
//!
//! Digests are those of the plain content, so that a model may be signed first and encrypted after.

use std::collections::BTreeMap;
use std::fmt::Write;

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::{ModelKey, from_hex, hex};

pub(crate) const FILE: &str = "signature.json";
/// A model has a handful of files.
const FILES_MAX: usize = 64;

/// Who may vouch for models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signer(pub(super) [u8; 32]);

impl Signer {
    /// 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What somebody has vouched for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signature {
    format: u32,
    /// What the model is called. Format 1 did not say.
    #[serde(default)]
    model: String,
    signer: String,
    /// SHA-256 by name.
    files: BTreeMap<String, String>,
    signature: String,
}

/// Why a file of a model is not trusted. Whoever made the model acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrust {
    #[error("it is not a signature of this kind")]
    Form,
    #[error("it was signed when signatures did not cover the model's name: sign it again")]
    Nameless,
    #[error("its signer is not among `models.signers`")]
    Stranger,
    #[error("the signature does not fit the list of files")]
    Forged,
    #[error("the signature does not cover the file")]
    NotCovered,
    #[error("the file was changed after it was signed")]
    Changed,
}

impl Signature {
    pub(crate) fn make(key: &ModelKey, model: &str, files: BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(key.expose()).ok()?;
        let files: BTreeMap<String, String> = files
            .into_iter()
            .map(|(name, content)| (name, hex(digest(&SHA256, &content).as_ref())))
            .collect();
        let signature = hex(pair.sign(statement(model, &files).as_bytes()).as_ref());
        let signer = hex(pair.public_key().as_ref());
        Some(Self { format: 2, model: model.to_owned(), signer, files, signature })
    }

    pub(crate) fn read(text: &[u8]) -> Result<Self, Distrust> {
        let read: Self = serde_json::from_slice(text).map_err(|_| Distrust::Form)?;
        match read.format {
            2 if read.files.len() <= FILES_MAX => Ok(read),
            1 => Err(Distrust::Nameless),
            _ => Err(Distrust::Form),
        }
    }

    /// The model that was signed; nobody has vouched for that until [`Self::vouches`] says so.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Whether one of `signers` vouches for this content of the file.
    pub(crate) fn vouches(&self, signers: &[Signer], name: &str, content: &[u8]) -> Result<(), Distrust> {
        let signer = Signer::parse(&self.signer).ok_or(Distrust::Form)?;
        if !signers.contains(&signer) {
            return Err(Distrust::Stranger);
        }
        let signature: [u8; 64] = from_hex(&self.signature).ok_or(Distrust::Form)?;
        UnparsedPublicKey::new(&ED25519, signer.0)
            .verify(statement(&self.model, &self.files).as_bytes(), &signature)
            .map_err(|_| Distrust::Forged)?;
        let signed = self.files.get(name).ok_or(Distrust::NotCovered)?;
        if *signed == hex(digest(&SHA256, content).as_ref()) { Ok(()) } else { Err(Distrust::Changed) }
    }
}

/// The public half of a signing key.
pub(crate) fn signer_of(key: &ModelKey) -> Option<Signer> {
    let pair = Ed25519KeyPair::from_seed_unchecked(key.expose()).ok()?;
    pair.public_key().as_ref().try_into().ok().map(Signer)
}

/// What is signed. Names are quoted, so that no name can look like another line.
fn statement(model: &str, files: &BTreeMap<String, String>) -> String {
    let mut text = format!("peregrine model signature 2\n{model:?}\n");
    for (name, sha256) in files {
        let _ = writeln!(text, "{name:?} {sha256}"); // a String takes everything
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ModelKey {
        ModelKey::parse(&format!("{byte:02x}").repeat(32)).unwrap()
    }

    fn signed() -> Signature {
        let files = [("model.json", "{}"), ("weights.safetensors", "w")];
        let files = files.map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec()));
        Signature::make(&key(1), "vol", files.into()).unwrap()
    }

    #[test]
    fn a_signer_vouches_for_what_was_signed_and_nothing_else() {
        let signers = [signer_of(&key(2)).unwrap(), signer_of(&key(1)).unwrap()];
        let text = serde_json::to_vec(&signed()).unwrap();
        let read = Signature::read(&text).unwrap();
        assert_eq!(read.vouches(&signers, "model.json", b"{}"), Ok(()));
        assert_eq!(read.vouches(&signers, "weights.safetensors", b"w"), Ok(()));
        assert_eq!(read.vouches(&signers, "weights.safetensors", b"v"), Err(Distrust::Changed));
        assert_eq!(read.vouches(&signers, "native.safetensors", b"w"), Err(Distrust::NotCovered));
        assert_eq!(read.vouches(&signers[..1], "model.json", b"{}"), Err(Distrust::Stranger));
    }

    #[test]
    fn a_list_of_files_cannot_be_changed() {
        let signers = [signer_of(&key(1)).unwrap()];
        let mut forged = signed();
        forged.files.insert("native.safetensors".into(), hex(digest(&SHA256, b"evil").as_ref()));
        assert_eq!(forged.vouches(&signers, "native.safetensors", b"evil"), Err(Distrust::Forged));
        let mut forged = signed();
        forged.model = "other".to_owned();
        assert_eq!(forged.vouches(&signers, "model.json", b"{}"), Err(Distrust::Forged));
        let mut forged = signed();
        forged.signature.replace_range(0..2, "00");
        assert_eq!(forged.vouches(&signers, "model.json", b"{}"), Err(Distrust::Forged));
        for (text, why) in [
            ("", Distrust::Form),
            ("{}", Distrust::Form),
            (r#"{"format":3,"model":"vol","signer":"","files":{},"signature":""}"#, Distrust::Form),
            (r#"{"format":1,"signer":"","files":{},"signature":""}"#, Distrust::Nameless),
        ] {
            assert_eq!(Signature::read(text.as_bytes()).err(), Some(why), "{text}");
        }
    }
}
