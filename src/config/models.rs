//! `[models]`: keys and signers, as used.

use super::resolve::Checker;
use super::secret::Secret;
use crate::sealed::{ModelKey, Signer, Vault};

impl Checker<'_> {
    pub(super) fn vault(&mut self, key: Option<Secret>, signers: Option<Vec<String>>) -> Option<Vault> {
        let key = self.present("models.key", key);
        let signers = self.present("models.signers", signers);
        let key = match key?.expose() {
            "" => None,
            text => {
                let parsed = ModelKey::parse(text);
                Some(self.require(parsed, "models.key", || "is not 64 hexadecimal digits".to_owned())?)
            }
        };
        let mut known = Vec::new();
        for text in signers? {
            let bad = || format!("`{text}` is not a public key of 64 hexadecimal digits");
            known.extend(self.require(Signer::parse(&text), "models.signers", bad));
        }
        Some(Vault::new(key, known))
    }
}
