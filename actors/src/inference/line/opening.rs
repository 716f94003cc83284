//! How a line gets its executor and loses it, and what becomes of what waits.

use std::sync::atomic::Ordering;

use super::{Desk, Line};
use crate::inference::engine::{Broken, Engine};
use crate::status::DeviceState;

/// How a line loses its executor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// Another will come: what is queued waits for it.
    Waits,
    /// None may come: what is queued goes elsewhere, the breakers open.
    Down,
    /// As down, but nothing is wrong.
    Planned,
}

impl Line {
    /// A new executor is there.
    ///
    /// # Errors
    /// It broke over what has to stay on it.
    pub(crate) fn open(&self, mut engine: Engine, name: &str) -> Result<(), Broken> {
        if let Err(broken) = self.residents.restart(&mut engine) {
            engine.discard();
            self.end(&broken.to_string());
            return Err(broken);
        }
        self.note_memory(Some(&engine));
        *self.engine.lock() = Some(engine);
        name.clone_into(&mut self.name.lock());
        self.up.store(true, Ordering::Release);
        self.admit(&mut self.desk.lock());
        self.state.send_replace(DeviceState::Up);
        tracing::info!(device = %self.spec.device, name, "device up");
        (self.spec.notice)(true, "");
        Ok(())
    }

    /// From now on it takes requests, if it is up and whenever it is.
    pub(crate) fn release(&self) {
        let mut desk = self.desk.lock();
        desk.held = false;
        self.admit(&mut desk);
        drop(desk);
        tracing::info!(device = %self.spec.device, "device takes requests");
    }

    fn admit(&self, desk: &mut Desk) {
        if !desk.held && self.up.load(Ordering::Acquire) {
            desk.accepts = true;
            self.accepts.store(true, Ordering::Release);
        }
    }

    /// The actor is gone but will be back: a line with a spare moves there, one without waits.
    pub(crate) fn interrupt(&self, why: &str) {
        if matches!(&*self.state.borrow(), DeviceState::Down { .. }) {
            return; // it had stopped before
        }
        self.close(why, if self.spec.spare.is_some() { Closing::Down } else { Closing::Waits });
    }

    /// The device cannot be had: whatever waits is moved or told so.
    pub(crate) fn end(&self, why: &str) {
        self.close(why, Closing::Down);
    }

    /// The node stops: as [`Self::end`], but nothing is wrong with the device and no circuit has to open.
    pub(crate) fn shut(&self, why: &str) {
        self.close(why, Closing::Planned);
    }

    fn close(&self, why: &str, closing: Closing) {
        let clear = closing != Closing::Waits;
        let planned = closing == Closing::Planned;
        self.up.store(false, Ordering::Release);
        self.residents.clear();
        self.note_memory(None);
        if let Some(engine) = self.engine.lock().take() {
            engine.discard();
        }
        let (left, accepted) = {
            let mut desk = self.desk.lock();
            let accepted = desk.accepts;
            desk.retired.clear();
            desk.accepts &= !clear;
            self.accepts.store(desk.accepts, Ordering::Release);
            let left = desk.batcher.take_all();
            self.publish_queue(&desk);
            (left, accepted)
        };
        let was_down = matches!(&*self.state.borrow(), DeviceState::Down { .. });
        if clear || !was_down {
            if !planned {
                tracing::warn!(device = %self.spec.device, reason = why, "device down");
            }
            self.state.send_replace(DeviceState::Down { reason: why.to_owned() });
        }
        // A line that merely waits for its next actor goes on accepting, so there is nothing to break.
        if clear && !planned && (accepted || !was_down) {
            (self.spec.notice)(false, why);
        }
        if clear {
            self.hand_over(left, why);
        } else {
            self.keep_waiting(self.relieve(left), why);
        }
    }
}
