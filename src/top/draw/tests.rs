use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::super::demo::Demo;
use super::super::state::{Press, Update};
use super::*;

fn demo() -> State {
    let demo = Demo::new(8, Duration::from_secs(1_795_000_000));
    let mut state = State::default();
    state.update(Update::Seen(Box::new(demo.overview(None))), Instant::now());
    state
}

fn of(overview: Value) -> State {
    let mut state = State::default();
    let overview: Overview = serde_json::from_value(overview).unwrap();
    state.update(Update::Seen(Box::new(overview)), Instant::now());
    state
}

fn screen(state: &State, width: u16, height: u16, has_colours: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let palette = Palette { has_colours, is_faint: false };
    let drawn = terminal.draw(|frame| {
        draw(frame, state, palette, Instant::now());
    });
    drawn.unwrap();
    terminal.backend().buffer().clone()
}

fn lines(state: &State, width: u16, height: u16) -> Vec<String> {
    let buffer = screen(state, width, height, false);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

/// What stands below a title in the row of that name.
#[track_caller]
fn cell(state: &State, name: &str, title: &str) -> String {
    const WIDTH: u16 = 200;
    let lines = lines(state, WIDTH, 50);
    let table = state.table().expect("something was seen");
    let (mut from, mut place) = (0, None);
    for (column, width) in table.fit(usize::from(WIDTH), None) {
        if table.columns[column].title == title {
            place = Some((from, width));
        }
        from += width + GAP;
    }
    let (from, width) = place.expect("there is room for it");
    let part = |line: &str| line.chars().skip(from).take(width).collect::<String>().trim().to_owned();
    let head =
        lines.iter().position(|line| part(line) == title).unwrap_or_else(|| panic!("{title}: {lines:#?}"));
    let row = lines[head..].iter().find(|line| line.trim_start().starts_with(name));
    part(row.unwrap_or_else(|| panic!("{name}: {lines:#?}")))
}

fn turned_to(mut state: State, keys: &str) -> State {
    keys.chars().for_each(|key| drop(state.press(Press::Char(key))));
    state
}

fn small() -> Value {
    json!({
        "node": { "name": "fra-1", "region": "fra", "ready": true, "uptime_seconds": 61.0, "version": "0.1.0" },
        "cluster": { "name": "eu", "size": 3, "members": [
            { "node": "fra-1", "region": "fra", "here": true, "state": "active", "load": 0.25, "models": { "a": {} } },
            { "node": "iad-1", "region": "iad", "here": false, "state": "draining", "connected": false, "rtt_ms": 88.5 },
        ] },
        "requests": { "rate": 1234.0, "error_rate": 2.5, "in_flight": 7, "p50_ms": 1.25, "p99_ms": 42.0 },
        "models": [ { "name": "nhits", "version": "3", "state": "ready", "rate": 12.5, "batch_rows_mean": 6.5, "p99_ms": 3.25 } ],
        "devices": [ { "name": "NVIDIA L4", "backend": "gpu", "state": "down", "reason": "lost", "queue_rows": 17, "temperature_celsius": 61.0 } ],
        "breakers": [ { "model": "nhits", "version": 3, "backend": "gpu", "state": "open", "mode": "auto", "failures": 9, "reason": "lost" } ],
        "actors": [
            { "name": "node", "parent": null, "state": "running", "mailbox_depth": null },
            { "name": "system", "parent": "node", "state": "running" },
            { "name": "router", "parent": "system", "state": "running", "mailbox_depth": 21, "messages_rate": 250.5, "restarts": 4,
              "last_failure": { "at": 1, "failure": "panicked: why" } },
        ],
        "streams": { "subscribers": 33, "lag_max": 5, "ticks_rate": 800.0 },
        "alerts": [ { "rule": "breaker-open", "severity": "warning", "state": "firing", "value": 2.0, "summary": "it is open", "labels": { "model": "nhits" } } ],
        "history": { "rate": [1.0, 2.0, null, 8.0], "p99_ms": [1.0, 1.0, 1.0, 2.0] },
    })
}

#[test]
fn the_numbers_stand_where_they_belong() {
    let head = lines(&of(small()), 160, 40).join("\n");
    for word in [
        "fra-1",
        "ready",
        "2 of 3 nodes of eu",
        "1234 requests/s",
        "2.50 errors/s",
        "7 in flight",
        "p50 1.25",
        "p95 –",
        "p99 42.0",
    ] {
        assert!(head.contains(word), "{word}: {head}");
    }
    assert!(head.contains("! firing warning breaker-open (2.00) model=nhits it is open"), "{head}");
    assert!(head.contains("▂▃ █"), "{head}");
    for (keys, name, title, want) in [
        ("1", "fra-1", "load", "0.250"),
        ("1", "iad-1", "rtt ms", "88.5"),
        ("1", "iad-1", "link", "cut"),
        ("1", "iad-1", "load", "–"),
        ("2", "router", "mailbox", "21"),
        ("2", "router", "messages/s", "250"),
        ("2", "router", "restarts", "4"),
        ("2", "router", "last failure", "panicked: why"),
        ("2", "system", "mailbox", "–"),
        ("3", "NVIDIA L4", "state", "down"),
        ("3", "NVIDIA L4", "rows waiting", "17"),
        ("3", "NVIDIA L4", "°C", "61.0"),
        ("4", "nhits", "requests/s", "12.5"),
        ("4", "nhits", "rows a batch", "6.50"),
        ("4", "nhits", "p99 ms", "3.25"),
        ("5", "nhits/3", "state", "open"),
        ("5", "nhits/3", "failures", "9"),
        ("6", "subscribers", "now", "33"),
        ("6", "ticks in", "now", "800"),
    ] {
        let state = turned_to(of(small()), keys);
        assert_eq!(cell(&state, name, title), want, "{keys} {name} {title}");
    }
}

#[test]
fn the_tree_is_indented_until_it_is_sorted() {
    let tree = lines(&turned_to(of(small()), "2"), 120, 30);
    for line in ["node ", "  system ", "    router "] {
        assert!(tree.iter().any(|shown| shown.starts_with(line)), "{line:?}: {tree:#?}");
    }
    let sorted = lines(&turned_to(of(small()), "2sss"), 120, 30);
    let router = sorted.iter().position(|line| line.starts_with("router ")).unwrap();
    assert!(sorted[router - 1].contains("mailbox↓"), "{sorted:#?}");
    let found = lines(&turned_to(of(small()), "2/rout"), 120, 30).join("\n");
    assert!(found.contains("router") && found.contains("system") && found.contains("/rout"), "{found}");
}

#[test]
fn a_lost_server_and_a_pause_are_told() {
    let mut state = turned_to(of(small()), "p");
    state.update(Update::Lost("connection refused\x1b[2J".to_owned()), Instant::now());
    let title = lines(&state, 120, 30)[0].clone();
    assert!(
        title.contains("LOST for 0 s: connection refused\u{fffd}[2J") && title.contains("PAUSED"),
        "{title}"
    );
    let mut nobody = State::default();
    assert!(lines(&nobody, 60, 10).join("\n").contains("waiting for the first answer"));
    nobody.update(Update::Lost("no route".to_owned()), Instant::now());
    assert!(lines(&nobody, 60, 10).join("\n").contains("no route"));
}

#[test]
fn what_was_heard_last_does_not_look_like_now() {
    let mut state = of(small());
    state.update(Update::Lost("refused ".repeat(40)), Instant::now());
    let title = lines(&state, 80, 24)[0].clone();
    assert!(title.starts_with("fra-1  LOST for 0 s: refused"), "{title}");
    assert!(title.ends_with('…') && !title.contains("ready"), "{title}");
    let buffer = screen(&state, 80, 24, true);
    for y in 1..24 {
        for x in 0..80 {
            let cell = &buffer[(x, y)];
            let is_quiet = cell.symbol() == " " || cell.modifier.contains(Modifier::DIM);
            assert!(
                is_quiet && cell.fg == Color::Reset || cell.modifier.contains(Modifier::REVERSED),
                "{x} {y}: {cell:?}"
            );
        }
    }
    // Somebody who was never heard of is told of in full.
    let mut nobody = State::default();
    nobody.update(Update::Lost(format!("{}end", "a word ".repeat(20))), Instant::now());
    assert!(lines(&nobody, 60, 10).join(" ").contains("word end"));
}

#[test]
fn no_number_is_cut_at_any_width() {
    let seen = of(small());
    let state = seen.shown().expect("it was seen");
    let palette = Palette { has_colours: false, is_faint: false };
    for width in 1..=160 {
        for (line, words) in [
            (
                figures(state, palette, width),
                &[
                    "1234 requests/s",
                    "2.50 errors/s",
                    "7 in flight",
                    "ms:",
                    "p50 1.25",
                    "p95 –",
                    "p99 42.0",
                    "p99.9 –",
                ][..],
            ),
            (
                machine(state, palette, width),
                &["cpu –", "memory –", "process – of a core, –", "ticks 800/s", "subscribers 33"][..],
            ),
        ] {
            let text = line.to_string();
            assert!(text.split("  ").all(|part| words.contains(&part)), "{width}: {text}");
            assert!(width < 20 || width_of(&text) <= width, "{width}: {text}");
        }
    }
    let eighty = lines(&demo(), 80, 24);
    assert!(
        ["errors/s", "p50", "p99 ", "p99.9 "].iter().all(|word| eighty[1].contains(word)),
        "{}",
        eighty[1]
    );
    assert!(["cpu", "memory", "ticks", "/s"].iter().all(|word| eighty[2].contains(word)), "{}", eighty[2]);
    assert!(lines(&demo(), 40, 10)[1].contains("p99 "));
    // On a narrow screen the chosen panel is the one that is named.
    assert_eq!(lines(&turned_to(demo(), "6"), 40, 10)[3].trim(), "1  2  3  4  5  6 Streams");
}

#[test]
fn the_column_that_is_sorted_by_is_seen() {
    for (panel, columns) in [("3", 11), ("4", 13), ("5", 8)] {
        for column in 1..=columns {
            let shown = lines(&turned_to(demo(), &format!("{panel}{}", "s".repeat(column))), 80, 24);
            assert!(shown.iter().any(|line| line.contains('↓')), "{panel} {column}: {shown:#?}");
        }
    }
}

#[test]
fn a_node_that_is_gone_is_shown_until_it_is_back() {
    let mut overview = small();
    overview["cluster"]["lost"] = json!([{ "node": "nrt-1", "region": "nrt", "since": "2026-11-30T00:00:00Z" }, { "node": "iad-1", "region": "iad" }]);
    let state = of(overview);
    assert_eq!(cell(&state, "nrt-1", "state"), "gone");
    assert_eq!(cell(&state, "iad-1", "state"), "draining");
    assert_eq!(lines(&state, 160, 40).iter().filter(|line| line.contains("iad-1")).count(), 1);
}

#[test]
fn every_size_of_every_panel_can_be_drawn() {
    let mut state = demo();
    for panel in '1'..='6' {
        let mut state = turned_to(state.clone(), &panel.to_string());
        state.press(Press::End);
        for (width, height) in (1..=100).flat_map(|width| (1..=40).map(move |height| (width, height))) {
            screen(&state, width, height, true);
        }
    }
    for keys in ["?", "/x", "2/x", "sr"] {
        let state = turned_to(state.clone(), keys);
        for (width, height) in (1..=60).flat_map(|width| (1..=14).map(move |height| (width, height))) {
            screen(&state, width, height, true);
        }
    }
    state.press(Press::Char('6'));
    assert!(lines(&state, 80, 24).join("\n").contains("subscribers"));
}

#[test]
fn eighty_by_twenty_four_has_everything_that_matters() {
    for (panel, words) in [
        ("1", ["node", "region", "state", "iad-1"]),
        ("2", ["mailbox", "messages/s", "restarts", "inference-gpu"]),
        ("3", ["NVIDIA L4", "busy", "rows waiting", "up"]),
        ("4", ["nhits-vol-quan", "requests/s", "p99 ms", "failed/s"]),
        ("5", ["guards", "closed", "failures", "nbeats"]),
        ("6", ["subscribers", "ticks in", "predictions", "a second"]),
    ] {
        let shown = lines(&turned_to(demo(), panel), 80, 24).join("\n");
        for word in words.into_iter().chain(["fra-1", "requests/s", "p99", "q quit"]) {
            // The line of keys is cut on the right where there is no room for it.
            let is_there = shown.contains(word) || (word == "q quit" && shown.contains("? help"));
            assert!(is_there, "{panel} {word}:\n{shown}");
        }
    }
}

#[test]
fn without_colours_nothing_is_lost() {
    let state = turned_to(of(small()), "3");
    let (plain, coloured) = (screen(&state, 120, 30, false), screen(&state, 120, 30, true));
    assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(coloured.content().iter().any(|cell| cell.fg == Color::Red));
    let text =
        |buffer: &Buffer| buffer.content().iter().map(|cell| cell.symbol().to_owned()).collect::<String>();
    assert_eq!(text(&plain), text(&coloured));
}

#[test]
fn whatever_an_overview_says_the_terminal_is_not_steered_and_nothing_breaks() {
    let evil = "\x1b]0;owned\x07\u{9b}2J\r\n\u{202e}\u{200b}name\t";
    let huge = "x".repeat(100_000);
    let ring = json!([
        { "name": "a", "parent": "b" }, { "name": "b", "parent": "a" }, { "name": "c", "parent": "c" },
        { "name": "a", "parent": "nobody" }, { "name": evil, "parent": evil, "restarts": u64::MAX },
    ]);
    let hostile = [
        json!({}),
        json!({ "actors": ring, "unheard_of": [1, 2, { "x": null }] }),
        json!({
            "node": { "name": evil, "region": huge, "uptime_seconds": 1e300, "reasons": [evil, huge] },
            "cluster": { "name": evil, "size": u64::MAX, "members": [
                { "node": evil, "region": 7, "roles": { "a": 1 }, "models": [1], "load": 1e308, "rtt_ms": "soon" }, 5, null, "x", [],
            ] },
            "requests": { "rate": 1e300, "error_rate": -1e300, "p50_ms": -0.0, "in_flight": u64::MAX },
            "models": [ { "name": evil, "version": huge, "rate": 1e-300, "p99_ms": f64::MAX } ],
            "devices": [ { "name": evil, "busy_share": 1e300, "utilisation": -5.0, "memory_used_bytes": u64::MAX, "power_watts": 1e300 } ],
            "breakers": [ { "model": evil, "version": -1, "failures": "many", "mode": [], "reason": evil }, 7 ],
            "streams": { "bytes_rate": -1.0, "lag_max": u64::MAX, "conflated_rate": 1e300 },
            "alerts": [ { "state": 5, "labels": { (evil): evil, "n": 7 }, "summary": huge }, null ],
            "scaler": { "groups": [ { "name": evil, "wanted": u64::MAX, "reason": evil } ], "cost_so_far": 1e300, "currency": evil },
            "history": { "rate": [null, 1e300, -1.0], "p99_ms": [], "at": [u64::MAX] },
        }),
    ];
    for overview in hostile {
        for panel in '1'..='6' {
            for keys in ["", "s", "ss", "sssr", "/NAME"] {
                let state = turned_to(turned_to(of(overview.clone()), &panel.to_string()), keys);
                for (width, height) in [(1, 1), (20, 5), (80, 24), (200, 60)] {
                    let buffer = screen(&state, width, height, true);
                    for cell in buffer.content() {
                        let is_safe = |one: char| {
                            !one.is_control()
                                && !matches!(one, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
                        };
                        assert!(cell.symbol().chars().all(is_safe), "{panel} {:?}", cell.symbol());
                    }
                }
            }
        }
        let seen: Overview = serde_json::from_value(overview).unwrap();
        let mut text = Vec::new();
        super::super::plain::write(&mut text, &seen).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.chars().all(|one| one == '\n' || !one.is_control()), "{text}");
        assert!(text.lines().all(|line| width_of(line) <= 400), "{text}");
    }
}
