//! Where a certificate says which node it is for: in a URI among its subject alternative names.
//!
//! `peregrine://node/NAME`, exactly once. Every byte that a node's name may have stands for itself in a URI,
//! so there is one spelling of each name and no two names share one. Other alternative names are not looked at.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::cluster::NodeId;

const PREFIX: &str = "peregrine://node/";

/// A certificate that is for no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateNameError {
    /// It cannot be read at all.
    #[error("not an X.509 certificate: {0}")]
    Unreadable(String),
    /// It names no node.
    #[error("the certificate has no URI name of the form {PREFIX}NAME")]
    Missing,
    /// It names more than one.
    #[error("the certificate has several URI names of the form {PREFIX}NAME")]
    Several,
    /// It names one that cannot be.
    #[error("the certificate's {PREFIX} name: {0}")]
    Invalid(#[from] crate::cluster::NameError),
}

/// The URI that stands for a node.
pub(super) fn uri_of(node: &NodeId) -> String {
    format!("{PREFIX}{node}")
}

/// The node that a certificate is for. Says nothing about who signed it.
pub(crate) fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, CertificateNameError> {
    let parsed = EndEntityCert::try_from(certificate)
        .map_err(|err| CertificateNameError::Unreadable(err.to_string()))?;
    let mut names = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(PREFIX));
    let name = names.next().ok_or(CertificateNameError::Missing)?;
    if names.next().is_some() {
        return Err(CertificateNameError::Several);
    }
    Ok(NodeId::new(name)?)
}
