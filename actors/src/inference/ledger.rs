//! What one model version has done: sums and histograms under one short lock, taken once per batch.
//!
//! Knows no device and no clock; it is handed durations.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use peregrine_shaders::Backend;

use super::ladder::Ladder;
use super::spread::Spread;
use crate::status::{BackendStats, CheckStats, ModelCounts, ModelStats, Percentiles, Tally, nanos};

/// A batch that was answered.
pub(crate) struct Entry<'a> {
    pub(crate) backend: Backend,
    pub(crate) requests: &'a [Answered],
    pub(crate) rows: usize,
    pub(crate) split: Split,
    pub(crate) at: SystemTime,
}

/// A request of such a batch.
pub(crate) struct Answered {
    pub(crate) rows: usize,
    /// Those whose quantiles cross.
    pub(crate) crossed: usize,
    pub(crate) queued: Duration,
    pub(crate) degraded: bool,
}

/// Where the time of a batch went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Split {
    pub(crate) input: Duration,
    pub(crate) infer: Duration,
    pub(crate) output: Duration,
}

impl Split {
    pub(crate) fn total(self) -> Duration {
        self.input + self.infer + self.output
    }
}

pub(crate) struct Ledger {
    page: Mutex<Page>,
    /// Made from the histograms when somebody asked, and good for as many answers as there were then.
    spreads: Mutex<(u64, [Spread; 3])>,
}

struct Page {
    inference_count: u64,
    crossed: u64,
    execution_count: u64,
    success: Tally,
    fail: Tally,
    abandoned: u64,
    queue: Tally,
    split: [Tally; 3],
    batch_sizes: BTreeMap<usize, Tally>,
    last_inference_ms: u64,
    backends: [BackendStats; 2],
    latency: Histogram<u64>,
    queue_latency: Histogram<u64>,
    compute_latency: Histogram<u64>,
}

/// Longer times are recorded as this.
const LONGEST_NS: u64 = 120_000_000_000;

impl Ledger {
    pub(crate) fn new() -> Self {
        let blank = |backend| BackendStats { backend, requests: 0, rows: 0, executions: 0, degraded: 0 };
        Self {
            page: Mutex::new(Page {
                inference_count: 0,
                crossed: 0,
                execution_count: 0,
                success: Tally::default(),
                fail: Tally::default(),
                abandoned: 0,
                queue: Tally::default(),
                split: [Tally::default(); 3],
                batch_sizes: BTreeMap::new(),
                last_inference_ms: 0,
                backends: [blank(Backend::Cpu), blank(Backend::Gpu)],
                latency: histogram(),
                queue_latency: histogram(),
                compute_latency: histogram(),
            }),
            spreads: Mutex::default(),
        }
    }

    pub(crate) fn succeeded(&self, entry: &Entry<'_>) {
        let compute = entry.split.total();
        let count = entry.requests.len() as u64;
        let mut page = self.page.lock();
        let page = &mut *page;
        page.execution_count += 1;
        let spent = [entry.split.input, entry.split.infer, entry.split.output];
        for (tally, spent) in page.split.iter_mut().zip(spent) {
            tally.count += count;
            tally.ns += nanos(spent) * count;
        }
        page.batch_sizes.entry(entry.rows).or_default().add(1, entry.split.infer);
        let since_epoch = entry.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        page.last_inference_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let backend = &mut page.backends[slot(entry.backend)];
        backend.executions += 1;
        backend.requests += count;
        page.compute_latency.saturating_record_n(nanos(compute), count);
        for &Answered { rows, crossed, queued, degraded } in entry.requests {
            page.inference_count += rows as u64;
            page.crossed += crossed as u64;
            page.success.add(1, queued + compute);
            page.queue.add(1, queued);
            backend.rows += rows as u64;
            backend.degraded += u64::from(degraded);
            page.latency.saturating_record(nanos(queued + compute));
            page.queue_latency.saturating_record(nanos(queued));
        }
    }

    pub(crate) fn failed(&self, after: Duration) {
        self.page.lock().fail.add(1, after);
    }

    pub(crate) fn abandoned(&self, count: u64) {
        self.page.lock().abandoned += count;
    }

