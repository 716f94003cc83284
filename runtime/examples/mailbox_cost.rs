//! What a message costs: a worker's mailbox beside the bounded channel of the standard library, which is
//! crossbeam's. `cargo run --release -p peregrine_runtime --example mailbox_cost`

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use peregrine_runtime::{
    Address, ChildSpec, Children, Clock, Deadline, Failure, Inbox, Mailbox, Strategy, SystemClock, TellError,
    Tree, Worker,
};
use tokio::sync::oneshot;

const CAPACITY: usize = 1024;
const TELLS: u64 = 2_000_000;
const ASKS: usize = 50_000;

#[derive(actix::Message)]
#[rtype(result = "u64")]
struct Number(u64);

struct Echo;

impl Worker<Number> for Echo {
    fn run(&mut self, inbox: &mut Inbox<Number>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            envelope.slot.send(black_box(envelope.message.0));
        }
        Ok(())
    }
}

struct Drain;

impl Worker<Number> for Drain {
    fn run(&mut self, inbox: &mut Inbox<Number>) -> Result<(), Failure> {
        let mut batch = Vec::with_capacity(CAPACITY);
        while let Some(envelope) = inbox.recv() {
            black_box(envelope.message.0);
            inbox.drain(&mut batch, CAPACITY);
            batch.drain(..).for_each(|envelope| drop(black_box(envelope)));
        }
        Ok(())
    }
}

fn main() {
    for senders in [1, 4] {
        report_rate(&format!("tell, {senders} senders, recv"), || {
            tell_all(senders, || Ok(Echo));
        });
        report_rate(&format!("tell, {senders} senders, recv + drain"), || {
            tell_all(senders, || Ok(Drain));
        });
        report_rate(&format!("sync_channel, {senders} senders"), || send_all(senders));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    report_delays("ask, one at a time", runtime.block_on(ask_all()));
    report_delays("sync_channel + oneshot", runtime.block_on(request_all()));
}

fn report_rate(what: &str, run: impl FnOnce()) {
    let start = SystemClock.now();
    run();
    let elapsed = SystemClock.now() - start;
    println!("{what:<32} {:>6.2} M/s", TELLS as f64 / elapsed.as_secs_f64() / 1e6);
}

fn report_delays(what: &str, mut delays: Vec<Duration>) {
    delays.sort();
    println!(
        "{what:<32} p50 {:?}  p99 {:?}  p99.9 {:?}",
        delays[delays.len() / 2],
        delays[delays.len() * 99 / 100],
        delays[delays.len() * 999 / 1000]
    );
}

fn tree<W: Worker<Number>>(make: fn() -> Result<W, Failure>) -> (Tree, Address<Number>) {
    let mailbox = Mailbox::new(CAPACITY, Arc::new(SystemClock));
    let address = mailbox.address();
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new("echo"), mailbox, make);
    let Ok(tree) = Tree::start(children, Arc::new(SystemClock), 1) else { panic!("no thread") };
    (tree, address)
}

fn tell_all<W: Worker<Number>>(senders: u64, make: fn() -> Result<W, Failure>) {
    let (_tree, address) = tree(make);
    thread::scope(|scope| {
        for _ in 0..senders {
            scope.spawn(|| {
                for number in 0..TELLS / senders {
                    while let Err(TellError::Full(_)) = address.tell(Number(number)) {
                        thread::yield_now();
                    }
                }
            });
        }
    });
}

fn send_all(senders: u64) {
    let (sender, receiver) = sync_channel::<(u64, Option<oneshot::Sender<u64>>)>(CAPACITY);
    let receiving = thread::spawn(move || receiver.iter().for_each(|message| drop(black_box(message))));
    thread::scope(|scope| {
        for _ in 0..senders {
            let sender = sender.clone();
            scope.spawn(move || {
                for number in 0..TELLS / senders {
                    while let Err(TrySendError::Full(_)) = sender.try_send((number, None)) {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    drop(sender);
    let _ = receiving.join();
}

async fn ask_all() -> Vec<Duration> {
    let (tree, address) = tree(|| Ok(Echo));
    let mut delays = Vec::with_capacity(ASKS);
    for number in 0..ASKS {
        let start = SystemClock.now();
        let deadline = Deadline::after(start, Duration::from_secs(1));
        let _ = black_box(address.ask(Number(number as u64), deadline).await);
        delays.push(elapsed(start));
    }
    tree.stop(Deadline::after(SystemClock.now(), Duration::from_secs(1))).await;
    delays
}

async fn request_all() -> Vec<Duration> {
    let (sender, receiver) = sync_channel::<(u64, oneshot::Sender<u64>)>(CAPACITY);
    let serving = thread::spawn(move || {
        receiver.iter().for_each(|(number, slot)| {
            let _ = slot.send(black_box(number));
        });
    });
    let mut delays = Vec::with_capacity(ASKS);
    for number in 0..ASKS {
        let start = SystemClock.now();
        let (slot, reply) = oneshot::channel();
        let _ = sender.try_send((number as u64, slot));
        let _ = black_box(reply.await);
        delays.push(elapsed(start));
    }
    drop(sender);
    let _ = serving.join();
    delays
}

fn elapsed(start: Instant) -> Duration {
    SystemClock.now() - start
}
