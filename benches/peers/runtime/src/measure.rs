//! What is measured of every peer, by the same code.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::process;
use crate::{Failed, Outcome};

/// 64 bytes; the first word is its number.
pub(crate) type Note = [u64; 8];
/// Length of a block in bytes.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// Asks under way at once in the second stage.
const IN_FLIGHT: usize = 64;
const WARM_UP: u64 = 500;

/// What an actor has seen: all it should, in order, or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) misordered: u64,
}

impl Tally {
    /// Numbers begin with 0 and rise by one.
    pub(crate) fn enter(&mut self, number: u64) {
        self.misordered += u64::from(number != self.count);
        self.count += 1;
    }
}

/// The end that sends.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Whether blocks are carried at all.
    const BLOCKS: bool = true;

    /// The same 64 bytes come back.
    fn echo(&self, note: Note) -> impl Future<Output = Outcome<Note>> + Send;
    /// Resolves once the note is accepted.
    fn tell(&self, note: Note) -> impl Future<Output = Outcome<()>> + Send;
    /// The last note of a flow: comes back once all before it have been handled.
    fn tally(&self, last: Note) -> impl Future<Output = Outcome<Tally>> + Send;
    /// Resolves once the block is accepted.
    fn block(&self, block: Bytes) -> impl Future<Output = Outcome<()>> + Send;
    /// As [`Client::tally`].
    fn tally_blocks(&self, last: Bytes) -> impl Future<Output = Outcome<Tally>> + Send;
}

/// One round with one peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) ask_p50_us: f64,
    pub(crate) ask_p99_us: f64,
    pub(crate) asks_per_s: f64,
    pub(crate) tells_per_s: f64,
    pub(crate) block_mb_per_s: f64,
    /// Processor time of both ends: µs an ask at 64 in flight, µs a tell, ms a block.
    pub(crate) ask_cpu_us: f64,
    pub(crate) tell_cpu_us: f64,
    pub(crate) block_cpu_ms: f64,
    /// Highest resident memory of the two ends, in MiB.
    pub(crate) client_mib: f64,
    pub(crate) server_mib: f64,
    /// Memory of both ends in MiB halfway through the blocks, and at their end.
    pub(crate) blocks_half_mib: f64,
    pub(crate) blocks_end_mib: f64,
}

/// Runs all stages and prints the figures as one line.
pub(crate) async fn all<C: Client>(client: C, server: u32, each: Duration) -> Outcome<()> {
    for number in 0..WARM_UP {
        client.echo(note(number)).await?;
    }
    let mut figures = Figures::default();
    alone(&client, each, &mut figures).await?;
    in_flight(&client, server, each, &mut figures).await?;
    tells(&client, server, each, &mut figures).await?;
    if C::BLOCKS {
        blocks(&client, server, each, &mut figures).await?;
    }
    figures.client_mib = process::peak_mib(std::process::id())?;
    figures.server_mib = process::peak_mib(server)?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn note(number: u64) -> Note {
    let mut note = [0x0123_4567_89ab_cdef; 8];
    note[0] = number;
    note
}

async fn alone<C: Client>(client: &C, each: Duration, figures: &mut Figures) -> Outcome<()> {
    let mut delays = Vec::with_capacity(1 << 16);
    let end = Instant::now() + each;
    let mut number = 0;
    loop {
        let start = Instant::now();
        if start >= end {
            break;
        }
        let echoed = client.echo(note(number)).await?;
        delays.push(start.elapsed());
        if echoed != note(number) {
            return Err("an echo is not what was sent".into());
        }
        number += 1;
    }
    delays.sort_unstable();
    let at = |part: f64| delays[(delays.len() as f64 * part) as usize].as_secs_f64() * 1e6;
    (figures.ask_p50_us, figures.ask_p99_us) = (at(0.5), at(0.99));
    Ok(())
}

async fn in_flight<C: Client>(client: &C, server: u32, each: Duration, figures: &mut Figures) -> Outcome<()> {
    let (start, spent) = (Instant::now(), process::both_spent(server)?);
    let end = start + each;
    let asking: Vec<_> = (0..IN_FLIGHT as u64)
        .map(|first| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut number = first;
                while Instant::now() < end {
                    if client.echo(note(number)).await?[0] != number {
                        return Err("an echo is not what was sent".into());
                    }
                    number += IN_FLIGHT as u64;
                }
                Ok::<u64, Failed>(number / IN_FLIGHT as u64)
            })
        })
        .collect();
    let mut count = 0;
    for task in asking {
        count += task.await??;
    }
    figures.asks_per_s = count as f64 / start.elapsed().as_secs_f64();
    figures.ask_cpu_us = (process::both_spent(server)? - spent).as_secs_f64() * 1e6 / count as f64;
    Ok(())
}

async fn tells<C: Client>(client: &C, server: u32, each: Duration, figures: &mut Figures) -> Outcome<()> {
    let (start, spent) = (Instant::now(), process::both_spent(server)?);
    let client = client.clone();
    // A task of its own: one that the runtime polls without a way through the outermost future.
    let sending = tokio::spawn(async move {
        let mut number = 0;
        // The clock is read once for many: it must not weigh on what is measured.
        while number % 1024 != 0 || start.elapsed() < each {
            client.tell(note(number)).await?;
            number += 1;
        }
        Ok::<_, Failed>((number, client.tally(note(number)).await?))
    });
    let (number, tally) = sending.await??;
    check(tally, number + 1)?;
    figures.tells_per_s = tally.count as f64 / start.elapsed().as_secs_f64();
    figures.tell_cpu_us = (process::both_spent(server)? - spent).as_secs_f64() * 1e6 / tally.count as f64;
    Ok(())
}

async fn blocks<C: Client>(client: &C, server: u32, each: Duration, figures: &mut Figures) -> Outcome<()> {
    let pattern: Arc<[u8]> = (0..BLOCK_BYTES).map(|at| ((at * 31) >> 3) as u8).collect();
    let block = |number: u64| {
        let mut block = pattern.to_vec();
        block[..8].copy_from_slice(&number.to_le_bytes());
        Bytes::from(block)
    };
    let (start, spent) = (Instant::now(), process::both_spent(server)?);
    let mut number = 0;
    while start.elapsed() < each {
        client.block(block(number)).await?;
        number += 1;
        if figures.blocks_half_mib == 0.0 && start.elapsed() > each / 2 {
            figures.blocks_half_mib = process::both_mib(server)?;
        }
    }
    let tally = client.tally_blocks(block(number)).await?;
    check(tally, number + 1)?;
    let bytes = tally.count as f64 * BLOCK_BYTES as f64;
    figures.block_mb_per_s = bytes / 1e6 / start.elapsed().as_secs_f64();
    figures.block_cpu_ms = (process::both_spent(server)? - spent).as_secs_f64() * 1e3 / tally.count as f64;
    figures.blocks_end_mib = process::both_mib(server)?;
    Ok(())
}

fn check(tally: Tally, count: u64) -> Outcome<()> {
    if tally == (Tally { count, misordered: 0 }) {
        return Ok(());
    }
    Err(format!("{count} sent, {} handled, {} out of order", tally.count, tally.misordered).into())
}

/// What a receiver reads of a block: its number, if it is one.
pub(crate) fn block_number(block: &[u8]) -> Outcome<u64> {
    let number = block.first_chunk().filter(|_| block.len() == BLOCK_BYTES).ok_or("no block")?;
    Ok(u64::from_le_bytes(*number))
}
