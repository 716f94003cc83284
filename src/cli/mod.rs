//! The command line: its verbs. Each lives in the file of its name, with its options.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. Answers go to stdout, everything else to stderr.

mod alerts;
mod audit;
mod bench;
mod check;
mod cluster;
mod error;
mod forecast;
mod import;
mod keys;
mod load;
mod models;
mod options;
mod print;
mod scaler;
mod score;
mod seal;
mod serve;
mod top;
mod trust;
mod tune;
mod verify;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use error::CliError;
use print::{print_json, print_line, print_table, print_text, say};

use crate::config;

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
    Serve(serve::ServeArgs),
    /// Run every node of a topology on this machine, each a process of its own
    Cluster(cluster::ClusterArgs),
    /// Check a configuration and print its resolved form
    Check(check::CheckArgs),
    /// Work with model repositories
    #[command(subcommand)]
    Models(models::ModelsVerb),
    /// Work with alerts
    #[command(subcommand)]
    Alerts(alerts::AlertsVerb),
    /// Work with API keys
    #[command(subcommand)]
    Keys(keys::KeysVerb),
    /// Work with the records of predictions
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Work with the fleet: when there are more machines, and when fewer
    #[command(subcommand)]
    Scaler(scaler::ScalerVerb),
    /// Forecast a long CSV offline: unique_id,ds,y[,exogenous…]
    Forecast(forecast::ForecastArgs),
    /// Measure a server under load, or this machine
    Bench(Box<bench::BenchArgs>),
    /// Show a node and its cluster live: actors, devices, batches, breakers, streams
    Top(top::TopArgs),
    /// Print the JSON schema of the configuration
    Schema,
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
            if error.use_stderr() {
                return ExitCode::from(2);
            }
            return ended(printed.map_err(CliError::Output));
        }
    };
    ended(dispatch(line.verb.unwrap_or_else(|| Verb::Serve(serve::ServeArgs::default()))))
}

fn ended(outcome: Result<(), CliError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our answer has seen enough of it, e.g. `| head`.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            error.code()
        }
    }
}

fn dispatch(verb: Verb) -> Result<(), CliError> {
    match verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Cluster(args) => cluster::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Models(verb) => models::run(verb),
        Verb::Alerts(verb) => alerts::run(&verb),
        Verb::Keys(verb) => keys::run(&verb),
        Verb::Audit(verb) => audit::run(&verb),
        Verb::Scaler(verb) => scaler::run(verb),
        Verb::Forecast(args) => forecast::run(args),
        Verb::Bench(args) => bench::run(*args),
        Verb::Top(args) => top::run(args),
        Verb::Schema => Ok(print_text(&config::schema())?),
    }
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
    fn every_verb_is_in_the_help() {
        let help = CommandLine::command().render_help().to_string();
        for verb in CommandLine::command().get_subcommands() {
            assert!(help.contains(&format!("\n  {} ", verb.get_name())), "{} in {help}", verb.get_name());
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for wrong in [&["peregrine", "fly"][..], &["peregrine", "models", "verify"], &["peregrine", "--nope"]]
        {
            assert_eq!(run(wrong), ExitCode::from(2), "{wrong:?}");
        }
        assert_eq!(run(["peregrine", "check", "--config", "/no/such.toml"]), ExitCode::from(2));
        let simulate = ["peregrine", "scaler", "simulate", "--trace", "configs/traces/trading-week.csv"];
        for wrong in [["--fixed", "99"], ["--group", "nobody"]] {
            assert_eq!(run(simulate.iter().chain(&wrong)), ExitCode::from(2), "{wrong:?}");
        }
    }
}
