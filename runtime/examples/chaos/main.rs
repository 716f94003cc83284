//! A million asks between five processes that are killed, frozen and cut off meanwhile.
//!
//! `cargo run --release -p peregrine_runtime --example chaos [ASKS]`: harms a node or a link every few seconds, heals
//! it, and goes on until so many asks have ended (1,000,000). An ask has two seconds. Ends with an error if one was
//! late, was handled twice, was answered wrongly, or never ended.

#[path = "../detection/fleet.rs"]
mod fleet;
#[path = "../detection/member.rs"]
mod member;
#[path = "../detection/network.rs"]
mod network;
mod node;

use std::error::Error;
use std::time::{Duration, Instant};

use fleet::Fleet;

const NODES: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node", id, listen, advertise, seeds] => node::run(id, listen, advertise, seeds),
        [] => harm(1_000_000),
        [asks] => harm(asks.parse()?),
        _ => Err("chaos [ASKS]".into()),
    }
}

fn harm(wanted: u64) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut fleet = Fleet::start(NODES, true)?;
    let (mut harms, mut slowest) = ([0; 4], Duration::ZERO);
    for round in 0.. {
        let node = round % NODES;
        let kind = (round / NODES + round) % harms.len();
        let (noticed, _healed) = match kind {
            0 => fleet.kill(node)?,
            1 => fleet.stop(node)?,
            2 => fleet.cut_link(node, (node + 1 + round % (NODES - 1)) % NODES)?,
            _ => fleet.cut_off(node)?,
        };
        harms[kind] += 1;
        slowest = slowest.max(noticed);
        let [answered, refused, ..] = fleet.asks();
        if answered + refused >= wanted {
            break;
        }
    }
    let errors = fleet.errors();
    let [answered, refused, late, wrong, twice, left] = fleet.finish()?;
    let [killed, frozen, links, cut_off] = harms;
    println!(
        "{} s: {killed} nodes killed, {frozen} frozen, {cut_off} cut off, {links} links cut",
        start.elapsed().as_secs()
    );
    println!("noticed by the last of the others after {} ms at most", slowest.as_millis());
    println!("missed who were there: {} members, {} links", errors.members, errors.links);
    println!("asks ended {}: answered {answered}, refused or lost {refused}", answered + refused + wrong);
    println!("late {late}, answered wrongly {wrong}, handled twice {twice}, never ended {left}");
    if late + wrong + twice + left > 0 {
        return Err("an ask did not end as it must".into());
    }
    Ok(())
}
