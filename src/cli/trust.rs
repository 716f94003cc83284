//! Whom verbs believe that ask a node.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::CliError;

#[derive(Debug, Default, Args)]
pub(super) struct TrustArgs {
    /// PEM file with who vouches for an https node
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl TrustArgs {
    /// A client whose whole exchanges take at most so long.
    pub(super) fn agent(&self, within: Duration) -> Result<ureq::Agent, CliError> {
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
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert_eq!(certificates(b"none").map(|found| found.len()), Err("holds no certificate".to_owned()));
        let key = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
        let both = format!("{}{}", key.cert.pem(), key.signing_key.serialize_pem());
        assert_eq!(certificates(both.as_bytes()).unwrap().len(), 1, "a key beside it is passed over");
    }
}
