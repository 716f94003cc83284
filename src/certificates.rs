//! Why a node was not believed, in words that say what to do.

use std::fmt::Display;

/// An error of whoever asked a node, with what to do where its certificate is the reason.
pub(crate) fn explained(error: &impl Display) -> String {
    let said = error.to_string();
    let advice = if said.contains("CaUsedAsEndEntity") {
        "the node shows the certificate of an authority (CA:TRUE), which may vouch for a node and be none: make its \
         certificate with -addext basicConstraints=critical,CA:FALSE, or have the authority sign another one"
    } else if said.contains("UnknownIssuer") {
        "--ca FILE names who vouches for the node's certificate"
    } else {
        return said;
    };
    format!("{said}: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_certificates_gets_advice() {
        assert_eq!(explained(&"connection refused"), "connection refused");
        assert!(
            explained(&"invalid peer certificate: UnknownIssuer")
                .ends_with(": --ca FILE names who vouches for the node's certificate")
        );
    }
}
