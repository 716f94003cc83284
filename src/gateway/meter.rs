//! What the gateway counts: requests by route and class, their seconds, and the cost of reading and printing by
//! model. Fixed memory; no name that a client chose becomes a label.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use peregrine_actors::Ladder;
use peregrine_runtime::TraceContext;

/// Upper bounds of the request histogram in seconds; the last bucket is open.
pub(crate) const BOUNDS_S: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Each of [`BOUNDS_S`] is reached in so many steps: percentiles between them are right within some percent.
const STEPS: usize = 8;
/// Upper bounds of the buckets that are counted.
pub(crate) const FINE_BOUNDS_S: [f64; BOUNDS_S.len() * STEPS] = fine_bounds();
const BUCKETS: usize = FINE_BOUNDS_S.len() + 1;

const fn fine_bounds() -> [f64; BOUNDS_S.len() * STEPS] {
    let mut fine = [0.0; BOUNDS_S.len() * STEPS];
    let mut at = 0;
    while at < fine.len() {
        let (bound, step) = (at / STEPS, at % STEPS + 1);
        let below = if bound == 0 { 0.0 } else { BOUNDS_S[bound - 1] };
        // The last step is the bound itself, whatever rounding makes of the others.
        let part = step as f64 / STEPS as f64;
        fine[at] = if step == STEPS { BOUNDS_S[bound] } else { below + (BOUNDS_S[bound] - below) * part };
        at += 1;
    }
    fine
}

/// Status classes, by first digit.
pub(crate) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A group of paths that is counted as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Infer,
    Protocol,
    Forecast,
    Neural,
    Models,
    Health,
    Observe,
    Docs,
    Other,
}

impl Route {
    pub(crate) const ALL: [Self; 9] = [
        Self::Infer,
        Self::Protocol,
        Self::Forecast,
        Self::Neural,
        Self::Models,
        Self::Health,
        Self::Observe,
        Self::Docs,
        Self::Other,
    ];

    /// Those that answer with forecasts.
    const FORECASTING: [Self; 3] = [Self::Infer, Self::Forecast, Self::Neural];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Infer => "v2_infer",
            Self::Protocol => "v2",
            Self::Forecast => "v1_forecast",
            Self::Neural => "neural",
            Self::Models => "v1",
            Self::Health => "health",
            Self::Observe => "observe",
            Self::Docs => "docs",
            Self::Other => "other",
        }
    }

    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/v1/forecast" => Self::Forecast,
            "/metrics" | "/metrics/gpu" | "/status" | "/v1/overview" | "/v1/overview/stream" => Self::Observe,
            "/openapi.json" | "/docs" => Self::Docs,
            _ if path.starts_with("/v2/models/") && path.ends_with("/infer") => Self::Infer,
            _ if path == "/v2" || path.starts_with("/v2/") => Self::Protocol,
            _ if path.starts_with("/health") => Self::Health,
            _ if path.starts_with("/v1/") => Self::Models,
            _ if path.starts_with("/neural/") => Self::Neural,
            _ => Self::Other,
        }
    }
}

/// Counters of one route.
#[derive(Debug)]
pub(crate) struct RouteMeter {
    classes: [AtomicU64; 5],
    /// By [`FINE_BOUNDS_S`]; the last is open.
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    /// Of each bucket the last request that was recorded.
    exemplars: [parking_lot::Mutex<Option<Exemplar>>; BOUNDS_S.len() + 1],
}

/// A request of a bucket that somebody can look up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exemplar {
    pub(crate) context: TraceContext,
    pub(crate) took: Duration,
    pub(crate) at: SystemTime,
}

impl Default for RouteMeter {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            classes: Default::default(),
            buckets: std::array::from_fn(zero),
            nanos: AtomicU64::new(0),
            exemplars: std::array::from_fn(|_| parking_lot::Mutex::default()),
        }
    }
}

impl RouteMeter {
    /// Cumulative: answered within each of [`FINE_BOUNDS_S`], and all.
    fn answered(&self) -> [u64; BUCKETS] {
        let mut seen = 0;
        std::array::from_fn(|bucket| {
            seen += self.buckets[bucket].load(Ordering::Relaxed);
            seen
        })
    }
}

