//! From readings to alerts: inactive → pending → firing → resolved, one for each rule and labels.
//!
//! Pure: readings and clock readings in, events out. Keeps a bounded number of alerts and of those that ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::alert::{Alert, AlertState, Event, Happening, Labels, Moment, Sample};
use super::rule::{Missing, Rule};

/// Alerts that are pending or firing at a time; further ones are counted and not kept.
pub const ACTIVE_MAX: usize = 512;
/// Alerts that ended and are remembered.
pub const HISTORY_MAX: usize = 256;

/// By rule and labels: the same trouble is one alert, however often it is seen.
type Key = (String, Labels);

/// Judges samples by rules.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Arc<Rule>>,
    repeat_every: Duration,
    active: BTreeMap<Key, Active>,
    ended: VecDeque<Alert>,
    overflowed: u64,
}

#[derive(Debug)]
struct Active {
    alert: Alert,
    bad_since: Instant,
    /// `None`: pending.
    firing: Option<Firing>,
    /// Whether there ever was a reading of these very labels.
    was_read: bool,
}

#[derive(Debug)]
struct Firing {
    clear_since: Option<Instant>,
    said_at: Instant,
}

/// What a reading means to a rule.
#[derive(Clone, Copy)]
struct Finding {
    is_bad: bool,
    /// Not even beyond the lower bound at which an alert ends.
    is_clear: bool,
}

impl Engine {
    /// Knows nothing yet. Alerts that go on firing are said again after `repeat_every`.
    #[must_use]
    pub fn new(rules: Vec<Rule>, repeat_every: Duration) -> Self {
        Self {
            rules: rules.into_iter().map(Arc::new).collect(),
            repeat_every,
            active: BTreeMap::new(),
            ended: VecDeque::new(),
            overflowed: 0,
        }
    }

    /// Goes by other rules. Alerts of rules that stay go on; those of rules that went, or look at something else now,
    /// end with them.
    pub fn replace(&mut self, rules: Vec<Rule>, repeat_every: Duration, at: Moment) -> Vec<Event> {
        self.repeat_every = repeat_every;
        self.rules = rules.into_iter().map(Arc::new).collect();
        let stays = |alert: &Alert| {
            self.rules.iter().any(|rule| rule.name == alert.rule.name && rule.signal == alert.rule.signal)
        };
        let orphans: Vec<Key> = self
            .active
            .iter()
            .filter(|(_, active)| !stays(&active.alert))
            .map(|(key, _)| key.clone())
            .collect();
        orphans.iter().filter_map(|key| self.end(key, at.wall)).collect()
    }

    /// Judges one sample.
    pub fn look(&mut self, sample: &Sample, at: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        for rule in self.rules.clone() {
            for (labels, value) in self.of_rule(&rule, sample) {
                let is_measured = value.is_some() || sample.expected.contains(&rule.signal);
                let key = (rule.name.clone(), labels);
                let finding = match value {
                    Some(value) => Some(found(&rule, value)),
                    // Nobody measures it any more, or what stood for all of them while there was none at all.
                    None if !is_measured || self.is_stand_in(&key, &rule, sample) => Some(GOOD),
                    None => match rule.missing {
                        Missing::Resolve => Some(GOOD),
                        Missing::Fire => Some(BAD),
                        Missing::Hold => None,
                    },
                };
                events.extend(self.step(key, &rule, value, finding, at));
            }
        }
        events
    }

    /// Pending and firing alerts, by rule and labels.
    pub fn active(&self) -> impl Iterator<Item = &Alert> {
        self.active.values().map(|active| &active.alert)
    }

    /// Alerts that have ended, the latest first.
    pub fn ended(&self) -> impl Iterator<Item = &Alert> {
        self.ended.iter().rev()
    }

