//! Draws a state on any terminal that ratatui knows, of any size. Decides nothing.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Wrap};

use super::panels::{Panel, alerts};
use super::state::{Link, State};
use super::table::{GAP, Table, Tone, padded, width_of};
use super::words::{clean, lasting, maybe, part, percent, spark};
use crate::overview::{History, Overview};

/// Whether colours may be used; meaning is never in them alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub(super) has_colours: bool,
    /// Everything is of the past.
    pub(super) is_faint: bool,
}

impl Palette {
    fn style(self, tone: Tone) -> Style {
        let plain = Style::new();
        if self.is_faint {
            return plain.add_modifier(Modifier::DIM);
        }
        match tone {
            Tone::Plain => plain,
            Tone::Bad => self.coloured(plain.add_modifier(Modifier::BOLD), Color::Red),
            Tone::Odd => self.coloured(plain, Color::Yellow),
            Tone::Good => self.coloured(plain, Color::Green),
            Tone::Faint => plain.add_modifier(Modifier::DIM),
        }
    }

    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.has_colours { style.fg(colour) } else { style }
    }

    fn title(self) -> Style {
        if self.is_faint {
            return Style::new().add_modifier(Modifier::DIM | Modifier::BOLD);
        }
        self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::Cyan)
    }

    fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }
}

/// Terminals lower than this get no sparklines…
const SPARKS_HEIGHT_MIN: u16 = 14;
/// …lower than this no figures of the machine…
const FIGURES_HEIGHT_MIN: u16 = 10;
/// …and lower than this nothing but a title and rows.
const TABS_HEIGHT_MIN: u16 = 6;
/// Alerts are told in so many lines, where there is room.
const ALERT_LINES_MAX: usize = 4;

/// Says how many rows there was room for.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, palette: Palette, now: Instant) -> usize {
    let area = frame.area();
    let mut rows = Rows { left: area };
    let width = usize::from(area.width);
    rows.line(frame, title(state, palette, now, width));
    // What was heard last must not look like now.
    let palette = Palette { is_faint: state.lost_for(now).is_some(), ..palette };
    if let Some(seen) = state.shown() {
        if area.height >= FIGURES_HEIGHT_MIN {
            rows.line(frame, figures(seen, palette, width));
            rows.line(frame, machine(seen, palette, width));
        }
        if area.height >= SPARKS_HEIGHT_MIN
            && let Some(history) = &seen.history
        {
            rows.line(frame, sparks(history, width).style(palette.style(Tone::Plain)));
        }
    }
    if area.height >= TABS_HEIGHT_MIN {
        rows.line(frame, tabs(state, palette, width));
        rows.foot(frame, foot(state, palette, width));
    }
    match (state.shown(), state.table()) {
        (Some(seen), Some(table)) => {
            let told = alerts(seen);
            let room = usize::from(rows.left.height / 3).min(ALERT_LINES_MAX);
            if told.len() > room && room > 0 {
                let more = format!("and {} more alerts", told.len() + 1 - room);
                rows.foot(frame, Line::styled(more, palette.style(Tone::Faint)));
            }
            let shown = if told.len() > room { room.saturating_sub(1) } else { told.len() };
            for (tone, text) in told.iter().take(shown).rev() {
                rows.foot(frame, Line::styled(format!("! {text}"), palette.style(*tone)));
            }
            body(frame, rows.left, state, &table, palette);
        }
        _ => {
            let waiting = match &state.link {
                Link::Lost { why, .. } => clean(why),
                Link::Waiting | Link::Up => "waiting for the first answer".to_owned(),
            };
            let told = Paragraph::new(waiting).style(palette.style(Tone::Faint)).wrap(Wrap { trim: true });
            frame.render_widget(told, rows.left);
        }
    }
    if state.is_helping {
        help(frame, palette);
    }
    // One line is the titles'.
    usize::from(rows.left.height).saturating_sub(1)
}

/// What is left of the screen, taken from above and below.
struct Rows {
    left: Rect,
}

impl Rows {
    fn line(&mut self, frame: &mut Frame<'_>, line: Line<'_>) {
        if self.left.height > 0 {
            let place = Rect { height: 1, ..self.left };
            (self.left.y, self.left.height) = (self.left.y + 1, self.left.height - 1);
            frame.render_widget(line, place);
        }
    }

    fn foot(&mut self, frame: &mut Frame<'_>, line: Line<'_>) {
        if self.left.height > 0 {
            self.left.height -= 1;
            let place = Rect { y: self.left.y + self.left.height, height: 1, ..self.left };
            frame.render_widget(line, place);
        }
    }
}

/// A part of a line: its rank, of which the highest go first where there is no room for all, and what it says.
type Part = (u8, String, Style);

