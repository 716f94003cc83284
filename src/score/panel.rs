//! A long CSV, plain or gzip, as whole series of finite numbers: `unique_id,ds,column…`, rows in order of time.
//!
//! A gap is refused: a score with days left out could not be compared with one without.

use std::collections::HashMap;
use std::io::Read;

use crate::unpacked::unpacked;

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
        let (id_at, y_at) = (required("unique_id")?, required(column)?);
        let (names, places): (Vec<String>, Vec<usize>) =
            exogenous.iter().filter_map(|name| Some((name.clone(), place(name)?))).unzip();

        let mut panel = Self { exogenous: names, series: Vec::new() };
        let mut index = HashMap::<String, usize>::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let at = match index.get(&record[id_at]) {
                Some(&at) => at,
                None => {
                    index.insert(record[id_at].to_owned(), panel.series.len());
                    panel.series.push(Series::new(&record[id_at], places.len()));
                    panel.series.len() - 1
                }
            };
            let number = |at: usize| match record[at].parse::<f32>() {
                Ok(value) if value.is_finite() => Ok(value),
                _ => Err(PanelError::Number {
                    line: record.position().map_or(0, csv::Position::line),
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
        if panel.series.is_empty() { Err(PanelError::Empty) } else { Ok(panel) }
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
        check("unique_id,y\n", "there are no rows");
        for text in ["nan", "inf", "1e99", "", "x"] {
            let want = format!("line 3, series `B`, column `y`: `{text}` is not a finite number");
            check(&format!("unique_id,y\nA,1\nB,{text}\n"), &want);
        }
        check("unique_id,y,x\nA,1,z\n", "line 2, series `A`, column `x`: `z` is not a finite number");
        assert!(matches!(read(b"unique_id,y\nA\n"), Err(PanelError::Csv(_))));
        assert!(matches!(read(b"unique_id,y\n\xff,1\n"), Err(PanelError::Csv(_))));
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
