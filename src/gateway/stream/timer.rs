//! One timer of a connection, which is not looked at before it is due: a thousand connections that have a message at one
//! moment are a thousand timers in no cache, and each costs more than reading the clock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes whoever looked at it last.
pub(super) struct Timer {
    due: Instant,
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl Timer {
    pub(super) fn new(after: Duration) -> Self {
        let due = Instant::now() + after;
        Self { due, sleep: Box::pin(sleep_until(due)), waker: None }
    }

    pub(super) fn reset(&mut self, after: Duration) {
        self.due = Instant::now() + after;
        self.sleep.as_mut().reset(self.due);
        self.waker = None;
    }

    pub(super) fn rings(&mut self, cx: &mut Context<'_>) -> bool {
        let knows = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if knows && Instant::now() < self.due {
            return false;
        }
        let rings = self.sleep.as_mut().poll(cx).is_ready();
        self.waker = (!rings).then(|| cx.waker().clone());
        rings
    }
}
