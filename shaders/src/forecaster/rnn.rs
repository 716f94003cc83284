//! LSTM and GRU.

use crate::loader::{Archive, Blueprint, LoadError};

use super::network::Network;

pub(super) fn build(blueprint: &Blueprint, _archive: &Archive) -> Result<Network, LoadError> {
    Err(LoadError::UnknownFamily { class: blueprint.spec.family.class().to_owned() })
}
