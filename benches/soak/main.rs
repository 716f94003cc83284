//! Whether a node grows: `soak [MINUTES] [BACKEND] [RATE] [CHURN,…]`, run beside a built `peregrine`.
//!
//! A node in a process of its own (BACKEND: cpu, software, auto …) keeps a journal and records. A closed loop finds its
//! peak unless RATE, the sustainable requests a second, is given; then MINUTES at 80 % of it, JSON and binary, while
//! everything that can come and go does (`churn.rs`; CHURN names the kinds, to find which it is that grows). Series keep
//! their names: a desk follows a universe, and what is kept of each is bounded. Every five seconds `/proc` and `/metrics`
//! are read.
//!
//! The verdict, fixed before any run:
//! - memory: resident and anonymous memory are less than 6 MiB an hour above what they were, at rest before and behind: the
//!   least of five looks, since what the journal gathers until it writes a table is up to 4 MiB, and where it stands in that
//!   is chance; the trend under load, from means of 75 s behind the first quarter, is told with its interval;
//! - whatever is counted is, after the churn and [`QUIET`], not above what it was before, when everything had happened once;
//! - every kind of churn succeeded more often than not, and 95 of 100 requests were answered.

mod churn;
mod sample;
#[expect(dead_code, reason = "its own load is a closed loop alone")]
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peregrine_load::control;
use peregrine_load::recorder::Window;
use peregrine_load::request::{Ask, Kind};
use peregrine_load::session::{Level, Session};
use peregrine_load::shape::Shape;
use peregrine_load::target::{Target, Trust};
use peregrine_load::trend::trend;

use churn::Churn;
use sample::{KINDS, Sample, Unit};
use support::{Failure, Node};

const MODEL: &str = "nhits-168x24-quantile";
const SHARE: f64 = 0.8;
/// Of each kind of request; a quarter of these while the peak is looked for.
const CONNECTIONS: usize = 32;
const EVERY: Duration = Duration::from_secs(5);
/// Everything happens in it, and what fills up once is full behind it: behind 45 s a node grew by 4 MiB in the next two
/// minutes, and by no more in thirty.
const REHEARSAL: Duration = Duration::from_secs(150);
/// Longer than anything is kept for somebody who is gone.
const QUIET: Duration = Duration::from_secs(75);
/// Looks at a node at rest, and the pause before each: longer than the allocator keeps pages that nobody uses.
const RESTS: usize = 5;
const RETURNED_AFTER: Duration = Duration::from_secs(15);
/// From rest to rest. A trend under load is told, and decides nothing: over half an hour it is uncertain by as much.
const GROWTH_MIB_PER_HOUR_MAX: f64 = 6.0;
/// Looks whose mean is one point of a trend. Those nearer to each other say the same once more: the journal's table is filled
/// and written about as often.
const LOOKS: usize = 15;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let minutes: f64 = arguments.next().map_or(Ok(30.0), |text| text.parse())?;
    let backend = arguments.next().unwrap_or_else(|| "software".to_owned());
    let given: Option<f64> = arguments.next().map(|text| text.parse()).transpose()?;
    let kinds = arguments.next();
    let kinds = kinds.as_deref();
    let dir = tempfile::tempdir()?;
    let node = start(&backend, dir.path())?;
    let load = Load::of(&node)?;
    let rate = match given {
        Some(rate) => rate,
        None => load.peak()?,
    } * SHARE;
    println!("{backend}: {rate:.0} requests/s for {minutes} min, node {}", node.proc().display());

    load.largest()?;
    churn::fill(node.addr)?;
    let churn = Churn::start(node.addr, kinds)?;
    load.run(rate, REHEARSAL, || Ok(()))?;
    println!("rehearsed: {}", churn.stop()?);
    let before = rest(&node, dir.path())?;

    let (churn, start) = (Churn::start(node.addr, kinds)?, Instant::now());
    let mut samples = Vec::new();
    let seen = load.run(rate, Duration::from_secs_f64(minutes * 60.0), || {
        samples.push((start.elapsed().as_secs_f64() / 3600.0, Sample::take(&node)?));
        Ok(())
    })?;
    let busy = node.processor_s()? / start.elapsed().as_secs_f64();
    println!("load: {}, {busy:.2} cores", told(&seen));
    let done = churn.stop()?;
    println!("churn: {done}");
    let after = rest(&node, dir.path())?;

    let answered = seen.answered() as f64 / (seen.answered() + seen.failed_count()).max(1) as f64;
    let mut sound = done.is_sound() && answered > 0.95;
    let fitted = &samples[samples.len() / 4..];
    println!("{:<24} {:>10} {:>10}  an hour (95 %)", "", "before", "after");
    for (place, kind) in KINDS.iter().enumerate() {
        let mean = |looks: &[(f64, Sample)]| {
            let sums =
                looks.iter().fold((0.0, 0.0), |sums, (at, look)| (sums.0 + at, sums.1 + look.0[place]));
            (sums.0 / looks.len() as f64, sums.1 / looks.len() as f64)
        };
        let points: Vec<_> = fitted.chunks_exact(LOOKS).map(mean).collect();
        let line = trend(&points).ok_or("too short a run for a trend")?;
        let (first, last) = (before.0[place], after.0[place]);
        let holds = match kind.unit {
            Unit::Mib => last - first < GROWTH_MIB_PER_HOUR_MAX * minutes / 60.0,
            Unit::Count => last <= first,
        };
        sound &= holds;
        let verdict = if holds { "" } else { "  GROWS" };
        println!(
            "{:<24} {first:>10.1} {last:>10.1}  {:+.2} ({:+.2} to {:+.2}){verdict}",
            kind.name, line.slope, line.low, line.high
        );
    }
    println!("{}", if sound { "pass" } else { "FAIL" });
    if sound { Ok(()) } else { Err("the node grows, or did not do what it was asked".into()) }
}

