//! Keys and values of the ledger. What was read from a disk is believed only when it can be so.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use peregrine_scaler::control::{Decision, Start};
use serde::{Deserialize, Serialize};

/// Larger values are none of ours.
pub(super) const VALUE_BYTES_MAX: usize = 256 << 10;
/// Of one text of a decision; the rest of a longer one is cut.
const TEXT_BYTES_MAX: usize = 512;
/// Arms and facts of one decision.
const LINES_MAX: usize = 320;
/// Of a group's or a region's name.
const NAME_BYTES_MAX: usize = 128;
/// Of an hour.
const HOUR_NANOS: i128 = 3600 * 1_000_000_000;

/// What a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The costs of an hour.
    Cost = 1,
    Decision = 2,
    Ready = 3,
}

/// What a group has cost in a region within one hour.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// When the hour begins.
    pub hour: Timestamp,
    /// The group.
    pub group: String,
    /// The region.
    pub region: String,
    /// Seconds of machines that ran.
    pub running_seconds: f64,
    /// Seconds of machines that were stopped.
    pub stopped_seconds: f64,
    /// In the currency of the prices.
    pub cost: f64,
    /// Predictions that were made.
    pub predictions: f64,
}

/// A decision as it is kept: in words.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedDecision {
    /// When.
    pub at: Timestamp,
    /// The group.
    pub group: String,
    /// Machines that were wanted.
    pub from: u32,
    /// Machines that are wanted.
    pub to: u32,
    /// What decided.
    pub cause: String,
    /// What became of each arm of each rule.
    pub findings: Vec<String>,
    /// What was known, by name.
    pub facts: BTreeMap<String, String>,
    /// Of those that are wanted, the ones without room, and the ones without money.
    pub short: (u32, u32),
}

