//! Files that were cut or changed: the journal opens, says so, and gives back nothing that was never written.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng};

use super::*;

const SERIES: u64 = 40;

#[derive(Clone, Copy)]
enum Harm {
    Cut,
    Flip,
    Remove,
}

#[tokio::test]
async fn a_damaged_store_is_noticed_and_never_believed() {
    let whole = written().await;
    let mut aside = 0;
    for seed in 0..90 {
        let harm = [Harm::Cut, Harm::Flip, Harm::Remove][seed as usize % 3];
        aside += usize::from(check(whole.path(), seed, harm).await.aside.is_some());
    }
    assert!(aside > 10, "{aside} were put aside");
}

#[tokio::test]
async fn of_many_that_were_put_aside_the_newest_stay() {
    let dir = TempDir::new().unwrap();
    for _ in 0..5 {
        drop(open(&config(dir.path())));
        fs::write(dir.path().join("ticks/version"), "rubbish").unwrap();
    }
    drop(open(&config(dir.path())));
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["lock", "ticks", "ticks.corrupt-3", "ticks.corrupt-4", "ticks.corrupt-5"]);
}

async fn check(whole: &Path, seed: u64, harm: Harm) -> Found {
    let mut chance = SmallRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    copy(whole, dir.path());
    let file = files(&dir.path().join("ticks")).choose(&mut chance).unwrap().clone();
    let what = format!("seed {seed}: {}", file.display());
    hurt(&file, harm, &mut chance);
    let (journal, found) = match TickJournal::open(&config(dir.path()), Arc::new(SystemClock)) {
        Ok(opened) => opened,
        // Its version cannot be told from that of a later build; it is left where it is.
        Err(OpenError::Format { .. }) => return Found::default(),
        Err(error) => panic!("{what}: {error}"),
    };
    let mut kept = 0;
    for entry in restored(&journal) {
        assert_eq!(entry, large(entry.tick.series.as_str(), entry.seq), "{what}");
        kept += 1;
    }
    let noticed = found.aside.is_some() || found.skipped > 0 || found.torn_bytes > 0;
    assert!(
        noticed || kept == SERIES * u64::from(RING),
        "{what}: {kept} entries are left, and nothing is said"
    );
    // It works, and is whole from now on.
    journal.append(entries("new", 1..=3)).await.unwrap();
    drop(journal);
    let (journal, again) = open(&config(dir.path()));
    assert_eq!((again.aside, again.skipped, again.torn_bytes), (None, 0, 0), "{what}");
    assert_eq!(seqs(&journal)["new"], [1, 2, 3], "{what}");
    found
}

/// A store with tables and a log, so that all kinds of files can be hurt.
async fn written() -> TempDir {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(&config(dir.path()));
    for seq in 0..u64::from(RING) * 3 {
        let all = (0..SERIES).map(|series| large(&format!("s{series:02}"), seq)).collect();
        journal.append(all).await.unwrap();
    }
    drop(journal);
    drop(open(&config(dir.path()))); // cuts the logs to what was written: less to copy
    let kinds = files(&dir.path().join("ticks"));
    assert!(kinds.len() > 6, "{kinds:?}");
    dir
}

fn large(series: &str, seq: u64) -> JournalEntry {
    let mut entry = entry(series, seq, 0.5);
    let chance = &mut SmallRng::seed_from_u64(seq);
    entry.tick.futr_exog = vec![("f".to_owned(), (0..5000).map(|_| chance.random::<f32>()).collect())];
    entry
}

fn hurt(file: &Path, harm: Harm, chance: &mut SmallRng) {
    let len = fs::metadata(file).unwrap().len();
    if len == 0 || matches!(harm, Harm::Remove) {
        return fs::remove_file(file).unwrap();
    }
    let at = chance.random_range(0..len);
    let mut file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    if matches!(harm, Harm::Cut) {
        return file.set_len(at).unwrap();
    }
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 1 << chance.random_range(0..8);
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort_unstable();
    all
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}
