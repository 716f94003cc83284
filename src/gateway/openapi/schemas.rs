//! What bodies look like: a JSON schema for each name in the table of operations.

use serde_json::{Value, json};

/// All of them, by name.
pub(super) fn schemas() -> Value {
    let mut all = forecast_schemas();
    for more in [live_schemas(), release_schemas(), record_schemas()] {
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
    }
    all
}

/// Of orders about versions.
fn release_schemas() -> Value {
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties });
    let version = json!({ "type": ["integer", "string"], "minimum": 1, "pattern": "^0*[1-9][0-9]*$" });
    let part = json!({ "type": "number", "minimum": 0, "maximum": 1 });
    let ratio = json!({ "type": "number", "exclusiveMinimum": 0 });
    json!({
        "Split": object(&["weights"], json!({
            "weights": { "type": "object", "maxProperties": 16, "description": "by version; requests without a version that \
                name a series (or come with an API key) keep theirs",
                "additionalProperties": { "type": "integer", "minimum": 0, "maximum": 1_000_000 } },
        })),
        "Canary": object(&["version", "steps"], json!({
            "version": version,
            "steps": { "type": "array", "minItems": 1, "maxItems": 32, "description": "percent, rising",
                "items": { "type": "number", "minimum": 0.01, "maximum": 100 } },
            "hold_ms": { "type": "integer", "minimum": 0, "maximum": 604_800_000, "description": "a step lasts at least this long; 60000" },
            "limits": object(&[], json!({
                "requests_min": { "type": "integer", "minimum": 1, "description": "of a step, to the canary; 100" },
                "error_share": part, "p95_ratio": ratio,
                "score_ratio": { "type": ["number", "null"], "exclusiveMinimum": 0, "description":
                    "error of its predictions by that of the stable version's, as the scorecard has them; given, a step \
                     waits for scores; left out, 1.2 where the stable version is scored; null: not compared" },
            })),
        })),
        "Shadow": object(&[], json!({
            "version": version, "share": part,
            "tolerance": { "type": "number", "minimum": 0, "description": "a part of the largest value; 0.0001" },
        })),
        "Promote": object(&[], json!({ "version": version })),
        "Unloaded": { "type": "object", "required": ["name", "state", "versions"], "properties": {
            "name": { "type": "string" },
            "state": { "enum": ["ready", "unavailable"], "description": "of the model from now on" },
            "versions": { "type": "array", "items": { "type": "string" }, "description": "that go on serving" },
        } },
        "Released": { "type": "object", "required": ["name", "release"], "properties": {
            "name": { "type": "string" },
            "release": { "type": ["object", "null"], "description": "null: the highest version answers" },
            "kept": { "type": "boolean", "description": "with models.releases: whether a restart will find it so" },
        } },
    })
}

/// Of ticks and series.
fn live_schemas() -> Value {
    let numbers = json!({ "type": "array", "items": { "type": "number" } });
    let text = json!({ "type": "string" });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let list = |items: Value| json!({ "type": "array", "items": items });
    json!({
        "Tick": object(&["series", "ts", "value"], json!({
            "series": { "type": "string", "description": "1 to 128 bytes, no control characters, no `*`" },
            "ts": { "type": ["number", "string"], "description": "milliseconds since 1970, or an RFC 3339 time; what looks like seconds is refused" },
            "value": { "type": ["number", "null"], "description": "null: nothing was seen" },
            "hist_exog": { "type": "object", "additionalProperties": { "type": "number" } },
            "futr_exog": { "type": "object", "description": "of that moment, and of the steps after it", "additionalProperties": numbers },
            "stat_exog": { "type": "object", "additionalProperties": { "type": "number" } },
        })),
        "Ticked": object(&["ticks", "advanced", "failed"], json!({
            "ticks": { "type": "integer" }, "advanced": { "type": "integer" }, "inserted": { "type": "integer" },
            "duplicate": { "type": "integer" }, "conflict": { "type": "integer" }, "too_late": { "type": "integer" },
            "failed": { "type": "integer" },
            "results": list(json!({ "type": "object", "description": "effect and seq, or error and detail" })),
        })),
        "SeriesList": object(&["series", "silent", "complete"], json!({
            "series": list(object(&["series", "seq", "kept", "first_ts", "last_ts"], json!({
                "series": text, "seq": { "type": "integer" }, "kept": { "type": "integer" },
                "first_ts": { "type": "number" }, "last_ts": { "type": "number" },
            }))),
            "next": text, "silent": list(text.clone()),
            "complete": { "type": "boolean", "description": "whether every shard had an owner that answered" },
        })),
        "Series": object(&["series", "seq", "first_seq", "ticks"], json!({
            "series": text, "seq": { "type": "integer" }, "first_seq": { "type": "integer" },
            "ticks": list(object(&["ts", "value"], json!({
                "ts": { "type": "number" }, "value": { "type": ["number", "null"] },
            }))),
        })),
    })
}

