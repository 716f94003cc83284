//! TLS on the public port, as a client sees it that trusts one authority of its own.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peregrine::reload::Outcome;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{TEXT, TestNode, eventually, masked};

/// An authority, and the files of a node that it vouches for.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a certificate");
        let (root, root_pem) = (root.der().clone(), root.pem());
        let dir = tempfile::tempdir().expect("a folder");
        let this = Self { dir, issuer: Issuer::new(params, key), root, root_pem };
        this.vouch(2001, 2040);
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes another certificate, and another key.
    fn vouch(&self, from: i32, until: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.file("node.pem"), certificate.pem()).expect("a file");
        fs::write(self.file("node.key"), key.serialize_pem()).expect("a file");
    }

    pub(crate) fn node(&self, keys: &[(&str, &str)]) -> TestNode {
        let (certificate, key) = (self.file("node.pem"), self.file("node.key"));
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let own = [("SERVER__TLS_CERTIFICATE", certificate.as_str()), ("SERVER__TLS_KEY", key.as_str())];
        TestNode::on_cpu(&[&own, keys].concat())
    }

    pub(crate) fn connect(&self, addr: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("an authority");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a client");
        StreamOwned::new(client, socket(addr))
    }
}

fn socket(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket
}

pub(crate) fn get(stream: &mut (impl Read + Write), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    rest(stream)
}

