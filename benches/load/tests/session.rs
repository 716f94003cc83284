//! Sessions against servers that behave as they should, and against those that do not. Real sockets and threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peregrine_load::LoadError;
use peregrine_load::recorder::{Failure, Window};
use peregrine_load::request::{Ask, Kind};
use peregrine_load::session::{Level, Session};
use peregrine_load::shape::{Shape, Tensor};
use peregrine_load::target::{Target, Trust};

const GOOD: &str = r#"{"outputs":[{"name":"forecast","datatype":"FP32","shape":[1,2,1],"data":[1.5,-2.5]}]}"#;
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_closed_loop_has_one_request_of_each_connection_under_way() {
    let busy = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&busy);
    let addr = serve(move |_| {
        let now = busy.0.fetch_add(1, Ordering::SeqCst) + 1;
        busy.1.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1)); // work
        busy.0.fetch_sub(1, Ordering::SeqCst);
        ok(GOOD)
    });
    for threads in [1, 2] {
        let (window, rest) = run(addr, Level { connections: 3, rate: None }, threads, 300);
        assert!(window.answered() > 0 && window.checked >= 3, "{window:?}");
        assert_eq!((window.connections, window.failed_count() + rest.failed_count()), (3, 0), "{window:?}");
    }
    assert!(seen.1.load(Ordering::SeqCst) <= 3);
}

#[test]
fn an_open_loop_counts_what_fell_due_while_the_server_stood_still() {
    const STALL: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let addr = serve(move |_| {
        // From 300 ms on nobody is answered for a second.
        let into = start.elapsed().saturating_sub(Duration::from_millis(300));
        if !into.is_zero() && into < STALL {
            std::thread::sleep(STALL - into);
        }
        ok(GOOD)
    });
    let level = Level { connections: 2, rate: Some(200.0) };
    let (mut window, rest) = run(addr, level, 1, 2500);
    window.then(&rest);
    // Two connections hold two requests; some two hundred fell due, a hundred of them half a second before its end.
    let slow = 1.0 - below(&window, Duration::from_millis(500));
    let count = slow * window.answered() as f64;
    assert!(count > 60.0, "{count} of {} took half a second", window.answered());
    assert!(window.latency.longest() >= Duration::from_millis(900), "{:?}", window.latency.longest());
    assert_eq!(window.failed_count(), 0, "{:?}", window.failures);
}