/// Parts beside each other, each whole or not at all: half a number is another number.
fn fitted<'a>(mut parts: Vec<Part>, width: usize) -> Line<'a> {
    let total = |parts: &[Part]| {
        parts.iter().map(|(_, text, _)| width_of(text)).sum::<usize>() + GAP * parts.len().saturating_sub(1)
    };
    while parts.len() > 1 && total(&parts) > width {
        let last = parts.iter().enumerate().max_by_key(|(place, (rank, ..))| (*rank, *place));
        let Some(last) = last.map(|(place, _)| place) else { break };
        parts.remove(last);
    }
    let mut line = Line::default();
    for (place, (_, text, style)) in parts.into_iter().enumerate() {
        if place > 0 {
            line.push_span(Span::raw(" ".repeat(GAP)));
        }
        line.push_span(Span::styled(text, style));
    }
    line
}

fn title<'a>(state: &State, palette: Palette, now: Instant, width: usize) -> Line<'a> {
    let lost = state.lost_for(now);
    let mut parts = vec![(3, "peregrine".to_owned(), palette.title())];
    let mut add = |rank: u8, text: String, style: Style| parts.push((rank, text, style));
    if let Some(seen) = state.shown() {
        add(1, clean(&seen.node.name), Style::new().add_modifier(Modifier::BOLD));
    }
    if let Some((time, why)) = lost {
        let told = format!("LOST for {}: {}", lasting(time.as_secs_f64()), clean(why));
        let taken = state.shown().map_or(0, |seen| width_of(&clean(&seen.node.name)) + GAP);
        let room = width_of(&told).min(width.saturating_sub(taken)).max(1);
        add(0, padded(&told, room, false), palette.style(Tone::Bad));
    }
    if state.is_paused() {
        add(2, "PAUSED".to_owned(), palette.style(Tone::Odd));
    }
    let Some(seen) = state.shown() else { return fitted(parts, width) };
    let node = &seen.node;
    if let Some(watched) = state.watched.as_ref().filter(|watched| **watched != node.name) {
        add(2, format!("on the way to {}", clean(watched)), palette.style(Tone::Odd));
    }
    add(6, clean(&node.region), Style::new());
    match (lost, node.ready) {
        (Some(_), _) => {}
        (None, true) => add(4, "ready".to_owned(), palette.style(Tone::Good)),
        (None, false) => add(4, "not ready".to_owned(), palette.style(Tone::Bad)),
    }
    add(7, format!("up {}", lasting(node.uptime_seconds)), Style::new());
    let cluster = seen.cluster.name.as_deref().map(clean);
    let nodes = seen.cluster.members.len();
    if let Some(cluster) = cluster {
        add(5, format!("{nodes} of {} nodes of {cluster}", seen.cluster.size), Style::new());
    }
    if let Some(reason) = node.reasons.first() {
        add(8, clean(reason), palette.style(Tone::Odd));
    }
    add(9, clean(&node.version), palette.style(Tone::Faint));
    fitted(parts, width)
}

fn figures<'a>(seen: &Overview, palette: Palette, width: usize) -> Line<'a> {
    let requests = &seen.requests;
    let fails = requests.error_rate.is_some_and(|rate| rate > 0.0);
    let plain = palette.style(Tone::Plain);
    let parts = vec![
        (0, format!("{} requests/s", maybe(requests.rate)), plain),
        (
            0,
            format!("{} errors/s", maybe(requests.error_rate)),
            palette.style(if fails { Tone::Bad } else { Tone::Plain }),
        ),
        (4, format!("{} in flight", requests.in_flight), plain),
        (2, "ms:".to_owned(), plain),
        (5, format!("p50 {}", maybe(requests.p50_ms)), plain),
        (6, format!("p95 {}", maybe(requests.p95_ms)), plain),
        (1, format!("p99 {}", maybe(requests.p99_ms)), plain),
        (3, format!("p99.9 {}", maybe(requests.p999_ms)), plain),
    ];
    fitted(parts, width)
}

fn machine<'a>(seen: &Overview, palette: Palette, width: usize) -> Line<'a> {
    let (system, plain) = (&seen.system, palette.style(Tone::Plain));
    let parts = vec![
        (0, format!("cpu {}", percent(system.cpu_share)), plain),
        (2, format!("memory {}", part(system.memory_used_bytes, system.memory_total_bytes)), plain),
        (
            4,
            format!(
                "process {} of a core, {}",
                percent(system.process_cpu_share),
                super::words::bytes(system.process_bytes)
            ),
            plain,
        ),
        (1, format!("ticks {}/s", maybe(seen.streams.ticks_rate)), plain),
        (3, format!("subscribers {}", seen.streams.subscribers), plain),
    ];
    fitted(parts, width)
}

