//! Spans as OTLP has them. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValueKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind as WireKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan, Status};
use peregrine_actors::{Span, SpanKind, Value};
use prost::Message as _;

/// The trace is sampled.
const SAMPLED: u32 = 1;
/// Longer words are cut: they may repeat what a caller sent.
const TEXT_BYTES_MAX: usize = 256;

/// Who the spans are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) service: String,
    pub(super) node: String,
    pub(super) region: String,
}

/// The body of one export.
pub(super) fn body(identity: &Identity, spans: Vec<Span>) -> Vec<u8> {
    let text = |key: &str, value: &str| pair(key, AnyValueKind::StringValue(value.to_owned()));
    let resource = Resource {
        attributes: vec![
            text("service.name", &identity.service),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", &identity.node),
            text("cloud.region", &identity.region),
            text("telemetry.sdk.language", "rust"),
            text("telemetry.sdk.name", "peregrine"),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "peregrine".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = spans.into_iter().map(wire).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let of_node = ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![of_node] }.encode_to_vec()
}

fn wire(span: Span) -> WireSpan {
    let Span { context, parent, state, start, end, done } = span;
    let link = |context: peregrine_runtime::TraceContext| Link {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        flags: SAMPLED,
        ..Link::default()
    };
    let kind = match done.kind {
        SpanKind::Internal => WireKind::Internal,
        SpanKind::Server => WireKind::Server,
        SpanKind::Client => WireKind::Client,
    };
    let status = done.error.map(|why| Status { message: cut(why), code: StatusCode::Error as i32 });
    WireSpan {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        trace_state: state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
        parent_span_id: parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: done.name.into_owned(),
        kind: kind as i32,
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(end),
        attributes: done.attributes.into_iter().map(|(key, value)| pair(key, kind_of(value))).collect(),
        links: done.links.into_iter().map(link).collect(),
        status,
        ..WireSpan::default()
    }
}

fn pair(key: &str, value: AnyValueKind) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn kind_of(value: Value) -> AnyValueKind {
    match value {
        Value::Text(text) => AnyValueKind::StringValue(cut(text.into_owned())),
        Value::Int(count) => AnyValueKind::IntValue(count),
        Value::Flag(flag) => AnyValueKind::BoolValue(flag),
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// Since 1970; earlier and far later times are the nearest that can be said.
fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
