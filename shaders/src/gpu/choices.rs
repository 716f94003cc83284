//! Which variant takes a layer: what was measured on this device, and the guess where nothing was.
//!
//! Knows no device, file or clock. A choice changes how long a layer takes and nothing else: where variants differ in their
//! bits, those of the guess stay.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::variants::{Arithmetic, Kind, Layer, Variant};

/// A challenger takes the place of the guess if it needs so many percent less time: less than that is noise.
const MARGIN_PERCENT: u64 = 3;
/// A variant that needs so many times the best one's time, and has smaller workgroups, is not to be tried with more lines.
const BEHIND: u64 = 2;
/// Nanoseconds that no dispatch takes.
const HOUR: u64 = 3_600_000_000_000;

/// Layers that are alike to a kernel, over numbers of lines that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pub(super) in_width: usize,
    pub(super) out_width: usize,
    pub(super) kind: Kind,
    pub(super) arithmetic: Arithmetic,
    /// The largest number of lines of its class, which is the one that is measured.
    pub(super) lines: usize,
}

/// Nanoseconds of a dispatch among others by each variant that was tried, the one to be used first, the others by their time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice(Vec<(Variant, u64)>);

/// What is known of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choices(HashMap<Question, Choice>);

impl Question {
    pub(super) fn of(layer: Layer<'_>, rows: usize, arithmetic: Arithmetic) -> Self {
        let [in_width, out_width] = layer.widths();
        Self { in_width, out_width, kind: layer.kind, arithmetic, lines: class(layer.lines(rows)) }
    }

    pub(super) fn guess(&self) -> Variant {
        Variant::guess([self.in_width, self.out_width], self.lines, self.arithmetic)
    }
}

/// The largest of the numbers that share a choice with `lines`: a power of two, or one and a half times one.
pub(super) fn class(lines: usize) -> usize {
    let power = lines.next_power_of_two();
    if power >= 4 && lines <= power / 4 * 3 { power / 4 * 3 } else { power }
}

impl Choice {
    /// Of nanoseconds by variant, none of them twice; `None` when nothing was measured.
    pub(super) fn decide(guess: Variant, mut nanos: Vec<(Variant, u64)>) -> Option<Self> {
        nanos.sort_by_key(|(_, nanos)| *nanos);
        let (_, best) = *nanos.first()?;
        let guessed = nanos.iter().position(|(variant, _)| *variant == guess);
        if let Some(at) = guessed
            && nanos[at].1 * (100 - MARGIN_PERCENT) <= best * 100
        {
            nanos[..=at].rotate_right(1);
        }
        Some(Self(nanos))
    }

    pub(super) fn nanos(&self) -> &[(Variant, u64)] {
        &self.0
    }

    pub(super) fn variant(&self) -> Variant {
        self.0[0].0
    }

    /// Whether a variant fell so far behind one with larger workgroups that more lines will not help it.
    pub(super) fn leaves_behind(&self, variant: Variant) -> bool {
        let fastest = self.0.iter().min_by_key(|(_, nanos)| *nanos);
        let tried = self.0.iter().find(|(tried, _)| *tried == variant);
        match (fastest, tried) {
            (Some((best, least)), Some((_, nanos))) => {
                (variant as usize) < (*best as usize) && *nanos >= BEHIND * least
            }
            _ => false,
        }
    }
}

impl Choices {
    /// Variants for a layer, the one to be used first; later ones for when the driver has refused those before.
    pub(super) fn of(
        &self,
        layer: Layer<'_>,
        rows: usize,
        arithmetic: Arithmetic,
    ) -> impl Iterator<Item = Variant> {
        let guess = Variant::guess(layer.widths(), layer.lines(rows), arithmetic);
        let known = match self.0.is_empty() {
            true => None,
            false => self.0.get(&Question::of(layer, rows, arithmetic)),
        };
        let same_bits = move |variant: &Variant| variant.rounds(arithmetic) == guess.rounds(arithmetic);
        let known = known.into_iter().flat_map(|choice| &choice.0).map(|(variant, _)| *variant);
        let mut nearest = Variant::ALL;
        nearest.sort_by_key(|variant| (*variant as usize).abs_diff(guess as usize));
        known.filter(same_bits).chain(nearest)
    }

    pub(super) fn get(&self, question: &Question) -> Option<&Choice> {
        self.0.get(question)
    }

