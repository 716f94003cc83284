//! Whole requests, built once, of seeded random walks. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::LoadError;
use crate::shape::Shape;
use crate::target::Target;

/// Different requests that are kept, and bytes of all of them.
const REQUESTS_MAX: usize = 256;
const BYTES_MAX: usize = 64 << 20;
/// Digits of a number and what stands between two, in JSON.
const NUMBER_BYTES: usize = 13;

/// How a forecast is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v2/models/M/infer`, tensors in JSON.
    Json,
    /// The same with raw tensors.
    Binary,
    /// `/v1/forecast`.
    Native,
    /// `/neural/predict`, or `/neural/batch_predict` for several rows.
    Neural,
    /// A tick over `/v1/stream`, answered by the prediction that it leads to.
    Stream,
}

impl Kind {
    /// As the command line and reports name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Native => "native",
            Self::Neural => "neural",
            Self::Stream => "stream",
        }
    }
}

/// What each request asks.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How.
    pub kind: Kind,
    /// Windows in one request, at least 1.
    pub rows: usize,
    /// The server is told to give up after this.
    pub deadline: Option<Duration>,
    /// Of the random walks.
    pub seed: u64,
    /// Names of series that the server knows, for [`Kind::Neural`].
    pub symbols: Vec<String>,
}

/// Requests as they go over the wire.
///
/// # Errors
/// [`LoadError::Unsuited`] where the kind cannot ask for this model.
pub fn requests(target: &Target, shape: &Shape, ask: &Ask) -> Result<Vec<Vec<u8>>, LoadError> {
    if !suits(shape, ask)? {
        return Ok(Vec::new());
    }
    let numbers: usize = shape.inputs.iter().map(|input| ask.rows * input.row_len()).sum();
    let count = (BYTES_MAX / (numbers * NUMBER_BYTES).max(1)).clamp(2, REQUESTS_MAX);
    let mut random = SmallRng::seed_from_u64(ask.seed);
    Ok((0..count).map(|place| request(target, shape, ask, &mut random, place)).collect())
}

/// The first of them; `None`: ticks are no requests.
///
/// # Errors
/// As [`requests`].
pub fn sample(target: &Target, shape: &Shape, ask: &Ask) -> Result<Option<Vec<u8>>, LoadError> {
    let mut random = SmallRng::seed_from_u64(ask.seed);
    Ok(suits(shape, ask)?.then(|| request(target, shape, ask, &mut random, 0)))
}

/// Can the model be asked so? `false`: by ticks, not by requests.
fn suits(shape: &Shape, ask: &Ask) -> Result<bool, LoadError> {
    let unsuited =
        |why: &str| LoadError::Unsuited(format!("{} with model `{}`: {why}", ask.kind.name(), shape.model));
    if !matches!(ask.kind, Kind::Json | Kind::Binary) && shape.is_multivariate() {
        return Err(unsuited("a model of several series together is asked through json or binary"));
    }
    match ask.kind {
        Kind::Stream if shape.has_exogenous() => {
            Err(unsuited("ticks without exogenous columns make no windows for it"))
        }
        Kind::Stream if ask.rows > 1 => Err(unsuited("a tick makes one window")),
        Kind::Neural if ask.symbols.is_empty() => Err(unsuited("symbols are needed")),
        Kind::Stream => Ok(false),
        _ => Ok(true),
    }
}

