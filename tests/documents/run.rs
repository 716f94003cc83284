//! Runs a document, block by block.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::blocks::{self, Block, Document};
use super::expect;
use super::stage::{PATIENCE, Played, SHOWN, Stage, root};
use crate::harness::{WebSocket, request};

/// Between the outputs of blocks of one Python session.
const SEAM: &str = "--- next block ---";

/// Of the models that ship.
const WINDOW_MAX: u64 = 168;

/// What a block may say of itself. Anything else is a mistake.
const MARKS: [&str; 9] = ["no-run", "serve", "file", "excerpt", "save", "fails", "post", "stream", "alone"];

/// A block that is not run, and why.
#[derive(Debug, PartialEq)]
pub(super) struct NotRun {
    pub(super) language: String,
    pub(super) reason: String,
}

/// One document on its stage.
struct Player {
    stage: Stage,
    /// What the block before printed, if it was run.
    printed: Option<String>,
    /// The Python of this document so far: what a notebook has in its cells above.
    cells: Vec<String>,
    socket: Option<WebSocket>,
    /// Whether the block before was said over the socket.
    listening: bool,
}

/// Runs every block of a document in order and says which were not to be run.
///
/// # Errors
/// The first block that does not do what it says, with its line.
pub(super) fn run(text: &str) -> Result<Vec<NotRun>, String> {
    let Document { blocks, .. } = blocks::read(text)?;
    let mut not_run = Vec::new();
    let mut player =
        Player { stage: Stage::new(), printed: None, cells: Vec::new(), socket: None, listening: false };
    for block in &blocks {
        let place = |error: String| format!("block of line {}: {error}", block.line);
        if let Some(unknown) = block.marks().find(|mark| !MARKS.contains(mark)) {
            return Err(place(format!("what is `{unknown}`?")));
        }
        if let Some(reason) = block.mark("no-run") {
            not_run.push(NotRun { language: block.language.clone(), reason: reason.to_owned() });
            player.printed = None;
            continue;
        }
        player.block(block).map_err(place)?;
    }
    player.socket = None;
    player.stage.stop()?;
    Ok(not_run)
}

impl Player {
    fn block(&mut self, block: &Block) -> Result<(), String> {
        if let Some(name) = block.mark("save") {
            let text = self.stage.with_own_ports(&block.text);
            self.stage.save(name, &text);
        }
        let listened = std::mem::take(&mut self.listening);
        let printed = match block.language.as_str() {
            "sh" if block.mark("serve").is_some() => {
                if block.mark("serve") != Some("too") {
                    self.stage.stop()?;
                }
                self.stage.serve(&as_installed(&block.text))?;
                None
            }
            "sh" => {
                if block.mark("alone").is_none() {
                    self.node(&block.text)?;
                }
                let played = self.stage.sh(&as_installed(&block.text));
                Some(ended(block, played)?)
            }
            "python" => self.python(block)?,
            "rust" => self.rust(block)?,
            "toml" => {
                self.toml(block)?;
                None
            }
            "json" => self.json(block)?,
            "console" if listened => {
                self.heard(&block.text)?;
                None
            }
            "console" => {
                let got = self.printed.take().ok_or("no block that prints stands before it")?;
                if !expect::matches(&block.text, &got) {
                    return Err(format!("shown is\n{}but it is\n{got}", block.text));
                }
                None
            }
            // A picture in letters.
            "text" => None,
            other => return Err(format!("nobody runs `{other}`")),
        };
        self.printed = printed;
        Ok(())
    }

    /// A node as `peregrine serve` starts it, unless the document has started one.
    fn node(&mut self, text: &str) -> Result<(), String> {
        if self.stage.is_serving() || !text.contains(&format!("127.0.0.1:{SHOWN}")) {
            return Ok(());
        }
        self.stage.serve("exec peregrine serve")
    }

    fn python(&mut self, block: &Block) -> Result<Option<String>, String> {
        if let Some(file) = block.mark("file") {
            is_whole(file, &block.text)?;
        }
        self.node(&block.text)?;
        let above = self.cells.join("");
        self.cells.push(block.text.clone());
        let script = format!("{above}\nprint({SEAM:?})\n{}", block.text);
        let printed = ended(block, self.stage.python(&script))?;
        Ok(printed.split_once(SEAM).map(|(_, own)| own.to_owned()))
    }

    fn rust(&mut self, block: &Block) -> Result<Option<String>, String> {
        if let Some(file) = block.mark("excerpt") {
            // Code of ours, which the build compiles and its own tests run.
            let whole = read(file)?;
            return if whole.contains(&block.text) { Ok(None) } else { Err(format!("not in {file}")) };
        }
        let file = block.mark("file").ok_or("a program must be in a file of docs/examples")?;
        is_whole(file, &block.text)?;
        self.node(&block.text)?;
        let program = example(file)?;
        let addr = self.stage.addr().to_string();
        Ok(Some(ended(block, self.stage.program(&program, &[&addr]))?))
    }

