//! `peregrine audit show | verify | replay`: reads the records of a node, beside it or without it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use peregrine_actors::audit::{Link, Record};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::verify::{HALVES_TOLERANCE, tolerance};
use peregrine_shaders::{Backend, ExecuteError, LoadError, Precision, Scratch};
use serde_json::{Value, json};

use super::options::{ConfigArgs, ModelsArgs};
use super::{CliError, print_json, print_line, print_text, say};
use crate::audit::{Folder, Located, ReadError, View};
use crate::backends;
use crate::catalog::{self, Entry};
use crate::sealed::Vault;

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// Show a prediction's record: by its id, the caller's own of a V2 request, or model/series#seq@epoch of a stream
    Show(ShowArgs),
    /// Read all records and name what was edited, removed, added or moved
    Verify(VerifyArgs),
    /// Compute a prediction again on the CPU and compare, bit for bit if the CPU had made it
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub(super) struct RecordsArgs {
    /// Folder of records; default: audit.dir of the configuration
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    records: RecordsArgs,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A link that was kept elsewhere, as /v1/audit and the log show it: the chain has to go through it
    #[arg(long, value_name = "LINK")]
    through: Option<Link>,
    #[command(flatten)]
    records: RecordsArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    models: ModelsArgs,
    #[command(flatten)]
    records: RecordsArgs,
}

