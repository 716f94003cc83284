//! Why a verb did not do its work, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use super::{audit, bench, forecast, import, scaler, score};
use crate::backends::BackendError;
use crate::catalog::CatalogError;
use crate::certificates::explained;
use crate::client::AskError;
use crate::config::ConfigError;
use crate::node::NodeError;
use crate::surroundings::SurveyError;
use crate::top::TopError;

/// Why a verb did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The operator's text is wrong. Exit 2.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The options contradict what is there. Exit 2.
    #[error("{0}")]
    Usage(String),
    /// Repositories cannot be listed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A device is missing.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The node did not start or did not stop well.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A model cannot be imported.
    #[error(transparent)]
    Import(#[from] import::ImportError),
    /// A table cannot be forecast.
    #[error(transparent)]
    Forecast(#[from] forecast::ForecastCsvError),
    /// The fleet.
    #[error(transparent)]
    Scaler(#[from] scaler::ScalerError),
    /// Records of predictions.
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    /// The machine cannot be measured.
    #[error(transparent)]
    Bench(#[from] bench::BenchError),
    /// No load can be made.
    #[error("{}", explained(.0))]
    Load(#[from] peregrine_load::LoadError),
    /// Models cannot be scored on a table.
    #[error(transparent)]
    Score(#[from] score::ScoreFailure),
    /// A node does not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The terminal.
    #[error(transparent)]
    Top(#[from] TopError),
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// A table cannot be written.
    #[error("cannot write the table: {0}")]
    Table(#[from] csv::Error),
    /// Said already, line by line.
    #[error("{0}")]
    Reported(String),
}

impl From<SurveyError> for CliError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Catalog(error) => error.into(),
            SurveyError::Config(error) => error.into(),
        }
    }
}

impl CliError {
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) | Self::Node(NodeError::Config(_)) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}
