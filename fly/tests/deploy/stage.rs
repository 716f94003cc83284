//! A stage for shell scripts: a folder of the tools that they may find, some of them played by a stub that writes down how
//! it was called and answers from files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Plays flyctl and curl. An answer is the file of the call's first two words, or of these and the number of the call;
/// beside it with `.rc` an exit status. What came in by stdin is kept for calls that take it.
const STUB: &str = r#"#!/bin/sh
stage=$(dirname "$(dirname "$0")")
name=$(basename "$0")
printf '%s %s\n' "$name" "$*" >>"$stage/calls"
case $name in
flyctl) key=$1-$2 ;;
*) key=$name ;;
esac
count=$(($(cat "$stage/count-$key" 2>/dev/null || echo 0) + 1))
echo "$count" >"$stage/count-$key"
case "$*" in
*=-) cat >"$stage/stdin-$count" ;;
"wireguard create "*) echo '[Interface]' >"$6" ;;
esac
for answer in "$stage/answers/$key.$count" "$stage/answers/$key"; do
    if [ -e "$answer" ] || [ -e "$answer.rc" ]; then
        [ ! -e "$answer" ] || cat "$answer"
        [ ! -e "$answer.rc" ] || exit "$(cat "$answer.rc")"
        exit 0
    fi
done
"#;

/// Tools that the scripts use and nobody plays.
const TOOLS: [&str; 13] = [
    "bash",
    "sh",
    "env",
    "dirname",
    "basename",
    "cat",
    "sed",
    "head",
    "sleep",
    "timeout",
    "jq",
    "shellcheck",
    "printenv",
];

pub(crate) struct Stage {
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

/// How a script ended.
pub(crate) struct Played {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Of stubs, in order.
    pub(crate) calls: Vec<String>,
}

impl Stage {
    /// Without a stub: as a machine on which nothing is installed for Fly.
    pub(crate) fn bare() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for inner in ["tools", "answers", "work"] {
            fs::create_dir(folder.path().join(inner)).expect("a folder");
        }
        let paths = std::env::var_os("PATH").expect("a PATH");
        for tool in TOOLS {
            let found =
                std::env::split_paths(&paths).map(|folder| folder.join(tool)).find(|path| path.is_file());
            let found = found.unwrap_or_else(|| panic!("these tests need `{tool}`: see tests/run"));
            symlink(found, folder.path().join("tools").join(tool)).expect("a link");
        }
        Self { folder, environment: BTreeMap::new() }
    }

    /// With flyctl and curl, which answer as for an application that is deployed and well.
    pub(crate) fn new() -> Self {
        let stage = Self::bare().stub("flyctl").stub("curl");
        stage
            .answer("apps-list", r#"[{"Name":"peregrine","Organization":{"Slug":"acme"}},{"Name":"other"}]"#)
            .answer("orgs-list", r#"{"acme":"Acme","personal":"Me"}"#)
            .answer("secrets-list", r#"[{"Name":"PEREGRINE_CLUSTER__SECRET"},{"name":"API_KEYS"}]"#)
            .answer("machine-list", &machines("passing", "started"))
            .answer("wireguard-list", "[]")
    }

    pub(crate) fn stub(self, name: &str) -> Self {
        let path = self.folder.path().join("tools").join(name);
        fs::write(&path, STUB).expect("a stub");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        self
    }

    pub(crate) fn without(self, tool: &str) -> Self {
        fs::remove_file(self.folder.path().join("tools").join(tool)).expect("the tool was there");
        self
    }

    /// What a call answers: `apps-list`, or `apps-list.2` for the second.
    pub(crate) fn answer(self, call: &str, text: &str) -> Self {
        fs::write(self.folder.path().join("answers").join(call), text).expect("an answer");
        self
    }

    /// The exit status of a call.
    pub(crate) fn exit(self, call: &str, code: i32) -> Self {
        self.answer(&format!("{call}.rc"), &code.to_string())
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A file of the folder that scripts are run in.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    /// What a stub was told by its stdin, when it was called so for the `count`th time.
    pub(crate) fn stdin(&self, count: usize) -> String {
        fs::read_to_string(self.folder.path().join(format!("stdin-{count}"))).expect("stdin was read")
    }

    /// Runs a script of the repository, of which the path is relative to fly/.
    pub(crate) fn play(&self, script: &str, arguments: &[&str], stdin: &str) -> Played {
        let calls = self.folder.path().join("calls");
        if calls.exists() {
            fs::remove_file(&calls).expect("the calls of before");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let tools = self.folder.path().join("tools");
        // A script that hangs fails its test instead of holding it up.
        let mut child = Command::new(tools.join("timeout"))
            .args(["--kill-after=1", "60"])
            .arg(script)
            .args(arguments)
            .env_clear()
            .env("PATH", &tools)
            .env("POLL_SECONDS", "0.01")
            .envs(&self.environment)
            .current_dir(self.folder.path().join("work"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the script starts");
        let mut input = child.stdin.take().expect("it is piped");
        // One that has ended already reads nothing.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("the script ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let calls = fs::read_to_string(calls).unwrap_or_default();
        Played {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            calls: calls.lines().map(str::to_owned).collect(),
        }
    }
}

/// Two gateways, a node whose check and state are these, and its standby.
pub(crate) fn machines(check: &str, state: &str) -> String {
    let machine = |id: &str, group: &str, check: &str, state: &str, standbys: &str| {
        format!(
            r#"{{"id":"{id}","region":"iad","state":"{state}","checks":[{{"name":"ready","status":"{check}"}}],
                "config":{{"metadata":{{"fly_process_group":"{group}"}},"standbys":{standbys}}}}}"#
        )
    };
    let machines = [
        machine("1a", "gateway", "passing", "started", "null"),
        machine("1b", "gateway", "passing", "started", "[]"),
        machine("2a", "node", check, state, "[]"),
        machine("2b", "node", "warning", "stopped", r#"["2a"]"#),
    ];
    format!("[{}]", machines.join(","))
}
