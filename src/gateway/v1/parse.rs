//! The body of `POST /v1/forecast`: read by the gateway's own tokenizer, fitted to a model.
//!
//! Pure. Every mistake names the series by the id the caller gave it, or by its place when it gave none.

use std::borrow::Cow;
use std::time::Duration;

use peregrine_shaders::{ModelSpec, Windows};

use self::Shape::{List, Table};
use crate::gateway::json::{Cursor, JsonError, Nesting, Scalar, once};
use crate::gateway::members::pass_over;
use crate::gateway::symbols::Named;
use crate::series_store::SymbolError;

/// Deepest array of a series: `hist_exog [L, X]`.
const DEPTH_MAX: usize = 2;
const MEMBERS: [&str; 6] = ["model", "version", "series", "horizon", "levels", "deadline_ms"];
const SERIES_MEMBERS: [&str; 7] = ["id", "symbol", "values", "mask", "hist_exog", "futr_exog", "stat_exog"];
/// More interval levels than anyone reads.
const LEVELS_MAX: usize = 32;

/// A native request as written.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ForecastBody<'a> {
    pub(crate) model: Option<Cow<'a, str>>,
    pub(crate) version: Option<u32>,
    pub(crate) series: Vec<SeriesBody<'a>>,
    pub(crate) horizon: Option<usize>,
    /// Percent.
    pub(crate) levels: Option<Vec<f64>>,
    pub(crate) deadline: Option<Duration>,
}

/// One series as written.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SeriesBody<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) symbol: Option<Cow<'a, str>>,
    values: Option<Numbers>,
    mask: Option<Numbers>,
    hist_exog: Option<Numbers>,
    futr_exog: Option<Numbers>,
    stat_exog: Option<Numbers>,
}

/// The numbers of a tensor, and how they stood.
#[derive(Debug, PartialEq)]
struct Numbers {
    flat: Vec<f32>,
    nesting: Nesting,
}

/// What a model takes of a tensor.
#[derive(Clone, Copy)]
enum Shape {
    /// So many numbers, flat.
    List(usize),
    /// So many rows of so many numbers, or those flat.
    Table(usize, usize),
}

/// The caller's request is malformed or cannot be forecast.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum BadForecast {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("the request has no `{0}`")]
    NoMember(&'static str),
    #[error("`{name}` must be {want}")]
    Member { name: &'static str, want: &'static str },
    #[error("the query may have no `{0}`")]
    UnknownParameter(String),
    #[error("series `{series}` must have either `values` or `symbol`")]
    ValuesOrSymbol { series: String },
    #[error("series `{series}`: `{member}` goes with `values`, not with `symbol`")]
    BesideSymbol { series: String, member: &'static str },
    #[error("series `{series}`: `{tensor}` is {what} at index {index}: every value must be a number")]
    NoNumber { series: String, tensor: &'static str, what: &'static str, index: usize },
    #[error("series `{series}`: `{tensor}` must be a flat list of numbers")]
    NotFlat { series: String, tensor: &'static str },
    #[error(
        "series `{series}`: `{tensor}` must be {rows} rows of {columns} numbers, one row for each step, or flat"
    )]
    NoTable { series: String, tensor: &'static str, rows: usize, columns: usize },
    #[error("series `{series}`: `{tensor}` is too large for FP32 at index {index}")]
    Infinite { series: String, tensor: &'static str, index: usize },
    #[error("series `{series}`: `{tensor}` holds {got} numbers where the model needs {want}")]
    Length { series: String, tensor: &'static str, got: usize, want: usize },
    #[error("series `{series}`: `mask` is 0 throughout: of its window nothing is known")]
    Unknown { series: String },
    #[error("the model forecasts {horizon_max} steps, not {horizon}")]
    Horizon { horizon: usize, horizon_max: usize },
    #[error("the model gives no {level} % interval: {offered}")]
    Level { level: f64, offered: String },
    #[error(
        "all quantiles of model `{model}` are on one side of the median, which this route answers: /v1/forecast and \
         /v2/models/{model}/infer give its quantiles"
    )]
    NoMedian { model: String },
    #[error(
        "model `{model}` forecasts {series} series together, which this route cannot say: send `y` of shape \
         [-1, {window}, {series}] to /v2/models/{model}/infer"
    )]
    SeveralSeries { model: String, window: usize, series: usize },
}

impl BadForecast {
    /// Is it the form that is wrong, or what it says?
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(
            self,
            Self::Json(_)
                | Self::NoMember(_)
                | Self::UnknownParameter(_)
                | Self::Member { .. }
                | Self::ValuesOrSymbol { .. }
                | Self::BesideSymbol { .. }
        )
    }

    /// The series and the index at fault.
    pub(crate) fn place(&self) -> (Option<String>, Option<usize>) {
        match self {
            Self::Infinite { series, index, .. } | Self::NoNumber { series, index, .. } => {
                (Some(series.clone()), Some(*index))
            }
            Self::Length { series, got, want, .. } => (Some(series.clone()), Some(*got.min(want))),
            Self::ValuesOrSymbol { series }
            | Self::BesideSymbol { series, .. }
            | Self::NotFlat { series, .. }
            | Self::Unknown { series }
            | Self::NoTable { series, .. } => (Some(series.clone()), None),
            _ => (None, None),
        }
    }
}

