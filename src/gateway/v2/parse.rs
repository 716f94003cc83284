//! The body of an inference request: one JSON object, then raw tensors; read into [`Windows`] for a model.
//!
//! Pure: bytes and a spec in, windows or a named mistake out. Nothing is allocated beyond a small multiple of the
//! bytes that came: shapes are multiplied with checks and compared with the body before a buffer is made.

use std::borrow::Cow;
use std::time::Duration;

use peregrine_shaders::{ModelSpec, Windows};

use crate::gateway::json::{Cursor, JsonError, Nesting, Scalar, once};

/// The deepest tensors of ours, `hist_exog [B, L, X]` and the `y [B, L, N]` of several series.
const RANK_MAX: usize = 3;
/// `y`, `mask` and the three exogenous ones.
const INPUTS_MAX: usize = 5;
/// The only output.
pub(crate) const OUTPUT: &str = "forecast";
/// The only datatype.
pub(crate) const DATATYPE: &str = "FP32";

/// An inference request that fits its model.
#[derive(Debug, PartialEq)]
pub(crate) struct InferRequest<'a> {
    /// Returned as given.
    pub(crate) id: Option<Cow<'a, str>>,
    /// From the parameter `timeout`.
    pub(crate) timeout: Option<Duration>,
    /// The output goes out as raw bytes.
    pub(crate) binary_output: bool,
    /// Not yet checked for finiteness where it came as raw bytes.
    pub(crate) windows: Windows,
}