    pub(super) fn insert(&mut self, question: Question, choice: Choice) {
        self.0.insert(question, choice);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// As it is kept.
    pub(super) fn written(&self) -> Vec<u8> {
        let mut all: Vec<(&Question, &Choice)> = self.0.iter().collect();
        all.sort_by_key(|(question, _)| {
            let Question { in_width, out_width, kind, arithmetic, lines } = question;
            (arithmetic.name(), *in_width, *out_width, *kind, *lines)
        });
        serde_json::to_vec(&all).expect("numbers and names")
    }

    /// What was kept; nothing if it cannot be read or makes no sense.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let all: Vec<(Question, Choice)> = serde_json::from_slice(bytes).unwrap_or_default();
        let sound = |choice: &Choice| !choice.0.is_empty() && choice.0.iter().all(|(_, nanos)| *nanos < HOUR);
        Self(all.into_iter().filter(|(_, choice)| sound(choice)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Variant::{LargeTile, Line, Lines, SmallTile, TinyTile};
    use super::*;

    #[test]
    fn a_class_is_a_power_of_two_or_half_as_much_again() {
        let classes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 97, 128, 129, 193, 4096].map(class);
        assert_eq!(classes, [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 16, 128, 128, 192, 256, 4096]);
    }

    #[track_caller]
    fn check(nanos: &[(Variant, u64)], expected: &[Variant]) {
        let choice = Choice::decide(SmallTile, nanos.to_vec());
        let order = choice.iter().flat_map(Choice::nanos).map(|(variant, _)| *variant).collect::<Vec<_>>();
        assert_eq!(order, expected, "{nanos:?}");
    }

    #[test]
    fn a_challenger_needs_a_margin() {
        check(&[(TinyTile, 960), (SmallTile, 1000), (LargeTile, 3000)], &[TinyTile, SmallTile, LargeTile]);
        check(&[(TinyTile, 980), (SmallTile, 1000), (LargeTile, 3000)], &[SmallTile, TinyTile, LargeTile]);
        check(&[(LargeTile, 975), (TinyTile, 980), (SmallTile, 1000)], &[SmallTile, LargeTile, TinyTile]);
        check(&[(SmallTile, 100), (TinyTile, 980)], &[SmallTile, TinyTile]);
    }

    #[test]
    fn a_guess_that_was_not_measured_has_no_say() {
        check(&[(TinyTile, 980), (LargeTile, 970)], &[LargeTile, TinyTile]);
        check(&[], &[]);
    }

    #[test]
    fn only_smaller_workgroups_fall_behind_for_good() {
        let choice = Choice::decide(Lines, vec![(Line, 90), (Lines, 40), (SmallTile, 30), (LargeTile, 90)]);
        let choice = choice.expect("measured");
        let behind = Variant::ALL.map(|variant| choice.leaves_behind(variant));
        assert_eq!(behind, [true, false, false, false, false, false, false]);
    }

    #[test]
    fn what_is_kept_is_read_again_and_anything_else_is_nothing() {
        let question = Question {
            in_width: 512,
            out_width: 96,
            kind: Kind::Plain,
            arithmetic: Arithmetic::Matrices { lanes: 32 },
            lines: 192,
        };
        let mut choices = Choices::default();
        for (lines, arithmetic) in
            [(192, question.arithmetic), (96, Arithmetic::Single), (8, Arithmetic::Half)]
        {
            let choice = Choice::decide(SmallTile, vec![(SmallTile, 3500), (LargeTile, 2250)]);
            choices.insert(Question { lines, arithmetic, ..question }, choice.expect("measured"));
        }
        let written = choices.written();
        assert_eq!(Choices::read(&written), choices);
        assert_eq!(Choices::read(&written).written(), written);
        for other in [&written[..written.len() - 1], b"[]", b"", b"{\"a\":1}", b"[[{},[]]]"] {
            assert_eq!(Choices::read(other), Choices::default());
        }
        let text = String::from_utf8(written).expect("JSON");
        let empty = text.replace(r#"[["large_tile",2250],["small_tile",3500]]"#, "[]");
        assert_ne!(empty, text);
        assert_eq!(Choices::read(empty.as_bytes()), Choices::default(), "a choice of nothing");
        let unknown = text.replace("small_tile", "huge_tile");
        assert_eq!(Choices::read(unknown.as_bytes()), Choices::default());
    }
}
