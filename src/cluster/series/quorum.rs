//! Whether enough nodes are there for any of them to own series, as the view of this one says.
//!
//! Decides nothing about ownership: leases do. It only says when waiting for an owner is in vain.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use peregrine_runtime::View;

/// How long too few must have been there: nodes that start find each other meanwhile.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Quorum {
    /// Of nodes that hold series; `None`: all do.
    role: Option<&'static str>,
    /// Of those, when all are up.
    electorate: usize,
    /// When it was first seen that too few are there.
    lacking_since: Mutex<Option<Instant>>,
}

/// Too few nodes are there; the operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    here: usize,
    needed: usize,
    electorate: usize,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { here, needed, electorate } = self;
        write!(
            f,
            "{here} of the {electorate} nodes that hold series are there, and none owns any before {needed} are: \
             the operator brings them back"
        )
    }
}

impl Quorum {
    pub(super) fn new(role: Option<&'static str>, electorate: usize) -> Self {
        Self { role, electorate, lacking_since: Mutex::default() }
    }

    /// What is lacking, if that has been so for a while.
    pub(super) fn lack(&self, view: &View, now: Instant) -> Option<Lack> {
        let holds = |roles: &[String]| self.role.is_none_or(|role| roles.iter().any(|held| held == role));
        let here = view.members.values().filter(|member| holds(&member.roles)).count();
        let electorate = self.electorate.max(here);
        let needed = electorate / 2 + 1;
        let mut since = self.lacking_since.lock();
        if here >= needed {
            *since = None;
            return None;
        }
        let since = *since.get_or_insert(now);
        let is_long = now.saturating_duration_since(since) >= GRACE;
        is_long.then_some(Lack { here, needed, electorate })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use peregrine_runtime::{Incarnation, Member, NodeId, Region, Standing};

    use super::*;

    const INFERENCE: Option<&str> = Some("inference");

    #[test]
    fn a_majority_lacks_nothing() {
        for (electorate, here) in [(1, 1), (3, 2), (3, 5), (4, 3), (0, 1)] {
            assert_eq!(seen(electorate, &vec!["inference"; here], 60), None, "{here} of {electorate}");
        }
    }

    #[test]
    fn too_few_are_too_few_after_a_while() {
        for (electorate, roles) in
            [(3, vec!["inference"]), (4, vec!["inference"; 2]), (3, vec!["inference", "gateway", "gateway"])]
        {
            assert_eq!(seen(electorate, &roles, 0), None, "{roles:?} of {electorate}, at once");
            assert!(seen(electorate, &roles, 1).is_some(), "{roles:?} of {electorate}, later");
        }
        let lack = seen(3, &["inference"], 1).expect("two are missing").to_string();
        assert!(lack.starts_with("1 of the 3 nodes that hold series are there, and none"), "{lack}");
    }

    #[test]
    fn whoever_comes_back_ends_it() {
        let (quorum, now) = (Quorum::new(INFERENCE, 3), Instant::now());
        let at = |secs| now + Duration::from_secs(secs);
        let (one, two) = (view(&["inference"]), view(&["inference"; 2]));
        assert_eq!(quorum.lack(&one, at(0)), None);
        assert_eq!(quorum.lack(&two, at(1)), None);
        assert_eq!(quorum.lack(&one, at(5)), None, "counted from anew");
        assert!(quorum.lack(&one, at(6)).is_some());
    }

    /// What is said of a view that has been the same for so long.
    fn seen(electorate: usize, roles: &[&str], secs: u64) -> Option<Lack> {
        let (quorum, now) = (Quorum::new(INFERENCE, electorate), Instant::now());
        let first = quorum.lack(&view(roles), now);
        if secs == 0 { first } else { quorum.lack(&view(roles), now + Duration::from_secs(secs)) }
    }

    fn view(roles: &[&str]) -> View {
        let member = |(at, role): (usize, &&str)| {
            let id = NodeId::new(&format!("n{at}")).expect("a name");
            let member = Member {
                id: id.clone(),
                incarnation: Incarnation(1),
                addr: "127.0.0.1:1".parse().expect("an address"),
                region: Region::new("fra").expect("a name"),
                roles: vec![(*role).to_owned()],
                version: String::new(),
                load: 0.0,
                standing: Standing::Active,
                services: BTreeMap::new(),
                cut_from: Vec::new(),
            };
            (id, member)
        };
        View { members: roles.iter().enumerate().map(member).collect(), revision: 0 }
    }
}
