//! `model.json` of a model folder: as written, and turned into claims.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::blueprint::{self, Blueprint, Claims};
use super::hparams::Hparams;
use super::place::MODEL;
use super::{Files, LoadError, columns, doubles};
use crate::Family;

const JSON_BYTES_MAX: u64 = 4 << 20;

#[derive(Deserialize)]
struct ModelFile {
    format: u32,
    name: String,
    class: String,
    h: usize,
    window: usize,
    #[serde(default)]
    n_series: Option<usize>,
    #[serde(default)]
    multivariate: bool,
    #[serde(default)]
    recurrent: bool,
    scaler_type: Option<String>,
    loss: LossFile,
    #[serde(default)]
    hist_exog: Vec<String>,
    #[serde(default)]
    futr_exog: Vec<String>,
    #[serde(default)]
    stat_exog: Vec<String>,
    hparams: Map<String, Value>,
    expected_columns: Option<Vec<String>>,
    #[serde(default)]
    cases: Vec<CaseFile>,
}

#[derive(Deserialize)]
struct LossFile {
    #[serde(rename = "type")]
    kind: String,
    output_size: usize,
    quantiles: Option<Vec<f64>>,
    distribution: Option<String>,
    param_names: Option<Vec<String>>,
}

/// One stored window that `verify` replays.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CaseFile {
    pub(crate) index: usize,
    pub(crate) tag: String,
    pub(crate) tolerance: f64,
}

/// Reads `model.json`.
pub(crate) fn read(dir: &Path, files: &dyn Files) -> Result<(Blueprint, Vec<CaseFile>), LoadError> {
    let path = dir.join(MODEL);
    let bytes = files.read(&path, JSON_BYTES_MAX)?;
    parse(&path.display().to_string(), &bytes)
}

pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<(Blueprint, Vec<CaseFile>), LoadError> {
    let written: ModelFile = serde_json::from_slice(bytes)
        .and_then(|written| doubles::refuse(bytes).map(|()| written))
        .map_err(|source| LoadError::Json { what: what.to_owned(), source })?;
    if written.format != 1 {
        return Err(LoadError::unsupported(format!("model.json format {}", written.format)));
    }
    // Before the loss: an unknown family is the better answer than its unknown loss.
    let family = known_family(&written.class)?;
    if written.multivariate != family.is_multivariate() {
        let what = format!("`multivariate` = {} in {}", written.multivariate, written.class);
        return Err(LoadError::unsupported(what));
    }
    let head =
        columns::head(&written.loss.kind, written.loss.quantiles, written.loss.distribution.as_deref())?;
    if head.network_width() != written.loss.output_size {
        return Err(LoadError::parameter("loss.output_size", "contradicts the loss"));
    }
    if let Some(names) = written.loss.param_names {
        let wanted: Vec<String> = columns::names(&head)[1..].iter().map(|name| format!("-{name}")).collect();
        if names != wanted {
            return Err(LoadError::unsupported(format!("distribution parameters {names:?}")));
        }
    }
    let claims = Claims {
        name: written.name,
        class: written.class,
        horizon: written.h,
        window: written.window,
        series: written.n_series,
        head,
        columns: written.expected_columns,
        hparams: Hparams::new(written.hparams),
    };
    let hparams = &claims.hparams;
    let agree = hparams.text_if_set("scaler_type")? == written.scaler_type.as_deref()
        && hparams.texts("hist_exog_list")? == written.hist_exog
        && hparams.texts("futr_exog_list")? == written.futr_exog
        && hparams.texts("stat_exog_list")? == written.stat_exog;
    if !agree {
        return Err(LoadError::parameter("hparams", "contradicts scaler_type or the exogenous columns"));
    }
    let blueprint = claims.check()?;
    if blueprint::is_recursive(blueprint.spec.family, &blueprint.hparams)? != written.recurrent {
        return Err(LoadError::parameter("recurrent", "contradicts the class or the hyper-parameters"));
    }
    Ok((blueprint, written.cases))
}

fn known_family(class: &str) -> Result<Family, LoadError> {
    let known = Family::ALL.into_iter().find(|family| family.class() == class);
    known.ok_or_else(|| LoadError::UnknownFamily { class: class.to_owned() })
}