/// Of recorded predictions; what is not required is left out where there is none.
fn record_schemas() -> Value {
    let [text, flag] = ["string", "boolean"].map(|kind| json!({ "type": kind }));
    let [number, count] = ["number", "integer"].map(|kind| json!({ "type": kind }));
    let numbers = json!({ "type": "array", "items": number });
    let time = json!({ "type": "integer", "description": "milliseconds since 1970" });
    let row = json!({ "type": "object", "required": ["prediction_id", "y", "forecast"], "properties": {
        "prediction_id": text, "series": text, "seq": count, "epoch": count,
        "y": numbers, "mask": numbers, "hist_exog": numbers, "futr_exog": numbers, "stat_exog": numbers,
        "forecast": { "type": "array", "items": number, "description": "all columns of the model, step by step" },
    } });
    json!({ "Record": {
        "type": "object",
        "required": [
            "segment", "at", "intact", "at_ms", "request", "caller", "model", "model_version", "sha256", "precision",
            "backend", "degraded", "node", "region", "remote", "timing_ms", "batch_rows", "window_sha256", "rows_count",
            "rows",
        ],
        "properties": {
            "segment": count, "at": count, "intact": flag, "at_ms": time, "request": text, "caller": text,
            "model": text, "model_version": text, "sha256": text,
            "precision": { "type": "string", "enum": ["f32", "f16", "int8"], "description": "of its matrices" },
            "backend": text, "degraded": flag, "node": text, "region": text, "remote": flag,
            "timing_ms": { "type": "object", "required": ["queue", "compute", "total"],
                "properties": { "queue": number, "compute": number, "total": number } },
            "batch_rows": count,
            "window_sha256": { "type": "string", "description": "of all windows of the request" },
            "rows_count": { "type": "integer", "description": "of the request" },
            "rows": { "type": "array", "items": row, "description": "those that were asked for" },
            "others": { "type": "array", "minItems": 1, "maxItems": 100, "items": text, "description":
                "prediction_ids of older records of the same name, one of each; left out where there is none" },
        },
    } })
}

