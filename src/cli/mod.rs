//! The command line: verbs, options, exit codes. Each verb lives in the file of its name.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. Answers go to stdout, everything else to stderr.

mod alerts;
mod audit;
mod bench;
mod check;
mod cluster;
mod forecast;
mod import;
mod keys;
mod load;
pub(crate) mod long_table;
mod models;
mod scaler;
mod score;
mod seal;
mod serve;
mod top;
mod trust;
mod tune;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use peregrine_shaders::Precision;

use crate::backends::BackendError;
use crate::catalog::{self, CatalogError};
use crate::certificates::explained;
use crate::config::{self, BackendChoice, ConfigError, Overrides, Scope, Sources};
use crate::node::NodeError;
use crate::sealed::Vault;

/// Serves neural forecasts to trading systems.
#[derive(Debug, Parser)]
#[command(name = "peregrine", version, about)]
struct CommandLine {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a node; this is also what happens without a verb
    Serve(ServeArgs),
    /// Run every node of a topology on this machine, each a process of its own
    Cluster(ClusterArgs),
    /// Check a configuration and print its resolved form
    Check(CheckArgs),
    /// Work with model repositories
    #[command(subcommand)]
    Models(ModelsVerb),
    /// Work with alerts
    #[command(subcommand)]
    Alerts(AlertsVerb),
    /// Work with API keys
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Work with the records of predictions
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Work with the fleet: when there are more machines, and when fewer
    #[command(subcommand)]
    Scaler(scaler::ScalerVerb),
    /// Forecast a long CSV offline: unique_id,ds,y[,exogenous…]
    Forecast(ForecastArgs),
    /// Measure a server under load, or this machine
    Bench(Box<BenchArgs>),
    /// Show a node and its cluster live: actors, devices, batches, breakers, streams
    Top(top::TopArgs),
    /// Print the JSON schema of the configuration
    #[command(hide = true)]
    Schema,
}

#[derive(Debug, Default, Args)]
struct ServeArgs {
    /// Configuration file; later ones win over earlier ones
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Adds a model repository: a folder of model folders
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// Address and port; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Which device answers
    #[arg(long, value_enum)]
    backend: Option<BackendChoice>,
}

#[derive(Debug, Args)]
struct ClusterArgs {
    /// Configuration file with [[nodes]], e.g. configs/cluster-local.toml; later ones win over earlier ones
    #[arg(long, required = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Adds a model repository
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// List the nodes as JSON once all of them answer
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Configuration file; later ones win over earlier ones
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// What each profile gives here, inside this process
    #[arg(long)]
    profiles: bool,
    /// Which model is asked; default: the configured one
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Length of each measurement: of a profile, or of one window under load
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// With --profiles: configuration file; later ones win over earlier ones
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// With --profiles: adds a model repository
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: load::LoadArgs,
}

#[derive(Debug, Subcommand)]
enum ModelsVerb {
    /// List the models of the configured repositories
    List(ListArgs),
    /// Recompute the cases that come with models on every backend of this machine
    Verify(VerifyArgs),
    /// Measure which kernels are the fastest for the models on this GPU, and keep that for every later start
    Tune(TuneArgs),
    /// Check a model and copy it into a repository
    Import(ImportArgs),
    /// Encrypt the weights of models in place, with the key in PEREGRINE_MODEL_KEY
    Encrypt(SealArgs),
    /// Sign models with the key in PEREGRINE_SIGNING_KEY, and print who they are signed by
    Sign(SealArgs),
    /// Forecast the held-out end of every series and rank models beside naive, HAR and the mean of 500 days
    Score(ScoreArgs),
}

#[derive(Debug, Subcommand)]
enum AlertsVerb {
    /// Print the rules of the configuration as a rules file of Prometheus
    Rules(AlertRulesArgs),
}

