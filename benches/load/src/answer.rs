//! Whether an answer is one: as many finite numbers as were asked for, in the right shape. Pure.

use serde_json::Value;

use crate::http::Head;
use crate::recorder::Failure;
use crate::request::Kind;
use crate::shape::Shape;
use crate::split::{self, Hops};

/// Reads a whole answer with status 200, and where it says so, how long its parts took.
///
/// # Errors
/// [`Failure::Malformed`], [`Failure::Shape`] or [`Failure::NotFinite`].
pub fn check(
    kind: Kind,
    shape: &Shape,
    rows: usize,
    head: &Head,
    body: &[u8],
) -> Result<Option<Hops>, Failure> {
    let json = match (kind, head.json_len) {
        (Kind::Binary, Some(len)) => body.get(..len).ok_or(Failure::Malformed)?,
        (Kind::Binary, None) => return Err(Failure::Shape),
        _ => body,
    };
    // A number that no double holds is an error to the parser, and NaN is no JSON.
    let answer: Value = serde_json::from_slice(json).map_err(|_| Failure::Malformed)?;
    match kind {
        Kind::Json => tensor(&answer, shape, rows).map(|()| None),
        Kind::Binary => raw(&answer, &body[json.len()..], shape, rows).map(|()| None),
        Kind::Native => native(&answer, shape, rows).map(|()| split::of_native(&answer)),
        Kind::Neural => neural(&answer, shape, rows).map(|()| None),
        Kind::Stream => path(answer.get("median").or(answer.get("mean")), shape.horizon()).map(|()| None),
    }
}

fn output<'a>(answer: &'a Value, shape: &Shape, rows: usize) -> Result<&'a Value, Failure> {
    let output = &answer["outputs"][0];
    let dims = output["shape"].as_array().ok_or(Failure::Shape)?;
    let want = std::iter::once(&rows).chain(&shape.output.dims);
    let same = dims.len() == 1 + shape.output.dims.len()
        && dims.iter().zip(want).all(|(got, &want)| got.as_u64() == Some(want as u64));
    if same { Ok(output) } else { Err(Failure::Shape) }
}

fn tensor(answer: &Value, shape: &Shape, rows: usize) -> Result<(), Failure> {
    let output = output(answer, shape, rows)?;
    let count = leaves(&output["data"])?;
    if count == rows * shape.output.row_len() { Ok(()) } else { Err(Failure::Shape) }
}

/// Numbers, nested or flat.
fn leaves(value: &Value) -> Result<usize, Failure> {
    match value {
        Value::Array(list) => list.iter().map(leaves).sum(),
        other => number(other).map(|()| 1),
    }
}

fn raw(answer: &Value, tail: &[u8], shape: &Shape, rows: usize) -> Result<(), Failure> {
    let size = output(answer, shape, rows)?["parameters"]["binary_data_size"].as_u64();
    let want = 4 * rows * shape.output.row_len();
    if size != Some(want as u64) || tail.len() != want {
        return Err(Failure::Shape);
    }
    let mut values =
        tail.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    if values.all(f32::is_finite) { Ok(()) } else { Err(Failure::NotFinite) }
}

fn native(answer: &Value, shape: &Shape, rows: usize) -> Result<(), Failure> {
    let forecasts = answer["forecasts"].as_array().filter(|list| list.len() == rows).ok_or(Failure::Shape)?;
    for one in forecasts {
        path(one.get("median").or(one.get("mean")), shape.horizon())?;
        for interval in one["intervals"].as_array().ok_or(Failure::Shape)? {
            path(interval.get("lo"), shape.horizon())?;
            path(interval.get("hi"), shape.horizon())?;
        }
    }
    Ok(())
}

fn neural(answer: &Value, shape: &Shape, rows: usize) -> Result<(), Failure> {
    if rows == 1 {
        return path(answer.get("prediction"), shape.horizon());
    }
    let list = answer["predictions"].as_array().filter(|list| list.len() == rows).ok_or(Failure::Shape)?;
    list.iter().try_for_each(|one| path(one.get("prediction"), shape.horizon()))
}

pub(crate) fn path(values: Option<&Value>, horizon: usize) -> Result<(), Failure> {
    let values =
        values.and_then(Value::as_array).filter(|list| list.len() == horizon).ok_or(Failure::Shape)?;
    values.iter().try_for_each(number)
}

