//! QUIC alone: who is refused, and what strangers cannot spoil.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::task::{Context, Poll};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, Runtime as _,
    TokioRuntime, UdpPoller, VarInt,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::*;
use crate::fabric::tls::tests::Operator;

const SECRET: &[u8] = b"correct horse battery staple";

fn options() -> QuicOptions {
    QuicOptions {
        handshake_max: Duration::from_secs(2),
        idle_max: Duration::from_millis(1500),
        keep_alive_every: Duration::from_millis(300),
        ..QuicOptions::default()
    }
}

fn credentials(secret: &[u8], cluster: &str, node: &str) -> Credentials {
    Credentials::from_secret(secret, cluster, &NodeId::new(node).unwrap()).unwrap()
}

fn bind(credentials: &Credentials) -> QuicFabric {
    QuicFabric::bind((Ipv6Addr::LOCALHOST, 0).into(), credentials, options()).unwrap()
}

fn good(node: &str) -> QuicFabric {
    bind(&credentials(SECRET, "blue", node))
}

/// `a` has threads of its own, so that it can end between two instructions.
pub(super) fn world() -> World {
    let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let a = {
        let _inside = threads.enter();
        good("a")
    };
    let unused = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let nobody = unused.local_addr().unwrap();
    let threads = KillOnDrop(Some((threads, unused)));
    World {
        a: Arc::new(a),
        b: Arc::new(good("b")),
        nobody,
        idle_max: options().idle_max,
        handshake_max: options().handshake_max,
        kill_a: Box::new(move || drop(threads)),
    }
}

/// A runtime must not be waited for inside another.
struct KillOnDrop(Option<(Runtime, UdpSocket)>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some((threads, _unused)) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

#[track_caller]
fn run(test: impl Future<Output = ()>) {
    runtime(false).block_on(async { timeout(TEST_MAX, test).await.unwrap() });
}

async fn meet(caller: &QuicFabric, called: &QuicFabric) -> (Link, Link) {
    let opened = caller.connect(called.local_addr()).await.unwrap();
    (opened, called.accept().await.unwrap())
}

/// The next caller that `called` hears of is a good one, whoever else has called before.
async fn still_open(called: &QuicFabric) {
    let caller = good("late");
    let (mut opened, mut accepted) = meet(&caller, called).await;
    assert_eq!(accepted.peer.as_str(), "late");
    opened.lanes[1].1.write_all(b"x").await.unwrap();
    assert_eq!(accepted.lanes[1].0.read_u8().await.unwrap(), b'x');
}

#[test]
fn nodes_of_other_clusters_refuse_each_other() {
    run(async {
        for (secret, cluster) in [(SECRET, "green"), (&b"another secret altogether"[..], "blue")] {
            let (called, stranger) = (good("a"), bind(&credentials(secret, cluster, "b")));
            let refused = stranger.connect(called.local_addr()).await.map(drop).unwrap_err();
            assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
            let refused = called.connect(stranger.local_addr()).await.map(drop).unwrap_err();
            assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
            assert!(refused.to_string().contains("`cluster.secret`"), "{refused}");
            still_open(&called).await;
        }
    });
}

#[test]
fn an_impostor_that_overheard_a_call_is_refused_by_its_certificate() {
    run(async {
        let real = credentials(SECRET, "blue", "a");
        let impostor = bind(&credentials(b"another secret altogether", "blue", "a").overheard(&real));
        let refused = good("b").connect(impostor.local_addr()).await.map(drop).unwrap_err();
        assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
        assert!(refused.to_string().contains("certificate"), "{refused}");
    });
}

#[test]
fn a_caller_is_shown_no_certificate_unless_it_asks_for_the_right_one() {
    run(async {
        let called = good("a");
        for name in ["localhost", "peregrine", "p00000000000000000000000000000000"] {
            let ended = Stranger::new(None).call(called.local_addr(), name).await.unwrap_err();
            let ConnectionError::ConnectionClosed(frame) = ended else { panic!("{ended}") };
            assert_eq!(u64::from(frame.error_code), 0x100 + 49, "access denied");
        }
        still_open(&called).await;
    });
}

#[test]
fn a_caller_without_a_good_certificate_gets_no_link() {
    run(async {
        let called = good("a");
        let real = credentials(SECRET, "blue", "x");
        let operator = Operator::new("stranger");
        let strangers = [
            None,
            Some(credentials(b"another secret altogether", "blue", "x")),
            Some(credentials(SECRET, "green", "x")),
            Some(operator.credentials("x", &[])),
        ];
        for stranger in strangers {
            let stranger = Stranger::new(stranger.as_ref());
            // TLS lets a caller speak before its certificate has been looked at.
            if let Ok(connection) = stranger.call(called.local_addr(), real.server_name()).await {
                let _too_late = open_lanes(&connection, &[0, 1, 2, 3]).await;
                let ended = connection.closed().await;
                let ConnectionError::ConnectionClosed(frame) = ended else { panic!("{ended}") };
                assert!((0x100..0x200).contains(&u64::from(frame.error_code)), "{frame}");
            }
        }
        still_open(&called).await;
    });
}

#[test]
fn a_peer_that_opens_other_lanes_gets_no_link() {
    run(async {
        let called = good("a");
        let real = credentials(SECRET, "blue", "x");
        for lanes in [&[0, 1, 3, 2][..], &[0, 0, 0, 0], &[1, 2, 3, 4], &[0, 1, 2], &[]] {
            let stranger = Stranger::new(Some(&real));
            let connection = stranger.call(called.local_addr(), real.server_name()).await.unwrap();
            open_lanes(&connection, lanes).await.unwrap();
            let ended = connection.closed().await;
            assert!(matches!(ended, ConnectionError::ApplicationClosed(_)), "{lanes:?}: {ended}");
        }
        still_open(&called).await;
    });
}

#[test]
fn a_peer_can_open_nothing_beyond_the_lanes() {
    run(async {
        let called = good("a");
        let real = credentials(SECRET, "blue", "x");
        let stranger = Stranger::new(Some(&real));
        let connection = stranger.call(called.local_addr(), real.server_name()).await.unwrap();
        open_lanes(&connection, &[0, 1, 2, 3]).await.unwrap();
        let link = called.accept().await.unwrap();
        assert_eq!(link.peer.as_str(), "x");
        let waited = Duration::from_millis(200);
        assert!(timeout(waited, connection.open_bi()).await.is_err(), "a fifth lane");
        assert!(timeout(waited, connection.open_uni()).await.is_err(), "a lane of one direction");
    });
}

#[test]
fn garbage_harms_nothing() {
    run(async {
        let called = good("a");
        let caller = good("b");
        let (mut opened, mut accepted) = meet(&caller, &called).await;
        let noise = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let mut rng = StdRng::seed_from_u64(4);
        let mut packet = [0; 1500];
        for round in 0..10_000_u32 {
            let bytes = rng.random_range(0..packet.len());
            rng.fill_bytes(&mut packet[..bytes]);
            if round % 2 == 0 {
                packet[..5].copy_from_slice(&[0xc0 | (round as u8 & 0x3f), 0, 0, 0, 1]); // looks like QUIC
            }
            noise.send_to(&packet[..bytes], called.local_addr()).unwrap();
            if round % 100 == 0 {
                opened.lanes[0].1.write_u32(round).await.unwrap();
                assert_eq!(accepted.lanes[0].0.read_u32().await.unwrap(), round);
            }
        }
        still_open(&called).await;
    });
}

#[test]
fn half_open_handshakes_keep_nobody_out() {
    run(async {
        let called = good("a");
        let real = credentials(SECRET, "blue", "x");
        let deaf = Stranger::deaf(Some(&real));
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let calling = deaf.endpoint.connect(called.local_addr(), real.server_name()).unwrap();
                tokio::spawn(async move { calling.await.map(drop) })
            })
            .collect();
        for _ in 0..5 {
            still_open(&called).await;
        }
        for call in calls {
            call.abort();
        }
    });
}

