//! The series that a request may name by symbol: loaded once from a CSV, read-only, the latest window on demand.
//!
//! Knows no model folder and no socket; it fits windows to a [`ModelSpec`] and says why when it cannot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use peregrine_shaders::ModelSpec;

use crate::long_table::{LastWindow, LongTable, NoWindow, Opened, Strict, TableError, exogenous};

/// Every series of one file.
#[derive(Clone, Debug, Default)]
pub struct SeriesStore {
    table: LongTable,
    /// Columns that are there more than once.
    doubled: Vec<String>,
    /// Where each symbol is in the table.
    places: BTreeMap<String, usize>,
}

/// The data file cannot be used; the operator acts.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", file.display())]
pub struct DataError {
    file: PathBuf,
    source: TableError,
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
    /// Which of them does the model read? 422.
    #[error("the data have column `{column}`, which model `{model}` reads, more than once")]
    Doubled {
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
    /// Its rows do not make a window. 422.
    #[error("symbol `{symbol}`: {source}")]
    Window {
        /// The symbol.
        symbol: String,
        /// Why.
        source: NoWindow,
    },
}

impl SymbolError {
    /// Which symbol is at fault, where it is one.
    #[must_use]
    pub fn symbol(&self) -> Option<&str> {
        match self {
            Self::Unknown(symbol) | Self::TooShort { symbol, .. } | Self::Window { symbol, .. } => {
                Some(symbol)
            }
            Self::NoColumn { .. } | Self::Doubled { .. } => None,
        }
    }
}

impl SeriesStore {
    /// Names of the columns that every series has.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.table.columns
    }

    /// Reads a long table (`long_table` says what that is); of `forecast`, the columns that are forecast, every cell is a number or
    /// empty.
    ///
    /// # Errors
    /// Names the file, and the line of the first mistake.
    pub fn load(file: &Path, forecast: &[&str]) -> Result<Self, DataError> {
        let read = File::open(file).map_err(|error| TableError::Csv(error.into()));
        let store = read.and_then(|text| Self::read(text, forecast));
        store.map_err(|source| DataError { file: file.to_owned(), source })
    }

    /// Reads what a file holds.
    pub(crate) fn read(text: impl Read, forecast: &[&str]) -> Result<Self, TableError> {
        let opened = Opened::new(text)?;
        for column in forecast {
            opened.place(column)?; // once, or not at all
        }
        let doubled = opened.doubled();
        let strict = |column: &str| if forecast.contains(&column) { Strict::Yes } else { Strict::No };
        let columns = opened.columns().into_iter().map(|column| (column.clone(), strict(&column))).collect();
        let table = opened.read(columns)?;
        let ids = table.series.iter().map(|series| series.id.clone());
        Ok(Self { places: ids.zip(0..).collect(), doubled, table })
    }

    /// The symbols, in order.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is such a symbol.
    #[must_use]
    pub fn has(&self, symbol: &str) -> bool {
        self.places.contains_key(symbol)
    }

    /// Stamps and values of one column up to its last value, oldest first, and nothing where it is missing; `None`: no such
    /// symbol or column.
    #[must_use]
    pub fn history(&self, symbol: &str, column: &str) -> Option<impl Iterator<Item = (&str, Option<f32>)>> {
        let at = self.table.place(column)?;
        Some(self.table.series[*self.places.get(symbol)?].history(at))
    }

    /// The newest window of `symbol` for a model that forecasts `column`.
    ///
    /// # Errors
    /// See [`SymbolError`].
    pub fn latest(&self, symbol: &str, column: &str, spec: &ModelSpec) -> Result<LastWindow, SymbolError> {
        let place = self.places.get(symbol).ok_or_else(|| SymbolError::Unknown(symbol.to_owned()))?;
        let series = &self.table.series[*place];
        let y = self.column(column, spec)?;
        for name in exogenous(spec) {
            self.column(name, spec)?;
        }
        let (symbol, got) = (symbol.to_owned(), series.history_len(y));
        if (1..spec.window).contains(&got) {
            return Err(SymbolError::TooShort { symbol, model: spec.name.clone(), got, want: spec.window });
        }
        self.table.last_window(series, y, spec).map_err(|source| SymbolError::Window { symbol, source })
    }

