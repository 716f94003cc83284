//! A long CSV as series, and the last window of each: one reader for the data of a node and for `peregrine forecast`.
//!
//! `unique_id,ds` and other columns in any order, plain or gzip, rows of a series in order of time: `ds` are numbers or
//! dates and have to rise. Per series, of the column that is forecast:
//! - rows up to its last filled cell are history; an empty cell among them is missing: value 0, mask 0;
//! - the rows after it are the future: their `ds` and known-future columns are used;
//! - a history shorter than the model's window is padded on the left with zeros and mask 0, exogenous columns too;
//! - static columns are those of the last row of the history.
//!
//! Cells of other columns matter where a model reads them.

use std::collections::HashMap;
use std::io::Read;

use peregrine_shaders::{ModelSpec, Windows};

use crate::moment::{OrderError, Stand};
use crate::rhythm;
use crate::unpacked::unpacked;

/// No number of a table is it.
const EMPTY: f32 = f32::NAN;
/// A cell that holds something else than a finite number.
const WRONG: f32 = f32::INFINITY;

/// The table cannot be read; the caller acts. Lines count from 1, the header included.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// Not CSV, or not readable.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// The header lacks a column.
    #[error("line 1: there is no column `{column}`{reason}")]
    NoColumn { column: String, reason: &'static str },
    /// The header has a column more than once: which one is meant?
    #[error("line 1: column `{column}` is there more than once")]
    Doubled { column: String },
    /// Rows of a series are not in order.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// A cell is not a number.
    #[error("line {line}, column `{column}`: `{text}` is not a finite number")]
    Number { line: u64, column: String, text: String },
    /// Only a header.
    #[error("there are no rows")]
    Empty,
    /// A series has no window.
    #[error(transparent)]
    Window(#[from] NoWindow),
}

/// A series of a table has no window for a model; the caller acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWindow {
    /// A cell that the model reads is empty.
    #[error("line {line}, column `{column}`: the cell is empty, and the model reads it")]
    EmptyCell {
        /// Of the row.
        line: u64,
        /// Its name.
        column: String,
    },
    /// A cell that the model reads is not a number.
    #[error("line {line}, column `{column}`: the cell is no finite number, and the model reads it")]
    WrongCell {
        /// Of the row.
        line: u64,
        /// Its name.
        column: String,
    },
    /// No cell of the column that is forecast has a value.
    #[error("series `{id}` (line {line}): no row has a `{column}`")]
    NoHistory {
        /// The series.
        id: String,
        /// Of its first row.
        line: u64,
        /// The column.
        column: String,
    },
    /// Known-future columns need rows for the whole horizon.
    #[error(
        "series `{id}` (line {line}): {got} rows with empty `{column}` follow the last value where the model's \
         known-future columns need {want}"
    )]
    ShortFuture {
        /// The series.
        id: String,
        /// Of its last value.
        line: u64,
        /// The column that is forecast.
        column: String,
        /// Rows behind it.
        got: usize,
        /// The horizon.
        want: usize,
    },
}

/// A table whose header was read.
pub(crate) struct Opened<'a> {
    reader: csv::Reader<Box<dyn Read + 'a>>,
    header: csv::StringRecord,
    id_at: usize,
    ds_at: usize,
}

impl<'a> Opened<'a> {
    pub(crate) fn new(text: impl Read + 'a) -> Result<Self, TableError> {
        let text = unpacked(text).map_err(csv::Error::from)?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let header = reader.headers()?.clone();
        let mut opened = Self { reader, header, id_at: 0, ds_at: 0 };
        (opened.id_at, opened.ds_at) = (opened.needed("unique_id", "")?, opened.needed("ds", "")?);
        Ok(opened)
    }

    /// Names of the columns that are there once, beside `unique_id` and `ds`.
    pub(crate) fn columns(&self) -> Vec<String> {
        let once = |&at: &usize| {
            at != self.id_at && at != self.ds_at && matches!(self.place(&self.header[at]), Ok(Some(_)))
        };
        (0..self.header.len()).filter(once).map(|at| self.header[at].to_owned()).collect()
    }

