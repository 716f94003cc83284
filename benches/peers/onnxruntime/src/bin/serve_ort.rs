//! An inference server as a user of actix-web and ONNX Runtime would write it, for comparison with peregrine.
//!
//! `serve_ort GRAPH.onnx NAME ADDRESS` answers `POST /v2/models/NAME/infer` (JSON or the binary tensor extension) for
//! a model `y [B, L]` → `forecast [B, h]` under a standard scaler. One thread owns the session: it takes what is queued,
//! up to 1,024 windows, runs them as one batch and answers each. No statistics, no deadlines, no supervision.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data, Path, PayloadConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use peer_onnxruntime::{Network, environment};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

const BATCH_ROWS_MAX: usize = 1024;
const QUEUE_JOBS_MAX: usize = 8192;
const BODY_BYTES_MAX: usize = 64 << 20;
const HEADER: &str = "Inference-Header-Content-Length";

#[derive(Deserialize)]
struct InferRequest {
    id: Option<String>,
    inputs: Vec<InputTensor>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize)]
struct InputTensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default)]
    data: Vec<f32>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
    #[serde(default)]
    binary_data_output: bool,
}

#[derive(Serialize)]
struct InferResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    model_name: &'a str,
    model_version: &'a str,
    outputs: [OutputTensor<'a>; 1],
}

#[derive(Serialize)]
struct OutputTensor<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: [usize; 3],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<SizeParameter>,
}

#[derive(Serialize)]
struct SizeParameter {
    binary_data_size: usize,
}

/// Scaled windows of one request and where the network's outputs go.
struct Job {
    rows: usize,
    y: Vec<f32>,
    reply: oneshot::Sender<Result<Vec<f32>, String>>,
}

struct Model {
    name: String,
    jobs: SyncSender<Job>,
}

#[derive(Debug)]
struct Refused(StatusCode, String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl actix_web::ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.0
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.0).json(serde_json::json!({ "error": self.1 }))
    }
}

fn bad(message: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message.into())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [graph, name, address] = <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: serve_ort GRAPH.onnx NAME ADDRESS")?;
    let environment = environment()?;
    let network = Network::open(&environment, graph.as_ref(), 1)?;
    let (jobs, queue) = sync_channel(QUEUE_JOBS_MAX);
    std::thread::Builder::new().name("batcher".into()).spawn(move || batch_loop(network, &queue))?;
    let model = Data::new(Model { name, jobs });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(model.clone())
            .app_data(PayloadConfig::new(BODY_BYTES_MAX))
            .route("/v2/models/{model}/infer", web::post().to(infer))
    })
    .workers(2)
    .bind(&address)?;
    println!("ready http://{address}");
    server.run().await?;
    Ok(())
}

/// Batches form while the session is busy; a lone request leaves at once.
fn batch_loop(mut network: Network, queue: &Receiver<Job>) {
    let (mut batch, mut y, mut held): (Vec<Job>, Vec<f32>, Option<Job>) = (Vec::new(), Vec::new(), None);
    while let Some(first) = held.take().or_else(|| queue.recv().ok()) {
        let mut rows = first.rows;
        batch.push(first);
        while let Ok(job) = queue.try_recv() {
            if rows + job.rows > BATCH_ROWS_MAX {
                held = Some(job);
                break;
            }
            rows += job.rows;
            batch.push(job);
        }
        y.clear();
        batch.iter().for_each(|job| y.extend_from_slice(&job.y));
        let answer = network.run(rows, &y, |mut data| {
            let width = data.len() / rows;
            for job in batch.drain(..) {
                let (own, rest) = data.split_at(job.rows * width);
                data = rest;
                let _ = job.reply.send(Ok(own.to_vec()));
            }
        });
        if let Err(error) = answer {
            for job in batch.drain(..) {
                let _ = job.reply.send(Err(error.to_string()));
            }
        }
    }
}

