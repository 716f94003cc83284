//! The copies of series on other nodes.

use async_trait::async_trait;
use peregrine_actors::series::{Copies, CopyError, Holder, LogEnd, SeriesLog, SeriesName, Standby, Taken};
use peregrine_runtime::{
    AskError, Cluster, Deadline, Member, NodeId, Region, RemoteMessage, Standing, rendezvous,
};

use super::wire::{Ask, AskBulk, Impossible, NodeAnswer, NodeAsk, WireSourceError, ends, heard, said, taken};
use super::{SERVICE, SHARDED};
use crate::reload::Current;

/// Logs of more ticks go by the lane for large messages.
const SMALL_TICKS_MAX: usize = 512;

pub(super) struct ClusterCopies {
    pub(super) cluster: Cluster,
    /// For the region that takes over.
    pub(super) config: Current,
    /// The role of nodes that hold series; `None`: all do.
    pub(super) role: Option<&'static str>,
    /// Nodes of that role that there are when all are up.
    pub(super) electorate: usize,
}

impl ClusterCopies {
    fn may_hold(&self, member: &Member) -> bool {
        member.id != *self.cluster.id()
            && self.role.is_none_or(|role| member.roles.iter().any(|held| held == role))
    }

    async fn ask<M>(&self, to: &Holder, message: M, deadline: Deadline) -> Result<NodeAnswer, CopyError>
    where
        M: RemoteMessage + actix::Message<Result = NodeAnswer>,
    {
        let gone = || CopyError::Unreachable("it has left".to_owned());
        let node = NodeId::new(&to.0).map_err(|_| gone())?;
        let view = self.cluster.view();
        view.get(&node).filter(|member| member.incarnation.0 == to.1).ok_or_else(gone)?;
        let address = self.cluster.address::<M>(&node, SERVICE).ok_or_else(gone)?;
        match address.ask(message, deadline).await {
            Ok(NodeAnswer::Fenced) => Err(CopyError::Fenced),
            Ok(NodeAnswer::Failed(why) | NodeAnswer::Refused(WireSourceError::Unavailable(why))) => {
                Err(CopyError::Unreachable(why))
            }
            Ok(answer) => Ok(answer),
            Err(failed) => Err(unreachable(&failed)),
        }
    }
}

fn unreachable(failed: &AskError) -> CopyError {
    CopyError::Unreachable(failed.to_string())
}

fn odd(_: Impossible) -> CopyError {
    CopyError::Unreachable("its answer makes no sense".to_owned())
}

fn other() -> CopyError {
    odd(Impossible)
}

/// The best place for the copy of a shard: the region that takes over for this one, then this region, then any; within
/// one, what rendezvous hashing says, by the key of the owner's placement: so it is the next owner where it can be.
fn best<'a>(
    shard: u16,
    members: impl Iterator<Item = &'a Member>,
    here: &Region,
    takes_over: Option<&Region>,
) -> Option<&'a Member> {
    let key = format!("{SHARDED}//{shard}");
    members.max_by_key(|member| {
        let place = match &member.region {
            region if takes_over == Some(region) => 2,
            region if region == here => 1,
            _ => 0,
        };
        (place, rendezvous::score(key.as_bytes(), &member.id))
    })
}

#[async_trait]
impl Copies for ClusterCopies {
    fn standby(&self, shard: u16) -> Standby {
        let (config, view) = (self.config.get(), self.cluster.view());
        let here = &config.node.region;
        let takes_over = config.regions.get(here).and_then(|region| region.standby.as_ref());
        let stays = |member: &&Member| member.standing == Standing::Active && self.may_hold(member);
        match best(shard, view.members.values().filter(stays), here, takes_over) {
            Some(member) => Standby::On(holder(member)),
            None if self.electorate > 1 => Standby::Missing,
            None => Standby::Nobody,
        }
    }

    fn others(&self) -> Vec<Holder> {
        self.cluster.view().members.values().filter(|member| self.may_hold(member)).map(holder).collect()
    }

    async fn replicate(
        &self,
        to: &Holder,
        shard: u16,
        epoch: u64,
        logs: Vec<SeriesLog>,
        deadline: Deadline,
    ) -> Result<Vec<(SeriesName, Taken)>, CopyError> {
        let is_small = logs.iter().map(|log| log.ticks.len()).sum::<usize>() <= SMALL_TICKS_MAX;
        let question = NodeAsk::Replicate { shard, epoch, logs: said(logs) };
        let answer = if is_small {
            self.ask(to, Ask(question), deadline).await
        } else {
            self.ask(to, AskBulk(question), deadline).await
        };
        match answer? {
            NodeAnswer::Taken(answers) => taken(answers).map_err(odd),
            _ => Err(other()),
        }
    }

    async fn ends(
        &self,
        of: &Holder,
        shard: u16,
        epoch: u64,
        deadline: Deadline,
    ) -> Result<Vec<LogEnd>, CopyError> {
        match self.ask(of, AskBulk(NodeAsk::Ends { shard, epoch }), deadline).await? {
            NodeAnswer::Ends(found) => ends(found).map_err(odd),
            _ => Err(other()),
        }
    }

    async fn fetch(
        &self,
        of: &Holder,
        shard: u16,
        series: Vec<SeriesName>,
        deadline: Deadline,
    ) -> Result<Vec<SeriesLog>, CopyError> {
        let series = series.iter().map(|name| name.as_str().to_owned()).collect();
        match self.ask(of, AskBulk(NodeAsk::Fetch { shard, series }), deadline).await? {
            NodeAnswer::Logs(logs) => heard(logs).map_err(odd),
            _ => Err(other()),
        }
    }
}

fn holder(member: &Member) -> Holder {
    (member.id.as_str().into(), member.incarnation.0)
}
