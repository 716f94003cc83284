//! Where each shard belongs, given who is there.
//!
//! Knows no lease: what belongs here is only wanted here.

use std::time::Instant;

use super::{ShardId, ShardSpec};
use crate::cluster::rendezvous::owner;
use crate::cluster::{Member, NodeId, Standing, View};

/// Where the shards of one type belong, as one node sees it.
#[derive(Debug)]
pub struct Placement {
    owners: Vec<Option<NodeId>>,
    view: View,
    home_empty_since: Option<Instant>,
    /// The home has been empty for longer than the grace.
    abroad: bool,
}

impl Placement {
    /// Nowhere, until a view comes.
    #[must_use]
    pub fn new(spec: &ShardSpec) -> Self {
        let owners = vec![None; usize::from(spec.shard_count)];
        Self { owners, view: View::default(), home_empty_since: None, abroad: false }
    }

    /// Takes a new view.
    pub fn on_view(&mut self, spec: &ShardSpec, view: &View, now: Instant) {
        self.view = view.clone();
        self.place(spec, now);
    }

    /// Lets the grace of an empty home run out.
    pub fn tick(&mut self, spec: &ShardSpec, now: Instant) {
        if self.wake_at(spec).is_some_and(|at| at <= now) {
            self.place(spec, now);
        }
    }

    /// When the grace of an empty home runs out.
    #[must_use]
    pub fn wake_at(&self, spec: &ShardSpec) -> Option<Instant> {
        self.home_empty_since.filter(|_| !self.abroad).map(|since| since + spec.grace)
    }

    /// Where a shard belongs; nowhere while its home is empty and the grace runs.
    #[must_use]
    pub fn owner(&self, shard: ShardId) -> Option<&NodeId> {
        self.owners.get(usize::from(shard.0))?.as_ref()
    }

    /// The view behind it.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    fn place(&mut self, spec: &ShardSpec, now: Instant) {
        let able = |member: &&Member| member.standing == Standing::Active && has_role(spec, member);
        let at_home = |member: &&Member| spec.home.as_ref().is_none_or(|home| *home == member.region);
        let members = || self.view.members.values().filter(able);
        let home: Vec<&NodeId> = members().filter(at_home).map(|member| &member.id).collect();
        let candidates = if home.is_empty() {
            let since = *self.home_empty_since.get_or_insert(now);
            self.abroad = now.saturating_duration_since(since) >= spec.grace;
            let abroad = self.abroad;
            members().filter(|_| abroad).map(|member| &member.id).collect()
        } else {
            (self.home_empty_since, self.abroad) = (None, false);
            home
        };
        let region = spec.home.as_ref().map_or("", |region| region.as_str());
        self.owners = (0..spec.shard_count)
            .map(|shard| {
                let key = format!("{}/{region}/{shard}", spec.name);
                owner(key.as_bytes(), candidates.iter().copied()).cloned()
            })
            .collect();
    }
}

pub(super) fn has_role(spec: &ShardSpec, member: &Member) -> bool {
    spec.role.as_ref().is_none_or(|role| member.roles.contains(role))
}
