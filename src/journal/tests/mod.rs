//! A journal in a folder of its own for each test; what was appended against what comes back.

mod crash;
mod damage;
mod full;

use std::collections::BTreeMap;
use std::path::Path;

use peregrine_actors::series::{Tick, Timestamp};
use peregrine_runtime::{ManualClock, SystemClock};
use tempfile::TempDir;

use super::*;
use crate::config::Durability;

const RING: u32 = 8;

#[tokio::test]
async fn the_newest_entries_come_back_in_order() {
    check(&[("a", 1..=3), ("b", 5..=6)], &[("a", 1..=3), ("b", 5..=6)]).await;
    check(&[("a", 0..=20), ("a/b", 3..=3)], &[("a", 13..=20), ("a/b", 3..=3)]).await;
    check(&[("a", 1..=3), ("a", 5..=6)], &[("a", 5..=6)]).await;
    check(&[("a", 1..=9), ("a", 7..=7)], &[("a", 2..=9)]).await;
    check(&[], &[]).await;
}

async fn check(
    appended: &[(&str, std::ops::RangeInclusive<u64>)],
    want: &[(&str, std::ops::RangeInclusive<u64>)],
) {
    for durability in [Durability::Disk, process()] {
        let dir = TempDir::new().unwrap();
        let config = JournalConfig { durability, ..config(dir.path()) };
        let (journal, found) = open(&config);
        assert_eq!(found, Found::default());
        for (series, seqs) in appended {
            journal.append(entries(series, seqs.clone())).await.unwrap();
        }
        let want: Vec<_> = want.iter().flat_map(|(series, seqs)| entries(series, seqs.clone())).collect();
        assert_eq!(restored(&journal), want);
        drop(journal);
        let (journal, found) = open(&config);
        assert_eq!(restored(&journal), want);
        assert_eq!((found.skipped, found.torn_bytes, found.aside), (0, 0, None));
    }
}

#[tokio::test]
async fn a_journal_whose_files_were_removed_says_so_and_begins_anew() {
    for durability in [Durability::Disk, process()] {
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::new());
        let config = JournalConfig { durability, ..config(&dir.path().join("journal")) };
        let (journal, _) = TickJournal::open(&config, clock.clone()).unwrap();
        journal.append(entries("a", 1..=3)).await.unwrap();
        std::fs::remove_dir_all(&config.dir).unwrap();
        let refused = journal.append(entries("a", 4..=4)).await;
        assert!(
            matches!(&refused, Err(JournalError::Disk(why)) if why.contains("removed")),
            "{durability:?}: {refused:?}"
        );
        assert!(journal.status().refuses);
        clock.advance(Duration::from_secs(2));
        journal.append(entries("a", 4..=5)).await.unwrap();
        assert!(!journal.status().refuses);
        drop(journal);
        let (journal, found) = TickJournal::open(&config, clock).unwrap();
        assert_eq!((found.skipped, found.aside), (0, None));
        assert_eq!(restored(&journal), entries("a", 4..=5));
    }
}

#[tokio::test]
async fn of_one_number_the_last_entry_counts() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(&config(dir.path()));
    journal.append(vec![entry("a", 1, 1.0), entry("a", 1, 2.0)]).await.unwrap();
    assert_eq!(restored(&journal), [entry("a", 1, 2.0)]);
    journal.append(vec![entry("a", 1, 3.0)]).await.unwrap();
    assert_eq!(restored(&journal), [entry("a", 1, 3.0)]);
}

#[tokio::test]
async fn a_forgotten_series_is_gone_and_may_come_again() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(&config(dir.path()));
    journal.append([entries("a", 1..=9), entries("ab", 1..=2)].concat()).await.unwrap();
    journal.forget(name("a")).await.unwrap();
    journal.forget(name("never seen")).await.unwrap();
    assert_eq!(restored(&journal), entries("ab", 1..=2));
    journal.append(entries("a", 1..=1)).await.unwrap();
    assert_eq!(restored(&journal), [entries("a", 1..=1), entries("ab", 1..=2)].concat());
}

#[tokio::test]
async fn who_appends_together_is_answered_together() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(&config(dir.path()));
    let all = (0..200).map(|at| journal.append(vec![entry(&format!("s{:03}", at % 40), at / 40, 0.0)]));
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    assert_eq!(restored(&journal).len(), 200);
    assert_eq!(journal.status(), JournalStatus { queued: 0, written: 200, failed: 0, refuses: false });
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = TempDir::new().unwrap();
    let (_journal, _) = open(&config(dir.path()));
    let second = TickJournal::open(&config(dir.path()), Arc::new(SystemClock));
    assert!(matches!(second, Err(OpenError::Locked(_))));
}