/// The caller's request makes no sense for this model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum BadInfer {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("`Inference-Header-Content-Length` is `{0}`, not a count of bytes within the body")]
    HeaderLength(String),
    #[error("the request has no `inputs`")]
    NoInputs,
    #[error("an input has no `{0}`")]
    NoMember(&'static str),
    #[error("unknown input `{name}`; the model takes {takes}")]
    UnknownInput { name: String, takes: String },
    #[error("input `{0}` stands twice")]
    InputTwice(&'static str),
    #[error("input `{0}` is missing")]
    MissingInput(&'static str),
    #[error("more than {INPUTS_MAX} inputs")]
    TooManyInputs,
    #[error("input `{input}` is `{datatype}`, must be `{DATATYPE}`")]
    Datatype { input: String, datatype: String },
    #[error("input `{input}` has shape {got:?}, must be {want}")]
    Shape { input: &'static str, got: Vec<usize>, want: String },
    #[error("shape {0:?} asks for more numbers than the request holds")]
    ShapeBeyondBody(Vec<usize>),
    #[error("input `{0}` is a batch of none")]
    EmptyBatch(&'static str),
    #[error("input `{input}` holds {got} numbers where its shape asks for {want}")]
    Count { input: &'static str, got: usize, want: usize },
    #[error("{input} is {what} at index {index}: every value must be a number")]
    NoNumber { input: String, what: &'static str, index: usize },
    #[error("input `{input}` is nested {got} deep where its shape has {rank} dimensions")]
    Nested { input: &'static str, got: usize, rank: usize },
    #[error(
        "input `{input}` is not nested as its shape is: {want} numbers in each innermost list are, or no list within it"
    )]
    Rows { input: &'static str, want: usize },
    #[error("input `mask` is 0 throughout row {row}: of its window nothing is known")]
    Unknown { row: usize },
    #[error("input `{0}` must have either `data` or `binary_data_size`")]
    DataOrBinary(&'static str),
    #[error("input `{input}` has {got} binary bytes where its shape asks for {want}")]
    BinarySize { input: &'static str, got: usize, want: usize },
    #[error("the body holds {got} binary bytes where the inputs announce {want}")]
    BinaryTail { got: usize, want: usize },
    #[error("unknown output `{0}`; the model gives `{OUTPUT}`")]
    UnknownOutput(String),
    #[error("output `{OUTPUT}` is named twice")]
    OutputTwice,
    #[error("parameter `{0}` is not known to this server")]
    ForeignParameter(String),
    #[error("parameter `{parameter}` is of the extension `{extension}`, which is not offered here")]
    Extension { parameter: String, extension: &'static str },
    #[error("parameter `{name}` must be {want}")]
    Parameter { name: &'static str, want: &'static str },
    #[error("a raw request is one window of `y`: {want} bytes, not {got}")]
    Raw { got: usize, want: usize },
    #[error(
        "a raw request is `y` alone, and this model reads `{0}` beside it: send JSON, with raw tensors behind it if wanted"
    )]
    RawNeedsMore(String),
}

/// Reads `body`; `header_length` is the text of `Inference-Header-Content-Length`, where there is one.
pub(crate) fn infer_request<'a>(
    body: &'a [u8],
    header_length: Option<&str>,
    spec: &ModelSpec,
) -> Result<InferRequest<'a>, BadInfer> {
    let json_len = json_len(body, header_length)?;
    if header_length.is_some() && json_len == 0 {
        return raw_request(body, spec);
    }
    let (json, tail) = body.split_at(json_len);
    let document = document(json, body.len())?;
    let binary_output = output_wish(&document)?;
    Ok(InferRequest {
        windows: windows(document.inputs, tail, spec)?,
        id: document.id,
        timeout: document.parameters.timeout,
        binary_output,
    })
}

/// Bytes of JSON at the begin of the body; 0 where it is raw.
pub(crate) fn json_len(body: &[u8], header_length: Option<&str>) -> Result<usize, BadInfer> {
    header_length.map_or(Ok(body.len()), |text| header_len(text, body.len()))
}

/// Digits only: no sign, no blanks, not beyond the body.
fn header_len(text: &str, body_len: usize) -> Result<usize, BadInfer> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let len = text.parse().ok().filter(|&len: &usize| digits && len <= body_len);
    len.ok_or_else(|| BadInfer::HeaderLength(text.chars().take(32).collect()))
}

/// The whole body is one window.
fn raw_request<'a>(body: &[u8], spec: &ModelSpec) -> Result<InferRequest<'a>, BadInfer> {
    let more: Vec<&str> = [&spec.hist_exog, &spec.futr_exog, &spec.stat_exog]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if !more.is_empty() {
        return Err(BadInfer::RawNeedsMore(more.join("`, `")));
    }
    let want = spec.y_len() * size_of::<f32>();
    if body.len() != want {
        return Err(BadInfer::Raw { got: body.len(), want });
    }
    let windows = Windows { rows: 1, y: floats(body), ..Windows::default() };
    Ok(InferRequest { id: None, timeout: None, binary_output: true, windows })
}

#[derive(Default)]
struct Document<'a> {
    id: Option<Cow<'a, str>>,
    parameters: Parameters,
    inputs: Vec<Input<'a>>,
    outputs: Vec<Output<'a>>,
}

#[derive(Default)]
struct Parameters {
    timeout: Option<Duration>,
    binary_data_output: bool,
}

#[derive(Default)]
struct Input<'a> {
    name: Option<Cow<'a, str>>,
    datatype: Option<Cow<'a, str>>,
    shape: Option<Vec<usize>>,
    binary_bytes: Option<usize>,
    data: Option<Nested>,
}

struct Nested {
    numbers: Vec<f32>,
    nesting: Nesting,
}

struct Output<'a> {
    name: Cow<'a, str>,
    binary: Option<bool>,
}

fn document(json: &[u8], body_len: usize) -> Result<Document<'_>, BadInfer> {
    let mut cursor = Cursor::new(json);
    let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
    cursor.members(|key, cursor| {
        let at = cursor.at();
        match key {
            "id" => Ok(once(&mut id, cursor.string()?, "id", at)?),
            "parameters" => Ok(once(&mut parameters, request_parameters(cursor)?, "parameters", at)?),
            "inputs" => Ok(once(&mut inputs, input_list(cursor, body_len)?, "inputs", at)?),
            "outputs" => Ok(once(&mut outputs, output_list(cursor)?, "outputs", at)?),
            _ => Ok::<(), BadInfer>(cursor.skip()?),
        }
    })?;
    cursor.end()?;
    Ok(Document {
        id,
        parameters: parameters.unwrap_or_default(),
        inputs: inputs.ok_or(BadInfer::NoInputs)?,
        outputs: outputs.unwrap_or_default(),
    })
}

fn request_parameters(cursor: &mut Cursor<'_>) -> Result<Parameters, BadInfer> {
    let (mut timeout, mut binary, mut priority) = (None, None, None);
    cursor.members(|key, cursor| {
        let at = cursor.at();
        match key {
            "timeout" => Ok(once(&mut timeout, unsigned_parameter(cursor, "timeout")?, "timeout", at)?),
            "priority" => Ok(once(&mut priority, unsigned_parameter(cursor, "priority")?, "priority", at)?),
            "binary_data_output" => {
                let wish = flag_parameter(cursor, "binary_data_output")?;
                Ok(once(&mut binary, wish, "binary_data_output", at)?)
            }
            _ => other_parameter(key, cursor),
        }
    })?;
    // Zero is the clients' way of saying "no timeout of mine".
    let timeout = timeout.filter(|&micros| micros > 0).map(Duration::from_micros);
    Ok(Parameters { timeout, binary_data_output: binary.unwrap_or_default() })
}

