//! What this product asks of its own fly.toml: commands that exist, ports that something listens on, time to drain.

use std::fs;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use crate::cross::{entries, groups_of, services};
use crate::rules::{Report, Rule};
use crate::values::{duration, words};

/// What the platform waits when nothing is written.
const KILL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Where the image has the repository's files.
const IN_IMAGE: &str = "/app/";
/// Keys of the configuration that a file that is read by all must not hold.
const SECRETS: [&str; 4] = ["cluster.secret", "models.key", "model_key", "alerts.webhook"];

/// The verbs and the options of `serve`, as the command line declares them.
struct CommandLine {
    verbs: Vec<String>,
    serve_options: Vec<String>,
}

impl CommandLine {
    fn read(root: &Path) -> Self {
        let block = |file: &str, head: &str| {
            let source = fs::read_to_string(root.join(file)).expect(file);
            let from = source.find(head).unwrap_or_else(|| panic!("{file} has no `{head}`"));
            let rest = &source[from + head.len()..];
            rest[..rest.find("\n}").expect("it has an end")].to_owned()
        };
        let declared = |block: &str, end: &[char]| -> Vec<String> {
            let lines: Vec<&str> = block.lines().map(str::trim).collect();
            // What is hidden is for processes that peregrine starts itself.
            let is_hidden = |at: usize| at > 0 && lines[at - 1].contains("hide = true");
            let shown = (0..lines.len()).filter(|&at| !lines[at].starts_with(['/', '#']) && !is_hidden(at));
            let names = shown.filter_map(|at| Some(lines[at][..lines[at].find(end)?].to_lowercase()));
            names.filter(|name| !name.is_empty()).collect()
        };
        let verbs = declared(&block("src/cli/mod.rs", "enum Verb {"), &['(', ',']);
        let serve_options = declared(&block("src/cli/serve.rs", "struct ServeArgs {"), &[':']);
        assert!(
            verbs.contains(&"serve".to_owned()) && serve_options.contains(&"config".to_owned()),
            "{verbs:?}"
        );
        Self { verbs, serve_options: serve_options.iter().map(|name| format!("--{name}")).collect() }
    }
}

/// What of a node's configuration a manifest must fit.
pub(crate) struct NodeFile {
    port: i64,
    pub(crate) drain: Duration,
    connections_max: i64,
}

impl NodeFile {
    /// `file` over the built-in configuration.
    pub(crate) fn read(root: &Path, file: &Path) -> Result<Self, String> {
        let read = |path: &Path| -> Result<Table, String> {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
        };
        let (built_in, over) = (read(&root.join("configs/local.toml"))?, read(file)?);
        let get = |key: &str| {
            let of = |table: &Table| table.get("server")?.get(key).cloned();
            of(&over).or_else(|| of(&built_in)).ok_or_else(|| format!("server.{key} is nowhere"))
        };
        let (listen, drain, connections) = (get("listen")?, get("drain")?, get("connections_max")?);
        let port = listen.as_str().and_then(|text| text.rsplit(':').next()?.parse().ok());
        Ok(Self {
            port: port.ok_or("server.listen has no port")?,
            drain: drain.as_str().and_then(duration).ok_or("server.drain is no duration")?,
            connections_max: connections.as_integer().ok_or("server.connections_max is no number")?,
        })
    }
}

pub(crate) fn check(manifest: &Table, root: &Path, report: &mut Report) {
    let signal = manifest.get("kill_signal").and_then(Value::as_str).unwrap_or("SIGINT");
    report.require(["SIGINT", "SIGTERM"].contains(&signal), Rule::Signal, "kill_signal", signal);
    environment(manifest, root, report);
    for (at, service) in services(manifest) {
        for options in [vec![service], entries(service, "ports")].into_iter().flatten() {
            let http2 = options.get("http_options").and_then(|options| options.get("h2_backend"));
            report.require(http2.and_then(Value::as_bool) != Some(true), Rule::Http2, &at, "h2_backend");
        }
    }
    let line = CommandLine::read(root);
    let Some(processes) = manifest.get("processes").and_then(Value::as_table) else { return };
    for (group, command) in processes {
        let at = format!("processes.{group}");
        // One that cannot be split has been found already.
        let Some(command) = command.as_str().and_then(words) else { continue };
        match command_of(&line, &command, root) {
            Ok(node) => fits(manifest, group, &node, report),
            Err(wrong) => report.add(Rule::Command, &at, wrong),
        }
    }
}