/// How long a machine took from the decision until it took requests.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyTime {
    /// When it was ready.
    pub at: Timestamp,
    /// Its group.
    pub group: String,
    /// How it was started.
    pub start: Start,
    /// How long that took.
    pub took: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CostFile {
    group: String,
    region: String,
    running_seconds: f64,
    stopped_seconds: f64,
    cost: f64,
    predictions: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionFile {
    group: String,
    from: u32,
    to: u32,
    cause: String,
    findings: Vec<String>,
    facts: BTreeMap<String, String>,
    short: (u32, u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadyFile {
    group: String,
    is_warm: bool,
    took_ms: u64,
}

/// Before all keys of a kind.
pub(super) fn prefix(kind: Kind) -> [u8; 1] {
    [kind as u8]
}

/// Before all keys of that kind and time; keys are in the order of time.
pub(super) fn at_key(kind: Kind, at: Timestamp) -> Vec<u8> {
    // Those before 1970 come first, too.
    let millis = at.as_millisecond().cast_unsigned() ^ (1 << 63);
    let mut key = vec![kind as u8];
    key.extend_from_slice(&millis.to_be_bytes());
    key
}

/// The key of what is one of several at a time.
pub(super) fn numbered_key(kind: Kind, at: Timestamp, number: u32) -> Vec<u8> {
    let mut key = at_key(kind, at);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Which of several it is.
pub(super) fn number_of(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(9..)?.try_into().ok()?))
}

pub(super) fn cost_key(hour: Timestamp, group: &str, region: &str) -> Vec<u8> {
    let mut key = at_key(Kind::Cost, hour);
    key.extend_from_slice(group.as_bytes());
    key.push(0);
    key.extend_from_slice(region.as_bytes());
    key
}

/// The kind and the time that a key names.
pub(super) fn read_key(key: &[u8]) -> Option<(Kind, Timestamp)> {
    let (kind, rest) = key.split_first()?;
    let kind = [Kind::Cost, Kind::Decision, Kind::Ready].into_iter().find(|known| *known as u8 == *kind)?;
    let millis = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
    let at = Timestamp::from_millisecond((millis ^ (1 << 63)).cast_signed()).ok()?;
    let is_whole = match kind {
        Kind::Cost => at == hour_of(at),
        Kind::Decision | Kind::Ready => rest.len() == 12,
    };
    is_whole.then_some((kind, at))
}

/// The hour, UTC, that `at` is in.
pub(super) fn hour_of(at: Timestamp) -> Timestamp {
    let hours = at.as_nanosecond().div_euclid(HOUR_NANOS);
    // The first hour of all time may begin before it.
    Timestamp::from_nanosecond(hours * HOUR_NANOS).unwrap_or(Timestamp::MIN)
}

/// When the next one begins.
pub(super) fn next_hour(at: Timestamp) -> Timestamp {
    let next = hour_of(at).as_nanosecond() + HOUR_NANOS;
    Timestamp::from_nanosecond(next).unwrap_or(Timestamp::MAX)
}

impl Cost {
    pub(super) fn empty(hour: Timestamp, group: &str, region: &str) -> Self {
        Self {
            hour,
            group: group.to_owned(),
            region: region.to_owned(),
            running_seconds: 0.0,
            stopped_seconds: 0.0,
            cost: 0.0,
            predictions: 0.0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encoded(&CostFile {
            group: self.group.clone(),
            region: self.region.clone(),
            running_seconds: self.running_seconds,
            stopped_seconds: self.stopped_seconds,
            cost: self.cost,
            predictions: self.predictions,
        })
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (kind, hour) = read_key(key)?;
        let file: CostFile = decoded(value)?;
        let CostFile { group, region, running_seconds, stopped_seconds, cost, predictions } = file;
        let numbers = [running_seconds, stopped_seconds, cost, predictions];
        let fits = kind == Kind::Cost
            && cost_key(hour, &group, &region) == key
            && numbers.iter().all(|number| number.is_finite() && *number >= 0.0);
        fits.then_some(Self { hour, group, region, running_seconds, stopped_seconds, cost, predictions })
    }
}

impl From<&Decision> for LoggedDecision {
    fn from(decision: &Decision) -> Self {
        let findings = decision.findings.iter().take(LINES_MAX).map(|finding| cut(finding.to_string()));
        let facts = decision.facts.iter().take(LINES_MAX);
        Self {
            at: decision.at,
            group: decision.group.clone(),
            from: decision.from,
            to: decision.to,
            cause: cut(decision.cause.to_string()),
            findings: findings.collect(),
            facts: facts.map(|(name, text)| ((*name).to_owned(), cut(text.clone()))).collect(),
            short: decision.short,
        }
    }
}

impl LoggedDecision {
    pub(super) fn encode(&self) -> Vec<u8> {
        encoded(&DecisionFile {
            group: self.group.clone(),
            from: self.from,
            to: self.to,
            cause: self.cause.clone(),
            findings: self.findings.clone(),
            facts: self.facts.clone(),
            short: self.short,
        })
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (Kind::Decision, at) = read_key(key)? else { return None };
        let DecisionFile { group, from, to, cause, findings, facts, short } = decoded(value)?;
        is_name(&group).then_some(Self { at, group, from, to, cause, findings, facts, short })
    }
}

impl ReadyTime {
    pub(super) fn encode(&self) -> Vec<u8> {
        encoded(&ReadyFile {
            group: self.group.clone(),
            is_warm: self.start == Start::Warm,
            took_ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (Kind::Ready, at) = read_key(key)? else { return None };
        let ReadyFile { group, is_warm, took_ms } = decoded(value)?;
        let start = if is_warm { Start::Warm } else { Start::Cold };
        is_name(&group).then_some(Self { at, group, start, took: Duration::from_millis(took_ms) })
    }
}

/// Can a group or a region be called so? A nul would end it in a key.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// Is it something that this build has written?
pub(in crate::scaler) fn is_entry(key: &[u8], value: &[u8]) -> bool {
    match read_key(key) {
        Some((Kind::Cost, _)) => Cost::decode(key, value).is_some(),
        Some((Kind::Decision, _)) => LoggedDecision::decode(key, value).is_some(),
        Some((Kind::Ready, _)) => ReadyTime::decode(key, value).is_some(),
        None => false,
    }
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain texts and finite numbers")
}

fn decoded<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Option<T> {
    if value.len() > VALUE_BYTES_MAX { None } else { serde_json::from_slice(value).ok() }
}

fn cut(text: String) -> String {
    // Written out, a control character takes six bytes.
    let mut text = text.replace(char::is_control, " ");
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use peregrine_scaler::control::Cause;
    use peregrine_scaler::pool::PoolError;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn keys_are_in_the_order_of_time() {
        let times = [i64::from(i32::MIN), -1, 0, 1, 1_800_000_000_000];
        let keys = times.map(|millis| numbered_key(Kind::Ready, at(millis), 7));
        assert!(keys.is_sorted());
        for (key, millis) in keys.iter().zip(times) {
            assert_eq!(read_key(key), Some((Kind::Ready, at(millis))));
        }
    }

    #[test]
    fn an_hour_is_a_whole_one() {
        assert_eq!(hour_of(at(3_600_000 * 5 + 1)), at(3_600_000 * 5));
        assert_eq!(hour_of(at(-1)), at(-3_600_000));
        assert_eq!(next_hour(at(0)), at(3_600_000));
        assert_eq!(next_hour(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn what_is_written_is_read() {
        let cost = Cost { cost: 1.25, predictions: 7.0, ..Cost::empty(at(3_600_000), "g", "iad") };
        let key = cost_key(cost.hour, "g", "iad");
        assert_eq!(Cost::decode(&key, &cost.encode()), Some(cost.clone()));
        let ready = ReadyTime {
            at: at(5),
            group: "g".to_owned(),
            start: Start::Warm,
            took: Duration::from_millis(1250),
        };
        let ready_key = numbered_key(Kind::Ready, at(5), 0);
        assert_eq!(ReadyTime::decode(&ready_key, &ready.encode()), Some(ready.clone()));
        // At another's key, or with numbers that cannot be.
        assert_eq!(Cost::decode(&cost_key(cost.hour, "g", "fra"), &cost.encode()), None);
        assert_eq!(Cost::decode(&ready_key, &cost.encode()), None);
        let less = Cost { cost: -1.0, ..cost };
        assert_eq!(Cost::decode(&key, &less.encode()), None);
        for value in [&b""[..], b"{}", b"null", b"\xff", &[b' '; VALUE_BYTES_MAX + 1]] {
            assert!(!is_entry(&key, value) && !is_entry(&ready_key, value));
        }
        for key in [&b""[..], &[9; 13], &[2; 9], &[1, 0x80, 0, 0, 0, 0, 0, 0, 1]] {
            assert!(!is_entry(key, &ready.encode()), "{key:?}");
        }
    }

    #[test]
    fn a_decision_has_an_end() {
        let decision = Decision {
            at: at(5),
            group: "g".to_owned(),
            from: 1,
            to: 1,
            cause: Cause::PoolSilent(PoolError::Unavailable("ä".repeat(1 << 20))),
            findings: Vec::new(),
            facts: vec![("machines", "x".repeat(1 << 20)); 1000],
            short: (1, 2),
        };
        let logged = LoggedDecision::from(&decision);
        let value = logged.encode();
        assert!(value.len() < VALUE_BYTES_MAX, "{}", value.len());
        assert!(logged.cause.ends_with('…'));
        assert_eq!(LoggedDecision::decode(&numbered_key(Kind::Decision, at(5), 3), &value), Some(logged));
    }
}
