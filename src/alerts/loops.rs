//! The event loops of a node, and how late their timers are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use peregrine_runtime::Clock;
use peregrine_runtime::watchdog::lag::{LoopLag, beat};

/// All loops that are watched.
#[derive(Debug, Default)]
pub(crate) struct Loops(Mutex<Vec<(String, Arc<LoopLag>)>>);

impl Loops {
    /// Watches the loop that calls this. Must be called within it.
    pub(crate) fn watch(&self, kind: &str, clock: &Arc<dyn Clock>) {
        let lag = Arc::new(LoopLag::new(clock.now()));
        let mut loops = self.0.lock();
        loops.retain(|(_, lag)| !lag.has_ended());
        let free = (0..).map(|number| format!("{kind}-{number}"));
        let name = free.into_iter().find(|name| loops.iter().all(|(known, _)| known != name));
        loops.push((name.unwrap_or_default(), Arc::clone(&lag)));
        drop(loops);
        drop(actix_web::rt::spawn(beat(lag, Arc::clone(clock)))); // it ends with its loop
    }

    /// The lag of each loop, by name.
    pub(crate) fn lags(&self, now: Instant) -> Vec<(String, Duration)> {
        let loops = self.0.lock();
        let running = loops.iter().filter(|(_, lag)| !lag.has_ended());
        running.map(|(name, lag)| (name.clone(), lag.worst(now))).collect()
    }
}
