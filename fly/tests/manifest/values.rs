//! Values within a fly.toml: durations, sizes, words.

use std::time::Duration;

/// As Go writes them, with a unit: `1m30s`, `500ms`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_len = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let seconds = match &rest[digits..digits + unit_len] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[digits + unit_len..];
    }
    Some(total)
}

/// Megabytes in `8gb`, `512mb` or `512`.
pub(crate) fn megabytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: i64 = text[..digits].parse().ok()?;
    match text[digits..].trim() {
        "" | "mb" | "m" => Some(number),
        "gb" | "g" => number.checked_mul(1024),
        _ => None,
    }
}

/// Words as a POSIX shell splits them, without expansion. `None`: a quotation has no end.
pub(crate) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(chars.next()?),
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[test]
fn durations_have_units() {
    let check =
        |text: &str, ms: Option<u64>| assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
    check("15s", Some(15_000));
    check("1m30s", Some(90_000));
    check("1.5h", Some(5_400_000));
    check("250ms", Some(250));
    for odd in ["", "15", "15 s", "s", "15x", "-1s", "1s2", "1..5s", "99999999999999999999h"] {
        check(odd, None);
    }
}

#[test]
fn sizes_have_units_or_are_megabytes() {
    let check = |text: &str, mb: Option<i64>| assert_eq!(megabytes(text), mb, "{text}");
    check("8gb", Some(8192));
    check("8 GB", Some(8192));
    check("512", Some(512));
    for odd in ["", "gb", "1tb", "-1gb", "9223372036854775807gb"] {
        check(odd, None);
    }
}

#[test]
fn words_are_split_as_a_shell_does() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(words(text), Some(expected.iter().map(|word| (*word).to_owned()).collect()), "{text}");
    };
    check("serve --config 'a b'", &["serve", "--config", "a b"]);
    check(r#"a"b c"d\ e """#, &["ab cd e", ""]);
    check("  ", &[]);
    for open in ["'a", "\"a", "\"a\\", "a\\"] {
        assert_eq!(words(open), None, "{open}");
    }
}
