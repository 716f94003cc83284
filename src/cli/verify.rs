//! `peregrine models verify`: recomputes the cases that come with models, on every backend of this machine, and through
//! kernels that stay on a GPU where they can.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use peregrine_shaders::place::CASES;
use peregrine_shaders::verify::{Report, VerifyError, verify, verify_resident};
use peregrine_shaders::{Backend, Executor, Files as _, Precision};
use serde_json::{Value, json};

use super::models::warn_of_overlooked;
use super::options::vault;
use super::{CliError, print_json, print_table};
use crate::backends;
use crate::catalog::{self, Entry};
use crate::config::BackendChoice;
use crate::sealed::Vault;

/// Generous: a software adapter on a busy machine compiles and computes a whole file of cases.
const GPU_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Model folder, or folder of model folders
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Only this device; auto: the CPU and every Vulkan adapter
    #[arg(long, value_enum, default_value = "auto")]
    backend: BackendChoice,
    /// With matrices of halves as well, as the profiles high_throughput and memory_optimized have them
    #[arg(long)]
    halves: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One model on one backend.
enum Outcome {
    Ran(Report),
    NoCases,
    /// It does not load.
    Refused {
        reason: String,
    },
    Failed {
        backend: &'static str,
        reason: String,
    },
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let mut entries = Vec::new();
    for dir in &args.dirs {
        let found = catalog::find(dir)?;
        if found.is_empty() {
            return Err(CliError::Usage(format!("{}: no model in it", dir.display())));
        }
        entries.extend(found);
        warn_of_overlooked(&[dir])?;
    }
    let vault = vault()?;
    let mut executors = backends::open_all(args.backend, backends::cores(), GPU_TIMEOUT)?;
    let outcomes: Vec<(Entry, Outcome)> =
        entries.into_iter().flat_map(|entry| outcomes(&entry, &vault, args.halves, &mut executors)).collect();
    let conclusion = conclusion(outcomes.iter().map(|(_, outcome)| outcome));
    if args.json {
        let rows: Vec<Value> = outcomes.iter().map(|(entry, outcome)| outcome.json(entry)).collect();
        print_json(&json!({ "passed": conclusion.is_ok(), "results": rows }))?;
    } else {
        let header = ["model", "backend", "device", "cases", "worst error", "result"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(outcomes.iter().map(|(entry, outcome)| outcome.cells(entry)));
        print_table(&rows)?;
    }
    conclusion
}

/// Good where something was verified and nothing failed.
fn conclusion<'a>(outcomes: impl ExactSizeIterator<Item = &'a Outcome>) -> Result<(), CliError> {
    let (all, mut failed, mut ran) = (outcomes.len(), 0, 0);
    for outcome in outcomes {
        failed += usize::from(outcome.failed());
        ran += usize::from(matches!(outcome, Outcome::Ran(_)));
    }
    if failed > 0 {
        return Err(CliError::Reported(format!("{failed} of {all} failed")));
    }
    if ran == 0 {
        let why = "nothing was verified: no model has a cases.safetensors that this build can compute";
        return Err(CliError::Reported(why.to_owned()));
    }
    Ok(())
}

fn outcomes(
    entry: &Entry,
    vault: &Vault,
    halves: bool,
    executors: &mut [Box<dyn Executor>],
) -> Vec<(Entry, Outcome)> {
    let cases = entry.dir.join(CASES);
    let only = match catalog::load(entry, vault) {
        Err(refused) => Some(Outcome::Refused { reason: refused.to_string() }),
        // What lies there and is no file is an error of whoever reads it.
        Ok(_) if vault.holds(&cases) || cases.symlink_metadata().is_ok() => None,
        Ok(_) => Some(Outcome::NoCases),
    };
    if let Some(only) = only {
        return vec![(entry.clone(), only)];
    }
    let on_each = executors.iter_mut().flat_map(|executor| on(&entry.dir, vault, halves, executor.as_mut()));
    on_each.map(|outcome| (entry.clone(), outcome)).collect()
}

/// On a GPU a second time where the model can stay there; and with matrices of halves, where that is wanted.
fn on(dir: &Path, vault: &Vault, halves: bool, executor: &mut dyn Executor) -> Vec<Outcome> {
    let backend = executor.backend();
    let failed = |error: VerifyError| Outcome::Failed { backend: backend.name(), reason: error.to_string() };
    let precisions = if halves { &[Precision::F32, Precision::F16][..] } else { &[Precision::F32] };
    let of =
        |precision: &Precision| verify(dir, vault, *precision, executor).map_or_else(failed, Outcome::Ran);
    let mut outcomes: Vec<Outcome> = precisions.iter().map(of).collect();
    if backend == Backend::Gpu
        && let Some(staying) = verify_resident(dir, vault, executor).transpose()
    {
        outcomes.push(staying.map_or_else(failed, Outcome::Ran));
    }
    outcomes
}

impl Outcome {
    fn failed(&self) -> bool {
        match self {
            Self::Ran(report) => !report.passed,
            Self::Refused { .. } | Self::Failed { .. } => true,
            Self::NoCases => false,
        }
    }

