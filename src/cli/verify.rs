//! `peregrine models verify`: recomputes the cases that come with models, on every backend of this machine, and through
//! kernels that stay on a GPU where they can.

use std::path::Path;
use std::time::Duration;

use peregrine_shaders::verify::{Report, VerifyError, verify, verify_resident};
use peregrine_shaders::{Backend, Executor, LoadError, Precision};
use serde_json::{Value, json};

use super::{CliError, VerifyArgs, print_json, print_table};
use crate::backends;
use crate::catalog::{self, Entry};
use crate::sealed::{Vault, sealed_name};

/// Generous: a software adapter on a busy machine compiles and computes a whole file of cases.
const GPU_TIMEOUT: Duration = Duration::from_secs(60);

/// One model on one backend.
enum Outcome {
    Ran(Report),
    NoCases,
    NotKnownYet { class: String },
    Failed { backend: &'static str, reason: String },
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let mut entries = Vec::new();
    for dir in &args.dirs {
        let found = catalog::find(dir)?;
        if found.is_empty() {
            return Err(CliError::Usage(format!("{}: no model in it", dir.display())));
        }
        entries.extend(found);
    }
    let vault = super::vault()?;
    let mut executors = backends::open_all(args.backend, backends::cores(), GPU_TIMEOUT)?;
    let outcomes: Vec<(Entry, Outcome)> =
        entries.into_iter().flat_map(|entry| outcomes(&entry, &vault, args.halves, &mut executors)).collect();
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.failed()).count();
    if args.json {
        let rows: Vec<Value> = outcomes.iter().map(|(entry, outcome)| outcome.json(entry)).collect();
        print_json(&json!({ "passed": failed == 0, "results": rows }))?;
    } else {
        let header = ["model", "backend", "device", "cases", "worst error", "result"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(outcomes.iter().map(|(entry, outcome)| outcome.cells(entry)));
        print_table(&rows)?;
    }
    if failed > 0 {
        Err(CliError::Reported(format!("{failed} of {} failed", outcomes.len())))
    } else {
        Ok(())
    }
}

fn outcomes(
    entry: &Entry,
    vault: &Vault,
    halves: bool,
    executors: &mut [Box<dyn Executor>],
) -> Vec<(Entry, Outcome)> {
    if let Err(LoadError::UnknownFamily { class }) = catalog::load(entry, vault) {
        return vec![(entry.clone(), Outcome::NotKnownYet { class })];
    }
    let is_there = |file: &str| {
        let path = entry.dir.join(file);
        path.is_file() || sealed_name(&path).is_file()
    };
    if !["model.json", "cases.safetensors"].into_iter().all(is_there) {
        return vec![(entry.clone(), Outcome::NoCases)];
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
            Self::Failed { .. } => true,
            Self::NoCases | Self::NotKnownYet { .. } => false,
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
            Self::NotKnownYet { class } => {
                ["-", "-", "-", "-", &format!("not known yet: {class}")].map(str::to_owned)
            }
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
            Self::NotKnownYet { class } => {
                json!({ "model": model, "result": "not known yet", "class": class })
            }
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
