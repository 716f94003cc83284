//! The answer to an inference request, written by hand into one buffer: JSON, or JSON and raw bytes behind it.
//!
//! Pure. Numbers are the shortest text that reads back to the same `f32`.

use peregrine_actors::audit::PredictionId;
use peregrine_shaders::{ModelSpec, head};

use super::parse::{DATATYPE, OUTPUT};
use crate::gateway::numbers::print_list;

/// What an answer says.
pub(crate) struct Answer<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) spec: &'a ModelSpec,
    pub(crate) version: u32,
    pub(crate) backend: &'a str,
    /// The other node that answered, if one did.
    pub(crate) node: Option<&'a str>,
    /// Number of the first row's prediction, where predictions are recorded.
    pub(crate) prediction: Option<PredictionId>,
    pub(crate) degraded: bool,
    /// `[rows, …]`, each row of [`ModelSpec::answer_dims`].
    pub(crate) values: &'a [f32],
}

/// A finished body; `json_len` is set when raw bytes stand behind the JSON.
pub(crate) struct Printed {
    pub(crate) body: Vec<u8>,
    pub(crate) json_len: Option<usize>,
}

pub(crate) fn answer(answer: &Answer<'_>, binary: bool) -> Printed {
    let spec = answer.spec;
    let rows = answer.values.len() / spec.answer_len().max(1);
    let tensor_bytes = size_of_val(answer.values);
    let mut body = Vec::with_capacity(320 + if binary { tensor_bytes } else { answer.values.len() * 12 });
    body.push(b'{');
    if let Some(id) = answer.id {
        body.extend_from_slice(b"\"id\":");
        text(&mut body, id);
        body.push(b',');
    }
    body.extend_from_slice(b"\"model_name\":");
    text(&mut body, &spec.name);
    // Names of nodes need no escapes.
    let node = answer.node.map(|node| format!("\"node\":\"{node}\",")).unwrap_or_default();
    let prediction = answer.prediction.map(|id| format!("\"prediction_id\":\"{id}\",")).unwrap_or_default();
    let crossed = if head::crosses(&spec.head, answer.values) { ",\"crossed\":true" } else { "" };
    let rest = format!(
        ",\"model_version\":\"{}\",\"parameters\":{{\"backend\":\"{}\",{node}{prediction}\"degraded\":{}{crossed}}},\"outputs\":[{{\"name\":\"{OUTPUT}\",\
         \"datatype\":\"{DATATYPE}\",\"shape\":[{rows}",
        answer.version, answer.backend, answer.degraded,
    );
    body.extend_from_slice(rest.as_bytes());
    for dimension in spec.answer_dims() {
        body.extend_from_slice(format!(",{dimension}").as_bytes());
    }
    body.push(b']');
    if binary {
        body.extend_from_slice(
            format!(",\"parameters\":{{\"binary_data_size\":{tensor_bytes}}}}}]}}").as_bytes(),
        );
        let json_len = body.len();
        body.extend(answer.values.iter().flat_map(|value| value.to_le_bytes()));
        return Printed { body, json_len: Some(json_len) };
    }
    body.extend_from_slice(b",\"data\":");
    print_list(&mut body, answer.values);
    body.extend_from_slice(b"}]}");
    Printed { body, json_len: None }
}

/// Appends a JSON string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    out.push(b'"');
    if plain {
        out.extend_from_slice(text.as_bytes());
    } else {
        for character in text.chars() {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                '\0'..='\x1f' => out.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes()),
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{point_spec, series_spec};

    const VALUES: [f32; 4] = [0.1, -2.5, 1e-20, 16_777_216.0];

    #[test]
    fn json_reads_back_to_the_same_numbers() {
        let printed = print(Some("4\"2\n"), false);
        let read: Value = serde_json::from_slice(&printed.body).unwrap();
        assert_eq!(printed.json_len, None);
        assert_eq!(
            read["outputs"][0]["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap() as f32)
                .collect::<Vec<_>>(),
            VALUES
        );
        assert_eq!(read["outputs"][0]["shape"], json!([2, 2, 1]));
        assert_eq!(read["id"], "4\"2\n");
        assert_eq!(read["parameters"], json!({"backend": "cpu", "degraded": true}));
        assert_eq!((&read["model_name"], &read["model_version"]), (&json!("m"), &json!("7")));
    }

    #[test]
    fn binary_stands_behind_the_json() {
        let printed = print(None, true);
        let (json, tail) = printed.body.split_at(printed.json_len.unwrap());
        let read: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(read["outputs"][0]["parameters"]["binary_data_size"], 16);
        assert_eq!(read.get("id"), None);
        assert_eq!(read["outputs"][0].get("data"), None);
        assert_eq!(tail, VALUES.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn several_series_stand_between_step_and_column() {
        for (columns, shape) in [(&["y"][..], json!([1, 2, 2])), (&["lo", "hi"][..], json!([1, 1, 2, 2]))] {
            let spec = series_spec(3, 2 / columns.len(), 2, columns);
            let whole = Answer {
                id: None,
                spec: &spec,
                version: 7,
                backend: "cpu",
                node: None,
                prediction: None,
                degraded: false,
                values: &VALUES,
            };
            let read: Value = serde_json::from_slice(&answer(&whole, false).body).unwrap();
            assert_eq!(read["outputs"][0]["shape"], shape);
        }
    }

    fn print(id: Option<&str>, binary: bool) -> Printed {
        let spec = point_spec(3, 2);
        answer(
            &Answer {
                id,
                spec: &spec,
                version: 7,
                backend: "cpu",
                node: None,
                prediction: None,
                degraded: true,
                values: &VALUES,
            },
            binary,
        )
    }
}
