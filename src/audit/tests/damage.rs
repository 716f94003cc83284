//! Records that somebody has changed: it is found and named, recording goes on, and it stays known.

use peregrine_actors::audit::Fault;

use super::*;

/// Ten records in two segments, closed.
async fn closed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let rig = Rig::open(&config(dir.path())).await;
    rig.ask_often(10).await;
    drop(rig);
    let names: Vec<String> = files(dir.path()).into_keys().collect();
    let expected = ["0000000000000001.index", "0000000000000001.segment", "0000000000000002.segment", "head"];
    assert_eq!(names, expected);
    assert_eq!(verify(dir.path()).faults, []);
    dir
}

const FIRST: &str = "0000000000000001.segment";
const SECOND: &str = "0000000000000002.segment";

#[tokio::test]
async fn an_edit_of_any_byte_of_any_file_is_found() {
    every_edit_is_found(closed().await.path());
}

#[tokio::test]
async fn a_file_that_is_gone_is_missed() {
    for (name, wanted) in [(FIRST, Fault::Missing { from: 1, to: 1 }), ("head", Fault::Head)] {
        let dir = closed().await;
        fs::remove_file(dir.path().join(name)).unwrap();
        assert_eq!(verify(dir.path()).faults, [wanted]);
    }
    let dir = closed().await;
    fs::remove_file(dir.path().join(SECOND)).unwrap();
    assert!(matches!(*verify(dir.path()).faults, [Fault::End { segment: 2, .. }]));
}

/// What is done to a closed folder, and what a node says that starts on it.
async fn check(damage: impl Fn(&Path), said: &str) {
    let dir = closed().await;
    damage(dir.path());
    let before = files(dir.path());
    let rig = Rig::open(&config(dir.path())).await;
    let broken = rig.found.broken.clone().unwrap_or_default();
    assert!(broken.contains(said), "{broken}");
    let ids = rig.ask_often(3).await;
    drop(rig);
    let report = verify(dir.path());
    // Nobody tidies up what may be evidence.
    let after = files(dir.path());
    for (name, bytes) in before.iter().filter(|(name, _)| *name != "head") {
        assert_eq!(after.get(name), Some(bytes), "{name}");
    }
    let is_broken = |fault: &Fault| matches!(fault, Fault::Broken { found, .. } if found.contains(said));
    assert!(report.faults.iter().any(is_broken), "{:?}", report.faults);
    let folder = Folder::at(dir.path());
    assert!(ids.iter().all(|id| folder.find(id).unwrap().unwrap().is_intact));
    // It stays known, and is said once.
    drop(Rig::open(&config(dir.path())).await);
    assert_eq!(verify(dir.path()).faults, report.faults);
}

#[tokio::test]
async fn what_was_cut_off_the_end_is_known_for_good() {
    let cut = |dir: &Path| {
        let bytes = fs::read(dir.join(SECOND)).unwrap();
        let last = peregrine_actors::audit::unchecked(&bytes).nth(2).unwrap().at as usize;
        fs::write(dir.join(SECOND), &bytes[..last]).unwrap();
    };
    check(cut, "did not reach the head").await;
    check(|dir| fs::remove_file(dir.join(SECOND)).unwrap(), "did not reach the head").await;
    let all = |dir: &Path| [FIRST, SECOND].iter().for_each(|name| fs::remove_file(dir.join(name)).unwrap());
    check(all, "there was no segment left").await;
}

#[tokio::test]
async fn a_damaged_end_is_left_alone_and_recording_goes_on() {
    let edit = |name: &'static str, at: usize| {
        move |dir: &Path| {
            let mut bytes = fs::read(dir.join(name)).unwrap();
            bytes[at] ^= 1;
            fs::write(dir.join(name), bytes).unwrap();
        }
    };
    check(edit(SECOND, 200), "a record was edited").await;
    check(edit(SECOND, 20), "the header of the segment was edited").await;
    check(edit("head", 20), "the head was edited").await;
    check(|dir| fs::remove_file(dir.join("head")).unwrap(), "the head was missing").await;
    check(|dir| fs::write(dir.join(SECOND), b"").unwrap(), "did not reach the head").await;
}

#[tokio::test]
async fn bytes_behind_the_end_are_cut_and_the_chain_says_how_many() {
    for tail in [&[0_u8; 300][..], &[7; 5], &[255; 40]] {
        let dir = closed().await;
        let mut bytes = fs::read(dir.path().join(SECOND)).unwrap();
        bytes.extend(tail);
        fs::write(dir.path().join(SECOND), bytes).unwrap();
        let rig = Rig::open(&config(dir.path())).await;
        let found = Found { segments: 2, was_closed: true, cut_bytes: tail.len() as u64, broken: None };
        assert_eq!(rig.found, found);
        rig.ask_often(1).await;
        drop(rig);
        let report = verify(dir.path());
        assert_eq!((report.faults, report.records), (Vec::new(), 11));
    }
}
