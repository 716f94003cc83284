//! fly/Dockerfile, as far as a text can be checked without building it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// An instruction: its word and what follows, lines that go on joined.
type Instruction = (String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("fly/ is in the repository").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn instructions() -> Vec<Instruction> {
    let text = read("fly/Dockerfile");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            (word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// What the image is made by, from its last FROM on.
fn last_stage() -> Vec<Instruction> {
    let all = instructions();
    let from = all.iter().rposition(|(word, _)| word == "FROM").expect("a base");
    all[from..].to_vec()
}

fn all_of(stage: &[Instruction], word: &str) -> Vec<String> {
    stage.iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.clone()).collect()
}

/// What an ARG stands for when nothing is given.
fn argument(name: &str) -> String {
    let all = all_of(&instructions(), "ARG");
    let found = all.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("there is no ARG {name} with a value")).to_owned()
}

/// Sources of COPY from the repository.
fn copied() -> Vec<String> {
    let mut sources = Vec::new();
    for copy in all_of(&instructions(), "COPY").iter().filter(|copy| !copy.contains("--from=")) {
        let mut words: Vec<&str> = copy.split(' ').filter(|word| !word.starts_with("--")).collect();
        words.pop().expect("a COPY has a target");
        sources.extend(words.into_iter().map(str::to_owned));
    }
    sources
}

#[test]
fn both_bases_are_arguments_with_a_version_of_one_debian() {
    let (build, run) = (argument("BUILD_IMAGE"), argument("RUN_IMAGE"));
    assert_eq!(all_of(&instructions(), "FROM"), ["${BUILD_IMAGE} AS build", "${RUN_IMAGE}"]);
    for image in [&build, &run] {
        let tag = image.split_once(':').expect("a base has a tag").1;
        assert!(
            tag != "latest" && tag.contains("bookworm"),
            "{image}: its libc may be newer than the other's"
        );
    }
    // The compiler is the one that the workspace asks for.
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).expect("Cargo.toml is TOML");
    let version = workspace["workspace"]["package"]["rust-version"].as_str().expect("a rust-version");
    assert!(build.starts_with(&format!("rust:{version}.")), "{build} is not {version}");
}

#[test]
fn the_build_takes_the_crates_of_the_lock_file() {
    let runs = all_of(&instructions(), "RUN");
    assert!(
        runs.iter().any(|run| run.contains("cargo build --release --locked --bin peregrine")),
        "{runs:?}"
    );
}

#[test]
fn the_node_is_not_root_and_is_told_to_stop_as_fly_tells_it() {
    let stage = last_stage();
    let users = all_of(&stage, "USER");
    let last = users.last().expect("a USER");
    let id: u32 =
        last.split(':').next().expect("a user").parse().expect("by number: no name can be another's");
    assert!(id >= 10_000, "{id} may be somebody on the host");
    let manifest: toml::Table = toml::from_str(&read("fly/fly.toml")).expect("fly.toml is TOML");
    assert_eq!(all_of(&stage, "STOPSIGNAL"), [manifest["kill_signal"].as_str().expect("a signal")]);
    // Passes signals on, which a shell would not do, and takes in processes whose parents have ended.
    assert!(all_of(&stage, "RUN").join(" ").split(' ').any(|word| word == "tini"));
    assert_eq!(
        all_of(&stage, "ENTRYPOINT"),
        [r#"["/usr/bin/tini", "-s", "--", "/usr/local/bin/entrypoint"]"#]
    );
    assert!(read("fly/entrypoint.sh").lines().last().expect("a last line").starts_with("exec "));
    let at = |word: &str| stage.iter().rposition(|(found, _)| found == word).expect(word);
    assert!(
        at("RUN") < at("USER") && at("COPY") < at("USER"),
        "what the image holds is root's, and not the node's"
    );
}

#[test]
fn nothing_secret_is_in_it() {
    for (word, rest) in instructions() {
        let named = ["ARG", "ENV"].contains(&word.as_str());
        let upper = rest.to_uppercase();
        for secret in ["SECRET", "TOKEN", "PASSWORD", "API_KEY", "MODEL_KEY", "PRIVATE"] {
            assert!(!(named && upper.contains(secret)), "{word} {rest}");
        }
    }
    assert!(
        !all_of(&instructions(), "COPY").iter().any(|copy| copy.starts_with(". ")),
        "name what is copied"
    );
}

#[test]
fn what_is_copied_is_there_and_is_all_that_is_sent() {
    let sources = copied();
    for source in &sources {
        assert!(root().join(source).exists(), "{source}");
    }
    let ignored = read(".dockerignore");
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*", "nothing is sent that is not named");
    let sent: BTreeSet<&str> = lines.iter().filter_map(|line| line.strip_prefix('!')).collect();
    assert_eq!(sent, sources.iter().map(String::as_str).collect(), "sent, and copied");
}

#[test]
fn the_workspace_is_whole_in_the_build() {
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).expect("Cargo.toml is TOML");
    let members = workspace["workspace"]["members"].as_array().expect("members");
    let sources = copied();
    for member in members.iter().filter_map(toml::Value::as_str) {
        for needed in [format!("{member}/Cargo.toml"), format!("{member}/src")] {
            let is_there = sources.iter().any(|source| Path::new(&needed).starts_with(source));
            assert!(is_there, "{needed} is not copied");
        }
    }
}

#[test]
fn what_the_configurations_listen_on_is_exposed() {
    let mut listened = BTreeSet::new();
    for name in ["fly-gateway.toml", "fly-node.toml"] {
        let config: toml::Table = toml::from_str(&read(&format!("configs/{name}"))).expect("TOML");
        for (section, protocol) in [("server", "tcp"), ("cluster", "udp")] {
            let listen = config[section]["listen"].as_str().expect("an address");
            listened.insert(format!("{}/{protocol}", listen.rsplit(':').next().expect("a port")));
        }
    }
    let exposed = all_of(&last_stage(), "EXPOSE").join(" ");
    assert_eq!(exposed.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), listened);
}

#[test]
fn a_gpu_of_nvidia_can_be_found() {
    let stage = last_stage();
    let installed = all_of(&stage, "RUN").join(" ");
    // Without any one of these its driver finds no device.
    for package in ["libvulkan1", "libegl1", "libx11-6", "libxext6"] {
        assert!(installed.split(' ').any(|word| word == package), "{package}");
    }
    assert!(all_of(&stage, "ENV").iter().any(|env| env.contains("NVIDIA_DRIVER_CAPABILITIES=graphics")));
}