fn input_list<'a>(cursor: &mut Cursor<'a>, body_len: usize) -> Result<Vec<Input<'a>>, BadInfer> {
    let mut inputs = Vec::new();
    cursor.array(|cursor| {
        if inputs.len() == INPUTS_MAX {
            return Err(BadInfer::TooManyInputs);
        }
        inputs.push(input(cursor, body_len)?);
        Ok(())
    })?;
    Ok(inputs)
}

fn input<'a>(cursor: &mut Cursor<'a>, body_len: usize) -> Result<Input<'a>, BadInfer> {
    let mut input = Input::default();
    cursor.members(|key, cursor| {
        let at = cursor.at();
        match key {
            "name" => Ok(once(&mut input.name, cursor.string()?, "name", at)?),
            "datatype" => Ok(once(&mut input.datatype, cursor.string()?, "datatype", at)?),
            "shape" => Ok(once(&mut input.shape, shape(cursor)?, "shape", at)?),
            "data" => {
                if let Some(datatype) = input.datatype.as_deref().filter(|&datatype| datatype != DATATYPE) {
                    let input = input.name.as_deref().unwrap_or_default().to_owned();
                    return Err(BadInfer::Datatype { input, datatype: datatype.to_owned() });
                }
                let nested = nested(cursor, input.name.as_deref(), input.shape.as_deref(), body_len)?;
                Ok(once(&mut input.data, nested, "data", at)?)
            }
            "parameters" => cursor.members(|key, cursor| {
                let at = cursor.at();
                match key {
                    "binary_data_size" => {
                        let bytes = unsigned_parameter(cursor, "binary_data_size")?;
                        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                        Ok(once(&mut input.binary_bytes, bytes, "binary_data_size", at)?)
                    }
                    _ => tensor_parameter(key, cursor),
                }
            }),
            _ => Ok(cursor.skip()?),
        }
    })?;
    Ok(input)
}

fn output_list<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Output<'a>>, BadInfer> {
    let mut outputs = Vec::new();
    cursor.array(|cursor| {
        let (mut name, mut binary) = (None, None);
        cursor.members(|key, cursor| {
            let at = cursor.at();
            match key {
                "name" => Ok(once(&mut name, cursor.string()?, "name", at)?),
                "parameters" => cursor.members(|key, cursor| {
                    let at = cursor.at();
                    match key {
                        "binary_data" => {
                            let wish = flag_parameter(cursor, "binary_data")?;
                            Ok(once(&mut binary, wish, "binary_data", at)?)
                        }
                        _ => tensor_parameter(key, cursor),
                    }
                }),
                _ => Ok::<(), BadInfer>(cursor.skip()?),
            }
        })?;
        let name = name.ok_or(BadInfer::NoMember("name"))?;
        if name != OUTPUT {
            return Err(BadInfer::UnknownOutput(name.into_owned()));
        }
        if !outputs.is_empty() {
            return Err(BadInfer::OutputTwice);
        }
        outputs.push(Output { name, binary });
        Ok(())
    })?;
    Ok(outputs)
}

fn shape(cursor: &mut Cursor<'_>) -> Result<Vec<usize>, BadInfer> {
    let mut shape = Vec::with_capacity(RANK_MAX);
    cursor.array(|cursor| {
        if shape.len() > RANK_MAX {
            return Err(BadInfer::Json(JsonError::TooMany { at: cursor.at(), count_max: RANK_MAX + 1 }));
        }
        shape.push(usize::try_from(cursor.unsigned()?).unwrap_or(usize::MAX));
        Ok(())
    })?;
    Ok(shape)
}

/// Reads `data`. A number takes at least two bytes of text, so a shape that asks for more than the rest of the
/// body can hold is refused before a buffer is made.
fn nested(
    cursor: &mut Cursor<'_>,
    name: Option<&str>,
    shape: Option<&[usize]>,
    body_len: usize,
) -> Result<Nested, BadInfer> {
    let mut numbers = Vec::new();
    let room = cursor.rest_len().min(body_len) / 2 + 1;
    if let Some(shape) = shape {
        match product(shape) {
            Some(count) if count <= room => numbers.reserve_exact(count),
            _ => return Err(BadInfer::ShapeBeyondBody(shape.to_vec())),
        }
    }
    let nesting =
        cursor.leaves(&mut numbers, RANK_MAX, room).map_err(|error| match cursor.no_number(&error) {
            Some(what) => {
                let input = name.map_or_else(|| "an input".to_owned(), |name| format!("input `{name}`"));
                BadInfer::NoNumber { input, what, index: numbers.len() }
            }
            None => error.into(),
        });
    let nesting = nesting?;
    Ok(Nested { numbers, nesting })
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &dimension| product.checked_mul(dimension))
}

