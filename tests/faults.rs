//! The catalogue of faults, and those of its rows that belong nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Client, NodeProcess, TestNode, eventually, request};

const FORECAST: &str = r#"{"model":"nhits-vol-quantile","series":[{"symbol":"USD"}]}"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names of all test functions, each with its file.
fn tests() -> BTreeSet<(PathBuf, String)> {
    let mut folders =
        ["tests", "src", "actors/src", "runtime/src", "shaders/src"].map(|dir| root().join(dir)).to_vec();
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let mut is_test = false;
                for line in text.lines().map(str::trim) {
                    let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                    if let Some(name) = name.and_then(|rest| rest.split(['(', '<']).next())
                        && is_test
                    {
                        let own = path.strip_prefix(root()).expect("of this project").to_owned();
                        found.insert((own, name.to_owned()));
                    }
                    is_test = line.starts_with("#[test]")
                        || line.contains("::test") && line.starts_with("#[")
                        || is_test && line.starts_with("#[");
                }
            }
        }
    }
    found
}

#[test]
fn every_fault_of_the_catalogue_has_a_test_that_exists() {
    let text = fs::read_to_string(root().join("docs/faults.md")).expect("the catalogue");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let tests = tests();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [fault, _seen, _lost, named] = cells[..] else { panic!("four cells: {row}") };
        for test in named.split(',').map(|test| test.trim().trim_matches('`')) {
            let (file, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("file::test: {test}"));
            assert!(tests.contains(&(file.into(), name.to_owned())), "{fault}: there is no {test}");
        }
    }
}

/// A node that may have only so many files open.
/// `limits` are options of `ulimit`.
fn serve_with_files(limits: &str) -> Command {
    let serve = format!(
        "ulimit {limits}; exec {} serve --listen 127.0.0.1:0 --backend cpu",
        env!("CARGO_BIN_EXE_peregrine")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &serve]).current_dir(root()).stdout(Stdio::piped());
    shell.envs([
        ("PEREGRINE_LOG__FILTER", "error"),
        ("PEREGRINE_DEMO__RATE", "0"),
        ("PEREGRINE_SERVER__WORKERS", "2"),
    ]);
    shell
}

fn node_with_files(limits: &str) -> NodeProcess {
    NodeProcess::ready(serve_with_files(limits).stderr(Stdio::null()).spawn().expect("a shell"))
}

#[test]
fn a_node_without_the_files_that_it_needs_says_so_and_does_not_start() {
    for max in [20, 25, 32] {
        let ended = serve_with_files(&format!("-n {max}")).stderr(Stdio::piped()).output().expect("a shell");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{said}");
        assert!(
            said.contains(&format!("{max} files may be open at once, and this configuration needs")),
            "{said}"
        );
    }
}

#[test]
fn a_node_raises_its_limit_of_files_as_far_as_it_may() {
    let node = node_with_files("-S -n 32");
    let answer = request(node.addr, "POST", "/v1/forecast", &[], FORECAST.as_bytes());
    assert_eq!(answer.status, 200);
}

#[test]
fn without_descriptors_who_is_connected_is_served_and_others_are_when_there_are_some() {
    const FILES: usize = 160;
    let mut node = node_with_files(&format!("-n {FILES}"));
    let mut known = Client::connect(node.addr).expect("connects");
    let mut ask = || known.send("POST", "/v1/forecast", &[], FORECAST.as_bytes()).expect("an answer").status;
    assert_eq!(ask(), 200);
    // The kernel takes them for the node; it cannot.
    let crowd: Vec<TcpStream> =
        (0..2 * FILES).map(|_| TcpStream::connect(node.addr).expect("the backlog takes it")).collect();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(ask(), 200);
    }
    assert!(node.is_alive());
    drop(crowd);
    let answer = request(node.addr, "POST", "/v1/forecast", &[], FORECAST.as_bytes());
    assert_eq!(answer.status, 200, "a new one, once there are descriptors");
}

