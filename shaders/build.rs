//! Stops the build at a kernel that naga would refuse, naming file and line, instead of at the first start.

use std::fs;
use std::path::Path;

use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Appended to every kernel; after it, so that the lines of an error are those of the kernel's file.
const SHARED: &str = "wgsl/activation.wgsl";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=wgsl");
    let mut refused = false;
    for entry in fs::read_dir("wgsl").expect("shaders/wgsl is part of the crate") {
        let path = entry.expect("shaders/wgsl is readable").path();
        if path.extension().is_some_and(|extension| extension == "wgsl")
            && let Err(reason) = validate(&path)
        {
            // One `error` line each: cargo shows only the first line of a directive.
            println!("cargo::error=shaders/{}:{reason}", path.display());
            refused = true;
        }
    }
    if refused {
        std::process::exit(1);
    }
}

/// `Err("line:column: reason")`.
fn validate(path: &Path) -> Result<(), String> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("1:1: {error}"));
    let mut source = read(path)?;
    if !path.ends_with(SHARED) {
        source.push_str(&read(Path::new(SHARED))?);
    }
    let at = |location: Option<naga::SourceLocation>| {
        location.map_or("1:1".to_owned(), |l| format!("{}:{}", l.line_number, l.line_position))
    };
    let module = wgsl::parse_str(&source)
        .map_err(|error| format!("{}: {}", at(error.location(&source)), error.message()))?;
    Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
        .validate(&module)
        .map_err(|error| {
            let reason =
                std::iter::successors(Some(error.as_inner() as &dyn std::error::Error), |e| e.source());
            let chain = reason.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            format!("{}: {chain}", at(error.location(&source)))
        })?;
    Ok(())
}
