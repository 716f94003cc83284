//! Who restarts along with whom, in which order; and messages in the order they were sent.

use std::sync::mpsc::channel;
use std::thread;

use super::*;
use crate::{AskError, Strategy, TellError};

#[tokio::test]
async fn one_for_one_restarts_the_failed_child_alone() {
    check_restart(Strategy::OneForOne, "-b +b").await;
}

#[tokio::test]
async fn one_for_all_stops_all_last_first_and_starts_all_first_first() {
    check_restart(Strategy::OneForAll, "-b -c -a +a +b +c").await;
}

#[tokio::test]
async fn rest_for_one_restarts_the_failed_child_and_those_after_it() {
    check_restart(Strategy::RestForOne, "-b -c +b +c").await;
}

async fn check_restart(strategy: Strategy, expected: &str) {
    for kind in KINDS {
        let garden = Garden::new();
        let mut children = Children::new(strategy);
        let probes =
            ["a", "b", "c"].map(|name| garden.plant(&mut children, kind, spec(name, 5), Script::default()));
        let tree = grow(children);
        assert!(tree.wait_running(soon()).await);
        assert_eq!(probes[1].ask(Do::Panic, soon()).await, Err(AskError::Failed));
        let expected: Vec<_> = "+a +b +c ".split_whitespace().chain(expected.split_whitespace()).collect();
        let restarts = (expected.len() - 3) / 2;
        assert!(tree.wait_until(soon(), restarts_are(restarts as u64)).await, "{:?}", tree.snapshot());
        assert_eq!(garden.journal(), expected, "{kind:?}");
        for probe in &probes {
            assert_eq!(probe.ask(Do::Echo(5), soon()).await, Ok(5));
        }
        tree.stop(soon()).await;
    }
}

#[tokio::test]
async fn a_group_whose_child_spends_its_budget_restarts_as_one() {
    let garden = Garden::new();
    let mut inner = Children::new(Strategy::OneForOne);
    let calm = garden.plant(&mut inner, ActorKind::Light, spec("calm", 5), Script::default());
    let wild = garden.plant(&mut inner, ActorKind::Worker, spec("wild", 0), Script::default());
    let mut children = Children::new(Strategy::OneForOne);
    let outside = garden.plant(&mut children, ActorKind::Worker, spec("outside", 0), Script::default());
    children.group(&spec("group", 1), inner);
    let tree = grow(children);
    assert!(tree.wait_running(soon()).await);
    let places = tree.view().snapshot();
    let places = places.iter().map(|actor| (&*actor.name, actor.groups.iter().map(|name| &**name).collect()));
    let places: Vec<(&str, Vec<&str>)> = places.collect();
    assert_eq!(places, [("outside", vec![]), ("calm", vec!["group"]), ("wild", vec!["group"])]);
    assert_eq!(wild.ask(Do::Panic, soon()).await, Err(AskError::Failed));
    assert!(tree.wait_until(soon(), restarts_are(2)).await, "{:?}", tree.snapshot());
    assert_eq!(garden.journal(), ["+outside", "+calm", "+wild", "-wild", "-calm", "+calm", "+wild"]);
    for probe in [&calm, &wild, &outside] {
        assert_eq!(probe.ask(Do::Echo(5), soon()).await, Ok(5));
    }
    assert_eq!(wild.ask(Do::Panic, soon()).await, Err(AskError::Failed));
    assert!(matches!(tree.ended().await, crate::Outcome::StopNode { actor, .. } if &*actor == "wild"));
}

#[tokio::test]
async fn a_sibling_that_does_not_stop_is_left_behind() {
    let garden = Garden::new();
    let mut children = Children::new(Strategy::OneForAll);
    let blocked = ChildSpec { stop_within: Duration::from_millis(10), ..spec("blocked", 5) };
    let blocked = garden.plant(&mut children, ActorKind::Worker, blocked, Script::default());
    let other = garden.plant(&mut children, ActorKind::Worker, spec("other", 5), Script::default());
    let tree = grow(children);
    assert!(tree.wait_running(soon()).await);
    let (go, gate) = channel();
    let ended = tokio::join!(
        blocked.ask(Do::Park(gate), soon()),
        blocked.ask(Do::Echo(1), soon()),
        async {
            queued(&blocked, 1).await;
            other.ask(Do::Panic, soon()).await
        },
        async {
            assert!(tree.wait_until(soon(), restarts_are(2)).await, "{:?}", tree.snapshot());
            go.send(()).unwrap();
        }
    );
    assert_eq!(ended, (Ok(0), Ok(1), Err(AskError::Failed), ()), "even the one left behind may answer");
    assert_eq!(tree.snapshot()[0].last_failure.clone().unwrap().failure.to_string(), "did not stop in time");
    assert!(tree.stop(soon()).await.stuck.is_empty());
}

/// The next number of one sender.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Count {
    sender: usize,
    number: u64,
}

#[derive(Default)]
struct Counter {
    next: [u64; SENDERS],
    done: Option<tokio::sync::oneshot::Sender<()>>,
}

const SENDERS: usize = 4;
const MESSAGES_EACH: u64 = 25_000;

impl Counter {
    fn count(&mut self, count: &Count) {
        assert_eq!(self.next[count.sender], count.number, "of sender {}", count.sender);
        self.next[count.sender] += 1;
        if self.next.iter().all(|&next| next == MESSAGES_EACH)
            && let Some(done) = self.done.take()
        {
            let _ = done.send(());
        }
    }
}

impl Worker<Count> for Counter {
    fn run(&mut self, inbox: &mut Inbox<Count>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            self.count(&envelope.message);
        }
        Ok(())
    }
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Count> for Counter {
    type Result = ();

    fn handle(&mut self, count: Count, _context: &mut Self::Context) {
        self.count(&count);
    }
}

#[tokio::test]
async fn messages_of_each_sender_arrive_in_order_under_load() {
    for kind in KINDS {
        let mailbox = Mailbox::<Count>::new(256, Arc::new(SystemClock));
        let address = mailbox.address();
        let (done, all_counted) = tokio::sync::oneshot::channel();
        let done = Mutex::new(Some(done));
        let factory = move || Ok(Counter { done: done.lock().take(), ..Counter::default() });
        let mut children = Children::new(Strategy::OneForOne);
        match kind {
            ActorKind::Light => children.light(spec("counter", 0), mailbox, factory),
            ActorKind::Worker => children.worker(spec("counter", 0), mailbox, factory),
        }
        let tree = grow(children);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let address = address.clone();
                thread::spawn(move || (0..MESSAGES_EACH).for_each(|number| push(&address, sender, number)))
            })
            .collect();
        all_counted.await.unwrap();
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(tree.stop(soon()).await.discarded, 0, "{kind:?}");
    }
}

/// A full mailbox is an answer; this sender's is to try again.
fn push(address: &Address<Count>, sender: usize, number: u64) {
    let mut count = Count { sender, number };
    loop {
        match address.tell(count) {
            Ok(()) => return,
            Err(TellError::Full(back)) => count = back,
            Err(other) => panic!("the counter is gone: {other:?}"),
        }
        thread::yield_now();
    }
}
