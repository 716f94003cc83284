//! How to call and be called with the credentials in use: each handshake takes what is in use when it begins, so that
//! others change the next one and no link that is there.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig};

use super::options::Role;
use super::{BindError, QuicOptions};
use crate::fabric::tls::Credentials;

/// Packets of callers that wait for the accept loop, in bytes: for one, for all.
const INCOMING_BYTES_MAX: (u64, u64) = (64 * 1024, 4 * 1024 * 1024);

/// Of one set of credentials.
pub(super) struct Configs {
    pub(super) calling: ByPath<ClientConfig>,
    pub(super) answering: ByPath<Arc<ServerConfig>>,
    /// The name that tells a peer we are of its cluster.
    pub(super) server_name: String,
}

/// One configuration for peers on this machine, one for the others.
pub(super) struct ByPath<T> {
    pub(super) loopback: T,
    pub(super) network: T,
}

/// Those of the credentials in use, for whoever shakes hands.
#[derive(Clone)]
pub(super) struct InUse(Arc<RwLock<Arc<Configs>>>);

impl Configs {
    pub(super) fn new(credentials: &Credentials, options: &QuicOptions) -> Result<Self, BindError> {
        let called = Arc::new(QuicServerConfig::try_from(credentials.server_config())?);
        let caller = Arc::new(QuicClientConfig::try_from(credentials.client_config())?);
        let answering = ByPath::new(|loopback| {
            let mut config = ServerConfig::with_crypto(called.clone());
            config
                .transport_config(options.transport(Role::Called, loopback))
                .migration(false) // a node that moves is a new node
                .max_incoming(options.handshakes_max)
                .incoming_buffer_size(INCOMING_BYTES_MAX.0)
                .incoming_buffer_size_total(INCOMING_BYTES_MAX.1);
            Arc::new(config)
        });
        let calling = ByPath::new(|loopback| {
            let mut config = ClientConfig::new(caller.clone());
            config.transport_config(options.transport(Role::Caller, loopback));
            config
        });
        Ok(Self { calling, answering, server_name: credentials.server_name().to_owned() })
    }
}

impl<T> ByPath<T> {
    fn new(make: impl Fn(bool) -> T) -> Self {
        Self { loopback: make(true), network: make(false) }
    }

    pub(super) fn to(&self, peer: SocketAddr) -> &T {
        if peer.ip().to_canonical().is_loopback() { &self.loopback } else { &self.network }
    }
}

impl InUse {
    pub(super) fn new(configs: Configs) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(configs))))
    }

    pub(super) fn get(&self) -> Arc<Configs> {
        Arc::clone(&self.0.read())
    }

    pub(super) fn set(&self, configs: Configs) {
        *self.0.write() = Arc::new(configs);
    }
}
