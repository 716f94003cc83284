//! What other nodes know this one by. Files are read again with every reload, for the handshakes that come; links that
//! are there stay.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use peregrine_runtime::{Credentials, CredentialsError, QuicFabric};
use ring::digest::{SHA256, digest};

use crate::certificates::validity::{self, Validity};
use crate::config::{ClusterConfig, Config, Credentials as Given, NodeConfig};
use crate::reload::{Room, Staged};

pub(super) fn credentials(part: &ClusterConfig, node: &NodeConfig) -> Result<Credentials, CredentialsError> {
    match &part.credentials {
        Given::Secret(secret) => Credentials::from_secret(secret.expose().as_bytes(), &part.name, &node.name),
        Given::Files { ca, certificate, key } => Credentials::from_files(ca, certificate, key, &node.name),
    }
}

/// What is wrong with the files that the configuration names, by key.
pub(crate) fn bad_files(part: &ClusterConfig, node: &NodeConfig) -> Option<(&'static str, CredentialsError)> {
    let error = credentials(part, node).err()?;
    Some((key_of(part, &error)?, error))
}

/// Where the files are named; `None`: there are none.
fn key_of(part: &ClusterConfig, error: &CredentialsError) -> Option<&'static str> {
    let Given::Files { ca, key, .. } = &part.credentials else { return None };
    Some(match error {
        CredentialsError::File { path, .. } if path == ca => "cluster.ca",
        CredentialsError::File { path, .. } if path == key => "cluster.key",
        CredentialsError::Key(_) => "cluster.key",
        _ => "cluster.certificate",
    })
}

/// The certificate from files that new handshakes show; shared by whoever asks how long it lasts, and by whoever reads
/// the files again.
pub(crate) struct OwnCertificate {
    part: ClusterConfig,
    node: NodeConfig,
    /// Held by others: its port is free once they let go.
    fabric: Weak<QuicFabric>,
    in_use: Mutex<Files>,
}

/// What the files held.
pub(super) struct Files {
    hashes: Hashes,
    /// Of this node's certificate.
    validity: Option<Validity>,
}

/// Of authority, certificate and key; `None`: it cannot be read.
type Hashes = [Option<Vec<u8>>; 3];

fn hashes(part: &ClusterConfig) -> Option<Hashes> {
    let Given::Files { ca, certificate, key } = &part.credentials else { return None };
    let hash = |file: &PathBuf| Some(digest(&SHA256, &fs::read(file).ok()?).as_ref().to_vec());
    Some([ca, certificate, key].map(hash))
}

/// What the configuration gives, and what files held where it names some.
pub(super) fn read(
    part: &ClusterConfig,
    node: &NodeConfig,
) -> Result<(Credentials, Option<Files>), CredentialsError> {
    // First, so that files which change in between are others at the next reload.
    let hashes = hashes(part);
    let credentials = credentials(part, node)?;
    let validity = validity::of(credentials.certificate());
    Ok((credentials, hashes.map(|hashes| Files { hashes, validity })))
}

impl OwnCertificate {
    pub(super) fn new(
        part: &ClusterConfig,
        node: &NodeConfig,
        fabric: &Arc<QuicFabric>,
        files: Files,
    ) -> Self {
        let (part, node, fabric) = (part.clone(), node.clone(), Arc::downgrade(fabric));
        Self { part, node, fabric, in_use: Mutex::new(files) }
    }

    /// Until other nodes no longer believe it; negative: since then.
    pub(crate) fn remaining_seconds(&self, now: SystemTime) -> Option<f64> {
        self.in_use.lock().validity.map(|validity| validity.remaining_seconds(now))
    }
}

/// Reads the files again with every reload.
pub(crate) struct OwnCertificateRoom(pub(crate) Arc<OwnCertificate>);

impl Room for OwnCertificateRoom {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn reads_files(&self) -> bool {
        true
    }

    fn prepare(&self, _next: &Arc<Config>) -> Result<Staged, String> {
        // The keys that name them are fixed while the node runs.
        let OwnCertificate { part, node, fabric, in_use } = &*self.0;
        if hashes(part).is_none_or(|hashes| hashes == in_use.lock().hashes) {
            // One that has expired meanwhile must not hold up what else was changed.
            return Ok(Box::new(|| false));
        }
        let said = |error: CredentialsError| match key_of(part, &error) {
            Some(key) => format!("{key}: {error}"),
            None => error.to_string(),
        };
        let Some(fabric) = fabric.upgrade() else { return Ok(Box::new(|| false)) };
        let (credentials, files) = read(part, node).map_err(said)?;
        let renew = fabric.renewal(&credentials).map_err(|error| error.to_string())?;
        let own = Arc::clone(&self.0);
        Ok(Box::new(move || {
            renew();
            if let Some(files) = files {
                *own.in_use.lock() = files;
            }
            tracing::info!("credentials among nodes replaced");
            true
        }))
    }
}
