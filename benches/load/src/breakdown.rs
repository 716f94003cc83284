//! One request at a time, hop by hop, as far as two clocks can tell: the client's around the socket, and the server's
//! within. What neither saw is what is left: the network, the kernels, and reading HTTP.

use std::time::{Duration, Instant};

use crate::LoadError;
use crate::connection::Connection;
use crate::recorder::{Failure, Spread};
use crate::request::{Ask, Kind, requests};
use crate::shape::Shape;
use crate::split::{Counters, Hops};
use crate::target::Target;
use crate::{answer, control, http};

/// Where the time went, over many requests.
#[derive(Clone, Debug, Default)]
pub struct Breakdown {
    /// Handing the request to the kernel.
    pub write: Spread,
    /// Between that and the first byte of the answer, without what the server says it took.
    pub between: Spread,
    /// In the server's queue.
    pub queue: Spread,
    /// On the device.
    pub compute: Spread,
    /// Reading the body and printing the answer, in the server.
    pub transfer: Spread,
    /// From the first byte of the answer to its last.
    pub read: Spread,
    /// Reading the numbers in it, at the client.
    pub parse: Spread,
    /// All of it.
    pub total: Spread,
    /// Requests whose hops the server did not tell apart from those of others.
    pub untold: u64,
    /// Wrong or refused answers.
    pub failures: std::collections::BTreeMap<Failure, u64>,
}

/// Asks for `len`, one request after the other.
///
/// # Errors
/// What keeps requests from being sent, [`LoadError::Unsuited`] for streams, and connections that end.
pub fn breakdown(target: &Target, shape: &Shape, ask: &Ask, len: Duration) -> Result<Breakdown, LoadError> {
    if ask.kind == Kind::Stream {
        return Err(LoadError::Unsuited(
            "a tick and its prediction are two messages: no hops are told".to_owned(),
        ));
    }
    let requests = requests(target, shape, ask)?;
    let mut connection = Connection::open(target)?;
    let mut whole = Breakdown::default();
    let mut before = counters(target, shape)?;
    let until = Instant::now() + len;
    for request in requests.iter().cycle() {
        let start = Instant::now();
        if start >= until {
            break;
        }
        connection.write_all(request)?;
        let written = Instant::now();
        let mut bytes = Vec::new();
        connection.read_more(&mut bytes)?;
        let first = Instant::now();
        let (head, body) = loop {
            if let Some(head) = http::head(&bytes)?
                && let Some(body) = http::body(&head, &bytes)?
            {
                break (head, body.into_owned());
            }
            if start.elapsed() > target.timeout {
                return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
            }
            connection.read_more(&mut bytes)?;
        };
        let read = Instant::now();
        let checked = match head.status {
            200 => answer::check(ask.kind, shape, ask.rows, &head, &body),
            status => Err(Failure::Status(status)),
        };
        let parsed = Instant::now();
        let told = match checked {
            Ok(Some(hops)) => Some(hops),
            Ok(None) => {
                // The counters are ours alone where they moved by one request.
                let now = counters(target, shape)?;
                now.since(&std::mem::replace(&mut before, now))
                    .filter(|one| one.requests == 1)
                    .map(|one| one.mean)
            }
            Err(failure) => {
                *whole.failures.entry(failure).or_default() += 1;
                before = counters(target, shape)?;
                continue;
            }
        };
        whole.add(told, [start, written, first, read, parsed]);
        if head.closes {
            connection = Connection::open(target)?;
        }
    }
    Ok(whole)
}

fn counters(target: &Target, shape: &Shape) -> Result<Counters, LoadError> {
    let path = format!("/v2/models/{}/stats", shape.model);
    let unusable = LoadError::Unusable { path: path.clone(), detail: "no statistics of a model" };
    Counters::of(&control::get(target, &path)?).ok_or(unusable)
}

impl Breakdown {
    fn add(&mut self, told: Option<Hops>, [start, written, first, read, parsed]: [Instant; 5]) {
        self.write.add(written - start);
        self.read.add(read - first);
        self.parse.add(parsed - read);
        self.total.add(parsed - start);
        match told {
            Some(hops) => {
                self.queue.add(hops.queue);
                self.compute.add(hops.compute);
                self.transfer.add(hops.transfer);
                self.between.add((first - written).saturating_sub(hops.total()));
            }
            None => self.untold += 1,
        }
    }
}
