//! `[server]`, as used.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::checker::{Checker, DAY, SECOND};
use super::file::ServerFile;
use super::units::WrittenSize;

/// Where and how much the gateway accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// HTTP worker threads, at least 1.
    pub workers: usize,
    /// How long workers and the thread of the series look for work after they had some; zero: they do not.
    pub busy_poll: Duration,
    /// Largest request body; larger ones get 413.
    pub body_bytes_max: usize,
    /// Of all bodies that are read or worked on at once; more get 429.
    pub bodies_bytes_max: usize,
    /// Open connections, all workers together.
    pub connections_max: usize,
    /// Requests that may be inside the node at once; more get 429.
    pub in_flight_max: usize,
    /// How long a request's header may take to arrive, and before it a TLS handshake.
    pub header_timeout: Duration,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
    /// How long a stopping node lets requests finish.
    pub drain: Duration,
    /// `None`: plain HTTP.
    pub tls: Option<TlsConfig>,
}

/// How the gateway proves who it is.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    /// PEM: this node's certificate, then those that vouch for it.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Checker<'_> {
    pub(super) fn server(&mut self, written: ServerFile) -> Option<ServerConfig> {
        let listen = self.present("server.listen", written.listen);
        let listen = listen.and_then(|text| self.socket("server.listen", &text));
        let workers = self.cores("server.workers", written.workers);
        let busy_poll = self.time("server.busy_poll", written.busy_poll, Duration::ZERO..=60 * SECOND);
        let bodies =
            self.within("server.bodies_max", written.bodies_max.map(|WrittenSize(n)| n), 1024..=1 << 40);
        let body = self.within("server.body_max", written.body_max.map(|WrittenSize(n)| n), 1024..=1 << 30);
        if let (Some(body), Some(bodies)) = (body, bodies)
            && body > bodies
        {
            // It would be told to come back later for ever.
            self.mistake("server.body_max", format!("{body} is more than bodies_max = {bodies}"));
        }
        let connections = self.within("server.connections_max", written.connections_max, 1..=1_000_000);
        let in_flight = self.within("server.in_flight_max", written.in_flight_max, 1..=1_000_000);
        let header_timeout = self.time("server.header_timeout", written.header_timeout, SECOND / 100..=DAY);
        let keep_alive = self.time("server.keep_alive", written.keep_alive, Duration::ZERO..=DAY);
        let drain = self.time("server.drain", written.drain, Duration::ZERO..=DAY);
        let certificate = self.present("server.tls_certificate", written.tls_certificate);
        let key = self.present("server.tls_key", written.tls_key);
        let certificate = certificate.and_then(|file| self.file("server.tls_certificate", file));
        let key = key.and_then(|file| self.file("server.tls_key", file));
        let tls = match (certificate?, key?) {
            (Some(certificate), Some(key)) => Some(TlsConfig { certificate, key }),
            (None, None) => None,
            (certificate, _) => {
                let lacks = if certificate.is_some() { "server.tls_key" } else { "server.tls_certificate" };
                self.mistake(lacks, "a certificate and its key come together".to_owned());
                None
            }
        };
        Some(ServerConfig {
            listen: listen?,
            workers: workers?,
            busy_poll: busy_poll?,
            body_bytes_max: body?,
            bodies_bytes_max: bodies?,
            connections_max: connections?,
            in_flight_max: in_flight?,
            header_timeout: header_timeout?,
            keep_alive: keep_alive?,
            drain: drain?,
            tls,
        })
    }
}