    fn toml(&mut self, block: &Block) -> Result<(), String> {
        let name = block.mark("save").unwrap_or("fragment.toml").to_owned();
        let text = self.stage.with_own_ports(&block.text);
        self.stage.save(&name, &text);
        let played = self.stage.sh(&format!("peregrine check --config {name}"));
        ended(block, played).map(drop)
    }

    /// Waits for each message that is shown, by its `op`; others may come between.
    fn heard(&mut self, shown: &str) -> Result<(), String> {
        const BEGIN: &str = "{\"op\":\"";
        let socket = self.socket.as_mut().ok_or("nothing was said")?;
        for part in shown.split(BEGIN).skip(1) {
            let op = part.split('"').next().unwrap_or_default();
            let begin = format!("{BEGIN}{op}\"");
            let message = loop {
                let (_, payload) = socket.frame().ok_or("the node has hung up")?;
                let text = String::from_utf8_lossy(&payload).into_owned();
                if text.starts_with(&begin) {
                    break text;
                }
                if text.starts_with("{\"op\":\"error\"") {
                    return Err(text);
                }
            };
            if !expect::matches(&format!("{BEGIN}{part}"), &message) {
                return Err(format!("shown is\n{BEGIN}{part}but it is\n{message}"));
            }
        }
        Ok(())
    }

    fn json(&mut self, block: &Block) -> Result<Option<String>, String> {
        let lines = || block.text.lines().filter(|line| !line.trim().is_empty());
        if block.mark("stream").is_some() {
            self.node(&format!("127.0.0.1:{SHOWN}"))?;
            let addr = self.stage.addr();
            if self.socket.is_none() {
                replayed(addr)?;
            }
            let socket = self
                .socket
                .get_or_insert_with(|| WebSocket::open(addr, "/v1/stream", Some("peregrine.v1.json")));
            for line in lines() {
                serde_json::from_str::<serde_json::Value>(line).map_err(|err| format!("{line}: {err}"))?;
                socket.text(line);
            }
            self.listening = true;
            return Ok(None);
        }
        serde_json::from_str::<serde_json::Value>(&block.text).map_err(|err| err.to_string())?;
        let Some(path) = block.mark("post") else { return Ok(None) };
        self.node(&format!("127.0.0.1:{SHOWN}"))?;
        let response = request(self.stage.addr(), "POST", path, &[], block.text.as_bytes());
        let body = String::from_utf8_lossy(&response.body).into_owned();
        let want = block.mark("fails").map_or(Ok(200), str::parse).map_err(|_| "`fails` is no status")?;
        if response.status == want { Ok(Some(body)) } else { Err(format!("{}: {body}", response.status)) }
    }
}

/// Waits until the node has replayed a window of its data, as it has by the time that a reader has a client open.
fn replayed(addr: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let response = request(addr, "GET", "/v1/series/USD?last=1", &[], b"");
        let body = serde_json::from_slice::<serde_json::Value>(&response.body).unwrap_or_default();
        if response.status == 200 && body["seq"].as_u64().is_some_and(|seq| seq >= WINDOW_MAX) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("its data are not replayed: {} {body}", response.status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program of docs/examples, as this build has made it.
fn example(file: &str) -> Result<PathBuf, String> {
    let source = root().join(file);
    let name = source.file_stem().ok_or("no name")?;
    let built = Path::new(env!("CARGO_BIN_EXE_peregrine")).with_file_name("examples").join(name);
    let age = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified());
    match (age(&source), age(&built)) {
        (Ok(source), Ok(built_at)) if built_at >= source => Ok(built),
        _ => Err(format!(
            "{} is not there or older than its source: cargo build --release --examples",
            built.display()
        )),
    }
}

/// Commands of a checkout as they are of an installation: the build has been made, and here it is on the PATH.
fn as_installed(script: &str) -> String {
    script.replace("cargo run --release -- ", "peregrine ").replace("cargo run --release", "peregrine")
}

fn is_whole(file: &str, text: &str) -> Result<(), String> {
    if read(file)? == text { Ok(()) } else { Err(format!("it is not what {file} holds")) }
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(root().join(file)).map_err(|err| format!("{file}: {err}"))
}

/// The output, if the block ended as it says: with 0, or with the code of `fails`.
fn ended(block: &Block, played: Played) -> Result<String, String> {
    let Played { code, stdout, stderr } = played;
    let want = block.mark("fails").map_or(Ok(0), str::parse).map_err(|_| "`fails` is no exit code")?;
    if code != Some(want) {
        return Err(format!("it ended with {code:?}, not {want}\n{stdout}\n{stderr}"));
    }
    // What is refused is told on the other stream.
    Ok(if want == 0 { stdout } else { stderr })
}
