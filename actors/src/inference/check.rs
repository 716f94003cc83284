//! The sampled shadow check: some answers of a GPU are computed again by its CPU twin and compared.
//!
//! A device that fails is noticed by its errors; one that lies is noticed only here. A probe is always checked, and an
//! answer whose quantiles cross is taken before others, since the network rarely makes such.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use peregrine_shaders::{ModelSpec, Precision, Windows, head};

use crate::devices::DeviceId;
use crate::inference::{Outcome, Served, Ticket};
use crate::status::{CheckStats, nanos};

/// How answers of a GPU are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckLimits {
    /// One answer of each model in so long; zero: none, and no probe either.
    pub every: Duration,
    /// A difference of so much of the answer's own range is drift. Rounding alone makes some 1e-5, and 1e-3 where halves are
    /// multiplied: ten times as much is allowed there.
    pub drift_max: f64,
}

impl CheckLimits {
    fn drift_max_of(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 | Precision::Int8 => self.drift_max,
            Precision::F16 => 10.0 * self.drift_max,
        }
    }
}

impl Default for CheckLimits {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), drift_max: 1e-3 }
    }
}

/// An answer that the CPU is to confirm.
pub(crate) struct Check {
    /// Whose answer it is.
    pub(crate) device: DeviceId,
    /// As many rows as the request.
    pub(crate) values: Vec<f32>,
    /// Settled by what comes of it.
    pub(crate) ticket: Option<Ticket>,
    /// What it took.
    pub(crate) took: Duration,
}

impl Check {
    /// Compares with what the CPU says, and tells whom it concerns.
    pub(crate) fn conclude(self, served: &Served, windows: &Windows, expected: &[f32], limits: &CheckLimits) {
        let spec = served.forecaster.spec();
        let (y_len, len) = (spec.y_len(), spec.answer_len());
        let rows = windows.y.chunks_exact(y_len).zip(expected.chunks_exact(len));
        let drifts = rows.zip(self.values.chunks(len)).map(|((window, want), got)| drift(window, want, got));
        let worst = drifts.fold(0.0, f64::max);
        let drift_max = limits.drift_max_of(served.forecaster.precision());
        served.sampler.note(worst, worst > drift_max);
        if worst <= drift_max {
            if let Some(ticket) = self.ticket {
                ticket.settle(Outcome::Finished { took: self.took });
            }
            return;
        }
        let why = format!("its answer differs from the cpu's by {worst:.1e} of its range");
        tracing::error!(model = %spec.name, version = served.version, device = %self.device, drift = worst, "the gpu answers wrongly");
        match self.ticket {
            Some(ticket) => ticket.settle(Outcome::Wrong(&why)),
            None => served.judge(self.device).judge(Outcome::Wrong(&why), false),
        }
    }
}

/// When the next answer of a model is checked, and which of its rows.
pub(crate) struct Sampler {
    born: Instant,
    next_ns: AtomicU64,
    taken: AtomicU64,
    checked: AtomicU64,
    wrong: AtomicU64,
    /// Bits of the largest difference; those of `f64` that are not negative are in order.
    worst: AtomicU64,
}

/// Crossed quantiles are looked at so much sooner.
const SUSPICION: u32 = 10;

impl Sampler {
    pub(crate) fn new(born: Instant) -> Self {
        let zero = || AtomicU64::new(0);
        Self { born, next_ns: zero(), taken: zero(), checked: zero(), wrong: zero(), worst: zero() }
    }

    fn note(&self, drift: f64, is_wrong: bool) {
        self.checked.fetch_add(1, Ordering::Relaxed);
        self.wrong.fetch_add(u64::from(is_wrong), Ordering::Relaxed);
        self.worst.fetch_max(drift.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> CheckStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CheckStats {
            checked: get(&self.checked),
            wrong: get(&self.wrong),
            drift_max: f64::from_bits(get(&self.worst)),
        }
    }

    /// The row to be checked, if it is time for one.
    pub(crate) fn take(
        &self,
        rows: usize,
        every: Duration,
        now: Instant,
        is_odd: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        let now_ns = nanos(now.saturating_duration_since(self.born));
        let due = self.next_ns.load(Ordering::Relaxed);
        // Crossed quantiles may be looked at when a tenth of the pause is over.
        let sooner = due.saturating_sub(nanos(every - every / SUSPICION));
        if rows == 0 || now_ns < sooner {
            return None;
        }
        let odd = is_odd();
        if odd.is_none() && now_ns < due {
            return None;
        }
        let next = now_ns.saturating_add(nanos(every));
        self.next_ns.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        let turn = self.taken.fetch_add(1, Ordering::Relaxed);
        Some(odd.unwrap_or(turn as usize % rows))
    }
}

/// The rows whose quantiles are not in order.
pub(crate) fn crossed(spec: &ModelSpec, values: &[f32]) -> impl Iterator<Item = usize> {
    let rows = values.chunks_exact(spec.answer_len()).enumerate();
    rows.filter(|(_, row)| head::crosses(&spec.head, row)).map(|(row, _)| row)
}

/// The largest difference between two answers to one window, as a share of the range that the answer moves in: that
/// of the window, or the distance between them.
pub(crate) fn drift(window: &[f32], expected: &[f32], got: &[f32]) -> f64 {
    let (low, high) = range(window.iter().chain(expected));
    let size = expected.iter().fold(0.0, |size: f64, value| size.max(f64::from(value.abs())));
    // Where nothing moves, rounding of the level itself must not count.
    let scale = (high - low).max(size * 1e-3).max(f64::from(f32::MIN_POSITIVE));
    let off = expected.iter().zip(got).map(|(want, got)| (f64::from(*want) - f64::from(*got)).abs());
    let worst = off.fold(0.0, |worst: f64, off| if off.is_nan() { f64::INFINITY } else { worst.max(off) });
    if expected.len() == got.len() { worst / scale } else { f64::INFINITY }
}

fn range<'a>(values: impl Iterator<Item = &'a f32>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(f64::from(*value)), high.max(f64::from(*value)))
    })
}

