//! One request, from its client to the device that computed it, as a collector sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Collector, Fleet, Post, PowerSwitch, Reply, Response, Seen, TestNode, WebSocket, eventually, hex,
    request, took,
};

const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const FAILED: i32 = 2;

fn body() -> String {
    let values: Vec<String> = (0..WINDOW).map(|at| format!("{}", 1.0 + (at % 7) as f32 / 10.0)).collect();
    format!(r#"{{"model":"{MODEL}","series":[{{"id":"a","values":[{}]}}]}}"#, values.join(","))
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// A node on the CPU that exports to `collector`, with these keys besides.
fn traced(collector: &Collector, keys: &[(&str, &str)]) -> TestNode {
    TestNode::on_cpu(&tracing(&collector.url(), keys))
}

fn tracing<'a>(url: &'a str, keys: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all =
        vec![("TRACING__ENDPOINT", url), ("TRACING__SAMPLE_RATIO", "0"), ("TRACING__FLUSH_EVERY", "20ms")];
    all.extend_from_slice(keys);
    all
}

#[track_caller]
fn ask(node: &TestNode, headers: &[(&str, &str)]) -> Response {
    let answer = request(node.node.addr, "POST", "/v1/forecast", headers, body().as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer
}

/// The spans of the trace, once there are so many.
#[track_caller]
fn spans(collector: &Collector, count: usize) -> Vec<Seen> {
    took("the spans have come", || collector.trace(TRACE).len() >= count);
    let spans = collector.trace(TRACE);
    assert_eq!(spans.len(), count, "{:?}", tree(&spans));
    spans
}

/// Each span below its parent, as indented names.
fn tree(spans: &[Seen]) -> Vec<String> {
    fn below(spans: &[Seen], parent: &[u8], depth: usize, out: &mut Vec<String>) {
        let mut children: Vec<&Seen> = spans.iter().filter(|seen| seen.parent() == parent).collect();
        children.sort_by_key(|seen| (seen.span.start_time_unix_nano, seen.span.end_time_unix_nano));
        for child in children {
            out.push(format!("{}{} @{}", "  ".repeat(depth), child.span.name, child.node));
            below(spans, child.id(), depth + 1, out);
        }
    }
    let mut out = Vec::new();
    let ids: Vec<&[u8]> = spans.iter().map(Seen::id).collect();
    let mut roots: Vec<&[u8]> =
        spans.iter().map(Seen::parent).filter(|parent| !ids.contains(parent)).collect();
    roots.sort_unstable();
    roots.dedup();
    for root in roots {
        out.push(format!("caller {}", hex(root)));
        below(spans, root, 1, &mut out);
    }
    out
}

/// Every span lies within its parent. Both nodes are on this machine, so their clocks are one; each has read it twice,
/// a moment apart.
#[track_caller]
fn nested(spans: &[Seen]) {
    const SLACK_NS: u64 = 5_000_000;
    let by_id: BTreeMap<&[u8], &Seen> = spans.iter().map(|seen| (seen.id(), seen)).collect();
    for seen in spans {
        let Some(parent) = by_id.get(seen.parent()) else { continue };
        let slack = if parent.node == seen.node { 0 } else { SLACK_NS };
        let (inner, outer) = (&seen.span, &parent.span);
        assert!(
            inner.start_time_unix_nano + slack >= outer.start_time_unix_nano
                && inner.end_time_unix_nano <= outer.end_time_unix_nano + slack,
            "{} {}..{} is not within {} {}..{}",
            inner.name,
            inner.start_time_unix_nano,
            inner.end_time_unix_nano,
            outer.name,
            outer.start_time_unix_nano,
            outer.end_time_unix_nano
        );
    }
}

#[track_caller]
fn one<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let found: Vec<&Seen> = spans.iter().filter(|seen| seen.span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {:?}", tree(spans));
    found[0]
}

/// Waiting and computing add up to what the answer says of them.
#[track_caller]
fn adds_up(spans: &[Seen], answer: &Value) {
    let timing = &answer["forecasts"][0]["timing_ms"];
    let said = |stage: &str| timing[stage].as_f64().unwrap_or_else(|| panic!("{answer}"));
    let millis = |name: &str| one(spans, name).took() as f64 / 1e6;
    let stages = millis("device submit") + millis("compute") + millis("transfer");
    // The answer rounds to a microsecond; handing a batch out costs some beyond its stages.
    assert!((millis("queue") - said("queue")).abs() < 0.01, "{timing} {}", millis("queue"));
    assert!(stages >= said("compute") - 0.01, "{timing} {stages}");
    assert!((stages - millis("batch")).abs() < 0.001, "{stages} {}", millis("batch"));
}

#[test]
fn a_request_is_followed_from_client_to_kernel_over_two_nodes() {
    let collector = Collector::start(&[]);
    let posts = [
        Post { name: "fra-1", region: "fra", roles: &["gateway"] },
        Post { name: "iad-1", region: "iad", roles: &["inference"] },
    ];
    let url = collector.url();
    let fleet = Fleet::start(None, &posts, &tracing(&url, &[("TRACING__SERVICE", "desk")]));
    took("the gateway is ready", || fleet.get("fra-1", "/health/ready").status == 200);
    let headers = [("traceparent", &*parent("01")), ("tracestate", "a=1,b=2")];
    let answer = request(fleet.addr("fra-1"), "POST", "/v1/forecast", &headers, body().as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let spans = spans(&collector, 11);
    assert_eq!(
        tree(&spans),
        [
            &*format!("caller {CALLER}"),
            "  POST /v1/forecast @fra-1",
            "    transfer @fra-1",
            "    router @fra-1",
            "      remote ask @fra-1",
            "        forecast.ask @iad-1",
            "          queue @iad-1",
            "          batch @iad-1",
            "            device submit @iad-1",
            "            compute @iad-1",
            "            transfer @iad-1",
            "    transfer @fra-1",
        ]
    );
    nested(&spans);
    let there: Vec<Seen> = spans.iter().filter(|seen| seen.node == "iad-1").cloned().collect();
    adds_up(&there, &answer.json());
    let server = one(&spans, "POST /v1/forecast");
    let told = format!("00-{TRACE}-{}-01", hex(server.id()));
    assert_eq!(answer.header("traceresponse"), Some(&*told));
    assert_eq!((server.span.kind, &*server.span.trace_state), (SERVER, "a=1,b=2"));
    for (name, want) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/forecast"),
        ("server.address", "localhost"),
        ("peregrine.model", MODEL),
        ("peregrine.backend", "remote:iad"),
        ("peregrine.node", "iad-1"),
    ] {
        assert_eq!(server.text(name), want, "{name}");
    }
    assert_eq!(server.int("http.response.status_code"), 200);
    let id = answer.json()["forecasts"][0]["prediction_id"].as_str().expect("an id").to_owned();
    assert_eq!(server.text("peregrine.prediction.id"), id);
    let ask = one(&spans, "remote ask");
    assert_eq!((ask.span.kind, ask.text("peregrine.peer.node")), (CLIENT, "iad-1"));
    assert_eq!(ask.text("peregrine.peer.region"), "iad");
    let there = one(&spans, "forecast.ask");
    assert_eq!((there.span.kind, &*there.span.trace_state), (SERVER, "a=1,b=2"), "it crosses with the trace");
    let batch = one(&spans, "batch");
    assert_eq!((batch.int("peregrine.batch.rows"), batch.int("peregrine.batch.bucket")), (1, 1));
    assert_eq!(batch.span.links.len(), 1, "to the request in it");
    assert_eq!(batch.span.links[0].span_id, one(&spans, "forecast.ask").id());
    assert_eq!(one(&spans, "compute").text("peregrine.backend"), "cpu");
    assert!(fleet.metric("fra-1", "peregrine_trace_spans_total") >= 5.0);
}

#[test]
fn who_is_not_recorded_leaves_nothing() {
    let collector = Collector::start(&[]);
    let node = traced(&collector, &[]);
    for headers in [&[][..], &[("traceparent", &*parent("00"))], &[("traceparent", "00-nonsense")]] {
        assert_eq!(ask(&node, headers).header("traceresponse"), None, "{headers:?}");
    }
    let headers = [("traceparent", &*parent("01"))];
    assert!(ask(&node, &headers).header("traceresponse").is_some());
    spans(&collector, 9);
    let all: usize = collector.exports().iter().map(|export| export.spans.len()).sum();
    assert_eq!(all, 9, "of that request alone");
}

#[test]
fn a_trace_begins_here_where_nobody_has_begun_one() {
    let collector = Collector::start(&[]);
    let node = traced(&collector, &[("TRACING__SAMPLE_RATIO", "1"), ("TRACING__HEADERS", "x-key=s3%20cret")]);
    let told = ask(&node, &[]).header("traceresponse").expect("it was recorded").to_owned();
    // The caller of this one has decided.
    assert_eq!(ask(&node, &[("traceparent", &*parent("00"))]).header("traceresponse"), None);
    let trace = told.split('-').nth(1).expect("an id").to_owned();
    took("the spans have come", || collector.trace(&trace).len() == 9);
    let spans = collector.trace(&trace);
    let server = one(&spans, "POST /v1/forecast");
    assert_eq!(
        (server.parent(), hex(server.id()).as_str()),
        (&[][..], told.split('-').nth(2).expect("an id"))
    );
    nested(&spans);
    assert_eq!(collector.exports()[0].headers["x-key"], "s3 cret");
    // Probes and scrapes are no work.
    assert_eq!(node.get("/health/live").header("traceresponse"), None);
    assert_eq!(node.get("/metrics").header("traceresponse"), None);
    let missing = request(node.node.addr, "POST", "/v1/forecast", &[], br#"{"model":"none","series":[]}"#);
    assert!(missing.status >= 400 && missing.header("traceresponse").is_some());
}

#[test]
fn no_more_are_recorded_in_a_second_than_allowed() {
    let collector = Collector::start(&[]);
    let keys = [("TRACING__SAMPLE_RATIO", "1"), ("TRACING__TRACES_PER_SECOND_MAX", "0")];
    let node = traced(&collector, &keys);
    assert_eq!(ask(&node, &[("traceparent", &*parent("01"))]).header("traceresponse"), None);
    let page = String::from_utf8(node.get("/metrics").body).expect("text");
    let capped = page.lines().find(|line| line.starts_with("peregrine_traces_total{outcome=\"capped\""));
    assert!(capped.is_some_and(|line| line.ends_with(" 1")), "{capped:?}");
}

#[test]
fn a_request_that_fails_says_so_in_its_spans() {
    let collector = Collector::start(&[]);
    let node = traced(&collector, &[]);
    let bad = body().replace("1.1", "1e39");
    let headers = [("traceparent", &*parent("01"))];
    let answer = request(node.node.addr, "POST", "/v1/forecast", &headers, bad.as_bytes());
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    took("the span has come", || !collector.trace(TRACE).is_empty());
    let spans = collector.trace(TRACE);
    let server = one(&spans, "POST /v1/forecast");
    // As the conventions have it, a server has not failed where its caller was wrong.
    assert_ne!(server.span.status.as_ref().map_or(0, |status| status.code), FAILED);
    assert!(!server.has("error.type"));
    assert_eq!(server.int("http.response.status_code"), i64::from(answer.status));
}

#[test]
fn a_collector_that_is_full_gets_the_same_spans_again() {
    let script = [Reply::Status(503, Some(1)), Reply::Status(429, None), Reply::Status(200, None)];
    let collector = Collector::start(&script);
    let node = traced(&collector, &[]);
    ask(&node, &[("traceparent", &*parent("01"))]);
    spans(&collector, 9);
    let exports = collector.exports();
    assert_eq!(exports.len(), 3);
    assert!(exports[1].at - exports[0].at >= Duration::from_secs(1), "as it was told");
    let ids = |at: usize| exports[at].spans.iter().map(|seen| hex(seen.id())).collect::<Vec<_>>();
    assert_eq!((ids(0), ids(1)), (ids(1), ids(2)));
    eventually("it is counted", || count(&node, "exported") == 9.0);
    assert_eq!((count(&node, "failed"), count(&node, "dropped")), (0.0, 0.0));
}

#[test]
fn what_a_collector_refuses_is_counted_and_not_sent_again() {
    let collector = Collector::start(&[Reply::Status(400, None), Reply::Partial(4)]);
    let node = traced(&collector, &[]);
    ask(&node, &[("traceparent", &*parent("01"))]);
    eventually("all are refused", || count(&node, "failed") == 9.0);
    ask(&node, &[("traceparent", &*parent("01"))]);
    eventually("some are refused", || count(&node, "failed") == 13.0 && count(&node, "exported") == 5.0);
    assert_eq!(collector.exports().len(), 2);
}

#[test]
fn a_collector_that_hangs_costs_requests_nothing_and_the_queue_has_an_end() {
    let collector = Collector::start(&[Reply::Hang]);
    let keys = [
        ("TRACING__QUEUE_MAX", "512"),
        ("TRACING__TIMEOUT", "60s"),
        ("TRACING__TRACES_PER_SECOND_MAX", "1000000"),
        ("TRACING__FLUSH_EVERY", "10ms"),
    ];
    let node = traced(&collector, &keys);
    ask(&node, &[("traceparent", &*parent("01"))]);
    took("the first export hangs", || !collector.exports().is_empty());
    // 9 spans each: more than the queue holds.
    for _ in 0..80 {
        ask(&node, &[("traceparent", &*parent("01"))]);
    }
    let waiting = metric(&node, "peregrine_trace_spans_queued{");
    let sent = collector.exports()[0].spans.len() as f64;
    assert_eq!((waiting, count(&node, "dropped")), (512.0, 81.0 * 9.0 - sent - 512.0));
}

#[test]
fn a_node_that_stops_sends_what_it_has() {
    let collector = Collector::start(&[]);
    let node = traced(&collector, &[("TRACING__FLUSH_EVERY", "60s")]);
    ask(&node, &[("traceparent", &*parent("01"))]);
    assert!(collector.exports().is_empty(), "they wait for others");
    drop(node);
    assert_eq!(collector.trace(TRACE).len(), 9);
}

#[test]
fn a_node_stops_in_time_though_nobody_takes_its_spans() {
    // A port that nobody listens on.
    let gone = Collector::start(&[]);
    let url = gone.url();
    drop(gone);
    let keys = tracing(&url, &[("SERVER__DRAIN", "1s")]);
    let node = TestNode::on_cpu(&keys);
    ask(&node, &[("traceparent", &*parent("01"))]);
    let start = std::time::Instant::now();
    drop(node);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn the_device_says_itself_how_long_it_took() {
    let collector = Collector::start(&[]);
    let url = collector.url();
    let node = TestNode::on_gpu(&PowerSwitch::default(), &tracing(&url, &[]));
    eventually("the device answers", || ask(&node, &[]).json()["forecasts"][0]["backend"] == "gpu");
    let answer = ask(&node, &[("traceparent", &*parent("01"))]).json();
    assert_eq!(answer["forecasts"][0]["backend"], "gpu", "{answer}");
    let spans = spans(&collector, 9);
    nested(&spans);
    adds_up_on_a_device(&spans);
    let compute = one(&spans, "compute");
    assert_eq!(compute.text("peregrine.backend"), "gpu");
    if compute.flag("peregrine.device.timestamps") {
        let device = u64::try_from(compute.int("peregrine.device.nanoseconds")).expect("a duration");
        // The span is the device's own time, unless that is more than the host has waited.
        assert!(device > 0 && compute.took() <= device, "{device} {}", compute.took());
    } else {
        let name = compute.text("peregrine.device");
        println!("{name} has no clock that can be asked: the span is what the host saw");
        assert!(!compute.has("peregrine.device.nanoseconds"));
    }
}

/// Submission, computation and transfer are one after the other within the batch.
#[track_caller]
fn adds_up_on_a_device(spans: &[Seen]) {
    let of = |name: &str, parent: &Seen| {
        let found = spans.iter().find(|seen| seen.span.name == name && seen.parent() == parent.id());
        found.unwrap_or_else(|| panic!("{name}: {:?}", tree(spans))).span.clone()
    };
    let batch = one(spans, "batch");
    let [submit, compute, transfer] = ["device submit", "compute", "transfer"].map(|name| of(name, batch));
    assert_eq!(submit.start_time_unix_nano, batch.span.start_time_unix_nano);
    assert!(submit.end_time_unix_nano <= compute.start_time_unix_nano);
    assert_eq!(compute.end_time_unix_nano, transfer.start_time_unix_nano);
    assert_eq!(transfer.end_time_unix_nano, batch.span.end_time_unix_nano);
}

#[test]
fn buckets_show_requests_that_can_be_looked_up() {
    let collector = Collector::start(&[]);
    let node = traced(&collector, &[]);
    ask(&node, &[]);
    let told = ask(&node, &[("traceparent", &*parent("01"))]).header("traceresponse").map(str::to_owned);
    let span = told.expect("it was recorded").split('-').nth(2).expect("an id").to_owned();
    let plain = String::from_utf8(node.get("/metrics").body).expect("text");
    let before = names(&plain);
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let open = request(node.node.addr, "GET", "/metrics", &accept, b"");
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let page = String::from_utf8(open.body).expect("text");
    let exemplar = format!(" # {{trace_id=\"{TRACE}\",span_id=\"{span}\"}} ");
    let shown: Vec<&str> = page.lines().filter(|line| line.contains(" # {")).collect();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].starts_with("peregrine_request_seconds_bucket{route=\"v1_forecast\",le=\""));
    assert!(shown[0].contains(&exemplar), "{}", shown[0]);
    assert!(page.ends_with("# EOF\n") && page.matches("# EOF").count() == 1);
    open_metrics(&page);
    let again = String::from_utf8(node.get("/metrics").body).expect("text");
    assert!(!again.contains("trace_id") && !again.contains("# EOF"));
    // What is first read meanwhile may come on top.
    let after = names(&again);
    for (few, many) in [(&before, &names(&page)), (&names(&page), &after)] {
        assert!(few.is_subset(many), "{:?}", few.difference(many));
    }
}

/// Of all samples.
fn names(page: &str) -> BTreeSet<&str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| Some(line.split_once('{')?.0)).collect()
}

