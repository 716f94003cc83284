//! How many requests of other nodes may be inside this one: as many as of its own callers, by the configuration in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::reload::Current;

/// All of them.
#[derive(Clone)]
pub(super) struct Seats {
    room: Arc<Room>,
    config: Current,
}

#[derive(Default)]
struct Room {
    taken: AtomicUsize,
    empty: Notify,
}

/// One for each request; given back when dropped.
pub(super) struct Seat(Arc<Room>);

impl Seats {
    pub(super) fn new(config: Current) -> Self {
        Self { room: Arc::default(), config }
    }

    /// `None`: the node is full.
    pub(super) fn take(&self) -> Option<Seat> {
        let max = self.config.get().server.in_flight_max;
        let one_more = |taken: usize| (taken < max).then_some(taken + 1);
        self.room.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Seat(Arc::clone(&self.room)))
    }

    /// Requests that are worked on now.
    pub(super) fn taken(&self) -> usize {
        self.room.taken.load(Ordering::Acquire)
    }

    /// Waits until no request is worked on.
    pub(super) async fn given_back(&self) {
        loop {
            let mut empty = std::pin::pin!(self.room.empty.notified());
            empty.as_mut().enable(); // before the look: what is given back in between is not missed
            if self.taken() == 0 {
                return;
            }
            empty.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources, resolve};

    fn config(in_flight_max: usize) -> Config {
        let text = format!("server.in_flight_max = {in_flight_max}");
        resolve(&Sources::default()).unwrap().over(&text).unwrap().config
    }

    #[test]
    fn as_many_are_let_in_as_the_configuration_in_use_says() {
        let current = Current::new(config(1));
        let seats = Seats::new(current.clone());
        let first = seats.take().expect("one may be inside");
        assert!(seats.take().is_none());
        current.stage(&Arc::new(config(2)))();
        let second = seats.take().expect("now two may");
        assert!(seats.take().is_none());
        current.stage(&Arc::new(config(1)))();
        drop(first);
        assert_eq!((seats.taken(), seats.take().is_none()), (1, true), "one that was let in stays");
        drop(second);
        assert!(seats.take().is_some());
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_last_is_given_back() {
        let seats = Seats::new(Current::new(config(2)));
        seats.given_back().await;
        let held = [seats.take(), seats.take()];
        let waits = tokio::spawn({
            let seats = seats.clone();
            async move { seats.given_back().await }
        });
        tokio::task::yield_now().await;
        assert_eq!((seats.taken(), waits.is_finished()), (2, false));
        drop(held);
        waits.await.expect("it ends");
    }
}
