//! Replays the cases stored with a model on an executor and compares with the stored f64 results.
//!
//! Per case the error is `max|got − expected| / max|expected|`, both over all steps and columns.

use std::path::Path;
use std::sync::Arc;

use crate::loader::{self, Archive, CaseFile, place};
use crate::{
    Backend, ExecuteError, Executor, Files, Forecaster, LoadError, ModelSpec, Precision, ResidentExecutor,
    ResidentPlans, Scratch, Stay, WindowError, Windows,
};

/// Of models that come without cases: what the shipped ones state.
const TOLERANCE: f64 = 1e-4;
/// What matrices of halves, and inputs that are multiplied as such, may make of an answer, as [`CaseReport::err`] counts: of the
/// reference models at most 1.8e-3 where only matrices are rounded, 5.6e-3 on an H200 (`benches/NOTES.md`).
pub const HALVES_TOLERANCE: f64 = 1e-2;
const CASES_MAX: usize = 1 << 16;

/// One stored window.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseReport {
    /// Its row in the file.
    pub index: usize,
    /// What kind of window it is.
    pub tag: String,
    /// `max|got − expected| / max|expected|`.
    pub err: f64,
    /// The bound that comes with the case.
    pub tolerance: f64,
    /// `err ≤ tolerance`.
    pub pass: bool,
}

/// All cases of a model on one executor.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// How exactly its matrices were kept.
    pub precision: Precision,
    /// Where it ran.
    pub backend: Backend,
    /// The device's own name.
    pub device: String,
    /// In the order of the file.
    pub cases: Vec<CaseReport>,
    /// The largest error.
    pub worst: f64,
    /// True when every case passes.
    pub passed: bool,
}

/// Why a model could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The model or its cases do not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The stored windows do not fit the model.
    #[error("stored cases: {0}")]
    Windows(#[from] WindowError),
    /// The executor failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A weight is larger than a half can be.
    #[error("a weight is larger than a half can be: serve the model in f32")]
    NotHalved,
    /// Stored windows are there to find mistakes, and some of them are beyond what weights of eight bits can follow.
    #[error("weights of eight bits are too coarse for stored cases: `models score` tells what they cost")]
    Coarse,
}

/// How far a device may be from the CPU on a model, as [`CaseReport::err`] counts: the strictest bound of its cases.
#[must_use]
pub fn tolerance(dir: &Path, files: &dyn Files) -> f64 {
    let stated = cases(dir, files).map(|(cases, _)| cases).unwrap_or_default();
    stated.iter().map(|case| case.tolerance).reduce(f64::min).unwrap_or(TOLERANCE)
}

/// Runs all cases of the model folder `dir` in one batch; it holds `cases.safetensors` beside `model.json`, `ensemble.json`
/// or, where there is neither, `native.safetensors`. Where matrices have halves, [`HALVES_TOLERANCE`] is allowed.
///
/// # Errors
/// When the folder does not load or the executor fails; a wrong result is a report that has not passed.
pub fn verify(
    dir: &Path,
    files: &dyn Files,
    precision: Precision,
    executor: &mut dyn Executor,
) -> Result<Report, VerifyError> {
    let exact = Forecaster::load_from(dir, files)?;
    let forecaster = match precision {
        Precision::F32 => exact,
        Precision::F16 => exact.halved().ok_or(VerifyError::NotHalved)?,
        Precision::Int8 => return Err(VerifyError::Coarse),
    };
    let report = replay(&forecaster, dir, files, executor);
    forecaster.plans().for_each(|plan| executor.unload(plan.id));
    report
}

