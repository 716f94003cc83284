//! Reads logs, and decides again.

use std::collections::BTreeMap;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::time::Duration;

use jiff::Timestamp;

use super::{Differing, LINE_LEN_MAX, LOG_LEN_MAX, LogError, ROUND_LINES_MAX, Replay};
use crate::budget::Spent;
use crate::control::{Controller, FleetSpec, GroupView, Markets, Seen};
use crate::fleet::{Machine, MachineId, MachineState, Slot};
use crate::place::RoundTrips;
use crate::pool::PoolError;
use crate::signal::{NodeReport, Signal};

const STATES: [MachineState; 8] = [
    MachineState::Starting,
    MachineState::Started,
    MachineState::Stopping,
    MachineState::Stopped,
    MachineState::Suspended,
    MachineState::Failed,
    MachineState::Unknown,
    MachineState::Destroying,
];

/// Decides anew what a log tells of, under the same specification.
///
/// # Errors
/// See [`LogError`].
pub fn replay(text: &str, spec: FleetSpec) -> Result<Replay, LogError> {
    if text.len() > LOG_LEN_MAX {
        return Err(LogError::TooMuch { what: "bytes", max: LOG_LEN_MAX });
    }
    let mut controller = Controller::new(spec);
    let mut replay = Replay::default();
    let mut round = None::<Logged>;
    for (index, line) in text.lines().enumerate() {
        let wrong = |why| LogError::Line { line: index + 1, why };
        if line.len() > LINE_LEN_MAX {
            return Err(wrong("is longer than any line of a log"));
        }
        let mut words = Words(line.split_ascii_whitespace());
        match (words.word().map_err(wrong)?, &mut round) {
            ("round", _) => {
                if let Some(before) = round.replace(Logged::begun(&mut words).map_err(wrong)?) {
                    before.decide(&mut controller, &mut replay)?;
                }
            }
            (kind, Some(round)) => {
                round.lines += 1;
                if round.lines > ROUND_LINES_MAX {
                    return Err(LogError::TooMuch { what: "facts of one round", max: ROUND_LINES_MAX });
                }
                round.take(kind, &mut words).map_err(wrong)?;
            }
            (_, None) => return Err(wrong("is before the first round")),
        }
        if words.0.next().is_some() {
            return Err(wrong("has more words than it should"));
        }
    }
    if let Some(last) = round {
        last.decide(&mut controller, &mut replay)?;
    }
    Ok(replay)
}

/// One round as it is told.
struct Logged {
    seen: Seen,
    decided: BTreeMap<String, (u32, u32)>,
    done: Vec<(usize, f64, Result<(), PoolError>)>,
    lines: usize,
}

impl Logged {
    fn begun(words: &mut Words<'_>) -> Result<Self, &'static str> {
        let seen = Seen {
            now: words.read()?,
            machines: BTreeMap::new(),
            reports: BTreeMap::new(),
            groups: BTreeMap::new(),
            round_trips: RoundTrips::new(),
            spent: Spent { this_month: words.read()?, remaining: words.nanos()? },
        };
        Ok(Self { seen, decided: BTreeMap::new(), done: Vec::new(), lines: 0 })
    }

    fn take(&mut self, kind: &str, words: &mut Words<'_>) -> Result<(), &'static str> {
        let seen = &mut self.seen;
        match kind {
            "list" => {
                let pool = words.text()?;
                let listed = words.result()?.map(|()| Vec::new());
                seen.machines.insert(pool, listed);
            }
            "machine" => {
                let pool = words.text()?;
                let Some(Ok(machines)) = seen.machines.get_mut(&pool) else {
                    return Err("is a machine of a pool that has listed none");
                };
                machines.push(words.machine()?);
            }
            "report" => {
                seen.reports.insert(words.text()?, words.report()?);
            }
            "view" => {
                let group = words.text()?;
                let release = words.text()?;
                let is_open = words.known()?.map(truth).transpose()?;
                let opens_in = words.known()?.map(number).transpose()?.map(Duration::from_nanos);
                let demand = words.known()?.map(number).transpose()?;
                let cost_per_1000 = words.known()?.map(number).transpose()?;
                let markets = Markets { is_open, opens_in };
                let view = GroupView { markets, demand, cost_per_1000, release, ..GroupView::default() };
                seen.groups.insert(group, view);
            }
            "origin" | "room" => {
                let group = words.text()?;
                let view = seen.groups.get_mut(&group).ok_or("is of a group that is not told of")?;
                let region = words.text()?;
                if kind == "origin" {
                    view.origins.insert(region, words.read()?);
                } else {
                    view.room.insert(region, words.read()?);
                }
            }
            "fixed" => {
                let group = words.text()?;
                let view = seen.groups.get_mut(&group).ok_or("is of a group that is not told of")?;
                view.fixed.push(words.report()?);
            }
            "trip" => {
                seen.round_trips.insert((words.text()?, words.text()?), words.nanos()?);
            }
            "decided" => {
                self.decided.insert(words.text()?, (words.read()?, words.read()?));
            }
            "done" => self.done.push((words.read()?, words.read()?, words.result()?)),
            _ => return Err("is no line of a log"),
        }
        Ok(())
    }

    fn decide(mut self, controller: &mut Controller, replay: &mut Replay) -> Result<(), LogError> {
        let at = self.seen.now;
        let round = controller.round(&self.seen);
        for (action, chance, result) in &self.done {
            let Some((_, decided)) = round.actions.get(*action) else {
                return Err(LogError::Diverged { at, action: *action });
            };
            controller.done(decided, result.as_ref().copied(), at, *chance);
        }
        for decision in &round.decisions {
            let (now, logged) = ((decision.from, decision.to), self.decided.remove(&decision.group));
            if logged != Some(now) {
                let group = decision.group.clone();
                replay.differing.push(Differing { at, group, logged, now: Some(now) });
            }
        }
        let missing = |(group, logged)| Differing { at, group, logged: Some(logged), now: None };
        replay.differing.extend(self.decided.into_iter().map(missing));
        replay.rounds += 1;
        replay.decisions.extend(round.decisions);
        Ok(())
    }
}

/// The words of a line.
struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, &'static str> {
        self.0.next().ok_or("has fewer words than it should")
    }

