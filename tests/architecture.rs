//! The arrows between the crates, read from the manifests: what nothing enforces is only a wish.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Crate folder, the crates of ours it may use, and technologies it must never name.
const HOUSE: [(&str, &[&str], &[&str]); 7] = [
    ("shaders", &[], &["actix", "actix-web", "tokio", "serde_yaml", "reqwest"]),
    ("benches/load", &[], &["actix", "actix-web", "tokio", "wgpu", "ureq"]),
    ("runtime", &[], &["wgpu", "naga", "actix-web", "safetensors"]),
    ("actors/scaler", &[], &["actix", "actix-web", "tokio", "wgpu", "ureq"]),
    ("fly", &["peregrine_scaler"], &["actix", "actix-web", "tokio", "wgpu"]),
    (
        "actors",
        &["peregrine_runtime", "peregrine_scaler", "peregrine_shaders"],
        &["actix-web", "wgpu", "toml", "serde_json"],
    ),
    (
        ".",
        &[
            "peregrine_actors",
            "peregrine_fly",
            "peregrine_load",
            "peregrine_runtime",
            "peregrine_scaler",
            "peregrine_shaders",
        ],
        &["wgpu", "naga", "safetensors"],
    ),
];

fn dependencies(folder: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let manifest: toml::Table =
        toml::from_str(&text).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let Some(table) = manifest.get("dependencies").and_then(toml::Value::as_table) else {
        return BTreeSet::new();
    };
    table.keys().cloned().collect()
}

#[test]
fn arrows_point_inward() {
    for (folder, may_use, never_sees) in HOUSE {
        let dependencies = dependencies(folder);
        let ours: BTreeSet<&str> =
            dependencies.iter().map(String::as_str).filter(|name| name.starts_with("peregrine")).collect();
        let allowed: BTreeSet<&str> = may_use.iter().copied().collect();
        assert!(ours.is_subset(&allowed), "{folder} depends on {ours:?} but may only use {allowed:?}");
        for name in never_sees {
            assert!(!dependencies.contains(*name), "{folder} must not see {name}");
        }
    }
}

#[test]
fn every_member_is_in_the_house() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    for member in members {
        let member = member.as_str().unwrap();
        assert!(HOUSE.iter().any(|(folder, ..)| *folder == member), "{member} has no row in HOUSE");
    }
}
