//! Native bodies as text, requests or named mistakes out.

use super::*;
use crate::series_store::SeriesStore;
use crate::testing::point_spec;

#[test]
fn a_whole_request_is_read() {
    let text = r#"{"model":"m","version":2,"series":[{"id":"A","values":[1,2,3]},{"values":[[4],[5],[6]],"x":{}}],
        "horizon":1,"levels":[80,97.5],"deadline_ms":250}"#;
    let body = forecast_body(text.as_bytes()).unwrap();
    assert_eq!((body.model.as_deref(), body.version, body.horizon), (Some("m"), Some(2), Some(1)));
    assert_eq!((body.levels, body.deadline), (Some(vec![80.0, 97.5]), Some(Duration::from_millis(250))));
    assert_eq!((body.series[0].label(0), body.series[1].label(1)), ("A".to_owned(), "1".to_owned()));
    assert_eq!(body.series[1].values.as_ref().map(|numbers| &numbers.flat[..]), Some(&[4.0, 5.0, 6.0][..]));
}

#[test]
fn a_version_may_be_written_as_answers_write_it() {
    for text in
        [r#"{"version":"12","series":[{"symbol":"A"}]}"#, r#"{"version":12,"series":[{"symbol":"A"}]}"#]
    {
        assert_eq!(forecast_body(text.as_bytes()).unwrap().version, Some(12), "{text}");
    }
}

#[test]
fn malformed_requests_are_named() {
    check("{}", BadForecast::NoMember("series"));
    check(r#"{"series":[]}"#, BadForecast::Member { name: "series", want: "at least one series" });
    check(r#"{"series":[{"id":"A"}]}"#, BadForecast::ValuesOrSymbol { series: "A".to_owned() });
    check(
        r#"{"series":[{"values":[1],"symbol":"A"}]}"#,
        BadForecast::ValuesOrSymbol { series: "A".to_owned() },
    );
    check(r#"{"horizon":0}"#, BadForecast::Member { name: "horizon", want: "at least 1" });
    for version in ["0", "-1", "1.5", "\"\"", "\"new\"", "\"+1\"", "true", "4294967296"] {
        let want = "a number above zero, as it is or as a text";
        check(&format!(r#"{{"version":{version}}}"#), BadForecast::Member { name: "version", want });
    }
    check(
        r#"{"levels":[100]}"#,
        BadForecast::Member { name: "levels", want: "percentages between 0 and 100" },
    );
    check(
        r#"{"series":[{"id":"A","values":[1,1e400]}]}"#,
        BadForecast::Infinite { series: "A".to_owned(), tensor: "values", index: 1 },
    );
    for text in ["", "[]", "[[[[", r#"{"series":[{"values":[nan]}]}"#, r#"{"series":[{"values":[[[1]]]}]}"#] {
        assert!(matches!(forecast_body(text.as_bytes()), Err(BadForecast::Json(_))), "{text}");
    }
}

/// Passed over, it would be answered by the default model, or with all levels.
#[test]
fn a_misspelt_member_is_refused_and_another_is_passed_over() {
    for (text, name, meant) in [
        (r#"{"modle":"m","series":[{"symbol":"A"}]}"#, "modle", "model"),
        (r#"{"series":[{"symbol":"A"}],"level":[80]}"#, "level", "levels"),
        (r#"{"series":[{"Symbol":"A","values":[1]}]}"#, "Symbol", "symbol"),
        (r#"{"series":[{"values":[1],"hist-exog":[2]}]}"#, "hist-exog", "hist_exog"),
    ] {
        let refused = forecast_body(text.as_bytes()).unwrap_err();
        assert!(refused.is_malformed(), "{text}");
        match refused {
            BadForecast::Json(JsonError::Misspelt { name: got, meant: offered, .. }) => {
                assert_eq!((&*got, offered), (name, meant), "{text}");
            }
            other => panic!("{text}: {other}"),
        }
    }
    let grown = r#"{"user":"desk 1","mode":{"model":"n"},"series":[{"symbol":"A","note":null}]}"#;
    assert_eq!(forecast_body(grown.as_bytes()).unwrap().model, None);
}

#[test]
fn what_says_something_of_values_does_not_go_with_a_symbol() {
    for member in ["mask", "hist_exog", "futr_exog", "stat_exog"] {
        let want = BadForecast::BesideSymbol { series: "A".to_owned(), member };
        assert!(want.is_malformed());
        check(&format!(r#"{{"series":[{{"symbol":"A","{member}":[1]}}]}}"#), want);
    }
}

#[test]
fn what_is_no_number_names_the_series_and_the_index() {
    for (text, tensor, what, index) in [
        (r#"{"series":[{"id":"A","values":[1, null,3]}]}"#, "values", "null", 1),
        (r#"{"series":[{"id":"A","values":[null],"mask":[0]}]}"#, "values", "null", 0),
        (r#"{"series":[{"id":"A","hist_exog":[[1,2],[3,null]]}]}"#, "hist_exog", "null", 3),
        (r#"{"series":[{"id":"A","values":[1, 2, NaN]}]}"#, "values", "NaN", 2),
        (r#"{"series":[{"id":"A","values":[Infinity]}]}"#, "values", "Infinity", 0),
        (r#"{"series":[{"id":"A","stat_exog":[1,2,-Infinity]}]}"#, "stat_exog", "-Infinity", 2),
    ] {
        let want = BadForecast::NoNumber { series: "A".to_owned(), tensor, what, index };
        assert_eq!((want.place(), want.is_malformed()), ((Some("A".to_owned()), Some(index)), false));
        check(text, want);
    }
}

#[test]
fn a_member_that_is_null_is_as_good_as_none() {
    let nulls = r#"{"model":null,"version":null,"horizon":null,"levels":null,"deadline_ms":null,
        "series":[{"id":null,"symbol":null,"values":[1,2],"mask":null,"hist_exog":null}]}"#;
    let body = forecast_body(nulls.as_bytes()).unwrap();
    assert_eq!((body.model, body.version, body.horizon, body.deadline), (None, None, None, None));
    let [series] = &body.series[..] else { panic!("one series") };
    assert!(series.mask.is_none() && series.id.is_none() && series.values.is_some());
    check(r#"{"series":null}"#, BadForecast::NoMember("series"));
    let series = r#"{"series":[{"id":"A","values":null}]}"#;
    check(series, BadForecast::ValuesOrSymbol { series: "A".to_owned() });
}

#[test]
fn a_table_has_a_row_for_each_step_or_is_flat() {
    let spec = ModelSpec { hist_exog: vec!["a".to_owned(), "b".to_owned()], ..spec() };
    let fitted = |tensors: &str| {
        let text = format!(r#"{{"series":[{{"id":"A",{tensors}}}]}}"#);
        let mut body = forecast_body(text.as_bytes()).unwrap();
        match windows(&mut body.series, &spec, &Named::new(&SeriesStore::default(), "y")) {
            Ok(windows) => Ok(windows.hist_exog),
            Err(WindowsError::Body(error)) => Err(error),
            Err(WindowsError::Symbol(error)) => panic!("{error}"),
        }
    };
    for table in ["[[1,2],[3,4],[5,6]]", "[1,2,3,4,5,6]"] {
        let got = fitted(&format!(r#""values":[1,2,3],"hist_exog":{table}"#));
        assert_eq!(got, Ok(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "{table}");
    }
    let wrong = BadForecast::NoTable { series: "A".to_owned(), tensor: "hist_exog", rows: 3, columns: 2 };
    assert!(!wrong.is_malformed());
    for table in
        ["[[1,2,3],[4,5,6]]", "[[1,2],[3,4,5],[6]]", "[[1],[2],[3],[4],[5],[6]]", "[1,2,[3,4],[5,6]]"]
    {
        let got = fitted(&format!(r#""values":[1,2,3],"hist_exog":{table}"#));
        assert_eq!(got, Err(wrong.clone()), "{table}");
    }
    let flat = ("[1,2,3]", "[1,1,1]");
    for (tensor, values, mask) in [("values", "[[1],[2],[3]]", flat.1), ("mask", flat.0, "[[1,1,1]]")] {
        let got = fitted(&format!(r#""values":{values},"mask":{mask},"hist_exog":[1,2,3,4,5,6]"#));
        assert_eq!(got, Err(BadForecast::NotFlat { series: "A".to_owned(), tensor }));
    }
}

#[test]
fn a_wrong_length_names_the_series() {
    let text = r#"{"series":[{"id":"A","values":[1,2,3]},{"id":"B","values":[1,2]}]}"#;
    let mut body = forecast_body(text.as_bytes()).unwrap();
    match windows(&mut body.series, &spec(), &Named::new(&SeriesStore::default(), "y")).unwrap_err() {
        WindowsError::Body(error) => {
            let want = BadForecast::Length { series: "B".to_owned(), tensor: "values", got: 2, want: 3 };
            assert_eq!(error, want);
            assert_eq!((error.place(), error.is_malformed()), ((Some("B".to_owned()), Some(2)), false));
        }
        WindowsError::Symbol(error) => panic!("{error}"),
    }
}

#[test]
fn what_stands_where_nothing_is_known_is_a_zero() {
    let read = |text: &str| {
        let mut body = forecast_body(text.as_bytes()).expect("a request");
        windows(&mut body.series, &spec(), &Named::new(&SeriesStore::default(), "y"))
    };
    for filler in ["0", "-999", "1e6"] {
        let got = read(&format!(r#"{{"series":[{{"values":[{filler},5,{filler}],"mask":[0,1,0]}}]}}"#));
        assert_eq!(got.expect("windows").y, [0.0, 5.0, 0.0], "{filler}");
    }
    let nothing = read(r#"{"series":[{"values":[1,2,3]},{"id":"A","values":[4,5,6],"mask":[0,0,0]}]}"#);
    let want = BadForecast::Unknown { series: "A".to_owned() };
    assert!(!want.is_malformed());
    assert_eq!(want.place(), (Some("A".to_owned()), None));
    assert!(matches!(nothing, Err(WindowsError::Body(refused)) if refused == want));
}

#[test]
fn series_become_rows_and_a_missing_mask_is_all_ones() {
    let text = r#"{"series":[{"values":[1,2,3]},{"values":[4,5,6],"mask":[0,1,1]}]}"#;
    let mut body = forecast_body(text.as_bytes()).unwrap();
    let windows = windows(&mut body.series, &spec(), &Named::new(&SeriesStore::default(), "y")).unwrap();
    assert_eq!((windows.rows, windows.y), (2, vec![1.0, 2.0, 3.0, 0.0, 5.0, 6.0]));
    assert_eq!(windows.mask, Some(vec![1.0, 1.0, 1.0, 0.0, 1.0, 1.0]));
}

#[track_caller]
fn check(text: &str, want: BadForecast) {
    assert_eq!(forecast_body(text.as_bytes()), Err(want), "{text}");
}

fn spec() -> ModelSpec {
    point_spec(3, 2)
}
