//! The transport over real sockets and in real time: what of a failure is known of the call.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use peregrine_fly::machines::transport::Timeouts;
use peregrine_fly::machines::{
    ApiError, AppName, BaseUrl, Client, FlyPool, HttpRequest, HttpResponse, Token, TransportError,
    UreqTransport,
};
use peregrine_scaler::Timestamp;
use peregrine_scaler::fleet::MachineId;
use peregrine_scaler::pool::contract;
use peregrine_scaler::pool::{MachinePool, Order, PoolError};

use super::fake::socket::{Handler, Server, write};
use super::fake::world::{self, RELEASE};
use super::fake::{APP, Fake, TOKEN};

/// Of tests in which nothing is to take long.
const PATIENT: Timeouts = Timeouts { connect: Duration::from_secs(5), overall: Duration::from_secs(20) };
/// Of tests in which something does.
const HASTY: Timeouts = Timeouts { connect: Duration::from_millis(300), overall: Duration::from_millis(400) };

fn client(url: &str, timeouts: Timeouts) -> Client {
    let base = BaseUrl::new(url).expect("an address");
    let app = AppName::new(APP).expect("a name");
    Client::new(Box::new(UreqTransport::new(base, timeouts)), app, Token::new(TOKEN).expect("a token"))
}

/// The outcome of a list, from a server that does this with each request.
fn list(timeouts: Timeouts, handler: Box<Handler>) -> Result<usize, ApiError> {
    let server = Server::start(handler);
    client(&server.url(), timeouts).list(None).map(|machines| machines.len())
}

fn answer(status: u16, body: &[u8]) -> HttpResponse {
    HttpResponse { status, body: body.to_vec() }
}

/// The real clock, for the fake and for those who call it, a hundred times as fast.
fn fast_clock() -> impl Fn() -> Timestamp + Clone + Send + 'static {
    let (begin, began) = (Timestamp::from_second(world::BEGIN_SECOND).expect("a time"), Instant::now());
    move || begin.checked_add(began.elapsed() * 100).expect("a time")
}

#[test]
fn the_pool_keeps_the_contract_over_a_socket() {
    let clock = fast_clock();
    let fake = Arc::new(Mutex::new(Fake::new(1)));
    fake.lock().expect("it is new").settings.has_limits = false;
    let (time, platform) = (clock.clone(), Arc::clone(&fake));
    let server = Server::start(Box::new(move |request: HttpRequest, stream: &mut TcpStream| {
        let answer = platform.lock().expect("nobody died with it").handle(time(), &request);
        write(stream, &answer.expect("no faults are injected"));
    }));
    let group = contract::group("iad");
    let spec = world::spec(&[(&group.name, group.drain)]);
    let mut pool = FlyPool::new(client(&server.url(), PATIENT), spec).expect("the templates are good");
    contract::check(&mut pool, &group, RELEASE, &mut || {
        sleep(Duration::from_millis(3)); // 300 ms of the fake's time
        clock()
    });
    let fake = fake.lock().expect("nobody died with it");
    assert!(fake.live().next().is_none(), "all are gone again");
    assert!(fake.calls.iter().all(|((_, status), _)| *status != 401), "{:?}", fake.calls);
}

#[test]
fn what_never_got_there_did_not_happen() {
    // Nobody listens on a port that was just given back.
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut client = client(&format!("http://{address}"), HASTY);
    let refused = client.list(None);
    assert_eq!(refused, Err(ApiError::Transport(TransportError::NotSent("connection refused"))));
    let spec = world::spec(&[("inference", Duration::from_secs(5))]);
    let mut pool = FlyPool::new(client, spec).expect("the templates are good");
    let order = order();
    let now = Timestamp::from_second(world::BEGIN_SECOND).expect("a time");
    assert!(matches!(pool.create(&order, now), Err(PoolError::Unavailable(_))));
}

fn order() -> Order {
    let slot = "inference-0".parse().expect("a slot");
    Order { slot, region: "iad".to_owned(), release: RELEASE.to_owned(), launch: true }
}

#[test]
fn what_was_sent_and_not_answered_may_have_happened() {
    let began = Instant::now();
    // Kept open, so that only time ends it.
    let mut kept = Vec::new();
    let server = Server::start(Box::new(move |_, stream: &mut TcpStream| {
        kept.push(stream.try_clone().expect("a second handle"));
    }));
    let spec = world::spec(&[("inference", Duration::from_secs(5))]);
    let mut pool = FlyPool::new(client(&server.url(), HASTY), spec).expect("the templates are good");
    let now = Timestamp::from_second(world::BEGIN_SECOND).expect("a time");
    assert!(matches!(pool.create(&order(), now), Err(PoolError::Ambiguous(_))));
    assert!(matches!(pool.list(now), Err(PoolError::Unavailable(_))), "a list changes nothing");
    assert!(began.elapsed() < Duration::from_secs(5), "a call ends: {:?}", began.elapsed());
}