    /// The rules in use.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Alerts that there was no room for.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// What a rule has to judge: each of its readings, and each of its alerts that has none.
    fn of_rule(&self, rule: &Rule, sample: &Sample) -> BTreeMap<Labels, Option<f64>> {
        let of_signal = sample.readings.iter().filter(|reading| reading.signal == rule.signal);
        let mut values: BTreeMap<Labels, Option<f64>> = of_signal
            .map(|reading| (reading.labels.clone(), Some(reading.value).filter(|value| value.is_finite())))
            .collect();
        if values.is_empty() && rule.missing == Missing::Fire && sample.expected.contains(&rule.signal) {
            values.insert(Labels::new(), None);
        }
        let first = (rule.name.clone(), Labels::new());
        for (_, labels) in
            self.active.range(first..).map(|(key, _)| key).take_while(|(name, _)| *name == rule.name)
        {
            values.entry(labels.clone()).or_insert(None);
        }
        values
    }

    /// Whether an alert was about there being no reading at all, and there are some now.
    fn is_stand_in(&self, key: &Key, rule: &Rule, sample: &Sample) -> bool {
        self.active.get(key).is_some_and(|active| !active.was_read)
            && sample.readings.iter().any(|reading| reading.signal == rule.signal)
            && !sample.readings.iter().any(|reading| reading.signal == rule.signal && reading.labels == key.1)
    }

    fn step(
        &mut self,
        key: Key,
        rule: &Arc<Rule>,
        value: Option<f64>,
        finding: Option<Finding>,
        at: Moment,
    ) -> Option<Event> {
        if !self.active.contains_key(&key) {
            if !finding.is_some_and(|finding| finding.is_bad) {
                return None;
            }
            if self.active.len() == ACTIVE_MAX {
                self.overflowed += 1;
                return None;
            }
            let alert = Alert {
                rule: Arc::clone(rule),
                labels: key.1.clone(),
                state: AlertState::Pending,
                value,
                bad_since: at.wall,
                fired_at: None,
                resolved_at: None,
            };
            let fresh = Active { alert, bad_since: at.now, firing: None, was_read: false };
            self.active.insert(key.clone(), fresh);
        }
        let repeat_every = self.repeat_every;
        let active = self.active.get_mut(&key)?;
        active.alert.rule = Arc::clone(rule);
        active.alert.value = value;
        active.was_read |= value.is_some();
        let finding = finding?; // nothing is known: all stays as it is
        let Some(firing) = &mut active.firing else {
            if !finding.is_bad {
                self.active.remove(&key);
                return None;
            }
            if at.now.saturating_duration_since(active.bad_since) < rule.lasting {
                return None;
            }
            active.firing = Some(Firing { clear_since: None, said_at: at.now });
            active.alert.state = AlertState::Firing;
            active.alert.fired_at = Some(at.wall);
            return Some(Event { what: Happening::Fired, alert: active.alert.clone(), at: at.wall });
        };
        if finding.is_clear {
            let since = *firing.clear_since.get_or_insert(at.now);
            if at.now.saturating_duration_since(since) >= rule.clear_lasting {
                return self.end(&key, at.wall);
            }
        } else {
            firing.clear_since = None;
        }
        if at.now.saturating_duration_since(firing.said_at) < repeat_every {
            return None;
        }
        firing.said_at = at.now;
        Some(Event { what: Happening::Repeated, alert: active.alert.clone(), at: at.wall })
    }

    /// Takes an alert out; one that had fired is told and remembered.
    fn end(&mut self, key: &Key, wall: SystemTime) -> Option<Event> {
        let Active { mut alert, firing, .. } = self.active.remove(key)?;
        firing?;
        alert.state = AlertState::Resolved;
        alert.resolved_at = Some(wall);
        if self.ended.len() == HISTORY_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(alert.clone());
        Some(Event { what: Happening::Resolved, alert, at: wall })
    }
}

const GOOD: Finding = Finding { is_bad: false, is_clear: true };
const BAD: Finding = Finding { is_bad: true, is_clear: false };

fn found(rule: &Rule, value: f64) -> Finding {
    let beyond = |bound| rule.comparison.is_beyond(value, bound);
    Finding { is_bad: beyond(rule.threshold), is_clear: !beyond(rule.clear) && !beyond(rule.threshold) }
}
