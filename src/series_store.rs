//! The series that a request may name by symbol: loaded once from a CSV, read-only, the latest window on demand.
//!
//! Knows no model folder and no socket; it fits windows to a [`ModelSpec`] and says why when it cannot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use peregrine_shaders::{ModelSpec, Windows};

use crate::moment::Moment;

/// Every series of one file.
#[derive(Clone, Debug, Default)]
pub struct SeriesStore {
    columns: Vec<String>,
    series: BTreeMap<String, Series>,
}

/// One `unique_id`.
#[derive(Clone, Debug, Default)]
struct Series {
    stamps: Vec<String>,
    /// By column, then time, oldest first.
    values: Vec<Vec<f32>>,
}

/// The newest window of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct LatestWindow {
    /// One row.
    pub windows: Windows,
    /// `ds` of the last value.
    pub last_ds: String,
}

/// The data file cannot be used; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Not readable, or not CSV.
    #[error("{}: {source}", file.display())]
    Csv {
        /// The file.
        file: PathBuf,
        /// What the reader said.
        source: csv::Error,
    },
    /// The header lacks something.
    #[error("{}: the header must begin `unique_id,ds` and name at least one column", file.display())]
    Header {
        /// The file.
        file: PathBuf,
    },
    /// A cell is not a finite number.
    #[error("{}:{line}: column `{column}`: `{text}` is not a finite number", file.display())]
    Number {
        /// The file.
        file: PathBuf,
        /// From 1, the header included.
        line: u64,
        /// Its name.
        column: String,
        /// The cell.
        text: String,
    },
    /// Time must rise inside a series.
    #[error("{}:{line}: `{ds}` of `{id}` does not come after the row before", file.display())]
    Order {
        /// The file.
        file: PathBuf,
        /// From 1, the header included.
        line: u64,
        /// The series.
        id: String,
        /// Its stamp.
        ds: String,
    },
}

/// A symbol cannot be forecast with this model; the caller acts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SymbolError {
    /// No such series. 404.
    #[error("unknown symbol `{0}`")]
    Unknown(String),
    /// The data lack a column that the model reads. 422.
    #[error("the data have no column `{column}`, which model `{model}` reads")]
    NoColumn {
        /// The column.
        column: String,
        /// The model.
        model: String,
    },
    /// Fewer values than the model's window. 422.
    #[error("symbol `{symbol}` has {got} values where model `{model}` needs {want}")]
    TooShort {
        /// The symbol.
        symbol: String,
        /// The model.
        model: String,
        /// Values it has.
        got: usize,
        /// The window.
        want: usize,
    },
    /// The file holds no future and no static values. 422.
    #[error(
        "model `{model}` needs known-future or static values: send the window itself instead of a symbol"
    )]
    NeedsExogenous {
        /// The model.
        model: String,
    },
}

impl SeriesStore {
    /// Names of the columns that every series has.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Reads `unique_id,ds,column…`, rows of a series in rising `ds`.
    ///
    /// # Errors
    /// Names the file and line of the first mistake.
    pub fn load(file: &Path) -> Result<Self, DataError> {
        let csv_error = |source: io::Error| DataError::Csv { file: file.to_owned(), source: source.into() };
        Self::read(file, File::open(file).map_err(csv_error)?)
    }

    /// Reads what `file` holds.
    pub(crate) fn read(file: &Path, text: impl io::Read) -> Result<Self, DataError> {
        let csv_error = |source| DataError::Csv { file: file.to_owned(), source };
        let mut reader = csv::Reader::from_reader(text);
        let header = reader.headers().map_err(csv_error)?.clone();
        if header.len() < 3 || &header[0] != "unique_id" || &header[1] != "ds" {
            return Err(DataError::Header { file: file.to_owned() });
        }
        let columns: Vec<String> = header.iter().skip(2).map(str::to_owned).collect();
        let mut series = BTreeMap::<String, Series>::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(csv_error)? {
            let line = record.position().map_or(0, csv::Position::line);
            let one = series.entry(record[0].to_owned()).or_default();
            one.values.resize(columns.len(), Vec::new());
            if one.stamps.last().is_some_and(|last| !comes_after(&record[1], last)) {
                let (id, ds) = (record[0].to_owned(), record[1].to_owned());
                return Err(DataError::Order { file: file.to_owned(), line, id, ds });
            }
            one.stamps.push(record[1].to_owned());
            for (at, column) in columns.iter().enumerate() {
                let text = &record[at + 2];
                let value = text.trim().parse::<f32>().ok().filter(|v| v.is_finite()).ok_or_else(|| {
                    DataError::Number {
                        file: file.to_owned(),
                        line,
                        column: column.clone(),
                        text: text.to_owned(),
                    }
                })?;
                one.values[at].push(value);
            }
        }
        Ok(Self { columns, series })
    }

    /// The symbols, in order.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }

    /// Stamps and values of one column, oldest first; `None`: no such symbol or column.
    #[must_use]
    pub fn history(&self, symbol: &str, column: &str) -> Option<impl Iterator<Item = (&str, f32)>> {
        let at = self.columns.iter().position(|have| have == column)?;
        let series = self.series.get(symbol)?;
        Some(series.stamps.iter().map(String::as_str).zip(series.values[at].iter().copied()))
    }

