//! Records of real forecasts on a real disk, and everything that can happen to them there.

mod crash;
mod damage;
mod former;
mod full;
mod keeping;

use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_actors::audit::{Keep, OnFailure, Report, Survives};
use peregrine_actors::{ExecutorFactory, ForecastError, ForecastRequest, Names, Settings, Subject, System};
use peregrine_runtime::{Deadline, NodeId, Region, SystemClock};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Executor, Forecaster, Windows};
use tempfile::TempDir;

use super::*;

const MODEL: &str = "nhits-vol-quantile";

/// A system that records in a folder.
struct Rig {
    system: System,
    records: AuditRecords,
    found: Found,
}

impl Rig {
    async fn open(config: &AuditConfig) -> Self {
        let (records, found) = AuditRecords::open(config, &node(), Arc::new(SystemClock)).unwrap();
        let cpu: ExecutorFactory = Arc::new(|| Ok(Box::new(CpuExecutor::new(1)) as Box<dyn Executor>));
        let system = System::start(Settings::default(), cpu, None, Arc::new(SystemClock), 1).unwrap();
        let forecaster = Forecaster::load(&Path::new("models").join(MODEL)).unwrap();
        system.load(Arc::new(forecaster), 1).await.unwrap();
        assert!(system.attach_audit(Arc::clone(records.audit())));
        Self { system, records, found }
    }

    /// One forecast; the number of its prediction.
    async fn ask(&self, request: &str) -> Result<String, ForecastError> {
        let ids = self.system.number(1);
        let names = Names { ids: Some(ids), request: request.to_owned(), ..Names::default() };
        let deadline = Deadline::after(SystemClock.now(), Duration::from_secs(10));
        let windows = Windows { rows: 1, y: window(ids.first), ..Windows::default() };
        let request = ForecastRequest {
            subject: Subject::Named(Box::new(names)),
            ..ForecastRequest::new(MODEL, windows, deadline)
        };
        self.system.forecast(request).await?;
        Ok(ids.row(0).to_string())
    }

    async fn ask_often(&self, times: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..times {
            ids.push(self.ask("").await.unwrap());
        }
        ids
    }
}

/// Different for every number.
fn window(number: u64) -> Vec<f32> {
    (0..128).map(|at| ((at as f32) * 0.3).sin() + (number % 1000) as f32 * 0.01).collect()
}

fn node() -> NodeConfig {
    NodeConfig { name: NodeId::new("a").unwrap(), region: Region::new("fra").unwrap() }
}

/// Answers wait until their records are with the operating system; segments of 8 KiB hold seven of them.
fn config(dir: &Path) -> AuditConfig {
    AuditConfig {
        dir: dir.to_owned(),
        on_failure: OnFailure::Refuse,
        survives: Survives::Process,
        sync_every: Duration::from_millis(100),
        keep: Keep { bytes_max: 64 << 10, age_max: Duration::from_secs(3600) },
        queue_bytes_max: 1 << 20,
    }
}

fn verify(dir: &Path) -> Report {
    Folder::at(dir).verify(None).unwrap()
}

/// The number of the oldest segment that is there.
fn oldest(dir: &Path) -> u64 {
    files::list(dir).unwrap()[0]
}

/// All files of a folder but the lock.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file() && !path.ends_with("lock"));
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// Turns over one bit of each byte of each file, one at a time; afterwards the files are as they were.
fn every_edit_is_found(dir: &Path) {
    for (name, bytes) in files(dir) {
        let path = dir.join(&name);
        for at in 0..bytes.len() {
            let mut edited = bytes.clone();
            edited[at] ^= 1 << (at % 8);
            fs::write(&path, edited).unwrap();
            assert_ne!(verify(dir).faults, [], "{name}, byte {at}");
        }
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(verify(dir).faults, []);
}

/// This test binary with one test that knows it is a child by its environment.
fn child(test: &str, key: &str, dir: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([&format!("audit::tests::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
    command.env(key, dir);
    command
}

#[tokio::test]
async fn a_record_is_found_at_once_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::open(&config(dir.path())).await;
    assert_eq!(rig.found, Found { was_closed: true, ..Found::default() });
    let mut ids = Vec::new();
    for round in 0..20 {
        ids.push(rig.ask(&format!("r{round}")).await.unwrap());
    }
    let check = |folder: &Folder| {
        for (round, id) in ids.iter().enumerate() {
            let found = folder.find(id).unwrap().unwrap();
            assert_eq!(found.record.request, format!("r{round}"));
            assert!(found.is_intact);
            assert_eq!(folder.find(&format!("r{round}")).unwrap().unwrap(), found);
        }
        assert_eq!(folder.find("none").unwrap(), None);
    };
    check(rig.records.folder());
    // Beside the node that writes, as the command line does.
    check(&Folder::at(dir.path()));
    assert_eq!(verify(dir.path()).faults, []);
    drop(rig);
    let rig = Rig::open(&config(dir.path())).await;
    assert_eq!(rig.found, Found { segments: 4, was_closed: true, ..Found::default() });
    check(rig.records.folder());
    let report = verify(dir.path());
    assert_eq!((report.faults.len(), report.records, report.killed), (0, 20, 0));
    assert_eq!(rig.records.audit().status().head.records, 20);
    // An index is a convenience.
    for name in files(dir.path()).keys().filter(|name| name.ends_with(".index")) {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    check(rig.records.folder());
}

#[tokio::test]
async fn the_cpu_makes_the_same_bits_of_a_record() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::open(&config(dir.path())).await;
    let id = rig.ask("").await.unwrap();
    let record = rig.records.folder().find(&id).unwrap().unwrap().record;
    let forecaster = Forecaster::load(&Path::new("models").join(MODEL)).unwrap();
    assert_eq!(record.digest, forecaster.digest());
    let mut again = Vec::new();
    let mut executor = CpuExecutor::new(2);
    let mut scratch = peregrine_shaders::Scratch::default();
    forecaster.forecast(&mut executor, &record.windows, &mut scratch, &mut again).unwrap();
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&again), bits(&record.values));
}

#[tokio::test]
async fn one_process_writes_and_a_folder_that_cannot_be_written_is_refused() {
    let dir = TempDir::new().unwrap();
    let _rig = Rig::open(&config(dir.path())).await;
    let open = |dir: &Path| AuditRecords::open(&config(dir), &node(), Arc::new(SystemClock)).err();
    assert!(matches!(open(dir.path()), Some(OpenError::Locked(_))));
    // Nobody makes folders there, not even root.
    let refused = open(Path::new("/proc/audit")).unwrap();
    assert!(refused.to_string().starts_with("/proc/audit: "), "{refused}");
}
