//! Within one process: actors of the runtime beside actors of plain actix, each on a thread of its own, asked and
//! told from the same tokio runtime.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Arbiter, Context, Handler, System};
use peregrine_runtime::{
    Address, ChildSpec, Children, Deadline, Failure, Inbox, Mailbox, Strategy, SystemClock, TellError, Tree,
    Worker,
};

use crate::driver::middle;
use crate::{Outcome, process, runtime};

/// Messages that may wait, for all alike.
const WAITING_MAX: usize = 1024;
const IN_FLIGHT: usize = 64;
/// Messages between two looks at the clock.
const BATCH: u64 = 256;

#[derive(actix::Message)]
#[rtype(result = "u64")]
struct Number(u64);

/// Says what came, and how many came.
struct Count(Arc<AtomicU64>);

impl Count {
    fn enter(&mut self, number: u64) -> u64 {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Release);
        number
    }
}

impl Actor for Count {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(WAITING_MAX);
    }
}

impl Handler<Number> for Count {
    type Result = u64;

    fn handle(&mut self, message: Number, _: &mut Self::Context) -> u64 {
        self.enter(message.0)
    }
}

impl Worker<Number> for Count {
    fn run(&mut self, inbox: &mut Inbox<Number>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            let answer = self.enter(envelope.message.0);
            envelope.slot.send(answer);
        }
        Ok(())
    }
}

/// One way to reach the actor.
trait Target: Clone + Send + Sync + 'static {
    fn ask(&self, number: u64) -> impl Future<Output = Option<u64>> + Send;
    /// False: no room now.
    fn tell(&self, number: u64) -> bool;
}

impl Target for Address<Number> {
    async fn ask(&self, number: u64) -> Option<u64> {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(5));
        Address::ask(self, Number(number), deadline).await.ok()
    }

    fn tell(&self, number: u64) -> bool {
        !matches!(Address::tell(self, Number(number)), Err(TellError::Full(_)))
    }
}

impl Target for Addr<Count> {
    async fn ask(&self, number: u64) -> Option<u64> {
        self.send(Number(number)).await.ok()
    }

    fn tell(&self, number: u64) -> bool {
        self.try_send(Number(number)).is_ok()
    }
}

/// Plain actix as its book has it: no limit on the time of an ask, no limit on what is told.
#[derive(Clone)]
struct Unbounded(Addr<Count>);

impl Target for Unbounded {
    async fn ask(&self, number: u64) -> Option<u64> {
        // The same deadline as a user would write it.
        tokio::time::timeout(Duration::from_secs(5), self.0.send(Number(number))).await.ok()?.ok()
    }

    fn tell(&self, number: u64) -> bool {
        self.0.do_send(Number(number));
        true
    }
}

#[derive(Default)]
struct Figures {
    ask_p50_us: Vec<f64>,
    asks_per_s: Vec<f64>,
    /// Processor time of the process an ask, with those in flight: what the load of a machine disturbs least.
    ask_cpu_us: Vec<f64>,
    tells_per_s: Vec<f64>,
}

