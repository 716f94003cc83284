//! Options that several verbs have: which configuration they read, and which repositories of models.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, ConfigError, Overrides, Resolved, Sources};
use crate::sealed::Vault;

/// The files of a configuration.
#[derive(Debug, Default, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file; later ones win over earlier ones
    #[arg(long = "config", id = "config", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
}

/// Repositories beside the configured ones.
#[derive(Debug, Default, Args)]
pub(super) struct ModelsArgs {
    /// Adds a model repository
    #[arg(long = "models", id = "models", value_name = "DIR")]
    pub(super) dirs: Vec<PathBuf>,
}

impl ConfigArgs {
    /// The configuration that these files and this process's environment give.
    pub(super) fn resolved(&self, models: &ModelsArgs) -> Result<Resolved, ConfigError> {
        self.with(Overrides { models: models.dirs.clone(), ..Overrides::default() })
    }

    /// The same for who reads no model of a repository: there need not be one.
    pub(super) fn resolved_without_models(&self) -> Result<Resolved, ConfigError> {
        self.with(Overrides { needs_no_models: true, ..Overrides::default() })
    }

    pub(super) fn with(&self, overrides: Overrides) -> Result<Resolved, ConfigError> {
        config::resolve(&Sources::of_process(self.files.clone(), overrides))
    }
}

/// How models are read: as the environment and the built-in configuration say.
pub(super) fn vault() -> Result<Vault, ConfigError> {
    Ok(ConfigArgs::default().resolved_without_models()?.config.models.vault)
}
