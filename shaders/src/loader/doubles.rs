//! JSON in which a name stands twice: whoever wrote it meant one of two things, and readers differ in which they take.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// # Errors
/// When it is no JSON, or an object in it names a member twice.
pub(super) fn refuse(text: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Single>(text).map(|Single| ())
}

/// A value whose objects name every member once.
struct Single;

impl<'de> Deserialize<'de> for Single {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Single;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Single, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Single>()?;
            if let Some(double) = names.replace(name) {
                return Err(A::Error::custom(format_args!("`{double}` stands twice")));
            }
        }
        Ok(Single)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Single, A::Error> {
        while seq.next_element::<Single>()?.is_some() {}
        Ok(Single)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Single, E> {
        Ok(Single)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Single, E> {
        Ok(Single)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Single, E> {
        Ok(Single)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Single, E> {
        Ok(Single)
    }

    fn visit_str<E>(self, _: &str) -> Result<Single, E> {
        Ok(Single)
    }

    fn visit_unit<E>(self) -> Result<Single, E> {
        Ok(Single)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_in_each_object() {
        for text in ["1", "-1", "1.5", "null", "true", r#""a""#, r#"{"a":{"a":[{"a":1},{"a":2}]},"b":1}"#] {
            assert!(refuse(text.as_bytes()).is_ok(), "{text}");
        }
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"c":2,"\u0061":3}]}"#] {
            let why = refuse(text.as_bytes()).unwrap_err().to_string();
            assert!(why.starts_with("`a` stands twice"), "{why}");
        }
    }
}
