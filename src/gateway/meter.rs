//! What the gateway counts: requests by route and class, their seconds, and the cost of reading and printing by
//! model. Fixed memory; no name that a client chose becomes a label.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the request histogram in seconds; the last bucket is open.
pub(crate) const BOUNDS_S: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
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
            "/metrics" | "/metrics/gpu" | "/status" => Self::Observe,
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
#[derive(Debug, Default)]
pub(crate) struct RouteMeter {
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    nanos: AtomicU64,
}

/// A reading of one route.
pub(crate) struct RouteReading {
    pub(crate) classes: [u64; 5],
    /// Cumulative, as Prometheus wants them; the last counts all.
    pub(crate) buckets: [u64; BOUNDS_S.len() + 1],
    pub(crate) seconds: f64,
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
    pub(crate) parse_count: u64,
    pub(crate) parse: Duration,
    pub(crate) print_count: u64,
    pub(crate) print: Duration,
}

/// All counters of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    routes: [RouteMeter; Route::ALL.len()],
    /// Requests inside.
    in_flight: AtomicUsize,
    transfers: Mutex<HashMap<String, Vec<(u32, Transfer)>>>,
}

impl Meter {
    /// One answered request.
    pub(crate) fn record(&self, route: Route, status: u16, took: Duration) {
        let meter = &self.routes[route as usize];
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS_S.len());
        meter.classes[class].fetch_add(1, Ordering::Relaxed);
        meter.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        meter.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn read(&self, route: Route) -> RouteReading {
        let meter = &self.routes[route as usize];
        let mut seen = 0;
        RouteReading {
            classes: std::array::from_fn(|class| meter.classes[class].load(Ordering::Relaxed)),
            buckets: std::array::from_fn(|bucket| {
                seen += meter.buckets[bucket].load(Ordering::Relaxed);
                seen
            }),
            seconds: Duration::from_nanos(meter.nanos.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }

    /// Of all routes that answer with forecasts.
    pub(crate) fn served(&self) -> Served {
        let mut served = Served { buckets: [0; BOUNDS_S.len() + 1], failed: 0 };
        for route in [Route::Infer, Route::Forecast, Route::Neural] {
            let reading = self.read(route);
            served.buckets.iter_mut().zip(reading.buckets).for_each(|(sum, count)| *sum += count);
            served.failed += reading.classes[4];
        }
        served
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
        transfer.parse_count += 1;
        transfer.parse += parse;
        transfer.print_count += u64::from(print.is_some());
        transfer.print += print.unwrap_or_default();
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
        assert_eq!((got.parse_count, got.print_count, got.parse), (2, 1, Duration::from_micros(10)));
        assert_eq!(meter.transfer_of("m", 2), Transfer::default());
    }
}
