//! Keeps an overview to a largest size: it crosses links between nodes, and is sent every second.

use bytes::Bytes;

use super::types::Overview;

/// Of an overview as JSON.
pub(crate) const BYTES_MAX: usize = 250 << 10;
/// Of a sentence within: failures may quote anything.
const TEXT_CHARS_MAX: usize = 300;

/// A sentence, or as much of it as is shown.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// As JSON of at most `bytes_max`: the longest list is halved until it fits, then the history goes.
pub(crate) fn fit(mut overview: Overview, bytes_max: usize) -> Bytes {
    loop {
        // Maps have text for keys and numbers need not be finite: writing cannot fail.
        let text = serde_json::to_vec(&overview).unwrap_or_default();
        if text.len() <= bytes_max {
            return text.into();
        }
        let is_cut = shorten(&mut overview);
        if !is_cut && overview.history.take().is_none() {
            return Overview { at: overview.at, cut: true, ..Overview::default() }.into_bytes();
        }
        overview.cut = true;
    }
}

impl Overview {
    fn into_bytes(self) -> Bytes {
        serde_json::to_vec(&self).unwrap_or_default().into()
    }
}

/// Halves the list that takes the most; false: all are empty.
fn shorten(overview: &mut Overview) -> bool {
    fn bytes_of<T: serde::Serialize>(list: &T) -> usize {
        serde_json::to_vec(list).map_or(0, |text| text.len())
    }
    let sizes = [
        bytes_of(&overview.models),
        bytes_of(&overview.actors),
        bytes_of(&overview.breakers),
        bytes_of(&overview.cluster.members),
        bytes_of(&overview.alerts),
        bytes_of(&overview.devices),
        bytes_of(&overview.node.reasons),
        bytes_of(&overview.cluster.lost),
    ];
    let Some((longest, _)) = sizes.iter().enumerate().max_by_key(|(_, size)| **size) else { return false };
    fn halve<T>(list: &mut Vec<T>) -> bool {
        let had = !list.is_empty();
        list.truncate(list.len() / 2);
        had
    }
    match longest {
        0 => halve(&mut overview.models),
        1 => halve(&mut overview.actors),
        2 => halve(&mut overview.breakers),
        3 => halve(&mut overview.cluster.members),
        4 => halve(&mut overview.alerts),
        5 => halve(&mut overview.devices),
        6 => halve(&mut overview.node.reasons),
        _ => halve(&mut overview.cluster.lost),
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{Actor, Model};
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        let overview = Overview { at: 7, actors: vec![Actor::default(); 3], ..Overview::default() };
        let text = fit(overview.clone(), BYTES_MAX);
        assert_eq!(serde_json::from_slice::<Overview>(&text).unwrap(), overview);
    }

    #[test]
    fn what_does_not_fit_loses_its_longest_lists_first_and_says_so() {
        let overview = Overview {
            actors: vec![Actor::default(); 5],
            models: vec![Model { name: "m".repeat(200), ..Model::default() }; 4000],
            history: Some(super::super::History::default()),
            ..Overview::default()
        };
        let text = fit(overview, 64 << 10);
        assert!(text.len() <= 64 << 10 && text.len() > 16 << 10, "{}", text.len());
        let read: Overview = serde_json::from_slice(&text).unwrap();
        assert_eq!((read.cut, read.actors.len(), read.history.is_some()), (true, 5, true));
        assert!(!read.models.is_empty());
    }

    #[test]
    fn whatever_it_is_it_fits() {
        let mut overview = Overview { alerts: vec!["x".repeat(1 << 20).into(); 3], ..Overview::default() };
        overview.node.version = "v".repeat(1 << 20);
        let text = fit(overview, 4 << 10);
        assert!(text.len() <= 4 << 10);
        assert!(serde_json::from_slice::<Overview>(&text).unwrap().cut);
    }

    #[test]
    fn a_long_sentence_is_clipped_between_characters() {
        assert_eq!(clip("short"), "short");
        let clipped = clip(&"ö".repeat(400));
        assert_eq!(clipped.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(clipped.ends_with('…'));
    }
}
