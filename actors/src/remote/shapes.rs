//! Shapes of models that other nodes serve, remembered for a while: whoever parses a request needs them first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::message::RemoteAnswer;
use crate::status::{ModelState, ModelStatus};

/// A model may be replaced there by one of other shapes; that one's refusal says so, and forgets it here too.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Models remembered.
const MODELS_MAX: usize = 256;

type Key = (String, Option<u32>);

/// What other nodes said of their models.
#[derive(Default)]
pub(crate) struct Shapes(Mutex<HashMap<Key, (Instant, Arc<ModelStatus>)>>);

impl Shapes {
    pub(crate) fn get(&self, model: &str, version: Option<u32>, now: Instant) -> Option<Arc<ModelStatus>> {
        let known = self.0.lock();
        let (since, status) = known.get(&(model.to_owned(), version))?;
        (now.saturating_duration_since(*since) < KEPT_FOR).then(|| Arc::clone(status))
    }

    /// Remembers what an answer says of its model.
    pub(crate) fn put(&self, version: Option<u32>, answer: &RemoteAnswer, now: Instant) -> Arc<ModelStatus> {
        let status = Arc::new(ModelStatus {
            spec: Arc::clone(&answer.spec),
            version: answer.version,
            digest: answer.digest.clone(),
            state: ModelState::Ready,
            weight_bytes: answer.weight_bytes,
        });
        let mut known = self.0.lock();
        if known.len() >= MODELS_MAX {
            known.retain(|_, (since, _)| now.saturating_duration_since(*since) < KEPT_FOR);
        }
        if known.len() < MODELS_MAX {
            known.insert((answer.spec.name.clone(), version), (now, Arc::clone(&status)));
        }
        status
    }

    pub(crate) fn forget(&self, model: &str, version: Option<u32>) {
        self.0.lock().remove(&(model.to_owned(), version));
    }
}