#[test]
fn nodes_with_files_of_one_operator_accept_each_other() {
    run(async {
        let operator = Operator::new("one");
        accepts(&operator.credentials("a", &[]), &operator.credentials("b", &[])).await;
    });
}

#[test]
fn an_authority_can_be_replaced_node_by_node() {
    run(async {
        let (old, new) = (Operator::new("old"), Operator::new("new"));
        let between = old.credentials("between", &[&new]);
        let after = new.credentials("after", &[&old]);
        accepts(&old.credentials("before", &[]), &between).await;
        accepts(&between, &after).await;
        accepts(&after, &between).await;
        accepts(&after, &new.credentials("done", &[])).await;
        let (before, done) = (bind(&old.credentials("before", &[])), bind(&new.credentials("done", &[])));
        let refused = before.connect(done.local_addr()).await.map(drop).unwrap_err();
        assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("`cluster.ca`") && !said.contains("secret"), "they have none: {said}");
    });
}

#[test]
fn renewed_credentials_are_shown_and_asked_for_from_the_next_handshake_on() {
    run(async {
        let (old, new) = (Operator::new("renewed-old"), Operator::new("renewed-new"));
        let (a, b) = (bind(&old.credentials("a", &[])), bind(&old.credentials("b", &[])));
        let (mut opened, mut accepted) = meet(&a, &b).await;
        let other = bind(&new.credentials("other", &[]));
        for (caller, called) in [(&a, &other), (&other, &a)] {
            let refused = caller.connect(called.local_addr()).await.map(drop).unwrap_err();
            assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
        }
        let renew = a.renewal(&new.credentials("a", &[])).unwrap();
        a.connect(b.local_addr()).await.map(drop).unwrap();
        renew();
        for (caller, called) in [(&a, &other), (&other, &a)] {
            meet(caller, called).await;
        }
        for (caller, called) in [(&a, &b), (&b, &a)] {
            let refused = caller.connect(called.local_addr()).await.map(drop).unwrap_err();
            assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
        }
        opened.lanes[1].1.write_all(b"x").await.unwrap();
        assert_eq!(accepted.lanes[1].0.read_u8().await.unwrap(), b'x', "the link from before goes on");
    });
}

