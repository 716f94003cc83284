use super::*;

#[test]
fn milliseconds_are_exact_to_the_nanosecond() {
    for (text, want) in [
        ("0", Some(0)),
        ("1700000000000", Some(1_700_000_000_000_000_000)),
        ("1700000000000.123456", Some(1_700_000_000_000_123_456)),
        ("1700000000000.1234560", Some(1_700_000_000_000_123_456)),
        ("1.7e12", Some(1_700_000_000_000_000_000)),
        ("-1.5", Some(-1_500_000)),
        ("1e-6", Some(1)),
        ("1e-7", None),
        ("1700000000000.1234567", None),
        ("9223372036854.775807", Some(i64::MAX)),
        ("9223372036854.775808", None),
        ("1e400", None),
        ("1e-400", None),
        ("0e999999999", Some(0)),
    ] {
        assert_eq!(nanos_of_millis(text), want, "{text}");
    }
    assert_eq!(nanos_of_millis(&"9".repeat(10_000)), None);
}

#[test]
fn times_of_rfc_3339_are_read() {
    for (text, want) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2024-02-29T12:34:56.789Z", Some(1_709_210_096_789_000_000)),
        ("2024-02-29t12:34:56.789+02:30", Some(1_709_201_096_789_000_000)),
        ("1969-12-31T23:59:59.999999999Z", Some(-1)),
        ("2000-03-01 00:00:00-00:01", Some(951_868_860_000_000_000)),
        ("2023-02-29T00:00:00Z", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-01-01T24:00:00Z", None),
        ("2024-01-01T00:00:60Z", None),
        ("2024-01-01T00:00:00", None),
        ("2024-01-01T00:00:00.Z", None),
        ("2024-01-01T00:00:00Zx", None),
        ("9999-01-01T00:00:00Z", None),
        ("", None),
    ] {
        assert_eq!(rfc3339(text), want, "{text}");
    }
}

#[test]
fn a_tick_has_its_columns() {
    let text = r#"{"series":"a","ts":1.5,"value":0.1,"hist_exog":{"x":2},"futr_exog":{"f":[1,2]},"stat_exog":{},"other":[1],"volume":5}"#;
    let tick = parse_tick(text.as_bytes()).unwrap();
    assert_eq!((tick.series.as_str(), tick.at, tick.value), ("a", Timestamp(1_500_000), Some(0.1)));
    assert_eq!(tick.hist_exog, [("x".to_owned(), 2.0)]);
    assert_eq!(tick.futr_exog, [("f".to_owned(), vec![1.0, 2.0])]);
    assert_eq!(parse_tick(br#"{"series":"a","ts":0,"value":null}"#).unwrap().value, None);
}

#[test]
fn seconds_are_not_taken_for_a_time_in_1970() {
    let read = |ts: &str| {
        let tick = parse_tick(format!(r#"{{"series":"a","ts":{ts},"value":1}}"#).as_bytes());
        tick.map(|tick| tick.at.0 / MILLI).map_err(|error| error.to_string())
    };
    for seconds in ["1000000000", "1767744000", "1767744000.25", "1.7e9", "3999999999.9"] {
        let why = read(seconds).expect_err("seconds");
        assert!(why.contains("these look like seconds"), "{seconds}: {why}");
    }
    for (ts, want) in [
        ("999999999", 999_999_999),
        ("4000000000", 4_000_000_000),
        ("-1767744000", -1_767_744_000),
        ("1767744000000", 1_767_744_000_000),
        ("\"1970-01-21T11:02:24Z\"", 1_767_744_000),
    ] {
        assert_eq!(read(ts), Ok(want), "{ts}");
    }
}

#[test]
fn what_is_no_tick_is_refused() {
    for (text, part) in [
        ("", "expected an object"),
        (r#"{"ts":0,"value":1}"#, "no `series`"),
        (r#"{"series":"a","value":1}"#, "no `ts`"),
        (r#"{"series":"a","ts":0}"#, "no `value`"),
        (r#"{"series":"a*","ts":0,"value":1}"#, "`series` must be"),
        (
            r#"{"value":1e40,"series":"a","ts":7.5}"#,
            "series `a`, ts 7.5: `value` has a number that is too large",
        ),
        (
            r#"{"series":"a","ts":0,"value":1,"hist_exog":{"x":-1e39,"y":1}}"#,
            "series `a`, ts 0: `hist_exog` has",
        ),
        (
            r#"{"series":"a","ts":0,"value":1,"futr_exog":{"x":[1,1e39,2]}}"#,
            "series `a`, ts 0: `futr_exog` has",
        ),
        (r#"{"series":"a","value":1e40}"#, "no `ts`"),
        (r#"{"series":"a","ts":0,"value":1,"futr_exog":{"x":[1e39,}}"#, "malformed JSON"),
        (r#"{"series":"a","ts":"now","value":1}"#, "`ts` must be"),
        (r#"{"series":"a","ts":7.5,"value":NaN}"#, "series `a`, ts 7.5: `value` is NaN, which is no number"),
        (r#"{"value":-Infinity,"series":"a","ts":0}"#, "series `a`, ts 0: `value` is -Infinity"),
        (
            r#"{"series":"a","ts":0,"value":1,"hist_exog":{"x":null}}"#,
            "series `a`, ts 0: `hist_exog` is null",
        ),
        (
            r#"{"series":"a","ts":0,"value":1,"futr_exog":{"x":[1,NaN,1e39]}}"#,
            "series `a`, ts 0: `futr_exog` is NaN",
        ),
        (r#"{"series":"a","value":NaN}"#, "no `ts`"),
        (r#"{"series":"a","ts":0,"value":NaNo}"#, "malformed JSON"),
        (r#"{"series":"a","ts":0,"value":1,"futr_exog":{"x":[NaN,"y"]}}"#, "malformed JSON"),
        (r#"{"series":"a","ts":0,"value":nothing}"#, "malformed JSON"),
        (r#"{"series":"a","ts":0,"value":1,"value":2}"#, "twice"),
        (r#"{"series":"a","ts":0,"value":1,"hist_exog":{"x":1,"x":1}}"#, "each stand once"),
        (r#"{"series":"a","ts":0,"value":1} x"#, "the end"),
        (r#"{"series":"a","ts":0,"value":1,"stat-exog":{"x":1}}"#, "`stat_exog` was probably meant"),
    ] {
        let error = parse_tick(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let many: Vec<_> = (0..65).map(|at| format!(r#""c{at}":1"#)).collect();
    let text = format!(r#"{{"series":"a","ts":0,"value":1,"stat_exog":{{{}}}}}"#, many.join(","));
    assert!(parse_tick(text.as_bytes()).is_err());
}
