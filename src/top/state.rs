//! What somebody looks at, and how: overviews and keys go in, what is to be seen comes out.
//!
//! Knows no terminal, no network and no clock.

use std::time::{Duration, Instant};

use super::panels::{Panel, members};
use super::table::{Order, Table};
use crate::overview::Overview;

/// Of what can be typed to be looked for.
const FILTER_CHARS_MAX: usize = 64;
/// Rows that a page moves by.
const PAGE: isize = 10;

/// A key, as this program knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Char(char),
    Tab,
    BackTab,
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Stop,
}

/// What a key brings about outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Quit,
    /// Another node is to be looked at; `None`: the one that is asked.
    Watch(Option<String>),
}

/// What the feed has to say.
#[derive(Clone, Debug)]
pub(super) enum Update {
    Seen(Box<Overview>),
    /// It cannot be had now, and why.
    Lost(String),
}

/// Whether there is somebody at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    #[default]
    Waiting,
    Up,
    Lost {
        since: Instant,
        why: String,
    },
}

/// Everything that the screen depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) panel: Panel,
    orders: [Order; Panel::ALL.len()],
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) is_typing: bool,
    pub(super) is_helping: bool,
    pub(super) link: Link,
    /// What is shown; `None`: nothing was seen yet.
    shown: Option<Box<Overview>>,
    /// What came since it was told to stand still.
    held: Option<Option<Box<Overview>>>,
    /// The node that is looked at, if it is not the one that is asked.
    pub(super) watched: Option<String>,
    /// The first row that is shown.
    scroll: usize,
    /// Rows that there was room for when it was drawn last.
    pub(super) room: usize,
}

impl State {
    /// Looks at a node by name first.
    pub(super) fn of(watched: Option<String>) -> Self {
        Self { watched, ..Self::default() }
    }

    pub(super) fn shown(&self) -> Option<&Overview> {
        self.shown.as_deref()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn order(&self) -> Order {
        self.orders[self.panel as usize]
    }

    /// Takes what the feed has to say.
    pub(super) fn update(&mut self, update: Update, now: Instant) {
        match update {
            Update::Seen(overview) => {
                self.link = Link::Up;
                match &mut self.held {
                    Some(held) if self.shown.is_some() => *held = Some(overview),
                    _ => self.shown = Some(overview),
                }
            }
            Update::Lost(why) => {
                let since = match self.link {
                    Link::Lost { since, .. } => since,
                    Link::Waiting | Link::Up => now,
                };
                self.link = Link::Lost { since, why };
            }
        }
    }

    /// For how long nobody has answered.
    pub(super) fn lost_for(&self, now: Instant) -> Option<(Duration, &str)> {
        match &self.link {
            Link::Lost { since, why } => Some((now.saturating_duration_since(*since), why)),
            Link::Waiting | Link::Up => None,
        }
    }

    /// The rows of the panel, as they are to be seen.
    pub(super) fn table(&self) -> Option<Table> {
        let mut table = self.panel.table(self.shown()?);
        table.filter(&self.filter);
        table.sort(self.order());
        Some(table)
    }

    /// The first row of so many that `room` is to be filled with.
    pub(super) fn first_row(&self, rows: usize, room: usize) -> usize {
        self.scroll.min(rows.saturating_sub(room))
    }

    pub(super) fn press(&mut self, press: Press) -> Effect {
        if press == Press::Stop {
            return Effect::Quit;
        }
        if self.is_typing {
            self.type_filter(press);
            return Effect::Nothing;
        }
        if std::mem::take(&mut self.is_helping) {
            return Effect::Nothing;
        }
        match press {
            Press::Char('q') => return Effect::Quit,
            Press::Char('?' | 'h') => self.is_helping = true,
            Press::Char(digit @ '1'..='6') => self.turn_to(digit as usize - '1' as usize),
            Press::Tab => self.turn_to(self.panel as usize + 1),
            Press::BackTab => self.turn_to(self.panel as usize + Panel::ALL.len() - 1),
            Press::Char('s') => self.sort_by_next(),
            Press::Char('r') => {
                let order = &mut self.orders[self.panel as usize];
                order.is_reversed = !order.is_reversed;
            }
            Press::Char('/') => (self.is_typing, self.scroll) = (true, 0),
            Press::Escape => self.filter.clear(),
            Press::Char('p') => match self.held.take() {
                None => self.held = Some(None),
                Some(newest) => self.shown = newest.or(self.shown.take()),
            },
            Press::Char('n') => return self.watch_next(),
            Press::Up | Press::Char('k') => self.move_by(-1),
            Press::Down | Press::Char('j') => self.move_by(1),
            Press::PageUp => self.move_by(-PAGE),
            Press::PageDown => self.move_by(PAGE),
            Press::Home | Press::Char('g') => self.scroll = 0,
            Press::End | Press::Char('G') => self.move_by(isize::MAX),
            Press::Char(_) | Press::Enter | Press::Backspace | Press::Stop => {}
        }
        Effect::Nothing
    }

    fn type_filter(&mut self, press: Press) {
        match press {
            Press::Enter => self.is_typing = false,
            Press::Escape => {
                self.is_typing = false;
                self.filter.clear();
            }
            Press::Backspace => drop(self.filter.pop()),
            Press::Char(one) if !one.is_control() && self.filter.chars().count() < FILTER_CHARS_MAX => {
                self.filter.push(one);
            }
            _ => {}
        }
    }

    fn turn_to(&mut self, place: usize) {
        self.panel = Panel::ALL[place % Panel::ALL.len()];
        self.scroll = 0;
    }

    /// As it came, then by each column.
    fn sort_by_next(&mut self) {
        let columns = self.panel.columns().len();
        let order = &mut self.orders[self.panel as usize];
        order.column = match order.column {
            None => Some(0),
            Some(column) if column + 1 < columns => Some(column + 1),
            Some(_) => None,
        };
        order.is_reversed = false;
    }

    /// At most until the last row is seen, so that the way back is not longer than the way there.
    fn move_by(&mut self, rows: isize) {
        let last = self.table().map_or(0, |table| table.rows.len().saturating_sub(self.room.max(1)));
        self.scroll = self.scroll.min(last).saturating_add_signed(rows).min(last);
    }

    /// The node after the one that is looked at, by name, of those that are there.
    fn watch_next(&mut self) -> Effect {
        let Some(shown) = self.shown() else { return Effect::Nothing };
        let names = members(shown);
        let now = self.watched.as_deref().unwrap_or(&shown.node.name);
        let next = names.iter().find(|name| name.as_str() > now).or(names.first());
        let Some(next) = next.filter(|next| next.as_str() != now).cloned() else { return Effect::Nothing };
        self.watched = Some(next.clone());
        (self.link, self.scroll, self.held) = (Link::Waiting, 0, None);
        Effect::Watch(Some(next))
    }
}

#[cfg(test)]
mod tests;
