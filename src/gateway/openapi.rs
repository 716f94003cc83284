//! `GET /openapi.json`: OpenAPI 3.1 of every route that exists, from one table; `GET /docs`: a browser for it that
//! needs nothing from outside.

mod operations;
mod schemas;

use actix_web::HttpResponse;
use actix_web::web;
use operations::{FORECASTING, OBSERVE, OLD, STREAM, V1, V2};
pub(super) use operations::{OPERATIONS, Operation, QUERIES};
use schemas::schemas;
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
        "components": { "schemas": schemas(), "securitySchemes": {
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
    let in_query = QUERIES.iter().filter(|(path, ..)| *path == one.path).map(|(_, name, kind)| {
        let mut schema = json!({ "type": kind });
        if *kind == "integer" {
            schema["minimum"] = u64::from(matches!(*name, "version" | "limit")).into(); // versions are counted from 1
        }
        json!({ "name": name, "in": "query", "schema": schema })
    });
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
        let is_order = matches!(one.path, "/v1/breakers" | "/v1/scaler/release");
        let is_read = matches!(schema, "InferRequest" | "ForecastRequest" | "ConfigurationText" | "Tick");
        let required = is_order || is_read || matches!(schema, "Split" | "Canary" | "Shadow");
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

    #[test]
    fn a_body_without_which_nothing_is_done_is_required() {
        let document = document();
        let required = |path: &str| document["paths"][path]["post"]["requestBody"]["required"].clone();
        for path in ["split", "canary", "shadow"].map(|order| format!("/v1/models/{{model}}/{order}")) {
            assert_eq!(required(&path), true, "{path}");
        }
        assert_eq!((required("/v1/breakers"), required("/v1/scaler/release")), (json!(true), json!(true)));
        assert_eq!(required("/v1/models/{model}/promote"), false);
    }

    #[test]
    fn numbers_of_queries_have_their_least() {
        let document = document();
        let least = |path: &str, name: &str| {
            let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
            let named = parameters.iter().find(|one| one["name"] == name).unwrap();
            named["schema"]["minimum"].clone()
        };
        assert_eq!(least("/v1/models/{model}", "version"), 1);
        assert_eq!(least("/v1/series/{name}", "last"), 0);
        assert_eq!(least("/v1/series", "limit"), 1);
    }
}
