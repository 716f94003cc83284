//! A model that ships, encrypted, signed, and tampered with.

use std::fs;
use std::path::{Path, PathBuf};

use peregrine_shaders::{Files, Forecaster, LoadError, PlainFiles};

use super::{ModelKey, Vault, encrypt, sealed_name, sign, signer_of};
use crate::catalog;

const MODEL: &str = "mlp-vol-quantile";

/// A copy of the model, in a folder of its own.
struct Copy {
    _dir: tempfile::TempDir,
    dir: PathBuf,
}

impl Copy {
    fn new() -> Self {
        let holder = tempfile::tempdir().unwrap();
        let dir = holder.path().join(MODEL);
        fs::create_dir(&dir).unwrap();
        for file in fs::read_dir(Path::new("models").join(MODEL)).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, dir.join(file.file_name().unwrap())).unwrap();
        }
        Self { _dir: holder, dir }
    }

    fn load(&self, vault: &Vault) -> Result<Forecaster, LoadError> {
        catalog::load(&catalog::find(&self.dir).unwrap()[0], vault)
    }

    #[track_caller]
    fn is_refused(&self, vault: &Vault, why: &str) {
        match self.load(vault) {
            Err(error @ LoadError::Refused { .. }) => {
                assert!(error.to_string().contains(why), "{error}, not {why}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("served"),
        }
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.dir.join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

fn key(byte: u8) -> ModelKey {
    ModelKey::parse(&format!("{byte:02x}").repeat(32)).unwrap()
}

fn signed_by(byte: u8) -> Vault {
    Vault::new(Some(key(1)), vec![signer_of(&key(byte)).unwrap()])
}

#[test]
fn an_encrypted_model_is_the_same_model_to_who_has_the_key() {
    let copy = Copy::new();
    let plain = copy.load(&Vault::default()).unwrap();
    let done = encrypt(&copy.dir, &key(1)).unwrap();
    assert!(done.contains(&sealed_name(&copy.dir.join("weights.safetensors"))));
    assert!(!copy.dir.join("weights.safetensors").exists(), "the plain weights are gone");
    let opened = copy.load(&Vault::new(Some(key(1)), Vec::new())).unwrap();
    assert_eq!(opened.digest(), plain.digest());
    copy.is_refused(&Vault::default(), "PEREGRINE_MODEL_KEY is not set");
    copy.is_refused(&Vault::new(Some(key(2)), Vec::new()), "the key does not fit");
    copy.change("weights.safetensors.aes", |bytes| bytes[5000] ^= 1);
    copy.is_refused(&Vault::new(Some(key(1)), Vec::new()), "the file was changed");
}

#[test]
fn a_plain_file_beside_an_encrypted_one_is_not_taken_for_it() {
    let copy = Copy::new();
    encrypt(&copy.dir, &key(1)).unwrap();
    fs::write(copy.dir.join("weights.safetensors"), b"somebody else's").unwrap();
    copy.load(&Vault::new(Some(key(1)), Vec::new())).unwrap();
}

#[test]
fn only_what_somebody_trusted_has_signed_is_served() {
    let copy = Copy::new();
    copy.is_refused(&signed_by(7), "nobody has signed it");
    sign(&copy.dir, MODEL, &key(7), &Vault::default()).unwrap();
    copy.load(&signed_by(7)).unwrap();
    copy.is_refused(&signed_by(8), "not among `models.signers`");
    // Signed first, encrypted after.
    encrypt(&copy.dir, &key(1)).unwrap();
    copy.load(&signed_by(7)).unwrap();
    copy.change("model.json", |bytes| bytes.push(b' '));
    copy.is_refused(&signed_by(7), "changed after it was signed");
    sign(&copy.dir, MODEL, &key(7), &Vault::new(Some(key(1)), Vec::new())).unwrap();
    copy.load(&signed_by(7)).unwrap();
    copy.change("signature.json", |bytes| bytes.truncate(40));
    copy.is_refused(&signed_by(7), "not a signature");
}

#[test]
fn a_signed_model_is_served_under_its_own_name_alone() {
    let copy = Copy::new();
    sign(&copy.dir, MODEL, &key(7), &Vault::default()).unwrap();
    let vault = signed_by(7);
    let beside = |name: &str| {
        let dir = copy.dir.with_file_name(name);
        fs::create_dir_all(&dir).unwrap();
        for file in fs::read_dir(&copy.dir).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, dir.join(file.file_name().unwrap())).unwrap();
        }
        catalog::load(&catalog::find(&dir).unwrap()[0], &vault).map(drop)
    };
    for (name, is_its_own) in [("other", false), ("7", false), (&*format!("a/{MODEL}"), true)] {
        match beside(name) {
            Ok(()) => assert!(is_its_own, "{name}: served"),
            Err(refused) => {
                let said = refused.to_string();
                assert!(!is_its_own && said.contains("signed as the model `mlp-vol-quantile`"), "{said}");
            }
        }
    }
    // A version of it, as of any model.
    let versions = tempfile::tempdir().unwrap();
    let third = versions.path().join(MODEL).join("3");
    fs::create_dir_all(third.parent().unwrap()).unwrap();
    fs::rename(&copy.dir, &third).unwrap();
    let entry = catalog::find(&versions.path().join(MODEL)).unwrap().remove(0);
    assert_eq!(entry.version, 3);
    catalog::load(&entry, &vault).unwrap();
    sign(&third, &entry.name, &key(7), &vault).unwrap();
    catalog::load(&entry, &vault).unwrap();
}

#[test]
fn a_large_file_is_refused_before_it_is_opened() {
    let copy = Copy::new();
    encrypt(&copy.dir, &key(1)).unwrap();
    let vault = Vault::new(Some(key(1)), Vec::new());
    let weights = copy.dir.join("weights.safetensors");
    let len = fs::metadata(Path::new("models").join(MODEL).join("weights.safetensors")).unwrap().len();
    assert!(vault.read(&weights, len).is_ok());
    assert!(matches!(vault.read(&weights, len - 1), Err(LoadError::FileTooLarge { .. })));
    assert!(PlainFiles.read(&weights, len).is_err());
}
