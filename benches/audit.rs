//! What recording predictions costs: `audit [ROUNDS] [SECONDS] [CONNECTIONS]`, run beside a built `peregrine`.
//!
//! Two nodes in processes of their own, one of which records. They are loaded in turns, the order changed each round,
//! by a closed loop of binary requests of one window: the cheapest request there is, so that the share is the largest.
//! Prints for each round the requests a second, the processor time of the node for a request and, of that, of the thread
//! that writes, and the medians.

mod support;

use std::thread;
use std::time::Duration;

use support::{Failure, Node, load};

/// What the node calls the thread that writes.
const WRITER: &str = "audit";

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1);
    let mut next = |default: f64| numbers.next().map_or(Ok(default), |text| text.parse::<f64>());
    let (rounds, each, connections) = (next(9.0)? as usize, next(3.0)?, next(32.0)? as usize);
    let dir = tempfile::tempdir()?;
    let nodes = [Node::start::<&str>(&[])?, Node::start(&[("PEREGRINE_AUDIT__DIR", dir.path())])?];
    for node in &nodes {
        load(node.addr, connections, Duration::from_secs(2))?;
    }
    let mut seen: [Vec<(f64, f64)>; 2] = Default::default();
    let mut writing = Vec::new();
    println!("round  plain req/s  µs cpu   recording req/s  µs cpu  µs writer");
    for round in 0..rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let before = nodes[at].processor_s()?;
            let written = if at == 1 { nodes[1].thread_s(WRITER)? } else { 0.0 };
            let (count, took) = load(nodes[at].addr, connections, Duration::from_secs_f64(each))?;
            // What it writes a moment later counts.
            thread::sleep(Duration::from_millis(100));
            let busy = nodes[at].processor_s()? - before;
            if at == 1 {
                writing.push((nodes[1].thread_s(WRITER)? - written) * 1e6 / count as f64);
            }
            seen[at].push((count as f64 / took.as_secs_f64(), busy * 1e6 / count as f64));
        }
        let [(plain, plain_us), (with, with_us)] = [seen[0][round], seen[1][round]];
        let writer_us = writing[round];
        println!("{round:>5} {plain:>12.0} {plain_us:>7.2} {with:>17.0} {with_us:>7.2} {writer_us:>10.2}");
    }
    writing.sort_by(f64::total_cmp);
    println!("µs of the thread that writes, a request: median {:.2}", writing[writing.len() / 2]);
    let ratios = |pick: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> =
            seen[0].iter().zip(&seen[1]).map(|(plain, with)| pick(with) / pick(plain)).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[0], all[all.len() - 1])
    };
    for (what, (median, low, high)) in
        [("throughput", ratios(|seen| seen.0)), ("processor time", ratios(|seen| seen.1))]
    {
        println!("{what}, recording / plain: median {median:.4}, {low:.4} to {high:.4}");
    }
    Ok(())
}
