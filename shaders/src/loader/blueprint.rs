//! What both kinds of file say about a model, checked for everything that does not depend on its family.

use crate::{Family, Head, ModelSpec, NormalizerKind};

use super::hparams::{Hparams, SIZE_MAX};
use super::{LoadError, columns};

/// Numbers of one row on the way in (`y`, exogenous) or out; keeps every per-row buffer small.
const ROW_LEN_MAX: usize = 1 << 16;
const NAME_LEN_MAX: usize = 200;

/// A model's shape and its hyper-parameters; no weights.
#[derive(Debug)]
pub(crate) struct Blueprint {
    pub(crate) spec: ModelSpec,
    pub(crate) hparams: Hparams,
}

/// As a file says it, before any check.
pub(crate) struct Claims {
    pub(crate) name: String,
    pub(crate) class: String,
    pub(crate) horizon: usize,
    pub(crate) window: usize,
    /// `n_series`, where the file says it.
    pub(crate) series: Option<usize>,
    pub(crate) head: Head,
    /// `None`: derived from the head.
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) hparams: Hparams,
}

impl Claims {
    pub(crate) fn check(self) -> Result<Blueprint, LoadError> {
        let Self { name, class, horizon, window, series, head, columns, hparams } = self;
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(LoadError::parameter("name", "is empty, too long or holds control characters"));
        }
        let family = Family::ALL.into_iter().find(|family| family.class() == class);
        let family = family.ok_or(LoadError::UnknownFamily { class })?;
        refuse_options(&hparams)?;
        let window_len = window_len(family, &hparams)?;
        let series = series_count(family, series, hparams.size_if_set("n_series")?)?;
        let spec = ModelSpec {
            name,
            family,
            horizon: bounded("h", horizon)?,
            window: bounded("window", window)?,
            series,
            normalizer: normalizer(hparams.text_if_set("scaler_type")?)?,
            columns: columns.unwrap_or_else(|| columns::names(&head)),
            head,
            hist_exog: hparams.texts("hist_exog_list")?,
            futr_exog: hparams.texts("futr_exog_list")?,
            stat_exog: hparams.texts("stat_exog_list")?,
        };
        check_spec(&spec)?;
        if hparams.size("h")? != spec.horizon || window_len != spec.window {
            return Err(LoadError::parameter("window", "`h` or `window` contradicts the hyper-parameters"));
        }
        Ok(Blueprint { spec, hparams })
    }
}

fn refuse_options(hparams: &Hparams) -> Result<(), LoadError> {
    if !hparams.texts("cat_exog_list")?.is_empty() {
        return Err(LoadError::unsupported("categorical exogenous columns (`cat_exog_list`)"));
    }
    if hparams.flag("exclude_insample_y")? {
        return Err(LoadError::unsupported("`exclude_insample_y` = true"));
    }
    Ok(())
}

/// Whether each forecast step is fed back as the next observation.
pub(crate) fn is_recursive(family: Family, hparams: &Hparams) -> Result<bool, LoadError> {
    let asked = hparams.flag("recurrent")?;
    match family {
        Family::Deepar => Ok(true),
        Family::Lstm | Family::Gru => Ok(asked),
        _ if asked => Err(LoadError::unsupported(format!("`recurrent` = true in {}", family.class()))),
        _ => Ok(false),
    }
}

/// Values of history that one forecast needs: a recursive model takes one more than its `input_size` says.
pub(crate) fn window_len(family: Family, hparams: &Hparams) -> Result<usize, LoadError> {
    let input_size = match hparams.get("input_size").and_then(serde_json::Value::as_i64) {
        // The library's own default in these families: three horizons.
        Some(..1) if matches!(family, Family::Lstm | Family::Gru | Family::Tcn | Family::Deepar) => {
            3 * hparams.size("h")?
        }
        _ => hparams.size("input_size")?,
    };
    if !is_recursive(family, hparams)? {
        return Ok(input_size);
    }
    // What an LSTM or GRU keeps is the caller's number, what DeepAR keeps is already one more.
    let kept = if family == Family::Deepar { input_size + 1 } else { input_size };
    match hparams.get("inference_input_size").map(serde_json::Value::as_i64) {
        // The library takes numbers below one for unset.
        None => Ok(input_size + 1),
        Some(Some(other)) if other < 1 || usize::try_from(other) == Ok(kept) => Ok(input_size + 1),
        Some(_) => Err(LoadError::unsupported(format!("`inference_input_size` other than {kept}"))),
    }
}