    /// As [`Ledger::stats`], for somebody who looks every second and compares: batches wait for copies at most.
    pub(crate) fn counts(&self, model: &str, version: u32) -> ModelCounts {
        let mut spreads = self.spreads.lock();
        let page = self.page.lock();
        let mut counts = ModelCounts {
            model: model.to_owned(),
            version,
            rows: page.inference_count,
            batches: page.execution_count,
            succeeded: page.success.count,
            failed: page.fail.count,
            latency: Spread::default(),
            queue_latency: Spread::default(),
            compute_latency: Spread::default(),
        };
        if spreads.0 != counts.succeeded {
            let histograms = [&page.latency, &page.queue_latency, &page.compute_latency].map(Clone::clone);
            drop(page);
            *spreads = (counts.succeeded, histograms.map(|histogram| spread(&histogram)));
        }
        [counts.latency, counts.queue_latency, counts.compute_latency] = spreads.1.clone();
        counts
    }

    pub(crate) fn stats(&self, model: &str, version: u32, checks: CheckStats) -> ModelStats {
        let page = self.page.lock();
        let [compute_input, compute_infer, compute_output] = page.split;
        ModelStats {
            model: model.to_owned(),
            version,
            inference_count: page.inference_count,
            crossed: page.crossed,
            execution_count: page.execution_count,
            success: page.success,
            fail: page.fail,
            abandoned: page.abandoned,
            queue: page.queue,
            compute_input,
            compute_infer,
            compute_output,
            batch_sizes: page.batch_sizes.clone(),
            last_inference_ms: page.last_inference_ms,
            backends: page.backends.to_vec(),
            latency: percentiles(&page.latency),
            queue_latency: percentiles(&page.queue_latency),
            compute_latency: percentiles(&page.compute_latency),
            ladders: [&page.latency, &page.queue_latency, &page.compute_latency].map(ladder),
            checks,
        }
    }
}

fn slot(backend: Backend) -> usize {
    match backend {
        Backend::Cpu => 0,
        Backend::Gpu => 1,
    }
}

/// From 1 ns to two minutes with three significant digits: some 300 KiB.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).unwrap_or_else(|_| unreachable!("constant bounds are valid"))
}

fn spread(histogram: &Histogram<u64>) -> Spread {
    let recorded = histogram.iter_recorded();
    Spread::of(recorded.map(|value| (value.value_iterated_to(), value.count_since_last_iteration())))
}

/// A bound is missed by the thousandth that the histogram rounds by, at most.
fn ladder(histogram: &Histogram<u64>) -> Ladder {
    let recorded = histogram.iter_recorded();
    Ladder::of(recorded.map(|value| {
        let ns = histogram.lowest_equivalent(value.value_iterated_to());
        (ns, value.count_since_last_iteration())
    }))
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let at = |share| Duration::from_nanos(histogram.value_at_quantile(share));
    Percentiles {
        count: histogram.len(),
        mean: Duration::from_nanos(histogram.mean() as u64),
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: Duration::from_nanos(histogram.max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_ladders_are_of_the_same_requests() {
        let ledger = Ledger::new();
        let at = SystemTime::UNIX_EPOCH;
        let micros = Duration::from_micros;
        for (queued, infer) in [(0, 10), (20, 30), (900, 100)] {
            let requests = [Answered { rows: 1, crossed: 0, queued: micros(queued), degraded: false }];
            let split = Split { infer: micros(infer), ..Split::default() };
            ledger.succeeded(&Entry { backend: Backend::Cpu, requests: &requests, rows: 1, split, at });
        }
        let stats = ledger.stats("m", 1, CheckStats::default());
        let within = |ladder: usize, us| {
            let mut bounds = stats.ladders[ladder].within();
            bounds.find(|(bound, _)| *bound == micros(us)).map(|(_, count)| count)
        };
        let [latency, queue, compute] = [0, 1, 2];
        // On a bound counts as within it.
        assert_eq!(
            (within(latency, 10), within(latency, 56), within(latency, 1_000)),
            (Some(1), Some(2), Some(3))
        );
        assert_eq!((within(queue, 10), within(queue, 18), within(queue, 32)), (Some(1), Some(1), Some(2)));
        assert_eq!(
            (within(compute, 10), within(compute, 32), within(compute, 100)),
            (Some(1), Some(2), Some(3))
        );
        for (ladder, of) in
            stats.ladders.iter().zip([stats.latency, stats.queue_latency, stats.compute_latency])
        {
            assert_eq!(ladder.count(), of.count);
        }
    }
}
