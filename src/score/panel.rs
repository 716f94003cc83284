//! A long CSV, plain or gzip, as whole series of finite numbers: `unique_id,ds,column…`, rows in order of time.
//!
//! An empty cell is refused: a score with days left out could not be compared with one without. Rows that are not there
//! are told of alone: whether a market was closed is not written in a table.

use std::collections::HashMap;
use std::io::Read;

use crate::moment::{OrderError, Stand};
use crate::unpacked::unpacked;

/// A step of so many usual ones is a gap: holidays of a market that is open on five days of seven are shorter.
const GAP_MIN: f64 = 6.0;

/// The table cannot be scored on; the caller acts. Lines count from 1, the header included.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// Not CSV, or not readable.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// The header lacks a column.
    #[error("line 1: there is no column `{column}`; there are: {found}")]
    NoColumn {
        /// What was looked for.
        column: String,
        /// What is there.
        found: String,
    },
    /// A cell is empty or no number.
    #[error("line {line}, series `{id}`, column `{column}`: `{text}` is not a finite number")]
    Number {
        /// Where.
        line: u64,
        /// Of which series.
        id: String,
        /// Of which column.
        column: String,
        /// What stands there.
        text: String,
    },
    /// Rows of a series are not in order.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Only a header.
    #[error("there are no rows")]
    Empty,
}

/// Series of one column, with the exogenous columns that models read.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Names of the exogenous columns.
    exogenous: Vec<String>,
    series: Vec<Series>,
    gaps: Vec<Gap>,
}

/// Rows that lack, as it seems.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// Of which series.
    pub id: String,
    /// The first row after it.
    pub line: u64,
    /// How many of the series' usual steps lie between that row and the one before.
    pub steps: f64,
}

/// One `unique_id`.
#[derive(Clone, Debug)]
pub struct Series {
    id: String,
    y: Vec<f32>,
    /// As long as `y` each; in the panel's order.
    exogenous: Vec<Vec<f32>>,
}

impl Panel {
    /// Reads `column` as what is forecast and, of the names in `exogenous`, those that the table has.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn read(text: impl Read, column: &str, exogenous: &[String]) -> Result<Self, PanelError> {
        Self::read_csv(unpacked(text).map_err(csv::Error::from)?, column, exogenous)
    }

    fn read_csv(text: impl Read, column: &str, exogenous: &[String]) -> Result<Self, PanelError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let header = reader.headers()?.clone();
        let place = |name: &str| header.iter().position(|have| have == name);
        let required = |name: &str| {
            place(name).ok_or_else(|| PanelError::NoColumn {
                column: name.to_owned(),
                found: header.iter().collect::<Vec<_>>().join(", "),
            })
        };
        let (id_at, ds_at, y_at) = (required("unique_id")?, required("ds")?, required(column)?);
        let (names, places): (Vec<String>, Vec<usize>) =
            exogenous.iter().filter_map(|name| Some((name.clone(), place(name)?))).unzip();

        let mut panel = Self { exogenous: names, series: Vec::new(), gaps: Vec::new() };
        let mut times = Vec::<Times>::new();
        let mut index = HashMap::<String, usize>::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let at = match index.get(&record[id_at]) {
                Some(&at) => at,
                None => {
                    index.insert(record[id_at].to_owned(), panel.series.len());
                    panel.series.push(Series::new(&record[id_at], places.len()));
                    times.push(Times::default());
                    panel.series.len() - 1
                }
            };
            let line = record.position().map_or(0, csv::Position::line);
            times[at].push(Stand::new(line, &record[ds_at]), &record[id_at])?;
            let number = |at: usize| match record[at].parse::<f32>() {
                Ok(value) if value.is_finite() => Ok(value),
                _ => Err(PanelError::Number {
                    line,
                    id: record[id_at].to_owned(),
                    column: header[at].to_owned(),
                    text: record[at].to_owned(),
                }),
            };
            let series = &mut panel.series[at];
            series.y.push(number(y_at)?);
            for (values, &at) in series.exogenous.iter_mut().zip(&places) {
                values.push(number(at)?);
            }
        }
        for (series, times) in panel.series.iter().zip(&times) {
            panel.gaps.extend(times.gaps(&series.id));
        }
        if panel.series.is_empty() { Err(PanelError::Empty) } else { Ok(panel) }
    }

    /// Series by series.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// In order of first appearance; none is empty.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// Where the exogenous column of that name is.
    pub(super) fn place(&self, exogenous: &str) -> Option<usize> {
        self.exogenous.iter().position(|name| name == exogenous)
    }

    /// What lies before the held-out days; series that end within them give nothing.
    pub(super) fn training(&self, holdout: usize) -> Vec<&[f32]> {
        self.series.iter().map(|series| &series.y[..series.y.len().saturating_sub(holdout)]).collect()
    }
}

/// When the rows of a series are.
#[derive(Default)]
struct Times {
    last: Option<Stand>,
    /// From each row but the first to the one before, with its line.
    steps: Vec<(u64, f64)>,
}

impl Times {
    fn push(&mut self, next: Stand, id: &str) -> Result<(), OrderError> {
        if let Some(last) = &self.last {
            next.check_after(last, id)?;
            let step = last.at.zip(next.at).and_then(|(last, next)| last.until(next));
            self.steps.extend(step.map(|step| (next.line, step)));
        }
        self.last = Some(next);
        Ok(())
    }