#[test]
fn a_connection_that_breaks_is_lost() {
    let lost = list(PATIENT, Box::new(|_, _| ()));
    assert!(matches!(lost, Err(ApiError::Transport(TransportError::Lost(_)))), "{lost:?}");
    let half = list(
        PATIENT,
        Box::new(|_, stream: &mut TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{");
        }),
    );
    assert!(matches!(half, Err(ApiError::Transport(TransportError::Lost(_)))), "{half:?}");
}

#[test]
fn a_body_that_drips_ends_with_the_call() {
    let began = Instant::now();
    let slow = list(
        HASTY,
        Box::new(|_, stream: &mut TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n[");
            // Until the other side has had enough.
            while stream.write_all(b" ").is_ok() {
                sleep(Duration::from_millis(20));
            }
        }),
    );
    assert_eq!(slow, Err(ApiError::Transport(TransportError::Lost("no answer in time"))));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn an_answer_has_a_largest_size() {
    // Without end and without a length.
    let large = list(
        PATIENT,
        Box::new(|_, stream: &mut TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[");
            let spaces = vec![b' '; 1 << 20];
            while stream.write_all(&spaces).is_ok() {}
        }),
    );
    assert_eq!(large, Err(ApiError::Transport(TransportError::TooLarge)));
    let head = list(
        PATIENT,
        Box::new(|_, stream: &mut TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            let line = format!("x-long: {}\r\n", "x".repeat(1000));
            while stream.write_all(line.as_bytes()).is_ok() {}
        }),
    );
    assert!(matches!(head, Err(ApiError::Transport(TransportError::Lost(_)))), "{head:?}");
}

#[test]
fn an_answer_that_makes_no_sense_is_no_list() {
    for body in ["", "{", "[{}]", "null", "[{\"id\":\"a/../b\",\"state\":\"started\"}]", "\u{0}"] {
        let body = body.as_bytes().to_vec();
        let nonsense =
            list(PATIENT, Box::new(move |_, stream: &mut TcpStream| write(stream, &answer(200, &body))));
        assert!(matches!(nonsense, Err(ApiError::Nonsense(_))), "{nonsense:?}");
    }
    // As deep as a stack.
    let deep = "[".repeat(1 << 20).into_bytes();
    let nonsense =
        list(PATIENT, Box::new(move |_, stream: &mut TcpStream| write(stream, &answer(200, &deep))));
    assert!(matches!(nonsense, Err(ApiError::Nonsense(_))), "{nonsense:?}");
    let html = list(PATIENT, Box::new(|_, stream: &mut TcpStream| write(stream, &answer(502, b"<html>"))));
    assert_eq!(html, Err(ApiError::Server(502)));
}

#[test]
fn a_token_is_not_carried_to_another_address() {
    let elsewhere = Server::start(Box::new(|request: HttpRequest, stream: &mut TcpStream| {
        assert_eq!(request.header("authorization"), None, "nobody was to come here with it");
        write(stream, &answer(200, b"[]"));
    }));
    let target = elsewhere.url();
    let moved = list(
        PATIENT,
        Box::new(move |_, stream: &mut TcpStream| {
            let head = format!("HTTP/1.1 307 X\r\nlocation: {target}/v1\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
        }),
    );
    assert!(matches!(moved, Err(ApiError::Refused { status: 307, .. })), "{moved:?}");
}

#[test]
fn every_call_goes_where_it_should() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = Server::start(Box::new(move |request: HttpRequest, stream: &mut TcpStream| {
        let nonce = request.header("fly-machine-lease-nonce").unwrap_or("-").to_owned();
        log.lock().expect("it is there").push(format!("{:?} {} {nonce}", request.method, request.target()));
        write(
            stream,
            &answer(200, br#"{"id":"a1","state":"started","expires_at":1,"regions":[],"ok":true}"#),
        );
    }));
    let mut client = client(&server.url(), PATIENT);
    let id = MachineId("a1".to_owned());
    client.get(&id).expect("get");
    client.suspend(&id, Some("n")).expect("suspend");
    client.set_metadata(&id, "a key", "v", None).expect("metadata");
    client.lease(&id, 30, Some("n")).expect("lease");
    client.regions().expect("regions");
    client.destroy(&MachineId("../apps".to_owned()), Some("n")).expect("destroy");
    let prefix = format!("/v1/apps/{APP}/machines");
    let expected = [
        format!("Get {prefix}/a1 -"),
        format!("Post {prefix}/a1/suspend n"),
        format!("Post {prefix}/a1/metadata/a%20key -"),
        format!("Post {prefix}/a1/lease?ttl=30 n"),
        "Get /v1/platform/regions -".to_owned(),
        format!("Delete {prefix}/..%2Fapps n"),
    ];
    let seen = seen.lock().expect("it is there").clone();
    // The server decodes the path, and so do these.
    let expected: Vec<String> =
        expected.iter().map(|line| line.replace("%20", " ").replace("%2F", "/")).collect();
    assert_eq!(seen, expected);
}
