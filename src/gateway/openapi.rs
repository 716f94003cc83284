//! `GET /openapi.json`: OpenAPI 3.1 of every route that exists, from one table; `GET /docs`: a browser for it that
//! needs nothing from outside.

use actix_web::HttpResponse;
use actix_web::web;
use serde_json::{Map, Value, json};

use super::{get, guard};
use crate::config::Scope;
use crate::security::Scopes;

const DOCS: &str = include_str!("docs.html");

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/openapi.json", openapi);
    get(config, "/docs", docs);
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().json(document())
}

async fn docs() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("content-type", "text/html; charset=utf-8"))
        .insert_header(("content-security-policy", "default-src 'self' 'unsafe-inline'"))
        .body(DOCS)
}

/// One operation: method, path, tag, summary, request schema, answer schema, further statuses.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    tag: &'static str,
    summary: &'static str,
    request: Option<&'static str>,
    answer: &'static str,
    refusals: &'static [u16],
}

const fn operation(
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    request: Option<&'static str>,
    answer: &'static str,
    refusals: &'static [u16],
) -> Operation {
    Operation { method, path, tag, summary, request, answer, refusals }
}

const FORECASTING: &[u16] = &[400, 404, 408, 413, 415, 422, 429, 503, 504];
const NAMED: &[u16] = &[400, 404];
/// It may be another node's, which is away or slow.
const LOCATED: &[u16] = &[400, 404, 503, 504];
/// A body is read, to be refused.
const BODILESS: &[u16] = &[400, 404, 408, 413, 415, 429];
const ORDERS: &[u16] = &[400, 404, 408, 409, 413, 415, 429, 503];
const WEBSOCKET: &[u16] = &[400, 426, 503];
const READY: &[u16] = &[503];
const V2: &str = "open inference protocol";
const V1: &str = "native";
const OLD: &str = "compatibility";
const OBSERVE: &str = "observe";

