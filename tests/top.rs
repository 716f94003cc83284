//! `peregrine top` as an operator runs it: once into a pipe, and in a terminal that gets itself back.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{TestNode, drawn_key};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn top(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peregrine"));
    command.arg("top").args(args).env_remove("PEREGRINE_API_KEY");
    command
}

fn ran(args: &[&str]) -> Output {
    top(args).stdin(Stdio::null()).output().expect("the binary starts")
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn once_prints_what_the_node_says() {
    let node = TestNode::on_cpu(&[]);
    let url = node.node.url();
    let output = ran(&["--url", &url, "--once", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let asked = node.get("/v1/overview").json();
    let names = |of: &Value| of.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&printed), names(&asked));
    for member in ["name", "region", "version", "ready"] {
        assert_eq!(printed["node"][member], asked["node"][member], "{member}");
    }
    let name = |model: &Value| model["name"].as_str().expect("a name").to_owned();
    let models = |of: &Value| of["models"].as_array().expect("models").iter().map(name).collect::<Vec<_>>();
    assert_eq!(models(&printed), models(&asked));

    let output = ran(&["--url", &url, "--once"]);
    let plain = text(&output.stdout);
    for word in
        ["NODES", "ACTORS", "    router", "DEVICES", "BATCHES", "nhits-vol-quantile", "BREAKERS", "STREAMS"]
    {
        assert!(plain.contains(word), "{word}: {plain}");
    }
    assert!(!plain.contains('\x1b'), "{plain}");

    let output = ran(&["--url", &url, "--once", "--node", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no node `nobody` is in this cluster"), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_shown_is_told_and_has_its_exit_code() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let nobody = format!("http://{free}");
    for (args, code) in [
        (&["--url", &nobody, "--once"][..], 1),
        (&["--json"], 2),
        (&["--demo", "--url", &nobody], 2),
        (&["--demo"], 2),
        (&["--key", "a\nb", "--once"], 2),
        (&["--url", "foo", "--once"], 2),
    ] {
        let output = ran(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_key_opens_what_is_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    let drawn = drawn_key("eye", &["observe"]);
    let key = drawn["key"].as_str().unwrap_or_else(|| panic!("{drawn}"));
    let file = dir.path().join("keys.toml");
    std::fs::write(&file, drawn["entry"].as_str().unwrap_or_else(|| panic!("{drawn}"))).expect("written");
    let file = file.to_str().expect("text");
    let keys = [("SECURITY__KEYS", file), ("SECURITY__REQUIRED", "true"), ("SECURITY__ANONYMOUS", "[]")];
    let node = TestNode::on_cpu(&keys);
    let url = node.node.url();
    let closed = ran(&["--url", &url, "--once"]);
    assert_eq!(closed.status.code(), Some(1));
    assert!(text(&closed.stderr).contains("401"), "{}", text(&closed.stderr));
    assert!(ran(&["--url", &url, "--once", "--key", key]).status.success());
    let in_file = dir.path().join("eye.key");
    std::fs::write(&in_file, format!("{key}\n")).expect("written");
    let in_file = format!("@{}", in_file.display());
    let by_file = ran(&["--url", &url, "--once", "--key", &in_file]);
    assert!(by_file.status.success(), "{}", text(&by_file.stderr));
    let by_variable =
        top(&["--url", &url, "--once"]).env("PEREGRINE_API_KEY", key).output().expect("it starts");
    assert!(by_variable.status.success(), "{}", text(&by_variable.stderr));
    for args in [&["scaler", "report"][..], &["scaler", "release", "cpu", "2"]] {
        let asked = |key: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_peregrine"));
            let output = command.args(args).args(["--url", &url]).env("PEREGRINE_API_KEY", key).output();
            text(&output.expect("the binary starts").stderr).to_owned()
        };
        assert!(asked("").contains(": 401: "), "{args:?}: {}", asked(""));
        assert!(!asked(key).contains(": 401: "), "{args:?}: {}", asked(key));
        let mut command = Command::new(env!("CARGO_BIN_EXE_peregrine"));
        let by_file = command.args(args).args(["--url", &url, "--key", &in_file]).output();
        let by_file = by_file.expect("the binary starts");
        assert!(!text(&by_file.stderr).contains(": 401: "), "{args:?}: {}", text(&by_file.stderr));
    }
}

/// The program in a terminal of its own.
struct Tty {
    child: Child,
    master: File,
    slave: OwnedFd,
    before: libc::termios,
    heard: Receiver<Vec<u8>>,
    seen: String,
}

impl Tty {
    fn of(args: &[&str], size: (u16, u16)) -> Self {
        Self::named(Some("xterm-256color"), args, size)
    }

    fn named(term: Option<&str>, args: &[&str], (rows, columns): (u16, u16)) -> Self {
        let (master, slave) = terminal();
        resized(&master, (rows, columns));
        let before = settings(&slave);
        let end = || Stdio::from(slave.try_clone().expect("one more"));
        let mut command = top(args);
        command.env_remove("TERM").envs(term.map(|term| ("TERM", term)));
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("the binary starts");
        let (to, heard) = channel();
        let mut from = master.try_clone().expect("one more");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut bytes) {
                if to.send(bytes[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, master, slave, before, heard, seen: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("it is there");
    }

    fn resize(&self, size: (u16, u16)) {
        resized(&self.master, size);
    }

    /// Waits until these words came since the last ones did. What is drawn moves about, words are in one piece.
    #[track_caller]
    fn awaits(&mut self, words: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(words) {
                self.seen.drain(..at + words.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{words}: {error}: {:?}", self.seen),
            }
        }
    }

    #[track_caller]
    fn ended(mut self) -> ExitStatus {
        let status = ended(&mut self.child);
        self.awaits("\x1b[?1049l");
        let after = settings(&self.slave);
        assert_eq!(after.c_lflag, self.before.c_lflag, "echo and lines are back");
        assert_eq!((after.c_iflag, after.c_oflag), (self.before.c_iflag, self.before.c_oflag));
        status
    }
}

/// Both ends of a terminal that no other program inherits: it would keep this one from going away.
fn terminal() -> (File, OwnedFd) {
    let how = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: what is opened belongs to nobody else, and every call is asked whether it did what it was to.
    unsafe {
        let master = libc::posix_openpt(how);
        assert!(master >= 0, "a terminal: {}", std::io::Error::last_os_error());
        let master = File::from_raw_fd(master);
        assert_eq!(libc::unlockpt(master.as_raw_fd()), 0);
        let slave = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, how);
        assert!(slave >= 0, "its other end: {}", std::io::Error::last_os_error());
        (master, OwnedFd::from_raw_fd(slave))
    }
}

fn resized(master: &File, (rows, columns): (u16, u16)) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the size is read, and lives until then.
    assert_eq!(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
}

#[track_caller]
fn ended(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return status;
        }
        if Instant::now() > until {
            // It is nobody else's any more, and may be busy.
            child.kill().expect("it is there");
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn settings(terminal: &OwnedFd) -> libc::termios {
    let mut settings = std::mem::MaybeUninit::uninit();
    // SAFETY: the place is written to by a call that says whether it did.
    unsafe {
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()), 0);
        settings.assume_init()
    }
}

#[test]
fn a_terminal_is_drawn_on_and_given_back() {
    let mut tty = Tty::of(&["--demo"], (24, 80));
    tty.awaits("\x1b[?1049h");
    tty.awaits("fra-1");
    tty.press("2");
    tty.awaits("inference-gpu");
    tty.press("/meters\r");
    tty.awaits("only");
    // Alone until something has come of it: what follows at once would be a key held with Alt.
    tty.press("\x1b");
    tty.awaits("inference-gpu");
    tty.resize((40, 120));
    tty.awaits("p99.9");
    tty.press("q");
    assert!(tty.ended().success());
}

#[test]
fn a_terminal_that_only_prints_is_not_drawn_on() {
    for term in [None, Some("dumb")] {
        let mut tty = Tty::named(term, &["--demo"], (24, 80));
        tty.awaits("as TERM says: `--once` prints one view");
        assert_eq!(ended(&mut tty.child).code(), Some(2), "{term:?}");
    }
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let mut tty = Tty::of(&["--demo"], (10, 40));
        tty.awaits("fra-1");
        let pid = i32::try_from(tty.child.id()).expect("a pid");
        // SAFETY: no memory is involved; the child has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        assert!(tty.ended().success());
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let mut tty = Tty::of(&["--demo"], (24, 80));
    tty.awaits("fra-1");
    // The thread that hears it lets go with what is drawn next, and nobody holds the terminal then.
    let Tty { mut child, master, slave, heard, .. } = tty;
    drop((master, slave, heard));
    ended(&mut child);
}

/// Answers every request with an overview of a node with one model, until it is dropped.
struct Server {
    addr: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn at(addr: SocketAddr, model: &str) -> Self {
        let listener = TcpListener::bind(addr).expect("the port is free");
        let (addr, ends) = (listener.local_addr().expect("bound"), Arc::new(AtomicBool::new(false)));
        let body = format!(r#"{{"node":{{"name":"one"}},"models":[{{"name":"{model}"}}]}}"#);
        let told = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            for socket in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let mut socket = socket.expect("a caller");
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|len| len > 0) {
                    head.push(byte[0]);
                }
                let len = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}");
                // A caller that has left is no matter.
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { addr, ends, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // It looks when somebody calls.
        drop(TcpStream::connect(self.addr));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[test]
fn a_server_that_goes_is_missed_and_one_that_comes_is_found() {
    let server = Server::at("127.0.0.1:0".parse().expect("an address"), "first-model");
    let addr = server.addr;
    let mut tty = Tty::of(&["--url", &format!("http://{addr}")], (30, 160));
    tty.press("4");
    tty.awaits("first-model");
    drop(server);
    tty.awaits("LOST");
    let _again = Server::at(addr, "WHAT-CAME-BACK");
    tty.awaits("WHAT-CAME-BACK");
    tty.press("\x03");
    assert!(tty.ended().success());
}
