//! `peregrine models tune`: what one process measured, the next one knows, and a node counts it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{NodeProcess, request};

fn tune(cache: &Path, seconds: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["models", "tune", "--backend", "software", "--json", "--seconds", seconds])
        .env("PEREGRINE_BACKEND__KERNEL_CACHE", cache)
        // As under a service manager, or in a container.
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("WAYLAND_DISPLAY")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("XDG_RUNTIME_DIR"), "a display is nobody's business: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_one_process_measured_the_next_one_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = tune(folder.path(), "2");
    assert!(first["measured"].as_u64() > Some(0), "{first}");
    assert_eq!(first["known"], 0);
    let second = tune(folder.path(), "0");
    assert_eq!((&second["measured"], &second["known"]), (&Value::from(0), &first["measured"]));
    assert_eq!(second["choices"], first["choices"]);

    let cache = folder.path().to_str().expect("a plain name");
    let node =
        NodeProcess::start_with(&["--backend", "software"], &[("PEREGRINE_BACKEND__KERNEL_CACHE", cache)]);
    let devices = request(node.addr, "GET", "/metrics/gpu", &[], b"").json()["devices"].clone();
    let gpu = devices.as_array().and_then(|all| all.iter().find(|device| device["backend"] == "gpu"));
    let kernels = &gpu.expect("a software device")["kernels"];
    assert_eq!((&kernels["measured_choices"], &kernels["refused"]), (&first["measured"], &Value::from(0)));
}

#[test]
fn without_a_gpu_there_is_nothing_to_measure() {
    let output = Command::new(env!("CARGO_BIN_EXE_peregrine"))
        .args(["models", "tune", "--backend", "cpu"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("there is no GPU whose kernels could be measured")
    );
}
