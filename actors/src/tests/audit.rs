//! What a system records of its answers, and what it does not.

use parking_lot::Mutex;

use super::remote::{NO_WAY, join};
use super::*;
use crate::audit::{
    Audit, AuditSettings, Group, Head, OnFailure, Record, RowName, Store, StoreError, Survives, is_record,
};
use crate::{Names, Origin, Subject};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Record>>>);

impl Store for Kept {
    fn append(
        &mut self,
        groups: &mut [&mut Group],
        _now: std::time::SystemTime,
    ) -> (usize, Result<(), StoreError>) {
        for body in groups.iter().flat_map(|group| group.bodies()).filter(|body| is_record(body)) {
            self.0.lock().push(Record::decode(body).unwrap());
        }
        (groups.len(), Ok(()))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn head(&self) -> Head {
        Head::default()
    }
}

/// Has a system record, on a thread that ends with the test's process.
fn record(rig: &Rig) -> Kept {
    let kept = Kept::default();
    let audit = Audit::new(AuditSettings {
        node: "here".to_owned(),
        region: "fra".to_owned(),
        on_failure: OnFailure::Refuse,
        survives: Survives::Process,
        sync_every: Duration::from_secs(1),
        queue_bytes_max: 1 << 20,
        record_bytes_max: 1 << 20,
        group_bytes: 64 << 10,
    });
    let (writes, mut store) = (Arc::clone(&audit), kept.clone());
    std::thread::spawn(move || writes.run(&mut store, &ManualClock::new()));
    assert!(rig.system.attach_audit(Arc::clone(&audit)));
    assert!(!rig.system.attach_audit(audit), "once");
    kept
}

#[tokio::test]
async fn an_answer_is_recorded_with_all_that_it_was_made_of() {
    let rig = Rig::cpu(|_| {}).await;
    let kept = record(&rig);
    let ids = rig.system.number(3);
    let row = |name: &str| RowName { series: name.into(), position: None };
    let names = Names { ids: Some(ids), request: "r".to_owned(), rows: ["a", "b", "c"].map(row).to_vec() };
    let request = ForecastRequest {
        origin: Origin { caller: "desk".into(), ..Origin::default() },
        subject: Subject::Named(Box::new(names)),
        ..rig.request(ramp(3))
    };
    let forecast = rig.system.forecast(request).await.unwrap();
    let record = kept.0.lock().pop().unwrap();
    assert_eq!((&record.windows, &record.values), (&ramp(3), &forecast.values));
    assert_eq!((record.ids, &*record.request, &*record.caller), (ids, "r", "desk"));
    assert_eq!(record.rows.len(), 3);
    assert_eq!((&*record.node, record.is_remote), ("here", false));
    assert_eq!(record.digest, forecaster().digest());
}

#[tokio::test]
async fn the_node_that_was_asked_records_and_says_who_computed() {
    let (here, there) = (Rig::cpu(|_| {}).await, Rig::gpu(|_| {}).await);
    assert!(here.system.unload(MODEL, None).await);
    join(&here, Some(&there), NO_WAY);
    let (kept, none) = (record(&here), record(&there));
    let forecast = here.system.forecast(here.request(ramp(3))).await.unwrap();
    let record = kept.0.lock().pop().unwrap();
    assert_eq!((&*record.node, &*record.region, record.is_remote), ("there", "nrt", true));
    assert_eq!((&record.values, &*record.digest), (&forecast.values, forecaster().digest()));
    assert_eq!((record.backend, record.version), (Backend::Gpu, 1));
    assert_eq!(none.0.lock().len(), 0);
}

#[tokio::test]
async fn what_is_made_again_or_refused_is_not_recorded() {
    let rig = Rig::cpu(|_| {}).await;
    let kept = record(&rig);
    rig.system.forecast(ForecastRequest { subject: Subject::Again, ..rig.request(ramp(1)) }).await.unwrap();
    let bad = ForecastRequest { model: "none".to_owned(), ..rig.request(ramp(1)) };
    assert!(rig.system.forecast(bad).await.is_err());
    rig.cpu.set(fake::Mode::Gone);
    assert!(rig.ask().await.is_err());
    assert_eq!(kept.0.lock().len(), 0);
    assert_eq!(rig.system.audit().unwrap().status().queue_bytes, 0);
}
