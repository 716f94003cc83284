//! What a node proves itself with, and what it asks of others: mutual TLS 1.3, nothing older, no tickets.
//!
//! A caller asks for a name that only the cluster's own nodes can work out (from the secret, or from the
//! authority that signed them) before it is shown a certificate. Whoever cannot learns nothing at all, not
//! even which node it has found. That name crosses the network in the clear, so it keeps out only those
//! who have never seen a call; the certificates keep out everybody.

mod name;
mod verify;

#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use ring::{digest, hkdf};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, version};

pub use self::name::CertificateNameError;
pub(crate) use self::name::node_of;
use self::verify::{CalledVerifier, CallerVerifier, Doorkeeper};
use crate::cluster::NodeId;

/// Shortest secret of a cluster, in bytes. It has to be random: nothing here slows down guessing.
pub const SECRET_BYTES_MIN: usize = 16;

const ALPN: &[u8] = b"peregrine/1";
/// A PKCS #8 Ed25519 private key (RFC 8410) is this and the 32 bytes of the seed.
const ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const SEED_BYTES: usize = 32;
const SAME_SECRET: &str = "`cluster.name` and `cluster.secret` must be the same on all nodes";
const SAME_AUTHORITY: &str =
    "each node's `cluster.certificate` must be good, and of an authority in the `cluster.ca` of all nodes";
/// In a server name, as hexadecimal digits.
const PASSWORD_BYTES: usize = 16;

/// A node's certificate and key, and the authority whose certificates it believes.
#[derive(Clone)]
pub struct Credentials {
    node: NodeId,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// What this node asks for when it calls.
    password: String,
    /// What those who call it may ask for.
    passwords: Vec<String>,
    /// What an operator sees to, so that nodes believe each other.
    agreement: &'static str,
    provider: Arc<CryptoProvider>,
}