    /// Names of those that are there more often.
    pub(crate) fn doubled(&self) -> Vec<String> {
        let mut doubled: Vec<String> =
            self.header.iter().filter(|name| self.place(name).is_err()).map(str::to_owned).collect();
        doubled.sort();
        doubled.dedup();
        doubled
    }

    /// Where a column is; `None`: it is not there.
    ///
    /// # Errors
    /// When it is there more than once.
    pub(crate) fn place(&self, column: &str) -> Result<Option<usize>, TableError> {
        let mut places = (0..self.header.len()).filter(|&at| &self.header[at] == column);
        match (places.next(), places.next()) {
            (_, Some(_)) => Err(TableError::Doubled { column: column.to_owned() }),
            (place, None) => Ok(place),
        }
    }

    pub(crate) fn needed(&self, column: &str, reason: &'static str) -> Result<usize, TableError> {
        let missing = || TableError::NoColumn { column: column.to_owned(), reason };
        self.place(column)?.ok_or_else(missing)
    }

    /// The rest. What is no number is refused in columns that are `strict`, remembered in others.
    pub(crate) fn read(mut self, columns: Vec<(String, Strict)>) -> Result<LongTable, TableError> {
        let mut places = Vec::with_capacity(columns.len());
        for (name, strict) in &columns {
            places.push((self.needed(name, "")?, *strict));
        }
        let columns: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
        let mut table = LongTable { columns, series: Vec::new() };
        let mut newest = Vec::<Stand>::new();
        let mut index = HashMap::<String, usize>::new();
        let mut record = csv::StringRecord::new();
        while self.reader.read_record(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            let stand = Stand::new(line, &record[self.ds_at]);
            let id = &record[self.id_at];
            let at = match index.get(id) {
                Some(&at) => {
                    stand.check_after(&newest[at], id)?;
                    newest[at] = stand;
                    at
                }
                None => {
                    index.insert(id.to_owned(), table.series.len());
                    table.series.push(LongSeries::new(id, places.len()));
                    newest.push(stand);
                    table.series.len() - 1
                }
            };
            let series = &mut table.series[at];
            series.rows.push(Row { line, ds: record[self.ds_at].to_owned() });
            for (values, &(place, strict)) in series.values.iter_mut().zip(&places) {
                let text = &record[place];
                values.push(match (number(text), strict) {
                    (WRONG, Strict::Yes) => {
                        let (column, text) = (self.header[place].to_owned(), text.to_owned());
                        return Err(TableError::Number { line, column, text });
                    }
                    (number, _) => number,
                });
            }
        }
        Ok(table)
    }
}

/// Whether all of a column has to be numbers, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strict {
    Yes,
    No,
}

fn number(text: &str) -> f32 {
    if text.is_empty() {
        return EMPTY;
    }
    text.parse().ok().filter(|number: &f32| number.is_finite()).unwrap_or(WRONG)
}

/// Whole series, in order of first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct LongTable {
    pub(crate) columns: Vec<String>,
    pub(crate) series: Vec<LongSeries>,
}

/// One `unique_id`.
#[derive(Clone, Debug)]
pub(crate) struct LongSeries {
    pub(crate) id: String,
    rows: Vec<Row>,
    /// By column, then row.
    values: Vec<Vec<f32>>,
}

#[derive(Clone, Debug)]
struct Row {
    line: u64,
    ds: String,
}

/// The newest window of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct LastWindow {
    /// One row.
    pub windows: Windows,
    /// `ds` of the last value.
    pub last_ds: String,
}

impl LongSeries {
    fn new(id: &str, columns: usize) -> Self {
        Self { id: id.to_owned(), rows: Vec::new(), values: vec![Vec::new(); columns] }
    }

