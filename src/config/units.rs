//! Numbers with units as they are written: `"250ms"`, `"16MiB"`.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

const TIME_UNITS: &[(&str, u64)] = &[
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A time with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WrittenDuration(pub(super) Duration);

/// Bytes with their unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WrittenSize(pub(super) usize);

impl<'de> Deserialize<'de> for WrittenDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let nanos =
            deserializer.deserialize_str(Measure { units: TIME_UNITS, what: "a time such as \"250ms\"" })?;
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl<'de> Deserialize<'de> for WrittenSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes =
            deserializer.deserialize_str(Measure { units: SIZE_UNITS, what: "a size such as \"16MiB\"" })?;
        usize::try_from(bytes).map(Self).map_err(|_| D::Error::custom("larger than this machine can count"))
    }
}

/// A whole number followed by one of `units`.
struct Measure {
    units: &'static [(&'static str, u64)],
    what: &'static str,
}

impl Visitor<'_> for Measure {
    type Value = u64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units: Vec<&str> = self.units.iter().map(|(unit, _)| *unit).collect();
        write!(f, "{} (a whole number and one of {})", self.what, units.join(", "))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = self.units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, scale)| scale);
        match (number.parse::<u64>(), scale) {
            (Ok(number), Some(scale)) => {
                number.checked_mul(*scale).ok_or_else(|| E::custom(format_args!("`{text}` is too large")))
            }
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

impl JsonSchema for WrittenDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(us|ms|s|m|h)$", "examples": ["250ms"] })
    }
}

impl JsonSchema for WrittenSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)$", "examples": ["16MiB"] })
    }
}
