//! Every door against its stored corpus, and against mutations of it that are the same in every run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{DOORS, Door};
use crate::testing::memory::peak_of;

const MUTATIONS: u64 = 2000;
/// What a door may hold at once beyond some times its input: tables that it needs whatever came.
const HELD_BYTES_MAX: usize = 4 << 20;

#[test]
fn every_door_has_a_target_and_a_corpus() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(home().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let doors: BTreeSet<String> = DOORS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), doors);
    assert_eq!(names("fuzz_targets"), doors);
}

#[test]
fn no_door_breaks_or_takes_memory_without_bound() {
    for (name, door) in DOORS {
        check(name, *door);
    }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn check(name: &str, door: Door) {
    let mut files: Vec<_> =
        fs::read_dir(home().join("corpus").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    // What is made once, at the first call, is nobody's.
    door(b"");
    let taken = corpus
        .iter()
        .zip(&files)
        .filter(|(input, file)| attempt(name, door, input, &file.display().to_string()));
    let taken = taken.count();
    assert!((1..corpus.len()).contains(&taken), "{name}: {taken} of {} are taken", corpus.len());
    for seed in 0..MUTATIONS {
        let input = mutated(&corpus, &mut StdRng::seed_from_u64(seed));
        attempt(name, door, &input, &format!("mutation {seed}"));
    }
}

fn attempt(name: &str, door: Door, input: &[u8], what: &str) -> bool {
    let (taken, peak) = std::panic::catch_unwind(|| peak_of(|| door(input))).unwrap_or_else(|panic| {
        eprintln!("{name}, {what}, {} bytes: {:?}", input.len(), String::from_utf8_lossy(input));
        std::panic::resume_unwind(panic)
    });
    assert!(peak <= HELD_BYTES_MAX + 64 * input.len(), "{name}, {what}: {peak} bytes for {}", input.len());
    taken
}

/// A stored input with a few bytes changed, put in, taken out, said twice, or followed by the end of another.
fn mutated(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    // What texts are made of: more of them stay readable.
    const LIKELY: &[u8] = b"0123456789[]{},:\"-.eE=_a \n\0\xff";
    let mut input = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..=6) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..7) {
            0 => input.insert(at, LIKELY[rng.random_range(0..LIKELY.len())]),
            1 => drop(input.drain(at..input.len().min(at + rng.random_range(1..=16)))),
            2 => {
                let other = &corpus[rng.random_range(0..corpus.len())];
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            3 => {
                let again = input[at..input.len().min(at + rng.random_range(1..=64))].to_vec();
                input.splice(at..at, again);
            }
            4 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            5 if at < input.len() => input[at] = rng.random(),
            _ if at < input.len() => input[at] = LIKELY[rng.random_range(0..LIKELY.len())],
            _ => {}
        }
    }
    input
}
