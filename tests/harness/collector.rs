//! A collector that takes OTLP over HTTP, decodes it with OpenTelemetry's own types, and answers as it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// What an exporter gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, and after how many seconds to come back.
    Status(u16, Option<u32>),
    /// Taken but for so many.
    Partial(i64),
    /// Nothing, until the collector is dropped.
    Hang,
}

/// A span, and the node that it is of.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) node: String,
    pub(crate) span: Span,
    attributes: BTreeMap<String, Value>,
}

/// One export.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    pub(crate) reply: Reply,
    pub(crate) at: Instant,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) spans: Vec<Seen>,
}

/// Listens until it is dropped.
pub(crate) struct Collector {
    pub(crate) addr: SocketAddr,
    exports: Arc<Mutex<Vec<Export>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Seen {
    pub(crate) fn id(&self) -> &[u8] {
        &self.span.span_id
    }

    pub(crate) fn parent(&self) -> &[u8] {
        &self.span.parent_span_id
    }

    /// In nanoseconds.
    pub(crate) fn took(&self) -> u64 {
        self.span.end_time_unix_nano - self.span.start_time_unix_nano
    }

    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.attributes.get(name) {
            Some(Value::StringValue(text)) => text,
            other => panic!("{name} of {} is {other:?}", self.span.name),
        }
    }

    #[track_caller]
    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.attributes.get(name) {
            Some(Value::IntValue(count)) => *count,
            other => panic!("{name} of {} is {other:?}", self.span.name),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    #[track_caller]
    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.attributes.get(name) {
            Some(Value::BoolValue(flag)) => *flag,
            other => panic!("{name} of {} is {other:?}", self.span.name),
        }
    }
}

impl Collector {
    /// Answers in this order, then 200 for ever.
    pub(crate) fn start(script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (exports, is_over) = (Arc::<Mutex<Vec<Export>>>::default(), Arc::<AtomicBool>::default());
        let (heard, over) = (Arc::clone(&exports), Arc::clone(&is_over));
        let script = script.to_vec();
        let thread = thread::spawn(move || {
            let mut script = script.into_iter();
            let mut held = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("a connection");
                let Some((headers, body)) = read(&stream) else { continue };
                let reply = script.next().unwrap_or(Reply::Status(200, None));
                let spans = decoded(&body);
                let export = Export { reply, at: Instant::now(), headers, spans };
                heard.lock().expect("no holder panics").push(export);
                match reply {
                    Reply::Hang => held.push(stream),
                    Reply::Status(status, after) => answer(&mut stream, status, after, &[]),
                    Reply::Partial(rejected) => {
                        let partial = ExportTracePartialSuccess {
                            rejected_spans: rejected,
                            error_message: "too old".to_owned(),
                        };
                        let told = ExportTraceServiceResponse { partial_success: Some(partial) };
                        answer(&mut stream, 200, None, &told.encode_to_vec());
                    }
                }
            }
        });
        Self { addr, exports, is_over, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn exports(&self) -> Vec<Export> {
        self.exports.lock().expect("no holder panics").clone()
    }

    /// All spans of one trace that were taken.
    pub(crate) fn trace(&self, trace: &str) -> Vec<Seen> {
        let exports = self.exports();
        let taken = exports.into_iter().filter(|export| matches!(export.reply, Reply::Status(200, _)));
        taken.flat_map(|export| export.spans).filter(|seen| hex(&seen.span.trace_id) == trace).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread; if that cannot be reached any more it has ended.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(stream: &mut TcpStream, status: u16, after: Option<u32>, body: &[u8]) {
    let after = after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let head = format!("content-length: {}\r\n{after}connection: close", body.len());
    // An exporter that is gone has its reasons.
    let _ = write!(stream, "HTTP/1.1 {status} Said\r\n{head}\r\n\r\n");
    let _ = stream.write_all(body);
}

fn decoded(body: &[u8]) -> Vec<Seen> {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut seen = Vec::new();
    for of_node in request.resource_spans {
        let resource = attributes(of_node.resource.expect("a resource").attributes);
        let Some(Value::StringValue(node)) = resource.get("service.instance.id").cloned() else {
            panic!("a resource without a name: {resource:?}");
        };
        for span in of_node.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let attributes = attributes(span.attributes.clone());
            seen.push(Seen { node: node.clone(), span, attributes });
        }
    }
    seen
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, Value> {
    let count = pairs.len();
    let value = |pair: KeyValue| (pair.key, pair.value.and_then(|value| value.value).expect("a value"));
    let attributes: BTreeMap<_, _> = pairs.into_iter().map(value).collect();
    assert_eq!(attributes.len(), count, "a key stands twice");
    attributes
}

/// Headers and body of an export, if a whole one comes.
fn read(stream: &TcpStream) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut reader = BufReader::new(stream);
    let (mut headers, mut first) = (BTreeMap::new(), String::new());
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    assert!(first.starts_with("POST /v1/traces HTTP/1.1"), "{first}");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let mut body = vec![0; headers["content-length"].parse().expect("a length")];
    reader.read_exact(&mut body).ok()?;
    Some((headers, body))
}
