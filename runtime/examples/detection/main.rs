//! How soon processes notice that another is gone, and whether they ever err.
//!
//! Nodes are processes of this program over QUIC on loopback; between them stands a network that can be cut.
//! `cargo run --release -p peregrine_runtime --example detection -- rounds 20`
//! `cargo run --release -p peregrine_runtime --example detection -- quiet 600 12` (seconds, busy threads)

mod fleet;
mod member;
mod network;
mod node;

use std::error::Error;
use std::time::{Duration, Instant};

use fleet::Fleet;

const NODES: usize = 6;
/// What is promised: noticed by every other node, and healed.
const NOTICED_MAX: Duration = Duration::from_millis(1500);
const HEALED_MAX: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node", id, listen, advertise, seeds] => node::run(id, listen, advertise, seeds),
        ["rounds", count] => rounds(count.parse()?),
        ["quiet", seconds, busy] => quiet(Duration::from_secs(seconds.parse()?), busy.parse()?),
        _ => Err("usage: detection rounds COUNT | detection quiet SECONDS BUSY_THREADS".into()),
    }
}

fn rounds(count: usize) -> Result<(), Box<dyn Error>> {
    let mut fleet = Fleet::start(NODES, true)?;
    let mut figures = [
        ("kill -9", Figure::default()),
        ("SIGSTOP", Figure::default()),
        ("one link cut", Figure::default()),
        ("node cut off", Figure::default()),
    ];
    for round in 0..count {
        let (node, other) = (round % NODES, (round + 1) % NODES);
        figures[0].1.add(fleet.kill(node)?);
        figures[1].1.add(fleet.stop(node)?);
        figures[2].1.add(fleet.cut_link(node, other)?);
        figures[3].1.add(fleet.cut_off(node)?);
    }
    println!("{NODES} nodes, {count} rounds of each; milliseconds, until the last node has noticed");
    println!("{:<14}{:>9}{:>9}{:>9}{:>13}{:>10}", "", "min", "median", "max", "healed p50", "max");
    let mut kept = true;
    for (name, mut figure) in figures {
        figure.noticed.sort();
        figure.healed.sort();
        let (noticed, healed) = (&figure.noticed, &figure.healed);
        println!(
            "{name:<14}{:>9}{:>9}{:>9}{:>13}{:>10}",
            ms(noticed[0]),
            ms(noticed[count / 2]),
            ms(noticed[count - 1]),
            ms(healed[count / 2]),
            ms(healed[count - 1]),
        );
        kept &= noticed[count - 1] <= NOTICED_MAX && healed[count - 1] <= HEALED_MAX;
    }
    println!("members that were there and were missed: {}", fleet.errors().members);
    if kept { Ok(()) } else { Err("longer than promised".into()) }
}

#[derive(Default)]
struct Figure {
    noticed: Vec<Duration>,
    healed: Vec<Duration>,
}

impl Figure {
    fn add(&mut self, (noticed, healed): (Duration, Duration)) {
        self.noticed.push(noticed);
        self.healed.push(healed);
    }
}

/// Nothing happens but load: whoever is missed is missed wrongly.
fn quiet(length: Duration, busy: usize) -> Result<(), Box<dyn Error>> {
    let mut fleet = Fleet::start(NODES, false)?;
    for _ in 0..busy {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    let started = Instant::now();
    fleet.watch(length)?;
    let errors = fleet.errors();
    println!(
        "{NODES} nodes, {busy} busy threads on {} cores, {} s: {} members missed wrongly, {} links lost",
        std::thread::available_parallelism()?,
        started.elapsed().as_secs(),
        errors.members,
        errors.links,
    );
    if errors.members == 0 { Ok(()) } else { Err("somebody was missed who was there".into()) }
}

fn ms(time: Duration) -> u128 {
    time.as_millis()
}
