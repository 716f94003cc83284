//! `[tracing]`: as written, and as used; with OpenTelemetry's own variables where nobody has said otherwise.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Value;

use super::checker::{Checker, SECOND};
use super::layers::Origin;
use super::secret::Secret;
use super::units::WrittenDuration;

/// Where collectors take traces, below their address.
const PATH: &str = "/v1/traces";
/// Headers of an export.
const HEADERS_MAX: usize = 16;
/// Bytes of one.
const HEADER_BYTES_MAX: usize = 4096;

/// Traces of requests, exported as OpenTelemetry has it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct TracingFile {
    /// URL of a collector that takes OTLP over HTTP, e.g. `http://localhost:4318`; empty: what
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, or nothing is traced.
    pub(super) endpoint: Option<String>,
    /// Share of the requests without a trace of their own that are recorded, 0 to 1.
    pub(super) sample_ratio: Option<f64>,
    /// Whether a caller that has decided about its trace is followed; if not, `sample_ratio` decides.
    pub(super) follow_callers: Option<bool>,
    /// Traces that are recorded in a second at most, whoever wants more.
    pub(super) traces_per_second_max: Option<usize>,
    /// Sent with each export, as `name=value,name=value` with `%xx` for what is not plain; e.g. a key. Never printed.
    pub(super) headers: Option<Secret>,
    /// What this program is called.
    pub(super) service: Option<String>,
    /// For one attempt to export.
    pub(super) timeout: Option<WrittenDuration>,
    /// How long spans may wait for others to be exported with.
    pub(super) flush_every: Option<WrittenDuration>,
    /// Spans that may wait; more are dropped and counted.
    pub(super) queue_max: Option<usize>,
}

/// Traces of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// Where spans are posted.
    pub endpoint: String,
    /// Of requests without a trace, 0 to 1.
    pub sample_ratio: f64,
    /// Whether a caller that has decided is followed.
    pub follow_callers: bool,
    /// Traces of a second.
    pub traces_per_second_max: u32,
    /// Sent with each export.
    pub headers: Vec<(String, Secret)>,
    /// What this program is called.
    pub service: String,
    /// For one attempt.
    pub timeout: Duration,
    /// How long spans may wait.
    pub flush_every: Duration,
    /// How many.
    pub queue_max: usize,
}

type Environment<'a> = &'a [(String, String)];

