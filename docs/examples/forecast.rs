//! Asks a node for one forecast in JSON, and for many at once over binary tensors.

use std::error::Error;

use serde_json::{Value, json};

const MODEL: &str = "nhits-168x24-quantile";
const WINDOW: usize = 168;

fn main() -> Result<(), Box<dyn Error>> {
    let node = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    let question = json!({
        "model": MODEL,
        "series": [{ "id": "usd", "symbol": "USD" }],
        "levels": [80],
        "deadline_ms": 2000,
    });
    let mut response = ureq::post(format!("http://{node}/v1/forecast"))
        .content_type("application/json")
        .send(question.to_string())?;
    let answer: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
    let usd = &answer["forecasts"][0];
    let (low, high) = (&usd["intervals"][0]["lo"][0], &usd["intervals"][0]["hi"][0]);
    println!("usd tomorrow: {} ({low} to {high}), by {}", usd["median"][0], usd["backend"]);

    // A thousand windows: a JSON head, then the numbers as they lie in memory.
    let windows: Vec<f32> = (0..1000 * WINDOW).map(|at| -3.0 + (at % 17) as f32 / 50.0).collect();
    let numbers: Vec<u8> = windows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let head = json!({
        "inputs": [{
            "name": "y", "shape": [1000, WINDOW], "datatype": "FP32",
            "parameters": { "binary_data_size": numbers.len() },
        }],
        "outputs": [{ "name": "forecast", "parameters": { "binary_data": true } }],
    })
    .to_string();
    let mut response = ureq::post(format!("http://{node}/v2/models/{MODEL}/infer"))
        .header("Inference-Header-Content-Length", head.len().to_string())
        .content_type("application/octet-stream")
        .send(&[head.as_bytes(), &numbers].concat()[..])?;
    let head_len = response.headers().get("Inference-Header-Content-Length").ok_or("no binary answer")?;
    let head_len: usize = head_len.to_str()?.parse()?;
    let body = response.body_mut().read_to_vec()?;
    let head: Value = serde_json::from_slice(&body[..head_len])?;
    let forecasts: Vec<f32> =
        body[head_len..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    println!("{} numbers of shape {}", forecasts.len(), head["outputs"][0]["shape"]);
    Ok(())
}
