//! Why a node was not believed, in words that say what to do; when a certificate is believed.

pub(crate) mod validity;

use std::error::Error;
use std::io;

use rustls::CertificateError;

/// An error of whoever asked a node, with what to do where its certificate is the reason.
pub(crate) fn explained(error: &(dyn Error + 'static)) -> String {
    let said = error.to_string();
    let advice = match distrust(error) {
        Some(CertificateError::UnknownIssuer) => "--ca FILE names who vouches for the node's certificate",
        Some(CertificateError::Other(other))
            if matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
        {
            "the node shows the certificate of an authority (CA:TRUE), which may vouch for a node and be none: make its \
             certificate with -addext basicConstraints=critical,CA:FALSE, or have the authority sign another one"
        }
        _ => return said,
    };
    format!("{said}: {advice}")
}

/// What is wrong with the node's certificate, wherever in the error that is said.
fn distrust<'error>(error: &'error (dyn Error + 'static)) -> Option<&'error CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    // What these two hold is not their source.
    let inner: &'error (dyn Error + 'static) = if let Some(error) = error.downcast_ref::<io::Error>() {
        error.get_ref()?
    } else if let Some(error) = error.downcast_ref::<ureq::Error>() {
        match error {
            ureq::Error::Io(error) => error,
            ureq::Error::Rustls(error) => error,
            _ => return None,
        }
    } else {
        error.source()?
    };
    distrust(inner)
}

#[cfg(test)]
mod tests {
    use peregrine_load::LoadError;

    use super::*;

    #[test]
    fn only_what_is_about_certificates_gets_advice() {
        for other in ["connection refused", "UnknownIssuer"] {
            assert_eq!(explained(&io::Error::other(other)), other);
        }
        let stranger = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped: [Box<dyn Error>; 4] = [
            Box::new(ureq::Error::Rustls(stranger())),
            Box::new(ureq::Error::Io(io::Error::other(stranger()))),
            Box::new(LoadError::Tls(stranger())),
            Box::new(LoadError::System(io::Error::other(stranger()))),
        ];
        for error in &wrapped {
            let said = explained(error.as_ref());
            assert!(said.ends_with(": --ca FILE names who vouches for the node's certificate"), "{said}");
        }
    }
}