/// What is held when nothing happens: of memory the least of some looks, each after the journal has written a table.
fn rest(node: &Node, dir: &Path) -> Result<Sample, Failure> {
    thread::sleep(QUIET);
    let mut looks = Vec::new();
    for _ in 0..RESTS {
        churn::settle(node.addr, &dir.join("journal"))?;
        thread::sleep(RETURNED_AFTER);
        looks.push(Sample::take(node)?);
    }
    let resident: Vec<String> = looks.iter().map(|look| format!("{:.1}", look.0[0])).collect();
    println!("at rest: {} MiB resident", resident.join(", "));
    let mut last = looks.pop().ok_or("no look")?;
    for (place, _) in KINDS.iter().enumerate().filter(|(_, kind)| kind.unit == Unit::Mib) {
        last.0[place] = looks.iter().fold(last.0[place], |least, look| least.min(look.0[place]));
    }
    Ok(last)
}

/// A node that keeps everything that a node can keep, with a model in two versions beside those that ship.
fn start(backend: &str, dir: &Path) -> Result<Node, Failure> {
    for version in ["1", "2"] {
        let to = dir.join("models").join(churn::RELEASED).join(version);
        fs::create_dir_all(&to)?;
        for file in ["model.json", "weights.safetensors"] {
            fs::copy(Path::new("models/mlp-vol-quantile").join(file), to.join(file))?;
        }
    }
    let kept = |what: &str| dir.join(what).display().to_string();
    let variables = [
        ("PEREGRINE_MODELS__REPOSITORIES", format!(r#"["models","{}"]"#, kept("models"))),
        ("PEREGRINE_JOURNAL__DIR", kept("journal")),
        ("PEREGRINE_AUDIT__DIR", kept("audit")),
        // So that the oldest are deleted in the run.
        ("PEREGRINE_AUDIT__SIZE_MAX", "64MiB".to_owned()),
        ("PEREGRINE_AUDIT__ON_FAILURE", "serve".to_owned()),
        // Nobody is refused, and everybody has an entry.
        ("PEREGRINE_SECURITY__REQUESTS_PER_SECOND", "100000.0".to_owned()),
        ("PEREGRINE_LOG__FILTER", "error".to_owned()),
    ];
    Node::start_on(backend, &variables)
}

fn told(seen: &Window) -> String {
    let failed: Vec<String> = seen.failures.iter().map(|(why, count)| format!("{count} {why}")).collect();
    let failed = if failed.is_empty() { "none failed".to_owned() } else { failed.join(", ") };
    let ms = |share| seen.latency.at(share).as_secs_f64() * 1e3;
    format!("{} answered, p50 {:.1} p99 {:.1} ms; {failed}", seen.answered(), ms(0.5), ms(0.99))
}

/// The two kinds of request.
struct Load {
    target: Target,
    shape: Shape,
}

impl Load {
    fn of(node: &Node) -> Result<Self, Failure> {
        let url = format!("http://{}", node.addr);
        let target = Target::new(&url, &Trust::Usual, None, Duration::from_secs(10))?;
        let shape = Shape::of(MODEL, &control::get(&target, &format!("/v2/models/{MODEL}"))?)?;
        Ok(Self { target, shape })
    }

    fn open(&self, connections: usize, rate: Option<f64>) -> Result<Vec<Session>, Failure> {
        let mut sessions = Vec::new();
        for kind in [Kind::Native, Kind::Binary] {
            let deadline = Some(Duration::from_secs(1));
            let ask = Ask { kind, rows: 1, deadline, seed: 1, symbols: Vec::new() };
            let level = Level { connections, rate: rate.map(|rate| rate / 2.0) };
            sessions.push(Session::open(&self.target, &self.shape, &ask, level, 1)?);
        }
        Ok(sessions)
    }

    /// As many rows at once as the load can have waiting: what a batch takes is kept for the next.
    fn largest(&self) -> Result<(), Failure> {
        let rows = 2 * CONNECTIONS;
        let ask = Ask { kind: Kind::Native, rows, deadline: None, seed: 1, symbols: Vec::new() };
        let level = Level { connections: 1, rate: None };
        let mut session = Session::open(&self.target, &self.shape, &ask, level, 1)?;
        println!("largest batch: {}", told(&session.window(Duration::from_secs(1))?));
        Ok(())
    }

    /// Answers a second of a closed loop.
    fn peak(&self) -> Result<f64, Failure> {
        let mut sessions = self.open(CONNECTIONS / 4, None)?;
        both(&mut sessions, Duration::from_secs(2))?;
        let seen = both(&mut sessions, Duration::from_secs(10))?;
        println!("peak: {}", told(&seen));
        Ok(seen.answered() as f64 / 10.0)
    }

    /// At a rate, whether it is answered or not; looks now and then.
    fn run(
        &self,
        rate: f64,
        span: Duration,
        mut look: impl FnMut() -> Result<(), Failure>,
    ) -> Result<Window, Failure> {
        let (mut sessions, ended) = (self.open(CONNECTIONS, Some(rate))?, Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&ended);
        let sending = thread::spawn(move || -> Result<Window, Failure> {
            let mut whole = Window::default();
            while !over.load(Ordering::Relaxed) {
                let seen = both(&mut sessions, Duration::from_secs(1))?;
                whole.latency.merge(&seen.latency);
                for (why, count) in seen.failures {
                    *whole.failures.entry(why).or_default() += count;
                }
            }
            Ok(whole)
        });
        let start = Instant::now();
        while start.elapsed() < span && !sending.is_finished() {
            look()?;
            thread::sleep(EVERY.min(span.saturating_sub(start.elapsed())));
        }
        ended.store(true, Ordering::Relaxed);
        sending.join().map_err(|_| "the load panicked")?
    }
}

fn both(sessions: &mut [Session], len: Duration) -> Result<Window, Failure> {
    let windows = thread::scope(|scope| {
        let running: Vec<_> =
            sessions.iter_mut().map(|session| scope.spawn(move || session.window(len))).collect();
        running.into_iter().map(|one| one.join().map_err(|_| "the load panicked")).collect::<Vec<_>>()
    });
    let mut whole = Window::default();
    for window in windows {
        whole.beside(&window??);
    }
    Ok(whole)
}
