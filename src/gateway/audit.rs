//! `GET /v1/audit`: where the chain of records ends, to be kept elsewhere; `GET /v1/audit/{id}`: one record.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Path};
use serde_json::json;

use super::error::{Problem, Refusal};
use super::metrics::Page;
use super::{Shared, get};
use crate::audit::{AuditRecords, View};

/// How long what was just answered may take to be written.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/v1/audit", show);
    get(config, "/v1/audit/{id}", one);
}

async fn show(shared: Data<Shared>) -> HttpResponse {
    let Some(records) = &shared.records else {
        return HttpResponse::Ok().json(json!({ "recording": false }));
    };
    let status = records.audit().status();
    HttpResponse::Ok().json(json!({
        "recording": true,
        "failure": status.failure.as_deref(),
        "records": status.head.records,
        "lost": status.lost,
        "queue_bytes": status.queue_bytes,
        "head": {
            "segment": status.head.segment,
            "offset": status.head.offset,
            "link": status.head.link.to_string(),
        },
    }))
}

async fn one(shared: Data<Shared>, id: Path<String>) -> Result<HttpResponse, Problem> {
    let records = Arc::clone(shared.records.as_ref().ok_or(Refusal::NotRecording)?);
    // What fails here is not there yet, and says so.
    let _ = records.audit().settled(SETTLES_WITHIN).await;
    let folder = records.folder().clone();
    let id = id.into_inner();
    let name = id.clone();
    let found = web::block(move || folder.find(&name)).await.map_err(|_| Refusal::NoModel)?;
    let found = found.map_err(|failed| Refusal::Records(failed.to_string()))?;
    let found = found.ok_or_else(|| Refusal::NoRecord(id.chars().take(128).collect()))?;
    Ok(HttpResponse::Ok().json(View::of(&found)))
}

/// The records as metrics.
pub(super) fn metrics(page: &mut Page, records: &AuditRecords) {
    let status = records.audit().status();
    let mut one = |name, kind, help, value: f64| {
        page.family(name, kind, help);
        page.sample("", &[], value);
    };
    let count = |count: u64| count as f64; // counters of a node stay far below 2^53
    one("peregrine_audit_records_total", "counter", "Records written.", count(status.records));
    one("peregrine_audit_bytes_total", "counter", "Of records written.", count(status.bytes));
    let help = "Answers that were given without a record.";
    one("peregrine_audit_lost_total", "counter", help, count(status.lost));
    let help = "Of records that wait to be written, and of those whose answers are under way.";
    one("peregrine_audit_queue_bytes", "gauge", help, status.queue_bytes as f64);
    let is_failing = f64::from(u8::from(status.failure.is_some()));
    one("peregrine_audit_failing", "gauge", "1 while records cannot be written.", is_failing);
    page.family("peregrine_audit_write_seconds", "summary", "Of the writes, each of many records.");
    page.sample("_sum", &[], status.write_time.as_secs_f64());
    page.sample("_count", &[], status.writes);
}