impl Checker<'_> {
    /// `None` inside: nothing is traced.
    pub(super) fn tracing(
        &mut self,
        written: TracingFile,
        environment: Environment<'_>,
    ) -> Option<Option<TracingConfig>> {
        let endpoint = self.endpoint(written.endpoint, environment);
        let (ratio, follows) = self.sampling(written.sample_ratio, written.follow_callers, environment);
        let ratio =
            self.number("tracing.sample_ratio", ratio, |ratio| (0.0..=1.0).contains(&ratio), "0 to 1");
        let follows = self.present("tracing.follow_callers", follows);
        let traces =
            self.within("tracing.traces_per_second_max", written.traces_per_second_max, 0..=1_000_000);
        let headers = self.export_headers(written.headers, environment);
        let service = self.told_by("OTEL_SERVICE_NAME", "tracing.service", written.service, environment);
        let service = self.present("tracing.service", service);
        let service = service.and_then(|name| {
            let fits = (1..=128).contains(&name.len()) && !name.chars().any(char::is_control);
            self.require(fits.then_some(name), "tracing.service", || {
                "is no name: 1 to 128 bytes without control characters".to_owned()
            })
        });
        let timeout = self.export_timeout(written.timeout, environment);
        let timeout = self.time("tracing.timeout", timeout, SECOND / 100..=60 * SECOND);
        let flush = self.time("tracing.flush_every", written.flush_every, SECOND / 100..=60 * SECOND);
        let queue_max = self.within("tracing.queue_max", written.queue_max, 512..=1 << 20);
        let is_off =
            said(environment, "OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let config = TracingConfig {
            endpoint: endpoint?,
            sample_ratio: ratio?,
            follow_callers: follows?,
            traces_per_second_max: u32::try_from(traces?).unwrap_or(u32::MAX),
            headers: headers?,
            service: service?,
            timeout: timeout?,
            flush_every: flush?,
            queue_max: queue_max?,
        };
        Some((!config.endpoint.is_empty() && !is_off).then_some(config))
    }

    fn endpoint(&mut self, written: Option<String>, environment: Environment<'_>) -> Option<String> {
        const KEY: &str = "tracing.endpoint";
        const WHOLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let whole = self.told_by(WHOLE, KEY, None, environment);
        let is_whole = whole.is_some();
        let url = match whole {
            Some(url) => Some(url),
            None => self.told_by(BASE, KEY, written, environment),
        };
        let url = self.present(KEY, url)?;
        if url.is_empty() {
            return Some(url);
        }
        let protocol = said(environment, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| said(environment, "OTEL_EXPORTER_OTLP_PROTOCOL"));
        if matches!(self.origin(KEY), Origin::Variable(name) if name.starts_with("OTEL_"))
            && protocol.is_some_and(|protocol| protocol != "http/protobuf")
        {
            self.mistake(KEY, "only http/protobuf is spoken here".to_owned());
            return None;
        }
        let fits = super::is_http_url(&url) && url.len() <= 2048 && !url.contains(['?', '#']);
        let url = self
            .require(fits.then_some(url), KEY, || "is not a URL such as http://localhost:4318".to_owned())?;
        if is_whole || url.ends_with(PATH) {
            Some(url)
        } else {
            Some(format!("{}{PATH}", url.trim_end_matches('/')))
        }
    }

    fn sampling(
        &mut self,
        ratio: Option<f64>,
        follows: Option<bool>,
        environment: Environment<'_>,
    ) -> (Option<f64>, Option<bool>) {
        const RATIO: &str = "tracing.sample_ratio";
        const FOLLOWS: &str = "tracing.follow_callers";
        const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(sampler) = said(environment, SAMPLER) else { return (ratio, follows) };
        let (told_follows, kind) = match sampler.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, sampler),
        };
        let argument = said(environment, ARGUMENT);
        let told_ratio = match kind {
            "always_on" => Some(1.0),
            "always_off" => Some(0.0),
            // As the specification has it, without an argument all are taken.
            "traceidratio" => argument.map_or(Some(1.0), |text| text.parse::<f64>().ok()),
            _ => None,
        };
        let (mut ratio, mut follows) = (ratio, follows);
        if matches!(self.origin(RATIO), Origin::BuiltIn { .. }) {
            let told = Value::Float(told_ratio.unwrap_or_default());
            self.replace(RATIO, told, Some(Origin::Variable(SAMPLER.to_owned())));
            ratio = self.require(told_ratio, RATIO, || {
                "is always_on, always_off or traceidratio with a number, each also behind parentbased_"
                    .to_owned()
            });
        }
        if matches!(self.origin(FOLLOWS), Origin::BuiltIn { .. }) {
            let origin = Origin::Variable(SAMPLER.to_owned());
            self.replace(FOLLOWS, Value::Boolean(told_follows), Some(origin));
            follows = Some(told_follows);
        }
        (ratio, follows)
    }

    fn export_timeout(
        &mut self,
        written: Option<WrittenDuration>,
        environment: Environment<'_>,
    ) -> Option<WrittenDuration> {
        const KEY: &str = "tracing.timeout";
        const NAME: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
        match said(environment, NAME) {
            Some(text) if matches!(self.origin(KEY), Origin::BuiltIn { .. }) => {
                let told = Value::String(format!("{text}ms"));
                self.replace(KEY, told, Some(Origin::Variable(NAME.to_owned())));
                let millis = text.parse::<u32>().ok().map(|ms| Duration::from_millis(ms.into()));
                self.require(millis, KEY, || "is no number of milliseconds".to_owned()).map(WrittenDuration)
            }
            _ => written,
        }
    }

    /// No mistake repeats what a header holds.
    fn export_headers(
        &mut self,
        written: Option<Secret>,
        environment: Environment<'_>,
    ) -> Option<Vec<(String, Secret)>> {
        const KEY: &str = "tracing.headers";
        let written = written.map(|secret| secret.expose().to_owned());
        let text = self.told_by("OTEL_EXPORTER_OTLP_HEADERS", KEY, written, environment);
        let text = self.present(KEY, text)?;
        self.require(headers(&text), KEY, || "is not of the form name=value,name=value".to_owned())
    }
}

/// What a variable says; empty: nothing.
fn said<'a>(environment: Environment<'a>, name: &str) -> Option<&'a str> {
    let of = environment.iter().find(|(known, text)| known == name && !text.is_empty());
    of.map(|(_, text)| text.as_str())
}

/// `None`: they are none.
fn headers(text: &str) -> Option<Vec<(String, Secret)>> {
    let mut headers = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim().to_ascii_lowercase(), unescaped(value.trim())?);
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_text = |byte: u8| matches!(byte, b'\t' | 0x20..=0x7e);
        let fits = !name.is_empty()
            && name.len() + value.len() <= HEADER_BYTES_MAX
            && name.bytes().all(is_token)
            && value.bytes().all(is_text)
            // Those say how the body is to be read.
            && !["content-type", "content-length", "content-encoding", "transfer-encoding", "host", "connection"]
                .contains(&name.as_str());
        if !fits || headers.len() == HEADERS_MAX {
            return None;
        }
        headers.push((name, Secret::from(value)));
    }
    Some(headers)
}

