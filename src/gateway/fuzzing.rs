//! What callers send, as functions of bytes; see [`crate::fuzzing`].

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_http::{ConnectionType, RequestHead};
use actix_web::http::header::{HeaderName, HeaderValue};
use peregrine_fly::passage::Passage;
use peregrine_runtime::{SystemClock, TraceContext, TraceState};
use peregrine_shaders::ModelSpec;
use serde::de::IgnoredAny;

use super::body::{Encoding, inflate};
use super::glimpse::{self, Glimpse};
use super::overview::relay::{AskOverview, Overviewed};
use super::stream::{Dialects, agree};
use super::symbols::Named;
use super::v1::parse::{forecast_body, windows};
use super::v2::parse::{infer_request, json_len};
use super::{guard, neural, series, traced};
use crate::certificates::validity;
use crate::config::SecurityConfig;
use crate::fuzzing::{answer, message};
use crate::journal;
use crate::security::{Bearer, Security};
use crate::series_store::SeriesStore;
use crate::testing::{point_spec, series_spec};
use crate::top;

pub use super::stream::fuzzing::{command, message_pack, websocket};

static SECURITY: LazyLock<Arc<Security>> =
    LazyLock::new(|| Security::start(&SecurityConfig::default()).expect("no file is read"));

/// `POST /v1/forecast`: what is taken is JSON to others too, and fits its model or is refused. A glimpse of it says the
/// same.
pub fn forecast(input: &[u8]) -> bool {
    let glimpse = glimpse::forecast(input);
    let Ok(mut body) = forecast_body(input) else { return false };
    is_json(input);
    let (model, version, within) = (body.model.clone(), body.version, body.deadline);
    let names_symbol = body.series.iter().any(|series| series.symbol.is_some());
    assert_eq!(glimpse, (!names_symbol).then_some(Glimpse { model, version, within }));
    let spec = &specs()[0];
    if let Ok(windows) = windows(&mut body.series, spec, &Named::new(&SeriesStore::default(), "y")) {
        assert_eq!(windows.y.len(), windows.rows * spec.y_len());
    }
    true
}

/// `POST /v2/models/…/infer`: a line with the length of the JSON (empty: there is no such header), then the body.
pub fn infer(input: &[u8]) -> bool {
    let Some((length, body)) = line(input) else { return false };
    let length = std::str::from_utf8(length).ok().filter(|length| !length.is_empty());
    let taken = specs().map(|spec| {
        let glimpse = json_len(body, length).map(|json_len| glimpse::infer(&body[..json_len]));
        let Ok(request) = infer_request(body, length, &spec) else { return false };
        // Of one that is raw there is none.
        assert!(
            matches!(glimpse, Ok(None)) && request.timeout.is_none() || glimpse == Ok(Some(request.timeout))
        );
        let (rows, windows) = (request.windows.rows, &request.windows);
        assert!(rows > 0);
        assert_eq!(windows.y.len(), rows * spec.y_len());
        assert!(windows.mask.as_ref().is_none_or(|mask| mask.len() == windows.y.len()));
        assert_eq!(windows.hist_exog.len(), rows * spec.window * spec.hist_exog.len());
        assert_eq!(windows.futr_exog.len(), rows * (spec.window + spec.horizon) * spec.futr_exog.len());
        assert_eq!(windows.stat_exog.len(), rows * spec.stat_exog.len());
        true
    });
    taken.contains(&true)
}

/// `POST /neural/…`: a line of query, then the body.
pub fn symbols(input: &[u8]) -> bool {
    let Some((query, body)) = line(input) else { return false };
    std::str::from_utf8(query).is_ok_and(|query| neural::read(query, body).is_ok())
}

/// A packed body: the first byte says how. It never becomes larger than it may.
pub fn body(input: &[u8]) -> bool {
    const BYTES_MAX: usize = 64 << 10;
    let Some((how, packed)) = input.split_first() else { return false };
    let encoding = if how % 2 == 0 { Encoding::Gzip } else { Encoding::Deflate };
    inflate(encoding, packed, BYTES_MAX).is_ok_and(|plain| {
        assert!(plain.len() <= BYTES_MAX);
        true
    })
}

/// The fields of a request, one a line: who asks, in which trace, by which way, and whether for a websocket.
pub fn headers(input: &[u8]) -> bool {
    let mut head = RequestHead::default();
    head.set_connection_type(ConnectionType::Upgrade);
    for field in input.split(|&byte| byte == b'\n') {
        let Some((name, value)) = field.split_at_checked(field.iter().position(|&b| b == b':').unwrap_or(0))
        else {
            continue;
        };
        let Ok(name) = HeaderName::from_bytes(name) else { continue };
        let Ok(value) = HeaderValue::from_bytes(value[1..].trim_ascii()) else { continue };
        head.headers_mut().append(name, value);
    }
    let caller = guard::caller(&SECURITY, &head, &SystemClock);
    assert!(!caller.is_local, "no field makes a caller local");
    let way = Passage::of(|name| Some(head.headers().get(name)?.to_str().unwrap_or_default()));
    assert!(way.left_of(Duration::from_secs(1)) <= Duration::from_secs(1), "no field gives time");
    let context = traced::caller(head.headers());
    if let Some(context) = context {
        assert_eq!(TraceContext::parse(context.traceparent().as_bytes()), Some(context));
    }
    let state = TraceState::parse(traced::state(head.headers()));
    if let Some(state) = &state {
        let again = TraceState::parse([state.as_str().as_bytes()]);
        assert_eq!(again.as_ref().map(TraceState::as_str), Some(state.as_str()));
    }
    let shakes = agree(&head, Dialects::All).is_ok();
    shakes || context.is_some() || state.is_some() || caller.bearer != Bearer::Nobody
}

/// That a node asks another how it is, its answer, or what `peregrine top` shows: the first byte chooses.
pub fn overview(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    match choice % 3 {
        0 => message::<AskOverview>(bytes).is_some(),
        1 => answer::<AskOverview>(bytes).is_some_and(|answer| match answer {
            Overviewed::Text(text) => serde_json::from_str::<IgnoredAny>(&text).is_ok(),
            Overviewed::NotYet => true,
        }),
        _ => top::fuzzing::shown(bytes),
    }
}

/// A certificate of which start and end are wanted, in DER.
pub fn certificate(input: &[u8]) -> bool {
    validity::of(input).is_some()
}

/// `POST /v1/ticks`: what is taken can be kept, and comes back from the journal as it was.
pub fn ticks(input: &[u8]) -> bool {
    let Ok((lines, ticks)) = series::read(input) else { return false };
    assert_eq!(lines.len(), ticks.len());
    ticks.into_iter().for_each(journal::fuzzing::comes_back);
    true
}

/// Ours is at most as lenient as a parser that is trusted.
pub(super) fn is_json(text: &[u8]) {
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(text) {
        panic!("taken for JSON: {error}");
    }
}

fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|&byte| byte == b'\n')?;
    Some((&input[..at], &input[at + 1..]))
}

/// One series alone, several together, and one with all kinds of columns beside it.
fn specs() -> [ModelSpec; 3] {
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let beside = ModelSpec {
        hist_exog: names("volume"),
        futr_exog: names("day hour"),
        stat_exog: names("sector"),
        ..point_spec(3, 2)
    };
    [point_spec(3, 2), series_spec(3, 2, 2, &["mean"]), beside]
}
