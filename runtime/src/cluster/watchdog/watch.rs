//! Watches the actors of a tree on this node: looks at them now and then, and reports which are stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{Pulse, Watchdog, WatchdogEvent};
use crate::clock::Clock;
use crate::mailbox::Control;

/// Looks in each limit: an actor is found stuck after the limit and at most this share of it more.
const LOOKS_PER_LIMIT: u32 = 8;

/// Where the pulses of the actors of a tree are read.
#[derive(Clone)]
pub struct Pulses {
    pub(crate) actors: Vec<(Arc<str>, Arc<dyn Control>)>,
}

impl Pulses {
    /// Every actor as it is now.
    #[must_use]
    pub fn read(&self) -> Vec<(Arc<str>, Pulse)> {
        self.actors.iter().map(|(name, mailbox)| (Arc::clone(name), mailbox.pulse())).collect()
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    stuck: AtomicUsize,
    ever: AtomicU64,
}

impl Watch {
    /// An actor is stuck when it has handled one message, or left those that wait alone, for longer than `limit`.
    /// Each edge is traced, counted and given to `report`, which must not block. Must be called within a tokio
    /// runtime.
    ///
    /// # Panics
    /// When the limit is zero.
    #[must_use]
    pub fn start(
        pulses: Pulses,
        limit: Duration,
        clock: Arc<dyn Clock>,
        report: impl Fn(&WatchdogEvent<Arc<str>>) + Send + 'static,
    ) -> Self {
        assert!(!limit.is_zero(), "some time is needed for a message");
        let counts = Arc::<Counts>::default();
        let seen = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut watchdog = Watchdog::new(limit);
            let mut looks = interval((limit / LOOKS_PER_LIMIT).max(Duration::from_millis(1)));
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                for event in watchdog.look(pulses.read(), clock.now()) {
                    match &event {
                        WatchdogEvent::Stuck { actor, silent, depth } => {
                            seen.ever.fetch_add(1, Ordering::Relaxed);
                            let silent_ms = silent.as_millis() as u64;
                            tracing::error!(%actor, silent_ms, depth, "actor is stuck");
                        }
                        WatchdogEvent::Recovered { actor, silent } => {
                            tracing::warn!(%actor, silent_ms = silent.as_millis() as u64, "actor goes on");
                        }
                    }
                    report(&event);
                }
                seen.stuck.store(watchdog.stuck().count(), Ordering::Relaxed);
            }
        });
        Self { counts, task }
    }

    /// Actors that are stuck now.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.counts.stuck.load(Ordering::Relaxed)
    }

    /// How often an actor was found stuck.
    #[must_use]
    pub fn stuck_ever(&self) -> u64 {
        self.counts.ever.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{ChildSpec, Children, Failure, Inbox, Mailbox, Strategy, SystemClock, Tree, Worker};

    #[derive(actix::Message)]
    #[rtype(result = "()")]
    struct Hold(mpsc::Receiver<()>);

    struct Holder;

    impl Worker<Hold> for Holder {
        fn run(&mut self, inbox: &mut Inbox<Hold>) -> Result<(), Failure> {
            while let Some(envelope) = inbox.recv() {
                // Until the test lets go.
                let _ = envelope.message.0.recv();
            }
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_message_that_is_handled_for_too_long_is_reported_and_so_is_its_end() {
        let clock = Arc::new(SystemClock);
        let (held, idle) = (Mailbox::new(4, clock.clone()), Mailbox::new(4, clock.clone()));
        let address = held.address();
        let mut children = Children::new(Strategy::OneForOne);
        children.worker(ChildSpec::new("held"), held, || Ok(Holder));
        children.worker(ChildSpec::new("idle"), idle, || Ok(Holder));
        let tree = Tree::start(children, clock.clone(), 1).unwrap();
        let (events, mut seen) = tokio::sync::mpsc::channel(16);
        let watch = Watch::start(tree.pulses(), Duration::from_millis(100), clock, move |event| {
            events.try_send(event.clone()).unwrap();
        });
        // Nothing waits behind it: the one message in hand is enough.
        let (let_go, holds) = mpsc::channel();
        address.tell(Hold(holds)).unwrap();
        let Some(WatchdogEvent::Stuck { actor, silent, depth }) = seen.recv().await else {
            panic!("no event")
        };
        assert_eq!((&*actor, depth), ("held", 1));
        assert!(silent > Duration::from_millis(100), "{silent:?}");
        drop(let_go);
        let Some(WatchdogEvent::Recovered { actor, .. }) = seen.recv().await else { panic!("no event") };
        assert_eq!((&*actor, watch.stuck_ever()), ("held", 1));
    }
}