fn unsigned_parameter(cursor: &mut Cursor<'_>, name: &'static str) -> Result<u64, BadInfer> {
    match cursor.scalar()? {
        Scalar::Number(text) => text.parse().ok(),
        Scalar::Text(_) | Scalar::Flag(_) => None,
    }
    .ok_or(BadInfer::Parameter { name, want: "an unsigned integer" })
}

fn flag_parameter(cursor: &mut Cursor<'_>, name: &'static str) -> Result<bool, BadInfer> {
    match cursor.scalar()? {
        Scalar::Flag(flag) => Ok(flag),
        Scalar::Text(_) | Scalar::Number(_) => Err(BadInfer::Parameter { name, want: "true or false" }),
    }
}

/// Of an input or an output: what would have its data stand elsewhere, or be something else, is not passed over.
fn tensor_parameter(name: &str, cursor: &mut Cursor<'_>) -> Result<(), BadInfer> {
    let extension = match name {
        "shared_memory_region" | "shared_memory_offset" | "shared_memory_byte_size" => "shared_memory",
        "classification" => "classification",
        _ => return other_parameter(name, cursor),
    };
    Err(BadInfer::Extension { parameter: name.to_owned(), extension })
}

/// Accepted and ignored, except what another server has reserved for itself.
fn other_parameter(name: &str, cursor: &mut Cursor<'_>) -> Result<(), BadInfer> {
    if name.starts_with("triton_") {
        return Err(BadInfer::ForeignParameter(name.chars().take(64).collect()));
    }
    cursor.scalar()?;
    Ok(())
}

/// The wish on the output wins over the one on the request.
fn output_wish(document: &Document<'_>) -> Result<bool, BadInfer> {
    let named = document.outputs.first();
    debug_assert!(named.is_none_or(|output| output.name == OUTPUT), "checked when read");
    Ok(named.and_then(|output| output.binary).unwrap_or(document.parameters.binary_data_output))
}

/// Puts every input into its place and compares shapes with the model, in the order of the request: raw bytes
/// stand in that order.
fn windows(inputs: Vec<Input<'_>>, tail: &[u8], spec: &ModelSpec) -> Result<Windows, BadInfer> {
    let announced =
        inputs.iter().try_fold(0_usize, |sum, input| sum.checked_add(input.binary_bytes.unwrap_or(0)));
    let want = announced.unwrap_or(usize::MAX);
    let mut tensors: [Option<(usize, Vec<f32>)>; INPUTS_MAX] = Default::default();
    let mut rest = tail;
    for input in inputs {
        let name = input.name.as_deref().ok_or(BadInfer::NoMember("name"))?;
        let slot = known_input(name, spec)?;
        let (input_name, dims) = slot_shape(slot, spec);
        let datatype = input.datatype.as_deref().ok_or(BadInfer::NoMember("datatype"))?;
        if datatype != DATATYPE {
            return Err(BadInfer::Datatype { input: name.to_owned(), datatype: datatype.to_owned() });
        }
        let shape = input.shape.ok_or(BadInfer::NoMember("shape"))?;
        if shape.first() == Some(&0) {
            return Err(BadInfer::EmptyBatch(input_name));
        }
        if shape.len() != dims.len() + 1 || shape[1..] != dims[..] {
            let want = format!("[-1, {}]", dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", "));
            return Err(BadInfer::Shape { input: input_name, got: shape, want });
        }
        let Some(count) = product(&shape) else { return Err(BadInfer::ShapeBeyondBody(shape)) };
        let numbers = match (input.data, input.binary_bytes) {
            (Some(_), Some(_)) | (None, None) => return Err(BadInfer::DataOrBinary(input_name)),
            (Some(nested), None) => {
                if nested.numbers.len() != count {
                    return Err(BadInfer::Count {
                        input: input_name,
                        got: nested.numbers.len(),
                        want: count,
                    });
                }
                let Nesting { depth, row_len } = nested.nesting;
                if depth > shape.len() {
                    return Err(BadInfer::Nested { input: input_name, got: depth, rank: shape.len() });
                }
                // As many numbers in other rows are another tensor, a transposed one as a rule.
                let want = shape[depth - 1..].iter().product();
                if depth > 1 && row_len != Some(want) {
                    return Err(BadInfer::Rows { input: input_name, want });
                }
                nested.numbers
            }
            (None, Some(bytes)) => {
                let Some(want) = count.checked_mul(size_of::<f32>()).filter(|&want| want == bytes) else {
                    let want = count.saturating_mul(size_of::<f32>());
                    return Err(BadInfer::BinarySize { input: input_name, got: bytes, want });
                };
                let Some((tensor, behind)) = rest.split_at_checked(want) else {
                    return Err(BadInfer::BinaryTail {
                        got: tail.len(),
                        want: announced.unwrap_or(usize::MAX),
                    });
                };
                rest = behind;
                floats(tensor)
            }
        };
        if tensors[slot].replace((shape[0], numbers)).is_some() {
            return Err(BadInfer::InputTwice(input_name));
        }
    }
    if !rest.is_empty() {
        return Err(BadInfer::BinaryTail { got: tail.len(), want });
    }
    gather(tensors, spec)
}