#[test]
fn a_tick_is_followed_to_its_prediction_over_two_nodes() {
    let collector = Collector::start(&[]);
    let posts = [
        Post { name: "fra-1", region: "fra", roles: &["gateway"] },
        Post { name: "iad-1", region: "iad", roles: &["inference"] },
        Post { name: "nrt-1", region: "nrt", roles: &["inference"] },
    ];
    let url = collector.url();
    let fleet = Fleet::start(None, &posts, &tracing(&url, &[]));
    took("the gateway is ready", || fleet.get("fra-1", "/health/ready").status == 200);
    let mut socket = WebSocket::open(fleet.addr("fra-1"), "/v1/stream", Some("peregrine.v1.json"));
    socket.text(&format!(r#"{{"op":"subscribe","id":1,"model":"{MODEL}","series":"a"}}"#));
    socket.op("subscribed");
    let mut at = 0;
    let mut tick = |parent: &str| {
        at += 1;
        let value = 1.0 + (at % 7) as f32 / 10.0;
        format!(r#"{{"op":"tick","series":"a","ts":{},"value":{value}{parent}}}"#, 60_000 * at)
    };
    // Until its window is full and the owner knows that somebody wants them, ticks have no predictions.
    took("predictions come", || {
        let fed = fleet.post("fra-1", "/v1/ticks", &tick(""));
        assert_eq!(fed.status, 200, "{}", String::from_utf8_lossy(&fed.body));
        ["iad-1", "nrt-1"].iter().any(|node| fleet.metric(node, "peregrine_predictions_total") > 0.0)
    });
    socket.text(&tick(&format!(r#","traceparent":"{}""#, parent("01"))));
    let spans = spans(&collector, 10);
    // Either of the two may own the series.
    let owner = one(&spans, "series.shard").node.clone();
    assert!(["iad-1", "nrt-1"].contains(&&*owner), "{owner}");
    let want = [
        format!("caller {CALLER}"),
        "  tick @fra-1".to_owned(),
        "    remote ask @fra-1".to_owned(),
        format!("      series.shard @{owner}"),
        format!("        prediction @{owner}"),
        format!("          router @{owner}"),
        format!("            queue @{owner}"),
        format!("            batch @{owner}"),
        format!("              device submit @{owner}"),
        format!("              compute @{owner}"),
        format!("              transfer @{owner}"),
    ];
    assert_eq!(tree(&spans), want);
    // A tick is acknowledged without waiting for its prediction, which may end later; all else nests.
    let inner: Vec<Seen> = spans.iter().filter(|seen| seen.span.name != "series.shard").cloned().collect();
    nested(&inner);
    let (shard, prediction) = (one(&spans, "series.shard"), one(&spans, "prediction"));
    assert!(prediction.span.start_time_unix_nano >= shard.span.start_time_unix_nano);
    assert_eq!(prediction.text("peregrine.model"), MODEL);
    assert_eq!(one(&spans, "tick").text("network.protocol.name"), "websocket");
    // By HTTP there may be more that goes along.
    let headers = [("traceparent", &*parent("01")), ("tracestate", "a=1,b=2")];
    let fed = request(fleet.addr("fra-1"), "POST", "/v1/ticks", &headers, tick("").as_bytes());
    assert_eq!(fed.status, 200, "{}", String::from_utf8_lossy(&fed.body));
    took("it crosses with the trace", || {
        let spans = collector.trace(TRACE);
        spans.iter().any(|seen| seen.span.name == "series.shard" && seen.span.trace_state == "a=1,b=2")
    });
}

#[test]
fn ticks_of_a_connection_are_part_of_what_opened_it() {
    let collector = Collector::start(&[]);
    let node = traced(&collector, &[]);
    let lines = format!("traceparent: {}\r\nSec-WebSocket-Protocol: peregrine.v1.json\r\n", parent("01"));
    let mut socket = WebSocket::open_with(node.node.addr, "/v1/stream", &lines);
    socket.text(r#"{"op":"tick","id":1,"series":"a","ts":1,"value":1}"#);
    socket.op("ticked");
    let spans = spans(&collector, 1);
    assert_eq!((&*spans[0].span.name, hex(spans[0].parent())), ("tick", CALLER.to_owned()));
    // A context that cannot be read costs nobody a tick.
    socket.text(r#"{"op":"tick","id":2,"series":"a","ts":1,"value":1,"traceparent":"none"}"#);
    assert_eq!(socket.op("ticked")["id"], 2);
}

/// What OpenMetrics wants of a page: each family once and in one piece, and samples named as their type says.
#[track_caller]
fn open_metrics(page: &str) {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(types.insert(name, kind).is_none(), "{name} stands twice");
            family = name;
        } else if !line.starts_with('#') {
            let (name, _) = line.split_once('{').expect("labels");
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} within {family}"));
            let suffixes: &[&str] = match types[family] {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                "gauge" | "unknown" => &[""],
                other => panic!("{family} is a {other}"),
            };
            assert!(suffixes.contains(&suffix), "{name} is a {}", types[family]);
        }
    }
}

/// Spans that came to this end.
#[track_caller]
fn count(node: &TestNode, outcome: &str) -> f64 {
    metric(node, &format!("peregrine_trace_spans_total{{outcome=\"{outcome}\""))
}

#[track_caller]
fn metric(node: &TestNode, start: &str) -> f64 {
    let page = String::from_utf8(node.get("/metrics").body).expect("text");
    let line = page.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}
