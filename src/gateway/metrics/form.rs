//! The two forms of `/metrics`: Prometheus text, and OpenMetrics for whoever asks for it, which has room for exemplars.
//!
//! Both carry the same samples under the same names.

use std::fmt::{Display, Write};
use std::time::{Duration, UNIX_EPOCH};

use peregrine_actors::{Ladder, Percentiles};

use crate::gateway::meter::Exemplar;

const OPEN_METRICS: &str = "application/openmetrics-text";
/// The end of what counts.
const TOTAL: &str = "_total";

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Prometheus,
    OpenMetrics,
}

impl Form {
    /// What the values of `Accept` ask for; of equals, the form that says more.
    pub(super) fn wanted<'a>(accepts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for range in accepts.into_iter().flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0_f32, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match kind.as_str() {
                OPEN_METRICS if matches!(version, None | Some("1.0.0")) => open = open.max(weight),
                "text/plain" | "text/*" | "*/*" => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The page in the making.
pub(in crate::gateway) struct Page {
    form: Form,
    text: String,
    /// Behind the labels of every sample.
    common: String,
    family: &'static str,
    /// Names of families so far, as OpenMetrics has them.
    families: Vec<&'static str>,
}

impl Page {
    pub(super) fn new(form: Form, common: &[(&str, &dyn Display)]) -> Self {
        let mut labels = String::new();
        for (name, value) in common {
            label(&mut labels, name, value);
        }
        let (text, families) = (String::with_capacity(16 << 10), Vec::new());
        Self { form, text, common: labels, family: "", families }
    }

