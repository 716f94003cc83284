//! How a node speaks to those that its operator named: the webhook, the collector of traces.

use std::io;
use std::time::Duration;

/// A client that goes where it was sent and nowhere else. `within`: of a whole exchange, unless each says its own.
pub(crate) fn agent(head_bytes_max: usize, within: Option<Duration>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(within)
        // Whoever answers with another address is not who was to be told, and may not be meant to read it.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(head_bytes_max)
        // Only where the operator said, whatever the environment says.
        .proxy(None)
        .user_agent(concat!("peregrine/", env!("CARGO_PKG_VERSION")));
    config.build().new_agent()
}

/// What went wrong, in our words, since its own may repeat the address, which may hold a secret.
pub(crate) fn word(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "no answer in time",
        ureq::Error::HostNotFound => "no such host",
        ureq::Error::ConnectionFailed => "no connection",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "tls failed",
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused",
        ureq::Error::Io(_) => "connection lost",
        _ => "no answer that can be read",
    }
}
