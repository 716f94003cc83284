//! Which node has a key: the one that scores highest with it (Thaler and Ravishankar, 1998).
//!
//! Needs no table and no agreement: whoever sees the same nodes gives the same answer, and a node that comes
//! or goes moves only the keys that it wins or had. Knows no clock and no network.

use std::cmp::Reverse;
use std::num::NonZeroU8;

use super::member::Fnv;
use super::{Member, NodeId};

/// How willing a node is compared with the others: a node of weight 3 gets three times the keys of one of 1.
pub type Weight = NonZeroU8;

/// Where the standbys of a key are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Wherever they score highest.
    Any,
    /// In regions that have none of the key's nodes yet, as long as there are such regions.
    Regions,
}

/// How much a node and a key like each other. The same on every node, for ever: it decides who owns what.
#[must_use]
pub fn score(key: &[u8], node: &NodeId) -> u64 {
    score_hashed(mix(Fnv::of(key)), node, 0)
}

/// The node that has the key; of equal scores, the first by name.
#[must_use]
pub fn owner<'a>(key: &[u8], nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<&'a NodeId> {
    let hash = mix(Fnv::of(key));
    nodes.into_iter().max_by_key(|node| (score_hashed(hash, node, 0), Reverse(*node)))
}

/// As [`owner`], when some nodes can bear more than others. Whole weights keep it exact: a node of weight n
/// stands n times, so a node whose weight changes by one moves only what that one wins or had.
#[must_use]
pub fn owner_weighted<'a>(
    key: &[u8],
    nodes: impl IntoIterator<Item = (&'a NodeId, Weight)>,
) -> Option<&'a NodeId> {
    let hash = mix(Fnv::of(key));
    let best = |node, weight: Weight| (0..weight.get()).map(|copy| score_hashed(hash, node, copy)).max();
    nodes.into_iter().max_by_key(|&(node, weight)| (best(node, weight), Reverse(node))).map(|(node, _)| node)
}

/// The owner and then its standbys, `count` in all or as many as there are.
#[must_use]
pub fn owners<'a>(
    key: &[u8],
    members: impl IntoIterator<Item = &'a Member>,
    count: usize,
    spread: Spread,
) -> Vec<&'a NodeId> {
    let hash = mix(Fnv::of(key));
    let mut ranked: Vec<&Member> = members.into_iter().collect();
    ranked.sort_by_cached_key(|member| (Reverse(score_hashed(hash, &member.id, 0)), member.id.clone()));
    if spread == Spread::Regions {
        let mut taken = Vec::new();
        // A stable sort: within each half the order of the scores stays.
        ranked.sort_by_cached_key(|member| {
            let again = taken.contains(&&member.region);
            taken.push(&member.region);
            again
        });
    }
    ranked.into_iter().take(count).map(|member| &member.id).collect()
}

fn score_hashed(key: u64, node: &NodeId, copy: u8) -> u64 {
    let mut hash = Fnv::default();
    hash.write(node.as_str().as_bytes());
    if copy > 0 {
        hash.write(&[0, copy]);
    }
    mix(key.wrapping_add(mix(hash.0)))
}