#[tokio::test]
async fn series_are_bounded_and_what_is_too_many_spoils_nothing_else() {
    let dir = TempDir::new().unwrap();
    let config = JournalConfig { series_max: 2, ..config(dir.path()) };
    let (journal, _) = open(&config);
    let (one, two, three) = (journal.append(entries("a", 1..=1)), journal.append(entries("b", 1..=1)), {
        journal.append(vec![entry("a", 2, 0.0), entry("c", 1, 0.0)])
    });
    let (one, two, three) = futures_util::join!(one, two, three);
    assert_eq!((one, two), (Ok(()), Ok(())));
    let Err(JournalError::Disk(text)) = three else { panic!("{three:?}") };
    assert!(text.contains("journal.series_max"), "{text}");
    let want = [entries("a", 1..=1), entries("b", 1..=1)].concat();
    assert_eq!(restored(&journal), want);
    journal.forget(name("a")).await.unwrap();
    journal.append(entries("c", 1..=1)).await.unwrap();
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_refused() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(&config(dir.path()));
    let mut large = entry("a", 1, 0.0);
    large.tick.futr_exog = vec![("f".to_owned(), vec![0.0; entry::VALUE_BYTES_MAX / 4])];
    assert!(matches!(journal.append(vec![large]).await, Err(JournalError::Disk(_))));
    assert_eq!(restored(&journal), []);
}

#[tokio::test]
async fn rings_of_another_size_keep_the_newest() {
    for (capacity, want) in [(3, 18..=20), (8, 13..=20), (50, 13..=20)] {
        let dir = TempDir::new().unwrap();
        let (journal, _) = open(&config(dir.path()));
        journal.append([entries("a", 0..=20), entries("b", 1..=1)].concat()).await.unwrap();
        drop(journal);
        let config = JournalConfig { capacity, ..config(dir.path()) };
        let (journal, found) = open(&config);
        let want = [entries("a", want), entries("b", 1..=1)].concat();
        assert_eq!(restored(&journal), want);
        assert_eq!((found.series, found.entries), (2, want.len() as u64));
        journal.append(entries("a", 21..=21)).await.unwrap();
        assert_eq!(restored(&journal).last(), want.last());
        drop(journal);
        assert_eq!(open(&config).1.skipped, 0);
    }
}

