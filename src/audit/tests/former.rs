//! Records that the former build has written, kept in `former/`: three in segments of single entries. They are read,
//! verified, and gone on from.

use peregrine_actors::audit::{Fault, Format};

use super::*;

const IDS: [&str; 3] = ["1a229f328f6-0", "1a229f328f6-1", "1a229f328f6-2"];
const LAST: &str = "0000000000000003.segment";

fn former() -> TempDir {
    let dir = TempDir::new().unwrap();
    for entry in fs::read_dir("src/audit/tests/former").unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Whatever is old by now stays.
fn kept(dir: &Path) -> AuditConfig {
    let keep = Keep { bytes_max: 1 << 20, age_max: Duration::from_secs(u64::from(u32::MAX) * 60) };
    AuditConfig { keep, ..config(dir) }
}

fn format(dir: &Path, name: &str) -> Format {
    Format::of(&fs::read(dir.join(name)).unwrap()).unwrap()
}

#[tokio::test]
async fn a_former_chain_is_read_and_goes_on_in_groups() {
    let dir = former();
    let report = verify(dir.path());
    assert_eq!((report.faults.len(), report.segments, report.records), (0, 3, 3), "{report:?}");
    let before = files(dir.path());
    let link = report.link;
    let rig = Rig::open(&kept(dir.path())).await;
    assert_eq!(rig.found, Found { segments: 3, was_closed: true, ..Found::default() });
    let id = rig.ask("").await.unwrap();
    let head = rig.records.audit().status().head;
    assert_eq!((head.segment, head.records), (4, 4));
    for id in IDS.into_iter().chain([&*id]) {
        let found = rig.records.folder().find(id).unwrap().unwrap();
        assert!(found.is_intact, "{id}");
        assert_eq!(found.record.rows_called(id), [0], "{id}");
    }
    drop(rig);
    drop(Rig::open(&kept(dir.path())).await);
    // Through the last link that the former build had left.
    let report = Folder::at(dir.path()).verify(Some(link)).unwrap();
    assert_eq!((report.faults.len(), report.segments, report.records), (0, 4, 4), "{report:?}");
    let after = files(dir.path());
    assert!(before.iter().all(|(name, bytes)| name == "head" || after.get(name) == Some(bytes)));
    assert_eq!(format(dir.path(), LAST), Format::Single);
    assert_eq!(format(dir.path(), "0000000000000004.segment"), Format::Grouped);
}

#[tokio::test]
async fn what_is_torn_off_the_end_of_a_former_chain_is_cut_before_it_goes_on() {
    let dir = former();
    let mut bytes = fs::read(dir.path().join(LAST)).unwrap();
    let whole = bytes.len();
    bytes.extend([7; 50]);
    fs::write(dir.path().join(LAST), bytes).unwrap();
    let rig = Rig::open(&kept(dir.path())).await;
    assert_eq!((rig.found.cut_bytes, &rig.found.broken), (50, &None));
    drop(rig);
    assert_eq!(fs::metadata(dir.path().join(LAST)).unwrap().len(), whole as u64);
    assert_eq!(verify(dir.path()).faults, []);
}

#[tokio::test]
async fn an_edit_of_any_byte_of_a_former_chain_is_found() {
    let dir = former();
    drop(Rig::open(&kept(dir.path())).await);
    every_edit_is_found(dir.path());
    fs::remove_file(dir.path().join(LAST)).unwrap();
    assert!(verify(dir.path()).faults.contains(&Fault::Missing { from: 3, to: 3 }));
}