/// Until the other side hangs up, however it does.
fn rest(stream: &mut impl Read) -> String {
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&some[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the node does not hang up")
            }
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The validity that the node says the certificate of a port has left, in seconds.
fn left(metrics: &str, port: &str) -> f64 {
    let port = format!("port=\"{port}\"");
    let of_port =
        |line: &&str| line.starts_with("peregrine_tls_certificate_expiry_seconds{") && line.contains(&port);
    let line = metrics.lines().find(of_port);
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
}

#[test]
fn requests_and_websockets_go_through_tls() {
    let authority = Authority::new();
    let node = authority.node(&[]);
    assert!(node.node.url().starts_with("https://"));
    let mut stream = authority.connect(node.node.addr);
    let answer = get(&mut stream, "/v1/models");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]), "HTTP/2 is not offered");
    let mut stream = authority.connect(node.node.addr);
    let handshake = "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).expect("a handshake");
    stream.write_all(&masked(TEXT, br#"{"op":"ping","id":7}"#)).expect("a message");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("pong") {
        let mut some = [0; 1024];
        let len = stream.read(&mut some).expect("an answer");
        assert!(len > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&some[..len]);
    }
    assert!(heard.starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn plain_text_and_slow_handshakes_end_and_others_go_on() {
    let authority = Authority::new();
    let node = authority.node(&[("SERVER__HEADER_TIMEOUT", "300ms")]);
    let mut plain = socket(node.node.addr);
    plain.write_all(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let said = rest(&mut plain);
    assert!(!said.contains("HTTP/1.1 200"), "{said}");
    let mut silent = socket(node.node.addr);
    assert_eq!(rest(&mut silent), "");
    let mut half = socket(node.node.addr);
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).expect("half a hello");
    rest(&mut half);
    assert!(get(&mut authority.connect(node.node.addr), "/health/live").starts_with("HTTP/1.1 200 "));
}

#[test]
fn another_certificate_is_shown_without_a_restart_and_a_bad_one_is_not() {
    let authority = Authority::new();
    let node = authority.node(&[]);
    let metrics = || get(&mut authority.connect(node.node.addr), "/metrics");
    let first = left(&metrics(), "public");
    assert!(first > 0.0);
    let year = 365.0 * 86_400.0;
    authority.vouch(2001, 2042);
    let applied = || node.node.reload.count(Outcome::Applied);
    assert_eq!(applied(), 0);
    node.node.reload.reread().expect("a good certificate");
    assert_eq!(applied(), 1);
    let second = left(&metrics(), "public");
    assert!((second - first - 2.0 * year).abs() < 3.0 * 86_400.0, "{first} {second}");
    let stranger = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(authority.file("node.key"), stranger).expect("a file");
    let refused = node.node.reload.reread().expect_err("a key of somebody else").to_string();
    assert!(refused.starts_with("tls: "), "{refused}");
    for (from, until, why) in
        [(2001, 2002, "it expired at 2002-01-01T"), (2099, 2100, "it is not valid before 2099-01-01T")]
    {
        authority.vouch(from, until);
        let refused = node.node.reload.reread().expect_err("a certificate for another day").to_string();
        assert!(refused.starts_with("tls: ") && refused.contains(why), "{refused}");
    }
    assert!((left(&metrics(), "public") - second).abs() < 60.0);
}

/// The files of a node of a cluster, and who vouches for it.
struct Member {
    dir: tempfile::TempDir,
    name: &'static str,
}

impl Member {
    fn new(name: &'static str, issuer: &Authority) -> Self {
        let this = Self { dir: tempfile::tempdir().expect("a folder"), name };
        this.vouch(issuer, 2040);
        this
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes another certificate, with another key, that only nodes of this authority believe.
    fn vouch(&self, authority: &Authority, until: i32) {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let uri = format!("peregrine://node/{}", self.name).try_into().expect("a URI");
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &authority.issuer).expect("a certificate");
        fs::write(self.file("ca.pem"), &authority.root_pem).expect("a file");
        fs::write(self.file("node.pem"), certificate.pem()).expect("a file");
        fs::write(self.file("node.key"), key.serialize_pem()).expect("a file");
    }

    fn node(&self, listen: SocketAddr, seeds: &[SocketAddr]) -> TestNode {
        let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
        TestNode::on_cpu(&[
            ("NODE__NAME", self.name),
            ("CLUSTER__LISTEN", &listen.to_string()),
            ("CLUSTER__SEEDS", &format!("{seeds:?}")),
            ("CLUSTER__CA", &self.file("ca.pem")),
            ("CLUSTER__CERTIFICATE", &self.file("node.pem")),
            ("CLUSTER__KEY", &self.file("node.key")),
        ])
    }
}

fn members(node: &TestNode) -> usize {
    node.get("/v1/cluster").json()["members"].as_array().expect("members").len()
}

#[test]
fn renewed_cluster_certificates_are_taken_without_a_restart_and_bad_ones_are_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let (a, b, c) = (Member::new("a", &old), Member::new("b", &old), Member::new("c", &new));
    let (at_a, at_b) = (free_port(), free_port());
    let (a_node, b_node) = (a.node(at_a, &[]), b.node(at_b, &[at_a]));
    eventually("both see both", || members(&a_node) == 2 && members(&b_node) == 2);
    let left_of = |node: &TestNode| left(&String::from_utf8_lossy(&node.get("/metrics").body), "cluster");
    let (first, year) = (left_of(&a_node), 365.0 * 86_400.0);
    assert!(first > 0.0);
    let applied = || a_node.node.reload.count(Outcome::Applied);
    a_node.node.reload.reread().expect("the same files");
    assert_eq!(applied(), 0);
    a.vouch(&old, 2002);
    let refused = a_node.node.reload.reread().expect_err("an expired certificate").to_string();
    assert!(
        refused.starts_with("cluster: cluster.certificate: ") && refused.contains("expired"),
        "{refused}"
    );
    fs::write(a.file("node.pem"), "nothing").expect("a file");
    let refused = a_node.node.reload.reread().expect_err("no certificate").to_string();
    assert!(refused.contains("node.pem: holds no certificate"), "{refused}");
    assert!((left_of(&a_node) - first).abs() < 60.0);
    a.vouch(&old, 2042);
    a_node.node.reload.reread().expect("a good certificate");
    assert_eq!(applied(), 1);
    let second = left_of(&a_node);
    assert!((second - first - 2.0 * year).abs() < 3.0 * 86_400.0, "{first} {second}");
    // Another authority: whoever it vouches for is let in, and who is there already stays.
    a.vouch(&new, 2042);
    a_node.node.reload.reread().expect("certificates of another authority");
    let c_node = c.node(free_port(), &[at_a]);
    eventually("the third is let in", || members(&c_node) >= 2);
    assert!(members(&a_node) == 3 && members(&b_node) >= 2);
}

/// That was free a moment ago; nothing else on this machine asks for UDP ports meanwhile.
fn free_port() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("it is bound")
}
