//! TLS 1.3 on the public port: certificates from files, handshakes with a deadline. HTTP/1.1 alone is offered.
//!
//! The certificate is looked up for each handshake, so that another one takes effect without a new listener.

pub(super) mod expiry;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Config, TlsConfig};
use crate::reload::{Room, Staged};

/// Of a PEM file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no certificate to show; the operator acts. Never says what is in a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {reason}", file.display())]
    Bad {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What is wrong with the files that the configuration names, by key.
pub(crate) fn bad_files(config: &TlsConfig) -> Option<(&'static str, TlsError)> {
    let error = read(config).err()?;
    let (TlsError::Unreadable { file, .. } | TlsError::Bad { file, .. }) = &error;
    let is_certificate = *file == config.certificate;
    let key = if is_certificate { "server.tls_certificate" } else { "server.tls_key" };
    Some((key, error))
}

/// The certificate that clients are shown, and when it expires.
struct Shown {
    key: Arc<CertifiedKey>,
    expires: SystemTime,
}

/// Shared by all workers, and by whoever reads the files again.
pub(crate) struct Tls {
    shown: RwLock<Shown>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// With the certificate that the files hold.
    pub(crate) fn start(config: &TlsConfig) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { shown: RwLock::new(read(config)?) }))
    }

    /// When clients will no longer believe the certificate.
    fn expires(&self) -> SystemTime {
        self.shown.read().expires
    }

    /// Until then, in seconds; negative: since then.
    pub(crate) fn remaining_seconds(&self, wall: SystemTime) -> f64 {
        match self.expires().duration_since(wall) {
            Ok(left) => left.as_secs_f64(),
            Err(past) => -past.duration().as_secs_f64(),
        }
    }

    /// What makes TLS of accepted sockets.
    pub(super) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(self))));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

#[derive(Debug)]
struct Resolver(Arc<Tls>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.shown.read().key))
    }
}

/// An accepted socket, once both sides have agreed; a client that is slow at it is cut off.
pub(super) async fn shake(
    acceptor: &TlsAcceptor,
    socket: TcpStream,
    within: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    tokio::time::timeout(within, acceptor.accept(socket)).await.map_err(|_elapsed| io::ErrorKind::TimedOut)?
}

fn read(config: &TlsConfig) -> Result<Shown, TlsError> {
    let bad = |file: &Path, reason: String| TlsError::Bad { file: file.to_owned(), reason };
    let text = bytes(&config.certificate)?;
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| bad(&config.certificate, error.to_string()))?;
    let own =
        chain.first().ok_or_else(|| bad(&config.certificate, "there is no certificate in it".to_owned()))?;
    let expires =
        expiry::of(own).ok_or_else(|| bad(&config.certificate, "it does not say when it ends".to_owned()))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&config.key)?)
        .map_err(|_| bad(&config.key, "there is no private key in it".to_owned()))?;
    // Refuses a key that is not the certificate's.
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| bad(&config.key, error.to_string()))?;
    Ok(Shown { key: Arc::new(key), expires })
}

fn bytes(file: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|source| TlsError::Unreadable { file: file.to_owned(), source })?;
    Ok(bytes)
}

/// Reads the files again with every reload.
pub(crate) struct TlsRoom(pub(crate) Arc<Tls>);

impl Room for TlsRoom {
    fn name(&self) -> &'static str {
        "tls"
    }

    fn reads_files(&self) -> bool {
        true
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        // Whether there is TLS at all is fixed while the node runs.
        let Some(config) = &next.server.tls else { return Ok(Box::new(|| false)) };
        let shown = read(config).map_err(|error| error.to_string())?;
        let tls = Arc::clone(&self.0);
        Ok(Box::new(move || {
            let was = std::mem::replace(&mut *tls.shown.write(), shown);
            let is_other = was.key.cert != tls.shown.read().key.cert;
            if is_other {
                tracing::info!("certificate replaced");
            }
            is_other
        }))
    }
}
