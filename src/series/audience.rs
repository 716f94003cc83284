//! Who hears of predictions and truths on this node.

use std::sync::Arc;

use peregrine_actors::scorecard::Scorecard;
use peregrine_actors::series::SeriesName;
use peregrine_actors::stream::{Hub, Prediction, StreamEvent};

use crate::busy;

/// The subscribers of this node, and its scorecard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Audience {
    pub(crate) hub: Hub,
    pub(crate) scorecard: Arc<Scorecard>,
}

impl Audience {
    /// A prediction, or a gap, for the subscribers of this node.
    pub(crate) fn publish(&self, event: StreamEvent) {
        self.hub.publish(event);
    }

    /// A prediction was made by this node, whoever wants it.
    pub(crate) fn predicted(&self, prediction: &Prediction) {
        busy::worked();
        self.scorecard.predicted(prediction);
    }

    /// A place of a series that this node owns has this value.
    pub(crate) fn observed(&self, series: &SeriesName, position: u64, value: f32) {
        self.scorecard.observed(series, position, value);
    }
}