/// Everything that is served. A test asks each of them.
pub(super) const OPERATIONS: &[Operation] = &[
    operation("get", "/v2", V2, "Server metadata", None, "ServerMetadata", &[]),
    operation("get", "/v2/health/live", V2, "Can the process answer at all", None, "Live", READY),
    operation("get", "/v2/health/ready", V2, "Can every model answer", None, "ServerReady", READY),
    operation("get", "/v2/models/stats", V2, "Statistics of all models", None, "Statistics", &[]),
    operation("get", "/v2/models/{model}", V2, "Model metadata", None, "ModelMetadata", LOCATED),
    operation("get", "/v2/models/{model}/ready", V2, "Does the model serve", None, "ModelReady", LOCATED),
    operation("get", "/v2/models/{model}/config", V2, "Model configuration", None, "Any", LOCATED),
    operation("get", "/v2/models/{model}/stats", V2, "Statistics of a model", None, "Statistics", LOCATED),
    operation(
        "post",
        "/v2/models/{model}/infer",
        V2,
        "Inference",
        Some("InferRequest"),
        "InferResponse",
        FORECASTING,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}",
        V2,
        "Version metadata",
        None,
        "ModelMetadata",
        LOCATED,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}/ready",
        V2,
        "Does it serve",
        None,
        "ModelReady",
        LOCATED,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}/config",
        V2,
        "Version configuration",
        None,
        "Any",
        LOCATED,
    ),
    operation(
        "get",
        "/v2/models/{model}/versions/{version}/stats",
        V2,
        "Its statistics",
        None,
        "Statistics",
        LOCATED,
    ),
    operation(
        "post",
        "/v2/models/{model}/versions/{version}/infer",
        V2,
        "Inference by a version",
        Some("InferRequest"),
        "InferResponse",
        FORECASTING,
    ),
    operation(
        "post",
        "/v2/repository/index",
        V2,
        "Models that could serve",
        Some("IndexRequest"),
        "Index",
        &[400],
    ),
    operation(
        "post",
        "/v2/repository/models/{model}/load",
        V2,
        "Load or reload",
        Some("Any"),
        "Nothing",
        &[400, 404, 409, 501, 503],
    ),
    operation("post", "/v2/repository/models/{model}/unload", V2, "Unload", Some("Any"), "Nothing", NAMED),
    operation(
        "post",
        "/v1/forecast",
        V1,
        "Forecast series",
        Some("ForecastRequest"),
        "Forecasts",
        FORECASTING,
    ),
    operation("get", "/v1/models", V1, "Models served and in the repositories", None, "Any", &[]),
    operation("get", "/v1/models/{model}", V1, "One model", None, "Model", LOCATED),
    operation(
        "post",
        "/v1/models/{model}/load",
        V1,
        "Load or reload what the repositories hold of it, and the ensembles that name it; a version whose folder is gone is unloaded",
        None,
        "Model",
        ORDERS,
    ),
    operation("post", "/v1/models/{model}/unload", V1, "Unload", None, "Any", BODILESS),
    operation(
        "post",
        "/v1/models/{model}/split",
        V1,
        "Versions answer by weight who names none; no weights: the highest version answers again",
        Some("Split"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/canary",
        V1,
        "A version gets more and more traffic, and becomes the stable one or is taken back",
        Some("Canary"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/shadow",
        V1,
        "A version is asked what others answer, and compared; without a version none is any more",
        Some("Shadow"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/promote",
        V1,
        "A version answers everything; the canary, unless one is named",
        Some("Promote"),
        "Released",
        ORDERS,
    ),
    operation(
        "post",
        "/v1/models/{model}/rollback",
        V1,
        "The stable version answers everything, or if it does already the one before it",
        None,
        "Released",
        ORDERS,
    ),
    operation("get", "/v1/config", V1, "Configuration in use, with origins", None, "Configuration", &[]),
    operation(
        "post",
        "/v1/config",
        V1,
        "Change keys until the next restart or SIGHUP: all of them or none",
        Some("ConfigurationText"),
        "Changed",
        &[400, 408, 409, 413, 415],
    ),
    operation("get", "/v1/breakers", V1, "Circuit breakers", None, "Any", &[]),
    operation(
        "post",
        "/v1/breakers",
        V1,
        "Decide about circuit breakers: auto, forced-open, disabled, metrics-only",
        Some("Any"),
        "Any",
        &[400, 404, 408, 409, 413, 415],
    ),
    operation(
        "get",
        "/v1/scaler/report",
        V1,
        "The fleet: what there is, what was decided and why, what it costs",
        None,
        "Any",
        &[503],
    ),
    operation(
        "post",
        "/v1/scaler/release",
        V1,
        "What the machines of a group are to run from now on; the former release stays ready to go back",
        Some("Any"),
        "Any",
        &[400, 408, 413, 415, 503],
    ),
    operation(
        "post",
        "/v1/ticks",
        V1,
        "Feed observations, one JSON object a line; 200 when all are safe; all may be sent again",
        Some("Tick"),
        "Ticked",
        &[400, 408, 413, 415, 422, 429, 503, 507],
    ),
    operation("get", "/v1/series/{name}", V1, "What is kept of a series", None, "Series", &[400, 404, 503]),
    operation(
        "get",
        "/v1/stream",
        V1,
        "Websocket: subscribe to predictions and feed ticks, in JSON or MessagePack",
        None,
        "Websocket",
        WEBSOCKET,
    ),
    operation("get", "/v1/echo", V1, "Websocket: says what it hears", None, "Websocket", WEBSOCKET),
    operation(
        "get",
        "/v1/scorecard",
        V1,
        "How good predictions were; ?model=&version=&series= choose, steps=true goes by step ahead",
        None,
        "Any",
        NAMED,
    ),
    operation("get", "/v1/alerts", V1, "What is wrong now, what was, and by which rules", None, "Any", &[]),
    operation(
        "get",
        "/v1/audit",
        V1,
        "Where the chain of recorded predictions ends: kept elsewhere, it shows whether that was rewritten",
        None,
        "Any",
        &[],
    ),
    operation(
        "get",
        "/v1/audit/{id}",
        V1,
        "A recorded prediction: by prediction_id, the id of a V2 request, or model/series#seq, escaped",
        None,
        "Any",
        &[404, 503],
    ),
    operation(
        "get",
        "/v1/overview",
        V1,
        "A node at one glance: rates, percentiles, models, devices, actors, alerts; ?node= asks another one",
        None,
        "Any",
        &[400, 404, 503, 504],
    ),
    operation(
        "get",
        "/v1/overview/stream",
        V1,
        "Websocket: the overview at once, then the newest of it every second, without the history",
        None,
        "Websocket",
        WEBSOCKET,
    ),
    operation("get", "/v1/cluster", V1, "Nodes of the cluster and what they serve", None, "Any", &[]),
    operation(
        "post",
        "/neural/predict",
        OLD,
        "Forecast a symbol",
        Some("Predict"),
        "Prediction",
        FORECASTING,
    ),
    operation(
        "post",
        "/neural/batch_predict",
        OLD,
        "Forecast symbols",
        Some("BatchPredict"),
        "Predictions",
        FORECASTING,
    ),
    operation("get", "/health", OBSERVE, "Health with reasons", None, "Any", READY),
    operation("get", "/health/live", OBSERVE, "Is the process worth keeping", None, "Live", READY),
    operation("get", "/health/ready", OBSERVE, "Can it answer", None, "Any", READY),
    operation("get", "/health/startup", OBSERVE, "Was it ready once", None, "Any", READY),
    operation("get", "/health/gpu", OBSERVE, "Is the GPU that was asked for up", None, "Any", READY),
    operation("get", "/health/cluster", OBSERVE, "Members and their state", None, "Any", READY),
    operation("get", "/status", OBSERVE, "Everything in one", None, "Any", &[]),
    operation(
        "get",
        "/metrics",
        OBSERVE,
        "Prometheus text, or OpenMetrics for who accepts it",
        None,
        "Text",
        &[],
    ),
    operation("get", "/metrics/gpu", OBSERVE, "Devices", None, "Any", &[]),
    operation("get", "/openapi.json", OBSERVE, "This document", None, "Any", &[]),
    operation("get", "/docs", OBSERVE, "A browser for this document", None, "Html", &[]),
    operation("get", "/", OBSERVE, "The dashboard; it needs no key, what it shows does", None, "Html", &[]),
    operation("get", "/dashboard/{file}", OBSERVE, "A file of that page", None, "File", &[404]),
];

/// What may stand behind `?`: path, name, type.
const QUERIES: &[(&str, &str, &str)] = &[
    ("/v1/ticks", "results", "boolean"),
    ("/v1/series/{name}", "last", "integer"),
    ("/v1/models/{model}", "version", "integer"),
    ("/v1/models/{model}/unload", "version", "integer"),
    ("/v1/scorecard", "model", "string"),
    ("/v1/scorecard", "version", "integer"),
    ("/v1/scorecard", "series", "string"),
    ("/v1/scorecard", "steps", "boolean"),
];

/// What is said over the stream.
const STREAM: &str = "\
    Every message is one object with `op`, in JSON text or, under `peregrine.v1.msgpack`, MessagePack.\n\n\
    Client: `subscribe` {id, model, series: [names, with `*` for any run of characters], levels?: [80], from?: the first \
    number wanted, for all series or by name, epoch?: of the number before it, snapshot?: true, conflate?: true}; \
    `unsubscribe` {id}; `ping` {id?}; `tick` {id?, series, ts, value, …} or {id?, ticks: […]}, as `POST /v1/ticks` takes them.\n\n\
    Server: `subscribed` {id, channel, model, retention, matched, next: the number by series that comes next, missing?: \
    by series that was named and has no prediction yet, the observations it is short of}; `snapshot` and \
    `prediction` {model, series, seq, epoch, ts: of the newest observation, accepted_at, made_at: milliseconds since 1970, \
    horizon, mean or median, intervals, model_version, backend, degraded, crossed?: true}; `gap` {model, series, from, to, reason: conflated | \
    expired | failed | lost}; `ticked` {id?, results}; `unsubscribed`; `pong`; `heartbeat`; `error` {id?, code, detail}; \
    `goodbye` {reconnect_after_ms, why}, before a close that was planned.\n\n\
    Of two predictions with one `seq` the higher `epoch` counts.";

pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for one in OPERATIONS {
        let path = paths.entry(one.path).or_insert_with(|| json!({}));
        path[one.method] = view(one);
    }
    let tags = [V2, V1, OLD, OBSERVE].map(|name| json!({ "name": name }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "peregrine",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": { "schemas": all_schemas(), "securitySchemes": {
            "bearer": { "type": "http", "scheme": "bearer", "description": "An API key; the scopes are what it must allow, one of them" },
            "key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
        } },
    })
}

