//! What nodes and the scaler say to each other, wherever in the cluster it acts.

use std::collections::BTreeMap;

use peregrine_runtime::remote_message;
use peregrine_scaler::signal::Signal;
use serde::{Deserialize, Serialize};

/// The singleton's name, and the role of those that may hold it.
pub(crate) const NAME: &str = "scaler";

/// To the scaler.
#[derive(Clone, Debug, Serialize, Deserialize, actix::Message)]
#[rtype(result = "FromScaler")]
pub(crate) enum ToScaler {
    /// What a node says of itself, every second.
    Vitals(NodeVitals),
    /// Asks for the report.
    Report,
    /// From now on machines of a group run another release.
    Release {
        /// The group.
        group: String,
        /// What its machines are to run.
        release: String,
    },
}

/// Its answers, in the same order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromScaler {
    /// What the node is to do.
    Orders(Orders),
    /// JSON.
    Report(String),
    /// Whether it will be so; if not, why.
    Released(Result<(), String>),
}
remote_message!(ToScaler, "peregrine.scaler", version 1, up to 1048576 bytes, lane Ask);

/// One node, as it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeVitals {
    /// Its name in the cluster.
    pub(crate) node: String,
    /// What the platform calls the machine that it runs on, where there is one.
    pub(crate) machine: Option<String>,
    /// Where it is.
    pub(crate) region: String,
    /// It holds models and computes.
    pub(crate) computes: bool,
    /// It takes requests.
    pub(crate) is_ready: bool,
    /// It was told to take no more.
    pub(crate) is_draining: bool,
    /// By place in [`Signal::ALL`].
    pub(crate) measured: Vec<(u8, f64)>,
    /// Requests per second that came to it from callers.
    pub(crate) asked_here: Option<f64>,
    /// What it last heard of releases: the scaler may be a new one, on another node.
    pub(crate) releases: Releases,
}

/// What a node is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// Take no new requests, and send streams elsewhere.
    pub(crate) drain: bool,
    /// To be remembered.
    pub(crate) releases: Releases,
}

/// What machines of groups are to run where an operator has said so; the later stamp counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Releases {
    /// Milliseconds since the epoch; 0: nobody has said anything.
    pub(crate) stamp_ms: u64,
    /// By group.
    pub(crate) by_group: BTreeMap<String, String>,
}

impl Releases {
    /// Takes over what was said later.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.stamp_ms > self.stamp_ms {
            self.clone_from(other);
        }
    }
}

/// What was measured, by signal; one that this program does not know was measured by a newer one.
pub(crate) fn measured(pairs: &[(u8, f64)]) -> BTreeMap<Signal, f64> {
    let known = pairs.iter().filter_map(|(at, value)| Some((*Signal::ALL.get(usize::from(*at))?, *value)));
    known.collect()
}

/// The other way round.
pub(crate) fn pairs(measured: &BTreeMap<Signal, f64>) -> Vec<(u8, f64)> {
    let place = |signal: &Signal| Signal::ALL.iter().position(|known| known == signal);
    measured.iter().filter_map(|(signal, value)| Some((u8::try_from(place(signal)?).ok()?, *value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_cross_and_unknown_ones_are_passed_over() {
        let said: BTreeMap<Signal, f64> =
            Signal::ALL.into_iter().zip([1.0, 2.0, 3.0].into_iter().cycle()).collect();
        let mut crossing = pairs(&said);
        crossing.push((250, 9.0));
        assert_eq!(measured(&crossing), said);
    }

    #[test]
    fn the_later_word_on_releases_counts() {
        let said = |stamp_ms, release: &str| Releases {
            stamp_ms,
            by_group: [("g".to_owned(), release.to_owned())].into(),
        };
        let mut known = said(5, "v1");
        known.merge(&said(4, "v0"));
        known.merge(&said(5, "v0"));
        assert_eq!(known, said(5, "v1"));
        known.merge(&said(6, "v2"));
        assert_eq!(known, said(6, "v2"));
    }
}
