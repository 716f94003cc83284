//! What a large body says of itself, found without reading its numbers: which model, and until when.
//!
//! Pure. What cannot be read is not told of here: whoever reads all of it says what is wrong.

use std::borrow::Cow;
use std::time::Duration;

use super::json::{Cursor, JsonError};
use super::v1::parse::version;

/// As written; not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Glimpse<'a> {
    /// `None`: the default one.
    pub(super) model: Option<Cow<'a, str>>,
    pub(super) version: Option<u32>,
    /// How long an answer is worth something.
    pub(super) within: Option<Duration>,
}

/// Of the body of `POST /v1/forecast`. One that names a symbol has no glimpse: its windows are in the data of the node
/// that was asked, and another's may be others.
pub(super) fn forecast(text: &[u8]) -> Option<Glimpse<'_>> {
    let (mut glimpse, mut names_symbol) = (Glimpse::default(), false);
    let read = whole(text, |key, cursor| {
        match key {
            "model" => glimpse.model = Some(cursor.string()?),
            // One that is none is served by nobody.
            "version" => glimpse.version = Some(version(&cursor.scalar()?).unwrap_or(0)),
            "deadline_ms" => glimpse.within = Some(Duration::from_millis(cursor.unsigned()?)),
            "series" => cursor.array(|cursor| {
                cursor.object(|key, cursor| {
                    names_symbol |= key == "symbol";
                    cursor.skip()
                })
            })?,
            _ => cursor.skip()?,
        }
        Ok(())
    });
    read.ok().filter(|()| !names_symbol).map(|()| glimpse)
}

/// How long an answer to an inference request is worth something, by its JSON; `None` inside: it does not say.
pub(super) fn infer(json: &[u8]) -> Option<Option<Duration>> {
    let mut micros = None;
    let read = whole(json, |key, cursor| match key {
        "parameters" => cursor.object(|key, cursor| {
            if key == "timeout" {
                micros = Some(cursor.unsigned()?);
                return Ok(());
            }
            cursor.skip()
        }),
        _ => cursor.skip(),
    });
    // Zero is the clients' way of saying "no timeout of mine".
    read.ok().map(|()| micros.filter(|&micros| micros > 0).map(Duration::from_micros))
}

fn whole<'a>(
    text: &'a [u8],
    member: impl FnMut(&str, &mut Cursor<'a>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let mut cursor = Cursor::new(text);
    cursor.object(member)?;
    cursor.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_names_its_model_its_version_and_its_time() {
        let glimpse = |model: Option<&'static str>, version, ms: Option<u64>| {
            let (model, within) = (model.map(Cow::from), ms.map(Duration::from_millis));
            Some(Glimpse { model, version, within })
        };
        for (text, expected) in [
            (
                r#"{"series":[{"values":[1,2]}],"model":"m","version":3,"deadline_ms":40}"#,
                glimpse(Some("m"), Some(3), Some(40)),
            ),
            (r#"{"series":[{"model":"not this","values":[1e999]}]}"#, glimpse(None, None, None)),
            (r#"{"model":"m","series":[{"values":[1,2]},{"symbol":"USD"}]}"#, None),
            (r#"{"version":99999999999}"#, glimpse(None, Some(0), None)),
            (r#"{"version":"3"}"#, glimpse(None, Some(3), None)),
            (r#"{"version":"new"}"#, glimpse(None, Some(0), None)),
            (r#"{"model":7}"#, None),
            (r#"{"model":"m"} "#, glimpse(Some("m"), None, None)),
            (r#"{"model":"m"}x"#, None),
            (r#"{"series":[1,2"#, None),
            ("", None),
        ] {
            assert_eq!(forecast(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn an_inference_names_its_time() {
        for (text, expected) in [
            (r#"{"inputs":[{"data":[[1,2]]}],"parameters":{"x":[],"timeout":1500}}"#, Some(Some(1500))),
            (r#"{"parameters":{"timeout":0}}"#, Some(None)),
            (r#"{"inputs":[{"parameters":{"timeout":9}}]}"#, Some(None)),
            (r#"{"parameters":{"timeout":"soon"}}"#, None),
            (r#"{"parameters":3}"#, None),
            ("[]", None),
        ] {
            let expected = expected.map(|micros: Option<u64>| micros.map(Duration::from_micros));
            assert_eq!(infer(text.as_bytes()), expected, "{text}");
        }
    }
}
