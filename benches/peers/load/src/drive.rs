//! The loop: who may send, what has come back, and the span that counts.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::body::Body;
use crate::connection::{Connection, Progress};
use crate::poll::{Poll, TIMER, own_cpu, raise_file_limit};
use crate::process::{Memory, cpu_s, machine_cpu_s, memory};
use crate::response::{TOLERANCE, worst_error};

const CHECK_EVERY: u64 = 61;
const BROKEN_MAX: u64 = 1000;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Everything that was seen within the measured span.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) span_s: f64,
    pub(crate) latencies_ns: Vec<u64>,
    /// Answers with a status other than 200.
    pub(crate) refused: u64,
    /// Connections lost.
    pub(crate) broken: u64,
    /// Answers whose numbers were compared, how many were wrong, and the largest error.
    pub(crate) checked: u64,
    pub(crate) wrong: u64,
    pub(crate) worst_error: f32,
    /// Connections without one answer.
    pub(crate) starved: usize,
    pub(crate) completions_min: u64,
    pub(crate) completions_max: u64,
    /// Age of the oldest unanswered request at the end, the backlog of an open loop included.
    pub(crate) oldest_waiting: Duration,
    /// Processor seconds of the server's processes within the span, and their memory at its end.
    pub(crate) server: Option<(f64, Memory)>,
    pub(crate) own_cpu_s: f64,
    /// Of the whole machine within the span: what neither server nor load explains is others' work.
    pub(crate) machine_cpu_s: f64,
}

struct Driver<'a> {
    args: &'a Args,
    bodies: &'a [Body],
    poll: Poll,
    connections: Vec<Connection>,
    /// Open loop: connections without a request, longest idle first, and due moments without a connection.
    idle: VecDeque<usize>,
    backlog: VecDeque<Instant>,
    scratch: Vec<u8>,
    next_body: usize,
    answers: u64,
    outcome: Outcome,
}

/// Warms up, measures, and says what came of it.
pub(crate) fn drive(args: &Args, bodies: &[Body]) -> io::Result<Outcome> {
    raise_file_limit();
    let mut driver = Driver {
        args,
        bodies,
        poll: Poll::new(args.connections + 1)?,
        connections: Vec::with_capacity(args.connections),
        idle: VecDeque::with_capacity(args.connections),
        backlog: VecDeque::new(),
        scratch: vec![0; 1 << 18],
        next_body: 0,
        answers: 0,
        outcome: Outcome { latencies_ns: Vec::with_capacity(1 << 18), ..Outcome::default() },
    };
    for token in 0..args.connections {
        let connection = Connection::open(args.address)?;
        driver.poll.add(&connection.socket, token as u64)?;
        driver.connections.push(connection);
        driver.idle.push_back(token);
    }
    driver.run()?;
    Ok(driver.outcome)
}

