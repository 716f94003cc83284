//! Trees of probes: actors of either kind that do what their messages and their script say.

mod failures;
mod order;
mod policy;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use parking_lot::Mutex;

use crate::{
    ActorKind, ActorState, ActorStatus, Address, Backoff, Budget, ChildSpec, Children, Clock, Deadline,
    Failure, Inbox, Mailbox, SystemClock, Tree, Worker,
};

const KINDS: [ActorKind; 2] = [ActorKind::Light, ActorKind::Worker];

/// What a probe does with its turn.
#[derive(actix::Message)]
#[rtype(result = "u64")]
enum Do {
    Echo(u64),
    Panic,
    /// Blocks its thread until the other end says go or is dropped.
    Park(Receiver<()>),
}

impl Do {
    fn act(self) -> u64 {
        match self {
            Self::Echo(value) => value,
            Self::Panic => panic!("told to"),
            Self::Park(gate) => {
                let _ = gate.recv();
                0
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Panic,
    Error,
}

/// What goes wrong in which incarnation: entry by entry, nothing after the last.
#[derive(Clone, Default)]
struct Script {
    in_factory: Vec<Fault>,
    in_start: Vec<Fault>,
}

impl Script {
    fn factory(faults: &[Fault]) -> Self {
        Self { in_factory: faults.to_vec(), ..Self::default() }
    }

    fn start(faults: &[Fault]) -> Self {
        Self { in_start: faults.to_vec(), ..Self::default() }
    }
}

fn play(fault: Option<Fault>) -> Result<(), Failure> {
    match fault {
        None => Ok(()),
        Some(Fault::Error) => Err("scripted error".into()),
        Some(Fault::Panic) => panic!("scripted panic"),
    }
}

/// Starts and ends of probes, in the order they happened.
type Journal = Arc<Mutex<Vec<String>>>;

struct Probe {
    name: Arc<str>,
    start_fault: Option<Fault>,
    journal: Journal,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.journal.lock().push(format!("-{}", self.name));
    }
}

impl Worker<Do> for Probe {
    fn run(&mut self, inbox: &mut Inbox<Do>) -> Result<(), Failure> {
        play(self.start_fault)?;
        while let Some(envelope) = inbox.recv() {
            envelope.slot.send(envelope.message.act());
        }
        Ok(())
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, _context: &mut Self::Context) {
        play(self.start_fault).unwrap();
    }
}

impl Handler<Do> for Probe {
    type Result = u64;

    fn handle(&mut self, message: Do, _context: &mut Self::Context) -> u64 {
        message.act()
    }
}

/// A tree under construction and the journal of its probes.
struct Garden {
    journal: Journal,
}

impl Garden {
    fn new() -> Self {
        Self { journal: Journal::default() }
    }

    fn plant(
        &self,
        children: &mut Children,
        kind: ActorKind,
        spec: ChildSpec,
        script: Script,
    ) -> Address<Do> {
        let mailbox = Mailbox::new(1024, Arc::new(SystemClock));
        let address = mailbox.address();
        let (name, journal, made) = (Arc::clone(&spec.name), Arc::clone(&self.journal), AtomicUsize::new(0));
        let factory = move || {
            let incarnation = made.fetch_add(1, Ordering::Relaxed);
            play(script.in_factory.get(incarnation).copied())?;
            journal.lock().push(format!("+{name}"));
            let start_fault = script.in_start.get(incarnation).copied();
            Ok(Probe { name: Arc::clone(&name), start_fault, journal: Arc::clone(&journal) })
        };
        match kind {
            ActorKind::Light => children.light(spec, mailbox, factory),
            ActorKind::Worker => children.worker(spec, mailbox, factory),
        }
        address
    }

    fn journal(&self) -> Vec<String> {
        self.journal.lock().clone()
    }
}

fn grow(children: Children) -> Tree {
    Tree::start(children, Arc::new(SystemClock), 7).unwrap()
}

/// Restarts at once, `restarts_max` times.
fn spec(name: &str, restarts_max: u32) -> ChildSpec {
    ChildSpec {
        budget: Budget { restarts_max, within: Duration::from_secs(60) },
        backoff: Backoff { base: Duration::from_millis(1), max: Duration::from_millis(4), jitter: 0.5 },
        ..ChildSpec::new(name)
    }
}

/// Far enough that reaching it is a failure of the test.
fn soon() -> Deadline {
    Deadline::after(SystemClock.now(), Duration::from_secs(20))
}

/// Waits until so many messages are queued, and so the ones before them are in hand.
async fn queued(probe: &Address<Do>, depth: usize) {
    let deadline = soon();
    while probe.depth() != depth {
        assert!(!deadline.expired(SystemClock.now()), "{probe:?}");
        tokio::task::yield_now().await;
    }
}

fn restarts_are(expected: u64) -> impl Fn(&[ActorStatus]) -> bool {
    move |statuses| {
        let total: u64 = statuses.iter().map(|status| status.restarts).sum();
        total == expected && statuses.iter().all(|status| status.state == ActorState::Running)
    }
}