    /// The usual step is the one in the middle.
    fn gaps(&self, id: &str) -> impl Iterator<Item = Gap> {
        let mut lengths: Vec<f64> = self.steps.iter().map(|&(_, step)| step).collect();
        lengths.sort_by(f64::total_cmp);
        let usual = lengths.get(lengths.len() / 2).copied().unwrap_or(0.0);
        let gaps = self.steps.iter().map(move |&(line, step)| (line, step / usual));
        gaps.filter(|&(_, steps)| steps >= GAP_MIN).map(|(line, steps)| Gap {
            id: id.to_owned(),
            line,
            steps,
        })
    }
}

impl Series {
    fn new(id: &str, exogenous: usize) -> Self {
        Self { id: id.to_owned(), y: Vec::new(), exogenous: vec![Vec::new(); exogenous] }
    }

    /// The `unique_id`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Oldest first.
    #[must_use]
    pub fn y(&self) -> &[f32] {
        &self.y
    }

    /// By [`Panel::place`].
    pub(super) fn exogenous(&self, place: usize) -> &[f32] {
        &self.exogenous[place]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const TABLE: &str = "ds,y,x,unique_id\n1,1.5,7,A\n1,9,8,B\n2,2.5,9,A\n";

    #[test]
    fn series_are_gathered_and_columns_stand_in_any_order() {
        let panel = read(TABLE.as_bytes()).unwrap();
        assert_eq!(panel.series().iter().map(Series::id).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(panel.series()[0].y(), [1.5, 2.5]);
        assert_eq!(panel.series()[0].exogenous(panel.place("x").unwrap()), [7.0, 9.0]);
        assert_eq!(panel.place("absent"), None);
        assert_eq!(panel.training(1), [&[1.5][..], &[]]);
    }

    #[test]
    fn gzip_is_known_by_its_first_bytes() {
        let packed = gzip(TABLE.as_bytes());
        assert_eq!(read(&packed).unwrap().series()[0].y(), [1.5, 2.5]);
        assert!(matches!(read(&packed[..packed.len() / 2]), Err(PanelError::Csv(_))));
        assert!(matches!(read(&packed[..2]), Err(PanelError::Csv(_))));
    }

    #[test]
    fn mistakes_name_line_series_and_column() {
        check("", "line 1: there is no column `unique_id`; there are: ");
        check("unique_id,ds\n", "line 1: there is no column `y`; there are: unique_id, ds");
        check("unique_id,y\nA,1\n", "line 1: there is no column `ds`; there are: unique_id, y");
        check("unique_id,ds,y\n", "there are no rows");
        for text in ["nan", "inf", "1e99", "", "x"] {
            let want = format!("line 3, series `B`, column `y`: `{text}` is not a finite number");
            check(&format!("unique_id,ds,y\nA,1,1\nB,1,{text}\n"), &want);
        }
        check("unique_id,ds,y,x\nA,1,1,z\n", "line 2, series `A`, column `x`: `z` is not a finite number");
        assert!(matches!(read(b"unique_id,ds,y\nA,1\n"), Err(PanelError::Csv(_))));
        assert!(matches!(read(b"unique_id,ds,y\n\xff,1,1\n"), Err(PanelError::Csv(_))));
    }

    #[test]
    fn rows_are_in_order_of_time_each_once() {
        let table = |dates: [&str; 3]| {
            format!("unique_id,ds,y\nA,{},1\nB,{},1\nA,{},1\n", dates[0], dates[1], dates[2])
        };
        for dates in
            [["2", "1", "3"], ["2026-01-31 00:00:00+00:00", "2026-01-01", "2026-02-01 00:00:00+00:00"]]
        {
            assert!(read(table(dates).as_bytes()).is_ok(), "{dates:?}");
            for wrong in [[dates[2], dates[1], dates[0]], [dates[0]; 3]] {
                check(
                    &table(wrong),
                    &format!(
                        "line 4: `{}` of series `A` is not after `{}` of line 2: its rows have to be in order of time, \
                         each once",
                        wrong[2], wrong[0]
                    ),
                );
            }
        }
        let refused = read(table(["30/9/2024", "1", "1/10/2024"]).as_bytes());
        assert!(
            matches!(refused, Err(PanelError::Order(OrderError::Unknown { line: 4, .. }))),
            "{refused:?}"
        );
    }

    #[test]
    fn gaps_are_told_and_holidays_are_none() {
        let days = |days: &[i64], id: &str| -> String {
            days.iter().map(|day| format!("{id},{},1\n", 20260101 + day)).collect()
        };
        let text = format!("unique_id,ds,y\n{}{}", days(&[0, 1, 2, 3, 9], "A"), days(&[0, 1, 6, 7, 8], "B"));
        let want = [Gap { id: "A".to_owned(), line: 6, steps: 6.0 }];
        assert_eq!(read(text.as_bytes()).unwrap().gaps(), want);
        let dates = "unique_id,ds,y\nA,2026-02-26,1\nA,2026-02-27,1\nA,2026-02-28,1\nA,2026-03-10,1\n";
        let want = [Gap { id: "A".to_owned(), line: 5, steps: 10.0 }];
        assert_eq!(read(dates.as_bytes()).unwrap().gaps(), want);
        assert_eq!(read(b"unique_id,ds,y\nA,soon,1\n").unwrap().gaps(), []);

        let ships = std::fs::File::open("models/fx_vol_daily.csv.gz").unwrap();
        assert_eq!(Panel::read(ships, "logrv5", &[]).unwrap().gaps(), []);
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(read(text.as_bytes()).unwrap_err().to_string(), want);
    }

    fn read(text: &[u8]) -> Result<Panel, PanelError> {
        Panel::read(text, "y", &["x".to_owned(), "absent".to_owned()])
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
}
