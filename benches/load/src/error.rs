//! Why no load can be made.

use std::io;
use std::net::SocketAddr;

use crate::http::Malformed;

/// The load could not begin, or had to be given up. Whoever asked for it acts.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The address is none. Caller.
    #[error("`{0}` is not http://host[:port] or https://host[:port]")]
    Url(String),
    /// The name has no address. Caller, or whoever runs the name server.
    #[error("cannot resolve `{host}`: {source}")]
    Resolve {
        /// As written.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody answers there. Whoever runs the server.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate file cannot be used. Caller.
    #[error("cannot read certificates of {file}: {detail}")]
    Certificates {
        /// As given.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// The other side cannot be trusted, or TLS cannot be set up. Caller.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// The server refuses what a load needs to know. The caller, where a key or a model is wrong.
    #[error("{path} answers {status}: {detail}")]
    Refused {
        /// What was asked.
        path: String,
        /// HTTP status.
        status: u16,
        /// Beginning of the answer.
        detail: String,
    },
    /// The server says what a load cannot use. Whoever runs the server.
    #[error("{path}: {detail}")]
    Unusable {
        /// What was asked.
        path: String,
        /// What is wrong with the answer.
        detail: &'static str,
    },
    /// The answer is no HTTP. Whoever runs the server.
    #[error("no HTTP answer: {0}")]
    Malformed(#[from] Malformed),
    /// The kind of request does not suit the model. Caller.
    #[error("{0}")]
    Unsuited(String),
    /// The server refused a websocket, a subscription, or the ticks that fill a window. The caller, or whoever runs it.
    #[error("stream: {0}")]
    Stream(String),
    /// The system refuses a socket, a timer or a thread. Operator.
    #[error("system: {0}")]
    System(#[from] io::Error),
    /// A thread of the generator ended. A bug of ours.
    #[error("a thread of the generator ended")]
    Thread,
}
