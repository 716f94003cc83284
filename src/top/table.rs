//! Rows that can be sorted, found and fitted to a width, whatever they are about.

use std::cmp::Ordering;

use ratatui::text::Span;

use super::words::{UNKNOWN, clean};

/// How something is meant to strike the eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Odd,
    Bad,
    Faint,
}

/// One value: as it is read, and as it is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
    /// `None`: a text, or something that is not known.
    size: Option<f64>,
}

impl Cell {
    /// A name; it is cleaned here.
    pub(super) fn text(text: &str) -> Self {
        Self { text: clean(text), tone: Tone::Plain, size: None }
    }

    /// A number, as somebody reads it.
    pub(super) fn size(size: Option<f64>, text: String) -> Self {
        Self { text, tone: Tone::Plain, size: size.filter(|size| size.is_finite()) }
    }

    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    /// The larger number first in order, then texts by letter, then what is not known.
    fn order(&self, other: &Self) -> Ordering {
        match (self.size, other.size) {
            (Some(one), Some(two)) => one.total_cmp(&two),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.text.cmp(&other.text),
        }
    }

    fn is_unknown(&self) -> bool {
        self.size.is_none() && self.text == UNKNOWN
    }
}

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Numbers stand on the right.
    pub(super) is_number: bool,
    /// Where there is no room for all, the highest go first.
    pub(super) rank: u8,
}

pub(super) const fn name(title: &'static str) -> Column {
    Column { title, is_number: false, rank: 0 }
}

pub(super) const fn text(title: &'static str, rank: u8) -> Column {
    Column { title, is_number: false, rank }
}

pub(super) const fn figure(title: &'static str, rank: u8) -> Column {
    Column { title, is_number: true, rank }
}

/// One thing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// In a tree, how far from its root.
    pub(super) depth: usize,
}

/// All of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
    /// Rows are in the order of a tree, whose branches are kept together.
    pub(super) is_tree: bool,
}

/// By which column, and which way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// `None`: as they came.
    pub(super) column: Option<usize>,
    pub(super) is_reversed: bool,
}

impl Table {
    /// Sorts; a tree that is sorted is none any more.
    pub(super) fn sort(&mut self, order: Order) {
        let Some(column) = order.column.filter(|column| *column < self.columns.len()) else {
            if order.is_reversed && !self.is_tree {
                self.rows.reverse();
            }
            return;
        };
        if std::mem::take(&mut self.is_tree) {
            self.rows.iter_mut().for_each(|row| row.depth = 0);
        }
        // Most of a number comes first, and names from A on; what is not known comes last either way.
        let falls = self.columns[column].is_number != order.is_reversed;
        self.rows.sort_by(|one, two| {
            let (one, two) = (&one.cells[column], &two.cells[column]);
            one.is_unknown()
                .cmp(&two.is_unknown())
                .then_with(|| if falls && !one.is_unknown() { two.order(one) } else { one.order(two) })
        });
    }

    /// Keeps rows in which some cell has these words, in a tree also those above them.
    pub(super) fn filter(&mut self, words: &str) {
        let words = words.to_lowercase();
        if words.is_empty() {
            return;
        }
        let mut keep: Vec<bool> = (self.rows.iter())
            .map(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&words)))
            .collect();
        if self.is_tree {
            let mut above = 0;
            for (row, keep) in self.rows.iter().zip(&mut keep).rev() {
                // Everything between this depth and what was found below it is an ancestor.
                if row.depth < above {
                    *keep = true;
                }
                above = if *keep { row.depth } else { above.min(row.depth) };
            }
        }
        let mut keep = keep.into_iter();
        self.rows.retain(|_| keep.next().unwrap_or(false));
    }

    /// Which columns have room, and how wide each is. At least the first is kept, however narrow, and before all others
    /// the one that is sorted by.
    pub(super) fn fit(&self, width: usize, sorted: Option<usize>) -> Vec<(usize, usize)> {
        let least = |at: usize| match self.columns[at].is_number {
            true => self.natural(at),
            false => self.natural(at).min(NAME_WIDTH_MIN),
        };
        let mut kept: Vec<(usize, usize)> = (0..self.columns.len()).map(|at| (at, least(at))).collect();
        let total = |kept: &[(usize, usize)]| {
            kept.iter().map(|(_, width)| width).sum::<usize>() + GAP * kept.len().saturating_sub(1)
        };
        while kept.len() > 1 && total(&kept) > width {
            let rank = |at: usize| match at {
                0 => 0,
                _ if Some(at) == sorted => 1,
                _ => u16::from(self.columns[at].rank) + 2,
            };
            let last = kept.iter().enumerate().max_by_key(|(place, (at, _))| (rank(*at), *place));
            let Some(last) = last.map(|(place, _)| place) else { break };
            kept.remove(last);
        }
        // What is left over goes to texts that were cut, the first before the others.
        let mut over = width.saturating_sub(total(&kept));
        for (at, one) in &mut kept {
            let more = over.min(self.natural(*at) - *one);
            (*one, over) = (*one + more, over - more);
        }
        if let [(_, only)] = kept.as_mut_slice() {
            *only = (*only).min(width);
        }
        kept
    }

    fn natural(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| width_of(&row.cells[column].text) + row.indent(column));
        cells.max().unwrap_or(0).max(width_of(self.columns[column].title) + 1).min(WIDTH_MAX)
    }
}

