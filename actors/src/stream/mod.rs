//! The stream: predictions on their way to those who subscribed.

mod prediction;
mod source;

pub use prediction::{Gap, GapReason, Prediction, StreamEvent, StreamId};
pub use source::{Source, SourceError};
