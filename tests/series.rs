//! Ticks into a cluster of real processes: whatever dies, what was acknowledged is in the windows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Fleet, Post, took};

const BOTH: &[&str] = &["gateway", "inference"];
const NODES: [&str; 3] = ["fra-1", "iad-1", "nrt-1"];

fn three(keys: &[(&str, &str)]) -> Fleet<'static> {
    let post = |name: &'static str| Post { name, region: &name[..3], roles: BOTH };
    Fleet::start(None, &NODES.map(post), keys)
}

/// Feeds series with rising times and remembers what was acknowledged.
struct Feeder {
    series_count: usize,
    /// Where nodes that are up answer.
    addrs: Mutex<Vec<SocketAddr>>,
    ended: AtomicBool,
    /// By series, what was acknowledged, in order.
    acknowledged: Mutex<Vec<Vec<i64>>>,
    /// Longest time from a tick's first sending to its acknowledgement.
    slowest: Mutex<Duration>,
}

impl Feeder {
    fn new(series_count: usize) -> Self {
        Self {
            series_count,
            addrs: Mutex::default(),
            ended: AtomicBool::new(false),
            acknowledged: Mutex::new(vec![Vec::new(); series_count]),
            slowest: Mutex::default(),
        }
    }

    fn up(&self, fleet: &Fleet<'_>, names: &[&str]) {
        *self.addrs.lock().unwrap() = names.iter().map(|name| fleet.addr(name)).collect();
    }

    /// One tick of every series in each round; a round is sent until all of it is acknowledged.
    fn run(&self) {
        for round in 0_i64.. {
            let lines: String = (0..self.series_count)
                .map(|series| {
                    format!(
                        "{{\"series\":\"s{series}\",\"ts\":{round},\"value\":{}}}\n",
                        value(series, round)
                    )
                })
                .collect();
            let start = Instant::now();
            while !self.send(round, &lines) {
                if self.ended.load(Ordering::SeqCst) {
                    return; // what is not acknowledged is not promised
                }
                assert!(start.elapsed() < Duration::from_secs(30), "round {round} is never acknowledged");
            }
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = start.elapsed().max(*slowest);
            for acknowledged in self.acknowledged.lock().unwrap().iter_mut() {
                acknowledged.push(round);
            }
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn send(&self, round: i64, lines: &str) -> bool {
        let addrs = self.addrs.lock().unwrap().clone();
        let addr = addrs[usize::try_from(round).unwrap() % addrs.len()];
        let Ok(mut client) = Client::connect(addr) else { return false };
        match client.send("POST", "/v1/ticks", &[], lines.as_bytes()) {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(matches!(answer.status, 200 | 429 | 503), "{}: {text}", answer.status);
                answer.status == 200
            }
            Err(_) => false, // its node has just died
        }
    }

    fn rounds(&self) -> usize {
        self.acknowledged.lock().unwrap()[0].len()
    }

    /// Every tick that was acknowledged is in the windows, as any node shows them.
    #[track_caller]
    fn check(&self, fleet: &Fleet<'_>, from: &str, kept: usize) {
        for (series, acknowledged) in self.acknowledged.lock().unwrap().iter().enumerate() {
            let shown = fleet.get(from, &format!("/v1/series/s{series}"));
            assert_eq!(shown.status, 200, "{}", String::from_utf8_lossy(&shown.body));
            let shown = shown.json();
            let held: BTreeMap<i64, f64> = shown["ticks"]
                .as_array()
                .expect("ticks")
                .iter()
                .map(|tick| (tick["ts"].as_i64().expect("whole"), tick["value"].as_f64().expect("a number")))
                .collect();
            for round in acknowledged.iter().rev().take(kept) {
                let want = value(series, *round);
                let got = held.get(round);
                assert!(
                    got.is_some_and(|got| (*got - f64::from(want)).abs() < 1e-6),
                    "s{series}: {round} was acknowledged with {want}, {from} shows {got:?}"
                );
            }
        }
    }
}

fn value(series: usize, round: i64) -> f32 {
    (series as f32) + (round % 1000) as f32 / 8.0
}

#[test]
fn what_is_acknowledged_survives_the_owner_again_and_again() {
    let mut fleet = three(&[]);
    let feeder = Feeder::new(100);
    feeder.up(&fleet, &NODES);
    thread::scope(|scope| {
        let running = scope.spawn(|| feeder.run());
        let _end = End(&feeder.ended);
        for round in 0..4 {
            let (victim, witness) = (NODES[round % 3], NODES[(round + 1) % 3]);
            let before = feeder.rounds();
            took("rounds go on", || feeder.rounds() > before + 20 || running.is_finished());
            let others: Vec<&str> = NODES.into_iter().filter(|name| *name != victim).collect();
            fleet.signal(victim, libc::SIGKILL);
            fleet.ended(victim);
            feeder.up(&fleet, &others);
            let before = feeder.rounds();
            let took =
                took("they go on without it", || feeder.rounds() > before + 2 || running.is_finished());
            println!("killed {victim}: going on after {took:?}");
            assert!(took < Duration::from_secs(10), "{took:?}");
            feeder.check(&fleet, witness, 900);
            fleet.launch(victim);
            fleet.awaits(witness, 3);
            feeder.up(&fleet, &NODES);
        }
        feeder.ended.store(true, Ordering::SeqCst);
    });
    println!("{} rounds of 100 series, slowest {:?}", feeder.rounds(), feeder.slowest.lock().unwrap());
    for node in NODES {
        feeder.check(&fleet, node, 900);
    }
}

#[test]
fn a_rolling_restart_loses_no_tick() {
    let mut fleet = three(&[]);
    let feeder = Feeder::new(50);
    feeder.up(&fleet, &NODES);
    thread::scope(|scope| {
        let running = scope.spawn(|| feeder.run());
        let _end = End(&feeder.ended);
        for victim in NODES {
            let before = feeder.rounds();
            took("rounds go on", || feeder.rounds() > before + 20 || running.is_finished());
            let others: Vec<&str> = NODES.into_iter().filter(|name| *name != victim).collect();
            feeder.up(&fleet, &others);
            fleet.signal(victim, libc::SIGTERM);
            assert!(fleet.ended(victim).success(), "{victim} stops in good order");
            feeder.check(&fleet, others[0], 900);
            fleet.launch(victim);
            fleet.awaits(others[0], 3);
            feeder.up(&fleet, &NODES);
        }
        feeder.ended.store(true, Ordering::SeqCst);
    });
    println!("{} rounds, slowest {:?}", feeder.rounds(), feeder.slowest.lock().unwrap());
    for node in NODES {
        feeder.check(&fleet, node, 900);
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