/// Runs all cases one after the other through plans that stay on the device, as single windows of a model that is served
/// for their time are; `None`: this device keeps none of this model's.
///
/// # Errors
/// As [`verify`].
pub fn verify_resident(
    dir: &Path,
    files: &dyn Files,
    executor: &mut dyn Executor,
) -> Result<Option<Report>, VerifyError> {
    let forecaster = Forecaster::load_from(dir, files)?;
    let plans = Arc::<ResidentPlans>::default();
    let stay = Stay { rows_max: 1, rest_after: None };
    for plan in forecaster.plans() {
        match executor.reside(plan, stay) {
            Ok(resident) => plans.write().insert(plan.id, resident),
            Err(ExecuteError::Refused(_)) => {
                forecaster.plans().for_each(|plan| executor.unload(plan.id));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
    }
    let report = replay(&forecaster, dir, files, &mut ResidentExecutor::new(plans, executor.device()));
    forecaster.plans().for_each(|plan| executor.unload(plan.id));
    report.map(Some)
}

fn lists_cases(dir: &Path) -> bool {
    dir.join(place::MODEL).is_file()
}

/// Those that `model.json` lists; without one, every stored window.
fn cases(dir: &Path, files: &dyn Files) -> Result<(Vec<CaseFile>, Archive), LoadError> {
    if lists_cases(dir) {
        return loader::read_cases(dir, files);
    }
    let archive = Archive::open(&dir.join(place::CASES), files)?;
    let rows = archive.shape("insample_y").and_then(|shape| shape.first().copied()).unwrap_or(0);
    let case = |index| CaseFile { index, tag: format!("window {index}"), tolerance: TOLERANCE };
    Ok(((0..rows.min(CASES_MAX + 1)).map(case).collect(), archive))
}

fn replay(
    forecaster: &Forecaster,
    dir: &Path,
    files: &dyn Files,
    executor: &mut dyn Executor,
) -> Result<Report, VerifyError> {
    let (cases, archive) = cases(dir, files)?;
    let spec = forecaster.spec();
    let windows = windows(spec, &archive, cases.len())?;
    let shape = [vec![cases.len()], spec.answer_dims()].concat();
    let expected = archive.take("expected_f64", &shape)?;

    let mut got = Vec::new();
    forecaster.forecast(executor, &windows, &mut Scratch::default(), &mut got)?;

    let len = spec.answer_len();
    let mut reports = Vec::with_capacity(cases.len());
    for (row, CaseFile { index, tag, tolerance }) in cases.into_iter().enumerate() {
        if index != row {
            let problem = format!("case {row} has index {index}");
            return Err(LoadError::parameter("cases", problem).into());
        }
        let range = row * len..(row + 1) * len;
        let err = error(&got[range.clone()], &expected[range]);
        let tolerance = match forecaster.precision() {
            Precision::F16 => tolerance.max(HALVES_TOLERANCE),
            Precision::F32 | Precision::Int8 => tolerance,
        };
        reports.push(CaseReport { index, tag, err, tolerance, pass: err <= tolerance });
    }
    Ok(Report {
        model: spec.name.clone(),
        precision: forecaster.precision(),
        backend: executor.backend(),
        device: executor.device().to_owned(),
        worst: reports.iter().map(|report| report.err).fold(0.0, f64::max),
        passed: reports.iter().all(|report| report.pass),
        cases: reports,
    })
}

fn windows(spec: &ModelSpec, archive: &Archive, rows: usize) -> Result<Windows, VerifyError> {
    if rows == 0 || rows > CASES_MAX {
        return Err(LoadError::parameter("cases", format!("holds {rows}, wanted 1..={CASES_MAX}")).into());
    }
    let span = spec.window + spec.horizon;
    let take = |name: &str, shape: &[usize]| -> Result<Vec<f32>, LoadError> {
        if shape.contains(&0) {
            return Ok(Vec::new());
        }
        Ok(archive.take(name, shape)?.into_iter().map(|value| value as f32).collect())
    };
    let y_shape = [vec![rows], spec.y_dims()].concat();
    let windows = Windows {
        rows,
        y: take("insample_y", &y_shape)?,
        mask: Some(take("insample_mask", &y_shape)?),
        hist_exog: take("hist_exog", &[rows, spec.window, spec.hist_exog.len()])?,
        futr_exog: take("futr_exog", &[rows, span, spec.futr_exog.len()])?,
        stat_exog: take("stat_exog", &[rows, spec.stat_exog.len()])?,
    };
    windows.check(spec)?;
    Ok(windows)
}

fn error(got: &[f32], expected: &[f64]) -> f64 {
    let size = expected.iter().fold(0.0, |size: f64, value| size.max(value.abs()));
    let off =
        got.iter().zip(expected).fold(0.0, |off: f64, (&got, want)| off.max((f64::from(got) - want).abs()));
    // All zeros expected: anything else is infinitely wrong.
    if off == 0.0 { 0.0 } else { off / size }
}
