//! How much is kept, and for how long; what goes is said before it goes.

use peregrine_actors::audit::Fault;
use peregrine_runtime::ManualClock;

use super::*;

#[tokio::test]
async fn a_folder_stays_within_its_bound_and_the_chain_holds() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let rig = Rig::open(&config).await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.extend(rig.ask_often(10).await);
        let bytes: usize = files(dir.path()).values().map(Vec::len).sum();
        assert!(bytes as u64 <= config.keep.bytes_max, "{bytes} bytes");
    }
    let report = verify(dir.path());
    assert_eq!(report.faults, []);
    assert!((20..60).contains(&report.records), "{report:?}");
    // Of most of those that are gone the notes are gone as well: their numbers still tell.
    assert_eq!(report.dropped, [(1, oldest(dir.path()) - 1)]);
    let folder = rig.records.folder();
    assert_eq!(folder.find(&ids[0]).unwrap(), None);
    assert!(folder.find(ids.last().unwrap()).unwrap().is_some());
    drop(rig);
    drop(Rig::open(&config).await);
    assert_eq!(verify(dir.path()).faults, []);
    // What goes without a word is missed.
    let oldest = files(dir.path()).into_keys().find(|name| name.ends_with(".segment")).unwrap();
    fs::remove_file(dir.path().join(oldest)).unwrap();
    assert!(matches!(*verify(dir.path()).faults, [Fault::Missing { .. }]));
}

#[tokio::test]
async fn what_is_too_old_goes_when_something_newer_comes() {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::new());
    let open = || AuditRecords::open(&config(dir.path()), &node(), clock.clone()).unwrap();
    // Starts and ends alone; an eighth of the age ends a segment.
    for _ in 0..12 {
        drop(open());
        clock.advance(Duration::from_secs(3600 / 8));
    }
    let report = verify(dir.path());
    assert_eq!(report.faults, []);
    assert!(report.segments <= 10, "{report:?}");
    assert_eq!(report.dropped, [(1, oldest(dir.path()) - 1)]);
    clock.advance(Duration::from_secs(7200));
    drop(open());
    let report = verify(dir.path());
    assert_eq!((report.faults.len(), report.segments), (0, 2), "{report:?}");
}
