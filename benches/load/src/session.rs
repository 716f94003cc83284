//! One level of load: threads with connections that stay open from window to window.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::LoadError;
use crate::drive::{Driver, Work};
use crate::poll::raise_file_limit;
use crate::recorder::Window;
use crate::request::{Ask, requests};
use crate::shape::Shape;
use crate::target::Target;

/// How much load, and how it comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Connections, at least 1; each has at most one request under way.
    pub connections: usize,
    /// Requests a second of an open loop; a closed loop without.
    pub rate: Option<f64>,
}

enum Order {
    Window(Duration),
    Drain,
}

struct Hand {
    orders: SyncSender<Order>,
    windows: Receiver<std::io::Result<Window>>,
    thread: Option<JoinHandle<()>>,
}

/// A load that goes on until it is dropped.
pub struct Session {
    hands: Vec<Hand>,
}

impl Session {
    /// Opens all connections; nothing is sent yet but what fills the windows of a stream.
    ///
    /// # Errors
    /// What keeps the connections from opening, and [`LoadError::Unsuited`].
    pub fn open(
        target: &Target,
        shape: &Shape,
        ask: &Ask,
        level: Level,
        threads: usize,
    ) -> Result<Self, LoadError> {
        raise_file_limit();
        let work = Arc::new(Work {
            target: target.clone(),
            shape: shape.clone(),
            requests: requests(target, shape, ask)?,
            ask: ask.clone(),
            epoch: Instant::now(),
        });
        let threads = threads.clamp(1, level.connections.max(1));
        let mut opening = Vec::with_capacity(threads);
        let mut first = 0;
        for place in 0..threads {
            let count = level.connections / threads + usize::from(place < level.connections % threads);
            let rate = level.rate.map(|rate| rate * count as f64 / level.connections as f64);
            opening.push(Hand::start(Arc::clone(&work), first, count, rate)?);
            first += count;
        }
        let mut hands = Vec::with_capacity(threads);
        for (hand, opened) in opening {
            hands.push(hand);
            opened.recv().map_err(|_| LoadError::Thread)??;
        }
        Ok(Self { hands })
    }

    /// Sends and receives for `len`; what is under way at its end goes on into the next.
    ///
    /// # Errors
    /// [`LoadError::System`], [`LoadError::Thread`].
    pub fn window(&mut self, len: Duration) -> Result<Window, LoadError> {
        self.all(|| Order::Window(len))
    }

    /// Sends no more and waits for the answers to what was sent.
    ///
    /// # Errors
    /// As [`Self::window`].
    pub fn drain(&mut self) -> Result<Window, LoadError> {
        self.all(|| Order::Drain)
    }

    fn all(&mut self, order: impl Fn() -> Order) -> Result<Window, LoadError> {
        for hand in &self.hands {
            hand.orders.send(order()).map_err(|_| LoadError::Thread)?;
        }
        let mut whole = Window::default();
        for hand in &self.hands {
            whole.beside(&hand.windows.recv().map_err(|_| LoadError::Thread)??);
        }
        Ok(whole)
    }
}

type Opened = Receiver<Result<(), LoadError>>;

impl Hand {
    fn start(
        work: Arc<Work>,
        first: usize,
        count: usize,
        rate: Option<f64>,
    ) -> Result<(Self, Opened), LoadError> {
        let (orders, to_do) = sync_channel(1);
        let (done, windows) = sync_channel(1);
        let (told, opened) = sync_channel(1);
        let run = move || {
            let mut driver = match Driver::open(work, first, count, rate) {
                Ok(driver) => driver,
                Err(error) => return drop(told.send(Err(error))),
            };
            // Whoever stops listening has given up.
            if told.send(Ok(())).is_err() {
                return;
            }
            for order in to_do {
                let window = match order {
                    Order::Window(len) => driver.window(len),
                    Order::Drain => driver.drain(),
                };
                if done.send(window).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("load-{first}")).spawn(run)?;
        Ok((Self { orders, windows, thread: Some(thread) }, opened))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // Without orders the thread ends; it is waited for, so that its connections are closed when this returns.
        let (orders, _) = sync_channel(1);
        self.orders = orders;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by the channel that ended.
            let _ = thread.join();
        }
    }
}
