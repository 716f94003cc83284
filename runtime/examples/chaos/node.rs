//! One process: a member that asks the others without pause, and says on its output what became of it.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use peregrine_runtime::{
    ChildSpec, Children, Cluster, Deadline, Failure, Inbox, Mailbox, NodeId, Strategy, SystemClock, Tree,
    Worker, remote_message,
};
use serde::{Deserialize, Serialize};

use crate::member::{Sight, input_end, join};

/// Every ask is given so long.
const WITHIN: Duration = Duration::from_secs(2);
/// What a busy machine may add before an ask counts as late.
const SLACK: Duration = Duration::from_millis(250);
/// How often some asks are sent, and how many.
const TICK: Duration = Duration::from_millis(5);
const ASKS_PER_TICK: usize = 10;
const IN_FLIGHT_MAX: u64 = 4096;
/// A tick this late means that the process did not run; asks that were on their way say nothing then.
const STALL: Duration = Duration::from_millis(200);
const REPORT: Duration = Duration::from_millis(200);

#[derive(Serialize, Deserialize, actix::Message)]
#[rtype(result = "u64")]
struct Ask {
    asker: String,
    life: u64,
    number: u64,
}
remote_message!(Ask, "chaos.ask", version 1, up to 256 bytes, lane Ask);

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    wrong: AtomicU64,
    /// Messages that this process was given more than once.
    twice: AtomicU64,
    in_flight: AtomicU64,
}

impl Counts {
    fn say(&self) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (answered, refused, late) = (read(&self.answered), read(&self.refused), read(&self.late));
        let (wrong, twice, in_flight) = (read(&self.wrong), read(&self.twice), read(&self.in_flight));
        println!("asks = {answered},{refused},{late},{wrong},{twice},{in_flight}");
    }
}

struct Answerer {
    counts: Arc<Counts>,
    seen: HashSet<(String, u64, u64)>,
}

impl Worker<Ask> for Answerer {
    fn run(&mut self, inbox: &mut Inbox<Ask>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            let Ask { asker, life, number } = envelope.message;
            if !self.seen.insert((asker, life, number)) {
                self.counts.twice.fetch_add(1, Ordering::Relaxed);
            }
            envelope.slot.send(number + 1);
        }
        Ok(())
    }
}

/// Until its input ends, and then until every ask has.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn run(id: &str, listen: &str, advertise: &str, seeds: &str) -> Result<(), Box<dyn Error>> {
    let counts = Arc::new(Counts::default());
    let cluster = join(id, listen, advertise, seeds).await?;
    let life = cluster.incarnation().0;
    let _tree = answer(&cluster, &counts)?;
    let stalls = Arc::new(AtomicU64::new(0));
    let (mut ticks, mut reports) = (tokio::time::interval(TICK), tokio::time::interval(REPORT));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last_tick, mut number) = (Instant::now(), 0);
    let (mut sight, mut input) = (Sight::default(), input_end());
    loop {
        tokio::select! {
            _ = &mut input => break,
            _ = reports.tick() => counts.say(),
            _ = ticks.tick() => {}
        }
        if last_tick.elapsed() > TICK + STALL {
            stalls.fetch_add(1, Ordering::Relaxed);
        }
        last_tick = Instant::now();
        sight.look(&cluster);
        let members = &sight.members;
        for node in members.iter().cycle().take(if members.is_empty() { 0 } else { ASKS_PER_TICK }) {
            if counts.in_flight.load(Ordering::Relaxed) < IN_FLIGHT_MAX {
                number += 1;
                let message = Ask { asker: id.to_owned(), life, number };
                tokio::spawn(ask(
                    cluster.clone(),
                    node.clone(),
                    message,
                    Arc::clone(&counts),
                    Arc::clone(&stalls),
                ));
            }
        }
    }
    // Whatever is still on its way has to end by its deadline.
    let until = Instant::now() + WITHIN + SLACK;
    while counts.in_flight.load(Ordering::Relaxed) > 0 && Instant::now() < until {
        tokio::time::sleep(TICK).await;
    }
    counts.say();
    Ok(())
}

fn answer(cluster: &Cluster, counts: &Arc<Counts>) -> Result<Tree, Box<dyn Error>> {
    let mailbox = Mailbox::new(4096, Arc::new(SystemClock));
    cluster.export("answerer", &mailbox.address())?;
    let counts = Arc::clone(counts);
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new("answerer"), mailbox, move || {
        Ok(Answerer { counts: Arc::clone(&counts), seen: HashSet::new() })
    });
    Ok(Tree::start(children, Arc::new(SystemClock), 1)?)
}

async fn ask(cluster: Cluster, node: NodeId, message: Ask, counts: Arc<Counts>, stalls: Arc<AtomicU64>) {
    let Some(address) = cluster.address::<Ask>(&node, "answerer") else { return };
    counts.in_flight.fetch_add(1, Ordering::Relaxed);
    let (start, stalls_before, number) = (Instant::now(), stalls.load(Ordering::Relaxed), message.number);
    let ended = address.ask(message, Deadline::after(start, WITHIN)).await;
    let took = start.elapsed();
    counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    match ended {
        Ok(answer) if answer == number + 1 => counts.answered.fetch_add(1, Ordering::Relaxed),
        Ok(_) => counts.wrong.fetch_add(1, Ordering::Relaxed),
        Err(_) => counts.refused.fetch_add(1, Ordering::Relaxed),
    };
    // The next tick knows of a stall; the ask may have ended before it.
    if took > WITHIN + SLACK {
        tokio::time::sleep(TICK * 4).await;
        if stalls.load(Ordering::Relaxed) == stalls_before {
            counts.late.fetch_add(1, Ordering::Relaxed);
        }
    }
}
