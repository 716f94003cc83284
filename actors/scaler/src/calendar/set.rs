//! All calendars: those that come with the product, and those of the user.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Calendar;
use super::file::{CalendarError, Written};

/// Calendars of one node.
const CALENDARS_MAX: usize = 64;

/// In an order in which each comes after what it extends.
const BUILT_IN: [(&str, &str); 8] = [
    ("xnys", include_str!("../../../../configs/calendars/xnys.toml")),
    ("xnas", include_str!("../../../../configs/calendars/xnas.toml")),
    ("xcme", include_str!("../../../../configs/calendars/xcme.toml")),
    ("xlon", include_str!("../../../../configs/calendars/xlon.toml")),
    ("xetr", include_str!("../../../../configs/calendars/xetr.toml")),
    ("xtks", include_str!("../../../../configs/calendars/xtks.toml")),
    ("fx", include_str!("../../../../configs/calendars/fx.toml")),
    ("crypto", include_str!("../../../../configs/calendars/crypto.toml")),
];

/// A name that no calendar has. Whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no calendar `{name}`; there are {known}")]
pub struct UnknownCalendar {
    /// What was asked for.
    pub name: String,
    /// Those that there are, with commas between.
    pub known: String,
}

/// Calendars by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendars {
    by_name: BTreeMap<String, Arc<Calendar>>,
}

impl Calendars {
    /// Those that come with the product.
    #[must_use]
    pub fn built_in() -> Self {
        let none = Self { by_name: BTreeMap::new() };
        none.with(&BUILT_IN).expect("a test reads each of them")
    }

    /// With the user's files, each a name and its text, in any order. One with the name of another takes its place, and
    /// may extend it: `extends = "xnys"` in a file `xnys` adds to what comes with the product.
    ///
    /// # Errors
    /// The first file that cannot be used, with key and value; none of them is taken then.
    pub fn with(mut self, files: &[(&str, &str)]) -> Result<Self, CalendarError> {
        if files.len() > CALENDARS_MAX {
            return Err(CalendarError::TooManyCalendars { max: CALENDARS_MAX });
        }
        let mut waiting: Vec<Written> =
            files.iter().map(|(name, text)| Written::read(name, text)).collect::<Result<_, _>>()?;
        while !waiting.is_empty() {
            let is_waiting = |base: &str| waiting.iter().any(|other| other.name() == base);
            let ready = waiting.iter().position(|written| {
                written.base().is_none_or(|base| base == written.name() || !is_waiting(base))
            });
            // Each waits for another of them: whichever comes first is told.
            let written = waiting.remove(ready.unwrap_or(0));
            let base = match written.base() {
                None => None,
                Some(base) => match self.by_name.get(base) {
                    Some(found) if ready.is_some() => Some(Arc::clone(found)),
                    _ => {
                        let (calendar, base) = (written.name().to_owned(), base.to_owned());
                        return Err(CalendarError::NoBase { calendar, base });
                    }
                },
            };
            let calendar = written.resolve(base.as_deref())?;
            self.by_name.insert(calendar.name().to_owned(), Arc::new(calendar));
        }
        if self.by_name.len() > CALENDARS_MAX {
            return Err(CalendarError::TooManyCalendars { max: CALENDARS_MAX });
        }
        Ok(self)
    }

    /// The calendar of that name, in whichever case: `XNYS` is `xnys`.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Arc<Calendar>, UnknownCalendar> {
        self.by_name.get(&name.to_ascii_lowercase()).ok_or_else(|| UnknownCalendar {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}