    fn known(&mut self) -> Result<Option<&'a str>, &'static str> {
        self.word().map(|word| Some(word).filter(|word| *word != "-"))
    }

    fn read<T: FromStr>(&mut self) -> Result<T, &'static str> {
        self.word().and_then(number)
    }

    fn nanos(&mut self) -> Result<Duration, &'static str> {
        self.read().map(Duration::from_nanos)
    }

    fn truth(&mut self) -> Result<bool, &'static str> {
        self.word().and_then(truth)
    }

    fn text(&mut self) -> Result<String, &'static str> {
        let word = self.word()?;
        if word == "%" {
            return Ok(String::new());
        }
        let mut bytes = Vec::with_capacity(word.len());
        let mut rest = word.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'%' {
                bytes.push(byte);
                continue;
            }
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err("has a % without two digits");
            };
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
        }
        String::from_utf8(bytes).map_err(|_| "has a word that is no text")
    }

    fn machine(&mut self) -> Result<Machine, &'static str> {
        let id = MachineId(self.text()?);
        let slot = Slot { group: self.text()?, number: self.read()? };
        let region = self.text()?;
        let state = self.word()?;
        let state = STATES
            .into_iter()
            .find(|known| known.name() == state)
            .ok_or("has a state that no machine has")?;
        Ok(Machine {
            id,
            slot,
            region,
            state,
            cordoned: self.truth()?,
            release: self.text()?,
            created_at: self.read()?,
        })
    }

    fn report(&mut self) -> Result<NodeReport, &'static str> {
        let mut report = NodeReport {
            at: self.read()?,
            is_ready: self.truth()?,
            is_draining: self.truth()?,
            measured: BTreeMap::new(),
        };
        for word in self.0.by_ref() {
            let (name, value) = word.split_once('=').ok_or("has a signal without a value")?;
            let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name);
            report.measured.insert(signal.ok_or("has a signal that is not known")?, number(value)?);
        }
        Ok(report)
    }

    fn result(&mut self) -> Result<Result<(), PoolError>, &'static str> {
        Ok(Err(match self.word()? {
            "ok" => return Ok(Ok(())),
            "slot_taken" => PoolError::SlotTaken,
            "no_capacity" => PoolError::NoCapacity { region: self.text()? },
            "host_full" => PoolError::HostFull,
            "ambiguous" => PoolError::Ambiguous(self.text()?),
            "rate_limited" => PoolError::RateLimited,
            "held" => PoolError::Held { until: self.read::<Timestamp>()? },
            "wrong_state" => PoolError::WrongState(self.text()?),
            "gone" => PoolError::Gone,
            "refused" => PoolError::Refused(self.text()?),
            "unavailable" => PoolError::Unavailable(self.text()?),
            _ => return Err("has an error that no pool says"),
        }))
    }
}

fn number<T: FromStr>(word: &str) -> Result<T, &'static str> {
    word.parse().map_err(|_| "has a word that should be a number or a time")
}

