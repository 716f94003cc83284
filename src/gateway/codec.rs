//! Reading an inference request and printing its answer without a server around them: what `benches/` times.

use peregrine_shaders::{ModelSpec, Windows};

use super::v2::parse::infer_request;
use super::v2::print::{Answer, answer};

/// The windows of an inference body; `json_len` is `Inference-Header-Content-Length` where tensors are binary.
///
/// # Errors
/// What the caller would be told.
pub fn read(body: &[u8], json_len: Option<usize>, spec: &ModelSpec) -> Result<Windows, String> {
    let header = json_len.map(|len| len.to_string());
    infer_request(body, header.as_deref(), spec).map(|request| request.windows).map_err(|bad| bad.to_string())
}

/// The body that answers with `values` (`[rows, h, C]`).
#[must_use]
pub fn print(spec: &ModelSpec, values: &[f32], binary: bool) -> Vec<u8> {
    let whole = Answer {
        id: None,
        spec,
        version: 1,
        backend: "cpu",
        node: None,
        prediction: None,
        degraded: false,
        values,
    };
    answer(&whole, binary).body
}
