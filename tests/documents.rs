//! The documents hold: their code blocks run, their links lead somewhere, and nothing that users touch is left out.
//!
//! An info string says what a block is: `sh`, `python`, `json` and `toml` are run, sent or checked, `console` is what the
//! block before it prints, `rust` is a program of `docs/examples` or a piece of ours. `serve` starts what goes on until the
//! document ends (`serve="too"`: beside what runs), `save` names the file that the text goes into, `fails` the code that a
//! refusal ends with, `alone` a block that brings its own node, and `no-run` says why a block cannot run here; those are counted below.

mod blocks;
mod client;
mod expect;
mod run;
mod stage;

/// Its decision has tests of its own, which run here.
#[path = "../docs/examples/actor.rs"]
#[expect(dead_code, reason = "the program around it runs as the example that it is")]
mod guide_to_actors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use run::NotRun;
use stage::root;

/// Blocks that are not run: document, language, why, how many. Nothing else is left out.
const NOT_RUN: [(&str, &str, &str, usize); 3] = [
    ("docs/clusters.md", "sh", "its machines outlive it, on purpose", 1),
    ("docs/deploying-on-fly.md", "sh", "needs a Fly account", 3),
    ("docs/gpu-worker.md", "sh", "needs a GPU", 2),
];

/// One test for each document, so that they run beside each other and fail by name.
macro_rules! documents {
    ($($test:ident: $path:literal,)*) => {
        const DOCUMENTS: &[&str] = &[$($path),*];
        $(
            #[test]
            fn $test() {
                check($path);
            }
        )*
    };
}

documents! {
    the_readme_runs: "README.md",
    the_index_runs: "docs/README.md",
    the_quick_start_runs: "docs/quick-start.md",
    the_concepts_run: "docs/concepts.md",
    the_http_guide_runs: "docs/http.md",
    the_stream_guide_runs: "docs/stream.md",
    the_python_guide_runs: "docs/python.md",
    the_configuration_guide_runs: "docs/configuration.md",
    the_command_line_guide_runs: "docs/command-line.md",
    the_guide_to_clusters_runs: "docs/clusters.md",
    the_guide_to_fly_runs: "docs/deploying-on-fly.md",
    the_guide_to_gpu_workers_runs: "docs/gpu-worker.md",
    the_guide_to_forecasters_runs: "docs/writing-a-forecaster.md",
    the_guide_to_actors_runs: "docs/writing-an-actor.md",
    the_security_guide_runs: "docs/security.md",
    the_performance_page_runs: "docs/performance.md",
    the_operating_guide_runs: "docs/operating.md",
    the_catalogue_of_faults_runs: "docs/faults.md",
}