/// A number that a single holds. Servers write what they cannot say as `null`.
fn number(value: &Value) -> Result<(), Failure> {
    match value {
        Value::Number(number) if number.as_f64().is_some_and(|number| (number as f32).is_finite()) => Ok(()),
        Value::Number(_) | Value::Null => Err(Failure::NotFinite),
        _ => Err(Failure::Shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Framing;
    use crate::shape::Tensor;

    #[test]
    fn tensors_are_counted_nested_or_flat() {
        let answer =
            |shape: &str, data: &str| format!(r#"{{"outputs":[{{"shape":{shape},"data":{data}}}]}}"#);
        check_text(Kind::Json, 2, &answer("[2,2,1]", "[1,2,3,4]"), Ok(()));
        check_text(Kind::Json, 2, &answer("[2,2,1]", "[[[1],[2]],[[3],[4]]]"), Ok(()));
        check_text(Kind::Json, 2, &answer("[2,2,1]", "[1,2,3]"), Err(Failure::Shape));
        check_text(Kind::Json, 2, &answer("[2,2]", "[1,2,3,4]"), Err(Failure::Shape));
        check_text(Kind::Json, 2, &answer("[1,2,1]", "[1,2]"), Err(Failure::Shape));
        check_text(Kind::Json, 2, &answer("[2,2,1]", "[1,2,3,\"4\"]"), Err(Failure::Shape));
        check_text(Kind::Json, 2, &answer("[2,2,1]", "[1,2,3,null]"), Err(Failure::NotFinite));
        check_text(Kind::Json, 2, &answer("[2,2,1]", "[1,2,3,1e39]"), Err(Failure::NotFinite));
        check_text(Kind::Json, 2, &answer("[2,2,1]", "[1,2,3,NaN]"), Err(Failure::Malformed));
        check_text(Kind::Json, 2, "{}", Err(Failure::Shape));
        check_text(Kind::Json, 2, "", Err(Failure::Malformed));
    }

    #[test]
    fn raw_tensors_are_as_long_as_they_say() {
        let json = br#"{"outputs":[{"shape":[1,2,1],"parameters":{"binary_data_size":8}}]}"#;
        let with = |values: &[f32]| -> Vec<u8> {
            json.iter().copied().chain(values.iter().flat_map(|value| value.to_le_bytes())).collect()
        };
        let len = Some(json.len());
        check_raw(&with(&[1.0, 2.0]), len, Ok(()));
        check_raw(&with(&[1.0]), len, Err(Failure::Shape));
        check_raw(&with(&[1.0, 2.0, 3.0]), len, Err(Failure::Shape));
        check_raw(&with(&[1.0, f32::NAN]), len, Err(Failure::NotFinite));
        check_raw(&with(&[1.0, 2.0]), None, Err(Failure::Shape));
        check_raw(&with(&[1.0, 2.0]), Some(10_000), Err(Failure::Malformed));
    }

    #[test]
    fn a_native_answer_has_a_path_and_intervals_for_each_row() {
        let of = |path: &str, low: &str| {
            format!(
                r#"{{"forecasts":[{{"median":{path},"intervals":[{{"level":80,"lo":{low},"hi":[1,2]}}]}}]}}"#
            )
        };
        check_text(Kind::Native, 1, &of("[1,2]", "[1,2]"), Ok(()));
        check_text(Kind::Native, 1, &of("[1]", "[1,2]"), Err(Failure::Shape));
        check_text(Kind::Native, 1, &of("[1,2]", "[1]"), Err(Failure::Shape));
        check_text(Kind::Native, 1, &of("[1,2]", "[1,null]"), Err(Failure::NotFinite));
        check_text(Kind::Native, 2, &of("[1,2]", "[1,2]"), Err(Failure::Shape));
    }

    #[test]
    fn symbols_have_predictions() {
        check_text(Kind::Neural, 1, r#"{"prediction":[1,2]}"#, Ok(()));
        check_text(Kind::Neural, 1, r#"{"prediction":[1]}"#, Err(Failure::Shape));
        check_text(Kind::Neural, 2, r#"{"predictions":[{"prediction":[1,2]},{"prediction":[3,4]}]}"#, Ok(()));
        check_text(Kind::Neural, 2, r#"{"predictions":[{"prediction":[1,2]}]}"#, Err(Failure::Shape));
    }

    #[track_caller]
    fn check_text(kind: Kind, rows: usize, body: &str, want: Result<(), Failure>) {
        assert_eq!(run(kind, rows, body.as_bytes(), None), want, "{body}");
    }

    #[track_caller]
    fn check_raw(body: &[u8], json_len: Option<usize>, want: Result<(), Failure>) {
        assert_eq!(run(Kind::Binary, 1, body, json_len), want);
    }

    fn run(kind: Kind, rows: usize, body: &[u8], json_len: Option<usize>) -> Result<(), Failure> {
        let tensor = |name: &str, dims: &[usize]| Tensor { name: name.to_owned(), dims: dims.to_vec() };
        let shape = Shape {
            model: "m".to_owned(),
            inputs: vec![tensor("y", &[4])],
            output: tensor("forecast", &[2, 1]),
        };
        let framing = Framing::Length(body.len());
        let head = Head { status: 200, head_len: 0, framing, json_len, closes: false, accept: None };
        check(kind, &shape, rows, &head, body).map(|_| ())
    }
}