    /// Rows up to the last value of a column.
    pub(crate) fn history_len(&self, column: usize) -> usize {
        self.values[column].iter().rposition(|value| !value.is_nan()).map_or(0, |last| last + 1)
    }

    /// `ds` and value of each row of the history; `None`: it is missing.
    pub(crate) fn history(&self, column: usize) -> impl Iterator<Item = (&str, Option<f32>)> {
        let values = self.values[column].iter().map(|value| value.is_finite().then_some(*value));
        self.rows.iter().map(|row| row.ds.as_str()).zip(values).take(self.history_len(column))
    }

    /// `ds` of the steps that follow the history of a column: as they are written, and after those in the rhythm that
    /// the series has over the window before; as far as that goes.
    fn future_ds(&self, column: usize, spec: &ModelSpec) -> Vec<String> {
        let history_len = self.history_len(column);
        let end = self.rows.len().min(history_len + spec.horizon);
        let mut ds: Vec<String> = self.rows[history_len..end].iter().map(|row| row.ds.clone()).collect();
        let known: Vec<&str> = self.rows[history_len.saturating_sub(spec.window)..end]
            .iter()
            .map(|row| row.ds.as_str())
            .collect();
        ds.extend(rhythm::after(&known, spec.horizon - ds.len()));
        ds
    }
}

impl LongTable {
    pub(crate) fn place(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|have| have == column)
    }

    /// The window of a model at the end of the history of `y`.
    ///
    /// # Panics
    /// When the table lacks a column that the model reads.
    pub(crate) fn last_window(
        &self,
        series: &LongSeries,
        y: usize,
        spec: &ModelSpec,
    ) -> Result<LastWindow, NoWindow> {
        let (rows, history_len) = (&series.rows, series.history_len(y));
        let (id, column) = (|| series.id.clone(), || self.columns[y].clone());
        let Some(last) = history_len.checked_sub(1) else {
            let line = rows.first().map_or(0, |row| row.line);
            return Err(NoWindow::NoHistory { id: id(), line, column: column() });
        };
        let history = history_len.saturating_sub(spec.window)..history_len;
        let future = history_len..rows.len().min(history_len + spec.horizon);
        if !spec.futr_exog.is_empty() && future.len() < spec.horizon {
            let (line, got, want) = (rows[last].line, future.len(), spec.horizon);
            return Err(NoWindow::ShortFuture { id: id(), line, column: column(), got, want });
        }

        let pad_len = spec.window - history.len();
        let (mut values, mut mask) = (vec![0.0; pad_len], vec![0.0; pad_len]);
        for row in history.clone() {
            let value = series.values[y][row];
            if value == WRONG {
                return Err(NoWindow::WrongCell { line: rows[row].line, column: column() });
            }
            values.push(if value.is_nan() { 0.0 } else { value });
            mask.push(f32::from(u8::from(!value.is_nan())));
        }
        let mut hist_exog = vec![0.0; pad_len * spec.hist_exog.len()];
        self.gather(series, history.clone(), &spec.hist_exog, &mut hist_exog)?;
        let mut futr_exog = vec![0.0; pad_len * spec.futr_exog.len()];
        self.gather(series, history.start..future.end, &spec.futr_exog, &mut futr_exog)?;
        let mut stat_exog = Vec::new();
        self.gather(series, last..history_len, &spec.stat_exog, &mut stat_exog)?;
        let mask = mask.contains(&0.0).then_some(mask);
        let windows = Windows { rows: 1, y: values, mask, hist_exog, futr_exog, stat_exog };
        Ok(LastWindow { windows, last_ds: rows[last].ds.clone() })
    }

    fn gather(
        &self,
        series: &LongSeries,
        rows: std::ops::Range<usize>,
        names: &[String],
        out: &mut Vec<f32>,
    ) -> Result<(), NoWindow> {
        let columns = names.iter().map(|name| self.place(name).expect("what a model reads was looked for"));
        let columns: Vec<usize> = columns.collect();
        for row in rows {
            for &at in &columns {
                let value = series.values[at][row];
                let (line, column) = (series.rows[row].line, || self.columns[at].clone());
                match value {
                    WRONG => return Err(NoWindow::WrongCell { line, column: column() }),
                    _ if value.is_nan() => return Err(NoWindow::EmptyCell { line, column: column() }),
                    _ => out.push(value),
                }
            }
        }
        Ok(())
    }
}

