//! Members that a body does not have. They are passed over, so that what callers send may grow; but one that is nearly
//! a member is a mistake, and passed over it would be answered as if it had not been said.

use super::json::{Cursor, JsonError};

/// Longer ones than any member with two letters too many.
const NAME_BYTES_MAX: usize = 24;

/// Reads past the value of member `name`, which is none of `known`.
///
/// # Errors
/// When one of `known` was probably meant.
pub(super) fn pass_over(
    cursor: &mut Cursor<'_>,
    name: &str,
    known: &[&'static str],
) -> Result<(), JsonError> {
    match known.iter().copied().find(|known| is_nearly(name, known)) {
        Some(meant) => Err(JsonError::Misspelt { at: cursor.at(), name: name.into(), meant }),
        None => cursor.skip(),
    }
}

/// But for capitals, underscores and dashes: the same, or one letter of four away, or two of eight. Shorter names are
/// too close to words that mean something else; so are others of four that do not begin alike.
fn is_nearly(name: &str, known: &str) -> bool {
    let (Some((name, name_len)), Some((known, known_len))) = (letters(name), letters(known)) else {
        return false;
    };
    let begins_alike = name[0] == known[0] || (name[0], name[1]) == (known[1], known[0]);
    let edits = match (name_len.min(known_len), known_len) {
        (4, 4) if begins_alike => 1,
        (0..5, _) => 0,
        (5..8, _) => 1,
        _ => 2,
    };
    is_within(edits, &name[..name_len], &known[..known_len])
}

/// In small letters; `None`: too many.
fn letters(name: &str) -> Option<([u8; NAME_BYTES_MAX], usize)> {
    let (mut letters, mut len) = ([0; NAME_BYTES_MAX], 0);
    for byte in name.bytes().filter(|byte| !matches!(byte, b'_' | b'-')) {
        *letters.get_mut(len)? = byte.to_ascii_lowercase();
        len += 1;
    }
    Some((letters, len))
}

/// Whether so many letters put in, left out, changed or swapped with the next make one of the other.
fn is_within(edits: usize, one: &[u8], other: &[u8]) -> bool {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let (one, other) = (&one[same..], &other[same..]);
    match (one, other) {
        ([], rest) | (rest, []) => rest.len() <= edits,
        _ if edits == 0 => false,
        ([first, one_rest @ ..], [second, other_rest @ ..]) => {
            let swapped = one_rest.first() == Some(second) && other_rest.first() == Some(first);
            let edits = edits - 1;
            is_within(edits, one_rest, other_rest)
                || is_within(edits, one_rest, other)
                || is_within(edits, one, other_rest)
                || swapped && is_within(edits, &one_rest[1..], &other_rest[1..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_told_from_a_stranger() {
        for (name, known) in [
            ("Model", "model"),
            ("modle", "model"),
            ("models", "model"),
            ("mdoels", "models"),
            ("ID", "id"),
            ("Ts", "ts"),
            ("level", "levels"),
            ("deadlineMs", "deadline_ms"),
            ("deadline-ms", "deadline_ms"),
            ("deadline", "deadline_ms"),
            ("deadine_sm", "deadline_ms"),
            ("histExog", "hist_exog"),
            ("future_exog", "futr_exog"),
            ("value", "values"),
            ("masks", "mask"),
            ("msak", "mask"),
            ("amsk", "mask"),
            ("fron", "from"),
            ("form", "from"),
            ("fromm", "from"),
        ] {
            assert!(is_nearly(name, known), "{name} {known}");
        }
        for (name, known) in [
            ("mode", "model"),
            ("odel", "model"),
            ("ask", "mask"),
            ("task", "mask"),
            ("room", "from"),
            ("is", "id"),
            ("volume", "value"),
            ("session", "version"),
            ("complete", "conflate"),
            ("hist_exog", "stat_exog"),
            ("tracestate", "traceparent"),
            ("", "id"),
            ("größe", "series"),
            ("model_of_somebody_else_and_more", "model"),
        ] {
            assert!(!is_nearly(name, known), "{name} {known}");
        }
    }

    #[test]
    fn what_clients_often_send_along_is_no_near_miss() {
        let known = [
            "op",
            "id",
            "model",
            "series",
            "levels",
            "from",
            "epoch",
            "conflate",
            "snapshot",
            "ticks",
            "ts",
            "value",
            "version",
            "horizon",
            "deadline_ms",
            "symbol",
            "values",
            "mask",
            "hist_exog",
            "futr_exog",
            "stat_exog",
        ];
        for name in [
            "user",
            "tags",
            "meta",
            "name",
            "type",
            "kind",
            "mode",
            "task",
            "note",
            "data",
            "date",
            "time",
            "freq",
            "unit",
            "seed",
            "lang",
            "test",
            "host",
            "desk",
            "book",
            "side",
            "bid",
            "ask",
            "trace",
            "source",
            "client",
            "region",
            "metadata",
            "options",
            "parameters",
            "request_id",
            "tenant",
            "priority",
            "comment",
            "schema",
        ] {
            let near = known.iter().find(|known| is_nearly(name, known));
            assert_eq!(near, None, "{name}");
        }
    }

    #[test]
    fn a_stranger_is_read_past_and_a_near_miss_refused_by_name() {
        let mut cursor = Cursor::new(br#"{"x":[1]} ,"#);
        assert_eq!(pass_over(&mut cursor, "note", &["id", "model"]), Ok(()));
        assert_eq!(cursor.peek(), Some(b','));
        let refused = pass_over(&mut Cursor::new(b"1"), "Model", &["id", "model"]).unwrap_err().to_string();
        assert_eq!(refused, "unknown member `Model` (byte 0): `model` was probably meant");
    }
}
