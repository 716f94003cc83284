//! Where the blocks of one document run: a folder of its own, ports of its own, the built binary under its name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Longest run of one block, and longest wait for a node; reaching it is a failure, never a pass.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// Ports below those that the kernel gives away, so that no connection of another test sits on one.
const PORTS: std::ops::Range<u16> = 21_000..31_000;
/// The address that documents show.
pub(super) const SHOWN: u16 = 8080;

/// How a block ended.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Something that runs until the stage is left.
struct Serving {
    group: i32,
    ended: Receiver<ExitStatus>,
}

pub(super) struct Stage {
    folder: TempDir,
    /// Ports that the document shows, and those that are meant.
    ports: BTreeMap<u16, u16>,
    serving: Vec<Serving>,
    played: usize,
}

impl Stage {
    /// The repository's folders under their names, copied where a block may write or a port has to be another.
    pub(super) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("document-").tempdir().expect("a folder");
        let (root, own) = (root(), folder.path());
        for name in ["models", "docs", "fly", "tests"] {
            symlink(root.join(name), own.join(name)).expect("a link");
        }
        fs::create_dir(own.join("bin")).expect("a folder");
        symlink(env!("CARGO_BIN_EXE_peregrine"), own.join("bin/peregrine")).expect("a link");
        symlink(python(), own.join("bin/python3")).expect("a link");
        let mut stage = Self { folder, ports: BTreeMap::new(), serving: Vec::new(), played: 0 };
        stage.copy(&root.join("configs"), &stage.path("configs"));
        stage
    }

    fn copy(&mut self, from: &Path, to: &Path) {
        fs::create_dir(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let path = entry.expect("an entry").path();
            let target = to.join(path.file_name().expect("a name"));
            if path.is_dir() {
                self.copy(&path, &target);
            } else {
                let text = fs::read_to_string(&path).expect("text");
                fs::write(target, self.with_own_ports(&text)).expect("a file");
            }
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the document's.
    pub(super) fn save(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// Where the document's node listens.
    pub(super) fn addr(&mut self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port(SHOWN)))
    }

    /// The text with this stage's ports: each `127.0.0.1:PORT` of a document has one of its own here.
    pub(super) fn with_own_ports(&mut self, text: &str) -> String {
        const HOST: &str = "127.0.0.1:";
        let mut parts = text.split(HOST);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            let (number, rest) = part.split_at(digits);
            out.push_str(HOST);
            match number.parse() {
                Ok(0) | Err(_) => out.push_str(number),
                Ok(shown) => out.push_str(&self.port(shown).to_string()),
            }
            out.push_str(rest);
        }
        out
    }

    fn port(&mut self, shown: u16) -> u16 {
        *self.ports.entry(shown).or_insert_with(free_port)
    }

    fn shell(&mut self, script: &str) -> Command {
        let script = self.with_own_ports(script);
        self.played += 1;
        let file = self.path(&format!("bin/block-{}.sh", self.played));
        fs::write(&file, script).expect("a file");
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail"]).arg(file);
        self.dressed(command)
    }

    fn dressed(&mut self, mut command: Command) -> Command {
        let path = std::env::var("PATH").expect("a PATH");
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("PEREGRINE_")) {
            command.env_remove(key);
        }
        let listen = self.addr().to_string();
        command
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("PYTHONPATH", root().join("docs/examples"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PEREGRINE_SERVER__LISTEN", listen)
            .env("PEREGRINE_LOG__FILTER", "warn")
            .env("HOME", self.folder.path())
            .env_remove("RUST_BACKTRACE") // a panic on purpose is told in a line
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs a script to its end.
    pub(super) fn sh(&mut self, script: &str) -> Played {
        let command = self.shell(script);
        self.play(command)
    }

    pub(super) fn python(&mut self, script: &str) -> Played {
        let script = self.with_own_ports(script);
        self.save("bin/block.py", &script);
        let mut command = Command::new(self.path("bin/python3"));
        command.arg(self.path("bin/block.py"));
        let command = self.dressed(command);
        self.play(command)
    }

    pub(super) fn program(&mut self, program: &Path, arguments: &[&str]) -> Played {
        let mut command = Command::new(program);
        command.args(arguments);
        let command = self.dressed(command);
        self.play(command)
    }

    fn play(&mut self, mut command: Command) -> Played {
        let files = ["stdout", "stderr"].map(|name| self.path(&format!("bin/{name}")));
        let [stdout, stderr] = files.each_ref().map(|path| File::create(path).expect("a file"));
        let child = command.stdout(stdout).stderr(stderr).spawn().expect("it starts");
        let group = child.id().cast_signed();
        let status = reaped(child).recv_timeout(PATIENCE);
        if status.is_err() {
            signal(group, libc::SIGKILL);
        }
        let [stdout, stderr] =
            files.map(|path| String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned());
        match status {
            Ok(status) => Played { code: status.code(), stdout, stderr },
            Err(_) => {
                Played { code: None, stdout, stderr: format!("{stderr}\nnot done within {PATIENCE:?}") }
            }
        }
    }

    /// Starts what runs until it is told to stop, and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends or stays silent; with what it said.
    pub(super) fn serve(&mut self, script: &str) -> Result<(), String> {
        let errors = self.path(&format!("bin/serving-{}.err", self.serving.len()));
        // The shell stays until what it runs has ended, so that its port is free then.
        let mut command = self.shell(&format!("trap : TERM\n{script}"));
        command.stderr(File::create(&errors).expect("a file")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let stdout = child.stdout.take().expect("it is piped");
        let group = child.id().cast_signed();
        self.serving.push(Serving { group, ended: reaped(child) });
        match first_line(stdout).recv_timeout(PATIENCE) {
            Ok(line) if !line.is_empty() => Ok(()),
            _ => Err(format!("it is not ready: {}", fs::read_to_string(errors).unwrap_or_default())),
        }
    }

    /// Stops what was started, the last first, as an operator would.
    ///
    /// # Errors
    /// When one does not end, or not well.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        while let Some(serving) = self.serving.pop() {
            signal(serving.group, libc::SIGTERM);
            match serving.ended.recv_timeout(PATIENCE) {
                Ok(status) if status.success() => {}
                other => {
                    signal(serving.group, libc::SIGKILL);
                    return Err(format!("what was started does not end well: {other:?}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn is_serving(&self) -> bool {
        !self.serving.is_empty()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for serving in &self.serving {
            signal(serving.group, libc::SIGKILL);
        }
    }
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The interpreter that has what Debian's packages bring, before any other of this machine.
pub(super) fn python() -> PathBuf {
    let debian = PathBuf::from("/usr/bin/python3");
    if debian.exists() {
        return debian;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.exists());
    found.expect("python3, see tests/run")
}

/// A port that nobody has, over TCP and UDP, and that no other stage of this process was given.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test runs on one machine begin at different places.
    let start = std::process::id() % u32::from(PORTS.end - PORTS.start);
    let start = u16::try_from(start).expect("below the number of ports");
    for _ in 0..PORTS.end - PORTS.start {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (start + step) % (PORTS.end - PORTS.start);
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// Waits for a process on a thread of its own.
fn reaped(mut child: Child) -> Receiver<ExitStatus> {
    let (told, ended) = sync_channel(1);
    thread::spawn(move || {
        // Nobody may be left to hear it.
        let _ = told.send(child.wait().expect("a child can be waited for"));
    });
    ended
}

/// The first line, and everything behind it thrown away so that nobody waits for a reader.
fn first_line(stdout: std::process::ChildStdout) -> Receiver<String> {
    use std::io::{BufRead as _, BufReader};
    let (told, line) = sync_channel(1);
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut first = String::new();
        // What cannot be read is no line; the receiver says so.
        let _ = reader.read_line(&mut first);
        let _ = told.send(first);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    line
}

fn signal(group: i32, number: i32) {
    // SAFETY: a plain call; the group is that of a child of ours, which has not been waited for twice.
    unsafe { libc::kill(-group, number) };
}
