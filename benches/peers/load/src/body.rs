//! Whole HTTP requests, built once, and the answers they should get.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::args::Args;

const BODIES_MAX: usize = 256;

/// How tensors travel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Binary,
}

/// One request on the wire and the numbers that answer it.
pub(crate) struct Body {
    pub(crate) request: Vec<u8>,
    /// `[rows, horizon]`, computed in f64 by whoever made the cases.
    pub(crate) expected: Vec<f32>,
}

/// As many different bodies as the cases allow, up to 256.
pub(crate) fn prepare(args: &Args) -> Result<Vec<Body>, String> {
    let windows = read_f32(&args.cases.join("windows.f32")).map_err(|error| error.to_string())?;
    let expected = read_f32(&args.cases.join("expected.f32")).map_err(|error| error.to_string())?;
    let (window_len, answer_len) = (args.rows * args.window, args.rows * args.horizon);
    let bodies: Vec<Body> = windows
        .chunks_exact(window_len)
        .zip(expected.chunks_exact(answer_len))
        .take(BODIES_MAX)
        .map(|(y, expected)| Body { request: request(args, y), expected: expected.to_vec() })
        .collect();
    if bodies.is_empty() { Err(format!("{} holds too few cases", args.cases.display())) } else { Ok(bodies) }
}

fn request(args: &Args, y: &[f32]) -> Vec<u8> {
    let (rows, window) = (args.rows, args.window);
    let tensor = format!(r#""name":"y","datatype":"FP32","shape":[{rows},{window}]"#);
    let mut extra = String::new();
    let body = match args.encoding {
        Encoding::Json => {
            let mut text = format!(r#"{{"inputs":[{{{tensor},"data":["#);
            for (index, value) in y.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(text, "{comma}{value}");
            }
            text.push_str("]}]}");
            text.into_bytes()
        }
        Encoding::Binary => {
            let size = size_of_val(y);
            let head = format!(
                r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{{tensor},"parameters":{{"binary_data_size":{size}}}}}]}}"#
            );
            let _ = write!(extra, "Inference-Header-Content-Length: {}\r\n", head.len());
            let mut body = head.into_bytes();
            body.extend(y.iter().flat_map(|value| value.to_le_bytes()));
            body
        }
    };
    let kind = if args.encoding == Encoding::Json { "application/json" } else { "application/octet-stream" };
    let mut request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\n{extra}Content-Length: {}\r\n\r\n",
        args.path,
        args.address,
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

fn read_f32(path: &Path) -> io::Result<Vec<f32>> {
    let bytes = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