/// Reads the text of a native request.
pub(crate) fn forecast_body(text: &[u8]) -> Result<ForecastBody<'_>, BadForecast> {
    let mut cursor = Cursor::new(text);
    let (mut model, mut version, mut horizon, mut levels, mut deadline) = (None, None, None, None, None);
    let mut series = None;
    cursor.members(|key, cursor| {
        let at = cursor.at();
        match key {
            "model" => Ok(once(&mut model, cursor.string()?, "model", at)?),
            "version" => Ok(once(&mut version, version_number(cursor)?, "version", at)?),
            "horizon" => {
                let steps = usize::try_from(cursor.unsigned()?).unwrap_or(usize::MAX);
                if steps == 0 {
                    return Err(BadForecast::Member { name: "horizon", want: "at least 1" });
                }
                Ok(once(&mut horizon, steps, "horizon", at)?)
            }
            "levels" => Ok(once(&mut levels, level_list(cursor)?, "levels", at)?),
            "deadline_ms" => {
                let millis = cursor.unsigned()?;
                if millis == 0 {
                    return Err(BadForecast::Member { name: "deadline_ms", want: "at least 1" });
                }
                Ok(once(&mut deadline, Duration::from_millis(millis), "deadline_ms", at)?)
            }
            "series" => Ok(once(&mut series, series_list(cursor)?, "series", at)?),
            _ => Ok(pass_over(cursor, key, &MEMBERS)?),
        }
    })?;
    cursor.end()?;
    let series = series.ok_or(BadForecast::NoMember("series"))?;
    if series.is_empty() {
        return Err(BadForecast::Member { name: "series", want: "at least one series" });
    }
    Ok(ForecastBody { model, version, series, horizon, levels, deadline })
}

/// A model of several series reads and answers them together; a route that goes by one series has no place for that.
pub(crate) fn refuse_several(spec: &ModelSpec) -> Result<(), BadForecast> {
    if !spec.family.is_multivariate() {
        return Ok(());
    }
    let ModelSpec { name, window, series, .. } = spec;
    Err(BadForecast::SeveralSeries { model: name.clone(), window: *window, series: *series })
}

/// Fits the series to a model.
pub(crate) fn windows(
    series: &mut [SeriesBody<'_>],
    spec: &ModelSpec,
    symbols: &Named<'_>,
) -> Result<Windows, WindowsError> {
    let mut windows = Windows::default();
    let past = Table(spec.window, spec.hist_exog.len());
    let future = Table(spec.window + spec.horizon, spec.futr_exog.len());
    for (place, one) in series.iter_mut().enumerate() {
        if let Some(symbol) = &one.symbol {
            symbols.append(symbol, spec, &mut windows)?;
            continue;
        }
        let mut row = Windows {
            rows: 1,
            y: one.part("values", |one| &mut one.values, List(spec.window), place)?,
            mask: match &one.mask {
                Some(_) => Some(one.part("mask", |one| &mut one.mask, List(spec.window), place)?),
                None => None,
            },
            hist_exog: one.part("hist_exog", |one| &mut one.hist_exog, past, place)?,
            futr_exog: one.part("futr_exog", |one| &mut one.futr_exog, future, place)?,
            stat_exog: one.part("stat_exog", |one| &mut one.stat_exog, List(spec.stat_exog.len()), place)?,
        };
        row.clear_masked();
        if row.unknown().is_some() {
            return Err(BadForecast::Unknown { series: one.label(place) }.into());
        }
        if place == 0 { windows = row } else { windows.append(&row, spec.y_len()) }
    }
    Ok(windows)
}

/// Why series did not become windows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WindowsError {
    #[error(transparent)]
    Body(#[from] BadForecast),
    #[error(transparent)]
    Symbol(#[from] SymbolError),
}

impl SeriesBody<'_> {
    /// The id, the symbol, or the place in the request.
    pub(crate) fn label(&self, place: usize) -> String {
        self.own_name().map_or_else(|| place.to_string(), str::to_owned)
    }

    /// What the caller calls it.
    pub(crate) fn own_name(&self) -> Option<&str> {
        self.id.as_deref().or(self.symbol.as_deref())
    }

    /// Takes a tensor out, if it has the wanted shape.
    fn part(
        &mut self,
        tensor: &'static str,
        slot: impl Fn(&mut Self) -> &mut Option<Numbers>,
        shape: Shape,
        place: usize,
    ) -> Result<Vec<f32>, BadForecast> {
        let (flat, nesting) = match slot(self).take() {
            Some(numbers) => (numbers.flat, numbers.nesting),
            None => (Vec::new(), Nesting { depth: 1, row_len: Some(0) }),
        };
        let want = match shape {
            List(count) => count,
            Table(rows, columns) => rows * columns,
        };
        if flat.len() != want {
            return Err(BadForecast::Length { series: self.label(place), tensor, got: flat.len(), want });
        }
        match shape {
            _ if nesting.depth == 1 => Ok(flat),
            List(_) => Err(BadForecast::NotFlat { series: self.label(place), tensor }),
            Table(_, columns) if nesting.row_len == Some(columns) => Ok(flat),
            Table(rows, columns) => {
                Err(BadForecast::NoTable { series: self.label(place), tensor, rows, columns })
            }
        }
    }

    /// A member that says something of values, where the node has them.
    fn beside_symbol(&self) -> Option<&'static str> {
        let members = [
            ("mask", &self.mask),
            ("hist_exog", &self.hist_exog),
            ("futr_exog", &self.futr_exog),
            ("stat_exog", &self.stat_exog),
        ];
        let said = members.into_iter().find(|(_, numbers)| self.symbol.is_some() && numbers.is_some());
        said.map(|(name, _)| name)
    }
}

