//! `peregrine alerts rules`: the rules of a configuration for a Prometheus that watches the nodes.

use clap::{Args, Subcommand};

use super::options::ConfigArgs;
use super::{CliError, print_json, print_text};
use crate::alerts::rules_file;

#[derive(Debug, Subcommand)]
pub(super) enum AlertsVerb {
    /// Print the rules of the configuration as a rules file of Prometheus
    Rules(AlertRulesArgs),
}

#[derive(Debug, Args)]
pub(super) struct AlertRulesArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(verb: &AlertsVerb) -> Result<(), CliError> {
    match verb {
        AlertsVerb::Rules(args) => rules(args),
    }
}

fn rules(args: &AlertRulesArgs) -> Result<(), CliError> {
    let config = args.config.resolved_without_models()?.config.alerts;
    let text = rules_file(&config.rules, config.window);
    if args.json {
        let names: Vec<&str> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
        return Ok(print_json(&serde_json::json!({ "rules": names, "file": text }))?);
    }
    Ok(print_text(&text)?)
}
