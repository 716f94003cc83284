//! Inference bodies as text, requests or named mistakes out.

use super::*;
use crate::gateway::error::Refusal;
use crate::testing::{point_spec, series_spec};

#[test]
fn flat_and_nested_are_the_same() {
    for data in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]"] {
        let text = body("[2,3]", data);
        let request = good(&text);
        assert_eq!((request.windows.rows, request.windows.y), (2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }
}

#[test]
fn rows_are_those_of_the_shape() {
    for data in [
        "[[1,4],[2,5],[3,6]]",
        "[[1,2,3,4],[5,6]]",
        "[[1,2,3],4,5,6]",
        "[[1,2,3,4,5,6]]",
        "[[1,2,3],[4,5,6],[]]",
    ] {
        check(&body("[2,3]", data), BadInfer::Rows { input: "y", want: 3 });
    }
    let several = |data: &str| {
        let spec = series_spec(3, 1, 2, &["point"]);
        infer_request(body("[1,3,2]", data).as_bytes(), None, &spec).map(|request| request.windows.y)
    };
    for data in ["[1,2,3,4,5,6]", "[[1,2,3,4,5,6]]", "[[[1,2],[3,4],[5,6]]]"] {
        assert_eq!(several(data), Ok(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "{data}");
    }
    assert_eq!(several("[[[1,3,5],[2,4,6]]]"), Err(BadInfer::Rows { input: "y", want: 2 }));
    assert_eq!(several("[[1,2],[3,4],[5,6]]"), Err(BadInfer::Rows { input: "y", want: 6 }));
}

#[test]
fn members_may_stand_in_any_order() {
    let request = good(
        r#"{"outputs":[{"parameters":{"binary_data":true},"name":"forecast"}],
            "inputs":[{"data":[1,2,3],"datatype":"FP32","shape":[1,3],"name":"y"}],"id":"4\"2","x":{"y":[null]}}"#,
    );
    assert_eq!((request.id.as_deref(), request.binary_output), (Some("4\"2"), true));
}

#[test]
fn a_member_that_is_null_is_as_good_as_none() {
    let request = good(
        r#"{"id":null,"parameters":{"timeout":null},"outputs":[{"name":"forecast","parameters":null}],
            "inputs":[{"name":"y","datatype":"FP32","shape":[1,3],"data":[1,2,3],"parameters":null}]}"#,
    );
    assert_eq!((request.id, request.timeout, request.windows.rows), (None, None, 1));
    check(r#"{"inputs":null}"#, BadInfer::NoInputs);
}

