//! The end of a wait at its deadline, for waits that are many, short and almost never end there.
//!
//! To set a timer of tokio and to take it back are two passes through a lock that all threads share. So a timer
//! stays set when its wait is over, and the next wait of the thread takes it as it is. It may ring too early then:
//! who hears it looks at the clock and sets it to its own deadline. A task may so be woken once for nothing after
//! its wait, and its last timer keeps the memory of it until the timer is taken again or rings.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::deadline::Deadline;

/// Timers that one thread keeps.
const KEPT_MAX: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<Timer>> = const { RefCell::new(Vec::new()) };
}

/// What a wait ends with, or nothing at the deadline. Needs a tokio timer around it.
pub(crate) async fn before<F: Future>(deadline: Deadline, wait: F) -> Option<F::Output> {
    let mut wait = pin!(wait);
    let mut alarm = Alarm { deadline: deadline.instant().into(), timer: None };
    poll_fn(|cx| match wait.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => alarm.poll(cx).map(|()| None),
    })
    .await
}

struct Alarm {
    deadline: Instant,
    timer: Option<Timer>,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = &mut self.timer.get_or_insert_with(|| Timer::take(self.deadline)).sleep;
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(self.deadline);
        sleep.as_mut().poll(cx)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.keep();
        }
    }
}

/// Rings on the runtime it was made on, and follows the clock of that one.
struct Timer {
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    /// One that rings no later than the deadline.
    fn take(deadline: Instant) -> Self {
        let runtime = Handle::current().id();
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
        match kept.filter(|timer| timer.runtime == runtime) {
            Some(mut timer) => {
                if timer.sleep.deadline() > deadline {
                    timer.sleep.as_mut().reset(deadline);
                }
                timer
            }
            None => Self { runtime, sleep: Box::pin(sleep_until(deadline)) },
        }
    }

    fn keep(self) {
        // One too many is dropped outside: with it may go the last of a task, which may hold alarms of its own.
        let _surplus = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(self);
                return None;
            }
            Some(self)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_over_has_its_value_at_any_time() {
        assert_eq!(before(after_ms(0), ready(7)).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_deadline_whatever_its_timer_was_set_to() {
        for (earlier, later) in [(1000, 10), (10, 1000), (10, 10)] {
            waited(earlier).await;
            let start = Instant::now();
            assert_eq!(before(after_ms(later), pending::<()>()).await, None);
            assert_eq!(start.elapsed().as_millis(), u128::from(later), "timer of {earlier} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_whose_timer_has_rung_before_it_ends_at_its_deadline() {
        waited(10).await;
        advance(Duration::from_millis(50)).await;
        let start = Instant::now();
        assert_eq!(before(after_ms(20), pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_millis(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_at_once_have_a_timer_each() {
        for _ in 0..2 {
            let start = Instant::now();
            let waits = (0..200).map(|at| async move {
                assert_eq!(before(after_ms(200 - at), pending::<()>()).await, None);
                assert_eq!(start.elapsed().as_millis(), u128::from(200 - at));
            });
            join_all(waits).await;
        }
        assert_eq!(kept(), KEPT_MAX);
    }

    #[test]
    fn a_timer_is_taken_again_on_its_runtime_and_on_no_other() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (one, other) = (runtime(), runtime());
        for (runtime, expected) in [(&one, 1), (&one, 1), (&other, 1)] {
            runtime.block_on(waited(1000));
            assert_eq!(kept(), expected);
        }
        drop(other);
        one.block_on(async { assert_eq!(before(after_ms(1), pending::<()>()).await, None) });
    }

    /// A wait that was given up at once.
    async fn waited(deadline_ms: u64) {
        assert_eq!(before(after_ms(deadline_ms), pending::<()>()).now_or_never(), None);
    }

    fn after_ms(delay_ms: u64) -> Deadline {
        Deadline::after(Instant::now().into_std(), Duration::from_millis(delay_ms))
    }

    fn kept() -> usize {
        KEPT.with(|kept| kept.borrow().len())
    }
}
