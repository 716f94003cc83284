//! Publish and subscribe: which subscribers a topic reaches, and which topics a node wants at all.
//!
//! A topic is levels with `/` between. A pattern may have `*` for any one level, and at its end `#` or `**` for
//! any number of further levels, none included. Bounded: depth, length and the number of subscriptions.
//! Knows no network and no actor; `hub` does.

mod hub;
#[cfg(test)]
mod nodes;

use std::collections::{BTreeMap, BTreeSet};

pub use hub::{HubError, HubLimits, PublishError, Published, TopicHub, TopicSubscription};

/// Most levels of a topic or pattern.
pub const LEVELS_MAX: usize = 16;
/// Longest topic or pattern, in bytes.
pub const TOPIC_BYTES_MAX: usize = 256;

/// Text that is no topic or no pattern, or one too many. Whoever wrote it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Longer than [`TOPIC_BYTES_MAX`] or deeper than [`LEVELS_MAX`].
    #[error("longer than 256 bytes or deeper than 16 levels")]
    TooLong,
    /// A level has no character in it.
    #[error("a level is empty")]
    EmptyLevel,
    /// A wildcard in a topic, beside other characters, or `#` or `**` before the end.
    #[error("a wildcard stands alone in its level, `#` and `**` in the last, and in patterns only")]
    Wildcard,
    /// A line ends in it.
    #[error("a topic has no line break")]
    LineBreak,
    /// There are as many subscriptions as there may be.
    #[error("too many subscriptions")]
    Full,
}

/// The subscriptions of one node.
#[derive(Debug)]
pub struct Topics<S> {
    root: Node<S>,
    subscriptions: usize,
    subscriptions_max: usize,
}

#[derive(Debug)]
struct Node<S> {
    named: BTreeMap<Box<str>, Node<S>>,
    any: Option<Box<Node<S>>>,
    /// Their patterns end here.
    here: BTreeSet<S>,
    /// Their patterns end here with any number of further levels.
    rest: BTreeSet<S>,
}

/// A pattern, level by level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level<'a> {
    Named(&'a str),
    Any,
    Rest,
}

impl<S: Ord + Clone> Topics<S> {
    /// No subscriptions, and room for so many.
    #[must_use]
    pub fn new(subscriptions_max: usize) -> Self {
        Self { root: Node::new(), subscriptions: 0, subscriptions_max }
    }

    /// Whether that is new.
    ///
    /// # Errors
    /// Not a pattern, or too many.
    pub fn subscribe(&mut self, pattern: &str, subscriber: S) -> Result<bool, TopicError> {
        let levels = levels_of(pattern)?;
        if self.subscriptions >= self.subscriptions_max {
            return Err(TopicError::Full);
        }
        let added = self.root.add(&levels, subscriber);
        self.subscriptions += usize::from(added);
        Ok(added)
    }

    /// Whether there was such a subscription.
    ///
    /// # Errors
    /// Not a pattern.
    pub fn unsubscribe(&mut self, pattern: &str, subscriber: &S) -> Result<bool, TopicError> {
        let removed = self.root.remove(&levels_of(pattern)?, subscriber);
        self.subscriptions -= usize::from(removed);
        Ok(removed)
    }

    /// Ends all subscriptions of one that is gone.
    pub fn forget(&mut self, subscriber: &S) {
        self.subscriptions -= self.root.forget(subscriber);
    }

    /// Whom a topic reaches: each once, in order.
    ///
    /// # Errors
    /// Not a topic.
    pub fn matches(&self, topic: &str) -> Result<BTreeSet<S>, TopicError> {
        let mut found = BTreeSet::new();
        self.root.find(&names_of(topic)?, &mut found);
        Ok(found)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    /// What this node wants, in at most `patterns_max` patterns: where there are more they are widened from
    /// their ends, at worst to everything, so that nothing wanted is missed.
    #[must_use]
    pub fn interests(&self, patterns_max: usize) -> Interests {
        let mut patterns = BTreeSet::new();
        self.root.list(&mut Vec::new(), &mut patterns);
        for depth in (0..LEVELS_MAX).rev() {
            if patterns.len() <= patterns_max {
                break;
            }
            patterns = patterns.iter().map(|pattern| widened(pattern, depth)).collect();
        }
        Interests::new(patterns.into_iter().collect())
    }
}

/// What one node wants, as it tells the others: one whole record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interests {
    patterns: Vec<String>,
}

