//! `POST /v1/ticks`: observations, one JSON object a line; `GET /v1/series`: which series there are;
//! `GET /v1/series/{name}`: what is kept of one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::web::{self, Data, Path, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::series::{
    Effect, JournalEntry, Listing, Pattern, SeriesEntry, SeriesLog, SeriesName, Tick, TickError,
};
use peregrine_actors::stream::SourceError;

use super::error::{Problem, Refusal};
use super::ticks::Millis;
use super::ticks::parse::{BadTick, parse_tick};
use super::{Shared, get, post, traced};
use crate::series::{LISTED_MAX, SHARDS};

/// Ticks of one request.
const TICKS_MAX: usize = 65_536;
/// Failures that an answer lists one by one.
const FAILURES_MAX: usize = 100;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    post(config, "/v1/ticks", ticks);
    get(config, "/v1/series", list);
    get(config, "/v1/series/{name:.+}", series);
}

/// `?results=true`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicksQuery {
    #[serde(default)]
    results: bool,
}

/// A request's ticks cannot be read; the caller acts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadTicks {
    /// Which line, from 1, and what is wrong with it.
    #[error("line {line}: {source}")]
    Line { line: usize, source: BadTick },
    #[error("no ticks: one JSON object a line is wanted")]
    None,
    #[error("more than {TICKS_MAX} ticks in one request")]
    TooMany,
}

async fn ticks(
    shared: Data<Shared>,
    query: Query<TicksQuery>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, Problem> {
    let text = shared.body(request.headers(), &mut payload).await?;
    let _admitted = shared.admit()?;
    let (lines, mut ticks) = read(&text).map_err(Refusal::Ticks)?;
    let trace = traced::of(&shared, &request);
    if trace.is_recorded() {
        ticks.iter_mut().for_each(|tick| tick.trace = trace.clone());
    }
    let effects = shared.live.source.ticks(ticks, shared.deadline(None)).await;
    Ok(answer(&lines, &effects, query.results))
}

/// Every line that is not blank, and its number.
pub(super) fn read(text: &[u8]) -> Result<(Vec<usize>, Vec<Tick>), BadTicks> {
    let (mut lines, mut ticks) = (Vec::new(), Vec::new());
    for (line, text) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if ticks.len() == TICKS_MAX {
            return Err(BadTicks::TooMany);
        }
        ticks.push(parse_tick(text).map_err(|source| BadTicks::Line { line, source })?);
        lines.push(line);
    }
    if ticks.is_empty() { Err(BadTicks::None) } else { Ok((lines, ticks)) }
}

/// Every tick was taken, or a problem that names those that were not; all may be sent again.
fn answer(lines: &[usize], effects: &[Result<Effect, TickError>], results: bool) -> HttpResponse {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for (line, effect) in lines.iter().zip(effects) {
        *counts.entry(effect.as_ref().map_or("failed", |effect| effect.name())).or_default() += 1;
        if let Err(error) = effect {
            failures.push((line, error));
        }
    }
    let mut body = format!("{{\"ticks\":{}", effects.len());
    for name in ["advanced", "inserted", "duplicate", "conflict", "too_late", "failed"] {
        let _ = write!(body, ",\"{name}\":{}", counts.get(name).copied().unwrap_or(0)); // a string takes all
    }
    if results {
        body.push_str(",\"results\":[");
        for (at, effect) in effects.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = match effect {
                Ok(effect) => {
                    let (name, seq) = (effect.name(), effect.seq());
                    write!(body, "{comma}{{\"effect\":\"{name}\",\"seq\":{seq}}}")
                }
                Err(error) => {
                    let (code, detail) = (error.code(), quoted(&error.to_string()));
                    write!(body, "{comma}{{\"error\":\"{code}\",\"detail\":{detail}}}")
                }
            };
        }
        body.push(']');
    }
    let Some((_, worst)) = failures.iter().max_by_key(|(_, error)| severity(error)) else {
        body.push('}');
        return HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(body);
    };
    let status = status(worst);
    let mut response = HttpResponse::build(status);
    if let Some(retry_after_ms) = worst.retry_after_ms() {
        response.insert_header((RETRY_AFTER, retry_after_ms.div_ceil(1000).max(1).to_string()));
    }
    let title = quoted(status.canonical_reason().unwrap_or("refused"));
    let detail = format!("{} of {} ticks were not accepted: {worst}", failures.len(), effects.len());
    let _ = write!(
        body,
        ",\"type\":\"about:blank\",\"title\":{title},\"status\":{},\"detail\":{},\"failures\":[",
        status.as_u16(),
        quoted(&detail)
    );
    for (at, (line, error)) in failures.iter().take(FAILURES_MAX).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (code, detail) = (error.code(), quoted(&error.to_string()));
        let _ = write!(body, "{comma}{{\"line\":{line},\"error\":\"{code}\",\"detail\":{detail}}}");
    }
    body.push_str("]}");
    response.insert_header((CONTENT_TYPE, "application/problem+json")).body(body)
}

