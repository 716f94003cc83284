//! What a node that is watched may answer, as a function of bytes; see [`crate::fuzzing`].

use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw::{Palette, draw};
use super::panels::Panel;
use super::plain;
use super::state::{State, Update};
use crate::overview::Overview;

/// An overview, as text and on a screen: nothing in it moves a terminal.
pub(crate) fn shown(text: &[u8]) -> bool {
    let Ok(seen) = serde_json::from_slice::<Overview>(text) else { return false };
    let mut plain = Vec::new();
    plain::write(&mut plain, &seen).expect("there is room");
    let plain = String::from_utf8(plain).expect("text");
    assert!(!plain.contains(|one: char| one.is_control() && one != '\n'), "{plain:?}");

    let mut state = State::of(None);
    state.panel = Panel::ALL[text.len() % Panel::ALL.len()];
    state.update(Update::Seen(Box::new(seen)), Instant::now());
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a screen in memory");
    let drawn = terminal.draw(|frame| {
        draw(frame, &state, Palette { has_colours: true, is_faint: false }, Instant::now());
    });
    drawn.expect("drawn in memory");
    let cells = terminal.backend().buffer().content();
    assert!(!cells.iter().any(|cell| cell.symbol().contains(char::is_control)));
    true
}
