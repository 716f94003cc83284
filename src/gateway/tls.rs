//! TLS 1.3 on the public port: certificates from files, handshakes with a deadline. HTTP/1.1 alone is offered.
//!
//! The certificate is looked up for each handshake, so that another one takes effect without a new listener.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use peregrine_runtime::Clock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::validity::{self, NotNow, Validity};
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
pub(crate) fn bad_files(config: &TlsConfig, now: SystemTime) -> Option<(&'static str, TlsError)> {
    let error = read(config).and_then(|shown| shown.check(config, now)).err()?;
    let (TlsError::Unreadable { file, .. } | TlsError::Bad { file, .. }) = &error;
    let is_certificate = *file == config.certificate;
    let key = if is_certificate { "server.tls_certificate" } else { "server.tls_key" };
    Some((key, error))
}

/// The certificate that clients are shown, and when they believe it.
struct Shown {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl Shown {
    fn check(&self, config: &TlsConfig, now: SystemTime) -> Result<(), TlsError> {
        let bad =
            |error: NotNow| TlsError::Bad { file: config.certificate.clone(), reason: error.to_string() };
        self.validity.check(now).map_err(bad)
    }
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
    pub(crate) fn start(config: &TlsConfig, now: SystemTime) -> Result<Arc<Self>, TlsError> {
        let shown = read(config)?;
        shown.check(config, now)?;
        Ok(Arc::new(Self { shown: RwLock::new(shown) }))
    }

    /// Until clients no longer believe the certificate; negative: since then.
    pub(crate) fn remaining_seconds(&self, now: SystemTime) -> f64 {
        self.shown.read().validity.remaining_seconds(now)
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
    let validity = validity::of(own)
        .ok_or_else(|| bad(&config.certificate, "it does not say when it is valid".to_owned()))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&config.key)?)
        .map_err(|_| bad(&config.key, "there is no private key in it".to_owned()))?;
    // Refuses a key that is not the certificate's.
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| bad(&config.key, error.to_string()))?;
    Ok(Shown { key: Arc::new(key), validity })
}

fn bytes(file: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|source| TlsError::Unreadable { file: file.to_owned(), source })?;
    Ok(bytes)
}

/// Reads the files again with every reload.
pub(crate) struct TlsRoom {
    pub(crate) tls: Arc<Tls>,
    pub(crate) clock: Arc<dyn Clock>,
}

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
        if shown.key.cert == self.tls.shown.read().key.cert {
            // One that has expired meanwhile must not hold up what else was changed.
            return Ok(Box::new(|| false));
        }
        shown.check(config, self.clock.wall()).map_err(|error| error.to_string())?;
        let tls = Arc::clone(&self.tls);
        Ok(Box::new(move || {
            *tls.shown.write() = shown;
            tracing::info!("certificate replaced");
            true
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use peregrine_runtime::ManualClock;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config::{Sources, resolve};

    const DAY: Duration = Duration::from_secs(86_400);

    /// Writes a certificate that is good from now on, for so long.
    fn write(files: &TlsConfig, now: SystemTime, lasts: Duration) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = ((now - DAY).into(), (now + lasts).into());
        let key = KeyPair::generate().unwrap();
        fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    #[test]
    fn one_that_has_expired_in_use_holds_up_no_reload_and_another_that_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsConfig { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        let clock = Arc::new(ManualClock::new());
        write(&files, clock.wall(), 30 * DAY);
        let tls = Tls::start(&files, clock.wall()).unwrap();
        let mut config = resolve(&Sources::default()).unwrap().config;
        config.server.tls = Some(files.clone());
        let (config, room) = (Arc::new(config), TlsRoom { tls: Arc::clone(&tls), clock: clock.clone() });
        let reload = || room.prepare(&config).map(|commit| commit());
        clock.advance(31 * DAY);
        assert_eq!(reload(), Ok(false));
        assert!(Tls::start(&files, clock.wall()).is_err(), "a node does not start with it");
        write(&files, clock.wall() - 31 * DAY, 30 * DAY);
        let refused = reload().unwrap_err();
        assert!(refused.contains("c.pem: it expired at "), "{refused}");
        write(&files, clock.wall(), 30 * DAY);
        assert_eq!(reload(), Ok(true));
        assert!(tls.remaining_seconds(clock.wall()) > 29.0 * DAY.as_secs_f64());
    }
}