    /// The newest window of `symbol` for a model that forecasts `column`.
    ///
    /// # Errors
    /// See [`SymbolError`].
    pub fn latest(&self, symbol: &str, column: &str, spec: &ModelSpec) -> Result<LatestWindow, SymbolError> {
        let series = self.series.get(symbol).ok_or_else(|| SymbolError::Unknown(symbol.to_owned()))?;
        if !spec.futr_exog.is_empty() || !spec.stat_exog.is_empty() {
            return Err(SymbolError::NeedsExogenous { model: spec.name.clone() });
        }
        let got = series.stamps.len();
        if got < spec.window {
            let (symbol, model) = (symbol.to_owned(), spec.name.clone());
            return Err(SymbolError::TooShort { symbol, model, got, want: spec.window });
        }
        let start = got - spec.window;
        let y = series.values[self.column(column, spec)?][start..].to_vec();
        let past =
            spec.hist_exog.iter().map(|name| self.column(name, spec)).collect::<Result<Vec<_>, _>>()?;
        let hist_exog = (start..got)
            .flat_map(|step| past.iter().map(move |&column| series.values[column][step]))
            .collect();
        let windows = Windows { rows: 1, y, hist_exog, ..Windows::default() };
        Ok(LatestWindow { windows, last_ds: series.stamps[got - 1].clone() })
    }

    fn column(&self, name: &str, spec: &ModelSpec) -> Result<usize, SymbolError> {
        self.columns
            .iter()
            .position(|have| have == name)
            .ok_or_else(|| SymbolError::NoColumn { column: name.to_owned(), model: spec.name.clone() })
    }
}

/// Numbers and dates by value, everything else by text.
fn comes_after(ds: &str, before: &str) -> bool {
    let order = Moment::parse(ds).and_then(|ds| ds.compare(Moment::parse(before)?));
    order.unwrap_or_else(|| ds.cmp(before)).is_gt()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::point_spec;

    const GOOD: &str = "unique_id,ds,a,b\nX,1,10,-1\nX,2,11,-2\nX,3,12,-3\nY,1,5,5\n";

    #[test]
    fn the_newest_values_come_oldest_first() {
        let store = load(GOOD).unwrap();
        let latest = store.latest("X", "a", &spec(2, &["b"])).unwrap();
        assert_eq!(latest.windows.y, [11.0, 12.0]);
        assert_eq!(latest.windows.hist_exog, [-2.0, -3.0]);
        assert_eq!(latest.last_ds, "3");
        assert_eq!(latest.windows.check(&spec(2, &["b"])), Ok(()));
    }

    #[test]
    fn what_cannot_be_forecast_is_named() {
        let store = load(GOOD).unwrap();
        let why = |symbol, column, hist: &[&str]| {
            store.latest(symbol, column, &spec(2, hist)).unwrap_err().to_string()
        };
        assert_eq!(why("Z", "a", &[]), "unknown symbol `Z`");
        assert_eq!(why("Y", "a", &[]), "symbol `Y` has 1 values where model `m` needs 2");
        assert_eq!(why("X", "q", &[]), "the data have no column `q`, which model `m` reads");
        assert_eq!(why("X", "a", &["w"]), "the data have no column `w`, which model `m` reads");
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        let why = |text: &str| load(text).unwrap_err().to_string();
        assert!(why("id,ds,a\n").ends_with("name at least one column"));
        assert!(why("unique_id,ds,a\nX,1,ten\n").ends_with(":2: column `a`: `ten` is not a finite number"));
        assert!(why("unique_id,ds,a\nX,1,NaN\n").ends_with(":2: column `a`: `NaN` is not a finite number"));
        assert!(
            why("unique_id,ds,a\nX,2,1\nX,1,1\n")
                .ends_with(":3: `1` of `X` does not come after the row before")
        );
        // The hour that a clock shows twice.
        assert!(load("unique_id,ds,a\nX,2024-10-27 02:30+02:00,1\nX,2024-10-27 02:00+01:00,1\n").is_ok());
        assert!(
            why("unique_id,ds,a\nX,2024-10-27 02:00+01:00,1\nX,2024-10-27 02:30+02:00,1\n")
                .ends_with(":3: `2024-10-27 02:30+02:00` of `X` does not come after the row before")
        );
    }

    #[test]
    fn the_data_that_ship_load() {
        let store = SeriesStore::load(Path::new("models/portfolio_small.csv")).unwrap();
        assert_eq!(store.symbols().count(), 12);
        assert_eq!(store.latest("USD", "logrv5", &spec(168, &[])).unwrap().windows.y.len(), 168);
    }

    fn load(text: &str) -> Result<SeriesStore, DataError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        SeriesStore::load(file.path())
    }

    fn spec(window: usize, hist_exog: &[&str]) -> ModelSpec {
        ModelSpec {
            hist_exog: hist_exog.iter().map(|&name| name.to_owned()).collect(),
            ..point_spec(window, 1)
        }
    }
}