/// The configuration of the node that a command runs.
fn command_of(line: &CommandLine, command: &[String], root: &Path) -> Result<NodeFile, String> {
    let Some((verb, options)) = command.split_first() else { return Err("nothing is run".to_owned()) };
    if !line.verbs.contains(verb) {
        return Err(format!("`{verb}` is none of {}", line.verbs.join(", ")));
    }
    if verb != "serve" {
        return Err(format!("`{verb}` ends, and the Machine with it"));
    }
    let mut file = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if !line.serve_options.contains(option) {
            return Err(format!("`{option}` is none of {}", line.serve_options.join(", ")));
        }
        let value = options.next().ok_or_else(|| format!("`{option}` needs a value"))?;
        if option == "--config" {
            let within =
                value.strip_prefix(IN_IMAGE).ok_or_else(|| format!("`{value}` is not in {IN_IMAGE}"))?;
            file = Some(root.join(within));
        }
    }
    NodeFile::read(root, &file.ok_or("without --config it would listen on this machine only")?)
}

fn fits(manifest: &Table, group: &str, node: &NodeFile, report: &mut Report) {
    // The HTTP server and the cluster have one deadline; journal and actors need some more.
    let least = node.drain * 2;
    let kill = match manifest.get("kill_timeout") {
        None => Some(KILL_TIMEOUT_DEFAULT),
        Some(written) => written.as_str().and_then(duration), // none: found already
    };
    if let Some(kill) = kill.filter(|kill| *kill < least) {
        let detail = format!("{kill:?} is less than twice the {:?} that `{group}` drains", node.drain);
        report.add(Rule::KillBeforeDrain, "kill_timeout", detail);
    }

    let mut listened = |at: &str, table: &Table, key: &str| {
        let port = table.get(key).and_then(Value::as_integer);
        if let Some(port) = port.filter(|_| groups_of(manifest, table).contains(&group)) {
            let detail = format!("{port}, but `{group}` listens on {}", node.port);
            report.require(port == node.port, Rule::PortNotListened, &format!("{at}.{key}"), detail);
        }
    };
    for (at, service) in services(manifest) {
        listened(&at, service, "internal_port");
    }
    for (index, metrics) in entries(manifest, "metrics").into_iter().enumerate() {
        listened(&format!("metrics[{index}]"), metrics, "port");
    }
    for (name, check) in manifest.get("checks").and_then(Value::as_table).into_iter().flatten() {
        check.as_table().into_iter().for_each(|check| listened(&format!("checks.{name}"), check, "port"));
    }
    for (at, service) in services(manifest) {
        let Some(concurrency) = service.get("concurrency").and_then(Value::as_table) else { continue };
        let limit = |key: &str| concurrency.get(key).and_then(Value::as_integer);
        let (soft, hard) = (limit("soft_limit").unwrap_or(20), limit("hard_limit").unwrap_or(i64::MAX));
        let detail =
            format!("soft {soft}, hard {hard}, and server.connections_max is {}", node.connections_max);
        let fits = soft <= hard && hard < node.connections_max;
        if groups_of(manifest, service).contains(&group) {
            report.require(fits, Rule::OverConnections, &format!("{at}.concurrency"), detail);
        }
    }
}

/// Variables that are configuration must be keys of it.
fn environment(manifest: &Table, root: &Path, report: &mut Report) {
    let settings = Settings::read(root);
    for name in manifest.get("env").and_then(Value::as_table).into_iter().flat_map(Table::keys) {
        let Some(path) = path_of(name) else { continue };
        let at = format!("env.{name}");
        if SECRETS.contains(&path.join(".").as_str()) {
            report.add(Rule::SecretInFile, &at, name);
        } else {
            report.require(settings.has(&path), Rule::UnknownSetting, &at, path.join("."));
        }
    }
}

/// The key that a variable of this name sets, if it sets one.
pub(crate) fn path_of(variable: &str) -> Option<Vec<String>> {
    let path = variable.strip_prefix("PEREGRINE_")?;
    Some(path.split("__").map(str::to_ascii_lowercase).collect())
}

/// The keys of the built-in configuration, which has all of them.
pub(crate) struct Settings(Table);

impl Settings {
    pub(crate) fn read(root: &Path) -> Self {
        let text = fs::read_to_string(root.join("configs/local.toml")).expect("configs/local.toml");
        Self(toml::from_str(&text).expect("configs/local.toml is TOML"))
    }

    /// Is there a key, not a section, of this path?
    pub(crate) fn has(&self, path: &[String]) -> bool {
        let Some((last, sections)) = path.split_last() else { return false };
        let section = sections.iter().try_fold(&self.0, |table, key| table.get(key)?.as_table());
        section.and_then(|table| table.get(last)).is_some_and(|value| !value.is_table())
    }
}
