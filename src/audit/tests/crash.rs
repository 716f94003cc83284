//! A process that is killed in the middle of writing: every record whose answer was given is there afterwards.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};

use super::*;

const DIR: &str = "PEREGRINE_TEST_AUDIT_DIR";

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_process() {
    let dir = TempDir::new().unwrap();
    let mut chance = SmallRng::seed_from_u64(11);
    // Wide enough that nothing is dropped meanwhile.
    let config = wide(dir.path());
    for round in 1..=8 {
        let mut child = child("crash::records_until_it_is_killed", DIR, dir.path());
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ids = lines.map(|line| line.unwrap());
        let ids = ids.filter_map(|line| line.strip_prefix("answered ").map(str::to_owned));
        let answered: Vec<String> = ids.take(chance.random_range(1..300)).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(verify(dir.path()).faults, [], "round {round}");
        let (records, found) = AuditRecords::open(&config, &node(), Arc::new(SystemClock)).unwrap();
        assert!(!found.was_closed && found.broken.is_none(), "round {round}: {found:?}");
        for id in &answered {
            let found = records.folder().find(id).unwrap();
            assert!(found.is_some_and(|found| found.is_intact), "round {round}: {id} is missing");
        }
        drop(records);
        let report = verify(dir.path());
        assert_eq!((report.faults, report.killed), (Vec::new(), round), "round {round}");
    }
}

fn wide(dir: &Path) -> AuditConfig {
    let keep = Keep { bytes_max: 32 << 20, age_max: Duration::from_secs(3600) };
    AuditConfig { keep, ..config(dir) }
}

/// Run by the test above in a process of its own; alone it does nothing.
#[tokio::test]
async fn records_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let rig = Rig::open(&wide(Path::new(&dir))).await;
    loop {
        let asked = (0..8).map(|_| rig.ask(""));
        for id in futures_util::future::join_all(asked).await {
            writeln!(std::io::stdout(), "answered {}", id.unwrap()).unwrap();
        }
    }
}
