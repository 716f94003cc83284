//! `peregrine alerts rules`: the rules of a configuration for a Prometheus that watches the nodes.

use std::io::{self, Write};

use super::{AlertRulesArgs, CliError, print_json, resolved_without_models};
use crate::alerts::rules_file;

pub(super) fn rules(args: AlertRulesArgs) -> Result<(), CliError> {
    let config = resolved_without_models(args.config)?.config.alerts;
    let text = rules_file(&config.rules, config.window);
    if args.json {
        let names: Vec<&str> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
        return Ok(print_json(&serde_json::json!({ "rules": names, "file": text }))?);
    }
    Ok(io::stdout().write_all(text.as_bytes())?)
}
