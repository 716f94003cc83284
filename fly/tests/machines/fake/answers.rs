//! Answers in the platform's forms.

use peregrine_fly::machines::HttpResponse;
use serde_json::{Value, json};

pub(crate) fn succeeds(status: u16, body: &Value) -> HttpResponse {
    HttpResponse { status, body: body.to_string().into_bytes() }
}

pub(crate) fn done() -> HttpResponse {
    succeeds(200, &json!({ "ok": true }))
}

pub(crate) fn empty(status: u16) -> HttpResponse {
    HttpResponse { status, body: Vec::new() }
}

/// `Error` with its text alone.
pub(crate) fn fails(status: u16, error: &str) -> HttpResponse {
    succeeds(status, &json!({ "error": error }))
}

/// `Error` with a word for programs.
pub(crate) fn fails_with(status: u16, word: &str, error: &str) -> HttpResponse {
    succeeds(status, &json!({ "error": error, "status": word }))
}

/// `lease.conflict_body_mock`.
pub(crate) fn held(owner: &str, expires_at: i64) -> HttpResponse {
    let body = json!({ "status": "error", "code": "lease_currently_held", "message": "lease is currently held",
        "data": { "owner": owner, "expires_at": expires_at } });
    succeeds(409, &body)
}

/// As its own client decodes them: names begin with a capital.
pub(crate) fn regions() -> HttpResponse {
    let regions: Vec<Value> = super::guests::REGIONS
        .iter()
        .map(|code| json!({ "Code": code, "Name": code, "Deprecated": false, "GatewayAvailable": true }))
        .collect();
    succeeds(200, &json!({ "Regions": regions, "Nearest": "iad" }))
}