#[test]
fn every_failure_is_counted_by_its_kind() {
    let wrong =
        |data: &str, shape: &str| ok(&format!(r#"{{"outputs":[{{"shape":{shape},"data":{data}}}]}}"#));
    check("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", Failure::Status(429));
    check("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Failure::Status(503));
    check(&wrong("[1,2,3]", "[1,3,1]"), Failure::Shape);
    check(&wrong("[1,null]", "[1,2,1]"), Failure::NotFinite);
    check(&ok("<html>"), Failure::Malformed);
    check("SSH-2.0-OpenSSH_9.2\r\n\r\n", Failure::Malformed);
    check("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", Failure::Malformed);
    check("", Failure::Lost);
    check("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Failure::Timeout);
}

#[test]
fn an_idle_connection_that_the_server_closes_is_no_failure() {
    let closing = ok(GOOD).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let addr = serve(move |_| closing.clone());
    let (window, rest) = run(addr, Level { connections: 2, rate: None }, 1, 300);
    assert!(window.answered() > 2 && window.reconnects > 0, "{window:?}");
    assert_eq!(window.failed_count() + rest.failed_count(), 0, "{:?}", window.failures);
}

#[test]
fn a_server_that_is_not_there_is_said_at_once() {
    let addr = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let opened = Session::open(&target(addr), &shape(), &ask(), Level { connections: 1, rate: None }, 1);
    assert!(matches!(opened, Err(LoadError::Connect { .. })));
}

#[test]
fn https_is_trusted_as_told() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = std::env::temp_dir().join(format!("peregrine-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (own, other) = (folder.join("own.pem"), folder.join("other.pem"));
    std::fs::write(&own, made.cert.pem()).expect("a file");
    let another = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&other, another.cert.pem()).expect("a file");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let config = Arc::new(config);
    let addr = listen(move |socket| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
        let mut stream = rustls::StreamOwned::new(session, socket);
        while request(&mut stream).is_some() {
            if stream.write_all(ok(GOOD).as_bytes()).is_err() {
                return;
            }
        }
    });
    let url = format!("https://localhost:{}", addr.port());
    let open = |trust: &Trust| {
        let target = Target::new(&url, trust, None, PATIENCE).expect("a target");
        Session::open(&target, &shape(), &ask(), Level { connections: 2, rate: None }, 1)
    };
    for trust in [Trust::File(own), Trust::Anybody] {
        let mut session = open(&trust).expect("a session");
        let window = session.window(Duration::from_millis(300)).expect("a window");
        assert!(window.answered() > 0 && window.failed_count() == 0, "{trust:?}: {window:?}");
    }
    for trust in [Trust::Usual, Trust::File(other)] {
        assert!(open(&trust).is_err(), "{trust:?}");
    }
    assert!(Target::new(&url, &Trust::File(folder.join("none.pem")), None, PATIENCE).is_err());
    std::fs::remove_dir_all(&folder).expect("its folder");
}

#[track_caller]
fn check(answer: &str, want: Failure) {
    let answer = answer.to_owned();
    let addr = serve(move |_| answer.clone());
    let mut target = target(addr);
    target.timeout = Duration::from_millis(200);
    let level = Level { connections: 1, rate: None };
    let mut session = Session::open(&target, &shape(), &ask(), level, 1).expect("a session");
    let window = session.window(Duration::from_millis(500)).expect("a window");
    let kinds: Vec<&Failure> = window.failures.keys().collect();
    assert_eq!(kinds, [&want], "{:?}", window.failures);
    assert_eq!(window.answered(), 0, "{window:?}");
}

/// One window, and what came after it.
fn run(addr: SocketAddr, level: Level, threads: usize, millis: u64) -> (Window, Window) {
    let mut session = Session::open(&target(addr), &shape(), &ask(), level, threads).expect("a session");
    let window = session.window(Duration::from_millis(millis)).expect("a window");
    (window, session.drain().expect("an end"))
}

/// The share of latencies up to `limit`.
fn below(window: &Window, limit: Duration) -> f64 {
    (0..=1000)
        .map(|share| f64::from(share) / 1000.0)
        .take_while(|&share| window.latency.at(share) <= limit)
        .count() as f64
        / 1001.0
}

fn target(addr: SocketAddr) -> Target {
    Target::new(&format!("http://{addr}"), &Trust::Usual, None, PATIENCE).expect("a target")
}

fn shape() -> Shape {
    let tensor = |name: &str, dims: &[usize]| Tensor { name: name.to_owned(), dims: dims.to_vec() };
    Shape { model: "m".to_owned(), inputs: vec![tensor("y", &[4])], output: tensor("forecast", &[2, 1]) }
}

fn ask() -> Ask {
    Ask { kind: Kind::Json, rows: 1, deadline: None, seed: 1, symbols: Vec::new() }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A thread for each connection; an empty answer closes it. Ends with the process.
fn serve(answer: impl Fn(usize) -> String + Send + Sync + 'static) -> SocketAddr {
    let count = AtomicUsize::new(0);
    listen(move |mut socket| {
        while request(&mut socket).is_some() {
            let answer = answer(count.fetch_add(1, Ordering::SeqCst));
            if answer.is_empty()
                || socket.write_all(answer.as_bytes()).is_err()
                || answer.contains("Connection: close")
            {
                return;
            }
        }
    })
}

fn listen(serve: impl Fn(std::net::TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(socket));
        }
    });
    addr
}

/// Reads one whole request.
fn request(stream: &mut impl Read) -> Option<()> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length =
                head.split("\r\ncontent-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok()?;
            if bytes.len() >= end + 4 + length {
                return Some(());
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
