//! What credentials are made of, and which are refused before a peer ever sees them.

use std::fs;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};

use super::*;

const SECRET: &[u8] = b"sixteen bytes are enough";

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn roots(secret: &[u8], cluster: &str) -> Vec<u8> {
    let derive = Derive::new(secret, cluster);
    authority(derive.key("authority").unwrap()).unwrap().der().to_vec()
}

#[test]
fn the_same_secret_makes_the_same_authority() {
    assert_eq!(roots(SECRET, "blue"), roots(SECRET, "blue"));
}

#[test]
fn another_secret_or_cluster_makes_another_authority() {
    assert_ne!(roots(SECRET, "blue"), roots(SECRET, "green"));
    assert_ne!(roots(SECRET, "blue"), roots(b"sixteen bytes are enougi", "blue"));
}

#[test]
fn another_secret_or_cluster_asks_for_another_name() {
    let asks = |secret, cluster| Credentials::from_secret(secret, cluster, &node("a")).unwrap().password;
    assert_eq!(asks(SECRET, "blue"), asks(SECRET, "blue"));
    assert_ne!(asks(SECRET, "blue"), asks(SECRET, "green"));
    assert_ne!(asks(SECRET, "blue"), asks(b"sixteen bytes are enougi", "blue"));
}

#[test]
fn a_short_secret_is_refused() {
    let refused = Credentials::from_secret(&SECRET[..15], "blue", &node("a")).unwrap_err();
    assert!(matches!(refused, CredentialsError::ShortSecret { bytes: 15 }), "{refused}");
    Credentials::from_secret(&SECRET[..16], "blue", &node("a")).unwrap();
}

#[test]
fn debug_shows_the_node_and_nothing_else() {
    let credentials = Credentials::from_secret(SECRET, "blue", &node("a")).unwrap();
    assert_eq!(format!("{credentials:?}"), r#"Credentials { node: NodeId("a"), .. }"#);
}

#[test]
fn every_name_comes_back_from_its_certificate() {
    for name in ["a", "A-b_c.9", &"x".repeat(64), "..", "-"] {
        let credentials = Credentials::from_secret(SECRET, "blue", &node(name)).unwrap();
        assert_eq!(node_of(&credentials.key.cert[0]), Ok(node(name)));
    }
}

#[test]
fn a_certificate_is_for_exactly_one_node() {
    use CertificateNameError::{Invalid, Missing, Several};
    type Check = fn(&CertificateNameError) -> bool;
    let cases: [(&[&str], Check); 7] = [
        (&[], |err| *err == Missing),
        (&["https://node/a"], |err| *err == Missing),
        (&["PEREGRINE://node/a"], |err| *err == Missing),
        (&["peregrine://node/a", "peregrine://node/b"], |err| *err == Several),
        (&["peregrine://node/a", "peregrine://node/a"], |err| *err == Several),
        (&["peregrine://node/"], |err| matches!(err, Invalid(_))),
        (&["peregrine://node/a%62"], |err| matches!(err, Invalid(_))),
    ];
    for (uris, expected) in cases {
        let refused = node_of(&certificate(uris)).unwrap_err();
        assert!(expected(&refused), "{uris:?}: {refused:?}");
    }
    assert_eq!(node_of(&certificate(&["spiffe://x/y", "peregrine://node/a"])), Ok(node("a")));
}

#[test]
fn what_is_no_certificate_has_no_name() {
    let refused = node_of(&CertificateDer::from(&[0x30, 0x82, 0xff, 0xff][..])).unwrap_err();
    assert!(matches!(refused, CertificateNameError::Unreadable(_)));
}

fn certificate(uris: &[&str]) -> CertificateDer<'static> {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|&uri| SanType::URI(uri.try_into().unwrap())).collect();
    params.self_signed(&key).unwrap().into()
}

/// What an operator keeps: an authority, and the files of one node.
pub(in crate::fabric) struct Operator {
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    folder: PathBuf,
}

impl Operator {
    /// Its files lie in a folder of this process and `name`, until it is dropped.
    pub(in crate::fabric) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let folder = std::env::temp_dir().join(format!("peregrine-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self { issuer: Issuer::new(params, key), ca, folder }
    }

    fn load(
        &self,
        trusted: &str,
        node: &NodeId,
        edit: fn(&mut CertificateParams),
    ) -> Result<Credentials, CredentialsError> {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf(node).unwrap();
        edit(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        self.load_files(trusted, &cert.pem(), &key.serialize_pem(), node)
    }

    fn load_files(
        &self,
        ca: &str,
        cert: &str,
        key: &str,
        node: &NodeId,
    ) -> Result<Credentials, CredentialsError> {
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (ca, cert, key) = (write("ca.pem", ca), write("cert.pem", cert), write("key.pem", key));
        Credentials::from_files(&ca, &cert, &key, node)
    }

    /// Credentials of a node that believes this operator and those.
    pub(in crate::fabric) fn credentials(&self, name: &str, others: &[&Self]) -> Credentials {
        let trusted: String = others.iter().map(|other| &*other.ca).chain([&*self.ca]).collect();
        self.load(&trusted, &node(name), |_| {}).unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn files_of_an_operator_are_good() {
    let operator = Operator::new("good");
    assert_eq!(operator.credentials("a", &[]).node(), &node("a"));
}

#[test]
fn files_that_no_peer_would_accept_are_refused_at_once() {
    let (operator, other) = (Operator::new("refused"), Operator::new("other"));
    let refused = |trusted: &str, edit| operator.load(trusted, &node("a"), edit).unwrap_err();
    let unknown = refused(&other.ca, |_| {});
    assert!(matches!(unknown, CredentialsError::NotAccepted(_)), "{unknown}");
    let expired = refused(&operator.ca, |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
    assert!(matches!(expired, CredentialsError::NotAccepted(_)), "{expired}");
    for usage in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        let half = match usage {
            ExtendedKeyUsagePurpose::ServerAuth => refused(&operator.ca, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            _ => refused(&operator.ca, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        };
        assert!(matches!(half, CredentialsError::NotAccepted(_)), "{half}");
    }
    let renamed = refused(&operator.ca, |params| {
        params.subject_alt_names = vec![SanType::URI("peregrine://node/b".try_into().unwrap())];
    });
    assert!(matches!(renamed, CredentialsError::OtherNode { .. }), "{renamed}");
    let nameless = refused(&operator.ca, |params| params.subject_alt_names.clear());
    assert!(matches!(nameless, CredentialsError::Name(CertificateNameError::Missing)), "{nameless}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let operator = Operator::new("key");
    let cert = leaf(&node("a")).unwrap().signed_by(&KeyPair::generate().unwrap(), &operator.issuer).unwrap();
    let key = KeyPair::generate().unwrap().serialize_pem();
    let refused = operator.load_files(&operator.ca, &cert.pem(), &key, &node("a")).unwrap_err();
    assert!(matches!(refused, CredentialsError::Key(_)), "{refused}");
}

#[test]
fn a_file_that_holds_something_else_is_named() {
    let operator = Operator::new("files");
    let refused = operator.load_files("", "", "", &node("a")).unwrap_err().to_string();
    assert!(refused.ends_with("ca.pem: holds no certificate"), "{refused}");
    let absent = Path::new("/nowhere/ca.pem");
    let refused = Credentials::from_files(absent, absent, absent, &node("a")).unwrap_err().to_string();
    assert!(refused.starts_with("/nowhere/ca.pem: "), "{refused}");
}