fn request(target: &Target, shape: &Shape, ask: &Ask, random: &mut SmallRng, place: usize) -> Vec<u8> {
    let tensors = || -> Vec<Vec<f32>> {
        let mut tensors = vec![walks(random, ask.rows, &shape.inputs[0].dims)];
        for input in &shape.inputs[1..] {
            tensors.push((0..ask.rows * input.row_len()).map(|_| random.random_range(-0.5..0.5)).collect());
        }
        tensors
    };
    let mut tensors = tensors;
    let v2 = format!("/v2/models/{}/infer", shape.model);
    let (path, body, extra) = match ask.kind {
        Kind::Json => (v2, json(shape, ask, &tensors()), String::new()),
        Kind::Binary => {
            let (body, head_len) = binary(shape, ask, &tensors());
            (v2, body, format!("Inference-Header-Content-Length: {head_len}\r\n"))
        }
        Kind::Native => ("/v1/forecast".to_owned(), native(shape, ask, &tensors()), String::new()),
        Kind::Neural | Kind::Stream => {
            let path = if ask.rows > 1 { "/neural/batch_predict" } else { "/neural/predict" };
            (path.to_owned(), neural(shape, ask, place), String::new())
        }
    };
    let content = if ask.kind == Kind::Binary { "application/octet-stream" } else { "application/json" };
    let fields = target.fields();
    let head = format!(
        "POST {path} HTTP/1.1\r\n{fields}Content-Type: {content}\r\n{extra}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// Random walks that come back to −2, as logarithms of volatility do; several series beside each other.
fn walks(random: &mut SmallRng, rows: usize, dims: &[usize]) -> Vec<f32> {
    let series: usize = dims[1..].iter().product();
    let mut levels = vec![-2.0_f32; series];
    let mut values = Vec::with_capacity(rows * dims[0] * series);
    for _ in 0..rows * dims[0] {
        for level in &mut levels {
            *level = 0.95 * *level - 0.1 + random.random_range(-0.5..0.5);
            values.push(*level);
        }
    }
    values
}

fn json(shape: &Shape, ask: &Ask, tensors: &[Vec<f32>]) -> Vec<u8> {
    let mut text = format!("{{{}\"inputs\":[", parameters(ask, false));
    for (at, (input, values)) in shape.inputs.iter().zip(tensors).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{{{},\"data\":", described(&input.name, ask.rows, &input.dims));
        list(&mut text, values);
        text.push('}');
    }
    text.push_str("]}");
    text.into_bytes()
}

fn binary(shape: &Shape, ask: &Ask, tensors: &[Vec<f32>]) -> (Vec<u8>, usize) {
    let mut head = format!("{{{}\"inputs\":[", parameters(ask, true));
    for (at, (input, values)) in shape.inputs.iter().zip(tensors).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let described = described(&input.name, ask.rows, &input.dims);
        let _ = write!(
            head,
            "{comma}{{{described},\"parameters\":{{\"binary_data_size\":{}}}}}",
            4 * values.len()
        );
    }
    head.push_str("]}");
    let (mut body, head_len) = (head.clone().into_bytes(), head.len());
    body.extend(tensors.iter().flatten().flat_map(|value| value.to_le_bytes()));
    (body, head_len)
}

fn parameters(ask: &Ask, binary: bool) -> String {
    let timeout = ask.deadline.map(|deadline| format!("\"timeout\":{}", deadline.as_micros()));
    let output = binary.then(|| "\"binary_data_output\":true".to_owned());
    let all: Vec<String> = timeout.into_iter().chain(output).collect();
    if all.is_empty() { String::new() } else { format!("\"parameters\":{{{}}},", all.join(",")) }
}

fn described(name: &str, rows: usize, dims: &[usize]) -> String {
    let dims: String = dims.iter().map(|dim| format!(",{dim}")).collect();
    format!("\"name\":{},\"datatype\":\"FP32\",\"shape\":[{rows}{dims}]", Text(name))
}

fn native(shape: &Shape, ask: &Ask, tensors: &[Vec<f32>]) -> Vec<u8> {
    let mut text = format!("{{\"model\":{}", Text(&shape.model));
    if let Some(deadline) = ask.deadline {
        let _ = write!(text, ",\"deadline_ms\":{}", deadline.as_millis().max(1));
    }
    text.push_str(",\"series\":[");
    for row in 0..ask.rows {
        let comma = if row == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{{\"id\":\"bench-{row}\"");
        for (input, values) in shape.inputs.iter().zip(tensors) {
            let name = if input.name == shape.inputs[0].name { "values" } else { &input.name };
            let _ = write!(text, ",{}:", Text(name));
            list(&mut text, &values[row * input.row_len()..(row + 1) * input.row_len()]);
        }
        text.push('}');
    }
    text.push_str("]}");
    text.into_bytes()
}

fn neural(shape: &Shape, ask: &Ask, place: usize) -> Vec<u8> {
    let symbol = |row: usize| Text(&ask.symbols[(place * ask.rows + row) % ask.symbols.len()]).to_string();
    let model = Text(&shape.model);
    if ask.rows == 1 {
        return format!("{{\"model\":{model},\"symbol\":{}}}", symbol(0)).into_bytes();
    }
    let symbols: Vec<String> = (0..ask.rows).map(symbol).collect();
    format!("{{\"model\":{model},\"symbols\":[{}]}}", symbols.join(",")).into_bytes()
}

fn list(text: &mut String, values: &[f32]) {
    text.push('[');
    for (at, value) in values.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{value}");
    }
    text.push(']');
}

/// A JSON string.
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", serde_json::Value::from(self.0))
    }
}

#[cfg(test)]
#[path = "tests/request.rs"]
mod tests;
