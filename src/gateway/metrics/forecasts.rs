//! What models have forecast, where the time went, and what their weights take.

use std::fmt::Display;
use std::time::Duration;

use peregrine_actors::{Ladder, ModelStats, Percentiles};

use super::Page;
use crate::gateway::Shared;
use crate::gateway::meter::Meter;

pub(super) fn models(page: &mut Page, stats: &[ModelStats], meter: &Meter) {
    type Read = fn(&ModelStats) -> u64;
    let counters: [(&str, &str, Read); 6] = [
        ("peregrine_forecast_rows_total", "Windows forecast.", |stats| stats.inference_count),
        (
            "peregrine_forecast_crossed_rows_total",
            "Windows forecast with quantiles that cross: answered as they are, with `crossed`.",
            |stats| stats.crossed,
        ),
        ("peregrine_batches_total", "Batches run.", |stats| stats.execution_count),
        ("peregrine_forecasts_total", "Requests answered with a forecast.", |stats| stats.success.count),
        (
            "peregrine_forecast_failures_total",
            "Requests refused or failed after the model was found.",
            |stats| stats.fail.count,
        ),
        ("peregrine_forecasts_abandoned_total", "Requests whose caller left first.", |stats| stats.abandoned),
    ];
    for (name, help, read) in counters {
        page.family(name, "counter", help);
        for one in stats {
            page.sample("", &[("model", &one.model), ("version", &one.version)], read(one));
        }
    }
    stages(page, stats, meter);
    batches(page, stats);
}

/// Where the time of forecasts went.
fn stages(page: &mut Page, stats: &[ModelStats], meter: &Meter) {
    type Read = fn(&ModelStats) -> (&Percentiles, Duration);
    let stages: [([&str; 2], &str, Read); 3] = [
        (
            ["peregrine_forecast_seconds", "peregrine_forecast_quantile_seconds"],
            "From acceptance to answer.",
            |stats| (&stats.latency, Duration::from_nanos(stats.success.ns)),
        ),
        (
            ["peregrine_queue_seconds", "peregrine_queue_quantile_seconds"],
            "From acceptance to the start of the batch.",
            |stats| (&stats.queue_latency, Duration::from_nanos(stats.queue.ns)),
        ),
        (
            ["peregrine_compute_seconds", "peregrine_compute_quantile_seconds"],
            "The batch of a request.",
            |stats| {
                let spent = [stats.compute_input, stats.compute_infer, stats.compute_output];
                (&stats.compute_latency, Duration::from_nanos(spent.iter().map(|tally| tally.ns).sum()))
            },
        ),
    ];
    for (place, ([name, quantiles], help, read)) in stages.into_iter().enumerate() {
        page.family(name, "histogram", help);
        for one in stats {
            let labels: [(&str, &dyn Display); 2] = [("model", &one.model), ("version", &one.version)];
            page.durations(&labels, &one.ladders[place], read(one).1);
        }
        page.family(
            quantiles,
            "gauge",
            &format!("{help} True percentiles since the start, none before the first."),
        );
        for one in stats {
            page.quantiles(&[("model", &one.model), ("version", &one.version)], read(one).0);
        }
    }
    let help = "Reading the request (parse) and printing the answer (print).";
    page.family("peregrine_transfer_seconds", "histogram", help);
    for one in stats {
        let transfer = meter.transfer_of(&one.model, one.version);
        let stages: [(&str, &Ladder, Duration); 2] =
            [("parse", &transfer.parses, transfer.parse), ("print", &transfer.prints, transfer.print)];
        for (stage, ladder, took) in stages {
            page.durations(
                &[("model", &one.model), ("version", &one.version), ("stage", &stage)],
                ladder,
                took,
            );
        }
    }
}

fn batches(page: &mut Page, stats: &[ModelStats]) {
    page.family("peregrine_batch_rows", "histogram", "Rows of a batch.");
    for one in stats {
        let labels: [(&str, &dyn Display); 2] = [("model", &one.model), ("version", &one.version)];
        let (mut rows_sum, mut seen) = (0_u64, 0_u64);
        let mut sizes = one.batch_sizes.iter().peekable();
        for bound in (0..=12).map(|power| 1_usize << power) {
            while let Some((rows, runs)) = sizes.next_if(|(rows, _)| **rows <= bound) {
                rows_sum += *rows as u64 * runs.count;
                seen += runs.count;
            }
            page.sample("_bucket", &[labels[0], labels[1], ("le", &bound)], seen);
        }
        for (rows, runs) in sizes {
            rows_sum += *rows as u64 * runs.count;
            seen += runs.count;
        }
        page.sample("_bucket", &[labels[0], labels[1], ("le", &"+Inf")], seen);
        page.sample("_sum", &labels, rows_sum);
        page.sample("_count", &labels, seen);
    }
    page.family("peregrine_backend_rows_total", "counter", "Windows forecast, by backend.");
    for one in stats {
        for backend in &one.backends {
            let name = backend.backend.name();
            page.sample(
                "",
                &[("model", &one.model), ("version", &one.version), ("backend", &name)],
                backend.rows,
            );
        }
    }
    page.family("peregrine_degraded_total", "counter", "Requests answered in place of a GPU.");
    for one in stats {
        for backend in &one.backends {
            let name = backend.backend.name();
            let labels: [(&str, &dyn Display); 3] =
                [("model", &one.model), ("version", &one.version), ("backend", &name)];
            page.sample("", &labels, backend.degraded);
        }
    }
}

pub(super) fn weights(page: &mut Page, shared: &Shared) {
    page.family("peregrine_weights_bytes", "gauge", "Weights and biases in f32.");
    for model in shared.system.models() {
        page.sample("", &[("model", &model.spec.name), ("version", &model.version)], model.weight_bytes);
    }
}
