//! `[data]` and `[demo]`, as used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Value;

use super::checker::Checker;
use super::file::{DataFile, DemoFile};
use super::{Origin, paths};

/// The series that requests may name by symbol.
#[derive(Clone, Debug, PartialEq)]
pub struct DataConfig {
    /// `unique_id,ds,column…`; `None`: no symbols.
    pub file: Option<PathBuf>,
    /// The column that a model forecasts, unless `columns` says otherwise.
    pub column: String,
    /// By model name.
    pub columns: BTreeMap<String, String>,
}

impl DataConfig {
    /// The data column that `model` forecasts.
    #[must_use]
    pub fn column_of(&self, model: &str) -> &str {
        self.columns.get(model).unwrap_or(&self.column)
    }
}

/// The data file as a live market.
#[derive(Clone, Debug, PartialEq)]
pub struct DemoConfig {
    /// Ticks a second, above 0.
    pub rate: f64,
    /// Before the names of the series.
    pub prefix: String,
    /// The column of the data that is replayed.
    pub column: String,
}

impl Checker<'_> {
    pub(super) fn data(&mut self, written: DataFile) -> Option<DataConfig> {
        let column = self.present("data.column", written.column);
        let columns = written.columns.unwrap_or_default();
        let file = self.present("data.file", written.file)?;
        let origin = self.origin("data.file");
        let file = match paths::data_file(file, &origin) {
            Ok(file) => file,
            Err(message) => {
                self.mistake("data.file", message);
                None
            }
        };
        Some(DataConfig { file, column: column?, columns })
    }

    /// The built-in text turns the replay on, for whoever tries a node that is alone; in a cluster it must be asked for.
    pub(super) fn demo(
        &mut self,
        written: DemoFile,
        data: Option<&DataConfig>,
        is_clustered: bool,
    ) -> Option<Option<DemoConfig>> {
        const KEY: &str = "demo.rate";
        let fits = |rate: f64| (0.0..=1e6).contains(&rate);
        let rate = self.number(KEY, written.rate, fits, "within 0 and 1000000");
        let prefix = self.present("demo.prefix", written.prefix);
        let column = self.present("demo.column", written.column);
        let (mut rate, prefix, column, data) = (rate?, prefix?, column?, data?);
        let is_built_in = matches!(self.origin(KEY), Origin::BuiltIn { .. });
        if is_built_in && rate > 0.0 && (is_clustered || data.file.is_none()) {
            rate = 0.0;
            self.replace(KEY, Value::Float(rate), None);
        }
        if rate > 0.0 && data.file.is_none() {
            self.mistake(KEY, "there is no data.file to replay".to_owned());
        }
        let column = if column.is_empty() { data.column.clone() } else { column };
        Some((rate > 0.0).then_some(DemoConfig { rate, prefix, column }))
    }
}
