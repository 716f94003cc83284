//! The shipped fly.toml files are what Fly reads and what this product needs. flyctl itself cannot say so: it passes over
//! keys that it does not know, and its own check needs a login.
//!
//! Every rule is shown to bite: a row of `mutations` breaks a shipped file in that one way.

mod cross;
mod fields;
mod mutations;
mod ours;
mod pages;
mod rules;
mod values;

use std::fs;
use std::path::PathBuf;

use rules::Report;

const SHIPPED: [&str; 2] = ["fly.toml", "fly.edge.toml"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shipped(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("fly/{name}: {error}"))
}

/// Of the repository.
fn root() -> PathBuf {
    folder().parent().expect("fly/ is in the repository").to_owned()
}

fn data() -> serde_json::Value {
    let text = fs::read_to_string(folder().join("tests/data/toml-fields.json")).expect("the data is there");
    serde_json::from_str(&text).expect("the data is JSON")
}

fn validated(text: &str) -> Report {
    let (data, folder, root) = (data(), folder(), root());
    let manifest: toml::Table = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut report = Report::default();
    fields::check(&data, &manifest, &mut report);
    cross::check(&data, &manifest, &root, &folder, &mut report);
    ours::check(&manifest, &root, &mut report);
    report.findings.sort();
    report
}

#[test]
fn the_shipped_files_are_valid() {
    for name in SHIPPED {
        let report = validated(&shipped(name));
        let lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "fly/{name}:\n{}", lines.join("\n"));
        assert!(report.notes.is_empty(), "fly/{name} costs more than it says: {:?}", report.notes);
    }
}

#[test]
fn the_edge_is_the_gateway_group_deployed_blue_green() {
    let parse = |name| toml::from_str::<toml::Table>(&shipped(name)).expect("the shipped files are TOML");
    let (whole, edge) = (parse("fly.toml"), parse("fly.edge.toml"));
    for key in ["http_service", "kill_signal", "kill_timeout", "build"] {
        assert_eq!(whole[key], edge[key], "{key} differs");
    }
    assert_eq!(whole["processes"]["gateway"], edge["processes"]["gateway"]);
    assert_eq!(whole["deploy"]["strategy"].as_str(), Some("rolling"));
    assert_eq!(edge["deploy"]["strategy"].as_str(), Some("bluegreen"));
}

#[test]
fn no_shipped_file_mentions_a_gpu_in_a_key_or_value() {
    for name in SHIPPED {
        let manifest: toml::Table = toml::from_str(&shipped(name)).expect("the shipped files are TOML");
        let text = manifest.to_string().to_lowercase();
        for word in ["gpu", "a10", "a100", "l40s", "nvidia"] {
            assert!(!text.contains(word), "fly/{name}: {word}");
        }
    }
}

#[test]
fn udp_and_odd_ports_are_noted_with_their_cost() {
    let service = "\n[[services]]\nprotocol = \"udp\"\ninternal_port = 8081\nprocesses = [\"node\"]\n";
    let text = format!("{}{service}ports = [{{ port = 7946 }}]\n", shipped("fly.toml"));
    let report = validated(&text);
    assert_eq!(report.findings, []);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert!(report.notes[0].contains("services[0]: udp needs a dedicated IPv4"), "{:?}", report.notes);
    let text = text.replace("\"udp\"", "\"tcp\"");
    assert!(validated(&text).notes[0].contains("services[0].ports[0]: needs a dedicated IPv4"));
}