/// What must be repaired first decides: the caller's mistake, then what the operator must make room for, then what is
/// broken here, then what is only busy.
fn severity(error: &TickError) -> u8 {
    match error {
        TickError::Invalid(_) => 4,
        TickError::Full { .. } => 3,
        TickError::NoQuorum(_) => 2,
        TickError::Unavailable(_) => 1,
        TickError::Overloaded { .. } => 0,
    }
}

fn status(error: &TickError) -> StatusCode {
    match error {
        TickError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        // Not 503, which clients try again.
        TickError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        TickError::NoQuorum(_) | TickError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        TickError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `?last=`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeriesQuery {
    last: Option<usize>,
}

async fn series(
    shared: Data<Shared>,
    name: Path<String>,
    query: Query<SeriesQuery>,
) -> Result<HttpResponse, Problem> {
    let unknown = |_| SourceError::UnknownSeries(name.chars().take(128).collect());
    let name = SeriesName::new(&name).map_err(unknown).map_err(Refusal::Source)?;
    let log = shared.live.source.log(&name, shared.deadline(None)).await.map_err(Refusal::Source)?;
    let body = describe(&log, query.last.unwrap_or(usize::MAX));
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(body))
}

/// `?pattern=&after=&limit=`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    pattern: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(shared: Data<Shared>, query: Query<ListQuery>) -> Result<HttpResponse, Problem> {
    let bad = |why: String| Refusal::Query { wanted: "pattern, after and limit", why };
    let ListQuery { pattern, after, limit } = query.into_inner();
    let pattern = pattern.as_deref().map_or(Ok(Pattern::all()), Pattern::new);
    let pattern = pattern.map_err(|error| bad(format!("`pattern`: {error}")))?;
    let after = after.as_deref().map(SeriesName::new).transpose();
    let after = after.map_err(|error| bad(format!("`after`: {error}")))?;
    let limit = limit.unwrap_or(LISTED_MAX);
    if !(1..=LISTED_MAX).contains(&limit) {
        return Err(bad(format!("`limit` is 1 to {LISTED_MAX}, not {limit}")).into());
    }
    let _admitted = shared.admit()?;
    let listing = shared.live.source.list(&pattern, after.as_ref(), limit, shared.deadline(None)).await;
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "application/json"));
    Ok(response.body(describe_all(&listing, limit)))
}

/// `next` is there where a page is full: `after` for the next one.
fn describe_all(listing: &Listing, limit: usize) -> String {
    let mut body = "{\"series\":[".to_owned();
    for (at, entry) in listing.series.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (name, SeriesEntry { seq, kept, .. }) = (quoted(entry.name.as_str()), entry);
        let (first, last) = (Millis(entry.first), Millis(entry.last));
        let _ = write!(
            body,
            "{comma}{{\"series\":{name},\"seq\":{seq},\"kept\":{kept},\"first_ts\":{first},\"last_ts\":{last}}}"
        ); // a string takes all
    }
    body.push(']');
    if let Some(last) = listing.series.last().filter(|_| listing.series.len() == limit) {
        let _ = write!(body, ",\"next\":{}", quoted(last.name.as_str()));
    }
    let silent = serde_json::Value::from(listing.silent.as_slice());
    let complete = listing.silent.is_empty() && listing.shards >= usize::from(SHARDS);
    let _ = write!(body, ",\"silent\":{silent},\"complete\":{complete}}}");
    body
}