/// Entries whose numbers are far below the newest, and which are newer in time than others.
#[tokio::test]
async fn what_is_scattered_comes_back_as_it_was_said_to_be() {
    let dir = TempDir::new().unwrap();
    let late = |seq: u64| {
        let mut entry = entry("a", seq, 0.5);
        entry.tick.at = Timestamp(1_000_000_000 + seq as i64);
        entry
    };
    let scatter = |runs: &[(u64, u64)], aside: &[u64], dropped: &[u64]| Scatter {
        series: name("a"),
        runs: runs.to_vec(),
        aside: aside.iter().map(|&seq| late(seq)).collect(),
        dropped: dropped.to_vec(),
    };
    let (journal, _) = open(&config(dir.path()));
    journal
        .append([vec![late(1), late(2)], entries("a", 3..=8), entries("b", 1..=2)].concat())
        .await
        .unwrap();
    // Two of the oldest are given up for two more; the places of the first two are taken.
    journal.keep(entries("a", 9..=10), vec![scatter(&[(1, 2), (5, 10)], &[1, 2], &[])]).await.unwrap();
    let of = |seqs| [vec![late(1), late(2)], entries("a", seqs), entries("b", 1..=2)].concat();
    assert_eq!(restored(&journal), of(5..=10));
    drop(journal);
    let (journal, found) = open(&config(dir.path()));
    assert_eq!((restored(&journal), found.skipped), (of(5..=10), 0));
    drop(journal);
    // The newest in time have places in a smaller ring, and all of them in a larger one.
    let smaller = JournalConfig { capacity: 4, ..config(dir.path()) };
    assert_eq!(restored(&open(&smaller).0), of(9..=10));
    let larger = JournalConfig { capacity: 50, ..config(dir.path()) };
    let (journal, _) = open(&larger);
    assert_eq!(restored(&journal), of(9..=10));
    // In order again: nothing is left behind.
    journal.keep(entries("a", 11..=60), vec![scatter(&[], &[], &[1, 2])]).await.unwrap();
    assert_eq!(seqs(&journal)["a"], (11..=60).collect::<Vec<_>>());
    drop(journal);
    assert_eq!(seqs(&open(&larger).0)["a"], (11..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_what_is_scattered_nothing_comes_back_when_a_part_is_lost() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(&config(dir.path()));
    journal.append([entries("a", 1..=8), entries("b", 1..=2)].concat()).await.unwrap();
    let scatter = Scatter {
        series: name("a"),
        runs: vec![(1, 1), (4, 9)],
        aside: entries("a", 1..=1),
        dropped: Vec::new(),
    };
    journal.keep(entries("a", 9..=9), vec![scatter]).await.unwrap();
    assert_eq!(seqs(&journal)["a"], [1, 4, 5, 6, 7, 8, 9]);
    drop(journal);
    let db = fjall::Database::builder(dir.path().join("ticks")).open().unwrap();
    let raw = db.keyspace("entries", fjall::KeyspaceCreateOptions::default).unwrap();
    raw.remove(entry::key_aside(&name("a"), 1)).unwrap();
    drop((raw, db));
    assert_eq!(restored(&open(&config(dir.path())).0), entries("b", 1..=2));
}

#[tokio::test]
async fn values_that_are_no_entries_are_counted_and_removed() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(&config(dir.path()));
    journal.append([entries("a", 1..=8), entries("b", 1..=2)].concat()).await.unwrap();
    drop(journal);
    let db = fjall::Database::builder(dir.path().join("ticks")).open().unwrap();
    let raw = db.keyspace("entries", fjall::KeyspaceCreateOptions::default).unwrap();
    raw.insert(entry::key(&name("a"), 3, RING), b"\xff\xff").unwrap();
    raw.insert(entry::key(&name("a"), 2, RING), entry::encode(&entry("a", 1, 0.0))).unwrap(); // not its place
    raw.insert(b"no name of a series", b"").unwrap();
    drop((raw, db));
    let (journal, found) = open(&config(dir.path()));
    assert_eq!((found.series, found.entries, found.skipped, &found.aside), (2, 8, 3, &None));
    assert_eq!(restored(&journal), [entries("a", 4..=8), entries("b", 1..=2)].concat());
    drop(journal);
    assert_eq!(open(&config(dir.path())).1.skipped, 0);
}

#[tokio::test]
async fn another_format_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(open(&config(dir.path())));
    let db = fjall::Database::builder(dir.path().join("ticks")).open().unwrap();
    let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
    meta.insert("format", 2_u32.to_le_bytes()).unwrap();
    drop((meta, db));
    let Err(error) = TickJournal::open(&config(dir.path()), Arc::new(SystemClock)) else { panic!("opened") };
    assert!(error.to_string().ends_with("format 2, and this build reads 1"), "{error}");
    assert!(dir.path().join("ticks").is_dir());
}

#[tokio::test]
async fn a_folder_that_cannot_be_is_an_error() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let opened = TickJournal::open(&config(&file.join("journal")), Arc::new(SystemClock));
    assert!(matches!(opened, Err(OpenError::Io { .. })));
}

fn open(config: &JournalConfig) -> (TickJournal, Found) {
    TickJournal::open(config, Arc::new(SystemClock)).unwrap()
}

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { dir: dir.to_owned(), capacity: RING, series_max: 1000, durability: process() }
}

fn process() -> Durability {
    Durability::Process { sync_every: Duration::from_millis(5) }
}

fn restored(journal: &TickJournal) -> Vec<JournalEntry> {
    let mut all = Vec::new();
    journal.restore(&mut |entry| all.push(entry)).unwrap();
    all
}

/// By series, the numbers that came back.
fn seqs(journal: &TickJournal) -> BTreeMap<String, Vec<u64>> {
    let mut all = BTreeMap::<String, Vec<u64>>::new();
    for entry in restored(journal) {
        all.entry(entry.tick.series.to_string()).or_default().push(entry.seq);
    }
    all
}

fn entries(series: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<JournalEntry> {
    seqs.map(|seq| entry(series, seq, seq as f32)).collect()
}

pub(super) fn entry(series: &str, seq: u64, value: f32) -> JournalEntry {
    let tick = Tick {
        series: name(series),
        at: Timestamp(seq as i64 * 1_000_000),
        value: Some(value),
        hist_exog: vec![("x".to_owned(), 0.5)],
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        trace: peregrine_actors::Trace::default(),
    };
    JournalEntry { seq, epoch: 1, tick }
}

fn name(name: &str) -> SeriesName {
    SeriesName::new(name).unwrap()
}
