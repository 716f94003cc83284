//! What this node knows of another one from having asked it: its breaker, its latencies, what it holds of ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use peregrine_runtime::{NodeId, Region};

use super::hedge::Latencies;
use crate::breaker::Gate;
use crate::inference::{Expected, Pace};
use crate::status::{PeerStats, Percentiles};

pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) region: Region,
    pub(crate) gate: Arc<Gate>,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) counts: Counts,
    notes: Mutex<Notes>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) asks: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
}

struct Notes {
    latencies: Latencies,
    /// Microseconds of every answer.
    histogram: Histogram<u64>,
    /// By model; there are at most [`MODELS_MAX`].
    paces: HashMap<String, Pace>,
    full_until: Option<Instant>,
}

/// Models whose times are told apart; those of any more are not known.
const MODELS_MAX: usize = 256;
/// Longer answers are recorded as this.
const LONGEST_US: u64 = 120_000_000;

impl Peer {
    pub(crate) fn new((node, region): (NodeId, Region), gate: Gate, percentile: f64) -> Self {
        // Two significant digits: some 20 KiB a node.
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 2)
            .unwrap_or_else(|_| unreachable!("constant bounds are valid"));
        Self {
            node,
            region,
            gate: Arc::new(gate),
            in_flight: AtomicUsize::new(0),
            counts: Counts::default(),
            notes: Mutex::new(Notes {
                latencies: Latencies::new(percentile),
                histogram,
                paces: HashMap::new(),
                full_until: None,
            }),
        }
    }

    /// Learns its latencies afresh, for another percentile.
    pub(crate) fn relearn(&self, percentile: f64) {
        self.notes.lock().latencies = Latencies::new(percentile);
    }

    pub(crate) fn answered(&self, model: &str, rows: usize, took: Duration, now: Instant) {
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        let mut notes = self.notes.lock();
        notes.full_until = None;
        notes.latencies.record(took);
        notes.histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if let Some(pace) = notes.paces.get(model) {
            pace.record(rows, took, now);
        } else if notes.paces.len() < MODELS_MAX {
            let pace = Pace::new(now);
            pace.record(rows, took, now);
            notes.paces.insert(model.to_owned(), pace);
        }
    }

    /// It was given up after this time: it would have taken longer still.
    pub(crate) fn outrun(&self, waited: Duration) {
        self.notes.lock().latencies.record(waited);
    }

    pub(crate) fn full(&self, until: Instant) {
        self.notes.lock().full_until = Some(until);
    }

    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.notes.lock().full_until.is_some_and(|until| now < until)
    }

    /// What an answer will take, there and back; `None`: not known.
    pub(crate) fn expect(&self, model: &str, rows: usize, now: Instant) -> Option<Expected> {
        self.notes.lock().paces.get(model)?.expect(rows, now)
    }

    pub(crate) fn with_latencies<R>(&self, read: impl FnOnce(&Latencies) -> R) -> R {
        read(&self.notes.lock().latencies)
    }

    pub(crate) fn stats(&self) -> PeerStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let notes = self.notes.lock();
        let at = |share| Duration::from_micros(notes.histogram.value_at_quantile(share));
        PeerStats {
            node: self.node.clone(),
            region: self.region.clone(),
            asks: count(&self.counts.asks),
            answered: count(&self.counts.answered),
            refused: count(&self.counts.refused),
            failed: count(&self.counts.failed),
            cancelled: count(&self.counts.cancelled),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: Percentiles {
                count: notes.histogram.len(),
                mean: Duration::from_secs_f64(notes.histogram.mean() / 1e6),
                p50: at(0.5),
                p90: at(0.9),
                p95: at(0.95),
                p99: at(0.99),
                p999: at(0.999),
                max: Duration::from_micros(notes.histogram.max()),
            },
        }
    }
}
