//! The pool of Fly's Machines, from the configuration.

use std::path::PathBuf;

use peregrine_fly::machines::client::ClientError;
use peregrine_fly::machines::transport::{BaseUrlError, Timeouts};
use peregrine_fly::machines::{
    AppName, BaseUrl, Client, ConfigError, FlyPool, MachineConfig, PoolSpec, Template, UreqTransport,
};
use peregrine_scaler::pool::MachinePool;

use super::pools::OpenError;
use crate::config::{Config, FlyPoolConfig};

/// Longest template.
const TEMPLATE_LEN_MAX: u64 = 1 << 20;

/// The pool cannot be used. The operator acts.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlyError {
    /// The app or the token.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Where the API is said to be.
    #[error(transparent)]
    Url(#[from] BaseUrlError),
    /// A group has no template.
    #[error("group `{0}` has no template: add it to `templates`")]
    NoTemplate(String),
    /// A template cannot be read.
    #[error("template {}: {why}", file.display())]
    Template {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// A template would be refused.
    #[error("template of group `{group}`: {source}")]
    Refused {
        /// Whose.
        group: String,
        /// Why.
        source: ConfigError,
    },
}

impl From<FlyError> for OpenError {
    fn from(error: FlyError) -> Self {
        Self::Platform(error.to_string())
    }
}

/// Opens the pool; nothing is asked of the platform yet.
pub(super) fn open(
    config: &Config,
    name: &str,
    part: &FlyPoolConfig,
) -> Result<Box<dyn MachinePool>, FlyError> {
    let base = BaseUrl::read(|name| std::env::var(name).ok())?;
    let timeouts = Timeouts { overall: part.timeout, ..Timeouts::default() };
    let transport = Box::new(UreqTransport::new(base, timeouts));
    let client = Client::new(transport, AppName::new(&part.app)?, token(part)?);
    let mut templates = Vec::new();
    for group in config.scaler.groups.iter().filter(|group| group.spec.pool == name) {
        let group_name = &group.spec.name;
        let file = part.templates.get(group_name).ok_or_else(|| FlyError::NoTemplate(group_name.clone()))?;
        templates.push(Template {
            group: group_name.clone(),
            release: group.release.clone(),
            config: read(file)?,
            drain: group.spec.drain,
        });
    }
    // Machines of two clusters may be one app's.
    let cluster = config.cluster.as_ref().map_or_else(String::new, |part| part.name.clone());
    let spec = PoolSpec { cluster, org: part.organisation.clone(), templates };
    let pool = FlyPool::new(client, spec).map_err(|(group, source)| FlyError::Refused { group, source })?;
    Ok(Box::new(pool))
}

/// Which key of the pool is to be changed.
pub(super) fn key_of_error(error: &FlyError) -> &'static str {
    match error {
        FlyError::Client(ClientError::BadApp(_)) => "app",
        FlyError::Client(ClientError::BadToken) => "token",
        FlyError::NoTemplate(_) | FlyError::Template { .. } | FlyError::Refused { .. } => "templates",
        FlyError::Url(_) => "kind",
    }
}

fn token(part: &FlyPoolConfig) -> Result<peregrine_fly::machines::Token, ClientError> {
    peregrine_fly::machines::Token::new(part.token.expose())
}

fn read(file: &PathBuf) -> Result<MachineConfig, FlyError> {
    let at = |why: String| FlyError::Template { file: file.clone(), why };
    let size = std::fs::metadata(file).map_err(|error| at(error.to_string()))?.len();
    if size > TEMPLATE_LEN_MAX {
        return Err(at(format!("has {size} bytes, at most {TEMPLATE_LEN_MAX} are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| at(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| at(error.to_string()))
}
