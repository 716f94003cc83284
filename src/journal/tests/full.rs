//! A disk that is full: appends are refused, nothing that was answered is lost, and it goes on when there is room.
//!
//! Needs a disk of its own: a file system in memory, which root may mount, or whoever may make a user namespace.

use super::*;
use crate::testing::on_small_disk;

const DIR: &str = "PEREGRINE_TEST_SMALL_DISK";

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    on_small_disk("journal::tests::full::fills_its_disk", "24m", DIR);
}

/// Run by the test above; alone it does nothing.
#[tokio::test]
async fn fills_its_disk() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 12 << 20]).unwrap();
    let clock = Arc::new(ManualClock::new());
    let config = config(&dir.join("journal"));
    let (journal, _) = TickJournal::open(&config, clock.clone()).unwrap();
    let mut answered = 0;
    let mut refused = None;
    for seq in 0..100_000 {
        match journal.append(vec![bulky(seq)]).await {
            Ok(()) => answered = seq,
            Err(JournalError::Disk(why)) => {
                refused = Some(why);
                break;
            }
            Err(JournalError::Full) => panic!("one at a time cannot fill the queue"),
        }
    }
    let first = refused.expect("the disk becomes full");
    assert!(!first.contains("Poisoned"), "{first}");
    let then = journal.append(vec![bulky(answered + 1)]).await;
    assert!(matches!(&then, Err(JournalError::Disk(why)) if *why == first), "{then:?} after {first}");
    std::fs::remove_file(&ballast).unwrap();
    clock.advance(Duration::from_secs(2));
    journal.append(vec![bulky(answered + 1)]).await.unwrap();
    let status = journal.status();
    assert_eq!((status.written, status.failed), (answered + 2, 2));
    drop(journal);
    let (journal, found) = TickJournal::open(&config, clock).unwrap();
    assert_eq!((found.aside, found.skipped), (None, 0));
    let newest = answered + 1;
    let seqs = &seqs(&journal)["a"];
    assert!(seqs.iter().copied().eq(newest.saturating_sub(u64::from(RING) - 1)..=newest), "{seqs:?}");
    println!("went on");
}

fn bulky(seq: u64) -> JournalEntry {
    let mut entry = entry("a", seq, 0.0);
    entry.tick.futr_exog = vec![("f".to_owned(), vec![seq as f32; 8000])];
    entry
}