#[track_caller]
fn check(path: &str) {
    let not_run = run::run(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut got = BTreeMap::<(String, String), usize>::new();
    for NotRun { language, reason } in not_run {
        *got.entry((language, reason)).or_default() += 1;
    }
    let listed = NOT_RUN.iter().filter(|(document, ..)| *document == path);
    let want: BTreeMap<_, _> = listed
        .map(|(_, language, reason, count)| (((*language).to_owned(), (*reason).to_owned()), *count))
        .collect();
    assert_eq!(got, want, "{path}: blocks that are not run");
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// Every document of the project, wherever it stands.
fn every_document() -> Vec<PathBuf> {
    let mut folders = vec![root().to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir()
                && !path.is_symlink()
                && !name.starts_with('.')
                && name != "target"
                && name != "build"
            {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// README.md and those of docs/, as one text.
fn manual() -> String {
    DOCUMENTS.iter().map(|path| text(path)).collect()
}

#[test]
fn every_document_of_the_manual_is_run() {
    let folder = fs::read_dir(root().join("docs")).expect("docs/");
    let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let mut there: BTreeSet<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    there.insert("README.md".to_owned());
    let listed: BTreeSet<String> = DOCUMENTS.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(there, listed);
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for path in every_document() {
        let document = blocks::read(&fs::read_to_string(&path).expect("text"))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (line, link) in blocks::links(&document) {
            if !leads_somewhere(&path, &link) {
                dead.push(format!("{}:{line}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

fn leads_somewhere(from: &Path, link: &str) -> bool {
    if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") {
        return true; // another's house
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { from.to_owned() } else { from.with_file_name(file) };
    let Some(anchor) = anchor else { return target.exists() };
    let Ok(text) = fs::read_to_string(&target) else { return false };
    blocks::read(&text).is_ok_and(|document| blocks::anchors(&document).iter().any(|known| known == anchor))
}

#[test]
fn every_verb_is_told_of() {
    let manual = manual();
    let mut waiting = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(verb) = waiting.pop() {
        let help = Command::new(env!("CARGO_BIN_EXE_peregrine"))
            .args(&verb)
            .arg("--help")
            .output()
            .expect("the binary starts");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        let names = listed.lines().take_while(|line| line.starts_with("  "));
        // Deeper lines go on with what stands above.
        let names =
            names.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        let verbs = names.filter(|name| *name != "help").map(|name| [&verb[..], &[name.to_owned()]].concat());
        let before = waiting.len();
        waiting.extend(verbs);
        if waiting.len() == before {
            let line = format!("peregrine {}", verb.join(" "));
            assert!(manual.contains(&line), "no document tells of `{line}`");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen} verbs");
}

#[test]
fn the_help_ends_as_every_answer_does() {
    let help = |out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peregrine"));
        command.arg("--help").stdout(out).output().expect("the binary starts")
    };
    // As `| head -1` leaves it.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let seen_enough = help(writer.into());
    assert_eq!((seen_enough.status.code(), &*seen_enough.stderr), (Some(0), &b""[..]));
    let full = fs::File::options().write(true).open("/dev/full").expect("a full disk");
    let unsaid = help(full.into());
    let why = String::from_utf8_lossy(&unsaid.stderr).into_owned();
    assert!(unsaid.status.code() == Some(1) && why.contains("cannot write the answer"), "{why}");
}

#[test]
fn every_section_of_the_configuration_is_told_of() {
    let schema: serde_json::Value = serde_json::from_str(&text("configs/schema.json")).expect("JSON");
    let sections = schema["properties"].as_object().expect("sections");
    let guide = text("docs/configuration.md");
    for name in sections.keys() {
        let (table, list) = (format!("`[{name}]`"), format!("`[[{name}]]`"));
        assert!(
            guide.contains(&table) || guide.contains(&list),
            "docs/configuration.md says nothing of {table}"
        );
    }
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let config: toml::Table = text("configs/local.toml").parse().expect("TOML");
    let rules = config["alerts"]["rules"].as_table().expect("rules");
    let rules: BTreeSet<&str> = rules.keys().map(String::as_str).collect();
    let runbook = text("docs/operating.md");
    let (_, part) = runbook.split_once("\n## Runbook\n").expect("a part `Runbook`");
    let part = part.split("\n## ").next().expect("a text");
    let sections: BTreeSet<&str> = part.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, rules);
}

/// What the harness must find, or the documents could say anything.
#[test]
fn what_does_not_hold_is_found() {
    for (text, part) in [
        ("```sh\nfalse\n```\n", "Some(1)"),
        ("```sh\nexit 3\n```\n", "Some(3)"),
        ("```sh fails=\"3\"\ntrue\n```\n", "not 3"),
        ("```sh\nfalse | cat\n```\n", "Some(1)"),
        ("```sh\necho a\n```\n```console\nb\n```\n", "shown is"),
        ("```console\nb\n```\n", "no block"),
        ("```python\nassert False\n```\n", "AssertionError"),
        ("```toml\n[server]\nlistne = \"x\"\n```\n", "listne"),
        ("```json\n{\n```\n", "EOF"),
        ("```json post=\"/v1/forecast\"\n{\"series\":[]}\n```\n", "400"),
        ("```rust\nfn main() {}\n```\n", "docs/examples"),
        ("```rust excerpt=\"tests/documents.rs\"\nfn nowhere() {}\n```\n", "not in"),
        ("```ruby\np 1\n```\n", "nobody runs"),
        ("```\nx\n```\n", "nobody runs"),
        ("```sh norun=\"x\"\n```\n", "what is"),
        ("```sh serve\nexit 1\n```\n", "not ready"),
    ] {
        let error = run::run(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}
