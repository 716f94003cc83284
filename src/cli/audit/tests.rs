//! The verbs as an operator calls them, on records of a real forecast.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use peregrine_actors::audit::{Keep, OnFailure, Survives};
use peregrine_actors::{ExecutorFactory, ForecastRequest, Names, Settings, Subject, System};
use peregrine_runtime::{Clock as _, Deadline, NodeId, Region, SystemClock};
use peregrine_shaders::{Executor, Forecaster, Windows};
use tempfile::TempDir;

use super::*;
use crate::audit::AuditRecords;
use crate::config::{AuditConfig, NodeConfig};

const MODEL: &str = "nhits-vol-quantile";

/// A folder with one record, which the caller called `order 1`.
async fn recorded() -> TempDir {
    let dir = TempDir::new().unwrap();
    let config = AuditConfig {
        dir: dir.path().to_owned(),
        on_failure: OnFailure::Refuse,
        survives: Survives::Process,
        sync_every: Duration::from_secs(1),
        keep: Keep { bytes_max: 1 << 20, age_max: Duration::from_secs(3600) },
        queue_bytes_max: 1 << 20,
    };
    let node = NodeConfig { name: NodeId::new("a").unwrap(), region: Region::new("fra").unwrap() };
    let (records, _) = AuditRecords::open(&config, &node, Arc::new(SystemClock)).unwrap();
    let cpu: ExecutorFactory = Arc::new(|| Ok(Box::new(CpuExecutor::new(1)) as Box<dyn Executor>));
    let system = System::start(Settings::default(), cpu, None, Arc::new(SystemClock), 1).unwrap();
    system.load(Arc::new(Forecaster::load(&Path::new("models").join(MODEL)).unwrap()), 1).await.unwrap();
    assert!(system.attach_audit(Arc::clone(records.audit())));
    let windows = Windows { rows: 2, y: (0..256).map(|at| at as f32).collect(), ..Windows::default() };
    let deadline = Deadline::after(SystemClock.now(), Duration::from_secs(10));
    let names = Names { request: "order 1".to_owned(), ..Names::default() };
    let request = ForecastRequest {
        subject: Subject::Named(Box::new(names)),
        ..ForecastRequest::new(MODEL, windows, deadline)
    };
    system.forecast(request).await.unwrap();
    dir
}

#[track_caller]
fn check(arguments: &[&str], dir: &Path, code: u8) {
    let dir = dir.to_str().unwrap();
    let all: Vec<&str> = [&["peregrine", "audit"], arguments, &["--dir", dir]].concat();
    for json in [&[][..], &["--json"]] {
        let line = [&all[..], json].concat();
        assert_eq!(super::super::run(&line), ExitCode::from(code), "{line:?}");
    }
}

#[tokio::test]
async fn records_are_shown_verified_and_computed_again() {
    let dir = recorded().await;
    let dir = dir.path();
    check(&["show", "order 1"], dir, 0);
    check(&["verify"], dir, 0);
    check(&["replay", "order 1"], dir, 0);
    check(&["show", "order 2"], dir, 1);
    check(&["replay", "order 2"], dir, 1);
    let report = Folder::at(dir).verify(None).unwrap();
    check(&["verify", "--through", &report.link.to_string()], dir, 0);
    check(&["verify", "--through", &"0".repeat(64)], dir, 1);
    check(&["verify", "--through", "short"], dir, 2);
    check(&["verify"], Path::new("/no/such/folder"), 2);
}

#[tokio::test]
async fn other_weights_of_the_same_name_and_version_are_refused() {
    let dir = recorded().await;
    let record = Folder::at(dir.path()).find("order 1").unwrap().unwrap().record;
    let repository = TempDir::new().unwrap();
    let folder = repository.path().join(MODEL);
    std::fs::create_dir(&folder).unwrap();
    for file in ["model.json", "weights.safetensors"] {
        std::fs::copy(Path::new("models/nbeats-vol-quantile").join(file), folder.join(file)).unwrap();
    }
    let refused = again(&record, &catalog::scan(&[repository.path()]).unwrap(), &Vault::default()).err();
    assert!(matches!(refused, Some(AuditError::OtherWeights { .. })), "{refused:?}");
    check(&["replay", "order 1", "--models", repository.path().to_str().unwrap()], dir.path(), 1);
    let refused = again(&record, &[], &Vault::default()).err();
    assert!(matches!(refused, Some(AuditError::NoModel { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_bit_of_the_answer_tells_on_the_cpu_and_not_on_a_device() {
    let dir = recorded().await;
    let entries = catalog::scan(&[Path::new("models")]).unwrap();
    let mut record = Folder::at(dir.path()).find("order 1").unwrap().unwrap().record;
    assert!(again(&record, &entries, &Vault::default()).unwrap().holds());
    record.values[3] = f32::from_bits(record.values[3].to_bits() ^ 1);
    let off = again(&record, &entries, &Vault::default()).unwrap();
    assert_eq!((off.different, off.holds()), (1, false));
    record.backend = Backend::Gpu;
    let near = again(&record, &entries, &Vault::default()).unwrap();
    assert!(near.holds() && near.error > 0.0, "{}", near.error);
    record.values[3] *= 1.01;
    assert!(!again(&record, &entries, &Vault::default()).unwrap().holds());
}

#[tokio::test]
async fn an_edited_record_is_shown_and_said_to_be_so_and_not_computed_again() {
    let dir = recorded().await;
    let path = dir.path().join("0000000000000001.segment");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = Folder::at(dir.path()).find("order 1").unwrap().unwrap().at as usize;
    bytes[at + 60] ^= 1; // within the window
    std::fs::write(&path, bytes).unwrap();
    check(&["show", "order 1"], dir.path(), 1);
    check(&["replay", "order 1"], dir.path(), 1);
    check(&["verify"], dir.path(), 1);
}