#[test]
fn the_wish_on_the_output_wins() {
    let with = |request: &str, output: &str| {
        let parameters = format!(r#""parameters":{{"binary_data_output":{request}}},"#);
        let outputs = format!(r#""outputs":[{{"name":"forecast"{output}}}],"#);
        good(&body("[1,3]", "[1,2,3]").replacen('{', &format!("{{{parameters}{outputs}"), 1)).binary_output
    };
    assert!(with("true", ""));
    assert!(!with("true", r#","parameters":{"binary_data":false}"#));
    assert!(with("false", r#","parameters":{"binary_data":true}"#));
    assert!(!with("false", ""));
}

#[test]
fn a_timeout_is_in_microseconds() {
    let with = |timeout: &str| {
        let parameters = format!(r#"{{"parameters":{{"timeout":{timeout},"sequence_id":7,"who":"me"}},"#);
        body("[1,3]", "[1,2,3]").replacen('{', &parameters, 1)
    };
    assert_eq!(good(&with("1500")).timeout, Some(Duration::from_micros(1500)));
    assert_eq!(good(&with("0")).timeout, None);
    check(&with("-1"), BadInfer::Parameter { name: "timeout", want: "an unsigned integer" });
    check(&with("1.5"), BadInfer::Parameter { name: "timeout", want: "an unsigned integer" });
}

#[test]
fn binary_inputs_stand_behind_the_json_in_its_order() {
    let json = r#"{"inputs":[
        {"name":"mask","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}},
        {"name":"y","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}"#;
    let bytes: Vec<u8> = [1.0_f32, 0.0, 1.0, 7.0, 8.0, 9.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let whole = [json.as_bytes(), &bytes].concat();
    let length = json.len().to_string();
    let request = infer_request(&whole, Some(&length), &spec(&[])).unwrap();
    assert_eq!(request.windows.mask, Some(vec![1.0, 0.0, 1.0]));
    assert_eq!(request.windows.y, [7.0, 0.0, 9.0], "what stands where nothing is known is a zero");
    let short = &whole[..whole.len() - 1];
    assert_eq!(
        infer_request(short, Some(&length), &spec(&[])),
        Err(BadInfer::BinaryTail { got: 23, want: 24 })
    );
    let long = [&whole[..], b"x"].concat();
    assert_eq!(
        infer_request(&long, Some(&length), &spec(&[])),
        Err(BadInfer::BinaryTail { got: 25, want: 24 })
    );
}

#[test]
fn what_stands_where_nothing_is_known_is_a_zero() {
    let masked = |y: &str, mask: &str| {
        let inputs = [("y", y), ("mask", mask)].map(|(name, data)| {
            format!(r#"{{"name":"{name}","shape":[2,3],"datatype":"FP32","data":{data}}}"#)
        });
        let text = format!(r#"{{"inputs":[{}]}}"#, inputs.join(","));
        infer_request(text.as_bytes(), None, &spec(&[])).map(|request| request.windows.y)
    };
    for filler in ["0", "-999", "1e6"] {
        let y = masked(&format!("[{filler},5,6,1,2,{filler}]"), "[0,1,1,1,1,0]");
        assert_eq!(y, Ok(vec![0.0, 5.0, 6.0, 1.0, 2.0, 0.0]), "{filler}");
    }
    let nothing = masked("[1,2,3,4,5,6]", "[1,1,1,0,0,0]");
    assert_eq!(nothing, Err(BadInfer::Unknown { row: 1 }));
    assert_eq!(Refusal::Infer(BadInfer::Unknown { row: 1 }).status().as_u16(), 422);
}

#[test]
fn json_and_binary_mix() {
    let json = r#"{"inputs":[
        {"name":"y","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}},
        {"name":"hist_exog","shape":[1,3,1],"datatype":"FP32","data":[[[1],[2],[3]]]}]}"#;
    let whole = [json.as_bytes(), &[0; 12]].concat();
    let request = infer_request(&whole, Some(&json.len().to_string()), &spec(&["x"])).unwrap();
    assert_eq!((request.windows.y, request.windows.hist_exog), (vec![0.0; 3], vec![1.0, 2.0, 3.0]));
}

#[test]
fn a_header_length_is_digits_within_the_body() {
    let text = body("[1,3]", "[1,2,3]");
    for junk in ["", "-1", "+5", "junk", "1e1", "99999999999999999999999", " 5", "100000"] {
        let got = infer_request(text.as_bytes(), Some(junk), &spec(&[]));
        assert_eq!(got, Err(BadInfer::HeaderLength(junk.to_owned())));
    }
    assert!(infer_request(text.as_bytes(), Some(&text.len().to_string()), &spec(&[])).is_ok());
}

#[test]
fn a_raw_request_is_one_window() {
    let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let request = infer_request(&bytes, Some("0"), &spec(&[])).unwrap();
    assert_eq!(
        (request.windows.rows, request.windows.y, request.binary_output),
        (1, vec![1.0, 2.0, 3.0], true)
    );
    let raw = |body: &[u8], spec: &ModelSpec| infer_request(body, Some("0"), spec).unwrap_err();
    assert!(matches!(raw(&bytes[1..], &spec(&[])), BadInfer::Raw { got: 11, want: 12 }));
    assert_eq!(
        raw(&bytes, &spec(&["x"])).to_string(),
        "a raw request is `y` alone, and this model reads `x` beside it: send JSON, with raw tensors behind it if wanted"
    );
}

#[test]
fn shapes_beyond_the_body_are_refused_before_a_buffer_is_made() {
    for shape in
        ["[100000000,256]", "[18446744073709551615,18446744073709551615]", "[99999999999999999999,3]"]
    {
        let text = body(shape, "[1,2,3]");
        let got = infer(&text);
        assert!(matches!(got, Err(BadInfer::ShapeBeyondBody(_) | BadInfer::Json(_))), "{got:?}");
    }
    let huge = r#"{"inputs":[{"name":"y","data":[1,2,3],"shape":[100000000,3],"datatype":"FP32"}]}"#;
    check(huge, BadInfer::Count { input: "y", got: 3, want: 300_000_000 });
    let binary = body("[6148914691236517206,3]", "[]")
        .replace(r#""data":[]"#, r#""parameters":{"binary_data_size":8}"#);
    assert!(matches!(infer(&binary), Err(BadInfer::ShapeBeyondBody(_) | BadInfer::BinarySize { .. })));
}

#[test]
fn mistakes_are_named() {
    check("{}", BadInfer::NoInputs);
    check(r#"{"inputs":[]}"#, BadInfer::MissingInput("y"));
    check(&body("[0,3]", "[]"), BadInfer::EmptyBatch("y"));
    check(&body("[1,3]", "[1,2]"), BadInfer::Count { input: "y", got: 2, want: 3 });
    check(&body("[1,3]", "[1,2,3,4]"), BadInfer::Count { input: "y", got: 4, want: 3 });
    check(
        &body("[1,4]", "[1,2,3,4]"),
        BadInfer::Shape { input: "y", got: vec![1, 4], want: "[-1, 3]".to_owned() },
    );
    check(&body("[3]", "[1,2,3]"), BadInfer::Shape { input: "y", got: vec![3], want: "[-1, 3]".to_owned() });
    check(&body("[1,3]", "[[[1,2,3]]]"), BadInfer::Nested { input: "y", got: 3, rank: 2 });
    check(
        &body("[1,3]", "[1,2,3]").replace("FP32", "FP64"),
        BadInfer::Datatype { input: "y".to_owned(), datatype: "FP64".to_owned() },
    );
    check(
        &body("[1,3]", "[1,2,3]").replace(r#""y""#, r#""x""#),
        BadInfer::UnknownInput { name: "x".to_owned(), takes: "`y`, `mask`".to_owned() },
    );
    check(&body("[1,3]", "[1,2,3]").replace(r#","data":[1,2,3]"#, ""), BadInfer::DataOrBinary("y"));
    check(
        &body("[1,3]", "[1,2,3]").replace(r#"{"inputs""#, r#"{"outputs":[{"name":"q"}],"inputs""#),
        BadInfer::UnknownOutput("q".to_owned()),
    );
    check(
        &body("[1,3]", "[1,2,3]").replace(r#"{"inputs""#, r#"{"parameters":{"triton_x":1},"inputs""#),
        BadInfer::ForeignParameter("triton_x".to_owned()),
    );
}

#[test]
fn what_a_client_would_look_for_elsewhere_is_refused_and_what_changes_nothing_is_not() {
    let asked = |parameters: &str| {
        let outputs =
            format!(r#"{{"outputs":[{{"name":"forecast","parameters":{{{parameters}}}}}],"inputs""#);
        body("[1,3]", "[1,2,3]").replace(r#"{"inputs""#, &outputs)
    };
    let refused =
        |parameter: &str, extension| BadInfer::Extension { parameter: parameter.to_owned(), extension };
    check(&asked(r#""classification":2"#), refused("classification", "classification"));
    let region = r#""shared_memory_region":"r","shared_memory_byte_size":12"#;
    check(&asked(region), refused("shared_memory_region", "shared_memory"));
    let input =
        body("[1,3]", "[1,2,3]").replace(r#""data":[1,2,3]"#, &format!(r#""parameters":{{{region}}}"#));
    check(&input, refused("shared_memory_region", "shared_memory"));
    assert!(infer(&asked(r#""mood":"good""#)).is_ok());
}

#[test]
fn the_same_twice_is_a_mistake() {
    let one = r#"{"name":"y","shape":[1,3],"datatype":"FP32","data":[1,2,3]}"#;
    check(&format!(r#"{{"inputs":[{one},{one}]}}"#), BadInfer::InputTwice("y"));
    let text = format!(r#"{{"inputs":[{one}],"inputs":[{one}]}}"#);
    assert!(matches!(infer(&text), Err(BadInfer::Json(JsonError::Twice { name: "inputs", .. }))));
    let text = body("[1,3]", "[1,2,3]").replace(r#""shape""#, r#""shape":[1,3],"shape""#);
    assert!(matches!(infer(&text), Err(BadInfer::Json(JsonError::Twice { name: "shape", .. }))));
}

#[test]
fn what_stands_in_the_place_of_a_number_is_named() {
    for what in ["null", "NaN", "Infinity", "-Infinity"] {
        let input = "input `y`".to_owned();
        check(&body("[1,3]", &format!("[1,{what},3]")), BadInfer::NoNumber { input, what, index: 1 });
    }
    let nameless = r#"{"inputs":[{"shape":[1,3],"datatype":"FP32","data":[1,2,NaN],"name":"y"}]}"#;
    let refused = Refusal::Infer(infer(nameless).unwrap_err());
    assert_eq!(refused.to_string(), "an input is NaN at index 2: every value must be a number");
    assert_eq!(refused.status(), 422);
}

#[test]
fn what_is_not_json_is_refused() {
    for data in ["[1,\"2\",3]", "[1,nil,3]", "5", "[1,2,3"] {
        assert!(
            matches!(infer(&body("[1,3]", data)), Err(BadInfer::Json(JsonError::Expected { .. }))),
            "{data}"
        );
    }
    assert!(matches!(infer(""), Err(BadInfer::Json(_))));
    assert!(matches!(infer(&"[".repeat(200_000)), Err(BadInfer::Json(_))));
    let deep = body("[1,3]", &"[".repeat(200_000));
    assert!(matches!(infer(&deep), Err(BadInfer::Json(JsonError::TooDeep { .. }))));
    assert!(matches!(
        infer(&body("[1,3]", "[1,2,1e400]")),
        Err(BadInfer::Json(JsonError::Infinite { index: 2, .. }))
    ));
    let trailing = format!("{} x", body("[1,3]", "[1,2,3]"));
    assert!(matches!(infer(&trailing), Err(BadInfer::Json(_))));
}

#[test]
fn several_series_are_a_dimension_of_their_own() {
    let several = series_spec(3, 2, 2, &["y"]);
    for data in ["[1,2,3,4,5,6]", "[[[1,2],[3,4],[5,6]]]"] {
        let text = body("[1,3,2]", data);
        let request = infer_request(text.as_bytes(), None, &several).unwrap();
        assert_eq!((request.windows.rows, request.windows.y), (1, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }
    for shape in ["[1,6]", "[2,3]", "[1,2,3]"] {
        let got = infer_request(body(shape, "[1,2,3,4,5,6]").as_bytes(), None, &several).unwrap_err();
        assert!(matches!(&got, BadInfer::Shape { want, .. } if want == "[-1, 3, 2]"), "{shape}: {got}");
    }
}

#[test]
fn batches_must_agree() {
    let text = r#"{"inputs":[{"name":"y","shape":[1,3],"datatype":"FP32","data":[1,2,3]},
        {"name":"mask","shape":[2,3],"datatype":"FP32","data":[1,1,1,1,1,1]}]}"#;
    check(text, BadInfer::Shape { input: "mask", got: vec![2, 3], want: "[1, 3], as `y` is".to_owned() });
    let missing = infer_request(body("[1,3]", "[1,2,3]").as_bytes(), None, &spec(&["x"])).unwrap_err();
    assert_eq!(missing, BadInfer::MissingInput("hist_exog"));
}

fn body(shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"y","shape":{shape},"datatype":"FP32","data":{data}}}]}}"#)
}

fn infer(text: &str) -> Result<InferRequest<'_>, BadInfer> {
    infer_request(text.as_bytes(), None, &spec(&[]))
}

#[track_caller]
fn good(text: &str) -> InferRequest<'_> {
    infer(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn check(text: &str, want: BadInfer) {
    assert_eq!(infer(text), Err(want), "{text}");
}

fn spec(hist_exog: &[&str]) -> ModelSpec {
    ModelSpec { hist_exog: hist_exog.iter().map(|&name| name.to_owned()).collect(), ..point_spec(3, 2) }
}
