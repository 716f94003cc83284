//! A process that is killed in the middle of writing: every entry whose append was answered is there afterwards.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};

use super::*;

const DIR: &str = "PEREGRINE_TEST_JOURNAL_DIR";
const SERIES: u64 = 20;

#[test]
fn what_was_answered_survives_the_death_of_the_process() {
    let dir = TempDir::new().unwrap();
    let mut chance = SmallRng::seed_from_u64(11);
    let mut answered = 0;
    for round in 0..12 {
        let mut child = child("crash::appends_until_it_is_killed", dir.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers =
            lines.map(|line| line.unwrap()).filter_map(|line| line.strip_prefix("answered ")?.parse().ok());
        let last = numbers.take(chance.random_range(1..400)).last();
        answered = last.expect("it answers");
        child.kill().unwrap();
        child.wait().unwrap();
        let (journal, found) = open(&config(dir.path()));
        assert_eq!((found.aside, found.skipped), (None, 0), "round {round}");
        let seqs = seqs(&journal);
        assert_eq!(seqs.len() as u64, SERIES, "round {round}");
        for (series, seqs) in seqs {
            let newest: u64 = *seqs.last().unwrap();
            assert!(newest >= answered, "round {round}: {series} ends at {newest}, {answered} was answered");
            let expected = newest.saturating_sub(u64::from(RING) - 1)..=newest;
            assert!(seqs.iter().copied().eq(expected), "round {round}: {series} is {seqs:?}");
        }
    }
    assert!(answered > 12);
}

/// Run by the test above in a process of its own; alone it does nothing.
#[tokio::test]
async fn appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (journal, _) = open(&config(Path::new(&dir)));
    let newest = seqs(&journal).into_values().filter_map(|seqs| seqs.last().copied()).max();
    for seq in newest.map_or(0, |newest| newest + 1).. {
        let all = (0..SERIES).map(|series| journal.append(vec![entry(&format!("s{series}"), seq, 0.0)]));
        for result in futures_util::future::join_all(all).await {
            result.unwrap();
        }
        writeln!(std::io::stdout(), "answered {seq}").unwrap();
    }
}

/// This test binary with one test that knows it is a child by its environment.
fn child(test: &str, dir: &Path) -> std::process::Child {
    let name = format!("journal::tests::{test}");
    Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