    fn column(&self, name: &str, spec: &ModelSpec) -> Result<usize, SymbolError> {
        let (column, model) = (|| name.to_owned(), || spec.name.clone());
        match self.table.place(name) {
            Some(place) => Ok(place),
            None if self.doubled.iter().any(|doubled| doubled == name) => {
                Err(SymbolError::Doubled { column: column(), model: model() })
            }
            None => Err(SymbolError::NoColumn { column: column(), model: model() }),
        }
    }
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
        assert!(why("id,ds,a\n").ends_with(": line 1: there is no column `unique_id`"));
        assert!(why("unique_id,ds,a,a\n").ends_with(": line 1: column `a` is there more than once"));
        assert!(
            why("unique_id,ds,a\nX,1,ten\n").ends_with(": line 2, column `a`: `ten` is not a finite number")
        );
        assert!(
            why("unique_id,ds,a\nX,1,NaN\n").ends_with(": line 2, column `a`: `NaN` is not a finite number")
        );
        assert!(
            why("unique_id,ds,a\nX,2,1\nX,1,1\n").contains(": line 3: `1` of series `X` is not after `2`")
        );
        assert!(why("unique_id,ds,a\nX,soon,1\nX,later,1\n").contains(": line 3: nobody can tell whether"));
        // The hour that a clock shows twice.
        assert!(load("unique_id,ds,a\nX,2024-10-27 02:30+02:00,1\nX,2024-10-27 02:00+01:00,1\n").is_ok());
        assert!(
            why("unique_id,ds,a\nX,2024-10-27 02:00+01:00,1\nX,2024-10-27 02:30+02:00,1\n")
                .contains(": line 3: `2024-10-27 02:30+02:00` of series `X` is not after")
        );
    }

    #[test]
    fn what_is_not_known_is_masked_and_what_comes_after_the_last_value_is_the_future() {
        let store = load("unique_id,ds,a\nX,1,\nX,2,10\nX,3,\nX,4,12\nX,5,\nY,1,\n").unwrap();
        let latest = store.latest("X", "a", &spec(3, &[])).unwrap();
        assert_eq!(
            (latest.windows.y, latest.windows.mask),
            (vec![10.0, 0.0, 12.0], Some(vec![1.0, 0.0, 1.0]))
        );
        assert_eq!(latest.last_ds, "4");
        let history: Vec<_> = store.history("X", "a").unwrap().collect();
        assert_eq!(history, [("1", None), ("2", Some(10.0)), ("3", None), ("4", Some(12.0))]);
        let why = store.latest("Y", "a", &spec(3, &[])).unwrap_err().to_string();
        assert_eq!(why, "symbol `Y`: series `Y` (line 7): no row has a `a`");
    }

    #[test]
    fn other_columns_matter_where_a_model_reads_them_and_stand_in_any_order() {
        let store =
            load("note,ds,b,unique_id,a,c,c\nq,1,,X,10,1,1\n,2,-2,X,11,1,1\n,3,-3,X,12,1,1\nq,4,,X,,1,1\n")
                .unwrap();
        assert_eq!(store.columns(), ["note", "b", "a"]);
        let latest = |hist: &[&str], window| store.latest("X", "a", &spec(window, hist));
        assert_eq!(latest(&["b"], 2).unwrap().windows.hist_exog, [-2.0, -3.0]);
        assert_eq!(latest(&[], 3).unwrap().windows.y, [10.0, 11.0, 12.0]);
        for (column, window, want) in [
            ("b", 3, "symbol `X`: line 2, column `b`: the cell is empty, and the model reads it"),
            (
                "note",
                3,
                "symbol `X`: line 2, column `note`: the cell is no finite number, and the model reads it",
            ),
            ("c", 2, "the data have column `c`, which model `m` reads, more than once"),
        ] {
            assert_eq!(latest(&[column], window).unwrap_err().to_string(), want);
        }
        let ahead = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            store
                .latest("X", "a", &ModelSpec { futr_exog: names, ..point_spec(2, 2) })
                .unwrap_err()
                .to_string()
        };
        assert!(ahead(&["b"]).contains("1 rows with empty `a` follow the last value"), "{}", ahead(&["b"]));
    }

    #[test]
    fn a_packed_file_is_the_same_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
        encoder.write_all(GOOD.as_bytes()).unwrap();
        encoder.finish().unwrap();
        let store = SeriesStore::load(file.path(), &["a"]).unwrap();
        assert_eq!(store.latest("X", "a", &spec(2, &[])).unwrap().windows.y, [11.0, 12.0]);
    }

    #[test]
    fn the_data_that_ship_load() {
        let store = SeriesStore::load(Path::new("models/portfolio_small.csv"), &["logrv5"]).unwrap();
        assert_eq!(store.symbols().count(), 12);
        assert_eq!(store.latest("USD", "logrv5", &spec(168, &[])).unwrap().windows.y.len(), 168);
    }

    fn load(text: &str) -> Result<SeriesStore, DataError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        SeriesStore::load(file.path(), &["a"])
    }

    fn spec(window: usize, hist_exog: &[&str]) -> ModelSpec {
        ModelSpec {
            hist_exog: hist_exog.iter().map(|&name| name.to_owned()).collect(),
            ..point_spec(window, 1)
        }
    }
}