impl Interests {
    /// As another node wrote them.
    ///
    /// # Errors
    /// One of them is no pattern, or there are more than `patterns_max`.
    pub fn read(patterns: Vec<String>, patterns_max: usize) -> Result<Self, TopicError> {
        if patterns.len() > patterns_max {
            return Err(TopicError::Full);
        }
        for pattern in &patterns {
            levels_of(pattern)?;
        }
        Ok(Self::new(patterns))
    }

    /// Leaves out what another pattern wants already.
    fn new(mut patterns: Vec<String>) -> Self {
        patterns.sort();
        patterns.dedup();
        let all = patterns.clone();
        patterns.retain(|pattern| !all.iter().any(|other| other != pattern && wider(other, pattern)));
        Self { patterns }
    }

    /// As they are told.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether the node is sent this topic.
    #[must_use]
    pub fn want(&self, topic: &str) -> bool {
        let Ok(names) = names_of(topic) else { return false };
        self.patterns.iter().any(|pattern| levels_of(pattern).is_ok_and(|levels| fits(&levels, &names)))
    }
}

impl<S: Ord + Clone> Node<S> {
    fn new() -> Self {
        Self { named: BTreeMap::new(), any: None, here: BTreeSet::new(), rest: BTreeSet::new() }
    }

    fn add(&mut self, levels: &[Level<'_>], subscriber: S) -> bool {
        match levels {
            [] => self.here.insert(subscriber),
            [Level::Rest, ..] => self.rest.insert(subscriber),
            [Level::Any, further @ ..] => {
                self.any.get_or_insert_with(|| Box::new(Self::new())).add(further, subscriber)
            }
            [Level::Named(name), further @ ..] => {
                self.named.entry((*name).into()).or_insert_with(Self::new).add(further, subscriber)
            }
        }
    }

    fn remove(&mut self, levels: &[Level<'_>], subscriber: &S) -> bool {
        let removed = match levels {
            [] => self.here.remove(subscriber),
            [Level::Rest, ..] => self.rest.remove(subscriber),
            [Level::Any, further @ ..] => {
                self.any.as_mut().is_some_and(|node| node.remove(further, subscriber))
            }
            [Level::Named(name), further @ ..] => {
                self.named.get_mut(*name).is_some_and(|node| node.remove(further, subscriber))
            }
        };
        self.prune();
        removed
    }

    fn forget(&mut self, subscriber: &S) -> usize {
        let mut count = usize::from(self.here.remove(subscriber)) + usize::from(self.rest.remove(subscriber));
        count += self.named.values_mut().map(|node| node.forget(subscriber)).sum::<usize>();
        count += self.any.as_mut().map_or(0, |node| node.forget(subscriber));
        self.prune();
        count
    }

    /// Branches without subscribers go, so that what came and went leaves nothing behind.
    fn prune(&mut self) {
        self.named.retain(|_, node| !node.is_empty());
        self.any = self.any.take().filter(|node| !node.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    fn find(&self, names: &[&str], found: &mut BTreeSet<S>) {
        found.extend(self.rest.iter().cloned());
        let [name, further @ ..] = names else {
            found.extend(self.here.iter().cloned());
            return;
        };
        if let Some(node) = self.named.get(*name) {
            node.find(further, found);
        }
        if let Some(node) = &self.any {
            node.find(further, found);
        }
    }

    fn list<'a>(&'a self, above: &mut Vec<&'a str>, patterns: &mut BTreeSet<String>) {
        if !self.here.is_empty() {
            patterns.insert(above.join("/"));
        }
        if !self.rest.is_empty() {
            let mut levels = above.clone();
            levels.push("**");
            patterns.insert(levels.join("/"));
        }
        let any = self.any.iter().map(|node| ("*", &**node));
        for (name, node) in self.named.iter().map(|(name, node)| (&**name, node)).chain(any) {
            above.push(name);
            node.list(above, patterns);
            above.pop();
        }
    }
}

fn levels_of(pattern: &str) -> Result<Vec<Level<'_>>, TopicError> {
    let names = split(pattern)?;
    let last = names.len() - 1;
    let level = |(at, name)| match name {
        "*" => Ok(Level::Any),
        "#" | "**" if at == last => Ok(Level::Rest),
        name if name.contains(['*', '#']) => Err(TopicError::Wildcard),
        name => Ok(Level::Named(name)),
    };
    names.into_iter().enumerate().map(level).collect()
}

fn names_of(topic: &str) -> Result<Vec<&str>, TopicError> {
    let names = split(topic)?;
    if topic.contains(['*', '#']) { Err(TopicError::Wildcard) } else { Ok(names) }
}

fn split(text: &str) -> Result<Vec<&str>, TopicError> {
    if text.len() > TOPIC_BYTES_MAX || text.bytes().filter(|byte| *byte == b'/').count() >= LEVELS_MAX {
        return Err(TopicError::TooLong);
    }
    if text.contains('\n') {
        return Err(TopicError::LineBreak);
    }
    let names: Vec<&str> = text.split('/').collect();
    if names.iter().any(|name| name.is_empty()) { Err(TopicError::EmptyLevel) } else { Ok(names) }
}

/// The plain meaning of a pattern.
fn fits(levels: &[Level<'_>], names: &[&str]) -> bool {
    match (levels, names) {
        ([], []) | ([Level::Rest], _) => true,
        ([Level::Any, levels @ ..], [_, names @ ..]) => fits(levels, names),
        ([Level::Named(level), levels @ ..], [name, names @ ..]) => level == name && fits(levels, names),
        _ => false,
    }
}

/// Whether `other` ends in `**` and wants whatever `pattern` wants; only with equal levels before the end,
/// which is what widening makes.
fn wider(other: &str, pattern: &str) -> bool {
    other == "**"
        || other
            .strip_suffix("**")
            .is_some_and(|above| pattern.starts_with(above) || pattern == &above[..above.len() - 1])
}

/// The first `depth` levels and anything below; the pattern itself if it is no deeper.
fn widened(pattern: &str, depth: usize) -> String {
    let levels: Vec<&str> = pattern.split('/').collect();
    let deep = levels.len() - usize::from(levels.last() == Some(&"**"));
    if deep <= depth {
        return pattern.to_owned();
    }
    levels[..depth].iter().chain(&["**"]).copied().collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn a_name_matches_itself_only() {
        check("a/b", &["a/b"], &["a", "a/b/c", "a/c", "A/b"]);
    }

    #[test]
    fn a_star_is_one_level() {
        check("a/*/c", &["a/b/c", "a/x/c"], &["a/c", "a/b/b/c", "a/b"]);
    }

    #[test]
    fn the_rest_is_any_number_of_levels() {
        for pattern in ["a/#", "a/**"] {
            check(pattern, &["a", "a/b", "a/b/c"], &["b", "ab"]);
        }
        check("**", &["a", "a/b/c"], &[]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let deep = ["a"; LEVELS_MAX + 1].join("/");
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        let cases = [
            ("", TopicError::EmptyLevel),
            ("a//b", TopicError::EmptyLevel),
            ("/a", TopicError::EmptyLevel),
            ("a*", TopicError::Wildcard),
            ("#/a", TopicError::Wildcard),
            ("a/**/b", TopicError::Wildcard),
            (&deep, TopicError::TooLong),
            (&long, TopicError::TooLong),
        ];
        for (pattern, error) in cases {
            assert_eq!(Topics::new(9).subscribe(pattern, 1), Err(error), "{pattern}");
        }
    }

    #[test]
    fn a_topic_has_no_wildcards() {
        assert_eq!(Topics::<u8>::new(9).matches("a/*"), Err(TopicError::Wildcard));
    }

    #[test]
    fn too_many_subscriptions_are_refused() {
        let mut topics = Topics::new(2);
        assert_eq!((topics.subscribe("a", 1), topics.subscribe("a", 1)), (Ok(true), Ok(false)));
        assert_eq!((topics.subscribe("b", 1), topics.subscribe("c", 1)), (Ok(true), Err(TopicError::Full)));
        topics.forget(&1);
        assert!(topics.is_empty() && topics.root.is_empty());
    }

    #[test]
    fn a_subscriber_is_reached_once() {
        let mut topics = Topics::new(9);
        for pattern in ["a/b", "a/*", "**"] {
            topics.subscribe(pattern, 7).unwrap();
        }
        assert_eq!(topics.matches("a/b").unwrap().into_iter().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn any_mix_of_subscriptions_matches_as_the_plain_meaning_says() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut topics, mut plain) = (Topics::new(1_000), BTreeSet::new());
            for _ in 0..rng.random_range(1..60) {
                let (pattern, subscriber) = (random(&mut rng, true), rng.random_range(0..5));
                if rng.random_bool(0.3) {
                    let removed = topics.unsubscribe(&pattern, &subscriber).unwrap();
                    assert_eq!(removed, plain.remove(&(pattern, subscriber)), "seed {seed}");
                } else {
                    let added = topics.subscribe(&pattern, subscriber).unwrap();
                    assert_eq!(added, plain.insert((pattern, subscriber)), "seed {seed}");
                }
                assert_eq!(topics.len(), plain.len(), "seed {seed}");
            }
            let patterns_max = rng.random_range(1..12);
            let interests = topics.interests(patterns_max);
            assert!(interests.patterns().len() <= patterns_max, "seed {seed}");
            assert_eq!(Interests::read(interests.patterns().to_vec(), patterns_max), Ok(interests.clone()));
            for _ in 0..60 {
                let topic = random(&mut rng, false);
                let names: Vec<&str> = topic.split('/').collect();
                let hit = plain.iter().filter(|(pattern, _)| fits(&levels_of(pattern).unwrap(), &names));
                let expected: BTreeSet<i32> = hit.map(|(_, subscriber)| *subscriber).collect();
                assert!(expected.is_empty() || interests.want(&topic), "seed {seed}: {topic} is missed");
                assert_eq!(topics.matches(&topic).unwrap(), expected, "seed {seed}: {topic}");
            }
        }
    }

    #[test]
    fn few_interests_are_told_exactly() {
        let mut topics = Topics::new(99);
        for pattern in ["a/b", "a/**", "c/*/d", "e"] {
            topics.subscribe(pattern, 1).unwrap();
        }
        assert_eq!(topics.interests(9).patterns(), ["a/**", "c/*/d", "e"]);
        assert_eq!(topics.interests(1).patterns(), ["**"]);
    }

    fn random(rng: &mut StdRng, wild: bool) -> String {
        let mut levels: Vec<&str> = (0..rng.random_range(1..6))
            .map(
                |_| if wild && rng.random_bool(0.25) { "*" } else { ["a", "b", "c"][rng.random_range(0..3)] },
            )
            .collect();
        if wild && rng.random_bool(0.3) {
            levels.push("**");
        }
        levels.join("/")
    }

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let mut topics = Topics::new(1);
        topics.subscribe(pattern, ()).unwrap();
        for topic in yes.iter().chain(no) {
            let hit = !topics.matches(topic).unwrap().is_empty();
            assert_eq!(hit, yes.contains(topic), "`{pattern}` and `{topic}`");
        }
    }
}