/// Alternates the four and prints a table.
pub(crate) fn compare(rounds: u32, seconds: u32) -> Outcome<()> {
    let each = Duration::from_secs(seconds.into());
    let handled = Arc::new(AtomicU64::new(0));
    let system = std::thread::spawn({
        let handled = Arc::clone(&handled);
        let (sender, receiver) = std::sync::mpsc::channel();
        move || {
            System::new().block_on(async move {
                let address = Count::start_in_arbiter(&Arbiter::new().handle(), move |_| Count(handled));
                let _ = sender.send(address);
            });
            receiver.recv()
        }
    });
    let actix = system.join().map_err(|_| "no actix")??;
    let clock = Arc::new(SystemClock);
    let (worker, light) =
        (Mailbox::new(WAITING_MAX, clock.clone()), Mailbox::new(WAITING_MAX, clock.clone()));
    let (to_worker, to_light) = (worker.address(), light.address());
    let mut children = Children::new(Strategy::OneForOne);
    let (one, other) = (Arc::clone(&handled), Arc::clone(&handled));
    children.worker(ChildSpec::new("worker"), worker, move || Ok(Count(Arc::clone(&one))));
    children.light(ChildSpec::new("light"), light, move || Ok(Count(Arc::clone(&other))));
    let _tree = Tree::start(children, clock, 1)?;
    let runtime = runtime()?;
    let names = ["actix send, try_send", "actix timeout(send), do_send", "runtime worker", "runtime light"];
    let mut figures: [Figures; 4] = Default::default();
    for round in 0..rounds as usize {
        for step in 0..names.len() {
            let at = (round + step) % names.len();
            let into = &mut figures[at];
            match at {
                0 => runtime.block_on(measure(actix.clone(), &handled, each, into))?,
                1 => runtime.block_on(measure(Unbounded(actix.clone()), &handled, each, into))?,
                2 => runtime.block_on(measure(to_worker.clone(), &handled, each, into))?,
                _ => runtime.block_on(measure(to_light.clone(), &handled, each, into))?,
            }
        }
    }
    println!("medians over rounds; in parentheses the median ratio to the first line\n");
    println!("| | ask p50 µs | asks/s at {IN_FLIGHT} | µs processor | tells/s |\n|---|---|---|---|---|");
    for (name, run) in names.iter().zip(&figures) {
        let cell = |ours: &[f64], first: &[f64], digits: usize| {
            let ratios = ours.iter().zip(first).map(|(ours, first)| ours / first).collect();
            format!("{:.digits$} ({:.2})", middle(ours.to_vec()), middle(ratios))
        };
        let first = &figures[0];
        println!(
            "| {name} | {} | {} | {} | {} |",
            cell(&run.ask_p50_us, &first.ask_p50_us, 1),
            cell(&run.asks_per_s, &first.asks_per_s, 0),
            cell(&run.ask_cpu_us, &first.ask_cpu_us, 2),
            cell(&run.tells_per_s, &first.tells_per_s, 0),
        );
    }
    Ok(())
}

async fn measure<T: Target>(
    target: T,
    handled: &AtomicU64,
    each: Duration,
    figures: &mut Figures,
) -> Outcome<()> {
    // From a task of the runtime, as messages are sent in a program, not from the thread that waits for it.
    let asking = target.clone();
    figures.ask_p50_us.push(tokio::spawn(async move { alone(&asking, each).await }).await??);
    let (start, spent) = (Instant::now(), process::spent(std::process::id())?);
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while start.elapsed() < each {
                    if target.ask(count).await != Some(count) {
                        return None;
                    }
                    count += 1;
                }
                Some(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await?.ok_or("an ask failed")?;
    }
    figures.asks_per_s.push(count as f64 / start.elapsed().as_secs_f64());
    let spent = process::spent(std::process::id())? - spent;
    figures.ask_cpu_us.push(spent.as_secs_f64() * 1e6 / count as f64);
    let (start, before) = (Instant::now(), handled.load(Ordering::Acquire));
    let telling = tokio::spawn(async move {
        let mut told = 0;
        while told % BATCH != 0 || start.elapsed() < each {
            while !target.tell(told) {
                tokio::task::yield_now().await;
            }
            told += 1;
        }
        told
    });
    let told = telling.await?;
    while handled.load(Ordering::Acquire) < before + told {
        tokio::task::yield_now().await;
    }
    figures.tells_per_s.push(told as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

async fn alone<T: Target>(target: &T, each: Duration) -> Outcome<f64> {
    let mut delays = Vec::with_capacity(1 << 17);
    let begin = Instant::now();
    while begin.elapsed() < each {
        let start = Instant::now();
        target.ask(7).await.ok_or("an ask failed")?;
        delays.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(middle(delays))
}
