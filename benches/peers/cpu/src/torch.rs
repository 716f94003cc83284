//! torch in a child of its own, told what to do line by line (`torch_cpu.py`).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub(crate) struct Torch {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Torch {
    /// `None` without `TORCH_PYTHON`, which `run.sh` sets.
    pub(crate) fn start(threads: usize, files: &[std::path::PathBuf]) -> Option<Self> {
        let python = std::env::var_os("TORCH_PYTHON")?;
        let script = std::env::var_os("TORCH_PEER")?;
        let mut child = Command::new(python)
            .arg(script)
            .arg(threads.to_string())
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python of TORCH_PYTHON starts");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut torch = Self { child, to, from: BufReader::new(from) };
        println!("{}", torch.answer().trim_start_matches("ready "));
        Some(torch)
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        let read = self.from.read_line(&mut line).expect("torch_cpu.py writes lines");
        assert!(read > 0, "torch_cpu.py ended");
        line.trim().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}").expect("torch_cpu.py reads lines");
        self.answer()
    }

    /// What both kinds answer, one after the other.
    pub(crate) fn check(&mut self, file: &Path, rows: usize, y: &[f32]) -> Vec<f32> {
        let folder = std::env::temp_dir().join(format!("peer_cpu_{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for windows");
        let [source, target] = ["y", "answers"].map(|name| folder.join(name));
        let bytes: Vec<u8> = y.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(&source, bytes).expect("windows are written");
        self.ask(&format!("check {} {rows} {} {}", file.display(), source.display(), target.display()));
        let bytes = std::fs::read(&target).expect("answers are there");
        let _gone = std::fs::remove_dir_all(&folder);
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Median seconds of a run.
    pub(crate) fn time(&mut self, kind: &str, file: &Path, rows: usize, budget: Duration) -> f64 {
        let line = format!("time {kind} {} {rows} {}", file.display(), budget.as_secs_f64());
        self.ask(&line).parse().expect("torch_cpu.py answers seconds")
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