/// In the order of sequence numbers; `null` where nothing was seen.
fn describe(log: &SeriesLog, last: usize) -> String {
    let skip = log.ticks.len().saturating_sub(last);
    let seq = log.ticks.last().map_or(0, |entry| entry.seq);
    let first_seq = log.ticks.get(skip).map_or(seq + 1, |entry| entry.seq);
    let mut body = format!(
        "{{\"series\":{},\"seq\":{seq},\"first_seq\":{first_seq},\"ticks\":[",
        quoted(log.series.as_str()),
    );
    for (at, JournalEntry { tick, .. }) in log.ticks.iter().skip(skip).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let value = tick.value.map_or_else(|| "null".to_owned(), |value| value.to_string());
        let _ = write!(body, "{comma}{{\"ts\":{},\"value\":{value}}}", Millis(tick.at)); // a string takes all
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(effects: &[Result<Effect, TickError>], status: u16, body: &str) {
        let lines: Vec<usize> = (1..=effects.len()).collect();
        let response = answer(&lines, effects, false);
        assert_eq!(response.status().as_u16(), status);
        let bytes = actix_web::body::MessageBody::try_into_bytes(response.into_body()).expect("a whole body");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        assert!(text.contains(body), "{text}");
    }

    #[test]
    fn what_was_taken_is_counted_by_effect() {
        let effects = [Ok(Effect::Advanced { seq: 1 }), Ok(Effect::Duplicate { seq: 1 })];
        check(&effects, 200, r#"{"ticks":2,"advanced":1,"inserted":0,"duplicate":1"#);
    }

    #[test]
    fn one_tick_that_was_not_taken_makes_a_problem_that_names_it() {
        let full = || Err(TickError::Overloaded { retry_after_ms: 50 });
        check(
            &[Ok(Effect::Advanced { seq: 1 }), full()],
            429,
            r#""failures":[{"line":2,"error":"overloaded""#,
        );
        let broken = Err(TickError::Unavailable("disk".to_owned()));
        check(&[full(), broken.clone()], 503, r#""status":503"#);
        let no_room = || Err(TickError::Full { series_max: 9 });
        check(&[no_room(), broken, full()], 507, "3 of 3 ticks were not accepted: its shard has 9 series");
        check(&[Ok(Effect::Advanced { seq: 1 }), no_room()], 507, r#""failures":[{"line":2,"error":"full""#);
        check(&[full(), Err(TickError::Invalid("no".to_owned()))], 422, r#""error":"invalid""#);
        let alone = || Err(TickError::NoQuorum("1 of 3".to_owned()));
        check(&[Err(TickError::Unavailable("disk".to_owned())), alone()], 503, "accepted: no quorum: 1 of 3");
        let answer = answer(&[1], &[alone()], false);
        assert_eq!(
            answer.headers().get(RETRY_AFTER).map(actix_web::http::header::HeaderValue::as_bytes),
            Some(&b"1"[..])
        );
    }

    #[test]
    fn a_bad_line_is_named_and_nothing_is_taken() {
        let text = b"{\"series\":\"a\",\"ts\":1,\"value\":1}\n\n{\"series\":\"a\"}\n";
        assert!(matches!(read(text), Err(BadTicks::Line { line: 3, .. })));
        assert!(matches!(read(b"\n \n"), Err(BadTicks::None)));
        let refused =
            Refusal::Ticks(read(b"{\"series\":\"a\",\"ts\":9,\"value\":1e39}").expect_err("too large"));
        let answer = actix_web::ResponseError::error_response(&Problem(refused));
        assert_eq!(answer.status().as_u16(), 422);
        let body = actix_web::body::MessageBody::try_into_bytes(answer.into_body()).expect("a whole body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let detail = "line 1: series `a`, ts 9: `value` has a number that is too large for FP32";
        assert_eq!((&body["series"], &body["detail"]), (&"a".into(), &detail.into()));
        let refused =
            Refusal::Ticks(read(b"{\"series\":\"a\",\"ts\":9,\"value\":NaN}").expect_err("no number"));
        let answer = actix_web::ResponseError::error_response(&Problem(refused));
        assert_eq!(answer.status().as_u16(), 422);
        let body = actix_web::body::MessageBody::try_into_bytes(answer.into_body()).expect("a whole body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let detail = body["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("line 1: series `a`, ts 9: `value` is NaN"), "{detail}");
        assert_eq!(body["series"], "a");
        let many = "{\"series\":\"a\",\"ts\":1,\"value\":1}\n".repeat(TICKS_MAX + 1);
        assert!(matches!(read(many.as_bytes()), Err(BadTicks::TooMany)));
    }
}
