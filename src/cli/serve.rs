//! `peregrine serve`: the configuration, the log, then a node until it is told to stop.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::{CliError, ServeArgs};
use crate::config::{self, LogConfig, LogFormat, Overrides, Sources};
use crate::node;

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let backend = args.backend.map(|choice| choice.name().to_owned());
    let overrides = Overrides { listen: args.listen, backend, models: args.models };
    let config = config::resolve(&Sources::of_process(args.config, overrides))?.config;
    start_log(&config.log);
    Ok(node::serve(config)?)
}

/// On stderr; stdout is for answers. A subscriber that is there already stays.
fn start_log(config: &LogConfig) {
    // The filter has been checked; `info` is what it falls back to.
    let filter = config.filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let lines = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry();
    let started = match config.format {
        LogFormat::Text => registry.with(lines.with_filter(filter)).try_init(),
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).try_init(),
    };
    if let Err(error) = started {
        tracing::warn!(%error, "log not replaced");
    }
}
