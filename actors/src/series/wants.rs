//! Which predictions are wanted, and by which nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Pattern, SeriesName};

/// Who wants what; a new one whenever that changes.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    generation: u64,
    by_node: BTreeMap<Arc<str>, Vec<(Arc<str>, Pattern)>>,
    /// Made and scored though nobody reads them.
    always: Vec<(Arc<str>, Pattern)>,
}

/// A model that is to forecast a series, and the nodes that want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Name of the model.
    pub model: Arc<str>,
    /// Names of the nodes; none when it is only scored.
    pub nodes: Arc<[Arc<str>]>,
}

impl Wants {
    /// What is wanted whatever the nodes say.
    #[must_use]
    pub fn new(always: Vec<(Arc<str>, Pattern)>) -> Self {
        Self { generation: 1, by_node: BTreeMap::new(), always }
    }

    /// Changes with every change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What one node wants from now on, all of it. `None`: that is what it wanted before.
    #[must_use]
    pub fn with(&self, node: &str, wanted: Vec<(Arc<str>, Pattern)>) -> Option<Self> {
        if self.by_node.get(node).map_or(wanted.is_empty(), |known| *known == wanted) {
            return None;
        }
        let mut next = self.clone();
        next.generation += 1;
        if wanted.is_empty() {
            next.by_node.remove(node);
        } else {
            next.by_node.insert(node.into(), wanted);
        }
        Some(next)
    }

    /// What a node wants and did not want `before`.
    #[must_use]
    pub fn added(&self, before: &Self, node: &str) -> Vec<(Arc<str>, Pattern)> {
        let of = |wants: &Self| wants.by_node.get(node).cloned().unwrap_or_default();
        let known = of(before);
        of(self).into_iter().filter(|wish| !known.contains(wish)).collect()
    }

    /// Nodes that want something.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_node.keys()
    }

    /// What is wanted of one series, by the name of the model.
    #[must_use]
    pub fn of(&self, series: &SeriesName) -> Vec<Want> {
        let mut models: BTreeMap<&Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for (model, _) in self.always.iter().filter(|(_, pattern)| pattern.matches(series.as_str())) {
            models.entry(model).or_default();
        }
        for (node, wanted) in &self.by_node {
            for (model, _) in wanted.iter().filter(|(_, pattern)| pattern.matches(series.as_str())) {
                let nodes = models.entry(model).or_default();
                if nodes.last() != Some(node) {
                    nodes.push(Arc::clone(node));
                }
            }
        }
        models
            .into_iter()
            .map(|(model, nodes)| Want { model: Arc::clone(model), nodes: nodes.into() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Pattern)> {
        let pattern = |pattern: &str| Pattern::new(pattern).expect("a pattern");
        pairs.iter().map(|&(model, of)| (model.into(), pattern(of))).collect()
    }

    #[track_caller]
    fn check(wants: &Wants, series: &str, models: &[(&str, &[&str])]) {
        let of = wants.of(&SeriesName::new(series).expect("a name"));
        let got: Vec<(&str, Vec<&str>)> =
            of.iter().map(|want| (&*want.model, want.nodes.iter().map(|node| &**node).collect())).collect();
        let want: Vec<(&str, Vec<&str>)> =
            models.iter().map(|&(model, nodes)| (model, nodes.to_vec())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_model_forecasts_once_for_all_who_want_it() {
        let wants = Wants::new(wanted(&[("always", "*")]));
        let wants = wants.with("a", wanted(&[("m", "fx/*"), ("m", "fx/USD"), ("n", "fx/USD")])).expect("new");
        let wants = wants.with("b", wanted(&[("m", "*")])).expect("new");
        check(&wants, "fx/USD", &[("always", &[]), ("m", &["a", "b"]), ("n", &["a"])]);
        check(&wants, "AAPL", &[("always", &[]), ("m", &["b"])]);
        let wants = wants.with("b", Vec::new()).expect("less");
        check(&wants, "AAPL", &[("always", &[])]);
    }

    #[test]
    fn the_same_again_is_no_change() {
        let wants = Wants::default();
        assert!(wants.with("a", Vec::new()).is_none());
        let wants = wants.with("a", wanted(&[("m", "*")])).expect("new");
        assert!(wants.with("a", wanted(&[("m", "*")])).is_none());
        assert_eq!(wants.with("a", Vec::new()).expect("less").generation(), 2);
    }
}
