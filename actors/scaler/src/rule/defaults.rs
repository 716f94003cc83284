//! The rules of a fleet whose configuration has none of its own.
//!
//! Six of them, for groups whose machines answer some tens of requests per second each. All of them leave it to the
//! demand to have more machines than their bounds, and none takes away what the demand needs.

use std::time::Duration;

use super::{Arm, Condition, Rule};

/// One arm as text.
struct Line {
    rule: &'static str,
    priority: i32,
    when: &'static str,
    /// Machines: more are added, fewer taken away.
    step: i32,
    cooldown_min: u64,
    machines_min: u32,
    machines_max: u32,
}

/// By rule; the two arms of one follow each other.
const LINES: [Line; 7] = [
    Line {
        rule: "emergency",
        priority: 100,
        when: "utilisation > 0.95 || memory_share > 0.95",
        step: 2,
        cooldown_min: 2,
        machines_min: 2,
        machines_max: 5,
    },
    Line {
        rule: "high_use",
        priority: 80,
        when: "utilisation > 0.85 && request_rate > 50.0",
        step: 1,
        cooldown_min: 5,
        machines_min: 1,
        machines_max: 4,
    },
    Line {
        rule: "trading_hours",
        priority: 60,
        // Soon is when machines that are asked for now would be ready, three of them one after the other.
        when: "(market_open || market_opens_in < 900.0 + time_to_ready) && request_rate > 30.0",
        step: 1,
        cooldown_min: 5,
        machines_min: 2,
        machines_max: 4,
    },
    Line {
        rule: "low_use",
        priority: 40,
        when: "utilisation < 0.4 && request_rate < 20.0",
        step: -1,
        cooldown_min: 10,
        machines_min: 1,
        machines_max: 5,
    },
    Line {
        rule: "off_hours",
        priority: 30,
        when: "!market_open && utilisation < 0.3",
        step: -1,
        cooldown_min: 15,
        machines_min: 1,
        machines_max: 2,
    },
    Line {
        rule: "cost_efficiency",
        priority: 20,
        // Predictions cost the least on machines that are all but full; what costs nothing is no reason.
        when: "cost_per_1000 > 0.0 && cost_per_1000 < 0.002 && utilisation > 0.7",
        step: 1,
        cooldown_min: 10,
        machines_min: 1,
        machines_max: 4,
    },
    Line {
        rule: "cost_efficiency",
        priority: 20,
        when: "cost_per_1000 > 0.02 && utilisation < 0.6",
        step: -1,
        cooldown_min: 10,
        machines_min: 1,
        machines_max: 5,
    },
];

/// The default set.
#[must_use]
pub fn defaults() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in &LINES {
        let arm = Arm {
            when: Condition::new(line.when).expect("a test compiles each of them"),
            step: line.step.unsigned_abs(),
            cooldown: Duration::from_secs(60 * line.cooldown_min),
            holds_for: Duration::ZERO,
            machines_min: line.machines_min,
            machines_max: line.machines_max,
        };
        let (up, down) = if line.step > 0 { (Some(arm), None) } else { (None, Some(arm)) };
        match rules.last_mut().filter(|rule| rule.name == line.rule) {
            Some(rule) => {
                rule.up = rule.up.take().or(up);
                rule.down = rule.down.take().or(down);
            }
            None => rules.push(Rule {
                name: line.rule.to_owned(),
                groups: Vec::new(),
                priority: line.priority,
                is_emergency: line.rule == "emergency",
                up,
                down,
            }),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Machine, MachineId, MachineState, Slot};
    use crate::rule::{Direction, Facts, Memory, judge};
    use crate::signal::{GroupSignals, NodeReport, Signal};
    use jiff::Timestamp;

    #[derive(Default)]
    struct Case {
        utilisation: f64,
        memory: f64,
        rate: f64,
        open: Option<bool>,
        opens_in: Option<f64>,
        cost: Option<f64>,
    }

    #[track_caller]
    fn check(case: &Case, present: u32, to: u32, by: Option<(&str, Direction)>) {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let machine = Machine {
            id: MachineId("m0".to_owned()),
            slot: Slot { group: "g".to_owned(), number: 0 },
            region: "iad".to_owned(),
            state: MachineState::Started,
            cordoned: false,
            release: "v1".to_owned(),
            created_at: now,
        };
        let measured = [
            (Signal::Utilisation, case.utilisation),
            (Signal::MemoryShare, case.memory),
            (Signal::RequestRate, case.rate),
        ];
        let report = NodeReport { at: now, is_ready: true, is_draining: false, measured: measured.into() };
        let minute = Duration::from_secs(60);
        let signals = GroupSignals::of([(&machine, Some(&report))].into_iter(), &[], now, minute, minute);
        let facts = Facts::of(&signals)
            .with("market_opens_in", case.opens_in)
            .with("cost_per_1000", case.cost)
            .with("time_to_ready", Some(90.0))
            .with_truth("market_open", case.open);
        let judged = judge(&defaults(), "g", present, &facts, &mut Memory::default(), now);
        let expected = by.map(|(name, direction)| (name.to_owned(), direction));
        assert_eq!((judged.to, judged.by), (to, expected), "{:#?}", judged.findings);
    }

    #[test]
    fn there_are_six() {
        let rules = defaults();
        let said: Vec<(&str, bool, bool)> =
            rules.iter().map(|rule| (rule.name.as_str(), rule.up.is_some(), rule.down.is_some())).collect();
        let expected = [
            ("emergency", true, false),
            ("high_use", true, false),
            ("trading_hours", true, false),
            ("low_use", false, true),
            ("off_hours", false, true),
            ("cost_efficiency", true, true),
        ];
        assert_eq!(said, expected);
        assert!(rules.iter().all(|rule| rule.is_emergency == (rule.name == "emergency")));
    }

    #[test]
    fn each_acts_when_it_should() {
        let up = |name| Some((name, Direction::Up));
        let down = |name| Some((name, Direction::Down));
        check(&Case { utilisation: 0.96, ..Case::default() }, 2, 4, up("emergency"));
        check(&Case { memory: 0.96, utilisation: 0.5, ..Case::default() }, 4, 5, up("emergency"));
        check(&Case { utilisation: 0.86, rate: 51.0, ..Case::default() }, 2, 3, up("high_use"));
        check(&Case { utilisation: 0.86, rate: 49.0, ..Case::default() }, 2, 2, None);
        let open = Case { utilisation: 0.5, rate: 31.0, open: Some(true), ..Case::default() };
        check(&open, 2, 3, up("trading_hours"));
        let soon = Case { open: Some(false), opens_in: Some(980.0), ..open };
        check(&soon, 2, 3, up("trading_hours"));
        check(&Case { opens_in: Some(1000.0), ..soon }, 2, 2, None);
        check(
            &Case { utilisation: 0.39, rate: 19.0, open: Some(true), ..Case::default() },
            3,
            2,
            down("low_use"),
        );
        let closed = Case { utilisation: 0.29, rate: 25.0, open: Some(false), ..Case::default() };
        check(&closed, 2, 1, down("off_hours"));
        check(&Case { open: None, ..closed }, 2, 2, None);
        let dear = Case { utilisation: 0.5, rate: 25.0, cost: Some(0.021), ..Case::default() };
        check(&dear, 3, 2, down("cost_efficiency"));
        let cheap = Case { utilisation: 0.75, rate: 25.0, cost: Some(0.0019), ..Case::default() };
        check(&cheap, 3, 4, up("cost_efficiency"));
        check(&Case { cost: Some(0.0), ..cheap }, 3, 3, None);
    }
}
