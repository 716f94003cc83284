//! `peregrine serve`: the configuration, the log, then a node until it is told to stop.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::CliError;
use super::options::{ConfigArgs, ModelsArgs};
use crate::config::{BackendChoice, Config, LogConfig, LogFormat, Overrides};
use crate::node;
use crate::reload::{Room, Staged};

#[derive(Debug, Default, Args)]
#[command(mut_arg("models", |arg| arg.help("Adds a model repository: a folder of model folders")))]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    models: ModelsArgs,
    /// Address and port; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Which device answers
    #[arg(long, value_enum)]
    backend: Option<BackendChoice>,
}

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let backend = args.backend.map(|choice| choice.name().to_owned());
    let overrides =
        Overrides { listen: args.listen, backend, models: args.models.dirs, ..Overrides::default() };
    let resolved = args.config.with(overrides)?;
    let log = start_log(&resolved.config.log);
    let passed_over: Vec<&str> = resolved.sources().of_kubernetes().collect();
    if !passed_over.is_empty() {
        tracing::info!(variables = passed_over.join(" "), "passed over what Kubernetes says of its service");
    }
    Ok(node::serve(resolved, vec![Box::new(log)])?)
}

/// Which events are logged; can be changed while the node runs.
struct LogRoom(Handle<Targets, Registry>);

impl Room for LogRoom {
    fn name(&self) -> &'static str {
        "log"
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let filter: Targets = next.log.filter.parse().map_err(|error| format!("log.filter: {error}"))?;
        let handle = self.0.clone();
        Ok(Box::new(move || {
            if let Err(error) = handle.reload(filter) {
                tracing::warn!(%error, "another log is in use: its filter stays");
            }
        }))
    }
}

/// On stderr; stdout is for answers. A subscriber that is there already stays.
fn start_log(config: &LogConfig) -> LogRoom {
    // The filter has been checked; `info` is what it falls back to.
    let filter = config.filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let (filter, handle) = reload::Layer::new(filter);
    // Colours are for people: a file has none, nor has who asks for none (no-color.org).
    let is_seen =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|asked| asked.is_empty());
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(is_seen);
    let registry = tracing_subscriber::registry();
    let started = match config.format {
        LogFormat::Text => registry.with(lines.with_filter(filter)).try_init(),
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).try_init(),
    };
    if let Err(error) = started {
        tracing::warn!(%error, "log not replaced");
    }
    LogRoom(handle)
}
