//! A running node takes a new configuration whole or not at all; a topology starts as processes and leaves none.

use std::io::{BufRead, BufReader, Write as _};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};

use crate::harness::{TestNode, eventually, request};

const FORECAST: &str = "/v1/forecast";

#[test]
fn an_accepted_change_takes_effect() {
    let node = TestNode::on_cpu(&[]);
    let body = r#"{"model":"nhits-vol-quantile","series":[{"symbol":"USD"}]}"#;
    assert_eq!(node.post(FORECAST, body).status, 200);
    let answer = node.post("/v1/config", "server.body_max = \"1KiB\"\ndata.column = \"nothing\"\n");
    assert_eq!((answer.status, &answer.json()["room"]), (409, &"gateway".into()));
    let answer = node.post("/v1/config", "server.body_max = \"1KiB\"\n");
    assert_eq!(answer.json()["changed"], serde_json::json!(["server.body_max"]));
    let padded = format!("{body}{}", " ".repeat(2048));
    assert_eq!(node.post(FORECAST, &padded).status, 413);
    assert_eq!(node.post(FORECAST, body).status, 200);
    let shown = node.get("/v1/config").json();
    assert_eq!(shown["server.body_max"]["value"], "1KiB");
    assert_eq!(shown["server.body_max"]["origin"], "posted text:1:19");
    let metrics = String::from_utf8(node.get("/metrics").body).unwrap();
    for (outcome, count) in [("applied", 1), ("vetoed", 1), ("invalid", 0)] {
        let line = metrics.lines().find(|line| {
            line.starts_with("peregrine_reloads_total") && line.contains(&format!("outcome=\"{outcome}\""))
        });
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {count}"))), "{outcome}: {line:?}");
    }
}

#[test]
fn a_refused_change_changes_nothing() {
    let node = TestNode::on_cpu(&[("CLUSTER__SECRET", "0123456789abcdef")]);
    let before = node.get("/v1/config").body;
    assert!(!String::from_utf8_lossy(&before).contains("0123456789"));
    let large = format!("#{}", "x".repeat(64 << 10));
    for (text, status, words) in [
        ("server.in_flight_max = 7\nserver.in_flight = 1\n", 400, "unknown key `in_flight`"),
        ("deadline.max = 3\n", 400, "posted text:1:16: deadline.max"),
        ("[deadline\n", 400, "posted text:1:10"),
        (
            "server = { in_flight_max = 7, listen = \"127.0.0.1:1\" }\n",
            409,
            "only a restart changes server.listen",
        ),
        ("server.in_flight_max = 7\nmodels.default = \"nlinear-vol-quantile\"\n", 400, "no repository holds"),
        ("server.in_flight_max = 7\ndata.columns.x = \"nothing\"\n", 409, "no column `nothing`"),
        (&large, 413, "larger than"),
    ] {
        let answer = node.post("/v1/config", text);
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status, said.contains(words)), (status, true), "{}: {said}", text.len().min(99));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(node.get("/v1/config").body == before, "{said}");
    }
}

/// A child whose output is read line by line; killed when dropped.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_peregrine"))
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PEREGRINE_LOG__FILTER", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_hangup_reads_the_files_again() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let mut node =
        Process::start(&["serve", "--listen", "127.0.0.1:0", "--backend", "cpu", "--config", &path]);
    let addr = node.line().strip_prefix("ready http://").unwrap().parse().unwrap();
    let shown = || {
        request(addr, "GET", "/v1/config", &[], b"").json()["deadline.max"]["value"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(shown(), "60s");
    file.write_all(b"[deadline]\nmax = \"30s\"\n").unwrap();
    node.signal("HUP");
    eventually("the file is read again", || shown() == "30s");
}

#[test]
fn a_topology_starts_and_leaves_no_process() {
    let free: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for (name, socket) in ["iad", "fra", "nrt"].iter().zip(&free) {
        writeln!(
            file,
            "[[nodes]]\nname = \"{name}-1\"\nregion = \"{name}\"\nlisten = \"127.0.0.1:0\"\nbackend = \"cpu\"\n\
             cluster_listen = \"{}\"\nmodels = [\"mlp-vol-quantile\"]",
            socket.local_addr().unwrap()
        )
        .unwrap();
    }
    writeln!(file, "[models]\ndefault = \"mlp-vol-quantile\"").unwrap();
    drop(free);
    let path = file.path().display().to_string();
    let mut cluster = Process::start(&["cluster", "--config", &path]);
    let mut names: Vec<(String, std::net::SocketAddr)> = Vec::new();
    for _ in 0..3 {
        let line = cluster.line();
        let parts: Vec<&str> = line.split(' ').collect();
        let [word, url, name, region] = parts[..] else { panic!("{line}") };
        assert_eq!((word, name), ("ready", format!("{region}-1").as_str()));
        names.push((name.to_owned(), url.strip_prefix("http://").unwrap().parse().unwrap()));
    }
    assert_eq!(cluster.line(), "cluster ready 3 nodes");
    for (name, addr) in &names {
        let shown = request(*addr, "GET", "/v1/config", &[], b"").json();
        assert_eq!(shown["node.name"]["value"], name.as_str());
        assert_eq!(shown["cluster.secret"]["value"], "(redacted)");
        assert_eq!(shown["cluster.seeds"]["value"].as_array().map(Vec::len), Some(2));
        let models = request(*addr, "POST", "/v2/repository/index", &[], b"{\"ready\":true}").json();
        assert_eq!(models.as_array().map(Vec::len), Some(1), "{models}");
    }
    cluster.signal("TERM");
    assert!(cluster.child.wait().unwrap().success());
    for (name, addr) in names {
        assert!(std::net::TcpStream::connect(addr).is_err(), "{name} is still there");
    }
}