/// Credentials that cannot be used. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Anybody could guess it.
    #[error("the cluster secret has {bytes} bytes, it needs {SECRET_BYTES_MIN} random ones")]
    ShortSecret {
        /// How many it has.
        bytes: usize,
    },
    /// A file holds nothing of the kind it should, or cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate names no node.
    #[error(transparent)]
    Name(#[from] CertificateNameError),
    /// The certificate is another node's.
    #[error("the certificate is for node `{named}`, this is node `{node}`")]
    OtherNode {
        /// Whose it is.
        named: NodeId,
        /// Who we are.
        node: NodeId,
    },
    /// Peers would not believe it: another authority signed it, it has expired, or it is not for both
    /// server and client authentication.
    #[error("the certificate is not good for this cluster: {0}")]
    NotAccepted(rustls::Error),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("certificate and key: {0}")]
    Key(rustls::Error),
    /// A certificate could not be made from the secret.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl Credentials {
    /// Credentials for whoever knows the secret of a cluster. Every such node derives the same authority
    /// and lets it sign a fresh certificate, which never leaves the process and never expires: a clock
    /// that is wrong by years cuts nobody off.
    ///
    /// # Errors
    /// The secret is shorter than [`SECRET_BYTES_MIN`].
    pub fn from_secret(secret: &[u8], cluster: &str, node: &NodeId) -> Result<Self, CredentialsError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(CredentialsError::ShortSecret { bytes: secret.len() });
        }
        let derive = Derive::new(secret, cluster);
        let authority = authority(derive.key("authority")?)?;
        let own = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = leaf(node)?.signed_by(&own, &authority)?;
        let private = PrivatePkcs8KeyDer::from(own.serialize_der()).into();
        let password = password(&derive.bytes::<PASSWORD_BYTES>("password"));
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).map_err(CredentialsError::Key)?;
        let passwords = (password.clone(), vec![password]);
        Self::new(node, vec![certificate.into()], private, roots, passwords, SAME_SECRET)
    }

    /// The operator's own credentials, as PEM files: the certificates of one or more authorities, this
    /// node's certificate (with what is between it and the authority, if anything), and its key.
    ///
    /// The certificate says which node it is for by a URI among its subject alternative names,
    /// `peregrine://node/NAME`, and is good for both server and client authentication. While an authority
    /// is replaced, the file of authorities holds the old and the new one.
    ///
    /// # Errors
    /// A file cannot be used, or the certificate would not be accepted by a peer with the same files.
    pub fn from_files(ca: &Path, cert: &Path, key: &Path, node: &NodeId) -> Result<Self, CredentialsError> {
        let authorities = certificates(ca)?;
        let chain = certificates(cert)?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|err| bad_file(key, err))?;
        let named = node_of(&chain[0])?;
        if named != *node {
            return Err(CredentialsError::OtherNode { named, node: node.clone() });
        }
        let mut roots = RootCertStore::empty();
        let mut passwords = Vec::new();
        let mut own = Err(CredentialsError::NotAccepted(rustls::CertificateError::UnknownIssuer.into()));
        for authority in authorities {
            let known = password(&digest::digest(&digest::SHA256, &authority).as_ref()[..PASSWORD_BYTES]);
            let mut alone = RootCertStore::empty();
            alone.add(authority.clone()).map_err(|err| bad_file(ca, err))?;
            roots.add(authority).map_err(|err| bad_file(ca, err))?;
            if own.is_err() {
                own = verify::chained(&chain[0], &chain[1..], &alone, &crypto(), UnixTime::now())
                    .map(|()| known.clone())
                    .map_err(CredentialsError::NotAccepted);
            }
            passwords.push(known);
        }
        Self::new(node, chain, private, roots, (own?, passwords), SAME_AUTHORITY)
    }

    fn new(
        node: &NodeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: RootCertStore,
        (password, passwords): (String, Vec<String>),
        agreement: &'static str,
    ) -> Result<Self, CredentialsError> {
        let provider = Arc::new(crypto());
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(CredentialsError::Key)?;
        let roots = Arc::new(roots);
        let (node, key) = (node.clone(), Arc::new(key));
        let this = Self { node, key, roots, password, passwords, agreement, provider };
        this.checked_as_caller()?;
        Ok(this)
    }

    /// A certificate that only servers may use would be found out by the peers, one call at a time.
    fn checked_as_caller(&self) -> Result<(), CredentialsError> {
        use rustls::server::danger::ClientCertVerifier;
        let verifier = self.caller_verifier();
        let (own, rest) = self
            .key
            .cert
            .split_first()
            .ok_or(CredentialsError::Key(rustls::Error::NoCertificatesPresented))?;
        verifier
            .verify_client_cert(own, rest, UnixTime::now())
            .map(drop)
            .map_err(CredentialsError::NotAccepted)
    }

    /// Whose they are.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The node's certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |certificate| certificate)
    }

    /// What is wrong where two nodes refuse each other's.
    pub(super) fn agreement(&self) -> &'static str {
        self.agreement
    }

    /// The server name to ask for in a call.
    pub(super) fn server_name(&self) -> &str {
        &self.password
    }

    /// How to call.
    pub(super) fn client_config(&self) -> ClientConfig {
        let verifier = CalledVerifier::new(Arc::clone(&self.roots), Arc::clone(&self.provider));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider has suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.key))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config
    }

    /// How to be called.
    pub(super) fn server_config(&self) -> ServerConfig {
        let doorkeeper = Doorkeeper::new(self.passwords.clone(), Arc::clone(&self.key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider has suites of TLS 1.3")
            .with_client_cert_verifier(Arc::new(self.caller_verifier()))
            .with_cert_resolver(Arc::new(doorkeeper));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config
    }

    /// These credentials, but with what another cluster's node asks for and is asked for: somebody who has
    /// watched a call and cannot do more.
    #[cfg(test)]
    pub(super) fn overheard(mut self, other: &Self) -> Self {
        self.password.clone_from(&other.password);
        self.passwords.clone_from(&other.passwords);
        self
    }

    fn caller_verifier(&self) -> CallerVerifier {
        CallerVerifier::new(Arc::clone(&self.roots), Arc::clone(&self.provider))
            .expect("there is an authority, and no revocation list to be wrong")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What follows from the secret of a cluster; another cluster's name makes everything different.
struct Derive<'a> {
    root: hkdf::Prk,
    cluster: &'a str,
}

impl<'a> Derive<'a> {
    fn new(secret: &[u8], cluster: &'a str) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"peregrine cluster 1");
        Self { root: salt.extract(secret), cluster }
    }

    fn bytes<const N: usize>(&self, purpose: &str) -> [u8; N] {
        struct Len(usize);
        impl hkdf::KeyType for Len {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut bytes = [0; N];
        self.root
            .expand(&[purpose.as_bytes(), &[0], self.cluster.as_bytes()], Len(N))
            .and_then(|derived| derived.fill(&mut bytes))
            .expect("far less is asked for than HKDF can give");
        bytes
    }

    fn key(&self, purpose: &str) -> Result<KeyPair, rcgen::Error> {
        let mut document = [0; ED25519_PREFIX.len() + SEED_BYTES];
        document[..ED25519_PREFIX.len()].copy_from_slice(&ED25519_PREFIX);
        document[ED25519_PREFIX.len()..].copy_from_slice(&self.bytes::<SEED_BYTES>(purpose));
        KeyPair::from_pkcs8_der_and_sign_algo(&document[..].into(), &PKCS_ED25519)
    }
}

/// The same from the same key, byte for byte: Ed25519 signs without chance, the serial number is a hash.
fn authority(key: KeyPair) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = plain_name();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, key)
}

/// Valid from 1975 to 4096, as is usual with rcgen.
fn leaf(node: &NodeId) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = plain_name();
    params.subject_alt_names = vec![SanType::URI(name::uri_of(node).try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn plain_name() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "peregrine");
    name
}

/// A server name has to begin with a letter to be no address.
fn password(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold("p".to_owned(), |mut name, byte| {
        let _infallible = write!(name, "{byte:02x}");
        name
    })
}

/// AES-128 first: no weaker than the certificates, and cheaper.
fn crypto() -> CryptoProvider {
    let mut crypto = provider::default_provider();
    crypto.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    crypto
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|err| bad_file(path, err))?;
    if found.is_empty() {
        return Err(bad_file(path, "holds no certificate"));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|err| bad_file(path, err))
}

fn bad_file(path: &Path, reason: impl fmt::Display) -> CredentialsError {
    CredentialsError::File { path: path.to_owned(), reason: reason.to_string() }
}