fn gather(tensors: [Option<(usize, Vec<f32>)>; INPUTS_MAX], spec: &ModelSpec) -> Result<Windows, BadInfer> {
    let rows = tensors[0].as_ref().ok_or(BadInfer::MissingInput(INPUT_NAMES[0]))?.0;
    for (slot, tensor) in tensors.iter().enumerate() {
        let name = INPUT_NAMES[slot];
        match tensor {
            Some((got, _)) if *got != rows => {
                let (_, dims) = slot_shape(slot, spec);
                let dims = dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                let want = format!("[{rows}, {dims}], as `y` is");
                let got = std::iter::once(*got).chain(slot_shape(slot, spec).1).collect();
                return Err(BadInfer::Shape { input: name, got, want });
            }
            None if slot > 1 && takes(slot, spec) => return Err(BadInfer::MissingInput(name)),
            _ => {}
        }
    }
    let [y, mask, hist, futr, stat] = tensors.map(|tensor| tensor.map(|(_, numbers)| numbers));
    let mut windows = Windows {
        rows,
        y: y.unwrap_or_default(),
        mask,
        hist_exog: hist.unwrap_or_default(),
        futr_exog: futr.unwrap_or_default(),
        stat_exog: stat.unwrap_or_default(),
    };
    windows.clear_masked();
    match windows.unknown() {
        Some(row) => Err(BadInfer::Unknown { row }),
        None => Ok(windows),
    }
}

/// By slot; the order of the model's metadata.
pub(crate) const INPUT_NAMES: [&str; INPUTS_MAX] = ["y", "mask", "hist_exog", "futr_exog", "stat_exog"];

/// Does the model read this slot?
pub(crate) fn takes(slot: usize, spec: &ModelSpec) -> bool {
    match slot {
        0 | 1 => true,
        2 => !spec.hist_exog.is_empty(),
        3 => !spec.futr_exog.is_empty(),
        _ => !spec.stat_exog.is_empty(),
    }
}

/// Name and dimensions behind the batch.
pub(crate) fn slot_shape(slot: usize, spec: &ModelSpec) -> (&'static str, Vec<usize>) {
    let dims = match slot {
        0 | 1 => spec.y_dims(),
        2 => vec![spec.window, spec.hist_exog.len()],
        3 => vec![spec.window + spec.horizon, spec.futr_exog.len()],
        _ => vec![spec.stat_exog.len()],
    };
    (INPUT_NAMES[slot], dims)
}

fn known_input(name: &str, spec: &ModelSpec) -> Result<usize, BadInfer> {
    let slot = INPUT_NAMES.iter().position(|&known| known == name).filter(|&slot| takes(slot, spec));
    slot.ok_or_else(|| BadInfer::UnknownInput {
        name: name.chars().take(64).collect(),
        takes: (0..INPUTS_MAX)
            .filter(|&slot| takes(slot, spec))
            .map(|slot| format!("`{}`", INPUT_NAMES[slot]))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// Little-endian, at any address.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let (quads, rest) = bytes.as_chunks();
    debug_assert!(rest.is_empty(), "checked against the shape");
    quads.iter().map(|&quad| f32::from_le_bytes(quad)).collect()
}

#[cfg(test)]
#[path = "tests/parse.rs"]
mod tests;