/// Finaliser of `SplitMix64` (Steele, Lea, Flood, 2014): every bit of the input moves half of the output.
/// FNV alone leaves the high bits of short names, which decide here, nearly alike.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::testing::{id, member};

    const KEY_COUNT: usize = 10_000;

    #[test]
    fn keys_spread_evenly() {
        for node_count in [2, 3, 5, 16] {
            let weights: Vec<_> = (0..node_count).map(|node| (format!("node-{node}"), 1)).collect();
            check_balance(&weights);
        }
    }

    #[test]
    fn keys_follow_the_weights() {
        check_balance(&[("a".into(), 1), ("b".into(), 3), ("c".into(), 6)]);
    }

    #[test]
    fn a_node_that_joins_takes_only_what_it_wins() {
        check_movement(&["a", "b", "c", "d"], &["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn a_node_that_leaves_gives_up_only_what_it_had() {
        check_movement(&["a", "b", "c", "d", "e"], &["a", "b", "d", "e"]);
    }

    #[test]
    fn the_order_of_the_nodes_means_nothing() {
        let forth: Vec<_> = ["a", "b", "c", "d"].map(id).into();
        let back: Vec<_> = forth.iter().rev().cloned().collect();
        for key in keys() {
            assert_eq!(owner(&key, &forth), owner(&key, &back));
        }
    }

    #[test]
    fn scores_never_change_from_build_to_build() {
        let scores = [score(b"", &id("a")), score(b"EURUSD", &id("node-1")), score(b"EURUSD", &id("node-2"))];
        assert_eq!(scores, [0xad11_dd07_562f_4a6b, 0x2156_ce04_34be_26a6, 0xf88a_d2c3_8086_720b]);
    }

    #[test]
    fn weight_one_is_no_weight() {
        let nodes = ["a", "b", "c"].map(id);
        for key in keys() {
            let weighted = owner_weighted(&key, nodes.iter().map(|node| (node, Weight::MIN)));
            assert_eq!(weighted, owner(&key, &nodes));
        }
    }

    #[test]
    fn the_first_standby_is_the_next_owner() {
        let members = ["a", "b", "c", "d"].map(member);
        for key in keys() {
            let both = owners(&key, &members, 2, Spread::Any);
            let left = members.iter().map(|member| &member.id).filter(|&id| id != both[0]);
            assert_eq!(owner(&key, left), Some(both[1]));
        }
    }

    #[test]
    fn standbys_are_in_other_regions_while_there_are_any() {
        let members = ["a@x", "b@x", "c@y", "d@y", "e@z"].map(member);
        let by_id: BTreeMap<_, _> = members.iter().map(|member| (&member.id, &member.region)).collect();
        for key in keys() {
            let all = owners(&key, &members, 9, Spread::Regions);
            assert_eq!(Some(all[0]), owner(&key, by_id.keys().copied()));
            let mut regions: Vec<_> = all[..3].iter().map(|id| by_id[id]).collect();
            regions.sort();
            regions.dedup();
            assert_eq!((regions.len(), all.len()), (3, 5));
        }
    }

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..KEY_COUNT).map(|key| format!("series/{key}").into_bytes())
    }

    /// Each share is within 15 % of what its weight says: over four standard deviations at 10,000 keys.
    #[track_caller]
    fn check_balance(weights: &[(String, u8)]) {
        let nodes: Vec<_> = weights.iter().map(|(name, w)| (id(name), Weight::new(*w).unwrap())).collect();
        let mut counts = BTreeMap::new();
        for key in keys() {
            let node = owner_weighted(&key, nodes.iter().map(|(node, weight)| (node, *weight))).unwrap();
            *counts.entry(node.clone()).or_insert(0usize) += 1;
        }
        let total: usize = weights.iter().map(|&(_, weight)| usize::from(weight)).sum();
        for (node, weight) in &nodes {
            let fair = KEY_COUNT * usize::from(weight.get()) / total;
            let count = counts[node];
            assert!(count.abs_diff(fair) * 100 < fair * 15, "{node} has {count} keys, fair are {fair}");
        }
    }

    #[track_caller]
    fn check_movement(before: &[&str], after: &[&str]) {
        let (old, new) = (before.iter().copied().map(id).collect(), after.iter().copied().map(id).collect());
        let (old, new): (Vec<NodeId>, Vec<NodeId>) = (old, new);
        let mut moved = 0;
        for key in keys() {
            let (from, to) = (owner(&key, &old).unwrap(), owner(&key, &new).unwrap());
            if from != to {
                assert!(!new.contains(from) || !old.contains(to), "a key moved between two that stayed");
                moved += 1;
            }
        }
        assert!((KEY_COUNT / 10..KEY_COUNT / 3).contains(&moved), "{moved} keys moved");
    }
}
