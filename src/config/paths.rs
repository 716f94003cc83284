//! Do the folders and files that a configuration names exist? What only the built-in layer names may be absent.

use std::path::{Path, PathBuf};

use super::Origin;

/// The usable repositories, and a message for each given one that is not.
pub(super) struct Repositories {
    pub(super) folders: Vec<PathBuf>,
    /// In the order `added`, `written`.
    pub(super) refused: Vec<Option<String>>,
}

/// `added` come first. A built-in folder may be absent when another is there, and where none is needed.
pub(super) fn repositories(
    added: &[PathBuf],
    written: &[PathBuf],
    origin: &Origin,
    needs_none: bool,
) -> Repositories {
    let optional = matches!(origin, Origin::BuiltIn { .. }) && (needs_none || !added.is_empty());
    let mut found = Repositories { folders: Vec::new(), refused: Vec::new() };
    for (at, folder) in added.iter().chain(written).enumerate() {
        let there = folder.is_dir();
        if there {
            found.folders.push(folder.clone());
        }
        let may_lack = at >= added.len() && optional;
        found.refused.push((!there && !may_lack).then(|| {
            format!(
                "there is no folder `{}`{}; name one with --models DIR",
                folder.display(),
                seen_from(folder)
            )
        }));
    }
    found
}

/// `None`: no data. The built-in file may be absent.
pub(super) fn data_file(file: PathBuf, origin: &Origin) -> Result<Option<PathBuf>, String> {
    if file.as_os_str().is_empty() || (matches!(origin, Origin::BuiltIn { .. }) && !file.is_file()) {
        Ok(None)
    } else if file.is_file() {
        Ok(Some(file))
    } else {
        Err(format!("there is no file `{}`{}", file.display(), seen_from(&file)))
    }
}

fn seen_from(path: &Path) -> String {
    match std::env::current_dir() {
        Ok(here) if path.is_relative() => format!(" in {}", here.display()),
        _ => String::new(),
    }
}