async fn infer(
    request: HttpRequest,
    name: Path<String>,
    body: Bytes,
    model: Data<Model>,
) -> Result<HttpResponse, Refused> {
    if *name != model.name {
        return Err(Refused(StatusCode::NOT_FOUND, format!("unknown model `{name}`")));
    }
    let (head, tail) = split(&request, &body)?;
    let parsed: InferRequest = serde_json::from_slice(head).map_err(|error| bad(error.to_string()))?;
    let [input] = <[InputTensor; 1]>::try_from(parsed.inputs).map_err(|_| bad("one input is expected"))?;
    let mut y = input.data;
    if let Some(size) = input.parameters.binary_data_size {
        if size != tail.len() {
            return Err(bad("binary_data_size does not fit the body"));
        }
        y = tail.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    }
    let [rows, window] = input.shape[..] else {
        return Err(bad("`y` has two dimensions"));
    };
    if input.name != "y" || input.datatype != "FP32" || rows == 0 || rows.checked_mul(window) != Some(y.len())
    {
        return Err(bad("`y` is FP32 [B, L]"));
    }
    let scales: Vec<(f64, f64)> = y.chunks_exact_mut(window).map(scale).collect();
    if scales.iter().any(|(a, s)| !(a.is_finite() && s.is_finite())) {
        return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, "`y` is not finite".into()));
    }
    let (reply, answer) = oneshot::channel();
    model.jobs.try_send(Job { rows, y, reply }).map_err(|refusal| match refusal {
        TrySendError::Full(_) => Refused(StatusCode::TOO_MANY_REQUESTS, "overloaded".into()),
        TrySendError::Disconnected(_) => Refused(StatusCode::SERVICE_UNAVAILABLE, "stopped".into()),
    })?;
    let mut forecast = answer
        .await
        .map_err(|_| Refused(StatusCode::SERVICE_UNAVAILABLE, "stopped".into()))?
        .map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let width = forecast.len() / rows;
    for (row, (a, s)) in forecast.chunks_exact_mut(width).zip(scales) {
        row.iter_mut().for_each(|z| *z = (f64::from(*z) * s + a) as f32);
    }
    Ok(respond(&model.name, parsed.id, rows, &forecast, parsed.parameters.binary_data_output))
}

/// The JSON part of a body and the bytes behind it.
fn split<'a>(request: &HttpRequest, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Refused> {
    let Some(header) = request.headers().get(HEADER) else {
        return Ok((body, &[]));
    };
    let length = header.to_str().ok().and_then(|text| text.parse().ok());
    length.and_then(|length| body.split_at_checked(length)).ok_or_else(|| bad("bad header length"))
}

/// Scales a window in place and returns shift and scale: mean and population deviation, in f64.
fn scale(y: &mut [f32]) -> (f64, f64) {
    let n = y.len() as f64;
    let a = y.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let s = (y.iter().map(|&v| (f64::from(v) - a).powi(2)).sum::<f64>() / n).sqrt();
    let s = if s == 0.0 { 1.0 } else { s } + 1e-6;
    y.iter_mut().for_each(|v| *v = ((f64::from(*v) - a) / s) as f32);
    (a, s)
}

fn respond(name: &str, id: Option<String>, rows: usize, forecast: &[f32], binary: bool) -> HttpResponse {
    let bytes: Vec<u8> =
        if binary { forecast.iter().flat_map(|v| v.to_le_bytes()).collect() } else { Vec::new() };
    let parameters = binary.then_some(SizeParameter { binary_data_size: bytes.len() });
    let shape = [rows, forecast.len() / rows, 1];
    let data = (!binary).then_some(forecast);
    let output = OutputTensor { name: "forecast", datatype: "FP32", shape, data, parameters };
    let response = InferResponse { id, model_name: name, model_version: "1", outputs: [output] };
    if !binary {
        return HttpResponse::Ok().json(response);
    }
    let mut body = serde_json::to_vec(&response).unwrap_or_default();
    let head_len = body.len();
    body.extend_from_slice(&bytes);
    HttpResponse::Ok().insert_header((HEADER, head_len)).content_type("application/octet-stream").body(body)
}
