//! What a system writes down of its answers, where it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use peregrine_runtime::Deadline;

use super::{NotHere, System};
use crate::audit::{Answer, Audit, PredictionIds, millis};
use crate::request::{Forecast, ForecastError, ForecastRequest, ServedBy, Subject};
use crate::router::Route;

/// Gives predictions their numbers.
#[derive(Debug)]
pub(super) struct Numbers {
    run: u64,
    next: AtomicU64,
}

impl Numbers {
    pub(super) fn starting(at: SystemTime) -> Self {
        Self { run: millis(at), next: AtomicU64::new(0) }
    }
}

impl System {
    /// Records every answer from now on and for good. False: it already does.
    pub fn attach_audit(&self, audit: Arc<Audit>) -> bool {
        self.inner.audit.set(audit).is_ok()
    }

    /// Where answers are recorded; `None`: nowhere.
    #[must_use]
    pub fn audit(&self) -> Option<&Arc<Audit>> {
        self.inner.audit.get()
    }

    /// Numbers for the predictions of a request of so many rows, which no others get.
    #[must_use]
    pub fn number(&self, rows: usize) -> PredictionIds {
        let numbers = &self.inner.numbers;
        PredictionIds { run: numbers.run, first: numbers.next.fetch_add(rows as u64, Ordering::Relaxed) }
    }

    /// Answers a request and records the answer, for which there has to be room before.
    pub(super) async fn recorded(
        &self,
        audit: &Audit,
        found: Result<Arc<Route>, ForecastError>,
        mut request: ForecastRequest,
        now: Instant,
    ) -> Result<Forecast, ForecastError> {
        let subject = std::mem::take(&mut request.subject);
        // What is too large is refused before its windows are copied.
        if matches!(subject, Subject::Again) || self.check_size(&request).is_err() {
            return self.answer(found.as_ref().map_err(Clone::clone), request, now).await;
        }
        let answer_len = found.as_ref().map_or(0, |route| route.status.spec.answer_len());
        let draft = match (audit.begin(&request.windows, answer_len, &subject), &found) {
            (Ok(draft), _) => draft,
            (Err(full), Ok(route)) => return Err(self.counted(route, *NotHere::with(None)(full), now)),
            (Err(full), Err(_)) => return Err(full),
        };
        let (caller, deadline): (_, Deadline) = (Arc::clone(&request.origin.caller), request.deadline);
        let forecast = self.answer(found.as_ref().map_err(Clone::clone), request, now).await?;
        let digest = match (&forecast.served_by, &found) {
            (ServedBy::Peer { digest, .. }, _) => digest,
            (ServedBy::Here, Ok(route)) => &route.status.digest,
            // What is not served here was not answered here.
            (ServedBy::Here, Err(unknown)) => return Err(unknown.clone()),
        };
        let rows = forecast.values.len() / forecast.spec.answer_len().max(1);
        let names = subject.names();
        let answer = Answer {
            forecast: &forecast,
            ids: names.and_then(|names| names.ids).unwrap_or_else(|| self.number(rows)),
            names,
            caller: &caller,
            digest,
            at: self.inner.clock.wall(),
            took: self.inner.clock.now().saturating_duration_since(now),
            until: deadline.instant(),
        };
        audit.end(draft, &answer).await?;
        Ok(forecast)
    }
}