    fn cells(&self, entry: &Entry) -> Vec<String> {
        let cells = match self {
            Self::Ran(report) => [
                report.backend.name().to_owned(),
                match report.precision {
                    Precision::F16 => format!("{}, halves", report.device),
                    Precision::F32 | Precision::Int8 => report.device.clone(),
                },
                report.cases.len().to_string(),
                format!("{:.2e}", report.worst),
                verdict(report),
            ],
            Self::NoCases => ["-", "-", "0", "-", "no cases"].map(str::to_owned),
            Self::Refused { reason } => ["-", "-", "-", "-", reason.as_str()].map(str::to_owned),
            Self::Failed { backend, reason } => [backend, "-", "-", "-", reason.as_str()].map(str::to_owned),
        };
        std::iter::once(label(entry)).chain(cells).collect()
    }

    fn json(&self, entry: &Entry) -> Value {
        let model = label(entry);
        match self {
            Self::Ran(report) => json!({
                "model": model,
                "backend": report.backend.name(),
                "device": report.device,
                "precision": report.precision.name(),
                "cases": report.cases.len(),
                "failed_cases": report.cases.iter().filter(|case| !case.pass).map(|case| case.index).collect::<Vec<_>>(),
                "worst_error": report.worst,
                "result": if report.passed { "pass" } else { "fail" },
            }),
            Self::NoCases => json!({ "model": model, "result": "no cases" }),
            Self::Refused { reason } => json!({ "model": model, "result": "fail", "reason": reason }),
            Self::Failed { backend, reason } => {
                json!({ "model": model, "backend": backend, "result": "fail", "reason": reason })
            }
        }
    }
}

fn verdict(report: &Report) -> String {
    let failed: Vec<String> = report
        .cases
        .iter()
        .filter(|case| !case.pass)
        .map(|case| format!("{} ({})", case.index, case.tag))
        .collect();
    if report.passed { "pass".to_owned() } else { format!("FAIL: cases {}", failed.join(", ")) }
}

fn label(entry: &Entry) -> String {
    match entry.dir.file_name() {
        Some(last) if last.to_string_lossy() != entry.name => format!("{} v{}", entry.name, entry.version),
        _ => entry.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use peregrine_shaders::cpu::CpuExecutor;

    use super::*;

    const MODEL: &str = "tests/models/dlinear-vol-point";

    /// What a folder with these files of a model comes to, and what is said of it.
    fn verified(files: &[&str], change: impl Fn(&Path)) -> (Outcome, Result<(), CliError>) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::copy(Path::new(MODEL).join(file), dir.path().join(file)).unwrap();
        }
        change(dir.path());
        let entry = Entry { name: "m".to_owned(), version: 1, dir: dir.path().to_owned() };
        let mut executors: [Box<dyn Executor>; 1] = [Box::new(CpuExecutor::new(1))];
        let mut outcomes = outcomes(&entry, &Vault::default(), false, &mut executors);
        assert_eq!(outcomes.len(), 1);
        let conclusion = conclusion(outcomes.iter().map(|(_, outcome)| outcome));
        (outcomes.remove(0).1, conclusion)
    }

    #[test]
    fn a_folder_that_does_not_load_has_failed_with_cases_or_without() {
        let cut = |dir: &Path| {
            let weights = fs::read(dir.join("weights.safetensors")).unwrap();
            fs::write(dir.join("weights.safetensors"), &weights[..weights.len() - 1]).unwrap();
        };
        for files in [
            &["model.json", "weights.safetensors"][..],
            &["model.json", "weights.safetensors", "cases.safetensors"],
        ] {
            let (outcome, conclusion) = verified(files, cut);
            assert!(matches!(outcome, Outcome::Refused { reason } if reason.contains("weights.safetensors")));
            assert_eq!(conclusion.unwrap_err().to_string(), "1 of 1 failed");
        }
    }

    #[test]
    fn a_model_of_an_unknown_class_has_failed() {
        let rename = |dir: &Path| {
            let path = dir.join("model.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("\"DLinear\""));
            fs::write(&path, text.replace("\"DLinear\"", "\"Later\"")).unwrap();
        };
        let files = ["model.json", "weights.safetensors", "cases.safetensors"];
        let (outcome, conclusion) = verified(&files, rename);
        assert!(matches!(outcome, Outcome::Refused { reason } if reason.contains("Later")));
        assert_eq!(conclusion.unwrap_err().to_string(), "1 of 1 failed");
    }

    #[test]
    fn cases_that_are_no_file_are_not_no_cases() {
        let folder = |dir: &Path| fs::create_dir(dir.join("cases.safetensors")).unwrap();
        let (outcome, conclusion) = verified(&["model.json", "weights.safetensors"], folder);
        assert!(matches!(outcome, Outcome::Failed { reason, .. } if reason.contains("cases.safetensors")));
        assert_eq!(conclusion.unwrap_err().to_string(), "1 of 1 failed");
    }

    #[test]
    fn the_librarys_own_file_is_verified_by_the_cases_beside_it() {
        let (outcome, conclusion) = verified(&["native.safetensors", "cases.safetensors"], |_| {});
        assert!(matches!(outcome, Outcome::Ran(report) if report.passed && !report.cases.is_empty()));
        conclusion.unwrap();
    }

    #[test]
    fn where_nothing_was_verified_nothing_is_good() {
        let (outcome, conclusion) = verified(&["model.json", "weights.safetensors"], |_| {});
        assert!(matches!(outcome, Outcome::NoCases));
        assert!(conclusion.unwrap_err().to_string().starts_with("nothing was verified"));
        // Beside one that was, it does no harm.
        let (ran, _) = verified(&["model.json", "weights.safetensors", "cases.safetensors"], |_| {});
        super::conclusion([ran, outcome].iter()).unwrap();
    }
}