fn series_list<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<SeriesBody<'a>>, BadForecast> {
    let mut list = Vec::new();
    cursor.array(|cursor| {
        list.push(one_series(cursor, list.len())?);
        Ok::<(), BadForecast>(())
    })?;
    Ok(list)
}

fn one_series<'a>(cursor: &mut Cursor<'a>, place: usize) -> Result<SeriesBody<'a>, BadForecast> {
    let mut series = SeriesBody::default();
    cursor.members(|key, cursor| {
        let at = cursor.at();
        match key {
            "id" => Ok(once(&mut series.id, cursor.string()?, "id", at)?),
            "symbol" => Ok(once(&mut series.symbol, cursor.string()?, "symbol", at)?),
            "values" => numbers(cursor, &mut series, "values", |series| &mut series.values, place),
            "mask" => numbers(cursor, &mut series, "mask", |series| &mut series.mask, place),
            "hist_exog" => numbers(cursor, &mut series, "hist_exog", |series| &mut series.hist_exog, place),
            "futr_exog" => numbers(cursor, &mut series, "futr_exog", |series| &mut series.futr_exog, place),
            "stat_exog" => numbers(cursor, &mut series, "stat_exog", |series| &mut series.stat_exog, place),
            _ => Ok(pass_over(cursor, key, &SERIES_MEMBERS)?),
        }
    })?;
    if series.values.is_some() == series.symbol.is_some() {
        return Err(BadForecast::ValuesOrSymbol { series: series.label(place) });
    }
    if let Some(member) = series.beside_symbol() {
        return Err(BadForecast::BesideSymbol { series: series.label(place), member });
    }
    Ok(series)
}

fn numbers<'a>(
    cursor: &mut Cursor<'a>,
    series: &mut SeriesBody<'a>,
    tensor: &'static str,
    slot: impl for<'s> Fn(&'s mut SeriesBody<'a>) -> &'s mut Option<Numbers>,
    place: usize,
) -> Result<(), BadForecast> {
    let at = cursor.at();
    let mut flat = Vec::new();
    match cursor.leaves(&mut flat, DEPTH_MAX, usize::MAX) {
        Ok(nesting) => Ok(once(slot(series), Numbers { flat, nesting }, tensor, at)?),
        Err(JsonError::Infinite { index, .. }) => {
            Err(BadForecast::Infinite { series: series.label(place), tensor, index })
        }
        Err(error) => Err(match cursor.no_number(&error) {
            Some(what) => {
                BadForecast::NoNumber { series: series.label(place), tensor, what, index: flat.len() }
            }
            None => error.into(),
        }),
    }
}

/// A version as it is written, or as answers write it: a text of digits.
pub(crate) fn version(written: &Scalar<'_>) -> Option<u32> {
    let text: &str = match written {
        Scalar::Text(text) => text,
        Scalar::Number(text) => text,
        Scalar::Flag(_) => return None,
    };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&version| is_plain && version > 0)
}

fn version_number(cursor: &mut Cursor<'_>) -> Result<u32, BadForecast> {
    let want = "a number above zero, as it is or as a text";
    version(&cursor.scalar()?).ok_or(BadForecast::Member { name: "version", want })
}

fn level_list(cursor: &mut Cursor<'_>) -> Result<Vec<f64>, BadForecast> {
    let mut levels = Vec::new();
    cursor.array(|cursor| {
        let level = cursor.number()?.parse().ok().filter(|&level: &f64| level > 0.0 && level < 100.0);
        levels.push(
            level.ok_or(BadForecast::Member { name: "levels", want: "percentages between 0 and 100" })?,
        );
        if levels.len() > LEVELS_MAX {
            return Err(BadForecast::Member { name: "levels", want: "at most 32 percentages" });
        }
        Ok(())
    })?;
    Ok(levels)
}

#[cfg(test)]
#[path = "tests/parse.rs"]
mod tests;
