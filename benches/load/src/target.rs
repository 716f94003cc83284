//! Where the load goes: an address, whether it is asked through TLS, and the key that is shown.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::LoadError;

/// Whom to believe that it is the server.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Whoever the usual authorities vouch for.
    #[default]
    Usual,
    /// Whoever the certificates of this PEM file vouch for.
    File(std::path::PathBuf),
    /// Anybody: for servers whose certificate is their own.
    Anybody,
}

/// A server.
#[derive(Clone)]
pub struct Target {
    /// As the `Host` header says it.
    pub authority: String,
    /// The first address that the name has.
    pub address: SocketAddr,
    /// Longest that a connection, a handshake or an answer may take.
    pub timeout: Duration,
    /// Whoever waits for its answers stays awake: a core each, and no wake-up of the client in what is measured.
    pub busy_poll: bool,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    key: Option<String>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        write!(f, "{}{}", if self.tls.is_some() { "https://" } else { "http://" }, self.authority)
    }
}

impl Target {
    /// Reads a URL and resolves its name.
    ///
    /// # Errors
    /// [`LoadError::Url`], [`LoadError::Resolve`], and what certificates can be wrong.
    pub fn new(url: &str, trust: &Trust, key: Option<String>, timeout: Duration) -> Result<Self, LoadError> {
        let parts = parts(url).ok_or_else(|| LoadError::Url(url.to_owned()))?;
        let clean = |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !key.iter().all(clean) {
            return Err(LoadError::Unsuited("the key holds what no key does".to_owned()));
        }
        let resolve = |source| LoadError::Resolve { host: parts.host.to_owned(), source };
        let mut addresses = (parts.host, parts.port).to_socket_addrs().map_err(resolve)?;
        let address = addresses.next().ok_or_else(|| resolve(std::io::ErrorKind::NotFound.into()))?;
        let tls = if parts.secure {
            let name =
                ServerName::try_from(parts.host.to_owned()).map_err(|_| LoadError::Url(url.to_owned()))?;
            Some((Arc::new(client(trust)?), name))
        } else {
            None
        };
        Ok(Self { authority: parts.authority.to_owned(), address, timeout, busy_poll: false, tls, key })
    }

    /// `scheme://authority`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{self:?}")
    }

    /// The lines that every request has: who is asked, and by whom.
    #[must_use]
    pub fn fields(&self) -> String {
        let key = self.key.as_ref().map(|key| format!("Authorization: Bearer {key}\r\n"));
        format!("Host: {}\r\n{}", self.authority, key.unwrap_or_default())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    secure: bool,
    authority: &'a str,
    host: &'a str,
    port: u16,
}

fn parts(url: &str) -> Option<Parts<'_>> {
    let (secure, rest) = match url.split_once("://")? {
        ("http", rest) => (false, rest),
        ("https", rest) => (true, rest),
        _ => return None,
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.bytes().any(|byte| !byte.is_ascii_graphic() || b"/?#@\\".contains(&byte)) {
        return None;
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        None => {
            if secure {
                443
            } else {
                80
            }
        }
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    (!host.is_empty() && port > 0).then_some(Parts { secure, authority, host, port })
}

fn client(trust: &Trust) -> Result<ClientConfig, LoadError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let config = match trust {
        Trust::Usual => {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::File(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
    };
    Ok(config)
}

fn roots(file: &Path) -> Result<RootCertStore, LoadError> {
    let refused = |detail: String| LoadError::Certificates { file: file.display().to_string(), detail };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))? {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() { Err(refused("there are none".to_owned())) } else { Ok(roots) }
}

/// Believes any certificate; signatures are checked all the same, so that a broken server is not measured as a good one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        check("http://127.0.0.1:8080", Some((false, "127.0.0.1", 8080)));
        check("https://desk.example/", Some((true, "desk.example", 443)));
        check("http://[::1]:81", Some((false, "::1", 81)));
        check("http://[::1]", Some((false, "::1", 80)));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        for url in [
            "",
            "127.0.0.1:8080",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:",
            "http://a:0",
            "http://a:x",
            "http://a:+1",
            "http://a:65536",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a b",
            "http://a\r\nX: 1",
            "http://[::1",
        ] {
            check(url, None);
        }
    }

    #[test]
    fn a_key_is_shown_to_the_server_and_nobody_else() {
        let of = |key: &str| {
            Target::new("http://127.0.0.1:1", &Trust::Usual, Some(key.to_owned()), Duration::ZERO)
        };
        let target = of("secret").unwrap();
        assert_eq!(target.fields(), "Host: 127.0.0.1:1\r\nAuthorization: Bearer secret\r\n");
        assert_eq!(target.url(), "http://127.0.0.1:1");
        assert!(of("a\r\nX: 1").is_err() && of("").is_err());
    }

    #[track_caller]
    fn check(url: &str, want: Option<(bool, &str, u16)>) {
        assert_eq!(parts(url).map(|parts| (parts.secure, parts.host, parts.port)), want, "{url}");
    }
}