fn view(one: &Operation) -> Value {
    let protocol = one.tag == V2;
    let in_path = ["model", "version", "name", "id", "file"]
        .into_iter()
        .filter(|name| one.path.contains(&format!("{{{name}}}")))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = QUERIES
        .iter()
        .filter(|(path, ..)| *path == one.path)
        .map(|(_, name, kind)| json!({ "name": name, "in": "query", "schema": { "type": kind } }));
    let urgency = (one.refusals == FORECASTING).then(|| {
        json!({ "name": "priority", "in": "header", "schema": { "type": "string" }, "description":
            "RFC 9218: u=0 to u=2 is refused last when there is too much, u=4 to u=7 first" })
    });
    let parameters: Vec<Value> = in_path.chain(in_query).chain(urgency).collect();
    let mut responses = Map::new();
    let content = match one.answer {
        "Nothing" => json!({}),
        "Html" => json!({ "text/html": { "schema": { "type": "string" } } }),
        "File" => ["text/javascript", "text/css", "image/svg+xml", "text/plain"]
            .map(|kind| (kind.to_owned(), json!({ "schema": { "type": "string" } })))
            .into_iter()
            .collect(),
        "Text" => json!({
            "text/plain": { "schema": { "type": "string" } },
            "application/openmetrics-text": { "schema": { "type": "string" } },
        }),
        "InferResponse" => json!({
            "application/json": { "schema": reference(one.answer) },
            "application/octet-stream": { "schema": { "type": "string", "contentEncoding": "binary" } },
        }),
        name => json!({ "application/json": { "schema": reference(name) } }),
    };
    if one.answer == "Websocket" {
        let protocols = json!({ "description": "peregrine.v1.json or peregrine.v1.msgpack. A browser, which can set no other \
                header, may offer its key too: peregrine.key. and the key in base64url without padding", "schema": { "type": "string" } });
        let headers = json!({ "Sec-WebSocket-Protocol": protocols });
        responses.insert("101".to_owned(), json!({ "description": "A websocket", "headers": headers }));
    } else {
        let mut done = json!({ "description": "Done", "content": content });
        if matches!(one.request, Some("InferRequest" | "ForecastRequest")) {
            done["headers"] = json!({ "fly-prefer-region": { "schema": { "type": "string" }, "description":
                "On Fly, of large bodies that crossed the cluster: send it with the next request of this kind" } });
        }
        responses.insert("200".to_owned(), done);
    }
    let needed = needed(one);
    let guarded: &[u16] = if needed == Scopes::NONE { &[] } else { &[401, 403, 429] };
    for status in one.refusals.iter().chain(guarded) {
        let (kind, schema) = if protocol {
            ("application/json", "ProtocolError")
        } else {
            ("application/problem+json", "Problem")
        };
        let mut response = json!({
            "description": meaning(*status),
            "content": { kind: { "schema": reference(schema) } },
        });
        if *status == 401 {
            response["headers"] = json!({ "WWW-Authenticate": { "schema": { "type": "string" } } });
        }
        if *status == 429 {
            response["headers"] =
                json!({ "Retry-After": { "description": "Seconds", "schema": { "type": "integer" } } });
        }
        responses.insert(status.to_string(), response);
    }
    let id = format!("{}{}", one.method, one.path.replace(['/', '{', '}', '.'], "_"));
    let mut view = json!({
        "operationId": id,
        "tags": [one.tag],
        "summary": one.summary,
        "parameters": parameters,
        "responses": responses,
        "security": security(needed),
    });
    if one.path == "/v1/stream" {
        view["description"] = STREAM.into();
    }
    if let Some(schema) = one.request {
        let required = matches!(schema, "InferRequest" | "ForecastRequest" | "ConfigurationText" | "Tick");
        let kind = match schema {
            "ConfigurationText" => "application/toml",
            "Tick" => "application/x-ndjson",
            _ => "application/json",
        };
        let mut content = json!({ kind: { "schema": reference(schema) } });
        if schema == "InferRequest" {
            content["application/octet-stream"] =
                json!({ "schema": { "type": "string", "contentEncoding": "binary" } });
            view["parameters"].as_array_mut().into_iter().for_each(|list| {
                list.push(json!({
                    "name": "Inference-Header-Content-Length",
                    "in": "header",
                    "description": "Bytes of JSON before raw tensors; 0: the body is one raw window",
                    "schema": { "type": "integer", "minimum": 0 },
                }));
            });
        }
        view["requestBody"] = json!({ "required": required, "content": content });
    }
    view
}