/// A reading of one route.
pub(crate) struct RouteReading {
    pub(crate) classes: [u64; 5],
    /// Cumulative, as Prometheus wants them; the last counts all.
    pub(crate) buckets: [u64; BOUNDS_S.len() + 1],
    pub(crate) seconds: f64,
    pub(crate) exemplars: [Option<Exemplar>; BOUNDS_S.len() + 1],
}

/// What became of requests for forecasts since the node started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// Answered within each of [`BOUNDS_S`], and all.
    pub(crate) buckets: [u64; BOUNDS_S.len() + 1],
    /// Answered 5xx.
    pub(crate) failed: u64,
}

/// Reading and printing of one model version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) parse: Duration,
    pub(crate) parses: Ladder,
    pub(crate) print: Duration,
    pub(crate) prints: Ladder,
}

fn bucket_of(took: Duration) -> usize {
    let seconds = took.as_secs_f64();
    BOUNDS_S.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS_S.len())
}

/// All counters of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    routes: [RouteMeter; Route::ALL.len()],
    /// Requests inside.
    in_flight: AtomicUsize,
    /// Connections that are served.
    pub(crate) connections: AtomicUsize,
    transfers: Mutex<HashMap<String, Vec<(u32, Transfer)>>>,
}

impl Meter {
    /// One answered request.
    pub(crate) fn record(&self, route: Route, status: u16, took: Duration) {
        let meter = &self.routes[route as usize];
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        let seconds = took.as_secs_f64();
        let bucket = FINE_BOUNDS_S.partition_point(|&bound| bound < seconds);
        meter.classes[class].fetch_add(1, Ordering::Relaxed);
        meter.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        meter.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The request that was just recorded can be looked up.
    pub(crate) fn exemplify(&self, route: Route, took: Duration, context: TraceContext, at: SystemTime) {
        let place = &self.routes[route as usize].exemplars[bucket_of(took)];
        *place.lock() = Some(Exemplar { context, took, at });
    }

    pub(crate) fn read(&self, route: Route) -> RouteReading {
        let meter = &self.routes[route as usize];
        let fine = meter.answered();
        RouteReading {
            classes: std::array::from_fn(|class| meter.classes[class].load(Ordering::Relaxed)),
            buckets: std::array::from_fn(|bucket| fine[((bucket + 1) * STEPS - 1).min(BUCKETS - 1)]),
            seconds: Duration::from_nanos(meter.nanos.load(Ordering::Relaxed)).as_secs_f64(),
            exemplars: std::array::from_fn(|bucket| *meter.exemplars[bucket].lock()),
        }
    }

    /// Of all routes that answer with forecasts.
    pub(crate) fn served(&self) -> Served {
        let mut served = Served { buckets: [0; BOUNDS_S.len() + 1], failed: 0 };
        for route in Route::FORECASTING {
            let reading = self.read(route);
            served.buckets.iter_mut().zip(reading.buckets).for_each(|(sum, count)| *sum += count);
            served.failed += reading.classes[4];
        }
        served
    }

    /// As [`Meter::served`]: answered within each of [`FINE_BOUNDS_S`], and all.
    pub(crate) fn served_finely(&self) -> Vec<u64> {
        let mut sums = vec![0; BUCKETS];
        for route in Route::FORECASTING {
            let counts = self.routes[route as usize].answered();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }

    /// Lets a forecast request in while fewer than `requests_max` are inside.
    pub(crate) fn admit(&self, requests_max: usize) -> Option<Admitted<'_>> {
        let admitted = Admitted(&self.in_flight);
        (self.in_flight.fetch_add(1, Ordering::Relaxed) < requests_max).then_some(admitted)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What reading (`parse`) and printing of one request of a model cost.
    pub(crate) fn transfer(&self, model: &str, version: u32, parse: Duration, print: Option<Duration>) {
        let mut transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        if !transfers.contains_key(model) {
            transfers.insert(model.to_owned(), Vec::new());
        }
        let Some(versions) = transfers.get_mut(model) else { return };
        let at = versions.iter().position(|(known, _)| *known == version).unwrap_or_else(|| {
            versions.push((version, Transfer::default()));
            versions.len() - 1
        });
        let transfer = &mut versions[at].1;
        transfer.parse += parse;
        transfer.parses.add(parse);
        if let Some(print) = print {
            transfer.print += print;
            transfer.prints.add(print);
        }
    }

    pub(crate) fn transfer_of(&self, model: &str, version: u32) -> Transfer {
        let transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = transfers.get(model).map_or(&[][..], Vec::as_slice);
        versions
            .iter()
            .find(|(known, _)| *known == version)
            .map_or_else(Transfer::default, |(_, found)| *found)
    }
}

/// Counts a request as inside until it is dropped: answered, refused, or its client gone.
#[derive(Debug)]
pub(crate) struct Admitted<'a>(&'a AtomicUsize);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_known_by_their_paths() {
        for (path, want) in [
            ("/v2", Route::Protocol),
            ("/v2/models/infer", Route::Infer),
            ("/v2/models/m/versions/1/infer", Route::Infer),
            ("/v1/forecast", Route::Forecast),
            ("/v1/models", Route::Models),
            ("/v1/overview", Route::Observe),
            ("/health/live", Route::Health),
            ("/nothing", Route::Other),
        ] {
            assert_eq!(Route::of(path), want, "{path}");
        }
        for (place, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, place);
        }
    }

    #[test]
    fn buckets_add_up() {
        let meter = Meter::default();
        for (status, millis) in [(200, 0), (200, 3), (404, 3), (503, 60_000)] {
            meter.record(Route::Infer, status, Duration::from_millis(millis));
        }
        let reading = meter.read(Route::Infer);
        assert_eq!(reading.classes, [0, 2, 0, 1, 1]);
        assert_eq!((reading.buckets[0], reading.buckets[6], reading.buckets[17]), (1, 3, 4));
        meter.record(Route::Health, 500, Duration::ZERO);
        meter.record(Route::Neural, 500, Duration::ZERO);
        let served = meter.served();
        assert_eq!((served.buckets[0], served.buckets[17], served.failed), (2, 5, 2), "forecasts alone");
    }

    #[test]
    fn fine_bounds_rise_and_hold_every_bound_itself() {
        assert!(FINE_BOUNDS_S.is_sorted_by(|a, b| a < b));
        for (at, bound) in BOUNDS_S.iter().enumerate() {
            assert_eq!(FINE_BOUNDS_S[at * STEPS + STEPS - 1].to_bits(), bound.to_bits());
        }
        let meter = Meter::default();
        // On a bound, between two, beyond the last.
        for nanos in [50_000, 50_001, 1_000_000, 1_000_001, 10_000_000_000, 10_000_000_001] {
            meter.record(Route::Infer, 200, Duration::from_nanos(nanos));
        }
        let coarse = meter.read(Route::Infer).buckets;
        assert_eq!((coarse[0], coarse[1], coarse[4], coarse[5], coarse[16], coarse[17]), (1, 2, 3, 4, 5, 6));
        let fine = meter.served_finely();
        assert_eq!((fine[STEPS - 1], fine[STEPS], fine[BUCKETS - 2], fine[BUCKETS - 1]), (1, 2, 5, 6));
    }

    #[test]
    fn a_full_house_refuses_until_someone_leaves() {
        let meter = Meter::default();
        let first = meter.admit(1).unwrap();
        assert!(meter.admit(1).is_none());
        drop(first);
        assert!(meter.admit(1).is_some());
        assert_eq!(meter.in_flight(), 0);
    }

    #[test]
    fn transfers_are_kept_by_version() {
        let meter = Meter::default();
        meter.transfer("m", 1, Duration::from_micros(5), Some(Duration::from_micros(2)));
        meter.transfer("m", 1, Duration::from_micros(5), None);
        let got = meter.transfer_of("m", 1);
        assert_eq!((got.parses.count(), got.prints.count(), got.parse), (2, 1, Duration::from_micros(10)));
        assert_eq!(meter.transfer_of("m", 2), Transfer::default());
    }
}
