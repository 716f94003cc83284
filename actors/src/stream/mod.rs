//! The stream: predictions on their way to those who subscribed.
//!
//! `hub` takes events in any order and from any thread; `order` decides what is passed on; `log` holds ready frames
//! for all readers of a channel; `channel` is one reader's place there; `past` is what a reader is told first;
//! `keeper` asks the series for what is wanted and what is missing.

mod channel;
mod form;
mod held;
mod hub;
mod keeper;
mod log;
mod order;
mod past;
mod prediction;
mod source;
#[cfg(test)]
mod tests;

pub use channel::{Read, Selector, Subscription};
pub use form::{Encoding, Form, Item, LEVELS_MAX, Levels, LevelsError, Render};
pub use hub::{Hub, HubLimits, HubStats, JoinRefused, Opener};
pub use past::{From, Past, PastError, PastItem, Wish};
pub use prediction::{Gap, GapReason, Prediction, StreamEvent, StreamId};
pub use source::{Source, SourceError};
