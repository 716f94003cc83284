//! Members and views for tests, said in one line.

use std::collections::BTreeMap;

use crate::cluster::{Incarnation, Member, NodeId, Region, Standing, View};

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(crate) fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

/// `name` or `name@region`, with `!` behind it when it drains.
pub(crate) fn member(said: &str) -> Member {
    let (said, standing) = match said.strip_suffix('!') {
        Some(said) => (said, Standing::Draining),
        None => (said, Standing::Active),
    };
    let (name, place) = said.split_once('@').unwrap_or((said, "here"));
    Member {
        id: id(name),
        incarnation: Incarnation(1),
        addr: ([127, 0, 0, 1], 1).into(),
        region: region(place),
        roles: vec!["worker".to_owned()],
        version: "1".to_owned(),
        load: 0.0,
        standing,
        services: BTreeMap::new(),
        cut_from: Vec::new(),
    }
}

pub(crate) fn view_of(members: impl IntoIterator<Item = Member>) -> View {
    let members = members.into_iter().map(|member| (member.id.clone(), member)).collect();
    View { members, revision: 1 }
}

/// As [`member`], with blanks between.
pub(crate) fn view(said: &str) -> View {
    view_of(said.split_whitespace().map(member))
}