#[derive(Debug, Args)]
struct AlertRulesArgs {
    /// Configuration file; later ones win over earlier ones
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum KeysVerb {
    /// Draw a key: prints it once, and the lines for the file that security.keys names
    New(NewKeyArgs),
    /// Draw a key that encrypts or signs models: prints it once, and the public half of it
    Model(ModelKeyArgs),
}

#[derive(Debug, Args)]
struct NewKeyArgs {
    /// Whose key it is: letters, digits, `-`, `_`, `.`
    #[arg(long)]
    name: String,
    /// What its bearer may do; may be repeated
    #[arg(long = "scope", value_enum, required = true, value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// When it ends, e.g. 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Configuration file; later ones win over earlier ones
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Adds a model repository
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Model folder, or folder of model folders
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Only this device; auto: the CPU and every Vulkan adapter
    #[arg(long, value_enum, default_value = "auto")]
    backend: BackendChoice,
    /// With matrices of halves as well, as the profiles high_throughput and memory_optimized have them
    #[arg(long)]
    halves: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TuneArgs {
    /// How long at most; what is not measured by then is left for another time
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Which device, instead of the configured one
    #[arg(long, value_enum)]
    backend: Option<BackendChoice>,
    /// With matrices of halves as well, as the profiles high_throughput and memory_optimized have them
    #[arg(long)]
    halves: bool,
    /// Configuration file; later ones win over earlier ones
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Adds a model repository
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SealArgs {
    /// Model folder, or folder of model folders
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ModelKeyArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Folder with model.json and weights.safetensors, or what neuralforecast's save wrote: the folder, or a file of it
    #[arg(value_name = "PATH")]
    dir: PathBuf,
    /// Repository to copy into; default: the first configured one
    #[arg(long, value_name = "REPO")]
    to: Option<PathBuf>,
    /// Name in the repository; default: the folder's, or the file's
    #[arg(long)]
    name: Option<String>,
    /// Configuration file that names the repository
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Replace a model of that name
    #[arg(long)]
    force: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which rounded matrices a model is tried with besides its own.
#[derive(Debug, Args)]
struct RoundedArgs {
    /// Each model once more with matrices of halves, as the profiles high_throughput and memory_optimized have them; the same
    /// as --precision f16
    #[arg(long)]
    halves: bool,
    /// Each model once more with matrices rounded so, as models.precision has them; several with commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PRECISION")]
    precision: Vec<RoundedTo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoundedTo {
    /// Halves
    F16,
    /// Whole numbers of eight bits
    Int8,
}

impl RoundedArgs {
    /// The most exact first, each once.
    fn precisions(&self) -> Vec<Precision> {
        let mut wanted = Vec::new();
        if self.halves || self.precision.contains(&RoundedTo::F16) {
            wanted.push(Precision::F16);
        }
        if self.precision.contains(&RoundedTo::Int8) {
            wanted.push(Precision::Int8);
        }
        wanted
    }
}

#[derive(Debug, Args)]
struct ScoreArgs {
    /// Name in a repository, or a model folder; the others are compared with the first
    #[arg(required = true, value_name = "MODEL")]
    names: Vec<String>,
    /// CSV unique_id,ds,column…, plain or gzip, rows of a series in order of time and without gaps
    #[arg(long, value_name = "FILE", default_value = "models/fx_vol_daily.csv.gz")]
    input: PathBuf,
    /// The column that is forecast
    #[arg(long, default_value = "logrv5")]
    column: String,
    /// Days at the end of every series to forecast: from origins as far apart as the model's horizon is long
    #[arg(long, value_name = "DAYS", default_value = "500")]
    holdout: usize,
    /// Which device computes
    #[arg(long, value_enum, default_value = "cpu")]
    backend: BackendChoice,
    #[command(flatten)]
    rounded: RoundedArgs,
    /// Configuration file that names the repositories
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Adds a model repository
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ForecastArgs {
    /// Name in a repository, or a model folder
    #[arg(long)]
    model: String,
    /// CSV unique_id,ds,y[,exogenous…], plain or gzip, rows of a series in order of time. The last window of each series is
    /// forecast; a shorter series is padded on the left and masked; rows with empty y after the last value give the future
    /// exogenous columns
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    input: PathBuf,
    /// Where the forecasts go; default: stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which device computes
    #[arg(long, value_enum, default_value = "cpu")]
    backend: BackendChoice,
    /// Each model once more with matrices of halves
    #[arg(long)]
    halves: bool,
    /// Configuration file that names the repositories
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Adds a model repository
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
}

/// Why a verb did not do its work.
#[derive(Debug, thiserror::Error)]
enum CliError {
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
    /// No overview is to be had.
    #[error(transparent)]
    Overview(#[from] crate::top::FeedError),
    /// The terminal.
    #[error(transparent)]
    Top(#[from] crate::top::TopError),
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

impl CliError {
    fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// Runs one command line (the program's name first) and says how the process should end.
pub fn run<I>(arguments: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            let printed = error.print();
            return if error.use_stderr() || printed.is_err() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(line.verb.unwrap_or_else(|| Verb::Serve(ServeArgs::default()))) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our answer has seen enough of it, e.g. `| head`.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            error.code()
        }
    }
}

fn dispatch(verb: Verb) -> Result<(), CliError> {
    match verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Cluster(args) => cluster::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Models(ModelsVerb::List(args)) => models::list(args),
        Verb::Models(ModelsVerb::Verify(args)) => verify::run(&args),
        Verb::Models(ModelsVerb::Tune(args)) => tune::run(args),
        Verb::Models(ModelsVerb::Import(args)) => import::run(&args),
        Verb::Models(ModelsVerb::Encrypt(args)) => seal::encrypt(&args),
        Verb::Models(ModelsVerb::Sign(args)) => seal::sign(&args),
        Verb::Models(ModelsVerb::Score(args)) => score::run(&args),
        Verb::Alerts(AlertsVerb::Rules(args)) => alerts::rules(args),
        Verb::Keys(KeysVerb::New(args)) => keys::new(&args),
        Verb::Keys(KeysVerb::Model(args)) => seal::draw(&args),
        Verb::Audit(verb) => audit::run(&verb),
        Verb::Scaler(verb) => scaler::run(verb),
        Verb::Forecast(args) => forecast::run(args),
        Verb::Bench(args) => bench::run(*args),
        Verb::Top(args) => top::run(args),
        Verb::Schema => Ok(io::stdout().write_all(config::schema().as_bytes())?),
    }
}

/// The configuration that these options and this process's environment give.
fn resolved(files: Vec<PathBuf>, models: Vec<PathBuf>) -> Result<config::Resolved, ConfigError> {
    config::resolve(&Sources::of_process(files, Overrides { models, ..Overrides::default() }))
}

/// The same for who reads no model of a repository: there need not be one.
fn resolved_without_models(files: Vec<PathBuf>) -> Result<config::Resolved, ConfigError> {
    let overrides = Overrides { needs_no_models: true, ..Overrides::default() };
    config::resolve(&Sources::of_process(files, overrides))
}

/// How models are read: as the environment and the built-in configuration say.
fn vault() -> Result<Vault, ConfigError> {
    Ok(resolved_without_models(Vec::new())?.config.models.vault)
}

/// Says on stderr which folders of these repositories are not read although a model lies in them.
fn warn_of_overlooked<P: AsRef<Path>>(repositories: &[P]) -> Result<(), CatalogError> {
    for overlooked in catalog::overlooked(repositories)? {
        eprintln!("{overlooked}");
    }
    Ok(())
}

/// Pretty JSON and a newline on stdout.
fn print_json(value: &serde_json::Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{value:#}")
}

/// Columns padded to their widest cell, on stdout.
fn print_table(rows: &[Vec<String>]) -> io::Result<()> {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut out = io::stdout().lock();
    for row in rows {
        let padded = |(at, cell): (usize, &String)| format!("{cell:<width$}", width = width(at).unwrap_or(0));
        let cells: Vec<String> = row.iter().enumerate().map(padded).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for wrong in [&["peregrine", "fly"][..], &["peregrine", "models", "verify"], &["peregrine", "--nope"]]
        {
            assert_eq!(run(wrong), ExitCode::from(2), "{wrong:?}");
        }
        assert_eq!(run(["peregrine", "check", "--config", "/no/such.toml"]), ExitCode::from(2));
    }
}