/// One row of a request.
pub(crate) fn row(windows: &Windows, row: usize) -> Windows {
    let rows = windows.rows.max(1);
    let part = |data: &Vec<f32>| {
        let len = data.len() / rows;
        data[row * len..][..len].to_vec()
    };
    Windows {
        rows: 1,
        y: part(&windows.y),
        mask: windows.mask.as_ref().map(part),
        hist_exog: part(&windows.hist_exog),
        futr_exog: part(&windows.futr_exog),
        stat_exog: part(&windows.stat_exog),
    }
}

#[cfg(test)]
mod tests {
    use peregrine_shaders::{Family, Head, NormalizerKind};

    use super::*;

    #[test]
    fn drift_is_a_share_of_the_range() {
        let check = |window: &[f32], expected: &[f32], got: &[f32], want: f64| {
            let drift = drift(window, expected, got);
            assert!((drift - want).abs() <= want * 1e-3, "{window:?} {expected:?} {got:?}: {drift}");
        };
        check(&[0.0, 10.0], &[5.0], &[5.0], 0.0);
        check(&[0.0, 10.0], &[5.0], &[6.0], 0.1);
        check(&[60_000.0, 60_100.0], &[60_050.0], &[60_060.0], 0.1);
        check(&[60_000.0, 60_000.0], &[60_000.0], &[60_006.0], 0.1);
        check(&[0.0, 1.0], &[9.0, 10.0], &[9.0, 11.0], 0.1);
        check(&[5.0], &[5.0], &[5.000_001], 1.907e-4);
        check(&[0.0], &[0.0], &[0.0], 0.0);
        assert_eq!(drift(&[1.0, 2.0], &[1.0], &[f32::NAN]), f64::INFINITY);
        assert_eq!(drift(&[1.0, 2.0], &[1.0], &[1.0, 1.0]), f64::INFINITY);
    }

    #[test]
    fn quantiles_that_cross_are_seen_in_their_row() {
        let spec = ModelSpec {
            name: "m".into(),
            family: Family::Nhits,
            horizon: 2,
            window: 4,
            series: 1,
            normalizer: NormalizerKind::Identity,
            head: Head::Quantiles(vec![0.5, 0.1, 0.9]),
            hist_exog: Vec::new(),
            futr_exog: Vec::new(),
            stat_exog: Vec::new(),
            columns: ["median", "lo-80", "hi-80"].map(str::to_owned).to_vec(),
        };
        let fine = [2.0, 1.0, 3.0, 4.0, 4.0, 5.0];
        let crosses = [2.0, 1.0, 3.0, 4.0, 4.1, 5.0];
        let rows =
            |spec: &ModelSpec, values: &[[f32; 6]]| crossed(spec, &values.concat()).collect::<Vec<_>>();
        assert_eq!(rows(&spec, &[fine, fine]), [0; 0]);
        assert_eq!(rows(&spec, &[fine, crosses, fine, crosses]), [1, 3]);
        let point = ModelSpec { head: Head::Point, ..spec };
        assert_eq!(rows(&point, &[crosses]), [0; 0]);
    }

    #[test]
    fn each_row_has_its_turn_once_in_a_while() {
        let (start, every) = (Instant::now(), Duration::from_millis(100));
        let sampler = Sampler::new(start);
        let take = |ms, odd| sampler.take(3, every, start + Duration::from_millis(ms), || odd);
        let taken = [take(0, None), take(1, None), take(99, None), take(100, None), take(200, None)];
        assert_eq!(taken, [Some(0), None, None, Some(1), Some(2)]);
        assert_eq!([take(205, Some(1)), take(210, Some(1)), take(215, Some(1))], [None, Some(1), None]);
        assert_eq!(sampler.take(0, every, start + every * 9, || None), None);
    }

    #[test]
    fn one_row_is_taken_out_whole() {
        let windows = Windows {
            rows: 2,
            y: vec![1.0, 2.0, 3.0, 4.0],
            mask: Some(vec![1.0, 0.0, 0.0, 1.0]),
            hist_exog: vec![5.0, 6.0],
            ..Windows::default()
        };
        let second = row(&windows, 1);
        assert_eq!((second.rows, second.y, second.mask), (1, vec![3.0, 4.0], Some(vec![0.0, 1.0])));
        assert_eq!((second.hist_exog, second.futr_exog), (vec![6.0], vec![]));
    }
}
