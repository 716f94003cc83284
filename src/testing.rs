//! What unit tests of several rooms need alike.

#[cfg(test)]
pub(crate) mod memory;

#[cfg(test)]
use std::process::{Command, Stdio};

use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};

/// A model of one value per step, without exogenous columns.
pub(crate) fn point_spec(window: usize, horizon: usize) -> ModelSpec {
    ModelSpec {
        name: "m".to_owned(),
        family: Family::Mlp,
        horizon,
        window,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["mean".to_owned()],
    }
}

/// A model of `series` series at once, with as many columns as names.
pub(crate) fn series_spec(window: usize, horizon: usize, series: usize, columns: &[&str]) -> ModelSpec {
    ModelSpec {
        family: Family::Tsmixer,
        series,
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        ..point_spec(window, horizon)
    }
}

/// Runs a test of this binary in a process that has a small disk of its own, whose folder is in the variable `key`.
/// The test says `went on` when it is through.
#[cfg(test)]
pub(crate) fn on_small_disk(test: &str, size: &str, key: &str) {
    let dir = tempfile::TempDir::new().unwrap();
    for namespaces in ["--mount", "-rm"] {
        let child = std::env::current_exe().unwrap();
        let script = format!(
            "mount -t tmpfs -o size={size} none \"$0\" && echo mounted && exec \"$1\" \"$2\" --exact --nocapture"
        );
        let output = Command::new("unshare")
            .args([namespaces, "sh", "-c", &script])
            .args([dir.path(), &child])
            .arg(test)
            .env(key, dir.path())
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else { continue };
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("mounted") {
            assert!(
                output.status.success() && said.contains("went on"),
                "{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
    }
    eprintln!("not checked: this machine lets nobody mount a file system");
}
