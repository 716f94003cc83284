use super::*;
use crate::overview::{Actor, Model};
use serde_json::json;

fn seen(node: &str) -> Box<Overview> {
    let model = |name: &str, rate| Model { name: name.into(), rate, ..Model::default() };
    let mut overview = Overview {
        models: vec![model("b", Some(1.0)), model("c", None), model("a", Some(30.0))],
        actors: (0..40).map(|at| Actor { name: format!("actor-{at:02}"), ..Actor::default() }).collect(),
        ..Overview::default()
    };
    overview.node.name = node.to_owned();
    overview.cluster.members = ["nrt-1", "fra-1", "iad-1"].map(|name| json!({ "node": name })).into();
    Box::new(overview)
}

fn state() -> State {
    let mut state = State::default();
    state.update(Update::Seen(seen("fra-1")), Instant::now());
    state
}

fn type_in(state: &mut State, text: &str) {
    for one in text.chars() {
        assert_eq!(state.press(Press::Char(one)), Effect::Nothing);
    }
}

#[track_caller]
fn names(state: &State) -> Vec<String> {
    let table = state.table().expect("something was seen");
    table.rows.iter().map(|row| row.cells[0].text.clone()).collect()
}

#[test]
fn panels_are_reached_by_number_and_in_turn() {
    let mut state = state();
    for (press, want) in [
        (Press::Char('4'), Panel::Batches),
        (Press::Tab, Panel::Breakers),
        (Press::Tab, Panel::Streams),
        (Press::Tab, Panel::Nodes),
        (Press::BackTab, Panel::Streams),
        (Press::Char('7'), Panel::Streams),
        (Press::Char('1'), Panel::Nodes),
    ] {
        state.press(press);
        assert_eq!(state.panel, want, "{press:?}");
    }
}

#[test]
fn each_panel_is_sorted_by_its_own_column() {
    let mut state = state();
    type_in(&mut state, "4");
    assert_eq!(names(&state), ["b", "c", "a"]);
    type_in(&mut state, "s");
    assert_eq!(names(&state), ["a", "b", "c"]);
    type_in(&mut state, "r");
    assert_eq!(names(&state), ["c", "b", "a"]);
    type_in(&mut state, "sss");
    assert_eq!(state.order().column, Some(3));
    assert_eq!(names(&state), ["a", "b", "c"], "by requests, the unknown last");
    type_in(&mut state, "1");
    assert_eq!(state.order().column, None);
    for _ in 0..Panel::Nodes.columns().len() {
        type_in(&mut state, "s");
        assert!(state.order().column.is_some());
    }
    type_in(&mut state, "s");
    assert_eq!(state.order().column, None, "round again");
}

#[test]
fn a_filter_is_typed_kept_and_thrown_away() {
    let mut state = state();
    type_in(&mut state, "2/actor-1q");
    assert!(state.is_typing && names(&state).is_empty(), "q is a letter here");
    state.press(Press::Backspace);
    state.press(Press::Enter);
    assert!(!state.is_typing);
    assert_eq!(names(&state).len(), 10);
    state.press(Press::Escape);
    assert_eq!(names(&state).len(), 40);
    type_in(&mut state, "/");
    type_in(&mut state, &"x".repeat(500));
    assert_eq!(state.filter.len(), FILTER_CHARS_MAX);
    state.press(Press::Char('\u{1b}'));
    state.press(Press::Escape);
    assert!(state.filter.is_empty() && !state.is_typing);
}

#[test]
fn what_stands_still_goes_on_where_the_world_is() {
    let mut state = state();
    type_in(&mut state, "p");
    let later = seen("later");
    state.update(Update::Seen(later), Instant::now());
    assert_eq!((state.shown().unwrap().node.name.as_str(), state.is_paused()), ("fra-1", true));
    type_in(&mut state, "p");
    assert_eq!((state.shown().unwrap().node.name.as_str(), state.is_paused()), ("later", false));
    type_in(&mut state, "pp");
    assert_eq!(state.shown().unwrap().node.name, "later", "nothing came meanwhile");
}

#[test]
fn nodes_are_looked_at_in_turn() {
    let mut state = state();
    for want in ["iad-1", "nrt-1", "fra-1"] {
        assert_eq!(state.press(Press::Char('n')), Effect::Watch(Some(want.to_owned())));
        // One that does not answer does not stop the round.
        state.update(Update::Lost("gone".to_owned()), Instant::now());
    }
    let mut alone = State::default();
    assert_eq!(alone.press(Press::Char('n')), Effect::Nothing, "nothing was seen yet");
    alone.update(Update::Seen(Box::default()), Instant::now());
    assert_eq!(alone.press(Press::Char('n')), Effect::Nothing);
}

#[test]
fn a_server_that_is_lost_is_said_to_be_until_it_is_back() {
    let mut state = state();
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    state.update(Update::Lost("refused".to_owned()), start);
    state.update(Update::Lost("timed out".to_owned()), later(5));
    assert_eq!(state.lost_for(later(9)), Some((Duration::from_secs(9), "timed out")));
    assert!(state.table().is_some(), "what was seen last is still there");
    state.update(Update::Seen(seen("fra-1")), later(10));
    assert_eq!(state.lost_for(later(11)), None);
}

#[test]
fn rows_are_scrolled_to_the_last_and_back() {
    let mut state = state();
    type_in(&mut state, "2");
    state.room = 10;
    state.press(Press::End);
    assert_eq!(state.first_row(40, 10), 30);
    state.press(Press::Up);
    assert_eq!(state.first_row(40, 10), 29);
    (0..29).for_each(|_| drop(state.press(Press::Up)));
    assert_eq!(state.first_row(40, 10), 0);
    state.press(Press::PageDown);
    state.press(Press::Down);
    assert_eq!(state.first_row(40, 10), 11);
    state.press(Press::Home);
    (0..100).for_each(|_| drop(state.press(Press::PageUp)));
    assert_eq!(state.first_row(40, 10), 0);
    assert_eq!(state.first_row(0, 0), 0);
}

#[test]
fn help_goes_with_any_key_and_only_some_keys_end_it_all() {
    let mut state = state();
    type_in(&mut state, "?");
    assert!(state.is_helping);
    assert_eq!(state.press(Press::Char('q')), Effect::Nothing);
    assert!(!state.is_helping);
    assert_eq!(state.press(Press::Char('q')), Effect::Quit);
    type_in(&mut state, "/");
    assert_eq!(state.press(Press::Stop), Effect::Quit, "whatever is typed");
}