/// With `%xx` undone.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (pair, after) = rest.split_at_checked(2)?;
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, file_with};
    use super::super::{Sources, resolve};
    use super::*;

    #[test]
    fn nothing_is_traced_unless_somebody_says_where_to() {
        assert_eq!(tracing("", &[]), None);
        let on = tracing("tracing.endpoint = \"http://localhost:4318/\"\n", &[]).unwrap();
        assert_eq!(on.endpoint, "http://localhost:4318/v1/traces");
        assert_eq!((on.sample_ratio, on.follow_callers, on.service.as_str()), (0.01, true, "peregrine"));
        assert_eq!((on.traces_per_second_max, on.timeout), (100, Duration::from_secs(10)));
        let same = tracing("tracing.endpoint = \"http://a/v1/traces\"\n", &[]).unwrap();
        assert_eq!(same.endpoint, "http://a/v1/traces");
    }

    #[test]
    fn standard_variables_are_what_nobody_has_overruled() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let all = [
            base,
            ("OTEL_SERVICE_NAME", "desk"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, Y=2"),
        ];
        let told = tracing("", &all).unwrap();
        assert_eq!((told.endpoint.as_str(), told.service.as_str()), ("http://c:4318/v1/traces", "desk"));
        assert_eq!((told.sample_ratio, told.follow_callers), (0.25, false));
        assert_eq!(told.timeout, Duration::from_millis(2500));
        let headers: Vec<_> = told.headers.iter().map(|(name, value)| (&**name, value.expose())).collect();
        assert_eq!(headers, [("x-key", "a b"), ("y", "2")]);
        let ours = "[tracing]\nendpoint = \"http://ours\"\nservice = \"own\"\nsample_ratio = 1.0\nfollow_callers = true\n";
        let told = tracing(ours, &all).unwrap();
        assert_eq!((told.endpoint.as_str(), told.service.as_str()), ("http://ours/v1/traces", "own"));
        assert_eq!((told.sample_ratio, told.follow_callers), (1.0, true));
        let whole = tracing("", &[base, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x")]).unwrap();
        assert_eq!(whole.endpoint, "http://t/x");
        assert_eq!(tracing("", &[base, ("OTEL_SDK_DISABLED", "true")]), None);
        for (sampler, want) in [
            ("always_on", (1.0, false)),
            ("always_off", (0.0, false)),
            ("parentbased_always_on", (1.0, true)),
            ("parentbased_traceidratio", (1.0, true)),
        ] {
            let told = tracing("", &[base, ("OTEL_TRACES_SAMPLER", sampler)]).unwrap();
            assert_eq!((told.sample_ratio, told.follow_callers), want, "{sampler}");
        }
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        for (variables, words) in [
            (
                &[("OTEL_TRACES_SAMPLER", "jaeger_remote")][..],
                "OTEL_TRACES_SAMPLER: tracing.sample_ratio: is always_on",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")],
                "OTEL_EXPORTER_OTLP_TIMEOUT: tracing.timeout: is no number",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")],
                "OTEL_EXPORTER_OTLP_ENDPOINT: tracing.endpoint: is not a URL",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                "OTEL_EXPORTER_OTLP_ENDPOINT: tracing.endpoint: only http/protobuf",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")],
                "OTEL_EXPORTER_OTLP_HEADERS: tracing.headers: is not of the form",
            ),
        ] {
            let error = resolve(&with(variables)).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        check(
            "[tracing]\nendpoint = \"ftp://x\"\nsample_ratio = 1.5\ntraces_per_second_max = 2000000\nservice = \"\"\n\
             timeout = \"2m\"\nflush_every = \"1ms\"\nqueue_max = 1\nheaders = \"host=x\"\n",
            &[
                "FILE:2:12: tracing.endpoint: is not a URL such as http://localhost:4318",
                "FILE:3:16: tracing.sample_ratio: 1.5 is not 0 to 1",
                "FILE:4:25: tracing.traces_per_second_max: 2000000 is not within 0 and 1000000",
                "FILE:5:11: tracing.service: is no name: 1 to 128 bytes without control characters",
                "FILE:6:11: tracing.timeout: 120s is not within 10ms and 60s",
                "FILE:7:15: tracing.flush_every: 1ms is not within 10ms and 60s",
                "FILE:8:13: tracing.queue_max: 1 is not within 512 and 1048576",
                "FILE:9:11: tracing.headers: is not of the form name=value,name=value",
            ],
        );
    }

    #[test]
    fn headers_are_pairs_that_may_be_sent() {
        for (text, count) in [("", Some(0)), ("a=1", Some(1)), ("a=1,,b=x=y", Some(2)), ("a=", Some(1))] {
            assert_eq!(headers(text).map(|headers| headers.len()), count, "{text}");
        }
        for text in ["a", "=1", "a b=1", "a=%0a", "a=%zz", "a=%1", "a=%+1", "content-length=1", "a=\u{e9}"] {
            assert_eq!(headers(text), None, "{text}");
        }
        let many: Vec<String> = (0..17).map(|at| format!("h{at}=1")).collect();
        assert_eq!(headers(&many.join(",")), None);
    }

    #[track_caller]
    fn tracing(text: &str, variables: &[(&str, &str)]) -> Option<TracingConfig> {
        let file = file_with(text);
        let sources = Sources { files: vec![file.path().to_owned()], ..with(variables) };
        resolve(&sources).unwrap_or_else(|error| panic!("{error}")).config.tracing
    }

    fn with(variables: &[(&str, &str)]) -> Sources {
        let environment = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Sources { environment: environment.collect(), ..Sources::default() }
    }
}
