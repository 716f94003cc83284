//! Every pool of the configuration, opened.

use std::collections::BTreeMap;

use peregrine_scaler::carry::Carrier;
use peregrine_scaler::control::Attached;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::pools::{self, Meeting};
use crate::config::{Config, Credentials, PoolConfig, key_of};

/// A pool cannot be used. The operator acts.
#[derive(Debug, thiserror::Error)]
#[error("pool `{pool}`: {source}")]
pub(crate) struct OpenError {
    /// Which.
    pub(crate) pool: String,
    /// Why.
    pub(crate) source: pools::OpenError,
}

/// What the nodes that this one starts are told, as the configuration says before anything listens.
pub(crate) fn meeting(config: &Config) -> Meeting {
    let part = config.cluster.as_ref();
    let secret = part.and_then(|part| match &part.credentials {
        Credentials::Secret(secret) => Some(secret.clone()),
        Credentials::Files { .. } => None,
    });
    let seed = part.map(|part| part.advertise.unwrap_or(part.listen));
    Meeting {
        files: Vec::new(),
        models: config.models.repositories.clone(),
        seeds: seed.iter().map(ToString::to_string).collect(),
        secret,
    }
}

/// Refuses pools whose machines would have nothing to show to the others.
pub(crate) fn can_meet(config: &Config, meeting: &Meeting) -> Result<(), OpenError> {
    let runs_nodes = |pool: &PoolConfig| match pool {
        PoolConfig::Local(local) => local.program.is_none() && !local.drains.is_empty(),
        PoolConfig::Command(_) | PoolConfig::Fly(_) | PoolConfig::Simulated(_) => false,
    };
    // One that is configured and that no group takes machines from makes none.
    let is_used = |name: &String| config.scaler.groups.iter().any(|group| group.spec.pool == *name);
    match config.scaler.pools.iter().find(|(name, pool)| is_used(name) && runs_nodes(pool)) {
        Some((pool, _)) if meeting.secret.is_none() => {
            Err(OpenError { pool: pool.clone(), source: pools::OpenError::NoSecret })
        }
        _ => Ok(()),
    }
}

/// What the scaler could do nothing with once it acts, by key; one that is not enabled opens no pool.
pub(crate) fn bad_pools(config: &Config) -> Vec<(String, String)> {
    let scaler = &config.scaler;
    if !scaler.enabled {
        return Vec::new();
    }
    let mut bad = Vec::new();
    for (name, pool) in &scaler.pools {
        let PoolConfig::Fly(part) = pool else { continue };
        if let Err(error) = super::fly::open(config, name, part) {
            let key = super::fly::key_of_error(&error);
            bad.push((key_of(&["scaler", "pools", name, key]), error.to_string()));
        }
    }
    // A node that is alone has a secret of its own for its machines.
    if config.cluster.is_some()
        && let Err(OpenError { pool, source }) = can_meet(config, &meeting(config))
    {
        bad.push((key_of(&["scaler", "pools", &pool]), source.to_string()));
    }
    bad
}

/// Those of `wanted` pools, each with the holds that this scaler has in it: none yet.
pub(crate) fn pools(
    config: &Config,
    meeting: &Meeting,
    wanted: impl Fn(&PoolConfig) -> bool,
) -> Result<BTreeMap<String, Attached>, OpenError> {
    let mut opened = BTreeMap::new();
    for (name, part) in config.scaler.pools.iter().filter(|(_, part)| wanted(part)) {
        let chance = StdRng::from_rng(&mut rand::rng());
        let fly = |part: &_| super::fly::open(config, name, part).map_err(Into::into);
        let pool = pools::open(part, config, meeting, chance, fly);
        let pool = pool.map_err(|source| OpenError { pool: name.clone(), source })?;
        opened.insert(name.clone(), Attached { pool, carrier: Carrier::new(config.scaler.hold) });
    }
    Ok(opened)
}
