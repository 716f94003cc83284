//! Has versions that are not believed forecast besides what another has answered, for the scorecard alone: when what they
//! say holds the truth again, they may answer again.

use std::sync::Arc;

use peregrine_runtime::Deadline;
use peregrine_shaders::Windows;
use smallvec::SmallVec;

use super::System;
use crate::breaker::Probe;
use crate::request::{ForecastRequest, Origin, Priority, Subject};
use crate::stream::Prediction;

impl System {
    /// Leave to have other versions than the one that has answered forecast too; none, as a rule.
    pub(crate) fn probes(&self, model: &str, answered: u32) -> SmallVec<[Probe; 1]> {
        match &self.inner.rooms.trusts {
            Some(trusts) => trusts.probes(model, answered),
            None => SmallVec::new(),
        }
    }

    /// Has a version forecast these windows and scores what it says as these predictions, row by row. Nobody waits for
    /// it, and what fails is not scored. Needs a tokio runtime around it.
    pub(crate) fn probe(
        &self,
        probe: Probe,
        windows: Windows,
        predictions: Vec<Prediction>,
        deadline: Deadline,
    ) {
        let (Some(card), Some(first)) = (self.inner.rooms.scores.get(), predictions.first()) else { return };
        let (card, system) = (Arc::clone(card), self.clone());
        let request = ForecastRequest {
            version: Some(probe.version),
            origin: Origin { priority: Priority::Low, ..Origin::default() },
            subject: Subject::Again,
            ..ForecastRequest::new(first.stream.model.to_string(), windows, deadline)
        };
        drop(tokio::spawn(async move {
            match system.forecast(request).await {
                Ok(forecast) => {
                    let rows = forecast.values.chunks_exact(forecast.spec.answer_len());
                    for (prediction, values) in predictions.into_iter().zip(rows) {
                        card.predicted(&Prediction {
                            spec: Arc::clone(&forecast.spec),
                            version: forecast.version,
                            values: values.into(),
                            ..prediction
                        });
                    }
                }
                Err(failed) => tracing::debug!(version = probe.version, error = %failed, "probe not scored"),
            }
        }));
    }
}