/// How many series one forecast is about, from the file itself and its hyper-parameters.
fn series_count(family: Family, claimed: Option<usize>, hparam: Option<usize>) -> Result<usize, LoadError> {
    if let (Some(claimed), Some(hparam)) = (claimed, hparam)
        && claimed != hparam
    {
        return Err(LoadError::parameter("n_series", "contradicts the hyper-parameters"));
    }
    match (family.is_multivariate(), claimed.or(hparam)) {
        (true, Some(count)) => bounded("n_series", count),
        (true, None) => Err(LoadError::parameter("n_series", "is missing")),
        (false, None | Some(1)) => Ok(1),
        (false, Some(_)) => {
            Err(LoadError::unsupported(format!("`n_series` other than 1 in {}", family.class())))
        }
    }
}

fn check_spec(spec: &ModelSpec) -> Result<(), LoadError> {
    let exogenous = spec.hist_exog.len() + spec.futr_exog.len() + spec.stat_exog.len();
    if exogenous > 0 && no_exogenous(spec.family) {
        let what = format!("exogenous columns in {}", spec.family.class());
        return Err(LoadError::unsupported(what));
    }
    if spec.columns.len() != spec.head.answer_width() {
        let problem = format!("names {} columns, wanted {}", spec.columns.len(), spec.head.answer_width());
        return Err(LoadError::parameter("expected_columns", problem));
    }
    columns::check(&spec.head, &spec.columns)?;
    if spec.family.is_multivariate() && !matches!(spec.head, Head::Point | Head::Quantiles(_)) {
        return Err(LoadError::unsupported(format!("a distribution in {}", spec.family.class())));
    }
    bounded_row("input row", (spec.window + spec.horizon).checked_mul(spec.series + exogenous))?;
    let step_len = spec.series.checked_mul(spec.head.network_width().max(spec.columns.len()));
    bounded_row("output row", step_len.and_then(|len| len.checked_mul(spec.horizon)))
}

fn no_exogenous(family: Family) -> bool {
    use Family::{Dlinear, Nbeats, Nlinear, Patchtst, Tsmixer};
    matches!(family, Nbeats | Dlinear | Nlinear | Patchtst | Tsmixer)
}

fn bounded(name: &str, value: usize) -> Result<usize, LoadError> {
    if (1..=SIZE_MAX).contains(&value) {
        return Ok(value);
    }
    Err(LoadError::parameter(name, format!("is {value}, wanted 1..={SIZE_MAX}")))
}

fn bounded_row(what: &'static str, len: Option<usize>) -> Result<(), LoadError> {
    let len = len.unwrap_or(usize::MAX);
    if len <= ROW_LEN_MAX {
        return Ok(());
    }
    Err(LoadError::TooLarge { what, len, len_max: ROW_LEN_MAX })
}

fn normalizer(scaler_type: Option<&str>) -> Result<NormalizerKind, LoadError> {
    Ok(match scaler_type {
        None | Some("identity") => NormalizerKind::Identity,
        Some("standard") => NormalizerKind::Standard,
        Some("robust") => NormalizerKind::Robust,
        Some("minmax") => NormalizerKind::MinMax,
        Some("minmax1") => NormalizerKind::MinMax1,
        Some("invariant") => NormalizerKind::Invariant,
        Some("revin") => NormalizerKind::Revin,
        Some(other) => return Err(LoadError::unsupported(format!("scaler_type `{other}`"))),
    })
}