/// The requests and the slow ones among them, over the last quarter of an hour or as much of it as there is room for.
pub(super) fn sparks<'a>(history: &History, width: usize) -> Line<'a> {
    const RATE: &str = "requests/s ";
    const SLOW: &str = "  p99 ms ";
    let room = width.saturating_sub(RATE.len() + SLOW.len()) / 2;
    Line::raw(format!("{RATE}{}{SLOW}{}", spark(&history.rate, room), spark(&history.p99_ms, room)))
}

fn tabs<'a>(state: &State, palette: Palette, width: usize) -> Line<'a> {
    let whole = |(place, panel): (usize, Panel)| format!(" {} {} ", place + 1, panel.title());
    let has_room =
        Panel::ALL.into_iter().enumerate().map(|one| width_of(&whole(one))).sum::<usize>() <= width;
    let mut line = Line::default();
    for (place, panel) in Panel::ALL.into_iter().enumerate() {
        let is_chosen = panel == state.panel;
        let text = if has_room || is_chosen { whole((place, panel)) } else { format!(" {} ", place + 1) };
        let style = if is_chosen { palette.chosen() } else { palette.style(Tone::Plain) };
        line.push_span(Span::styled(text, style));
    }
    if !state.filter.is_empty() && !state.is_typing {
        line.push_span(Span::styled(format!("  only {}", clean(&state.filter)), palette.style(Tone::Odd)));
    }
    line
}

fn foot<'a>(state: &State, palette: Palette, width: usize) -> Line<'a> {
    if state.is_typing {
        return Line::raw(format!("/{}▏", clean(&state.filter)));
    }
    let order = state.order();
    let sorted = match order.column.and_then(|column| state.panel.columns().get(column)) {
        Some(column) => format!("(by {}{})", column.title, if order.is_reversed { ", reversed" } else { "" }),
        None => "(as it came)".to_owned(),
    };
    let keys = [
        (2, "1-6 panel"),
        (3, "s sort"),
        (5, "r reverse"),
        (4, "/ filter"),
        (6, "n next node"),
        (7, "p pause"),
        (0, "? help"),
        (1, "q quit"),
        (8, sorted.as_str()),
    ];
    let style = palette.style(Tone::Faint);
    fitted(keys.map(|(rank, text)| (rank, text.to_owned(), style)).to_vec(), width)
}

fn body(frame: &mut Frame<'_>, area: Rect, state: &State, table: &Table, palette: Palette) {
    if area.height == 0 {
        return;
    }
    let order = state.order();
    let columns = table.fit(usize::from(area.width), order.column);
    let mut rows = Rows { left: area };
    if area.height > 1 {
        let mut head = Line::default();
        for (column, width) in &columns {
            let of = table.columns[*column];
            let is_chosen = order.column == Some(*column);
            let mark = if is_chosen && order.is_reversed { "↑" } else { "↓" };
            let text = if is_chosen { format!("{}{mark}", of.title) } else { of.title.to_owned() };
            head.push_span(Span::styled(padded(&text, *width, of.is_number), palette.title()));
            head.push_span(Span::raw(" ".repeat(GAP)));
        }
        rows.line(frame, head);
    }
    if table.rows.is_empty() {
        let nothing = if state.filter.is_empty() { "none" } else { "nothing like that; Esc shows all" };
        rows.line(frame, Line::styled(nothing, palette.style(Tone::Faint)));
        return;
    }
    let room = usize::from(rows.left.height);
    let first = state.first_row(table.rows.len(), room);
    for row in table.rows.iter().skip(first).take(room) {
        let mut line = Line::default();
        for (column, width) in &columns {
            let cell = &row.cells[*column];
            let indent = row.indent(*column).min(*width);
            let text = padded(&cell.text, width - indent, table.columns[*column].is_number);
            line.push_span(Span::raw(" ".repeat(indent)));
            line.push_span(Span::styled(text, palette.style(cell.tone)));
            line.push_span(Span::raw(" ".repeat(GAP)));
        }
        rows.line(frame, line);
    }
}

const HELP: &[&str] = &[
    "1-6 Tab     panel",
    "s           sort by the next column",
    "r           the other way round",
    "/           show only what has these words; Esc shows all",
    "n           look at the next node",
    "p           stand still, and go on",
    "↑ ↓ PgUp PgDn Home End   rows",
    "q Ctrl-C    quit",
    "",
    "– is not known. Rates are of the last second, percentiles of the last ten.",
];

fn help(frame: &mut Frame<'_>, palette: Palette) {
    let area = frame.area();
    let width = HELP.iter().map(|line| width_of(line)).max().unwrap_or(0) + 4;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let (x, y) = ((area.width - width) / 2, (area.height - height) / 2);
    let place = Rect { x: area.x + x, y: area.y + y, width, height };
    frame.render_widget(Clear, place);
    let block = ratatui::widgets::Block::bordered().title("keys").title_style(palette.title());
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(format!(" {line}"))).collect();
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

#[cfg(test)]
mod tests;