impl Row {
    /// How far the first cell is moved in.
    pub(super) fn indent(&self, column: usize) -> usize {
        if column == 0 { self.depth.min(DEPTH_MAX) * 2 } else { 0 }
    }
}

/// Between two columns.
pub(super) const GAP: usize = 2;
/// No column is wider.
const WIDTH_MAX: usize = 48;
/// Texts are cut down to this before a column has to go.
const NAME_WIDTH_MIN: usize = 14;
/// Deeper branches are drawn at this depth.
const DEPTH_MAX: usize = 8;

/// Columns of a terminal that text takes.
pub(super) fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// Exactly so wide: cut with an ellipsis, or padded.
pub(super) fn padded(text: &str, width: usize, is_number: bool) -> String {
    let natural = width_of(text);
    if natural <= width {
        let gap = " ".repeat(width - natural);
        return if is_number { gap + text } else { text.to_owned() + &gap };
    }
    let mut cut = String::new();
    let mut used = 0;
    for one in text.chars() {
        let wide = width_of(one.encode_utf8(&mut [0; 4]));
        if used + wide + 1 > width {
            break;
        }
        cut.push(one);
        used += wide;
    }
    if used < width {
        cut.push('…');
        used += 1;
    }
    cut + &" ".repeat(width.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[name("name"), figure("rate", 1), text("state", 2)];

    fn table(rows: &[(&str, Option<f64>, &str, usize)], is_tree: bool) -> Table {
        let row = |(name, rate, state, depth): &(&str, Option<f64>, &str, usize)| Row {
            cells: vec![
                Cell::text(name),
                Cell::size(*rate, super::super::words::maybe(*rate)),
                Cell::text(state),
            ],
            depth: *depth,
        };
        Table { columns: COLUMNS, rows: rows.iter().map(row).collect(), is_tree }
    }

    fn names(table: &Table) -> Vec<&str> {
        table.rows.iter().map(|row| row.cells[0].text.as_str()).collect()
    }

    fn flat() -> Table {
        table(&[("b", Some(1.0), "up", 0), ("c", None, "down", 0), ("a", Some(30.0), "up", 0)], false)
    }

    fn tree() -> Table {
        let rows = [
            ("node", None, "running", 0),
            ("system", None, "running", 1),
            ("router", Some(5.0), "running", 2),
            ("breaker", Some(9.0), "waiting", 2),
            ("series", None, "running", 1),
            ("asks", Some(1.0), "running", 2),
        ];
        table(&rows, true)
    }

    #[test]
    fn numbers_fall_names_rise_and_the_unknown_comes_last() {
        for (column, is_reversed, want) in [
            (None, false, ["b", "c", "a"]),
            (Some(0), false, ["a", "b", "c"]),
            (Some(0), true, ["c", "b", "a"]),
            (Some(1), false, ["a", "b", "c"]),
            (Some(1), true, ["b", "a", "c"]),
            (Some(9), false, ["b", "c", "a"]),
        ] {
            let mut table = flat();
            table.sort(Order { column, is_reversed });
            assert_eq!(names(&table), want, "{column:?} {is_reversed}");
        }
    }

    #[test]
    fn a_filtered_tree_keeps_the_way_to_what_was_found() {
        for (words, want) in [
            ("", vec!["node", "system", "router", "breaker", "series", "asks"]),
            ("BREAK", vec!["node", "system", "breaker"]),
            ("asks", vec!["node", "series", "asks"]),
            ("waiting", vec!["node", "system", "breaker"]),
            ("nothing", vec![]),
        ] {
            let mut table = tree();
            table.filter(words);
            assert_eq!(names(&table), want, "{words}");
        }
        let mut sorted = tree();
        sorted.sort(Order { column: Some(1), is_reversed: false });
        assert_eq!(names(&sorted)[..3], ["breaker", "router", "asks"]);
        assert!(sorted.rows.iter().all(|row| row.depth == 0));
    }

    #[test]
    fn the_least_important_columns_go_first_and_every_width_is_kept_to() {
        let wide =
            table(&[("a-name-of-thirty-characters-long", Some(1.0), "a-state-of-some-length", 0)], false);
        let kept = |width| wide.fit(width, None).iter().map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!(kept(80), [0, 1, 2]);
        assert_eq!(kept(24), [0, 1]);
        assert_eq!(kept(15), [0]);
        // Who sorts by a column sees it.
        let sorted = |width| wide.fit(width, Some(2)).iter().map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!((sorted(80), sorted(32), sorted(15)), (vec![0, 1, 2], vec![0, 2], vec![0]));
        for (width, sorted) in (0..120).flat_map(|width| [(width, None), (width, Some(2))]) {
            let fitted = wide.fit(width, sorted);
            let total: usize =
                fitted.iter().map(|(_, width)| width).sum::<usize>() + GAP * (fitted.len() - 1);
            assert!(total <= width, "{width}: {fitted:?}");
        }
    }

    #[test]
    fn text_is_exactly_as_wide_as_its_column() {
        for text in ["", "abc", "größer als", "日本語のなまえ", "a\u{301}bc"] {
            for width in 0..12 {
                for is_number in [false, true] {
                    assert_eq!(width_of(&padded(text, width, is_number)), width, "{text} {width}");
                }
            }
        }
        assert_eq!((padded("abcdef", 4, false), padded("7", 3, true)), ("abc…".into(), "  7".into()));
    }
}
