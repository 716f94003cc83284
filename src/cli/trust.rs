//! How verbs ask a node: whom they believe, and what they show.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::CliError;
use crate::top::KEY_VARIABLE;

#[derive(Debug, Default, Args)]
pub(super) struct AccessArgs {
    /// PEM file with who vouches for an https node
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// An API key, where the node wants one; default: what PEREGRINE_API_KEY holds
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl AccessArgs {
    /// What the header `authorization` says; `None`: nothing is shown.
    pub(super) fn authorization(&self) -> Result<Option<String>, CliError> {
        let key = self.key.clone().or_else(|| std::env::var(KEY_VARIABLE).ok()).filter(|key| !key.is_empty());
        match key {
            Some(key) if key.chars().all(|one| one.is_ascii_graphic()) => Ok(Some(format!("Bearer {key}"))),
            Some(_) => Err(CliError::Usage("an API key has visible ASCII characters only".to_owned())),
            None => Ok(None),
        }
    }

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