/// Of forecasts, models and the node.
fn forecast_schemas() -> Value {
    let numbers = json!({ "type": "array", "items": { "type": "number" } });
    let nested = json!({ "type": "array", "description": "flat, or nested as the shape says" });
    let crossed = json!({ "const": true, "description": "quantiles cross in it; else left out" });
    let text = json!({ "type": "string" });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let tensor = object(
        &["name", "datatype", "shape"],
        json!({
            "name": text, "datatype": { "const": "FP32" }, "shape": list(json!({ "type": "integer" })),
            "parameters": { "type": "object" }, "data": nested,
        }),
    );
    let prediction = json!({
        "symbol": text, "prediction_id": text, "prediction": numbers, "lower": numbers, "upper": numbers,
        "confidence_level": { "type": "number" }, "latency_ms": { "type": "number" },
        "timestamp": { "type": "integer", "description": "milliseconds since 1970" },
        "gpu_utilized": { "type": "boolean" }, "model": text, "model_version": text, "backend": text, "node": text, "degraded": { "type": "boolean" },
    });
    json!({
        "Configuration": { "type": "object", "description": "by key; secrets are redacted",
            "additionalProperties": object(&["value", "origin"], json!({ "value": {}, "origin": text })) },
        "ConfigurationText": { "type": "string", "description": "a layer of TOML, as in a configuration file" },
        "Changed": object(&["changed"], json!({ "changed": list(text.clone()) })),
        "Any": { "type": "object" },
        "Live": object(&["live"], json!({ "live": { "type": "boolean" } })),
        "ServerReady": object(&["ready"], json!({ "live": { "type": "boolean" }, "ready": { "type": "boolean" } })),
        "ModelReady": object(&["name", "ready"], json!({ "name": text, "ready": { "type": "boolean" } })),
        "ServerMetadata": object(&["name", "version", "extensions"],
            json!({ "name": text, "version": text, "extensions": list(text.clone()) })),
        "ModelMetadata": object(&["name", "platform", "inputs", "outputs"], json!({
            "name": text, "versions": list(text.clone()), "platform": text,
            "inputs": list(tensor.clone()), "outputs": list(tensor.clone()),
        })),
        "InferRequest": object(&["inputs"], json!({
            "id": text, "parameters": { "type": "object", "properties": {
                "timeout": { "type": "integer", "minimum": 0, "description":
                    "microseconds until an answer is worth nothing; 0: the default" },
                "binary_data_output": { "type": "boolean" },
            } },
            "inputs": list(tensor.clone()),
            "outputs": list(object(&["name"], json!({ "name": { "const": "forecast" }, "parameters": { "type": "object" } }))),
        })),
        "InferResponse": object(&["model_name", "outputs"], json!({
            "id": text, "model_name": text, "model_version": text,
            "parameters": object(&["backend", "degraded"], json!({
                "backend": text, "node": text, "degraded": { "type": "boolean" }, "crossed": crossed,
                "prediction_id": { "type": "string", "description": "of the first row, where predictions are recorded" },
            })),
            "outputs": list(tensor),
        })),
        "Statistics": object(&["model_stats"], json!({ "model_stats": list(json!({ "type": "object" })) })),
        "IndexRequest": object(&[], json!({ "ready": { "type": "boolean" } })),
        "Index": list(object(&["name", "state"], json!({
            "name": text, "version": text, "reason": text,
            "state": { "enum": ["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"] },
        }))),
        "ForecastRequest": object(&["series"], json!({
            "model": { "type": "string", "description": "default: the configured one" },
            "version": { "type": ["integer", "string"], "minimum": 1, "pattern": "^0*[1-9][0-9]*$" },
            "series": { "type": "array", "minItems": 1, "items": object(&[], json!({
                "id": text,
                "values": { "type": "array", "items": { "type": "number" }, "description": "the model's window, oldest first" },
                "symbol": { "type": "string", "description": "instead of values: a series of this node" },
                "mask": numbers, "hist_exog": nested, "futr_exog": nested, "stat_exog": numbers,
            })) },
            "horizon": { "type": "integer", "minimum": 1 },
            "levels": { "type": "array", "maxItems": 32,
                "items": { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100 } },
            "deadline_ms": { "type": "integer", "minimum": 1 },
        })),
        "Forecasts": object(&["model", "forecasts"], json!({
            "model": text, "model_version": text, "horizon": { "type": "integer" },
            "forecasts": list(object(&["id", "prediction_id", "intervals", "backend", "degraded"], json!({
                "id": text, "prediction_id": text, "mean": numbers, "median": numbers,
                "intervals": list(object(&["level", "lo", "hi"],
                    json!({ "level": { "type": "number" }, "lo": numbers, "hi": numbers }))),
                "quantiles": { "type": "object", "additionalProperties": numbers, "description":
                    "by level, those of no interval that are not the median; left out: there are none" },
                "crossed": crossed,
                "model_version": text, "backend": text, "node": text, "degraded": { "type": "boolean" }, "region": text,
                "timing_ms": object(&["queue", "compute", "transfer", "total"], json!({
                    "queue": { "type": "number" }, "compute": { "type": "number" },
                    "transfer": { "type": "number" }, "total": { "type": "number" },
                })),
                "batch_rows": { "type": "integer" },
            }))),
        })),
        "Model": object(&["name", "version", "state"], json!({
            "name": text, "version": text, "family": text, "window": { "type": "integer" },
            "state": { "enum": ["ready", "loading", "remote", "unavailable"], "description":
                "unavailable: a repository holds it, it is not served, and what follows is left out" },
            "reason": { "type": "string", "description": "why it was refused" },
            "series": { "type": "integer" },
            "horizon": { "type": "integer" }, "columns": list(text.clone()), "hist_exog": list(text.clone()),
            "futr_exog": list(text.clone()), "stat_exog": list(text.clone()),
            "weight_bytes": { "type": "integer" }, "sha256": text,
            "precision": { "type": "string", "enum": ["f32", "f16", "int8"], "description": "of its matrices" },
            "release": { "type": "object", "description": "who answers requests that name no version, and why" },
        })),
        "Predict": object(&["symbol"], json!({
            "symbol": text, "horizon": { "type": "integer", "minimum": 1 },
            "confidence_level": { "type": "number" }, "model": text,
        })),
        "BatchPredict": object(&["symbols"], json!({
            "symbols": list(text.clone()), "horizon": { "type": "integer", "minimum": 1 },
            "confidence_level": { "type": "number" }, "model": text,
        })),
        "Prediction": object(&["symbol", "prediction", "latency_ms", "timestamp", "gpu_utilized", "model"], prediction.clone()),
        "Predictions": object(&["predictions", "total_latency_ms", "avg_latency_ms", "symbols_count", "timestamp"], json!({
            "predictions": list(object(&["symbol", "prediction", "gpu_utilized", "model"], prediction)),
            "total_latency_ms": { "type": "number" }, "avg_latency_ms": { "type": "number" },
            "symbols_count": { "type": "integer" }, "timestamp": { "type": "integer" },
        })),
        "Problem": object(&["type", "title", "status", "detail"], json!({
            "type": text, "title": text, "status": { "type": "integer" }, "detail": text,
            "series": text, "index": { "type": "integer" },
            "mistakes": list(text.clone()), "keys": list(text.clone()), "room": text, "scopes": list(text.clone()),
        })),
        "ProtocolError": object(&["error"], json!({ "error": text })),
    })
}