/// Columns beside the one that is forecast, each once.
pub(crate) fn exogenous(spec: &ModelSpec) -> Vec<&String> {
    let mut columns = Vec::new();
    for name in spec.hist_exog.iter().chain(&spec.futr_exog).chain(&spec.stat_exog) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    columns
}

/// One series of a table of `y`, ready to be forecast.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forecastable {
    pub(crate) id: String,
    /// One row.
    pub(crate) windows: Windows,
    /// `ds` of the steps ahead, as far as they are written or follow from those before.
    pub(crate) future_ds: Vec<String>,
}

/// The last window of every series of a table of `y`.
pub(crate) fn last_windows(text: impl Read, spec: &ModelSpec) -> Result<Vec<Forecastable>, TableError> {
    let opened = Opened::new(text)?;
    opened.needed("y", "")?;
    let mut columns = vec![("y".to_owned(), Strict::Yes)];
    for name in exogenous(spec) {
        opened.needed(name, ", which the model reads")?;
        columns.push((name.clone(), Strict::Yes));
    }
    let table = opened.read(columns)?;
    if table.series.is_empty() {
        return Err(TableError::Empty);
    }
    let one = |series: &LongSeries| {
        let LastWindow { windows, .. } = table.last_window(series, 0, spec)?;
        Ok(Forecastable { id: series.id.clone(), windows, future_ds: series.future_ds(0, spec) })
    };
    table.series.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::point_spec;

    #[test]
    fn the_last_window_is_taken_and_columns_stand_in_any_order() {
        let got =
            windows("y,unique_id,ds,extra\n1,A,1,q\n2,A,2,q\n9,B,1,q\n3,A,3,q\n9,B,2,q\n", &plain()).unwrap();
        assert_eq!(got.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!((got[0].windows.y.as_slice(), &got[0].windows.mask), ([2.0, 3.0].as_slice(), &None));
        assert_eq!(got[1].windows.y, [9.0, 9.0]);
    }

    #[test]
    fn short_series_are_padded_on_the_left_and_masked() {
        let got = windows("unique_id,ds,y\nA,1,5\n", &plain()).unwrap().remove(0);
        assert_eq!((got.windows.y, got.windows.mask), (vec![0.0, 5.0], Some(vec![0.0, 1.0])));
    }

    #[test]
    fn a_gap_is_masked() {
        let got = windows("unique_id,ds,y\nA,1,5\nA,2,\nA,3,7\n", &plain()).unwrap().remove(0);
        assert_eq!((got.windows.y, got.windows.mask), (vec![0.0, 7.0], Some(vec![0.0, 1.0])));
    }

    #[test]
    fn rows_after_the_last_value_are_the_future() {
        let text = "unique_id,ds,y,p,f,s\nA,1,5,1,10,8\nA,2,6,2,20,8\nA,3,,,30,\nA,4,,,40,\n";
        let got = windows(text, &exogenous()).unwrap().remove(0);
        assert_eq!(got.windows.hist_exog, [1.0, 2.0]);
        assert_eq!(got.windows.futr_exog, [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(got.windows.stat_exog, [8.0]);
        assert_eq!(got.future_ds, ["3", "4"]);
        assert_eq!(got.windows.check(&exogenous()), Ok(()));
    }

    #[test]
    fn mistakes_name_line_and_column() {
        check("unique_id,ds\nA,1\n", "line 1: there is no column `y`");
        check("unique_id,ds,y,p,f\n", "line 1: there is no column `s`, which the model reads");
        check("unique_id,ds,y,p,f,s\n", "there are no rows");
        check("unique_id,ds,y,p,f,s\nA,1,x,1,1,1\n", "line 2, column `y`: `x` is not a finite number");
        check("unique_id,ds,y,p,f,s\nA,1,1,inf,1,1\n", "line 2, column `p`: `inf` is not a finite number");
        check(
            "unique_id,ds,y,p,f,s\nA,1,1,,1,1\nA,2,,,1,\nA,3,,,1,\n",
            "line 2, column `p`: the cell is empty, and the model reads it",
        );
        check(
            "unique_id,ds,y,p,f,s\nA,1,1,1,1,1\nA,2,,,1,\n",
            "series `A` (line 2): 1 rows with empty `y` follow the last value where the model's known-future columns \
             need 2",
        );
        check("unique_id,ds,y,p,f,s\nA,1,,1,1,1\n", "series `A` (line 2): no row has a `y`");
        check("unique_id,ds,y,y,p,f,s\nA,1,1,2,1,1,1\n", "line 1: column `y` is there more than once");
        check("unique_id,ds,y,p,f,s,f\nA,1,1,1,1,1,1\n", "line 1: column `f` is there more than once");
        check(
            "unique_id,ds,y,p,f,s\nA,2,1,1,1,1\nB,3,1,1,1,1\nA,1,1,1,1,1\n",
            "line 4: `1` of series `A` is not after `2` of line 2: its rows have to be in order of time, each once",
        );
    }

    #[test]
    fn rows_are_in_order_of_time_for_certain() {
        let taken = |one: &str, other: &str| {
            windows(&format!("unique_id,ds,y\nA,{one},1\nB,0,1\nA,{other},2\n"), &plain())
        };
        for (early, late) in [
            ("9", "10"),
            ("1772755200000000000", "1772755200000000100"),
            ("2024-09-30", "2024-10-01"),
            ("2026-03-06 00:00:00+00:00", "2026-03-07 00:00:00+00:00"),
            ("2024-10-27T02:30:00+02:00", "2024-10-27T02:00:00+01:00"),
        ] {
            assert!(taken(early, late).is_ok(), "{early} {late}");
            for (one, other) in [(late, early), (early, early)] {
                let refused = taken(one, other);
                assert!(
                    matches!(refused, Err(TableError::Order(OrderError::NotAfter { line: 4, .. }))),
                    "{one} {other}: {refused:?}"
                );
            }
        }
        for (one, other) in [("30/9/2024", "1/10/2024"), ("", ""), ("1", "next"), ("20240930", "2024-10-01")]
        {
            for (one, other) in [(one, other), (other, one)] {
                let refused = taken(one, other).unwrap_err().to_string();
                let want = format!(
                    "line 4: nobody can tell whether `{other}` of series `A` is after `{one}` of line 2: `ds` have to be \
                     numbers, or dates such as 2026-01-31 or 2026-01-31T15:04:05+01:00"
                );
                assert_eq!(refused, want);
            }
        }
        // One row needs no order.
        assert!(windows("unique_id,ds,y\nA,1/10/2024,1\n", &plain()).is_ok());
    }

    #[test]
    fn a_column_that_the_model_does_not_read_may_be_there_twice() {
        assert!(windows("unique_id,ds,y,x,x\nA,1,1,1,1\n", &plain()).is_ok());
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(windows(text, &exogenous()).unwrap_err().to_string(), want);
    }

    fn windows(text: &str, spec: &ModelSpec) -> Result<Vec<Forecastable>, TableError> {
        last_windows(text.as_bytes(), spec)
    }

    fn plain() -> ModelSpec {
        point_spec(2, 2)
    }

    fn exogenous() -> ModelSpec {
        let name = |text: &str| vec![text.to_owned()];
        ModelSpec { hist_exog: name("p"), futr_exog: name("f"), stat_exog: name("s"), ..plain() }
    }
}
