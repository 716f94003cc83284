//! Who offers a service: found by its key, in a region, nearest or least busy, and who came and went since.
//!
//! Pure: views and distances in, members out.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Incarnation, Member, NodeId, Region, RttClass, Standing, View};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Name of the service, as in [`Member::services`].
    pub service: String,
    /// Only there.
    pub region: Option<Region>,
    /// Also members that leave soon.
    pub with_draining: bool,
}

/// One that offers it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Provider<'a> {
    /// Who.
    pub member: &'a Member,
    /// What it says of the service.
    pub described: &'a str,
}

impl Query {
    /// In every region, of those that stay.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self { service: name.to_owned(), region: None, with_draining: false }
    }

    /// Only in this region.
    #[must_use]
    pub fn in_region(self, region: Region) -> Self {
        Self { region: Some(region), ..self }
    }

    /// Also those that leave soon.
    #[must_use]
    pub fn with_draining(self) -> Self {
        Self { with_draining: true, ..self }
    }

    fn answer<'a>(&self, member: &'a Member) -> Option<Provider<'a>> {
        let here = self.region.as_ref().is_none_or(|region| *region == member.region);
        let stays = self.with_draining || member.standing == Standing::Active;
        let described = member.services.get(&self.service)?;
        (here && stays).then_some(Provider { member, described })
    }
}

/// All that offer it, by name.
#[must_use]
pub fn find<'a>(view: &'a View, query: &Query) -> Vec<Provider<'a>> {
    view.members.values().filter_map(|member| query.answer(member)).collect()
}

/// All that offer it, nearest class first; within a class the least busy first.
#[must_use]
pub fn nearest<'a>(view: &'a View, query: &Query, far: impl Fn(&NodeId) -> RttClass) -> Vec<Provider<'a>> {
    let mut found = find(view, query);
    found.sort_by(|a, b| far(&a.member.id).cmp(&far(&b.member.id)).then_with(|| by_load(a.member, b.member)));
    found
}

/// All that offer it, least busy first.
#[must_use]
pub fn least_loaded<'a>(view: &'a View, query: &Query) -> Vec<Provider<'a>> {
    let mut found = find(view, query);
    found.sort_by(|a, b| by_load(a.member, b.member));
    found
}

/// Less busy first, then by name, so that the order is whole.
fn by_load(a: &Member, b: &Member) -> Ordering {
    load_of(a).total_cmp(&load_of(b)).then_with(|| a.id.cmp(&b.id))
}

/// A load that is no number counts as full: what a member cannot say must not draw work to it.
pub(crate) fn load_of(member: &Member) -> f32 {
    if member.load.is_finite() { member.load.clamp(0.0, 1.0) } else { 1.0 }
}

/// What happened to one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It offers the service now.
    Came {
        /// Who.
        id: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
        /// What it says of the service.
        described: String,
    },
    /// It says something else of the service.
    Described {
        /// Who.
        id: NodeId,
        /// What it says now.
        described: String,
    },
    /// It is gone, or offers the service no more.
    Went {
        /// Who.
        id: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
    },
}

/// Follows one query from view to view. Views in between may be skipped: changes are against what was told last.
#[derive(Debug)]
pub struct Subscription {
    query: Query,
    told: BTreeMap<NodeId, (Incarnation, String)>,
}

impl Subscription {
    /// Has told nothing yet: the first update names everyone.
    #[must_use]
    pub fn new(query: Query) -> Self {
        Self { query, told: BTreeMap::new() }
    }

