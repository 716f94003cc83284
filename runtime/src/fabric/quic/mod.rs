//! The network between machines: QUIC, both ends authenticated, one connection for each link.
//!
//! Callers shake hands side by side, each in a task with a time limit; what is done with too many of them
//! is decided in `admission`.

mod admission;
mod configs;
mod link;
mod options;
mod pulse;
mod socket;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quinn::crypto::rustls::NoInitialCipherSuite;
use quinn::{
    Connecting, ConnectionError, Endpoint, EndpointConfig, Incoming, Runtime as _, TokioRuntime, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use self::admission::{Admission, Limits, Verdict};
use self::configs::{Configs, InUse};
use self::link::{LinkError, clipped};
pub use self::options::QuicOptions;
use self::socket::{MESSAGE_BYTES_MAX, Port};
use super::tls::Credentials;
use super::{ConnectError, Fabric, Link};
use crate::seldom::Seldom;

/// A UDP port through which links are opened and accepted.
pub struct QuicFabric {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    configs: InUse,
    options: QuicOptions,
    /// What must hold for nodes to accept each other's credentials.
    agreement: &'static str,
    links: Mutex<mpsc::Receiver<Link>>,
}

/// A port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The options contradict each other.
    #[error("options: {0}")]
    Options(&'static str),
    /// The system does not give us the address.
    #[error("{addr}: {source}")]
    Socket {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// QUIC cannot be spoken with these credentials.
    #[error(transparent)]
    Tls(#[from] NoInitialCipherSuite),
}

/// What the tasks that answer callers need.
struct Answering {
    configs: InUse,
    limits: Limits,
    handshake_max: Duration,
    idle_max: Duration,
    links: mpsc::Sender<Link>,
    /// Callers whose credentials were refused, or who refused ours.
    refused: Arc<parking_lot::Mutex<Seldom>>,
    /// What must hold for that not to be.
    agreement: &'static str,
}

impl QuicFabric {
    /// Opens a port. Has to be called inside a tokio runtime, which then drives it.
    ///
    /// # Errors
    /// The address cannot be had, or options or credentials cannot be used.
    pub fn bind(
        listen: SocketAddr,
        credentials: &Credentials,
        options: QuicOptions,
    ) -> Result<Self, BindError> {
        options.checked()?;
        let configs = InUse::new(Configs::new(credentials, &options)?);
        let mut config = EndpointConfig::default();
        config
            .max_udp_payload_size(MESSAGE_BYTES_MAX)
            .map_err(|_| BindError::Options("a packet has at least 1200 bytes"))?;
        let failed = |source| BindError::Socket { addr: listen, source };
        let runtime = Arc::new(TokioRuntime);
        let socket = udp_socket(listen, &options).and_then(|socket| runtime.wrap_udp_socket(socket));
        let socket = Arc::new(Port(socket.map_err(failed)?));
        // Of it only the first packets of callers are read by; who is let in gets one of those in use.
        let listener = (*configs.get().answering.network).clone();
        let endpoint =
            Endpoint::new_with_abstract_socket(config, Some(listener), socket, runtime).map_err(failed)?;
        let local_addr = endpoint.local_addr().map_err(failed)?;
        let (sender, links) = mpsc::channel(options.backlog_max);
        let answering = Answering {
            configs: configs.clone(),
            limits: Limits { handshakes_max: options.handshakes_max, undisturbed: options.handshake_max / 4 },
            handshake_max: options.handshake_max,
            idle_max: options.idle_max,
            links: sender,
            refused: Arc::default(),
            agreement: credentials.agreement(),
        };
        tokio::spawn(answer_callers(endpoint.clone(), answering));
        Ok(Self {
            endpoint,
            local_addr,
            configs,
            options,
            agreement: credentials.agreement(),
            links: Mutex::new(links),
        })
    }

    /// Has every handshake that begins after the call of what is returned show and ask for these credentials, of the
    /// same kind as those so far. Links that are there stay.
    ///
    /// # Errors
    /// QUIC cannot be spoken with them.
    pub fn renewal(&self, credentials: &Credentials) -> Result<impl FnOnce() + Send + use<>, BindError> {
        let configs = Configs::new(credentials, &self.options)?;
        let in_use = self.configs.clone();
        Ok(move || in_use.set(configs))
    }

    /// Resolves once every link is gone, after [`Fabric::close`]: their goodbyes are on the way then.
    /// A process that ends earlier leaves its peers to find out by themselves.
    pub async fn closed(&self, within: Duration) {
        let _goodbyes_unsent = timeout(within, self.endpoint.wait_idle()).await;
    }

    async fn open(&self, calling: Connecting) -> Result<Link, LinkError> {
        link::open(calling.await?, self.options.idle_max).await
    }

    fn connect_error(&self, addr: SocketAddr, err: &LinkError) -> ConnectError {
        let (within, agreement) = (self.options.handshake_max, self.agreement);
        let reason = clipped(&err.to_string());
        match err {
            LinkError::Connection(ConnectionError::TimedOut) => ConnectError::Timeout { addr, within },
            _ if err.is_of_credentials() => ConnectError::Refused { addr, reason, agreement },
            _ => ConnectError::Unreachable { addr, reason },
        }
    }
}

#[async_trait]
impl Fabric for QuicFabric {
    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    async fn connect(&self, to: SocketAddr) -> Result<Link, ConnectError> {
        let configs = self.configs.get();
        let calling = self
            .endpoint
            .connect_with(configs.calling.to(to).clone(), to, &configs.server_name)
            .map_err(|err| ConnectError::Unreachable { addr: to, reason: err.to_string() })?;
        let within = self.options.handshake_max;
        match timeout(within, self.open(calling)).await {
            Ok(opened) => opened.map_err(|err| self.connect_error(to, &err)),
            Err(_elapsed) => Err(ConnectError::Timeout { addr: to, within }),
        }
    }

    async fn accept(&self) -> Option<Link> {
        self.links.lock().await.recv().await
    }

    fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"the node has closed");
    }
}

impl Drop for QuicFabric {
    fn drop(&mut self) {
        self.close();
    }
}

fn udp_socket(listen: SocketAddr, options: &QuicOptions) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` is for peers of both kinds
    }
    // Linux grants as much as it may and says nothing; others refuse, and their default has to do.
    let _refused = socket.set_recv_buffer_size(options.socket_buffer_bytes);
    let _refused = socket.set_send_buffer_size(options.socket_buffer_bytes);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Ends when the endpoint is closed, and with it every unfinished handshake.
async fn answer_callers(endpoint: Endpoint, answering: Answering) {
    let mut tasks = JoinSet::new();
    let mut aborts: HashMap<Id, AbortHandle> = HashMap::new();
    let mut admission = Admission::new(answering.limits);
    loop {
        tokio::select! {
            caller = endpoint.accept() => {
                let Some(caller) = caller else { return };
                let (from, now) = (caller.remote_address().ip(), Instant::now().into_std());
                match admission.judge(from, caller.remote_address_validated(), now) {
                    Verdict::Admit => {}
                    Verdict::Replace(oldest) => {
                        if let Some(oldest) = aborts.remove(&oldest) {
                            oldest.abort();
                        }
                    }
                    Verdict::Prove => {
                        // Only fails for a caller that has proven itself.
                        let _proven = caller.retry();
                        continue;
                    }
                    Verdict::Ignore => {
                        caller.ignore();
                        continue;
                    }
                }
                let task = tasks.spawn(answering.task(caller));
                admission.begin(task.id(), from, now);
                aborts.insert(task.id(), task);
            }
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|failed| failed.id(), |(id, ())| id);
                admission.end(id);
                aborts.remove(&id);
            }
        }
    }
}

impl Answering {
    /// Shakes hands with one caller and hands its link over, all within the time limit: nobody holds a
    /// place for longer, and a link that nobody accepts is closed.
    fn task(&self, caller: Incoming) -> impl Future<Output = ()> + Send + 'static {
        let config = Arc::clone(self.configs.get().answering.to(caller.remote_address()));
        let (links, within, idle_max) = (self.links.clone(), self.handshake_max, self.idle_max);
        let (refused, agreement) = (Arc::clone(&self.refused), self.agreement);
        async move {
            let from = caller.remote_address();
            let answered = timeout(within, async {
                let connection = caller.accept_with(config)?.await?;
                let link = link::answer(connection.clone(), idle_max).await.inspect_err(|err| {
                    connection.close(VarInt::from_u32(1), err.to_string().as_bytes());
                })?;
                let _fabric_closed = links.send(link).await;
                Ok::<_, LinkError>(())
            });
            match answered.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let now = Instant::now().into_std();
                    match error.is_of_credentials().then(|| refused.lock().happened(now)).flatten() {
                        Some(unsaid) => warn!(
                            %from, %error, unsaid,
                            "a caller and this node refuse each other's credentials: {agreement}"
                        ),
                        None => debug!(%from, %error, "caller refused"),
                    }
                }
                Err(_elapsed) => debug!(%from, "caller too slow"),
            }
        }
    }
}
