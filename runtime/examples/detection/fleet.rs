//! The processes: started, harmed and healed; what they say is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::network::{self, Cuts};

/// Longer than anything measured: whoever waits so long has found a fault.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// How long all is well before the next harm: detectors know their usual intervals again.
const REST: Duration = Duration::from_millis(1500);

type Outcome<T> = Result<T, Box<dyn Error>>;
/// Until the last has noticed, and until all is well again.
type Times = (Duration, Duration);

pub(crate) struct Fleet {
    nodes: Vec<Process>,
    cuts: Cuts,
    said: Receiver<(usize, u32, String)>,
    saying: Sender<(usize, u32, String)>,
    harmed: BTreeSet<usize>,
    /// What each process of each node has last said of its asks.
    asks: BTreeMap<(usize, u32), [u64; 6]>,
    errors: Errors,
}

/// What was said to be gone and was not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Errors {
    pub(crate) members: usize,
    pub(crate) links: usize,
}

struct Process {
    child: Child,
    /// Which process of the node this is.
    life: u32,
    listen: SocketAddr,
    advertise: SocketAddr,
    members: BTreeSet<String>,
    links: BTreeSet<String>,
}

impl Fleet {
    /// Returns when everybody sees everybody. With a network between them they can be cut from each other.
    pub(crate) fn start(count: usize, network: bool) -> Outcome<Self> {
        let listen = (0..count).map(|_| network::free_addr()).collect::<Result<Vec<_>, _>>()?;
        let cuts = Cuts::default();
        let (saying, said) = channel();
        let mut advertised = listen.clone();
        if network {
            for (node, addr) in advertised.iter_mut().enumerate() {
                *addr = network::open(node, listen.clone(), cuts.clone())?;
            }
        }
        let mut nodes = Vec::new();
        for (node, (&listen, &advertise)) in listen.iter().zip(&advertised).enumerate() {
            let child = spawn(node, 0, listen, advertise, advertised[0], &saying)?;
            let (members, links) = (BTreeSet::new(), BTreeSet::new());
            nodes.push(Process { child, life: 0, listen, advertise, members, links });
        }
        let mut fleet = Self {
            nodes,
            cuts,
            said,
            saying,
            harmed: BTreeSet::new(),
            asks: BTreeMap::new(),
            errors: Errors::default(),
        };
        fleet.all_well()?;
        Ok(fleet)
    }

    pub(crate) fn errors(&self) -> Errors {
        self.errors
    }

    /// `kill -9`; healed when a new process of that name is known and linked.
    pub(crate) fn kill(&mut self, node: usize) -> Outcome<Times> {
        self.watch(REST)?;
        self.harmed = BTreeSet::from([node]);
        let harmed = Instant::now();
        self.nodes[node].child.kill()?;
        self.nodes[node].child.wait()?;
        let noticed = self.missed(node, harmed)?;
        let healed = Instant::now();
        let seed = self.nodes[(node + 1) % self.nodes.len()].advertise;
        let process = &mut self.nodes[node];
        process.life += 1;
        process.members.clear();
        process.links.clear();
        process.child = spawn(node, process.life, process.listen, process.advertise, seed, &self.saying)?;
        self.all_well()?;
        Ok((noticed, healed.elapsed()))
    }

    /// `SIGSTOP`, then `SIGCONT`.
    pub(crate) fn stop(&mut self, node: usize) -> Outcome<Times> {
        self.watch(REST)?;
        self.harmed = BTreeSet::from([node]);
        let harmed = Instant::now();
        signal(&self.nodes[node].child, "-STOP")?;
        let noticed = self.missed(node, harmed)?;
        let healed = Instant::now();
        signal(&self.nodes[node].child, "-CONT")?;
        self.all_well()?;
        Ok((noticed, healed.elapsed()))
    }

    /// No packet between two; noticed when both know that their links are lost. Everybody stays a member.
    pub(crate) fn cut_link(&mut self, a: usize, b: usize) -> Outcome<Times> {
        self.watch(REST)?;
        self.harmed = BTreeSet::new();
        let harmed = Instant::now();
        self.cuts.cut(a, b);
        let (errors, links) = (self.errors.members, self.errors.links);
        self.wait(|nodes| !nodes[a].links.contains(&name(b)) && !nodes[b].links.contains(&name(a)))?;
        let noticed = harmed.elapsed();
        let healed = Instant::now();
        self.cuts.heal();
        self.all_well()?;
        let healed = healed.elapsed();
        // The two links were lost rightly.
        self.errors = Errors { members: self.errors.members, links };
        if self.errors.members > errors {
            return Err("a cut link has cost a member".into());
        }
        Ok((noticed, healed))
    }

