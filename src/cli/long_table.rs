//! A long CSV as series, and the last window of each: pure, from text to [`Windows`].
//!
//! `unique_id,ds,y[,exogenous…]`, columns in any order, rows of a series in order of time: `ds` are numbers or dates and
//! have to rise. Per series:
//! - rows up to the last filled `y` are history; an empty `y` among them is missing: value 0, mask 0;
//! - the rows after it, `y` empty, are the future: their `ds` and known-future columns are used;
//! - a history shorter than the model's window is padded on the left with zeros and mask 0, exogenous columns too;
//! - static columns are those of the last row of the history.

use std::collections::HashMap;
use std::io::Read;

use peregrine_shaders::{ModelSpec, Windows};

use crate::moment::{OrderError, Stand};

/// The table does not fit the model; the caller acts. Lines count from 1, the header included.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// Not CSV.
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
    /// A cell that the model reads is empty.
    #[error("line {line}, column `{column}`: the cell is empty, and the model reads it")]
    EmptyCell { line: u64, column: String },
    /// A series of empty `y`.
    #[error("series `{id}` (line {line}): no row has a `y`")]
    NoHistory { id: String, line: u64 },
    /// Known-future columns need rows for the whole horizon.
    #[error(
        "series `{id}` (line {line}): {got} rows with empty `y` follow the last value where the model's known-future \
         columns need {want}"
    )]
    ShortFuture { id: String, line: u64, got: usize, want: usize },
    /// Only a header.
    #[error("there are no rows")]
    Empty,
}

/// One `unique_id`, ready to be forecast.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LastWindow {
    pub(crate) id: String,
    /// One row.
    pub(crate) windows: Windows,
    /// `ds` of the future rows, as far as the table has them.
    pub(crate) future_ds: Vec<String>,
}

/// The last window of every series, in order of first appearance.
pub(crate) fn last_windows(text: impl Read, spec: &ModelSpec) -> Result<Vec<LastWindow>, TableError> {
    let table = Table::read(text, spec)?;
    if table.series.is_empty() {
        return Err(TableError::Empty);
    }
    table.series.iter().map(|series| table.last_window(series, spec)).collect()
}

struct Table {
    /// Exogenous columns that the model reads, each once.
    columns: Vec<String>,
    series: Vec<Series>,
}

struct Series {
    id: String,
    rows: Vec<Row>,
}

struct Row {
    stand: Stand,
    y: Option<f32>,
    /// By [`Table::columns`].
    exogenous: Vec<Option<f32>>,
}

impl Series {
    /// # Errors
    /// When the row is not after the one before it, for certain.
    fn push(&mut self, row: Row) -> Result<(), TableError> {
        if let Some(before) = self.rows.last() {
            row.stand.check_after(&before.stand, &self.id)?;
        }
        self.rows.push(row);
        Ok(())
    }
}

impl Table {
    fn read(text: impl Read, spec: &ModelSpec) -> Result<Self, TableError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let header = reader.headers()?.clone();
        let place = |column: &str, reason| {
            let mut places = (0..header.len()).filter(|&at| &header[at] == column);
            let column = || column.to_owned();
            let at = places.next().ok_or_else(|| TableError::NoColumn { column: column(), reason })?;
            if places.next().is_some() {
                return Err(TableError::Doubled { column: column() });
            }
            Ok(at)
        };
        let (id_at, ds_at, y_at) = (place("unique_id", "")?, place("ds", "")?, place("y", "")?);
        let mut columns: Vec<String> = Vec::new();
        for name in spec.hist_exog.iter().chain(&spec.futr_exog).chain(&spec.stat_exog) {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        let places: Vec<usize> =
            columns.iter().map(|name| place(name, ", which the model reads")).collect::<Result<_, _>>()?;
        let mut table = Self { columns, series: Vec::new() };
        let mut index = HashMap::<String, usize>::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            let exogenous = places.iter().map(|&at| number(&record[at], line, &header[at]));
            let row = Row {
                stand: Stand::new(line, &record[ds_at]),
                y: number(&record[y_at], line, "y")?,
                exogenous: exogenous.collect::<Result<_, _>>()?,
            };
            let at = *index.entry(record[id_at].to_owned()).or_insert_with(|| {
                table.series.push(Series { id: record[id_at].to_owned(), rows: Vec::new() });
                table.series.len() - 1
            });
            table.series[at].push(row)?;
        }
        Ok(table)
    }

    fn last_window(&self, series: &Series, spec: &ModelSpec) -> Result<LastWindow, TableError> {
        let rows = &series.rows;
        let first_line = rows.first().map_or(0, |row| row.stand.line);
        let Some(last) = rows.iter().rposition(|row| row.y.is_some()) else {
            return Err(TableError::NoHistory { id: series.id.clone(), line: first_line });
        };
        let (history, future) = rows.split_at(last + 1);
        let history = &history[history.len().saturating_sub(spec.window)..];
        let future = &future[..future.len().min(spec.horizon)];
        if !spec.futr_exog.is_empty() && future.len() < spec.horizon {
            let (id, line) = (series.id.clone(), rows[last].stand.line);
            return Err(TableError::ShortFuture { id, line, got: future.len(), want: spec.horizon });
        }

        let pad_len = spec.window - history.len();
        let mut y = vec![0.0; pad_len];
        y.extend(history.iter().map(|row| row.y.unwrap_or(0.0)));
        let mut mask = vec![0.0; pad_len];
        mask.extend(history.iter().map(|row| f32::from(u8::from(row.y.is_some()))));
        let mut hist_exog = vec![0.0; pad_len * spec.hist_exog.len()];
        self.gather(history, &spec.hist_exog, &mut hist_exog)?;
        let mut futr_exog = vec![0.0; pad_len * spec.futr_exog.len()];
        self.gather(history, &spec.futr_exog, &mut futr_exog)?;
        if !spec.futr_exog.is_empty() {
            self.gather(future, &spec.futr_exog, &mut futr_exog)?;
        }
        let mut stat_exog = Vec::new();
        self.gather(&rows[last..=last], &spec.stat_exog, &mut stat_exog)?;
        let mask = mask.contains(&0.0).then_some(mask);
        let windows = Windows { rows: 1, y, mask, hist_exog, futr_exog, stat_exog };
        let future_ds = future.iter().map(|row| row.stand.ds.clone()).collect();
        Ok(LastWindow { id: series.id.clone(), windows, future_ds })
    }

    fn gather(&self, rows: &[Row], names: &[String], out: &mut Vec<f32>) -> Result<(), TableError> {
        let places: Vec<usize> =
            names.iter().filter_map(|name| self.columns.iter().position(|have| have == name)).collect();
        for row in rows {
            for &at in &places {
                let column = &self.columns[at];
                let value = row.exogenous[at];
                out.push(
                    value.ok_or_else(|| TableError::EmptyCell {
                        line: row.stand.line,
                        column: column.clone(),
                    })?,
                );
            }
        }
        Ok(())
    }
}

fn number(text: &str, line: u64, column: &str) -> Result<Option<f32>, TableError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(Some(value)),
        _ => Err(TableError::Number { line, column: column.to_owned(), text: text.to_owned() }),
    }
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

    fn windows(text: &str, spec: &ModelSpec) -> Result<Vec<LastWindow>, TableError> {
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