    /// What changed since the last update; those that went first. A restarted member went and came.
    pub fn update(&mut self, view: &View) -> Vec<Change> {
        let now: BTreeMap<NodeId, (Incarnation, String)> = find(view, &self.query)
            .into_iter()
            .map(|Provider { member, described }| {
                (member.id.clone(), (member.incarnation, described.to_owned()))
            })
            .collect();
        let same_life = |id: &NodeId, life: Incarnation, other: &BTreeMap<NodeId, (Incarnation, String)>| {
            other.get(id).is_some_and(|(theirs, _)| *theirs == life)
        };
        let mut changes: Vec<Change> = (self.told.iter())
            .filter(|(id, (life, _))| !same_life(id, *life, &now))
            .map(|(id, (life, _))| Change::Went { id: id.clone(), incarnation: *life })
            .collect();
        for (id, (life, described)) in &now {
            let (id, described) = (id.clone(), described.clone());
            if !same_life(&id, *life, &self.told) {
                changes.push(Change::Came { id, incarnation: *life, described });
            } else if self.told.get(&id).is_some_and(|(_, before)| *before != described) {
                changes.push(Change::Described { id, described });
            }
        }
        self.told = now;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{id, member, region, view_of};

    #[test]
    fn all_that_offer_it_are_found_by_name() {
        check(|view| find(view, &Query::service("predict")), "a b c");
    }

    #[test]
    fn nobody_offers_what_nobody_offers() {
        check(|view| find(view, &Query::service("dream")), "");
    }

    #[test]
    fn draining_ones_are_found_when_asked_for() {
        check(|view| find(view, &Query::service("predict").with_draining()), "a b c d");
    }

    #[test]
    fn a_region_leaves_out_the_others() {
        check(|view| find(view, &Query::service("predict").in_region(region("y"))), "c");
    }

    #[test]
    fn the_least_loaded_is_first_and_no_number_is_full() {
        check(|view| least_loaded(view, &Query::service("predict")), "c b a");
    }

    #[test]
    fn the_nearest_class_goes_before_the_load() {
        let far = |node: &NodeId| if node.as_str() == "c" { RttClass::Far } else { RttClass::SameRegion };
        check(|view| nearest(view, &Query::service("predict"), far), "b a c");
    }

    #[test]
    fn a_subscription_tells_who_came_and_went() {
        let mut views = vec![world()];
        let mut next = world();
        next.members.remove(&id("a"));
        next.members.get_mut(&id("b")).unwrap().incarnation = Incarnation(2);
        next.members.get_mut(&id("c")).unwrap().services.insert("predict".into(), "v2".into());
        next.members.get_mut(&id("d")).unwrap().standing = Standing::Active;
        views.push(next.clone());
        views.push(next);
        let expected = ["+a1 +b1 +c1", "-a1 -b1 +b2 ~c +d1", ""];
        let mut subscription = Subscription::new(Query::service("predict"));
        assert_eq!(views.iter().map(|view| say(&subscription.update(view))).collect::<Vec<_>>(), expected);
    }

    fn say(changes: &[Change]) -> String {
        let said = changes.iter().map(|change| match change {
            Change::Came { id, incarnation, .. } => format!("+{id}{}", incarnation.0),
            Change::Described { id, .. } => format!("~{id}"),
            Change::Went { id, incarnation } => format!("-{id}{}", incarnation.0),
        });
        said.collect::<Vec<_>>().join(" ")
    }

    /// a and b near, c far, d leaves, e offers something else.
    fn world() -> View {
        let offer = |said: &str, load: f32, service: &str| {
            let mut member = member(said);
            member.load = load;
            member.services.insert(service.to_owned(), "v1".to_owned());
            member
        };
        view_of([
            offer("a@x", f32::NAN, "predict"),
            offer("b@x", 0.5, "predict"),
            offer("c@y", 0.1, "predict"),
            offer("d@x!", 0.0, "predict"),
            offer("e@x", 0.0, "train"),
        ])
    }

    #[track_caller]
    fn check(ask: impl Fn(&View) -> Vec<Provider<'_>>, names: &str) {
        let world = world();
        let found: Vec<_> = ask(&world).iter().map(|provider| provider.member.id.to_string()).collect();
        assert_eq!(found.join(" "), names);
    }
}
