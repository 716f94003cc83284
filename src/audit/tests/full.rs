//! A disk that is full: predictions are refused, or answered and missed; the chain holds, and goes on when there is room.
//!
//! Needs a disk of its own: a file system in memory, which root may mount, or whoever may make a user namespace.

use super::*;
use crate::testing::on_small_disk;

const DIR: &str = "PEREGRINE_TEST_SMALL_AUDIT_DISK";

#[test]
fn a_full_disk_refuses_or_serves_and_goes_on_when_there_is_room() {
    on_small_disk("audit::tests::full::fills_its_disk", "1m", DIR);
}

/// Run by the test above; alone it does nothing.
#[tokio::test]
async fn fills_its_disk() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    for on_failure in [OnFailure::Refuse, OnFailure::Serve] {
        let folder = dir.join(format!("{on_failure:?}"));
        // More than the disk has.
        let keep = Keep { bytes_max: 4 << 20, age_max: Duration::from_secs(3600) };
        let config = AuditConfig {
            on_failure,
            survives: Survives::Nothing,
            queue_bytes_max: 16 << 10,
            keep,
            ..config(&folder)
        };
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![1; 400 << 10]).unwrap();
        let rig = Rig::open(&config).await;
        let status = || rig.records.audit().status();
        let mut asked = 0;
        let mut refused = 0;
        while status().failure.is_none() || (status().lost == 0 && refused == 0) {
            asked += 1;
            assert!(asked < 100_000, "the disk never was full");
            match rig.ask("").await {
                // The disk has to be full, not the queue alone.
                Ok(_) if status().lost > 0 => tokio::time::sleep(Duration::from_millis(1)).await,
                Ok(_) => {}
                Err(ForecastError::Overloaded { .. }) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    asked -= 1;
                }
                Err(ForecastError::Unavailable { reason }) => {
                    assert!(reason.contains("No space left"), "{reason}");
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        match on_failure {
            OnFailure::Refuse => assert!(refused > 0 && status().lost == 0),
            OnFailure::Serve => assert!(refused == 0 && status().lost > 0),
        }
        assert_eq!(verify(&folder).faults, [], "while it is full");
        fs::remove_file(&ballast).unwrap();
        for _ in 0..1000 {
            if status().failure.is_none() && status().queue_bytes == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let now = status();
        assert!(now.failure.is_none() && now.queue_bytes == 0, "{now:?}");
        let id = rig.ask("").await.unwrap();
        let lost = status().lost;
        drop(rig);
        let report = verify(&folder);
        assert_eq!((report.faults.len(), report.unrecorded), (0, lost), "{report:?}");
        assert_eq!(report.records, asked - refused - lost + 1);
        assert!(Folder::at(&folder).find(&id).unwrap().is_some());
        fs::remove_dir_all(&folder).unwrap();
    }
    println!("went on");
}
