//! Windows of series that a request names: from the data of this node, else from what was fed, whichever node has that.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use peregrine_actors::ForecastError;
use peregrine_actors::series::SeriesName;
use peregrine_actors::stream::SourceError;
use peregrine_runtime::Deadline;
use peregrine_shaders::{ModelSpec, Windows};
use tokio::time::timeout_at;

use super::Shared;
use super::error::Refusal;
use crate::series_store::{SeriesStore, SymbolError};

/// Logs that one request asks for at a time.
const LOGS_MAX: usize = 16;

/// What the symbols of a request stand for.
pub(crate) struct Named<'a> {
    store: &'a SeriesStore,
    /// Of the data; the model forecasts it.
    column: &'a str,
    /// Of those that the data do not have.
    fed: BTreeMap<String, Windows>,
}

impl<'a> Named<'a> {
    /// Of the data alone.
    pub(crate) fn new(store: &'a SeriesStore, column: &'a str) -> Self {
        Self { store, column, fed: BTreeMap::new() }
    }

    /// With the newest windows of those that only ticks tell of.
    ///
    /// # Errors
    /// A series that was fed is not ready for the model, or nobody can say what was fed.
    pub(super) async fn with_fed(
        mut self,
        shared: &Shared,
        symbols: impl Iterator<Item = &str>,
        spec: &ModelSpec,
        deadline: Deadline,
    ) -> Result<Self, Refusal> {
        // In order and once, whatever a caller repeats.
        let unknown: BTreeSet<&str> = symbols.filter(|symbol| !self.store.has(symbol)).collect();
        if unknown.is_empty() {
            return Ok(self);
        }
        let asked = stream::iter(unknown).map(|symbol| fed(shared, symbol, spec, deadline));
        // On the heap: requests that need none of this carry it in their futures all the same.
        let found = Box::pin(asked.buffered(LOGS_MAX).try_collect::<Vec<_>>());
        self.fed = found.await?.into_iter().flatten().collect();
        Ok(self)
    }

    /// One row more.
    pub(crate) fn append(
        &self,
        symbol: &str,
        spec: &ModelSpec,
        windows: &mut Windows,
    ) -> Result<(), SymbolError> {
        match self.fed.get(symbol) {
            Some(row) => windows.append(row, spec.y_len()),
            None => windows.append(&self.store.latest(symbol, self.column, spec)?.windows, spec.y_len()),
        }
        Ok(())
    }
}

/// The newest window of a series that was fed; `None`: none of that name was.
async fn fed(
    shared: &Shared,
    symbol: &str,
    spec: &ModelSpec,
    deadline: Deadline,
) -> Result<Option<(String, Windows)>, Refusal> {
    let Ok(name) = SeriesName::new(symbol) else { return Ok(None) };
    let asked = timeout_at(deadline.instant().into(), shared.live.source.log(&name, deadline));
    let log = match asked.await.map_err(|_late| ForecastError::DeadlineExceeded)? {
        Err(SourceError::UnknownSeries(_)) => return Ok(None),
        answer => answer.map_err(Refusal::Source)?,
    };
    let unready = |source| Refusal::Fed { symbol: symbol.to_owned(), source };
    Ok(Some((symbol.to_owned(), shared.live.series.window(&log, spec).map_err(unready)?)))
}
