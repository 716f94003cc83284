//! What the series of this node ask of those of other nodes.

use async_trait::async_trait;
use peregrine_runtime::Deadline;

use super::{Holder, LogEnd, SeriesLog, SeriesName, Taken};

/// The other nodes that hold copies of series.
#[async_trait]
pub trait Copies: Send + Sync + 'static {
    /// Who is to hold the copy of a shard which this node owns.
    fn standby(&self, shard: u16) -> Standby;

    /// All other nodes that may hold something.
    fn others(&self) -> Vec<Holder>;

    /// Brings a copy up to date.
    async fn replicate(
        &self,
        to: &Holder,
        shard: u16,
        epoch: u64,
        logs: Vec<SeriesLog>,
        deadline: Deadline,
    ) -> Result<Vec<(SeriesName, Taken)>, CopyError>;

    /// How far the copy of a shard goes; from then on it refuses owners of lower epochs.
    async fn ends(
        &self,
        of: &Holder,
        shard: u16,
        epoch: u64,
        deadline: Deadline,
    ) -> Result<Vec<LogEnd>, CopyError>;

    /// All that a copy has of some series.
    async fn fetch(
        &self,
        of: &Holder,
        shard: u16,
        series: Vec<SeriesName>,
        deadline: Deadline,
    ) -> Result<Vec<SeriesLog>, CopyError>;
}

/// The place for the copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standby {
    /// That node.
    On(Holder),
    /// Nobody: this node is a majority by itself, so there is no other that could take over.
    Nobody,
    /// A node that is not there now. Without it nothing is acknowledged: this node may be the one that is cut off.
    Missing,
}

/// Another node did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// It knows of a later owner.
    #[error("the shard has another owner since")]
    Fenced,
    /// It does not answer, or cannot.
    #[error("{0}")]
    Unreachable(String),
}

/// A node without others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

#[async_trait]
impl Copies for Alone {
    fn standby(&self, _: u16) -> Standby {
        Standby::Nobody
    }

    fn others(&self) -> Vec<Holder> {
        Vec::new()
    }

    async fn replicate(
        &self,
        _: &Holder,
        _: u16,
        _: u64,
        _: Vec<SeriesLog>,
        _: Deadline,
    ) -> Result<Vec<(SeriesName, Taken)>, CopyError> {
        Err(nobody())
    }

    async fn ends(&self, _: &Holder, _: u16, _: u64, _: Deadline) -> Result<Vec<LogEnd>, CopyError> {
        Err(nobody())
    }

    async fn fetch(
        &self,
        _: &Holder,
        _: u16,
        _: Vec<SeriesName>,
        _: Deadline,
    ) -> Result<Vec<SeriesLog>, CopyError> {
        Err(nobody())
    }
}

fn nobody() -> CopyError {
    CopyError::Unreachable("this node is alone".to_owned())
}
