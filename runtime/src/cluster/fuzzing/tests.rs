//! Every door against its stored corpus, and against mutations of it that are the same in every run.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const MUTATIONS: u64 = 4000;

#[test]
fn headers() {
    check("header", super::header);
}

#[test]
fn bodies() {
    check("codec", super::codec);
}

#[test]
fn greetings() {
    check("greeting", super::greeting);
}

#[test]
fn lanes_of_a_member() {
    check("reader", super::reader);
}

#[test]
fn packets_of_shards() {
    check("shard", super::shard);
}

#[test]
fn gossip() {
    check("gossip", super::gossip);
}

#[track_caller]
fn check(door: &str, open: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door);
    let mut names: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty(), "no corpus in {}", folder.display());
    let corpus: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(name).unwrap()).collect();
    let through = corpus.iter().filter(|input| attempt(open, input, "as stored")).count();
    assert!((1..corpus.len()).contains(&through), "{through} got through: the corpus is of another protocol");
    for seed in 0..MUTATIONS {
        let mut rng = StdRng::seed_from_u64(seed);
        let input = mutated(&corpus, &mut rng);
        attempt(open, &input, &format!("mutation {seed}"));
    }
}

fn attempt(open: fn(&[u8]) -> bool, input: &[u8], what: &str) -> bool {
    std::panic::catch_unwind(|| open(input)).unwrap_or_else(|panic| {
        eprintln!("{what}, {} bytes: {input:02x?}", input.len());
        std::panic::resume_unwind(panic)
    })
}

/// A stored input with a few bytes changed, put in, taken out, or followed by the end of another.
fn mutated(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut input = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..=8) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..5) {
            0 => input.insert(at, rng.random()),
            1 => drop(input.drain(at..input.len().min(at + rng.random_range(1..=16)))),
            2 => {
                let other = &corpus[rng.random_range(0..corpus.len())];
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            3 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            _ if at < input.len() => input[at] = rng.random(),
            _ => {}
        }
    }
    input
}
