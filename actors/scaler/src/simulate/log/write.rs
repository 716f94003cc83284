//! Writes logs.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::{LINE_LEN_MAX, LOG_LEN_MAX};
use crate::control::{Done, Round, Seen};
use crate::fleet::Machine;
use crate::pool::PoolError;
use crate::signal::NodeReport;

/// Writes down rounds until there is no room for more.
#[derive(Clone, Debug)]
pub struct Recorder {
    text: String,
    len_max: usize,
    /// Where the latest round begins.
    round: usize,
    is_full: bool,
}

impl Recorder {
    /// It keeps `len_max` bytes at most, and no more than 1 GiB. The rounds after that are not in it.
    #[must_use]
    pub const fn new(len_max: usize) -> Self {
        let len_max = if len_max > LOG_LEN_MAX { LOG_LEN_MAX } else { len_max };
        Self { text: String::new(), len_max, round: 0, is_full: false }
    }

    /// What was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Rounds are missing at its end.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// A round begins with this.
    pub fn saw(&mut self, seen: &Seen) {
        if self.is_full {
            return;
        }
        self.round = self.text.len();
        let (spent, remaining) = (seen.spent.this_month, nanos(seen.spent.remaining));
        self.line(format_args!("round {} {spent} {remaining}", seen.now));
        for (pool, listed) in &seen.machines {
            match listed {
                Ok(machines) => {
                    self.line(format_args!("list {} ok", Word(pool)));
                    machines.iter().for_each(|machine| self.machine(pool, machine));
                }
                Err(error) => self.line(format_args!("list {} {}", Word(pool), Failed(error))),
            }
        }
        seen.reports.iter().for_each(|(of, report)| self.report("report", of, report));
        for (group, view) in &seen.groups {
            let open = view.markets.is_open.map(u8::from);
            let opens_in = view.markets.opens_in.map(nanos);
            let (release, demand, cost) = (Word(&view.release), view.demand, view.cost_per_1000);
            let group = Word(group);
            self.line(format_args!(
                "view {group} {release} {} {} {} {}",
                Known(open),
                Known(opens_in),
                Known(demand),
                Known(cost)
            ));
            for (region, rate) in &view.origins {
                self.line(format_args!("origin {group} {} {rate}", Word(region)));
            }
            for (region, machines) in &view.room {
                self.line(format_args!("room {group} {} {machines}", Word(region)));
            }
            view.fixed.iter().for_each(|report| self.report("fixed", group.0, report));
        }
        for ((from, to), trip) in &seen.round_trips {
            self.line(format_args!("trip {} {} {}", Word(from), Word(to), nanos(*trip)));
        }
    }

    /// …and ends with this. `chances`: those that outcomes were told with.
    pub fn did(&mut self, round: &Round, done: &[Done], chances: &[f64]) {
        if self.is_full {
            return;
        }
        for decision in &round.decisions {
            let group = Word(&decision.group);
            self.line(format_args!("decided {group} {} {}", decision.from, decision.to));
        }
        // Outcomes are in the order of actions; one whose pool is not there has none.
        let mut actions = round.actions.iter().enumerate();
        for (Done { action, result }, chance) in done.iter().zip(chances) {
            let Some((index, _)) = actions.find(|(_, (_, decided))| decided == action) else { continue };
            match result {
                Ok(()) => self.line(format_args!("done {index} {chance} ok")),
                Err(error) => self.line(format_args!("done {index} {chance} {}", Failed(error))),
            }
        }
        if self.text.len() > self.len_max {
            self.cut();
        }
    }

    /// A round that is not whole is of no use.
    fn cut(&mut self) {
        self.text.truncate(self.round);
        self.is_full = true;
    }

    fn machine(&mut self, pool: &str, machine: &Machine) {
        self.line(format_args!(
            "machine {} {} {} {} {} {} {} {} {}",
            Word(pool),
            Word(&machine.id.0),
            Word(&machine.slot.group),
            machine.slot.number,
            Word(&machine.region),
            machine.state.name(),
            u8::from(machine.cordoned),
            Word(&machine.release),
            machine.created_at
        ));
    }

    fn report(&mut self, kind: &str, of: &str, report: &NodeReport) {
        let mut measured = String::new();
        for (signal, value) in &report.measured {
            // Writing to a string does not fail.
            let _ = write!(measured, " {}={value}", signal.name());
        }
        let (is_ready, is_draining) = (u8::from(report.is_ready), u8::from(report.is_draining));
        self.line(format_args!("{kind} {} {} {is_ready} {is_draining}{measured}", Word(of), report.at));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.is_full {
            return;
        }
        let begins = self.text.len();
        let _ = writeln!(self.text, "{line}");
        // Nobody could read it again.
        if self.text.len() - begins > LINE_LEN_MAX || self.text.len() > self.len_max {
            self.cut();
        }
    }
}

/// A duration that a clock can show, in nanoseconds.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A text as one word: bytes that are no letters, digits or signs are written as `%` and two digits, and nothing as `%`.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_char('%');
        }
        for byte in self.0.bytes() {
            if byte.is_ascii_graphic() && byte != b'%' {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

struct Known<T>(Option<T>);

impl<T: Display> Display for Known<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_char('-'),
        }
    }
}

struct Failed<'a>(&'a PoolError);

impl Display for Failed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            PoolError::SlotTaken => write!(f, "slot_taken"),
            PoolError::NoCapacity { region } => write!(f, "no_capacity {}", Word(region)),
            PoolError::HostFull => write!(f, "host_full"),
            PoolError::Ambiguous(why) => write!(f, "ambiguous {}", Word(why)),
            PoolError::RateLimited => write!(f, "rate_limited"),
            PoolError::Held { until } => write!(f, "held {until}"),
            PoolError::WrongState(why) => write!(f, "wrong_state {}", Word(why)),
            PoolError::Gone => write!(f, "gone"),
            PoolError::Refused(why) => write!(f, "refused {}", Word(why)),
            PoolError::Unavailable(why) => write!(f, "unavailable {}", Word(why)),
        }
    }
}
