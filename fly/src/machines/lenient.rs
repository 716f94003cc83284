//! Values that the platform writes in more than one way: both are read, one is written.
//!
//! Its own client library and its documentation do not always agree, and a Go server writes `null` for what is empty.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest text of a duration that is looked at.
const DURATION_BYTES_MAX: usize = 64;

/// A duration as Go writes it: `15s`, `1m30s`, `500ms`. An integer is read as nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

/// A text that is no duration; whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no duration like `1m30s`")]
pub struct NoDuration(String);

impl std::str::FromStr for GoDuration {
    type Err = NoDuration;

    fn from_str(text: &str) -> Result<Self, NoDuration> {
        nanos(text)
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map(|nanos| Self(Duration::from_nanos(nanos)))
            .ok_or_else(|| NoDuration(text.chars().take(DURATION_BYTES_MAX).collect()))
    }
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos.is_multiple_of(1_000_000_000) {
            write!(f, "{}s", nanos / 1_000_000_000)
        } else if nanos.is_multiple_of(1_000_000) {
            write!(f, "{}ms", nanos / 1_000_000)
        } else {
            write!(f, "{nanos}ns")
        }
    }
}

fn nanos(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() || text.len() > DURATION_BYTES_MAX {
        return None;
    }
    let (mut rest, mut sum) = (text, 0_u128);
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + part.len() == 0 || whole.len() > 18 || part.len() > 18 || part.contains('.') {
            return None;
        }
        let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
        let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
        sum = sum.checked_add(digits(whole)?.checked_mul(unit)?)?;
        sum = sum.checked_add(digits(part)?.checked_mul(unit)? / scale)?;
        rest = tail;
    }
    Some(sum)
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Nanos(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Nanos(nanos) => Ok(Self(Duration::from_nanos(nanos))),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Whether the platform's proxy stops machines of a service that have little to do. Written as a word; read as a word
/// or as a boolean, which is the older form and what answers hold for `off` and `stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Autostop {
    /// Never.
    #[default]
    Off,
    /// Stops them.
    Stop,
    /// Suspends them.
    Suspend,
}

impl<'de> Deserialize<'de> for Autostop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Flag(bool),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Flag(false) => Ok(Self::Off),
            Written::Flag(true) => Ok(Self::Stop),
            Written::Word(word) => match word.as_str() {
                "off" => Ok(Self::Off),
                "stop" => Ok(Self::Stop),
                "suspend" => Ok(Self::Suspend),
                _ => Err(serde::de::Error::custom("autostop is off, stop or suspend")),
            },
        }
    }
}

/// `null` is what the platform writes for empty lists, maps and texts.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The elements that can be read: what merely explains must not make a whole answer unreadable.
pub(super) fn readable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let values = match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Array(values) => values,
        _ => Vec::new(),
    };
    Ok(values.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: Option<(Duration, &str)>) {
        let read: Option<GoDuration> = serde_json::from_str(json).ok();
        assert_eq!(read.map(|read| (read.0, read.to_string())), expected.map(|(d, t)| (d, t.to_owned())));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        check(r#""15s""#, Some((Duration::from_secs(15), "15s")));
        check(r#""1m30s""#, Some((Duration::from_secs(90), "90s")));
        check(r#""1h0m0.5s""#, Some((Duration::from_millis(3_600_500), "3600500ms")));
        check(r#""500ms""#, Some((Duration::from_millis(500), "500ms")));
        check(r#""1.5µs""#, Some((Duration::from_nanos(1500), "1500ns")));
        check("15000000000", Some((Duration::from_secs(15), "15s")));
        check(r#""0""#, Some((Duration::ZERO, "0s")));
        for odd in [
            r#""""#,
            r#""15""#,
            r#""-1s""#,
            r#""s""#,
            r#""1.2.3s""#,
            r#"".s""#,
            r#""1 s""#,
            "-1",
            "1.5",
            "{}",
        ] {
            check(odd, None);
        }
        check(&format!("\"{}s\"", "9".repeat(18)), None);
        check(&format!("\"{}\"", "1s".repeat(100)), None);
    }

    #[test]
    fn autostop_is_a_word_or_a_boolean() {
        for (json, expected) in [
            ("true", Some(Autostop::Stop)),
            ("false", Some(Autostop::Off)),
            (r#""off""#, Some(Autostop::Off)),
            (r#""suspend""#, Some(Autostop::Suspend)),
            (r#""never""#, None),
        ] {
            assert_eq!(serde_json::from_str(json).ok(), expected, "{json}");
        }
        assert_eq!(serde_json::to_string(&Autostop::Suspend).unwrap(), r#""suspend""#);
    }
}
