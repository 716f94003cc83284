//! How verbs ask a node: whom they believe, and what they show.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::CliError;
use crate::client::{Node, key_of_environment};
use crate::config::is_http_url;

#[derive(Debug, Default, Args)]
pub(super) struct AccessArgs {
    /// PEM file with who vouches for an https node
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// An API key, or @FILE that holds it, where the node wants one; default: what PEREGRINE_API_KEY holds
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// Which node is asked.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Any node of the cluster
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = node_url)]
    url: String,
    #[command(flatten)]
    access: AccessArgs,
}

impl NodeArgs {
    /// The node, whose answers take at most so long.
    pub(super) fn node(&self, within: Duration) -> Result<Node, CliError> {
        self.access.node(&self.url, within)
    }
}

impl AccessArgs {
    /// The same of another URL.
    pub(super) fn node(&self, url: &str, within: Duration) -> Result<Node, CliError> {
        Ok(Node::new(url, self.authorization()?, self.agent(within)?))
    }

    /// What the header `authorization` says; `None`: nothing is shown.
    fn authorization(&self) -> Result<Option<String>, CliError> {
        let key = shown_key(self.key.as_deref())?.filter(|key| !key.is_empty());
        match key {
            Some(key) if key.chars().all(|one| one.is_ascii_graphic()) => Ok(Some(format!("Bearer {key}"))),
            Some(_) => Err(CliError::Usage("an API key has visible ASCII characters only".to_owned())),
            None => Ok(None),
        }
    }

    /// A client whose whole exchanges take at most so long.
    fn agent(&self, within: Duration) -> Result<ureq::Agent, CliError> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(within));
        let config = match &self.ca {
            None => config,
            Some(file) => {
                let wrong = |why: String| CliError::Usage(format!("--ca {}: {why}", file.display()));
                let pem = fs::read(file).map_err(|error| wrong(error.to_string()))?;
                let certificates = certificates(&pem).map_err(wrong)?;
                let roots = RootCerts::new_with_certs(&certificates);
                config.tls_config(TlsConfig::builder().root_certs(roots).build())
            }
        };
        Ok(config.build().new_agent())
    }
}

/// The key that `--key` gives, or names a file of; without it that of the environment.
pub(super) fn shown_key(written: Option<&str>) -> Result<Option<String>, CliError> {
    let Some(written) = written else { return Ok(key_of_environment()) };
    let Some(file) = written.strip_prefix('@') else { return Ok(Some(written.to_owned())) };
    let wrong = |why: String| CliError::Usage(format!("--key @{file}: {why}"));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("holds no key".to_owned())),
        key => Ok(Some(key.to_owned())),
    }
}

/// What `--url` may say: a node, or where a proxy has put it.
pub(super) fn node_url(written: &str) -> Result<String, String> {
    if is_http_url(written) {
        Ok(written.to_owned())
    } else {
        Err("wants http://HOST:PORT or https://HOST:PORT".to_owned())
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread;

    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;
    use crate::certificates::explained;

    #[test]
    fn a_url_names_a_scheme_and_a_host() {
        for good in
            ["http://127.0.0.1:8080", "https://desk.example/", "http://[::1]:8080", "https://desk.example/fx"]
        {
            assert_eq!(node_url(good), Ok(good.to_owned()));
        }
        for odd in [
            "foo",
            "",
            "127.0.0.1:8080",
            "localhost:8080",
            "http://",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:0",
            "ftp://desk.example",
            "http:/desk",
            "/v1",
        ] {
            assert_eq!(node_url(odd), Err("wants http://HOST:PORT or https://HOST:PORT".to_owned()), "{odd}");
        }
    }

    #[test]
    fn a_key_is_written_or_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            format!("@{}", dir.path().join(name).display())
        };
        let shown = |key: &str| AccessArgs { ca: None, key: Some(key.to_owned()) }.authorization();
        assert_eq!(shown("pgk_a").unwrap().as_deref(), Some("Bearer pgk_a"));
        assert_eq!(shown(&file("key", " pgk_b\n")).unwrap().as_deref(), Some("Bearer pgk_b"));
        for (key, why) in [
            (file("empty", "\n"), "holds no key"),
            (file("two", "pgk_a\npgk_b\n"), "visible ASCII"),
            (format!("@{}", dir.path().join("none").display()), "No such file"),
        ] {
            let refused = shown(&key).expect_err("no key").to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    /// Shakes hands once as a node would that shows this certificate, and says what `--ca` with that file makes of it.
    fn met_by_own_certificate(is_ca: rcgen::IsCa) -> Result<(), String> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tls.crt");
        fs::write(&file, certificate.pem()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
                )
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let node = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, socket);
            // Who refuses the certificate leaves before a request.
            let mut some = [0; 1024];
            if stream.read(&mut some).is_ok() {
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
            }
        });
        let access = AccessArgs { ca: Some(file), key: None };
        let met = access.agent(Duration::from_secs(20)).unwrap().get(&url).call();
        node.join().unwrap();
        met.map(|_| ()).map_err(|error| explained(&error))
    }

    #[test]
    fn a_certificate_that_a_node_has_signed_itself_is_believed_and_an_authority_is_told_from_it() {
        assert_eq!(met_by_own_certificate(rcgen::IsCa::ExplicitNoCa), Ok(()));
        let authority = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let refused = met_by_own_certificate(authority).expect_err("no node is an authority");
        assert!(refused.contains("basicConstraints=critical,CA:FALSE"), "{refused}");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert_eq!(certificates(b"none").map(|found| found.len()), Err("holds no certificate".to_owned()));
        let key = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
        let both = format!("{}{}", key.cert.pem(), key.signing_key.serialize_pem());
        assert_eq!(certificates(both.as_bytes()).unwrap().len(), 1, "a key beside it is passed over");
    }
}
