//! Threads that have just had work look for more before they sleep.
//!
//! A thread that sleeps in its poll is woken by another processor, which in a virtual machine costs 5 to 20 µs; one that
//! is awake sees the next byte at once. So a task on such a thread's runtime gives way again and again: whatever is ready
//! runs before it has its next turn, and tokio asks the kernel for what has come between two turns, without waiting (a
//! runtime with a task that has given way polls with a timeout of zero). It stops as soon as nothing has come for as long
//! as `server.busy_poll` says, and costs nothing from then on.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use peregrine_runtime::Clock;

/// How often a thread that looks says so to those who read [`Looked`].
const TELL_EVERY: Duration = Duration::from_millis(10);

thread_local! {
    /// This thread has had work since it was last asked.
    static WORKED: Cell<bool> = const { Cell::new(false) };
    /// Of the task of this thread that looks for work, while it sleeps.
    static ASLEEP: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// What all threads that look for work have spent on it.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    nanos: AtomicU64,
    turns: AtomicU64,
}

impl Looked {
    /// Time in which threads did not sleep, the work that they did meanwhile among it.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// How often one asked for work.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    fn add(&self, turns: u64, time: Duration) {
        self.turns.fetch_add(turns, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Whether threads that look for work would keep each other, and all else, from it.
pub(crate) fn is_crowded(workers: usize, cores: usize) -> bool {
    const SERIES: usize = 1;
    workers + SERIES > cores
}

/// This thread has work to do, or has done some. Costs a flag where nobody looks for more.
pub(crate) fn worked() {
    WORKED.set(true);
    let asleep = ASLEEP.with_borrow_mut(Option::take);
    if let Some(waker) = asleep {
        waker.wake();
    }
}

/// Looks for work on the thread that runs this, from each time that it had some until it had none for `patience`. Never
/// ends. One task of a thread, and of a runtime that has no other.
pub(crate) async fn look(patience: Duration, looked: Arc<Looked>, clock: Arc<dyn Clock>) {
    loop {
        until_worked().await;
        let begun = clock.now();
        let mut spell = Spell::begin(patience, begun);
        let mut told = (0, begun);
        loop {
            tokio::task::yield_now().await;
            let now = clock.now();
            let goes_on = spell.turn(WORKED.take(), now);
            if !goes_on || now.saturating_duration_since(told.1) >= TELL_EVERY {
                looked.add(spell.turns - told.0, now.saturating_duration_since(told.1));
                told = (spell.turns, now);
            }
            if !goes_on {
                break;
            }
        }
    }
}

async fn until_worked() {
    poll_fn(|cx| {
        if WORKED.take() {
            return Poll::Ready(());
        }
        ASLEEP.set(Some(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// A time in which a thread does not sleep. Pure.
#[derive(Debug)]
struct Spell {
    patience: Duration,
    until: Instant,
    turns: u64,
}

impl Spell {
    fn begin(patience: Duration, now: Instant) -> Self {
        Self { patience, until: now + patience, turns: 0 }
    }

    /// One turn is over, in which there was work or not; whether there is to be another.
    fn turn(&mut self, worked: bool, now: Instant) -> bool {
        self.turns += 1;
        if worked {
            self.until = now + self.patience;
        }
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peregrine_runtime::SystemClock;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_spell_ends_when_nothing_came_for_as_long_as_it_may() {
        let start = Instant::now();
        let mut spell = Spell::begin(200 * US, start);
        assert!(spell.turn(false, start + 199 * US));
        assert!(spell.turn(true, start + 199 * US), "work: from now on");
        assert!(spell.turn(false, start + 398 * US));
        assert!(!spell.turn(false, start + 399 * US));
        assert_eq!(spell.turns, 4);
    }

    #[test]
    fn a_core_is_left_for_each_that_looks() {
        assert!(!is_crowded(3, 4));
        assert!(is_crowded(4, 4));
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn a_thread_without_work_does_not_look() {
        let looked = Arc::<Looked>::default();
        runtime().block_on(async {
            WORKED.set(false);
            tokio::spawn(look(Duration::from_secs(60), Arc::clone(&looked), Arc::new(SystemClock)));
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
        assert_eq!((looked.turns(), looked.time()), (0, Duration::ZERO));
    }

    #[test]
    fn whatever_is_ready_runs_while_a_thread_looks_and_sockets_are_heard() {
        let looked = Arc::<Looked>::default();
        let asked = runtime().block_on(async {
            tokio::spawn(look(Duration::from_secs(60), Arc::clone(&looked), Arc::new(SystemClock)));
            worked();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let addr = listener.local_addr().expect("an address");
            let client = std::thread::spawn(move || {
                use std::io::{Read as _, Write as _};
                let mut socket = std::net::TcpStream::connect(addr).expect("a listener");
                let mut byte = [0];
                for at in 0..100 {
                    socket.write_all(&[at]).expect("a server");
                    socket.read_exact(&mut byte).expect("a server");
                    assert_eq!(byte, [at]);
                }
            });
            let (mut socket, _) = listener.accept().await.expect("a client");
            let mut asked = 0;
            while let Ok(byte) = socket.read_u8().await {
                socket.write_u8(byte).await.expect("a client");
                asked += 1;
            }
            client.join().expect("all is echoed");
            tokio::time::sleep(2 * TELL_EVERY).await; // timers ring, too
            asked
        });
        assert_eq!(asked, 100);
        assert!(looked.turns() > 100, "{looked:?}");
    }

    #[test]
    fn the_looking_ends_and_begins_again_with_work() {
        let looked = Arc::<Looked>::default();
        let (first, idle, second) = runtime().block_on(async {
            tokio::spawn(look(Duration::from_millis(5), Arc::clone(&looked), Arc::new(SystemClock)));
            worked();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let first = looked.turns();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let idle = looked.turns();
            worked();
            tokio::time::sleep(Duration::from_millis(50)).await;
            (first, idle, looked.turns())
        });
        assert!(first > 0 && first == idle && second > idle, "{first}, {idle}, {second}");
        assert!(looked.time() >= Duration::from_millis(10), "{:?}", looked.time());
    }
}