/// Why a record is not shown or computed again. The operator acts.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    /// The folder cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing that a node writes is there.
    #[error("{}: there are no records here", .0.display())]
    NoRecords(PathBuf),
    /// There is none, or it was dropped since.
    #[error("{}: no prediction `{id}` is recorded here", dir.display())]
    NoRecord { dir: PathBuf, id: String },
    /// Somebody has changed it.
    #[error("the record in segment {segment} at byte {at} was edited: see `peregrine audit verify`")]
    Edited { segment: u64, at: u64 },
    /// Its model is in no repository.
    #[error("no repository holds version {version} of model `{model}`")]
    NoModel { model: String, version: u32 },
    /// Another one is.
    #[error(
        "version {version} of model `{model}` has the weights {found}, and the prediction was made with {recorded}"
    )]
    OtherWeights { model: String, version: u32, found: String, recorded: String },
    /// The model cannot be read.
    #[error("model `{model}`: {source}")]
    Load { model: String, source: LoadError },
    /// It cannot be computed.
    #[error("it cannot be computed again: {0}")]
    Execute(#[from] ExecuteError),
    /// Windows of another shape.
    #[error("it cannot be computed again: {0}")]
    Window(#[from] peregrine_shaders::WindowError),
}

pub(super) fn run(verb: &AuditVerb) -> Result<(), CliError> {
    match verb {
        AuditVerb::Show(args) => show(args),
        AuditVerb::Verify(args) => verify(args),
        AuditVerb::Replay(args) => replay(args),
    }
}

fn show(args: &ShowArgs) -> Result<(), CliError> {
    let located = located(&folder(&args.records)?, &args.id)?;
    let view = View::of(&located);
    if args.records.json {
        let text = serde_json::to_string_pretty(&view).map_err(io::Error::other)?;
        print_line(text)?;
    } else {
        print_view(&view)?;
    }
    if located.is_intact { Ok(()) } else { Err(edited(&located).into()) }
}

fn print_view(view: &View<'_>) -> io::Result<()> {
    let mut out = Vec::new();
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let intact = if view.intact { "intact" } else { "EDITED" };
    for (name, value) in [
        ("record", format!("segment {}, byte {}, {intact}", view.segment, view.at)),
        ("answered", format!("{} ms since 1970", view.at_ms)),
        ("caller", or_none(view.caller)),
        ("request", or_none(view.request)),
        ("model", format!("{} v{}", view.model, view.model_version)),
        ("weights", format!("{}, {}", view.sha256, view.precision)),
        ("computed by", format!("{} of {} in {}", view.backend, view.node, view.region)),
        ("degraded", view.degraded.to_string()),
        ("took", format!("{:.3} ms, of that {:.3} queued", view.timing_ms.total, view.timing_ms.queue)),
        ("windows", format!("{} rows, SHA-256 {}", view.rows_count, view.window_sha256)),
    ] {
        writeln!(out, "{name:<12} {value}")?;
    }
    if let Some(others) = others(&view.others) {
        writeln!(out, "others       {others}")?;
    }
    for row in &view.rows {
        writeln!(out, "\nprediction {} of {}", row.prediction_id, row.series.unwrap_or("-"))?;
        if let (Some(seq), Some(epoch)) = (row.seq, row.epoch) {
            writeln!(out, "stream       number {seq} of epoch {epoch}")?;
        }
        writeln!(out, "window       {}", numbers(row.y))?;
        for (name, part) in [
            ("mask", row.mask.unwrap_or_default()),
            ("hist_exog", row.hist_exog),
            ("futr_exog", row.futr_exog),
            ("stat_exog", row.stat_exog),
        ] {
            if !part.is_empty() {
                writeln!(out, "{name:<12} {}", numbers(part))?;
            }
        }
        writeln!(out, "forecast     {}", numbers(row.forecast))?;
    }
    print_text(&String::from_utf8_lossy(&out))
}

/// That older records have the name too, and by what else they are found.
fn others(others: &[String]) -> Option<String> {
    const NAMED_MAX: usize = 8;
    let named = others[..others.len().min(NAMED_MAX)].join(" ");
    let more = if others.len() > NAMED_MAX { " …" } else { "" };
    let count = others.len();
    (count > 0).then(|| format!("{count} older records of this name, with the predictions {named}{more}"))
}

fn numbers(numbers: &[f32]) -> String {
    numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(" ")
}

fn verify(args: &VerifyArgs) -> Result<(), CliError> {
    let (folder, dir) = folder(&args.records)?;
    if folder.is_empty().map_err(AuditError::from)? {
        return Err(AuditError::NoRecords(dir).into());
    }
    let report = folder.verify(args.through).map_err(AuditError::from)?;
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    if args.records.json {
        print_json(&json!({
            "intact": faults.is_empty(),
            "faults": faults,
            "segments": report.segments,
            "records": report.records,
            "segments_dropped": report.dropped.iter().map(|(from, to)| to - from + 1).sum::<u64>(),
            "unrecorded": report.unrecorded,
            "killed": report.killed,
            "torn_bytes": report.torn_bytes,
            "link": report.link.to_string(),
        }))?;
    } else {
        for fault in &faults {
            print_line(fault)?;
        }
        print_line(format_args!(
            "{} records in {} segments, the last link {}",
            report.records, report.segments, report.link
        ))?;
        for (from, to) in &report.dropped {
            print_line(format_args!(
                "segments {from} to {to} are gone: they were dropped, as the chain says"
            ))?;
        }
        for (count, what) in [
            (report.unrecorded, "predictions were answered without a record"),
            (report.killed, "times the node was killed, with what had waited in its memory"),
            (report.torn_bytes, "bytes are being written, or were when the node was killed"),
        ] {
            if count > 0 {
                print_line(format_args!("{count} {what}"))?;
            }
        }
    }
    match faults.len() {
        0 => Ok(()),
        count => Err(CliError::Reported(format!("the records were changed: {count} faults"))),
    }
}

fn replay(args: &ReplayArgs) -> Result<(), CliError> {
    let RecordsArgs { config, json, .. } = &args.records;
    let located = located(&folder(&args.records)?, &args.id)?;
    if !located.is_intact {
        return Err(edited(&located).into());
    }
    let config = config.resolved(&args.models)?.config;
    let entries = catalog::scan(&config.models.repositories)?;
    let again = again(&located.record, &entries, &config.models.vault)?;
    if let Some(others) = others(&View::of(&located).others) {
        say(others);
    }
    let holds = again.holds();
    if *json {
        print_json(&again.json(&located.record))?;
    } else {
        print_line(again.sentence(&located.record))?;
    }
    if holds { Ok(()) } else { Err(CliError::Reported("the CPU computes something else".to_owned())) }
}

/// A prediction that was computed again.
struct Again {
    backend: Backend,
    /// Numbers of other bits.
    different: usize,
    numbers: usize,
    /// `max|recorded − computed| / max|computed|` over the request.
    error: f64,
    /// Of what a device computed.
    tolerance: f64,
}

impl Again {
    fn holds(&self) -> bool {
        match self.backend {
            Backend::Cpu => self.different == 0,
            Backend::Gpu => self.error <= self.tolerance,
        }
    }

    fn json(&self, record: &Record) -> Value {
        json!({
            "model": record.model,
            "model_version": record.version.to_string(),
            "backend": self.backend.name(),
            "rows": record.windows.rows,
            "numbers": self.numbers,
            "different_bits": self.different,
            "error": self.error,
            "tolerance": if self.backend == Backend::Gpu { Some(self.tolerance) } else { None },
            "holds": self.holds(),
        })
    }

    fn sentence(&self, record: &Record) -> String {
        let Self { different, numbers, error, tolerance, .. } = self;
        let what = format!("{} v{}, {} rows", record.model, record.version, record.windows.rows);
        match (self.backend, self.holds()) {
            (Backend::Cpu, true) => format!("{what}: {numbers} numbers, equal bit for bit"),
            (Backend::Cpu, false) => {
                format!("{what}: {different} of {numbers} numbers differ, the largest error is {error:.2e}")
            }
            (Backend::Gpu, holds) => {
                let verdict = if holds { "within" } else { "BEYOND" };
                format!(
                    "{what}: made on a GPU; the largest error is {error:.2e}, {verdict} the {tolerance:.0e} of the model"
                )
            }
        }
    }
}

fn again(record: &Record, entries: &[Entry], vault: &Vault) -> Result<Again, AuditError> {
    let (model, version) = (record.model.clone(), record.version);
    let entry = entries.iter().find(|entry| entry.name == model && entry.version == version);
    let entry = entry.ok_or_else(|| AuditError::NoModel { model: model.clone(), version })?;
    let loaded = catalog::load(entry, vault);
    let mut forecaster = loaded.map_err(|source| AuditError::Load { model: model.clone(), source })?;
    let mut tolerance = tolerance(&entry.dir, vault);
    let (_, precision) = Precision::of_digest(&record.digest);
    if precision != Precision::F32
        && let Some(rounded) = forecaster.rounded(precision)
    {
        forecaster = rounded;
        // Only halves are multiplied in another way elsewhere.
        tolerance = if precision == Precision::F16 { tolerance.max(HALVES_TOLERANCE) } else { tolerance };
    }
    if forecaster.digest() != record.digest {
        let (found, recorded) = (forecaster.digest().to_owned(), record.digest.clone());
        return Err(AuditError::OtherWeights { model, version, found, recorded });
    }
    record.windows.check(forecaster.spec())?;
    let mut executor = CpuExecutor::new(backends::cores());
    let mut computed = Vec::new();
    forecaster.forecast(&mut executor, &record.windows, &mut Scratch::default(), &mut computed)?;
    Ok(compared(record, &computed, tolerance))
}

fn compared(record: &Record, computed: &[f32], tolerance: f64) -> Again {
    let pairs = || record.values.iter().zip(computed);
    let unpaired = record.values.len().abs_diff(computed.len());
    let size = computed.iter().map(|number| f64::from(number.abs())).fold(0.0, f64::max);
    let off = pairs().map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max);
    let error = match (unpaired, off) {
        (0, 0.0) => 0.0,
        (0, off) => off / size,
        _ => f64::INFINITY,
    };
    Again {
        backend: record.backend,
        different: pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count() + unpaired,
        numbers: record.values.len(),
        error,
        tolerance,
    }
}

/// The folder, and its name.
fn folder(args: &RecordsArgs) -> Result<(Folder, PathBuf), CliError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => {
            let part = args.config.resolved_without_models()?.config.audit;
            part.ok_or_else(|| {
                CliError::Usage("no records: give --dir, or a --config with audit.dir".to_owned())
            })?
            .dir
        }
    };
    if !dir.is_dir() {
        return Err(CliError::Usage(format!("{}: no such folder", dir.display())));
    }
    Ok((Folder::at(&dir), dir))
}

fn located((folder, dir): &(Folder, PathBuf), id: &str) -> Result<Located, AuditError> {
    let found = folder.find(id)?;
    found.ok_or_else(|| AuditError::NoRecord { dir: dir.clone(), id: id.to_owned() })
}

fn edited(located: &Located) -> AuditError {
    AuditError::Edited { segment: located.segment, at: located.at }
}

#[cfg(test)]
mod tests;