impl Driver<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut due = Schedule::new(self.args.rate, Instant::now());
        if due.is_none() {
            while let Some(token) = self.idle.pop_front() {
                self.send(token, Instant::now())?;
            }
        }
        self.until(Instant::now() + self.args.warmup, &mut due)?;
        self.reset();
        let before = self.args.pid.map(cpu_s);
        let machine = machine_cpu_s();
        let (own, start) = (own_cpu(), Instant::now());
        self.until(start + self.args.measure, &mut due)?;
        let end = Instant::now();
        self.outcome.span_s = (end - start).as_secs_f64();
        self.outcome.own_cpu_s = (own_cpu() - own).as_secs_f64();
        self.outcome.machine_cpu_s = machine_cpu_s() - machine;
        let spent_s = self.args.pid.map(cpu_s).zip(before).map(|(after, before)| after - before);
        self.outcome.server = spent_s.zip(self.args.pid.map(memory));
        self.settle(end);
        Ok(())
    }

    fn until(&mut self, end: Instant, due: &mut Option<Schedule>) -> io::Result<()> {
        let mut ready = Vec::with_capacity(self.connections.len() + 1);
        loop {
            let mut now = Instant::now();
            if let Some(schedule) = due.as_mut() {
                while let Some(moment) = schedule.pop(now) {
                    self.backlog.push_back(moment);
                }
                while let (Some(&token), Some(&moment)) = (self.idle.front(), self.backlog.front()) {
                    self.idle.pop_front();
                    self.backlog.pop_front();
                    self.send(token, moment)?;
                }
                now = Instant::now();
                self.poll.arm(schedule.next.saturating_duration_since(now))?;
            }
            if now >= end {
                return Ok(());
            }
            ready.clear();
            ready.extend(self.poll.wait(end - now)?.filter(|(token, _)| *token != TIMER));
            for &(token, writable) in &ready {
                let token = token as usize;
                if let Err(error) = self.advance(token, writable) {
                    self.replace(token, &error)?;
                }
            }
        }
    }

    fn advance(&mut self, token: usize, writable: bool) -> io::Result<()> {
        if writable {
            self.push(token)?;
        }
        let (args, bodies, outcome) = (self.args, self.bodies, &mut self.outcome);
        let connection = &mut self.connections[token];
        let sample = connection.completions == 0 || self.answers.is_multiple_of(CHECK_EVERY);
        let Some((body, from)) = connection.under_way else {
            // Nothing was asked: bytes or an end of stream here are the server's fault.
            return connection.read(&mut self.scratch, |_, _| ()).map(|_| ());
        };
        let progress = connection.read(&mut self.scratch, |head, bytes| {
            if head.status != 200 {
                outcome.refused += 1;
                return false;
            }
            if sample {
                let error = worst_error(head, bytes, &bodies[body].expected, args.horizon);
                outcome.checked += 1;
                outcome.wrong += u64::from(error.is_none_or(|error| error > TOLERANCE));
                outcome.worst_error = outcome.worst_error.max(error.unwrap_or(f32::INFINITY));
            }
            true
        })?;
        let Progress::Done(answered) = progress else {
            return Ok(());
        };
        let now = Instant::now();
        connection.under_way = None;
        self.answers += 1;
        if answered {
            connection.completions += 1;
            outcome.latencies_ns.push(u64::try_from((now - from).as_nanos()).unwrap_or(u64::MAX));
        }
        if args.rate.is_some() {
            self.idle.push_back(token);
            return Ok(());
        }
        self.send(token, now)
    }

    fn send(&mut self, token: usize, from: Instant) -> io::Result<()> {
        self.connections[token].begin(self.next_body, from);
        self.next_body = (self.next_body + 1) % self.bodies.len();
        match self.push(token) {
            Ok(()) => Ok(()),
            Err(error) => self.replace(token, &error),
        }
    }

    fn push(&mut self, token: usize) -> io::Result<()> {
        let connection = &mut self.connections[token];
        let done = connection.write(self.bodies)?;
        if connection.watches_write == done {
            connection.watches_write = !done;
            self.poll.want_write(&connection.socket, token as u64, !done)?;
        }
        Ok(())
    }

    /// A lost connection is counted and replaced; its request is lost with it.
    fn replace(&mut self, token: usize, error: &io::Error) -> io::Result<()> {
        self.outcome.broken += 1;
        if self.outcome.broken > BROKEN_MAX {
            return Err(io::Error::other(format!("too many connections lost, the last by: {error}")));
        }
        let mut fresh = Connection::open(self.args.address)?;
        fresh.completions = self.connections[token].completions;
        self.poll.add(&fresh.socket, token as u64)?;
        self.connections[token] = fresh;
        if self.args.rate.is_some() {
            self.idle.retain(|&idle| idle != token);
            self.idle.push_back(token);
            return Ok(());
        }
        self.send(token, Instant::now())
    }

    fn reset(&mut self) {
        self.outcome = Outcome { latencies_ns: Vec::with_capacity(1 << 20), ..Outcome::default() };
        self.connections.iter_mut().for_each(|connection| connection.completions = 0);
    }

    fn settle(&mut self, end: Instant) {
        let completions = || self.connections.iter().map(|connection| connection.completions);
        self.outcome.starved = completions().filter(|&count| count == 0).count();
        self.outcome.completions_min = completions().min().unwrap_or(0);
        self.outcome.completions_max = completions().max().unwrap_or(0);
        let under_way = self.connections.iter().filter_map(|connection| Some(connection.under_way?.1));
        let oldest = under_way.chain(self.backlog.front().copied()).min();
        self.outcome.oldest_waiting = oldest.map_or(Duration::ZERO, |moment| end - moment);
        self.outcome.latencies_ns.sort_unstable();
    }
}

/// Due moments of an open loop: seeded, exponentially distributed gaps.
struct Schedule {
    next: Instant,
    mean_s: f64,
    state: u64,
}

impl Schedule {
    fn new(rate: Option<f64>, start: Instant) -> Option<Self> {
        rate.map(|rate| Self { next: start, mean_s: rate.recip(), state: SEED })
    }

    fn pop(&mut self, now: Instant) -> Option<Instant> {
        if self.next > now {
            return None;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let uniform = ((self.state >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        let moment = self.next;
        self.next += Duration::from_secs_f64(-uniform.ln() * self.mean_s);
        Some(moment)
    }
}