/// A verb that says something on stderr, where nobody listens.
fn unread(arguments: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(arguments)
        .current_dir(root())
        .envs([("PEREGRINE_LOG__FILTER", "info"), ("PEREGRINE_DEMO__RATE", "0")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stderr.take());
    child
}

/// Its lines until one that begins so.
fn until_said(child: &mut Child, word: &str) -> String {
    let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with(word));
    line.unwrap_or_else(|| panic!("nothing begins with {word}"))
}

fn stopped(mut child: Child) -> Option<i32> {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().expect("kill runs").success());
    child.wait().expect("it ends").code()
}

#[test]
fn what_nobody_reads_on_stderr_changes_no_exit_code() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("t.toml");
    let path = file.display().to_string();
    fs::write(&file, "[server]\nlisen = 1\n").expect("a file");
    assert_eq!(unread(&["check", "--config", &path]).wait().expect("it ends").code(), Some(2));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let meets = socket.local_addr().expect("it is bound");
    drop(socket);
    let one = format!(
        "[[nodes]]\nname = \"a\"\nregion = \"r\"\nlisten = \"127.0.0.1:0\"\nbackend = \"cpu\"\ncluster_listen = \"{meets}\"\n"
    );
    fs::write(&file, one).expect("a file");
    let mut cluster = unread(&["cluster", "--config", &path]);
    until_said(&mut cluster, "cluster ready");
    assert_eq!(stopped(cluster), Some(0));
}

#[test]
fn clients_that_dribble_their_header_are_let_go_and_others_are_served() {
    const DRIBBLERS: usize = 100;
    let node = TestNode::on_cpu(&[("SERVER__HEADER_TIMEOUT", "2s")]);
    let mut slow: Vec<TcpStream> = (0..DRIBBLERS)
        .map(|_| {
            let mut socket = TcpStream::connect(node.node.addr).expect("connects");
            socket.write_all(b"POST /v1/forecast HTTP/1.1\r\nho").expect("a part");
            socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
            socket
        })
        .collect();
    let mut left = DRIBBLERS;
    eventually("all of them are let go", || {
        assert_eq!(node.post("/v1/forecast", FORECAST).status, 200);
        slow.retain_mut(|socket| {
            // One more byte now and then.
            let _ = socket.write_all(b"s"); // it may be closed already
            let mut byte = [0; 512];
            match socket.read(&mut byte) {
                Ok(0) => false,
                Ok(_) => true, // 408, then the end
                Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        });
        left = slow.len();
        left == 0
    });
    assert_eq!(node.post("/v1/forecast", FORECAST).status, 200);
}

#[test]
fn what_clients_send_together_does_not_fill_the_memory() {
    const MIB: usize = 1 << 20;
    const CLIENTS: usize = 24;
    let keys = [("PEREGRINE_SERVER__BODIES_MAX", "16MiB"), ("PEREGRINE_DEADLINE__MAX", "60s")];
    let node = NodeProcess::start_with(&["--backend", "cpu"], &keys);
    assert_eq!(request(node.addr, "POST", "/v1/forecast", &[], FORECAST.as_bytes()).status, 200);
    let before = node.resident_mib();
    let header =
        format!("POST /v1/forecast HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 12 * MIB);
    let mut crowd: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut socket = TcpStream::connect(node.addr).expect("connects");
            socket.set_write_timeout(Some(Duration::from_secs(2))).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            socket.write_all(header.as_bytes()).expect("a header");
            // Who is refused is not read from any longer.
            let _ = socket.write_all(&vec![b' '; 11 * MIB]);
            socket
        })
        .collect();
    let grown = node.resident_mib().saturating_sub(before);
    assert!(grown < 150, "{grown} MiB for bodies of {} MiB", 11 * CLIENTS);
    assert_eq!(request(node.addr, "POST", "/v1/forecast", &[], FORECAST.as_bytes()).status, 200);
    let mut refused = 0;
    // The first ones wait for the rest of their bodies.
    for socket in crowd.iter_mut().rev().take(CLIENTS - 3) {
        let mut line = [0; 12];
        let status = socket.read_exact(&mut line).map(|()| String::from_utf8_lossy(&line).into_owned());
        refused += usize::from(status.is_ok_and(|line| line == "HTTP/1.1 429"));
    }
    assert!(refused >= CLIENTS / 2, "{refused} were told");
}