fn truth(word: &str) -> Result<bool, &'static str> {
    match word {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("has a word that should be 0 or 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::control::{Decision, Done, Round};
    use crate::pool::Change;
    use crate::reconcile::Action;

    fn at(nanos: i128) -> Timestamp {
        Timestamp::from_nanosecond(1_800_000_000_000_000_000 + nanos).unwrap()
    }

    fn machine(number: u32, state: MachineState) -> Machine {
        Machine {
            id: MachineId(format!("id {number}%\n")),
            slot: Slot { group: "g".to_owned(), number },
            region: "é".to_owned(),
            state,
            cordoned: number % 2 == 1,
            release: String::new(),
            created_at: at(-1),
        }
    }

    /// Everything that a round can hold, written, read and written again.
    #[test]
    fn what_is_written_is_read() {
        let errors = [
            PoolError::SlotTaken,
            PoolError::NoCapacity { region: "i ad".to_owned() },
            PoolError::HostFull,
            PoolError::Ambiguous("408: nobody\tknows".to_owned()),
            PoolError::RateLimited,
            PoolError::Held { until: at(7) },
            PoolError::WrongState(String::new()),
            PoolError::Gone,
            PoolError::Refused("-".to_owned()),
            PoolError::Unavailable("down".to_owned()),
        ];
        let mut machines: BTreeMap<String, Result<Vec<Machine>, PoolError>> =
            errors.iter().enumerate().map(|(n, error)| (format!("pool {n}"), Err(error.clone()))).collect();
        let listed = (0..).zip(STATES).map(|(number, state)| machine(number, state)).collect();
        machines.insert("all".to_owned(), Ok(listed));
        let measured = Signal::ALL.into_iter().zip([
            0.1 + 0.2,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            1e-300,
            5e300,
            3.0,
            0.0,
            7.5,
        ]);
        let report =
            NodeReport { at: at(3), is_ready: true, is_draining: false, measured: measured.collect() };
        let view = GroupView {
            markets: Markets { is_open: Some(false), opens_in: Some(Duration::from_nanos(5)) },
            demand: Some(1.0 / 3.0),
            cost_per_1000: None,
            origins: BTreeMap::from([("iad".to_owned(), 0.7)]),
            room: BTreeMap::from([("é".to_owned(), 4)]),
            release: "v 1".to_owned(),
            fixed: vec![report.clone(), NodeReport::default()],
        };
        let seen = Seen {
            now: at(11),
            machines,
            reports: BTreeMap::from([
                ("m".to_owned(), report.clone()),
                ("n".to_owned(), NodeReport::default()),
            ]),
            groups: BTreeMap::from([("g".to_owned(), view), ("h".to_owned(), GroupView::default())]),
            round_trips: RoundTrips::from([(("a".to_owned(), "b".to_owned()), Duration::from_millis(90))]),
            spent: Spent { this_month: 0.1 + 0.7, remaining: Duration::MAX },
        };
        let decision = |from, to| Decision {
            at: at(11),
            group: "g".to_owned(),
            from,
            to,
            cause: crate::control::Cause::Steady,
            findings: Vec::new(),
            facts: Vec::new(),
            short: (0, 0),
        };
        let action = |number| Action::Change(machine(number, MachineState::Started), Change::Stop);
        let actions = (0..12).map(|number| ("all".to_owned(), action(number))).collect();
        let round = Round { decisions: vec![decision(1, 2)], actions, strays: Vec::new() };
        let results = errors.into_iter().map(Err).chain([Ok(())]);
        let done: Vec<Done> =
            (1..).zip(results).map(|(number, result)| Done { action: action(number), result }).collect();
        let chances: Vec<f64> = (0..11).map(|n| f64::from(n) / 11.0).collect();
        let mut recorder = Recorder::new(1 << 20);
        recorder.saw(&seen);
        recorder.did(&round, &done, &chances);

        let mut lines = recorder.text().lines();
        let mut words = Words(lines.next().unwrap().split_ascii_whitespace());
        assert_eq!(words.word(), Ok("round"));
        let mut logged = Logged::begun(&mut words).unwrap();
        for line in lines {
            let mut words = Words(line.split_ascii_whitespace());
            let kind = words.word().unwrap();
            logged.take(kind, &mut words).unwrap();
            assert_eq!(words.0.next(), None, "{line}");
        }
        let mut again = Recorder::new(1 << 20);
        again.saw(&logged.seen);
        let told: Vec<Done> = logged
            .done
            .iter()
            .map(|(index, _, result)| Done {
                action: round.actions[*index].1.clone(),
                result: result.clone(),
            })
            .collect();
        assert_eq!(told, done);
        let told: Vec<f64> = logged.done.iter().map(|(_, chance, _)| *chance).collect();
        assert_eq!(logged.decided, BTreeMap::from([("g".to_owned(), (1, 2))]));
        again.did(&round, &done, &told);
        assert_eq!(again.text(), recorder.text());
    }
}