    /// No packet to or from one node.
    pub(crate) fn cut_off(&mut self, node: usize) -> Outcome<Times> {
        self.watch(REST)?;
        self.harmed = BTreeSet::from([node]);
        let harmed = Instant::now();
        (0..self.nodes.len()).filter(|&other| other != node).for_each(|other| self.cuts.cut(node, other));
        let noticed = self.missed(node, harmed)?;
        let healed = Instant::now();
        self.cuts.heal();
        self.all_well()?;
        Ok((noticed, healed.elapsed()))
    }

    /// What all processes have said of their asks, together; of those that were killed, shortly before.
    #[allow(dead_code, reason = "not every example has asks")]
    pub(crate) fn asks(&self) -> [u64; 6] {
        let mut sum = [0; 6];
        for counts in self.asks.values() {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    /// Tells every process to end, and waits for the last that each has to say of its asks.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn finish(mut self) -> Outcome<[u64; 6]> {
        // What a killed process had under way ended with it.
        let lives: BTreeSet<(usize, u32)> =
            self.nodes.iter().enumerate().map(|(node, process)| (node, process.life)).collect();
        (self.asks.iter_mut())
            .filter(|(life, _)| !lives.contains(life))
            .for_each(|(_, counts)| counts[5] = 0);
        for process in &mut self.nodes {
            drop(process.child.stdin.take());
        }
        for process in &mut self.nodes {
            process.child.wait()?;
        }
        // All output is with us or in the pipes.
        while self.hear(Instant::now() + Duration::from_millis(500))? {}
        Ok(self.asks())
    }

    /// Hears what is said for so long.
    pub(crate) fn watch(&mut self, length: Duration) -> Outcome<()> {
        self.harmed.clear();
        let until = Instant::now() + length;
        while self.hear(until)? {}
        Ok(())
    }

    fn missed(&mut self, node: usize, since: Instant) -> Outcome<Duration> {
        let id = name(node);
        self.wait(|nodes| {
            (nodes.iter().enumerate()).all(|(other, process)| other == node || !process.members.contains(&id))
        })?;
        Ok(since.elapsed())
    }

    fn all_well(&mut self) -> Outcome<()> {
        let others = self.nodes.len() - 1;
        self.wait(|nodes| {
            nodes.iter().all(|process| process.members.len() == others && process.links.len() == others)
        })
    }

    fn wait(&mut self, done: impl Fn(&[Process]) -> bool) -> Outcome<()> {
        let until = Instant::now() + WAIT_MAX;
        while !done(&self.nodes) {
            if !self.hear(until)? {
                return Err("what was waited for did not happen".into());
            }
        }
        Ok(())
    }

    /// Takes in the next thing that is said; false: nothing was until then.
    fn hear(&mut self, until: Instant) -> Outcome<bool> {
        let (node, life, line) = match self.said.recv_timeout(until - Instant::now().min(until)) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(closed) => return Err(closed.into()),
        };
        if let Some(counts) = line.strip_prefix("asks = ") {
            let counts: Vec<u64> = counts.split(',').map(str::parse).collect::<Result<_, _>>()?;
            self.asks.insert((node, life), counts.try_into().map_err(|_| "six counts are said")?);
            return Ok(true);
        }
        // What an earlier process said last may come late.
        if life != self.nodes[node].life {
            return Ok(true);
        }
        let words: Vec<&str> = line.split(' ').collect();
        let [what, sign, about] = words[..] else { return Err(format!("{node} said `{line}`").into()) };
        let member = what == "member";
        let process = &mut self.nodes[node];
        let known = if member { &mut process.members } else { &mut process.links };
        if sign == "+" {
            known.insert(about.to_owned());
            return Ok(true);
        }
        known.remove(about);
        let rightly = self.harmed.iter().any(|&harmed| harmed == node || name(harmed) == about);
        if !rightly {
            *(if member { &mut self.errors.members } else { &mut self.errors.links }) += 1;
        }
        Ok(true)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in &mut self.nodes {
            // It may be gone already.
            let _gone = process.child.kill();
            let _reaped = process.child.wait();
        }
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn spawn(
    node: usize,
    life: u32,
    listen: SocketAddr,
    advertise: SocketAddr,
    seed: SocketAddr,
    saying: &Sender<(usize, u32, String)>,
) -> Outcome<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["node", &name(node), &listen.to_string(), &advertise.to_string(), &seed.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let saying = saying.clone();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if saying.send((node, life, line)).is_err() {
                return;
            }
        }
    });
    Ok(child)
}

fn signal(child: &Child, signal: &str) -> Outcome<()> {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
    if sent.success() { Ok(()) } else { Err(format!("kill {signal}: {sent}").into()) }
}