    pub(in crate::gateway) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        let (name, kind) = match self.form {
            Form::Prometheus => (name, kind),
            Form::OpenMetrics => self.open_family(name, kind),
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// There a counter is called without what its samples end in, unless something else is called so already: then
    /// nothing can be said of its type.
    fn open_family(&mut self, name: &'static str, kind: &'_ str) -> (&'static str, &'static str) {
        let (name, kind) = match (kind, name.strip_suffix(TOTAL)) {
            ("counter", Some(short)) if !self.families.contains(&short) => (short, "counter"),
            ("counter", _) => (name, "unknown"),
            ("histogram", _) => (name, "histogram"),
            ("summary", _) => (name, "summary"),
            ("gauge", _) => (name, "gauge"),
            _ => (name, "unknown"),
        };
        debug_assert!(!self.families.contains(&name), "{name} stands twice");
        self.families.push(name);
        (name, kind)
    }

    pub(in crate::gateway) fn sample(
        &mut self,
        suffix: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        self.bare(suffix, labels, value);
        self.text.push('\n');
    }

    /// One bucket of a histogram, with a request that somebody can look up where there is room for that.
    pub(super) fn bucket(&mut self, labels: &[(&str, &dyn Display)], count: u64, exemplar: Option<Exemplar>) {
        self.bare("_bucket", labels, count);
        if let (Form::OpenMetrics, Some(Exemplar { context, took, at })) = (self.form, exemplar) {
            let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = write!(
                self.text,
                " # {{trace_id=\"{}\",span_id=\"{}\"}} {} {}.{:03}",
                context.trace,
                context.span,
                took.as_secs_f64(),
                at.as_secs(),
                at.subsec_millis()
            );
        }
        self.text.push('\n');
    }

    /// Without the end of its line.
    fn bare(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let mut all = String::new();
        for (name, text) in labels {
            match (self.form, *name) {
                (Form::OpenMetrics, "le") => label(&mut all, name, &canonical(&text.to_string())),
                _ => label(&mut all, name, text),
            }
        }
        all.push_str(&self.common);
        let family = self.family;
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{family}{suffix}{{{}}} {value}", all.trim_end_matches(','));
    }

    /// A whole histogram; `sum` is of what was counted.
    pub(super) fn durations(&mut self, labels: &[(&str, &dyn Display)], ladder: &Ladder, sum: Duration) {
        let count = ladder.count();
        for (bound, within) in ladder.within() {
            let mut with = labels.to_vec();
            let bound = bound.as_secs_f64();
            with.push(("le", &bound));
            self.sample("_bucket", &with, within);
        }
        let mut with = labels.to_vec();
        with.push(("le", &"+Inf"));
        self.sample("_bucket", &with, count);
        self.sample("_sum", labels, sum.as_secs_f64());
        self.sample("_count", labels, count);
    }

    /// Nothing where nothing was counted: no time is not a short time.
    pub(super) fn quantiles(&mut self, labels: &[(&str, &dyn Display)], of: &Percentiles) {
        if of.count == 0 {
            return;
        }
        for (quantile, took) in
            [("0.5", of.p50), ("0.9", of.p90), ("0.95", of.p95), ("0.99", of.p99), ("0.999", of.p999)]
        {
            let mut with = labels.to_vec();
            with.push(("quantile", &quantile));
            self.sample("", &with, took.as_secs_f64());
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A bound as OpenMetrics compares it: as text, so that whole numbers end in `.0`.
fn canonical(bound: &str) -> String {
    let whole = bound.bytes().all(|byte| byte.is_ascii_digit());
    if whole { format!("{bound}.0") } else { bound.to_owned() }
}

/// `name="value",` with the three escapes of the format.
fn label(out: &mut String, name: &str, value: &dyn Display) {
    let escaped = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    out.push_str(name);
    out.push_str("=\"");
    out.push_str(&escaped);
    out.push_str("\",");
}

#[cfg(test)]
mod tests {
    use peregrine_runtime::TraceContext;

    use super::*;

    #[test]
    fn a_sample_is_one_line_with_escaped_labels() {
        let mut page = Page::new(Form::Prometheus, &[("node", &"n")]);
        page.family("peregrine_x_total", "counter", "X.");
        page.sample("", &[("model", &"a\"b\\c\nd")], 3);
        page.sample("_sum", &[], 0.5);
        assert_eq!(
            page.finish(),
            "# HELP peregrine_x_total X.\n# TYPE peregrine_x_total counter\n\
             peregrine_x_total{model=\"a\\\"b\\\\c\\nd\",node=\"n\"} 3\nperegrine_x_total_sum{node=\"n\"} 0.5\n"
        );
    }

    #[test]
    fn durations_are_a_cumulative_histogram_and_quantiles_stand_beside_it() {
        let labels: [(&str, &dyn Display); 1] = [("model", &"m")];
        let ladder = Ladder::of([(10_000, 1), (15_000, 2), (11_000_000_000, 1)]);
        let percentiles = Percentiles { count: 4, p50: Duration::from_micros(15), ..Percentiles::default() };
        let page = |of: &Percentiles| {
            let mut page = Page::new(Form::Prometheus, &[]);
            page.family("peregrine_x_seconds", "histogram", "X.");
            page.durations(&labels, &ladder, Duration::from_millis(11_500));
            page.family("peregrine_x_quantile_seconds", "gauge", "X.");
            page.quantiles(&labels, of);
            page.finish()
        };
        let text = page(&percentiles);
        for line in [
            "peregrine_x_seconds_bucket{model=\"m\",le=\"0.00001\"} 1",
            "peregrine_x_seconds_bucket{model=\"m\",le=\"0.000018\"} 3",
            "peregrine_x_seconds_bucket{model=\"m\",le=\"10\"} 3",
            "peregrine_x_seconds_bucket{model=\"m\",le=\"+Inf\"} 4",
            "peregrine_x_seconds_sum{model=\"m\"} 11.5",
            "peregrine_x_seconds_count{model=\"m\"} 4",
            "peregrine_x_quantile_seconds{model=\"m\",quantile=\"0.5\"} 0.000015",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!page(&Percentiles::default()).contains("quantile=\"0.5\""), "nothing was counted");
    }

    #[test]
    fn open_metrics_has_other_names_for_families_and_an_end() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let exemplar = Exemplar {
            context: TraceContext::parse(parent.as_bytes()).unwrap(),
            took: Duration::from_millis(3),
            at: UNIX_EPOCH + Duration::from_millis(1_500),
        };
        let page = |form| {
            let mut page = Page::new(form, &[("node", &"n")]);
            page.family("peregrine_stuck", "gauge", "S.");
            page.sample("", &[], 1);
            page.family("peregrine_stuck_total", "counter", "T.");
            page.sample("", &[], 2);
            page.family("peregrine_x_total", "counter", "X.");
            page.sample("", &[], 3);
            page.family("peregrine_seconds", "histogram", "H.");
            page.bucket(&[("le", &1.0)], 4, Some(exemplar));
            page.bucket(&[("le", &0.25)], 4, None);
            page.bucket(&[("le", &"+Inf")], 4, None);
            page.finish()
        };
        assert_eq!(
            page(Form::OpenMetrics),
            "# HELP peregrine_stuck S.\n# TYPE peregrine_stuck gauge\nperegrine_stuck{node=\"n\"} 1\n\
             # HELP peregrine_stuck_total T.\n# TYPE peregrine_stuck_total unknown\nperegrine_stuck_total{node=\"n\"} 2\n\
             # HELP peregrine_x X.\n# TYPE peregrine_x counter\nperegrine_x_total{node=\"n\"} 3\n\
             # HELP peregrine_seconds H.\n# TYPE peregrine_seconds histogram\n\
             peregrine_seconds_bucket{le=\"1.0\",node=\"n\"} 4 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\",\
             span_id=\"b7ad6b7169203331\"} 0.003 1.500\n\
             peregrine_seconds_bucket{le=\"0.25\",node=\"n\"} 4\nperegrine_seconds_bucket{le=\"+Inf\",node=\"n\"} 4\n# EOF\n"
        );
        let plain = page(Form::Prometheus);
        assert!(
            !plain.contains("trace_id") && !plain.contains("EOF") && plain.contains("le=\"1\""),
            "{plain}"
        );
    }

    #[test]
    fn the_form_is_what_the_reader_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accepts, want) in [
            (&[][..], Form::Prometheus),
            (&["*/*"], Form::Prometheus),
            (&["text/plain"], Form::Prometheus),
            (&[OPEN_METRICS], Form::OpenMetrics),
            (&["application/openmetrics-text; version=1.0.0"], Form::OpenMetrics),
            (&["application/openmetrics-text; version=0.0.1"], Form::Prometheus),
            (&["application/openmetrics-text;q=0"], Form::Prometheus),
            (&["application/openmetrics-text;q=0.1, text/plain"], Form::Prometheus),
            (&["text/html", "application/openmetrics-text"], Form::OpenMetrics),
            (&[prometheus], Form::OpenMetrics),
        ] {
            assert_eq!(Form::wanted(accepts.iter().copied()), want, "{accepts:?}");
        }
    }
}