fn needed(one: &Operation) -> Scopes {
    let method = one.method.to_uppercase().parse().unwrap_or_default();
    // Braces are as good as names: a segment is a segment.
    guard::needed(&method, one.path).unwrap_or_default()
}

/// One of the scopes, by either header; or none, where the node is configured so.
fn security(needed: Scopes) -> Value {
    let one = |scope: Scope| [json!({ "bearer": [scope.name()] }), json!({ "key": [scope.name()] })];
    let mut ways: Vec<Value> = needed.iter().flat_map(one).collect();
    ways.push(json!({}));
    ways.into()
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "Malformed",
        401 => "An API key is needed, or this one is no good",
        403 => "The API key lacks a scope, or the page's origin is not welcome",
        404 => "Unknown model, version or symbol",
        409 => "It does not go with what is: nothing has changed",
        408 => "The body came too slowly",
        413 => "Too large",
        415 => "Unknown content encoding",
        426 => "No websocket was asked for, or one of another version",
        422 => "Well-formed but not forecastable: names series and index",
        429 => "Overloaded, or too many requests of this caller: come back after Retry-After",
        501 => "Not supported",
        503 => "Not available now",
        507 => "No room for another series: the operator acts",
        _ => "Deadline exceeded",
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn all_schemas() -> Value {
    let mut all = schemas();
    for more in [live_schemas(), release_schemas()] {
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
    }
    all
}

/// Of orders about versions.
fn release_schemas() -> Value {
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties });
    let version = json!({ "type": "integer", "minimum": 1 });
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
                "score_ratio": { "type": "number", "exclusiveMinimum": 0, "description": "by the scorecard; not compared unless given" },
            })),
        })),
        "Shadow": object(&[], json!({
            "version": version, "share": part,
            "tolerance": { "type": "number", "minimum": 0, "description": "a part of the largest value; 0.0001" },
        })),
        "Promote": object(&[], json!({ "version": version })),
        "Released": { "type": "object", "required": ["name", "release"], "properties": {
            "name": { "type": "string" },
            "release": { "type": ["object", "null"], "description": "null: the highest version answers" },
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
            "ts": { "type": ["number", "string"], "description": "milliseconds since 1970, or an RFC 3339 time" },
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
        "Series": object(&["series", "seq", "first_seq", "ticks"], json!({
            "series": text, "seq": { "type": "integer" }, "first_seq": { "type": "integer" },
            "ticks": list(object(&["ts", "value"], json!({
                "ts": { "type": "number" }, "value": { "type": ["number", "null"] },
            }))),
        })),
    })
}

fn schemas() -> Value {
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
            "name": text, "version": text, "state": text, "family": text, "window": { "type": "integer" },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_has_its_schema_and_every_id_is_unique() {
        let document = document();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
        let mut ids: Vec<String> =
            OPERATIONS.iter().map(|one| view(one)["operationId"].to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), OPERATIONS.len());
    }
}
