//! `peregrine cluster`: every node of a topology as a process of its own on this machine, until told to stop.
//!
//! Restarts nothing: it says when a node has ended, and ends when none is left. Nodes get what is theirs through the
//! environment, the secret included: an argument would be there for everybody to read.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::options::{ConfigArgs, ModelsArgs};
use super::{CliError, print_json, print_line, say};
use crate::config::{NodeEntry, RoleChoice};
use crate::node;

/// How often children are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A node that loads models and opens its device for longer has hung.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// Nodes of one machine that have not met after this long do not reach each other.
const MET_WITHIN: Duration = Duration::from_secs(60);
/// What a node may take beyond its own drain.
const STOP_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(mut_arg("config", |arg| arg.required(true).help(
    "Configuration file with [[nodes]], e.g. configs/cluster-local.toml; later ones win over earlier ones"
)))]
pub(super) struct ClusterArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    models: ModelsArgs,
    /// List the nodes as JSON once all of them answer and see each other
    #[arg(long)]
    json: bool,
}

enum Event {
    /// The node at this position answers there.
    Ready { at: usize, url: String },
    /// These are who the node at this position sees, itself among them.
    Members { at: usize, names: Vec<String> },
    /// This signal asks everything to stop.
    Signal(&'static str),
    /// Nodes are to read their files again.
    Hangup,
}

/// One node and its process.
struct Running {
    entry: NodeEntry,
    child: Child,
    url: Option<String>,
    /// Names of the nodes that it sees.
    sees: Vec<String>,
    ended: bool,
}

pub(super) fn run(args: ClusterArgs) -> Result<(), CliError> {
    let json = args.json;
    let resolved = args.config.resolved(&args.models)?;
    let nodes = resolved.config.nodes.clone();
    if nodes.is_empty() {
        let message = "no [[nodes]] are configured; give --config configs/cluster-local.toml".to_owned();
        return Err(CliError::Usage(message));
    }
    let secret = (!resolved.gives_credentials()).then(random_secret);
    let (events_to, events) = sync_channel(64);
    watch_signals(events_to.clone())?;
    let patience = resolved.config.server.drain * 2 + STOP_GRACE;
    let mut cluster = Cluster { running: Vec::new(), patience, met_within: MET_WITHIN };
    for (at, entry) in nodes.iter().enumerate() {
        let mut command = command(&args, entry, &nodes, secret.as_deref())?;
        // One folder has one writer.
        let releases = resolved.config.models.releases.as_ref().map(|dir| dir.join(entry.name.as_str()));
        command.envs(releases.map(|dir| ("PEREGRINE_MODELS__RELEASES", dir)));
        let journal = resolved.config.journal.as_ref().map(|part| part.dir.join(entry.name.as_str()));
        command.envs(journal.map(|dir| ("PEREGRINE_JOURNAL__DIR", dir)));
        let audit = resolved.config.audit.as_ref().map(|part| part.dir.join(entry.name.as_str()));
        command.envs(audit.map(|dir| ("PEREGRINE_AUDIT__DIR", dir)));
        cluster.spawn(at, entry.clone(), command, &events_to)?;
    }
    match cluster.wait_until_ready(&events, json)? {
        Some(signal) => cluster.stop(signal),
        None => {
            cluster.announce(json)?;
            cluster.watch(&events)
        }
    }
}

/// What one node is started with. Whatever this process was given in the environment holds for it too.
fn command(
    args: &ClusterArgs,
    entry: &NodeEntry,
    nodes: &[NodeEntry],
    secret: Option<&str>,
) -> Result<Command, CliError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--tells-members"]);
    for (option, paths) in [("--config", &args.config.files), ("--models", &args.models.dirs)] {
        for path in paths {
            command.arg(option).arg(path);
        }
    }
    let others = nodes.iter().filter(|other| other.name != entry.name);
    let list = |texts: Vec<String>| json!(texts).to_string(); // as TOML writes it
    let settings = [
        ("NODE__NAME", entry.name.to_string()),
        ("NODE__REGION", entry.region.to_string()),
        ("SERVER__LISTEN", entry.listen.to_string()),
        ("BACKEND__CHOICE", entry.backend.name().to_owned()),
        ("CLUSTER__LISTEN", entry.cluster_listen.to_string()),
        ("CLUSTER__ADVERTISE", entry.cluster_listen.to_string()),
        ("CLUSTER__ROLES", list(entry.roles.iter().map(|role| role.name().to_owned()).collect())),
        ("CLUSTER__SEEDS", list(others.map(|other| other.cluster_listen.to_string()).collect())),
    ];
    command.envs(settings.map(|(key, value)| (format!("PEREGRINE_{key}"), value)));
    command.envs(secret.map(|secret| ("PEREGRINE_CLUSTER__SECRET", secret)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0); // Ctrl-C is for this process, which then stops the nodes in its own way
    die_with_parent(&mut command);
    Ok(command)
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made, `prctl` and `getppid`, and nothing is
    // allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call.
            if libc::getppid().unsigned_abs() != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

/// 256 bits in hex.
fn random_secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// From now on a signal becomes an event instead of this process's end.
fn watch_signals(events: SyncSender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (signal, mut hangups) =
        runtime.block_on(async { io::Result::Ok((node::signals()?, node::hangups()?)) })?;
    let wait = move || {
        let mut signal = std::pin::pin!(signal);
        loop {
            let event = runtime.block_on(async {
                tokio::select! {
                    name = &mut signal => Event::Signal(name),
                    Some(()) = hangups.recv() => Event::Hangup,
                }
            });
            let is_last = matches!(event, Event::Signal(_));
            // Nobody listens any more once everything has ended.
            if events.send(event).is_err() || is_last {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}

/// Every process that was started. Dropped, it kills those that are left.
struct Cluster {
    running: Vec<Running>,
    /// How long stopping may take.
    patience: Duration,
    /// See [`MET_WITHIN`].
    met_within: Duration,
}

impl Cluster {
    fn spawn(
        &mut self,
        at: usize,
        entry: NodeEntry,
        mut command: Command,
        events: &SyncSender<Event>,
    ) -> io::Result<()> {
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let name = entry.name.to_string();
        self.running.push(Running { entry, child, url: None, sees: Vec::new(), ended: false });
        let events = events.clone();
        let log = move |line: &str| say(format_args!("{name}: {line}"));
        let other = log.clone();
        let ready = move |line: &str| match line.split_once(' ') {
            Some(("ready", url)) => drop(events.send(Event::Ready { at, url: url.to_owned() })),
            Some(("members", names)) => {
                let names = names.split(' ').map(str::to_owned).collect();
                drop(events.send(Event::Members { at, names }));
            }
            _ => other(line),
        };
        thread::Builder::new().name("stdout".to_owned()).spawn(move || each_line(stdout, ready))?;
        thread::Builder::new().name("stderr".to_owned()).spawn(move || each_line(stderr, log))?;
        Ok(())
    }

    /// What has to happen yet: every node answers, and sees all others.
    fn lacks(&self) -> Option<String> {
        if let Some(waiting) = self.running.iter().find(|node| node.url.is_none()) {
            return Some(format!("{} was not ready", waiting.entry.name));
        }
        let name = |node: &Running| node.entry.name.to_string();
        let blind = self.running.iter().filter_map(|node| {
            let others = self.running.iter().map(name).filter(|other| *other != name(node));
            let unseen: Vec<String> = others.filter(|other| !node.sees.contains(other)).collect();
            (!unseen.is_empty()).then(|| format!("{} did not see {}", name(node), unseen.join(", ")))
        });
        let blind: Vec<String> = blind.collect();
        (!blind.is_empty()).then(|| blind.join("; "))
    }

    /// The signal that came first, if one did.
    fn wait_until_ready(
        &mut self,
        events: &Receiver<Event>,
        json: bool,
    ) -> Result<Option<&'static str>, CliError> {
        let (mut within, mut since) = (READY_WITHIN, Instant::now());
        while let Some(lack) = self.lacks() {
            if since.elapsed() >= within {
                return Err(CliError::Reported(format!("within {within:?} {lack}")));
            }
            match events.recv_timeout(LOOK_EVERY) {
                Ok(Event::Signal(signal)) => return Ok(Some(signal)),
                Ok(Event::Hangup) => self.hang_up(),
                Ok(Event::Ready { at, url }) => {
                    let node = &mut self.running[at];
                    if !json {
                        print_line(format_args!("ready {url} {} {}", node.entry.name, node.entry.region))?;
                    }
                    node.url = Some(url);
                    if self.running.iter().all(|node| node.url.is_some()) {
                        (within, since) = (self.met_within, Instant::now());
                    }
                }
                Ok(Event::Members { at, names }) => self.running[at].sees = names,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
            }
            if self.reap()? {
                return Err(CliError::Reported("the cluster did not start".to_owned()));
            }
        }
        Ok(None)
    }

    fn announce(&self, json: bool) -> io::Result<()> {
        if json {
            let view = |node: &Running| {
                json!({
                    "name": node.entry.name.as_str(),
                    "region": node.entry.region.as_str(),
                    "roles": node.entry.roles.iter().map(|role: &RoleChoice| role.name()).collect::<Vec<_>>(),
                    "url": node.url,
                    "cluster": node.entry.cluster_listen.to_string(),
                    "pid": node.child.id(),
                })
            };
            print_json(&self.running.iter().map(view).collect())
        } else {
            print_line(format_args!("cluster ready {} nodes", self.running.len()))
        }
    }

    fn watch(mut self, events: &Receiver<Event>) -> Result<(), CliError> {
        loop {
            match events.recv_timeout(LOOK_EVERY) {
                Ok(Event::Signal(signal)) => return self.stop(signal),
                Ok(Event::Hangup) => self.hang_up(),
                Ok(Event::Ready { .. } | Event::Members { .. }) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
            }
            if self.reap()? && self.running.iter().all(|node| node.ended) {
                return Err(CliError::Reported("no node is left".to_owned()));
            }
        }
    }

    /// Says which nodes have ended since the last time; whether any has.
    fn reap(&mut self) -> io::Result<bool> {
        let mut some = false;
        for node in self.running.iter_mut().filter(|node| !node.ended) {
            if let Some(status) = node.child.try_wait()? {
                (node.ended, some) = (true, true);
                say(format_args!("{} ended: {status}", node.entry.name));
            }
        }
        Ok(some)
    }

    /// Has every node that serves read its files again; those that start are reading them.
    fn hang_up(&self) {
        for node in self.running.iter().filter(|node| !node.ended && node.url.is_some()) {
            send(&node.child, libc::SIGHUP);
        }
    }

    /// Asks every node to stop, and kills those that have not done so in time.
    fn stop(mut self, signal: &'static str) -> Result<(), CliError> {
        let left = self.running.iter().filter(|node| !node.ended).count();
        say(format_args!("{signal}: stopping {left} nodes"));
        for node in self.running.iter().filter(|node| !node.ended) {
            send(&node.child, libc::SIGTERM);
        }
        let until = Instant::now() + self.patience;
        while self.running.iter().any(|node| !node.ended) && Instant::now() < until {
            self.reap()?;
            thread::sleep(LOOK_EVERY);
        }
        let late: Vec<String> =
            self.running.iter().filter(|node| !node.ended).map(|node| node.entry.name.to_string()).collect();
        if late.is_empty() {
            return Ok(());
        }
        Err(CliError::Reported(format!("killed, not stopped in time: {}", late.join(", "))))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.running.iter_mut().filter(|node| !node.ended) {
            // It may have ended by itself: then there is nothing to kill.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

/// To a child that has not been waited for.
fn send(child: &Child, signal: libc::c_int) {
    // SAFETY: no memory is involved. The child has not been waited for, so its id is still its own.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

/// Hands on what a node says until it says no more.
fn each_line(from: Option<impl Read>, hand_on: impl Fn(&str)) {
    let Some(from) = from else { return };
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A longer line is cut into several.
        match reader.by_ref().take(64 << 10).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => hand_on(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackendChoice;

    /// Says that it is ready, and again at each hangup, as a node reads its files again.
    const NODE: &str = "trap 'echo ready again' HUP; echo ready first; while :; do sleep 0.02; done";

    /// A cluster of processes that say what is given, by name.
    fn saying(events_to: &SyncSender<Event>, met_within: Duration, nodes: &[(&str, &str)]) -> Cluster {
        let mut cluster = Cluster { running: Vec::new(), patience: Duration::from_secs(1), met_within };
        for (at, (name, script)) in nodes.iter().enumerate() {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let socket = || "127.0.0.1:0".parse().unwrap();
            let entry = NodeEntry {
                name: peregrine_runtime::NodeId::new(name).unwrap(),
                region: peregrine_runtime::Region::new("here").unwrap(),
                roles: [].into(),
                listen: socket(),
                cluster_listen: socket(),
                backend: BackendChoice::Cpu,
                models: None,
            };
            cluster.spawn(at, entry, command, events_to).unwrap();
        }
        cluster
    }

    #[test]
    fn a_cluster_is_ready_when_each_node_sees_all_others() {
        let (events_to, events) = sync_channel(64);
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("met");
        // The other appears to it when the file does.
        let late = format!(
            "echo members b; echo ready b; until test -e {}; do sleep 0.02; done; echo members a b; exec sleep 60",
            mark.display()
        );
        let nodes =
            [("a", "echo members a; echo members a b; echo ready a; exec sleep 60"), ("b", late.as_str())];
        let mut cluster = saying(&events_to, Duration::from_secs(60), &nodes);
        let wait = thread::spawn(move || {
            let ended = cluster.wait_until_ready(&events, true).unwrap();
            (ended, cluster.lacks())
        });
        thread::sleep(Duration::from_millis(300));
        assert!(!wait.is_finished(), "b has not met a");
        std::fs::write(&mark, "").unwrap();
        assert_eq!(wait.join().unwrap(), (None, None));
    }

    #[test]
    fn who_is_not_seen_in_time_is_named() {
        let (events_to, events) = sync_channel(64);
        let nodes = [
            ("a", "echo members a c; echo ready a; exec sleep 60"),
            ("b", "echo ready b; exec sleep 60"),
            ("c", "echo members a b c; echo ready c; exec sleep 60"),
        ];
        let mut cluster = saying(&events_to, Duration::from_millis(500), &nodes);
        let failed = cluster.wait_until_ready(&events, true).unwrap_err();
        assert_eq!(failed.to_string(), "within 500ms a did not see b; b did not see a, c");
    }

    #[test]
    fn a_hangup_is_passed_on_to_the_nodes_and_ends_nothing() {
        let (events_to, events) = sync_channel(64);
        let mut cluster = saying(&events_to, Duration::from_secs(60), &[("a", NODE)]);
        cluster.hang_up(); // it is not ready: a hangup would end it
        assert!(cluster.wait_until_ready(&events, true).unwrap().is_none());
        cluster.hang_up();
        match events.recv_timeout(Duration::from_secs(20)) {
            Ok(Event::Ready { at: 0, url }) => assert_eq!(url, "again"),
            _ => panic!("the node was not told"),
        }
        assert!(!cluster.reap().unwrap());
    }
}
