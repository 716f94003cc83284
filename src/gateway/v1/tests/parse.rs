//! Native bodies as text, requests or named mistakes out.

use super::*;
use crate::testing::point_spec;

#[test]
fn a_whole_request_is_read() {
    let text = r#"{"model":"m","version":2,"series":[{"id":"A","values":[1,2,3]},{"values":[[4],[5],[6]],"x":{}}],
        "horizon":1,"levels":[80,97.5],"deadline_ms":250}"#;
    let body = forecast_body(text.as_bytes()).unwrap();
    assert_eq!((body.model.as_deref(), body.version, body.horizon), (Some("m"), Some(2), Some(1)));
    assert_eq!((body.levels, body.deadline), (Some(vec![80.0, 97.5]), Some(Duration::from_millis(250))));
    assert_eq!((body.series[0].label(0), body.series[1].label(1)), ("A".to_owned(), "1".to_owned()));
    assert_eq!(body.series[1].values, Some(vec![4.0, 5.0, 6.0]));
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
    check(r#"{"version":0}"#, BadForecast::Member { name: "version", want: "a number above zero" });
    check(
        r#"{"levels":[100]}"#,
        BadForecast::Member { name: "levels", want: "percentages between 0 and 100" },
    );
    check(
        r#"{"series":[{"id":"A","values":[1,1e400]}]}"#,
        BadForecast::Infinite { series: "A".to_owned(), tensor: "values", index: 1 },
    );
    for text in ["", "[]", "[[[[", r#"{"series":[{"values":[NaN]}]}"#, r#"{"series":[{"values":[[[1]]]}]}"#] {
        assert!(matches!(forecast_body(text.as_bytes()), Err(BadForecast::Json(_))), "{text}");
    }
}

#[test]
fn a_wrong_length_names_the_series() {
    let text = r#"{"series":[{"id":"A","values":[1,2,3]},{"id":"B","values":[1,2]}]}"#;
    let mut body = forecast_body(text.as_bytes()).unwrap();
    match windows(&mut body.series, &spec(), &SeriesStore::default(), "y").unwrap_err() {
        WindowsError::Body(error) => {
            let want = BadForecast::Length { series: "B".to_owned(), tensor: "values", got: 2, want: 3 };
            assert_eq!(error, want);
            assert_eq!((error.place(), error.is_malformed()), ((Some("B".to_owned()), Some(2)), false));
        }
        WindowsError::Symbol(error) => panic!("{error}"),
    }
}

#[test]
fn series_become_rows_and_a_missing_mask_is_all_ones() {
    let text = r#"{"series":[{"values":[1,2,3]},{"values":[4,5,6],"mask":[0,1,1]}]}"#;
    let mut body = forecast_body(text.as_bytes()).unwrap();
    let windows = windows(&mut body.series, &spec(), &SeriesStore::default(), "y").unwrap();
    assert_eq!((windows.rows, windows.y), (2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    assert_eq!(windows.mask, Some(vec![1.0, 1.0, 1.0, 0.0, 1.0, 1.0]));
}

#[track_caller]
fn check(text: &str, want: BadForecast) {
    assert_eq!(forecast_body(text.as_bytes()), Err(want), "{text}");
}

fn spec() -> ModelSpec {
    point_spec(3, 2)
}
