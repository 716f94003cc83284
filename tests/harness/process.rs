//! The real binary as a child process: what a user runs, with its own memory to measure.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What `peregrine keys new` says of a key that it draws.
pub(crate) fn drawn_key(name: &str, scopes: &[&str]) -> serde_json::Value {
    let drawn = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["keys", "new", "--json", "--name", name])
        .args(scopes.iter().flat_map(|scope| ["--scope", scope]))
        .output()
        .expect("the binary runs");
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    serde_json::from_slice(&drawn.stdout).expect("JSON")
}

/// A serving node; killed when dropped.
pub(crate) struct NodeProcess {
    pub(super) child: Child,
    pub(crate) addr: SocketAddr,
}

impl NodeProcess {
    /// Starts `peregrine serve --listen 127.0.0.1:0` with more arguments and waits for its `ready` line.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// The same, with variables.
    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_peregrine"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PEREGRINE_LOG__FILTER", "error")
            .env("PEREGRINE_DEMO__RATE", "0")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        Self::ready(child)
    }

    /// Waits for the `ready` line of a node whose output is piped.
    pub(crate) fn ready(mut child: Child) -> Self {
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("ready http://").and_then(|addr| addr.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("the node said `{line}` instead of `ready http://…`"));
        Self { child, addr }
    }

    /// Resident memory now, in MiB.
    pub(crate) fn resident_mib(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the node lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") / 1024
    }

    /// Processor time so far, of all threads.
    pub(crate) fn processor_time(&self) -> Duration {
        /// Clock ticks of `/proc/PID/stat` a second, on every Linux there is.
        const TICKS_PER_S: u64 = 100;
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the node lives");
        let (_, behind_name) = stat.rsplit_once(") ").expect("a name");
        let ticks =
            behind_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
        Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS_PER_S)
    }

    /// `kill -STOP`, `-CONT`.
    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: no memory is involved; the child has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "it lives");
    }

    /// Has it ended?
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