async fn accepts(caller: &Credentials, called: &Credentials) {
    let (caller, called) = (bind(caller), bind(called));
    meet(&caller, &called).await;
}

#[test]
fn a_port_of_all_addresses_is_for_both_kinds() {
    run(async {
        let both = |node| {
            let listen = (Ipv6Addr::UNSPECIFIED, 0).into();
            QuicFabric::bind(listen, &credentials(SECRET, "blue", node), options()).unwrap()
        };
        let (called, caller) = (both("a"), both("b"));
        let port = called.local_addr().port();
        for to in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
            let opened = caller.connect(to).await.unwrap();
            let accepted = called.accept().await.unwrap();
            assert_eq!(opened.remote_addr, to);
            assert_eq!(accepted.remote_addr, (to.ip(), caller.local_addr().port()).into());
        }
    });
}

#[test]
fn an_address_that_cannot_be_called_is_said_at_once() {
    run(async {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let caller = QuicFabric::bind(listen, &credentials(SECRET, "blue", "a"), options()).unwrap();
        for to in ["[::1]:9", "127.0.0.1:0", "0.0.0.0:9"] {
            let refused = caller.connect(to.parse().unwrap()).await.map(drop).unwrap_err();
            assert!(matches!(refused, ConnectError::Unreachable { .. }), "{to}: {refused}");
        }
    });
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let breaks: [fn(&mut QuicOptions); 8] = [
        |options| options.packet_bytes = 1199,
        |options| options.packet_bytes = 6541,
        |options| options.packet_bytes_loopback = options.packet_bytes - 1,
        |options| options.packet_bytes_loopback = 65_508,
        |options| options.keep_alive_every = options.idle_max,
        |options| options.idle_max = Duration::MAX,
        |options| options.handshakes_max = 0,
        |options| options.backlog_max = 0,
    ];
    run(async move {
        for edit in breaks {
            let mut options = options();
            edit(&mut options);
            let listen = (Ipv6Addr::LOCALHOST, 0).into();
            let refused = QuicFabric::bind(listen, &credentials(SECRET, "blue", "a"), options);
            assert!(matches!(refused, Err(BindError::Options(_))));
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn packets_on_loopback_carry_datagrams_of_64_kib() {
    run(async {
        let (called, caller) = (good("a"), good("b"));
        let (opened, accepted) = meet(&caller, &called).await;
        for (from, to) in [(&opened, &accepted), (&accepted, &opened)] {
            let bytes = from.wire.datagram_bytes_max();
            assert!(bytes > 65_000, "{bytes}");
            from.wire.send_datagram(vec![7; bytes].into()).unwrap();
            assert_eq!(to.wire.recv_datagram().await.unwrap(), vec![7; bytes]);
        }
    });
}

#[test]
fn goodbyes_are_sent_before_a_closed_fabric_is_done() {
    run(async {
        let (called, caller) = (good("a"), good("b"));
        let (opened, _accepted) = meet(&caller, &called).await;
        called.close();
        called.closed(Duration::from_secs(5)).await;
        assert_eq!(opened.wire.closed().await, "the node has closed");
    });
}

/// Somebody who speaks QUIC, believes every certificate, and keeps to nothing else.
struct Stranger {
    endpoint: Endpoint,
}

impl Stranger {
    fn new(credentials: Option<&Credentials>) -> Self {
        Self::over(credentials, |socket| socket)
    }

    /// Sends and never listens.
    fn deaf(credentials: Option<&Credentials>) -> Self {
        Self::over(credentials, |socket| Arc::new(Deaf(socket)))
    }

    fn over(
        credentials: Option<&Credentials>,
        wrap: fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket>,
    ) -> Self {
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let socket = wrap(TokioRuntime.wrap_udp_socket(socket).unwrap());
        let config = EndpointConfig::default();
        let mut endpoint =
            Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
        let mut tls = match credentials {
            Some(credentials) => {
                builder.with_client_cert_resolver(credentials.client_config().client_auth_cert_resolver)
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"peregrine/1".to_vec()];
        let quic = QuicClientConfig::try_from(tls).unwrap();
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(quic)));
        Self { endpoint }
    }

    async fn call(&self, to: SocketAddr, name: &str) -> Result<Connection, ConnectionError> {
        self.endpoint.connect(to, name).unwrap().await
    }
}

/// Opens streams that begin with these numbers, and gives up none of them.
async fn open_lanes(connection: &Connection, numbers: &[u8]) -> io::Result<()> {
    for &number in numbers {
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(&[number]).await?;
        let connection = connection.clone();
        tokio::spawn(async move {
            connection.closed().await;
            let _kept_until_now = (send.reset(VarInt::from_u32(0)), recv.stop(VarInt::from_u32(0)));
        });
    }
    Ok(())
}

#[derive(Debug)]
struct Deaf(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        _cx: &mut Context<'_>,
        _bufs: &mut [io::IoSliceMut<'_>],
        _meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[derive(Debug)]
struct Gullible(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("only TLS 1.3 is spoken")
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
